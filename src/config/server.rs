//! The server's own settings: command line, environment and files of `server`.
//!
//! Facts: specification, sections 1.1, 1.2 and 1.8.

use std::path::PathBuf;
use std::time::Duration;

use super::Environment;
use super::definitions::{self, Definition, Matching};
use super::files::{Files, Search};
use super::grants::Grants;
use super::own::OwnSettings;
use super::settings::{self, Arguments, Scope, Setting, Settings, Source};
use super::snapshot::Origin;
use super::value;
use crate::observe::log::Level;
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::release::Release;

/// How the warning begins that root runs the server.
pub const AS_ROOT: &str = "the 'server' command is run as the root user";
pub(super) const COMMAND: &str = "server";
const KEEP_ALIVE: [&str; 3] = ["tcp-keep-alive-count", "tcp-keep-alive-idle", "tcp-keep-alive-interval"];
const COMMANDS_BEFORE_SERVER: [&str; 1] = ["serve"];

/// Everything that the server itself is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent options of pgBackRest, not a state")]
pub struct ServerSettings {
    /// `tls-server-address`: names and addresses to listen on; `*` means all of IPv4 and IPv6.
    /// Never empty.
    pub addresses: Vec<String>,
    /// `tls-server-port`.
    pub port: u16,
    /// `tls-server-cert-file`.
    pub cert_file: PathBuf,
    /// `tls-server-key-file`.
    pub key_file: PathBuf,
    /// `tls-server-ca-file`.
    pub ca_file: PathBuf,
    /// `tls-server-auth`.
    pub grants: Grants,
    /// `tls-cipher-12`, an OpenSSL cipher list.
    pub tls_cipher_12: Option<String>,
    /// `tls-cipher-13`, an OpenSSL list of cipher suites.
    pub tls_cipher_13: Option<String>,
    /// `protocol-timeout`: how long an authenticated session may be silent.
    pub protocol_timeout: Duration,
    /// `io-timeout`.
    pub io_timeout: Duration,
    /// `buffer-size` in bytes.
    pub buffer_size: usize,
    /// `sck-keep-alive`.
    pub keep_alive: bool,
    /// `tcp-keep-alive-count`; none leaves the system's default.
    pub keep_alive_count: Option<u32>,
    /// `tcp-keep-alive-idle`; none leaves the system's default.
    pub keep_alive_idle: Option<Duration>,
    /// `tcp-keep-alive-interval`; none leaves the system's default.
    pub keep_alive_interval: Option<Duration>,
    /// `log-level-console`: to standard output.
    pub log_level_console: Level,
    /// `log-level-stderr`: to standard error.
    pub log_level_stderr: Level,
    /// `log-level-file`: to `all-server.log` in `log_path`.
    pub log_level_file: Level,
    /// `log-path`.
    pub log_path: PathBuf,
    /// `log-timestamp`: whether log lines start with the time.
    pub log_timestamp: bool,
    /// `priority`: the nice value to set.
    pub priority: Option<i32>,
    /// `allow-root`: whether an administrator asked to run as root.
    pub allow_root: bool,
    /// `exec-id`: `<pid>-<8 hexadecimal digits>`, new at each load unless given.
    pub exec_id: String,
    /// `lock-path` of the global section, which is not an option of `server`; sessions find theirs
    /// in [`super::SessionSettings`].
    pub lock_path: PathBuf,
    /// The main configuration file in use, or the one that would be, for messages.
    pub config_file: PathBuf,
    /// `repohostd.conf` in use, or the one that would be, for messages.
    pub own_file: PathBuf,
    /// The settings of `repohostd.conf`.
    pub own: OwnSettings,
}

/// What [`load_server`] found.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub server: ServerSettings,
    /// Warnings in pgBackRest's words, in the order in which it would log them.
    pub warnings: Vec<String>,
    /// The text after `server command begin VERSION: `.
    pub begin: String,
}

/// Reads the server's command line (without the program's name), environment and files, these from `origin`.
///
/// `server` or `serve` may stand anywhere among the arguments, or not at all.
///
/// # Errors
///
/// pgBackRest's codes and texts for whatever is wrong; values from files carry a hint with file
/// and line.
pub fn load_server(arguments: &[String], environment: &Environment, origin: &Origin) -> Result<(Files, Loaded)> {
    load_from(arguments, environment, &Search::default(), origin)
}

/// As [`load_server`], with other default places for files.
///
/// # Errors
///
/// As for [`load_server`].
pub fn load_from(
    arguments: &[String],
    environment: &Environment,
    defaults: &Search,
    origin: &Origin,
) -> Result<(Files, Loaded)> {
    let mut sources = Sources::read(arguments, environment, defaults, origin)?;
    let own_release = sources.settings.texts("release", 1).and_then(|setting| setting.texts.first().cloned());
    let mut own = OwnSettings::read(&sources.files)?;
    if let Some(release) = own_release {
        if !Release::is_name(&release) {
            let message = format!("'{release}' is not valid for 'release' option\nHINT: a release looks like 2.55.1.");
            return Err(Error::new(Code::OptionInvalidValue, message));
        }
        own.release = Some(release);
    }
    sources.settings.fractions = own.spoken().fractional_times;
    sources.session.fractions = sources.settings.fractions;

    let server = resolve(&sources, own, environment)?;
    if is_root() && !server.allow_root {
        sources.warnings.push(format!(
            "{AS_ROOT}\n\
             HINT: running as root can create files that the regular user cannot access, causing later commands to \
             fail.\n\
             HINT: set the 'allow-root' option to silence this warning."
        ));
    }
    sources.settings.insert("exec-id", 1, given(&server.exec_id));
    let begin = begin_text(&sources.settings);
    Ok((sources.files, Loaded { server, warnings: sources.warnings, begin }))
}

/// Whether a server that has these arguments and these settings of `repohostd.conf` could be started with other files.
///
/// # Errors
///
/// As for [`load_server`].
pub fn check_files(arguments: &[String], environment: &Environment, files: Files, own: &OwnSettings) -> Result<Files> {
    let mut sources = Sources::of(arguments, environment, |_| Ok(files))?;
    sources.settings.fractions = own.spoken().fractional_times;
    sources.session.fractions = sources.settings.fractions;
    resolve(&sources, own.clone(), environment)?;
    Ok(sources.files)
}

/// Reads `repohostd.conf` as the server with these arguments would, and nothing else of its settings,
/// for commands that talk to it.
///
/// # Errors
///
/// As for [`load_server`], as far as it concerns where files are and what that file says.
pub fn load_own(arguments: &[String], environment: &Environment) -> Result<OwnSettings> {
    OwnSettings::read(&Sources::read(arguments, environment, &Search::default(), &Origin::Disk)?.files)
}

/// What the server's sources say, before values are checked.
pub(super) struct Sources {
    pub(super) files: Files,
    /// Options of `server`.
    pub(super) settings: Settings,
    /// `lock-path`, which is no option of `server`.
    pub(super) session: Settings,
    pub(super) warnings: Vec<String>,
}

impl Sources {
    pub(super) fn read(
        arguments: &[String],
        environment: &Environment,
        defaults: &Search,
        origin: &Origin,
    ) -> Result<Self> {
        Self::of(arguments, environment, |settings| Files::load(&search(settings, defaults), origin))
    }

    fn of(
        arguments: &[String],
        environment: &Environment,
        load: impl FnOnce(&Settings) -> Result<Files>,
    ) -> Result<Self> {
        let Arguments { mut settings, words } =
            settings::command_line(arguments, Matching { abbreviations: true, own: true }, false)?;
        check_words(&words)?;
        let given: Vec<_> = settings.iter().map(|(name, _, _)| name).collect();
        let mut warnings = vec![];
        let takes = |definition: &Definition| definition.known_to(COMMAND);
        let scope = Scope { command: COMMAND, stanza: None, takes: &takes };
        settings::add_environment(&mut settings, environment, &scope, &mut warnings)?;
        let mut files = load(&settings)?;
        OwnSettings::add_environment(&mut files.own_ini, environment, &mut warnings)?;
        OwnSettings::warn_of_gone(&files.own_ini, &mut warnings);
        settings::add_files(&mut settings, &files.ini, &scope, &mut warnings)?;
        for name in given {
            if !definitions::definition(name).is_some_and(takes) {
                let message = format!("option '{name}' not valid for command '{COMMAND}'");
                return Err(Error::new(Code::OptionInvalid, message));
            }
        }
        let mut session = Settings::default();
        let takes = |definition: &Definition| definition.name == "lock-path";
        let scope = Scope { command: COMMAND, stanza: None, takes: &takes };
        // Warnings of this second reading would repeat those of the first.
        settings::add_environment(&mut session, environment, &scope, &mut vec![])?;
        settings::add_files(&mut session, &files.ini, &scope, &mut vec![])?;
        Ok(Self { files, settings, session, warnings })
    }
}

/// The words of the command line that are no options: nothing or the command.
fn check_words(words: &[String]) -> Result<()> {
    let Some(word) = words.first() else { return Ok(()) };
    let (name, role) = word.split_once(':').map_or((word.as_str(), None), |(name, role)| (name, Some(role)));
    let is_server = !name.is_empty() && (COMMAND.starts_with(name) || COMMANDS_BEFORE_SERVER.contains(&name));
    let message = match role {
        _ if !is_server => format!("invalid command '{word}'"),
        Some("async" | "local" | "remote") => format!("invalid command/role combination '{word}'"),
        Some(role) => format!("invalid command role '{role}'"),
        None if words.len() > 1 => {
            return Err(Error::new(Code::ParamInvalid, "command does not allow parameters"));
        }
        None => return Ok(()),
    };
    Err(Error::new(Code::CommandInvalid, message))
}

/// Where the given options say that files are.
fn search(settings: &Settings, defaults: &Search) -> Search {
    let path = |name| settings.texts(name, 1).and_then(|setting| setting.texts.first()).map(PathBuf::from);
    Search {
        config: path("config").or_else(|| defaults.config.clone()),
        no_config: settings.setting("config", 1).is_some_and(|setting| setting.negated),
        config_path: path("config-path").or_else(|| defaults.config_path.clone()),
        config_include_path: path("config-include-path").or_else(|| defaults.config_include_path.clone()),
        own_config: path("repohostd-config").or_else(|| defaults.own_config.clone()),
        ..defaults.clone()
    }
}

/// Checks all values, in the order in which the original complains.
fn resolve(sources: &Sources, own: OwnSettings, environment: &Environment) -> Result<ServerSettings> {
    let take = Take(&sources.settings);
    let settings = &sources.settings;
    let buffer_size = take.number("buffer-size")?;
    for name in ["config", "config-include-path", "config-path"] {
        settings.text(name, 1)?;
    }
    let is_given = settings.texts("exec-id", 1).is_some();
    let keep_alive = settings.boolean("sck-keep-alive");
    let seconds = |number: u32| Duration::from_secs(u64::from(number));
    Ok(ServerSettings {
        buffer_size,
        exec_id: if is_given { take.text("exec-id")? } else { new_exec_id(environment.process)? },
        io_timeout: take.time("io-timeout")?,
        log_level_console: take.level("log-level-console")?,
        log_level_file: take.level("log-level-file")?,
        log_level_stderr: take.level("log-level-stderr")?,
        log_path: take.path("log-path")?,
        priority: settings.number("priority", 1)?.and_then(|number| i32::try_from(number).ok()),
        protocol_timeout: take.time("protocol-timeout")?,
        keep_alive,
        keep_alive_count: keep_alive_option(settings, KEEP_ALIVE[0], keep_alive)?,
        keep_alive_idle: keep_alive_option(settings, KEEP_ALIVE[1], keep_alive)?.map(seconds),
        keep_alive_interval: keep_alive_option(settings, KEEP_ALIVE[2], keep_alive)?.map(seconds),
        tls_cipher_12: settings.text("tls-cipher-12", 1)?,
        tls_cipher_13: settings.text("tls-cipher-13", 1)?,
        addresses: addresses(settings)?,
        grants: grants(settings)?,
        ca_file: take.path("tls-server-ca-file")?,
        cert_file: take.path("tls-server-cert-file")?,
        key_file: take.path("tls-server-key-file")?,
        port: take.number("tls-server-port")?,
        log_timestamp: settings.boolean("log-timestamp"),
        allow_root: settings.boolean("allow-root"),
        lock_path: Take(&sources.session).path("lock-path")?,
        config_file: sources.files.main_or_default(),
        own_file: sources.files.own_or_default(),
        own,
    })
}

/// Takes values that must be there.
pub(super) struct Take<'a>(pub(super) &'a Settings);

impl Take<'_> {
    pub(super) fn text(&self, name: &'static str) -> Result<String> {
        self.0.text(name, 1)?.ok_or_else(|| required(name))
    }

    pub(super) fn path(&self, name: &'static str) -> Result<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    pub(super) fn number<T: TryFrom<i64>>(&self, name: &'static str) -> Result<T> {
        self.0.number(name, 1)?.and_then(|number| T::try_from(number).ok()).ok_or_else(|| required(name))
    }

    pub(super) fn time(&self, name: &'static str) -> Result<Duration> {
        self.number(name).map(value::duration)
    }

    fn level(&self, name: &'static str) -> Result<Level> {
        Level::from_name(&self.text(name)?).ok_or_else(|| required(name))
    }
}

fn required(name: &str) -> Error {
    Error::new(Code::OptionRequired, format!("{COMMAND} command requires option: {name}"))
}

/// One of [`KEEP_ALIVE`]; from files and environment they are unset without keep-alive.
fn keep_alive_option(settings: &Settings, name: &'static str, keep_alive: bool) -> Result<Option<u32>> {
    if keep_alive {
        return Ok(settings.number(name, 1)?.and_then(|number| u32::try_from(number).ok()));
    }
    if settings.texts(name, 1).is_some_and(|setting| setting.source == Source::CommandLine) {
        let message = format!("option '{name}' not valid without option 'sck-keep-alive'");
        return Err(Error::new(Code::OptionInvalid, message));
    }
    Ok(None)
}

/// All addresses: a comma list, repeated options, or both.
fn addresses(settings: &Settings) -> Result<Vec<String>> {
    settings.text("tls-server-address", 1)?;
    let Some(setting) = settings.texts("tls-server-address", 1) else { return Ok(vec!["localhost".to_owned()]) };
    let texts = setting.texts.iter().flat_map(|text| text.split(',')).map(str::trim);
    let addresses: Vec<_> = texts.filter(|text| !text.is_empty()).map(str::to_owned).collect();
    if addresses.is_empty() {
        let message = "'' must be >= 1 character for 'tls-server-address' option".to_owned() + &setting.source.hint();
        return Err(Error::new(Code::OptionInvalidValue, message));
    }
    Ok(addresses)
}

fn grants(settings: &Settings) -> Result<Grants> {
    let setting = settings.texts("tls-server-auth", 1).ok_or_else(|| required("tls-server-auth"))?;
    let entries = setting.texts.iter().map(|pair| match pair.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(Error::new(
            Code::OptionInvalid,
            format!("key/value '{pair}' not valid for 'tls-server-auth' option{}", setting.source.hint()),
        )),
    });
    entries.collect::<Result<_>>().map(Grants::new)
}

/// The options that differ from defaults, as the original logs them when it starts.
fn begin_text(settings: &Settings) -> String {
    let keep_alive = settings.boolean("sck-keep-alive");
    let mut words = vec![];
    for (name, key, setting) in settings.iter() {
        let Some(definition) = definitions::definition(name) else { continue };
        if !keep_alive && KEEP_ALIVE.contains(&name) {
            continue;
        }
        let shown = definition.display(key);
        if setting.reset {
            words.push(format!("--reset-{shown}"));
        } else if setting.negated {
            words.push(format!("--no-{shown}"));
        } else if definition.takes_no_value() {
            words.push(format!("--{shown}"));
        }
        for text in &setting.texts {
            let text = if definition.secret { "<redacted>" } else { text };
            let quote = if text.contains(' ') { "\"" } else { "" };
            words.push(format!("--{shown}={quote}{text}{quote}"));
        }
    }
    words.join(" ")
}

fn given(text: &str) -> Setting {
    Setting { texts: vec![text.to_owned()], negated: false, reset: false, source: Source::CommandLine }
}

fn new_exec_id(process: u32) -> Result<String> {
    let mut random = [0; 4];
    aws_lc_rs::rand::fill(&mut random)
        .map_err(|_| Error::new(Code::Crypto, "unable to get random bytes for 'exec-id'"))?;
    Ok(format!("{process}-{:08x}", u32::from_ne_bytes(random)))
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}
