//! The event loop: one thread that waits for sockets, disk work and deadlines, and gives every
//! connection its turn.
//!
//! A turn is: wait, note what is ready, accept, let connections advance and hand them their disk
//! completions for a few rounds, and only then look at deadlines; what is ready thus beats the
//! deadline that it would have missed. It knows no configuration file: [`EventLoop::replace`] takes
//! over what a reload built.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use rustls_pki_types::CertificateDer;
use slab::Slab;

use super::clock::{Clock, Timer, Timers};
use super::connection::{Connection, Service};
use super::databases::{self, Databases};
use super::listen::Listener;
use super::releases::learner::Learner;
use super::signals::{Meaning, Signals};
use super::status::{self, Status, StatusSocket, View};
use super::turn::{Context, Next};
use crate::config::Role;
use crate::disk::{Disk, HeldLock};
use crate::observe::log;
use crate::observe::rate::{Rate, more};
use crate::protocol::error::Error;
use crate::session;

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
/// Connections accepted before the others have their turn.
const ACCEPTS: usize = 64;
/// How long nothing is accepted after an error, first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Lines about failed handshakes, refused connections and failed accepts: so many in this time.
const LOG_RATE: (u32, Duration) = (30, Duration::from_secs(10));

/// How far a deadline may be passed by who always has something to do.
const OVERDUE: Duration = Duration::from_secs(1);
/// How long a session counts as ended a moment ago.
const RECENT: Duration = Duration::from_secs(10);

const SIGNAL: Token = Token(usize::MAX);
/// Listeners have the tokens from here on, connections those below.
const LISTENERS: usize = usize::MAX / 2;
/// The disk has the tokens from here on.
const DISK: usize = usize::MAX / 8 * 7;

/// Waits for everything and serves it.
pub struct EventLoop {
    poll: Poll,
    events: Events,
    clock: Clock,
    timers: Timers,
    signals: Option<Signals>,
    listeners: Slab<Listener>,
    /// Listeners that may have connections to accept, by their place.
    acceptable: Vec<usize>,
    /// When accepting resumes, and the pause after the next failure.
    paused: Option<Instant>,
    back_off: Duration,
    service: Service,
    disk: Box<dyn Disk>,
    databases: Databases,
    connections: Slab<Box<Connection>>,
    per_address: HashMap<IpAddr, usize>,
    /// Connections in the order of their arrival, for as long as they may be without authorization.
    arrivals: VecDeque<u64>,
    generation: u32,
    queue: VecDeque<u64>,
    /// Stanzas of sessions with locks that ended a moment ago, each once, and when.
    ended: Vec<(Instant, Option<String>)>,
    buffer: Vec<u8>,
    spare: Vec<Vec<u8>>,
    rates: Rates,
    learner: Learner,
    status: Status,
}

/// Bounds of what many clients may write to the log.
pub(super) struct Rates {
    pub(super) handshake: Rate,
    pub(super) alternation: Rate,
    refusal: Rate,
    accept: Rate,
}

/// What a turn brought that is not a client's.
#[derive(Debug, Default)]
pub struct Turn {
    /// Signals that came.
    pub signals: Vec<Meaning>,
    /// The service manager's watchdog wants to be fed.
    pub watchdog: bool,
}

impl EventLoop {
    /// A loop that serves `service` and runs disk work on `disk`. It listens nowhere yet.
    ///
    /// # Errors
    ///
    /// What the system says against a poll.
    pub fn new(service: Service, mut disk: Box<dyn Disk>) -> io::Result<Self> {
        let poll = Poll::new()?;
        disk.watch(poll.registry().try_clone()?, DISK);
        let databases = Databases::new(poll.registry().try_clone()?);
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            clock: Clock::new(),
            timers: Timers::default(),
            signals: None,
            listeners: Slab::new(),
            acceptable: Vec::new(),
            paused: None,
            back_off: BACK_OFF.0,
            service,
            disk,
            databases,
            connections: Slab::new(),
            per_address: HashMap::new(),
            arrivals: VecDeque::new(),
            generation: 0,
            queue: VecDeque::new(),
            ended: Vec::new(),
            buffer: vec![0; READ_BYTES],
            spare: Vec::with_capacity(SPARE_BUFFERS),
            rates: Rates {
                handshake: Rate::new(LOG_RATE.0, LOG_RATE.1),
                alternation: Rate::new(3, Duration::from_secs(600)),
                refusal: Rate::new(LOG_RATE.0, LOG_RATE.1),
                accept: Rate::new(1, LOG_RATE.1),
            },
            learner: Learner::default(),
            status: Status::default(),
        })
    }

    /// Reports signals from now on.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn watch(&mut self, signals: Signals) -> io::Result<()> {
        signals.register(self.poll.registry(), SIGNAL)?;
        self.signals = Some(signals);
        Ok(())
    }

    /// Asks for [`Turn::watchdog`] in `period`.
    pub fn arm_watchdog(&mut self, period: Duration) {
        self.timers.set(self.clock.now() + period, Timer::Watchdog);
    }

    /// Serves new connections with `service` from now on; its grants also count for clients that are
    /// connected but not authorized yet.
    pub fn replace(&mut self, service: Service) {
        for (_, connection) in &mut self.connections {
            connection.replace_authority(&service.authority);
        }
        self.learner.adopt(service.policy.table());
        self.service = service;
    }

    /// What new connections are served with.
    #[must_use]
    pub const fn service(&self) -> &Service {
        &self.service
    }

    /// What clients taught about their releases.
    pub const fn learner(&mut self) -> &mut Learner {
        &mut self.learner
    }

    /// Answers questions about the state on this socket from now on, or on none.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn answer_on(&mut self, socket: Option<StatusSocket>) -> io::Result<()> {
        self.status.replace(socket, self.poll.registry())
    }

    /// Where questions about the state are answered.
    #[must_use]
    pub const fn status_socket(&self) -> Option<&StatusSocket> {
        self.status.socket()
    }

    /// Takes the listeners out, so that those that are still wanted can be put back by
    /// [`EventLoop::listen`]. None of them is closed or misses a connection.
    pub fn take_listeners(&mut self) -> Vec<Listener> {
        self.acceptable.clear();
        let mut listeners: Vec<_> = self.listeners.drain().collect();
        for listener in &mut listeners {
            // A socket that the poll does not know is what is wanted.
            let _ = self.poll.registry().deregister(&mut listener.socket);
        }
        listeners
    }

    /// Accepts connections of these listeners too.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn listen(&mut self, listeners: Vec<Listener>) -> io::Result<()> {
        for mut listener in listeners {
            let entry = self.listeners.vacant_entry();
            let token = Token(LISTENERS + entry.key());
            self.poll.registry().register(&mut listener.socket, token, Interest::READABLE)?;
            // Registering reports what waits already, so nothing has to be marked here.
            entry.insert(listener);
        }
        Ok(())
    }

    /// Where connections are accepted, as the system numbers it.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|(_, listener)| listener.socket.local_addr().ok()).collect()
    }

    /// Connections, those included whose client is gone while disk work goes on.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// The time that deadlines are measured by.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.clock.now()
    }

    /// One turn; waits for `longest` at most when there is nothing to do.
    ///
    /// # Errors
    ///
    /// Only when waiting itself fails, which leaves nothing to go on with.
    pub fn turn(&mut self, longest: Option<Duration>) -> io::Result<Turn> {
        let mut turn = Turn::default();
        let wait = self.wait(longest);
        match self.poll.poll(&mut self.events, wait) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            Err(error) => return Err(error),
        }
        self.clock.advance(wait);

        let mut signalled = false;
        for event in &self.events {
            match event.token() {
                SIGNAL => signalled = true,
                Token(token) if token >= DISK => self.disk.ready(token - DISK),
                Token(token) if token >= status::TOKENS => self.status.note(),
                Token(token) if token >= LISTENERS => note(&mut self.acceptable, token - LISTENERS),
                Token(token) if token >= databases::TOKENS => self.databases.note(token - databases::TOKENS, event),
                Token(slot) => wake(&mut self.connections, &mut self.queue, slot, event),
            }
        }
        if let Some(signals) = self.signals.as_mut().filter(|_| signalled) {
            turn.signals = signals.pending();
        }
        self.accept();
        self.advance();
        self.answer();
        self.expire(&mut turn);
        Ok(turn)
    }

    /// Ends the connections for which `reason` gives an error. Returns how many there are.
    pub fn end(&mut self, ending: Ending, mut reason: impl FnMut(&ClientView<'_>) -> Option<Error>) -> usize {
        let now = self.clock.now();
        let mut count = 0;
        for (_, connection) in &mut self.connections {
            let Some(error) = reason(&connection.client()) else { continue };
            match ending {
                Ending::Drain => connection.drain(now, error),
                Ending::Abort => connection.abort(now, error),
            }
            enqueue(&mut self.queue, connection);
            count += 1;
        }
        self.advance();
        count
    }

    /// The stanzas of sessions that hold locks or did so until a moment ago; `None` for sessions of no
    /// stanza.
    #[must_use]
    pub fn locked_stanzas(&self) -> Vec<Option<String>> {
        let now = self.clock.now();
        let ended = self.ended.iter().filter(|(at, _)| now.saturating_duration_since(*at) < RECENT);
        let open = self.connections.iter().map(|(_, connection)| connection).filter(|one| one.has_locked());
        let mut stanzas: Vec<_> = ended.map(|(_, stanza)| stanza.clone()).collect();
        stanzas.extend(open.map(|connection| connection.stanza().map(str::to_owned)));
        stanzas.sort_unstable();
        stanzas.dedup();
        stanzas
    }

    /// Answers those who ask about the state.
    fn answer(&mut self) {
        if !self.status.is_idle() {
            let addresses = self.addresses();
            let view = View {
                addresses: &addresses,
                policy: &self.service.policy,
                learner: &self.learner,
                connections: self.connections.len(),
                sessions: &|each| self.connections.iter().filter_map(|(_, one)| one.view()).for_each(each),
            };
            self.status.advance(self.clock.now(), self.poll.registry(), &view);
        }
    }

    /// How long the poll may wait.
    fn wait(&self, longest: Option<Duration>) -> Option<Duration> {
        let busy = !self.queue.is_empty()
            || (!self.acceptable.is_empty() && self.paused.is_none())
            || self.databases.is_busy();
        if busy {
            return Some(Duration::ZERO);
        }
        let next = self
            .timers
            .next()
            .into_iter()
            .chain(self.status.deadline())
            .chain(self.databases.deadline())
            .min()
            .map(|at| at.saturating_duration_since(self.clock.now()));
        match (next, longest) {
            (Some(next), Some(longest)) => Some(next.min(longest)),
            (next, longest) => next.or(longest),
        }
    }

    fn accept(&mut self) {
        if self.paused.is_some() {
            return;
        }
        let mut left = ACCEPTS;
        while let Some(&index) = self.acceptable.last() {
            let Some(listener) = self.listeners.get(index) else {
                self.acceptable.pop();
                continue;
            };
            if left == 0 {
                return;
            }
            left -= 1;
            match listener.socket.accept() {
                Ok((socket, peer)) => {
                    self.back_off = BACK_OFF.0;
                    self.admit(socket, peer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.acceptable.pop();
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => return self.pause(&error),
            }
        }
    }

    /// Accepts nothing for a while after an error that will not go away by itself at once.
    fn pause(&mut self, error: &io::Error) {
        if let Some(held_back) = self.rates.accept.pass(self.clock.now()) {
            let errno = error.raw_os_error().unwrap_or(0);
            let error = Error::system(crate::protocol::error::Code::FileOpen, "unable to accept socket", errno);
            log::warn(format_args!("{}; connections wait{}", error.message, more(held_back)));
        }
        let until = self.clock.now() + self.back_off;
        self.back_off = (self.back_off * 2).min(BACK_OFF.1);
        self.paused = Some(until);
        self.timers.set(until, Timer::Accept);
    }

    /// Makes a connection of an accepted socket, or closes it when there are too many.
    fn admit(&mut self, socket: mio::net::TcpStream, peer: SocketAddr) {
        let site = site(peer.ip());
        let from_there = self.per_address.get(&site).copied().unwrap_or(0);
        if from_there >= self.service.connections_per_address {
            return self.refuse(peer, "connection-max-per-address", self.service.connections_per_address);
        }
        if self.connections.len() >= self.service.connections && !self.make_room() {
            return self.refuse(peer, "connection-max", self.service.connections);
        }
        let entry = self.connections.vacant_entry();
        let slot = entry.key();
        self.generation = self.generation.wrapping_add(1);
        let key = key(self.generation, slot);
        let registration = (self.poll.registry(), Token(slot));
        let Some(connection) = Connection::new(key, socket, peer, registration, &self.service, self.clock.now()) else {
            return;
        };
        let connection = entry.insert(Box::new(connection));
        arm(&mut self.timers, connection);
        self.arrivals.push_back(key);
        *self.per_address.entry(site).or_default() += 1;
    }

    /// Gives up the connection that is without authorization for the longest time: in the handshake,
    /// or after it without a certificate or a word. Those who are silent must not keep others out.
    fn make_room(&mut self) -> bool {
        while let Some(key) = self.arrivals.pop_front() {
            let now = self.clock.now();
            if let Some(connection) = find(&mut self.connections, key).filter(|connection| connection.is_unproven()) {
                connection.evict(now);
                self.remove(key);
                return true;
            }
        }
        false
    }

    fn refuse(&mut self, peer: SocketAddr, option: &str, limit: usize) {
        if let Some(held_back) = self.rates.refusal.pass(self.clock.now()) {
            log::warn(format_args!(
                "client at {peer}: connection refused: {option}={limit} is reached{}",
                more(held_back)
            ));
        }
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
            if let Some(connection) = find(&mut self.connections, ticket.session) {
                connection.complete(now, ticket.operation, completion);
                enqueue(&mut self.queue, connection);
            }
        }
        self.databases.advance(now);
        while let Some(((key, id), outcome)) = self.databases.complete() {
            if let Some(connection) = find(&mut self.connections, key) {
                connection.complete_database(now, id, outcome);
                enqueue(&mut self.queue, connection);
            }
        }
    }

    fn advance_one(&mut self, key: u64, expired: bool) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        let mut cx = Context {
            now: self.clock.now(),
            buffer: &mut self.buffer,
            spare: &mut self.spare,
            disk: &mut *self.disk,
            databases: &mut self.databases,
            service: &self.service,
            learner: &mut self.learner,
            rates: &mut self.rates,
        };
        connection.queued = false;
        if expired {
            connection.expire(&mut cx);
        }
        match connection.advance(&mut cx) {
            Next::Remove => self.remove(key),
            Next::Again => {
                enqueue(&mut self.queue, connection);
                arm(&mut self.timers, connection);
            }
            Next::Wait => arm(&mut self.timers, connection),
        }
    }

    fn remove(&mut self, key: u64) {
        let Some(connection) = self.connections.try_remove(slot(key)) else { return };
        debug_assert_eq!(connection.key(), key, "keys are found before they are removed");
        connection.log_end();
        self.databases.forget(self.clock.now(), key);
        if connection.has_locked() {
            self.remember(connection.stanza().map(str::to_owned));
        }
        if let Some(at) = connection.armed {
            self.timers.cancel(at, Timer::Connection(key));
        }
        let site = site(connection.peer().ip());
        if let Some(count) = self.per_address.get_mut(&site) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&site);
            }
        }
        if self.connections.is_empty() {
            session::release_buffers();
        }
        // Those that left from the front are forgotten; the others when their turn comes.
        while self
            .arrivals
            .front()
            .is_some_and(|&key| find(&mut self.connections, key).is_none_or(|connection| !connection.is_unproven()))
        {
            self.arrivals.pop_front();
        }
    }

    fn remember(&mut self, stanza: Option<String>) {
        let now = self.clock.now();
        self.ended.retain(|(at, old)| *old != stanza && now.saturating_duration_since(*at) < RECENT);
        self.ended.push((now, stanza));
    }

    fn expire(&mut self, turn: &mut Turn) {
        let now = self.clock.now();
        while let Some((at, timer)) = self.timers.expire(now) {
            match timer {
                Timer::Accept => self.paused = None,
                Timer::Watchdog => turn.watchdog = true,
                Timer::Connection(key) => self.expire_connection(key, at, now),
            }
        }
        self.advance();
    }

    fn expire_connection(&mut self, key: u64, at: Instant, now: Instant) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        if connection.armed != Some(at) {
            return;
        }
        connection.armed = None;
        // Deadlines move on with every request, timers only when they are looked at.
        let overdue = connection.deadline().and_then(|deadline| now.checked_duration_since(deadline));
        let due = overdue.is_some();
        // Somebody who always has something to do is not spared forever.
        if overdue.is_some_and(|overdue| !connection.queued || overdue > OVERDUE) {
            self.advance_one(key, true);
        } else if due {
            // It has something to do, which may be what the deadline waits for. A moment later the
            // deadline is looked at again.
            let again = now + Duration::from_millis(1);
            connection.armed = Some(again);
            self.timers.set(again, timer_of(key));
        } else {
            arm(&mut self.timers, connection);
        }
    }
}

/// How connections end when the server wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The request in flight finishes, then the client is told.
    Drain,
    /// The client is told at once; nothing is waited for but the disk.
    Abort,
}

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

const fn timer_of(key: u64) -> Timer {
    Timer::Connection(key)
}

/// Sets the timer if the deadline is sooner than what is set; a later one is found out in time.
fn arm(timers: &mut Timers, connection: &mut Connection) {
    let Some(deadline) = connection.deadline() else { return };
    match connection.armed {
        Some(at) if at <= deadline => return,
        Some(at) => timers.cancel(at, timer_of(connection.key())),
        None => {}
    }
    connection.armed = Some(deadline);
    timers.set(deadline, timer_of(connection.key()));
}

fn enqueue(queue: &mut VecDeque<u64>, connection: &mut Connection) {
    if !std::mem::replace(&mut connection.queued, true) {
        queue.push_back(connection.key());
    }
}

fn wake(connections: &mut Slab<Box<Connection>>, queue: &mut VecDeque<u64>, slot: usize, event: &Event) {
    if let Some(connection) = connections.get_mut(slot) {
        connection.ready(event);
        enqueue(queue, connection);
    }
}

fn note(list: &mut Vec<usize>, index: usize) {
    if !list.contains(&index) {
        list.push(index);
    }
}

/// A connection's number: its slot, and a generation so that the number comes back only when nobody
/// remembers it.
fn key(generation: u32, slot: usize) -> u64 {
    u64::from(generation) << 32 | u64::from(u32::try_from(slot).unwrap_or(u32::MAX))
}

fn slot(key: u64) -> usize {
    usize::try_from(key & u64::from(u32::MAX)).unwrap_or(usize::MAX)
}

fn find(connections: &mut Slab<Box<Connection>>, key: u64) -> Option<&mut Connection> {
    connections.get_mut(slot(key)).map(|connection| &mut **connection).filter(|connection| connection.key() == key)
}

/// What counts as one address: an IPv6 host has as many as it likes in its own network.
fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

/// Errors of `accept` that are about the connection and not about us; Linux reports pending network
/// errors there too.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::INTR
                | Errno::CONNABORTED
                | Errno::PROTO
                | Errno::PERM
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NOPROTOOPT
                | Errno::OPNOTSUPP
                | Errno::NONET
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_slot_and_differs_by_its_generation() {
        assert_eq!(slot(key(7, 42)), 42);
        assert_ne!(key(7, 42), key(8, 42));
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(site(address("2001:db8::1")), site(address("2001:db8::ffff")));
        assert_ne!(site(address("2001:db8::1")), site(address("2001:db8:0:1::1")));
        assert_ne!(site(address("192.0.2.1")), site(address("192.0.2.2")));
        assert_eq!(site(address("::ffff:192.0.2.1")), address("192.0.2.1"));
    }

    #[test]
    fn an_aborted_connection_does_not_pause_accepting_but_a_full_table_does() {
        assert!(concerns_one_connection(&io::Error::from(Errno::CONNABORTED)));
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert!(!concerns_one_connection(&io::Error::from(errno)));
        }
    }
}
