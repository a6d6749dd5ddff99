//! The supervisor: accepts connections and hands them to workers, and does for all of them what there has to
//! be one of.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::umask;
use crate::config::Environment;
use crate::config::snapshot::{Origin, Snapshot};
use crate::observe::log;
use crate::protocol::error::{Error, Result};
use crate::server::client::view::SessionState;
use crate::server::event_loop::accept::{ACCEPTS, Acceptor};
use crate::server::event_loop::admission::{Bounds, site};
use crate::server::event_loop::clock::Clock;
use crate::server::life::configuration::Configuration;
use crate::server::life::front;
use crate::server::life::notify::Notify;
use crate::server::life::serve::End;
use crate::server::life::serving::{FAREWELL, system};
use crate::server::life::signals::{Meaning, Signals};
use crate::server::life::start::{Start, Started, start};
use crate::server::releases::installed::Installed;
use crate::server::releases::learner::Learner;
use crate::server::releases::lesson::Known;
use crate::server::releases::memory::Memory;
use crate::server::status::document::{FileSystemState, ServerState, WorkerState};
use crate::server::status::socket::{self as status, Status};
use crate::server::workers::connections::Connections;
use crate::server::workers::handle::Waiting;
use crate::server::workers::message::{ToSupervisor, ToWorker};
use crate::server::workers::pool::{Assignment, Departure, PoolEvent, WorkerPool};
use crate::server::workers::spawn::spawn_process;
use crate::server::workers::suspects::Suspects;

/// Events taken from the kernel at a time.
const EVENTS: usize = 256;
const SIGNAL: Token = Token(usize::MAX);
const INSTALLED: Token = Token(usize::MAX - 1);
/// Listeners have the tokens from here on, workers those below.
const LISTENERS: usize = usize::MAX / 2;
/// Clients whose releases are told to a worker in one message.
const KNOWN_AT_ONCE: usize = 64;
/// What workers get beyond the time in which they should have ended.
const OVERTIME: Duration = Duration::from_secs(3);
/// What workers get to tell of their sessions, and to read the configuration again.
const ANSWER: Duration = Duration::from_secs(4);
/// How often it is looked whether there is a worker for connections that wait for one.
const AGAIN: Duration = Duration::from_millis(100);

/// A question to all workers.
struct Asked<T> {
    /// Those who have not answered.
    waiting: BTreeSet<usize>,
    until: Instant,
    answers: Vec<T>,
}

impl<T> Asked<T> {
    fn new(places: Vec<usize>, now: Instant) -> Self {
        Self { waiting: places.into_iter().collect(), until: now + ANSWER, answers: Vec::new() }
    }

    fn is_answered(&self, now: Instant) -> bool {
        self.waiting.is_empty() || self.until <= now
    }
}

/// The supervisor.
pub(super) struct Supervisor {
    arguments: Vec<String>,
    environment: Environment,
    descriptors: Option<u64>,
    /// The service manager opened the sockets and decides where they listen.
    inherited: bool,
    configuration: Configuration,
    bounds: Bounds,
    poll: Poll,
    signals: Signals,
    acceptor: Acceptor,
    pool: WorkerPool,
    connections: Connections,
    suspects: Suspects,
    /// Connections that no worker can take yet.
    waiting: VecDeque<Waiting>,
    learner: Learner,
    installed: Installed,
    memory: Memory,
    status: Status,
    notify: Notify,
    /// When the service manager wants to hear of us.
    watchdog: Option<Instant>,
    /// The first worker has begun.
    ready: bool,
    /// The end has begun: no more connections are accepted, and until then workers may finish what they do.
    draining: Option<Instant>,
    reload: Option<Asked<String>>,
    /// Another reload was asked for meanwhile.
    reload_again: bool,
    sessions: Option<Asked<SessionState>>,
    /// What they told of file systems with that.
    file_systems: Vec<FileSystemState>,
}

impl Supervisor {
    /// Serves until the end, with up to `workers` workers; with it, whether the log has times.
    pub(crate) fn serve(
        mut configuration: Configuration,
        arguments: &[String],
        environment: &Environment,
        workers: usize,
        origin: Origin,
    ) -> (Result<End>, bool) {
        let timestamps = configuration.log.timestamp;
        let started = match start(&mut configuration, &origin) {
            Ok(Start::Listening(started)) => started,
            Ok(Start::Ended(signal)) => return (Ok(End::Interrupted(signal)), timestamps),
            Err(error) => return (Err(error), timestamps),
        };
        let snapshot = origin.into_snapshot();
        let mut supervisor = match Self::begin(configuration, *started, arguments, environment, workers, &snapshot) {
            Ok(supervisor) => supervisor,
            Err(error) => return (Err(error), timestamps),
        };
        let end = supervisor.run();
        supervisor.memory.finish(&mut supervisor.learner, Instant::now());
        (end, supervisor.configuration.log.timestamp)
    }

    fn begin(
        configuration: Configuration,
        Started { service, signals, listeners, inherited, descriptors }: Started,
        arguments: &[String],
        environment: &Environment,
        workers: usize,
        snapshot: &Snapshot,
    ) -> Result<Self> {
        // What workers will serve was tried here, where an error ends the start, and every warning is told once.
        let bounds = Bounds { connections: service.connections, per_address: service.connections_per_address };
        drop(service);
        let failed = |error: io::Error| system("unable to start the event loop", &error);
        let poll = Poll::new().map_err(failed)?;
        let mut source = SourceFd(&signals.as_fd().as_raw_fd());
        poll.registry().register(&mut source, SIGNAL, Interest::READABLE).map_err(failed)?;
        let mut acceptor = Acceptor::new(LISTENERS);
        acceptor.listen(poll.registry(), listeners).map_err(failed)?;
        let patience = configuration.server().own.worker_timeout;
        let pool = WorkerPool::new(workers, spawn_process(arguments), snapshot, umask::inherited(), patience)
            .map_err(failed)?;
        let mut supervisor = Self {
            arguments: arguments.to_vec(),
            environment: environment.clone(),
            descriptors,
            inherited,
            configuration,
            bounds,
            poll,
            signals,
            acceptor,
            pool,
            connections: Connections::new(),
            suspects: Suspects::default(),
            waiting: VecDeque::new(),
            learner: Learner::default(),
            installed: Installed::default(),
            memory: Memory::new(None),
            status: Status::default(),
            notify: Notify::from_environment(),
            watchdog: None,
            ready: false,
            draining: None,
            reload: None,
            reload_again: false,
            sessions: None,
            file_systems: Vec::new(),
        };
        supervisor.configuration.log_warnings();
        supervisor.remember(Instant::now());
        Ok(supervisor)
    }

    fn run(&mut self) -> Result<End> {
        let mut events = Events::with_capacity(EVENTS);
        // A worker does not lose its life because this process was stopped.
        let mut clock = Clock::new();
        self.start_worker(clock.now());
        loop {
            let now = clock.now();
            let wait = self.deadline(now).map(|at| at.saturating_duration_since(now));
            match self.poll.poll(&mut events, wait) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
                Err(error) => return Err(system("unable to wait", &error)),
            }
            clock.advance(wait);
            let now = clock.now();
            let mut signalled = false;
            for event in &events {
                match event.token() {
                    SIGNAL => signalled = true,
                    INSTALLED => {}
                    Token(token) if token >= status::TOKENS => self.status.note(),
                    Token(token) if token >= LISTENERS => self.acceptor.note(token),
                    Token(place) => self.hear(place, now)?,
                }
            }
            if signalled && let Some(end) = self.obey(now) {
                return Ok(end);
            }
            if self.turn(now) {
                return Ok(End::Drained);
            }
        }
    }

    /// When something is due.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        let busy = self.acceptor.is_ready() && self.draining.is_none();
        let reload = self.reload.as_ref().map(|asked| asked.until);
        let sessions = self.sessions.as_ref().map(|asked| asked.until);
        [
            busy.then_some(now),
            self.acceptor.deadline(),
            self.pool.deadline(now),
            self.memory.due(),
            self.installed.deadline(),
            self.status.deadline(),
            self.watchdog,
            self.draining,
            self.pool.away(now).filter(|_| self.draining.is_none()),
            (!self.waiting.is_empty()).then(|| now + AGAIN),
            self.suspects.deadline(),
            reload,
            sessions,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What is done in each turn; whether the end has come.
    fn turn(&mut self, now: Instant) -> bool {
        while let Some(departure) = self.pool.give_up_unresponsive(now) {
            if let Some(error) = self.forget(departure, now) {
                log::error(&error);
            }
        }
        self.hear_installed(now);
        self.suspects.tidy(now);
        self.pool.mix(|slot| self.suspects.of(slot).is_some());
        self.hand_out(now);
        self.accept(now);
        self.pool.maintain(now);
        self.memory.keep(&mut self.learner, now);
        self.end_reload(now);
        self.answer(now);
        if self.watchdog.is_some_and(|at| at <= now) {
            self.pool.ping_all(now);
            self.notify.alive();
            self.arm_watchdog(now);
        }
        let Some(until) = self.draining else {
            // One is always there that answers, so that the next client does not wait for it.
            if !self.pool.is_responsive() {
                self.start_worker(now);
            }
            return false;
        };
        if until <= now {
            let killed = self.pool.kill_all();
            log::warn(format_args!("{killed} workers had not ended in time and were killed"));
            return true;
        }
        self.pool.is_empty()
    }

    fn arm_watchdog(&mut self, now: Instant) {
        self.watchdog = self.notify.watchdog().map(|period| now + period);
    }

    /// Does what signals ask for.
    fn obey(&mut self, now: Instant) -> Option<End> {
        for signal in self.signals.pending() {
            match signal {
                Meaning::Interrupt => return Some(End::Interrupted(signal.signal())),
                Meaning::Terminate { .. } if self.draining.is_some() => return Some(End::Drained),
                Meaning::Terminate { .. } => self.terminate(now),
                Meaning::Reload if self.draining.is_some() => {}
                Meaning::Reload if self.reload.is_some() || !self.ready => self.reload_again = true,
                Meaning::Reload => self.reload(now),
            }
        }
        None
    }

    fn terminate(&mut self, now: Instant) {
        self.notify.stopping("finishing requests in flight");
        drop(self.acceptor.take(self.poll.registry()));
        let connections = self.connections.count();
        log::detail(format_args!(
            "signal [SIGTERM]: no more connections, {connections} open ones finish their request"
        ));
        for Waiting { number, .. } in std::mem::take(&mut self.waiting) {
            self.remove(number, now);
        }
        self.pool.drain_all();
        self.draining = Some(now + self.configuration.server().own.drain_timeout + FAREWELL + OVERTIME);
    }

    fn accept(&mut self, now: Instant) {
        if self.draining.is_some() {
            return;
        }
        for _ in 0..ACCEPTS {
            if let Some(until) = self.pool.away(now) {
                // Who comes meanwhile waits, and is not sent away.
                return self.acceptor.pause_until(until);
            }
            let Some((socket, peer)) = self.acceptor.accept(now) else { return };
            self.admit(socket, peer, now);
        }
    }

    /// Gives an accepted connection to a worker, or closes it when there are too many.
    fn admit(&mut self, socket: TcpStream, peer: SocketAddr, now: Instant) {
        let (admitted, stranger) = self.connections.admit(peer, self.bounds, now);
        if let Some((number, place)) = stranger {
            let before = self.waiting.len();
            self.waiting.retain(|waiting| waiting.number != number);
            if self.waiting.len() < before || self.pool.evict(place, number) {
                self.remove(number, now);
            }
        }
        if admitted {
            let (number, socket) = (self.connections.enter(peer), std::net::TcpStream::from(socket).into());
            self.waiting.push_back(Waiting { number, peer, socket });
            self.hand_out(now);
        }
    }

    /// Gives connections to workers, as far as there are any for them.
    fn hand_out(&mut self, now: Instant) {
        if self.draining.is_some() {
            // They come too late: a worker that was begun for them would hear nothing of the end.
            for connection in std::mem::take(&mut self.waiting) {
                self.connections.leave(connection.number);
            }
            return;
        }
        for _ in 0..self.waiting.len() {
            let Some(connection) = self.waiting.pop_front() else { return };
            let slot = self.suspects.slot(site(connection.peer.ip()));
            let Some(Assignment { place, is_new }) = self.pool.choose(self.poll.registry(), slot, now) else {
                self.waiting.push_back(connection);
                continue;
            };
            if is_new {
                self.teach(place);
            }
            self.connections.hand(connection.number, place);
            self.pool.assign(place, connection, now);
        }
    }

    fn remove(&mut self, number: u64, now: Instant) {
        if let Some(place) = self.connections.leave(number) {
            self.pool.note_end(place, now);
        }
    }

    fn start_worker(&mut self, now: Instant) {
        if let Some(place) = self.pool.start(self.poll.registry(), None, now) {
            self.teach(place);
        }
    }

    /// Tells a new worker what was learned before.
    fn teach(&mut self, place: usize) {
        let known: Vec<_> = self.learner.worked().map(|(key, worked)| Known::new(key, worked)).collect();
        for part in known.chunks(KNOWN_AT_ONCE) {
            self.pool.send(place, &ToWorker::Known(part.to_vec()));
        }
        if let Some(release) = self.learner.installed() {
            self.pool.send(place, &ToWorker::Installed(release.version.to_owned()));
        }
    }

    /// Takes the answer of the installed pgbackrest, and tells the workers that there are.
    fn hear_installed(&mut self, now: Instant) {
        let policy = self.configuration.authority.policy();
        if let Some(release) = self.installed.advance(now, policy.table()) {
            self.learner.note_installed(release);
            self.pool.send_to_all(&ToWorker::Installed(release.version.to_owned()));
        }
    }

    /// Takes what a worker says.
    fn hear(&mut self, place: usize, now: Instant) -> Result<()> {
        while let Some(event) = self.pool.poll_event(place, now) {
            match event {
                PoolEvent::Said(place, message) => self.take(place, message, now),
                PoolEvent::Gone(departure) => match self.forget(departure, now) {
                    // Nobody has been served yet, and there is nothing to go on with.
                    Some(error) if !self.ready => return Err(error),
                    Some(error) => log::error(&error),
                    None => {}
                },
            }
        }
        Ok(())
    }

    fn take(&mut self, place: usize, message: ToSupervisor, now: Instant) {
        match message {
            ToSupervisor::Ready if !self.ready => self.begin_serving(now),
            ToSupervisor::Report { proven, closed, .. } => {
                for (number, name) in proven {
                    if let Some(guest) = self.connections.prove(number, name) {
                        self.suspects.meet(&guest);
                    }
                }
                for number in closed {
                    self.remove(number, now);
                }
            }
            ToSupervisor::Lesson(lesson) => {
                let policy = Rc::clone(self.configuration.authority.policy());
                self.learner.hear(&lesson, policy.table());
                self.pool.send_to_others(&ToWorker::Lesson(lesson), place);
            }
            ToSupervisor::AsksFiles => self.pool.send_files(place, &self.configuration.authority.tell()),
            ToSupervisor::Finished(directory) => {
                self.pool.send_to_others(&ToWorker::Finished(directory), place);
            }
            ToSupervisor::Reloaded(error) => {
                if let Some(error) = &error {
                    self.pool.retire(place, error);
                }
                if let Some(asked) = &mut self.reload {
                    asked.waiting.remove(&place);
                    asked.answers.extend(error);
                }
            }
            ToSupervisor::Sessions(sessions) => {
                if let Some(asked) = &mut self.sessions {
                    asked.answers.extend(sessions);
                }
            }
            ToSupervisor::AllSessions(file_systems) => {
                if let Some(asked) = &mut self.sessions {
                    self.file_systems.extend(file_systems);
                    asked.waiting.remove(&place);
                }
            }
            ToSupervisor::Leaving => self.pool.relieve(place),
            _ => {}
        }
    }

    /// Forgets a worker that is gone. The error if it could not begin.
    fn forget(&mut self, departure: Departure, now: Instant) -> Option<Error> {
        let Departure { place, view: WorkerState { number: worker, pid, .. }, is_lost, waiting, error } = departure;
        for connection in waiting {
            // Somebody else can do what it was to do.
            self.connections.hand_back(connection.number);
            self.waiting.push_back(connection);
        }
        if is_lost {
            self.suspects.lose(self.connections.guests(place), now);
        }
        for (number, peer) in self.connections.of(place) {
            // Nobody else can tell of the end of its session.
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            log::warn(format_args!("client at {peer}: lost with worker {worker}, process {pid}"));
            self.remove(number, now);
        }
        if let Some(asked) = &mut self.reload {
            asked.waiting.remove(&place);
        }
        if let Some(asked) = &mut self.sessions {
            asked.waiting.remove(&place);
        }
        error
    }

    fn begin_serving(&mut self, now: Instant) {
        self.ready = true;
        self.arm_watchdog(now);
        let status = self.status_line();
        log::detail(format_args!("{status}"));
        self.notify.ready(&status);
        if Installed::is_wanted(&self.configuration.server().own, self.configuration.authority.policy()) {
            self.installed.ask(now, self.poll.registry(), INSTALLED);
        }
        if std::mem::take(&mut self.reload_again) {
            self.reload(now);
        }
    }

    fn reload(&mut self, now: Instant) {
        self.notify.reloading();
        log::detail(format_args!("configuration reload begin"));
        match self.replace(now) {
            Ok(places) => self.reload = Some(Asked::new(places, now)),
            Err(error) => {
                self.fail_reload(&error);
                self.configuration.authority.outlive_reload();
            }
        }
    }

    fn fail_reload(&self, error: &Error) {
        log::error(error);
        log::warn(format_args!("configuration reload failed, so the server goes on with what it had"));
        self.notify.ready(&format!("configuration reload failed: {error}; {}", self.status_line()));
    }

    /// Ends a reload when all workers have read the configuration.
    fn end_reload(&mut self, now: Instant) {
        let Some(asked) = self.reload.take_if(|asked| asked.is_answered(now)) else { return };
        let mut status = self.status_line();
        if let Some(reason) = asked.answers.last() {
            status = format!("configuration reload failed in a worker, which ends: {reason}; {status}");
        }
        if !asked.waiting.is_empty() {
            log::warn(format_args!("{} workers have not read the configuration yet", asked.waiting.len()));
        }
        log::detail(format_args!("configuration reload end"));
        self.notify.ready(&status);
        if std::mem::take(&mut self.reload_again) {
            self.reload(now);
        }
    }

    /// Builds the new state and swaps it in. Returns the places of the workers that do so, too.
    fn replace(&mut self, now: Instant) -> Result<Vec<usize>> {
        let origin = Origin::recording();
        let mut configuration = self.configuration.reload(&self.arguments, &self.environment, &origin)?;
        let service = configuration.service(self.descriptors, &origin)?;
        let prepared = self.pool.prepare(&origin.into_snapshot());
        let prepared = prepared.map_err(|error| system("unable to tell workers of the configuration", &error))?;
        let endpoints = front::endpoints(&configuration, self.inherited)?;
        let registry = self.poll.registry();
        let relistened = front::relisten(&configuration, endpoints, self.acceptor.take(registry));
        self.acceptor
            .listen(registry, relistened.listeners)
            .map_err(|error| system("unable to listen on socket", &error))?;
        relistened.result?;
        drop(relistened.previous);

        let places = self.pool.reload(prepared);
        self.bounds = Bounds { connections: service.connections, per_address: service.connections_per_address };
        self.learner.adopt(service.policy.table());
        self.configuration = configuration;
        self.pool.set_timeout(self.configuration.server().own.worker_timeout);
        log::apply(&self.configuration.log);
        log::info(format_args!("{}", self.configuration.begin));
        self.configuration.log_warnings();
        self.remember(now);
        Ok(places)
    }

    /// Takes up what was learned before, and begins to answer questions about the state. Neither is
    /// worth ending a server for.
    fn remember(&mut self, now: Instant) {
        front::remember(&self.configuration, &mut self.memory, &mut self.learner, now);
        if front::is_status_in_place(&self.configuration, &self.memory, self.status.socket()) {
            return;
        }
        let socket = front::open_status(&self.configuration, &self.memory);
        if let Err(error) = self.status.replace(socket, self.poll.registry()) {
            let path = self.configuration.status_path(self.memory.directory());
            front::no_status(path.as_deref().unwrap_or(Path::new("")), &error);
        }
    }

    fn status_line(&self) -> String {
        let line = front::status_line(&self.acceptor.addresses(), &self.configuration);
        format!("{line}, with up to {} workers", self.pool.maximum())
    }

    /// Answers those who ask for the state, once all workers have told of their sessions.
    fn answer(&mut self, now: Instant) {
        if self.status.is_idle() && self.sessions.is_none() {
            return;
        }
        let policy = Rc::clone(self.configuration.authority.policy());
        let (addresses, mut workers) = (self.acceptor.addresses(), self.pool.view(now));
        for worker in &mut workers {
            worker.kept_for = worker.slot.and_then(|slot| self.suspects.of(slot));
        }
        let asked = self.sessions.take_if(|asked| asked.is_answered(now));
        let told = asked.map(|asked| (asked.answers, std::mem::take(&mut self.file_systems)));
        let connections = self.connections.count();
        let state = || {
            let (sessions, file_systems) = told.clone()?;
            let state = ServerState::new(&addresses, &policy, &self.learner, connections);
            Some(state.with_workers(workers.clone()).with_sessions(sessions, file_systems).compose())
        };
        if self.status.advance(now, self.poll.registry(), state) && self.sessions.is_none() {
            let places = self.pool.ask(&ToWorker::Sessions);
            self.file_systems.clear();
            self.sessions = Some(Asked::new(places, now));
        }
    }
}
