//! What the server asks a helper for, and what the helper answers. Both are the same program, so that
//! the messages need no version.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::disk::calls::read_at;
use crate::disk::location::{Links, Location, RelativePath, Root};
use crate::disk::names::{Found, Unknown};
use crate::disk::tree::Rest;
use crate::disk::{Completion, Entry, Failure, File, Level, Listing, Metadata, Operation, Outcome, Over, Removal};

/// A request: one operation, on one root if it names places.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request<'a> {
    /// The root's path, and whether its handle is the first of the descriptors.
    #[serde(borrow)]
    root: Option<(&'a [u8], bool)>,
    #[serde(borrow)]
    work: Work<'a>,
}

/// A place below the root, and which links lead there.
type Place<'a> = (&'a [u8], Links);

/// An operation; open files come as descriptors, in the order of the fields.
#[derive(Debug, Serialize, Deserialize)]
enum Work<'a> {
    OpenWrite {
        at: Place<'a>,
        mode: u32,
        fresh: bool,
    },
    Sync,
    SetTimes {
        modified: i64,
    },
    Rename {
        file: bool,
        over: OverKind,
        from: Place<'a>,
        to: Place<'a>,
    },
    MakeDirectory {
        at: Place<'a>,
        mode: u32,
    },
    SyncDirectory {
        at: Place<'a>,
    },
    RemoveFile {
        at: Place<'a>,
    },
    RemoveOwn {
        at: Place<'a>,
    },
    RemoveDirectory {
        at: Place<'a>,
    },
    SymbolicLink {
        target: &'a [u8],
        at: Place<'a>,
    },
    HardLink {
        target: Place<'a>,
        at: Place<'a>,
    },
    RemoveTree {
        at: Place<'a>,
    },
    RemoveMore {
        at: Place<'a>,
    },
    Stat {
        at: Place<'a>,
        follow: bool,
        level: Level,
    },
    StatTarget {
        at: Place<'a>,
        level: Level,
    },
    OpenRead {
        at: Place<'a>,
    },
    Close,
    List {
        at: Place<'a>,
        level: Level,
    },
    /// So many bytes of the shared memory say what is left of it.
    ListMore {
        at: Place<'a>,
        level: Level,
        length: usize,
    },
    /// To the shared memory.
    Read {
        length: usize,
        offset: u64,
    },
    /// From the shared memory.
    Write {
        length: usize,
        offset: u64,
    },
    Warm {
        length: u64,
        offset: u64,
    },
    Names(Unknown),
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum OverKind {
    Anything,
    Nothing,
    This,
}

/// An answer, and how many microseconds what was asked for took.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) reply: Reply,
    pub(super) took: u64,
}

/// An answer; the open file or directory of one comes as a descriptor.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Done,
    File,
    Metadata(Metadata),
    /// So many bytes were read, to the shared memory.
    Read(usize),
    /// Entries, and the rest of a listing, are so many bytes of the shared memory.
    Entries(usize),
    /// Whether something is left to remove.
    Removed(bool),
    Failed(Failure),
    /// Names of users and groups.
    Names(Found),
    /// There was nothing to do for long: the helper ends when its socket is closed.
    Leaving,
}

/// What a helper is to do.
#[derive(Debug)]
pub(super) enum Task {
    Operation(Operation),
    /// Read to memory that is shared with the server.
    Read {
        file: OwnedFd,
        memory: OwnedFd,
        length: usize,
        offset: u64,
    },
    /// Write what is in that memory.
    Write {
        file: OwnedFd,
        memory: OwnedFd,
        length: usize,
        offset: u64,
    },
    /// List, or go on with it, and put the entries into that memory.
    List(Operation, OwnedFd),
    /// Read a part of a file, so that the page cache has it.
    Warm {
        file: OwnedFd,
        length: u64,
        offset: u64,
    },
    /// Find the names of users and groups.
    Names(Unknown),
}

/// Whether a helper can do it.
pub(in crate::disk) fn is_for_helpers(operation: &Operation) -> bool {
    let one_root = |first: &Location, second: &Location| Rc::ptr_eq(&first.root, &second.root);
    match operation {
        Operation::Rename { from, to, .. } => one_root(from, to),
        Operation::HardLink { target, at } => one_root(target, at),
        // What makes of a name a number is the server's, and so is what it holds for a session.
        Operation::SetOwner { .. } | Operation::Lock { .. } | Operation::Unlock { .. } | Operation::Claim { .. } => {
            false
        }
        _ => true,
    }
}

/// Whether data go from or to the helper with it, through memory.
pub(super) const fn needs_memory(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::Read { .. } | Operation::Write { .. } | Operation::List { .. } | Operation::ListMore { .. }
    )
}

/// Users and groups whose names are wanted, as a message.
pub(super) fn encode_names(unknown: &Unknown) -> Option<Vec<u8>> {
    postcard::to_allocvec(&Request { root: None, work: Work::Names(unknown.clone()) }).ok()
}

/// A part of a file that is to be in the page cache, as a message.
pub(super) fn encode_warm(length: usize, offset: u64) -> Option<Vec<u8>> {
    let work = Work::Warm { length: length as u64, offset };
    postcard::to_allocvec(&Request { root: None, work }).ok()
}

/// `operation` as a message with its descriptors; `None` for those that are not for helpers. With those that need it
/// goes the memory, and how many bytes of the operation are in it already.
pub(super) fn encode<'a>(
    operation: &'a Operation,
    root_handle: &'a mut Option<Rc<OwnedFd>>,
    memory: Option<(BorrowedFd<'a>, usize)>,
    descriptors: &mut Vec<BorrowedFd<'a>>,
) -> Option<Vec<u8>> {
    let mut root = None;
    let mut files: [Option<&'a File>; 2] = [None, None];
    let mut place = |at: &'a Location| {
        root = Some(&at.root);
        (at.path.as_bytes(), at.links)
    };
    let work = match operation {
        Operation::OpenWrite { at, mode, fresh } => Work::OpenWrite { at: place(at), mode: *mode, fresh: *fresh },
        Operation::Sync { file } => {
            files[0] = Some(file);
            Work::Sync
        }
        Operation::SetTimes { file, modified } => {
            files[0] = Some(file);
            Work::SetTimes { modified: *modified }
        }
        Operation::Rename { over, file, from, to } => {
            files[0] = file.as_ref();
            let over = match over {
                Over::Anything => OverKind::Anything,
                Over::Nothing => OverKind::Nothing,
                Over::This(file) => {
                    files[1] = Some(file);
                    OverKind::This
                }
            };
            Work::Rename { file: file.is_some(), over, from: place(from), to: place(to) }
        }
        Operation::MakeDirectory { at, mode } => Work::MakeDirectory { at: place(at), mode: *mode },
        Operation::SyncDirectory { at } => Work::SyncDirectory { at: place(at) },
        Operation::RemoveFile { at } => Work::RemoveFile { at: place(at) },
        Operation::RemoveOwn { file, at } => {
            files[0] = Some(file);
            Work::RemoveOwn { at: place(at) }
        }
        Operation::RemoveDirectory { at } => Work::RemoveDirectory { at: place(at) },
        Operation::SymbolicLink { target, at } => Work::SymbolicLink { target, at: place(at) },
        Operation::HardLink { target, at } => Work::HardLink { target: place(target), at: place(at) },
        Operation::RemoveTree { at } => Work::RemoveTree { at: place(at) },
        Operation::RemoveMore { removal } => Work::RemoveMore { at: place(removal.at()) },
        Operation::Stat { at, follow, level } => Work::Stat { at: place(at), follow: *follow, level: *level },
        Operation::StatTarget { at, level } => Work::StatTarget { at: place(at), level: *level },
        Operation::OpenRead { at } => Work::OpenRead { at: place(at) },
        Operation::Close { file } => {
            files[0] = Some(file);
            Work::Close
        }
        Operation::List { at, level } => Work::List { at: place(at), level: *level },
        Operation::ListMore { listing } => {
            let (at, level, _) = listing.parts();
            Work::ListMore { at: place(at), level, length: memory?.1 }
        }
        Operation::Read { file, length, offset, .. } => {
            files[0] = Some(file);
            Work::Read { length: *length, offset: *offset }
        }
        Operation::Write { file, data, offset } => {
            files[0] = Some(file);
            Work::Write { length: data.len(), offset: *offset }
        }
        Operation::SetOwner { .. } | Operation::Lock { .. } | Operation::Unlock { .. } | Operation::Claim { .. } => {
            return None;
        }
    };
    *root_handle = root.and_then(|root| root.held());
    descriptors.extend(root_handle.as_ref().map(AsFd::as_fd));
    let held = root_handle.is_some();
    if let Operation::RemoveMore { removal } = operation {
        descriptors.push(removal.top()?);
    }
    if let Operation::ListMore { listing } = operation {
        descriptors.push(listing.parts().2);
    }
    descriptors.extend(files.into_iter().flatten().map(|file| file.0.as_fd()));
    descriptors.extend(memory.map(|(memory, _)| memory));
    let root = root.map(|root| (root.path().as_os_str().as_bytes(), held));
    postcard::to_allocvec(&Request { root, work }).ok()
}

/// The task of a message, which takes those of `descriptors` that belong to it; `None` when it is none.
pub(super) fn decode(message: &[u8], descriptors: &mut impl Iterator<Item = OwnedFd>) -> Option<Task> {
    let Request { root, work } = postcard::from_bytes(message).ok()?;
    let root = match root {
        Some((path, held)) => {
            let root = Root::new(OsStr::from_bytes(path));
            if held {
                root.hold(&Rc::new(descriptors.next()?));
            }
            Some(root)
        }
        None => None,
    };
    let place = |(path, links): Place<'_>| {
        Some(Location { links, ..Location::new(Rc::clone(root.as_ref()?), RelativePath::new(path)?) })
    };
    let mut file = || descriptors.next().map(File::from);
    Some(Task::Operation(match work {
        Work::OpenWrite { at, mode, fresh } => Operation::OpenWrite { at: place(at)?, mode, fresh },
        Work::Sync => Operation::Sync { file: file()? },
        Work::SetTimes { modified } => Operation::SetTimes { file: file()?, modified },
        Work::Rename { file: has_file, over, from, to } => {
            let file_there = if has_file { Some(file()?) } else { None };
            let over = match over {
                OverKind::Anything => Over::Anything,
                OverKind::Nothing => Over::Nothing,
                OverKind::This => Over::This(file()?),
            };
            Operation::Rename { over, file: file_there, from: place(from)?, to: place(to)? }
        }
        Work::MakeDirectory { at, mode } => Operation::MakeDirectory { at: place(at)?, mode },
        Work::SyncDirectory { at } => Operation::SyncDirectory { at: place(at)? },
        Work::RemoveFile { at } => Operation::RemoveFile { at: place(at)? },
        Work::RemoveOwn { at } => Operation::RemoveOwn { file: file()?, at: place(at)? },
        Work::RemoveDirectory { at } => Operation::RemoveDirectory { at: place(at)? },
        Work::SymbolicLink { target, at } => Operation::SymbolicLink { target: target.into(), at: place(at)? },
        Work::HardLink { target, at } => Operation::HardLink { target: place(target)?, at: place(at)? },
        Work::RemoveTree { at } => Operation::RemoveTree { at: place(at)? },
        Work::RemoveMore { at } => {
            Operation::RemoveMore { removal: Removal::resume(place(at)?, descriptors.next()?).ok()? }
        }
        Work::Stat { at, follow, level } => Operation::Stat { at: place(at)?, follow, level },
        Work::StatTarget { at, level } => Operation::StatTarget { at: place(at)?, level },
        Work::OpenRead { at } => Operation::OpenRead { at: place(at)? },
        Work::Close => Operation::Close { file: file()? },
        Work::List { at, level } => {
            return Some(Task::List(Operation::List { at: place(at)?, level }, descriptors.next()?));
        }
        Work::ListMore { at, level, length } => {
            let (at, directory, memory) = (place(at)?, descriptors.next()?, descriptors.next()?);
            let mut rest = Vec::with_capacity(length);
            read_at(memory.as_fd(), &mut rest, length, 0).ok()?;
            let rest = postcard::from_bytes(&rest).ok()?;
            let listing = Listing::resume(at, level, directory, rest).ok()?;
            return Some(Task::List(Operation::ListMore { listing }, memory));
        }
        Work::Read { length, offset } => {
            return Some(Task::Read { file: descriptors.next()?, memory: descriptors.next()?, length, offset });
        }
        Work::Write { length, offset } => {
            return Some(Task::Write { file: descriptors.next()?, memory: descriptors.next()?, length, offset });
        }
        Work::Names(unknown) => return Some(Task::Names(unknown)),
        Work::Warm { length, offset } => {
            return Some(Task::Warm { file: descriptors.next()?, length, offset });
        }
    }))
}

/// What an operation came to, as a message. The open file that goes with it is in the completion.
pub(super) fn encode_reply(completion: &Completion) -> (Reply, Option<BorrowedFd<'_>>) {
    match completion {
        Ok(Outcome::File(file)) => (Reply::File, Some(file.0.as_fd())),
        Ok(Outcome::Metadata(metadata)) => (Reply::Metadata(metadata.clone()), None),
        Ok(Outcome::Removed(Some(removal))) => (Reply::Removed(true), removal.top()),
        Ok(Outcome::Removed(None)) => (Reply::Removed(false), None),
        Ok(_) => (Reply::Done, None),
        Err(failure) => (Reply::Failed(failure.clone()), None),
    }
}

/// Entries and what is left of a listing, for the shared memory.
pub(super) fn encode_entries(entries: &[Entry], rest: Option<&Listing>) -> Option<Vec<u8>> {
    postcard::to_allocvec(&(entries, rest.map(Listing::rest))).ok()
}

/// The completion that `reply` stands for as the answer to `operation`, if that is known, whose shared `memory` holds
/// what the reply has no room for. `None` when they do not fit.
pub(super) fn decode_reply(
    operation: Option<&mut Operation>,
    reply: Reply,
    descriptor: Option<OwnedFd>,
    memory: Option<BorrowedFd<'_>>,
) -> Option<Completion> {
    Some(match (operation, reply, descriptor) {
        (_, Reply::Failed(failure), None) => Err(failure),
        (Some(Operation::Write { data, .. }), Reply::Done, None) => Ok(Outcome::Written(std::mem::take(data))),
        (Some(Operation::Read { buffer, length, .. }), Reply::Read(count), None) if count <= *length => {
            let before = buffer.len();
            read_at(memory?, buffer, count, 0).ok()?;
            (buffer.len() - before == count).then(|| Ok(Outcome::Read(std::mem::take(buffer))))?
        }
        (Some(operation), Reply::Entries(length), descriptor) => {
            let mut bytes = Vec::with_capacity(length);
            read_at(memory?, &mut bytes, length, 0).ok()?;
            let (entries, rest) = postcard::from_bytes::<(Vec<Entry>, Option<Rest>)>(&bytes).ok()?;
            let (at, level) = match operation {
                Operation::List { at, level } => (at.clone(), *level),
                Operation::ListMore { listing } => (listing.parts().0.clone(), listing.parts().1),
                _ => return None,
            };
            let listing = match rest {
                Some(rest) => Some(Listing::resume(at, level, descriptor?, rest)),
                None => None,
            };
            listing.transpose().map(|listing| Outcome::Entries(entries, listing)).map_err(Failure::from)
        }
        (Some(Operation::Stat { .. } | Operation::StatTarget { .. }), Reply::Metadata(metadata), None) => {
            Ok(Outcome::Metadata(metadata))
        }
        (_, Reply::Done, None) => Ok(Outcome::Done),
        (_, Reply::File, Some(descriptor)) => Ok(Outcome::File(descriptor.into())),
        (Some(operation), Reply::Removed(true), Some(top)) => {
            let at = match operation {
                Operation::RemoveTree { at } => at.clone(),
                Operation::RemoveMore { removal } => removal.at().clone(),
                _ => return None,
            };
            Removal::resume(at, top).map(|rest| Outcome::Removed(Some(rest))).map_err(Failure::from)
        }
        (_, Reply::Removed(false), None) => Ok(Outcome::Removed(None)),
        _ => return None,
    })
}
