//! What one process read of configuration files and certificates, for others that are to take the very same.
//!
//! A worker that is started later, or that reads a moment later, must not find a file that is just being
//! written, or that was broken since. What [`record`] sees goes into a [`Snapshot`]; in [`Snapshot::replay`]
//! it is found again, and everything else on disk.

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
    files: BTreeMap<Vec<u8>, Result<Vec<u8>, i32>>,
    lists: BTreeMap<Vec<u8>, Result<Vec<Vec<u8>>, i32>>,
    data: BTreeMap<Vec<u8>, Result<Data, i32>>,
}

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

enum State {
    Recording(Snapshot),
    Replaying(Snapshot),
}

thread_local! {
    static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
}

/// What `run` comes to, and what it read.
pub fn record<T>(run: impl FnOnce() -> T) -> (T, Snapshot) {
    let before = STATE.replace(Some(State::Recording(Snapshot::default())));
    let result = run();
    match STATE.replace(before) {
        Some(State::Recording(snapshot)) => (result, snapshot),
        _ => (result, Snapshot::default()),
    }
}

impl Snapshot {
    /// Adds what another one has.
    pub fn add(&mut self, other: Self) {
        self.files.extend(other.files);
        self.lists.extend(other.lists);
        self.data.extend(other.data);
    }

    /// What `run` comes to if it reads what this has.
    pub fn replay<T>(self, run: impl FnOnce() -> T) -> T {
        let before = STATE.replace(Some(State::Replaying(self)));
        let result = run();
        STATE.set(before);
        result
    }
}

/// The contents of a file.
///
/// # Errors
///
/// What the system says.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    through(path, |snapshot| &mut snapshot.files, || fs::read(path))
}

/// What is known of a file.
///
/// # Errors
///
/// What the system says.
pub fn data(path: &Path) -> io::Result<Data> {
    through(path, |snapshot| &mut snapshot.data, || fs::metadata(path).map(|data| Data::of(&data)))
}

/// Whether a file still is as it was found, `None` for one that was not there. While what was read before counts, it
/// is.
#[must_use]
pub fn is_still(path: &Path, known: Option<Data>) -> bool {
    let replays = STATE.with_borrow(|state| matches!(state, Some(State::Replaying(_))));
    replays || fs::metadata(path).ok().map(|data| Data::of(&data)) == known
}

/// The names in a directory.
///
/// # Errors
///
/// What the system says.
pub fn list(path: &Path) -> io::Result<Vec<OsString>> {
    let read = || fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().into_vec())).collect();
    let names = through(path, |snapshot| &mut snapshot.lists, read)?;
    Ok(names.into_iter().map(OsString::from_vec).collect())
}

fn through<T: Clone>(
    path: &Path,
    part: impl Fn(&mut Snapshot) -> &mut BTreeMap<Vec<u8>, Result<T, i32>>,
    read: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    STATE.with_borrow_mut(|state| {
        let key = path.as_os_str().as_bytes();
        if let Some(State::Replaying(snapshot)) = state
            && let Some(known) = part(snapshot).get(key)
        {
            return known.clone().map_err(io::Error::from_raw_os_error);
        }
        let found = read();
        if let Some(State::Recording(snapshot)) = state {
            let known = match &found {
                Ok(value) => Ok(value.clone()),
                Err(error) => Err(error.raw_os_error().unwrap_or(0)),
            };
            part(snapshot).insert(key.to_vec(), known);
        }
        found
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_once_is_found_again_whatever_has_become_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("a"), "one").unwrap();
        let look = || {
            let text = read(&path("a")).map(|bytes| String::from_utf8(bytes).unwrap());
            let missing = read(&path("b")).map_err(|error| error.kind());
            (text.unwrap(), missing, data(&path("a")).unwrap(), list(directory.path()).unwrap())
        };
        let (first, snapshot) = record(look);
        let bytes = postcard::to_allocvec(&snapshot).unwrap();
        fs::remove_file(path("a")).unwrap();
        fs::write(path("b"), "two").unwrap();
        fs::write(path("c"), "three").unwrap();
        let again: Snapshot = postcard::from_bytes(&bytes).unwrap();
        let (second, other) = again.replay(|| (look(), read(&path("c")).unwrap()));
        assert_eq!(first, second);
        assert_eq!(first.1, Err(io::ErrorKind::NotFound));
        assert_eq!(other, b"three", "what was not read before comes from the disk");
        assert_eq!(list(directory.path()).unwrap().len(), 2, "and everything does afterwards");
    }
}
