//! What a connection gets for its turn of the event loop, and what it says at the end of that.

use std::time::Instant;

use super::connection::Service;
use super::databases::Databases;
use super::event_loop::Rates;
use super::releases::learner::Learner;
use crate::disk::Disk;

/// What a connection works with during its turn.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    /// Where sockets are read into; as long as one read may be.
    pub(super) buffer: &'a mut Vec<u8>,
    /// Buffers that are free for what a session does not take at once.
    pub(super) spare: &'a mut Vec<Vec<u8>>,
    pub(super) disk: &'a mut dyn Disk,
    pub(super) databases: &'a mut Databases,
    pub(super) service: &'a Service,
    /// What clients taught about their releases.
    pub(super) learner: &'a mut Learner,
    /// Bounds of what may be written to the log.
    pub(super) rates: &'a mut Rates,
}

/// What the loop does with a connection after its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing until something happens.
    Wait,
    /// Another turn, after the others had theirs.
    Again,
    /// It is over.
    Remove,
}
