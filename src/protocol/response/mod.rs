//! Answers to a client.
//!
//! A [`Payload`] grows at both ends, so that the block of a file is read to where it is sent from and
//! the heads around it are written last. What differs between the two framings is in the files beside
//! this one.

pub mod classic;
pub mod session;

use super::carried::{floor, restore};
use super::error::Error;
use super::framing::Framing;
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

    /// How many bytes its buffer takes.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.bytes.capacity()
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
        // Most packs are small.
        let mut bytes = Vec::with_capacity(2 * HEADROOM);
        bytes.resize(HEADROOM, 0);
        let mut writer = Writer::over(bytes);
        fill(&mut writer);
        Self { bytes: writer.finish(), start: HEADROOM }
    }
}

/// Makes a payload that holds a pack's data into the whole answer to request `session`, or into the
/// rest of an answer of which parts were sent.
pub fn seal(framing: Framing, payload: &mut Payload, session: u64, close: bool) {
    match framing {
        Framing::Classic => classic::seal(payload),
        Framing::Session => session::seal(payload, session, close),
    }
}

/// The whole answer to request `session` that has no data.
#[must_use]
pub fn null(framing: Framing, session: u64, close: bool) -> Payload {
    match framing {
        Framing::Classic => classic::end(),
        Framing::Session => session::null(session, close),
    }
}

/// The whole answer that reports `error`, or the rest of an answer of which parts were sent. Session
/// 0 makes it fatal for the connection, where requests have numbers.
#[must_use]
pub fn error(framing: Framing, session: u64, error: &Error) -> Payload {
    match framing {
        Framing::Classic => classic::error(error),
        Framing::Session => session::error(session, error),
    }
}

/// Code, text and stack of `error`. Clients insist on a stack; they show it only for assertions.
fn write_error(writer: &mut Writer, error: &Error) {
    let message = restore(&error.message);
    let end = floor(&message, MESSAGE_MAXIMUM);
    writer.i32(error.code.number().into()).text(&message[..end]).str("repohostd");
}

/// Texts of errors stay below what a client's message buffer takes, in bytes.
const MESSAGE_MAXIMUM: usize = 8000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::error::Code;

    #[test]
    fn answers_of_the_specification() {
        assert_eq!(null(Framing::Session, 1, false).as_slice(), [0x94, 0x80, 0x00]);
        assert_eq!(null(Framing::Session, 18, false).as_slice(), [0x98, 0x12, 0x80, 0x00]);
        assert_eq!(null(Framing::Session, 4, true).as_slice(), [0x98, 0x04, 0x80, 0x28, 0x00]);
    }

    #[test]
    fn classic_answers_of_the_specification() {
        assert_eq!(null(Framing::Classic, 0, false).as_slice(), [0x84, 0x00]);
        assert_eq!(classic::ready().as_slice(), [0x80, 0x00]);
        let mut found = Payload::from_pack(|pack| _ = pack.bool_forced(true));
        seal(Framing::Classic, &mut found, 0, false);
        assert_eq!(found.as_slice(), [0x80, 0xf0, 0x02, 0x02, 0x28, 0x00, 0x00, 0x84, 0x00]);
        let mut block = Payload::new(Vec::new(), 10);
        block.append(b"hello");
        classic::block(&mut block, true);
        let (exists, data) = block.as_slice().split_at(7);
        assert_eq!(exists, [0x80, 0xf0, 0x02, 0x02, 0x28, 0x00, 0x00]);
        assert_eq!(data, *b"\x80\xf0\x02\x09\xf8\x01\x05hello\0\0");
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
    fn an_error_names_a_file_by_its_bytes() {
        use crate::protocol::carried::Carried;
        for framing in [Framing::Classic, Framing::Session] {
            let answer = error(framing, 0, &Error::new(Code::FileOpen, format!("'{}'", Carried(b"caf\xe9\n"))));
            assert!(answer.as_slice().windows(7).any(|bytes| bytes == b"'caf\xe9\n'"));
            let long = error(framing, 0, &Error::new(Code::FileOpen, Carried(&[0xe9; 7999]).to_string()));
            assert!(long.len() > 7999, "a byte counts as one");
        }
    }

    #[test]
    fn an_error_is_cut_to_what_a_client_can_hold() {
        for framing in [Framing::Classic, Framing::Session] {
            let answer = error(framing, 0, &Error::new(Code::Protocol, "ü".repeat(9000)));
            assert!(answer.len() < MESSAGE_MAXIMUM + 100);
        }
    }
}
