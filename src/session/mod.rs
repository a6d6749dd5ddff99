//! One client's conversation, without I/O: bytes in; bytes, disk work and deadlines out.
//!
//! The type [`Session`] documents the contract with the event loop.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::config::SessionSettings;
use crate::disk::{Completion, Operation};
use crate::protocol::error::{Error, Result};
use crate::protocol::release::Release;

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Names in the client's certificate, the common name first; `None` without a certificate.
    pub names: Option<Vec<String>>,
}

/// Decides whether a client may open a session, and with which settings.
pub trait Authority {
    /// Checks the names of a client against the grants, reads the parameters of its `config` request
    /// and merges them with the server's configuration.
    ///
    /// # Errors
    ///
    /// What the client is told: code 105 when it may not, 31, 32 or 37 for parameters.
    fn authorize(&self, names: &[String], parameters: &[String]) -> Result<SessionSettings>;
}

/// Bounds that the server sets for a session.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the end of the handshake to the end of the first request.
    pub first_request: Duration,
    /// Every later wait for the client, for input as for output to drain.
    pub idle: Duration,
}

/// What happened that somebody may want in the log.
#[derive(Debug, Clone)]
pub enum Event {
    /// The client was authorized.
    Opened(Opened),
    /// The session ends because of this; the client was told so if it still could be.
    Refused(Error),
    /// A request was refused or failed in a way that an administrator should see.
    Denied {
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

/// One client's conversation after the TLS handshake.
///
/// # Contract
///
/// What happened goes in by `handle_*`; after each of those calls (and after [`Session::new`]) the
/// caller asks by `poll_*` what to do, in this order, until there is nothing more:
///
/// 1. [`Session::poll_disk`]: submit each operation; its completion comes back by
///    [`Session::handle_completion`] now or later. Operations outlive the connection: after
///    [`Session::handle_disconnect`] a session still cleans up.
/// 2. [`Session::poll_output`] and [`Session::consume_output`]: bytes for the client.
/// 3. [`Session::poll_work`]: when true, call [`Session::handle_work`] soon, after other sessions had
///    their turn; it does one bounded slice of work that only burns CPU.
/// 4. [`Session::poll_event`]: lines for the log.
/// 5. [`Session::poll_timeout`]: when to call [`Session::handle_timeout`], unless something happens
///    before. `None` while the session waits for the disk and not for its client.
/// 6. [`Session::state`].
///
/// Input is offered only while [`Session::wants_input`]; [`Session::handle_input`] says how much it
/// took. Time is an argument and never runs backwards.
pub struct Session {
    _placeholder: Rc<dyn Authority>,
}

#[allow(missing_docs, clippy::missing_errors_doc, reason = "skeleton")]
impl Session {
    pub fn new(
        peer: Peer,
        release: &'static Release,
        authority: Rc<dyn Authority>,
        limits: Limits,
        now: Instant,
    ) -> Self {
        let _ = (peer, release, limits, now);
        Self { _placeholder: authority }
    }
    /// Whether bytes from the client can be taken now.
    pub fn wants_input(&self) -> bool {
        true
    }
    /// Takes plaintext from the client; returns how many bytes were taken, 0 when none are wanted.
    pub fn handle_input(&mut self, _now: Instant, input: &[u8]) -> usize {
        input.len()
    }
    /// The client ended its side or the connection broke; nothing can be sent any more.
    pub fn handle_disconnect(&mut self, _now: Instant, _reason: &str) {}
    /// The deadline of `poll_timeout` has passed.
    pub fn handle_timeout(&mut self, _now: Instant) {}
    /// An operation of `poll_disk` has completed.
    pub fn handle_completion(&mut self, _now: Instant, _operation: u64, _completion: Completion) {}
    /// One slice of CPU work.
    pub fn handle_work(&mut self, _now: Instant) {}
    /// The server shuts down (or the client lost its grant): the request in flight finishes, then the client is told `error` and
    /// the session closes. The caller calls `handle_abort` when its patience ends.
    pub fn handle_drain(&mut self, _now: Instant, _error: Error) {}
    /// Ends the session at once with `error`, without finishing the request in flight.
    pub fn handle_abort(&mut self, _now: Instant, _error: Error) {}
    /// The next operation to submit, with the session's number for it.
    pub fn poll_disk(&mut self) -> Option<(u64, Operation)> {
        None
    }
    /// Bytes to send next, empty when there are none. They stay until they are consumed.
    pub fn poll_output(&self) -> &[u8] {
        &[]
    }
    /// `count` bytes of `poll_output` were sent.
    pub fn consume_output(&mut self, _now: Instant, _count: usize) {}
    pub fn poll_work(&self) -> bool {
        false
    }
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    pub fn state(&self) -> State {
        State::Open
    }
    pub fn counters(&self) -> Counters {
        Counters::default()
    }
    /// Whether any lock that this session holds, or released less than `within` ago, was unlinked by somebody else,
    /// or a stop file for its stanza exists: then a SIGTERM from outside is meant for this session.
    pub fn stanza(&self) -> Option<&str> {
        None
    }
}
