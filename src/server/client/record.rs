//! What the log says of a client: one line when its session ends, one for each refusal.
//!
//! The original logs nothing of a session (specification, section 10, weakness 9).

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::observe::log::{self, Level};
use crate::observe::quota::{Kind, Quotas};
use crate::protocol::error::{Code, Error};
use crate::server::client::view::SessionState;
use crate::session::{Counters, Event, Opened, Refusal};

/// A client that keeps asking for what it may not have does not fill the log.
const FAILURES_LOGGED: u32 = 20;
/// Further ones are shown once in this time.
const BETWEEN: Duration = Duration::from_secs(1);

/// What is known of a client, gathered while it is connected.
#[derive(Debug)]
pub(super) struct Record {
    peer: SocketAddr,
    since: Instant,
    client: Option<String>,
    /// What it was greeted with.
    release: Option<&'static str>,
    opened: Option<Opened>,
    /// Why it ended, if not because the client said `exit`.
    end: Option<String>,
    /// Failed requests that are worth a warning.
    failures: u32,
    /// When one of them was last shown.
    shown: Option<Instant>,
}

impl Record {
    pub(crate) fn new(peer: SocketAddr) -> Self {
        // Clients are shown by the address that they have themselves.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Self {
            peer,
            since: Instant::now(),
            client: None,
            release: None,
            opened: None,
            end: None,
            failures: 0,
            shown: None,
        }
    }

    pub(crate) const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// How long it has been connected.
    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    pub(super) const fn is_opened(&self) -> bool {
        self.opened.is_some()
    }

    pub(super) fn set_client(&mut self, name: String) {
        self.client = Some(name);
    }

    pub(crate) fn client(&self) -> &str {
        self.client.as_deref().unwrap_or_default()
    }

    pub(super) const fn set_release(&mut self, version: &'static str) {
        self.release = Some(version);
    }

    /// What is shown of the session.
    pub(crate) fn view(&self, release: &'static str, counters: Counters) -> SessionState {
        let opened = self.opened.as_ref();
        SessionState {
            pid: std::process::id(),
            peer: self.peer,
            client: self.client.clone(),
            stanza: opened.and_then(|opened| opened.stanza.clone()),
            command: opened.map(|opened| opened.command.clone()),
            process: opened.map(|opened| opened.process),
            release: release.to_owned(),
            seconds: self.age().as_secs(),
            requests: counters.requests,
            errors: counters.errors,
            denied: counters.denied,
            read: counters.read,
            written: counters.written,
        }
    }

    /// Notes why the connection ends; the first reason is the one that counts.
    pub(crate) fn end(&mut self, reason: impl Into<String>) {
        self.end.get_or_insert(reason.into());
    }

    /// Notes and logs what a session tells, as far as its client may still cause lines.
    pub(crate) fn event(&mut self, event: Event, quotas: &mut Quotas, now: Instant) {
        match event {
            Event::Opened(opened) => self.opened = Some(opened),
            Event::Refused(Refusal { error, reason }) => {
                let level = match error.code {
                    // What clients are meant to run into, and what the server itself announced.
                    Code::Stop | Code::LockAcquire => Level::Info,
                    Code::Term => Level::Detail,
                    _ if self.client.is_none() => Level::Detail,
                    _ => Level::Warn,
                };
                let what = if self.opened.is_some() { "session ends" } else { "refused" };
                let reason = reason.map_or(String::new(), |reason| format!(" ({reason})"));
                if self.passes(level, kind_of(&error), quotas, now) {
                    log::write(level, "session", format_args!("{}: {what}: {error}{reason}", self.who()));
                }
                self.end(format!("error [{:03}]", error.code.number()));
            }
            Event::Noticed(text) => {
                if self.passes(Level::Warn, Kind::Failed, quotas, now) {
                    log::write(Level::Warn, "session", format_args!("{}: {text}", self.who()));
                }
            }
            Event::Failed { request, error } => self.log_failure(&request, &error, quotas, now),
        }
    }

    /// Logs a request that failed. Clients ask for files that may be missing as a matter of course; a
    /// full disk or a request that is not allowed is something else.
    fn log_failure(&mut self, request: &str, error: &Error, quotas: &mut Quotas, now: Instant) {
        let expected =
            matches!(error.code, Code::FileMissing | Code::FileRemove | Code::PathCreate | Code::PathMissing);
        let level = if expected { Level::Detail } else { Level::Warn };
        if !expected && !self.may_warn() || !self.passes(level, kind_of(error), quotas, now) {
            return;
        }
        let what = if error.code == Code::Access { "denied" } else { "failed" };
        let rarely = if self.failures == FAILURES_LOGGED { " (from now on one of them a second is shown)" } else { "" };
        log::write(level, "session", format_args!("{}: request '{request}' {what}{rarely}: {error}", self.who()));
    }

    /// Whether another failure is shown: a client must not fill the disk with them, and neither hide one
    /// behind many others.
    fn may_warn(&mut self) -> bool {
        self.failures += 1;
        let often = self.failures > FAILURES_LOGGED && self.shown.is_some_and(|shown| shown.elapsed() < BETWEEN);
        if !often {
            self.shown = Some(Instant::now());
        }
        !often
    }

    /// Whether a line may be written as far as the client is concerned. What nobody sees counts for nothing; those
    /// who have no certificate are bounded together.
    fn passes(&self, level: Level, kind: Kind, quotas: &mut Quotas, now: Instant) -> bool {
        self.client.as_deref().is_none_or(|client| log::enabled(level) && quotas.pass(client, kind, now))
    }

    /// Logs that a client did not take up its session.
    pub(super) fn decline(&mut self, reason: &str, quotas: &mut Quotas, now: Instant) {
        if self.passes(Level::Detail, Kind::Failed, quotas, now) {
            return self.refuse(Level::Detail, reason, "");
        }
        self.end(reason);
    }

    /// Logs a connection that ended before it had a session.
    pub(crate) fn refuse(&mut self, level: Level, reason: &str, more: &str) {
        log::write(level, "connection", format_args!("{}: no session: {reason}{more}", self.who()));
        self.end(reason);
    }

    /// Logs the end of a session.
    pub(crate) fn close(&self, counters: Counters, quotas: &mut Quotas, now: Instant) {
        // A ping says nothing that an administrator waits for, and there are many of them.
        let level = if self.client.is_some() { Level::Info } else { Level::Detail };
        let kind = match self.end {
            // How much was denied in all is told nowhere else.
            _ if counters.denied > 0 => Kind::Denied,
            Some(_) => Kind::Failed,
            None => Kind::Completed,
        };
        if !log::enabled(level) || !self.passes(level, kind, quotas, now) {
            return;
        }
        let mut line = format!("session end: peer={} client={}", self.peer, self.client.as_deref().unwrap_or("-"));
        if let Some(release) = self.release {
            // Writing to a string does not fail.
            let _ = write!(line, " release={release}");
        }
        if let Some(opened) = &self.opened {
            let stanza = opened.stanza.as_deref().unwrap_or("-");
            let _ = write!(line, " stanza={stanza} command={} process={}", opened.command, opened.process);
        }
        let _ = write!(
            line,
            " requests={} errors={} denied={} read={}B written={}B duration={}ms end={}",
            counters.requests,
            counters.errors,
            counters.denied,
            counters.read,
            counters.written,
            self.since.elapsed().as_millis(),
            self.end.as_deref().unwrap_or("completed"),
        );
        log::write(level, "session", format_args!("{line}"));
    }

    fn who(&self) -> String {
        let stanza = self.opened.as_ref().and_then(|opened| opened.stanza.as_ref());
        match (&self.client, stanza) {
            (Some(client), Some(stanza)) => format!("client '{client}' at {}, stanza {stanza}", self.peer),
            (Some(client), None) => format!("client '{client}' at {}", self.peer),
            (None, _) => format!("client at {}", self.peer),
        }
    }
}

const fn kind_of(error: &Error) -> Kind {
    if matches!(error.code, Code::Access) { Kind::Denied } else { Kind::Failed }
}

/// The error that ends sessions at a shutdown.
pub(crate) fn terminated(signal: &str) -> Error {
    Error::new(Code::Term, format!("terminated on signal {signal}"))
}
