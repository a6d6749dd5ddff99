//! One client's conversation, without I/O: bytes in; bytes, disk work and deadlines out.
//!
//! The type [`Session`] documents the contract with the event loop.

mod ahead;
mod conversation;
mod databases;
mod ending;
mod granted;
mod greeted;
mod host;
mod line;
mod locking;
mod memory;
mod output;
mod pace;
mod requests;
mod revoked;
mod streams;
#[cfg(test)]
mod tests;
mod upload;

use std::time::Duration;

use crate::config::{NetworkCompression, Protection, Role, SessionSettings};
use crate::protocol::error::Error;
use crate::protocol::release::Release;
use crate::repository::policy::versions::Versions;

pub use conversation::Session;
pub use databases::{DatabaseAction, DatabaseOutcome};
pub use ending::GRACE;
pub use host::Host;
pub use memory::Hold;

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Names in the client's certificate, the common name first; `None` without a certificate.
    pub names: Option<Vec<String>>,
}

/// Decides whether a client may open a session, and with which settings.
pub trait Authority {
    /// Checks the names of a client against the grants, where that comes before its `config` request.
    ///
    /// # Errors
    ///
    /// Code 105 when no grant is for any of them.
    fn admit(&self, names: &[String]) -> Result<(), Refusal>;

    /// Whether what [`Authority::authorize`] decides by is what counts now. Otherwise that is asked for, and the
    /// session is told by [`Session::handle_authority`].
    fn is_current(&self) -> bool {
        true
    }

    /// Checks the names of a client against the grants, reads the parameters of its `config` request as `release`
    /// means them, which it was greeted with, and merges them with the server's configuration.
    ///
    /// # Errors
    ///
    /// What the client is told: code 105 when it may not, 31, 32 or 37 for parameters.
    fn authorize(
        &self,
        release: &'static Release,
        names: &[String],
        parameters: &[String],
    ) -> Result<Authorized, Refusal>;
}

/// Why a client may not open a session.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// What the client is told.
    pub error: Error,
    /// What only the administrator is told, beside it.
    pub reason: Option<String>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, reason: None }
    }
}

/// A client that may open a session.
#[derive(Debug)]
pub struct Authorized {
    /// What the session does, and on what.
    pub settings: SessionSettings,
    /// Whether the client is granted every stanza, and so the whole repository.
    pub whole_repository: bool,
    /// What it may do there.
    pub role: Role,
    /// What the repository is protected with whatever the role.
    pub protection: Protection,
    /// Where earlier versions of info files are kept.
    pub versions: Option<Versions>,
    /// Whether what it has compressed on the way is.
    pub network: NetworkCompression,
    /// Bits that the modes of new files and directories lose, unless the client wants them as it says.
    pub umask: u32,
}

/// Bounds that the server sets for a session.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the end of the handshake to the end of the first request.
    pub first_request: Duration,
    /// Every later wait for the client, for input as for output to drain.
    pub idle: Duration,
    /// Bytes that the answers to all listings of the server may take together.
    pub listing: usize,
    /// Bytes that the open files of all sessions of the server may take together.
    pub memory: usize,
}

/// What happened that somebody may want in the log.
#[derive(Debug, Clone)]
pub enum Event {
    /// The client was authorized.
    Opened(Opened),
    /// The session ends because of this; the client was told so if it still could be.
    Refused(Refusal),
    /// Something happened that an administrator should know; the request was answered.
    Noticed(String),
    /// A request was answered with an error; the session goes on.
    Failed {
        /// The request's name, such as `s-rd`.
        request: String,
        /// What the client was told.
        error: Error,
    },
}

/// What a client that was authorized wants.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The command, such as `archive-push`.
    pub command: String,
    /// The stanza, if it named one.
    pub stanza: Option<String>,
    /// 0 for the main process of a client, otherwise the number of its worker.
    pub process: u32,
    /// The client's own id for its run.
    pub exec_id: Option<String>,
}

/// Counters of a session, for its line in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that were answered, `config` and `noop` included.
    pub requests: u64,
    /// Requests that were answered with an error.
    pub errors: u64,
    /// Those of them that the client was not allowed to make.
    pub denied: u64,
    /// Bytes of files sent to the client.
    pub read: u64,
    /// Bytes of files taken from the client.
    pub written: u64,
}

/// What a session wants done with its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Goes on.
    Open,
    /// Send what `poll_output` still holds, then `close_notify`, then close. No input is wanted.
    Closing,
    /// Nothing is left: no output, no disk work under way. The session can be dropped.
    Closed,
}
