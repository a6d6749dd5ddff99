//! What the sessions of one process share.

use std::rc::Rc;
use std::time::SystemTime;

use jiff::Timestamp;

use super::memory::{Hold, Pool};
use crate::repository::Shared;

/// What the sessions of one process share. A process makes one and gives it to each of them; it sets the
/// [time](Self::set_time) before it has them do something.
pub struct Host {
    /// Its id, which lock files carry.
    pub(super) process: u32,
    /// What clients make it hold.
    pub(super) memory: Rc<Pool>,
    /// What requests share.
    pub(crate) repository: Rc<Shared>,
}

impl Host {
    /// Of the process that has the id `process`, and that shares its bounds with no other one.
    #[must_use]
    pub fn new(process: u32) -> Self {
        Self { process, memory: Rc::default(), repository: Rc::default() }
    }

    /// Says what time it is, by which things are old or not. Without, nothing is.
    pub fn set_time(&self, now: SystemTime) {
        self.repository.now.set(Timestamp::try_from(now).unwrap_or_default());
    }

    /// Makes [`Limits::memory`](super::Limits::memory) a bound of several processes. `hold` has this process hold so
    /// many bytes in all, of a maximum for all processes, and is false if others leave less; to hold less always
    /// succeeds.
    pub fn share_memory(&self, hold: Hold) {
        self.memory.share(hold);
    }

    /// Frees what is kept for the next transfer, once nobody transfers anything.
    pub fn release_buffers(&self) {
        self.repository.buffers.release();
        self.repository.contexts.release();
    }
}
