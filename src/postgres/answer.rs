//! What a client of pgBackRest gets for a statement: the result in the form of its release, or the error
//! that the original gives.
//!
//! Source: specification, server sections 7.2 and 7.3; the order of the errors is that of the release.

use std::time::Duration;

use super::client::{Finished, First, Rows};
use crate::protocol::database::Expected;
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::pack::Writer;
use crate::protocol::release::{DatabaseAnswers, Release};
use crate::protocol::response::Payload;

/// Types by their numbers in `pg_type`.
const BOOL: u32 = 16;
const CHAR: u32 = 18;
const NAME: u32 = 19;
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const OID: u32 = 26;

/// Those that have a form in a pack.
const TYPED: [u32; 7] = [BOOL, CHAR, NAME, INT8, INT4, TEXT, OID];
/// Those that have one in JSON, where all numbers are alike.
const UNTYPED: [u32; 8] = [BOOL, CHAR, NAME, INT8, INT2, INT4, TEXT, OID];

/// A statement of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Its text.
    pub text: String,
    /// What should come of it.
    pub expected: Expected,
    /// How long it may take.
    pub timeout: Duration,
}

impl Statement {
    /// The data of the answer for a client of `release`.
    ///
    /// # Errors
    ///
    /// Code 57 for what failed, 29 for values that have no form on the wire, 101 as `release` has it.
    pub fn answer(&self, release: &Release, finished: Finished) -> Result<Payload> {
        let text = &self.text;
        let failed = |message: String| Err(Error::new(Code::DbQuery, message));
        let (result, further) = match finished {
            Finished::NotSent(reason) => return failed(format!("unable to send query '{text}': {}", trim(&reason))),
            Finished::NotCancelled(reason) => {
                return failed(format!("unable to cancel query '{text}': {}", trim(&reason)));
            }
            Finished::TooLong(maximum) => {
                return failed(format!("unable to execute query '{text}': the answer is longer than {maximum} bytes"));
            }
            Finished::TimedOut { further } => {
                let milliseconds = self.timeout.as_millis();
                (failed(format!("query '{text}' timed out after {milliseconds}ms")), further)
            }
            Finished::Answered { first, further } => (self.convert(release, &first), further),
        };
        // It takes precedence over what went wrong before.
        let Some(reason) = further else { return result };
        let reason = trim(&reason);
        let colon = if reason.is_empty() { "" } else { ": " };
        if release.explains_lost_connections {
            return failed(format!(
                "unable to complete query '{text}'{colon}{reason}\n\
                 HINT: this is usually caused by the connection to PostgreSQL being lost while the query was running.\n\
                 HINT: check idle_session_timeout and idle_in_transaction_session_timeout for aggressive settings.\n\
                 HINT: check the PostgreSQL log and network for a crash, restart, or timeout."
            ));
        }
        // The original says no more than that.
        Err(Error::new(Code::Service, format!("NULL result required to complete request{colon}{reason}")))
    }

    fn convert(&self, release: &Release, first: &First) -> Result<Payload> {
        let Self { text, expected, .. } = self;
        let failed = |message: String| Err(Error::new(Code::DbQuery, message));
        let untyped = release.database_answers == DatabaseAnswers::Json;
        let expected = if untyped { Expected::Any } else { *expected };
        match first {
            First::Command if matches!(expected, Expected::Row | Expected::Column) => {
                failed(format!("result expected from '{text}'"))
            }
            First::Command if untyped => Ok(Payload::from_pack(|pack| _ = pack.str("null"))),
            First::Command => Ok(Payload::from_pack(|_| {})),
            First::Error(_) if expected == Expected::None && release.expects_no_result_first => {
                failed(format!("no result expected from '{text}'"))
            }
            First::Error(reason) => failed(format!("unable to execute query '{text}': {}", trim(reason))),
            First::Rows(_) if expected == Expected::None => failed(format!("no result expected from '{text}'")),
            First::Rows(rows) if expected != Expected::Any && rows.count != 1 => {
                failed(format!("expected one row from '{text}'"))
            }
            First::Rows(rows) if expected == Expected::Column && rows.types.len() != 1 => {
                failed(format!("expected one column from '{text}'"))
            }
            First::Rows(rows) if untyped => {
                let json = self.json(rows)?;
                Ok(Payload::from_pack(|pack| _ = pack.text(&json)))
            }
            First::Rows(rows) => {
                let result = self.pack(rows, expected == Expected::Any)?;
                Ok(Payload::from_pack(|pack| _ = pack.pack_bytes(&result)))
            }
        }
    }

    /// Every value with the number of its column. `known` says which types have a form.
    fn values<'a>(&self, rows: &'a Rows, known: &[u32]) -> impl Iterator<Item = Result<(usize, Value<'a>)>> {
        let columns = rows.types.iter().copied().enumerate().cycle();
        columns.zip(rows.fields()).map(move |((column, kind), field)| {
            let Some(field) = field else { return Ok((column, Value::Null)) };
            if !known.contains(&kind) {
                let text = &self.text;
                return Err(Error::format(format!(
                    "unable to parse type {kind} in column {column} for query '{text}'"
                )));
            }
            Ok((column, Value::new(kind, field)?))
        })
    }

    fn pack(&self, rows: &Rows, in_arrays: bool) -> Result<Vec<u8>> {
        let mut pack = Writer::new();
        let mut values = self.values(rows, &TYPED);
        for _ in 0..rows.count {
            let mut row = values.by_ref().take(rows.types.len()).collect::<Result<Vec<_>>>()?.into_iter();
            let write = |pack: &mut Writer| row.by_ref().for_each(|(_, value)| value.write(pack));
            if in_arrays {
                pack.array(write);
            } else {
                let mut write = write;
                write(&mut pack);
            }
        }
        Ok(pack.finish())
    }

    /// An array of arrays, as the original writes it. It does not look at what bytes of text mean.
    fn json(&self, rows: &Rows) -> Result<Vec<u8>> {
        let mut json = b"[".to_vec();
        let mut values = self.values(rows, &UNTYPED);
        for row in 0..rows.count {
            json.extend_from_slice(if row > 0 { b",[" } else { b"[" });
            for value in values.by_ref().take(rows.types.len()) {
                let (column, value) = value?;
                if column > 0 {
                    json.push(b',');
                }
                value.write_json(&mut json);
            }
            json.push(b']');
        }
        json.push(b']');
        Ok(json)
    }
}

/// What the original takes for white space.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r'])
}

/// A value that has a form on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    Null,
    Bool(bool),
    Text(&'a [u8]),
    I64(i64),
    I32(i32),
    U32(u32),
}

impl<'a> Value<'a> {
    /// A value of the type with the number `kind`, one of those that are known.
    fn new(kind: u32, field: &'a [u8]) -> Result<Self> {
        Ok(match kind {
            BOOL => Self::Bool(boolean(field)?),
            INT8 => Self::I64(number(field)?),
            INT2 | INT4 => Self::I32(number(field)?),
            OID => Self::U32(number(field)?),
            _ => Self::Text(field),
        })
    }

    fn write(self, pack: &mut Writer) {
        match self {
            Self::Null => pack.null(),
            Self::Bool(value) => pack.bool_forced(value),
            Self::Text(value) => pack.text(value),
            Self::I64(value) => pack.i64_forced(value),
            Self::I32(value) => pack.i32_forced(value),
            Self::U32(value) => pack.u32_forced(value),
        };
    }

    fn write_json(self, json: &mut Vec<u8>) {
        let number = match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::I64(value) => value.to_string(),
            Self::I32(value) => value.to_string(),
            Self::U32(value) => value.to_string(),
            Self::Text(value) => return write_json_text(json, value),
        };
        json.extend_from_slice(number.as_bytes());
    }
}

fn write_json_text(json: &mut Vec<u8>, text: &[u8]) {
    json.push(b'"');
    for byte in text {
        match byte {
            b'"' | b'\\' => json.extend_from_slice(&[b'\\', *byte]),
            b'\n' => json.extend_from_slice(b"\\n"),
            b'\r' => json.extend_from_slice(b"\\r"),
            b'\t' => json.extend_from_slice(b"\\t"),
            0x08 => json.extend_from_slice(b"\\b"),
            0x0c => json.extend_from_slice(b"\\f"),
            byte => json.push(*byte),
        }
    }
    json.push(b'"');
}

fn boolean(field: &[u8]) -> Result<bool> {
    let is = |words: [&str; 6]| words.iter().any(|word| field.eq_ignore_ascii_case(word.as_bytes()));
    if is(["y", "t", "1", "yes", "true", "on"]) {
        Ok(true)
    } else if is(["n", "f", "0", "no", "false", "off"]) {
        Ok(false)
    } else {
        Err(Error::format(format!("unable to convert str '{}' to bool", String::from_utf8_lossy(field))))
    }
}

fn number<T: std::str::FromStr>(field: &[u8]) -> Result<T> {
    std::str::from_utf8(field).ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
        Error::format(format!("unable to convert string '{}' to a number", String::from_utf8_lossy(field)))
    })
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
