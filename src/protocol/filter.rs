//! Filter lists: what a client wants done to the data of a read or a write, and what came of it.
//!
//! A list on the wire is pairs of a filter's name and its parameters; results come back in the
//! same order and shape (specification, sections 5.1 and 5.2). This module knows the layouts; the
//! folder `filter` does the work.

use zeroize::Zeroize;

use super::error::{Code, Error, Result};
use super::pack::{Reader, Writer};
use super::release::{CipherLayout, HashLayout, Release};
use super::string_id::StringId;

/// A secret that never shows in a log or an error, and is wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<redacted>")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A digest that the hash filter or a key derivation uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the digests' own")]
pub enum Digest {
    Md5,
    Sha1,
    Sha256,
}

/// Which way a cipher filter works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum CipherMode {
    Encrypt,
    Decrypt,
}

/// A key that the cipher format filter may need, by the id that a file names it with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CipherKey {
    /// The id in the file's header; `0` for files without one.
    pub id: String,
    /// The digest for key derivation, or the default of the file's format.
    pub digest: Option<Digest>,
    /// The passphrase.
    pub pass: Secret,
}

/// One filter with its parameters, whatever the generation of the protocol that named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterSpec {
    /// Digests what passes; result [`FilterResult::Hash`].
    Hash(Digest),
    /// Counts what passes; result [`FilterResult::Size`].
    Size,
    /// Swallows everything.
    Sink,
    /// Passes everything on.
    Buffer,
    /// Deflate; `raw` is the zlib wrapper, otherwise gzip.
    GzCompress {
        /// -1 to 9.
        level: i32,
        /// zlib wrapper instead of gzip's.
        raw: bool,
    },
    /// Inflate; `raw` as for compression.
    GzDecompress {
        /// zlib wrapper instead of gzip's.
        raw: bool,
    },
    /// LZ4 frames; `raw` leaves the content checksum out.
    Lz4Compress {
        /// -5 to 12.
        level: i32,
        /// No content checksum.
        raw: bool,
    },
    /// LZ4 frames of either kind.
    Lz4Decompress,
    /// Zstandard.
    ZstCompress {
        /// -7 to 22.
        level: i32,
    },
    /// Zstandard.
    ZstDecompress,
    /// bzip2.
    Bz2Compress {
        /// 1 to 9.
        level: i32,
    },
    /// bzip2.
    Bz2Decompress,
    /// AES-256-CBC with a salt in front of the ciphertext.
    CipherBlock {
        /// Which way.
        mode: CipherMode,
        /// The passphrase.
        pass: Secret,
        /// For key derivation; SHA-1 where the client named none.
        digest: Digest,
        /// Whether `Salted__` stands before the salt.
        magic: bool,
    },
    /// Decrypts a repository file whose format its own header tells; result [`FilterResult::Format`].
    CipherFormat {
        /// The keys that may be needed.
        keys: Vec<CipherKey>,
        /// The format that the file must have, if the client expects one.
        expected: Option<u32>,
    },
    /// Puts these bytes before the stream.
    CipherHeader(Vec<u8>),
}

impl FilterSpec {
    /// The filter's name in lists of filters and results.
    #[must_use]
    pub const fn name(&self) -> StringId {
        match self {
            Self::Hash(_) => StringId::new("hash"),
            Self::Size => StringId::new("size"),
            Self::Sink => StringId::new("sink"),
            Self::Buffer => StringId::new("buffer"),
            Self::GzCompress { .. } => StringId::new("gz-cmp"),
            Self::GzDecompress { .. } => StringId::new("gz-dcmp"),
            Self::Lz4Compress { .. } => StringId::new("lz4-cmp"),
            Self::Lz4Decompress => StringId::new("lz4-dcmp"),
            Self::ZstCompress { .. } => StringId::new("zst-cmp"),
            Self::ZstDecompress => StringId::new("zst-dcmp"),
            Self::Bz2Compress { .. } => StringId::new("bz2-cmp"),
            Self::Bz2Decompress => StringId::new("bz2-dcmp"),
            Self::CipherBlock { .. } => StringId::new("cipher-blk"),
            Self::CipherFormat { .. } => StringId::new("cipher-fmt"),
            Self::CipherHeader(_) => StringId::new("cipher-hdr"),
        }
    }
}

/// What a filter reports when the data has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterResult {
    /// Nothing.
    None,
    /// The digest.
    Hash(Vec<u8>),
    /// Bytes counted.
    Size(u64),
    /// The format of the repository file that was read.
    Format(u32),
}

/// More filters than any client chains are refused.
const FILTERS_MAXIMUM: usize = 16;
/// More keys than any repository has are refused.
const KEYS_MAXIMUM: u32 = 1000;

const ENCRYPT: StringId = StringId::new("encrypt");
const DECRYPT: StringId = StringId::new("decrypt");
const AES_256_CBC: StringId = StringId::new("aes-256-cbc");

/// Reads the list of filters that is the next field of a request.
///
/// Null parameters mean a filter's defaults.
///
/// # Errors
///
/// [`Code::Assert`] for a filter that there is not, as the original reports it, and
/// [`Code::Format`] for parameters that do not fit.
pub fn decode_filters(reader: &mut Reader<'_>, release: &Release) -> Result<Vec<FilterSpec>> {
    let Some(mut list) = reader.read_pack()? else { return Ok(Vec::new()) };
    let mut filters = Vec::new();
    while list.peek()?.is_some() {
        if filters.len() == FILTERS_MAXIMUM {
            return Err(Error::format(format!("more than {FILTERS_MAXIMUM} filters")));
        }
        let name = list.read_string_id()?.ok_or_else(|| Error::format("filter has no name"))?;
        let parameters = list.read_pack()?;
        let defaults = parameters.is_none();
        filters.push(decode_filter(name, &mut parameters.unwrap_or(Reader::new(&[])), defaults, release)?);
    }
    Ok(filters)
}

fn decode_filter(name: StringId, parameters: &mut Reader<'_>, defaults: bool, release: &Release) -> Result<FilterSpec> {
    let level = |parameters: &mut Reader<'_>, default| {
        let level = parameters.read_i32()?;
        Ok::<_, Error>(if defaults { default } else { level })
    };
    Ok(match name.to_string().as_str() {
        "hash" if release.hash_layout == HashLayout::Text => FilterSpec::Hash(decode_digest_text(parameters)?),
        "hash" => FilterSpec::Hash(decode_digest(parameters.read_string_id()?)?.unwrap_or(Digest::Sha1)),
        "size" => FilterSpec::Size,
        "sink" => FilterSpec::Sink,
        "buffer" => FilterSpec::Buffer,
        "gz-cmp" => FilterSpec::GzCompress { level: level(parameters, 6)?, raw: parameters.read_bool()? },
        "gz-dcmp" => FilterSpec::GzDecompress { raw: parameters.read_bool()? },
        "lz4-cmp" => FilterSpec::Lz4Compress { level: level(parameters, 1)?, raw: parameters.read_bool()? },
        "lz4-dcmp" => FilterSpec::Lz4Decompress,
        "zst-cmp" => FilterSpec::ZstCompress { level: level(parameters, 3)? },
        "zst-dcmp" => FilterSpec::ZstDecompress,
        "bz2-cmp" => FilterSpec::Bz2Compress { level: level(parameters, 9)? },
        "bz2-dcmp" => FilterSpec::Bz2Decompress,
        "cipher-blk" => decode_cipher(parameters, release.cipher_layout)?,
        "cipher-fmt" if release.detects_cipher_format => decode_cipher_format(parameters)?,
        "cipher-hdr" if release.detects_cipher_format => {
            FilterSpec::CipherHeader(parameters.read_bin()?.unwrap_or_default().to_vec())
        }
        _ => return Err(Error::new(Code::Assert, format!("unable to add filter '{name}'"))),
    })
}

fn decode_digest(name: Option<StringId>) -> Result<Option<Digest>> {
    let Some(name) = name else { return Ok(None) };
    Ok(Some(match name.to_string().as_str() {
        "md5" => Digest::Md5,
        "sha1" => Digest::Sha1,
        "sha256" => Digest::Sha256,
        _ => return Err(Error::new(Code::Assert, format!("unable to load digest '{name}'"))),
    }))
}

fn decode_digest_text(parameters: &mut Reader<'_>) -> Result<Digest> {
    Ok(match parameters.read_str()? {
        None | Some("sha1") => Digest::Sha1,
        Some("sha256") => Digest::Sha256,
        Some("md5") => Digest::Md5,
        Some(name) => return Err(Error::new(Code::Assert, format!("unable to load digest '{name}'"))),
    })
}

fn decode_cipher(parameters: &mut Reader<'_>, layout: CipherLayout) -> Result<FilterSpec> {
    let mode = match parameters.read_u64()?.map(StringId) {
        Some(ENCRYPT) => CipherMode::Encrypt,
        Some(DECRYPT) => CipherMode::Decrypt,
        _ => return Err(Error::format("invalid cipher mode")),
    };
    let (digest, pass, magic) = match layout {
        CipherLayout::Raw => {
            decode_cipher_type(parameters.read_u64()?.map(StringId))?;
            let pass = decode_pass(parameters)?;
            let digest = decode_digest_text(parameters)?;
            (digest, pass, !parameters.read_bool()?)
        }
        CipherLayout::Header => {
            decode_cipher_type(parameters.read_string_id()?)?;
            let digest = decode_digest(parameters.read_string_id()?)?
                .ok_or_else(|| Error::new(Code::Assert, "unable to load digest '!'"))?;
            let pass = decode_pass(parameters)?;
            let magic = match parameters.read_u32()? {
                0 => true,
                1 => false,
                header => return Err(Error::format(format!("invalid cipher header type {header}"))),
            };
            (digest, pass, magic)
        }
    };
    Ok(FilterSpec::CipherBlock { mode, pass, digest, magic })
}

fn decode_cipher_type(name: Option<StringId>) -> Result<()> {
    match name {
        Some(AES_256_CBC) => Ok(()),
        Some(name) => Err(Error::new(Code::Assert, format!("unable to load cipher '{name}'"))),
        None => Err(Error::format("cipher filter has no cipher")),
    }
}

fn decode_pass(parameters: &mut Reader<'_>) -> Result<Secret> {
    Ok(Secret(parameters.read_bin()?.ok_or_else(|| Error::format("cipher filter has no passphrase"))?.to_vec()))
}

fn decode_cipher_format(parameters: &mut Reader<'_>) -> Result<FilterSpec> {
    let count = parameters.read_u32()?;
    if count > KEYS_MAXIMUM {
        return Err(Error::format(format!("more than {KEYS_MAXIMUM} cipher keys")));
    }
    let mut keys = Vec::new();
    for _ in 0..count {
        let id = parameters.read_str()?.unwrap_or_default().to_owned();
        decode_cipher_type(parameters.read_string_id()?)?;
        let digest = decode_digest(parameters.read_string_id()?)?;
        keys.push(CipherKey { id, digest, pass: decode_pass(parameters)? });
    }
    // The key that new files are written with; a reader does not need it.
    parameters.skip()?;
    let expected = Some(parameters.read_u32()?).filter(|format| *format != 0);
    Ok(FilterSpec::CipherFormat { keys, expected })
}

/// Writes the results of a list of filters as a pack: name and result, pair by pair.
pub fn encode_results(writer: &mut Writer, results: &[(StringId, FilterResult)], release: &Release) {
    for (name, result) in results {
        writer.string_id(*name);
        match result {
            FilterResult::None => writer.null(),
            FilterResult::Hash(digest) => writer.pack(|inner| {
                if release.hash_layout == HashLayout::Binary {
                    inner.bin(digest);
                } else {
                    inner.str(&hexadecimal(digest));
                }
            }),
            FilterResult::Size(size) => writer.pack(|inner| _ = inner.u64(*size)),
            FilterResult::Format(format) => writer.pack(|inner| _ = inner.u32(*format)),
        };
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
