//! Errors of a server in the words of libpq, which are the ones that administrators know.

use std::fmt::Write as _;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;

/// The widest line of a statement that is shown, in columns.
const WIDTH: usize = 60;
/// So many columns are left behind the place of an error before the line is cut there.
const BEHIND: usize = 10;

/// An error of a server.
#[derive(Debug, Default)]
pub(super) struct ServerError {
    severity: Option<String>,
    /// Five letters and digits that say what kind it is.
    pub(super) state: Option<String>,
    message: Option<String>,
    detail: Option<String>,
    hint: Option<String>,
    context: Option<String>,
    position: Option<String>,
    internal_position: Option<String>,
    internal_statement: Option<String>,
}

impl ServerError {
    pub(super) fn new(mut fields: ErrorFields<'_>) -> Self {
        let mut error = Self::default();
        // What follows a malformed field is left out.
        while let Ok(Some(field)) = fields.next() {
            let place = match field.type_() {
                b'S' => &mut error.severity,
                b'C' => &mut error.state,
                b'M' => &mut error.message,
                b'D' => &mut error.detail,
                b'H' => &mut error.hint,
                b'W' => &mut error.context,
                b'P' => &mut error.position,
                b'p' => &mut error.internal_position,
                b'q' => &mut error.internal_statement,
                _ => continue,
            };
            *place = Some(String::from_utf8_lossy(field.value_bytes()).into_owned());
        }
        error
    }

    /// The text that libpq gives, which ends in a line feed. `statement` is what the error is about.
    pub(super) fn text(&self, statement: Option<&str>) -> String {
        let mut text = String::new();
        if let Some(severity) = &self.severity {
            text += severity;
            text += ":  ";
        }
        text += self.message.as_deref().unwrap_or_default();
        let (position, statement) = match &self.position {
            Some(position) => (Some(position), statement),
            None => (self.internal_position.as_ref(), self.internal_statement.as_deref()),
        };
        let shown = match (position, statement) {
            (Some(position), Some(statement)) => position.parse().ok().map(|position| (statement, position)),
            (Some(position), None) => {
                text += " at character ";
                text += position;
                None
            }
            (None, _) => None,
        };
        text.push('\n');
        if let Some((statement, position)) = shown {
            show_place(&mut text, statement, position);
        }
        let more = [
            ("DETAIL", &self.detail),
            ("HINT", &self.hint),
            ("QUERY", &self.internal_statement),
            ("CONTEXT", &self.context),
        ];
        for (name, value) in more {
            if let Some(value) = value {
                // Writing to a string does not fail.
                let _ = writeln!(text, "{name}:  {value}");
            }
        }
        text
    }
}

/// Adds the line of `statement` that has its character number `position`, counted from 1, and a caret
/// below that character. A long line is cut, at the right if the character is still seen then.
fn show_place(text: &mut String, statement: &str, position: usize) {
    let characters: Vec<char> = statement.chars().collect();
    let Some(at) = position.checked_sub(1).filter(|at| *at <= characters.len()) else { return };
    let is_end = |character: &char| matches!(character, '\n' | '\r');
    let before = characters.get(..at).unwrap_or_default();
    let mut begin = before.iter().rposition(is_end).map_or(0, |index| index + 1);
    let behind = characters.get(at..).unwrap_or_default();
    let mut end = behind.iter().position(is_end).map_or(characters.len(), |count| at + count);
    let number = 1 + before
        .iter()
        .enumerate()
        .filter(|(index, character)| {
            let follows = index.checked_sub(1).and_then(|index| before.get(index)) == Some(&'\r');
            **character == '\r' || **character == '\n' && !follows
        })
        .count();
    let (mut cut_before, mut cut_behind) = (false, false);
    if end - begin > WIDTH {
        if begin + WIDTH >= at + BEHIND {
            end = begin + WIDTH;
            cut_behind = true;
        } else {
            if at + BEHIND < end {
                end = at + BEHIND;
                cut_behind = true;
            }
            if end - begin > WIDTH {
                begin = end - WIDTH;
                cut_before = true;
            }
        }
    }
    let head = format!("LINE {number}: {}", if cut_before { "..." } else { "" });
    let line: String = characters
        .get(begin..end)
        .unwrap_or_default()
        .iter()
        .map(|character| if *character == '\t' { ' ' } else { *character })
        .collect();
    let tail = if cut_behind { "..." } else { "" };
    let indent = head.chars().count() + at.saturating_sub(begin);
    let _ = writeln!(text, "{head}{line}{tail}\n{:indent$}^", "");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error() -> ServerError {
        ServerError {
            severity: Some("ERROR".into()),
            message: Some("column \"x\" does not exist".into()),
            position: Some("8".into()),
            ..ServerError::default()
        }
    }

    #[test]
    fn an_error_shows_the_place_in_the_statement() {
        assert_eq!(
            error().text(Some("select x")),
            "ERROR:  column \"x\" does not exist\nLINE 1: select x\n               ^\n"
        );
        assert_eq!(error().text(None), "ERROR:  column \"x\" does not exist at character 8\n");
        let late = ServerError { position: Some("99".into()), ..error() };
        assert_eq!(late.text(Some("select x")), "ERROR:  column \"x\" does not exist\n");
    }

    #[test]
    fn details_follow_on_lines_of_their_own() {
        let error = ServerError {
            severity: Some("FATAL".into()),
            message: Some("m".into()),
            detail: Some("d".into()),
            hint: Some("h".into()),
            context: Some("c".into()),
            internal_position: Some("1".into()),
            internal_statement: Some("q".into()),
            ..ServerError::default()
        };
        assert_eq!(error.text(None), "FATAL:  m\nLINE 1: q\n        ^\nDETAIL:  d\nHINT:  h\nQUERY:  q\nCONTEXT:  c\n");
    }

    #[test]
    fn the_line_of_the_place_is_found_whatever_ends_lines() {
        for (statement, position, shown) in [
            ("a\nb\tc\nd", 5, "LINE 2: b c\n          ^\n"),
            ("a\r\nb", 4, "LINE 2: b\n        ^\n"),
            ("a\n\nb", 4, "LINE 3: b\n        ^\n"),
            ("ab", 3, "LINE 1: ab\n          ^\n"),
            ("", 1, "LINE 1: \n        ^\n"),
            ("ab", 4, ""),
            ("ab", 0, ""),
        ] {
            let mut text = String::new();
            show_place(&mut text, statement, position);
            assert_eq!(text, shown, "{statement:?}");
        }
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let line: String = ('a'..='z').cycle().take(200).collect();
        let shown = |position| {
            let mut text = String::new();
            show_place(&mut text, &line, position);
            let (first, caret) = text.split_once('\n').unwrap();
            let at = caret.find('^').unwrap();
            (first.to_owned(), first.as_bytes()[at] as char)
        };
        let (first, at) = shown(3);
        assert_eq!((first.as_str(), at), (&*format!("LINE 1: {}...", &line[..60]), 'c'));
        let (first, at) = shown(101);
        assert_eq!((first.as_str(), at), (&*format!("LINE 1: ...{}...", &line[50..110]), 'w'));
        let (first, at) = shown(200);
        assert_eq!((first.as_str(), at), (&*format!("LINE 1: ...{}", &line[140..]), 'r'));
    }
}
