//! What has been said about each option, and by whom.
//!
//! Owns the merge of command line, environment and files into one table of raw texts. It checks
//! names and whether a value is there; types are checked when a value is taken. Facts:
//! specification, sections 1.1 (command line), 1.3 (environment) and 1.6 (sections).

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::Environment;
use super::definitions::{self, Definition, Found, Kind, Matching, Section};
use super::ini::{self, Ini};
use super::value::{self, Checked};
use crate::protocol::error::{Code, Error, Result};

const ENVIRONMENT_PREFIX: &str = "PGBACKREST_";

/// Who said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    CommandLine,
    Environment,
    File { file: Arc<Path>, line: u32, section: Arc<str> },
}

impl Source {
    /// The source in words for an administrator.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::CommandLine => "command line".to_owned(),
            Self::Environment => "environment".to_owned(),
            Self::File { file, line, .. } => ini::place(file, *line),
        }
    }

    /// A further line for a message about the value, naming its place in a file.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::File { .. } => format!("\nHINT: the value stands in '{}'.", self.describe()),
            _ => String::new(),
        }
    }
}

/// What one source said about one option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// Several for lists and hashes; empty for booleans, and when negated or reset.
    pub(super) texts: Vec<String>,
    pub(super) negated: bool,
    pub(super) reset: bool,
    pub(super) source: Source,
}

/// Raw values by the option's name and index (1 for options without one).
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    /// Shared by what is merged of them, for each session anew.
    values: BTreeMap<(&'static str, u16), Rc<Setting>>,
    /// Whether times may have fractions, as before 2.53.
    pub(super) fractions: bool,
}

impl Settings {
    pub(super) fn setting(&self, name: &'static str, key: u16) -> Option<&Setting> {
        self.values.get(&(name, key)).map(Rc::as_ref)
    }

    /// Everything that was said, in alphabetical order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, u16, &Setting)> {
        self.values.iter().map(|((name, key), setting)| (*name, *key, setting.as_ref()))
    }

    pub(super) fn insert(&mut self, name: &'static str, key: u16, setting: Setting) {
        self.values.insert((name, key), Rc::new(setting));
    }

    /// Everything of `self`, and of `below` what `self` does not mention.
    pub(super) fn over(&self, below: &Self) -> Self {
        let mut merged = below.clone();
        merged.fractions = self.fractions;
        merged.values.extend(self.values.iter().map(|(key, setting)| (*key, Rc::clone(setting))));
        merged
    }

    /// The raw texts that were given, if any.
    pub(super) fn texts(&self, name: &'static str, key: u16) -> Option<&Setting> {
        self.setting(name, key).filter(|setting| !setting.reset && !setting.texts.is_empty())
    }

    /// A boolean: what was said, or the default.
    pub(super) fn boolean(&self, name: &'static str) -> bool {
        match self.setting(name, 1).filter(|setting| !setting.reset) {
            Some(setting) => !setting.negated,
            None => definitions::definition(name).is_some_and(|definition| definition.default == Some("true")),
        }
    }

    /// A number, a size in bytes or a time in milliseconds: what was said, or the default.
    pub(super) fn number(&self, name: &'static str, key: u16) -> Result<Option<i64>> {
        Ok(match self.checked(name, key)? {
            Some(Checked::Number(number)) => Some(number),
            _ => None,
        })
    }

    /// A path, a string or a choice: what was said, or the default.
    pub(super) fn text(&self, name: &'static str, key: u16) -> Result<Option<String>> {
        Ok(match self.checked(name, key)? {
            Some(Checked::Text(text)) => Some(text),
            _ => None,
        })
    }

    fn checked(&self, name: &'static str, key: u16) -> Result<Option<Checked>> {
        let Some(definition) = definitions::definition(name) else { return Ok(None) };
        if let Some(setting) = self.texts(name, key) {
            let text = setting.texts.first().map_or("", String::as_str);
            return value::check(definition, key, text, self.fractions).map(Some).map_err(|error| {
                let hint = setting.source.hint();
                Error::new(error.code, error.message + &hint)
            });
        }
        definition.default.map(|text| value::check(definition, key, text, false)).transpose()
    }
}

/// What a command line said: settings, and the words that are no options.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) settings: Settings,
    pub(super) words: Vec<String>,
}

/// Reads a command line without the program's name.
///
/// `unquote` removes one pair of literal double quotes around a value with a space: clients quote
/// such values for a shell even when there is none.
///
/// # Errors
///
/// 31 and 32 with pgBackRest's texts for whatever is no valid option.
pub(super) fn command_line(arguments: &[String], matching: Matching, unquote: bool) -> Result<Arguments> {
    let mut result = Arguments::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if !argument.starts_with('-') {
            result.words.push(argument.clone());
            continue;
        }
        let Some(option) = argument.strip_prefix("--") else {
            return Err(invalid(format!("option '{argument}' must begin with --")));
        };
        let (name, mut value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (option, None),
        };
        let Some(mut found) = definitions::find(name, matching)? else {
            return Err(invalid(format!("invalid option '--{option}'")));
        };
        let definition = found.definition;
        if found.negated || found.reset {
            if value.is_some() {
                return Err(invalid(format!("option '{name}' does not allow an argument")));
            }
        } else if definition.takes_no_value() {
            match value.take().as_deref() {
                None | Some("y") => {}
                Some("n") => found.negated = true,
                Some(_) => {
                    return Err(Error::new(
                        Code::OptionInvalidValue,
                        format!("boolean option '--{name}' argument must be 'y' or 'n'"),
                    ));
                }
            }
        } else if value.is_none() {
            value = if definition.is_boolean_like() { Some("y".to_owned()) } else { rest.next().cloned() };
            if value.is_none() {
                return Err(invalid(format!("option '--{name}' requires an argument")));
            }
        }
        if found.negated && definition.is_boolean_like() {
            found.negated = false;
            value = Some("n".to_owned());
        }
        if definition.secret {
            return Err(invalid(format!(
                "option '{}' is not allowed on the command-line\n\
                 HINT: this option could expose secrets in the process list.\n\
                 HINT: specify the option in a configuration file or an environment variable instead.",
                definition.display(found.key)
            )));
        }
        let value = value.map(|text| if unquote { unquoted(text) } else { text });
        add_argument(&mut result.settings, &found, value)?;
    }
    Ok(result)
}

/// Adds one option of the command line to what was said before.
fn add_argument(settings: &mut Settings, found: &Found, value: Option<String>) -> Result<()> {
    let Some(earlier) = settings.values.get_mut(&(found.definition.name, found.key)) else {
        let setting = Setting {
            texts: value.into_iter().collect(),
            negated: found.negated,
            reset: found.reset,
            source: Source::CommandLine,
        };
        settings.insert(found.definition.name, found.key, setting);
        return Ok(());
    };
    let conflict = if earlier.negated && found.negated {
        "is negated multiple times"
    } else if earlier.reset && found.reset {
        "is reset multiple times"
    } else if (earlier.reset && found.negated) || (earlier.negated && found.reset) {
        "cannot be negated and reset"
    } else if earlier.negated != found.negated {
        "cannot be set and negated"
    } else if earlier.reset != found.reset {
        "cannot be set and reset"
    } else if let (Some(value), true) = (value, found.definition.multiple) {
        Rc::make_mut(earlier).texts.push(value);
        return Ok(());
    } else {
        "cannot be set multiple times"
    };
    Err(invalid(format!("option '{}' {conflict}", found.definition.display(found.key))))
}

/// Which options a command takes from environment and files.
pub(super) struct Scope<'a> {
    /// The command's name without a role: `[global:<command>]`, `[<stanza>:<command>]`.
    pub(super) command: &'a str,
    pub(super) stanza: Option<&'a str>,
    /// Whether the command takes this option.
    pub(super) takes: &'a dyn Fn(&Definition) -> bool,
}

/// Adds what the environment says of options that `settings` does not mention yet.
///
/// # Errors
///
/// 31 for a malformed index, 32 for an empty value or a boolean that is neither `y` nor `n`.
pub(super) fn add_environment(
    settings: &mut Settings,
    environment: &Environment,
    scope: &Scope<'_>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    for (variable, text) in &environment.variables {
        let Some(key) = variable.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
        let key = key.to_ascii_lowercase().replace('_', "-");
        let Some(found) = definitions::find(&key, Matching::default())? else {
            warnings.push(format!("environment contains invalid option '{key}'"));
            continue;
        };
        if found.negated || found.reset {
            let kind = if found.negated { "negate" } else { "reset" };
            warnings.push(format!("environment contains invalid {kind} option '{key}'"));
            continue;
        }
        if !(scope.takes)(found.definition) {
            continue;
        }
        let bad = |message: String| Err(Error::new(Code::OptionInvalidValue, message));
        if text.is_empty() {
            return bad(format!("environment variable '{key}' must have a value"));
        }
        if settings.setting(found.definition.name, found.key).is_some() {
            continue;
        }
        let mut setting = Setting { texts: vec![], negated: false, reset: false, source: Source::Environment };
        match found.definition.kind {
            Kind::Boolean => match text.as_str() {
                "y" => {}
                "n" => setting.negated = true,
                _ => return bad(format!("environment boolean option '{key}' must be 'y' or 'n'")),
            },
            Kind::List | Kind::Hash => setting.texts = text.split(':').map(str::to_owned).collect(),
            _ => setting.texts.push(text.clone()),
        }
        settings.insert(found.definition.name, found.key, setting);
    }
    Ok(())
}

/// Adds what the files say of options that `settings` does not mention yet, nearest section first.
///
/// # Errors
///
/// 31 and 32 with pgBackRest's texts and a hint that names file and line.
pub(super) fn add_files(
    settings: &mut Settings,
    files: &Ini,
    scope: &Scope<'_>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let command = scope.command;
    let mut sections = Vec::with_capacity(4);
    if let Some(stanza) = scope.stanza {
        sections.push((format!("{stanza}:{command}"), true));
        sections.push((stanza.to_owned(), false));
    }
    sections.push((format!("global:{command}"), true));
    sections.push(("global".to_owned(), false));
    for (section, for_command) in sections {
        add_section(settings, files, &section, for_command, scope, warnings)?;
    }
    Ok(())
}

/// Adds what one section says of options that `settings` does not mention yet. `for_command`: it is one of
/// `[<section>:<command>]`.
///
/// # Errors
///
/// As for [`add_files`].
pub(super) fn add_section(
    settings: &mut Settings,
    files: &Ini,
    section: &str,
    for_command: bool,
    scope: &Scope<'_>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let is_global = section == "global" || section.starts_with("global:");
    let shared: Arc<str> = Arc::from(section);
    let mut names: BTreeMap<(&'static str, u16), &str> = BTreeMap::new();
    for entry in files.section(section) {
        let key = entry.key.as_str();
        let Some(first) = entry.values.first() else { continue };
        let source = Source::File { file: Arc::clone(&first.file), line: first.line, section: Arc::clone(&shared) };
        let with_place = |code: Code, message: String| Error::new(code, message + &source.hint());
        let found = definitions::find(key, Matching::default());
        let Some(found) = found.map_err(|error| with_place(error.code, error.message))? else {
            warnings.push(format!("configuration file contains invalid option '{key}'"));
            continue;
        };
        let definition = found.definition;
        if found.negated || found.reset {
            let kind = if found.negated { "negate" } else { "reset" };
            warnings.push(format!("configuration file contains {kind} option '{key}'"));
            continue;
        }
        if definition.section == Section::CommandLine {
            warnings.push(format!("configuration file contains command-line only option '{key}'"));
            continue;
        }
        if let Some(other) = names.insert((definition.name, found.key), key) {
            let message =
                format!("configuration file contains duplicate options ('{key}', '{other}') in section '[{section}]'");
            return Err(with_place(Code::OptionInvalid, message));
        }
        if !(scope.takes)(definition) {
            if for_command {
                warnings.push(format!("configuration file contains option '{key}' invalid for section '{section}'"));
            }
            continue;
        }
        if definition.section == Section::Stanza && is_global {
            warnings
                .push(format!("configuration file contains stanza-only option '{key}' in global section '{section}'"));
            continue;
        }
        if settings.setting(definition.name, found.key).is_some() {
            continue;
        }
        if entry.values.len() > 1 && !definition.multiple {
            let message = format!("option '{}' cannot be set multiple times", definition.display(found.key));
            return Err(with_place(Code::OptionInvalid, message));
        }
        let mut setting = Setting { texts: vec![], negated: false, reset: false, source: source.clone() };
        if entry.values.len() == 1 && first.text.is_empty() {
            let message = format!("section '{section}', key '{key}' must have a value");
            return Err(with_place(Code::OptionInvalidValue, message));
        }
        match (definition.kind, first.text.as_str()) {
            (Kind::Boolean, "y") => {}
            (Kind::Boolean, "n") => setting.negated = true,
            (Kind::Boolean, _) => {
                let message = format!("boolean option '{key}' must be 'y' or 'n'");
                return Err(with_place(Code::OptionInvalidValue, message));
            }
            _ => setting.texts = entry.values.iter().map(|value| value.text.clone()).collect(),
        }
        settings.insert(definition.name, found.key, setting);
    }
    Ok(())
}

fn invalid(message: String) -> Error {
    Error::new(Code::OptionInvalid, message)
}

fn unquoted(text: String) -> String {
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inner {
        Some(inner) if inner.contains(' ') => inner.to_owned(),
        _ => text,
    }
}
