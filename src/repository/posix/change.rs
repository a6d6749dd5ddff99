//! Requests that change directories: making, removing and syncing them, removing files, making links.

use std::rc::Rc;

use bstr::BString;

use crate::disk::{self, Completion, Errno, Failure, Location, Operation, Outcome};
use crate::protocol::carried::Carried;
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::response::Payload;

use super::make_path::MakePath;
use crate::repository::policy::view::leads_out;
use crate::repository::{Answer, Next, Shared, Step, Task, unexpected_outcome};

/// The error `code` that says `text` about `location`, or that a link leads out.
fn failed(code: Code, text: &str, location: &Location, errno: Errno) -> Error {
    if errno == Errno::XDEV { leads_out(location) } else { crate::repository::failed(code, text, location, errno) }
}

/// The error of a directory that could not be put on stable storage.
pub(super) fn sync_failure(at: &Location, failure: &Failure) -> Error {
    match (&failure.step, failure.errno) {
        (_, Errno::XDEV) => leads_out(at),
        (_, Errno::NOENT) => Error::new(Code::PathMissing, format!("unable to sync missing path '{at}'")),
        (disk::Step::Open, errno) => {
            Error::system(Code::PathOpen, format_args!("unable to open path '{at}' for sync"), errno.0)
        }
        (disk::Step::Close, errno) => {
            Error::system(Code::PathClose, format_args!("unable to close path '{at}' after sync"), errno.0)
        }
        (_, errno) => Error::system(Code::PathSync, format_args!("unable to sync path '{at}'"), errno.0),
    }
}

/// Makes a directory, and its missing parents where that is wanted.
#[derive(Debug)]
pub(crate) struct PathCreate {
    at: Location,
    error_on_exists: bool,
    parents: Option<MakePath>,
    parent_create: bool,
    mode: u32,
    shared: Rc<Shared>,
}

impl PathCreate {
    /// Starts to make `at`.
    pub(crate) fn begin(
        shared: Rc<Shared>,
        at: Location,
        error_on_exists: bool,
        no_parent_create: bool,
        mode: u32,
    ) -> (Self, Step) {
        let step = Step::Disk(shared.anchored.make(at.clone(), mode));
        (Self { at, error_on_exists, parents: None, parent_create: !no_parent_create, mode, shared }, step)
    }
}

impl Task for PathCreate {
    fn resume(&mut self, completion: Completion) -> Result<Step> {
        if let Some(parents) = &mut self.parents {
            return match parents.resume(completion) {
                Ok(Next::Disk(operation)) => Ok(Step::Disk(operation)),
                Ok(Next::Done(())) => Ok(Step::Done(Answer::null())),
                Err((at, errno)) => Err(failed(Code::PathCreate, "unable to create path", &at, errno)),
            };
        }
        match completion.map_err(|failure| failure.errno) {
            Ok(_) => Ok(Step::Done(Answer::null())),
            Err(Errno::EXIST) if !self.error_on_exists => Ok(Step::Done(Answer::null())),
            Err(Errno::NOENT) if self.parent_create => {
                let parents = MakePath::new(&self.shared, self.at.clone(), self.mode);
                let step = Step::Disk(parents.begin());
                self.parents = Some(parents);
                Ok(step)
            }
            Err(errno) => Err(failed(Code::PathCreate, "unable to create path", &self.at, errno)),
        }
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
                    None => failed(code, text, &self.at, failure.errno),
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
            (Kind::Remove { text, .. }, _) => failed(Code::FileRemove, text, at, errno),
            (Kind::Sync, _) => sync_failure(at, &failure),
            (Kind::Link { text, target }, _) => {
                let message = format_args!("unable to create {text} '{at}' to '{}'", Carried(target));
                Error::system(Code::FileOpen, message, errno.0)
            }
        })
    }
}
