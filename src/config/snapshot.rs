//! Where configuration files and certificates are read from: the disk, or what another process read of it.
//!
//! A worker that is started later, or that reads a moment later, must not find a file that is just being
//! written, or that was broken since. What is read from [`Origin::recording`] goes into a [`Snapshot`]; whoever reads
//! from [`Origin::Replaying`] finds it again, and everything else on disk.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Files, directories and what is known of them, by path; or the number of the error.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Snapshot {
    files: Noted<Vec<u8>>,
    lists: Noted<Vec<Vec<u8>>>,
    data: Noted<Data>,
}

type Noted<T> = BTreeMap<Vec<u8>, Result<T, i32>>;

/// What identifies one state of a file without reading it, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
    inode: (u64, u64),
    /// The owner.
    pub uid: u32,
    /// Kind and permissions.
    pub mode: u32,
}

impl Data {
    fn of(data: &fs::Metadata) -> Self {
        Self {
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
            size: data.len(),
            inode: (data.dev(), data.ino()),
            uid: data.uid(),
            mode: data.mode(),
        }
    }
}

/// Where to read from.
#[derive(Debug)]
pub enum Origin {
    /// The disk.
    Disk,
    /// The disk, while what is found there is noted.
    Recording(RefCell<Snapshot>),
    /// What was noted, and the disk for all the rest.
    Replaying(Snapshot),
}

impl Origin {
    /// The disk, while what is found there is noted.
    #[must_use]
    pub fn recording() -> Self {
        Self::Recording(RefCell::default())
    }

    /// What was noted.
    #[must_use]
    pub fn into_snapshot(self) -> Snapshot {
        match self {
            Self::Disk => Snapshot::default(),
            Self::Recording(snapshot) => snapshot.into_inner(),
            Self::Replaying(snapshot) => snapshot,
        }
    }

    /// The contents of a file.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.find(path, |snapshot| &snapshot.files, |snapshot| &mut snapshot.files, || fs::read(path))
    }

    /// What is known of a file.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn data(&self, path: &Path) -> io::Result<Data> {
        let look = || fs::metadata(path).map(|data| Data::of(&data));
        self.find(path, |snapshot| &snapshot.data, |snapshot| &mut snapshot.data, look)
    }

    /// Whether a file still is as it was found, `None` for one that was not there. While what was read before counts,
    /// it is.
    #[must_use]
    pub fn is_still(&self, path: &Path, known: Option<Data>) -> bool {
        matches!(self, Self::Replaying(_)) || fs::metadata(path).ok().map(|data| Data::of(&data)) == known
    }

    /// The names in a directory.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let read = || fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().into_vec())).collect();
        let names = self.find(path, |snapshot| &snapshot.lists, |snapshot| &mut snapshot.lists, read)?;
        Ok(names.into_iter().map(OsString::from_vec).collect())
    }

    fn find<T: Clone>(
        &self,
        path: &Path,
        known: impl Fn(&Snapshot) -> &Noted<T>,
        noted: impl Fn(&mut Snapshot) -> &mut Noted<T>,
        read: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let key = path.as_os_str().as_bytes();
        if let Self::Replaying(snapshot) = self
            && let Some(known) = known(snapshot).get(key)
        {
            return known.clone().map_err(io::Error::from_raw_os_error);
        }
        let found = read();
        if let Self::Recording(snapshot) = self {
            let note = found.as_ref().map(T::clone).map_err(|error| error.raw_os_error().unwrap_or(0));
            noted(&mut snapshot.borrow_mut()).insert(key.to_vec(), note);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_once_is_found_again_whatever_has_become_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("a"), "one").unwrap();
        let look = |origin: &Origin| {
            let text = origin.read(&path("a")).map(|bytes| String::from_utf8(bytes).unwrap());
            let missing = origin.read(&path("b")).map_err(|error| error.kind());
            (text.unwrap(), missing, origin.data(&path("a")).unwrap(), origin.list(directory.path()).unwrap())
        };
        let origin = Origin::recording();
        let first = look(&origin);
        let bytes = postcard::to_allocvec(&origin.into_snapshot()).unwrap();
        fs::remove_file(path("a")).unwrap();
        fs::write(path("b"), "two").unwrap();
        fs::write(path("c"), "three").unwrap();
        let again = Origin::Replaying(postcard::from_bytes(&bytes).unwrap());
        assert_eq!(look(&again), first);
        assert_eq!(first.1, Err(io::ErrorKind::NotFound));
        assert_eq!(again.read(&path("c")).unwrap(), b"three", "what was not read before comes from the disk");
    }
}
