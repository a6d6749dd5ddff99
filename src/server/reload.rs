//! From configuration to what the event loop serves, at start and at every reload.
//!
//! Everything is built before anything is replaced, so that an error leaves the old state.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Access, access};

use super::authority::{Authorities, Configured};
use super::connection::Service;
use super::limits;
use super::listen::{self, Endpoint, KeepAlive};
use super::releases::policy::Policy;
use super::status;
use super::tls::{self, Tls, TlsFiles};
use crate::config::{self, Environment, LogLevel, OwnSettings, ServerSettings};
use crate::observe::log::{self, Level};
use crate::protocol::error::Result;
use crate::protocol::release::Release;
use crate::session::Limits;

/// The log file's name: the command has no stanza, and is called `server`.
const LOG_FILE: &str = "all-server.log";
/// Where learned releases are kept unless `state-path` says otherwise.
const STATE_DIRECTORY: &str = "/var/lib/repohostd";
/// The directory in it for versions of info files, unless `history-path` says otherwise.
const HISTORY: &str = "history";
/// Where the status socket is unless `status-socket` says otherwise.
const RUN_DIRECTORY: &str = "/run/repohostd";

/// A configuration that was read and checked, before certificates are loaded.
pub(super) struct Configuration {
    pub(super) authority: Rc<Configured>,
    pub(super) log: log::Settings,
    /// The text of the line `server command begin`.
    pub(super) begin: String,
    pub(super) warnings: Vec<String>,
}

impl Configuration {
    /// Reads command line, environment and files.
    ///
    /// # Errors
    ///
    /// Those of [`config::load_server`], and 32 for a release that is not known.
    pub(super) fn load(arguments: &[String], environment: &Environment) -> Result<Self> {
        let (files, loaded) = config::load_server(arguments, environment)?;
        let policy = Policy::new(&loaded.server.own)?;
        let release = policy.general().unwrap_or_else(Release::newest);
        let mut warnings = loaded.warnings;
        warnings.extend(policy.warnings());
        Ok(Self {
            log: log_settings(&loaded.server),
            begin: format!("server command begin {}: {}", release.version, loaded.begin),
            warnings,
            authority: Rc::new(Configured::new(loaded.server, files, environment.clone(), Rc::new(policy))),
        })
    }

    pub(super) fn server(&self) -> &ServerSettings {
        self.authority.server()
    }

    /// Loads certificates and puts together what connections are served with. Further warnings are
    /// added to [`Configuration::warnings`].
    ///
    /// # Errors
    ///
    /// Those of [`tls::server_config`].
    pub(super) fn service(&mut self, descriptors: Option<u64>) -> Result<Service> {
        let (tls, warnings) = tls_of(self.server(), None)?;
        self.warnings.extend(warnings);
        let server = self.server();
        let own = &server.own;
        let connections = limits::connections(own.connection_max, descriptors);
        let reduced = (connections < own.connection_max).then(|| {
            format!(
                "connection-max={} needs more open files than this process may have; {connections} connections are \
                 served\nHINT: raise LimitNOFILE of the service or 'ulimit -n'.",
                own.connection_max
            )
        });
        let service = Service {
            tls,
            authority: Rc::clone(&self.authority) as Rc<dyn Authorities>,
            policy: Rc::clone(self.authority.policy()),
            handshake: own.handshake_timeout,
            limits: Limits {
                first_request: own.handshake_timeout,
                idle: server.protocol_timeout,
                listing: own.listing_memory_max,
                memory: own.memory_max,
            },
            connections,
            connections_per_address: own.connection_max_per_address.unwrap_or(usize::MAX),
        };
        self.warnings.extend(reduced);
        Ok(service)
    }

    /// The directory to keep what is learned in. Where there is none, that is said.
    pub(super) fn state_directory(&self) -> Option<PathBuf> {
        let own = &self.server().own;
        let directory = state_path(own);
        if is_writable_directory(&directory) {
            return Some(directory);
        }
        if own.state_path.is_some() {
            log::warn(format_args!(
                "state-path '{}' is no directory that this user can write to, so learned releases are forgotten at \
                 the end",
                directory.display()
            ));
        } else if self.authority.policy().general().is_none() {
            log::info(format_args!(
                "learned releases are forgotten at the end: there is no writable '{STATE_DIRECTORY}' and no state-path"
            ));
        }
        None
    }

    /// Where to answer questions about the state.
    pub(super) fn status_path(&self, state: Option<&Path>) -> Option<PathBuf> {
        if let Some(path) = &self.server().own.status_socket {
            return Some(path.clone());
        }
        let run = Some(Path::new(RUN_DIRECTORY)).filter(|path| is_writable_directory(path));
        run.or(state).map(|directory| directory.join(status::SOCKET))
    }

    /// The addresses to listen on.
    ///
    /// # Errors
    ///
    /// 49 for a name without address.
    pub(super) fn endpoints(&self) -> Result<Vec<Endpoint>> {
        listen::resolve(&self.server().addresses, self.server().port)
    }

    pub(super) fn keep_alive(&self) -> KeepAlive {
        let server = self.server();
        KeepAlive {
            enabled: server.keep_alive,
            count: server.keep_alive_count,
            idle: server.keep_alive_idle,
            interval: server.keep_alive_interval,
        }
    }

    /// Logs what the reader and the certificates gave rise to.
    pub(super) fn log_warnings(&mut self) {
        for warning in self.warnings.drain(..) {
            log::warn(format_args!("{warning}"));
        }
    }
}

/// Where a server with these settings answers questions about its state, the likeliest first.
#[must_use]
pub fn status_paths(own: &OwnSettings) -> Vec<PathBuf> {
    if let Some(path) = &own.status_socket {
        return vec![path.clone()];
    }
    [PathBuf::from(RUN_DIRECTORY), state_path(own)].into_iter().map(|path| path.join(status::SOCKET)).collect()
}

/// Where a server with these settings keeps what it learned.
#[must_use]
pub fn state_path(own: &OwnSettings) -> PathBuf {
    own.state_path.clone().unwrap_or_else(|| PathBuf::from(STATE_DIRECTORY))
}

/// Where a server with these settings keeps earlier versions of info files. `None` when it keeps none,
/// since nothing is configured and there is no state directory.
#[must_use]
pub fn history_path(own: &OwnSettings) -> Option<PathBuf> {
    let beside_state = || Some(state_path(own)).filter(|state| state.is_dir()).map(|state| state.join(HISTORY));
    own.history_path.clone().or_else(beside_state).filter(|_| own.protection.info_history > 0)
}

fn is_writable_directory(path: &Path) -> bool {
    path.is_dir() && access(path, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// Loads the certificates and ciphers that a configuration names, with warnings.
///
/// # Errors
///
/// Those of [`tls::server_config`].
pub fn tls_of(server: &ServerSettings, user: Option<u32>) -> Result<(Tls, Vec<String>)> {
    tls::server_config(&TlsFiles {
        cert: &server.cert_file,
        key: &server.key_file,
        ca: &server.ca_file,
        crl: server.own.crl_file.as_deref(),
        cipher_12: server.tls_cipher_12.as_deref(),
        cipher_13: server.tls_cipher_13.as_deref(),
        user,
    })
}

fn log_settings(server: &ServerSettings) -> log::Settings {
    log::Settings {
        console: level(server.log_level_console),
        stderr: level(server.log_level_stderr),
        file: level(server.log_level_file),
        path: server.log_path.join(LOG_FILE),
        timestamp: server.log_timestamp,
    }
}

const fn level(level: LogLevel) -> Level {
    match level {
        LogLevel::Off => Level::Off,
        LogLevel::Error => Level::Error,
        LogLevel::Warn => Level::Warn,
        LogLevel::Info => Level::Info,
        LogLevel::Detail => Level::Detail,
        LogLevel::Debug => Level::Debug,
        LogLevel::Trace => Level::Trace,
    }
}
