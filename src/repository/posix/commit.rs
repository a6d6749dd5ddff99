//! How a file that was written becomes the one that has its name, as durable as that is wanted: its content is on the
//! disk before it has the name, and the name is before anybody is told of the file.
//!
//! Whoever writes the file looks between the two whether it may have the name.

use super::anchored::SyncPath;
use crate::disk::{Completion, Errno, File, Location, Operation, Over};
use crate::protocol::error::{Code, Error, Result};
use crate::repository::{Next, Shared, unexpected_outcome};

/// What is done to a file that is committed, beside that it gets its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Its time, in seconds since 1970, if not 0.
    pub(super) modified: i64,
    /// Its content survives a power cut.
    pub(super) sync_file: bool,
    /// So does its name.
    pub(super) sync_path: bool,
    /// What follows its name in the text of an error of these.
    pub(super) after: &'static str,
}

/// A file on the way to its name.
#[derive(Debug)]
pub(super) struct Commit {
    /// The name that it gets.
    pub(super) target: Location,
    /// Where it is written, if not under its name.
    temporary: Option<Location>,
    terms: Terms,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// There is nothing yet, or nothing any more, that would have to be removed.
    Absent,
    /// It is there. Another writer may have made the temporary file anew since, so it is only touched together with
    /// this one, which stays open until it has its name.
    Present(File, Doing),
    /// Closing what was written under its name.
    Closing,
    SyncingPath(SyncPath),
}

#[derive(Debug, Clone, Copy)]
enum Doing {
    Nothing,
    SettingTimes,
    Syncing,
    Closing,
    Renaming,
    Removing,
}

/// How far a file is.
#[derive(Debug)]
pub(super) enum Reached {
    /// Its content is where it should be: [rename](Commit::rename) it, or [leave](Commit::leave) it.
    Written,
    /// It has its name, which is still to be [settled](Commit::settle).
    Named,
    /// It could not be renamed.
    Refused(Errno),
    /// All is done.
    Settled,
}

impl Commit {
    /// A file that is going to be opened, `temporary` or under its name `target`.
    pub(super) const fn new(target: Location, temporary: Option<Location>, terms: Terms) -> Self {
        Self { target, temporary, terms, phase: Phase::Absent }
    }

    /// Where it is written.
    pub(super) fn place(&self) -> &Location {
        self.temporary.as_ref().unwrap_or(&self.target)
    }

    /// It was opened at its [place](Self::place).
    pub(super) fn opened(&mut self, file: File) {
        self.phase = Phase::Present(file, Doing::Nothing);
    }

    /// The file, while it can be written to.
    pub(super) const fn file(&self) -> Option<&File> {
        if let Phase::Present(file, _) = &self.phase { Some(file) } else { None }
    }

    /// All of it is written.
    pub(super) fn begin(&mut self) -> Result<Operation> {
        self.seal(Doing::Nothing)
    }

    /// What comes after `done`: the times before the sync, so that they survive a power cut as the content does.
    fn seal(&mut self, done: Doing) -> Result<Operation> {
        let Phase::Present(file, doing) = &mut self.phase else { return Err(unexpected_outcome()) };
        let (file, Terms { modified, sync_file, .. }) = (file.clone(), self.terms);
        let operation;
        (*doing, operation) = match done {
            Doing::Nothing if modified != 0 => (Doing::SettingTimes, Operation::SetTimes { file, modified }),
            Doing::Nothing | Doing::SettingTimes if sync_file => (Doing::Syncing, Operation::Sync { file }),
            _ => (Doing::Closing, Operation::Close { file }),
        };
        if self.temporary.is_none() && matches!(doing, Doing::Closing) {
            self.phase = Phase::Closing;
        }
        Ok(operation)
    }

    /// Goes on after the operation that was asked for last.
    pub(super) fn resume(&mut self, shared: &Shared, completion: Completion) -> Result<Next<Reached>> {
        let doing = match &mut self.phase {
            Phase::SyncingPath(path) => {
                return Ok(match path.resume(shared, completion)? {
                    Next::Disk(operation) => Next::Disk(operation),
                    Next::Done(()) => Next::Done(Reached::Settled),
                });
            }
            Phase::Present(_, doing) => std::mem::replace(doing, Doing::Nothing),
            Phase::Closing => Doing::Closing,
            Phase::Absent => Doing::Nothing,
        };
        let after = self.terms.after;
        let (code, text, after) = match doing {
            Doing::Nothing => return Err(unexpected_outcome()),
            Doing::SettingTimes => (Code::FileInfo, "unable to set time for", ""),
            Doing::Syncing => (Code::FileSync, "unable to sync file", after),
            Doing::Closing => (Code::FileClose, "unable to close file", after),
            Doing::Removing => (Code::FileRemove, "unable to remove file", ""),
            Doing::Renaming => {
                return Ok(Next::Done(match completion {
                    Ok(_) => {
                        self.phase = Phase::Absent;
                        Reached::Named
                    }
                    Err(failure) => Reached::Refused(failure.errno),
                }));
            }
        };
        if let Err(failure) = completion {
            let message = format_args!("{text} '{}'{after}", self.place());
            return Err(Error::system(code, message, failure.errno.0));
        }
        match doing {
            Doing::Closing => Ok(Next::Done(Reached::Written)),
            Doing::Removing => Ok(self.settle(shared)),
            _ => self.seal(doing).map(Next::Disk),
        }
    }

    /// Gives it its name, if it is not written under that, over what may have the name.
    pub(super) fn rename(&mut self, shared: &Shared, over: Over) -> Next<Reached> {
        match (&mut self.phase, &self.temporary) {
            (Phase::Present(file, doing), Some(from)) => {
                *doing = Doing::Renaming;
                let (file, from, to) = (Some(file.clone()), from.clone(), self.target.clone());
                Next::Disk(Operation::Rename { over, file, from, to })
            }
            _ => self.settle(shared),
        }
    }

    /// Removes what was written: the file that has the name already will do.
    pub(super) fn leave(&mut self) -> Result<Operation> {
        // It counts as there until it is removed: a session that ends before removes it again.
        let removal = self.removal();
        if let Phase::Present(_, doing) = &mut self.phase {
            *doing = Doing::Removing;
        }
        removal.ok_or_else(unexpected_outcome)
    }

    /// Puts the file's directory on the disk, and the way to it: without that the file could not be found after a power
    /// cut.
    pub(super) fn settle(&mut self, shared: &Shared) -> Next<Reached> {
        self.phase = Phase::Absent;
        let Some(directory) = self.target.parent().filter(|_| self.terms.sync_path) else {
            return Next::Done(Reached::Settled);
        };
        let (path, operation) = SyncPath::begin(shared, directory);
        self.phase = Phase::SyncingPath(path);
        Next::Disk(operation)
    }

    /// Gives the file up; what removes it, if anything is left of it.
    pub(super) fn discard(&mut self) -> Option<Operation> {
        let removal = self.removal();
        self.phase = Phase::Absent;
        removal
    }

    /// What removes the temporary file, if it is there.
    fn removal(&self) -> Option<Operation> {
        let Phase::Present(file, _) = &self.phase else { return None };
        Some(Operation::RemoveOwn { file: file.clone(), at: self.temporary.clone()? })
    }
}
