//! The life of a server, whether this process serves the clients or workers do: start, signals, reload, end.
//!
//! It owns what a server has one of: listeners, signals, the service manager, what is remembered of clients' releases,
//! the socket on which questions about the state are answered. Whoever serves the clients that it lets in is its
//! [`Backend`].
//! Source: specification, sections 2.1, 2.6 and 2.10; the design's improvements on them.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::configuration::Configuration;
use super::notify::Notify;
use super::signals::{Meaning, Signals};
use super::start::Opened;
use super::system;
use crate::config::Environment;
use crate::config::snapshot::{Origin, Snapshot};
use crate::observe::log;
use crate::process::asked::Asked;
use crate::protocol::error::Result;
use crate::protocol::release::Release;
use crate::server::event_loop::OTHERS;
use crate::server::event_loop::accept::{ACCEPTS, Acceptor};
use crate::server::event_loop::listen;
use crate::server::releases::installed;
use crate::server::releases::learner::Learner;
use crate::server::releases::memory::Memory;
use crate::server::service::Service;
use crate::server::status::socket::{self as status, Status};

const SIGNAL: Token = Token(usize::MAX);
const INSTALLED: Token = Token(usize::MAX - 1);
/// Listeners have the tokens from here on.
const LISTENERS: usize = OTHERS;

/// What serves the clients that a [`Front`] lets in.
pub(super) trait Backend {
    /// Another configuration, as far as it can be prepared before that replaces the present one.
    type Prepared;

    /// Of the poll that [`Backend::turn`] waits for.
    fn registry(&self) -> &Registry;

    /// The time that deadlines are measured by.
    fn now(&self) -> Instant;

    fn configuration(&self) -> &Configuration;

    fn learner(&mut self) -> &mut Learner;

    /// Waits until something happens, for `longest` at most, and does what is to be done then. What happened to tokens
    /// from [`OTHERS`] on is told to `note`.
    fn turn(&mut self, longest: Option<Duration>, note: &mut dyn FnMut(Token)) -> Result<()>;

    /// Whether it serves, or will do so soon.
    fn is_ready(&self) -> bool {
        true
    }

    /// Until when clients have to wait to be let in.
    fn away(&self) -> Option<Instant> {
        None
    }

    /// Serves the client at the other end of `socket`, or closes that where there are too many.
    fn admit(&mut self, socket: TcpStream, peer: SocketAddr);

    /// Has the release of the installed pgbackrest be tried first.
    fn note_installed(&mut self, release: &'static Release) {
        self.learner().note_installed(release);
    }

    /// Answers those who ask for the state.
    fn answer(&mut self, status: &mut Status, acceptor: &Acceptor);

    /// Looks whether all that serve still live.
    fn check(&mut self) {}

    /// Prepares to serve what the snapshot has.
    fn prepare(&mut self, snapshot: &Snapshot) -> Result<Self::Prepared>;

    /// Serves another configuration from now on.
    fn replace(&mut self, configuration: Configuration, service: Service, prepared: Self::Prepared);

    /// What was said against the configuration of [`Backend::replace`], once it counts everywhere.
    fn poll_replaced(&mut self) -> Option<Vec<String>> {
        Some(Vec::new())
    }

    /// Ends the sessions that `pgbackrest stop --force` means by a SIGTERM; whether it means any.
    fn stop_sessions(&mut self) -> bool {
        false
    }

    /// Has every session end with its present request. Returns how many there are.
    fn drain(&mut self) -> usize;

    /// Moves the end on, if it has begun; whether it has come.
    fn is_over(&mut self) -> bool;

    /// What the service manager is told of it, after all else.
    fn description(&self) -> String {
        String::new()
    }
}

/// Why a server ends.
pub(super) enum End {
    Drained {
        /// Whether its log has times.
        timestamps: bool,
    },
    Interrupted(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nobody is served yet. A reload may have been asked for meanwhile.
    Starting {
        reload: bool,
    },
    Serving,
    /// Another configuration does not count everywhere yet. One more reload may have been asked for meanwhile.
    Reloading {
        again: bool,
    },
    /// No more connections are accepted.
    Ending,
}

/// A server without what serves its clients.
pub(super) struct Front {
    arguments: Vec<String>,
    environment: Environment,
    descriptors: Option<u64>,
    /// The service manager opened the sockets and decides where they listen.
    inherited: bool,
    /// None in tests, which send none.
    signals: Option<Signals>,
    acceptor: Acceptor,
    /// The pgbackrest that is installed here.
    installed: Asked,
    memory: Memory,
    status: Status,
    notify: Notify,
    /// When the service manager wants to hear of us.
    watchdog: Option<Instant>,
    phase: Phase,
}

impl Front {
    /// That of `backend`, with what was opened for these arguments in this environment.
    pub(super) fn new(
        backend: &impl Backend,
        Opened { signals, listeners, inherited, descriptors }: Opened,
        arguments: &[String],
        environment: &Environment,
    ) -> Result<Self> {
        let failed = system("unable to start the event loop");
        let registry = backend.registry();
        if let Some(signals) = &signals {
            let mut source = SourceFd(&signals.as_fd().as_raw_fd());
            registry.register(&mut source, SIGNAL, Interest::READABLE).map_err(failed)?;
        }
        let mut acceptor = Acceptor::new(LISTENERS);
        acceptor.listen(registry, listeners).map_err(failed)?;
        Ok(Self {
            arguments: arguments.to_vec(),
            environment: environment.clone(),
            descriptors,
            inherited,
            signals,
            acceptor,
            installed: Asked::default(),
            memory: Memory::new(None),
            status: Status::default(),
            notify: Notify::from_environment(),
            watchdog: None,
            phase: Phase::Starting { reload: false },
        })
    }

    /// Serves until the end.
    pub(super) fn run(&mut self, backend: &mut impl Backend) -> Result<End> {
        self.remember(backend);
        let end = loop {
            match self.turn(backend, None) {
                Ok(None) => {}
                Ok(Some(end)) => break Ok(end),
                Err(error) => break Err(error),
            }
        };
        let now = backend.now();
        self.memory.finish(backend.learner(), now);
        end
    }

    /// One turn, which waits for `longest` at most.
    fn turn(&mut self, backend: &mut impl Backend, longest: Option<Duration>) -> Result<Option<End>> {
        if let Phase::Starting { reload } = self.phase
            && backend.is_ready()
        {
            self.begin_serving(backend);
            if reload {
                self.reload(backend);
            }
        }
        let now = backend.now();
        let wait = self.deadline(now).map(|at| at.saturating_duration_since(now));
        let mut is_signalled = false;
        backend.turn(wait.into_iter().chain(longest).min(), &mut |token| match token {
            SIGNAL => is_signalled = true,
            INSTALLED => {}
            Token(token) if token >= status::TOKENS => self.status.note(),
            Token(token) => self.acceptor.note(token),
        })?;
        if is_signalled && let Some(end) = self.obey(backend) {
            return Ok(Some(end));
        }
        let now = backend.now();
        if let Some(printed) = self.installed.advance(now)
            && let Some(release) = installed::release(&printed, backend.configuration().authority.policy.table())
        {
            backend.note_installed(release);
        }
        self.accept(backend);
        self.memory.keep(backend.learner(), now);
        self.end_reload(backend);
        backend.answer(&mut self.status, &self.acceptor);
        if self.watchdog.is_some_and(|at| at <= now) {
            backend.check();
            self.notify.alive();
            self.arm_watchdog(now);
        }
        Ok(backend.is_over().then(|| drained(backend)))
    }

    /// When something here is due.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        let due = [
            self.acceptor.deadline(now),
            self.memory.due(),
            self.installed.deadline(),
            self.status.deadline(),
            self.watchdog,
        ];
        due.into_iter().flatten().min()
    }

    fn arm_watchdog(&mut self, now: Instant) {
        self.watchdog = self.notify.watchdog().map(|period| now + period);
    }

    fn accept(&mut self, backend: &mut impl Backend) {
        for _ in 0..ACCEPTS {
            if let Some(until) = backend.away() {
                // Who comes meanwhile waits, and is not sent away.
                return self.acceptor.pause_until(until);
            }
            let Some((socket, peer)) = self.acceptor.accept(backend.now()) else { return };
            backend.admit(socket, peer);
        }
    }

    fn begin_serving(&mut self, backend: &impl Backend) {
        self.phase = Phase::Serving;
        self.arm_watchdog(backend.now());
        let status = self.status_line(backend);
        log::detail(format_args!("{status}"));
        self.notify.ready(&status);
        let authority = &backend.configuration().authority;
        if installed::is_wanted(&authority.server.own, &authority.policy) {
            let (program, arguments) = installed::QUESTION;
            self.installed.ask(program, arguments, backend.now(), backend.registry(), INSTALLED);
        }
    }

    /// Does what signals ask for.
    fn obey(&mut self, backend: &mut impl Backend) -> Option<End> {
        for signal in self.signals.as_mut().map(Signals::pending).unwrap_or_default() {
            match (signal, &mut self.phase) {
                (Meaning::Interrupt, _) => return Some(End::Interrupted(signal.signal())),
                (Meaning::Terminate { .. }, Phase::Ending) => return Some(drained(backend)),
                (Meaning::Terminate { certain }, _) => self.terminate(certain, backend),
                (Meaning::Reload, Phase::Serving) => {
                    self.reload(backend);
                    // Told before the end that may have been asked for at the same time.
                    self.end_reload(backend);
                }
                (Meaning::Reload, Phase::Starting { reload: again } | Phase::Reloading { again }) => *again = true,
                (Meaning::Reload, Phase::Ending) => {}
            }
        }
        None
    }

    fn terminate(&mut self, certain: bool, backend: &mut impl Backend) {
        if !certain && backend.stop_sessions() {
            return;
        }
        self.notify.stopping("finishing requests in flight");
        drop(self.acceptor.take(backend.registry()));
        self.phase = Phase::Ending;
        let sessions = backend.drain();
        log::detail(format_args!("signal [SIGTERM]: no more connections, {sessions} open ones finish their request"));
    }

    fn reload(&mut self, backend: &mut impl Backend) {
        self.notify.reloading();
        log::detail(format_args!("configuration reload begin"));
        match self.replace(backend) {
            Ok(()) => self.phase = Phase::Reloading { again: false },
            Err(error) => {
                log::error(&error);
                log::warn(format_args!("configuration reload failed, so the server goes on with what it had"));
                backend.configuration().authority.outlive_reload();
                self.notify.ready(&format!("configuration reload failed: {error}; {}", self.status_line(backend)));
            }
        }
    }

    /// Ends a reload once it counts everywhere.
    fn end_reload(&mut self, backend: &mut impl Backend) {
        while let Phase::Reloading { again } = self.phase
            && let Some(complaints) = backend.poll_replaced()
        {
            self.phase = Phase::Serving;
            let mut status = self.status_line(backend);
            if let Some(reason) = complaints.last() {
                status = format!("configuration reload failed in a worker, which ends: {reason}; {status}");
            }
            log::detail(format_args!("configuration reload end"));
            self.notify.ready(&status);
            if again {
                self.reload(backend);
            }
        }
    }

    /// Builds the new state and swaps it in.
    fn replace(&mut self, backend: &mut impl Backend) -> Result<()> {
        let origin = Origin::recording();
        let mut configuration = backend.configuration().reload(&self.arguments, &self.environment, &origin)?;
        let service = configuration.service(self.descriptors, &origin)?;
        let prepared = backend.prepare(&origin.into_snapshot())?;
        self.relisten(&configuration, backend.registry())?;
        log::apply(&configuration.log);
        log::info(format_args!("{}", configuration.begin));
        configuration.log_warnings();
        backend.replace(configuration, service, prepared);
        self.remember(backend);
        Ok(())
    }

    /// Listens where another configuration says. Whatever comes of that, none of the listeners that stay is closed or
    /// misses a connection.
    fn relisten(&mut self, configuration: &Configuration, registry: &Registry) -> Result<()> {
        let wanted = if self.inherited { None } else { Some(configuration.endpoints()?) };
        let mut previous = self.acceptor.take(registry);
        let wanted = wanted.unwrap_or_else(|| previous.iter().map(|listener| listener.endpoint).collect());
        let opened = listen::open_all(&wanted, configuration.keep_alive(), &mut previous);
        let (listeners, result) = match opened {
            Ok(listeners) => (listeners, Ok(())),
            Err(error) => (std::mem::take(&mut previous), Err(error)),
        };
        self.acceptor.listen(registry, listeners).map_err(system("unable to listen on socket"))?;
        result
    }

    /// Takes up what was learned before, and begins to answer questions about the state. Neither is
    /// worth ending a server for.
    fn remember(&mut self, backend: &mut impl Backend) {
        let directory = backend.configuration().state_directory();
        if self.memory.directory() != directory.as_deref() {
            let (now, policy) = (backend.now(), Rc::clone(&backend.configuration().authority.policy));
            let learner = backend.learner();
            self.memory.finish(learner, now);
            self.memory = Memory::new(directory);
            let has_learned = learner.worked().next().is_some();
            self.memory.load(learner, policy.table());
            if has_learned {
                self.memory.write_soon(now);
            }
        }
        let path = backend.configuration().status_path(self.memory.directory());
        if let Err(error) = self.status.answer_at(path.as_deref(), backend.registry()) {
            let path = path.unwrap_or_default();
            log::warn(format_args!("unable to answer 'repohostd status' at '{}': {error}", path.display()));
        }
    }

    /// What the service manager is told.
    fn status_line(&self, backend: &impl Backend) -> String {
        let addresses: Vec<_> = self.acceptor.addresses().iter().map(ToString::to_string).collect();
        let release = match backend.configuration().authority.policy.general() {
            Some(release) => format!("as pgBackRest {}", release.version),
            None => "as the pgBackRest of each client".to_owned(),
        };
        format!("listening on {} {release}{}", addresses.join(", "), backend.description())
    }
}

fn drained(backend: &impl Backend) -> End {
    End::Drained { timestamps: backend.configuration().log.timestamp }
}

#[cfg(test)]
#[path = "front_tests.rs"]
mod tests;
