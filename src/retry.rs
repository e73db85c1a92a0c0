//! How long to wait before trying again after a failure: the one place that decides it.

use std::time::Duration;

/// The longest wait between two tries, unless the first is longer. An outage is noticed to be over
/// within this time: an attempt that is under way just then succeeds.
const CAP: Duration = Duration::from_secs(2);

/// Exponential backoff with equal jitter up to two seconds, or the base if that is more: many clients of one server do not come
/// back in step.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    base: Duration,
    tries: u32,
}

impl Backoff {
    /// Starts with waits of up to `base`, doubled each time.
    pub fn new(base: Duration) -> Backoff {
        Backoff { base, tries: 0 }
    }

    /// Goes on behind so many tries.
    pub fn after(self, tries: u32) -> Backoff {
        Backoff { tries, ..self }
    }

    /// How often [`Backoff::next_wait`] was called.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// The next wait: between half of the doubled base and all of it.
    pub fn next_wait(&mut self) -> Duration {
        let doubled = self.base.saturating_mul(2_u32.saturating_pow(self.tries));
        let full = doubled.min(CAP.max(self.base));
        self.tries = self.tries.saturating_add(1);
        full.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Sleeps for the next wait.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_wait()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_stay_there() {
        let base = Duration::from_millis(100);
        let mut backoff = Backoff::new(base);
        for tries in 0..40 {
            let wait = backoff.next_wait();
            let full = base.saturating_mul(2_u32.saturating_pow(tries)).min(CAP);
            assert!(wait >= full / 2 && wait <= full, "try {tries}: {wait:?} of {full:?}");
        }
        assert_eq!(backoff.tries(), 40);
    }

    #[test]
    fn a_base_over_the_cap_counts() {
        let base = 5 * CAP;
        let mut backoff = Backoff::new(base);
        for try_ in 0..3 {
            let wait = backoff.next_wait();
            assert!(wait >= base / 2 && wait <= base, "try {try_}: {wait:?} of {base:?}");
        }
    }
}
