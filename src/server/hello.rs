//! What a client's first bytes tell before TLS has understood them.

/// How much of a client's first bytes is kept to tell what it speaks: up to the version of a
/// `ClientHello`.
pub(super) const FIRST_BYTES: usize = 11;
/// The alert `protocol_version`, in a record that every version reads (RFC 5246, section 7.2).
pub(super) const PROTOCOL_VERSION_ALERT: [u8; 7] = [21, 3, 1, 0, 2, 2, 70];

/// Whether these are the first bytes of a `ClientHello` of a version before TLS 1.2. Later versions
/// all say 1.2 in this place.
pub(super) fn is_before_tls_1_2(first: &[u8]) -> bool {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    matches!(first, [HANDSHAKE, 3, _, _, _, CLIENT_HELLO, _, _, _, 3, minor] if *minor < 3)
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
}
