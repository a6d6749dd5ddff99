//! Whether a file may be written, its opening, with whatever is missing above it, and its owner.

use std::rc::Rc;

use crate::disk::{self, Completion, Errno, Failure, Operation, Outcome};
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::release::Release;
use crate::protocol::request::WriteRequest;
use crate::repository::policy::preconditions::Preconditions;
use crate::repository::posix::check::Check;
use crate::repository::posix::commit::Commit;
use crate::repository::posix::make_path::MakePath;
use crate::repository::{Next, Shared, failed, refused, unexpected_outcome};

pub(super) struct Opening {
    request: WriteRequest,
    /// Another name of the file may be protected.
    separate: bool,
    release: &'static Release,
    phase: Phase,
}

enum Phase {
    /// Looking whether it may be written.
    Checking(Box<Check>),
    /// Opening it; directories that are missing may have to be made first.
    Opening,
    /// Making them.
    MakingPath(MakePath),
    /// Giving it to its owner.
    Owning,
}

impl Opening {
    /// Opens the file of `commit` once the `preconditions` are met.
    pub(super) fn begin(
        shared: &Rc<Shared>,
        commit: &Commit,
        request: WriteRequest,
        separate: bool,
        preconditions: Option<Box<Preconditions>>,
        release: &'static Release,
    ) -> Result<(Self, Operation)> {
        let mut opening = Self { request, separate, release, phase: Phase::Opening };
        if let Some(preconditions) = preconditions
            && let Some((check, operation)) = Check::begin(shared, preconditions)?
        {
            opening.phase = Phase::Checking(Box::new(check));
            return Ok((opening, operation));
        }
        let operation = opening.open(commit);
        Ok((opening, operation))
    }

    /// Goes on after the operation that was asked for last, until the file can be written to.
    pub(super) fn resume(
        &mut self,
        shared: &Rc<Shared>,
        commit: &mut Commit,
        completion: Completion,
    ) -> Result<Next<()>> {
        match &mut self.phase {
            Phase::Checking(check) => Ok(Next::Disk(match check.resume(completion)? {
                Next::Disk(operation) => operation,
                Next::Done(()) => self.open(commit),
            })),
            Phase::Opening => self.opened(shared, commit, completion),
            Phase::MakingPath(path) => Ok(Next::Disk(match path.resume(completion)? {
                Next::Disk(operation) => operation,
                Next::Done(()) => {
                    self.request.create_path = false;
                    self.open(commit)
                }
            })),
            Phase::Owning => match completion {
                Ok(_) => Ok(Next::Done(())),
                Err(failure) => Err(self.owner_failure(commit, failure)),
            },
        }
    }

    fn open(&mut self, commit: &Commit) -> Operation {
        self.phase = Phase::Opening;
        let fresh = self.request.atomic || self.separate;
        Operation::OpenWrite { at: commit.place().clone(), mode: self.request.file_mode, fresh }
    }

    fn opened(&mut self, shared: &Rc<Shared>, commit: &mut Commit, completion: Completion) -> Result<Next<()>> {
        let failure = match completion {
            Ok(Outcome::File(file)) => {
                commit.opened(file.clone());
                let (user, group) = (self.request.user.clone(), self.request.group.clone());
                if user.is_none() && group.is_none() {
                    return Ok(Next::Done(()));
                }
                self.phase = Phase::Owning;
                return Ok(Next::Disk(Operation::SetOwner { file, user, group }));
            }
            Ok(_) => return Err(unexpected_outcome()),
            Err(failure) => failure,
        };
        let target = &commit.target;
        match (failure.errno, target.parent()) {
            (Errno::NOENT, Some(directory)) if self.request.create_path => {
                let (path, operation) = MakePath::begin(shared, directory, true, self.request.path_mode);
                self.phase = Phase::MakingPath(path);
                Ok(Next::Disk(operation))
            }
            (Errno::NOENT, _) => {
                let message = format!("unable to open file '{target}' for write in missing path");
                Err(Error::new(Code::FileMissing, message))
            }
            (errno, _) => {
                Err(refused(Code::FileOpen, format_args!("unable to open file '{target}' for write"), target, errno))
            }
        }
    }

    /// The original's text names who should own the file and who does, from some release on.
    fn owner_failure(&self, commit: &Commit, failure: Failure) -> Error {
        let at = commit.place();
        let change = match failure.step {
            disk::Step::ChangeOwner(change) if self.release.tells_owners => change,
            _ => return failed(Code::FileOwner, "unable to set ownership for", at, failure.errno),
        };
        let wanted = |name: &Option<String>, id: Option<u32>| {
            let name = name.as_deref().unwrap_or("[none]");
            id.map_or_else(|| name.to_owned(), |id| format!("{name}[{id}]"))
        };
        let current = |name: &Option<Rc<str>>, id: u32| format!("{}[{id}]", name.as_deref().unwrap_or("[unknown]"));
        let message = format_args!(
            "unable to set ownership for '{at}' to {}:{} from {}:{}",
            wanted(&self.request.user, change.uid),
            wanted(&self.request.group, change.gid),
            current(&change.current_user, change.current_uid),
            current(&change.current_group, change.current_gid),
        );
        Error::system(Code::FileOwner, message, failure.errno.0)
    }
}
