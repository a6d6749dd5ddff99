//! What is shown of a connection: to whoever decides whether it may stay, and to administrators.

use std::net::SocketAddr;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::config::Role;
use crate::disk::HeldLock;

/// What a caller sees of a client.
#[derive(Debug)]
pub(crate) struct ClientView<'a> {
    /// The names that it proved to have.
    pub(crate) names: Option<&'a [String]>,
    /// The certificates that it presented, its own first.
    pub(crate) certificates: &'a [CertificateDer<'static>],
    /// How long it has been connected.
    pub(crate) age: Duration,
    pub(crate) stanza: Option<&'a str>,
    /// What it may do there.
    pub(crate) role: Role,
    /// Whether it was authorized; before that it has no stanza.
    pub(crate) authorized: bool,
    pub(crate) locks: &'a [HeldLock],
}

/// What administrators are shown of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionState {
    /// The process that serves it.
    pub(crate) pid: u32,
    /// The other end of it.
    pub(crate) peer: SocketAddr,
    pub(crate) client: Option<String>,
    /// The stanza that it named, if it was authorized and named one.
    pub(crate) stanza: Option<String>,
    /// The command, such as `archive-push`, once it is authorized.
    pub(crate) command: Option<String>,
    /// 0 for the main process of a client, otherwise the number of its worker.
    pub(crate) process: Option<u32>,
    /// What it was greeted with.
    pub(crate) release: String,
    /// How long it has been connected, in seconds.
    pub(crate) seconds: u64,
    /// Requests that were answered.
    pub(crate) requests: u64,
    /// Those of them that were answered with an error.
    pub(crate) errors: u64,
    /// Those of them that the client was not allowed to make.
    pub(crate) denied: u64,
    /// Bytes of files sent to the client.
    pub(crate) read: u64,
    /// Bytes of files taken from the client.
    pub(crate) written: u64,
}
