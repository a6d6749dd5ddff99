//! The releases that can be announced, and what is known of one.

use crate::protocol::release::Release;

/// The releases that can be announced.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    /// Old to new.
    pub(crate) by_age: Vec<&'static Release>,
    /// The likeliest first; every one of `by_age` once.
    pub(crate) likely: Vec<&'static Release>,
    /// So many of them, at its beginning, are those that the administrator named.
    pub(crate) named: usize,
}

impl Table {
    pub(in crate::server) fn find(&self, version: &str) -> Option<&'static Release> {
        self.by_age.iter().find(|release| release.version == version).copied()
    }

    pub(super) fn age(&self, release: &Release) -> Option<usize> {
        self.by_age.iter().position(|known| known.version == release.version)
    }
}

/// A release that worked, and when it did last, in seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Worked {
    pub(crate) release: &'static Release,
    pub(crate) at: u64,
}

/// Whether a client could not tell them apart.
pub(super) fn same(one: &Release, other: &Release) -> bool {
    one.version == other.version
}
