//! The race for the cache, on real servers: readers and writers of one draft are stopped after each
//! of their steps (GET, lease, SELECT, fill; COMMIT, DEL lease, DEL key) and have their turns in an
//! order that a seed draws.
//!
//! `make race` takes 100,000 orders, `RACES=` and `SEED=` another number and the same ones again.

mod history;
mod servers;

use self::history::{Protocol, Read, Schedule, Write};
use self::servers::{Servers, Tally};
use crate::world::World;

/// What docs/cache.md asks of readers and writers.
const LEASE: Protocol = Protocol {
    reader: [Read::Get, Read::Take, Read::Select, Read::Fill],
    writer: [Write::Commit, Write::Delete(0), Write::Delete(1)],
    second_delete: false,
};

/// Readers that know of no lease.
const PLAIN: Protocol =
    Protocol { reader: [Read::Get, Read::Nothing, Read::Select, Read::Set], ..LEASE };

/// The same readers, with `cache.second_delete_after_ms`.
const SECOND_DELETE: Protocol = Protocol { second_delete: true, ..PLAIN };

/// What is nearly the protocol.
const MISTAKES: [(&str, Protocol); 4] = [
    (
        "the key is deleted before the lease",
        Protocol { writer: [Write::Commit, Write::Delete(1), Write::Delete(0)], ..LEASE },
    ),
    (
        "both are deleted before the commit",
        Protocol { writer: [Write::Delete(0), Write::Delete(1), Write::Commit], ..LEASE },
    ),
    (
        "the row is read before the lease is taken",
        Protocol { reader: [Read::Get, Read::Select, Read::Take, Read::Fill], ..LEASE },
    ),
    (
        "the value is stored without a look at the lease",
        Protocol { reader: [Read::Get, Read::Take, Read::Select, Read::Set], ..LEASE },
    ),
];

/// Some seconds.
const RACES: usize = 20_000;

/// Enough that each mistake shows.
const RACES_OF_A_MISTAKE: usize = 4_000;

fn number<T: std::str::FromStr>(variable: &str) -> Option<T> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// The orders of this run, and their seed, which is printed.
fn drawn(races: usize) -> (Vec<Schedule>, u64) {
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!(
        "race: seed {seed}, {races} interleavings; the same again: SEED={seed} RACES={races}"
    );
    let mut rng = fastrand::Rng::with_seed(seed);
    ((0..races).map(|_| Schedule::draw(&mut rng)).collect(), seed)
}

fn print(what: &str, tally: &Tally) {
    let Tally { histories, left_behind, old_hits, filled, refused, .. } = tally;
    eprintln!(
        "race: {what:<48} {left_behind:>6} of {histories} leave an old value behind; {old_hits} old hits after the DEL, \
         {filled} filled in, {refused} refused"
    );
}

#[test]
fn f7_readers_with_the_lease_leave_no_old_value_behind_in_any_drawn_interleaving() {
    let world = World::without_table("race");
    let mut servers = Servers::prepare(&world);
    let (schedules, seed) = drawn(number("RACES").unwrap_or(RACES));

    let lease = servers.run(LEASE, &schedules);
    print("with the lease", &lease);
    let plain = servers.run(PLAIN, &schedules);
    print("without", &plain);
    let second = servers.run(SECOND_DELETE, &schedules);
    print("without, with a second DEL", &second);
    let fast = second.left_by_fast_readers;
    eprintln!(
        "race: {fast} of these by readers that took no longer than the delay of the second DEL"
    );

    assert_eq!((lease.left_behind, lease.old_hits), (0, 0), "seed {seed}");
    // It was a race: the lease was used and refused, and a writer came by wherever a reader can
    // stand.
    assert!(lease.filled > 0 && lease.refused > 0);
    for at in LEASE.reader {
        for step in LEASE.writer {
            assert!(
                lease.met.contains_key(&(at, step)),
                "never {step:?} before {at:?}: seed {seed}"
            );
        }
    }
    // Without it the same orders do harm. The second DEL mends what readers left that were faster
    // than its delay.
    assert!(plain.left_behind > second.left_behind, "seed {seed}");
    assert_eq!(fast, 0, "seed {seed}");
}

#[test]
fn f7_every_interleaving_of_two_readers_and_a_writer_leaves_no_old_value_behind() {
    let world = World::without_table("race-all");
    let schedules = Schedule::every(2, 1);
    assert_eq!(schedules.len(), 11_550, "11! / (4! 4! 3!)");
    let mut servers = Servers::prepare(&world);
    let lease = servers.run(LEASE, &schedules);
    print("every one of 2 readers, 1 writer", &lease);
    assert_eq!((lease.left_behind, lease.old_hits), (0, 0));
    assert!(lease.filled > 0 && lease.refused > 0);
}

#[test]
fn f7_each_mistake_in_the_protocol_leaves_old_values_behind() {
    let world = World::without_table("race-wrong");
    let mut servers = Servers::prepare(&world);
    let (schedules, seed) = drawn(RACES_OF_A_MISTAKE);
    for (mistake, protocol) in MISTAKES {
        let tally = servers.run(protocol, &schedules);
        print(mistake, &tally);
        assert!(tally.left_behind > 0, "{mistake}: seed {seed}");
    }
}
