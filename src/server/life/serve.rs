//! The life of the server process: start, reload, drain, end. With several workers it is the
//! [supervisor's](crate::server::workers).
//! Source: specification, sections 2.1, 2.6 and 2.10; the design's improvements on them.

use std::path::Path;
use std::time::{Duration, Instant};

use super::configuration::Configuration;
use super::front;
use super::notify::Notify;
use super::serving::{Phase, Serving, new_host, system};
use super::signals::Meaning;
use super::start::{Start, Started, start};
use super::supervisor::Supervisor;
use super::umask;
use crate::config::Environment;
use crate::config::snapshot::Origin;
use crate::observe::log;
use crate::protocol::error::{Code, Error, Result};
use crate::server::releases::installed::Installed;
use crate::server::releases::memory::Memory;

/// Serves until a signal ends it. Returns the exit status; failures have been logged.
#[must_use]
pub fn serve(arguments: &[String], environment: &Environment) -> u8 {
    log::connect();
    umask::clear();
    let begun = Instant::now();
    let origin = Origin::recording();
    let configuration = match Configuration::load(arguments, environment, &origin) {
        Ok(configuration) => configuration,
        Err(error) => {
            report_unread(&error);
            return error.code.number();
        }
    };
    log::apply(&configuration.log);
    log::info(format_args!("{}", configuration.begin));
    let workers = configuration.server().own.workers.number();
    let (end, timestamps) = if workers > 1 {
        Supervisor::serve(configuration, arguments, environment, workers, origin)
    } else {
        drop(origin);
        Server::serve(configuration, arguments, environment)
    };
    match end {
        Ok(End::Drained) => {
            let time = if timestamps { format!(" ({}ms)", begun.elapsed().as_millis()) } else { String::new() };
            log::info(format_args!("server command end: completed successfully{time}"));
            0
        }
        Ok(End::Interrupted(signal)) => {
            log::info(format_args!("server command end: terminated on signal [{signal}]"));
            Code::Term.number()
        }
        Err(error) => {
            log::error(&error);
            log::info(format_args!("server command end: aborted with exception [{:03}]", error.code.number()));
            error.code.number()
        }
    }
}

/// Why a server ends.
pub(super) enum End {
    Drained,
    Interrupted(&'static str),
}

/// A server of one process.
struct Server {
    arguments: Vec<String>,
    environment: Environment,
    descriptors: Option<u64>,
    /// The service manager opened the sockets and decides where they listen.
    inherited: bool,
    serving: Serving,
    notify: Notify,
    memory: Memory,
}

impl Server {
    /// Serves until the end; with it, whether the log has times.
    fn serve(mut configuration: Configuration, arguments: &[String], environment: &Environment) -> (Result<End>, bool) {
        let timestamps = configuration.log.timestamp;
        let started = match start(&mut configuration, &Origin::Disk) {
            Ok(Start::Listening(started)) => started,
            Ok(Start::Ended(signal)) => return (Ok(End::Interrupted(signal)), timestamps),
            Err(error) => return (Err(error), timestamps),
        };
        let mut server = match Self::begin(configuration, *started, arguments, environment) {
            Ok(server) => server,
            Err(error) => return (Err(error), timestamps),
        };
        let end = server.run();
        (end, server.serving.configuration.log.timestamp)
    }

    fn begin(
        configuration: Configuration,
        Started { service, signals, listeners, inherited, descriptors }: Started,
        arguments: &[String],
        environment: &Environment,
    ) -> Result<Self> {
        let mut serving = Serving::new(configuration, service, new_host(), None)?;
        let failed = |error| system("unable to start the event loop", &error);
        serving.watch(signals)?;
        serving.event_loop.listen(listeners).map_err(failed)?;
        let mut server = Self {
            arguments: arguments.to_vec(),
            environment: environment.clone(),
            descriptors,
            inherited,
            serving,
            notify: Notify::from_environment(),
            memory: Memory::new(None),
        };
        server.serving.configuration.log_warnings();
        server.remember();
        if let Some(period) = server.notify.watchdog() {
            server.serving.event_loop.arm_watchdog(period);
        }
        let status = server.status();
        log::detail(format_args!("{status}"));
        server.notify.ready(&status);
        let Serving { event_loop, configuration, .. } = &mut server.serving;
        if Installed::is_wanted(&configuration.server().own, configuration.authority.policy()) {
            event_loop.ask_installed();
        }
        Ok(server)
    }

    fn run(&mut self) -> Result<End> {
        let end = self.turn_until_end();
        let now = self.serving.event_loop.now();
        self.memory.finish(self.serving.event_loop.learner(), now);
        end
    }

    fn turn_until_end(&mut self) -> Result<End> {
        loop {
            let turn =
                self.serving.event_loop.turn(self.patience()).map_err(|error| system("unable to wait", &error))?;
            let now = self.serving.event_loop.now();
            self.memory.keep(self.serving.event_loop.learner(), now);
            if turn.watchdog {
                self.notify.alive();
                if let Some(period) = self.notify.watchdog() {
                    self.serving.event_loop.arm_watchdog(period);
                }
            }
            for signal in self.serving.signals(&turn) {
                match (signal, self.serving.phase) {
                    (Meaning::Interrupt, _) => return Ok(End::Interrupted(signal.signal())),
                    (Meaning::Reload, Phase::Serving) => self.reload(),
                    (Meaning::Terminate { certain }, Phase::Serving) => self.terminate(certain),
                    (Meaning::Terminate { .. }, _) => return Ok(End::Drained),
                    (Meaning::Reload, _) => {}
                }
            }
            if self.serving.is_done() {
                return Ok(End::Drained);
            }
        }
    }

    /// How long the loop may wait before something here is due.
    fn patience(&self) -> Option<Duration> {
        let until = |at: Instant| at.saturating_duration_since(self.serving.event_loop.now());
        self.serving.patience().into_iter().chain(self.memory.due().map(until)).min()
    }

    /// Takes up what was learned before, and begins to answer questions about the state. Neither is
    /// worth ending a server for.
    fn remember(&mut self) {
        let Serving { event_loop, configuration, .. } = &mut self.serving;
        let now = event_loop.now();
        front::remember(configuration, &mut self.memory, event_loop.learner(), now);
        if front::is_status_in_place(configuration, &self.memory, event_loop.status_socket()) {
            return;
        }
        if let Err(error) = event_loop.answer_on(front::open_status(configuration, &self.memory)) {
            let path = configuration.status_path(self.memory.directory());
            front::no_status(path.as_deref().unwrap_or(Path::new("")), &error);
        }
    }

    fn terminate(&mut self, certain: bool) {
        if !certain && self.serving.stop_sessions() {
            return;
        }
        self.notify.stopping("finishing requests in flight");
        drop(self.serving.event_loop.take_listeners());
        let sessions = self.serving.drain();
        log::detail(format_args!("signal [SIGTERM]: no more connections, {sessions} open ones finish their request"));
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
                self.serving.configuration.authority.outlive_reload();
                format!("configuration reload failed: {error}; {}", self.status())
            }
        };
        self.notify.ready(&status);
    }

    /// Builds the new state and swaps it in.
    fn replace(&mut self) -> Result<()> {
        let mut configuration = self.serving.configuration.reload(&self.arguments, &self.environment, &Origin::Disk)?;
        let service = configuration.service(self.descriptors, &Origin::Disk)?;
        let endpoints = front::endpoints(&configuration, self.inherited)?;
        let event_loop = &mut self.serving.event_loop;
        let relistened = front::relisten(&configuration, endpoints, event_loop.take_listeners());
        event_loop.listen(relistened.listeners).map_err(|error| system("unable to listen on socket", &error))?;
        relistened.result?;
        drop(relistened.previous);

        self.serving.replace(configuration, service);
        log::info(format_args!("{}", self.serving.configuration.begin));
        self.serving.configuration.log_warnings();
        self.remember();
        self.serving.end_revoked();
        Ok(())
    }

    fn status(&self) -> String {
        front::status_line(&self.serving.event_loop.addresses(), &self.serving.configuration)
    }
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

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
