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

use std::io::{self, BufRead, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::ServerConnection;

use self::ending::{CLOSING, Departure};
use super::client_hello::{FIRST_BYTES, Hellos};
use super::context::{Context, Next};
use super::corked_write::LastWords;
use super::greeting::Greeting;
use super::record::Record;
use super::view::{ClientView, SessionState};
use crate::config::Role;
use crate::disk::{Completion, Ticket};
use crate::observe::log::Level;
use crate::observe::quota::Quotas;
use crate::protocol::error::Error;
use crate::server::service::{Authorities, Service};
use crate::server::tls::{Reasons, identity};
use crate::session::{DatabaseOutcome, Peer, Session, State};

/// Bytes that a connection may move before the others have their turn.
const TURN_BYTES: usize = 256 * 1024;
/// What a session that makes no transfer may move in all.
const SMALL_BYTES: u64 = 64 * 1024;
/// Plaintext and records that rustls holds for a client that does not read; what is sent at once. A quarter of it
/// costs a twelfth more processor time for a large file, mostly because the client is woken more often.
const TLS_BUFFER: usize = 256 * 1024;
/// `read_tls` takes 4 KiB at a time; this many make up a record.
const READS_PER_RECORD: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Handshake,
    Open,
    Closing,
    Lingering,
    Gone,
}

/// How far the session took what the client sent.
enum Taken {
    /// All of it, and it waits for more.
    All,
    /// Not all, or it wants no more for now.
    Enough,
    /// All of it, and nothing will follow.
    Ended(Departure),
}

/// One client's connection.
#[allow(clippy::struct_excessive_bools, reason = "each says something else of socket or loop; `stage` is the state")]
pub(crate) struct Connection {
    key: u64,
    socket: Option<TcpStream>,
    tls: ServerConnection,
    /// Why its handshake may fail.
    reasons: Reasons,
    session: Option<Session>,
    stage: Stage,
    record: Record,
    names: Option<Vec<String>>,
    /// The server is about to end: what the session, once there is one, is to tell its client.
    draining: Option<Error>,
    /// There from the end of the handshake on.
    greeting: Option<Greeting>,
    /// When the present stage has to be over; the session has its own deadlines while `Open`.
    deadline: Instant,
    readable: bool,
    writable: bool,
    /// The poll has said that the client has ended its side, or that the connection broke.
    ending: bool,
    /// All that the client sent before it ended its side has been read.
    ended: bool,
    /// Our last word, `close_notify` or an alert, is said.
    said_goodbye: bool,
    /// Something was sent, received or taken since this was last looked at.
    moved: bool,
    /// Records that were read from the socket and that the session had no room for, from
    /// `unread_at` on.
    unread: Vec<u8>,
    unread_at: usize,
    first: [u8; FIRST_BYTES],
    first_length: usize,
    hellos: Hellos,
    swallowed: usize,
    /// For the loop: its number, whether others know that it is authorized, whether it is in the queue, and which
    /// deadline is set.
    pub(crate) number: u64,
    pub(crate) told: bool,
    pub(crate) queued: bool,
    pub(crate) armed: Option<Instant>,
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
        let mut tls = match ServerConnection::new(Arc::clone(&service.tls.config)) {
            Ok(tls) => tls,
            Err(error) => {
                record.refuse(Level::Warn, &error.to_string(), "");
                return None;
            }
        };
        tls.set_buffer_limit(Some(TLS_BUFFER));
        // Edge-triggered, so both are asked for once and cost nothing when nobody wants them.
        if let Err(error) = registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE) {
            record.refuse(Level::Warn, &error.to_string(), "");
            return None;
        }
        Some(Self {
            key,
            socket: Some(socket),
            tls,
            reasons: service.tls.reasons.clone(),
            session: None,
            stage: Stage::Handshake,
            record,
            names: None,
            draining: None,
            greeting: None,
            deadline: now + service.handshake,
            readable: false,
            writable: true,
            ending: false,
            ended: false,
            said_goodbye: false,
            moved: false,
            unread: Vec::new(),
            unread_at: 0,
            first: [0; FIRST_BYTES],
            first_length: 0,
            hellos: Hellos::default(),
            swallowed: 0,
            number: 0,
            told: false,
            queued: false,
            armed: None,
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
        self.session.as_ref().is_some_and(|session| {
            let counters = session.counters();
            session.is_transferring() && counters.read + counters.written > SMALL_BYTES
        })
    }

    /// New grants, for a client that has not been authorized yet. Returns whether it waits for some.
    pub(crate) fn replace_authority(&mut self, authority: &Rc<dyn Authorities>) -> bool {
        match (&mut self.session, &self.greeting) {
            (Some(session), Some(greeting)) => {
                session.replace_authority(Rc::clone(authority).speaking(greeting.release()))
            }
            _ => false,
        }
    }

    /// What counts for clients that are not authorized yet was told. Returns whether it has waited for that.
    pub(crate) fn resume_authorization(&mut self) -> bool {
        self.session.as_mut().is_some_and(Session::handle_authority)
    }

    /// Whether its session holds locks, or has held some.
    pub(crate) fn has_locked(&self) -> bool {
        self.session.as_ref().is_some_and(Session::has_locked)
    }

    /// What decides whether it may stay.
    pub(crate) fn client(&self) -> ClientView<'_> {
        ClientView {
            names: self.names.as_deref(),
            certificates: self.tls.peer_certificates().unwrap_or_default(),
            age: self.record.age(),
            stanza: self.stanza(),
            role: self.session.as_ref().and_then(Session::role).unwrap_or(Role::Reader),
            authorized: self.record.is_opened(),
            locks: self.session.as_ref().map(Session::locks).unwrap_or_default(),
        }
    }

    /// The stanza of its session.
    pub(crate) fn stanza(&self) -> Option<&str> {
        self.session.as_ref().and_then(Session::stanza)
    }

    /// What is shown of it, once it has a session.
    pub(crate) fn view(&self) -> Option<SessionState> {
        let (session, greeting) = (self.session.as_ref()?, self.greeting.as_ref()?);
        Some(self.record.view(greeting.release().version, session.counters()))
    }

    /// Takes over what the poll said.
    pub(crate) fn ready(&mut self, event: &Event) {
        // An error is found out by reading or writing.
        let broken = event.is_error();
        self.ending |= broken || event.is_read_closed();
        self.readable |= event.is_readable() || self.ending;
        self.writable |= broken || event.is_writable() || event.is_write_closed();
    }

    /// When to call [`Connection::expire`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let session = || self.session.as_ref().and_then(Session::poll_timeout);
        match self.stage {
            Stage::Handshake | Stage::Closing | Stage::Lingering => Some(self.deadline),
            Stage::Open => session(),
            // A session without its client waits for the disk alone.
            Stage::Gone => None,
        }
    }

    /// An operation of the session has completed.
    pub(crate) fn complete(&mut self, now: Instant, operation: u64, completion: Completion) {
        if let Some(session) = &mut self.session {
            session.handle_completion(now, operation, completion);
        }
    }

    /// What became of a request of the session to a database.
    pub(crate) fn complete_database(&mut self, now: Instant, id: u64, outcome: DatabaseOutcome) {
        if let Some(session) = &mut self.session {
            session.handle_database(now, id, outcome);
        }
    }

    /// Does what can be done now, within bounds.
    pub(crate) fn advance(&mut self, cx: &mut Context<'_>) -> Next {
        let mut budget = TURN_BYTES;
        if let Some(session) = self.session.as_mut().filter(|session| session.poll_work()) {
            session.handle_work(cx.now);
        }
        loop {
            self.settle(cx);
            self.moved = false;
            self.send(cx, &mut budget);
            self.receive(cx, &mut budget);
            if !self.moved {
                break;
            }
            if budget == 0 {
                return self.next(true);
            }
        }
        self.settle(cx);
        self.next(false)
    }

    /// Logs the end, if there was a session.
    pub(crate) fn log_end(&self, quotas: &mut Quotas, now: Instant) {
        if let Some(session) = &self.session {
            self.record.close(session.counters(), quotas, now);
        }
    }

    fn next(&self, unfinished: bool) -> Next {
        let work = self.session.as_ref().is_some_and(Session::poll_work);
        match self.stage {
            Stage::Gone if self.session.as_ref().is_none_or(|session| session.state() == State::Closed) => Next::Remove,
            Stage::Gone if !work => Next::Wait,
            _ if unfinished || work => Next::Again,
            _ => Next::Wait,
        }
    }

    /// Does what the session asks for, except sending and receiving.
    fn settle(&mut self, cx: &mut Context<'_>) {
        let Some(session) = &mut self.session else { return };
        if let Some(greeting) = &mut self.greeting {
            greeting.answered(session.counters().requests, cx);
        }
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
            self.begin_closing(cx.now);
        }
    }

    /// Sends until the socket is full, the budget is spent or nothing is left.
    fn send(&mut self, cx: &mut Context<'_>, budget: &mut usize) {
        if self.stage == Stage::Lingering {
            return;
        }
        let Some(mut socket) = self.socket.take() else { return };
        let lost = loop {
            self.encrypt(cx.now);
            if !self.tls.wants_write() || !self.writable || *budget == 0 {
                break None;
            }
            // The last words travel with the end that follows them, which spares both sides a segment.
            let written = if self.said_goodbye {
                self.tls.write_tls(&mut LastWords(&socket))
            } else {
                self.tls.write_tls(&mut socket)
            };
            match written {
                Ok(0) => break Some("the connection takes no more bytes".to_owned()),
                Ok(count) => {
                    *budget = budget.saturating_sub(count);
                    self.moved = true;
                    if self.stage == Stage::Closing {
                        self.deadline = cx.now + CLOSING;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(error.to_string()),
            }
        };
        self.socket = Some(socket);
        if let Some(reason) = lost {
            self.lose(cx, &reason);
        } else if self.stage == Stage::Closing && self.said_goodbye && !self.tls.wants_write() {
            self.begin_lingering(cx.now);
        }
    }

    /// Moves what the session wants to send into TLS, as far as that has room, and our goodbye after
    /// the last of it.
    fn encrypt(&mut self, now: Instant) {
        if let Some(session) = &mut self.session {
            loop {
                let output = session.poll_output();
                if output.is_empty() {
                    break;
                }
                match self.tls.writer().write(output) {
                    Ok(count) if count > 0 => session.consume_output(now, count),
                    _ => return,
                }
                self.moved = true;
            }
        }
        if self.stage == Stage::Closing && !std::mem::replace(&mut self.said_goodbye, true) {
            self.tls.send_close_notify();
        }
    }

    /// Receives until the socket is empty, the budget is spent or the session wants no more.
    fn receive(&mut self, cx: &mut Context<'_>, budget: &mut usize) {
        if self.ending && self.session.as_ref().is_some_and(Session::awaits_database) {
            // Its answer may be hours away, and is for nobody.
            return self.lose(cx, "the client closed the connection while its statement was under way");
        }
        if !self.unread.is_empty() {
            self.take_unread(cx);
        }
        while *budget > 0 && self.unread.is_empty() {
            if self.stage == Stage::Open {
                match self.deliver(cx) {
                    Taken::Enough if self.stage == Stage::Open => return,
                    Taken::All | Taken::Enough => {}
                    Taken::Ended(departure) => return self.hang_up(cx, &departure),
                }
            }
            // Delivering may have ended the session.
            let Some(socket) = self.socket.as_mut().filter(|_| self.readable && !self.ended) else { return };
            let mut buffer = std::mem::take(cx.buffer);
            match socket.read(&mut buffer) {
                Ok(0) => self.end_of_input(cx),
                Ok(count) => {
                    *budget = budget.saturating_sub(count);
                    self.moved = true;
                    // Less than there is room for was all, and the poll tells of more; but not once more of an
                    // end that it has told of together with these bytes.
                    self.readable = count == buffer.len() || self.ending;
                    let left = self.feed(cx, &buffer[..count]);
                    if left > 0 {
                        self.unread = cx.spare.pop().unwrap_or_default();
                        self.unread.clear();
                        self.unread.extend_from_slice(&buffer[count - left..count]);
                        self.unread_at = 0;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
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
        if self.first_length < FIRST_BYTES {
            let count = input.len().min(FIRST_BYTES - self.first_length);
            self.first[self.first_length..][..count].copy_from_slice(&input[..count]);
            self.first_length += count;
        }
        if self.stage == Stage::Handshake && !self.hellos.are_over() {
            let bytes = self.hellos.take(input);
            return self.decrypt(cx, &bytes).min(input.len());
        }
        self.decrypt(cx, input)
    }

    /// Decrypts `input` and hands it to the session as far as that takes it. Returns how many bytes
    /// are left.
    fn decrypt(&mut self, cx: &mut Context<'_>, mut input: &[u8]) -> usize {
        let mut stuck = false;
        while !input.is_empty() {
            match self.stage {
                Stage::Handshake => {}
                Stage::Open => match self.deliver(cx) {
                    Taken::All => {}
                    // It may have ended the session, and then the rest is nobody's.
                    Taken::Enough if self.stage == Stage::Open => return input.len(),
                    Taken::Enough => continue,
                    Taken::Ended(departure) => self.hang_up(cx, &departure),
                },
                Stage::Closing | Stage::Lingering => {
                    self.listen(cx, input);
                    self.swallow(cx.now, input.len());
                    return 0;
                }
                Stage::Gone => return 0,
            }
            let before = input.len();
            for _ in 0..READS_PER_RECORD {
                // An error says that a record has to be taken out first; zero, that the client has
                // announced the end and what follows means nothing.
                match self.tls.read_tls(&mut input) {
                    Ok(0) if !input.is_empty() => input = &[],
                    Ok(_) if !input.is_empty() => {}
                    _ => break,
                }
            }
            if let Err(error) = self.tls.process_new_packets() {
                self.fail_tls(cx, &error);
                return 0;
            }
            if self.stage == Stage::Handshake && !self.tls.is_handshaking() {
                self.open(cx);
            }
            if before == input.len() && std::mem::replace(&mut stuck, true) {
                self.lose(cx, "TLS makes no progress");
            }
        }
        0
    }

    /// Hands decrypted bytes to the session.
    fn deliver(&mut self, cx: &mut Context<'_>) -> Taken {
        loop {
            let Some(session) = &mut self.session else { return Taken::Enough };
            let chunk = match self.tls.reader().into_first_chunk() {
                Ok([]) => return Taken::Ended(Departure::Announced),
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Taken::Ended(Departure::Silent);
                }
                Err(_) if session.wants_input() => return Taken::All,
                Err(_) => return Taken::Enough,
            };
            if !session.wants_input() {
                return Taken::Enough;
            }
            let count = session.handle_input(cx.now, chunk);
            // Input that is not taken may have ended the session.
            self.settle(cx);
            if count == 0 {
                return Taken::Enough;
            }
            if let Some(greeting) = &mut self.greeting {
                greeting.hear();
            }
            self.tls.reader().consume(count);
            self.moved = true;
        }
    }

    /// The handshake is complete: finds out who the client is and begins its session.
    fn open(&mut self, cx: &mut Context<'_>) {
        let names = match identity(&self.tls) {
            Ok(identity) => identity.map(|identity| {
                self.record.set_client(identity.title);
                identity.names
            }),
            Err(error) => {
                self.refuse_handshake(cx, &error.to_string());
                return self.begin_closing(cx.now);
            }
        };
        self.names.clone_from(&names);
        let service = cx.service;
        let local = || self.socket.as_ref().and_then(|socket| socket.local_addr().ok());
        let wanted = self.tls.server_name();
        let greeting = Greeting::choose((names.as_deref(), wanted), (self.peer(), local), service, cx.learner);
        let release = greeting.release();
        let authority = Rc::clone(&service.authority).speaking(release);
        self.record.set_release(release.version);
        self.greeting = Some(greeting);
        let mut session = Session::new(cx.host, Peer { names }, release, authority, service.limits, cx.now);
        if let Some(error) = self.draining.take() {
            session.handle_drain(cx.now, error);
        }
        self.session = Some(session);
        self.stage = Stage::Open;
    }
}
