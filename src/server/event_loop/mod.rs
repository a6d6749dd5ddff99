//! The event loop: one thread that waits for sockets, disk work and deadlines, and gives every
//! connection its turn.
//!
//! A turn is: wait, note what is ready, let connections advance and hand them their disk
//! completions for a few rounds, and only then look at deadlines; what is ready thus beats the
//! deadline that it would have missed. It accepts nothing, and is [given](EventLoop::admit) its connections. It knows
//! no configuration file: [`EventLoop::replace`] takes over what a reload built.

pub(super) mod accept;
pub(super) mod admission;
pub(super) mod clock;
pub(super) mod keyed;
pub(crate) mod listen;
mod occupant;
pub(super) mod reports;
mod slot;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use mio::net::TcpStream;
use mio::{Events, Poll, Registry, Token};

use crate::disk::Disk;
use crate::observe::log;
use crate::observe::quota::Quotas;
use crate::observe::rate::Rate;
use crate::protocol::error::Error;
use crate::server::client::connection::{Connection, TURN_BYTES};
use crate::server::client::context::{Context, Next, Rates};
use crate::server::client::view::{ClientView, SessionState};
use crate::server::event_loop::admission::Admission;
use crate::server::event_loop::clock::{Clock, Timers};
use crate::server::event_loop::keyed::Keyed;
use crate::server::event_loop::reports::Reports;
use crate::server::event_loop::slot::Slot;
use crate::server::outgoing::{self, Databases};
use crate::server::releases::learner::Learner;
use crate::server::service::Service;
use crate::server::status::document::{FileSystemState, ServerState};
use crate::session::Host;

/// Events taken from the kernel at a time.
const EVENTS: usize = 1024;
/// Bytes read from a socket at a time, four records of TLS.
const READ_BYTES: usize = 64 * 1024;
/// Buffers kept for connections that read more than their session took.
const SPARE_BUFFERS: usize = 16;
/// Rounds in which connections advance before the kernel is asked again.
const ROUNDS: usize = 8;
/// For about so long connections advance before the kernel is asked again: somebody new needs several turns for
/// a handshake, and has to wait for all that transfer files in each.
const TURN: Duration = Duration::from_millis(1);
/// Lines about failed handshakes: so many in this time.
const LOG_RATE: (u32, Duration) = (30, Duration::from_secs(10));

/// How far a deadline may be passed by who always has something to do.
const OVERDUE: Duration = Duration::from_secs(1);
/// How long a session counts as ended a moment ago.
const RECENT: Duration = Duration::from_secs(10);

/// The disk has the tokens from here on, connections and what serves them those below.
const DISK: usize = usize::MAX / 8 * 3;
/// Tokens of the poll from here on belong to others.
pub(super) const OTHERS: usize = usize::MAX / 2;

/// Waits for everything and serves it.
pub(crate) struct EventLoop {
    poll: Poll,
    events: Events,
    clock: Clock,
    timers: Timers,
    admission: Admission,
    service: Service,
    host: Rc<Host>,
    disk: Box<dyn Disk>,
    databases: Databases,
    connections: Keyed<Box<Slot>>,
    queue: VecDeque<u64>,
    /// Stanzas of sessions with locks that ended a moment ago, each once, and when.
    ended: Vec<(Instant, Option<String>)>,
    buffer: Vec<u8>,
    spare: Vec<Vec<u8>>,
    rates: Rates,
    learner: Learner,
    reports: Reports,
}

impl EventLoop {
    /// A loop that serves `service` in sessions of `host` and runs disk work on `disk`.
    ///
    /// # Errors
    ///
    /// What the system says against a poll.
    pub(crate) fn new(service: Service, host: Rc<Host>, mut disk: Box<dyn Disk>) -> io::Result<Self> {
        let poll = Poll::new()?;
        disk.watch(poll.registry().try_clone()?, DISK);
        let databases = Databases::new(poll.registry().try_clone()?);
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            clock: Clock::new(),
            timers: Timers::default(),
            admission: Admission::new(),
            service,
            host,
            disk,
            databases,
            connections: Keyed::new(),
            queue: VecDeque::new(),
            ended: Vec::new(),
            buffer: vec![0; READ_BYTES],
            spare: Vec::with_capacity(SPARE_BUFFERS),
            rates: Rates { handshake: Rate::new(LOG_RATE.0, LOG_RATE.1), clients: Quotas::default() },
            learner: Learner::default(),
            reports: Reports::default(),
        })
    }

    /// Of its poll, for sources whose tokens are not below [`OTHERS`].
    pub(crate) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// What there is to tell the supervisor.
    pub(super) const fn reports(&mut self) -> &mut Reports {
        &mut self.reports
    }

    /// Serves new connections with `service` from now on; its grants also count for clients that are
    /// connected but not authorized yet.
    pub(crate) fn replace(&mut self, service: Service) {
        self.wake(|connection| connection.replace_authority(&service.authority));
        self.learner.adopt(service.policy.table());
        self.service = service;
    }

    /// What counts for clients that are not authorized yet was told: those who wait for that go on.
    pub(super) fn resume_authorization(&mut self) {
        self.wake(Connection::resume_authorization);
    }

    /// Has those connections do what they can for which `change` says that they may do something.
    fn wake(&mut self, mut change: impl FnMut(&mut Connection) -> bool) {
        for slot in self.connections.values_mut() {
            if change(&mut slot.connection) {
                slot.enqueue(&mut self.queue);
            }
        }
    }

    /// What new connections are served with.
    pub(crate) const fn service(&self) -> &Service {
        &self.service
    }

    /// What clients taught about their releases.
    pub(crate) const fn learner(&mut self) -> &mut Learner {
        &mut self.learner
    }

    /// Connections, those included whose client is gone while disk work goes on.
    pub(crate) fn connections(&self) -> usize {
        self.connections.len()
    }

    /// What its sessions share.
    pub(crate) const fn host(&self) -> &Rc<Host> {
        &self.host
    }

    /// The time that deadlines are measured by.
    pub(crate) const fn now(&self) -> Instant {
        self.clock.now()
    }

    /// One turn; waits for `longest` at most when there is nothing to do. What happened to tokens of others is told to
    /// `note`.
    ///
    /// # Errors
    ///
    /// Only when waiting itself fails, which leaves nothing to go on with.
    pub(crate) fn turn(&mut self, longest: Option<Duration>, mut note: impl FnMut(Token)) -> io::Result<()> {
        let wait = self.wait(longest);
        match self.poll.poll(&mut self.events, wait) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            Err(error) => return Err(error),
        }
        self.clock.advance(wait);
        self.host.set_time(SystemTime::now());

        for event in &self.events {
            match event.token() {
                token if token.0 >= OTHERS => note(token),
                Token(token) if token >= DISK => self.disk.ready(token - DISK),
                Token(token) if token >= outgoing::TOKENS => self.databases.note(token - outgoing::TOKENS, event),
                Token(place) => {
                    if let Some(slot) = self.connections.at_mut(place) {
                        slot.connection.ready(event);
                        slot.enqueue(&mut self.queue);
                    }
                }
            }
        }
        self.advance();
        self.expire();
        Ok(())
    }

    /// Ends the connections for which `reason` gives an error. Returns how many there are.
    pub(crate) fn end(&mut self, ending: Ending, mut reason: impl FnMut(&ClientView<'_>) -> Option<Error>) -> usize {
        let now = self.clock.now();
        let mut count = 0;
        for slot in self.connections.values_mut() {
            let connection = &mut slot.connection;
            let Some(error) = reason(&connection.client()) else { continue };
            match ending {
                Ending::Drain => connection.drain(now, error),
                Ending::Abort => connection.abort(now, error),
                Ending::Revoke { at_once } => connection.revoke(now, error, at_once),
            }
            slot.enqueue(&mut self.queue);
            count += 1;
        }
        self.advance();
        count
    }

    /// The stanzas of sessions that hold locks or did so until a moment ago; `None` for sessions of no
    /// stanza.
    pub(crate) fn locked_stanzas(&self) -> Vec<Option<String>> {
        let now = self.clock.now();
        let ended = self.ended.iter().filter(|(at, _)| now.saturating_duration_since(*at) < RECENT);
        let open = self.connections.iter().map(|(_, slot)| &slot.connection).filter(|one| one.has_locked());
        let mut stanzas: Vec<_> = ended.map(|(_, stanza)| stanza.clone()).collect();
        stanzas.extend(open.map(|connection| connection.stanza().map(str::to_owned)));
        stanzas.sort_unstable();
        stanzas.dedup();
        stanzas
    }

    /// What there is to tell of each session.
    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionState> {
        self.connections.iter().filter_map(|(_, slot)| slot.connection.view())
    }

    /// What there is to tell of each file system.
    pub(super) fn file_systems(&self) -> Vec<FileSystemState> {
        self.disk.file_systems().iter().map(FileSystemState::new).collect()
    }

    /// The state of a server that is this process and listens on these addresses.
    pub(super) fn state<'a>(&'a self, addresses: &'a [SocketAddr]) -> ServerState<'a> {
        let (policy, connections, sessions) = (&self.service.policy, self.connections.len(), self.sessions());
        ServerState::new(addresses, policy, &self.learner, connections, vec![], sessions, self.file_systems())
    }

    /// How long the poll may wait.
    fn wait(&self, longest: Option<Duration>) -> Option<Duration> {
        if !self.queue.is_empty() || self.databases.is_busy() {
            return Some(Duration::ZERO);
        }
        let next = self
            .timers
            .next()
            .into_iter()
            .chain(self.databases.deadline())
            .chain(self.rates.clients.deadline())
            .chain(self.reports.deadline())
            .min()
            .map(|at| at.saturating_duration_since(self.clock.now()));
        // By the real time: the loop's own stands still while it is busy.
        let disk = self.disk.deadline().map(|at| at.saturating_duration_since(Instant::now()));
        next.into_iter().chain(longest).chain(disk).min()
    }

    /// Gives up the connection that the supervisor gave by this number, if it is without authorization.
    pub(super) fn evict(&mut self, number: u64) {
        let given = self.connections.values_mut().find(|slot| slot.given.is_some_and(|given| given.number == number));
        if let Some(key) = given.and_then(|slot| evict(slot, self.clock.now())) {
            self.remove(key);
        }
    }

    /// Makes a connection of an accepted socket, or closes it when there are too many. Where the supervisor gave it, by
    /// this number, that is told what becomes of it.
    pub(super) fn admit(&mut self, socket: TcpStream, peer: SocketAddr, number: Option<u64>) {
        let (present, bounds, now) = (self.connections.len(), self.service.bounds, self.clock.now());
        let mut silent = None;
        let connections = &mut self.connections;
        let is_admitted = self.admission.admits(peer, present, bounds, now, |key| {
            silent = connections.get_mut(key).and_then(|slot| evict(slot, now));
            silent.is_some()
        });
        if let Some(key) = silent {
            self.remove(key);
        }
        if !is_admitted {
            return self.reports.closes(number);
        }
        let (place, key) = self.connections.vacancy();
        let registration = (self.poll.registry(), Token(place));
        let Some(connection) = Connection::new(key, socket, peer, registration, &self.service, now) else {
            return self.reports.closes(number);
        };
        let mut slot = Box::new(Slot::new(connection, number));
        slot.arm(&mut self.timers);
        self.connections.insert(slot);
        self.admission.enter(peer, key);
    }

    /// Lets connections advance, with a bound so that the kernel is asked again in between.
    fn advance(&mut self) {
        let begun = Instant::now();
        for _ in 0..ROUNDS {
            self.complete();
            if self.queue.is_empty() {
                return;
            }
            for _ in 0..self.queue.len() {
                if let Some(key) = self.queue.pop_front() {
                    self.advance_one(key, false);
                }
                if begun.elapsed() >= TURN {
                    return self.complete();
                }
            }
        }
        self.complete();
    }

    /// Hands completions of disk work, and what databases answered, to the sessions that asked for it.
    fn complete(&mut self) {
        let now = self.clock.now();
        while let Some((ticket, completion)) = self.disk.complete() {
            // Sessions stay in the table until they have all completions, so this always finds one.
            if let Some(slot) = self.connections.get_mut(ticket.session) {
                slot.connection.complete(now, ticket.operation, completion);
                slot.enqueue(&mut self.queue);
            }
        }
        self.databases.advance(now);
        while let Some(((key, id), outcome)) = self.databases.complete() {
            if let Some(slot) = self.connections.get_mut(key) {
                slot.connection.complete_database(now, id, outcome);
                slot.enqueue(&mut self.queue);
            }
        }
    }

    fn advance_one(&mut self, key: u64, expired: bool) {
        let Some(slot) = self.connections.get_mut(key) else { return };
        let mut cx = Context {
            now: self.clock.now(),
            buffer: &mut self.buffer,
            spare: &mut self.spare,
            disk: &mut *self.disk,
            databases: &mut self.databases,
            service: &self.service,
            host: &self.host,
            learner: &mut self.learner,
            rates: &mut self.rates,
            budget: TURN_BYTES,
            moved: false,
        };
        slot.is_queued = false;
        if expired {
            slot.connection.expire(&mut cx);
        }
        let next = slot.connection.advance(&mut cx);
        slot.report(&mut self.reports, self.clock.now());
        match next {
            Next::Remove => self.remove(key),
            Next::Again => {
                slot.enqueue(&mut self.queue);
                slot.arm(&mut self.timers);
            }
            Next::Wait => slot.arm(&mut self.timers),
        }
    }

    fn remove(&mut self, key: u64) {
        let Some(mut slot) = self.connections.remove(key) else { return };
        self.reports.closes(slot.given.map(|given| given.number));
        slot.disarm(&mut self.timers);
        let connection = &slot.connection;
        connection.log_end(&mut self.rates.clients, self.clock.now());
        self.databases.forget(self.clock.now(), key);
        if connection.has_locked() {
            let (stanza, now) = (connection.stanza().map(str::to_owned), self.clock.now());
            self.ended.retain(|(at, old)| *old != stanza && now.saturating_duration_since(*at) < RECENT);
            self.ended.push((now, stanza));
        }
        self.admission.leave(connection.peer());
        if self.connections.is_empty() {
            self.host.release_buffers();
        }
        let connections = &mut self.connections;
        self.admission.tidy(|key| connections.get_mut(key).is_some_and(|slot| slot.connection.is_unproven()));
    }

    fn expire(&mut self) {
        let now = self.clock.now();
        self.rates.clients.tell(now, |line| log::warn(format_args!("{line}")));
        while let Some((at, key)) = self.timers.expire(now) {
            self.expire_connection(key, at, now);
        }
        self.advance();
    }

    fn expire_connection(&mut self, key: u64, at: Instant, now: Instant) {
        let Some(slot) = self.connections.get_mut(key) else { return };
        if slot.armed != Some(at) {
            return;
        }
        slot.armed = None;
        let overdue = slot.connection.deadline().and_then(|deadline| now.checked_duration_since(deadline));
        match overdue {
            None => slot.arm(&mut self.timers),
            // It has something to do, which may be what the deadline waits for. A moment later the
            // deadline is looked at again; but who always has something to do is not spared forever.
            Some(overdue) if slot.is_queued && overdue <= OVERDUE => {
                slot.arm_at(now + Duration::from_millis(1), &mut self.timers);
            }
            Some(_) => self.advance_one(key, true),
        }
    }
}

/// How connections end when the server wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The request in flight finishes, then the client is told.
    Drain,
    /// The client is told at once; nothing is waited for but the disk.
    Abort,
    /// The client stays, and is told with the answer to whatever it asks for.
    Revoke {
        /// Whether the request in flight and the file in transfer do not finish.
        at_once: bool,
    },
}

/// Gives up a connection that is without authorization, if it is. Returns the key to remove it by.
fn evict(slot: &mut Slot, now: Instant) -> Option<u64> {
    if !slot.connection.is_unproven() {
        return None;
    }
    slot.connection.evict(now);
    Some(slot.connection.key())
}

#[cfg(test)]
pub(super) mod tests;
