//! Backups that got their manifest through this server lately.
//!
//! What is not finished when a request begins may be when it ends: another session can finish it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// So many are remembered. Whoever has been at it for longer is taken to be too late.
const REMEMBERED: usize = 64;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    /// The directories of the last of them, the latest first.
    static RECENT: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
}

/// Notes that the backup in `directory` got its manifest.
pub(in crate::repository) fn note(directory: String) {
    COUNT.set(COUNT.get() + 1);
    RECENT.with_borrow_mut(|recent| {
        recent.truncate(REMEMBERED - 1);
        recent.push_front(directory);
    });
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(u64);

impl Moment {
    pub(super) fn now() -> Self {
        Self(COUNT.get())
    }

    /// Whether a backup was finished since then, whichever.
    pub(super) fn is_past(self) -> bool {
        self != Self::now()
    }

    /// Whether the backup in `directory` was finished since then, or may have been.
    fn has_seen(self, directory: &str) -> bool {
        let since = usize::try_from(COUNT.get() - self.0).unwrap_or(usize::MAX);
        since > REMEMBERED || RECENT.with_borrow(|recent| recent.iter().take(since).any(|other| other == directory))
    }
}

/// Watches that a backup is not finished while something is written into it.
#[derive(Debug)]
pub struct Watch {
    directory: String,
    since: Moment,
}

impl Watch {
    pub(super) fn new(directory: String) -> Self {
        Self { directory, since: Moment::now() }
    }

    /// Whether it was finished since.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.since.has_seen(&self.directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_that_is_finished_meanwhile_is_noticed() {
        let watch = |directory: &str| Watch::new(directory.to_owned());
        let (first, second) = (watch("/r/backup/demo/1"), watch("/r/backup/demo/2"));
        note("/r/backup/demo/1".to_owned());
        assert!(first.has_ended() && !second.has_ended());
        assert!(!watch("/r/backup/demo/1").has_ended());
        for number in 0..REMEMBERED {
            note(format!("/r/backup/other/{number}"));
        }
        assert!(second.has_ended(), "what happened meanwhile is not remembered");
    }
}
