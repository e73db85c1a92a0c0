//! The rule of the row: what a draft's row remembers, and how it judges the events that reach it.
//!
//! Everything about a draft is decided against its own row, because the row is the only memory that
//! survives a crash, is shared by all processes, and changes in the same transaction as the images.

use smallvec::{SmallVec, smallvec};

use crate::change::Change;
use crate::outcome::{Outcome, Outcomes};
use crate::planted::{Bug, is_planted};
use crate::record::Position;

/// How many jobs a row remembers. A duplicate older than those may be taken for a new event.
pub const JOBS_REMEMBERED: usize = 16;

/// A job that has reached the row, applied or superseded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remembered {
    /// The position of the job's event.
    pub position: Position,
    /// The job.
    pub job_id: String,
}

/// What a draft's row remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowMemory {
    /// The position of the event whose images the row holds.
    pub applied: Option<Position>,
    /// The newest jobs that reached the row, newest first, at most [`JOBS_REMEMBERED`].
    pub recent: Vec<Remembered>,
}

impl RowMemory {
    /// The memory of a row that holds the images of that event, its place and its job, and
    /// remembers these older ones besides.
    pub fn new(applied: Option<(Position, Option<String>)>, older: Vec<Remembered>) -> RowMemory {
        let Some((position, job_id)) = applied else {
            return RowMemory { applied: None, recent: older };
        };
        let current = job_id.map(|job_id| Remembered { position, job_id });
        RowMemory { applied: Some(position), recent: current.into_iter().chain(older).collect() }
    }

    /// What the row remembers besides the job whose images it holds.
    pub fn older(&self) -> impl Iterator<Item = &Remembered> {
        self.recent.iter().filter(|known| Some(known.position) != self.applied)
    }
}

/// What becomes of some events of one draft, and of its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// One outcome for each event, in the order of the events.
    pub outcomes: Outcomes,
    /// The event whose images the row is to hold from now on; `None` leaves the images alone.
    pub winner: Option<usize>,
    /// What the row is to remember; `None` when it is what it remembers already.
    pub memory: Option<RowMemory>,
}

/// Judges the events of one draft, all that one epoch has, against its row.
///
/// Of the events of one job only the original (`originals`) counts, the others are duplicates. Of
/// the originals whose job the row does not know, the newest is applied if it is newer than what
/// the row holds; the rest is superseded. All their jobs are remembered, so that a late duplicate
/// of a superseded one cannot bring old images back.
pub fn judge(row: &RowMemory, events: &[Change]) -> Judgement {
    let mut outcomes: Outcomes = smallvec![Outcome::Duplicate; events.len()];
    let mut fresh = originals(events);
    fresh.retain(|&event| !is_known(row, &events[event]) || is_planted(Bug::DedupeInMemoryOnly));
    for &event in &fresh {
        outcomes[event] = Outcome::Superseded;
    }
    let winner = fresh
        .iter()
        .copied()
        .max_by_key(|&event| events[event].position())
        .filter(|&event| is_newer(events[event].position(), row.applied));
    if let Some(event) = winner {
        outcomes[event] = Outcome::Applied;
    }
    let memory = (!fresh.is_empty()).then(|| RowMemory {
        applied: winner.map(|event| events[event].position()).or(row.applied),
        recent: remember(&row.recent, fresh.iter().map(|&event| &events[event])),
    });
    // Events older than all that a full row remembers leave it as it is.
    let memory = memory.filter(|memory| memory != row);
    Judgement { outcomes, winner, memory }
}

/// [`judge`], but the row's images are written once more when the event that they came from is
/// among these: for a row that somebody else has changed.
pub fn judge_anew(row: &RowMemory, events: &[Change]) -> Judgement {
    let mut judgement = judge(row, events);
    let current = events.iter().position(|event| Some(event.position()) == row.applied);
    if let (None, Some(event)) = (judgement.winner, current) {
        judgement.outcomes[event] = Outcome::Applied;
        judgement.winner = Some(event);
        judgement.memory.get_or_insert_with(|| row.clone());
    }
    judgement
}

/// Whether the row remembers the job of an event. Mostly it has it from that very event, and a
/// place is compared without a look at a text that is far away in the memory.
fn is_known(row: &RowMemory, event: &Change) -> bool {
    let is_its_job = |known: &&Remembered| known.job_id == event.job_id();
    let at_its_place = row.recent.iter().find(|known| known.position == event.position());
    at_its_place.filter(is_its_job).or_else(|| row.recent.iter().find(is_its_job)).is_some()
}

/// Whether an event at that place is newer than what the row holds.
pub fn is_newer(event: Position, applied: Option<Position>) -> bool {
    if is_planted(Bug::GuardByOffset) {
        return Some(event.offset) > applied.map(|applied| applied.offset);
    }
    Some(event) > applied || is_planted(Bug::NoVersionGuard)
}

/// The event that stands for its job, for each job among the events of one draft, as indices.
///
/// Within a partition it is the one delivered first, whatever the timestamps say: so the choice
/// does not depend on where one epoch ends and the next begins. Between partitions, which have no
/// order of delivery, it is the oldest.
fn originals(events: &[Change]) -> Vec<usize> {
    // The hash first: it tells nearly all jobs apart, and stands in the event itself, while a text
    // may be far away in the memory.
    let mut hashes: SmallVec<[u64; 16]> = events.iter().map(Change::job_hash).collect();
    hashes.sort_unstable();
    if hashes.windows(2).all(|pair| pair[0] != pair[1]) {
        return (0..events.len()).collect();
    }
    let job = |a: &Change, b: &Change| {
        a.job_hash().cmp(&b.job_hash()).then_with(|| a.job_id().cmp(b.job_id()))
    };
    let partition = |event: &Change| event.position().partition;
    let delivery = |event: &Change| (event.position().partition, event.position().offset);
    let mut chosen: Vec<usize> = (0..events.len()).collect();
    chosen.sort_unstable_by(|&a, &b| {
        let (a, b) = (&events[a], &events[b]);
        job(a, b).then_with(|| delivery(a).cmp(&delivery(b)))
    });
    chosen.dedup_by(|b, a| {
        let (a, b) = (&events[*a], &events[*b]);
        partition(a) == partition(b) && job(a, b).is_eq()
    });
    chosen.sort_unstable_by(|&a, &b| {
        let (a, b) = (&events[a], &events[b]);
        job(a, b).then_with(|| a.position().cmp(&b.position()))
    });
    chosen.dedup_by(|b, a| job(&events[*a], &events[*b]).is_eq());
    chosen
}

/// The newest jobs of those that the row knows and those that are new to it. A draft may have
/// thousands of events in an epoch: only what is remembered is copied.
fn remember<'a>(
    recent: &'a [Remembered],
    fresh: impl Iterator<Item = &'a Change>,
) -> Vec<Remembered> {
    let known = recent.iter().map(|known| (known.position, known.job_id.as_str()));
    let fresh = fresh.map(|change| (change.position(), change.job_id()));
    let mut jobs: Vec<(Position, &str)> = known.chain(fresh).collect();
    if jobs.len() > JOBS_REMEMBERED {
        jobs.select_nth_unstable_by(JOBS_REMEMBERED, |a, b| b.cmp(a));
        jobs.truncate(JOBS_REMEMBERED);
    }
    jobs.sort_unstable_by(|a, b| b.cmp(a));
    let copy =
        |(position, job_id): (Position, &str)| Remembered { position, job_id: job_id.to_owned() };
    jobs.into_iter().map(copy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::tests::change;
    use Outcome::{Applied, Duplicate, Superseded};

    /// An event of partition 0.
    fn event(offset: i64, timestamp_ms: i64, job: &str) -> Change {
        change((0, offset), timestamp_ms, job, "d")
    }

    /// The row that has judged these events, one epoch each.
    fn row_after(events: &[Change]) -> RowMemory {
        events.iter().fold(RowMemory::default(), |row, event| {
            judge(&row, std::slice::from_ref(event)).memory.unwrap_or(row)
        })
    }

    fn jobs(row: &RowMemory) -> Vec<&str> {
        row.recent.iter().map(|known| known.job_id.as_str()).collect()
    }

    fn outcomes(row: &RowMemory, events: &[Change]) -> Vec<Outcome> {
        judge(row, events).outcomes.to_vec()
    }

    #[test]
    fn the_first_event_is_applied_whatever_its_time() {
        let event = change((0, 0), -1, "a", "d");
        let judgement = judge(&RowMemory::default(), std::slice::from_ref(&event));
        assert_eq!((judgement.outcomes.to_vec(), judgement.winner), (vec![Applied], Some(0)));
        assert_eq!(judgement.memory.unwrap().applied, Some(event.position()));
    }

    #[test]
    fn the_newest_wins_and_every_job_is_remembered() {
        let events = [event(0, 5, "a"), event(1, 7, "b"), event(2, 6, "c")];
        let judgement = judge(&RowMemory::default(), &events);
        assert_eq!(*judgement.outcomes, [Superseded, Applied, Superseded]);
        assert_eq!(jobs(&judgement.memory.unwrap()), ["b", "c", "a"]);
    }

    #[test]
    fn an_older_event_is_remembered_but_changes_no_images() {
        let row = row_after(&[event(0, 5, "a")]);
        let judgement = judge(&row, &[event(1, 4, "b")]);
        assert_eq!((judgement.outcomes.to_vec(), judgement.winner), (vec![Superseded], None));
        let memory = judgement.memory.unwrap();
        assert_eq!((memory.applied, jobs(&memory)), (row.applied, vec!["a", "b"]));
    }

    #[test]
    fn a_job_older_than_all_that_a_full_row_remembers_writes_nothing() {
        let events: Vec<Change> = (0..17).map(|n| event(n, n + 5, &format!("j{n}"))).collect();
        let row = row_after(&events);
        let judgement = judge(&row, &events[..1]);
        assert_eq!((judgement.outcomes.to_vec(), judgement.memory), (vec![Superseded], None));
    }

    #[test]
    fn a_known_job_is_a_duplicate_and_nothing_is_written() {
        let row = row_after(&[event(0, 5, "a"), event(1, 4, "b")]);
        let judgement = judge(&row, &[event(2, 9, "a"), event(3, 9, "b")]);
        assert_eq!(*judgement.outcomes, [Duplicate, Duplicate]);
        assert_eq!((judgement.winner, judgement.memory), (None, None));
    }

    #[test]
    fn an_event_at_the_very_place_of_the_applied_one_is_not_newer() {
        let row = RowMemory { applied: Some(event(0, 5, "a").position()), recent: vec![] };
        assert_eq!(outcomes(&row, &[event(0, 5, "a")]), [Superseded]);
    }

    #[test]
    fn within_a_partition_the_first_delivery_stands_for_its_job_even_if_it_is_stamped_later() {
        let events = [event(1, 3, "a"), event(0, 8, "a"), event(2, 5, "b")];
        assert_eq!(outcomes(&RowMemory::default(), &events), [Duplicate, Applied, Superseded]);
    }

    #[test]
    fn between_partitions_the_oldest_stands_for_its_job() {
        let events = [change((0, 5), 8, "a", "d"), change((1, 0), 3, "a", "d")];
        assert_eq!(outcomes(&RowMemory::default(), &events), [Duplicate, Applied]);
    }

    /// Found by the comparison with the model: a second delivery, stamped early, stood for its job
    /// because another partition had the job as well.
    #[test]
    fn a_second_delivery_never_stands_for_its_job_whatever_other_partitions_have() {
        let first = change((0, 0), 5, "a", "d");
        let (later, second) = (change((1, 0), 7, "a", "d"), change((1, 1), 3, "a", "d"));
        assert_eq!(
            outcomes(&RowMemory::default(), &[first, later, second]),
            [Applied, Duplicate, Duplicate]
        );
    }

    #[test]
    fn judged_anew_the_event_that_the_row_has_is_written_again_but_nothing_older() {
        let events = [event(0, 5, "a"), event(1, 7, "b"), event(2, 9, "b")];
        let row = row_after(&events[..2]);
        let judgement = judge_anew(&row, &events);
        assert_eq!(*judgement.outcomes, [Duplicate, Applied, Duplicate]);
        assert_eq!((judgement.winner, judgement.memory), (Some(1), Some(row.clone())));
        // Its job alone is not it, and an older event has lost its turn.
        for others in [&events[..1], &events[2..]] {
            assert_eq!(judge_anew(&row, others), judge(&row, others));
        }
        // A newer one is applied as ever.
        let newer = [event(1, 7, "b"), event(3, 8, "c")];
        assert_eq!(judge_anew(&row, &newer), judge(&row, &newer));
        assert_eq!(*judge_anew(&row, &newer).outcomes, [Duplicate, Applied]);
        // What is older and new to the row is remembered besides.
        let older = [event(1, 7, "b"), event(3, 6, "c")];
        let judgement = judge_anew(&row, &older);
        assert_eq!(*judgement.outcomes, [Applied, Superseded]);
        assert_eq!(jobs(&judgement.memory.unwrap()), ["b", "c", "a"]);
    }

    #[test]
    fn sixteen_jobs_are_remembered_the_newest_by_position() {
        let mut events: Vec<Change> = (0..20).map(|n| event(n, n, &format!("j{n}"))).collect();
        let in_order = row_after(&events);
        assert_eq!(jobs(&in_order)[..2], ["j19", "j18"]);
        assert_eq!(in_order.recent.len(), JOBS_REMEMBERED);
        events.reverse();
        assert_eq!(row_after(&events).recent, in_order.recent, "old jobs push out no new ones");
        assert_eq!(outcomes(&in_order, &[event(30, 4, "j4")]), [Duplicate]);
        assert_eq!(outcomes(&in_order, &[event(30, 3, "j3")]), [Superseded], "j3 is forgotten");
    }
}
