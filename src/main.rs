//! The program: arguments to a command, nothing else.

use std::process::ExitCode;

/// The allocator of musl is slow, and keeps what a burst of connections once needed.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    ExitCode::from(repohostd::cli::run(&arguments))
}
