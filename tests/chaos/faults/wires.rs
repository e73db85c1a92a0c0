//! Faults of the wires between an instance and a server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::Heal;
use crate::eventually;
use crate::link::Link;

/// Cuts the connections, and lets no others in for a while.
pub(super) fn cut(link: &Arc<Link>) -> Result<Heal<'_>> {
    // One that was lost before is made anew only when it is needed.
    eventually("there is a connection to cut", || link.cut() > 0)?;
    link.shut(true);
    link.cut();
    Ok(Box::new(|| {
        link.shut(false);
        Ok(())
    }))
}

pub(super) fn hold(link: &Arc<Link>) -> Result<Heal<'_>> {
    let before = link.waited();
    link.hold(true);
    Ok(Box::new(move || {
        let held = eventually("something is held up", || link.waited() > before);
        link.hold(false);
        held
    }))
}

pub(super) fn slow_down(link: &Arc<Link>) -> Result<Heal<'_>> {
    let before = link.waited();
    link.slow_down(Duration::from_millis(200));
    Ok(Box::new(move || {
        let slowed = eventually("something is slowed down", || link.waited() > before);
        link.slow_down(Duration::ZERO);
        slowed
    }))
}

pub(super) fn lose_answer(link: &Arc<Link>) -> Result<Heal<'_>> {
    let before = link.lost();
    link.lose_answer(true);
    Ok(Box::new(move || {
        let lost = eventually("an answer is lost", || link.lost() > before);
        link.lose_answer(false);
        lost
    }))
}
