//! Our own settings, from `repohostd.conf`.
//!
//! Owns their names, defaults and limits. They live in a file of their own, so that
//! `pgbackrest.conf` stays free of options that pgBackRest would warn of. This file is ours alone:
//! whatever it says that is not known here is an error, so that a typo cannot pass unseen.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use super::Environment;
use super::files::Files;
use super::ini::{Ini, Value, place};
use super::pins::{self, ListenerPin, Pin};
use super::role::{NamedRights, Protection, Role};
use super::value;
use super::workers::{self, Workers};
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::release::Release;

const SECTION: &str = "global";
/// How variables begin that say what else `[global]` says, as `PGBACKREST_` does for pgBackRest's options.
pub(super) const ENVIRONMENT_PREFIX: &str = "REPOHOSTD_";
/// Variables of the tests, which are nobody's options.
const TESTS_PREFIX: &str = "REPOHOSTD_TEST_";
/// Known options, in alphabetical order.
const KNOWN: [&str; 24] = [
    "allow-client-config",
    "allow-client-pg-path",
    "allow-client-repository",
    "connection-max",
    "connection-max-per-address",
    "crl-file",
    "drain-timeout",
    "end-revoked-sessions",
    "handshake-timeout",
    "history-path",
    "info-history",
    "installed-release",
    "listing-memory-max",
    "memory-max",
    "min-age",
    "opaque-info",
    "release",
    "releases",
    "role",
    "sql",
    "state-path",
    "status-socket",
    "worker-timeout",
    "workers",
];

/// Options that earlier versions had. A file that still has one is no mistake.
const GONE: [&str; 1] = ["io-uring"];
const TIMEOUT_MAXIMUM: i64 = 3_600_000;
/// Longer than after which a worker gets no more connections.
const WORKER_TIMEOUT_MINIMUM: i64 = 6000;
const AGE_MAXIMUM: i64 = 10 * 366 * 86_400_000;
const VERSIONS_MAXIMUM: i64 = 10_000;
const CONNECTION_MAXIMUM: i64 = 1_000_000;
const LISTING_MEMORY_MINIMUM: i64 = 1024 * 1024;

/// The settings of `repohostd.conf`: section `[global]` unless another one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own that is y or n")]
pub struct OwnSettings {
    /// `release=`: the release that is announced to every client for whom there is no other.
    /// Default: none, the server learns it. `--release` on the command line wins.
    pub release: Option<String>,
    /// `releases=`: the releases to try first on clients that are not known yet, the likeliest
    /// first; a list. Default: empty.
    pub releases: Vec<String>,
    /// `installed-release=`: whether the release of the pgbackrest on this host is tried first on clients that are not
    /// known yet; looked at when the server starts. Default: y.
    pub installed_release: bool,
    /// `[client:NAME] release=`: the releases of clients, by any name of their certificate.
    pub clients: Vec<Pin>,
    /// `role=`: what a client may do for whom no `[client:NAME]` says so. Default: `admin`, as with
    /// pgBackRest.
    pub role: Role,
    /// `[client:NAME] role=` and `stanza=`: what clients may do, by any name of their certificate.
    pub rights: Vec<NamedRights>,
    /// `min-age=`, `opaque-info=` and `info-history=`.
    pub protection: Protection,
    /// `history-path=`: where earlier versions of info files are kept. Default: `history` in the
    /// state directory, if there is one.
    pub history_path: Option<PathBuf>,
    /// `[server-name:NAME] release=`: the releases of those who ask for the server of a name (SNI).
    pub server_names: Vec<Pin>,
    /// `[listener:ADDRESS] release=`: the releases of those who connect to an address.
    pub listeners: Vec<ListenerPin>,
    /// `[release:VERSION] like=`: releases that are spoken like known ones.
    pub declared: Vec<Pin>,
    /// `state-path=`: the directory that learned releases are kept in. Default:
    /// `/var/lib/repohostd` if it is there.
    pub state_path: Option<PathBuf>,
    /// `status-socket=`: where `repohostd status` asks. Default: `repohostd.sock` in
    /// `/run/repohostd` if that is there, otherwise in the state directory.
    pub status_socket: Option<PathBuf>,
    /// `drain-timeout=`: how long requests in flight may take after SIGTERM; 0 to 1h. Default: 10s.
    pub drain_timeout: Duration,
    /// `handshake-timeout=`: how long a client may take from connecting to its first request; 100ms
    /// to 1h. Default: 30s.
    pub handshake_timeout: Duration,
    /// `connection-max=`: connections at one time; 1 to 1000000. Default: 1024.
    pub connection_max: usize,
    /// `connection-max-per-address=`: connections at one time from one address; 1 to 1000000.
    /// Default: none, since a client opens as many as its process-max.
    pub connection_max_per_address: Option<usize>,
    /// `allow-client-config=`: further configuration files and directories that a client may ask
    /// for; a list. Default: empty.
    pub allow_client_config: Vec<String>,
    /// `allow-client-pg-path=`: further clusters of this host that a client may ask for, of whatever
    /// stanza; a list. Default: empty.
    pub allow_client_pg_path: Vec<String>,
    /// `sql=any`: whether clients may send any statement to the database of a cluster. Default:
    /// `known`, those that pgBackRest's clients send.
    pub any_statement: bool,
    /// `allow-client-repository=`: further repository paths that a client may ask for; a list.
    /// Default: empty.
    pub allow_client_repository: Vec<String>,
    /// `end-revoked-sessions=`: whether a reload ends sessions of clients that it takes the right
    /// from. Default: y.
    pub end_revoked_sessions: bool,
    /// `crl-file=`: revoked certificates. Default: none.
    pub crl_file: Option<PathBuf>,
    /// `listing-memory-max=`: bytes that lists of directories may take together, since each is
    /// answered as a whole; one may take half of it; from 1MiB. Default: 512MiB.
    pub listing_memory_max: usize,
    /// `memory-max=`: bytes that the open files of all clients may take together, in buffers and
    /// filters; from 1MiB. Default: 1GiB.
    pub memory_max: usize,
    /// `worker-timeout=`: how long a worker may take to answer whether it lives, until it counts as lost; from 6s.
    /// Default: 30s.
    pub worker_timeout: Duration,
    /// `workers=`: processes that serve clients, 1 to 32, or `auto`; looked at when the server starts.
    /// Default: auto.
    pub workers: Workers,
}

impl Default for OwnSettings {
    fn default() -> Self {
        Self {
            release: None,
            releases: vec![],
            installed_release: true,
            clients: vec![],
            role: Role::default(),
            rights: vec![],
            protection: Protection::default(),
            history_path: None,
            server_names: vec![],
            listeners: vec![],
            declared: vec![],
            state_path: None,
            status_socket: None,
            drain_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(30),
            connection_max: 1024,
            connection_max_per_address: None,
            allow_client_config: vec![],
            allow_client_pg_path: vec![],
            any_statement: false,
            allow_client_repository: vec![],
            end_revoked_sessions: true,
            crl_file: None,
            listing_memory_max: 512 << 20,
            memory_max: 1 << 30,
            worker_timeout: Duration::from_secs(30),
            workers: Workers::default(),
        }
    }
}

impl OwnSettings {
    /// What `repohostd.conf` says.
    ///
    /// # Errors
    ///
    /// 27 for an unknown section or option, naming file, line and what is known; 31 for an option
    /// that is repeated and may not be; 32 for a bad value.
    pub(super) fn read(files: &Files) -> Result<Self> {
        let mut result = Self::default();
        for (section, entries) in files.own_ini.sections() {
            if section != SECTION {
                if pins::read_section(&mut result, section, entries)? {
                    continue;
                }
                let shown = files.own_or_default();
                let line = entries
                    .first()
                    .and_then(|entry| entry.values.first())
                    .map_or(String::new(), |value| format!(", above line {}", value.line));
                return Err(Error::new(
                    Code::Config,
                    format!(
                        "unknown section '[{section}]' in '{}'{line}\nHINT: sections are [{SECTION}], \
                         [client:NAME], [server-name:NAME], [listener:ADDRESS] and [release:VERSION].",
                        shown.display()
                    ),
                ));
            }
            for entry in entries {
                result.set(&entry.key, &entry.values)?;
            }
        }
        Ok(result)
    }

    /// Has what the environment says of options stand in place of what `[global]` says. Names that mean nothing are
    /// warned of, as those of pgBackRest's own variables are.
    ///
    /// # Errors
    ///
    /// 32 for an empty value.
    pub(super) fn add_environment(
        own_ini: &mut Ini,
        environment: &Environment,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        for (variable, text) in &environment.variables {
            let Some(key) = variable.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            if variable.starts_with(TESTS_PREFIX) {
                continue;
            }
            let key = key.to_ascii_lowercase().replace('_', "-");
            if !KNOWN.contains(&key.as_str()) && !GONE.contains(&key.as_str()) {
                warnings.push(format!(
                    "environment contains invalid option '{key}' ({variable})\nHINT: known options are {}.",
                    KNOWN.join(", ")
                ));
                continue;
            }
            if text.is_empty() {
                let message = format!("environment variable '{variable}' must have a value");
                return Err(Error::new(Code::OptionInvalidValue, message));
            }
            let place = PathBuf::from(format!("environment variable {variable}"));
            own_ini.replace(SECTION, &key, Value { text: text.clone(), file: place.into(), line: 0 });
        }
        Ok(())
    }

    /// Warns of options that have no effect any more.
    pub(super) fn warn_of_gone(own_ini: &Ini, warnings: &mut Vec<String>) {
        for entry in own_ini.section(SECTION).iter().filter(|entry| GONE.contains(&entry.key.as_str())) {
            let place = entry.values.first().map_or(String::new(), |value| place(&value.file, value.line));
            warnings.push(format!("option '{}' has no effect any more\nHINT: remove it; see '{place}'.", entry.key));
        }
    }

    /// The release whose grammar holds for the server's own settings: the one for everybody, or the
    /// one that it is declared to be like. The newest when clients have several.
    pub(super) fn spoken(&self) -> &'static Release {
        let named = self.release.as_deref();
        let declared = self.declared.iter().find(|pin| Some(pin.subject.as_str()) == named);
        let spoken = declared.map(|pin| pin.release.as_str()).or(named);
        spoken.and_then(Release::find).unwrap_or_else(Release::newest)
    }

    fn set(&mut self, key: &str, values: &[Value]) -> Result<()> {
        let texts = || values.iter().flat_map(|value| value.text.split(',')).map(str::trim);
        let list = || texts().filter(|text| !text.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let Some(first) = values.first() else { return Ok(()) };
        let one = Single { key, values };
        match key {
            "release" => self.release = Some(one.release()?),
            "releases" => {
                self.releases = list();
                if let Some(bad) = self.releases.iter().find(|text| !Release::is_name(text)) {
                    return Err(one.invalid(bad));
                }
            }
            "installed-release" => self.installed_release = one.boolean()?,
            "drain-timeout" => self.drain_timeout = value::duration(one.time(0, TIMEOUT_MAXIMUM)?),
            "handshake-timeout" => self.handshake_timeout = value::duration(one.time(100, TIMEOUT_MAXIMUM)?),
            "connection-max" => self.connection_max = one.count(1, CONNECTION_MAXIMUM)?,
            "connection-max-per-address" => {
                self.connection_max_per_address = Some(one.count(1, CONNECTION_MAXIMUM)?);
            }
            "role" => self.role = one.role()?,
            "min-age" => self.protection.min_age = value::duration(one.time(0, AGE_MAXIMUM)?),
            "opaque-info" => self.protection.opaque_info = one.boolean()?,
            "info-history" => self.protection.info_history = one.count(0, VERSIONS_MAXIMUM)?,
            "history-path" => self.history_path = Some(PathBuf::from(one.path()?)),
            "allow-client-config" => self.allow_client_config = list(),
            "allow-client-pg-path" => self.allow_client_pg_path = list(),
            "allow-client-repository" => self.allow_client_repository = list(),
            "sql" => self.any_statement = one.any_statement()?,
            "end-revoked-sessions" => self.end_revoked_sessions = one.boolean()?,
            "crl-file" => self.crl_file = Some(PathBuf::from(one.path()?)),
            "listing-memory-max" => self.listing_memory_max = one.memory()?,
            "memory-max" => self.memory_max = one.memory()?,
            "state-path" => self.state_path = Some(PathBuf::from(one.path()?)),
            "worker-timeout" => {
                self.worker_timeout = value::duration(one.time(WORKER_TIMEOUT_MINIMUM, TIMEOUT_MAXIMUM)?);
            }
            "workers" => self.workers = one.workers()?,
            "status-socket" => self.status_socket = Some(PathBuf::from(one.path()?)),
            key if GONE.contains(&key) => {}
            _ => {
                return Err(Error::new(
                    Code::Config,
                    format!(
                        "unknown option '{key}' in '{}'\nHINT: known options are {}.",
                        place(&first.file, first.line),
                        KNOWN.join(", ")
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Names, values and places of what is set, for a report.
    pub(super) fn describe(files: &Files) -> Vec<(String, String, String)> {
        let mut result = vec![];
        for (section, entries) in files.own_ini.sections() {
            let prefix = if section == SECTION { String::new() } else { format!("[{section}] ") };
            for entry in entries {
                for value in &entry.values {
                    let name = format!("{prefix}{}", entry.key);
                    result.push((name, value.text.clone(), place(&value.file, value.line)));
                }
            }
        }
        result
    }
}

/// An option that has one value.
pub(super) struct Single<'a> {
    pub(super) key: &'a str,
    pub(super) values: &'a [Value],
}

impl Single<'_> {
    fn text(&self) -> Result<&str> {
        let Self { key, values } = self;
        match values {
            [only] if !only.text.is_empty() => Ok(&only.text),
            [_] => Err(self.error(Code::OptionInvalidValue, format!("option '{key}' must have a value"))),
            _ => Err(self.error(Code::OptionInvalid, format!("option '{key}' cannot be set multiple times"))),
        }
    }

    fn error(&self, code: Code, message: String) -> Error {
        let last = self.values.last();
        let place = last.map_or(String::new(), |value| format!("\nHINT: see '{}'.", place(&value.file, value.line)));
        Error::new(code, message + &place)
    }

    fn invalid(&self, text: &str) -> Error {
        self.error(Code::OptionInvalidValue, format!("'{text}' is not valid for '{}' option", self.key))
    }

    fn number(&self, number: Option<i64>, minimum: i64, maximum: i64) -> Result<i64> {
        let text = self.text()?;
        let number = number.ok_or_else(|| self.invalid(text))?;
        if (minimum..=maximum).contains(&number) {
            return Ok(number);
        }
        Err(self.error(Code::OptionInvalidValue, format!("'{text}' is out of range for '{}' option", self.key)))
    }

    fn time(&self, minimum: i64, maximum: i64) -> Result<i64> {
        self.number(value::time(self.text()?, false), minimum, maximum)
    }

    fn count(&self, minimum: i64, maximum: i64) -> Result<usize> {
        let number = self.number(self.text()?.parse().ok(), minimum, maximum)?;
        Ok(usize::try_from(number).unwrap_or(0))
    }

    fn memory(&self) -> Result<usize> {
        let number = self.number(value::size(self.text()?), LISTING_MEMORY_MINIMUM, i64::MAX)?;
        Ok(usize::try_from(number).unwrap_or(usize::MAX))
    }

    fn boolean(&self) -> Result<bool> {
        match self.text()? {
            "y" => Ok(true),
            "n" => Ok(false),
            _ => {
                let message = format!("boolean option '{}' must be 'y' or 'n'", self.key);
                Err(self.error(Code::OptionInvalidValue, message))
            }
        }
    }

    fn workers(&self) -> Result<Workers> {
        let text = self.text()?;
        if text == "auto" {
            return Ok(Workers::Auto);
        }
        if text.parse::<i64>().is_err() {
            let mut error = self.invalid(text);
            let _ = write!(error.message, "\nHINT: auto, or a number from 1 to {}.", workers::MAXIMUM);
            return Err(error);
        }
        self.count(1, workers::MAXIMUM).map(Workers::Number)
    }

    fn any_statement(&self) -> Result<bool> {
        match self.text()? {
            "any" => Ok(true),
            "known" => Ok(false),
            text => {
                let mut error = self.invalid(text);
                error.message += "\nHINT: known, which is what pgbackrest clients send, or any.";
                Err(error)
            }
        }
    }

    fn path(&self) -> Result<String> {
        value::path(|| self.key.to_owned(), self.text()?).map_err(|error| self.error(error.code, error.message))
    }

    /// A list with at least one entry.
    pub(super) fn list(&self) -> Result<Vec<String>> {
        let texts = self.values.iter().flat_map(|value| value.text.split(',')).map(str::trim);
        let list: Vec<_> = texts.filter(|text| !text.is_empty()).map(str::to_owned).collect();
        if list.is_empty() {
            return Err(self.error(Code::OptionInvalidValue, format!("option '{}' must have a value", self.key)));
        }
        Ok(list)
    }

    pub(super) fn role(&self) -> Result<Role> {
        let text = self.text()?;
        Role::from_name(text).ok_or_else(|| {
            let mut error = self.invalid(text);
            let _ = write!(error.message, "\nHINT: roles are {}.", Role::NAMES.join(", "));
            error
        })
    }

    /// Where it stands.
    pub(super) fn place(&self) -> String {
        self.values.first().map_or(String::new(), |value| place(&value.file, value.line))
    }

    pub(super) fn release(&self) -> Result<String> {
        let text = self.text()?;
        Release::is_name(text).then(|| text.to_owned()).ok_or_else(|| self.invalid(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_in_the_manual_and_in_the_example() {
        let manual = include_str!("../../packaging/repohostd.conf.5");
        let example = include_str!("../../packaging/examples/repohostd.conf");
        for name in KNOWN {
            assert!(manual.contains(&format!("\n.It Cm {name}\n")), "{name} is not in repohostd.conf(5)");
            let line = |line: &str| line.trim_start_matches('#').starts_with(&format!("{name}="));
            assert!(example.lines().any(line), "{name} is not in the example");
        }
        assert_eq!(manual.matches("\n.It Cm ").count(), KNOWN.len(), "repohostd.conf(5) has options that do not exist");
    }
}
