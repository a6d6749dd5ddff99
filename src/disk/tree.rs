//! Listings and the removal of trees, in slices, so that a directory of a million entries does not
//! keep the event loop from everybody else. Those of a listing are bounded in time too.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, SeekFrom, openat, seek, statat, unlinkat};
use rustix::io::{Errno, Result, retry_on_intr};
use serde::{Deserialize, Serialize};

use super::calls::remove_directory;
use super::information::{describe, of_kind};
use super::location::Location;
use super::names::Names;
use super::resolve::Resolver;
use super::{Completion, Entry, Failure, Kind, Level, Metadata, Outcome, Step};
use crate::protocol::carried::Carried;

/// Entries that one slice of a listing reports or one slice of a removal removes.
const SLICE: usize = 256;

/// Bytes of directory entries taken from the kernel at once: a few hundred entries.
const CHUNK: usize = 16 * 1024;

/// Directories of a removal that are kept open.
const OPEN_MAXIMUM: usize = 64;

/// How often a directory that filled up again while it was emptied is emptied once more.
const PASSES_MAXIMUM: u32 = 16;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Names and, where the file system told, kinds of entries.
type Found = (CString, FileType);

/// A directory that is being listed.
#[derive(Debug)]
pub struct Listing {
    at: Location,
    level: Level,
    directory: OwnedFd,
    found: VecDeque<Found>,
    /// The kernel has told all entries.
    ended: bool,
    /// Where in the directory it goes on.
    position: u64,
}

/// What a listing has found and not looked at, for another process that goes on with it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Rest {
    found: Vec<(CString, u32)>,
    ended: bool,
    position: u64,
}

impl Listing {
    /// Opens the directory, following a link that stays within the root.
    pub(super) fn begin(resolver: &Resolver, at: Location, level: Level) -> std::result::Result<Self, Failure> {
        let directory = resolver.open(&at, DIRECTORY, Mode::empty())?;
        Ok(Self { at, level, directory, found: VecDeque::new(), ended: false, position: 0 })
    }

    /// Goes on with a listing of which another process has left `rest`, in the `directory` of that.
    pub(super) fn resume(at: Location, level: Level, directory: OwnedFd, rest: Rest) -> Result<Self> {
        let Rest { found, ended, position } = rest;
        if !ended {
            // That process may have read on before it was lost.
            seek(&directory, SeekFrom::Start(position))?;
        }
        let found = found.into_iter().map(|(name, kind)| (name, FileType::from_raw_mode(kind))).collect();
        Ok(Self { at, level, directory, found, ended, position })
    }

    /// What another process has to know that goes on with it.
    pub(super) fn rest(&self) -> Rest {
        let found = self.found.iter().map(|(name, kind)| (name.clone(), kind.as_raw_mode())).collect();
        Rest { found, ended: self.ended, position: self.position }
    }

    /// Where it is, how much is wanted of each entry, and the directory.
    pub(super) fn parts(&self) -> (&Location, Level, BorrowedFd<'_>) {
        (&self.at, self.level, self.directory.as_fd())
    }

    /// Reports the next entries: one at least if there is one, and no more once `longest` has passed.
    pub(super) fn slice(mut self, names: &mut Names, longest: Duration) -> Completion {
        let begun = Instant::now();
        // One more than the slice, so that the last slice is known to be it.
        while !self.ended && self.found.len() <= SLICE {
            self.ended = read_chunk(self.directory.as_fd(), &mut self.found)?;
            self.position = if self.ended { 0 } else { seek(&self.directory, SeekFrom::Current(0))? };
            if begun.elapsed() >= longest {
                break;
            }
        }
        let mut entries = Vec::with_capacity(self.found.len().min(SLICE));
        while entries.len() < SLICE
            && (entries.is_empty() || begun.elapsed() < longest)
            && let Some((name, kind)) = self.found.pop_front()
        {
            match metadata(self.directory.as_fd(), &name, kind, self.level, names) {
                Ok(metadata) => entries.push(Entry { name: name.into_bytes().into(), metadata }),
                // It has vanished since the kernel named it.
                Err(failure) if failure.errno == Errno::NOENT.into() => {}
                Err(failure) => {
                    let path = format!("{}/{}", self.at, Carried(name.as_bytes()));
                    return Err(Failure { path: Some(path), ..failure });
                }
            }
        }
        let rest = !(self.ended && self.found.is_empty());
        Ok(Outcome::Entries(entries, rest.then_some(self)))
    }
}

/// A tree that is being removed.
///
/// Directories on the way down stay open, so that the removal goes on in the directory that it began
/// in even when somebody moves it; in a tree deeper than 64 the upper ones are closed and found
/// again by walking down from the top without following links.
#[derive(Debug)]
pub struct Removal {
    at: Location,
    /// From the top down to the directory that is being emptied.
    levels: Vec<Emptied>,
    /// Entries that are gone. A slice counts these alone: on the way down it has to get at least as deep
    /// as the one before.
    removed: usize,
}

/// A directory that is being emptied.
#[derive(Debug)]
struct Emptied {
    /// Its name in the directory above; empty for the top.
    name: CString,
    /// `None` when it is to be opened again.
    directory: Option<OwnedFd>,
    found: VecDeque<Found>,
    ended: bool,
    passes: u32,
    /// This pass has removed something, so another one may succeed.
    removed: bool,
}

impl Removal {
    /// Opens the top. A link there is not followed unless it is the root's own.
    pub(super) fn begin(resolver: &Resolver, at: Location) -> std::result::Result<Self, Failure> {
        let top = resolver
            .open(&at, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|errno| Failure::new(errno, Step::Listing))?;
        Ok(Self { at, levels: vec![Emptied::new(CString::default(), top)], removed: 0 })
    }

    /// Goes on in the directory `top`, which is what began as `at`, on the way down from there.
    pub(super) fn resume(at: Location, top: OwnedFd) -> Result<Self> {
        // The slice before has read it to some point.
        seek(&top, SeekFrom::Start(0))?;
        Ok(Self { at, levels: vec![Emptied::new(CString::default(), top)], removed: 0 })
    }

    /// What is removed.
    pub(super) const fn at(&self) -> &Location {
        &self.at
    }

    /// The directory itself.
    pub(super) fn top(&self) -> Option<BorrowedFd<'_>> {
        self.levels.first()?.directory.as_ref().map(AsFd::as_fd)
    }

    /// Removes the next entries.
    pub(super) fn slice(mut self, resolver: &Resolver) -> Completion {
        self.removed = 0;
        while self.removed < SLICE {
            if self.step(resolver)? {
                return Ok(Outcome::Removed(None));
            }
        }
        Ok(Outcome::Removed(Some(self)))
    }

    /// Removes one entry or goes down into a directory. True when the top is gone.
    fn step(&mut self, resolver: &Resolver) -> std::result::Result<bool, Failure> {
        let deepest = self.levels.len() - 1;
        if let Err(errno) = self.fill(deepest) {
            return Err(self.failure(errno, Step::Listing, None));
        }
        let level = &mut self.levels[deepest];
        if let Some((name, kind)) = level.found.pop_front() {
            return self.remove(name, kind).map(|()| false);
        }
        self.leave(resolver)
    }

    /// Sees to it that the directory at `depth` is open and that an entry of it is known, unless it has
    /// none.
    fn fill(&mut self, depth: usize) -> Result<()> {
        self.reopen(depth)?;
        let level = &mut self.levels[depth];
        while level.found.is_empty() && !level.ended {
            let directory = level.directory.as_ref().ok_or(Errno::BADF)?;
            level.ended = read_chunk(directory.as_fd(), &mut level.found)?;
        }
        Ok(())
    }

    /// Removes one entry of the deepest directory, which is open. Directories become the deepest.
    fn remove(&mut self, name: CString, kind: FileType) -> std::result::Result<(), Failure> {
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        let Some(directory) = &level.directory else { return Ok(()) };
        let mut refused = Errno::ISDIR;
        if kind != FileType::Directory {
            match unlinkat(directory, &name, AtFlags::empty()) {
                Ok(()) => {
                    level.removed = true;
                    self.removed += 1;
                    return Ok(());
                }
                Err(Errno::NOENT) => return Ok(()),
                // What unlink says of a directory; EPERM can mean other things too.
                Err(errno @ (Errno::ISDIR | Errno::PERM)) => refused = errno,
                Err(errno) => return Err(self.failure(errno, Step::RemoveFile, Some(&name))),
            }
        }
        match retry_on_intr(|| openat(directory, &name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())) {
            Ok(below) => self.enter(name, below),
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) if refused == Errno::PERM => {
                return Err(self.failure(refused, Step::RemoveFile, Some(&name)));
            }
            // Another kind of thing has taken its name since it was read.
            Err(Errno::NOTDIR | Errno::LOOP) if kind == FileType::Directory => {
                level.found.push_front((name, FileType::Unknown));
            }
            Err(errno) => return Err(self.failure(errno, Step::Listing, Some(&name))),
        }
        Ok(())
    }

    fn enter(&mut self, name: CString, directory: OwnedFd) {
        self.levels.push(Emptied::new(name, directory));
        // The top stays open: it is where closed ones are found again.
        if let Some(index) = self.levels.len().checked_sub(OPEN_MAXIMUM).filter(|index| *index > 0) {
            self.levels[index].directory = None;
        }
    }

    /// Removes the deepest directory, which is empty as far as is known. True when that was the top.
    fn leave(&mut self, resolver: &Resolver) -> std::result::Result<bool, Failure> {
        let deepest = self.levels.len() - 1;
        let result = if deepest == 0 {
            remove_directory(resolver, &self.at)
        } else {
            self.reopen(deepest - 1).and_then(|()| {
                let above = self.levels[deepest - 1].directory.as_ref().ok_or(Errno::BADF)?;
                unlinkat(above, &self.levels[deepest].name, AtFlags::REMOVEDIR)
            })
        };
        match result {
            Ok(()) | Err(Errno::NOENT) => {
                self.levels.pop();
                self.removed += 1;
                if let Some(above) = self.levels.last_mut() {
                    above.removed = true;
                }
                Ok(self.levels.is_empty())
            }
            // Some file systems lose their place in a directory that shrinks while it is read, and
            // others may be adding entries.
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.levels[deepest].begin_again() => Ok(false),
            Err(errno) => Err(self.failure(errno, Step::RemoveDirectory, None)),
        }
    }

    /// Opens the directory at `depth` again, and on the way those just above it, if it was closed.
    fn reopen(&mut self, depth: usize) -> Result<()> {
        if self.levels[depth].directory.is_some() {
            return Ok(());
        }
        let mut passed: Option<OwnedFd> = None;
        for index in 1..=depth {
            let above = self.levels[index - 1].directory.as_ref().or(passed.as_ref()).ok_or(Errno::BADF)?;
            if self.levels[index].directory.is_some() {
                continue;
            }
            let name = &self.levels[index].name;
            let opened = retry_on_intr(|| openat(above, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()))?;
            if index + OPEN_MAXIMUM / 2 > depth {
                self.levels[index].directory = Some(opened);
            } else {
                passed = Some(opened);
            }
        }
        Ok(())
    }

    /// A failure on an entry of the deepest directory, or on that directory.
    fn failure(&self, errno: Errno, step: Step, name: Option<&CString>) -> Failure {
        let names = self.levels.iter().skip(1).map(|level| &level.name).chain(name);
        let below: Vec<u8> = names.flat_map(|name| [b"/", name.to_bytes()].concat()).collect();
        let path = (!below.is_empty()).then(|| format!("{}{}", self.at, Carried(&below)));
        Failure { errno: errno.into(), path, step }
    }
}

impl Emptied {
    const fn new(name: CString, directory: OwnedFd) -> Self {
        Self { name, directory: Some(directory), found: VecDeque::new(), ended: false, passes: 0, removed: false }
    }

    /// Goes back to the first entry, if that promises anything.
    fn begin_again(&mut self) -> bool {
        if !self.removed || self.passes == PASSES_MAXIMUM {
            return false;
        }
        (self.ended, self.removed) = (false, false);
        self.passes += 1;
        self.directory.as_ref().is_some_and(|directory| seek(directory, SeekFrom::Start(0)).is_ok())
    }
}

/// Takes the next chunk of entries from the kernel. True when there are no more.
fn read_chunk(directory: BorrowedFd<'_>, found: &mut VecDeque<Found>) -> Result<bool> {
    let mut chunk = [MaybeUninit::uninit(); CHUNK];
    let mut entries = RawDir::new(directory, &mut chunk);
    loop {
        let entry = match entries.next() {
            // ENOENT: the directory has been removed while it was read.
            None | Some(Err(Errno::NOENT)) => return Ok(true),
            Some(entry) => entry?,
        };
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            found.push_back((entry.file_name().to_owned(), entry.file_type()));
        }
        if entries.is_buffer_empty() {
            return Ok(false);
        }
    }
}

/// Finds out about one entry of a listing.
fn metadata(
    directory: BorrowedFd<'_>,
    name: &CStr,
    kind: FileType,
    level: Level,
    names: &mut Names,
) -> std::result::Result<Metadata, Failure> {
    match level {
        Level::Exists => Ok(of_kind(Kind::File)),
        Level::Type if kind != FileType::Unknown => Ok(of_kind(kind.into())),
        _ => {
            let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| Failure::new(errno, Step::Information))?;
            describe(directory, name, &stat, level, names)
        }
    }
}
