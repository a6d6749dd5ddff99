//! Operations as system calls of an `io_uring`, so that nothing waits for the disk and no process is
//! needed for it.
//!
//! Each operation is a short course of calls, as [`Inline`](super::inline::Inline) makes them one after
//! the other. What there is no call for, and what turns out to be unusual on the way (a root that was
//! made anew, a temporary file that somebody left), is done from its beginning by a helper process.

mod ring;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags, fstat};
use rustix::io::Errno;
use slab::Slab;

use self::ring::{Answer, Call, Ring};
use super::calls::{CAREFUL, close_descriptor, write_flags};
use super::ended::Ended;
use super::resolve::{CONFINED, DIRECTORY_HANDLE, below};
use super::{Completion, Failure, File, Links, Location, Operation, Outcome, Over, Step};

/// Operations under way in the kernel, with whatever `T` belongs to each.
pub(super) struct Uring<T> {
    ring: Ring,
    courses: Slab<(T, Course)>,
}

/// An operation on its way.
struct Course {
    operation: Operation,
    stage: Stage,
    /// The directory of its place, and of the new place of a renaming.
    directories: [Option<Rc<OwnedFd>>; 2],
}

/// The call that is under way.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Opening the first or the second directory.
    Directory(usize),
    /// Looking what has the name there.
    Look(usize),
    /// What the operation is named after.
    Act,
    /// Syncing the directory that `Act` has opened.
    Sync,
}

/// What comes next.
enum Next {
    Call(Stage, Call),
    Completed(Completion),
    Elsewhere,
}

impl<T> Uring<T> {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { ring: Ring::new()?, courses: Slab::new() })
    }

    /// Whether there are calls for this operation.
    pub(super) fn takes(operation: &Operation) -> bool {
        let below_root = |at: &Location| !at.path.is_root() && holds_root(at);
        match operation {
            Operation::Sync { .. } | Operation::Read { .. } => true,
            Operation::SyncDirectory { at } => holds_root(at),
            Operation::OpenWrite { at, .. }
            | Operation::MakeDirectory { at, .. }
            | Operation::RemoveFile { at }
            | Operation::RemoveOwn { at, .. }
            | Operation::RemoveDirectory { at } => below_root(at),
            Operation::Rename { from, to, .. } => below_root(from) && below_root(to),
            _ => false,
        }
    }

    /// Whether one more can be begun.
    pub(super) fn has_room(&self) -> bool {
        self.ring.has_room()
    }

    /// What belongs to the operations under way.
    pub(super) fn under_way(&self) -> impl Iterator<Item = &T> {
        self.courses.iter().map(|(_, (tag, _))| tag)
    }

    /// Begins an operation.
    pub(super) fn begin(&mut self, tag: T, operation: Operation) -> Option<(T, Ended)> {
        let mut course = Course { operation, stage: Stage::Act, directories: [None, None] };
        let next = course.begin();
        let key = self.courses.insert((tag, course));
        self.go_on(key, next)
    }

    /// Whether [`Self::advance`] has something to do although nothing has ended.
    pub(super) fn is_behind(&self) -> bool {
        self.ring.is_behind()
    }

    /// Finds out what has ended, for [`Self::advance`].
    pub(super) fn look(&self) {
        self.ring.look();
    }

    /// The next operation that has ended.
    pub(super) fn advance(&mut self) -> Option<(T, Ended)> {
        while let Some((key, result)) = self.ring.next() {
            let Some((_, course)) = self.courses.get_mut(key) else { continue };
            let next = course.answered(result);
            if let Some(ended) = self.go_on(key, next) {
                return Some(ended);
            }
        }
        None
    }

    fn go_on(&mut self, key: usize, next: Next) -> Option<(T, Ended)> {
        let next = match next {
            Next::Call(stage, call) => {
                let (_, course) = self.courses.get_mut(key)?;
                course.stage = stage;
                match self.ring.start(key, call) {
                    Ok(()) => return None,
                    Err(errno) => Next::Completed(Err(errno.into())),
                }
            }
            next => next,
        };
        let (tag, course) = self.courses.try_remove(key)?;
        Some((
            tag,
            match next {
                Next::Completed(completion) => Ended::Completed(completion),
                _ => Ended::Left(course.operation),
            },
        ))
    }
}

impl<T> AsFd for Uring<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl Course {
    fn begin(&mut self) -> Next {
        match &mut self.operation {
            Operation::Sync { file } => Next::Call(Stage::Act, Call::Sync { file: Rc::clone(&file.0) }),
            Operation::Read { file, buffer, length, offset } => {
                let mut buffer = std::mem::take(buffer);
                buffer.reserve(*length);
                let (file, length, offset) = (Rc::clone(&file.0), *length, *offset);
                Next::Call(Stage::Act, Call::Read { file, buffer, length, offset })
            }
            Operation::OpenWrite { at, mode, fresh } => {
                open(at, at.path.as_bytes(), write_flags(*fresh), Mode::from_raw_mode(*mode), Stage::Act)
            }
            Operation::SyncDirectory { at } => {
                let path = if at.path.is_root() { b"." } else { at.path.as_bytes() };
                open(at, path, OFlags::RDONLY | OFlags::DIRECTORY | CAREFUL, Mode::empty(), Stage::Act)
            }
            _ => self.directory(0),
        }
    }

    /// The places of an operation that has some with a directory.
    fn places(&self) -> [Option<&Location>; 2] {
        match &self.operation {
            Operation::Rename { from, to, .. } => [Some(from), Some(to)],
            Operation::MakeDirectory { at, .. }
            | Operation::RemoveFile { at }
            | Operation::RemoveOwn { at, .. }
            | Operation::RemoveDirectory { at } => [Some(at), None],
            _ => [None, None],
        }
    }

    /// Opens the directory of a place, or goes on where that is not needed.
    fn directory(&mut self, index: usize) -> Next {
        let places = self.places();
        let Some(Some(at)) = places.get(index) else { return self.look(0) };
        let Some((parent, _)) = at.path.split_last() else { return Next::Elsewhere };
        let same = index == 1
            && places[0].is_some_and(|first| {
                Rc::ptr_eq(&first.root, &at.root) && first.path.split_last().is_some_and(|(other, _)| other == parent)
            });
        if same {
            let [first, second] = &mut self.directories;
            second.clone_from(first);
        } else if parent.is_empty() {
            let Some(root) = at.root.held() else { return Next::Elsewhere };
            self.directories[index] = Some(root);
        } else {
            return open(at, parent, DIRECTORY_HANDLE, Mode::empty(), Stage::Directory(index));
        }
        self.directory(index + 1)
    }

    /// The file that has to have the name of a place.
    fn expected(&self, index: usize) -> Option<&File> {
        match (&self.operation, index) {
            (Operation::Rename { file, .. }, 0) => file.as_ref(),
            (Operation::Rename { over: Over::This(file), .. }, 1) | (Operation::RemoveOwn { file, .. }, 0) => {
                Some(file)
            }
            _ => None,
        }
    }

    fn look(&mut self, index: usize) -> Next {
        match index {
            0 | 1 if self.expected(index).is_none() => self.look(index + 1),
            0 | 1 => match self.name(index) {
                Some((directory, name)) => Next::Call(Stage::Look(index), Call::Look { directory, name }),
                None => Next::Elsewhere,
            },
            _ => self.act(),
        }
    }

    /// Directory and name of a place.
    fn name(&self, index: usize) -> Option<(Rc<OwnedFd>, CString)> {
        let (_, name) = self.places().into_iter().nth(index)??.path.split_last()?;
        Some((self.directories.get(index)?.clone()?, CString::new(name).ok()?))
    }

    fn act(&self) -> Next {
        let Some((directory, name)) = self.name(0) else { return Next::Elsewhere };
        let call = match &self.operation {
            Operation::Rename { over, .. } => {
                let Some((new, new_name)) = self.name(1) else { return Next::Elsewhere };
                let nothing = matches!(over, Over::Nothing);
                let flags = if nothing { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
                Call::Rename { old: directory, old_name: name, new, new_name, flags }
            }
            Operation::MakeDirectory { mode, .. } => {
                Call::MakeDirectory { directory, name, mode: Mode::from_raw_mode(*mode) }
            }
            Operation::RemoveDirectory { .. } => Call::Remove { directory, name, flags: AtFlags::REMOVEDIR },
            _ => Call::Remove { directory, name, flags: AtFlags::empty() },
        };
        Next::Call(Stage::Act, call)
    }

    fn answered(&mut self, result: Result<Answer, Errno>) -> Next {
        match (self.stage, result) {
            (Stage::Directory(index), Ok(Answer::Opened(directory))) => {
                self.directories[index] = Some(Rc::new(directory));
                self.directory(index + 1)
            }
            (Stage::Look(index), Ok(Answer::Found(found))) => {
                if self.expected(index).is_some_and(|file| is_file(file, found)) {
                    return self.look(index + 1);
                }
                // Another file has the name, or inode numbers change from look to look.
                Next::Elsewhere
            }
            (Stage::Look(_), Err(_)) => self.not_ours(),
            (Stage::Act, Ok(Answer::Opened(opened))) => {
                let opened = Rc::new(opened);
                if matches!(self.operation, Operation::SyncDirectory { .. }) {
                    self.directories[0] = Some(Rc::clone(&opened));
                    return Next::Call(Stage::Sync, Call::Sync { file: opened });
                }
                Next::Completed(Ok(Outcome::File(File(opened, None))))
            }
            (Stage::Act, Ok(Answer::Read(buffer, count))) => self.has_read(buffer, count),
            (Stage::Sync, Ok(_)) => {
                let closed = self.directories[0].take().and_then(Rc::into_inner).map_or(Ok(()), close_descriptor);
                Next::Completed(match closed {
                    Ok(()) => Ok(Outcome::Done),
                    Err(errno) => Err(Failure::new(errno, Step::Close)),
                })
            }
            (_, Ok(_)) => Next::Completed(Ok(Outcome::Done)),
            (_, Err(errno)) => self.failed(errno),
        }
    }

    /// The name is another file's.
    fn not_ours(&self) -> Next {
        Next::Completed(match self.operation {
            Operation::RemoveOwn { .. } => Ok(Outcome::Done),
            _ => Err(Errno::STALE.into()),
        })
    }

    fn has_read(&mut self, buffer: Vec<u8>, count: usize) -> Next {
        let Operation::Read { file, length, offset, .. } = &mut self.operation else { return Next::Elsewhere };
        *length = length.saturating_sub(count);
        *offset = offset.saturating_add(count as u64);
        if count == 0 || *length == 0 {
            return Next::Completed(Ok(Outcome::Read(buffer)));
        }
        let (file, length, offset) = (Rc::clone(&file.0), *length, *offset);
        Next::Call(Stage::Act, Call::Read { file, buffer, length, offset })
    }

    fn failed(&self, errno: Errno) -> Next {
        let places = match &self.operation {
            Operation::OpenWrite { at, .. } | Operation::SyncDirectory { at } => [Some(at), None],
            _ => self.places(),
        };
        let any = |is: fn(&Location) -> bool| places.into_iter().flatten().any(is);
        let opening = match self.stage {
            Stage::Directory(_) => true,
            Stage::Act => matches!(self.operation, Operation::OpenWrite { .. } | Operation::SyncDirectory { .. }),
            _ => false,
        };
        match errno {
            // Renamed on the way; a helper tries again.
            Errno::AGAIN if opening => Next::Elsewhere,
            Errno::NOENT if any(is_gone) => Next::Elsewhere,
            Errno::EXIST if matches!(self.operation, Operation::OpenWrite { fresh: true, .. }) => Next::Elsewhere,
            Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP
                if matches!(self.operation, Operation::Rename { over: Over::Nothing, .. }) =>
            {
                Next::Elsewhere
            }
            Errno::LOOP if opening && any(|at| at.links == Links::Never) => {
                Next::Completed(Err(self.in_step(Errno::XDEV)))
            }
            errno => Next::Completed(Err(self.in_step(errno))),
        }
    }

    fn in_step(&self, errno: Errno) -> Failure {
        let opening = matches!((self.stage, &self.operation), (Stage::Act, Operation::SyncDirectory { .. }));
        Failure::new(errno, if opening { Step::Open } else { Step::Whole })
    }
}

fn open(at: &Location, path: &[u8], flags: OFlags, mode: Mode, stage: Stage) -> Next {
    let (Some(directory), Ok(path)) = (at.root.held(), CString::new(path)) else { return Next::Elsewhere };
    let resolve = if at.links == Links::Never { CONFINED.union(ResolveFlags::NO_SYMLINKS) } else { CONFINED };
    Next::Call(stage, Call::Open { directory, path, flags: flags | OFlags::CLOEXEC, mode, resolve })
}

/// Whether the root's handle is open, which it is from the first operation on.
fn holds_root(at: &Location) -> bool {
    at.root.held().is_some() || below(&at.root, |_| Ok(())).is_ok()
}

/// Whether a root's handle is one of a directory that was removed.
fn is_gone(at: &Location) -> bool {
    at.root.held().is_none_or(|handle| fstat(&handle).is_ok_and(|stat| stat.st_nlink == 0))
}

/// Whether device and inode are those of `file`.
fn is_file(file: &File, (major, minor, inode): (u32, u32, u64)) -> bool {
    fstat(&file.0).is_ok_and(|stat| {
        (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev), stat.st_ino) == (major, minor, inode)
    })
}
