//! Bugs that a test can switch on, one at a time, to show that the simulation would find them.
//!
//! Without the feature `planted-bugs`, which only tests ask for, or without debug assertions,
//! [`is_planted`] is `false` at compile time and nothing of this is left.

/// A bug that programs of this kind have had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Offsets are committed before their effects.
    CommitBeforeApply,
    /// An epoch is committed while an earlier one is in flight.
    CommitOverAHole,
    /// The offset of the last record is committed, not that of the next.
    CommitOffByOne,
    /// A dead letter counts when it is sent, not when it is acknowledged.
    DeadLetterOnEnqueue,
    /// A delivery that timed out counts as delivered.
    TimeoutIsDelivery,
    /// The key of a duplicate is not deleted.
    DuplicateSkipsDelete,
    /// The key is deleted before the row is written.
    DeleteBeforeCommit,
    /// Jobs are remembered in the process only.
    DedupeInMemoryOnly,
    /// The UPDATE takes any event for newer than the row.
    NoVersionGuard,
    /// The larger offset is newer, whatever the timestamp.
    GuardByOffset,
    /// A partition that was taken away is still committed.
    CommitRevoked,
    /// What was read of a partition before it was taken away is committed when it comes back.
    EpochlessTracker,
    /// An UPDATE that matched no row counts as applied.
    ZeroRowsIsApplied,
    /// A batch with one bad row is rejected as a whole.
    BatchIsRejected,
    /// An outage that lasts is charged to the events.
    OutageIsRefusal,
    /// The retries of one event use up those of its neighbours.
    RetriesAreShared,
    /// An answer that was lost counts as a refusal.
    LostAnswerIsRefusal,
    /// A group without offsets starts at the end.
    ResetToLatest,
    /// An offset without a record stops the commits.
    GapStalls,
    /// A partition that comes back stays paused.
    PauseIsKept,
    /// A task that panics is left behind, and the process goes on.
    PanicSwallowed,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Bug; 21] = [
        Bug::CommitBeforeApply,
        Bug::CommitOverAHole,
        Bug::CommitOffByOne,
        Bug::DeadLetterOnEnqueue,
        Bug::TimeoutIsDelivery,
        Bug::DuplicateSkipsDelete,
        Bug::DeleteBeforeCommit,
        Bug::DedupeInMemoryOnly,
        Bug::NoVersionGuard,
        Bug::GuardByOffset,
        Bug::CommitRevoked,
        Bug::EpochlessTracker,
        Bug::ZeroRowsIsApplied,
        Bug::BatchIsRejected,
        Bug::OutageIsRefusal,
        Bug::RetriesAreShared,
        Bug::LostAnswerIsRefusal,
        Bug::ResetToLatest,
        Bug::GapStalls,
        Bug::PauseIsKept,
        Bug::PanicSwallowed,
    ];
}

/// In a build with the feature, and without optimisation: what is measured has no bug in it, not
/// even one that is switched off.
#[cfg(all(feature = "planted-bugs", debug_assertions))]
mod switches {
    use super::Bug;
    use crate::change::Change;

    thread_local! {
        static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
    }

    /// Switches a bug on for this thread, and any other off.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether the bug is switched on.
    pub fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Panics on the job that `PLANTED_PANIC` names: the one bug that a process of its own is to
    /// show.
    #[expect(
        clippy::disallowed_methods,
        reason = "a test that starts a process has no other way to tell it"
    )]
    pub fn panic_on(change: &Change) {
        static JOB: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
        let planted = JOB.get_or_init(|| std::env::var("PLANTED_PANIC").ok());
        assert!(planted.as_deref() != Some(change.job_id()), "planted");
    }
}

#[cfg(not(all(feature = "planted-bugs", debug_assertions)))]
mod switches {
    use super::Bug;
    use crate::change::Change;

    /// There is nothing to switch on.
    #[cfg(feature = "planted-bugs")]
    pub fn plant(bug: Option<Bug>) {
        assert_eq!(bug, None, "bugs can be planted only in a build with debug assertions");
    }

    /// Whether the bug is switched on: never.
    #[inline(always)]
    pub const fn is_planted(_: Bug) -> bool {
        false
    }

    /// Panics on no job.
    #[inline(always)]
    pub const fn panic_on(_: &Change) {}
}

#[cfg(feature = "planted-bugs")]
pub use switches::plant;
pub use switches::{is_planted, panic_on};
