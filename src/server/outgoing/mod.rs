//! Connections of sessions to databases: their sockets, and who is at the other end.
//!
//! What is said on them is [`Client`]'s business. Nothing here waits: a unix socket whose other side has
//! too many who wait for it already is tried again after a moment.
//!
//! A client names socket, port, user and database, but it may reach no other cluster than the one whose
//! directory the administrator gave to its stanza. So whoever listens has to be the owner of that
//! directory, before a password is sent, and the database has to say that this is its directory, before
//! any statement of the client is.

mod own_user;
mod socket;
mod system;

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mio::event::Event as PollEvent;
use mio::{Registry, Token};
use slab::Slab;

use self::own_user::OwnUser;
use self::socket::{Socket, errno};
use self::system::{Machine, is_same_directory, owner};
use crate::disk::passwd;
use crate::postgres::{Action, Address, Client, Event, Finished, First, Plan, Settings};
use crate::protocol::carried::Carried;
use crate::protocol::errno::describe_errno;
use crate::session::{DatabaseAction, DatabaseOutcome};

/// Tokens of the poll from here on belong to connections, two for each.
pub(super) const TOKENS: usize = usize::MAX / 4;
/// Connections at a time. A backup has one or two; a database has a hundred for all by default.
const CONNECTIONS_MAXIMUM: usize = 64;
/// Bytes read at a time, and how often before others have their turn.
const READ_BYTES: usize = 16 * 1024;
const READS: usize = 16;
/// The token of the program that knows who we are; a number that no connection has.
const OWN_USER: usize = 2 * CONNECTIONS_MAXIMUM;
/// How soon a socket with too many who wait for it is tried again.
const AGAIN: Duration = Duration::from_millis(50);
/// Which directory a cluster is in. The same statement turns off the timeouts that end a connection which waits for a
/// client that reads files: a backup is longer than any of them. It names only those that the server knows, which differ
/// between releases, and a first message that names another one would be the end of it. What the administrator says in
/// `PGOPTIONS` is left alone.
const FIRST_STATEMENT: &str = "select (select setting from pg_catalog.pg_settings where name = 'data_directory'), \
     pg_catalog.count(pg_catalog.set_config(name, '0', false)) from pg_catalog.pg_settings where name in \
     ('idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout') and setting <> '0' \
     and source <> 'client'";

/// Who asked: the connection of the client and its session's number.
pub(super) type Ticket = (u64, u64);

pub(super) struct Databases {
    entries: Slab<Entry>,
    /// Those that have something to do.
    ready: Vec<usize>,
    outcomes: VecDeque<(Ticket, DatabaseOutcome)>,
    registry: Registry,
    own_user: OwnUser,
    /// What is opened once it is known.
    waiting: Vec<Wanted>,
}

/// A connection that is to be made.
struct Wanted {
    ticket: Ticket,
    settings: Settings,
    cluster: PathBuf,
    timeout: Duration,
}

struct Entry {
    ticket: Ticket,
    client: Client,
    cluster: PathBuf,
    address: String,
    timeout: Duration,
    stage: Stage,
    main: Line,
    cancel: Line,
    /// What the second socket sends.
    request: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing has been said to the session.
    Opening,
    /// The database was asked for its directory.
    Verifying,
    /// Statements of the client are sent.
    Ready,
    /// The session does not want it any more.
    Unwanted,
}

/// A socket and what is known of it.
#[derive(Default)]
struct Line {
    socket: Option<Socket>,
    connected: bool,
    readable: bool,
    writable: bool,
    /// Where and when to try again.
    again: Option<(Address, Instant)>,
}

impl Line {
    fn close(&mut self) {
        *self = Self::default();
    }

    /// Begins to connect.
    fn connect(&mut self, address: Address, now: Instant, registry: &Registry, token: Token) -> Result<(), i32> {
        self.close();
        match Socket::connect(&address) {
            Ok(socket) => {
                socket.register(registry, token).map_err(|error| errno(&error))?;
                self.socket = Some(socket);
                self.writable = true;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.again = Some((address, now + AGAIN));
                Ok(())
            }
            Err(error) => Err(errno(&error)),
        }
    }

    /// Finds out whether it is connected; true once.
    fn becomes_connected(&mut self) -> Result<bool, i32> {
        let Some(socket) = self.socket.as_ref().filter(|_| !self.connected && self.writable) else { return Ok(false) };
        self.connected = socket.is_connected()?;
        // The poll tells when to look again.
        self.writable = self.connected;
        Ok(self.connected)
    }
}

impl Databases {
    /// No connections yet; they will be watched by `registry`.
    pub(super) fn new(registry: Registry) -> Self {
        Self {
            entries: Slab::new(),
            ready: vec![],
            outcomes: VecDeque::new(),
            registry,
            own_user: OwnUser::new("getent"),
            waiting: vec![],
        }
    }

    /// Does what a session asks.
    pub(super) fn submit(&mut self, now: Instant, ticket: Ticket, action: DatabaseAction) {
        if let DatabaseAction::Open { settings, data_directory, timeout } = action {
            return self.open(now, Wanted { ticket, settings, cluster: data_directory, timeout });
        }
        self.waiting.retain(|wanted| wanted.ticket != ticket);
        let found = self.entries.iter_mut().find(|(_, entry)| entry.ticket == ticket && entry.stage != Stage::Unwanted);
        let Some((index, entry)) = found else { return };
        if let DatabaseAction::Query { statement, timeout } = action {
            entry.client.query(now, statement, timeout);
        } else {
            entry.leave(now);
        }
        wake(&mut self.ready, index);
    }

    /// Closes what the connection of a client has left.
    pub(super) fn forget(&mut self, now: Instant, key: u64) {
        self.waiting.retain(|wanted| wanted.ticket.0 != key);
        for (index, entry) in &mut self.entries {
            if entry.ticket.0 == key && entry.stage != Stage::Unwanted {
                entry.leave(now);
                wake(&mut self.ready, index);
            }
        }
    }

    /// Takes over what the poll said.
    pub(super) fn note(&mut self, token: usize, event: &PollEvent) {
        let Some(entry) = self.entries.get_mut(token / 2) else { return };
        let line = if token.is_multiple_of(2) { &mut entry.main } else { &mut entry.cancel };
        let broken = event.is_error();
        line.readable |= broken || event.is_readable() || event.is_read_closed();
        line.writable |= broken || event.is_writable() || event.is_write_closed();
        wake(&mut self.ready, token / 2);
    }

    /// What became of what was asked for.
    pub(super) fn complete(&mut self) -> Option<(Ticket, DatabaseOutcome)> {
        self.outcomes.pop_front()
    }

    /// When to call [`Databases::advance`] though nothing has happened.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.entries.iter().filter_map(|(_, entry)| entry.deadline()).chain(self.own_user.deadline()).min()
    }

    /// Whether there is something to do at once.
    pub(super) fn is_busy(&self) -> bool {
        !self.ready.is_empty() || !self.outcomes.is_empty()
    }

    /// Does what can be done now, within bounds.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.own_user.advance(now) {
            for wanted in std::mem::take(&mut self.waiting) {
                self.connect(now, wanted, true);
            }
        }
        if self.entries.is_empty() {
            return;
        }
        for (index, entry) in &self.entries {
            if entry.deadline().is_some_and(|deadline| deadline <= now) {
                wake(&mut self.ready, index);
            }
        }
        for index in std::mem::take(&mut self.ready) {
            let Some(entry) = self.entries.get_mut(index) else { continue };
            let more = entry.advance(now, &self.registry, index, &mut self.outcomes);
            if entry.is_over() {
                self.entries.remove(index);
            } else if more {
                wake(&mut self.ready, index);
            }
        }
    }

    fn open(&mut self, now: Instant, wanted: Wanted) {
        if self.entries.len() + self.waiting.len() >= CONNECTIONS_MAXIMUM {
            let reason = format!("{CONNECTIONS_MAXIMUM} connections of this server to databases are open already");
            return self.outcomes.push_back((wanted.ticket, DatabaseOutcome::Refused(reason)));
        }
        self.connect(now, wanted, false);
    }

    /// Begins to connect, unless our own user is needed for that and nobody has been asked for it.
    fn connect(&mut self, now: Instant, wanted: Wanted, was_asked: bool) {
        // Who has no such program, or one that does not answer, is whom the file says.
        let from_file = if was_asked { passwd::user(rustix::process::geteuid().as_raw()) } else { None };
        let machine = Machine::new(self.own_user.known().or(from_file.as_ref()));
        let plan = Plan::new(&wanted.settings, &machine);
        let is_missing = machine.needs_own_user() && self.own_user.known().is_none();
        if is_missing && !was_asked {
            if self.own_user.ask(now, &self.registry, Token(TOKENS + OWN_USER)) {
                return self.waiting.push(wanted);
            }
            return self.connect(now, wanted, true);
        }
        let Wanted { ticket, cluster, timeout, .. } = wanted;
        let plan = match plan {
            Ok(plan) => plan,
            Err(reason) => return self.outcomes.push_back((ticket, DatabaseOutcome::Refused(reason))),
        };
        self.outcomes.extend(plan.notices.iter().cloned().map(|notice| (ticket, DatabaseOutcome::Noticed(notice))));
        let index = self.entries.insert(Entry {
            ticket,
            client: Client::new(plan, timeout, now),
            cluster,
            address: String::new(),
            timeout,
            stage: Stage::Opening,
            main: Line::default(),
            cancel: Line::default(),
            request: vec![],
        });
        wake(&mut self.ready, index);
    }
}

/// Has a connection do what it can, soon.
fn wake(ready: &mut Vec<usize>, index: usize) {
    if !ready.contains(&index) {
        ready.push(index);
    }
}

impl Entry {
    fn leave(&mut self, now: Instant) {
        self.stage = Stage::Unwanted;
        self.client.leave(now);
    }

    fn is_over(&self) -> bool {
        self.stage == Stage::Unwanted && self.client.is_over()
    }

    fn deadline(&self) -> Option<Instant> {
        let again = [&self.main.again, &self.cancel.again].into_iter().flatten().map(|(_, at)| *at);
        again.chain(self.client.poll_timeout()).min()
    }

    /// Does what can be done; whether there is more of that.
    fn advance(
        &mut self,
        now: Instant,
        registry: &Registry,
        index: usize,
        outcomes: &mut VecDeque<(Ticket, DatabaseOutcome)>,
    ) -> bool {
        let tokens = [Token(TOKENS + index * 2), Token(TOKENS + index * 2 + 1)];
        self.client.handle_timeout(now);
        if let Some((address, _)) = self.main.again.take_if(|(_, at)| *at <= now) {
            self.connect(address, now, registry, tokens[0]);
        }
        if let Some((address, _)) = self.cancel.again.take_if(|(_, at)| *at <= now) {
            self.begin_cancel(address, now, registry, tokens[1]);
        }
        let mut more = self.receive(now);
        loop {
            while let Some(action) = self.client.poll_action() {
                match action {
                    Action::Connect(address) => self.connect(address, now, registry, tokens[0]),
                    Action::Cancel(address, request) => {
                        self.request = request;
                        self.begin_cancel(address, now, registry, tokens[1]);
                    }
                    Action::Close => {
                        self.send();
                        self.main.close();
                        self.cancel.close();
                    }
                }
            }
            match self.main.becomes_connected() {
                Ok(true) => self.admit(now, outcomes),
                Ok(false) => {}
                Err(errno) => self.client.handle_connect_failure(now, errno),
            }
            self.send();
            self.cancel(now);
            let Some(event) = self.client.poll_event() else { return more && self.main.socket.is_some() };
            self.conclude(now, event, outcomes);
            more = true;
        }
    }

    fn connect(&mut self, address: Address, now: Instant, registry: &Registry, token: Token) {
        self.address = address.to_string();
        if let Err(errno) = self.main.connect(address, now, registry, token) {
            self.client.handle_connect_failure(now, errno);
        }
    }

    /// The socket is connected. Goes on if the right one listens there.
    fn admit(&mut self, now: Instant, outcomes: &mut VecDeque<(Ticket, DatabaseOutcome)>) {
        const ROOT: u32 = 0;
        let peer = self.main.socket.as_ref().and_then(Socket::peer);
        match (peer, owner(&self.cluster)) {
            (Some(peer), Some(owner)) if peer != owner && peer != ROOT => {
                let reason = format!(
                    "{} is user {peer}'s, but cluster '{}' is user {owner}'s",
                    self.address,
                    self.cluster.display()
                );
                self.refuse(now, reason, outcomes);
            }
            _ => self.client.handle_connected(),
        }
    }

    fn refuse(&mut self, now: Instant, reason: String, outcomes: &mut VecDeque<(Ticket, DatabaseOutcome)>) {
        self.leave(now);
        outcomes.push_back((self.ticket, DatabaseOutcome::Refused(reason)));
    }

    fn send(&mut self) {
        let Some(socket) = self.main.socket.as_mut().filter(|_| self.main.connected) else { return };
        while self.main.writable && !self.client.poll_output().is_empty() {
            match socket.write(self.client.poll_output()) {
                Ok(count) if count > 0 => self.client.consume_output(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.main.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Why it is broken is found out by reading.
                _ => self.client.consume_output(usize::MAX),
            }
        }
    }

    /// Reads what the client wants; whether there may be more.
    fn receive(&mut self, now: Instant) -> bool {
        let mut buffer = [0; READ_BYTES];
        for _ in 0..READS {
            let line = &mut self.main;
            let is_wanted = line.connected && line.readable && self.client.wants_input();
            let Some(socket) = line.socket.as_mut().filter(|_| is_wanted) else { return false };
            match socket.read(&mut buffer) {
                Ok(0) => self.client.handle_end(None),
                Ok(count) => self.client.handle_input(now, buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => line.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.client.handle_end(Some(errno(&error))),
            }
        }
        true
    }

    fn begin_cancel(&mut self, address: Address, now: Instant, registry: &Registry, token: Token) {
        if let Err(errno) = self.cancel.connect(address, now, registry, token) {
            self.end_cancel(now, Err(errno));
        }
    }

    fn end_cancel(&mut self, now: Instant, result: Result<(), i32>) {
        self.cancel.close();
        let result = result.map_err(|errno| format!("PQcancel() -- connect() failed: {}", describe_errno(errno)));
        self.client.handle_cancelled(now, result);
    }

    /// Sends a cancellation and waits for the end of that connection, which says that it was taken note of.
    fn cancel(&mut self, now: Instant) {
        let result = match self.cancel.becomes_connected() {
            Ok(_) => None,
            Err(errno) => Some(Err(errno)),
        };
        let line = &mut self.cancel;
        let result = result.or_else(|| {
            let socket = line.socket.as_mut().filter(|_| line.connected)?;
            if !self.request.is_empty() {
                match socket.write(&std::mem::take(&mut self.request)) {
                    // A fresh socket has room for so few bytes.
                    Ok(_) => {}
                    Err(error) => return Some(Err(errno(&error))),
                }
            }
            match socket.read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                // Some systems reset the connection instead of ending it; the message has arrived by then.
                _ => Some(Ok(())),
            }
        });
        if let Some(result) = result {
            self.end_cancel(now, result);
        }
    }

    fn conclude(&mut self, now: Instant, event: Event, outcomes: &mut VecDeque<(Ticket, DatabaseOutcome)>) {
        match (self.stage, event) {
            (Stage::Unwanted, _) => {}
            (Stage::Opening, Event::Connected) => {
                self.stage = Stage::Verifying;
                self.client.query(now, FIRST_STATEMENT.to_owned(), self.timeout);
            }
            (Stage::Verifying, Event::Finished(finished)) => match verify(&self.cluster, finished) {
                Ok(()) => {
                    self.stage = Stage::Ready;
                    outcomes.push_back((self.ticket, DatabaseOutcome::Opened));
                }
                Err(reason) => self.refuse(now, reason, outcomes),
            },
            (_, Event::Finished(finished)) => {
                outcomes.push_back((self.ticket, DatabaseOutcome::Finished(finished)));
            }
            (_, Event::Refused(reason)) => self.refuse(now, reason, outcomes),
            (_, Event::Lost(reason)) => {
                let text = format!("the database ended the connection on {}: {reason}", self.address);
                outcomes.push_back((self.ticket, DatabaseOutcome::Noticed(text)));
            }
            (_, Event::Connected) => {}
        }
    }
}

/// Whether a database is that of `cluster`, as it says itself.
fn verify(cluster: &Path, finished: Finished) -> Result<(), String> {
    let shown = cluster.display();
    match finished {
        Finished::Answered { first: First::Rows(rows), further: None } => match rows.fields().next().flatten() {
            Some(directory) if is_same_directory(cluster, Path::new(OsStr::from_bytes(directory))) => Ok(()),
            Some(directory) => Err(format!(
                "the server there is that of cluster '{}' and not of '{shown}'\n\
                     HINT: check pg1-path, pg1-port and pg1-socket-path.",
                Carried(directory)
            )),
            None => Err(format!(
                "the server there does not say whether it is that of cluster '{shown}'\n\
                     HINT: is the backup running as the postgres user?\n\
                     HINT: is the pg_read_all_settings role assigned for PostgreSQL >= 10?"
            )),
        },
        Finished::Answered { further: Some(text), .. }
        | Finished::Answered { first: First::Error(text), .. }
        | Finished::NotSent(text) => Err(text.trim().to_owned()),
        _ => Err(format!("the server there does not say whether it is that of cluster '{shown}'")),
    }
}

#[cfg(test)]
mod tests;
