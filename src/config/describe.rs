//! The effective configuration with the source of each value, for an administrator.

use super::Environment;
use super::cluster::WHERE_OPTIONS;
use super::definitions::{self, Definition, Section};
use super::files::{Files, Search};
use super::own::OwnSettings;
use super::server::{COMMAND, Sources};
use super::settings::{self, Scope, Setting, Settings};
use super::snapshot::Origin;
use crate::protocol::error::Result;

/// What a session takes is shown as a backup would see it: that command knows all these options. What is on another
/// host is shown too.
const SESSION_COMMAND: &str = "backup";
const REDACTED: &str = "<redacted>";

/// One effective value: the option's name, its value, and where it comes from (`FILE:LINE`,
/// `environment`, `command line` or `default`).
pub type Described = (String, String, String);

/// All effective settings: those of the server with their defaults, those of `repohostd.conf`, and
/// what the files and the environment say of repositories and stanzas (named `[demo] pg1-path`).
/// Values are not checked; secrets are not shown.
///
/// # Errors
///
/// As for [`super::load_server`], except for bad values.
pub fn describe(arguments: &[String], environment: &Environment, defaults: &Search) -> Result<Vec<Described>> {
    let Sources { files, settings, .. } = Sources::read(arguments, environment, defaults, &Origin::Disk)?;
    let mut result = vec![];
    for definition in definitions::definitions().iter().filter(|definition| definition.known_to(COMMAND)) {
        describe_option(&mut result, "", definition, 1, settings.setting(definition.name, 1));
    }
    result.extend(OwnSettings::describe(&files));

    let global = session_settings(&files, environment, None)?;
    describe_session(&mut result, "", &global, &settings);
    for stanza in stanzas(&files) {
        let settings = session_settings(&files, environment, Some(&stanza))?;
        describe_session(&mut result, &format!("[{stanza}] "), &settings, &global);
    }
    Ok(result)
}

/// Stanzas that have a section of their own in the files.
pub(super) fn stanzas(files: &Files) -> Vec<String> {
    let names = files.ini.sections().map(|(name, _)| name.split(':').next().unwrap_or(name));
    let mut stanzas: Vec<_> = names.filter(|name| *name != "global").map(str::to_owned).collect();
    stanzas.dedup();
    stanzas
}

pub(super) fn session_settings(files: &Files, environment: &Environment, stanza: Option<&str>) -> Result<Settings> {
    let takes = |definition: &Definition| {
        definition.known_to(SESSION_COMMAND) && definition.section != Section::CommandLine
            || WHERE_OPTIONS.contains(&definition.name)
            || definition.name == "repo-host"
    };
    let scope = Scope { command: SESSION_COMMAND, stanza, takes: &takes };
    let mut settings = Settings::default();
    settings::add_environment(&mut settings, environment, &scope, &mut vec![])?;
    settings::add_files(&mut settings, &files.ini, &scope, &mut vec![])?;
    Ok(settings)
}

/// What `settings` says that `shown` has not said already.
fn describe_session(result: &mut Vec<Described>, prefix: &str, settings: &Settings, shown: &Settings) {
    for (name, key, setting) in settings.iter() {
        if shown.setting(name, key) != Some(setting)
            && let Some(definition) = definitions::definition(name)
        {
            describe_option(result, prefix, definition, key, Some(setting));
        }
    }
}

fn describe_option(
    result: &mut Vec<Described>,
    prefix: &str,
    definition: &Definition,
    key: u16,
    setting: Option<&Setting>,
) {
    let name = format!("{prefix}{}", definition.display(key));
    let default =
        || definition.default.map(|text| if definition.takes_no_value() { yes_or_no(text == "true") } else { text });
    let Some(setting) = setting.filter(|setting| !setting.reset) else {
        if let Some(text) = default() {
            result.push((name, text.to_owned(), "default".to_owned()));
        }
        return;
    };
    let source = setting.source.describe();
    if definition.takes_no_value() || setting.negated {
        result.push((name, yes_or_no(!setting.negated).to_owned(), source));
        return;
    }
    for text in &setting.texts {
        let text = if definition.secret { REDACTED } else { text };
        result.push((name.clone(), text.to_owned(), source.clone()));
    }
}

fn yes_or_no(value: bool) -> &'static str {
    if value { "y" } else { "n" }
}
