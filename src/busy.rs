//! How long each stage was at work, for whoever asks which one limits. Off unless somebody does: then it costs two looks at the clock
//! for each batch of a lane and each turn of an operator, and nothing for a record.
//!
//! A stage is at work from the moment it has something to do until it waits for more:
//!
//! | stage | at work | its capacity |
//! |---|---|---|
//! | source | while the poll thread is not held back by what is behind it | one thread |
//! | decode | in `feed` and `accept`, by timely's own log | the workers, shared with exchange |
//! | exchange | the rest of the time that workers do not sleep: hand over, dedupe, group, keep track | the workers, shared with decode |
//! | database, cache, dead letters | from a batch to the wait for the next one | the lanes of each |

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use timely::logging::{ParkEvent, StartStop, TimelyEvent, TimelyEventBuilder};
use timely::worker::Worker;

/// What a clock is kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// All that the worker threads do.
    Workers,
    /// The part of it that is decoding and validation.
    Decode,
    /// The lanes that write rows.
    Database,
    /// The lanes that delete keys.
    Cache,
    /// The lanes that publish dead letters.
    DeadLetters,
}

/// The time at work of everything that runs beside the poll thread, added up over threads and lanes.
#[derive(Debug, Default)]
pub struct Busy {
    nanos: [AtomicU64; 5],
}

impl Busy {
    /// Adds time at work.
    pub fn add(&self, clock: Clock, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanos[index(clock)].fetch_add(nanos, Ordering::Relaxed);
    }

    /// The time at work so far. What goes on at the moment is not in it.
    pub fn time(&self, clock: Clock) -> Duration {
        Duration::from_nanos(self.nanos[index(clock)].load(Ordering::Relaxed))
    }

    /// Has the worker note from now on what it does, before its dataflow is built.
    pub fn watch(self: &Arc<Busy>, worker: &Worker) {
        let mut shifts = Shifts::new(Arc::clone(self));
        if let Some(mut register) = worker.log_register() {
            register.insert::<TimelyEventBuilder, _>("timely", move |time, events| {
                for (at, event) in events.iter_mut().flat_map(|events| events.drain(..)) {
                    shifts.note(at, &event);
                }
                shifts.add_up(*time);
            });
        }
    }
}

fn index(clock: Clock) -> usize {
    match clock {
        Clock::Workers => 0,
        Clock::Decode => 1,
        Clock::Database => 2,
        Clock::Cache => 3,
        Clock::DeadLetters => 4,
    }
}

/// The operators that turn chunks into events.
const DECODING: [&str; 2] = ["feed", "accept"];

/// One worker's log, read as times at work.
struct Shifts {
    busy: Arc<Busy>,
    decoding: HashSet<usize>,
    /// Since when the worker is awake, or what of that has not been added yet.
    awake_since: Option<Duration>,
    decoding_since: Option<Duration>,
}

impl Shifts {
    fn new(busy: Arc<Busy>) -> Shifts {
        Shifts {
            busy,
            decoding: HashSet::new(),
            awake_since: Some(Duration::ZERO),
            decoding_since: None,
        }
    }

    fn note(&mut self, at: Duration, event: &TimelyEvent) {
        match event {
            TimelyEvent::Operates(operator) if DECODING.contains(&operator.name.as_str()) => {
                self.decoding.insert(operator.id);
            }
            TimelyEvent::Schedule(turn) if self.decoding.contains(&turn.id) => {
                match turn.start_stop {
                    StartStop::Start => self.decoding_since = Some(at),
                    StartStop::Stop => {
                        let since = self.decoding_since.take().unwrap_or(at);
                        self.busy.add(Clock::Decode, at.saturating_sub(since));
                    }
                }
            }
            TimelyEvent::Park(ParkEvent::Park(_)) => {
                self.add_up(at);
                self.awake_since = None;
            }
            TimelyEvent::Park(ParkEvent::Unpark) => self.awake_since = Some(at),
            _ => {}
        }
    }

    /// Adds what the worker has been awake until now.
    fn add_up(&mut self, now: Duration) {
        if let Some(since) = &mut self.awake_since {
            self.busy.add(Clock::Workers, now.saturating_sub(*since));
            *since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use timely::logging::{OperatesEvent, ScheduleEvent};

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_worker_is_at_work_while_it_does_not_sleep_and_decodes_in_two_of_its_operators() {
        let busy = Arc::new(Busy::default());
        let mut shifts = Shifts::new(Arc::clone(&busy));
        let operator = |id, name: &str| {
            TimelyEvent::Operates(OperatesEvent { id, addr: vec![0, id], name: name.to_owned() })
        };
        let start = |id| TimelyEvent::Schedule(ScheduleEvent::start(id));
        let stop = |id| TimelyEvent::Schedule(ScheduleEvent::stop(id));
        let events = [
            (1, operator(7, "accept")),
            (1, operator(8, "latest")),
            (10, TimelyEvent::Park(ParkEvent::park(None))),
            (50, TimelyEvent::Park(ParkEvent::unpark())),
            // The operators lie inside another one, the dataflow.
            (50, start(0)),
            (52, start(7)),
            (57, stop(7)),
            (57, start(8)),
            (60, stop(8)),
            (61, stop(0)),
        ];
        for (at, event) in events {
            shifts.note(ms(at), &event);
        }
        shifts.add_up(ms(65));
        shifts.add_up(ms(70));
        assert_eq!((busy.time(Clock::Workers), busy.time(Clock::Decode)), (ms(30), ms(5)));
        assert_eq!(busy.time(Clock::Database), Duration::ZERO);
    }
}
