//! Earlier versions of info files, kept where no client reaches them.
//!
//! Whoever replaces an info file may be an intruder on a database host whose role allows it. Its
//! version before is therefore kept in a directory outside of all repositories:
//!
//! ```text
//! HISTORY/srv/repo/backup/demo/backup.info/20261125T101112.123456Z
//! ```
//!
//! A version is durable before the file is replaced, so that whatever the new one says, the old one can be
//! put back by `repohostd history`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bstr::ByteSlice;
use jiff::{SignedDuration, Timestamp};

use crate::disk::{Location, RelativePath, Root};
use crate::protocol::error::{Code, Error, Result};

/// How names look.
const FORMAT: &str = "%Y%m%dT%H%M%S%.6fZ";

/// Where versions are kept, and how many.
#[derive(Debug, Clone)]
pub struct Versions {
    path: Rc<Path>,
    count: usize,
}

/// The name of a version: when it was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct VersionName(Timestamp);

impl Versions {
    /// Keeps `count` versions of each file below `directory`, which need not exist yet. `None` when none
    /// are to be kept.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, count: usize) -> Option<Self> {
        (count > 0).then(|| Self { path: directory.into().into(), count })
    }

    /// The directory that all of them are below.
    pub(in crate::repository) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that the versions of `file` are in.
    pub(in crate::repository) fn directory(&self, file: &Location) -> Result<Location> {
        let path = RelativePath::new(file.absolute().trim_start_with(|first| first == '/'));
        let path = path.filter(|path| !path.is_root()).ok_or_else(|| {
            let message = format!("unable to keep versions of '{file}' in '{}'", self.path.display());
            Error::new(Code::FileWrite, message)
        })?;
        // A root of its own each time, so that a volume that is mounted there later is found.
        Ok(Location::new(Root::new(&*self.path), path))
    }

    /// Which of `names`, the oldest first, are too many: beyond the newest ones only the first of each
    /// day stays, as many again. So an intruder who replaces a file over and over does not push all
    /// good versions out.
    pub(in crate::repository) fn surplus(&self, names: &[VersionName]) -> Vec<VersionName> {
        let old = &names[..names.len().saturating_sub(self.count)];
        let day = |name: &VersionName| name.to_string()[..8].to_owned();
        let is_first = |index: usize| index == 0 || day(&old[index - 1]) != day(&old[index]);
        let firsts: Vec<_> = (0..old.len()).filter(|index| is_first(*index)).collect();
        let kept = &firsts[firsts.len().saturating_sub(self.count)..];
        old.iter().enumerate().filter(|(index, _)| !kept.contains(index)).map(|(_, name)| *name).collect()
    }
}

impl VersionName {
    /// The name of a version that is kept at `time`.
    pub(crate) fn at(time: Timestamp) -> Self {
        Self(Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time))
    }

    /// The name that `text` is.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S%.fZ", text).ok()?;
        let name = Self(jiff::tz::TimeZone::UTC.to_timestamp(time).ok()?);
        (name.to_string() == text).then_some(name)
    }

    /// When it was kept.
    pub(crate) const fn time(self) -> Timestamp {
        self.0
    }

    /// `time`, or just after `self` when the clock was set back: names are in the order of keeping.
    pub(in crate::repository) fn or_later(self, time: Timestamp) -> Self {
        let next = self.0.checked_add(SignedDuration::from_micros(1)).unwrap_or(self.0);
        Self::at(time).max(Self(next))
    }
}

impl fmt::Display for VersionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime(FORMAT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_keep_gives_are_versions() {
        let name = VersionName::at("2026-11-25T10:11:12.1Z".parse().unwrap());
        assert_eq!(name.to_string(), "20261125T101112.100000Z");
        assert_eq!(VersionName::parse("20261125T101112.100000Z"), Some(name));
        for text in ["", "20261125T101112.1Z", "20261325T101112.100000Z", "20261125T101112.100000Z.tmp", "backup.info"]
        {
            assert_eq!(VersionName::parse(text), None, "{text}");
        }
    }
}
