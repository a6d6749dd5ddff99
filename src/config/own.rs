//! Our own settings, from `repohostd.conf`.
//!
//! Owns their names, defaults and limits. They live in a file of their own, so that
//! `pgbackrest.conf` stays free of options that pgBackRest would warn of. This file is ours alone:
//! whatever it says that is not known here is an error, so that a typo cannot pass unseen.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use super::Environment;
use super::files::Files;
use super::ini::{Entry, Ini, Value};
use super::network::NetworkCompression;
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
/// Options that earlier versions had. A file that still has one is no mistake.
const GONE: [&str; 1] = ["io-uring"];
const TIMEOUT_MAXIMUM: i64 = 3_600_000;
/// Longer than after which a worker gets no more connections.
const WORKER_TIMEOUT_MINIMUM: i64 = 6000;
const AGE_MAXIMUM: i64 = 10 * 366 * 86_400_000;
const VERSIONS_MAXIMUM: i64 = 10_000;
const CONNECTION_MAXIMUM: i64 = 1_000_000;
const LISTING_MEMORY_MINIMUM: i64 = 1024 * 1024;

/// Sets one option to what its entry says.
type Set = fn(&mut OwnSettings, &Entry) -> Result<()>;

/// Known options of `[global]`, in alphabetical order.
const OPTIONS: [(&str, Set); 25] = [
    ("allow-client-config", |own, entry| put(&mut own.allow_client_config, Ok(entry.words()))),
    ("allow-client-pg-path", |own, entry| put(&mut own.allow_client_pg_path, Ok(entry.words()))),
    ("allow-client-repository", |own, entry| put(&mut own.allow_client_repository, Ok(entry.words()))),
    ("connection-max", |own, entry| put(&mut own.connection_max, entry.count(1, CONNECTION_MAXIMUM))),
    ("connection-max-per-address", |own, entry| {
        put(&mut own.connection_max_per_address, entry.count(1, CONNECTION_MAXIMUM).map(Some))
    }),
    ("crl-file", |own, entry| put(&mut own.crl_file, entry.path().map(Some))),
    ("drain-timeout", |own, entry| put(&mut own.drain_timeout, entry.time(0, TIMEOUT_MAXIMUM))),
    ("end-revoked-sessions", |own, entry| put(&mut own.end_revoked_sessions, entry.boolean())),
    ("handshake-timeout", |own, entry| put(&mut own.handshake_timeout, entry.time(100, TIMEOUT_MAXIMUM))),
    ("history-path", |own, entry| put(&mut own.history_path, entry.path().map(Some))),
    ("info-history", |own, entry| put(&mut own.protection.info_history, entry.count(0, VERSIONS_MAXIMUM))),
    ("installed-release", |own, entry| put(&mut own.installed_release, entry.boolean())),
    ("listing-memory-max", |own, entry| put(&mut own.listing_memory_max, entry.memory())),
    ("memory-max", |own, entry| put(&mut own.memory_max, entry.memory())),
    ("min-age", |own, entry| put(&mut own.protection.min_age, entry.time(0, AGE_MAXIMUM))),
    ("network-compression", |own, entry| put(&mut own.network_compression, entry.network_compression())),
    ("opaque-info", |own, entry| put(&mut own.protection.opaque_info, entry.boolean())),
    ("release", |own, entry| put(&mut own.release, entry.release().map(Some))),
    ("releases", |own, entry| put(&mut own.releases, entry.releases())),
    ("role", |own, entry| put(&mut own.role, entry.role())),
    ("sql", |own, entry| put(&mut own.any_statement, entry.any_statement())),
    ("state-path", |own, entry| put(&mut own.state_path, entry.path().map(Some))),
    ("status-socket", |own, entry| put(&mut own.status_socket, entry.path().map(Some))),
    ("worker-timeout", |own, entry| put(&mut own.worker_timeout, entry.time(WORKER_TIMEOUT_MINIMUM, TIMEOUT_MAXIMUM))),
    ("workers", |own, entry| put(&mut own.workers, entry.workers())),
];

fn put<T>(place: &mut T, value: Result<T>) -> Result<()> {
    *place = value?;
    Ok(())
}

/// The line that says which options there are.
fn known_options() -> String {
    format!("HINT: known options are {}.", OPTIONS.map(|(name, _)| name).join(", "))
}

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
    /// `network-compression=`: whether files are compressed on their way where clients ask for LZ4; `auto`, `always` or
    /// `never`. Default: auto.
    pub network_compression: NetworkCompression,
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
            network_compression: NetworkCompression::default(),
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
                let first = entries.first().and_then(|entry| entry.values.first());
                let line = first.map_or(String::new(), |value| format!(", above line {}", value.line));
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
                result.set(entry)?;
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
            if !OPTIONS.iter().any(|(name, _)| *name == key) && !GONE.contains(&key.as_str()) {
                let hint = known_options();
                warnings.push(format!("environment contains invalid option '{key}' ({variable})\n{hint}"));
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
            let (key, place) = (&entry.key, entry.place());
            warnings.push(format!("option '{key}' has no effect any more\nHINT: remove it; see '{place}'."));
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

    fn set(&mut self, entry: &Entry) -> Result<()> {
        let key = entry.key.as_str();
        if let Some((_, set)) = OPTIONS.iter().find(|(name, _)| *name == key) {
            return set(self, entry);
        }
        if GONE.contains(&key) {
            return Ok(());
        }
        let message = format!("unknown option '{key}' in '{}'\n{}", entry.place(), known_options());
        Err(Error::new(Code::Config, message))
    }

    /// Names, values and places of what is set, for a report.
    pub(super) fn describe(files: &Files) -> Vec<(String, String, String)> {
        let mut result = vec![];
        for (section, entries) in files.own_ini.sections() {
            let prefix = if section == SECTION { String::new() } else { format!("[{section}] ") };
            for entry in entries {
                for value in &entry.values {
                    let name = format!("{prefix}{}", entry.key);
                    result.push((name, value.text.clone(), value.place()));
                }
            }
        }
        result
    }
}

/// What an option of our own may say.
impl Entry {
    /// The only value.
    fn text(&self) -> Result<&str> {
        let Self { key, values } = self;
        match values.as_slice() {
            [only] if !only.text.is_empty() => Ok(&only.text),
            [_] => Err(self.error(Code::OptionInvalidValue, format!("option '{key}' must have a value"))),
            _ => Err(self.error(Code::OptionInvalid, format!("option '{key}' cannot be set multiple times"))),
        }
    }

    fn error(&self, code: Code, message: String) -> Error {
        let place = self.values.last().map_or(String::new(), |value| format!("\nHINT: see '{}'.", value.place()));
        Error::new(code, message + &place)
    }

    fn invalid(&self, text: &str) -> Error {
        self.error(Code::OptionInvalidValue, format!("'{text}' is not valid for '{}' option", self.key))
    }

    /// As [`Self::invalid`], with what would be valid.
    fn invalid_but(&self, text: &str, valid: impl Display) -> Error {
        let error = self.invalid(text);
        Error { message: format!("{}\nHINT: {valid}.", error.message), ..error }
    }

    fn number(&self, number: Option<i64>, minimum: i64, maximum: i64) -> Result<i64> {
        let text = self.text()?;
        let number = number.ok_or_else(|| self.invalid(text))?;
        if (minimum..=maximum).contains(&number) {
            return Ok(number);
        }
        Err(self.error(Code::OptionInvalidValue, format!("'{text}' is out of range for '{}' option", self.key)))
    }

    /// A time from `minimum` to `maximum` milliseconds.
    fn time(&self, minimum: i64, maximum: i64) -> Result<Duration> {
        self.number(value::time(self.text()?, false), minimum, maximum).map(value::duration)
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
        match self.text()? {
            "auto" => Ok(Workers::Auto),
            text if text.parse::<i64>().is_ok() => self.count(1, workers::MAXIMUM).map(Workers::Number),
            text => Err(self.invalid_but(text, format_args!("auto, or a number from 1 to {}", workers::MAXIMUM))),
        }
    }

    fn any_statement(&self) -> Result<bool> {
        match self.text()? {
            "any" => Ok(true),
            "known" => Ok(false),
            text => Err(self.invalid_but(text, "known, which is what pgbackrest clients send, or any")),
        }
    }

    fn path(&self) -> Result<PathBuf> {
        let path = value::path(|| self.key.clone(), self.text()?);
        path.map(PathBuf::from).map_err(|error| self.error(error.code, error.message))
    }

    /// A list, which may be empty.
    fn words(&self) -> Vec<String> {
        let words = self.values.iter().flat_map(|value| value.text.split(',')).map(str::trim);
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    /// A list with at least one word.
    pub(super) fn list(&self) -> Result<Vec<String>> {
        let words = self.words();
        if words.is_empty() {
            return Err(self.error(Code::OptionInvalidValue, format!("option '{}' must have a value", self.key)));
        }
        Ok(words)
    }

    fn network_compression(&self) -> Result<NetworkCompression> {
        let text = self.text()?;
        let values = || format!("values are {}", NetworkCompression::NAMES.join(", "));
        NetworkCompression::from_name(text).ok_or_else(|| self.invalid_but(text, values()))
    }

    pub(super) fn role(&self) -> Result<Role> {
        let text = self.text()?;
        let roles = || format!("roles are {}", Role::NAMES.join(", "));
        Role::from_name(text).ok_or_else(|| self.invalid_but(text, roles()))
    }

    pub(super) fn release(&self) -> Result<String> {
        let text = self.text()?;
        Release::is_name(text).then(|| text.to_owned()).ok_or_else(|| self.invalid(text))
    }

    fn releases(&self) -> Result<Vec<String>> {
        let releases = self.words();
        match releases.iter().find(|text| !Release::is_name(text)) {
            Some(bad) => Err(self.invalid(bad)),
            None => Ok(releases),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_in_the_manual_and_in_the_example() {
        let manual = include_str!("../../packaging/repohostd.conf.5");
        let example = include_str!("../../packaging/examples/repohostd.conf");
        for (name, _) in OPTIONS {
            assert!(manual.contains(&format!("\n.It Cm {name}\n")), "{name} is not in repohostd.conf(5)");
            let line = |line: &str| line.trim_start_matches('#').starts_with(&format!("{name}="));
            assert!(example.lines().any(line), "{name} is not in the example");
        }
        assert_eq!(
            manual.matches("\n.It Cm ").count(),
            OPTIONS.len(),
            "repohostd.conf(5) has options that do not exist"
        );
        assert!(OPTIONS.is_sorted_by_key(|(name, _)| name), "not in alphabetical order");
    }
}
