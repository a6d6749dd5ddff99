//! What is shown of a connection: to whoever decides whether it may stay, and to administrators.

use std::net::SocketAddr;
use std::time::Duration;

use rustls_pki_types::CertificateDer;

use crate::config::Role;
use crate::disk::HeldLock;
use crate::session::{Counters, Opened};

/// What a caller sees of a client.
#[derive(Debug)]
pub struct ClientView<'a> {
    /// The names that it proved to have.
    pub names: Option<&'a [String]>,
    /// The certificates that it presented, its own first.
    pub certificates: &'a [CertificateDer<'static>],
    /// How long it has been connected.
    pub age: Duration,
    /// The stanza of its session.
    pub stanza: Option<&'a str>,
    /// What it may do there.
    pub role: Role,
    /// Whether it was authorized; before that it has no stanza.
    pub authorized: bool,
    /// The locks that its session holds.
    pub locks: &'a [HeldLock],
}

/// What is shown of a session.
#[derive(Debug)]
pub(crate) struct SessionView<'a> {
    pub(crate) peer: SocketAddr,
    pub(crate) client: Option<&'a str>,
    pub(crate) release: &'static str,
    pub(crate) opened: Option<&'a Opened>,
    pub(crate) age: Duration,
    pub(crate) counters: Counters,
}
