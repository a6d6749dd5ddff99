//! Answers to a client, since 2.54 (specification, section 3.3).
//!
//! A [`Payload`] grows at both ends, so that the block of a file is read to where it is sent from and
//! the heads around it are written last.

use super::error::Error;
use super::pack::Writer;

/// Room in front for the heads of an answer: the outer one takes at most 21 bytes, the one of a
/// block at most 8.
const HEADROOM: usize = 40;

/// Room behind a block for filter results, so that they do not move it.
const TAILROOM: usize = 512;

/// Bytes of an answer, with room in front.
#[derive(Debug)]
pub struct Payload {
    bytes: Vec<u8>,
    start: usize,
}

impl Payload {
    /// An empty payload with room for `capacity` bytes, made of `buffer`.
    #[must_use]
    pub fn new(mut buffer: Vec<u8>, capacity: usize) -> Self {
        buffer.clear();
        buffer.reserve_exact(HEADROOM + capacity + if capacity > 0 { TAILROOM } else { 0 });
        buffer.resize(HEADROOM, 0);
        Self { bytes: buffer, start: HEADROOM }
    }

    /// The payload around `buffer`, which [`Payload::into_buffer`] gave and to which bytes were added.
    #[must_use]
    pub const fn from_buffer(buffer: Vec<u8>) -> Self {
        Self { bytes: buffer, start: HEADROOM }
    }

    /// The bytes with their room in front, to be added to.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// The bytes so far.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// How long a buffer of [`Payload::into_buffer`] is when it holds `capacity` bytes of payload.
    #[must_use]
    pub const fn limit(capacity: usize) -> usize {
        HEADROOM + capacity
    }

    /// How many bytes there are so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether there are no bytes yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds bytes behind.
    pub fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds bytes in front.
    pub fn prepend(&mut self, bytes: &[u8]) {
        if let Some(start) = self.start.checked_sub(bytes.len()) {
            self.start = start;
        } else {
            // Never in practice: HEADROOM is larger than all heads together.
            self.bytes.splice(..self.start, std::iter::repeat_n(0, bytes.len()));
            self.start = 0;
        }
        self.bytes[self.start..self.start + bytes.len()].copy_from_slice(bytes);
    }

    /// What a pack's writer made, with room in front for the answer's head.
    #[must_use]
    pub fn from_pack(fill: impl FnOnce(&mut Writer)) -> Self {
        let mut writer = Writer::over(vec![0; HEADROOM]);
        fill(&mut writer);
        Self { bytes: writer.finish(), start: HEADROOM }
    }
}

/// Makes a payload that holds a pack's data into the whole answer to request `session`.
pub fn seal(payload: &mut Payload, session: u64, close: bool) {
    let mut head = Writer::new();
    head.u64(session).u32_forced(0).bool(close).pack_head(payload.len());
    payload.prepend(&head.into_fields());
    payload.append(&[0]);
}

/// The whole answer to request `session` that has no data.
#[must_use]
pub fn null(session: u64, close: bool) -> Payload {
    Payload::from_pack(|writer| {
        writer.u64(session).u32_forced(0).bool(close);
    })
}

/// The whole answer that reports `error`. Session 0 makes it fatal for the connection.
#[must_use]
pub fn error(session: u64, error: &Error) -> Payload {
    Payload::from_pack(|writer| {
        writer.u64(session).u32_forced(2).null();
        writer.pack(|inner| {
            // Clients insist on a stack; they show it only for assertions.
            inner.i32(error.code.number().into()).str(shorten(&error.message)).str("repohostd");
        });
    })
}

/// Texts of errors stay below what a client's message buffer takes, in bytes.
const MESSAGE_MAXIMUM: usize = 8000;

fn shorten(message: &str) -> &str {
    let mut end = message.len().min(MESSAGE_MAXIMUM);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::error::Code;

    #[test]
    fn answers_of_the_specification() {
        assert_eq!(null(1, false).as_slice(), [0x94, 0x80, 0x00]);
        assert_eq!(null(18, false).as_slice(), [0x98, 0x12, 0x80, 0x00]);
        assert_eq!(null(4, true).as_slice(), [0x98, 0x04, 0x80, 0x28, 0x00]);
    }

    #[test]
    fn a_payload_grows_at_both_ends() {
        let mut payload = Payload::new(Vec::new(), 10);
        payload.append(b"data");
        payload.prepend(b"<");
        payload.prepend(&[b'-'; 100]);
        payload.append(b">");
        assert_eq!(payload.as_slice(), [&[b'-'; 100][..], b"<data>"].concat());
    }

    #[test]
    fn an_error_is_cut_to_what_a_client_can_hold() {
        let answer = error(0, &Error::new(Code::Protocol, "ü".repeat(9000)));
        assert!(answer.len() < MESSAGE_MAXIMUM + 100);
    }
}
