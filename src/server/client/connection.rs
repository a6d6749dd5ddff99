//! One client's connection: a socket, TLS on it, and a session on that.
//!
//! Owns the life of a connection from `accept` to the last byte. What is said on it is the
//! session's business, when it gets its turn the event loop's. Stages:
//!
//! ```text
//! Handshake ──→ Open ──→ Closing ──→ Lingering ──→ Gone
//!     └───────────┴─────────┴────────────────────────↗
//! ```
//!
//! - `Closing` sends what is left, `close_notify` or the alert of a failed handshake included.
//! - `Lingering` has shut down the sending side and swallows what the client still sends, since
//!   closing a socket with unread bytes resets it and takes our last words with it.
//! - `Gone` has no socket; the session may still have disk work to clean up.
//!
//! Every stage has a deadline. All reading goes through one buffer of the loop, so that an idle
//! connection holds little more than its TLS state.

mod ending;

use std::fmt::Display;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::context::{Context, Next};
use super::greeting::Greeting;
use super::record::Record;
use super::tls_channel::{Departure, Plaintext, TlsChannel};
use super::view::{ClientView, SessionState};
use crate::config::Role;
use crate::disk::{Completion, Ticket};
use crate::observe::log::Level;
use crate::observe::quota::Quotas;
use crate::protocol::error::Error;
use crate::server::service::Service;
use crate::server::tls::Reasons;
use crate::session::{Authority, DatabaseOutcome, Peer, Session, State};

/// Bytes that a connection may move before the others have their turn.
pub(crate) const TURN_BYTES: usize = 256 * 1024;
/// What a client gets to take our last bytes, counted from the last byte that it took.
const CLOSING: Duration = Duration::from_secs(10);
/// What a session that makes no transfer may move in all.
const SMALL_BYTES: u64 = 64 * 1024;

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Handshake {
        until: Instant,
        /// The server is about to end: what the session, once there is one, is to tell its client.
        draining: Option<Error>,
    },
    /// The session has its own deadlines.
    Open,
    Closing(Parting),
    Lingering(Parting),
    Gone,
}

/// A connection whose session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parting {
    until: Instant,
    /// Bytes that came since, and that nobody wants.
    swallowed: usize,
}

/// What is known of the client's side of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// Nothing can be read before the poll tells of it.
    Quiet,
    Readable,
    /// The client has ended its side, or the connection broke; what came before is still to be read.
    Ending,
    /// All of that has been read.
    Ended,
}

/// How far the session took what the client sent.
enum Consumed {
    /// All of it, and it waits for more.
    All,
    /// Not all, or it wants no more for now.
    Blocked,
    /// All of it, and nothing will follow.
    Ended(Departure),
}

/// What a connection has from the end of its handshake on.
struct Served {
    names: Option<Vec<String>>,
    greeting: Greeting,
    session: Session,
}

pub(crate) struct Connection {
    key: u64,
    /// Until it is gone.
    socket: Option<TcpStream>,
    /// Why its handshake may fail.
    reasons: Reasons,
    input: Input,
    writable: bool,
    tls: TlsChannel,
    /// Records that were read from the socket and that the session had no room for, from
    /// `unread_at` on.
    unread: Vec<u8>,
    unread_at: usize,
    stage: Stage,
    served: Option<Served>,
    record: Record,
}

impl Connection {
    /// Takes over an accepted socket. `None` when TLS or the poll does not take it, which is logged.
    pub(crate) fn new(
        key: u64,
        mut socket: TcpStream,
        peer: SocketAddr,
        (registry, token): (&Registry, Token),
        service: &Service,
        now: Instant,
    ) -> Option<Self> {
        let mut record = Record::new(peer);
        let mut refuse = |error: &dyn Display| record.refuse(Level::Warn, &error.to_string(), "");
        let tls = TlsChannel::new(&service.tls.config).map_err(|error| refuse(&error)).ok()?;
        // Edge-triggered, so both are asked for once and cost nothing when nobody wants them.
        let registered = registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE);
        registered.map_err(|error| refuse(&error)).ok()?;
        Some(Self {
            key,
            socket: Some(socket),
            reasons: service.tls.reasons.clone(),
            input: Input::Quiet,
            writable: true,
            tls,
            unread: Vec::new(),
            unread_at: 0,
            stage: Stage::Handshake { until: now + service.handshake, draining: None },
            served: None,
            record,
        })
    }

    pub(crate) const fn key(&self) -> u64 {
        self.key
    }

    pub(crate) const fn peer(&self) -> SocketAddr {
        self.record.peer()
    }

    /// Whether the client has not been authorized (yet), so that it may have to make room for others.
    pub(crate) fn is_unproven(&self) -> bool {
        self.stage != Stage::Gone && !self.record.is_opened()
    }

    /// The name in the client's certificate; nothing where it has none.
    pub(crate) fn client_name(&self) -> &str {
        self.record.client()
    }

    /// Whether its session reads or writes files, and not only the small ones that every command has.
    pub(crate) fn is_transferring(&self) -> bool {
        self.session().is_some_and(|session| {
            let counters = session.counters();
            session.is_transferring() && counters.read + counters.written > SMALL_BYTES
        })
    }

    /// New grants, for a client that has not been authorized yet. Returns whether it waits for some.
    pub(crate) fn replace_authority(&mut self, authority: &Rc<dyn Authority>) -> bool {
        let Some(Served { session, .. }) = &mut self.served else { return false };
        let has_waited = session.replace_authority(Rc::clone(authority));
        self.conclude();
        has_waited
    }

    /// What counts for clients that are not authorized yet was told. Returns whether it has waited for that.
    pub(crate) fn resume_authorization(&mut self) -> bool {
        let has_waited = self.served.as_mut().is_some_and(|served| served.session.handle_authority());
        self.conclude();
        has_waited
    }

    /// Whether its session holds locks, or has held some.
    pub(crate) fn has_locked(&self) -> bool {
        self.session().is_some_and(Session::has_locked)
    }

    /// What decides whether it may stay.
    pub(crate) fn client(&self) -> ClientView<'_> {
        ClientView {
            names: self.served.as_ref().and_then(|served| served.names.as_deref()),
            certificates: self.tls.certificates(),
            age: self.record.age(),
            stanza: self.stanza(),
            role: self.session().and_then(Session::role).unwrap_or(Role::Reader),
            authorized: self.record.is_opened(),
            locks: self.session().map(Session::locks).unwrap_or_default(),
        }
    }

    pub(crate) fn stanza(&self) -> Option<&str> {
        self.session().and_then(Session::stanza)
    }

    fn session(&self) -> Option<&Session> {
        self.served.as_ref().map(|served| &served.session)
    }

    /// What is shown of it, once it has a session.
    pub(crate) fn view(&self) -> Option<SessionState> {
        let Served { session, greeting, .. } = self.served.as_ref()?;
        Some(self.record.view(greeting.release().version, session.counters()))
    }

    /// Takes over what the poll said.
    pub(crate) fn ready(&mut self, event: &Event) {
        // An error is found out by reading or writing.
        let broken = event.is_error();
        self.writable |= broken || event.is_writable() || event.is_write_closed();
        if self.input != Input::Ended && (broken || event.is_read_closed()) {
            self.input = Input::Ending;
        } else if self.input == Input::Quiet && event.is_readable() {
            self.input = Input::Readable;
        }
    }

    /// When to call [`Connection::expire`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Handshake { until, .. }
            | Stage::Closing(Parting { until, .. })
            | Stage::Lingering(Parting { until, .. }) => Some(until),
            Stage::Open => self.session().and_then(Session::poll_timeout),
            // A session without its client waits for the disk alone.
            Stage::Gone => None,
        }
    }

    /// An operation of the session has completed.
    pub(crate) fn complete(&mut self, now: Instant, operation: u64, completion: Completion) {
        if let Some(served) = &mut self.served {
            served.session.handle_completion(now, operation, completion);
        }
        self.conclude();
    }

    /// What became of a request of the session to a database.
    pub(crate) fn complete_database(&mut self, now: Instant, id: u64, outcome: DatabaseOutcome) {
        if let Some(served) = &mut self.served {
            served.session.handle_database(now, id, outcome);
        }
        self.conclude();
    }

    /// Does what can be done now, within bounds.
    pub(crate) fn advance(&mut self, cx: &mut Context<'_>) -> Next {
        let is_busy = |served: &&mut Served| served.session.poll_work();
        if let Some(served) = self.served.as_mut().filter(is_busy) {
            served.session.handle_work(cx.now);
        }
        let is_unfinished = loop {
            self.forward_effects(cx);
            cx.moved = false;
            self.send(cx);
            self.receive(cx);
            if !cx.moved || cx.budget == 0 {
                break cx.moved;
            }
        };
        self.forward_effects(cx);
        self.conclude();
        self.next(is_unfinished)
    }

    /// Logs the end, if there was a session.
    pub(crate) fn log_end(&self, quotas: &mut Quotas, now: Instant) {
        if let Some(session) = self.session() {
            self.record.close(session.counters(), quotas, now);
        }
    }

    fn next(&self, is_unfinished: bool) -> Next {
        let work = self.session().is_some_and(Session::poll_work);
        match self.stage {
            Stage::Gone if self.session().is_none_or(|session| session.state() == State::Closed) => Next::Remove,
            Stage::Gone if !work => Next::Wait,
            _ if is_unfinished || work => Next::Again,
            _ => Next::Wait,
        }
    }

    /// What every transition ends with.
    fn conclude(&self) {
        debug_assert!(self.check_invariants(), "every transition leaves a state that makes sense: {:?}", self.stage);
    }

    /// What must always be true.
    fn check_invariants(&self) -> bool {
        let fits_stage = match self.stage {
            Stage::Handshake { .. } => self.served.is_none() && !self.tls.is_finished(),
            Stage::Open => self.served.is_some() && !self.tls.is_finished(),
            Stage::Closing(_) => true,
            // A second end of the client's side would not be told.
            Stage::Lingering(_) => self.input != Input::Ended,
            Stage::Gone => self.session().is_none_or(|session| session.state() != State::Open),
        };
        fits_stage
            && self.socket.is_none() == (self.stage == Stage::Gone)
            && (self.unread.is_empty() || self.stage == Stage::Open)
    }

    /// Does what the session asks for, except sending and receiving.
    fn forward_effects(&mut self, cx: &mut Context<'_>) {
        let Some(Served { session, greeting, .. }) = &mut self.served else { return };
        greeting.answered(session.counters().requests, cx);
        while let Some((operation, work)) = session.poll_disk() {
            cx.disk.submit(Ticket { session: self.key, operation }, work);
        }
        while let Some((id, action)) = session.poll_database() {
            cx.databases.submit(cx.now, (self.key, id), action);
        }
        while let Some(event) = session.poll_event() {
            self.record.event(event, &mut cx.rates.clients, cx.now);
        }
        if self.stage == Stage::Open && session.state() != State::Open {
            self.begin_closing(cx);
        }
    }

    /// Sends until the socket is full, the budget is spent or nothing is left.
    fn send(&mut self, cx: &mut Context<'_>) {
        if matches!(self.stage, Stage::Lingering(_)) {
            return;
        }
        loop {
            self.encrypt(cx);
            let Some(socket) = self.socket.as_ref().filter(|_| self.tls.wants_flush()) else { break };
            if !self.writable || cx.budget == 0 {
                return;
            }
            match self.tls.flush(socket) {
                Ok(0) => return self.lose(cx, "the connection takes no more bytes"),
                Ok(count) => {
                    cx.budget = cx.budget.saturating_sub(count);
                    cx.moved = true;
                    if let Stage::Closing(parting) = &mut self.stage {
                        parting.until = cx.now + CLOSING;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.lose(cx, &error.to_string()),
            }
        }
        if let Stage::Closing(parting) = self.stage
            && self.tls.is_finished()
        {
            self.begin_lingering(cx.now, parting.swallowed);
        }
    }

    /// Moves what the session wants to send into TLS, as far as that has room, and our goodbye after
    /// the last of it.
    fn encrypt(&mut self, cx: &mut Context<'_>) {
        while let Some(Served { session, .. }) = &mut self.served
            && !session.poll_output().is_empty()
        {
            let count = self.tls.encrypt(session.poll_output());
            if count == 0 {
                return;
            }
            session.consume_output(cx.now, count);
            cx.moved = true;
        }
        if matches!(self.stage, Stage::Closing(_)) {
            self.tls.finish();
        }
    }

    /// Receives until the socket is empty, the budget is spent or the session wants no more.
    fn receive(&mut self, cx: &mut Context<'_>) {
        let is_left = matches!(self.input, Input::Ending | Input::Ended);
        if is_left && self.session().is_some_and(Session::awaits_database) {
            // Its answer may be hours away, and is for nobody.
            return self.lose(cx, "the client closed the connection while its statement was under way");
        }
        if !self.unread.is_empty() {
            self.take_unread(cx);
        }
        while cx.budget > 0 && self.unread.is_empty() {
            if self.stage == Stage::Open {
                match self.deliver(cx) {
                    Consumed::Blocked if self.stage == Stage::Open => return,
                    Consumed::All | Consumed::Blocked => {}
                    Consumed::Ended(departure) => return self.hang_up(cx, &departure),
                }
            }
            // Delivering may have ended the session.
            let is_readable = matches!(self.input, Input::Readable | Input::Ending);
            let Some(socket) = self.socket.as_mut().filter(|_| is_readable) else { return };
            let mut buffer = std::mem::take(cx.buffer);
            match socket.read(&mut buffer) {
                Ok(0) => self.end_of_input(cx),
                Ok(count) => {
                    cx.budget = cx.budget.saturating_sub(count);
                    cx.moved = true;
                    // Less than there is room for was all, and the poll tells of more; but not once more of an
                    // end that it has told of together with these bytes.
                    if count < buffer.len() && self.input == Input::Readable {
                        self.input = Input::Quiet;
                    }
                    let left = self.feed(cx, &buffer[..count]);
                    if left > 0 {
                        self.unread = cx.spare.pop().unwrap_or_default();
                        self.unread.clear();
                        self.unread.extend_from_slice(&buffer[count - left..count]);
                        self.unread_at = 0;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.input = Input::Quiet,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.hang_up(cx, &Departure::Broken(error.to_string())),
            }
            *cx.buffer = buffer;
        }
    }

    /// Goes on with what was read before.
    fn take_unread(&mut self, cx: &mut Context<'_>) {
        let unread = std::mem::take(&mut self.unread);
        let left = self.feed(cx, &unread[self.unread_at..]);
        if left > 0 {
            self.unread_at = unread.len() - left;
            self.unread = unread;
        } else if cx.spare.len() < cx.spare.capacity() {
            cx.spare.push(unread);
        }
    }

    /// Takes what came from the socket. Returns how many bytes are left.
    fn feed(&mut self, cx: &mut Context<'_>, input: &[u8]) -> usize {
        match self.tls.inspect(input) {
            Some(hellos) => self.decrypt(cx, &hellos).min(input.len()),
            None => self.decrypt(cx, input),
        }
    }

    /// Decrypts `input` and hands it to the session as far as that takes it. Returns how many bytes
    /// are left.
    fn decrypt(&mut self, cx: &mut Context<'_>, mut input: &[u8]) -> usize {
        let mut stuck = false;
        while !input.is_empty() {
            match self.stage {
                Stage::Handshake { .. } => {}
                Stage::Open => match self.deliver(cx) {
                    Consumed::All => {}
                    // It may have ended the session, and then the rest is nobody's.
                    Consumed::Blocked if self.stage == Stage::Open => return input.len(),
                    Consumed::Blocked => continue,
                    Consumed::Ended(departure) => self.hang_up(cx, &departure),
                },
                Stage::Closing(_) | Stage::Lingering(_) => {
                    self.listen(cx, input);
                    self.swallow(cx.now, input.len());
                    return 0;
                }
                Stage::Gone => return 0,
            }
            let before = input.len();
            if let Err(error) = self.tls.feed(&mut input) {
                self.fail_tls(cx, &error);
                return 0;
            }
            if matches!(self.stage, Stage::Handshake { .. }) && !self.tls.is_handshaking() {
                self.open(cx);
            }
            if before == input.len() && std::mem::replace(&mut stuck, true) {
                self.lose(cx, "TLS makes no progress");
            }
        }
        0
    }

    /// Hands decrypted bytes to the session.
    fn deliver(&mut self, cx: &mut Context<'_>) -> Consumed {
        loop {
            let Some(Served { session, greeting, .. }) = &mut self.served else { return Consumed::Blocked };
            let chunk = match self.tls.plaintext() {
                Plaintext::Bytes(chunk) => chunk,
                Plaintext::Nothing if session.wants_input() => return Consumed::All,
                Plaintext::Nothing => return Consumed::Blocked,
                Plaintext::Ended(departure) => return Consumed::Ended(departure),
            };
            if !session.wants_input() {
                return Consumed::Blocked;
            }
            let count = session.handle_input(cx.now, chunk);
            if count > 0 {
                greeting.hear();
                self.tls.consume(count);
                cx.moved = true;
            }
            // Input that is not taken may have ended the session.
            self.forward_effects(cx);
            if count == 0 {
                return Consumed::Blocked;
            }
        }
    }

    /// The handshake is complete: finds out who the client is and begins its session.
    fn open(&mut self, cx: &mut Context<'_>) {
        let names = match self.tls.identity() {
            Ok(identity) => identity.map(|identity| {
                self.record.set_client(identity.title);
                identity.names
            }),
            Err(error) => {
                self.refuse_handshake(cx, &error.to_string());
                return self.begin_closing(cx);
            }
        };
        let service = cx.service;
        let local = || self.socket.as_ref().and_then(|socket| socket.local_addr().ok());
        let wanted = self.tls.server_name();
        let greeting = Greeting::choose((names.as_deref(), wanted), (self.peer(), local), service, cx.learner);
        let release = greeting.release();
        self.record.set_release(release.version);
        let peer = Peer { names: names.clone() };
        let authority = Rc::clone(&service.authority);
        let mut session = Session::new(cx.host, peer, release, authority, service.limits, cx.now);
        let handshake = std::mem::replace(&mut self.stage, Stage::Open);
        if let Stage::Handshake { draining: Some(error), .. } = handshake {
            session.handle_drain(cx.now, error);
        }
        self.served = Some(Served { names, greeting, session });
    }
}
