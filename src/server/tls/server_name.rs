//! A server name (SNI) that is no DNS name is ignored, as OpenSSL and hence the original does.
//!
//! rustls ends the handshake over one, and 0.23 has no option for it. A client asks for whatever its
//! `repo1-host` is: a name with a label that ends in `-` or is longer than 63 characters, in UTF-8, or an
//! address with a zone (`fe80::1%eth0`). So [`hide`] gives that extension a number that nobody knows
//! before rustls sees the hello, and everything that is signed or hashed over the handshake gets the
//! number back ([`restore`]): what the client sent is what both sides prove to each other. The hashes are
//! those of [`suites`]; the one transcript that is signed without one is the verifier's
//! (`verify_tls12_signature`).
//!
//! With rustls 0.24 this file goes: its `InvalidSniPolicy` does the same.

use std::borrow::Cow;
use std::sync::LazyLock;

use rustls::crypto::aws_lc_rs;
use rustls::crypto::hash::{Context, Hash, HashAlgorithm, Output};
use rustls::{CipherSuiteCommon, SupportedCipherSuite, Tls12CipherSuite, Tls13CipherSuite};
use rustls_pki_types::ServerName;

/// The extension `server_name` (RFC 6066, section 3).
const SERVER_NAME: [u8; 2] = [0, 0];
/// What it is called where it is to be ignored, of the numbers for private use (RFC 8446, section 11).
const IGNORED: [u8; 2] = [0xff, 0x5a];

const CLIENT_HELLO: u8 = 1;
/// Type and length of a handshake message.
const HEADER: usize = 4;
/// The longest name that OpenSSL takes.
const NAME_MAXIMUM: usize = 255;

/// Hides the server name of a whole `ClientHello` if it is no DNS name.
pub(in crate::server) fn hide(hello: &mut [u8]) {
    let Some((at, content)) = extension(hello, SERVER_NAME) else { return };
    if is_other_name(content).unwrap_or(false) {
        hello[at..at + 2].copy_from_slice(&IGNORED);
    }
}

/// Handshake messages as the client sent them.
pub(super) fn restore(messages: &[u8]) -> Cow<'_, [u8]> {
    let mut restored = Cow::Borrowed(messages);
    let mut rest = messages;
    while let [kind, a, b, c, ..] = *rest {
        let length = HEADER + usize::from(a) * 0x1_0000 + usize::from(b) * 0x100 + usize::from(c);
        let Some((message, after)) = rest.split_at_checked(length) else { break };
        if kind == CLIENT_HELLO
            && let Some((at, _)) = extension(message, IGNORED)
        {
            let begin = messages.len() - rest.len() + at;
            restored.to_mut()[begin..begin + 2].copy_from_slice(&SERVER_NAME);
        }
        rest = after;
    }
    restored
}

/// Where the type of an extension stands in a `ClientHello`, and its content (RFC 8446, section 4.1.2).
fn extension(hello: &[u8], wanted: [u8; 2]) -> Option<(usize, &[u8])> {
    let mut rest = hello;
    if take(&mut rest, HEADER)?.first() != Some(&CLIENT_HELLO) {
        return None;
    }
    // version and random; session id, suites and compressions with their lengths in front
    take(&mut rest, 2 + 32)?;
    take_vector(&mut rest, 1)?;
    take_vector(&mut rest, 2)?;
    take_vector(&mut rest, 1)?;
    let mut extensions = take_vector(&mut rest, 2)?;
    let end = hello.len() - rest.len();
    while !extensions.is_empty() {
        let at = end - extensions.len();
        let kind = take(&mut extensions, 2)?;
        let content = take_vector(&mut extensions, 2)?;
        if kind == wanted {
            return Some((at, content));
        }
    }
    None
}

/// Whether the one name of the extension is such that OpenSSL takes it and rustls does not.
fn is_other_name(content: &[u8]) -> Option<bool> {
    const HOST_NAME: u8 = 0;
    let mut content = content;
    let mut list = take_vector(&mut content, 2)?;
    let kind = take(&mut list, 1)?;
    let name = take_vector(&mut list, 2)?;
    let alone = kind == [HOST_NAME] && list.is_empty() && content.is_empty();
    let sound = !name.is_empty() && name.len() <= NAME_MAXIMUM && !name.contains(&0);
    Some(alone && sound && ServerName::try_from(name).is_err())
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(taken)
}

/// What has its length in front, in so many bytes.
fn take_vector<'a>(rest: &mut &'a [u8], width: usize) -> Option<&'a [u8]> {
    let length = take(rest, width)?.iter().fold(0, |length, byte| length * 0x100 + usize::from(*byte));
    take(rest, length)
}

/// All suites, with hashes over what the client sent.
pub(super) fn suites() -> &'static [SupportedCipherSuite] {
    static SUITES: LazyLock<Vec<SupportedCipherSuite>> =
        LazyLock::new(|| aws_lc_rs::ALL_CIPHER_SUITES.iter().copied().map(restoring).collect());
    &SUITES
}

/// Once for each suite of the program, which is why it may leak.
fn restoring(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    let common = |common: &CipherSuiteCommon| CipherSuiteCommon {
        suite: common.suite,
        hash_provider: Box::leak(Box::new(Restoring(common.hash_provider))),
        confidentiality_limit: common.confidentiality_limit,
    };
    match suite {
        SupportedCipherSuite::Tls12(suite) => SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite {
            common: common(&suite.common),
            prf_provider: suite.prf_provider,
            kx: suite.kx,
            sign: suite.sign,
            aead_alg: suite.aead_alg,
        }))),
        SupportedCipherSuite::Tls13(suite) => SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
            common: common(&suite.common),
            hkdf_provider: suite.hkdf_provider,
            aead_alg: suite.aead_alg,
            quic: suite.quic,
        }))),
    }
}

/// A hash over handshake messages as the client sent them.
struct Restoring(&'static dyn Hash);

impl Hash for Restoring {
    fn start(&self) -> Box<dyn Context> {
        Box::new(RestoringContext(self.0.start()))
    }

    fn hash(&self, data: &[u8]) -> Output {
        self.0.hash(&restore(data))
    }

    fn output_len(&self) -> usize {
        self.0.output_len()
    }

    fn algorithm(&self) -> HashAlgorithm {
        self.0.algorithm()
    }
}

struct RestoringContext(Box<dyn Context>);

impl Context for RestoringContext {
    fn fork_finish(&self) -> Output {
        self.0.fork_finish()
    }

    fn fork(&self) -> Box<dyn Context> {
        Box::new(Self(self.0.fork()))
    }

    fn finish(self: Box<Self>) -> Output {
        self.0.finish()
    }

    fn update(&mut self, data: &[u8]) {
        // rustls hands over whole messages.
        self.0.update(&restore(data));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello that asks for a name, between two other extensions.
    fn hello(name: &[u8]) -> Vec<u8> {
        let vector = |content: &[u8]| [&u16::try_from(content.len()).unwrap().to_be_bytes(), content].concat();
        let extension = |kind: [u8; 2], content: &[u8]| [&kind[..], &vector(content)].concat();
        let list = vector(&[&[0], &vector(name)[..]].concat());
        let extensions = [extension([0, 23], b""), extension(SERVER_NAME, &list), extension([0, 43], b"\x02\x03\x04")];
        let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &vector(&extensions.concat())].concat();
        [&[CLIENT_HELLO, 0][..], &vector(&body)].concat()
    }

    #[test]
    fn names_that_are_no_dns_names_are_hidden_and_restored() {
        let long = [b'a'; 64];
        for name in [&b"host-"[..], "h\u{f6}st".as_bytes(), b"fe80::1%eth0", &long, b"a b", b"-", b"x..y"] {
            let original = hello(name);
            let mut hidden = original.clone();
            hide(&mut hidden);
            assert_ne!(hidden, original, "{name:?}");
            assert_eq!(extension(&hidden, SERVER_NAME), None);
            assert_eq!(restore(&hidden).as_ref(), original);
            let transcript = [&[254, 0, 0, 2, 9, 9][..], &hidden, &[2, 0, 0, 1, 5], &[20, 0, 0, 9, 1]].concat();
            let expected = [&[254, 0, 0, 2, 9, 9][..], &original, &[2, 0, 0, 1, 5], &[20, 0, 0, 9, 1]].concat();
            assert_eq!(restore(&transcript).as_ref(), expected);
        }
    }

    #[test]
    fn everything_else_is_left_alone() {
        for name in [&b"localhost"[..], b"a_b.example", b"127.0.0.1", b"::1", b"", b"a\0b", &[b'-'; 256]] {
            let original = hello(name);
            let mut hidden = original.clone();
            hide(&mut hidden);
            assert_eq!(hidden, original, "{name:?}");
            assert!(matches!(restore(&original), Cow::Borrowed(_)));
        }
        let whole = hello(b"host-");
        for length in 0..whole.len() {
            let mut cut = whole[..length].to_vec();
            hide(&mut cut);
            assert_eq!(cut, whole[..length]);
            let _ = restore(&cut);
        }
    }
}
