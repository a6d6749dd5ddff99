//! Checksums of blocks, and `blk-chk`, which lists those of a whole file.

use twox_hash::XxHash3_128;

use super::cutter::Cutter;
use super::hash::Hasher;
use crate::protocol::error::{Error, Result};
use crate::protocol::filter::{Digest, FilterResult};

/// Bytes of the longest checksum of a block.
pub(super) const LONGEST: usize = 20;
/// More bytes of checksums than a file of 16 TiB in blocks of the usual sizes has.
const CHECKSUMS_MAXIMUM: usize = 16 << 20;

/// The checksum of a block, its first `size` bytes.
///
/// Those of SHA-1, if `sha1`, or else of XXH3-128 with the most significant byte first.
pub(super) fn checksum(block: &[u8], sha1: bool) -> [u8; LONGEST] {
    let mut checksum = [0; LONGEST];
    if sha1 {
        let mut hasher = Hasher::new(Digest::Sha1);
        hasher.update(block);
        super::simple::copy(hasher.finish().as_ref(), &mut checksum);
    } else {
        super::simple::copy(&XxHash3_128::oneshot(block).to_be_bytes(), &mut checksum);
    }
    checksum
}

/// The checksums of one file, as it passes.
pub(super) struct Checksums {
    cutter: Cutter,
    size: usize,
    bytes: Vec<u8>,
}

impl Checksums {
    pub(super) fn new(block_size: usize, size: usize) -> Self {
        Self { cutter: Cutter::new(block_size), size, bytes: Vec::new() }
    }

    /// Takes in the next data of the file.
    pub(super) fn update(&mut self, data: &[u8]) -> Result<()> {
        let Self { cutter, size, bytes } = self;
        cutter.cut(data, |block| {
            if bytes.len() >= CHECKSUMS_MAXIMUM {
                return Err(Error::format(format!("block checksums take more than {CHECKSUMS_MAXIMUM} bytes")));
            }
            bytes.extend(checksum(block, false).iter().take(*size));
            Ok(())
        })
    }

    /// All checksums, once the data have ended.
    pub(super) fn result(&self) -> FilterResult {
        let mut bytes = self.bytes.clone();
        if !self.cutter.rest().is_empty() {
            bytes.extend(checksum(self.cutter.rest(), false).iter().take(self.size));
        }
        FilterResult::BlockChecksums(bytes)
    }

    /// About how many bytes it takes now.
    pub(super) fn memory(&self) -> usize {
        self.cutter.memory() + self.bytes.capacity()
    }
}
