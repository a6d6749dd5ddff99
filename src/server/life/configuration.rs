//! From configuration to what the event loop serves, at start and at every reload.
//!
//! Everything is built before anything is replaced, so that an error leaves the old state.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Access, access};

use super::limits;
use super::umask;
use crate::config::snapshot::Origin;
use crate::config::{self, Environment, Fault, KnownRepository, OwnSettings, Role, ServerSettings};
use crate::observe::log;
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::release::Release;
use crate::repository::policy::versions::Versions;
use crate::server::client::authority::Configured;
use crate::server::client::held::{self, Held};
use crate::server::event_loop::listen::{self, Endpoint, KeepAlive};
use crate::server::releases::policy::Policy;
use crate::server::service::{Bounds, Service};
use crate::server::status;
use crate::server::tls::{self, Tls, TlsFiles};
use crate::session::{Authority, Limits};

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
    pub(crate) authority: Rc<Configured>,
    pub(crate) log: log::Settings,
    /// The text of the line `server command begin`.
    pub(crate) begin: String,
    pub(crate) warnings: Vec<String>,
}

impl Configuration {
    /// Reads command line, environment and files, these from `origin`.
    ///
    /// # Errors
    ///
    /// Those of [`config::load_server`], and 32 for a release that is not known.
    pub(crate) fn load(arguments: &[String], environment: &Environment, origin: &Origin) -> Result<Self> {
        let (files, loaded) = config::load_server(arguments, environment, origin)?;
        let faults = config::faults(&files, environment, &loaded.server.own);
        check_history(&loaded.server.own, &config::repositories(&files, environment))?;
        let policy = Policy::new(&loaded.server.own)?;
        let release = policy.general().unwrap_or_else(Release::newest);
        let mut warnings = loaded.warnings;
        warnings.extend(policy.warnings());
        warnings.extend(history_warning(&loaded.server.own));
        warnings.extend(faults.iter().map(fault_warning));
        let held = Held::new(files, arguments, faults);
        let own = &loaded.server.own;
        let versions = history_path(own).and_then(|directory| Versions::new(directory, own.protection.info_history));
        Ok(Self {
            log: log_settings(&loaded.server),
            begin: format!("server command begin {}: {}", release.version, loaded.begin),
            warnings,
            authority: Rc::new(Configured::new(
                loaded.server,
                held,
                environment.clone(),
                Rc::new(policy),
                versions,
                umask::inherited(),
            )),
        })
    }

    /// Reads all of it again, for a server that has this configuration.
    ///
    /// # Errors
    ///
    /// As for [`Configuration::load`], and what is wrong with options that only sessions take if it was right before.
    pub(crate) fn reload(&self, arguments: &[String], environment: &Environment, origin: &Origin) -> Result<Self> {
        let loaded = Self::load(arguments, environment, origin);
        let loaded = loaded.map_err(|error| held::with_place(error, &self.server().config_file))?;
        let faults = |configuration: &Self| configuration.authority.with_held(|held| held.faults().to_vec());
        held::check_faults(&faults(&loaded), &faults(self))?;
        Ok(loaded)
    }

    pub(crate) fn server(&self) -> &ServerSettings {
        &self.authority.server
    }

    /// Loads certificates from `origin` and puts together what connections are served with. Further warnings are
    /// added to [`Configuration::warnings`].
    pub(crate) fn service(&mut self, descriptors: Option<u64>, origin: &Origin) -> Result<Service> {
        let (tls, warnings) = tls_of(self.server(), None, origin)?;
        self.warnings.extend(warnings);
        let server = self.server();
        let own = &server.own;
        // Each may stand for an address of either family.
        let connections = limits::connections(own.connection_max, descriptors, 2 * server.addresses.len())?;
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
            policy: Rc::clone(&self.authority.policy),
            handshake: own.handshake_timeout,
            limits: Limits {
                first_request: own.handshake_timeout,
                idle: server.protocol_timeout,
                listing: own.listing_memory_max,
                memory: own.memory_max,
            },
            bounds: Bounds { connections, per_address: own.connection_max_per_address.unwrap_or(usize::MAX) },
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
        } else if self.authority.policy.general().is_none() {
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
    pub(crate) fn endpoints(&self) -> Result<Vec<Endpoint>> {
        listen::resolve(&self.server().addresses, self.server().port)
    }

    pub(crate) fn keep_alive(&self) -> KeepAlive {
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
pub(crate) fn status_paths(own: &OwnSettings) -> Vec<PathBuf> {
    if let Some(path) = &own.status_socket {
        return vec![path.clone()];
    }
    [PathBuf::from(RUN_DIRECTORY), state_path(own)].into_iter().map(|path| path.join(status::SOCKET)).collect()
}

/// Where a server with these settings keeps what it learned.
pub(crate) fn state_path(own: &OwnSettings) -> PathBuf {
    own.state_path.clone().unwrap_or_else(|| PathBuf::from(STATE_DIRECTORY))
}

/// Where a server with these settings keeps earlier versions of info files. `None` when it keeps none:
/// nothing is configured, and there is no state directory that it can make one in.
pub(crate) fn history_path(own: &OwnSettings) -> Option<PathBuf> {
    let state = state_path(own);
    // One that is there but cannot be written to is an error when it is needed.
    let beside_state = || Some(state.join(HISTORY)).filter(|path| path.is_dir() || is_writable_directory(&state));
    own.history_path.clone().or_else(beside_state).filter(|_| own.protection.info_history > 0)
}

/// What to say when clients are kept from harm but what they replace is not kept.
pub(crate) fn history_warning(own: &OwnSettings) -> Option<String> {
    let is_guarded = own.role < Role::Admin || !own.rights.is_empty() || !own.protection.min_age.is_zero();
    (is_guarded && own.protection.info_history > 0 && history_path(own).is_none()).then(|| {
        format!(
            "earlier versions of info files are not kept: there is no writable '{}' and no history-path\nHINT: set \
             history-path in repohostd.conf, or info-history=0 if that is wanted.",
            state_path(own).display()
        )
    })
}

/// What to say of something that only sessions need, and that does not keep the server from its start.
pub(crate) fn fault_warning(fault: &Fault) -> String {
    format!(
        "{}\nHINT: sessions that need it are refused. What is mended counts at once, without a reload.",
        fault.error
    )
}

/// Whether the versions of info files are kept where no client can reach them.
///
/// # Errors
///
/// 32 when that is in a repository.
pub(crate) fn check_history(own: &OwnSettings, repositories: &[KnownRepository]) -> Result<()> {
    let Some(history) = history_path(own) else { return Ok(()) };
    let allowed = own.allow_client_repository.iter().map(Path::new);
    let paths = repositories.iter().map(|repository| repository.path.as_path()).chain(allowed);
    let is_in = |path: &Path| history.starts_with(path) || resolved(&history).starts_with(resolved(path));
    let Some(path) = paths.into_iter().find(|path| is_in(path)) else { return Ok(()) };
    let option = if own.history_path.is_some() { "history-path" } else { "state-path" };
    Err(Error::new(
        Code::OptionInvalidValue,
        format!(
            "'{}' is not allowed for earlier versions of info files because it is in the repository '{}'\nHINT: \
             clients could reach it there; set {option} in repohostd.conf to a directory outside of all repositories.",
            history.display(),
            path.display()
        ),
    ))
}

/// The path with all links followed, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let mut missing = PathBuf::new();
    for ancestor in path.ancestors() {
        if let Ok(resolved) = ancestor.canonicalize() {
            return resolved.join(missing);
        }
        if let Some(name) = ancestor.file_name() {
            missing = if missing.as_os_str().is_empty() { name.into() } else { Path::new(name).join(missing) };
        }
    }
    path.to_owned()
}

fn is_writable_directory(path: &Path) -> bool {
    path.is_dir() && access(path, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// Loads the certificates and ciphers that a configuration names, with warnings.
///
/// # Errors
///
/// Those of [`tls::server_config`].
pub(crate) fn tls_of(server: &ServerSettings, user: Option<u32>, origin: &Origin) -> Result<(Tls, Vec<String>)> {
    tls::server_config(&TlsFiles {
        cert: &server.cert_file,
        key: &server.key_file,
        ca: &server.ca_file,
        crl: server.own.crl_file.as_deref(),
        cipher_12: server.tls_cipher_12.as_deref(),
        cipher_13: server.tls_cipher_13.as_deref(),
        user,
        origin,
    })
}

fn log_settings(server: &ServerSettings) -> log::Settings {
    log::Settings {
        console: server.log_level_console,
        stderr: server.log_level_stderr,
        file: server.log_level_file,
        path: server.log_path.join(LOG_FILE),
        timestamp: server.log_timestamp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_not_kept_where_a_client_could_reach_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["repo/state", "state"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        std::os::unix::fs::symlink(path("repo"), path("link")).unwrap();
        let check = |own: OwnSettings| {
            let own = OwnSettings { allow_client_repository: vec!["/other/repo".to_owned()], ..own };
            let repository =
                KnownRepository { key: 1, path: path("repo"), kind: "posix".to_owned(), host: None, cipher_pass: None };
            check_history(&own, &[repository])
        };
        let history = |path: PathBuf| OwnSettings { history_path: Some(path), ..OwnSettings::default() };
        for own in [
            history(path("repo")),
            history(path("repo/history")),
            history(path("link/not/there")),
            history("/other/repo/x".into()),
            OwnSettings { state_path: Some(path("repo/state")), ..OwnSettings::default() },
        ] {
            let error = check(own).unwrap_err();
            assert_eq!(error.code, Code::OptionInvalidValue);
            assert!(error.message.contains("is in the repository '"), "{error}");
        }
        for own in [
            history(path("repository")),
            history(path("state/history")),
            OwnSettings { state_path: Some(path("state")), ..OwnSettings::default() },
            OwnSettings { state_path: Some(path("none")), ..OwnSettings::default() },
        ] {
            check(own).unwrap();
        }
        let own = OwnSettings { state_path: Some(path("state")), ..OwnSettings::default() };
        assert_eq!(history_path(&own), Some(path("state/history")));
        let own = OwnSettings { state_path: Some(path("none")), ..OwnSettings::default() };
        assert_eq!((history_path(&own), history_warning(&own)), (None, None));
        let mut own = OwnSettings { role: Role::Backup, ..own };
        assert!(history_warning(&own).unwrap().contains("/none' and no history-path"));
        own.protection.info_history = 0;
        assert_eq!(history_warning(&own), None);
        let mut own = history(path("repo"));
        own.protection.info_history = 0;
        assert_eq!(history_path(&own), None);
        check(own).unwrap();
    }
}
