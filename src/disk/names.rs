//! Names of users and groups and their numbers, from `/etc/passwd` and `/etc/group`.
//!
//! The files are parsed once and read again when they changed, which is looked at no more than once a
//! second. A static binary has no name service switch: what only a directory service knows has no name at first,
//! and is noted as [`Unknown`] for somebody who can wait for [`super::getent`]. What that finds is
//! [learned](Names::learn) for a while. pgBackRest's protocol has a null for who has no name at all.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::passwd::{self, Entry};

/// How long an answer may be older than the file.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long what was found elsewhere is relied on.
const FOUND_LASTS: Duration = Duration::from_secs(600);
/// And how long that nothing was found.
const MISSING_LASTS: Duration = Duration::from_secs(60);
/// So many numbers are remembered that are not in a file.
const ELSEWHERE_MAXIMUM: usize = 4096;

/// Both tables.
#[derive(Debug)]
pub struct Names {
    users: Table,
    groups: Table,
}

/// Numbers that no file has a name for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unknown {
    /// Of users.
    pub users: BTreeSet<u32>,
    /// Of groups.
    pub groups: BTreeSet<u32>,
}

/// Names that were found for numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Of users.
    pub users: Vec<(u32, String)>,
    /// Of groups.
    pub groups: Vec<(u32, String)>,
}

impl Unknown {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }

    /// Takes out at most so many of each.
    #[must_use]
    pub fn take(&mut self, count: usize) -> Self {
        let part = |numbers: &mut BTreeSet<u32>| std::iter::from_fn(|| numbers.pop_first()).take(count).collect();
        Self { users: part(&mut self.users), groups: part(&mut self.groups) }
    }
}

impl Names {
    /// Names from the given files, in the formats of `/etc/passwd` and `/etc/group`, which are first
    /// read when a name is asked for, and looked at for changes once in `interval`.
    #[must_use]
    pub fn new(passwd: PathBuf, group: PathBuf, interval: Duration) -> Self {
        Self { users: Table::new(passwd, interval), groups: Table::new(group, interval) }
    }

    /// The name of user `uid`, if it has one.
    pub fn user(&mut self, uid: u32) -> Option<Rc<str>> {
        self.users.name(uid)
    }

    /// The name of group `gid`, if it has one.
    pub fn group(&mut self, gid: u32) -> Option<Rc<str>> {
        self.groups.name(gid)
    }

    /// What was asked for since the last call and is in no file.
    pub fn take_unknown(&mut self) -> Unknown {
        Unknown { users: std::mem::take(&mut self.users.unknown), groups: std::mem::take(&mut self.groups.unknown) }
    }

    /// Learns what was found of `asked`. Returns which of these have no name, of users and of groups, where that is
    /// news.
    pub fn learn(&mut self, asked: &Unknown, found: Found) -> Unknown {
        Unknown {
            users: self.users.learn(&asked.users, found.users),
            groups: self.groups.learn(&asked.groups, found.groups),
        }
    }

    /// The number of the user called `name`.
    pub fn uid(&mut self, name: &str) -> Option<u32> {
        self.users.current().by_name.get(name).copied()
    }

    /// The number of the group called `name`.
    pub fn gid(&mut self, name: &str) -> Option<u32> {
        self.groups.current().by_name.get(name).copied()
    }
}

/// One file: its entries, and what it looked like when they were read.
#[derive(Debug)]
struct Table {
    path: PathBuf,
    interval: Duration,
    checked: Option<Instant>,
    version: Option<Version>,
    entries: Entries,
    /// Names from elsewhere, and until when they count.
    elsewhere: HashMap<u32, (Option<Rc<str>>, Instant)>,
    unknown: BTreeSet<u32>,
}

/// What changes when a file is replaced or edited.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    inode: u64,
    size: i64,
    seconds: i64,
    nanoseconds: u64,
}

#[derive(Debug, Default)]
struct Entries {
    by_number: HashMap<u32, Rc<str>>,
    by_name: HashMap<Rc<str>, u32>,
}

impl Table {
    fn new(path: PathBuf, interval: Duration) -> Self {
        Self {
            path,
            interval,
            checked: None,
            version: None,
            entries: Entries::default(),
            elsewhere: HashMap::new(),
            unknown: BTreeSet::new(),
        }
    }

    fn name(&mut self, number: u32) -> Option<Rc<str>> {
        if let Some(name) = self.current().by_number.get(&number) {
            return Some(Rc::clone(name));
        }
        match self.elsewhere.get(&number) {
            Some((name, until)) if Instant::now() < *until => name.clone(),
            _ => {
                // Where nobody takes them they are not needed.
                if self.unknown.len() < ELSEWHERE_MAXIMUM {
                    self.unknown.insert(number);
                }
                None
            }
        }
    }

    fn learn(&mut self, asked: &BTreeSet<u32>, found: Vec<(u32, String)>) -> BTreeSet<u32> {
        let now = Instant::now();
        if self.elsewhere.len() + asked.len() > ELSEWHERE_MAXIMUM {
            self.elsewhere.clear();
        }
        let found: HashMap<u32, String> = found.into_iter().collect();
        let mut news = BTreeSet::new();
        for number in asked {
            let name = found.get(number).map(|name| Rc::from(name.as_str()));
            let lasts = if name.is_some() { FOUND_LASTS } else { MISSING_LASTS };
            let is_missing = name.is_none();
            let before = self.elsewhere.insert(*number, (name, now + lasts));
            if is_missing && !matches!(before, Some((None, _))) {
                news.insert(*number);
            }
        }
        news
    }

    fn current(&mut self) -> &Entries {
        let now = Instant::now();
        if self.checked.is_none_or(|checked| now.duration_since(checked) >= self.interval) {
            self.checked = Some(now);
            self.refresh();
        }
        &self.entries
    }

    /// Reads the file if it changed. One that is missing or unreadable for a moment takes no name away.
    fn refresh(&mut self) {
        let Ok(stat) = rustix::fs::stat(&self.path) else { return };
        let version =
            Version { inode: stat.st_ino, size: stat.st_size, seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec };
        if self.version.as_ref() == Some(&version) {
            return;
        }
        if let Ok(bytes) = std::fs::read(&self.path) {
            self.entries = Entries::parse(&bytes);
            self.version = Some(version);
        }
    }
}

/// The names and numbers in a text of the format of these files.
pub(super) fn pairs(bytes: &[u8]) -> Vec<(u32, String)> {
    Entries::parse(bytes).by_number.into_iter().map(|(number, name)| (number, name.to_string())).collect()
}

impl Entries {
    /// As in the C library the first of several entries counts.
    fn parse(bytes: &[u8]) -> Self {
        let mut entries = Self::default();
        for Entry { name, number, .. } in passwd::entries(bytes) {
            let name: Rc<str> = name.into();
            entries.by_number.entry(number).or_insert_with(|| Rc::clone(&name));
            entries.by_name.entry(name).or_insert(number);
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(directory: &tempfile::TempDir, passwd: &str, group: &str) -> Names {
        let [users, groups] = ["passwd", "group"].map(|name| directory.path().join(name));
        std::fs::write(&users, passwd).unwrap();
        std::fs::write(&groups, group).unwrap();
        Names::new(users, groups, Duration::ZERO)
    }

    #[test]
    fn owners_have_names_and_names_have_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let mut names = written(
            &directory,
            "root:x:0:0:root:/root:/bin/sh\npostgres:x:999:998::/:/bin/sh\nother:x:999:1::/:\n",
            "root:x:0:\npostgres:x:998:backup,root\n",
        );
        assert_eq!(names.user(999).as_deref(), Some("postgres"), "the first of two counts");
        assert_eq!(names.uid("other"), Some(999));
        assert_eq!(names.group(998).as_deref(), Some("postgres"));
        assert_eq!(names.gid("postgres"), Some(998));
        assert_eq!((names.user(7), names.gid("nobody")), (None, None));
    }

    #[test]
    fn damaged_lines_are_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let mut names =
            written(&directory, "\n#c:x:1:\n+nis:x:2:\n:x:3:\nshort:x\nbad:x:-4:\nbig:x:4294967296:\nok:x:5:", "");
        for uid in [1, 2, 3, 4] {
            assert_eq!(names.user(uid), None);
        }
        assert_eq!(names.user(5).as_deref(), Some("ok"));
        std::fs::write(directory.path().join("passwd"), b"\xff:x:6:\nafter:x:7:\n").unwrap();
        assert_eq!((names.user(6), names.user(7).as_deref()), (None, Some("after")));
    }

    #[test]
    fn what_was_found_elsewhere_is_known_for_a_while_and_what_is_in_no_file_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let mut names = written(&directory, "a:x:1:\n", "");
        assert_eq!((names.user(1).as_deref(), names.user(2), names.group(3)), (Some("a"), None, None));
        let asked = names.take_unknown();
        assert_eq!(asked, Unknown { users: [2].into(), groups: [3].into() });
        assert!(names.take_unknown().is_empty());
        let news = names.learn(&asked, Found { users: vec![(2, "b".to_owned())], groups: vec![] });
        assert_eq!(news, Unknown { users: [].into(), groups: [3].into() });
        assert_eq!((names.user(2).as_deref(), names.group(3)), (Some("b"), None));
        assert!(names.take_unknown().is_empty(), "nobody is asked again so soon");
        assert!(names.learn(&asked, Found::default()).groups.is_empty(), "it is no news any more");
        for number in 0..3 * u32::try_from(ELSEWHERE_MAXIMUM).unwrap() {
            names.learn(&Unknown { users: [number].into(), ..Unknown::default() }, Found::default());
        }
        assert!(names.users.elsewhere.len() <= ELSEWHERE_MAXIMUM);
    }

    #[test]
    fn a_user_added_while_the_server_runs_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let mut names = written(&directory, "a:x:1:\n", "");
        assert_eq!(names.uid("b"), None);
        let new = directory.path().join("passwd+");
        std::fs::write(&new, "a:x:1:\nb:x:2:\n").unwrap();
        std::fs::rename(new, directory.path().join("passwd")).unwrap();
        assert_eq!(names.uid("b"), Some(2));
        std::fs::remove_file(directory.path().join("passwd")).unwrap();
        assert_eq!(names.uid("b"), Some(2), "a missing file takes no name away");
    }
}
