//! Processes that this program starts of itself: helpers of the disk, workers of the server.

pub mod link;

use std::os::unix::process::CommandExt;
use std::process::Command;

/// This very program once more, with `word` as its command; also when the file that it was started from has
/// been replaced meanwhile.
#[must_use]
pub fn again(word: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(env!("CARGO_PKG_NAME")).arg(word);
    command
}
