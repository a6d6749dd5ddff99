//! Write sessions: a file that appears under its name only when it is complete and as durable as
//! the client asked.

mod data;
mod naming;
mod opening;

use std::rc::Rc;

use crate::disk::{Completion, Errno, File, Location, Operation};
use crate::filter::Chain;
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::filter::encode_results;
use crate::protocol::release::Release;
use crate::protocol::request::WriteRequest;
use crate::protocol::response::Payload;
use crate::repository::policy::finished::Watch;
use crate::repository::policy::guard::{Precaution, Replace, Safeguard};
use crate::repository::policy::layout::{MANIFEST, TEMPORARY_SUFFIX};
use crate::repository::{Answer, Next, Shared, Step, unexpected_outcome};

use super::commit::{Commit, Reached, Terms};
use data::CHUNK;
use naming::{Found, Held, Naming};
use opening::Opening;

enum Phase {
    Opening(Box<Opening>),
    /// Waiting for data.
    Ready,
    /// Writing data; more of the same block may follow.
    Writing,
    /// Writing what the filters still held; there may be more of that.
    Flushing,
    /// Writing the last of it.
    Ending,
    /// On the way to its name, or from there to the disk.
    Committing(Held),
    /// Looking whether it may have its name.
    Naming(Naming),
    /// Dropping what was written.
    Discarding,
    /// Finished or failed.
    Over,
}

/// A write session.
pub(crate) struct WriteStream {
    shared: Rc<Shared>,
    release: &'static Release,
    replace: Replace,
    watch: Option<Watch>,
    commit: Commit,
    chain: Chain,
    /// What is collected; away while it is written.
    out: Option<Vec<u8>>,
    offset: u64,
    /// Bytes that are collected now, and that may be where that pays.
    chunk: usize,
    largest: usize,
    phase: Phase,
}

/// What came of a piece of data.
#[derive(Debug)]
pub(crate) enum Fed {
    /// It was taken.
    Taken,
    /// This has to be done before more is taken.
    Disk(Operation),
    /// Others should have their turn before more is taken: a few bytes can decompress to many.
    Work,
}

impl WriteStream {
    /// Starts to write `request` to `target`, to report on it as `release` does. Fails for parameters that a filter
    /// refuses, and for a name that is too long for its temporary form.
    pub(crate) fn begin(
        mut request: WriteRequest,
        target: Location,
        safeguard: Safeguard,
        release: &'static Release,
        shared: &Rc<Shared>,
    ) -> Result<(Self, Step)> {
        let Safeguard { precaution: Precaution { preconditions, watch }, replace, separate } = safeguard;
        // What may not be replaced gets its name in one step.
        request.atomic |= !matches!(replace, Replace::Always);
        let chain = Chain::sharing(&shared.contexts, std::mem::take(&mut request.filters))?;
        let temporary = target.with_suffix(TEMPORARY_SUFFIX).filter(|_| request.atomic);
        if request.atomic && temporary.is_none() {
            let message = format_args!("unable to open file '{target}' for write");
            return Err(Error::system(Code::FileOpen, message, Errno::NAMETOOLONG.0));
        }
        let WriteRequest { modified, sync_file, sync_path, .. } = request;
        let terms = Terms { modified, sync_file, sync_path, after: " after write" };
        let commit = Commit::new(target, temporary, terms);
        let (opening, operation) = Opening::begin(shared, &commit, request, separate, preconditions, release)?;
        let stream = Self {
            shared: Rc::clone(shared),
            release,
            replace,
            watch,
            commit,
            chain,
            out: None,
            offset: 0,
            chunk: CHUNK,
            largest: CHUNK,
            phase: Phase::Opening(Box::new(opening)),
        };
        Ok((stream, Step::Disk(operation)))
    }

    /// Collects up to so many bytes where each write waits.
    pub(crate) fn collect_up_to(&mut self, bytes: usize) {
        self.largest = bytes.max(CHUNK);
    }

    /// Gives the buffer back.
    pub(crate) fn into_buffer(self) -> Option<Vec<u8>> {
        self.out
    }

    /// How many bytes it holds or may hold.
    pub(crate) fn memory(&self) -> usize {
        let replacing = if let Phase::Naming(Naming::Guarding(guard)) = &self.phase { guard.memory() } else { 0 };
        // What a helper writes it has in memory of its own.
        let written = if self.chunk > CHUNK { 2 * self.chunk } else { CHUNK };
        written + self.chain.memory() + replacing
    }

    /// Whether no filter changes the data, which then need no more [memory](Self::memory) than an open file.
    pub(crate) fn is_plain(&self) -> bool {
        self.chain.is_passive()
    }

    /// Whether data can be fed now.
    pub(crate) const fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    /// Completes the file: all data is there.
    pub(crate) fn finish(&mut self) -> Result<Step> {
        self.phase = Phase::Flushing;
        self.flush()
    }

    /// Drops the file. `None` when there is nothing to clean up.
    pub(crate) fn discard(&mut self) -> Option<Operation> {
        self.phase = Phase::Discarding;
        self.commit.discard()
    }

    /// More slices of work that only burns CPU.
    pub(crate) fn work(&mut self) -> Result<Step> {
        // In the middle of a block there is nothing to do but to take its next bytes.
        if matches!(self.phase, Phase::Flushing) {
            return self.flush();
        }
        self.phase = Phase::Ready;
        Ok(Step::Ready)
    }

    /// Goes on after the operation that was asked for last. After an error the session waits for its cancellation.
    pub(crate) fn resume(&mut self, completion: Completion) -> Result<Step> {
        if matches!(self.phase, Phase::Writing) {
            self.written(completion)?;
            self.phase = Phase::Ready;
            return Ok(Step::Ready);
        }
        // What fails is over, so that others need not wait for the cancellation.
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Opening(mut opening) => match opening.resume(&self.shared, &mut self.commit, completion)? {
                Next::Disk(operation) => Ok(self.wait(Phase::Opening(opening), operation)),
                Next::Done(()) => {
                    if self.commit.file().is_some_and(File::has_slow_writes) {
                        self.chunk = self.largest;
                    }
                    self.phase = Phase::Ready;
                    Ok(Step::Done(Answer::null()))
                }
            },
            Phase::Flushing => {
                self.written(completion)?;
                self.flush()
            }
            Phase::Ending => {
                self.written(completion)?;
                self.close()
            }
            Phase::Committing(held) => {
                let next = self.commit.resume(&self.shared, completion)?;
                self.go_on(held, next)
            }
            Phase::Naming(naming) => {
                let found = naming.resume(&self.shared, &self.commit, completion)?;
                self.name(found)
            }
            Phase::Discarding => Ok(Step::Done(Answer::closing())),
            Phase::Ready | Phase::Writing | Phase::Over => Err(unexpected_outcome()),
        }
    }

    fn wait(&mut self, phase: Phase, operation: Operation) -> Step {
        self.phase = phase;
        Step::Disk(operation)
    }

    /// Whether the backup that it is for can still be written.
    fn watch(&self) -> Result<()> {
        self.watch.as_ref().map_or(Ok(()), |watch| watch.check(&self.commit.target))
    }

    /// All of it is written.
    fn close(&mut self) -> Result<Step> {
        let operation = self.commit.begin()?;
        Ok(self.wait(Phase::Committing(Held::default()), operation))
    }

    fn go_on(&mut self, mut held: Held, next: Next<Reached>) -> Result<Step> {
        let reached = match next {
            Next::Disk(operation) => return Ok(self.wait(Phase::Committing(held), operation)),
            Next::Done(reached) => reached,
        };
        match reached {
            Reached::Written => {
                self.watch()?;
                let found = Naming::begin(&self.shared, &self.commit, &self.replace);
                self.name(found)
            }
            Reached::Refused(errno) => {
                let found = Naming::meet(&self.commit, &self.replace, errno)?;
                self.name(found)
            }
            Reached::Named => {
                self.note_new();
                held.claim = None;
                let next = self.commit.settle(&self.shared);
                self.go_on(held, next)
            }
            Reached::Settled => {
                let (results, release) = (self.chain.results(), self.release);
                let payload =
                    Payload::from_pack(|pack| _ = pack.pack(|inner| encode_results(inner, &results, release)));
                Ok(Step::Done(Answer { close: true, notice: held.notice, ..Answer::data(payload) }))
            }
        }
    }

    fn name(&mut self, found: Found) -> Result<Step> {
        match found {
            Found::More(naming, operation) => Ok(self.wait(Phase::Naming(naming), operation)),
            Found::Free(over, held) => {
                let next = self.commit.rename(&self.shared, over);
                self.go_on(held, next)
            }
            Found::Same => {
                let operation = self.commit.leave()?;
                Ok(self.wait(Phase::Committing(Held::default()), operation))
            }
        }
    }

    /// Notes what has got its name, for those who rely on what is there.
    fn note_new(&self) {
        let target = &self.commit.target;
        let (Some(directory), name) = (target.parent(), naming::name(target)) else { return };
        if name == MANIFEST {
            self.shared.finished.note(directory.to_string());
        } else if let Replace::NeverSegment = &self.replace {
            self.shared.segments.add(&directory.to_string(), name);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
