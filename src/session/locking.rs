//! The locks that a client's main process holds for as long as its session.

use crate::disk::{HeldLock, Operation};
use crate::protocol::error::{Error, Result};
use crate::protocol::framing::Envelope;
use crate::protocol::request::Request;
use crate::repository::posix::locks::Locks;
use crate::repository::{Answer, Next};

use super::ending::{End, Flow};
use super::granted::{Active, Granted, Stage};
use super::line::Line;

/// The locks of a session.
#[derive(Default)]
pub(super) struct SessionLocks {
    held: Vec<HeldLock>,
    /// Whether there are or were some.
    were_held: bool,
}

impl SessionLocks {
    pub(super) fn held(&self) -> &[HeldLock] {
        &self.held
    }

    pub(super) const fn were_held(&self) -> bool {
        self.were_held
    }

    /// Takes those over that were acquired.
    pub(super) fn take(&mut self, acquired: &mut Locks) {
        self.note(acquired);
        self.held.append(&mut acquired.held);
    }

    /// Takes note of what is acquired one after the other.
    fn note(&mut self, acquired: &Locks) {
        self.were_held |= !acquired.held.is_empty();
    }

    pub(super) fn release(&mut self, line: &mut Line) {
        for lock in std::mem::take(&mut self.held) {
            line.submit(Operation::Unlock { lock });
        }
    }
}

impl Granted {
    /// Answers the first `noop`, which takes the locks of a client's main process.
    pub(super) fn start(&mut self, line: &mut Line, envelope: Envelope, request: &Request) -> Flow {
        if *request != Request::Noop {
            return Err(End::Error(Error::format("noop expected")));
        }
        self.stage = Stage::Ready;
        match Locks::begin(&self.settings, line.release.lock_contents, line.host.process) {
            Some((locks, operation)) => {
                self.submit(line, envelope, Active::Locks(Box::new(locks)), operation);
                Ok(())
            }
            None => self.answer(line, envelope, Answer::null()),
        }
    }

    /// Goes on with the locks, or answers when they are held or cannot be.
    pub(super) fn take_lock_progress(
        &mut self,
        line: &mut Line,
        envelope: Envelope,
        progress: Result<Next<()>>,
        mut locks: Box<Locks>,
    ) -> Flow {
        match progress {
            Ok(Next::Disk(operation)) => {
                self.locks.note(&locks);
                self.submit(line, envelope, Active::Locks(locks), operation);
                Ok(())
            }
            Ok(Next::Done(())) => {
                self.locks.take(&mut locks);
                self.answer(line, envelope, Answer::null())
            }
            Err(error) => {
                self.locks.take(&mut locks);
                Err(End::Refused(envelope.session, error.into()))
            }
        }
    }
}
