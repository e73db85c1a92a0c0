//! When a lane guesses what rows hold instead of reading them.

/// Whether it is worth it to guess that rows are new. A guess that is wrong costs a statement for
/// nothing: after one, so many batches are judged, twice as many each time, before there is
/// another.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    pause: u32,
    left: u32,
}

impl Guesses {
    const PAUSE_MAX: u32 = 256;

    /// Whether the next batch may be guessed about.
    pub(super) fn is_due(&mut self) -> bool {
        let is_due = self.left == 0;
        self.left = self.left.saturating_sub(1);
        is_due
    }

    /// Notes how many of some groups were guessed right.
    pub(super) fn note(&mut self, right: usize, of: usize) {
        self.pause =
            if 2 * right >= of { 0 } else { (2 * self.pause).clamp(1, Guesses::PAUSE_MAX) };
        self.left = self.pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_wrong_guess_there_is_a_pause_that_doubles_until_one_is_right() {
        let mut guesses = Guesses::default();
        let mut pause = |right| {
            guesses.note(right, 10);
            (0..1_000).take_while(|_| !guesses.is_due()).count()
        };
        assert_eq!([10, 5, 4, 0, 0, 9, 0].map(&mut pause), [0, 0, 1, 2, 4, 0, 1]);
        assert_eq!((0..20).map(|_| pause(0)).max(), Some(256), "and is bounded");
    }
}
