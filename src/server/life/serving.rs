//! What serves clients, in a server of one process and in each worker: the event loop, the configuration
//! that it serves, and how far its end has come.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Registry, Token};
use rustls_pki_types::UnixTime;

use super::configuration::Configuration;
use super::front::Backend;
use super::stop_files::is_stopped;
use super::system;
use crate::config::snapshot::Snapshot;
use crate::disk::HeldLock;
use crate::disk::exclusion::Exclusion;
use crate::disk::helpers;
use crate::disk::inline::Options;
use crate::disk::offload::Offload;
use crate::observe::log;
use crate::protocol::error::{Error, Result};
use crate::server::client::record::terminated;
use crate::server::client::view::ClientView;
use crate::server::event_loop::accept::Acceptor;
use crate::server::event_loop::{Ending, EventLoop};
use crate::server::releases::learner::Learner;
use crate::server::service::Service;
use crate::server::since_epoch;
use crate::server::status::socket::Status;
use crate::session::Host;

/// What clients get to take their last bytes after sessions were aborted.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);
/// How long a SIGTERM that is meant for some sessions ends further ones of their stanzas: it comes once,
/// before the lock files of all of them are removed.
const STOP_WATCH: Duration = Duration::from_secs(2);
/// How often stop files are looked for in that time.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    /// Nobody comes any more, and the end is that of the last session.
    Retiring,
    /// Requests in flight finish until then.
    Draining(Instant),
    /// Clients take their last bytes until then.
    Leaving(Instant),
}

/// The event loop and what belongs to it.
pub(crate) struct Serving {
    pub(crate) event_loop: EventLoop,
    pub(crate) configuration: Configuration,
    pub(super) phase: Phase,
    /// Until when sessions of stopped stanzas are ended.
    stop_watch: Option<Instant>,
}

impl Serving {
    /// Serves `service`, which was made of `configuration`, in sessions of `host`, and excludes other processes where need be.
    pub(crate) fn new(
        configuration: Configuration,
        service: Service,
        host: Rc<Host>,
        exclusion: Option<Exclusion>,
    ) -> Result<Self> {
        let disk = Box::new(Offload::new(Options::default(), helpers::start_process, exclusion));
        let event_loop = EventLoop::new(service, host, disk).map_err(system("unable to start the event loop"))?;
        Ok(Self::with(event_loop, configuration))
    }

    /// Serves with an event loop that is there.
    pub(crate) const fn with(event_loop: EventLoop, configuration: Configuration) -> Self {
        Self { event_loop, configuration, phase: Phase::Serving, stop_watch: None }
    }

    /// How long the loop may wait before something here is due.
    fn patience(&self) -> Option<Duration> {
        match self.phase {
            Phase::Draining(at) | Phase::Leaving(at) => Some(at.saturating_duration_since(self.event_loop.now())),
            Phase::Serving | Phase::Retiring => self.stop_watch.map(|_| STOP_INTERVAL),
        }
    }

    /// Ends the sessions of stopped stanzas whose lock files are gone; how many stanzas whose locks are
    /// held here, or were until a moment ago, have a stop file. Only of these can `stop --force` have
    /// found our process: a stanza that was stopped long ago must not keep anybody from ending the server.
    ///
    /// It signals those whose lock files it removed. Restores and others without locks go on, and who
    /// comes later is told of the stop file, as by the original.
    pub(super) fn end_stopped(&mut self) -> usize {
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

    /// Ends the sessions of clients that lost the right to them.
    fn end_revoked(&mut self) {
        if !self.configuration.server().own.end_revoked_sessions {
            return;
        }
        let authority = &self.configuration.authority;
        let tls = self.event_loop.service().tls.clone();
        let now = since_epoch();
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
        self.event_loop.end(Ending::Revoke { at_once: true }, |client| stranger(client).then(error));
        let error = || Error::access("access denied\nHINT: the server's configuration no longer grants it.");
        self.event_loop.end(Ending::Revoke { at_once: false }, |client| revoked(client).then(error));
    }
}

/// What the sessions of this process share.
pub(super) fn new_host() -> Rc<Host> {
    Rc::new(Host::new(std::process::id()))
}

/// A server of one process.
impl Backend for Serving {
    type Prepared = ();

    fn registry(&self) -> &Registry {
        self.event_loop.registry()
    }

    fn now(&self) -> Instant {
        self.event_loop.now()
    }

    fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    fn learner(&mut self) -> &mut Learner {
        self.event_loop.learner()
    }

    fn turn(&mut self, longest: Option<Duration>, note: &mut dyn FnMut(Token)) -> Result<()> {
        let longest = longest.into_iter().chain(self.patience()).min();
        self.event_loop.turn(longest, note).map_err(system("unable to wait"))
    }

    fn admit(&mut self, socket: TcpStream, peer: SocketAddr) {
        self.event_loop.admit(socket, peer, None);
    }

    fn answer(&mut self, status: &mut Status, acceptor: &Acceptor) {
        if !status.is_idle() {
            let event_loop = &self.event_loop;
            let addresses = acceptor.addresses();
            status.advance(event_loop.now(), event_loop.registry(), || Some(event_loop.state(&addresses).compose()));
        }
    }

    fn prepare(&mut self, _snapshot: &Snapshot) -> Result<()> {
        Ok(())
    }

    fn replace(&mut self, configuration: Configuration, service: Service, (): ()) {
        self.event_loop.replace(service);
        self.configuration = configuration;
        log::apply(&self.configuration.log);
        self.end_revoked();
    }

    fn stop_sessions(&mut self) -> bool {
        if self.end_stopped() == 0 {
            return false;
        }
        log::info(format_args!(
            "signal [SIGTERM] ends the sessions of stopped stanzas, as 'pgbackrest stop --force' asks for"
        ));
        self.stop_watch = Some(self.event_loop.now() + STOP_WATCH);
        true
    }

    fn drain(&mut self) -> usize {
        let sessions = self.event_loop.end(Ending::Drain, |_| Some(terminated("SIGTERM")));
        self.phase = Phase::Draining(self.event_loop.now() + self.configuration.server().own.drain_timeout);
        sessions
    }

    fn is_over(&mut self) -> bool {
        let now = self.now();
        if let Some(until) = self.stop_watch {
            self.end_stopped();
            self.stop_watch = Some(until).filter(|until| now < *until);
        }
        match self.phase {
            Phase::Serving => false,
            // This one's end is no server's: nothing but its sessions decides when that is.
            Phase::Retiring => self.event_loop.connections() == 0,
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
}
