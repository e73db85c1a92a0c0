//! The effects of trials, and of the scan before them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use dataflows::effect::Effect;
use dataflows::graph::Invalidated;
use dataflows::latest::Group;
use dataflows::outcome::Settled;
use dataflows::peers::Waker;
use dataflows::reject::Rejected;
use dataflows::written::Written;

use crate::config::KeyTemplate;
use crate::lock::lock;
use crate::sink::nothing::{AtOnce, Nothing, applied};
use crate::worker::MakeEffects;

/// The keys that trials delete: those of drafts that do not exist, under the prefix that the
/// cache's user may write to.
pub(super) fn unread(key: &KeyTemplate) -> KeyTemplate {
    let text = key.to_string().replace("{id}", "contentflow-tune:{id}");
    KeyTemplate::parse(&text).unwrap_or_else(|_| key.clone())
}

/// Effects that do nothing but note which drafts there are.
pub(super) struct Collecting {
    pub(super) drafts: Arc<Mutex<HashSet<String>>>,
}

impl MakeEffects for Collecting {
    fn write(&self, _waker: Waker) -> impl Effect<Request = Group, Answer = Written> + 'static {
        let drafts = Arc::clone(&self.drafts);
        AtOnce::new(move |groups: Vec<Group>| {
            let mut drafts = lock(&drafts);
            drafts.extend(groups.iter().map(|group| group.draft_id().to_owned()));
            drop(drafts);
            applied(groups)
        })
    }

    fn invalidate(
        &self,
        waker: Waker,
    ) -> impl Effect<Request = Settled, Answer = Invalidated> + 'static {
        Nothing.invalidate(waker)
    }

    fn dead_letter(
        &self,
        waker: Waker,
    ) -> impl Effect<Request = Rejected, Answer = Rejected> + 'static {
        Nothing.dead_letter(waker)
    }
}
