//! Heads of messages since 2.54: every request names its session (specification, section 3.3).

use super::{Envelope, Head};
use crate::protocol::error::{Error, Result};
use crate::protocol::pack::{Type, decode_field};
use crate::protocol::string_id::StringId;

/// Decodes the fields before the parameters; `None` when more bytes are needed.
///
/// # Errors
///
/// [`Code::Format`](crate::protocol::error::Code::Format) for what is no request.
pub(super) fn decode_head(bytes: &[u8]) -> Result<Option<Head>> {
    let mut envelope = Envelope { command: StringId(0), kind: StringId(0), session: 0, open: false };
    let (mut at, mut id) = (0, 0);
    loop {
        let Some((field, length)) = decode_field(&bytes[at..])? else { return Ok(None) };
        at += length;
        let Some(field) = field else {
            if envelope.command == StringId(0) {
                return Err(Error::format("expected request message"));
            }
            return Ok(Some(Head { envelope, length: at, parameters: None }));
        };
        id += 1 + field.skipped;
        match (id, field.kind) {
            (1, Type::U32) if field.value == 1 => {}
            (2, Type::StringId) => envelope.command = StringId(field.value),
            (3, Type::StringId) => envelope.kind = StringId(field.value),
            (4, Type::U64) => envelope.session = field.value,
            (5, Type::Bool) => envelope.open = field.value == 1,
            (6, Type::Pack) => return Ok(Some(Head { envelope, length: at, parameters: Some(field.value) })),
            _ => return Err(Error::format("expected request message")),
        }
    }
}
