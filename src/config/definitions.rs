//! The table of options: which names exist, what their values look like, who knows them.
//!
//! Owns the embedded table `data/options.tsv` (the union of all releases from 2.37 on) and the rules
//! by which a written name finds its option: prefixes `no-` and `reset-`, indexes, deprecated names,
//! abbreviations. It knows nothing of values or sources. Facts: specification, sections 1.1 and 1.9.

use std::borrow::Cow;
use std::sync::OnceLock;

use super::command::Command;
use crate::protocol::error::{Code, Error, Result};

/// The highest index of `repoN-…` and `pgN-…`.
pub(super) const INDEX_MAXIMUM: u16 = 256;

const TABLE: &str = include_str!("data/options.tsv");
const NAME_MAXIMUM: usize = 64;

/// What the text of an option's value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean,
    Integer,
    Size,
    Time,
    Path,
    Text,
    Choice,
    List,
    Hash,
}

/// Where an option may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    CommandLine,
    Global,
    Stanza,
}

/// One option.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent columns of a table, not a state")]
pub(super) struct Definition {
    /// The name without an index.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) section: Section,
    /// `repo` or `pg` for options that carry an index.
    pub(super) group: Option<&'static str>,
    pub(super) negatable: bool,
    pub(super) resettable: bool,
    pub(super) secret: bool,
    /// May be given several times.
    pub(super) multiple: bool,
    /// Takes `y` or `n` among its values and may stand without one.
    boolean_like: bool,
    /// Ours, unknown to pgBackRest.
    own: bool,
    pub(super) default: Option<&'static str>,
    /// A comma list, or `minimum..maximum`.
    pub(super) allowed: &'static str,
    commands: &'static str,
    deprecated: &'static str,
}

impl Definition {
    /// The name as messages show it, with the index where there is one.
    pub(super) fn display(&self, key: u16) -> String {
        match self.group {
            Some(group) => format!("{group}{key}{}", &self.name[group.len()..]),
            None => self.name.to_owned(),
        }
    }

    /// Whether `server` or the remote role of another command knows this option.
    pub(super) fn known_to(&self, command: &str) -> bool {
        let mut known = false;
        for word in self.commands.split(',') {
            if word == command || (word == "*" && Command::named(command).is_some()) {
                known = true;
            } else if word.strip_prefix('-') == Some(command) {
                known = false;
            }
        }
        known
    }

    pub(super) fn takes_no_value(&self) -> bool {
        self.kind == Kind::Boolean
    }

    pub(super) fn is_boolean_like(&self) -> bool {
        self.boolean_like
    }

    /// Whether a deprecated name without an index reads exactly like the base name (`repo-path`).
    fn deprecated_as_itself(&self) -> bool {
        self.deprecated.split(',').any(|alias| alias == self.name)
    }

    /// Whether `base` is one of the deprecated names: with and without an index.
    fn alias(&self, matches: impl Fn(&str) -> bool) -> Option<Alias> {
        let (mut indexed, mut plain) = (false, false);
        for alias in self.deprecated.split(',').filter(|alias| !alias.is_empty()) {
            if matches(&alias.replace('?', "")) {
                if alias.contains('?') {
                    indexed = true;
                } else {
                    plain = true;
                }
            }
        }
        (indexed || plain).then_some(Alias { indexed, plain })
    }
}

#[derive(Debug, Clone, Copy)]
struct Alias {
    indexed: bool,
    plain: bool,
}

/// How strictly a written name is matched.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Matching {
    /// Unique abbreviations are accepted, as on a command line.
    pub(super) abbreviations: bool,
    /// Our own options are accepted, as on our own command line.
    pub(super) own: bool,
}

/// What a written name means.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) definition: &'static Definition,
    /// The index; 1 for options without one.
    pub(super) key: u16,
    /// Written with `no-`.
    pub(super) negated: bool,
    /// Written with `reset-`.
    pub(super) reset: bool,
}

/// All options, in alphabetical order of their names.
pub(super) fn definitions() -> &'static [Definition] {
    static DEFINITIONS: OnceLock<Vec<Definition>> = OnceLock::new();
    DEFINITIONS.get_or_init(|| {
        let mut all: Vec<Definition> = TABLE.lines().filter_map(row).collect();
        all.sort_by_key(|definition| definition.name);
        all
    })
}

/// The option called `name`, without an index.
pub(super) fn definition(name: &str) -> Option<&'static Definition> {
    let all = definitions();
    all.binary_search_by_key(&name, |definition| definition.name).ok().and_then(|index| all.get(index))
}

/// Finds the option that `candidate` (without `--` and without a value) names; none when there is
/// no such option.
///
/// # Errors
///
/// 31 when the name is malformed, or when it is negated, reset or indexed where it must not be.
pub(super) fn find(candidate: &str, matching: Matching) -> Result<Option<Found>> {
    let invalid = |text: String| Err(Error::new(Code::OptionInvalid, text));
    if candidate.len() > NAME_MAXIMUM {
        return invalid(format!("option '{candidate}' exceeds maximum size of {NAME_MAXIMUM}"));
    }
    let (negated, reset, name) = if let Some(rest) = candidate.strip_prefix("no-") {
        (true, false, rest)
    } else if let Some(rest) = candidate.strip_prefix("reset-") {
        (false, true, rest)
    } else {
        (false, false, candidate)
    };

    let (before, after) = name.split_at(name.find('-').unwrap_or(name.len()));
    let word = if after.is_empty() { before } else { before.trim_end_matches(|c: char| c.is_ascii_digit()) };
    let digits = &before[word.len()..];
    if !after.is_empty() && before.is_empty() {
        return invalid(format!("option '{candidate}' cannot begin with a dash"));
    }
    if !after.is_empty() && word.is_empty() {
        return invalid(format!("option '{candidate}' cannot begin with a number"));
    }
    let index = if digits.is_empty() {
        None
    } else {
        match digits.trim_start_matches('0').parse() {
            Ok(key @ 1..=INDEX_MAXIMUM) => Some(key),
            _ => return invalid(format!("option '{candidate}' key must be between 1 and {INDEX_MAXIMUM}")),
        }
    };
    let base = if digits.is_empty() { Cow::Borrowed(name) } else { Cow::Owned(format!("{word}{after}")) };

    let Some((definition, alias)) = by_base_name(&base, matching) else { return Ok(None) };
    if let Some(alias) = alias {
        if index.is_some() && !alias.indexed {
            return invalid(format!("deprecated option '{candidate}' cannot have an index"));
        }
        if index.is_none() && !alias.plain {
            return invalid(format!(
                "deprecated option '{candidate}' requires an index\nHINT: add the required index, e.g. {word}1{after}.\n\
                 HINT: consider using the non-deprecated name, e.g. {}.",
                definition.display(1)
            ));
        }
    }
    if negated && !definition.negatable {
        return invalid(format!("option '{candidate}' cannot be negated"));
    }
    if reset && !definition.resettable {
        return invalid(format!("option '{candidate}' cannot be reset"));
    }
    if alias.is_none() {
        if index.is_some() && definition.group.is_none() {
            return invalid(format!("option '{candidate}' cannot have an index"));
        }
        if index.is_none() && definition.group.is_some() && !definition.deprecated_as_itself() {
            return invalid(format!(
                "option '{candidate}' requires an index\nHINT: add the required index, e.g. {}.",
                definition.display(1)
            ));
        }
    }
    Ok(Some(Found { definition, key: index.unwrap_or(1), negated, reset }))
}

/// The option behind a name without its index, and how it is deprecated if it is.
fn by_base_name(base: &str, matching: Matching) -> Option<(&'static Definition, Option<Alias>)> {
    let is_known = move |definition: &&Definition| matching.own || !definition.own;
    if let Some(exact) = definition(base).filter(is_known) {
        return Some((exact, None));
    }
    let known = || definitions().iter().filter(is_known);
    if matching.abbreviations {
        // Our own names must not make an abbreviation ambiguous that pgBackRest accepts.
        let mut candidates = known().filter(|definition| !definition.own && definition.name.starts_with(base));
        if let (Some(only), None) = (candidates.next(), candidates.next()) {
            return Some((only, None));
        }
    }
    let aliased = |matches: &dyn Fn(&str) -> bool| {
        known().filter_map(|definition| Some((definition, Some(definition.alias(matches)?)))).collect::<Vec<_>>()
    };
    if let Some(exact) = aliased(&|alias| alias == base).first() {
        return Some(*exact);
    }
    if matching.abbreviations
        && let [only] = aliased(&|alias| alias.starts_with(base)).as_slice()
    {
        return Some(*only);
    }
    None
}

fn row(line: &'static str) -> Option<Definition> {
    if line.starts_with('#') {
        return None;
    }
    let mut columns = line.split('\t');
    let name = columns.next()?;
    let (_first, _last, kind, section, group) =
        (columns.next()?, columns.next()?, columns.next()?, columns.next()?, columns.next()?);
    let (flags, default, allowed) = (columns.next()?, columns.next()?, columns.next()?);
    let (commands, deprecated) = (columns.next()?, columns.next()?);
    Some(Definition {
        name,
        kind: match kind {
            "boolean" => Kind::Boolean,
            "integer" => Kind::Integer,
            "size" => Kind::Size,
            "time" => Kind::Time,
            "path" => Kind::Path,
            "string-id" => Kind::Choice,
            "list" => Kind::List,
            "hash" => Kind::Hash,
            _ => Kind::Text,
        },
        section: match section {
            "command-line" => Section::CommandLine,
            "stanza" => Section::Stanza,
            _ => Section::Global,
        },
        group: (!group.is_empty()).then_some(group),
        negatable: flags.contains('n'),
        resettable: flags.contains('r'),
        secret: flags.contains('s'),
        multiple: flags.contains(['m', 'a']),
        boolean_like: flags.contains('y'),
        own: flags.contains('o'),
        default: (!default.is_empty()).then_some(default),
        allowed,
        commands,
        deprecated,
    })
}
