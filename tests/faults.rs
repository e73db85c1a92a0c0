//! The fault catalogue on real servers: each test's name begins with the ids of what it shows. `docs/reliability.md` has the list.

mod a_effects;
mod a_offsets;
mod b_broker;
mod b_logs;
mod c_rebalance;
mod c_sessions;
mod d_topics;
mod g_headers;
mod h_dead_letters;
