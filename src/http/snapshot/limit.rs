//! The stage that limits, in words, with what would help.

use serde::Serialize;

use super::rounded;
use crate::figures::Server;
use crate::http::watcher::{Stretch, Watcher};
use crate::limit::{self, percent};

/// Below this share of the busiest stage, with nothing waiting at the brokers, nothing limits.
const AT_EASE: f64 = 0.5;

#[derive(Debug, Serialize)]
pub(super) struct Limit {
    /// As `contentflow tune` calls it.
    stage: &'static str,
    /// The stage of the page that it is.
    node: &'static str,
    busy: f64,
    words: String,
    advice: String,
}

impl Watcher {
    /// What limits, or what the work waits for.
    pub(super) fn limit(&self, stretch: &Stretch) -> Limit {
        let (capacity, shares) = (self.facts.capacity, stretch.shares);
        let (stage, busy) = shares.limit();
        if let Some(held) = self.dependencies().find(|dependency| dependency.is_held()) {
            let node = node_of(held.name);
            return Limit {
                stage: held.name,
                node,
                busy: 1.0,
                words: format!("Held: {}.", held.complaint().unwrap_or_default()),
                advice: "It goes on by itself when the server is back.".to_owned(),
            };
        }
        let (words, advice) = if busy < AT_EASE && self.backlog() == 0 {
            let share = percent(busy);
            let words = format!(
                "Nothing limits: the busiest stage, {}, is at work {share} of the time.",
                stage.name()
            );
            (words, "The pipeline keeps up with what is published.".to_owned())
        } else {
            let tune = "to a point that `contentflow tune` finds";
            let words = format!("The limit: {}", shares.words(capacity));
            (words, shares.remedy(capacity, self.facts.cores, tune))
        };
        Limit { stage: stage.name(), node: node(stage), busy: rounded(busy), words, advice }
    }
}

fn node(stage: limit::Stage) -> &'static str {
    match stage {
        limit::Stage::Source => "source",
        limit::Stage::Decode => "decode",
        limit::Stage::Exchange => "dedupe",
        limit::Stage::Database => "write",
        limit::Stage::Cache => "invalidate",
        limit::Stage::DeadLetters => "dead-letter",
    }
}

fn node_of(dependency: &str) -> &'static str {
    match Server::ALL.into_iter().find(|server| server.name() == dependency) {
        Some(server) => server.effect(),
        None => "source",
    }
}
