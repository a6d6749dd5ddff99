//! Messages of a server in the bytes that come from it, within bounds.

use bytes::BytesMut;
use postgres_protocol::message::backend::{Header, Message};

/// A message longer than this is not waited for, in bytes. The longest that a real statement gets is a
/// label file or a setting, a few kilobytes.
const MESSAGE_MAXIMUM: usize = 16 << 20;

/// What is no message that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// It would be too long.
    TooLong,
    /// It has another form than any message.
    Unknown,
}

/// Collects bytes to messages.
#[derive(Debug, Default)]
pub(super) struct Messages {
    buffer: BytesMut,
}

impl Messages {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub(super) fn clear(&mut self) {
        self.buffer = BytesMut::new();
    }

    /// The next message, if it is complete.
    pub(super) fn next(&mut self) -> Result<Option<Message>, Malformed> {
        match Header::parse(&self.buffer) {
            Ok(Some(header)) if usize::try_from(header.len()).is_ok_and(|length| length <= MESSAGE_MAXIMUM) => {}
            Ok(Some(_)) => return Err(Malformed::TooLong),
            Ok(None) => return Ok(None),
            Err(_) => return Err(Malformed::Unknown),
        }
        Message::parse(&mut self.buffer).map_err(|_| Malformed::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_when_it_is_complete() {
        let mut messages = Messages::default();
        for byte in b"Z\0\0\0\x05" {
            messages.push(&[*byte]);
            assert!(messages.next().unwrap().is_none());
        }
        messages.push(b"IZ");
        assert!(matches!(messages.next(), Ok(Some(Message::ReadyForQuery(_)))));
        assert!(messages.next().unwrap().is_none());
    }

    #[test]
    fn a_message_is_bounded_before_it_is_there() {
        let mut messages = Messages::default();
        messages.push(b"D\x7f\xff\xff\xff");
        assert!(matches!(messages.next(), Err(Malformed::TooLong)));
        for bytes in [&b"D\0\0\0\x03"[..], b"D\xff\xff\xff\xff", b"?\0\0\0\x04", b"HTTP/1.1 400 Bad Request"] {
            messages.clear();
            messages.push(bytes);
            assert!(messages.next().is_err(), "{bytes:?}");
        }
    }
}
