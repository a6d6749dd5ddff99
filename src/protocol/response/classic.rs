//! Answers up to 2.53.1: data messages, then an end or an error (specification, section 3.2).

use super::{Payload, write_error};
use crate::protocol::error::Error;
use crate::protocol::pack::Writer;

const DATA: u32 = 0;
const END: u32 = 1;
const ERROR: u32 = 3;

/// The message that ends an answer.
const END_MESSAGE: [u8; 2] = [0x84, 0x00];

/// Makes a payload that holds a pack's data into a message, and the last one of an answer.
pub(super) fn seal(payload: &mut Payload) {
    message(payload);
    payload.append(&END_MESSAGE);
}

/// The end of an answer.
pub(super) fn end() -> Payload {
    Payload::from_pack(|writer| _ = writer.u32(END))
}

/// The message that reports `error` and ends an answer.
pub(super) fn error(error: &Error) -> Payload {
    Payload::from_pack(|writer| {
        writer.u32(ERROR);
        write_error(writer, error);
    })
}

/// The message that lets a client send the data of a file: data, but none.
#[must_use]
pub fn ready() -> Payload {
    Payload::from_pack(|writer| _ = writer.u32_forced(DATA))
}

/// Makes a payload that holds a pack's data into a message.
pub fn message(payload: &mut Payload) {
    let mut head = Writer::new();
    head.u32_forced(DATA).pack_head(payload.len());
    payload.prepend(&head.into_fields());
    payload.append(&[0]);
}

/// Adds a message with the data that `fill` writes.
pub fn add_message(payload: &mut Payload, fill: impl FnOnce(&mut Writer)) {
    let mut message = Writer::new();
    message.u32_forced(DATA).pack(fill);
    payload.append(&message.finish());
}

/// Makes a payload that holds a block of a file into messages: that the file exists, where that is
/// to be said, and the block, unless it is empty.
pub fn block(payload: &mut Payload, tells_existence: bool) {
    let length = payload.len();
    if length > 0 {
        let mut head = Writer::new();
        head.bin_head(length);
        payload.prepend(&head.into_fields());
        payload.append(&[0]);
        message(payload);
    }
    if tells_existence {
        let mut exists = Payload::from_pack(|pack| _ = pack.bool_forced(true));
        message(&mut exists);
        payload.prepend(exists.as_slice());
    }
}
