//! Heads of messages up to 2.53.1: commands, and the data of the one file that may be written
//! (specification, section 3.2).
//!
//! They are given the envelopes of the later framing, so that all that follows knows one kind: data
//! is the next step of the write, null data its completion.

use super::{Envelope, Head, name};
use crate::protocol::error::{Error, Result};
use crate::protocol::pack::{Field, Type, decode_field};
use crate::protocol::string_id::StringId;

const DATA: u64 = 0;
const COMMAND: u64 = 2;

/// Decodes the fields before the parameters; `None` when more bytes are needed.
///
/// # Errors
///
/// [`Code::Format`](crate::protocol::error::Code::Format) for what is neither a command nor data.
pub(super) fn decode_head(bytes: &[u8]) -> Result<Option<Head>> {
    let wrong = || Error::format("expected command message");
    let mut at = 0;
    let mut next = || -> Result<Option<Option<Field>>> {
        let Some((field, length)) = decode_field(&bytes[at..])? else { return Ok(None) };
        at += length;
        Ok(Some(field))
    };
    let kind = match next()? {
        None => return Ok(None),
        Some(Some(Field { kind: Type::U32, skipped: 0, value: kind @ (DATA | COMMAND) })) => kind,
        Some(_) => return Err(wrong()),
    };
    let mut envelope =
        Envelope { command: name::CLASSIC_WRITE, kind: name::CLOSE, session: Envelope::CLASSIC, open: true };
    if kind == COMMAND {
        let command = match next()? {
            None => return Ok(None),
            Some(Some(Field { kind: Type::StringId, skipped: 0, value })) => StringId(value),
            Some(_) => return Err(wrong()),
        };
        let opens = matches!(command, name::CLASSIC_READ | name::CLASSIC_WRITE);
        let kind = if opens { name::OPEN } else { name::PROCESS };
        envelope = Envelope { command, kind, session: Envelope::CLASSIC, open: false };
    }
    let parameters = match next()? {
        None => return Ok(None),
        Some(None) => None,
        Some(Some(Field { kind: Type::Pack, skipped: 0, value })) => Some(value),
        Some(Some(_)) => return Err(wrong()),
    };
    if kind == DATA && parameters.is_some() {
        envelope.kind = name::PROCESS;
    }
    Ok(Some(Head { envelope, length: at, parameters }))
}
