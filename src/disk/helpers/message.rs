//! What the server asks a helper for, and what the helper answers. Both are the same program, so that
//! the messages need no version.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::disk::location::{Links, Location, RelativePath, Root};
use crate::disk::names::{Found, Unknown};
use crate::disk::{Completion, Failure, File, Operation, Outcome, Over, Removal};

/// A request: one operation, on one root if it names places.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request<'a> {
    /// The root's path, and whether its handle is the first of the descriptors.
    #[serde(borrow)]
    root: Option<(&'a [u8], bool)>,
    #[serde(borrow)]
    work: Work<'a>,
}

/// A place below the root, and whether no link may lead there.
type Place<'a> = (&'a [u8], bool);

/// An operation; open files come as descriptors, in the order of the fields.
#[derive(Debug, Serialize, Deserialize)]
enum Work<'a> {
    OpenWrite { at: Place<'a>, mode: u32, fresh: bool },
    Sync,
    SetTimes { modified: i64 },
    Rename { file: bool, over: OverKind, from: Place<'a>, to: Place<'a> },
    MakeDirectory { at: Place<'a>, mode: u32 },
    SyncDirectory { at: Place<'a> },
    RemoveFile { at: Place<'a> },
    RemoveOwn { at: Place<'a> },
    RemoveDirectory { at: Place<'a> },
    SymbolicLink { target: &'a [u8], at: Place<'a> },
    HardLink { target: Place<'a>, at: Place<'a> },
    RemoveTree { at: Place<'a> },
    RemoveMore { at: Place<'a> },
    Warm { length: u64, offset: u64 },
    Names { users: Vec<u32>, groups: Vec<u32> },
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum OverKind {
    Anything,
    Nothing,
    This,
}

/// An answer; the open file or directory of one comes as a descriptor.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Done,
    File,
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
    /// Read a part of a file, so that the page cache has it.
    Warm {
        file: OwnedFd,
        length: u64,
        offset: u64,
    },
    /// Find the names of users and groups.
    Names(Unknown),
}

/// Whether a helper can do it: whatever may wait for the disk, but for reading and writing data.
pub(in crate::disk) fn is_for_helpers(operation: &Operation) -> bool {
    let one_root = |first: &Location, second: &Location| Rc::ptr_eq(&first.root, &second.root);
    match operation {
        Operation::OpenWrite { .. }
        | Operation::Sync { .. }
        | Operation::SetTimes { .. }
        | Operation::MakeDirectory { .. }
        | Operation::SyncDirectory { .. }
        | Operation::RemoveFile { .. }
        | Operation::RemoveOwn { .. }
        | Operation::RemoveDirectory { .. }
        | Operation::SymbolicLink { .. }
        | Operation::RemoveTree { .. }
        | Operation::RemoveMore { .. } => true,
        Operation::Rename { from, to, .. } => one_root(from, to),
        Operation::HardLink { target, at } => one_root(target, at),
        _ => false,
    }
}

/// Users and groups whose names are wanted, as a message.
pub(super) fn encode_names(unknown: &Unknown) -> Option<Vec<u8>> {
    let list = |numbers: &BTreeSet<u32>| numbers.iter().copied().collect();
    let work = Work::Names { users: list(&unknown.users), groups: list(&unknown.groups) };
    postcard::to_allocvec(&Request { root: None, work }).ok()
}

/// A part of a file that is to be in the page cache, as a message.
pub(super) fn encode_warm(length: usize, offset: u64) -> Option<Vec<u8>> {
    let work = Work::Warm { length: length as u64, offset };
    postcard::to_allocvec(&Request { root: None, work }).ok()
}

/// `operation` as a message with its descriptors; `None` for those that are not for helpers.
pub(super) fn encode<'a>(
    operation: &'a Operation,
    root_handle: &'a mut Option<Rc<OwnedFd>>,
    descriptors: &mut Vec<BorrowedFd<'a>>,
) -> Option<Vec<u8>> {
    let mut root = None;
    let mut files: [Option<&'a File>; 2] = [None, None];
    let mut place = |at: &'a Location| {
        root = Some(&at.root);
        (at.path.as_bytes(), at.links == Links::Never)
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
        _ => return None,
    };
    *root_handle = root.and_then(|root| root.held());
    descriptors.extend(root_handle.as_ref().map(AsFd::as_fd));
    let held = root_handle.is_some();
    if let Operation::RemoveMore { removal } = operation {
        descriptors.push(removal.top()?);
    }
    descriptors.extend(files.into_iter().flatten().map(|file| file.0.as_fd()));
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
    let place = |(path, without_links): Place<'_>| {
        let location = Location::new(Rc::clone(root.as_ref()?), RelativePath::new(path)?);
        Some(if without_links { location.without_links() } else { location })
    };
    let mut file = || descriptors.next().map(|descriptor| File(Rc::new(descriptor)));
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
        Work::Names { users, groups } => {
            let (users, groups) = (users.into_iter().collect(), groups.into_iter().collect());
            return Some(Task::Names(Unknown { users, groups }));
        }
        Work::Warm { length, offset } => {
            return Some(Task::Warm { file: descriptors.next()?, length, offset });
        }
    }))
}

/// What an operation came to, as a message. The open file that goes with it is in the completion.
pub(super) fn encode_reply(completion: &Completion) -> (Reply, Option<BorrowedFd<'_>>) {
    match completion {
        Ok(Outcome::File(file)) => (Reply::File, Some(file.0.as_fd())),
        Ok(Outcome::Removed(Some(removal))) => (Reply::Removed(true), removal.top()),
        Ok(Outcome::Removed(None)) => (Reply::Removed(false), None),
        Ok(_) => (Reply::Done, None),
        Err(failure) => (Reply::Failed(failure.clone()), None),
    }
}

/// The completion that a reply stands for; `at` is what was being removed. `None` when they do not fit.
pub(super) fn decode_reply(reply: Reply, descriptor: Option<OwnedFd>, at: Option<Location>) -> Option<Completion> {
    Some(match (reply, descriptor) {
        (Reply::Done, None) => Ok(Outcome::Done),
        (Reply::File, Some(descriptor)) => Ok(Outcome::File(File(Rc::new(descriptor)))),
        (Reply::Removed(true), Some(top)) => {
            Removal::resume(at?, top).map(|rest| Outcome::Removed(Some(rest))).map_err(Failure::from)
        }
        (Reply::Removed(false), None) => Ok(Outcome::Removed(None)),
        (Reply::Failed(failure), None) => Err(failure),
        _ => return None,
    })
}
