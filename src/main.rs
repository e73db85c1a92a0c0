//! `contentflow`: see `contentflow --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    contentflow::cli::main()
}
