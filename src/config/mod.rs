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

pub use cluster::Cluster;
pub use command::Command;
pub use describe::{Described, describe};
pub use faults::{Fault, faults};
pub use files::{Files, Search};
pub use found::{Found, Watch};
pub use grants::{Grant, Grants};
pub use own::OwnSettings;
pub use pins::{ListenerPin, Pin};
pub use repositories::{Host, KnownRepository, load_host, repositories};
pub use role::{NamedRights, Protection, Rights, Role};
pub use server::{AS_ROOT, Loaded, LogLevel, ServerSettings, check_files, load_from, load_own, load_server};
pub use session::{CipherType, Repository, RepositoryKind, SessionSettings, Storage, parse_session};
pub use workers::Workers;

/// The process's environment, captured by the caller so that tests can pass their own; only
/// variables called `PGBACKREST_…` and `REPOHOSTD_…` count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment(pub BTreeMap<String, String>);

impl Environment {
    /// The environment of this process, as far as it concerns the configuration.
    #[must_use]
    pub fn capture() -> Self {
        let variables = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        let ours = |name: &str| name.starts_with("PGBACKREST_") || name.starts_with(own::ENVIRONMENT_PREFIX);
        Self(variables.filter(|(name, _)| ours(name)).collect())
    }
}

#[cfg(test)]
mod tests;
