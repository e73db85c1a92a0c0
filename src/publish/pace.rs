//! A token bucket: not more than so many events a second, evenly, whatever the clock's grain.

use std::time::{Duration, Instant};

/// Tokens never gathered for longer than this: after a stall the pace goes on and does not make up
/// for lost time.
const BURST: Duration = Duration::from_millis(100);

/// When the next event may go.
#[derive(Debug)]
pub struct Pace {
    /// Nanoseconds to one event.
    interval: Duration,
    /// When the next event is due.
    due: Instant,
}

impl Pace {
    /// A pace of so many events a second, from now on.
    pub fn new(events_per_s: u64, now: Instant) -> Pace {
        let interval = Duration::from_nanos(1_000_000_000 / events_per_s.max(1));
        Pace { interval, due: now }
    }

    /// How long to wait before the next event; `None` takes the event's token, and it may go now.
    pub fn pause(&mut self, now: Instant) -> Option<Duration> {
        if self.due > now {
            return Some(self.due - now);
        }
        let oldest = now.checked_sub(BURST).unwrap_or(now);
        self.due = self.due.max(oldest) + self.interval;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many events go between two times, when the clock moves in such steps.
    fn events(pace: &mut Pace, from: Instant, step: Duration, steps: u32) -> u32 {
        let at = (0..steps).map(|number| from + step * number);
        at.map(|now| (0..).take_while(|_| pace.pause(now).is_none()).count())
            .map(|count| u32::try_from(count).unwrap())
            .sum()
    }

    #[test]
    fn a_coarse_clock_changes_nothing_about_the_rate() {
        let start = Instant::now();
        for step in
            [Duration::from_micros(100), Duration::from_millis(10), Duration::from_millis(70)]
        {
            let steps = u32::try_from(10_000_000 / step.as_micros()).unwrap();
            let elapsed_ms = (step * (steps - 1)).as_millis();
            let count = events(&mut Pace::new(1_000, start), start, step, steps);
            assert_eq!(u128::from(count), elapsed_ms + 1, "by steps of {step:?}");
        }
    }

    #[test]
    fn a_stall_is_not_made_up_for() {
        let start = Instant::now();
        let mut pace = Pace::new(1_000, start);
        assert_eq!(events(&mut pace, start + Duration::from_secs(60), Duration::ZERO, 1), 101);
    }
}
