//! What is tried again later, by draft, while other drafts go on.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use super::parts::Pending;

/// Groups that wait, each for its own time. There may be as many as there are drafts, so none is
/// looked at before that time has come.
#[derive(Default)]
pub(super) struct Held {
    /// Boxed, because every second place of a map may be empty, and while it grows there are two.
    by_draft: HashMap<Arc<str>, Box<Pending>>,
    /// When each of them is due, the first one on top.
    due: BinaryHeap<Reverse<Due>>,
}

type Due = (Instant, Arc<str>);

impl Held {
    /// What one takes at most, besides its draft's id and its events.
    pub(super) const BYTES_EACH: usize = size_of::<Pending>()
        + 2 * size_of::<(Arc<str>, Box<Pending>)>()
        + 2 * size_of::<Due>()
        // What an Arc counts.
        + 2 * size_of::<usize>();

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.by_draft.is_empty()
    }

    /// How many drafts have something that waits.
    pub(super) fn len(&self) -> usize {
        self.by_draft.len()
    }

    /// Whether something of that draft waits.
    pub(super) fn contains(&self, draft: &str) -> bool {
        self.by_draft.contains_key(draft)
    }

    /// What waits of that draft.
    pub(super) fn get_mut(&mut self, draft: &str) -> Option<&mut Pending> {
        self.by_draft.get_mut(draft).map(Box::as_mut)
    }

    /// Has a group wait, or joins it to another piece of the same draft that does.
    pub(super) fn hold(&mut self, mut pending: Pending) {
        let draft: Arc<str> = pending.group.draft_id().into();
        match self.by_draft.entry(Arc::clone(&draft)) {
            Entry::Vacant(entry) => {
                let due = Instant::now() + pending.backoff.next_wait();
                entry.insert(Box::new(pending));
                self.due.push(Reverse((due, draft)));
            }
            Entry::Occupied(mut entry) => entry.get_mut().append(pending),
        }
    }

    /// When the first of them is due.
    pub(super) fn first_due(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((due, _draft))| *due)
    }

    /// Takes out what is due by now.
    pub(super) fn take_due(&mut self) -> Vec<Pending> {
        let now = Instant::now();
        let mut taken = Vec::new();
        while self.first_due().is_some_and(|due| due <= now) {
            let Some(Reverse((_due, draft))) = self.due.pop() else { break };
            taken.extend(self.by_draft.remove(&draft).map(|pending| *pending));
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::groups;
    use super::*;

    const BACKOFF: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn each_is_due_in_its_time_and_once() {
        let mut held = Held::default();
        for (group, ticket) in groups(40).into_iter().zip(0..) {
            held.hold(Pending::new(group, ticket, BACKOFF));
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        assert_eq!(held.len(), 40);
        let mut taken = 0;
        while let Some(due) = held.first_due() {
            assert!(held.take_due().is_empty(), "nothing is due before its time");
            tokio::time::advance(due - Instant::now()).await;
            let now_due = held.take_due();
            assert!(!now_due.is_empty(), "the first is due");
            assert!(now_due.iter().all(|it| !held.contains(it.group.draft_id())));
            taken += now_due.len();
        }
        assert!(held.is_empty());
        assert_eq!(taken, 40);
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_that_joins_another_waits_with_it() {
        let mut held = Held::default();
        let [group] = groups(1).try_into().expect("one");
        let draft = group.draft_id().to_owned();
        held.hold(Pending::new(group.clone(), 0, BACKOFF));
        let due = held.first_due();
        tokio::time::advance(BACKOFF / 4).await;
        held.hold(Pending::new(group, 1, BACKOFF));
        assert_eq!((held.len(), held.first_due()), (1, due));
        assert_eq!(held.get_mut(&draft).expect("it waits").group.events.len(), 2);
        tokio::time::advance(BACKOFF).await;
        assert_eq!(*held.take_due()[0].tickets, [0, 1]);
        assert!(held.is_empty() && held.first_due().is_none(), "due once, not twice");
    }
}
