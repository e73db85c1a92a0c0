//! The fault catalogue on real servers: each test's name begins with the ids of what it shows. `docs/reliability.md` has the list.

mod g_headers;
