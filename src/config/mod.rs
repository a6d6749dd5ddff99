//! Configuration: what the server and each session are told, by whom, and what they may not be told.
//!
//! Owns the option table, the grammar and search of configuration files, the precedence of sources,
//! the checks of values, who may do what, and our own `repohostd.conf`. It opens configuration files
//! and nothing else: no socket, no certificate, no repository. Facts: the server specification,
//! sections 1, 2.4, 3.4 and 4; texts of errors are pgBackRest's because people search for them,
//! and what we add to them stands on a `HINT:` line of its own.
//!
//! ```text
//! arguments ─┐
//! environment ┼→ settings (raw texts) → server   (ServerSettings)
//! files → ini ┘                       → session  (SessionSettings) → query (opt-g)
//! ```

mod cluster;
mod command;
mod definitions;
mod describe;
mod faults;
mod files;
mod found;
mod grants;
pub mod ini;
mod network;
mod own;
mod pins;
mod query;
mod repositories;
mod role;
mod same_place;
mod server;
mod session;
mod settings;
pub mod snapshot;
mod value;
mod workers;

use std::collections::BTreeMap;
use std::ffi::OsString;

pub use cluster::Cluster;
pub use command::Command;
pub use describe::{Described, describe};
pub use faults::{Fault, faults};
pub use files::{Files, Search};
pub use found::{Found, Watch};
pub use grants::{Grant, Grants};
pub use network::NetworkCompression;
pub use own::OwnSettings;
pub use pins::{ListenerPin, Pin};
pub use repositories::{Host, KnownRepository, load_host, repositories};
pub use role::{NamedRights, Protection, Rights, Role};
pub use server::{AS_ROOT, Loaded, ServerSettings, check_files, load_from, load_own, load_server};
pub use session::{Repository, RepositoryKind, SessionSettings, Storage, parse_session};
pub use workers::Workers;

/// What the configuration takes from the process, whose caller looks so that tests can pass their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    process: u32,
}

impl Environment {
    /// The environment of the process that has the id `process`. Of its variables only those called `PGBACKREST_…` and
    /// `REPOHOSTD_…` count.
    #[must_use]
    pub fn new(variables: impl Iterator<Item = (OsString, OsString)>, process: u32) -> Self {
        let variables =
            variables.map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        let ours = |name: &str| name.starts_with("PGBACKREST_") || name.starts_with(own::ENVIRONMENT_PREFIX);
        Self { variables: variables.filter(|(name, _)| ours(name)).collect(), process }
    }
}

#[cfg(test)]
mod tests;
