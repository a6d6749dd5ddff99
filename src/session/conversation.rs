//! The order of a conversation: greeting, `config`, `noop`, requests, end.

use std::rc::Rc;
use std::time::Instant;

use crate::config::Role;
use crate::disk::{Completion, HeldLock, Operation};
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::framing::{Framing, Piece};
use crate::protocol::release::Release;

use super::databases::DatabaseAction;
use super::ending::{Closing, End};
use super::granted::Granted;
use super::greeted::Greeted;
use super::line::Line;
use super::memory::{SMALL, Share};
use super::{Authority, Counters, Event, Host, Limits, Peer, State};

/// A client without a certificate may only send a `noop`, which has no parameters.
const PING_MAXIMUM: usize = 64;
/// Parameters of `config`: a command line.
const CONFIG_MAXIMUM: usize = 128 << 10;
/// Parameters of later requests: the ranges of a large block-incremental file, some 100 bytes each.
pub(super) const REQUEST_MAXIMUM: usize = 16 << 20;

/// Where the conversation stands. What a client is granted exists in no phase before it is.
pub(super) enum Phase {
    /// The first request is awaited.
    Greeted(Greeted),
    /// The client was authorized, and its requests are answered.
    Open(Box<Granted>),
    /// Nothing more is taken from the client.
    Closing(Closing),
}

/// One client's conversation after the TLS handshake.
///
/// # Contract
///
/// What happened goes in by `handle_*`; after each of those calls (and after [`Session::new`]) the
/// caller asks by `poll_*` what to do, in this order, until there is nothing more:
///
/// 1. [`Session::poll_disk`]: submit each operation; its completion comes back by
///    [`Session::handle_completion`], now or later. Operations outlive the connection: after
///    [`Session::handle_disconnect`] a session still cleans up. [`Session::poll_database`]: the same for
///    connections to a database, whose outcomes come back by [`Session::handle_database`].
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
    pub(super) authority: Rc<dyn Authority>,
    pub(super) line: Line,
    pub(super) phase: Phase,
    memory: Share,
}

impl Session {
    /// The conversation with `peer`, whose handshake is complete, as `release` holds it. All sessions of a process
    /// get the same `host`.
    pub fn new(
        host: &Rc<Host>,
        peer: Peer,
        release: &'static Release,
        authority: Rc<dyn Authority>,
        limits: Limits,
        now: Instant,
    ) -> Self {
        let maximum = if peer.names.is_some() { CONFIG_MAXIMUM } else { PING_MAXIMUM };
        let mut session = Self {
            authority,
            line: Line::new(Rc::clone(host), release, limits, maximum),
            phase: Phase::Greeted(Greeted::new(peer.names, now + limits.first_request)),
            memory: Share::new(Rc::clone(&host.memory)),
        };
        if release.framing == Framing::Classic {
            session.send_preamble();
        }
        session
    }

    /// Whether bytes from the client can be taken now.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        let is_free = match &self.phase {
            Phase::Greeted(greeted) => greeted.waiting.is_none(),
            Phase::Open(granted) => granted.running.is_none(),
            Phase::Closing(_) => false,
        };
        is_free && self.line.output.has_room()
    }

    /// Takes plaintext from the client; returns how many bytes were taken, 0 when none are wanted.
    pub fn handle_input(&mut self, now: Instant, input: &[u8]) -> usize {
        let mut rest = input;
        // Data that no filter changes goes where room was counted for it when its file was opened.
        let mut is_plain_data = true;
        while self.wants_input() {
            let left = match self.line.framer.next(&mut rest) {
                Ok(Some(piece)) => {
                    is_plain_data &= matches!(piece, Piece::Block(_)) && self.takes_plain_data();
                    self.take_piece(now, piece)
                }
                Ok(None) => {
                    is_plain_data &= self.line.framer.held() <= SMALL;
                    break;
                }
                Err(error) => Err(End::Error(error)),
            };
            match left {
                Ok(left) => {
                    self.line.framer.unread(left as u64);
                    rest = &input[input.len() - rest.len() - left..];
                }
                Err(end) => {
                    is_plain_data = false;
                    self.end(end);
                }
            }
        }
        if is_plain_data {
            debug_assert!(self.check_invariants(), "data of a block leaves a state that makes sense");
        } else {
            self.conclude(Ok(()));
        }
        let taken = input.len() - rest.len();
        if taken > 0 {
            self.postpone(now);
        }
        taken
    }

    /// Whether what comes next is a block's data, and no filter changes them.
    const fn takes_plain_data(&self) -> bool {
        matches!(&self.phase, Phase::Open(granted) if granted.takes_plain_data())
    }

    /// Takes a piece of what the client sends; returns how many bytes of it were not taken.
    fn take_piece(&mut self, now: Instant, piece: Piece<'_>) -> std::result::Result<usize, End> {
        match &mut self.phase {
            Phase::Greeted(_) => self.greet(piece).map(|()| 0),
            Phase::Open(granted) => granted.take_piece(&mut self.line, now, piece),
            Phase::Closing(_) => Ok(0),
        }
    }

    /// The deadline of [`Session::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|deadline| deadline > now) {
            return;
        }
        let Limits { first_request, idle, .. } = self.line.limits;
        match &mut self.phase {
            Phase::Greeted(greeted) => match greeted.drain.clone() {
                Some(error) => self.conclude(Err(End::Error(error))),
                None if greeted.waiting.is_some() => self.fail_waiting(),
                None => self.fail_timeout(first_request),
            },
            Phase::Open(granted) => {
                if !granted.retry() {
                    self.fail_timeout(idle);
                }
            }
            Phase::Closing(closing) => {
                let patience = closing.patience;
                self.fail_timeout(patience);
            }
        }
        // What it is told now it may still take.
        if let Phase::Closing(closing) = &mut self.phase {
            closing.postpone(now);
        }
    }

    /// An operation of [`Session::poll_disk`] has completed.
    pub fn handle_completion(&mut self, now: Instant, operation: u64, completion: Completion) {
        self.line.complete();
        let flow = match &mut self.phase {
            Phase::Open(granted) => granted.complete(&mut self.line, now, operation, completion),
            Phase::Closing(closing) => {
                closing.drop_outcome(&mut self.line, operation, completion);
                Ok(())
            }
            Phase::Greeted(_) => Ok(()),
        };
        self.conclude(flow);
    }

    /// Does one slice of work that only burns CPU.
    pub fn handle_work(&mut self, now: Instant) {
        if let Phase::Open(granted) = &mut self.phase {
            let flow = granted.work(&mut self.line, now);
            self.conclude(flow);
        }
    }

    /// What every transition ends with: the session closes if it came to that, or if it holds too much.
    pub(super) fn conclude(&mut self, flow: std::result::Result<(), End>) {
        if let Err(end) = flow {
            self.end(end);
        }
        if let Err(error) = self.account_memory() {
            self.end(End::Error(error));
            // It holds less now, and is not asked whether that is too much.
            let _ = self.account_memory();
        }
        debug_assert!(self.check_invariants(), "every transition leaves a state that makes sense");
    }

    /// Counts what the client makes the server hold.
    ///
    /// # Errors
    ///
    /// What the client is told if that is too much and the session is not closing anyway.
    fn account_memory(&mut self) -> Result<()> {
        let granted = self.granted().map_or(0, Granted::memory);
        let partial = Some(self.line.framer.held()).filter(|held| *held > SMALL).unwrap_or(0);
        let maximum = self.line.limits.memory;
        if self.memory.set(granted + self.line.output.memory() + partial, maximum) || self.is_closing() {
            return Ok(());
        }
        let message = format!(
            "open files of all clients would take more than {maximum} bytes of memory on the repository host\n\
             HINT: see memory-max in repohostd.conf of the repository host."
        );
        Err(Error::new(Code::Memory, message))
    }

    /// The client, or what is done for it, goes on: it is waited for as long again.
    pub(super) fn postpone(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Greeted(_) => {}
            Phase::Open(granted) => granted.postpone(&self.line, now),
            Phase::Closing(closing) => closing.postpone(now),
        }
    }

    /// The next operation to submit, with the session's number for it.
    pub fn poll_disk(&mut self) -> Option<(u64, Operation)> {
        self.line.take_operation()
    }

    /// The next thing to do with a connection to a database, with the session's number for that.
    pub fn poll_database(&mut self) -> Option<(u64, DatabaseAction)> {
        match &mut self.phase {
            Phase::Greeted(_) => None,
            Phase::Open(granted) => granted.databases.poll(),
            Phase::Closing(closing) => closing.granted.as_mut()?.databases.poll(),
        }
    }

    /// Bytes to send next, empty when there are none. They stay until they are consumed.
    #[must_use]
    pub fn poll_output(&self) -> &[u8] {
        self.line.output.front()
    }

    /// `count` bytes of [`Session::poll_output`] were sent.
    pub fn consume_output(&mut self, now: Instant, count: usize) {
        let sent = self.line.output.consume(count);
        if let Phase::Open(granted) = &mut self.phase {
            granted.resume_output(&self.line);
        }
        // Until its last byte is sent, an answer takes what it took before.
        if let Some(buffer) = sent {
            self.line.give_buffer(buffer);
            self.conclude(Ok(()));
        }
        self.postpone(now);
    }

    /// Whether [`Session::handle_work`] has something to do.
    #[must_use]
    pub fn poll_work(&self) -> bool {
        matches!(&self.phase, Phase::Open(granted) if granted.wants_turn(&self.line))
    }

    /// The next thing that somebody may want in the log.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.line.events.pop_front()
    }

    /// When the session gives its client up, unless it waits for itself, or when it tries again.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let is_sending = !self.line.output.is_empty();
        match &self.phase {
            Phase::Greeted(greeted) => Some(greeted.until),
            Phase::Open(granted) => granted.timeout(is_sending),
            Phase::Closing(closing) => closing.timeout(is_sending),
        }
    }

    /// What is to be done with the connection.
    #[must_use]
    pub const fn state(&self) -> State {
        match &self.phase {
            Phase::Closing(closing) if closing.is_over() && !self.line.awaits_disk() => State::Closed,
            Phase::Closing(_) => State::Closing,
            Phase::Greeted(_) | Phase::Open(_) => State::Open,
        }
    }

    /// What was done so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.line.counters
    }

    /// The stanza of the client's command, once it is authorized.
    pub(crate) fn stanza(&self) -> Option<&str> {
        self.granted()?.settings.stanza.as_deref()
    }

    /// What the client may do, once it is authorized.
    pub(crate) fn role(&self) -> Option<Role> {
        self.granted().map(|granted| granted.guard.measures.role)
    }

    /// Whether it reads or writes files at the moment.
    pub(crate) fn is_transferring(&self) -> bool {
        self.granted().is_some_and(|granted| !granted.streams.is_empty())
    }

    /// Whether a request to a database is under way, which may take long.
    pub(crate) fn awaits_database(&self) -> bool {
        matches!(&self.phase, Phase::Open(granted) if granted.awaits_database())
    }

    /// The locks that this session holds.
    #[must_use]
    pub fn locks(&self) -> &[HeldLock] {
        self.granted().map(|granted| granted.locks.held()).unwrap_or_default()
    }

    /// Whether this session holds locks, or has held some.
    pub(crate) fn has_locked(&self) -> bool {
        self.granted().is_some_and(|granted| granted.locks.were_held())
    }

    /// What the client was granted, if it was.
    fn granted(&self) -> Option<&Granted> {
        match &self.phase {
            Phase::Greeted(_) => None,
            Phase::Open(granted) => Some(granted),
            Phase::Closing(closing) => closing.granted.as_deref(),
        }
    }

    pub(super) const fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing(_))
    }

    /// What must be true after each transition.
    fn check_invariants(&self) -> bool {
        let line = &self.line;
        line.check_invariants()
            && match &self.phase {
                Phase::Greeted(greeted) => greeted.check_invariants() && !line.awaits_disk(),
                Phase::Open(granted) => granted.check_invariants(line),
                Phase::Closing(closing) => closing.check_invariants(line),
            }
    }
}
