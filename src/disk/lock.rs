//! Lock files: how they are taken, and how somebody notices that one was taken away.
//!
//! Conflicts are `flock`'s, which sees two sessions of one process as well as pgBackRest's own
//! processes. Whether a conflict is one at all (the lock may belong to another session of the same
//! command) is decided by the caller from what the file says.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;

use rustix::buffer::spare_capacity;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, ftruncate, lstat};
use rustix::io::{Errno, Result, pread, retry_on_intr};

use super::calls::{close_descriptor, make_directory, remove_file, write_at};
use super::identity;
use super::location::Location;
use super::resolve::Resolver;
use super::{Failure, Step};

/// Mode of a lock file, as pgBackRest makes it.
const FILE_MODE: u32 = 0o640;
/// Mode of the directories that a lock file needs, as pgBackRest makes them.
const DIRECTORY_MODE: u32 = 0o750;
/// Bytes of somebody else's lock file that are read; pgBackRest writes about a hundred.
const CONTENTS_MAXIMUM: usize = 4096;
/// How often a lock file that is removed between opening and locking it is opened again.
const ATTEMPTS: u32 = 32;

/// What came of an attempt to lock.
#[derive(Debug)]
pub enum LockAttempt {
    /// It is ours.
    Acquired(HeldLock),
    /// Somebody else has it.
    Busy {
        /// What the file says, 4 KiB at most; empty when it could not be read.
        contents: String,
    },
}

/// A lock that is held until it is released or dropped. Dropping leaves the file behind, unlocked,
/// which disturbs nobody.
#[derive(Debug)]
pub struct HeldLock {
    at: Location,
    file: OwnedFd,
}

impl HeldLock {
    /// The place of the lock file.
    #[must_use]
    pub const fn location(&self) -> &Location {
        &self.at
    }

    /// Whether somebody has removed or replaced the lock file, so that the lock keeps nobody out any
    /// more. `pgbackrest stop --force` does that.
    #[must_use]
    pub fn is_orphaned(&self) -> bool {
        let path = self.at.absolute();
        // Only compared, so it does not matter where links on the way lead. An error other than ENOENT
        // says nothing about the file.
        match identity::is_name_of(self.file.as_fd(), || lstat(path.as_slice()), |_, _| true) {
            Ok(is_ours) => !is_ours,
            Err(errno) => errno == Errno::NOENT,
        }
    }
}

/// What an open lock file turns out to be when it is locked.
enum Found {
    /// Ours now.
    Free(HeldLock),
    /// Locked by somebody else, who left these words.
    Busy(String),
    /// Locked by us, but no longer the file at its path: the holder before removed it between our
    /// opening and locking it. Nobody else will ever find that file, so the lock is worth nothing.
    Orphaned(Location),
}

/// Tries once to take a lock, without waiting.
pub(super) fn acquire(
    resolver: &Resolver,
    mut at: Location,
    contents: &str,
) -> std::result::Result<LockAttempt, Failure> {
    for _ in 0..ATTEMPTS {
        let file = open(resolver, &at)?;
        match take(at, file)? {
            Found::Free(lock) => return fill(resolver, lock, contents).map(LockAttempt::Acquired),
            Found::Busy(contents) => return Ok(LockAttempt::Busy { contents }),
            Found::Orphaned(again) => at = again,
        }
    }
    Err(Errno::WOULDBLOCK.into())
}

/// Locks an open lock file.
fn take(at: Location, file: OwnedFd) -> Result<Found> {
    match retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(Found::Busy(read_contents(&file))),
        Err(errno) => return Err(errno),
    }
    let lock = HeldLock { at, file };
    Ok(if lock.is_orphaned() { Found::Orphaned(lock.at) } else { Found::Free(lock) })
}

/// Replaces what a former holder left in the file, or gives the lock up.
fn fill(resolver: &Resolver, lock: HeldLock, contents: &str) -> std::result::Result<HeldLock, Failure> {
    let written = ftruncate(&lock.file, 0).and_then(|()| write_at(lock.file.as_fd(), contents.as_bytes(), 0));
    if let Err(errno) = written {
        // What to report is why it could not be written, not what happens to the remains.
        let _ = release(resolver, lock);
        return Err(errno.into());
    }
    Ok(lock)
}

/// Removes the lock file, if it is still the one that was locked, and then gives the lock up.
pub(super) fn release(resolver: &Resolver, lock: HeldLock) -> Result<()> {
    if !lock.is_orphaned() {
        match remove_file(resolver, &lock.at) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    close_descriptor(lock.file)
}

/// Opens or makes the file, its missing directories included.
fn open(resolver: &Resolver, at: &Location) -> std::result::Result<OwnedFd, Failure> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mode = Mode::from_raw_mode(FILE_MODE);
    match resolver.open(at, flags, mode) {
        Err(Errno::NOENT) => {
            make_parents(resolver, at)?;
            Ok(resolver.open(at, flags, mode)?)
        }
        result => Ok(result?),
    }
}

/// Makes the root, with all that is missing above it, and the directories below it.
fn make_parents(resolver: &Resolver, at: &Location) -> std::result::Result<(), Failure> {
    let failure = |place: &Location, errno: Errno| Failure {
        path: Some(place.to_string()),
        ..Failure::new(errno, Step::MakeDirectory)
    };
    let mut parents: Vec<Location> = std::iter::successors(at.parent(), Location::parent).collect();
    if let Some(root) = parents.pop() {
        match std::fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(root.root.path()) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(failure(&root, Errno::from_io_error(&error).unwrap_or(Errno::IO)));
            }
            _ => {}
        }
    }
    for place in parents.iter().rev() {
        match make_directory(resolver, place, DIRECTORY_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failure(place, errno)),
        }
    }
    Ok(())
}

/// What a lock file says. Problems are ignored: the caller then treats the lock as somebody else's.
fn read_contents(file: &OwnedFd) -> String {
    let mut contents = Vec::with_capacity(CONTENTS_MAXIMUM);
    if retry_on_intr(|| pread(file, spare_capacity(&mut contents), 0)).is_err() {
        contents.clear();
    }
    contents.truncate(CONTENTS_MAXIMUM);
    String::from_utf8_lossy(&contents).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::location::{RelativePath, Root};
    use super::*;

    #[test]
    fn a_file_removed_between_opening_and_locking_it_is_no_lock() {
        let base = tempfile::tempdir().unwrap();
        let resolver = Resolver::new();
        let at = Location::new(Root::new(base.path()), RelativePath::new("demo.lock").unwrap());
        let path = base.path().join("demo.lock");

        let early = open(&resolver, &at).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(take(at.clone(), early).unwrap(), Found::Orphaned(_)));

        let early = open(&resolver, &at).unwrap();
        std::fs::remove_file(&path).unwrap();
        let LockAttempt::Acquired(other) = acquire(&resolver, at.clone(), "other").unwrap() else { panic!("not free") };
        assert!(matches!(take(at.clone(), early).unwrap(), Found::Orphaned(_)));
        release(&resolver, other).unwrap();
        assert!(matches!(acquire(&resolver, at, "again").unwrap(), LockAttempt::Acquired(_)));
    }
}
