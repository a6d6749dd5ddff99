//! Requests that change directories: making, removing and syncing them, removing files, making links.

use std::rc::Rc;

use bstr::BString;

use crate::disk::{self, Completion, Errno, Failure, Location, Operation, Outcome};
use crate::protocol::carried::Carried;
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::response::Payload;

use super::make_path::{MakePath, uncreated};
use crate::repository::{Answer, Next, Shared, Step, Task, refused, unexpected_outcome};

/// The error of a directory that could not be put on stable storage.
pub(super) fn sync_failure(at: &Location, failure: &Failure) -> Error {
    let (code, text) = match (&failure.step, failure.errno) {
        (_, Errno::NOENT) => return Error::new(Code::PathMissing, format!("unable to sync missing path '{at}'")),
        (disk::Step::Open, _) => (Code::PathOpen, format!("unable to open path '{at}' for sync")),
        (disk::Step::Close, _) => (Code::PathClose, format!("unable to close path '{at}' after sync")),
        _ => (Code::PathSync, format!("unable to sync path '{at}'")),
    };
    refused(code, text, at, failure.errno)
}

/// Makes a directory, and its missing parents where that is wanted.
#[derive(Debug)]
pub(crate) struct PathCreate {
    path: MakePath,
    /// The directory itself is asked for first, and must not be there then.
    error_on_exists: bool,
}

impl PathCreate {
    /// Starts to make `at`.
    pub(crate) fn begin(
        shared: &Rc<Shared>,
        at: Location,
        error_on_exists: bool,
        parents: bool,
        mode: u32,
    ) -> (Self, Step) {
        let (path, operation) = MakePath::begin(shared, at, parents, mode);
        (Self { path, error_on_exists }, Step::Disk(operation))
    }
}

impl Task for PathCreate {
    fn resume(&mut self, completion: Completion) -> Result<Step> {
        if std::mem::take(&mut self.error_on_exists)
            && completion.as_ref().is_err_and(|failure| failure.errno == Errno::EXIST)
        {
            return Err(uncreated(&self.path.directory, Errno::EXIST));
        }
        Ok(match self.path.resume(completion)? {
            Next::Disk(operation) => Step::Disk(operation),
            Next::Done(()) => Step::Done(Answer::null()),
        })
    }
}

/// Removes a directory, alone or with all that is below it.
#[derive(Debug)]
pub(crate) struct PathRemove {
    at: Location,
}

impl PathRemove {
    /// Starts to remove `at`.
    pub(crate) fn begin(at: Location, recurse: bool) -> (Self, Step) {
        let operation = if recurse {
            Operation::RemoveTree { at: at.clone() }
        } else {
            Operation::RemoveDirectory { at: at.clone() }
        };
        (Self { at }, Step::Disk(operation))
    }
}

impl Task for PathRemove {
    fn resume(&mut self, completion: Completion) -> Result<Step> {
        let removed = match completion {
            Ok(Outcome::Removed(Some(removal))) => return Ok(Step::Disk(Operation::RemoveMore { removal })),
            Ok(_) => true,
            Err(failure) if failure.errno == Errno::NOENT => false,
            Err(failure) => {
                let (code, text) = match failure.step {
                    disk::Step::Listing => (Code::PathOpen, "unable to list file info for path"),
                    disk::Step::RemoveFile => (Code::PathRemove, "unable to remove file"),
                    _ => (Code::PathRemove, "unable to remove path"),
                };
                return Err(match failure.path {
                    Some(path) => Error::system(code, format_args!("{text} '{path}'"), failure.errno.0),
                    None => refused(code, format_args!("{text} '{}'", self.at), &self.at, failure.errno),
                });
            }
        };
        Ok(Step::Done(Answer::data(Payload::from_pack(|pack| _ = pack.bool_forced(removed)))))
    }
}

/// A change that is one operation.
#[derive(Debug)]
pub(crate) struct Change {
    kind: Kind,
    at: Location,
}

#[derive(Debug)]
enum Kind {
    Sync,
    Remove { error_on_missing: bool, text: &'static str },
    Link { text: &'static str, target: BString },
}

impl Change {
    /// Starts to put the directory `at` on stable storage.
    pub(crate) fn sync(at: Location) -> (Self, Step) {
        let step = Step::Disk(Operation::SyncDirectory { at: at.clone() });
        (Self { kind: Kind::Sync, at }, step)
    }

    /// Starts to remove the file `at`; `text` are the words of the release before the path.
    pub(crate) fn remove(at: Location, error_on_missing: bool, text: &'static str) -> (Self, Step) {
        let step = Step::Disk(Operation::RemoveFile { at: at.clone() });
        (Self { kind: Kind::Remove { error_on_missing, text }, at }, step)
    }

    /// Starts to make the symbolic link `at`.
    pub(crate) fn symbolic_link(at: Location, target: BString) -> (Self, Step) {
        let step = Step::Disk(Operation::SymbolicLink { target: target.clone(), at: at.clone() });
        (Self { kind: Kind::Link { text: "symlink", target }, at }, step)
    }

    /// Starts to make `at` a second name of `target`.
    pub(crate) fn hard_link(at: Location, target: Location) -> (Self, Step) {
        let kind = Kind::Link { text: "hardlink", target: target.absolute() };
        let step = Step::Disk(Operation::HardLink { target, at: at.clone() });
        (Self { kind, at }, step)
    }
}

impl Task for Change {
    fn resume(&mut self, completion: Completion) -> Result<Step> {
        let failure = match completion {
            Ok(Outcome::Done) => return Ok(Step::Done(Answer::null())),
            Ok(_) => return Err(unexpected_outcome()),
            Err(failure) => failure,
        };
        let (at, errno) = (&self.at, failure.errno);
        Err(match (&self.kind, errno) {
            (Kind::Remove { error_on_missing: false, .. }, Errno::NOENT) => return Ok(Step::Done(Answer::null())),
            (Kind::Remove { text, .. }, _) => refused(Code::FileRemove, format_args!("{text} '{at}'"), at, errno),
            (Kind::Sync, _) => sync_failure(at, &failure),
            (Kind::Link { text, target }, _) => {
                let message = format_args!("unable to create {text} '{at}' to '{}'", Carried(target));
                Error::system(Code::FileOpen, message, errno.0)
            }
        })
    }
}
