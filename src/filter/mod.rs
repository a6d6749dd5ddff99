//! Filters: what a read or a write does to its data on the way, and what it finds out about it.
//!
//! One file per kind of filter; [`Chain`] strings them together. Which filters exist and how they
//! look on the wire is `protocol::filter`'s business; this folder only does the work, without I/O
//! and without a clock. The behaviour follows the protocol specification, sections 5.1 to 5.8.
//!
//! Two kinds of filter: *observers* (hash, size, the checksums of pages and blocks) look at the bytes
//! and leave them alone; *transforms* (the compressions, the ciphers, block incremental, sink) take
//! bytes in and put others out. Every
//! transform writes into a buffer of fixed size, so what a client can make the server hold or do
//! in one call is bounded, however well its data compresses.

mod block_checksum;
mod block_incremental;
mod block_map;
mod bz2;
mod chain;
mod chunks;
mod cipher_block;
mod cipher_format;
mod cipher_key;
mod cutter;
mod gz;
mod hash;
mod lz4;
pub(crate) mod network;
mod page_checksum;
mod simple;
mod varint;
pub(crate) mod whole;
mod zst;

pub use chain::{Chain, Progress};
pub(crate) use zst::Contexts;

use crate::protocol::error::{Code, Error, Result};
use crate::protocol::filter::FilterResult;

/// Bytes that a transform may take in, unless it wants larger [pieces](Transform::piece), and bytes that it
/// may put out, in one step.
const STEP: usize = 64 * 1024;

/// What one step of a transform did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Step {
    /// Bytes taken from the front of the input.
    consumed: usize,
    /// Bytes put at the front of the output.
    produced: usize,
    /// There may be more output without more input, although the output is not full.
    more: bool,
    /// No output will follow, whatever input may still come.
    done: bool,
    /// What else the step did, as the number of bytes that would have taken as long to move.
    effort: usize,
}

impl Step {
    /// The step in which a library's counters of bytes taken and put out went from `before` to `after`.
    fn between(before: (u64, u64), after: (u64, u64), done: bool) -> Self {
        // `STEP` bounds them.
        let count = |after: u64, before: u64| usize::try_from(after - before).unwrap_or(usize::MAX);
        Self { consumed: count(after.0, before.0), produced: count(after.1, before.1), done, ..Self::default() }
    }

    /// The step of a decompressor, unless all of its `input` has `ended` and its stream has not.
    fn unless_cut_off(self, input: &[u8], ended: bool) -> Result<Self> {
        if ended && !self.done && self.consumed == input.len() && self.produced == 0 {
            return Err(unexpected_end());
        }
        Ok(self)
    }
}

/// A filter that puts out other bytes than it takes in.
trait Transform {
    /// Takes from `input` and writes to `output` until one of them is used up, or until the data
    /// have ended. `ended` says that nothing follows `input`; then steps with the rest of it, or
    /// with nothing, flush until one is `done`, after which no step is made. A step with neither
    /// input nor `ended` asks for output that did not fit into the one before.
    ///
    /// `output` has room for [`STEP`] bytes; what it holds beforehand means nothing.
    ///
    /// # Errors
    ///
    /// The filter's own; the chain makes no step after one.
    fn step(&mut self, input: &[u8], ended: bool, output: &mut [u8]) -> Result<Step>;

    /// The filter, where it is one that can put the data into frames for the network as they are.
    fn frame(&mut self) -> Option<&mut network::Compress> {
        None
    }

    /// Bytes that the filter wants to be given at once where there are as many.
    fn piece(&self) -> usize {
        STEP
    }

    /// Makes a filter whose data have ended ready for other data, with the same parameters. Only
    /// compressors and encryption can do that.
    ///
    /// # Errors
    ///
    /// Code 25 where it makes no sense, and what the library says.
    fn restart(&mut self) -> Result<()> {
        Err(Error::new(Code::Assert, "filter works on one stream only"))
    }

    /// About how many bytes the filter takes now. Most take less than 300 KiB.
    fn memory(&self) -> usize {
        300 << 10
    }

    /// What the filter reports when its data have ended.
    fn result(&self) -> FilterResult {
        FilterResult::None
    }
}

/// What a decompressor says when its input ends early.
fn unexpected_end() -> Error {
    Error::format("unexpected eof in compressed data")
}

/// What a filter says when it gets no memory.
fn no_memory(filter: &str) -> Error {
    Error::new(Code::Memory, format!("unable to allocate memory for filter '{filter}'"))
}

/// Checks a compression level, which pgBackRest's options bound on the client already.
fn check_level(filter: &str, level: i32, minimum: i32, maximum: i32) -> Result<()> {
    if (minimum..=maximum).contains(&level) {
        return Ok(());
    }
    Err(Error::format(format!("compression level {level} of filter '{filter}' is out of range {minimum} to {maximum}")))
}

#[cfg(test)]
mod tests;
