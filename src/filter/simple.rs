//! The filters without an algorithm: `sink`, and `cipher-hdr` as bytes put before a stream.

use super::{Step, Transform};
use crate::protocol::error::Result;

/// Swallows everything.
pub(super) struct Sink;

impl Transform for Sink {
    fn step(&mut self, input: &[u8], ended: bool, _output: &mut [u8]) -> Result<Step> {
        Ok(Step { consumed: input.len(), done: ended, ..Step::default() })
    }
}

/// Puts bytes before the stream and passes the stream on.
pub(super) struct Prefix {
    bytes: Vec<u8>,
    written: usize,
}

impl Prefix {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, written: 0 }
    }
}

impl Transform for Prefix {
    fn step(&mut self, input: &[u8], ended: bool, output: &mut [u8]) -> Result<Step> {
        let prefix = copy(&self.bytes[self.written..], output);
        self.written += prefix;
        let consumed = copy(input, &mut output[prefix..]);
        let done = ended && consumed == input.len() && self.written == self.bytes.len();
        Ok(Step { consumed, produced: prefix + consumed, done, ..Step::default() })
    }
}

/// Copies as much of `from` as fits, and tells how much that was.
pub(super) fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let length = from.len().min(to.len());
    to[..length].copy_from_slice(&from[..length]);
    length
}
