//! The supervisor: hands connections to workers, and does for all of them what there has to be one of.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Poll, Registry, Token};

use super::{system, umask};
use crate::config::snapshot::Snapshot;
use crate::observe::log;
use crate::protocol::error::{Error, Result};
use crate::protocol::release::Release;
use crate::server::client::view::SessionState;
use crate::server::event_loop::OTHERS;
use crate::server::event_loop::accept::Acceptor;
use crate::server::event_loop::admission::site;
use crate::server::event_loop::clock::Clock;
use crate::server::event_loop::reports::Report;
use crate::server::life::configuration::Configuration;
use crate::server::life::front::Backend;
use crate::server::life::serving::FAREWELL;
use crate::server::releases::learner::Learner;
use crate::server::releases::memory::Remembered;
use crate::server::service::{Bounds, Service};
use crate::server::status::document::{FileSystemState, ServerState, WorkerState};
use crate::server::status::socket::Status;
use crate::server::workers::connections::Connections;
use crate::server::workers::handle::Waiting;
use crate::server::workers::message::{ToSupervisor, ToWorker};
use crate::server::workers::pool::{Assignment, Departure, PoolEvent, Prepared, WorkerPool};
use crate::server::workers::spawn::spawn_process;
use crate::server::workers::suspects::Suspects;

/// Events taken from the kernel at a time.
const EVENTS: usize = 256;
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
    answers: T,
}

impl<T: Default> Asked<T> {
    fn new(places: Vec<usize>, now: Instant) -> Self {
        Self { waiting: places.into_iter().collect(), until: now + ANSWER, answers: T::default() }
    }

    fn is_answered(&self, now: Instant) -> bool {
        self.waiting.is_empty() || self.until <= now
    }
}

/// What workers tell of their sessions, and of file systems.
type Told = (Vec<SessionState>, Vec<FileSystemState>);

enum Phase {
    /// No worker has begun.
    Starting,
    Serving {
        /// What workers say against another configuration.
        reload: Option<Asked<Vec<String>>>,
    },
    /// Workers may finish what they do until then.
    Draining(Instant),
}

pub(super) struct Supervisor {
    configuration: Configuration,
    bounds: Bounds,
    poll: Poll,
    events: Events,
    clock: Clock,
    pool: WorkerPool,
    connections: Connections,
    suspects: Suspects,
    /// Connections that no worker can take yet.
    waiting: VecDeque<Waiting>,
    learner: Learner,
    phase: Phase,
    sessions: Option<Asked<Told>>,
}

impl Supervisor {
    /// One with up to `workers` workers, which serve what the snapshot has. It was tried here, where an error ends the
    /// start and every warning is told once, and came to `service`.
    pub(super) fn new(
        configuration: Configuration,
        service: &Service,
        arguments: &[String],
        workers: usize,
        snapshot: &Snapshot,
    ) -> Result<Self> {
        let failed = system("unable to start the event loop");
        let timeout = configuration.server().own.worker_timeout;
        let pool = WorkerPool::new(workers, spawn_process(arguments), snapshot, umask::inherited(), timeout);
        Ok(Self {
            configuration,
            bounds: service.bounds,
            poll: Poll::new().map_err(failed)?,
            events: Events::with_capacity(EVENTS),
            // A worker does not lose its life because this process was stopped.
            clock: Clock::new(),
            pool: pool.map_err(failed)?,
            connections: Connections::new(),
            suspects: Suspects::default(),
            waiting: VecDeque::new(),
            learner: Learner::default(),
            phase: Phase::Starting,
            sessions: None,
        })
    }

    /// When something is due.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Draining(until) => Some(*until),
            Phase::Serving { reload: Some(asked) } => self.pool.away(now).into_iter().chain([asked.until]).min(),
            Phase::Starting | Phase::Serving { reload: None } => self.pool.away(now),
        };
        [
            phase,
            self.pool.deadline(now),
            (!self.waiting.is_empty()).then(|| now + AGAIN),
            self.suspects.deadline(),
            self.sessions.as_ref().map(|asked| asked.until),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Gives connections to workers, as far as there are any for them.
    fn hand_out(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Draining(_)) {
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

    /// Tells a new worker what was learned before.
    fn teach(&mut self, place: usize) {
        let mut known = self.learner.worked().map(Remembered::new).peekable();
        while known.peek().is_some() {
            self.pool.send(place, &ToWorker::Known(known.by_ref().take(KNOWN_AT_ONCE).collect()));
        }
        if let Some(release) = self.learner.installed() {
            self.pool.send(place, &ToWorker::Installed(release.version.to_owned()));
        }
    }

    /// Takes what a worker says.
    fn hear(&mut self, place: usize, now: Instant) -> Result<()> {
        while let Some(event) = self.pool.poll_event(place, now) {
            match event {
                PoolEvent::Said(message) => self.take(place, message, now),
                PoolEvent::Gone(departure) => match self.forget(departure, now) {
                    // Nobody has been served yet, and there is nothing to go on with.
                    Some(error) if !self.is_ready() => return Err(error),
                    Some(error) => log::error(&error),
                    None => {}
                },
            }
        }
        Ok(())
    }

    fn take(&mut self, place: usize, message: ToSupervisor, now: Instant) {
        match message {
            ToSupervisor::Ready if !self.is_ready() => self.phase = Phase::Serving { reload: None },
            ToSupervisor::Report(Report { proven, closed, .. }) => {
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
                self.learner.hear(&lesson, self.configuration.authority.policy.table());
                self.pool.send_where(&ToWorker::Lesson(lesson), |other| other != place);
            }
            ToSupervisor::AsksFiles => self.pool.send_files(place, &self.configuration.authority.tell()),
            ToSupervisor::Finished(directory) => {
                self.pool.send_where(&ToWorker::Finished(directory), |other| other != place);
            }
            ToSupervisor::Reloaded(error) => {
                if let Some(error) = &error {
                    self.pool.retire(place, error);
                }
                if let Phase::Serving { reload: Some(asked) } = &mut self.phase {
                    asked.waiting.remove(&place);
                    asked.answers.extend(error);
                }
            }
            ToSupervisor::Sessions(sessions) => {
                if let Some(asked) = &mut self.sessions {
                    asked.answers.0.extend(sessions);
                }
            }
            ToSupervisor::AllSessions(file_systems) => {
                if let Some(asked) = &mut self.sessions {
                    asked.answers.1.extend(file_systems);
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
        if let Phase::Serving { reload: Some(asked) } = &mut self.phase {
            asked.waiting.remove(&place);
        }
        if let Some(asked) = &mut self.sessions {
            asked.waiting.remove(&place);
        }
        error
    }
}

impl Backend for Supervisor {
    type Prepared = Prepared;

    fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    fn learner(&mut self) -> &mut Learner {
        &mut self.learner
    }

    fn turn(&mut self, longest: Option<Duration>, note: &mut dyn FnMut(Token)) -> Result<()> {
        let now = self.now();
        // One is always there that answers, so that the next client does not wait for it.
        if !matches!(self.phase, Phase::Draining(_))
            && !self.pool.is_responsive()
            && let Some(place) = self.pool.start(self.poll.registry(), None, now)
        {
            self.teach(place);
        }
        let due = self.deadline(now).map(|at| at.saturating_duration_since(now));
        let wait = due.into_iter().chain(longest).min();
        // Workers are heard with all of this while it is gone through.
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, wait) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
            Err(error) => return Err(system("unable to wait")(error)),
        }
        self.clock.advance(wait);
        let now = self.now();
        for event in &events {
            match event.token() {
                Token(place) if place < OTHERS => self.hear(place, now)?,
                token => note(token),
            }
        }
        self.events = events;
        while let Some(departure) = self.pool.give_up_unresponsive(now) {
            if let Some(error) = self.forget(departure, now) {
                log::error(&error);
            }
        }
        self.suspects.tidy(now);
        self.pool.mix(|slot| self.suspects.of(slot).is_some());
        self.hand_out(now);
        self.pool.maintain(now);
        Ok(())
    }

    fn is_ready(&self) -> bool {
        !matches!(self.phase, Phase::Starting)
    }

    fn away(&self) -> Option<Instant> {
        self.pool.away(self.now())
    }

    /// Gives an accepted connection to a worker, or closes it when there are too many.
    fn admit(&mut self, socket: TcpStream, peer: SocketAddr) {
        let now = self.now();
        let (is_admitted, stranger) = self.connections.admit(peer, self.bounds, now);
        if let Some((number, place)) = stranger {
            let before = self.waiting.len();
            self.waiting.retain(|waiting| waiting.number != number);
            if self.waiting.len() < before || self.pool.evict(place, number) {
                self.remove(number, now);
            }
        }
        if is_admitted {
            let (number, socket) = (self.connections.enter(peer), std::net::TcpStream::from(socket).into());
            self.waiting.push_back(Waiting { number, peer, socket });
            self.hand_out(now);
        }
    }

    fn note_installed(&mut self, release: &'static Release) {
        self.learner.note_installed(release);
        self.pool.send_where(&ToWorker::Installed(release.version.to_owned()), |_| true);
    }

    /// Answers those who ask for the state, once all workers have told of their sessions.
    fn answer(&mut self, status: &mut Status, acceptor: &Acceptor) {
        if status.is_idle() && self.sessions.is_none() {
            return;
        }
        let now = self.now();
        let policy = &self.configuration.authority.policy;
        let (addresses, mut workers) = (acceptor.addresses(), self.pool.view(now));
        for worker in &mut workers {
            worker.kept_for = worker.slot.and_then(|slot| self.suspects.of(slot));
        }
        let told = self.sessions.take_if(|asked| asked.is_answered(now)).map(|asked| asked.answers);
        let connections = self.connections.count();
        let state = || {
            let (sessions, file_systems) = told.clone()?;
            let (learner, workers) = (&self.learner, workers.clone());
            let state = ServerState::new(&addresses, policy, learner, connections, workers, sessions, file_systems);
            Some(state.compose())
        };
        if status.advance(now, self.poll.registry(), state) && self.sessions.is_none() {
            let places = self.pool.ask(&ToWorker::Sessions);
            self.sessions = Some(Asked::new(places, now));
        }
    }

    fn check(&mut self) {
        self.pool.ping_all(self.clock.now());
    }

    fn prepare(&mut self, snapshot: &Snapshot) -> Result<Prepared> {
        self.pool.prepare(snapshot).map_err(system("unable to tell workers of the configuration"))
    }

    fn replace(&mut self, configuration: Configuration, service: Service, prepared: Prepared) {
        let places = self.pool.reload(prepared);
        self.phase = Phase::Serving { reload: Some(Asked::new(places, self.now())) };
        self.bounds = service.bounds;
        self.learner.adopt(service.policy.table());
        self.configuration = configuration;
        self.pool.timeout = self.configuration.server().own.worker_timeout;
    }

    fn poll_replaced(&mut self) -> Option<Vec<String>> {
        let now = self.now();
        let Phase::Serving { reload } = &mut self.phase else { return None };
        let asked = reload.take_if(|asked| asked.is_answered(now))?;
        if !asked.waiting.is_empty() {
            log::warn(format_args!("{} workers have not read the configuration yet", asked.waiting.len()));
        }
        Some(asked.answers)
    }

    fn drain(&mut self) -> usize {
        let (now, connections) = (self.now(), self.connections.count());
        for Waiting { number, .. } in std::mem::take(&mut self.waiting) {
            self.remove(number, now);
        }
        self.pool.drain_all();
        let timeout = self.configuration.server().own.drain_timeout;
        self.phase = Phase::Draining(now + timeout + FAREWELL + OVERTIME);
        connections
    }

    fn is_over(&mut self) -> bool {
        let now = self.now();
        let Phase::Draining(until) = self.phase else { return false };
        if until <= now {
            let killed = self.pool.kill_all();
            log::warn(format_args!("{killed} workers had not ended in time and were killed"));
            return true;
        }
        self.pool.is_empty()
    }

    fn description(&self) -> String {
        format!(", with up to {} workers", self.pool.maximum)
    }
}
