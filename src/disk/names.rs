//! Names of users and groups and their numbers, from `/etc/passwd` and `/etc/group`.
//!
//! A static binary has no name service switch, so users that only a directory service knows have no
//! name here; pgBackRest's protocol has a null for that. The files are parsed once and read again when
//! they changed, which is looked at no more than once a second.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long an answer may be older than the file.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Both tables.
#[derive(Debug)]
pub struct Names {
    users: Table,
    groups: Table,
}

impl Names {
    /// Names from the given files, in the formats of `/etc/passwd` and `/etc/group`, which are first
    /// read when a name is asked for.
    #[must_use]
    pub fn new(passwd: PathBuf, group: PathBuf) -> Self {
        Self::with_interval(passwd, group, CHECK_INTERVAL)
    }

    /// As [`Self::new`], looking for changes once in `interval`.
    #[must_use]
    pub fn with_interval(passwd: PathBuf, group: PathBuf, interval: Duration) -> Self {
        Self { users: Table::new(passwd, interval), groups: Table::new(group, interval) }
    }

    /// The name of user `uid`, if it has one.
    pub fn user(&mut self, uid: u32) -> Option<Rc<str>> {
        self.users.current().by_number.get(&uid).cloned()
    }

    /// The name of group `gid`, if it has one.
    pub fn group(&mut self, gid: u32) -> Option<Rc<str>> {
        self.groups.current().by_number.get(&gid).cloned()
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
        Self { path, interval, checked: None, version: None, entries: Entries::default() }
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

impl Entries {
    /// Takes name and number, the first and third field, of each line. As in the C library the first
    /// of several entries counts, and lines that make no sense are passed over.
    fn parse(bytes: &[u8]) -> Self {
        let mut entries = Self::default();
        for line in bytes.split(|byte| *byte == b'\n') {
            let Ok(line) = std::str::from_utf8(line) else { continue };
            let mut fields = line.split(':');
            let (Some(name), Some(_), Some(number)) = (fields.next(), fields.next(), fields.next()) else { continue };
            // NIS entries begin with a sign and name nobody by themselves.
            if name.is_empty() || name.starts_with(['#', '+', '-']) {
                continue;
            }
            let Ok(number) = number.parse() else { continue };
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
        Names::with_interval(users, groups, Duration::ZERO)
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
