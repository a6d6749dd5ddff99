//! What is looked at before a request that the names in its path do not decide.

use std::cell::RefCell;
use std::rc::Rc;

use super::{FINISHED, MANIFEST, Unfinished};
use crate::disk::{Completion, Level, Location, Operation, RelativePath};
use crate::protocol::error::{Code, Error, Result};
use crate::repository::errno::ENOENT;
use crate::repository::view::Place;
use crate::repository::{Step, Task};

/// How a check goes on.
#[derive(Debug)]
pub enum Progress {
    /// With this operation.
    Disk(Operation),
    /// Not at all: the request may begin.
    Passed,
}

/// Looks whether a request may begin.
#[derive(Debug)]
pub struct Check {
    manifest: Location,
    directory: String,
    refusal: Error,
    known: Rc<RefCell<Option<Unfinished>>>,
}

impl Check {
    /// Whether the backup `label`, which `place` is in, is not finished.
    pub(super) fn unfinished(
        place: &Place,
        label: &str,
        directory: String,
        refusal: Error,
        known: Rc<RefCell<Option<Unfinished>>>,
    ) -> Self {
        let path = RelativePath::new(&format!("{label}/{MANIFEST}")).unwrap_or_default();
        let manifest = Location::new(Rc::clone(&place.location.root), path).without_links();
        Self { manifest, directory, refusal, known }
    }

    /// The first operation.
    #[must_use]
    pub fn begin(&self) -> Operation {
        Operation::Stat { at: self.manifest.clone(), follow: false, level: Level::Exists }
    }

    /// Goes on after the operation that was asked for last.
    ///
    /// # Errors
    ///
    /// What the client is told.
    pub fn resume(&mut self, completion: Completion) -> Result<Progress> {
        match completion {
            Err(failure) if failure.errno == ENOENT => {
                let (directory, finished_before) = (self.directory.clone(), FINISHED.get());
                *self.known.borrow_mut() = Some(Unfinished { directory, finished_before, relied: 0 });
                Ok(Progress::Passed)
            }
            Err(failure) => {
                let message = format_args!("unable to look whether backup '{}' is finished", self.directory);
                Err(Error::system(Code::FileOpen, message, failure.errno.0))
            }
            Ok(_) => {
                let mut error = self.refusal.clone();
                error.message.insert_str(
                    error.message.find('\n').unwrap_or(error.message.len()),
                    ", since the backup is finished",
                );
                Err(error)
            }
        }
    }
}

/// A request that begins once its check is passed.
pub struct Checked {
    check: Option<Check>,
    start: Option<Start>,
    task: Option<Box<dyn Task>>,
}

/// Begins a request.
pub type Start = Box<dyn FnOnce() -> (Box<dyn Task>, Step)>;

impl Checked {
    /// Lets `start` begin when `check` is passed.
    #[must_use]
    pub fn begin(check: Check, start: Start) -> (Self, Step) {
        let step = Step::Disk(check.begin());
        (Self { check: Some(check), start: Some(start), task: None }, step)
    }
}

impl Task for Checked {
    fn resume(&mut self, completion: Completion) -> Result<Step> {
        if let Some(check) = &mut self.check {
            return match check.resume(completion)? {
                Progress::Disk(operation) => Ok(Step::Disk(operation)),
                Progress::Passed => {
                    self.check = None;
                    let start = self.start.take().ok_or_else(super::super::unexpected_outcome)?;
                    let (task, step) = start();
                    self.task = Some(task);
                    Ok(step)
                }
            };
        }
        self.task.as_mut().ok_or_else(super::super::unexpected_outcome)?.resume(completion)
    }

    fn proceed(&mut self) -> Result<Step> {
        self.task.as_mut().ok_or_else(super::super::unexpected_outcome)?.proceed()
    }
}
