//! `contentflow`: see `contentflow --help`.

use std::process::ExitCode;

/// For the C code of the Kafka client, too, which allocates each record on one thread and frees it
/// on another: the system's allocator takes a third of what reading costs for that (decision 13).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    contentflow::cli::main()
}
