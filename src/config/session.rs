//! The settings of one session: the client's parameters over the server's environment and files.
//!
//! Facts: specification, section 4. Deliberate differences from the original: only the remote role
//! of a command is accepted and nothing is read before that is certain; a client cannot choose
//! another configuration file, lock path or repository path than the administrator's unless
//! `repohostd.conf` lists it, nor which of a host's clusters it reads ([`super::cluster`]); lock names are
//! checked; only the selected repository is validated; options of every release are accepted, and those
//! that nobody here uses are ignored.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Environment;
use super::cluster::{self, Cluster};
use super::command::Command;
use super::definitions::{Definition, Matching};
use super::files::{Files, Search};
use super::same_place::is_same;
use super::server::{ServerSettings, Take};
use super::settings::{self, Scope, Settings};
use super::value;
use crate::protocol::carried::carried;
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::filter::Secret;
use crate::protocol::release::Release;

const REPOSITORY_PATH: &str = "repo-path";
const CIPHER: &str = "aes-256-cbc";
/// Options of a repository that have a meaning of their own; setting one brings the repository into
/// being.
const FOUNDING_OPTIONS: [&str; 4] = ["repo-cipher-type", "repo-gcs-user-project", "repo-path", "repo-type"];

/// Locks that one session may hold: real clients take one of each kind.
const LOCKS_MAXIMUM: usize = 16;
/// Bytes of a name of a directory, at most.
const NAME_MAXIMUM: usize = 255;

/// Which storage a session is about, as `remote-type` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// `repo`: a repository.
    Repository(Repository),
    /// `pg`: a cluster of this host, of which everything is read and nothing is written.
    Cluster(Cluster),
}

/// How a repository's file system is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepositoryKind {
    /// `posix`.
    Posix,
    /// `cifs`: as `posix`, without syncing directories.
    Cifs,
}

/// The repository that a session selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// N of `repoN-…`.
    pub key: u32,
    /// `repoN-path`: absolute, without a trailing slash.
    pub path: PathBuf,
    /// `repoN-type`.
    pub kind: RepositoryKind,
    /// `repoN-cipher-pass`, where `repoN-cipher-type` is `aes-256-cbc` and not `none`.
    pub cipher_pass: Option<Secret>,
    /// `repoN-cipher-pass` of the server's own configuration, which no client can override.
    pub own_pass: Option<Secret>,
}

/// What a session was told by its client, and what the server's configuration adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSettings {
    /// The command that the client runs.
    pub command: Command,
    /// `stanza`; never empty, never with a slash.
    pub stanza: Option<String>,
    /// The selected repository, or the cluster.
    pub storage: Storage,
    /// `process`: 0 for the main session of a command.
    pub process: u32,
    /// `exec-id`: who owns the locks.
    pub exec_id: Option<String>,
    /// Names of the lock files in `lock_path` that this session takes, in this order; empty when it
    /// takes none (other processes than 0, and commands that do not lock in this release). When
    /// there are any, stop files are to be looked for as well.
    pub locks: Vec<String>,
    /// `lock-path`: the directory of lock and stop files.
    pub lock_path: PathBuf,
    /// `buffer-size` in bytes.
    pub buffer_size: usize,
    /// `neutral-umask`: whether files get exactly the modes that the client asks for.
    pub neutral_umask: bool,
    /// `protocol-timeout` as the client gave it; the server's own applies to the connection.
    pub protocol_timeout: Duration,
    /// `db-timeout`.
    pub db_timeout: Duration,
}

impl SessionSettings {
    /// The repository, if the session is about one.
    #[must_use]
    pub const fn repository(&self) -> Option<&Repository> {
        match &self.storage {
            Storage::Repository(repository) => Some(repository),
            Storage::Cluster(_) => None,
        }
    }

    /// The cluster, if the session is about one.
    #[must_use]
    pub const fn cluster(&self) -> Option<&Cluster> {
        match &self.storage {
            Storage::Repository(_) => None,
            Storage::Cluster(cluster) => Some(cluster),
        }
    }
}

/// Reads the parameters of a `config` request: options, and `<command>:remote` as the last one.
///
/// `files` and `environment` are the server's; `release` is the one that was announced.
/// Touches the disk only when the client asks for another configuration file or repository than the administrator's:
/// looks for links on the way there, and reads a file that `allow-client-config` lists.
///
/// # Errors
///
/// pgBackRest's codes and texts; 32 with a remedy when the client asks for what it may not choose.
pub fn parse_session(
    files: &Files,
    environment: &Environment,
    server: &ServerSettings,
    release: &'static Release,
    params: &[String],
) -> Result<SessionSettings> {
    let command = command_of(params)?;
    let mut client = settings::command_line(params, Matching::default(), true)?;
    if client.words.len() > 1 {
        return Err(Error::new(Code::ParamInvalid, "command does not allow parameters"));
    }
    client.settings.fractions = release.fractional_times;
    let client = client.settings;

    let other_files = client_files(files, server, &client)?;
    let files = other_files.as_ref().unwrap_or(files);
    let takes = |definition: &Definition| takes(definition, command);
    let mut configured = Settings::default();
    let mut scope = Scope { command: command.name(), stanza: None, takes: &takes };
    settings::add_environment(&mut configured, environment, &scope, &mut vec![])?;
    let named = if client.setting("stanza", 1).is_some() { &client } else { &configured };
    let stanza = named.text("stanza", 1)?;
    scope.stanza = stanza.as_deref();
    settings::add_files(&mut configured, &files.ini, &scope, &mut vec![])?;
    configured.fractions = client.fractions;
    let merged = client.over(&configured);

    let session = Parts { command, release, client, configured, merged, files, server };
    session.build(stanza)
}

/// Whether a session of this command takes this option from environment and files.
pub(super) fn takes(definition: &Definition, command: Command) -> bool {
    definition.known_to(command.name())
        || definition.name == "lock-path"
        || cluster::WHERE_OPTIONS.contains(&definition.name)
}

/// What a session is built from.
pub(super) struct Parts<'a> {
    command: Command,
    release: &'static Release,
    pub(super) client: Settings,
    pub(super) configured: Settings,
    pub(super) merged: Settings,
    pub(super) files: &'a Files,
    pub(super) server: &'a ServerSettings,
}

impl Parts<'_> {
    fn build(&self, stanza: Option<String>) -> Result<SessionSettings> {
        let take = Take(&self.merged);
        self.check_required(stanza.as_deref())?;
        let stanza = stanza.map(checked_stanza).transpose()?;
        let process = self.merged.number("process", 1)?.and_then(|number| u32::try_from(number).ok());
        let process = process.ok_or_else(|| self.required("process", ""))?;
        let (protocol_timeout, db_timeout) = timeouts(&self.merged)?;
        let (storage, key) = match self.merged.text("remote-type", 1)?.as_deref() {
            Some("repo") => {
                let repository = self.repository()?;
                let key = repository.key;
                (Storage::Repository(repository), key)
            }
            Some(_) => (Storage::Cluster(self.cluster(stanza.as_deref(), db_timeout)?), cluster::LOCK_KEY),
            None => return Err(self.required("remote-type", "")),
        };
        let exec_id = self.merged.text("exec-id", 1)?;
        if let Some(text) = exec_id.as_deref().filter(|text| text.chars().any(char::is_control)) {
            return Err(invalid_value(format!("{text:?} is not valid for 'exec-id' option")));
        }
        Ok(SessionSettings {
            command: self.command,
            locks: self.locks(stanza.as_deref(), process, key)?,
            stanza,
            storage,
            process,
            exec_id,
            lock_path: self.lock_path()?,
            buffer_size: take.number("buffer-size")?,
            neutral_umask: self.merged.boolean("neutral-umask"),
            protocol_timeout,
            db_timeout,
        })
    }

    fn required(&self, option: &str, hint: &str) -> Error {
        let command = self.command.name();
        Error::new(Code::OptionRequired, format!("{command} command requires option: {option}{hint}"))
    }

    fn check_required(&self, stanza: Option<&str>) -> Result<()> {
        if stanza.is_none() && self.command.requires_stanza(self.release) {
            return Err(self.required("stanza", ""));
        }
        if self.command.requires_pg_path(stanza.is_some()) && self.merged.texts("pg-path", 1).is_none() {
            return Err(self.required_path());
        }
        Ok(())
    }

    pub(super) fn required_path(&self) -> Error {
        self.required("pg1-path", "\nHINT: does this stanza exist?")
    }

    /// The repository that `repo` selects, by default the first one.
    fn repository(&self) -> Result<Repository> {
        let mut keys = used_keys(&self.merged);
        if keys.is_empty() {
            keys.push(1);
        }
        let key = match self.merged.number("repo", 1)?.and_then(|number| u16::try_from(number).ok()) {
            Some(key) if keys.contains(&key) => key,
            Some(key) => {
                return Err(invalid_value(format!(
                    "key '{key}' is not valid for 'repo' option\nHINT: option 'repo{key}-path' is not set in '{}' of \
                     the repository host.",
                    self.files.main_or_default().display()
                )));
            }
            None => keys.first().copied().unwrap_or(1),
        };
        let kind = match self.merged.text("repo-type", key)?.as_deref() {
            Some("posix") | None => RepositoryKind::Posix,
            Some("cifs") => RepositoryKind::Cifs,
            Some(other) => {
                return Err(invalid_value(format!(
                    "pgBackRest not built with 'repo{key}-type={other}' support\n\
                     HINT: if pgBackRest was installed from a package, does the package support this feature?\n\
                     HINT: if pgBackRest was built from source, were the required development packages installed?\n\
                     HINT: this repository host runs repohostd, which serves types 'posix' and 'cifs'."
                )));
            }
        };
        let path = self.repository_path(key)?;
        check_other_repositories(&self.merged, &keys, key, &path)?;
        let encrypted = self.merged.text("repo-cipher-type", key)?.as_deref() == Some(CIPHER);
        let pass = if encrypted { self.merged.text("repo-cipher-pass", key)? } else { None };
        if encrypted && pass.is_none() {
            return Err(self.required(&format!("repo{key}-cipher-pass"), ""));
        }
        Ok(Repository {
            key: u32::from(key),
            path: PathBuf::from(path),
            kind,
            cipher_pass: pass.map(|text| Secret(text.into_bytes())),
            own_pass: self.configured.text("repo-cipher-pass", key)?.map(|text| Secret(text.into_bytes())),
        })
    }

    /// The path of the repository: the administrator's, or one that he allows clients to choose.
    fn repository_path(&self, key: u16) -> Result<String> {
        let wanted = self.merged.text(REPOSITORY_PATH, key)?.unwrap_or_default();
        if self.client.setting(REPOSITORY_PATH, key).is_none() {
            return Ok(wanted);
        }
        let ours = self.configured.text(REPOSITORY_PATH, key)?.unwrap_or_default();
        if is_listed(&self.server.own.allow_client_repository, &wanted) {
            return Ok(wanted);
        }
        // Under its own name, so that nobody can point the other one elsewhere meanwhile.
        if wanted == ours || is_same(&wanted, &ours) {
            return Ok(ours);
        }
        let option = format!("repo{key}-path");
        let refusal = Refusal { host: "repository", option: &option, wanted: Some(&wanted), ours: Some(&ours) };
        Err(refusal.error(self.server, &self.files.main_or_default(), "allow-client-repository"))
    }

    /// The administrator's lock path; real clients never send one.
    fn lock_path(&self) -> Result<PathBuf> {
        let wanted = Take(&self.merged).path("lock-path")?;
        if self.client.setting("lock-path", 1).is_some() {
            let ours = Take(&self.configured).path("lock-path")?;
            if wanted != ours {
                return Err(invalid_value(format!(
                    "'{}' is not allowed for 'lock-path' option\nHINT: the lock path of this host is '{}'.",
                    wanted.display(),
                    ours.display()
                )));
            }
        }
        Ok(wanted)
    }

    /// Names of lock files: those that the client sent, or the ones that it would have sent.
    fn locks(&self, stanza: Option<&str>, process: u32, key: u32) -> Result<Vec<String>> {
        let types = self.command.lock_types(self.release);
        let sent = self.merged.texts("lock", 1).map_or(&[][..], |setting| &setting.texts);
        for name in sent {
            if !stanza.is_some_and(|stanza| is_lock_name(name, stanza)) {
                return Err(invalid_value(format!(
                    "'{name}' is not allowed for 'lock' option\n\
                     HINT: a lock is named STANZA-archive-N.lock, STANZA-backup-N.lock or STANZA-restore-N.lock."
                )));
            }
        }
        if sent.len() > LOCKS_MAXIMUM {
            return Err(invalid_value(format!("more than {LOCKS_MAXIMUM} values are not allowed for 'lock' option")));
        }
        let Some(stanza) = stanza.filter(|_| process == 0 && !types.is_empty()) else { return Ok(vec![]) };
        if !self.release.locks_by_repository {
            return Ok(types.iter().map(|kind| format!("{stanza}-{kind}.lock")).collect());
        }
        if !sent.is_empty() {
            let mut names: Vec<String> = vec![];
            for name in sent {
                // A second lock on a file of one's own would fail.
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
            return Ok(names);
        }
        Ok(types.iter().map(|kind| format!("{stanza}-{kind}-{key}.lock")).collect())
    }
}

/// Two repositories must not share a path; whether another one is complete is not our business.
pub(super) fn check_other_repositories(settings: &Settings, keys: &[u16], key: u16, path: &str) -> Result<()> {
    let kind = |key| settings.text("repo-type", key).ok().flatten();
    for other in keys.iter().copied().filter(|other| *other != key) {
        let same_path = settings.text(REPOSITORY_PATH, other).ok().flatten().as_deref() == Some(path);
        if same_path && kind(other) == kind(key) {
            let (first, second) = (key.min(other), key.max(other));
            return Err(invalid_value(format!(
                "local repo{first} and repo{second} paths are both '{path}' but must be different"
            )));
        }
    }
    Ok(())
}

/// `protocol-timeout` and `db-timeout`, one of which gives way when it is a default.
pub(super) fn timeouts(settings: &Settings) -> Result<(Duration, Duration)> {
    let milliseconds = |name| settings.number(name, 1).map(|number| number.unwrap_or(0));
    let is_default = |name| settings.texts(name, 1).is_none();
    let (mut protocol, mut database) = (milliseconds("protocol-timeout")?, milliseconds("db-timeout")?);
    if protocol <= database {
        if is_default("protocol-timeout") {
            protocol = database + 30_000;
        } else if is_default("db-timeout") {
            database = if protocol >= 45_000 { protocol - 30_000 } else { protocol / 2 };
        } else {
            let text = |name| settings.texts(name, 1).and_then(|setting| setting.texts.first().cloned());
            let (protocol, database) =
                (text("protocol-timeout").unwrap_or_default(), text("db-timeout").unwrap_or_default());
            return Err(invalid_value(format!(
                "'{protocol}' is not valid for 'protocol-timeout' option\nHINT 'protocol-timeout' option \
                 ({protocol}) should be greater than 'db-timeout' option ({database})."
            )));
        }
    }
    Ok((value::duration(protocol), value::duration(database)))
}

/// Whether the client asks for a cluster.
fn is_pg(client: &Settings) -> bool {
    client.texts("remote-type", 1).is_some_and(|setting| setting.texts.iter().any(|text| text == "pg"))
}

/// The command at the end of the client's list.
fn command_of(params: &[String]) -> Result<Command> {
    if params.iter().any(|param| param.contains('\0')) {
        return Err(Error::format("a parameter of the config request contains a zero byte"));
    }
    match params.last() {
        Some(word) if !word.starts_with('-') => Command::from_word(word),
        _ => Err(Error::new(Code::CommandRequired, "no command found")),
    }
}

/// Other configuration files that the client asks for and may ask for; none when it asks for ours
/// or for nothing.
fn client_files(files: &Files, server: &ServerSettings, client: &Settings) -> Result<Option<Files>> {
    let main = files.main_or_default();
    let search = files.search();
    let directory = search.config_path.clone().or_else(|| main.parent().map(Path::to_owned)).unwrap_or_default();
    let include = files.include_directory().unwrap_or_default();
    let ours = [("config", &main), ("config-path", &directory), ("config-include-path", &include)];
    let refusal = |option: &str, wanted: Option<&str>, ours: &str| {
        let ours = Some(ours).filter(|ours| !ours.is_empty());
        let host = if is_pg(client) { "PostgreSQL" } else { "repository" };
        Refusal { host, option, wanted, ours }.error(server, &main, "allow-client-config")
    };
    let mut wanted = [None, None, None];
    let mut differs = false;
    for ((option, ours), wanted) in ours.into_iter().zip(&mut wanted) {
        let Some(setting) = client.setting(option, 1) else { continue };
        let shown = ours.to_string_lossy();
        let text = setting.texts.first().map_or("", String::as_str);
        if setting.negated {
            return Err(refusal(option, None, &shown));
        }
        if without_slash(text) != without_slash(&shown) && !is_same(text, &shown) {
            if !is_listed(&server.own.allow_client_config, text) {
                return Err(refusal(option, Some(text), &shown));
            }
            differs = true;
        }
        *wanted = Some(PathBuf::from(text));
    }
    if !differs {
        return Ok(None);
    }
    let [config, config_path, config_include_path] = wanted;
    let search = Search { config, config_path, config_include_path, no_config: false, ..search.clone() };
    Files::load_for_client(&search).map(Some)
}

/// A value that the administrator did not allow clients to choose.
struct Refusal<'a> {
    /// What kind of host this is for the client.
    host: &'a str,
    option: &'a str,
    /// None for one that wants to have none.
    wanted: Option<&'a str>,
    /// None where there is none.
    ours: Option<&'a str>,
}

impl Refusal<'_> {
    /// The error that names the server's file, and what makes the value acceptable.
    fn error(&self, server: &ServerSettings, file: &Path, remedy: &str) -> Error {
        let Self { host, option, wanted, ours } = self;
        let (uses, instead) = match ours {
            Some(ours) => {
                (format!("'{ours}'"), format!(", or set it to the value in '{}' of the {host} host", file.display()))
            }
            None => ("none".to_owned(), String::new()),
        };
        let (shown, further) = match wanted {
            Some(wanted) => (
                (*wanted).to_owned(),
                format!(
                    "\nHINT: to accept it from clients, add '{remedy}={wanted}' to '{}' of the {host} host and reload.",
                    server.own_file.display()
                ),
            ),
            None => (format!("--no-{option}"), String::new()),
        };
        invalid_value(format!(
            "'{shown}' is not allowed for '{option}' option because the {host} host uses {uses}\n\
             HINT: remove the option from the client{instead}.{further}"
        ))
    }
}

pub(super) fn invalid_value(message: String) -> Error {
    Error::new(Code::OptionInvalidValue, message)
}

/// Indexes of repositories that are configured, in ascending order.
pub(super) fn used_keys(settings: &Settings) -> Vec<u16> {
    let founding = settings.iter().filter(|(name, _, setting)| FOUNDING_OPTIONS.contains(name) && !setting.reset);
    let mut keys: Vec<_> = founding.map(|(_, key, _)| key).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// A stanza that is safe as part of a file name.
fn checked_stanza(stanza: String) -> Result<String> {
    // One that is no text the server's own files could not name.
    let is_odd = |character: char| character.is_control() || carried(character).is_some();
    if stanza.len() > NAME_MAXIMUM {
        let message = format!("a name of {} bytes is not valid for 'stanza' option", stanza.len());
        return Err(invalid_value(format!(
            "{message}\nHINT: a stanza is a directory, whose name has {NAME_MAXIMUM} at most."
        )));
    }
    if stanza.contains('/') || stanza == "." || stanza == ".." || stanza.chars().any(is_odd) {
        return Err(invalid_value(format!("{stanza:?} is not valid for 'stanza' option")));
    }
    Ok(stanza)
}

/// Whether `name` is `<stanza>-<type>-<number>.lock` for one of the three types.
fn is_lock_name(name: &str, stanza: &str) -> bool {
    let rest = name.strip_prefix(stanza).and_then(|rest| rest.strip_suffix(".lock"));
    let number = rest
        .and_then(|rest| ["-archive-", "-backup-", "-restore-"].into_iter().find_map(|infix| rest.strip_prefix(infix)));
    number.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

pub(super) fn is_listed(list: &[String], path: &str) -> bool {
    !path.is_empty() && list.iter().any(|listed| without_slash(listed) == without_slash(path))
}

pub(super) fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(path)
}
