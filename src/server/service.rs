//! What connections are served with: the lowest of the server's own types, which every room above may name.

use std::rc::Rc;
use std::time::Duration;

use super::releases::policy::Policy;
use super::tls::Tls;
use crate::session::{Authority, Limits};

/// What new connections are served with; a reload replaces it as a whole.
#[derive(Clone)]
pub struct Service {
    /// Certificates and ciphers.
    pub tls: Tls,
    /// Who may do what.
    pub authority: Rc<dyn Authority>,
    /// Which release is written down for whom, and which ones there are.
    pub policy: Rc<Policy>,
    /// From `accept` to the end of the handshake.
    pub handshake: Duration,
    /// What a session is allowed after that.
    pub limits: Limits,
    /// How many connections there may be.
    pub bounds: Bounds,
}

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// In total.
    pub connections: usize,
    /// From one address.
    pub per_address: usize,
}
