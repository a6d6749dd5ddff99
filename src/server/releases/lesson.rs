//! What one client taught one server process, in the form in which it is told to the others.

use serde::{Deserialize, Serialize};

use super::Key;
use super::turns::Moment;

/// Something that was learned of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lesson {
    pub(crate) key: Key,
    /// The release that it was greeted with.
    pub(crate) release: String,
    /// What came of it.
    pub(crate) what: What,
    /// When, in seconds since the epoch.
    pub(crate) at: u64,
    /// Where releases take turns: which turn it was.
    pub(crate) moment: Moment,
}

/// What a client made of a greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum What {
    /// It sent a request.
    Confirmed,
    /// It hung up.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::release::{RELEASES, Release};
    use crate::server::releases::learner::Learner;
    use crate::server::releases::memory::Remembered;
    use crate::server::releases::table::Table;

    fn table() -> Table {
        let all: Vec<_> = RELEASES.iter().collect();
        Table { by_age: all.clone(), likely: all.into_iter().rev().collect(), named: 0 }
    }

    #[test]
    fn a_client_that_comes_to_another_process_is_greeted_as_it_taught_the_first() {
        let (table, mut one, mut other) = (table(), Learner::default(), Learner::default());
        one.collect_lessons();
        other.collect_lessons();
        let key = Key { address: "192.0.2.1".parse().unwrap(), client: Some("db1".into()) };
        let first = one.offer(&key, &table, 0).unwrap();
        one.refuse(&key, first, &table, 1);
        let second = one.offer(&key, &table, 0).unwrap();
        one.confirm(&key, second.release, 2);
        assert_ne!(first.release.version, second.release.version);

        let lessons = one.take_lessons();
        assert_eq!(lessons.iter().map(|lesson| lesson.what).collect::<Vec<_>>(), [What::Refused, What::Confirmed]);
        other.hear(&lessons[0], &table);
        assert_eq!(other.offer(&key, &table, 0).unwrap().release.version, second.release.version);
        other.hear(&lessons[1], &table);
        assert_eq!(other.worked().collect::<Vec<_>>(), one.worked().collect::<Vec<_>>());
        assert!(other.take_lessons().is_empty(), "what was heard is not told again");
        one.confirm(&key, second.release, 3);
        assert!(one.take_lessons().is_empty(), "nothing is new");

        let known: Vec<_> = one.worked().map(Remembered::new).collect();
        let mut third = Learner::default();
        third.restore(known.into_iter().filter_map(|known| known.known(&table)));
        assert_eq!(third.offer(&key, &table, 0).unwrap().release.version, second.release.version);
    }

    #[test]
    fn a_refusal_that_is_heard_late_does_not_count_against_another_release() {
        let (table, mut learner) = (table(), Learner::default());
        let key = Key { address: "192.0.2.1".parse().unwrap(), client: None };
        let release = Release::find("2.45").unwrap();
        learner.confirm(&key, release, 1);
        let version = learner.offer(&key, &table, 0).unwrap().release.version;
        let lesson = Lesson {
            key: key.clone(),
            release: "2.60.0".to_owned(),
            what: What::Refused,
            at: 2,
            moment: Moment::default(),
        };
        learner.hear(&lesson, &table);
        assert_eq!(learner.offer(&key, &table, 0).unwrap().release.version, version);
    }
}
