//! Filter lists: what a client wants done to the data of a read or a write, and what came of it.
//!
//! A list on the wire is pairs of a filter's name and its parameters; results come back in the
//! same order and shape (specification, sections 5.1 and 5.2). This module knows the layouts; the
//! folder `filter` does the work. What there is to know of each filter is here, reading lists and
//! writing results are in the files beside it.

mod decode;
mod encode;

use zeroize::Zeroize;

use super::release::{BlockStorage, MapRule};
use super::string_id::StringId;

pub use decode::decode_filters;
pub use encode::{encode_results, hexadecimal};

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
    /// Checks the pages of a relation; result [`FilterResult::Pages`].
    PageChecksum(PageChecksum),
    /// Leaves what changed since another backup, and a map of where everything is; result
    /// [`FilterResult::MapSize`].
    BlockIncremental(Box<BlockIncremental>),
    /// Digests block after block; result [`FilterResult::BlockChecksums`].
    BlockChecksum {
        /// Bytes of a block: 512 to 16 MiB.
        block_size: usize,
        /// Bytes of a digest: 1 to 16.
        checksum_size: usize,
    },
}

/// Which pages `pg-chksum` looks at, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageChecksum {
    /// The number of the file's first page in its relation.
    pub first: u32,
    /// How many pages a segment of a relation has; never 0.
    pub segment_pages: u32,
    /// Bytes of a page: a power of two from 1 to 32 KiB.
    pub page_size: usize,
    /// What becomes of a page that looks wrong.
    pub rule: PageRule,
}

/// How `pg-chksum` tells a page that is being written from a damaged one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageRule {
    /// Pages written at or after this position of the WAL are not looked at, nor are new ones.
    BelowLsn(u64),
    /// Pages that look wrong are read again, and are right if they have changed.
    ReadAgain {
        /// What tells a page that may be new: whether its header says that it has no free space, or
        /// else that it has no checksum, as encrypted pages have to be told.
        header_check: bool,
    },
}

/// What `blk-incr` is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockIncremental {
    /// How blocks are stored.
    pub storage: BlockStorage,
    /// When a map is written.
    pub map_rule: MapRule,
    /// Bytes of a block: 512 to 16 MiB.
    pub block_size: usize,
    /// Bytes of blocks that are stored together, at least one block.
    pub super_block_size: u64,
    /// Bytes of a block's checksum: 1 to 16, or 20 where it is SHA-1.
    pub checksum_size: usize,
    /// The number of the backup that is made, in the list of backups that its manifest has.
    pub reference: u32,
    /// The bundle that the file goes to; 0 for none.
    pub bundle_id: u64,
    /// Where in the bundle; at most `i64::MAX`.
    pub bundle_offset: u64,
    /// The file's map in the backup before.
    pub prior: Option<Vec<u8>>,
    /// What each super block is compressed with.
    pub compress: Option<FilterSpec>,
    /// What each super block and the map are encrypted with.
    pub encrypt: Option<FilterSpec>,
}

impl FilterSpec {
    /// The filter's name in lists of filters and results.
    #[must_use]
    pub const fn name(&self) -> StringId {
        match self {
            Self::Hash(_) => const { StringId::new("hash") },
            Self::Size => const { StringId::new("size") },
            Self::Sink => const { StringId::new("sink") },
            Self::Buffer => const { StringId::new("buffer") },
            Self::GzCompress { .. } => const { StringId::new("gz-cmp") },
            Self::GzDecompress { .. } => const { StringId::new("gz-dcmp") },
            Self::Lz4Compress { .. } => const { StringId::new("lz4-cmp") },
            Self::Lz4Decompress => const { StringId::new("lz4-dcmp") },
            Self::ZstCompress { .. } => const { StringId::new("zst-cmp") },
            Self::ZstDecompress => const { StringId::new("zst-dcmp") },
            Self::Bz2Compress { .. } => const { StringId::new("bz2-cmp") },
            Self::Bz2Decompress => const { StringId::new("bz2-dcmp") },
            Self::CipherBlock { .. } => const { StringId::new("cipher-blk") },
            Self::CipherFormat { .. } => const { StringId::new("cipher-fmt") },
            Self::CipherHeader(_) => const { StringId::new("cipher-hdr") },
            Self::PageChecksum(_) => const { StringId::new("pg-chksum") },
            Self::BlockIncremental(_) => const { StringId::new("blk-incr") },
            Self::BlockChecksum { .. } => const { StringId::new("blk-chk") },
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
    /// What is wrong with the pages of a relation.
    Pages {
        /// The damaged pages, in order.
        errors: Vec<PageError>,
        /// No page is damaged, and the file does not end with a piece too short to be one.
        valid: bool,
        /// The file ends with a whole page.
        align: bool,
    },
    /// Bytes that the map takes at the end of the data; 0 when there is none.
    MapSize(u64),
    /// The digests of all blocks, one after the other.
    BlockChecksums(Vec<u8>),
}

/// A damaged page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageError {
    /// The page's number in its relation.
    pub number: u64,
    /// The position of the WAL that its header names, or 0 for a release that does not report it.
    pub lsn: u64,
}

#[cfg(test)]
mod tests;
