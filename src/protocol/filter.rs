//! Filter lists: what a client wants done to the data of a read or a write, and what came of it.
//!
//! A list on the wire is pairs of a filter's name and its parameters; results come back in the
//! same order and shape (specification, sections 5.1 and 5.2). This module knows the layouts; the
//! folder `filter` does the work.

use zeroize::Zeroize;

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
