//! What a connection gets for its turn of the event loop, and what it says at the end of that.

use std::rc::Rc;
use std::time::Instant;

use crate::disk::Disk;
use crate::observe::quota::Quotas;
use crate::observe::rate::Rate;
use crate::server::outgoing::Databases;
use crate::server::releases::learner::Learner;
use crate::server::service::Service;
use crate::session::Host;

/// What a connection works with during its turn.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    /// Where sockets are read into; as long as one read may be.
    pub(crate) buffer: &'a mut Vec<u8>,
    /// Buffers that are free for what a session does not take at once.
    pub(crate) spare: &'a mut Vec<Vec<u8>>,
    pub(crate) disk: &'a mut dyn Disk,
    pub(crate) databases: &'a mut Databases,
    pub(crate) service: &'a Service,
    /// What sessions share.
    pub(crate) host: &'a Rc<Host>,
    /// What clients taught about their releases.
    pub(crate) learner: &'a mut Learner,
    /// Bounds of what may be written to the log.
    pub(crate) rates: &'a mut Rates,
    /// Bytes that it may still move before the others have their turn.
    pub(crate) budget: usize,
    /// Something was sent, received or taken since this was last looked at.
    pub(crate) moved: bool,
}

/// Bounds of what many clients may write to the log.
pub(crate) struct Rates {
    pub(crate) handshake: Rate,
    /// Of each one with a certificate.
    pub(crate) clients: Quotas,
}

/// What the loop does with a connection after its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing until something happens.
    Wait,
    /// Another turn, after the others had theirs.
    Again,
    /// It is over.
    Remove,
}
