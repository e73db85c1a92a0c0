use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use differential_dataflow::input::Input as _;
use proptest::collection::vec;
use proptest::prelude::*;
use timely::dataflow::operators::Input as _;
use timely::dataflow::operators::probe::Handle;

use super::cached::{Disagreement, disagreement};
use super::judge::{Kind, Topic, judge};
use super::stored::{StoredRow, canonical_images};
use super::told::{self, told};
use super::{Beginning, Claim, difference};
use crate::accept::sort;
use crate::change::Change;
use crate::record::{Chunk, Position, RawRecord};
use crate::row::{RowMemory, judge as judge_by_rule};
use crate::validate::DraftIdType;

/// One record of a topic.
#[derive(Clone, Copy, Debug)]
struct Published {
    partition: i32,
    offset: i64,
    timestamp_ms: i64,
    draft: u8,
    job: u8,
}

impl Published {
    fn into_chunk(self, chunk: &mut Chunk) {
        let Published { partition, offset, timestamp_ms, draft, job } = self;
        // Two deliveries of one job need not name the same images: only so it is seen which of them
        // counts.
        let url = |style: &str| format!("http://h/{job}/{partition}/{offset}/{style}");
        let value = format!(
            r#"{{"jobId":"j{job}","eventDraftId":"d{draft}","imageUrls":{{"simple":"{}","fancy":"{}","trendy":"{}"}}}}"#,
            url("s"),
            url("f"),
            url("t")
        );
        let value = Some(value.as_bytes());
        let record = RawRecord { partition, offset, timestamp_ms, value, ..RawRecord::default() };
        chunk.push(record, []);
    }

    fn change(self) -> Change {
        let mut chunk = Chunk::default();
        self.into_chunk(&mut chunk);
        sort(chunk, TEXT).changes.pop().unwrap()
    }
}

const TEXT: DraftIdType = DraftIdType::Text { max_chars: None };

/// A topic: of each (partition, draft, job, timestamp), the record with the next offset of its
/// partition.
fn topic(records: &[(i32, u8, u8, i64)]) -> Vec<Published> {
    let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
    let published = records.iter().map(|&(partition, draft, job, timestamp_ms)| {
        let end = ends.entry(partition).or_default();
        *end += 1;
        Published { partition, offset: *end - 1, timestamp_ms, draft, job }
    });
    published.collect()
}

/// A row as the pipeline keeps it.
#[derive(Clone, Default)]
struct Row {
    memory: RowMemory,
    winner: Option<Change>,
}

impl Row {
    fn take(&mut self, epoch: &[Change]) {
        let judgement = judge_by_rule(&self.memory, epoch);
        if let Some(winner) = judgement.winner {
            self.winner = Some(epoch[winner].clone());
        }
        self.memory = judgement.memory.unwrap_or(std::mem::take(&mut self.memory));
    }

    fn held(&self) -> StoredRow {
        let positions = self.memory.older().flat_map(|known| {
            let Position { timestamp_ms, offset, partition } = known.position;
            [timestamp_ms, offset, i64::from(partition)]
        });
        // In another order, as PostgreSQL gives them back.
        let images = self.winner.as_ref().map(|winner| {
            let images: serde_json::Value = serde_json::from_str(&winner.images()).unwrap();
            images.to_string()
        });
        StoredRow {
            applied: self.memory.applied,
            job_id: self.winner.as_ref().map(|winner| winner.job_id().to_owned()),
            images,
            older_jobs: self.memory.older().map(|known| known.job_id.clone()).collect(),
            older_positions: positions.collect(),
        }
    }
}

/// The rows that the events give, taken one by one.
fn rows(events: &[Published]) -> BTreeMap<String, Row> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for event in events {
        let change = event.change();
        rows.entry(change.draft_id().to_owned()).or_default().take(&[change]);
    }
    rows
}

/// What comes in one round: events, and what the table says otherwise than before.
type OneRound = (Vec<Published>, Vec<(Claim, isize)>);

/// Feeds the rounds to so many workers; what differs at the end, and what the workers hold.
fn run(workers: usize, rounds: &[OneRound]) -> (BTreeMap<Claim, isize>, told::Counts) {
    let found: Arc<Mutex<BTreeMap<Claim, isize>>> = Arc::default();
    let all_held: Arc<Mutex<told::Counts>> = Arc::default();
    let (changes, held_out, rounds) = (Arc::clone(&found), Arc::clone(&all_held), rounds.to_vec());
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let held = Rc::new(RefCell::new(told::Counts::default()));
        let (index, peers) = (worker.index(), worker.peers());
        let probe = Handle::new();
        let (mut chunks, mut claims) = worker.dataflow(|scope| {
            let (chunks_in, chunks) = scope.new_input::<Vec<Chunk>>();
            let (claims_in, claims) = scope.new_collection::<Claim, isize>();
            let told = told(chunks, TEXT, &held);
            let changes = Arc::clone(&changes);
            difference(told, claims)
                .inspect(move |(claim, _round, diff)| {
                    *changes.lock().unwrap().entry(*claim).or_default() += diff;
                })
                .probe_with(&probe);
            (chunks_in, claims_in)
        });
        for (round, (events, said)) in (1..).zip(&rounds) {
            for (number, event) in events.iter().enumerate() {
                if usize::try_from(event.partition).unwrap() % peers == index {
                    let mut chunk = Chunk::default();
                    event.into_chunk(&mut chunk);
                    chunks.send(chunk);
                }
                if number % 7 == 0 {
                    worker.step();
                }
            }
            let mine = said.iter().skip(index).step_by(peers);
            mine.for_each(|(claim, diff)| claims.update(*claim, *diff));
            chunks.advance_to(round);
            claims.advance_to(round);
            claims.flush();
            worker.step_while(|| probe.less_than(&round));
        }
        let told::Counts { events, drafts, jobs } = *held.borrow();
        let mut all = held_out.lock().unwrap();
        all.events += events;
        all.drafts += drafts;
        all.jobs += jobs;
    });
    guards.unwrap().join().into_iter().for_each(|ended| ended.unwrap());
    let mut found = found.lock().unwrap().clone();
    found.retain(|_, count| *count != 0);
    let held = *all_held.lock().unwrap();
    (found, held)
}

fn add(to: &mut BTreeMap<Claim, isize>, claim: Option<Claim>, diff: isize) {
    if let Some(claim) = claim {
        *to.entry(claim).or_default() += diff;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// In every round, the collection is what a comparison of two lists finds.
    #[test]
    fn the_difference_is_that_of_a_naive_comparison(
        // The draft decides the partition, as its key does.
        records in vec((0_u8..5, 0_u8..24, 0_i64..12), 1..120),
        cuts in vec(0_usize..120, 0..3),
        stale in vec(0_usize..120, 5),
        workers in 1_usize..4,
    ) {
        let records: Vec<_> = records.into_iter()
            .map(|(draft, job, time)| (i32::from(draft % 3), draft, job, time)).collect();
        let events = topic(&records);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(events.len())).collect();
        cuts.extend([0, events.len()]);
        cuts.sort_unstable();
        let (beginning, mut rounds, mut said) = (Beginning::new(), Vec::new(), BTreeMap::new());
        for ends in cuts.windows(2) {
            // Each row has seen all events up to some moment, but for what that round leaves it
            // behind.
            let mut now = BTreeMap::new();
            for (draft, behind) in stale.iter().enumerate() {
                let seen = ends[1].saturating_sub(behind % 7);
                let id = format!("d{draft}");
                let row = rows(&events[..seen]).remove(&id).unwrap_or_default();
                add(&mut now, row.held().claim(&id, &beginning), 1);
            }
            let mut changes = now.clone();
            said.iter().for_each(|(claim, count): (&Claim, &isize)| add(&mut changes, Some(*claim), -count));
            rounds.push((events[ends[0]..ends[1]].to_vec(), changes.into_iter().collect()));
            said = now;
        }
        let mut naive = BTreeMap::new();
        for (id, row) in rows(&events) {
            add(&mut naive, row.held().claim(&id, &beginning), 1);
        }
        said.into_iter().for_each(|(claim, count)| add(&mut naive, Some(claim), -count));
        naive.retain(|_, count| *count != 0);
        prop_assert_eq!(run(workers, &rounds).0, naive);
    }

    /// Whatever the order between the partitions, wherever epochs end, whatever is forgotten: what
    /// the pipeline may leave in a row is no difference.
    #[test]
    fn every_row_that_the_rule_can_give_is_accepted(
        records in vec((0_i32..3, 0_u8..30, 0_i64..40), 0..60),
        order in vec(0_i32..3, 60),
        epochs in vec(1_usize..6, 60),
        unsettled in 0_usize..20,
        dead in vec(any::<bool>(), 60),
    ) {
        let records: Vec<_> = records.into_iter()
            .map(|(partition, job, time)| (partition, 0, job, time)).collect();
        let events: Vec<Change> = topic(&records).into_iter().map(Published::change).collect();
        let mut left: Vec<usize> = (0..events.len()).collect();
        let mut delivered = Vec::new();
        for partition in order {
            let next = left.iter().position(|index| events[*index].position().partition == partition);
            delivered.extend(next.map(|next| left.remove(next)));
        }
        delivered.extend(left);
        let settled: HashSet<usize> =
            delivered[..delivered.len().saturating_sub(unsettled)].iter().copied().collect();
        // Of what is not settled, half has reached the row.
        let reached = delivered.len() - delivered.len().min(unsettled) / 2;
        let mut row = Row::default();
        let mut rest = &delivered[..reached];
        for size in epochs {
            let (epoch, after) = rest.split_at(size.min(rest.len()));
            // Some of those that need not have reached the row are rejected.
            let taken = epoch.iter().filter(|index| settled.contains(index) || !dead[**index]);
            let epoch: Vec<Change> = taken.map(|index| events[*index].clone()).collect();
            row.take(&epoch);
            rest = after;
        }
        prop_assume!(rest.is_empty());
        let must: Vec<bool> = (0..events.len()).map(|index| settled.contains(&index)).collect();
        let topic = Topic { beginning: &Beginning::new(), oldest_ms: 0, is_gap: &|_, _| false };
        prop_assert_eq!(judge(&row.held(), &events, &must, &topic), None, "{:?}", row.memory);
    }
}

/// Events of one draft in partition 0, one a millisecond, and the row that they give.
fn story(jobs: u8) -> (Vec<Change>, StoredRow) {
    let events = topic(&(0..jobs).map(|job| (0, 0, job, i64::from(job))).collect::<Vec<_>>());
    let row = rows(&events).remove("d0").unwrap_or_default();
    (events.into_iter().map(Published::change).collect(), row.held())
}

fn kind_of(held: &StoredRow, events: &[Change], first: i64) -> Option<Kind> {
    let beginning = Beginning::from([(0, first)]);
    let topic = Topic { beginning: &beginning, oldest_ms: first, is_gap: &|_, _| false };
    judge(held, events, &vec![true; events.len()], &topic).map(|finding| finding.kind)
}

#[test]
fn whatever_is_changed_in_a_row_is_found_and_named() {
    let (events, right) = story(20);
    assert_eq!(kind_of(&right, &events, 0), None);
    let changed = |change: &dyn Fn(&mut StoredRow)| {
        let mut held = right.clone();
        change(&mut held);
        // What names a suspect sees it as well.
        let claim = |held: &StoredRow| held.claim("d0", &Beginning::new());
        assert_ne!(claim(&held), claim(&right));
        kind_of(&held, &events, 0)
    };
    assert_eq!(changed(&|held| held.images = None), Some(Kind::ImagesDiffer));
    assert_eq!(changed(&|held| held.images = Some("{}".to_owned())), Some(Kind::ImagesDiffer));
    assert_eq!(changed(&|held| held.job_id = Some("x".to_owned())), Some(Kind::JobDiffers));
    assert_eq!(changed(&|held| held.older_jobs[3].push('x')), Some(Kind::MemoryDiffers));
    assert_eq!(changed(&|held| held.older_jobs.clear()), Some(Kind::MemoryDiffers));
    assert_eq!(changed(&|held| held.older_positions[3] += 1), Some(Kind::MemoryDiffers));
    assert_eq!(changed(&|held| *held = story(19).1), Some(Kind::RowBehind));
    assert_eq!(changed(&|held| *held = StoredRow::default()), Some(Kind::RowBehind));
    let ahead = |held: &mut StoredRow| held.applied.as_mut().unwrap().offset = 99;
    assert_eq!(changed(&ahead), Some(Kind::UnknownEvent));
    assert_eq!(kind_of(&right, &[], 0), Some(Kind::UnknownEvent), "no event at all");
}

#[test]
fn the_second_delivery_of_a_job_must_not_be_in_the_row() {
    let events: Vec<Change> = topic(&[(0, 0, 1, 1), (0, 0, 2, 2), (0, 0, 1, 3)])
        .into_iter()
        .map(Published::change)
        .collect();
    let mut row = Row::default();
    row.take(&events[1..]);
    assert_eq!(kind_of(&row.held(), &events, 0), Some(Kind::DuplicateApplied));
    row = Row::default();
    row.take(&events);
    assert_eq!(kind_of(&row.held(), &events, 0), None);
}

#[test]
fn what_the_topic_has_forgotten_is_no_difference() {
    let (events, row) = story(20);
    for first in 0..=20 {
        let at = usize::try_from(first).unwrap();
        assert_eq!(kind_of(&row, &events[at..], first), None, "the topic begins at {first}");
    }
    assert_eq!(row.claim("d0", &Beginning::from([(0, 20)])), None, "nothing is left to compare");
    // A row that is behind what the topic still has is behind.
    assert_eq!(kind_of(&story(15).1, &events[18..], 18), Some(Kind::RowBehind));
}

#[test]
fn an_event_that_can_have_been_in_the_topic_is_no_unknown_one() {
    let (_, row) = story(3);
    let kind = |oldest_ms, is_gap: &dyn Fn(i32, i64) -> bool| {
        let topic = Topic { beginning: &Beginning::from([(0, 0)]), oldest_ms, is_gap };
        judge(&row, &[], &[], &topic).map(|finding| finding.kind)
    };
    assert_eq!(kind(0, &|_, _| false), Some(Kind::UnknownEvent));
    // The topic was made again, or compacted.
    assert_eq!(kind(3, &|_, _| false), None);
    assert_eq!(kind(0, &|partition, offset| (partition, offset) <= (0, 2)), None);
    // Only the newest is not known: with what the row remembers, nobody can say what it should
    // hold.
    assert_eq!(kind(2, &|_, _| false), Some(Kind::UnknownEvent));
}

#[test]
fn the_memory_grows_with_the_drafts_and_not_with_the_events() {
    let held = |events: i64| {
        let records: Vec<_> = (0..events)
            .map(|number| {
                (
                    0,
                    u8::try_from(number % 3).unwrap(),
                    u8::try_from(number / 3 % 251).unwrap(),
                    number,
                )
            })
            .collect();
        run(2, &[(topic(&records), Vec::new())]).1
    };
    let (few, many) = (held(3 * 20), held(3 * 2_000));
    assert_eq!((few.events, many.events), (60, 6_000));
    assert_eq!((few.drafts, few.jobs), (3, 3 * 16));
    assert_eq!((many.drafts, many.jobs), (few.drafts, few.jobs));
}

#[test]
fn a_cached_draft_agrees_if_it_says_what_the_row_says() {
    let row = r#"{"id":7,"content_images":{"simple":"a"},"updated_at":"2026-11-22T15:50:36.5+00:00","title":null}"#;
    let agrees = |cached: &str| assert_eq!(disagreement(cached, row), None, "{cached}");
    agrees(row);
    agrees(r#"{"content_images": {"simple": "a"}, "more": 1, "id": "7"}"#);
    agrees(r#"{"content_images":{"simple":"a"},"updated_at":"2026-11-22T16:50:36.500+01:00"}"#);
    let column = |cached: &str, name: &str, is_older| {
        let column = Disagreement::Column { name: name.to_owned(), is_older };
        assert_eq!(disagreement(cached, row), Some(column), "{cached}");
    };
    column(r#"{"content_images":null}"#, "content_images", false);
    column("{}", "content_images", false);
    column(
        r#"{"content_images":{},"updated_at":"2026-11-22T15:50:36+00:00"}"#,
        "content_images",
        true,
    );
    column(r#"{"content_images":{"simple":"a"},"title":"x"}"#, "title", false);
    for hostile in ["", "null", "[]", "cached", "{", "\u{0}"] {
        assert_eq!(disagreement(hostile, row), Some(Disagreement::NotADraft), "{hostile}");
    }
    let without = r#"{"content_images":null}"#;
    assert_eq!(disagreement("{}", without), None, "no images, and none cached");
}

#[test]
fn images_are_compared_whatever_the_order_of_their_styles() {
    let in_order = r#"{"simple":"a","fancy":"b","trendy":"c"}"#;
    let other = r#"{"fancy": "b", "simple": "a", "trendy": "c"}"#;
    assert_eq!(canonical_images(other).as_deref(), Some(in_order));
    for not_images in ["{}", "null", r#"{"simple":"a","fancy":"b","trendy":"c","x":1}"#] {
        assert_eq!(canonical_images(not_images), None);
    }
}
