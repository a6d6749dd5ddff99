//! From configuration to what the event loop serves, at start and at every reload.
//!
//! Everything is built before anything is replaced, so that an error leaves the old state.

use std::rc::Rc;

use super::authority::Configured;
use super::connection::Service;
use super::limits;
use super::listen::{self, Endpoint, KeepAlive};
use super::tls::{self, TlsFiles};
use crate::config::{self, Environment, LogLevel, ServerSettings};
use crate::observe::log::{self, Level};
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::release::{RELEASES, Release};
use crate::session::{Authority, Limits};

/// The log file's name: the command has no stanza, and is called `server`.
const LOG_FILE: &str = "all-server.log";

/// A configuration that was read and checked, before certificates are loaded.
pub(super) struct Configuration {
    pub(super) authority: Rc<Configured>,
    pub(super) release: &'static Release,
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
        let (files, loaded) = config::load_server(arguments, environment, Release::newest().version)?;
        let release = release(&loaded.server)?;
        Ok(Self {
            release,
            log: log_settings(&loaded.server),
            begin: format!("server command begin {}: {}", release.version, loaded.begin),
            warnings: loaded.warnings,
            authority: Rc::new(Configured::new(loaded.server, files, environment.clone(), release)),
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
        let (tls, warnings) = tls_of(self.server())?;
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
            authority: Rc::clone(&self.authority) as Rc<dyn Authority>,
            release: self.release,
            handshake: own.handshake_timeout,
            limits: Limits {
                first_request: own.handshake_timeout,
                idle: server.protocol_timeout,
                listing: own.listing_memory_max,
            },
            connections,
            connections_per_address: own.connection_max_per_address.unwrap_or(usize::MAX),
        };
        self.warnings.extend(reduced);
        Ok(service)
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

/// Loads the certificates and ciphers that a configuration names, with warnings.
///
/// # Errors
///
/// Those of [`tls::server_config`].
pub fn tls_of(server: &ServerSettings) -> Result<(std::sync::Arc<rustls::ServerConfig>, Vec<String>)> {
    tls::server_config(&TlsFiles {
        cert: &server.cert_file,
        key: &server.key_file,
        ca: &server.ca_file,
        crl: server.own.crl_file.as_deref(),
        cipher_12: server.tls_cipher_12.as_deref(),
        cipher_13: server.tls_cipher_13.as_deref(),
    })
}

/// The release to announce.
///
/// # Errors
///
/// 32 for a release that is not known.
pub fn release(server: &ServerSettings) -> Result<&'static Release> {
    let Some(version) = &server.own.release else { return Ok(Release::newest()) };
    Release::find(version).ok_or_else(|| {
        let known: Vec<_> = RELEASES.iter().map(|release| release.version).collect();
        Error::new(
            Code::OptionInvalidValue,
            format!("'{version}' is not valid for 'release' option\nHINT: known releases are {}.", known.join(", ")),
        )
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
