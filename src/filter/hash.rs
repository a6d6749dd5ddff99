//! Digests: the hash filter, and the hash function behind the key derivation of the ciphers.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use md5::{Digest as _, Md5};
use zeroize::Zeroizing;

use super::simple::copy;
use crate::protocol::filter::Digest;

/// The longest digest that a filter computes.
pub(super) const LONGEST: usize = 32;

/// A digest in the making.
///
/// aws-lc-rs brings the SHA family; MD5, which it leaves out, comes from `RustCrypto`.
#[derive(Clone)]
pub(super) enum Hasher {
    Md5(Md5),
    Sha(Context),
}

/// A finished digest. It is wiped when dropped, since the key derivation makes keys of digests.
pub(super) struct Output {
    bytes: Zeroizing<[u8; LONGEST]>,
    length: usize,
}

impl Hasher {
    pub(super) fn new(digest: Digest) -> Self {
        match digest {
            Digest::Md5 => Self::Md5(Md5::new()),
            Digest::Sha1 => Self::Sha(Context::new(&SHA1_FOR_LEGACY_USE_ONLY)),
            Digest::Sha256 => Self::Sha(Context::new(&SHA256)),
        }
    }

    pub(super) fn update(&mut self, data: &[u8]) {
        match self {
            Self::Md5(state) => md5::Digest::update(state, data),
            Self::Sha(context) => context.update(data),
        }
    }

    pub(super) fn finish(self) -> Output {
        let mut bytes = Zeroizing::new([0; LONGEST]);
        let length = match self {
            Self::Md5(state) => copy(&state.finalize(), &mut *bytes),
            Self::Sha(context) => copy(context.finish().as_ref(), &mut *bytes),
        };
        Output { bytes, length }
    }
}

impl AsRef<[u8]> for Output {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(digest: Digest, data: &[u8]) -> String {
        let mut hasher = Hasher::new(digest);
        hasher.update(data);
        hasher.finish().as_ref().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    #[test]
    fn digests_of_nothing_and_of_abc_are_the_published_ones() {
        assert_eq!(hex(Digest::Md5, b""), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(hex(Digest::Md5, b"abc"), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(hex(Digest::Sha1, b""), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert_eq!(hex(Digest::Sha1, b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(hex(Digest::Sha256, b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hex(Digest::Sha256, b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
