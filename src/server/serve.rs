//! The life of the server process: start, reload, drain, end.
//! Source: specification, sections 2.1, 2.6 and 2.10; the design's improvements on them.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls_pki_types::UnixTime;

use super::event_loop::{ClientView, Ending, EventLoop};
use super::limits;
use super::listen::{self, Endpoint, KeepAlive, Listener};
use super::notify::Notify;
use super::record::terminated;
use super::releases::memory::Memory;
use super::reload::Configuration;
use super::signals::{Meaning, Signals};
use super::status::StatusSocket;
use super::stop_files::is_stopped;
use super::umask;
use crate::config::Environment;
use crate::disk::HeldLock;
use crate::disk::helpers;
use crate::disk::inline::Options;
use crate::disk::offload::Offload;
use crate::observe::log;
use crate::protocol::error::{Code, Error, Result};

/// How long a busy port is waited for. A predecessor's exit takes a moment.
const BIND_PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two attempts.
const BIND_PAUSE: Duration = Duration::from_millis(200);
/// What clients get to take their last bytes after sessions were aborted.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long a SIGTERM that is meant for some sessions ends further ones of their stanzas: it comes once,
/// before the lock files of all of them are removed.
const STOP_WATCH: Duration = Duration::from_secs(2);
/// How often stop files are looked for in that time.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// Serves until a signal ends it. Returns the exit status; failures have been logged.
#[must_use]
pub fn serve(arguments: &[String], environment: &Environment) -> u8 {
    log::connect();
    umask::clear();
    let begun = Instant::now();
    match Server::start(arguments, environment) {
        Ok(Some(mut server)) => match server.run() {
            Ok(End::Drained) => {
                let time =
                    if server.timestamps() { format!(" ({}ms)", begun.elapsed().as_millis()) } else { String::new() };
                log::info(format_args!("server command end: completed successfully{time}"));
                0
            }
            Ok(End::Interrupted(signal)) => interrupted(signal),
            Err(error) => {
                log::error(&error);
                log::info(format_args!("server command end: aborted with exception [{:03}]", error.code.number()));
                error.code.number()
            }
        },
        Ok(None) => Code::Term.number(),
        Err(error) => error.code.number(),
    }
}

enum End {
    Drained,
    Interrupted(&'static str),
}

fn interrupted(signal: &str) -> u8 {
    log::info(format_args!("server command end: terminated on signal [{signal}]"));
    Code::Term.number()
}

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Requests in flight finish until then.
    Draining(Instant),
    /// Clients take their last bytes until then.
    Leaving(Instant),
}

struct Server {
    arguments: Vec<String>,
    environment: Environment,
    descriptors: Option<u64>,
    /// The service manager opened the sockets and decides where they listen.
    inherited: bool,
    event_loop: EventLoop,
    notify: Notify,
    configuration: Configuration,
    phase: Phase,
    /// Until when sessions of stopped stanzas are ended.
    stop_watch: Option<Instant>,
    memory: Memory,
}

impl Server {
    /// Everything up to listening. `None` when a signal came in between, which is logged, as errors
    /// are.
    fn start(arguments: &[String], environment: &Environment) -> Result<Option<Self>> {
        let mut configuration = Configuration::load(arguments, environment).inspect_err(report_unread)?;
        log::apply(&configuration.log);
        log::info(format_args!("{}", configuration.begin));
        let ready = prepare(&mut configuration).inspect_err(|error| {
            log::error(error);
            log::info(format_args!("server command end: aborted with exception [{:03}]", error.code.number()));
        })?;
        let Some(Ready { event_loop, descriptors, inherited }) = ready else { return Ok(None) };
        let mut server = Self {
            arguments: arguments.to_vec(),
            environment: environment.clone(),
            descriptors,
            inherited,
            event_loop,
            notify: Notify::from_environment(),
            configuration,
            phase: Phase::Serving,
            stop_watch: None,
            memory: Memory::new(None),
        };
        server.configuration.log_warnings();
        server.remember();
        if let Some(period) = server.notify.watchdog() {
            server.event_loop.arm_watchdog(period);
        }
        let status = server.status();
        log::detail(format_args!("{status}"));
        server.notify.ready(&status);
        Ok(Some(server))
    }

    fn run(&mut self) -> Result<End> {
        let end = self.serve();
        let now = self.event_loop.now();
        self.memory.finish(self.event_loop.learner(), now);
        end
    }

    fn serve(&mut self) -> Result<End> {
        loop {
            let turn = self.event_loop.turn(self.patience()).map_err(|error| system("unable to wait", &error))?;
            let now = self.event_loop.now();
            self.memory.keep(self.event_loop.learner(), now);
            if turn.watchdog {
                self.notify.alive();
                if let Some(period) = self.notify.watchdog() {
                    self.event_loop.arm_watchdog(period);
                }
            }
            for signal in turn.signals {
                match (signal, self.phase) {
                    (Meaning::Interrupt, _) => return Ok(End::Interrupted(signal.signal())),
                    (Meaning::Reload, Phase::Serving) => self.reload(),
                    (Meaning::Terminate { certain }, Phase::Serving) => self.terminate(certain),
                    (Meaning::Terminate { .. }, _) => return Ok(End::Drained),
                    (Meaning::Reload, _) => {}
                }
            }
            if let Some(until) = self.stop_watch {
                self.end_stopped();
                if self.event_loop.now() >= until {
                    self.stop_watch = None;
                }
            }
            if self.is_over() {
                return Ok(End::Drained);
            }
        }
    }

    /// How long the loop may wait before something here is due.
    fn patience(&self) -> Option<Duration> {
        let until = |at: Instant| at.saturating_duration_since(self.event_loop.now());
        let phase = match self.phase {
            Phase::Draining(at) | Phase::Leaving(at) => Some(until(at)),
            Phase::Serving => self.stop_watch.map(|_| STOP_INTERVAL),
        };
        phase.into_iter().chain(self.memory.due().map(until)).min()
    }

    /// Takes up what was learned before, and begins to answer questions about the state. Neither is
    /// worth ending a server for.
    fn remember(&mut self) {
        let directory = self.configuration.state_directory();
        if self.memory.directory() != directory.as_deref() {
            let now = self.event_loop.now();
            self.memory.finish(self.event_loop.learner(), now);
            self.memory = Memory::new(directory);
            let policy = Rc::clone(self.configuration.authority.policy());
            let learner = self.event_loop.learner();
            let has_learned = learner.worked().next().is_some();
            self.memory.load(learner, policy.table());
            if has_learned {
                self.memory.write_soon(now);
            }
        }
        let path = self.configuration.status_path(self.memory.directory());
        let same = match (self.event_loop.status_socket(), &path) {
            (Some(socket), Some(path)) => socket.is_at(path),
            (None, None) => true,
            _ => false,
        };
        if same {
            return;
        }
        let failed = |path: &Path, error: &io::Error| {
            log::warn(format_args!("unable to answer 'repohostd status' at '{}': {error}", path.display()));
        };
        let socket =
            path.as_deref().and_then(|path| StatusSocket::open(path).inspect_err(|error| failed(path, error)).ok());
        if let Err(error) = self.event_loop.answer_on(socket) {
            failed(path.as_deref().unwrap_or(Path::new("")), &error);
        }
    }

    /// Moves the shutdown on; whether there is nothing left to wait for.
    fn is_over(&mut self) -> bool {
        let now = self.event_loop.now();
        match self.phase {
            Phase::Serving => false,
            _ if self.event_loop.connections() == 0 => true,
            Phase::Draining(until) if now >= until => {
                log::warn(format_args!(
                    "{} sessions were still busy at the end of drain-timeout and are aborted",
                    self.event_loop.connections()
                ));
                self.event_loop.end(Ending::Abort, |_| Some(terminated("SIGTERM")));
                self.phase = Phase::Leaving(now + FAREWELL);
                self.event_loop.connections() == 0
            }
            Phase::Draining(_) => false,
            Phase::Leaving(until) => now >= until,
        }
    }

    fn terminate(&mut self, certain: bool) {
        if !certain && self.end_stopped() > 0 {
            log::info(format_args!(
                "signal [SIGTERM] ends the sessions of stopped stanzas, as 'pgbackrest stop --force' asks for"
            ));
            self.stop_watch = Some(self.event_loop.now() + STOP_WATCH);
            return;
        }
        self.notify.stopping("finishing requests in flight");
        drop(self.event_loop.take_listeners());
        let sessions = self.event_loop.end(Ending::Drain, |_| Some(terminated("SIGTERM")));
        log::detail(format_args!("signal [SIGTERM]: no more connections, {sessions} open ones finish their request"));
        self.phase = Phase::Draining(self.event_loop.now() + self.configuration.server().own.drain_timeout);
    }

    /// Ends the sessions of stopped stanzas whose lock files are gone; how many stanzas whose locks are
    /// held here, or were until a moment ago, have a stop file. Only of these can `stop --force` have
    /// found our process: a stanza that was stopped long ago must not keep anybody from ending the server.
    ///
    /// It signals those whose lock files it removed. Restores and others without locks go on, and who
    /// comes later is told of the stop file, as by the original.
    fn end_stopped(&mut self) -> usize {
        let lock_path: PathBuf = self.configuration.server().lock_path.clone();
        let mut stopped = self.event_loop.locked_stanzas();
        stopped.retain(|stanza| is_stopped(&lock_path, stanza.as_deref()));
        let is_meant = |client: &ClientView<'_>| {
            stopped.iter().any(|stanza| stanza.as_deref() == client.stanza)
                && client.locks.iter().any(HeldLock::is_orphaned)
        };
        self.event_loop.end(Ending::Abort, |client| is_meant(client).then(|| terminated("SIGTERM")));
        stopped.len()
    }

    fn reload(&mut self) {
        self.notify.reloading();
        log::detail(format_args!("configuration reload begin"));
        let status = match self.replace() {
            Ok(()) => {
                log::detail(format_args!("configuration reload end"));
                self.status()
            }
            Err(error) => {
                log::error(&error);
                log::warn(format_args!("configuration reload failed, so the server goes on with what it had"));
                format!("configuration reload failed: {error}; {}", self.status())
            }
        };
        self.notify.ready(&status);
    }

    /// Builds the new state and swaps it in.
    fn replace(&mut self) -> Result<()> {
        let mut configuration = Configuration::load(&self.arguments, &self.environment)?;
        let service = configuration.service(self.descriptors)?;
        let configured = if self.inherited { None } else { Some(configuration.endpoints()?) };
        let mut previous = self.event_loop.take_listeners();
        let endpoints = configured.unwrap_or_else(|| previous.iter().map(|listener| listener.endpoint).collect());
        let opened = listen::open_all(&endpoints, configuration.keep_alive(), &mut previous);
        let (listeners, result) = match opened {
            Ok(listeners) => (listeners, Ok(())),
            Err(error) => (std::mem::take(&mut previous), Err(error)),
        };
        self.event_loop.listen(listeners).map_err(|error| system("unable to listen on socket", &error))?;
        result?;
        drop(previous);

        self.event_loop.replace(service);
        self.configuration = configuration;
        log::apply(&self.configuration.log);
        log::info(format_args!("{}", self.configuration.begin));
        self.configuration.log_warnings();
        self.remember();
        self.end_revoked();
        Ok(())
    }

    /// Ends the sessions of clients that lost the right to them.
    fn end_revoked(&mut self) {
        if !self.configuration.server().own.end_revoked_sessions {
            return;
        }
        let authority = &self.configuration.authority;
        let tls = self.event_loop.service().tls.clone();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let stranger = |client: &ClientView<'_>| {
            // a certificate that was valid when the session began may expire while it lasts
            let begun = UnixTime::since_unix_epoch(now.saturating_sub(client.age));
            client.authorized && !tls.trusts(client.certificates, begun)
        };
        let revoked = |client: &ClientView<'_>| {
            client.authorized && client.names.is_none_or(|names| !authority.grants(names, client.stanza, client.role))
        };
        // who may have stolen a key gets no more of what is in transfer
        let error = || Error::access("access denied\nHINT: the client's certificate is no longer accepted.");
        self.event_loop.end(Ending::Abort, |client| stranger(client).then(error));
        let error = || Error::access("access denied\nHINT: the server's configuration no longer grants it.");
        self.event_loop.end(Ending::Drain, |client| revoked(client).then(error));
    }

    fn status(&self) -> String {
        let addresses: Vec<_> = self.event_loop.addresses().iter().map(ToString::to_string).collect();
        let release = match self.configuration.authority.policy().general() {
            Some(release) => format!("as pgBackRest {}", release.version),
            None => "as the pgBackRest of each client".to_owned(),
        };
        format!("listening on {} {release}", addresses.join(", "))
    }

    const fn timestamps(&self) -> bool {
        self.configuration.log.timestamp
    }
}

/// What is there when everything can begin.
struct Ready {
    event_loop: EventLoop,
    descriptors: Option<u64>,
    inherited: bool,
}

/// Listens, loads certificates and makes the loop; `None` when a signal came first.
fn prepare(configuration: &mut Configuration) -> Result<Option<Ready>> {
    if let Some(priority) = configuration.server().priority
        && let Err(errno) = rustix::process::setpriority_process(None, priority)
    {
        let error = Error::system(Code::Kernel, "unable to set priority", errno.raw_os_error());
        log::warn(format_args!("{}", error.message));
    }
    let descriptors = limits::raise_descriptors();
    let mut signals = Signals::install().map_err(|error| system("unable to install signal handlers", &error))?;
    let mut listeners = listen::inherited(configuration.keep_alive())?;
    let inherited = !listeners.is_empty();
    if !inherited {
        let endpoints = configuration.endpoints()?;
        listeners = match bind_patiently(&endpoints, configuration.keep_alive(), &mut signals)? {
            Bound::Listening(listeners) => listeners,
            Bound::Ended(signal) => {
                interrupted(signal);
                return Ok(None);
            }
        };
    } else if listeners.iter().all(|listener| listener.endpoint.address.port() != configuration.server().port) {
        log::warn(format_args!(
            "the service manager's sockets listen on another port than tls-server-port={}, which has no effect\n\
             HINT: ListenStream= of the socket unit says where to listen.",
            configuration.server().port
        ));
    }
    let service = configuration.service(descriptors)?;
    let io_uring = configuration.server().own.io_uring;
    let disk = Box::new(Offload::new(Options::default(), io_uring, helpers::start_process));
    let failed = |error: io::Error| system("unable to start the event loop", &error);
    let mut event_loop = EventLoop::new(service, disk).map_err(failed)?;
    event_loop.watch(signals).map_err(failed)?;
    event_loop.listen(listeners).map_err(failed)?;
    Ok(Some(Ready { event_loop, descriptors, inherited }))
}

/// Reports an error that came before the log settings were known. The original tells apart by where
/// it noticed: the command line's errors go to standard error, later ones to standard output
/// (specification, section 2.8).
fn report_unread(error: &Error) {
    let command_line =
        matches!(error.code, Code::CommandRequired | Code::OptionInvalid | Code::CommandInvalid | Code::ParamInvalid);
    let stderr = command_line && !error.message.contains("HINT: the value stands in");
    let level = if stderr { log::Level::Error } else { log::Level::Off };
    log::apply(&log::Settings { stderr: level, ..log::Settings::default() });
    log::error(error);
}

enum Bound {
    Listening(Vec<Listener>),
    /// A signal came first.
    Ended(&'static str),
}

/// Opens every endpoint, waiting for a bounded time while a port is in use.
fn bind_patiently(endpoints: &[Endpoint], keep_alive: KeepAlive, signals: &mut Signals) -> Result<Bound> {
    let begun = Instant::now();
    let mut warned = false;
    loop {
        let error = match listen::open_all(endpoints, keep_alive, &mut Vec::new()) {
            Ok(listeners) => return Ok(Bound::Listening(listeners)),
            Err(error) => error,
        };
        if begun.elapsed() >= BIND_PATIENCE {
            return Err(error);
        }
        if !std::mem::replace(&mut warned, true) {
            log::warn(format_args!("{}; trying again for {} s", error.message, BIND_PATIENCE.as_secs()));
        }
        for meaning in signals.wait(BIND_PAUSE) {
            if meaning != Meaning::Reload {
                return Ok(Bound::Ended(meaning.signal()));
            }
        }
    }
}

fn system(text: &str, error: &io::Error) -> Error {
    Error::system(Code::Kernel, text, error.raw_os_error().unwrap_or(0))
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
