use proptest::prelude::*;

use super::*;
use crate::change::tests::change;
use crate::row::{RowMemory, judge};

fn drafts(held: &Held, events: &[Change]) -> Drafts {
    let mut drafts = Drafts::new(held);
    // In batches of three: some drafts begin within one.
    events.chunks(3).for_each(|batch| drafts.add(batch));
    drafts.settle_accounts();
    drafts
}

/// A draft, and of each event the place, the job, its hash, and whether it was a dead letter.
type Shape = (String, u64, Vec<(Position, String, u64, bool)>);

/// All that must be the same: of each draft the places, the jobs and the hashes, in the order of
/// delivery.
fn shape(groups: &[Group]) -> Vec<Shape> {
    let event = |event: &Change| {
        (event.position(), event.job_id().to_owned(), event.job_hash(), event.replayed())
    };
    groups
        .iter()
        .map(|group| {
            let events = group.events.iter().map(event).collect();
            (group.draft_id().to_owned(), group.draft_hash(), events)
        })
        .collect()
}

#[test]
fn the_newest_keeps_its_images_and_every_event_its_place_and_job() {
    let events =
        [(0, 5, "a"), (1, 9, "b"), (2, 7, "c")].map(|(n, ms, job)| change((0, n), ms, job, "d"));
    let groups = drafts(&Held::default(), &events).take(9);
    assert_eq!(groups.len(), 1);
    let has_images: Vec<bool> = groups[0].events.iter().map(Change::has_images).collect();
    assert_eq!(has_images, [false, true, false]);
    assert_eq!(groups[0].events[1].images(), events[1].images());
    assert_eq!(groups[0].events[1].urls(), events[1].urls());
    assert_eq!(groups[0].events[0].urls(), [b""; 3]);
    assert!(groups[0].events.iter().all(|event| !event.has_record()));
    assert!(events.iter().all(Change::has_record));
    let record = groups[0].events[2]
        .clone()
        .refuse(crate::reject::Fault::new(crate::reject::Reason::UnknownDraft, "no"), 1);
    assert_eq!((record.record().offset(), record.record().value()), (2, None));
}

#[test]
fn images_of_any_length_take_the_place_of_those_before() {
    let jobs = ["job", "a-much-longer-job", "b", "another-one"];
    let events: Vec<Change> = (0..).zip(jobs).map(|(n, job)| change((0, n), n, job, "d")).collect();
    for count in 1..=events.len() {
        let groups = drafts(&Held::default(), &events[..count]).take(1);
        assert_eq!(groups[0].draft_id(), "d");
        let jobs: Vec<&str> = groups[0].events.iter().map(Change::job_id).collect();
        assert_eq!(jobs, events[..count].iter().map(Change::job_id).collect::<Vec<_>>());
        let newest = &events[count - 1];
        assert_eq!(groups[0].events[count - 1].images(), newest.images());
        assert_eq!(groups[0].events[count - 1].urls(), newest.urls());
    }
}

/// Else each of these drafts would have to be read again.
#[test]
fn where_a_job_comes_again_the_event_that_counts_has_its_images_in_whatever_order_they_come() {
    let stories = [
        // A retry, stamped later.
        vec![change((0, 0), 5, "a", "d"), change((0, 1), 9, "a", "d")],
        // A retry that takes another partition.
        vec![change((0, 0), 5, "a", "d"), change((1, 0), 9, "a", "d")],
        // Stamped earlier, and after another job.
        vec![change((0, 0), 1, "b", "d"), change((0, 1), 5, "a", "d"), change((0, 2), 3, "a", "d")],
    ];
    for story in stories {
        for reversed in [false, true] {
            let mut events = story.clone();
            if reversed {
                events.reverse();
            }
            let groups = drafts(&Held::default(), &events).take(1);
            let judgement = judge(&RowMemory::default(), &groups[0].events);
            let winner = &groups[0].events[judgement.winner.unwrap()];
            assert!(winner.has_images(), "{reversed}: {story:?}");
            assert_eq!(winner.images(), events[judgement.winner.unwrap()].images());
        }
    }
}

#[test]
fn memory_grows_with_the_drafts_and_little_with_their_events_and_all_of_it_comes_back() {
    let held = Held::default();
    let of = |events: i64| -> Vec<Change> {
        let number = |n: i64| change((0, n), n, &format!("job-{n:08}"), &format!("d{}", n % 10));
        (0..events).map(number).collect()
    };
    let few = drafts(&held, &of(10));
    let with_few = held.bytes();
    drop(few);
    assert_eq!(held.bytes(), 0);
    let mut many = drafts(&held, &of(1_010));
    let more = (held.bytes() - with_few) / 1_000;
    assert!((10..30).contains(&more), "{more} bytes an event");
    let mut seen = 0;
    while !many.is_empty() {
        let before = held.bytes();
        seen += many.take(3).len();
        assert!(held.bytes() < before, "what is passed on is no longer kept");
    }
    assert_eq!(seen, 10);
    drop(many);
    assert_eq!(held.bytes(), 0);
}

#[test]
fn a_draft_with_very_many_events_is_not_searched_for_each() {
    let events: Vec<Change> =
        (0..300).map(|n| change((0, n), n, &format!("job-{:030}", n % 150), "d")).collect();
    let mut drafts = drafts(&Held::default(), &events);
    let groups = drafts.take(1);
    assert_eq!(groups[0].events.len(), 300);
    // The later half repeats the jobs of the first; some of that was overlooked, but exactly one
    // event has images.
    assert_eq!(groups[0].events.iter().filter(|event| event.has_images()).count(), 1);
}

#[test]
fn drafts_with_many_events_are_passed_on_a_few_at_a_time() {
    let number = |n: i64| change((0, n), n, &format!("job-{n}"), &format!("d{}", n % 20));
    let events: Vec<Change> = (0..20 * 100).map(number).collect();
    let mut kept = drafts(&Held::default(), &events);
    let mut sizes = Vec::new();
    while !kept.is_empty() {
        sizes.push(kept.take(10).len());
    }
    // Ten drafts may have 160 events, and the one that goes past that is the last.
    assert_eq!(sizes, [2; 10]);
    let mut one = drafts(&Held::default(), &events[..1]);
    assert_eq!(one.take(10).len(), 1);
    assert!(one.is_empty());
}

proptest! {
    #[test]
    fn a_log_is_read_as_it_was_written(
        entries in proptest::collection::vec((any::<(i64, i64, i32, bool)>(), "\\PC{0,60}"), 0..20)
    ) {
        let entry = |((timestamp_ms, offset, partition, replayed), job): &'_ ((i64, i64, i32, bool), String)| {
            (Position { timestamp_ms: *timestamp_ms, offset: *offset, partition: *partition }, job.clone().into_bytes(), *replayed)
        };
        let written: Vec<_> = entries.iter().map(entry).collect();
        let mut bytes = Vec::new();
        for (position, job, replayed) in &written {
            let entry = log::Entry { position: *position, job, replayed: *replayed };
            let before = bytes.len();
            log::append(&mut bytes, &entry);
            prop_assert!(bytes.len() - before <= entry.size_max());
        }
        let read: Vec<_> =
            log::read(&bytes).map(|it| (it.position, it.job.to_owned(), it.replayed)).collect();
        prop_assert_eq!(read, written);
    }

    /// Whatever comes, the groups are those of `latest`, in its order, and a row judges them alike.
    #[test]
    fn compacted_groups_are_judged_as_the_whole_ones(
        draws in proptest::collection::vec((0..4_u8, 0..6_u8, 0..9_i64, 0..3_i32), 0..60),
        at_once in 1..4_usize,
    ) {
        let events: Vec<Change> = (0..).zip(&draws).map(|(offset, (draft, job, ms, partition))| {
            change((*partition, offset), *ms, &format!("j{job}"), &format!("d{draft}"))
        }).collect();
        let mut kept = drafts(&Held::default(), &events);
        let mut compacted = Vec::new();
        while !kept.is_empty() {
            let next = kept.take(at_once);
            prop_assert!(next.len() <= at_once);
            compacted.extend(next);
        }
        let mut whole = crate::latest::group(events);
        for group in &mut whole {
            group.events.sort_by_key(|event| event.position().offset);
        }
        prop_assert_eq!(shape(&compacted), shape(&whole));
        for (compacted, whole) in compacted.iter().zip(&whole) {
            let [compacted, whole] = [compacted, whole].map(|it| judge(&RowMemory::default(), &it.events));
            prop_assert_eq!(compacted, whole);
        }
        for group in &compacted {
            let with_images: Vec<_> = group.events.iter().filter(|event| event.has_images()).collect();
            prop_assert_eq!(with_images.len(), 1);
        }
    }
}
