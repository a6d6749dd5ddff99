//! How several releases in use share one key: clients that have one address and one certificate, behind a router
//! that translates addresses for instance, while their hosts are upgraded one after the other.
//!
//! Nothing tells such clients apart before they have accepted or refused a greeting, and whoever is refused tries again:
//! PostgreSQL's archiver after a second, three times, and then after a minute. If a refusal alone moved on to the next
//! release, hosts that fail in between each other would move it on for each other, and some would never meet their own.
//! So a release keeps its turn for as long as a failed host waits, whoever else refuses it meanwhile: each of these
//! finds the next one a second later. The test `nobody_starves_at_the_archivers_pace` shows what comes of it.

use serde::{Deserialize, Serialize};

use super::table::same;
use crate::protocol::release::Release;

/// How long a turn takes at least where two, three, four, and more releases take turns, in milliseconds. A host that comes
/// again after a second and what its command takes to connect is to see one release after the other. The same times
/// should bring it to another place when it comes again after a minute, or the same hosts miss theirs again and again:
/// some lengths have every tenth push take too many tries, and others nearly the same none. These were found by the test.
const TURNS: [u64; 4] = [1000, 1030, 1260, 1180];
/// A host can try as many releases before it waits for a minute. So many and more go on taking turns meanwhile, so that
/// it begins with another one then.
const BURST: usize = 3;
/// How long after a refusal turns go on by themselves.
const CONTESTED: u64 = 75_000;

/// When a client came, and when the turn of the release that it was offered had begun, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moment {
    pub(crate) arrived: u64,
    /// When the turn had begun; 0 where nobody takes turns.
    pub(crate) since: u64,
}

#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Whose turn it is, and who follows.
    order: Vec<&'static Release>,
    /// When it began, in milliseconds since the epoch.
    since: u64,
    /// When it was refused last in it.
    refused: Option<u64>,
}

impl Turns {
    /// Whose turn it is.
    pub(super) fn present(&self) -> Option<&'static Release> {
        self.order.first().copied()
    }

    /// Has the next one have its turn, if the present one was refused and has had its time. `current` are those in use.
    /// Returns when the present turn began.
    pub(super) fn go_on(&mut self, current: &[&'static Release], now: u64) -> u64 {
        self.order.retain(|release| current.iter().any(|other| same(other, release)));
        for release in current {
            if self.order.iter().all(|other| !same(other, release)) {
                self.order.push(release);
            }
        }
        let Some(refused) = self.refused else { return self.since };
        let many = self.order.len() >= BURST;
        let turn = TURNS[self.order.len().saturating_sub(2).min(TURNS.len() - 1)];
        // A clock that was put back must not keep anybody waiting.
        let passed = now.checked_sub(self.since).unwrap_or(turn);
        if passed < turn {
            return self.since;
        }
        if many && now.saturating_sub(refused) < CONTESTED {
            let turns = passed / turn;
            let places = usize::try_from(turns).unwrap_or(0) % self.order.len();
            self.order.rotate_left(places);
            self.since = if passed < CONTESTED { self.since + turns * turn } else { now };
        } else {
            self.order.rotate_left(1);
            self.since = now;
            self.refused = None;
        }
        self.since
    }

    /// A client that was offered `release` in the turn of `moment` has refused it.
    pub(super) fn spend(&mut self, release: &Release, moment: Moment) {
        if self.since == moment.since && self.present().is_some_and(|present| same(present, release)) {
            self.refused = self.refused.max(Some(moment.arrived));
        }
    }

    /// Another process had somebody refuse `release`, in the turn that it had there.
    pub(super) fn catch_up(&mut self, release: &Release, moment: Moment) {
        let Some(place) = self.order.iter().position(|other| same(other, release)) else { return };
        if place == 0 {
            // Both began the same turn; the first one counts.
            self.since = self.since.min(moment.since);
        } else if moment.since > self.since {
            self.order.rotate_left(place);
            self.since = moment.since;
            self.refused = None;
        }
    }
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
