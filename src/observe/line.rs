//! How a log line looks. Source: specification, section 2.7.

use std::fmt::{self, Write as _};

use jiff::ZonedDateTime;

use crate::protocol::carried::carried;

/// The longest message; pgBackRest cuts what is longer.
const MESSAGE_MAXIMUM: usize = 32 * 1024;

/// How much a message matters, and as a setting how much is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// As a setting: nothing at all. No message has this level.
    #[default]
    Off,
    /// A failure that somebody has to look at; carries a code.
    Error,
    /// Something that an administrator should know.
    Warn,
    /// What the server did.
    Info,
    /// What it did in between.
    Detail,
    /// For whoever looks for a fault, libraries included.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// The level that a configuration file calls `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "off" => Self::Off,
            "error" => Self::Error,
            "warn" => Self::Warn,
            "info" => Self::Info,
            "detail" => Self::Detail,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => return None,
        })
    }

    /// The name as it stands in a line.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Off => "OFF",
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Detail => "DETAIL",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }

    /// What stands between the level and the message of lines for fault finding.
    const fn indent(self) -> &'static str {
        match self {
            Self::Debug => "    ",
            Self::Trace => "        ",
            _ => "",
        }
    }
}

/// One message before it is laid out for a sink.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// How much it matters.
    pub level: Level,
    /// The module that says it; shown from [`Level::Debug`] on.
    pub origin: &'a str,
    /// The text, of several lines perhaps.
    pub text: fmt::Arguments<'a>,
}

/// Lays a message out for the console and the file: `2024-05-01 12:00:00.123 P00   INFO: text`.
/// `P00` is the number of the process; without `time` the line begins there.
pub fn write_full(out: &mut String, message: &Message<'_>, time: Option<&ZonedDateTime>, process: u32) {
    let start = out.len();
    if let Some(time) = time {
        // Writing to a string fails only when the format is wrong, and this one is constant.
        let _ = write!(out, "{} ", time.strftime("%Y-%m-%d %H:%M:%S%.3f"));
    }
    let _ = write!(out, "P{process:02} {:>6}: ", message.level.label());
    let width = out.len() - start;
    write_text(out, message, width);
}

/// Lays a message out for standard error, where the line begins at the level: `ERROR: text`.
pub fn write_short(out: &mut String, message: &Message<'_>) {
    let start = out.len();
    out.push_str(message.level.label());
    out.push_str(": ");
    let width = out.len() - start;
    write_text(out, message, width);
}

/// Appends the text, its further lines indented by `width`, and the line feed.
///
/// Control characters become `?`: part of many texts comes from a peer, who could otherwise play
/// tricks on the terminal of whoever reads the log. A line feed in such a text cannot forge a line,
/// because what follows it is indented. Names of files have none: what they have that is no text, or no
/// character to be seen, is [carried](crate::protocol::carried), and written as `\xe9`.
fn write_text(out: &mut String, message: &Message<'_>, width: usize) {
    let mut sink = Indented { out, width, left: MESSAGE_MAXIMUM };
    if message.level >= Level::Debug {
        let _ = write!(sink, "{}{}: ", message.level.indent(), message.origin);
    }
    // An error here is the cut at the maximum.
    let _ = sink.write_fmt(message.text);
    out.push('\n');
}

/// Passes text on to a string with its lines indented and its control characters replaced.
struct Indented<'a> {
    out: &'a mut String,
    width: usize,
    left: usize,
}

impl fmt::Write for Indented<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            self.left = self.left.checked_sub(character.len_utf8()).ok_or(fmt::Error)?;
            match character {
                '\n' => {
                    self.out.push('\n');
                    self.out.extend(std::iter::repeat_n(' ', self.width));
                }
                '\t' => self.out.push('\t'),
                other if other.is_control() => self.out.push('?'),
                other => match carried(other) {
                    // Writing to a string does not fail.
                    Some(byte) => _ = write!(self.out, "\\x{byte:02x}"),
                    None => self.out.push(other),
                },
            }
        }
        Ok(())
    }
}

/// So many of something, in words: `1 warning`, `2 warnings`.
#[must_use]
pub fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::carried::Carried;

    fn full(level: Level, text: &str, time: Option<&ZonedDateTime>) -> String {
        let mut out = String::new();
        write_full(&mut out, &Message { level, origin: "server::listen", text: format_args!("{text}") }, time, 0);
        out
    }

    fn short(level: Level, text: &str) -> String {
        let mut out = String::new();
        write_short(&mut out, &Message { level, origin: "server", text: format_args!("{text}") });
        out
    }

    #[test]
    fn lines_look_like_those_that_people_grep_for() {
        for (level, text, expected) in [
            (Level::Info, "server command begin", "P00   INFO: server command begin\n"),
            (Level::Warn, "a", "P00   WARN: a\n"),
            (Level::Error, "[031]: a\nHINT: b", "P00  ERROR: [031]: a\n            HINT: b\n"),
            (Level::Detail, "configuration reload begin", "P00 DETAIL: configuration reload begin\n"),
            (Level::Debug, "a", "P00  DEBUG:     server::listen: a\n"),
            (Level::Trace, "a", "P00  TRACE:         server::listen: a\n"),
        ] {
            assert_eq!(full(level, text, None), expected);
        }
    }

    #[test]
    fn a_timestamp_is_local_with_milliseconds_and_widens_the_indent() {
        let time: ZonedDateTime = "2024-05-01T12:00:00.0456[UTC]".parse().unwrap();
        assert_eq!(
            full(Level::Info, "a\nb", Some(&time)),
            "2024-05-01 12:00:00.045 P00   INFO: a\n                                    b\n"
        );
    }

    #[test]
    fn standard_error_begins_at_the_level() {
        assert_eq!(short(Level::Error, "[037]: a\nHINT: b"), "ERROR: [037]: a\n       HINT: b\n");
        assert_eq!(short(Level::Warn, "a\nb"), "WARN: a\n      b\n");
    }

    #[test]
    fn a_peer_cannot_send_control_sequences_to_the_terminal() {
        assert_eq!(full(Level::Warn, "a\x1b[2J\rb", None), "P00   WARN: a?[2J?b\n");
    }

    #[test]
    fn a_name_that_is_no_text_is_shown_in_numbers_within_its_line() {
        let name = Carried(b"/pg/caf\xe9\n\x1b[2J\xff");
        assert_eq!(
            full(Level::Warn, &format!("unable to open '{name}'"), None),
            "P00   WARN: unable to open '/pg/caf\\xe9\\x0a\\x1b[2J\\xff'\n"
        );
        assert_eq!(short(Level::Error, &format!("{name}")), "ERROR: /pg/caf\\xe9\\x0a\\x1b[2J\\xff\n");
    }

    #[test]
    fn a_huge_message_is_cut() {
        let line = full(Level::Warn, &"x".repeat(1 << 20), None);
        assert_eq!(line.len(), "P00   WARN: \n".len() + MESSAGE_MAXIMUM);
    }

    #[test]
    fn every_level_has_the_name_of_the_option_value() {
        for (name, level) in [("off", Level::Off), ("detail", Level::Detail), ("trace", Level::Trace)] {
            assert_eq!(Level::from_name(name), Some(level));
        }
        assert_eq!(Level::from_name("loud"), None);
    }
}
