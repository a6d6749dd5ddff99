//! The files that a client has open.

use crate::disk::{Completion, Operation};
use crate::protocol::error::{Error, Result};
use crate::repository::Step;
use crate::repository::posix::read::ReadStream;
use crate::repository::posix::write::WriteStream;

/// Files that one connection may hold open; real clients have one or two.
const MAXIMUM: usize = 8;

/// A file that is open for the client.
pub(super) enum Stream {
    Read(Box<ReadStream>),
    Write(Box<WriteStream>),
}

impl Stream {
    /// Goes on after the operation that it asked for last.
    pub(super) fn resume(&mut self, completion: Completion) -> Result<Step> {
        match self {
            Self::Read(read) => read.resume(completion),
            Self::Write(write) => write.resume(completion),
        }
    }

    /// Does one more slice of work.
    pub(super) fn proceed(&mut self) -> Result<Step> {
        match self {
            Self::Read(read) => read.advance(),
            Self::Write(write) => write.work(),
        }
    }

    /// Fills the next block.
    pub(super) fn next_block(&mut self) -> Result<Step> {
        match self {
            Self::Read(read) => read.advance(),
            Self::Write(_) => Err(Error::protocol("write session has nothing to read")),
        }
    }

    /// The operation that removes what was written of a file that is not wanted any more, if anything was.
    pub(super) fn discard(&mut self) -> Option<Operation> {
        match self {
            Self::Read(_) => None,
            Self::Write(write) => write.discard(),
        }
    }

    fn memory(&self) -> usize {
        match self {
            Self::Read(read) => read.memory(),
            Self::Write(write) => write.memory(),
        }
    }
}

/// The open files, named by their numbers for the session.
#[derive(Default)]
pub(super) struct Streams(Vec<(u64, Stream)>);

impl Streams {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, session: u64) -> bool {
        self.0.iter().any(|(number, _)| *number == session)
    }

    /// Whether a file of that number is open to be read.
    pub(super) fn reads(&self, session: u64) -> bool {
        self.0.iter().any(|(number, stream)| *number == session && matches!(stream, Stream::Read(_)))
    }

    pub(super) fn find(&mut self, session: u64) -> Option<&mut Stream> {
        self.0.iter_mut().find(|(number, _)| *number == session).map(|(_, stream)| stream)
    }

    pub(super) fn get(&mut self, session: u64) -> Result<&mut Stream> {
        self.find(session).ok_or_else(|| Error::protocol(format!("unable to find session id {session}")))
    }

    /// Makes sure that another file may be opened as number `session`.
    pub(super) fn check_new(&self, session: u64) -> Result<()> {
        if self.has(session) {
            return Err(Error::protocol(format!("session id {session} is open already")));
        }
        if self.0.len() >= MAXIMUM {
            return Err(Error::protocol(format!("more than {MAXIMUM} files are open")));
        }
        Ok(())
    }

    pub(super) fn add(&mut self, session: u64, stream: Stream) {
        self.0.push((session, stream));
    }

    pub(super) fn remove(&mut self, session: u64) -> Option<Stream> {
        let index = self.0.iter().position(|(number, _)| *number == session)?;
        Some(self.0.swap_remove(index).1)
    }

    /// The number of one of them.
    pub(super) fn any(&self) -> Option<u64> {
        self.0.first().map(|(number, _)| *number)
    }

    /// Bytes that they hold or may hold.
    pub(super) fn memory(&self) -> usize {
        self.0.iter().map(|(_, stream)| stream.memory()).sum()
    }

    /// What must always be true.
    pub(super) fn check_invariants(&self) -> bool {
        let is_unique = |(index, (number, _)): (usize, &(u64, Stream))| {
            self.0.iter().position(|(other, _)| other == number) == Some(index)
        };
        self.0.len() <= MAXIMUM && self.0.iter().enumerate().all(is_unique)
    }
}
