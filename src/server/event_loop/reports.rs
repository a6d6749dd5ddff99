//! What the event loop of a worker tells of its connections, for whoever gives it more of them.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Files come one after the other: for so long after one a session still counts as a transfer.
const LASTS: Duration = Duration::from_secs(1);

/// So much of a name is told: more than certificates may have, and a bound for those that have more.
const NAME: usize = 64;

/// What has happened since the last look. Connections are told apart by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    proven: Vec<(u64, String)>,
    closed: Vec<u64>,
    /// Sessions that transfer files, and when they were last seen doing so.
    transfers: Vec<(u64, Instant)>,
}

/// What has become of connections.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Those that were authorized, and the name in the certificate of each.
    pub(crate) proven: Vec<(u64, String)>,
    /// Those that are over.
    pub(crate) closed: Vec<u64>,
    /// Sessions that transfer files now.
    pub(crate) transfers: usize,
}

impl Reports {
    /// Notes that a client with this name was authorized.
    pub(super) fn proves(&mut self, number: u64, name: &str) {
        self.proven.push((number, name.chars().take(NAME).collect()));
    }

    /// What there is to tell now, if anything, to somebody who knows of so many transfers.
    pub(crate) fn take(&mut self, known: usize, now: Instant) -> Option<Report> {
        let transfers = self.count(now);
        if transfers == known && self.proven.is_empty() && self.closed.is_empty() {
            return None;
        }
        let (proven, closed) = (std::mem::take(&mut self.proven), std::mem::take(&mut self.closed));
        Some(Report { proven, closed, transfers })
    }

    /// Notes that a session has a file open.
    pub(crate) fn transfers(&mut self, number: u64, now: Instant) {
        match self.transfers.iter_mut().find(|(other, _)| *other == number) {
            Some((_, seen)) => *seen = now,
            None => self.transfers.push((number, now)),
        }
    }

    /// Notes that a connection is over, if it has a number.
    pub(crate) fn closes(&mut self, number: Option<u64>) {
        self.closed.extend(number);
        self.transfers.retain(|(other, _)| Some(*other) != number);
    }

    /// How many sessions transfer files.
    fn count(&mut self, now: Instant) -> usize {
        self.transfers.retain(|(_, seen)| now.saturating_duration_since(*seen) < LASTS);
        self.transfers.len()
    }

    /// When there is something to tell though nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.transfers.iter().map(|(_, seen)| *seen + LASTS).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_counts_as_a_transfer_until_it_has_had_no_file_for_a_while() {
        let (mut reports, begin) = (Reports::default(), Instant::now());
        let at = |milliseconds| begin + Duration::from_millis(milliseconds);
        assert_eq!((reports.count(begin), reports.deadline()), (0, None));
        reports.transfers(1, at(0));
        reports.transfers(2, at(0));
        reports.transfers(1, at(600));
        assert_eq!((reports.count(at(999)), reports.deadline()), (2, Some(at(1000))));
        assert_eq!((reports.count(at(1000)), reports.deadline()), (1, Some(at(1600))));
        reports.transfers(3, at(1200));
        reports.closes(Some(1));
        assert_eq!((reports.count(at(1300)), &reports.closed), (1, &vec![1]));
    }

    #[test]
    fn whatever_happens_is_told_at_once_and_only_once() {
        let (mut reports, begin) = (Reports::default(), Instant::now());
        assert_eq!(reports.take(0, begin), None);
        let report = |proven: &[u64], closed: &[u64], transfers| {
            let proven = proven.iter().map(|number| (*number, "client".to_owned())).collect();
            Some(Report { proven, closed: closed.to_vec(), transfers })
        };
        reports.proves(1, "client");
        assert_eq!((reports.take(0, begin), reports.take(0, begin)), (report(&[1], &[], 0), None));
        reports.proves(2, "client");
        reports.closes(Some(2));
        assert_eq!((reports.take(0, begin), reports.take(0, begin)), (report(&[2], &[2], 0), None));
        reports.transfers(3, begin);
        assert_eq!((reports.take(0, begin), reports.take(1, begin)), (report(&[], &[], 1), None));
    }
}
