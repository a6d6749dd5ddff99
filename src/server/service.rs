//! What connections are served with: the lowest of the server's own types, which every room above may name.

use std::rc::Rc;
use std::time::Duration;

use super::releases::policy::Policy;
use super::tls::Tls;
use crate::session::{Authority, Limits};

/// What new connections are served with; a reload replaces it as a whole.
#[derive(Clone)]
pub(crate) struct Service {
    /// Certificates and ciphers.
    pub(crate) tls: Tls,
    /// Who may do what.
    pub(crate) authority: Rc<dyn Authority>,
    /// Which release is written down for whom, and which ones there are.
    pub(crate) policy: Rc<Policy>,
    /// From `accept` to the end of the handshake.
    pub(crate) handshake: Duration,
    /// What a session is allowed after that.
    pub(crate) limits: Limits,
    /// How many connections there may be.
    pub(crate) bounds: Bounds,
}

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// In total.
    pub(crate) connections: usize,
    /// From one address.
    pub(crate) per_address: usize,
}
