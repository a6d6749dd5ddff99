//! Chunks: a stream in pieces, each behind its length, and a zero behind the last.
//!
//! That is how releases 2.44 and 2.45 store blocks. The first length is written as it is, each other
//! one as the difference to the one before. How the stream is divided is free.

use super::chain::Target;
use super::simple::copy;
use super::varint;

/// Bytes of a chunk.
const CHUNK: usize = 64 << 10;

/// The chunk that is being filled, or that is being taken away.
pub(super) struct Chunks {
    /// Room for the head, then the data.
    bytes: Vec<u8>,
    /// Where what is to be taken away begins.
    start: usize,
    sealed: bool,
    /// The length of the chunk before, or 0.
    previous: usize,
}

impl Chunks {
    pub(super) fn new() -> Self {
        let mut bytes = Vec::with_capacity(varint::LONGEST + CHUNK + 1);
        bytes.resize(varint::LONGEST, 0);
        Self { bytes, start: 0, sealed: false, previous: 0 }
    }

    /// Ends the chunk, and the stream if it is the `last`.
    pub(super) fn seal(&mut self, last: bool) {
        let length = self.bytes.len() - varint::LONGEST;
        self.start = varint::LONGEST;
        if length > 0 {
            let number = match self.previous {
                0 => length as u64,
                previous => varint::zigzag(signed(length) - signed(previous)) + 1,
            };
            let (head, head_length) = varint::encode(number);
            self.start -= head_length;
            copy(&head[..head_length], &mut self.bytes[self.start..]);
            self.previous = length;
        }
        if last {
            self.bytes.push(0);
            self.previous = 0;
        }
        self.sealed = true;
    }

    /// Takes as much of the sealed chunk as fits into `output`, and tells how much that was.
    pub(super) fn pop(&mut self, output: &mut [u8]) -> usize {
        if !self.sealed {
            return 0;
        }
        let length = copy(&self.bytes[self.start..], output);
        self.start += length;
        if self.start == self.bytes.len() {
            self.bytes.truncate(varint::LONGEST);
            self.sealed = false;
        }
        length
    }

    /// Bytes that it takes.
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Target for Chunks {
    fn room(&self) -> usize {
        if self.sealed { 0 } else { varint::LONGEST + CHUNK - self.bytes.len() }
    }

    fn put(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
    }
}

/// A length of at most [`CHUNK`] as a signed number.
fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
