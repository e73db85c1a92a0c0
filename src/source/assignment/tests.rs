//! Partitions that come and go while servers do not answer.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

use dataflows::record::RawRecord;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::*;
use crate::bulk::Why;
use crate::commit::Commits;
use crate::ingest::Entrance;
use crate::progress::progress;
use crate::shutdown::Cause;
use crate::source::{Source, SourceError, Turn, Until};

/// Virtual time, and servers that answer when a test lets them.
struct Fake {
    /// After which the coordinator answers, and after which a signal comes.
    coordinator_after: Duration,
    stop_after: Duration,
    /// What the leaders say; those that are not here say nothing.
    leaders: RefCell<BTreeMap<i32, (i64, i64)>>,
    taken_up: RefCell<Vec<(Offsets, Offsets)>>,
    paused: RefCell<BTreeSet<i32>>,
    sought: RefCell<Vec<Offsets>>,
    /// How many offsets of each partition are those of an open transaction.
    open: i64,
    /// Partitions in which there are offsets left, and no records.
    is_blank: Vec<i32>,
    began: Instant,
    asked: Cell<usize>,
    stop: Arc<AtomicBool>,
    is_lost: Cell<bool>,
}

const COMMITTED: [(i32, Option<i64>); 3] = [(0, Some(5)), (1, Some(7)), (2, None)];

const LATER: Duration = Duration::from_secs(3_600);

impl Fake {
    /// Only partition 0 has a leader.
    fn new() -> Fake {
        Fake {
            coordinator_after: Duration::ZERO,
            stop_after: LATER,
            leaders: RefCell::new([(0, (0, 9))].into()),
            taken_up: RefCell::default(),
            paused: RefCell::default(),
            sought: RefCell::default(),
            open: 0,
            is_blank: Vec::new(),
            began: Instant::now(),
            asked: Cell::new(0),
            stop: Arc::default(),
            is_lost: Cell::default(),
        }
    }

    fn state(&self, on_outage: OnOutage) -> (State, Commits) {
        let (queue, _) = crossbeam_channel::unbounded();
        let waker = dataflows::peers::Waker::of_nobody();
        let (progress, watch) = progress();
        let run = Run { on_outage, ..crate::config::Config::default().run };
        let entrances = vec![Entrance { queue, waker }];
        let ingest = Ingest::new(entrances, run.clone(), Arc::new(progress), watch);
        let (committer, commits) = Committer::new();
        (State::new(ingest, committer, Arc::default(), Arc::clone(&self.stop), &run), commits)
    }

    fn no_answer<T>(&self) -> KafkaResult<T> {
        self.asked.set(self.asked.get() + 1);
        self.sleep(Duration::from_secs(5));
        Err(KafkaError::OffsetFetch(RDKafkaErrorCode::OperationTimedOut))
    }
}

impl Client for Fake {
    fn pause(&self, partitions: &[i32]) -> KafkaResult<()> {
        self.paused.borrow_mut().extend(partitions);
        Ok(())
    }

    fn resume(&self, partitions: &[i32]) -> KafkaResult<()> {
        self.paused.borrow_mut().retain(|it| !partitions.contains(it));
        Ok(())
    }

    fn take_up_anew(&self, all: &Offsets, moved: &Offsets) -> KafkaResult<()> {
        self.taken_up.borrow_mut().push((all.clone(), moved.clone()));
        Ok(())
    }

    fn go_on_from(&self, offsets: &Offsets) -> KafkaResult<()> {
        self.sought.borrow_mut().push(offsets.clone());
        Ok(())
    }

    fn commit(&self, _: &Offsets) -> KafkaResult<()> {
        // As long as a session of one that is frozen.
        self.sleep(Duration::from_secs(45));
        Ok(())
    }

    fn committed(&self, partitions: &[i32]) -> KafkaResult<Vec<(i32, Option<i64>)>> {
        if self.began.elapsed() < self.coordinator_after {
            return self.no_answer();
        }
        Ok(COMMITTED.into_iter().filter(|(partition, _)| partitions.contains(partition)).collect())
    }

    fn watermarks(&self, partition: i32) -> KafkaResult<(i64, i64)> {
        let told = self.leaders.borrow().get(&partition).copied();
        told.map_or_else(|| self.no_answer(), Ok)
    }

    fn end(&self, partition: i32) -> KafkaResult<i64> {
        Ok(self.watermarks(partition)?.1 + self.open)
    }

    fn partitions(&self) -> KafkaResult<Vec<i32>> {
        Ok(all_of_them())
    }

    fn has_records(&self, partition: i32, _: Option<i64>, _: i64) -> KafkaResult<bool> {
        Ok(!self.is_blank.contains(&partition))
    }

    fn is_lost(&self) -> bool {
        self.is_lost.get()
    }

    fn sleep(&self, time: Duration) {
        let mut advanced = pin!(tokio::time::advance(time));
        let _is_later = advanced.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if self.began.elapsed() >= self.stop_after {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

fn record(partition: i32, offset: i64) -> RawRecord<'static> {
    RawRecord { partition, offset, ..RawRecord::default() }
}

fn all_of_them() -> Vec<i32> {
    COMMITTED.map(|(partition, _)| partition).to_vec()
}

#[tokio::test(start_paused = true)]
async fn a_partition_without_a_leader_begins_where_the_group_stands_and_holds_up_no_other() {
    let client = Fake::new();
    let (mut state, _commits) = client.state(OnOutage::Wait);

    let starts = state.assigned(&client, &all_of_them()).unwrap();

    assert_eq!(starts, Some(vec![(0, 5), (1, 7), (2, EARLIEST)]));
    assert!(client.began.elapsed() < 2 * START, "{:?}", client.began.elapsed());
    assert!(!state.abort.is_raised());
    assert_eq!(state.backlog(), 4, "as far as it is known");
    let at_zero = PartitionProgress { position: 0, committed: 0, end: 0, is_in_bulk: false };
    assert_eq!(state.places()[&2], at_zero);
    state.reached_end(0);
    assert!(!state.caught_up(&client), "nobody knows where the others end");
    [1, 2].into_iter().for_each(|partition| state.reached_end(partition));
    assert!(state.caught_up(&client));
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_is_away_for_long_costs_no_partition() {
    let client = Fake { coordinator_after: 10 * START, ..Fake::new() };
    let (mut state, _commits) = client.state(OnOutage::Wait);
    let turns = state.ingest.turns();

    assert!(state.assigned(&client, &all_of_them()).unwrap().is_some());

    assert!(!state.abort.is_raised(), "it is waited for");
    assert!(turns.load(Ordering::Relaxed) > 20, "the thread goes on, and is seen to");
}

#[tokio::test(start_paused = true)]
async fn a_signal_is_heard_while_nobody_answers() {
    let stop_after = Duration::from_secs(8);
    let client = Fake { coordinator_after: LATER, stop_after, ..Fake::new() };
    let (mut state, _commits) = client.state(OnOutage::Wait);
    assert_eq!(state.assigned(&client, &all_of_them()).unwrap(), None);

    let client = Fake { stop_after, ..Fake::new() };
    let (mut state, _commits) = client.state(OnOutage::Wait);
    assert!(state.assigned(&client, &all_of_them()).unwrap().is_some());
    assert!(client.began.elapsed() < START);
}

#[tokio::test(start_paused = true)]
async fn with_on_outage_exit_a_coordinator_that_is_away_ends_the_run() {
    let client = Fake { coordinator_after: LATER, ..Fake::new() };
    let (mut state, _commits) = client.state(OnOutage::Exit);
    assert_eq!(state.assigned(&client, &all_of_them()).unwrap(), None);
    let Some(Cause::Outage(message)) = state.abort.cause() else { panic!("it goes on") };
    assert!(message.starts_with("kafka is out: "), "{message}");
}

#[tokio::test(start_paused = true)]
async fn between_two_assignments_nothing_is_caught_up_with() {
    let client = Fake::new();
    let (mut state, _commits) = client.state(OnOutage::Wait);
    state.assigned(&client, &all_of_them()).unwrap();
    let mut going = state.hand_over(&client, all_of_them());
    while going.turn(&mut state, &client).is_some() {}
    assert!(!state.caught_up(&client), "what comes next is not known yet");
    state.assigned(&client, &[]).unwrap();
}

/// In a rebalance that is not over yet, it has no partitions; and those of others may come to it.
#[tokio::test(start_paused = true)]
async fn without_partitions_a_member_has_caught_up_when_the_group_has() {
    for (leaders, is_blank, caught_up) in [
        ([(0, (0, 5)), (1, (0, 7)), (2, (0, 0))], vec![], true),
        ([(0, (0, 5)), (1, (0, 8)), (2, (0, 0))], vec![], false),
        ([(0, (0, 5)), (1, (0, 8)), (2, (0, 0))], vec![1], true),
        ([(0, (0, 5)), (1, (0, 7)), (2, (0, 1))], vec![1], false),
    ] {
        let client = Fake { leaders: RefCell::new(leaders.into()), is_blank, ..Fake::new() };
        let (mut state, _commits) = client.state(OnOutage::Wait);
        assert!(!state.caught_up(&client), "it is not assigned anything yet, if only none");
        state.assigned(&client, &[]).unwrap();
        assert_eq!(state.caught_up(&client), caught_up, "{leaders:?}");
    }
    let client = Fake::new();
    let (mut state, _commits) = client.state(OnOutage::Wait);
    state.assigned(&client, &[]).unwrap();
    assert!(!state.caught_up(&client), "of two partitions nobody says anything");
    let asked = client.asked.get();
    assert!(!state.caught_up(&client));
    assert_eq!(client.asked.get(), asked, "not in every turn");
    client.leaders.borrow_mut().extend([(0, (0, 5)), (1, (0, 7)), (2, (0, 0))]);
    client.sleep(ASK_GROUP);
    assert!(state.caught_up(&client));
}

/// Lets go of partitions; with each step the commit thread does what a test says.
fn hand_over(client: &Fake, state: &mut State, going: Vec<i32>, commit_thread: impl Fn()) {
    let mut going = state.hand_over(client, going);
    while let Some(patience) = going.turn(state, client) {
        commit_thread();
        client.sleep(patience);
    }
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_hangs_keeps_a_revocation_no_longer_than_is_granted() {
    let client = whole();
    let (mut state, commits) = client.state(OnOutage::Wait);
    state.assigned(&client, &all_of_them()).unwrap();
    state.committer.note(vec![(0, 6), (1, 8)]);
    let (began, sent) = (Instant::now(), RefCell::default());
    hand_over(&client, &mut state, vec![0], || {
        let sent: &mut Vec<Offsets> = &mut sent.borrow_mut();
        sent.extend(commits.requests.try_iter());
    });
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!(sent.take(), [[(0, 6), (1, 8)].into()]);
    assert!(!state.is_committed(), "nobody has taken it");
    commits.answers.send(Ok(())).unwrap();
    assert!(!state.committer.is_under_way());
    assert_eq!(state.committer.committed(), &[(1, 8)].into(), "of what is still ours");
}

#[tokio::test(start_paused = true)]
async fn what_the_commit_thread_has_not_taken_up_in_time_is_not_sent_for_the_next_owner() {
    let client = whole();
    let (mut state, commits) = client.state(OnOutage::Wait);
    state.assigned(&client, &all_of_them()).unwrap();
    state.committer.note(vec![(0, 6), (1, 8)]);
    hand_over(&client, &mut state, vec![0], || ());
    state.committer.tend(true);
    assert_eq!(commits.requests.try_iter().collect::<Vec<_>>(), [[(1, 8)].into()]);
}

#[tokio::test(start_paused = true)]
async fn what_is_handed_over_is_committed_before_and_sent_again_if_that_fails() {
    let client = whole();
    let (mut state, commits) = client.state(OnOutage::Wait);
    state.assigned(&client, &all_of_them()).unwrap();
    state.committer.note(vec![(0, 6)]);
    let (began, sent) = (Instant::now(), Cell::new(0));
    hand_over(&client, &mut state, vec![0], || {
        if commits.requests.try_recv().is_ok() {
            sent.set(sent.get() + 1);
            let code = RDKafkaErrorCode::CoordinatorNotAvailable;
            let is_there = began.elapsed() >= Duration::from_secs(2);
            let answer = if is_there { Ok(()) } else { Err(KafkaError::ConsumerCommit(code)) };
            commits.answers.send(answer).unwrap();
        }
    });
    assert_eq!(state.committer.answers(), (sent.get(), sent.get() - 1));
    assert!((2..20).contains(&sent.get()), "{} times", sent.get());
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(state.is_committed());
}

#[tokio::test(start_paused = true)]
async fn a_stop_has_one_time_for_all_that_is_left_to_do() {
    let client = whole();
    let (mut state, _commits) = client.state(OnOutage::Wait);
    let granted = state.grace.granted();
    state.assigned(&client, &all_of_them()).unwrap();
    // No worker ever finishes it.
    state.ingest.push(record(0, 5), std::iter::empty::<(&str, _)>());
    let mut source = Source::new(&Until { stop: Arc::clone(&client.stop), caught_up: false });
    client.stop.store(true, Ordering::Relaxed);
    let began = Instant::now();
    for part in [granted / 2, granted / 4] {
        assert!(matches!(source.turn(&mut state, &client), Ok(Turn::Tend(_))));
        client.sleep(part);
    }
    hand_over(&client, &mut state, vec![1], || ());
    let ended = source.turn(&mut state, &client);
    assert!(matches!(ended, Err(SourceError::Drain(time)) if time == granted), "{ended:?}");
    let took = began.elapsed();
    assert!((granted..granted + Duration::from_secs(1)).contains(&took), "{took:?}");
    assert!(state.grace.left().is_zero(), "the second deletes have none of their own");
}

/// All leaders are there.
fn whole() -> Fake {
    let client = Fake::new();
    client.leaders.borrow_mut().extend([(1, (0, 9)), (2, (0, 9))]);
    client
}

#[tokio::test(start_paused = true)]
async fn an_offset_behind_an_open_transaction_is_past_no_end() {
    for (open, is_lost) in [(2, false), (1, true)] {
        let client = Fake { open, ..whole() };
        client.leaders.borrow_mut().insert(1, (0, 5));
        let (mut state, _commits) = client.state(OnOutage::Wait);
        let starts = state.assigned(&client, &all_of_them()).unwrap();
        assert_eq!(state.abort.is_raised(), is_lost);
        if !is_lost {
            assert_eq!(starts, Some(vec![(0, 5), (1, 7), (2, 0)]));
            assert_eq!(state.backlog(), 4 + 9);
            state.take_up(&client).unwrap();
            assert!(!state.abort.is_raised(), "another one was meant");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_comes_back_is_read_from_where_the_group_stands() {
    let client = whole();
    let (mut state, _commits) = client.state(OnOutage::Wait);
    state.assigned(&client, &all_of_them()).unwrap();
    for partition in 0..3 {
        for offset in 5..9 {
            state.ingest.push(record(partition, offset), std::iter::empty::<(&str, _)>());
        }
    }
    assert!(state.caught_up(&client));
    state.let_go(&[0]);
    state.assigned(&client, &[0]).unwrap();
    assert!(!state.caught_up(&client), "what was read and not committed is to be read again");
    assert_eq!(state.next_offsets()[&0], 5);
}

mod standstill;

#[tokio::test(start_paused = true)]
async fn what_is_fetched_in_bulk_is_paused_until_the_client_goes_on_where_that_ended() {
    let client = Fake::new();
    client.leaders.replace([(0, (0, 50)), (1, (0, 90)), (2, (0, 3))].into());
    let (mut state, _commits) = client.state(OnOutage::Wait);
    state.assigned(&client, &all_of_them()).unwrap();
    let backlogs = state.backlogs(10, |partition| state.end_when_assigned(partition));
    let next: Offsets = backlogs.iter().map(|(it, stretch)| (*it, stretch.next)).collect();
    assert_eq!(next, [(0, 5), (1, 7)].into(), "of partition 2 there is too little");
    state.begin_bulk(&client, backlogs.into_keys()).unwrap();

    // The workers were behind for a while: what is fetched in bulk stays paused.
    client.pause(&state.owned()).unwrap();
    state.resume(&client).unwrap();
    assert_eq!(*client.paused.borrow(), [0, 1].into());

    state.ingest.push(record(0, 5), std::iter::empty::<(&str, _)>());
    assert_eq!((state.next_in_bulk(0), state.next_in_bulk(2)), (Some(6), None));
    state.end_bulk(&client, 0, Why::CaughtUp).unwrap();
    state.end_bulk(&client, 2, Why::CaughtUp).unwrap();
    assert_eq!(*client.sought.borrow(), [[(0, 6)].into()], "and not where it never was");
    assert_eq!(*client.paused.borrow(), [1].into());

    // One that goes, and comes back, is the client's.
    state.let_go(&[1]);
    assert_eq!((state.next_in_bulk(1), state.is_in_bulk()), (None, false));
    state.assigned(&client, &[1]).unwrap();
    assert!(client.paused.borrow().is_empty());
    assert_eq!((state.next_in_bulk(1), client.sought.borrow().len()), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_cut_under_a_bulk_fetch_is_a_loss() {
    let client = Fake::new();
    client.leaders.replace([(0, (0, 50))].into());
    let (mut state, _commits) = client.state(OnOutage::Wait);
    state.assigned(&client, &[0]).unwrap();
    state.begin_bulk(&client, [0].into_iter()).unwrap();
    state.ingest.push(record(0, 20), std::iter::empty::<(&str, _)>());

    state.end_bulk(&client, 0, Why::Truncated { end: 12 }).unwrap();
    state.ingest.none_waits();
    state.tend(&client).unwrap();

    let Some(Cause::Failure(message)) = state.abort.cause() else { panic!("it goes on") };
    assert!(message.contains("partition 0 was cut at offset 12"), "{message}");
}
