//! How many lines of the log each client may cause, so that one that sends nonsense over and over neither fills the
//! disk nor hides what others do. What was left out is counted and told.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::line::counted;

/// Clients that are told apart; those who come later within a period share one count.
const CLIENTS_MAXIMUM: usize = 1024;
/// Longer names of clients are cut, in characters.
const NAME_MAXIMUM: usize = 200;
/// What clients are called that are not told apart.
const OTHERS: &str = "(others)";

/// What a line is about. Each has a number of its own, so that what fails does not hide what is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Something that the client may not do.
    Denied,
    /// A request or a session that failed.
    Failed,
    /// A session that came to its end.
    Completed,
}

impl Kind {
    /// How many lines there are in which time. What was denied should be seen as a whole as long as it can; of sessions
    /// that come to their end there are many where WAL segments are archived one by one.
    const fn limit(self) -> (u32, Duration) {
        match self {
            Self::Denied => (300, Duration::from_secs(60)),
            Self::Failed => (30, Duration::from_secs(10)),
            Self::Completed => (300, Duration::from_secs(10)),
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Denied => "what it was denied",
            Self::Failed => "requests and sessions of it that failed",
            Self::Completed => "sessions of it",
        }
    }
}

/// The lines of all clients.
#[derive(Debug, Default)]
pub struct Quotas {
    clients: HashMap<(Box<str>, Kind), Count>,
    /// When something that was left out is told.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Count {
    until: Instant,
    passed: u32,
    left_out: u64,
}

impl Quotas {
    /// Whether a line about `client` may be written now.
    pub fn pass(&mut self, client: &str, kind: Kind, now: Instant) -> bool {
        let cut = client.char_indices().nth(NAME_MAXIMUM).map_or(client.len(), |(at, _)| at);
        let mut key = (Box::from(client.get(..cut).unwrap_or(client)), kind);
        if !self.clients.contains_key(&key) && self.clients.len() >= CLIENTS_MAXIMUM {
            self.clients.retain(|_, count| count.left_out > 0 || now < count.until);
            if self.clients.len() >= CLIENTS_MAXIMUM {
                key.0 = OTHERS.into();
            }
        }
        let (burst, period) = kind.limit();
        let fresh = || Count { until: now + period, passed: 0, left_out: 0 };
        let count = self.clients.entry(key).or_insert_with(fresh);
        if now >= count.until && count.left_out == 0 {
            *count = fresh();
        }
        if count.passed < burst {
            count.passed += 1;
            return true;
        }
        count.left_out += 1;
        self.due = Some(self.due.map_or(count.until, |due| due.min(count.until)));
        false
    }

    /// When to call [`Quotas::tell`].
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Tells by `line` what was left out of periods that are over.
    pub fn tell(&mut self, now: Instant, mut line: impl FnMut(&str)) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        self.clients.retain(|(client, kind), count| {
            let is_over = now >= count.until;
            if is_over && count.left_out > 0 {
                line(&format!(
                    "client '{client}': {} left out about {}",
                    counted(count.left_out, "more line"),
                    kind.words()
                ));
            }
            !is_over
        });
        self.due = self.clients.values().filter(|count| count.left_out > 0).map(|count| count.until).min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of what fails, and of what is denied.
    const PERIOD: Duration = Kind::Failed.limit().1;
    const LONGER: Duration = Kind::Denied.limit().1;

    fn told(quotas: &mut Quotas, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        quotas.tell(now, |line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn a_flood_of_one_client_leaves_a_few_lines_and_a_count_and_those_of_others() {
        let (mut quotas, start) = (Quotas::default(), Instant::now());
        let passed = (0..1000).filter(|_| quotas.pass("a", Kind::Failed, start)).count();
        assert_eq!(passed, 30);
        assert!(quotas.pass("b", Kind::Failed, start) && quotas.pass("a", Kind::Denied, start));
        assert!(quotas.pass("a", Kind::Completed, start));
        assert_eq!(quotas.deadline(), Some(start + PERIOD));
        assert!(told(&mut quotas, start).is_empty(), "it is not over");
        assert!(!quotas.pass("a", Kind::Failed, start + PERIOD), "what was left out is told first");
        let expected = "client 'a': 971 more lines left out about requests and sessions of it that failed";
        assert_eq!(told(&mut quotas, start + PERIOD), [expected]);
        assert_eq!(quotas.deadline(), None);
        assert!(quotas.pass("a", Kind::Failed, start + PERIOD));
        assert!((0..1000).all(|turn| quotas.pass("c", Kind::Failed, start + PERIOD * turn)), "it is seldom");
    }

    #[test]
    fn clients_without_number_take_bounded_memory_and_are_bounded_together() {
        let (mut quotas, start) = (Quotas::default(), Instant::now());
        let name = |number: usize| format!("{number}{}", "\u{e4}".repeat(10_000));
        let passed = (0..5000).filter(|number| quotas.pass(&name(*number), Kind::Denied, start)).count();
        assert_eq!(passed, CLIENTS_MAXIMUM + 300);
        assert!(quotas.clients.len() <= CLIENTS_MAXIMUM + 1);
        assert!(quotas.clients.keys().all(|(name, _)| name.chars().count() <= NAME_MAXIMUM));
        let lines = told(&mut quotas, start + LONGER);
        assert_eq!(lines, ["client '(others)': 3676 more lines left out about what it was denied"]);
        assert!(quotas.clients.is_empty());
        for number in 0..5000 {
            assert!(quotas.pass(&name(number), Kind::Denied, start + LONGER * u32::try_from(number + 1).unwrap()));
        }
        assert!(quotas.clients.len() <= CLIENTS_MAXIMUM);
    }
}
