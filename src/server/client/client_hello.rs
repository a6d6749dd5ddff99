//! What a client's first bytes tell before TLS has understood them.

use crate::server::tls::hide;

/// Kinds of records (RFC 8446, section 5.1), and the message that begins a handshake.
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// How much of a client's first bytes is kept to tell what it speaks: up to the version of a
/// `ClientHello`.
const FIRST_BYTES: usize = 11;
/// The alert `protocol_version`, in a record that every version reads (RFC 5246, section 7.2).
pub(super) const PROTOCOL_VERSION_ALERT: [u8; 7] = [21, 3, 1, 0, 2, 2, 70];

/// Whether these are the first bytes of a `ClientHello` of a version before TLS 1.2. Later versions
/// all say 1.2 in this place.
pub(super) fn is_before_tls_1_2(first: &[u8]) -> bool {
    matches!(first, [HANDSHAKE, 3, _, _, _, CLIENT_HELLO, _, _, _, 3, minor] if *minor < 3)
}

/// The hellos at the beginning of a connection, which are looked at before TLS gets them.
#[derive(Debug, Default)]
pub struct Hellos {
    first: [u8; FIRST_BYTES],
    first_length: usize,
    /// The beginning of a record.
    held: Vec<u8>,
    /// Something else has come.
    over: bool,
}

impl Hellos {
    /// The first bytes that came, as far as they are kept.
    pub(super) fn first_bytes(&self) -> &[u8] {
        &self.first[..self.first_length]
    }

    /// Takes what the client sent; returns what TLS is to get of it now. `None` once something else has come: TLS gets
    /// that, and all that follows, as it is.
    ///
    /// A server name that is no DNS name is hidden in a hello that is one whole record, as every client sends
    /// it. A second one follows the answer that asks for it (RFC 8446, section 4.1.2).
    pub fn take(&mut self, input: &[u8]) -> Option<Vec<u8>> {
        const HEADER: usize = 5;
        /// The largest record that is not protected.
        const RECORD_MAXIMUM: usize = 1 << 14;
        let room = &mut self.first[self.first_length..];
        let count = input.len().min(room.len());
        room[..count].copy_from_slice(&input[..count]);
        self.first_length += count;
        if self.over {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(input);
        let mut at = 0;
        while let Some(&[kind, _, _, high, low]) = bytes.get(at..at + HEADER) {
            let length = usize::from(high) << 8 | usize::from(low);
            if !matches!(kind, HANDSHAKE | CHANGE_CIPHER_SPEC) || !(1..=RECORD_MAXIMUM).contains(&length) {
                self.over = true;
                break;
            }
            let Some(record) = bytes.get_mut(at + HEADER..at + HEADER + length) else { break };
            if kind == HANDSHAKE {
                if record.first() != Some(&CLIENT_HELLO) {
                    self.over = true;
                    break;
                }
                hide(record);
            }
            at += HEADER + length;
        }
        // What cannot become a record is for TLS to judge, and at once.
        if !self.over && bytes.get(at).is_none_or(|kind| matches!(kind, &HANDSHAKE | &CHANGE_CIPHER_SPEC)) {
            self.held = bytes.split_off(at);
        } else {
            self.over = true;
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_hello_is_told_from_what_is_none() {
        let hello = |minor: u8| [22, 3, 1, 0, 100, 1, 0, 0, 96, 3, minor];
        for (minor, old) in [(0, true), (1, true), (2, true), (3, false), (4, false)] {
            assert_eq!(is_before_tls_1_2(&hello(minor)), old, "{minor}");
        }
        assert!(!is_before_tls_1_2(&hello(2)[..10]));
        assert!(!is_before_tls_1_2(b"GET / HTTP/"));
    }

    #[test]
    fn a_hello_is_held_until_it_is_whole_and_nothing_else_is() {
        let record =
            |kind: u8, content: &[u8]| [&[kind, 3, 1, 0, u8::try_from(content.len()).unwrap()], content].concat();
        let (hello, cipher) = (record(HANDSHAKE, &[CLIENT_HELLO, 0, 0, 1, 9]), record(CHANGE_CIPHER_SPEC, &[1]));
        for cut in 1..hello.len() {
            let mut hellos = Hellos::default();
            assert_eq!(hellos.take(&hello[..cut]), Some(vec![]));
            assert_eq!(
                hellos.take(&[&hello[cut..], &cipher, &hello, &hello[..cut]].concat()),
                Some([&hello[..], &cipher, &hello].concat())
            );
            let rest = [&hello[cut..], &record(23, b"data"), &hello[..2]].concat();
            assert_eq!(hellos.take(&rest), Some([&hello[..cut], &rest].concat()));
            assert_eq!(hellos.take(&hello), None);
            assert_eq!(hellos.first_bytes(), &[&hello[..], &cipher].concat()[..FIRST_BYTES]);
        }
        for other in [&b"GET / HTTP/1.1"[..], b"\x80", b"\x16\x03\x01\x40\x01\x01", b"\x16\x03\x01\0\0", b"\x15\x03"] {
            let mut hellos = Hellos::default();
            assert_eq!((hellos.take(other), hellos.take(b"x")), (Some(other.to_vec()), None), "{other:?}");
        }
        let certificate = record(HANDSHAKE, &[11, 0, 0, 0]);
        let mut hellos = Hellos::default();
        assert_eq!((hellos.take(&certificate), hellos.take(b"x")), (Some(certificate), None));
    }
}
