//! `cipher-blk`: AES-256-CBC with the salt, and perhaps a magic, in front of the ciphertext.

use aws_lc_rs::rand;

use super::cipher_key::{Cipher, SALT, error};
use super::simple::copy;
use super::{Step, Transform};
use crate::protocol::error::Result;
use crate::protocol::filter::{CipherMode, Digest, Secret};

/// What `openssl enc` puts before the salt.
pub(super) const MAGIC: &[u8; 8] = b"Salted__";

/// Encrypts: magic if wanted, a random salt, ciphertext.
pub(super) struct Encrypt {
    pass: Secret,
    digest: Digest,
    magic: bool,
    cipher: Cipher,
    header: [u8; MAGIC.len() + SALT],
    /// Where the rest of the header begins: beyond the magic from the start if there is to be none.
    written: usize,
}

impl Encrypt {
    pub(super) fn new(pass: Secret, digest: Digest, magic: bool) -> Result<Self> {
        let mut salt = [0; SALT];
        rand::fill(&mut salt).map_err(|_| error("unable to get random bytes"))?;
        Self::with_salt(pass, digest, magic, salt)
    }

    fn with_salt(pass: Secret, digest: Digest, magic: bool, salt: [u8; SALT]) -> Result<Self> {
        let mut header = [0; MAGIC.len() + SALT];
        header[..MAGIC.len()].copy_from_slice(MAGIC);
        header[MAGIC.len()..].copy_from_slice(&salt);
        let written = if magic { 0 } else { MAGIC.len() };
        let cipher = Cipher::new(CipherMode::Encrypt, &pass, salt, digest)?;
        Ok(Self { pass, digest, magic, cipher, header, written })
    }
}

impl Transform for Encrypt {
    fn step(&mut self, input: &[u8], ended: bool, output: &mut [u8]) -> Result<Step> {
        let header = copy(&self.header[self.written..], output);
        self.written += header;
        let step = run(&mut self.cipher, input, ended, &mut output[header..])?;
        Ok(Step { produced: step.produced + header, ..step })
    }

    fn restart(&mut self) -> Result<()> {
        let pass = std::mem::replace(&mut self.pass, Secret(Vec::new()));
        *self = Self::new(pass, self.digest, self.magic)?;
        Ok(())
    }
}

/// Decrypts what [`Encrypt`] makes.
pub(super) struct Decrypt {
    pass: Secret,
    digest: Digest,
    header: [u8; MAGIC.len() + SALT],
    /// How much of the header is there: the magic from the start if there is to be none.
    filled: usize,
    /// Once the header is complete.
    cipher: Option<Cipher>,
}

impl Decrypt {
    pub(super) fn new(pass: Secret, digest: Digest, magic: bool) -> Self {
        let mut header = [0; MAGIC.len() + SALT];
        let mut filled = 0;
        if !magic {
            header[..MAGIC.len()].copy_from_slice(MAGIC);
            filled = MAGIC.len();
        }
        Self { pass, digest, header, filled, cipher: None }
    }

    /// The cipher that the complete header asks for.
    fn start(&mut self) -> Result<Cipher> {
        let (magic, salt) = self.header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(error("cipher header invalid"));
        }
        let salt = salt.try_into().map_err(|_| error("cipher header invalid"))?;
        Cipher::new(CipherMode::Decrypt, &self.pass, salt, self.digest)
    }
}

impl Transform for Decrypt {
    fn step(&mut self, input: &[u8], ended: bool, output: &mut [u8]) -> Result<Step> {
        let header = copy(input, &mut self.header[self.filled..]);
        self.filled += header;
        if self.cipher.is_none() && self.filled == self.header.len() {
            self.cipher = Some(self.start()?);
            self.pass = Secret(Vec::new());
        }
        decrypt(self.cipher.as_mut(), header, input, ended, output)
    }
}

/// A step of decryption whose first `header` bytes of the input were of the header; once that is complete there is a
/// cipher.
pub(super) fn decrypt(
    cipher: Option<&mut Cipher>,
    header: usize,
    input: &[u8],
    ended: bool,
    output: &mut [u8],
) -> Result<Step> {
    match cipher {
        Some(cipher) => {
            let step = run(cipher, &input[header..], ended, output)?;
            Ok(Step { consumed: step.consumed + header, ..step })
        }
        None if ended => Err(error("cipher header missing")),
        None => Ok(Step { consumed: header, ..Step::default() }),
    }
}

/// A step of a cipher whose header is done with.
fn run(cipher: &mut Cipher, input: &[u8], ended: bool, output: &mut [u8]) -> Result<Step> {
    let (consumed, mut produced) = cipher.update(input, output)?;
    let mut done = false;
    if ended
        && consumed == input.len()
        && let Some(last) = cipher.finish(&mut output[produced..])?
    {
        produced += last;
        done = true;
    }
    Ok(Step { consumed, produced, done, ..Step::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ciphertext_is_what_openssl_makes_with_the_same_salt() {
        for (digest, expected) in super::super::tests::OPENSSL_FIXED_SALT {
            let pass = Secret(b"secret".to_vec());
            let mut filter = Encrypt::with_salt(pass, *digest, false, [1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
            let mut output = vec![0; super::super::STEP];
            let step = filter.step(b"hello repository\n", true, &mut output).unwrap();
            assert!(step.done);
            assert_eq!(output[SALT..step.produced], super::super::tests::unhex(expected));
        }
    }
}
