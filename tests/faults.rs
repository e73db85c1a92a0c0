//! The catalogue of faults as tests: each function is named after the scenarios that it shows, and
//! `docs/faults.md` lists them all.

mod a_effects;
mod a_offsets;
mod b_broker;
mod b_logs;
mod c_rebalance;
mod c_sessions;
mod d_topics;
mod e_bisection;
mod e_contention;
mod e_outages;
mod e_schema;
mod e_zombies;
mod f_cluster;
mod f_keys;
mod f_redis;
mod f_sentinel;
mod g_headers;
mod g_poison;
mod h_dead_letters;
mod j_authority;
mod j_config;
mod j_identity;
mod j_limits;
mod j_security;
mod j_signals;
mod j_skew;
mod j_upgrade;
mod stores;
