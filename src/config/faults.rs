//! What is wrong with the options that only sessions take: those of repositories, stanzas and clusters.
//!
//! A session finds out for itself, and tells its client. Here all sections are looked at before any session has them,
//! by the same rules, so that a mistake does not count before it is mended. A value that no session uses is none.

use std::iter;

use super::Environment;
use super::command::Command;
use super::definitions::Definition;
use super::describe::{session_settings, stanzas};
use super::files::Files;
use super::own::OwnSettings;
use super::session::{check_other_repositories, takes, timeouts, used_keys};
use super::settings::{self, Scope, Settings};
use crate::protocol::error::{Error, Result};

/// Options whose value a session uses, beside those that are `y` or `n`.
const USED: [&str; 13] = [
    "buffer-size",
    "db-timeout",
    "lock-path",
    "pg-database",
    "pg-path",
    "pg-port",
    "pg-socket-path",
    "pg-user",
    "protocol-timeout",
    "repo-cipher-pass",
    "repo-cipher-type",
    "repo-path",
    "repo-type",
];

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The section that it stands in, or the stanza whose options do not go together; empty for the environment.
    section: String,
    /// What a session would tell its client.
    pub error: Error,
}

impl Fault {
    /// Whether it is the same mistake, whatever was written above it since.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let first = |fault: &Self| fault.error.message.lines().next().map(str::to_owned);
        self.section == other.section && self.error.code == other.error.code && first(self) == first(other)
    }
}

/// What is wrong in the files and in the environment, the first fault of each section.
#[must_use]
pub fn faults(files: &Files, environment: &Environment, own: &OwnSettings) -> Vec<Fault> {
    let fractions = own.spoken().fractional_times;
    let mut result: Vec<Fault> = Vec::new();
    let mut note = |section: &str, result_of: Result<()>| {
        if let Err(error) = result_of {
            let fault = Fault { section: section.to_owned(), error };
            if !result.iter().any(|known| known.error == fault.error) {
                result.push(fault);
            }
        }
    };
    note(
        "",
        check(fractions, None, |settings, scope| settings::add_environment(settings, environment, scope, &mut vec![])),
    );
    for (section, _) in files.ini.sections() {
        let command = section.split_once(':').map(|(_, command)| command);
        let known = command.map(Command::named);
        // The others are of no session.
        if known == Some(None) {
            continue;
        }
        let command = known.flatten();
        note(
            section,
            check(fractions, command, |settings, scope| {
                settings::add_section(settings, &files.ini, section, command.is_some(), scope, &mut vec![])
            }),
        );
    }
    let stanzas = stanzas(files);
    for stanza in iter::once(None).chain(stanzas.iter().map(Some)) {
        let stanza = stanza.map(String::as_str);
        // What cannot be put together has been noted.
        if let Ok(mut settings) = session_settings(files, environment, stanza) {
            settings.fractions = fractions;
            note(stanza.unwrap_or("global"), check_together(&settings));
        }
    }
    result
}

/// Checks what `add` says to sessions of one command, or of any.
fn check(
    fractions: bool,
    command: Option<Command>,
    add: impl FnOnce(&mut Settings, &Scope<'_>) -> Result<()>,
) -> Result<()> {
    let takes = |definition: &Definition| match command {
        Some(command) => takes(definition, command),
        None => Command::ALL.into_iter().any(|(command, _)| takes(definition, command)),
    };
    let scope = Scope { command: command.map_or("", Command::name), stanza: None, takes: &takes };
    let mut settings = Settings::default();
    settings.fractions = fractions;
    add(&mut settings, &scope)?;
    for (name, key, _) in settings.iter().filter(|(name, ..)| USED.contains(name)) {
        settings.text(name, key)?;
    }
    Ok(())
}

/// Checks what sessions of one stanza take from several sections.
fn check_together(settings: &Settings) -> Result<()> {
    // A value that is wrong by itself has been noted.
    let value = |name, key| settings.text(name, key).ok().flatten();
    let is_number = |name| settings.number(name, 1).is_ok();
    if is_number("protocol-timeout") && is_number("db-timeout") {
        timeouts(settings).map_err(|error| with_place(error, settings, "protocol-timeout", 1))?;
    }
    let mut keys = used_keys(settings);
    let is_local = |key| {
        let kind = value("repo-type", key);
        settings.texts("repo-host", key).is_none() && kind.is_none_or(|kind| kind == "posix" || kind == "cifs")
    };
    keys.retain(|key| is_local(*key));
    // The one that was added is probably the last.
    for key in keys.iter().rev() {
        if let Some(path) = value("repo-path", *key) {
            check_other_repositories(settings, &keys, *key, &path)
                .map_err(|error| with_place(error, settings, "repo-path", *key))?;
        }
    }
    Ok(())
}

/// The error with the place of a value that has to do with it.
fn with_place(error: Error, settings: &Settings, name: &'static str, key: u16) -> Error {
    let hint = settings.setting(name, key).map_or_else(String::new, |setting| setting.source.hint());
    Error { message: error.message + &hint, ..error }
}
