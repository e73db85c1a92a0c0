use super::*;
use crate::progress::progress;

const NO_HEADERS: [(&str, Option<&[u8]>); 0] = [];

fn ingest(linger: Duration, epoch_records: usize, epochs_in_flight: usize) -> Ingest {
    let (queue, _) = crossbeam_channel::unbounded();
    let waker = Waker::of_nobody();
    let (progress, watch) = progress();
    let usual = crate::config::Config::default().run;
    let limits = Run { linger, epoch_records, epochs_in_flight, ..usual };
    Ingest::new(vec![Entrance { queue, waker }], limits, Arc::new(progress), watch)
}

fn push(ingest: &mut Ingest, offset: i64) {
    let record = RawRecord {
        partition: 0,
        offset,
        timestamp_ms: 0,
        stamped_by_topic: false,
        key: None,
        value: None,
    };
    ingest.push(record, NO_HEADERS.into_iter());
    ingest.close_if_due();
}

/// A record, and then no more that has been fetched.
fn push_alone(ingest: &mut Ingest, offset: i64) {
    push(ingest, offset);
    ingest.none_waits();
    ingest.close_if_due();
}

#[test]
fn without_linger_an_epoch_ends_once_all_that_was_fetched_is_in_it() {
    let mut ingest = ingest(Duration::ZERO, 100, 2);
    push(&mut ingest, 0);
    push(&mut ingest, 1);
    assert_eq!(ingest.under_way().busy, 0, "more may have been fetched");
    ingest.none_waits();
    ingest.close_if_due();
    assert_eq!(ingest.under_way().busy, 1);
}

#[test]
fn an_epoch_of_which_something_is_held_takes_no_place_but_its_records_do() {
    let mut ingest = ingest(Duration::ZERO, 2, 2);
    let held = Tally { set_aside: 1, ..Tally::default() };
    // Four records may be under way. Each of them is held.
    for epoch in 0..4 {
        assert!(!ingest.is_full());
        push_alone(&mut ingest, epoch);
        assert_eq!(ingest.under_way().busy, 1, "epoch {epoch}");
        ingest.ledger.settle(ingest.epoch - 1, &held);
    }
    push_alone(&mut ingest, 4);
    push_alone(&mut ingest, 5);
    assert_eq!((ingest.under_way().held, ingest.under_way().busy), (4, 0));
    assert!(ingest.is_full(), "the open epoch is full and may not end");
    ingest.ledger.settle(1, &Tally { applied: 1, ..Tally::default() });
    ingest.close_if_due();
    assert_eq!((ingest.under_way().held, ingest.under_way().busy), (3, 1));
}

#[test]
fn the_beginnings_that_are_known_are_few_however_many_epochs_pass_one_that_is_held() {
    let mut ingest = ingest(Duration::ZERO, 10, 4);
    push_alone(&mut ingest, 0);
    ingest.ledger.settle(0, &Tally { set_aside: 1, ..Tally::default() });
    let since = ingest.oldest_since();
    for epoch in 1..1_000 {
        push_alone(&mut ingest, i64::try_from(epoch).unwrap());
        ingest.ledger.settle(epoch, &Tally { applied: 1, ..Tally::default() });
    }
    assert!(ingest.begun.len() <= BEGUN_MAX + 4, "{}", ingest.begun.len());
    assert_eq!(ingest.oldest_since(), since, "the one that is held");
}

#[test]
fn what_comes_while_enough_is_under_way_gathers_in_one_epoch() {
    let mut ingest = ingest(Duration::ZERO, 100, 2);
    for offset in 0..10 {
        push_alone(&mut ingest, offset);
    }
    assert_eq!((ingest.under_way().busy, ingest.epoch_records), (2, 8));
    assert!(!ingest.is_full(), "there is room in the open one");
}

#[test]
fn with_linger_an_epoch_waits_for_more_until_it_is_full() {
    let mut ingest = ingest(Duration::from_secs(60), 3, 2);
    for offset in 0..4 {
        push_alone(&mut ingest, offset);
    }
    assert_eq!((ingest.under_way().busy, ingest.epoch_records), (1, 1));
}

#[test]
fn a_poll_waits_no_longer_than_the_open_epoch_may() {
    let mut ingest = ingest(Duration::from_millis(8), 100, 1);
    let nothing_to_do = ingest.patience();
    push(&mut ingest, 0);
    let open = ingest.patience();
    assert!(open <= Duration::from_millis(8) && open < nothing_to_do, "{open:?}");
    std::thread::sleep(Duration::from_millis(8));
    assert_eq!(ingest.patience(), Duration::ZERO, "it ends with what has been fetched");
}

/// Else a database that is out would cost a core: a client that waits for a millisecond waits
/// on the clock.
#[test]
fn a_poll_is_in_no_hurry_while_the_open_epoch_cannot_end() {
    let mut ingest = ingest(Duration::ZERO, 100, 1);
    for offset in 0..2 {
        push_alone(&mut ingest, offset);
    }
    assert_eq!((ingest.under_way().busy, ingest.epoch_records), (1, 1));
    assert_eq!(ingest.patience(), Duration::from_millis(20));
}
