//! Answers since 2.54: one for each request (specification, section 3.3).

use super::{HEADROOM, Payload, write_error};
use crate::protocol::error::Error;
use crate::protocol::pack::Writer;

/// Puts the answer to request `session` around a pack's data.
pub(super) fn seal(payload: &mut Payload, session: u64, close: bool) {
    let mut head = Writer::over(Vec::with_capacity(HEADROOM));
    head.u64(session).u32_forced(0).bool(close).pack_head(payload.len());
    payload.prepend(&head.into_fields());
    payload.append(&[0]);
}

/// The answer to request `session` that has no data.
pub(super) fn null(session: u64, close: bool) -> Payload {
    Payload::from_pack(|writer| {
        writer.u64(session).u32_forced(0).bool(close);
    })
}

/// The answer that reports `error`.
pub(super) fn error(session: u64, error: &Error) -> Payload {
    Payload::from_pack(|writer| {
        writer.u64(session).u32_forced(2).null().pack(|inner| write_error(inner, error));
    })
}

/// Makes a payload that holds a block of a file into the data of an answer: whether the file exists,
/// where that is to be said, the block, and at the end the pack of results.
pub fn block(payload: &mut Payload, tells_existence: bool, results: Option<&[u8]>) {
    let length = payload.len();
    let mut head = Writer::over(Vec::with_capacity(HEADROOM));
    if tells_existence {
        head.bool_forced(true);
    }
    head.bool(length == 0);
    if length > 0 {
        head.bin_head(length);
    }
    match results {
        Some(results) => {
            let mut tail = Writer::new();
            tail.pack_bytes(results);
            payload.append(&tail.finish());
        }
        None => payload.append(&[0]),
    }
    payload.prepend(&head.into_fields());
}
