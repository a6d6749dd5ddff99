//! What there is on disk where configuration files are looked for, and whether it is still the same.
//!
//! Owns what identifies a state of the files without reading them, and how long that can be trusted: a file that was
//! written twice within one tick of its file system's clock may look the same both times. It knows no grammar.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::files::Search;
use super::snapshot::{Data, Origin};

/// A file that is replaced while it is read is read again, so often at most.
const READ_ATTEMPTS: u32 = 3;
/// For so long after files were first seen in a state they are read, and not only looked at: longer than the longest
/// tick of a file system's clock, which is 2 s.
const SETTLING: Duration = Duration::from_secs(3);

/// Everything that was looked for: each path, its state, and what is in it. What could not be read has the number of
/// the error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found(Vec<(Vec<u8>, Looked)>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Looked {
    /// The state of the file; none when there is nothing of that name.
    stamp: Option<Data>,
    contents: Contents,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Contents {
    File(Result<Vec<u8>, i32>),
    /// Names of included files in bytewise order.
    Directory(Result<Vec<Vec<u8>>, i32>),
}

/// A file or the directory, as it was found.
pub(super) enum Item<'a> {
    File(&'a Path, Result<&'a [u8], i32>),
    Directory(&'a Path, Result<(), i32>),
}

impl Found {
    /// Reads whatever `search` finds.
    pub(super) fn read(search: &Search, origin: &Origin) -> Self {
        let mut attempt = 1;
        loop {
            let found = Self::read_once(search, origin);
            if attempt == READ_ATTEMPTS || found.looks_the_same(origin) {
                return found;
            }
            attempt += 1;
        }
    }

    fn read_once(search: &Search, origin: &Origin) -> Self {
        let mut found = Self(vec![]);
        for candidate in search.main_candidates().0 {
            if found.see(&candidate, origin) {
                break;
            }
        }
        if let Some((directory, _)) = search.include_directory() {
            let stamp = origin.data(&directory).ok();
            let names = included(&directory, origin);
            let files: Vec<_> = names.iter().flatten().map(|name| directory.join(name)).collect();
            let names = names.map(|names| names.into_iter().map(OsStringExt::into_vec).collect());
            found.add(&directory, stamp, Contents::Directory(names));
            for path in files {
                found.see(&path, origin);
            }
        }
        found
    }

    /// Reads a file; whether there is one.
    fn see(&mut self, path: &Path, origin: &Origin) -> bool {
        let stamp = origin.data(path).ok();
        let contents = origin.read(path).map_err(|error| error.raw_os_error().unwrap_or(0));
        let exists = contents != Err(rustix::io::Errno::NOENT.raw_os_error());
        self.add(path, stamp, Contents::File(contents));
        exists
    }

    fn add(&mut self, path: &Path, stamp: Option<Data>, contents: Contents) {
        self.0.push((path.as_os_str().as_bytes().to_vec(), Looked { stamp, contents }));
    }

    /// What was found, in the order in which it is read.
    pub(super) fn items(&self) -> impl Iterator<Item = Item<'_>> {
        self.0.iter().map(|(path, looked)| {
            let path = Path::new(OsStr::from_bytes(path));
            match &looked.contents {
                Contents::File(contents) => Item::File(path, contents.as_deref().map_err(|error| *error)),
                Contents::Directory(names) => Item::Directory(path, names.as_ref().map(|_| ()).map_err(|error| *error)),
            }
        })
    }

    /// Whether no file has changed, appeared or vanished, as far as can be told without reading any.
    fn looks_the_same(&self, origin: &Origin) -> bool {
        self.0.iter().all(|(path, looked)| origin.is_still(Path::new(OsStr::from_bytes(path)), looked.stamp))
    }
}

fn included(directory: &Path, origin: &Origin) -> Result<Vec<OsString>, i32> {
    let mut names = origin.list(directory).map_err(|error| error.raw_os_error().unwrap_or(0))?;
    names.retain(|name| name.len() > ".conf".len() && name.as_bytes().ends_with(b".conf"));
    names.sort_unstable();
    Ok(names)
}

/// Notices when what was found is not there any more.
#[derive(Debug, Clone)]
pub struct Watch {
    search: Search,
    found: Found,
    /// When it was first seen that it looks so.
    since: Option<Instant>,
    /// Whatever is written from now on looks different.
    settled: bool,
}

impl Watch {
    /// Watches over what was found by `search`.
    pub(super) const fn new(search: Search, found: Found) -> Self {
        Self { search, found, since: None, settled: false }
    }

    /// Whether there still is what was found. Usually looks at names and dates only.
    pub fn is_current(&mut self, now: Instant) -> bool {
        if !self.found.looks_the_same(&Origin::Disk) {
            return false;
        }
        if !self.settled {
            let since = *self.since.get_or_insert(now);
            if Found::read(&self.search, &Origin::Disk) != self.found {
                return false;
            }
            self.settled = now.saturating_duration_since(since) >= SETTLING;
        }
        true
    }

    /// Reads what there is now, and watches over that from now on.
    pub fn renew(&mut self) -> &Found {
        *self = Self::new(self.search.clone(), Found::read(&self.search, &Origin::Disk));
        &self.found
    }

    /// What was found last.
    #[must_use]
    pub const fn found(&self) -> &Found {
        &self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_until_whatever_is_written_looks_different_and_then_only_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let search = Search { default_directory: directory.path().to_owned(), ..Search::default() };
        std::fs::write(directory.path().join("pgbackrest.conf"), "[one]\n").unwrap();
        let begin = Instant::now();
        let watch = || Watch::new(search.clone(), Found::read(&search, &Origin::Disk));
        // As if it had been written once more, so soon that it looks as before.
        let rewrite = |watch: &mut Watch| watch.found.0[0].1.contents = Contents::File(Ok(b"[two]\n".to_vec()));

        for before in [None, Some(Duration::ZERO), Some(SETTLING / 2)] {
            let mut watch = watch();
            assert!(before.is_none_or(|after| watch.is_current(begin + after)));
            rewrite(&mut watch);
            assert!(!watch.is_current(begin + SETTLING * 2), "seen before at {before:?}");
            watch.renew();
            assert!(watch.is_current(begin + SETTLING * 2));
        }
        let mut watch = watch();
        assert!(watch.is_current(begin) && watch.is_current(begin + SETTLING));
        rewrite(&mut watch);
        assert!(watch.is_current(begin + SETTLING), "it was read though that is not necessary");
    }
}
