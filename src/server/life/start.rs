//! What has to be there before a server can begin: priority, descriptors, sockets to listen on.

use std::time::{Duration, Instant};

use super::configuration::Configuration;
use super::limits;
use super::signals::{Meaning, Signals};
use super::system;
use crate::config::snapshot::Origin;
use crate::observe::log;
use crate::protocol::error::{Code, Error, Result};
use crate::server::event_loop::listen::{self, Endpoint, KeepAlive, Listener};
use crate::server::service::Service;

/// How long a busy port is waited for. A predecessor's exit takes a moment.
const BIND_PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two attempts.
const BIND_PAUSE: Duration = Duration::from_millis(200);

/// What a server has opened before it begins.
pub(super) struct Opened {
    /// None in tests, which send none.
    pub(crate) signals: Option<Signals>,
    pub(crate) listeners: Vec<Listener>,
    /// The service manager opened the sockets and decides where they listen.
    pub(crate) inherited: bool,
    pub(crate) descriptors: Option<u64>,
}

/// What came first.
pub(super) enum Start<T> {
    /// All of this is there.
    Listening(T),
    /// This signal.
    Ended(&'static str),
}

/// Loads certificates from `origin` and listens: who can connect finds a server that is complete.
pub(super) fn start(configuration: &mut Configuration, origin: &Origin) -> Result<Start<(Service, Opened)>> {
    if let Some(priority) = configuration.server().priority
        && let Err(errno) = rustix::process::setpriority_process(None, priority)
    {
        let error = Error::system(Code::Kernel, "unable to set priority", errno.raw_os_error());
        log::warn(format_args!("{}", error.message));
    }
    let descriptors = limits::raise_descriptors();
    let mut signals = Signals::install().map_err(system("unable to install signal handlers"))?;
    let service = configuration.service(descriptors, origin)?;
    let mut listeners = listen::inherited(configuration.keep_alive())?;
    let inherited = !listeners.is_empty();
    if !inherited {
        let endpoints = configuration.endpoints()?;
        listeners = match bind_patiently(&endpoints, configuration.keep_alive(), &mut signals)? {
            Start::Listening(listeners) => listeners,
            Start::Ended(signal) => return Ok(Start::Ended(signal)),
        };
    } else if listeners.iter().all(|listener| listener.endpoint.address.port() != configuration.server().port) {
        log::warn(format_args!(
            "the service manager's sockets listen on another port than tls-server-port={}, which has no effect\n\
             HINT: ListenStream= of the socket unit says where to listen.",
            configuration.server().port
        ));
    }
    let opened = Opened { signals: Some(signals), listeners, inherited, descriptors };
    Ok(Start::Listening((service, opened)))
}

/// Opens every endpoint, waiting for a bounded time while a port is in use.
fn bind_patiently(
    endpoints: &[Endpoint],
    keep_alive: KeepAlive,
    signals: &mut Signals,
) -> Result<Start<Vec<Listener>>> {
    let begun = Instant::now();
    let mut warned = false;
    loop {
        let error = match listen::open_all(endpoints, keep_alive, &mut Vec::new()) {
            Ok(listeners) => return Ok(Start::Listening(listeners)),
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
                return Ok(Start::Ended(meaning.signal()));
            }
        }
    }
}
