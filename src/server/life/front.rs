//! What a server shows to the outside, whether one process does everything or a supervisor has workers: where
//! it listens, what it remembers of clients' releases, where it answers questions about its state.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use super::configuration::Configuration;
use crate::observe::log;
use crate::protocol::error::Result;
use crate::server::event_loop::listen::{self, Endpoint, Listener};
use crate::server::releases::learner::Learner;
use crate::server::releases::memory::Memory;
use crate::server::status::StatusSocket;

/// Listeners as another configuration wants them.
pub(super) struct Relistened {
    /// Those to go on with, also after an error.
    pub(crate) listeners: Vec<Listener>,
    pub(crate) result: Result<()>,
    /// Those that are not wanted any more, to be closed once the others are in use.
    pub(crate) previous: Vec<Listener>,
}

/// Where to listen with this configuration; nowhere else if `inherited`.
///
/// # Errors
///
/// 49 for a name without address.
pub(crate) fn endpoints(configuration: &Configuration, inherited: bool) -> Result<Option<Vec<Endpoint>>> {
    if inherited { Ok(None) } else { configuration.endpoints().map(Some) }
}

/// Opens what is missing of `endpoints`, or the same as before where there are none.
pub(super) fn relisten(
    configuration: &Configuration,
    endpoints: Option<Vec<Endpoint>>,
    mut previous: Vec<Listener>,
) -> Relistened {
    let endpoints = endpoints.unwrap_or_else(|| previous.iter().map(|listener| listener.endpoint).collect());
    match listen::open_all(&endpoints, configuration.keep_alive(), &mut previous) {
        Ok(listeners) => Relistened { listeners, result: Ok(()), previous },
        Err(error) => Relistened { listeners: previous, result: Err(error), previous: Vec::new() },
    }
}

/// Takes up what was learned before, if the configuration says to keep it elsewhere than up to now.
pub(crate) fn remember(configuration: &Configuration, memory: &mut Memory, learner: &mut Learner, now: Instant) {
    let directory = configuration.state_directory();
    if memory.directory() == directory.as_deref() {
        return;
    }
    memory.finish(learner, now);
    *memory = Memory::new(directory);
    let policy = Rc::clone(configuration.authority.policy());
    let has_learned = learner.worked().next().is_some();
    memory.load(learner, policy.table());
    if has_learned {
        memory.write_soon(now);
    }
}

/// Whether questions about the state are answered where the configuration says.
pub(super) fn is_status_in_place(
    configuration: &Configuration,
    memory: &Memory,
    present: Option<&StatusSocket>,
) -> bool {
    match (present, configuration.status_path(memory.directory())) {
        (Some(socket), Some(path)) => socket.is_at(&path),
        (None, None) => true,
        _ => false,
    }
}

/// The socket to answer questions about the state on, if there is to be one and it can be had.
pub(super) fn open_status(configuration: &Configuration, memory: &Memory) -> Option<StatusSocket> {
    let path = configuration.status_path(memory.directory())?;
    StatusSocket::open(&path).inspect_err(|error| no_status(&path, error)).ok()
}

/// Says that no questions are answered; that is not worth ending a server for.
pub(super) fn no_status(path: &Path, error: &io::Error) {
    log::warn(format_args!("unable to answer 'repohostd status' at '{}': {error}", path.display()));
}

/// What the service manager is told.
pub(super) fn status_line(addresses: &[SocketAddr], configuration: &Configuration) -> String {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let release = match configuration.authority.policy().general() {
        Some(release) => format!("as pgBackRest {}", release.version),
        None => "as the pgBackRest of each client".to_owned(),
    };
    format!("listening on {} {release}", addresses.join(", "))
}
