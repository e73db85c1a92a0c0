//! The simulated servers, for the tests that compare them with the real ones.

#![allow(dead_code, reason = "the simulation uses the rest")]

#[path = "simulation/history.rs"]
pub(crate) mod history;
#[path = "simulation/log.rs"]
mod log;
#[path = "simulation/servers.rs"]
pub(crate) mod servers;
#[path = "simulation/world.rs"]
pub(crate) mod world;
