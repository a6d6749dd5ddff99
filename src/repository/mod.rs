//! What a request means: what it may reach and do ([`policy`]), and the operations that it takes ([`posix`]).
//!
//! Each request is a small state machine that asks for one disk operation at a time and is resumed
//! with its completion. Nothing here does I/O.

pub(crate) mod buffers;
pub mod policy;
pub(crate) mod posix;

use std::cell::Cell;
use std::rc::Rc;

use jiff::Timestamp;

use crate::disk::{Completion, Errno, Location, Operation};
use crate::filter::Contexts;
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::response::Payload;

use self::buffers::Buffers;
use self::policy::finished::Finished;
use self::policy::segments::Segments;
use self::policy::view::leads_out;
use self::posix::anchored::Anchored;
use self::posix::listing_memory::{Ledger, Share};

/// What the requests of all sessions of one process share.
#[derive(Default)]
pub(crate) struct Shared {
    /// What time it is.
    pub(crate) now: Cell<Timestamp>,
    /// Buffers for the blocks of files.
    pub(crate) buffers: Buffers,
    /// What compressors work with.
    pub(crate) contexts: Rc<Contexts>,
    /// Directories that are on the disk.
    pub(crate) anchored: Anchored,
    /// Backups that were finished lately.
    pub(crate) finished: Rc<Finished>,
    /// What directories of segments have.
    pub(crate) segments: Segments,
    /// What lists take.
    pub(crate) listings: Rc<Ledger>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// What a part of a request needs next.
#[derive(Debug)]
pub(crate) enum Next<T> {
    /// This disk operation; resume with its completion.
    Disk(Operation),
    /// Nothing: this came of it.
    Done(T),
}

/// What a request needs next.
#[derive(Debug)]
pub(crate) enum Step {
    /// This disk operation; resume with its completion.
    Disk(Operation),
    /// Another slice of work that only burns CPU, after others had their turn.
    Work,
    /// These messages are a part of the answer; go on once they are on their way.
    Part(Payload),
    /// Others hold what this needs; try again after a moment.
    Wait,
    /// The rest of the block that is being written.
    Ready,
    /// Nothing: it is answered.
    Done(Answer),
}

/// The answer to a request.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Messages that go before it, where an answer may be several.
    pub(crate) lead: Option<Payload>,
    /// A pack of data, or null.
    pub(crate) payload: Option<Payload>,
    /// Whether the session that the request belongs to ends with it.
    pub(crate) close: bool,
    /// What is given back once the answer is sent.
    pub(crate) share: Option<Share>,
    /// What an administrator should know.
    pub(crate) notice: Option<String>,
}

impl Answer {
    /// An answer without data.
    pub(crate) const fn null() -> Self {
        Self { lead: None, payload: None, close: false, share: None, notice: None }
    }

    /// An answer without data that ends a session.
    pub(crate) const fn closing() -> Self {
        Self { lead: None, payload: None, close: true, share: None, notice: None }
    }

    /// An answer with data.
    pub(crate) const fn data(payload: Payload) -> Self {
        Self { lead: None, payload: Some(payload), close: false, share: None, notice: None }
    }
}

/// A request that takes more than one step.
pub(crate) trait Task {
    /// Goes on after the operation that was asked for last has completed. After an error the task is over.
    fn resume(&mut self, completion: Completion) -> Result<Step>;

    /// Goes on after a [`Step::Part`] or a [`Step::Wait`].
    fn proceed(&mut self) -> Result<Step> {
        Err(unexpected_outcome())
    }
}

/// What the client is told when the system refuses to do something to what is `at` a place.
fn failed(code: Code, text: &str, at: &Location, errno: Errno) -> Error {
    Error::system(code, format_args!("{text} '{at}'"), errno.0)
}

/// What the client is told when the system refuses to do `what` to what is `at` a place, or when the way there leads out.
fn refused(code: Code, what: impl std::fmt::Display, at: &Location, errno: Errno) -> Error {
    if errno == Errno::XDEV { leads_out(at) } else { Error::system(code, what, errno.0) }
}

/// An outcome that does not belong to the operation that was asked for.
fn unexpected_outcome() -> Error {
    Error::new(Code::Assert, "disk operation came to an unexpected outcome")
}
