//! AES-256-CBC under a key made from a passphrase, the core of both cipher filters.
//!
//! Format of the data and derivation of the key are those of `openssl enc -aes-256-cbc`, so that
//! an administrator can decrypt a repository without any of our programs.

use aws_lc_rs::cipher::{
    AES_256, DecryptionContext, EncryptionContext, StreamingDecryptingKey, StreamingEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use zeroize::Zeroizing;

use super::hash::Hasher;
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::filter::{CipherMode, Digest, Secret};

/// Bytes of salt before the ciphertext.
pub(super) const SALT: usize = 8;
/// Bytes of a cipher block, by which the output of a step can exceed its input.
pub(super) const BLOCK: usize = 16;

const KEY: usize = 32;
const VECTOR: usize = 16;

/// A cipher at work, until its data have ended.
pub(super) struct Cipher(Option<Direction>);

enum Direction {
    Encrypt(StreamingEncryptingKey),
    Decrypt(StreamingDecryptingKey),
}

impl Cipher {
    /// Derives key and initialization vector from `pass` and `salt`.
    pub(super) fn new(mode: CipherMode, pass: &Secret, salt: [u8; SALT], digest: Digest) -> Result<Self> {
        let material = derive(&pass.0, salt, digest);
        let mut vector = [0; VECTOR];
        vector.copy_from_slice(&material[KEY..]);
        let vector = FixedLength::from(vector);
        let failed = |_| error("unable to initialize cipher");
        let key = UnboundCipherKey::new(&AES_256, &material[..KEY]).map_err(failed)?;
        let direction = match mode {
            CipherMode::Encrypt => StreamingEncryptingKey::less_safe_cbc_pkcs7(key, EncryptionContext::Iv128(vector))
                .map(Direction::Encrypt),
            CipherMode::Decrypt => {
                StreamingDecryptingKey::cbc_pkcs7(key, DecryptionContext::Iv128(vector)).map(Direction::Decrypt)
            }
        };
        Ok(Self(Some(direction.map_err(failed)?)))
    }

    /// Takes as much of `input` as leaves room for a block, and tells how much it took and wrote.
    pub(super) fn update(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize)> {
        let length = input.len().min(output.len().saturating_sub(BLOCK));
        if length == 0 {
            return Ok((0, 0));
        }
        let written = match &mut self.0 {
            Some(Direction::Encrypt(key)) => key.update(&input[..length], output).map(|update| update.written().len()),
            Some(Direction::Decrypt(key)) => key.update(&input[..length], output).map(|update| update.written().len()),
            None => Ok(0),
        };
        Ok((length, written.map_err(|_| error("unable to process cipher"))?))
    }

    /// Pads or checks the padding, and tells how much it wrote, at most [`BLOCK`] bytes; `None`
    /// when `output` has no room for them.
    pub(super) fn finish(&mut self, output: &mut [u8]) -> Result<Option<usize>> {
        if output.len() < BLOCK {
            return Ok(None);
        }
        let written = match self.0.take() {
            Some(Direction::Encrypt(key)) => key.finish(output).map(|(_, update)| update.written().len()),
            Some(Direction::Decrypt(key)) => key.finish(output).map(|update| update.written().len()),
            None => Ok(0),
        };
        written.map(Some).map_err(|_| error("unable to flush"))
    }
}

/// `EVP_BytesToKey` of OpenSSL with one iteration: digests of the digest before, the passphrase and
/// the salt, one after the other until there are enough bytes.
fn derive(pass: &[u8], salt: [u8; SALT], digest: Digest) -> Zeroizing<[u8; KEY + VECTOR]> {
    let mut material = Zeroizing::new([0; KEY + VECTOR]);
    let mut filled = 0;
    let mut previous = None;
    while filled < material.len() {
        let mut hasher = Hasher::new(digest);
        if let Some(previous) = &previous {
            hasher.update(AsRef::<[u8]>::as_ref(previous));
        }
        hasher.update(pass);
        hasher.update(&salt);
        let output = hasher.finish();
        filled += super::simple::copy(output.as_ref(), &mut material[filled..]);
        previous = Some(output);
    }
    material
}

/// An error of the ciphers: code 95.
pub(super) fn error(message: &str) -> Error {
    Error::new(Code::Crypto, message)
}
