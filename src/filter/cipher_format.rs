//! `cipher-fmt`: decrypts a repository file that tells its format and its key itself.

use super::cipher_block::{MAGIC, decrypt};
use super::cipher_key::{Cipher, SALT, error};
use super::{Step, Transform};
use crate::protocol::error::{Error, Result};
use crate::protocol::filter::{CipherKey, CipherMode, Digest, FilterResult};

/// The newest repository format that this program knows.
const NEWEST_FORMAT: u32 = 6;
/// The format of files that begin as those of `openssl enc`.
const MAGIC_FORMAT: u32 = 5;
/// The key of files that name none.
const DEFAULT_KEY: &[u8] = b"0";

/// Bytes that tell how the header goes on.
const INTRODUCTION: usize = 8;
const LONGEST_HEADER: usize = INTRODUCTION + 1 + u8::MAX as usize + SALT;

/// Decrypts, once the header has said what.
pub(super) struct Decrypt {
    keys: Vec<CipherKey>,
    expected: Option<u32>,
    header: Vec<u8>,
    format: Option<u32>,
    cipher: Option<Cipher>,
}

/// What the header says, once it is complete.
struct Header<'a> {
    format: u32,
    key: &'a [u8],
    salt: [u8; SALT],
    /// Of the key derivation, unless the key names one.
    digest: Digest,
}

impl Decrypt {
    pub(super) fn new(keys: Vec<CipherKey>, expected: Option<u32>) -> Self {
        Self { keys, expected, header: Vec::with_capacity(LONGEST_HEADER), format: None, cipher: None }
    }

    /// Takes from `input` what the header lacks, and tells how much that was.
    fn read_header(&mut self, input: &[u8]) -> Result<usize> {
        let mut consumed = 0;
        while self.cipher.is_none() && consumed < input.len() {
            let missing = header_length(&self.header)? - self.header.len();
            let length = missing.min(input.len() - consumed);
            self.header.extend_from_slice(&input[consumed..consumed + length]);
            consumed += length;
            if let Some(header) = Header::parse(&self.header)? {
                self.check(header.format)?;
                self.format = Some(header.format);
                self.cipher = Some(self.start(&header)?);
                // Dropping the passphrases wipes them.
                self.keys = Vec::new();
            }
        }
        Ok(consumed)
    }

    fn check(&self, format: u32) -> Result<()> {
        match self.expected {
            Some(expected) if expected != format => {
                Err(Error::format(format!("expected repository format {expected} but found {format}")))
            }
            _ => Ok(()),
        }
    }

    fn start(&self, header: &Header<'_>) -> Result<Cipher> {
        let Some(key) = self.keys.iter().find(|key| key.id.as_bytes() == header.key) else {
            return Err(error(&format!("unable to find cipher key '{}'", String::from_utf8_lossy(header.key))));
        };
        Cipher::new(CipherMode::Decrypt, &key.pass, header.salt, key.digest.unwrap_or(header.digest))
    }
}

impl Transform for Decrypt {
    fn step(&mut self, input: &[u8], ended: bool, output: &mut [u8]) -> Result<Step> {
        let header = self.read_header(input)?;
        decrypt(self.cipher.as_mut(), header, input, ended, output)
    }

    fn result(&self) -> FilterResult {
        self.format.map_or(FilterResult::None, FilterResult::Format)
    }
}

impl<'a> Header<'a> {
    /// The header in `bytes`, or `None` while it is incomplete.
    fn parse(bytes: &'a [u8]) -> Result<Option<Self>> {
        if bytes.len() < header_length(bytes)? || bytes.len() <= INTRODUCTION {
            return Ok(None);
        }
        let Some((rest, salt)) = bytes.split_last_chunk::<SALT>() else { return Ok(None) };
        let (introduction, rest) = rest.split_at(INTRODUCTION);
        let (format, digest) = if introduction == MAGIC {
            (MAGIC_FORMAT, Digest::Sha1)
        } else {
            (format_number(introduction)?, Digest::Sha256)
        };
        // The key's length stands before it; without one there is neither.
        let key = rest.get(1..).unwrap_or(DEFAULT_KEY);
        Ok(Some(Self { format, key, salt: *salt, digest }))
    }
}

/// The id of the key that the header which `bytes` begin with names.
pub(super) fn key_of(bytes: &[u8]) -> Option<&[u8]> {
    let header = bytes.get(..header_length(bytes).ok()?)?;
    Some(Header::parse(header).ok()??.key)
}

/// How long the header that begins with `bytes` is, as far as they can tell.
fn header_length(bytes: &[u8]) -> Result<usize> {
    if bytes.len() < INTRODUCTION {
        return Ok(INTRODUCTION);
    }
    let introduction = &bytes[..INTRODUCTION];
    if introduction == MAGIC {
        return Ok(INTRODUCTION + SALT);
    }
    // First of all, since the rest of a newer header may be different.
    let format = format_number(introduction)?;
    if format > NEWEST_FORMAT {
        return Err(Error::format(format!("repository format {format} requires a newer version of pgBackRest")));
    }
    match (introduction[INTRODUCTION - 1], bytes.get(INTRODUCTION)) {
        (b'_', _) => Ok(INTRODUCTION + SALT),
        (b'K', None) => Ok(INTRODUCTION + 1),
        (b'K', Some(length)) => Ok(INTRODUCTION + 1 + usize::from(*length) + SALT),
        _ => Err(invalid()),
    }
}

/// The format that an introduction `PGBRnnn_` or `PGBRnnnK` names.
fn format_number(introduction: &[u8]) -> Result<u32> {
    let digits = introduction.strip_prefix(b"PGBR").and_then(|rest| rest.get(..3)).ok_or_else(invalid)?;
    digits.iter().try_fold(0, |number, digit| match digit {
        b'0'..=b'9' => Ok(number * 10 + u32::from(digit - b'0')),
        _ => Err(invalid()),
    })
}

fn invalid() -> Error {
    Error::format("invalid cipher header")
}
