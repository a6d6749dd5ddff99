//! Which release of pgBackRest a client is greeted with.
//!
//! A client accepts its own release only and says nothing before it has read the greeting
//! (specification of the protocol, section 1.2), so the server has to know or to guess it:
//! [`policy`] is what the administrator wrote down, [`learner`] what clients taught, [`memory`]
//! keeps that across restarts, [`turns`] is how several of them share one client's name and address, and [`installed`] is
//! the release that the host itself has. Only [`memory`] touches a file; nothing here knows a socket.

pub(super) mod installed;
pub(crate) mod learner;
pub(crate) mod lesson;
pub(crate) mod memory;
pub(crate) mod policy;
pub(crate) mod table;
mod turns;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::since_epoch;

/// Names that are longer are not remembered, so that what is remembered stays small.
const NAME_MAXIMUM: usize = 255;

/// Whom something was learned of: a client's address, and the first name of its certificate.
/// Hosts that share a certificate differ by address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Key {
    /// Where the client connects from; the first field, so that neighbours in order share it.
    pub(crate) address: IpAddr,
    /// `None` for pings, which show no certificate.
    pub(crate) client: Option<Box<str>>,
}

impl Key {
    /// The key of a client that proved to have `names`. One without a name that can be remembered
    /// is remembered by its address.
    pub(crate) fn new(address: IpAddr, names: Option<&[String]>) -> Self {
        let name = names.and_then(<[String]>::first).filter(|name| name.len() <= NAME_MAXIMUM);
        Self { address: address.to_canonical(), client: name.map(|name| name.as_str().into()) }
    }
}

/// Milliseconds since the epoch; what takes turns is timed by them.
pub(super) fn milliseconds() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since the epoch; what is learned is dated by them.
pub(super) fn seconds() -> u64 {
    since_epoch().as_secs()
}
