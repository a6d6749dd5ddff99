//! The bits that modes of new files lose.
//!
//! The process has none: clients count on getting the modes that they ask for. A client whose
//! administrator set `neutral-umask=n` wants those that the server was started with.

use std::sync::OnceLock;

use rustix::fs::Mode;
use rustix::process::umask;

static INHERITED: OnceLock<u32> = OnceLock::new();

/// Clears the process's mask, and remembers it, or else the one that the process `had` which started this one.
pub(super) fn clear(had: Option<u32>) {
    let before = umask(Mode::empty());
    INHERITED.get_or_init(|| had.unwrap_or(before.bits()));
}

/// The mask that the server was started with, as far as it was cleared.
pub(crate) fn inherited() -> u32 {
    INHERITED.get().copied().unwrap_or(0)
}
