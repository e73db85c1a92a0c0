//! The shell of contentflow: everything that touches the world outside. The rules are in the
//! `dataflows` crate.
//!
//! ```text
//! run -> source (poll, assignment) -> ingest -> worker [ the graph ] -> sink (postgres, redis, dead_letter)
//!           ^                                       |
//!           +-- commit <- progress <----- probe ----+
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`] | the command line: what can be asked for, logging, and how a command ends |
//! | [`config`] | defaults, file, environment and flags, validated once into types that cannot be wrong |
//! | [`kafka`], [`postgres`], [`redis`] | what all clients of a server have in common: connections, deadlines, TLS, errors that say what to do |
//! | [`headers`] | the headers of a record, of which one with a name that is not UTF-8 costs only itself |
//! | [`migrate`], [`check`] | the table and its bookkeeping columns; what must be right before a run |
//! | [`run`] | puts a run together, from the first connection to the report |
//! | [`source`] | the consumer, the poll loop, and what happens when partitions come and go |
//! | [`bulk`] | a backlog, fetched straight from the leaders of its partitions |
//! | [`ingest`] | records into chunks, chunks to workers, epochs opened and closed, the bound on what is in flight |
//! | [`worker`] | one timely worker a thread, each with the whole graph |
//! | [`sink`] | the effects on the servers, put together and carried out by a task for each lane; retries, cuts and outages |
//! | [`progress`], [`commit`] | what the workers report to the poll thread; the thread that commits offsets |
//! | [`retry`], [`shutdown`] | how long to wait before the next try; signals, and how a run ends before its time |
//! | [`report`] | the totals of a run |
//! | [`figures`], [`limit`] | what the program counts about its own work; which stage limits |
//! | [`http`], [`traces`] | the page, metrics and health of a run; spans for a collector |
//! | [`scan`] | a topic from its beginning to its end, outside any group |
//! | [`replay`] | whole partitions through the same graph, outside the group |
//! | [`dead_letters`] | the format of dead letters, and the `dlq` commands |
//! | [`lease`], [`drafts`] | the lease of a cache key; a reader of drafts as services should write it |
//! | [`generate`], [`publish`] | synthetic events; the reference publisher |
//! | [`verify`], [`tune`], [`demo`] | these commands |
//! | [`progress_bar`], [`notice`], [`printable`] | how far a long command is; errors and hints in the form of the log; foreign text made safe for a terminal |
//! | `percent`, `lock` | percent-encoded texts decoded; mutexes without poison |
//! | [`clock`] | the time of day |

pub mod cli;
pub mod config;
pub mod kafka;
pub mod headers;
pub mod postgres;
pub mod redis;
pub mod migrate;
pub mod check;
pub mod run;
pub mod source;
pub mod bulk;
pub mod ingest;
pub mod worker;
pub mod figures;
pub mod limit;
pub mod traces;
pub mod sink;
pub mod http;
pub mod progress;
pub mod commit;
pub mod clock;
pub mod retry;
pub mod shutdown;
pub mod report;
pub mod scan;
pub mod replay;
pub mod notice;
pub mod progress_bar;
pub mod dead_letters;
pub mod lease;
pub mod drafts;
pub mod generate;
pub mod publish;
pub mod verify;
pub mod tune;
pub mod demo;
pub mod printable;
mod percent;
mod lock;
