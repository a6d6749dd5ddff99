//! The text of one value, checked against its option's type, range and list.
//!
//! Facts: specification, section 1.7. Texts of errors are pgBackRest's.

use std::time::Duration;

use super::definitions::{Definition, Kind};
use crate::protocol::error::{Code, Error, Result};

/// Units of sizes; each line is 1024 times the one before.
const SIZES: [&[&str]; 6] = [
    &["", "b"],
    &["k", "kb", "kib"],
    &["m", "mb", "mib"],
    &["g", "gb", "gib"],
    &["t", "tb", "tib"],
    &["p", "pb", "pib"],
];
/// Units of times, in milliseconds.
const TIMES: [(&str, i64); 7] =
    [("", 1000), ("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

/// A checked value of an option that is neither boolean, list nor hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checked {
    /// A number, a size in bytes or a time in milliseconds.
    Number(i64),
    /// A path without a trailing slash, a string or a choice.
    Text(String),
}

/// Checks `text` for an option with an index.
///
/// `fractions` accepts times like `0.5`, which releases before 2.53 wrote.
///
/// # Errors
///
/// 32 with pgBackRest's text when the value is malformed, out of range or not in the list.
pub(super) fn check(definition: &Definition, key: u16, text: &str, fractions: bool) -> Result<Checked> {
    let invalid = |message: String| Error::new(Code::OptionInvalidValue, message);
    let name = || definition.display(key);
    let number = match definition.kind {
        Kind::Integer | Kind::Size | Kind::Time => Some(
            number(definition.kind, text, fractions)
                .ok_or_else(|| invalid(format!("'{text}' is not valid for '{}' option", name())))?,
        ),
        _ => None,
    };
    if let Some((minimum, maximum)) = definition.allowed.split_once("..") {
        let limit = |bound: &str| super::value::number(definition.kind, bound, false);
        if let (Some(value), Some(low), Some(high)) = (number, limit(minimum), limit(maximum))
            && !(low..=high).contains(&value)
        {
            return Err(invalid(format!(
                "'{text}' is out of range for '{}' option\nHINT: allowed range is {minimum} to {maximum} inclusive",
                name()
            )));
        }
    } else if !definition.allowed.is_empty() {
        let mut choices = definition.allowed.split(',');
        let listed = choices.any(|choice| match number {
            Some(value) => super::value::number(definition.kind, choice, false) == Some(value),
            None => choice == text,
        });
        if !listed {
            let choices: Vec<_> = definition.allowed.split(',').map(|choice| format!("'{choice}'")).collect();
            return Err(invalid(format!(
                "'{text}' is not allowed for '{}' option\nHINT: allowed values are {}",
                name(),
                choices.join(", ")
            )));
        }
    }
    if let Some(number) = number {
        return Ok(Checked::Number(number));
    }
    if text.is_empty() {
        return Err(invalid(format!("'{text}' must be >= 1 character for '{}' option", name())));
    }
    match definition.kind {
        Kind::Path => path(name, text).map(Checked::Text),
        _ => Ok(Checked::Text(text.to_owned())),
    }
}

/// Checks a path: absolute, without `//`; a trailing slash is removed.
///
/// # Errors
///
/// 32 with pgBackRest's text.
pub(super) fn path(name: impl Fn() -> String, text: &str) -> Result<String> {
    let invalid = |message: String| Err(Error::new(Code::OptionInvalidValue, message));
    if !text.starts_with('/') {
        return invalid(format!("'{text}' must begin with / for '{}' option", name()));
    }
    if text.contains("//") {
        return invalid(format!("'{text}' cannot contain // for '{}' option", name()));
    }
    Ok(text.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(text).to_owned())
}

/// A size in bytes: digits and an optional unit, all powers of 1024.
pub(super) fn size(text: &str) -> Option<i64> {
    let (value, unit) = digits_and_unit(text)?;
    let is_named = |names: &&[&str]| names.iter().any(|name| unit.eq_ignore_ascii_case(name));
    let power = SIZES.iter().position(is_named).and_then(|power| u32::try_from(power).ok())?;
    value.checked_mul(1024i64.pow(power))
}

/// A time in milliseconds: digits and an optional unit, seconds without one; with `fractions` also
/// decimal seconds.
pub(super) fn time(text: &str, fractions: bool) -> Option<i64> {
    if fractions && let Some((seconds, fraction)) = text.split_once('.') {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(seconds) || !digits(fraction) {
            return None;
        }
        let thousandths: String = fraction.chars().chain("000".chars()).take(3).collect();
        return seconds.parse::<i64>().ok()?.checked_mul(1000)?.checked_add(thousandths.parse().ok()?);
    }
    let (value, unit) = digits_and_unit(text)?;
    let (_, factor) = TIMES.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name))?;
    value.checked_mul(*factor)
}

/// Milliseconds as the standard library counts them.
pub(super) fn duration(milliseconds: i64) -> Duration {
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
}

fn number(kind: Kind, text: &str, fractions: bool) -> Option<i64> {
    match kind {
        Kind::Size => size(text),
        Kind::Time => time(text, fractions),
        _ => text.parse().ok(),
    }
}

fn digits_and_unit(text: &str) -> Option<(i64, &str)> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (value, unit) = text.split_at(digits);
    Some((value.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::super::definitions::definition;
    use super::*;

    #[test]
    fn a_bad_value_is_reported_in_the_originals_words() {
        for (option, text, expected) in [
            ("tls-server-port", "x", "'x' is not valid for 'tls-server-port' option"),
            ("buffer-size", "1xb", "'1xb' is not valid for 'buffer-size' option"),
            ("buffer-size", "99999999999999p", "'99999999999999p' is not valid for 'buffer-size' option"),
            ("protocol-timeout", "1.5", "'1.5' is not valid for 'protocol-timeout' option"),
            (
                "tls-server-port",
                "0",
                "'0' is out of range for 'tls-server-port' option\nHINT: allowed range is 1 to 65535 inclusive",
            ),
            (
                "protocol-timeout",
                "2w",
                "'2w' is out of range for 'protocol-timeout' option\nHINT: allowed range is 100ms to 7d inclusive",
            ),
            (
                "log-level-file",
                "Info",
                "'Info' is not allowed for 'log-level-file' option\nHINT: allowed values are 'off', 'error', 'warn', \
                 'info', 'detail', 'debug', 'trace'",
            ),
            (
                "buffer-size",
                "3MiB",
                "'3MiB' is not allowed for 'buffer-size' option\nHINT: allowed values are '16KiB', '32KiB', '64KiB', \
                 '128KiB', '256KiB', '512KiB', '1MiB', '2MiB', '4MiB', '8MiB', '16MiB'",
            ),
            ("exec-id", "", "'' must be >= 1 character for 'exec-id' option"),
            ("log-path", "", "'' must be >= 1 character for 'log-path' option"),
            ("log-path", "a", "'a' must begin with / for 'log-path' option"),
            ("log-path", "/a//b", "'/a//b' cannot contain // for 'log-path' option"),
        ] {
            let error = check(definition(option).unwrap(), 1, text, false).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (Code::OptionInvalidValue, expected));
        }
    }

    #[test]
    fn sizes_times_and_paths_are_read_as_the_original_reads_them() {
        let sizes = ["16", "1k", "1KB", "2MiB", "1g", "1tb", "1PiB", "7b", "k", "-1"].map(size);
        let expected = [16, 1 << 10, 1 << 10, 2 << 20, 1 << 30, 1 << 40, 1 << 50, 7].map(Some);
        assert_eq!(sizes[..8], expected);
        assert_eq!(sizes[8..], [None, None]);
        let times = ["1", "1S", "100ms", "2m", "1h", "7d", "1w", "", "1.5", "1 s"].map(|text| time(text, false));
        let expected = [1000, 1000, 100, 120_000, 3_600_000, 604_800_000, 604_800_000].map(Some);
        assert_eq!(times[..7], expected);
        assert_eq!(times[7..], [None, None, None]);
        assert_eq!(["0.1", "1.2345", "1.", ".5"].map(|text| time(text, true)), [Some(100), Some(1234), None, None]);
        assert_eq!(path(String::new, "/a/").unwrap(), "/a");
        assert_eq!(path(String::new, "/").unwrap(), "/");
    }
}
