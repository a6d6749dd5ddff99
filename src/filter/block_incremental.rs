//! `blk-incr`: the blocks of a file that another backup does not have yet, and a map of all of them.
//!
//! Changed blocks are compressed and encrypted together, as super blocks, and leave as they are made;
//! what is held of the file is one block at most, and none where whole blocks come in. The map is
//! held and leaves at the end. Source: specification, section 5.7.

use std::rc::Rc;

use super::block_checksum::{LONGEST, checksum};
use super::block_map::{BlockMap, SuperBlock};
use super::chain::{Chain, Progress, Target};
use super::chunks::Chunks;
use super::simple::copy;
use super::zst::Contexts;
use super::{STEP, Step, Transform, varint};
use crate::protocol::error::{Error, Result};
use crate::protocol::filter::{BlockIncremental, FilterResult, FilterSpec};
use crate::protocol::release::{BlockStorage, MapRule};

/// What a step puts into compression and encryption before it lets others work.
const SLICE: usize = 4 * STEP;
/// How many bytes of memory a compressor prepares for another super block in the time in which the
/// slowest ones take a byte.
const PREPARED: usize = 256;

/// The filter at work.
pub(super) struct Blocks {
    spec: BlockIncremental,
    prior: Option<BlockMap>,
    map: BlockMap,
    /// Compression and encryption of a super block.
    codec: Chain,
    /// Whether the codec has had a super block.
    used: bool,
    chunks: Option<Chunks>,
    /// A block that did not come as a whole.
    block: Vec<u8>,
    phase: Phase,
    /// How many blocks there were so far.
    count: usize,
    /// The block that was stored last.
    stored_last: usize,
    open: Option<Open>,
    /// Where the next super block will begin.
    offset: u64,
    /// Whether any block was stored.
    stored_any: bool,
    /// Bytes of the map that have left.
    map_size: u64,
}

/// What the filter is doing.
enum Phase {
    /// Looks for the next block that has changed.
    Search,
    /// Stores a block.
    Store(Store),
    /// Ends a super block.
    Close,
    /// Waits until the last chunk of a super block has left.
    Closed,
    /// Puts the map out.
    Map { bytes: Vec<u8>, taken: usize, encryption: Chain },
    /// There is nothing more to do.
    Done,
}

/// A block on its way into its super block.
struct Store {
    /// Its number, for releases that store it.
    head: [u8; varint::LONGEST],
    head_length: usize,
    head_taken: usize,
    /// Bytes that are still to be taken from the input, or else from the block that was put together.
    left: Option<usize>,
    /// Bytes that were taken from that.
    taken: usize,
}

/// A super block that is being made.
struct Open {
    /// Its index in the map.
    index: u32,
    /// Bytes of its blocks.
    size: u64,
    /// Bytes that it has become so far.
    stored: u64,
    /// The number of its next block.
    number: u32,
}

impl Blocks {
    pub(super) fn new(mut spec: BlockIncremental, contexts: &Rc<Contexts>) -> Result<Self> {
        let block_size = spec.block_size as u64;
        let decode = if spec.storage == BlockStorage::Single { BlockMap::decode_single } else { BlockMap::decode };
        let prior = spec.prior.take();
        let prior = prior.map(|bytes| decode(&bytes, block_size, spec.checksum_size)).transpose()?;
        let codec = spec.compress.iter().chain(&spec.encrypt).cloned().collect::<Vec<FilterSpec>>();
        let codec = Chain::sharing(contexts, codec)?;
        let in_chunks = matches!(spec.storage, BlockStorage::Single | BlockStorage::Numbered);
        Ok(Self {
            map: BlockMap::new(spec.checksum_size),
            prior,
            codec,
            used: false,
            chunks: in_chunks.then(Chunks::new),
            block: Vec::new(),
            phase: Phase::Search,
            count: 0,
            stored_last: 0,
            open: None,
            offset: spec.bundle_offset,
            stored_any: false,
            map_size: 0,
            spec,
        })
    }

    /// Looks at the next block, if it is there. False when more input is needed.
    fn search(&mut self, input: &[u8], ended: bool, step: &mut Step) -> Result<bool> {
        let rest = &input[step.consumed..];
        let size = self.spec.block_size;
        let sha1 = self.spec.storage == BlockStorage::Single;
        if self.block.is_empty() && (rest.len() >= size || (ended && !rest.is_empty())) {
            let length = rest.len().min(size);
            if self.take_block(checksum(&rest[..length], sha1), length, Some(length))? {
                step.consumed += length;
            }
            return Ok(true);
        }
        let length = rest.len().min(size - self.block.len());
        self.block.reserve_exact(size - self.block.len());
        self.block.extend_from_slice(&rest[..length]);
        step.consumed += length;
        if self.block.len() < size && !ended {
            return Ok(false);
        }
        if self.block.is_empty() {
            if self.open.is_some() {
                self.phase = Phase::Close;
            } else {
                self.begin_map(step)?;
            }
        } else if self.take_block(checksum(&self.block, sha1), self.block.len(), None)? {
            self.block.clear();
        }
        Ok(true)
    }

    /// Notes the next block, of `length` bytes. True when it is stored already; otherwise it is stored
    /// from now on, from the input if `left` says how much of that it is.
    fn take_block(&mut self, checksum: [u8; LONGEST], length: usize, left: Option<usize>) -> Result<bool> {
        let index = self.count;
        self.count += 1;
        let checksum = &checksum[..self.spec.checksum_size];
        if let Some(prior) = &self.prior
            && prior.checksum(index) == Some(checksum)
        {
            self.map.take_over(prior)?;
            return Ok(true);
        }
        if self.open.is_none() {
            self.open = Some(self.open_super_block()?);
        }
        let Some(open) = &mut self.open else { return Ok(false) };
        self.map.push(open.index, open.number, checksum)?;
        open.number += 1;
        open.size += length as u64;
        let (head, head_length) = match self.chunks {
            Some(_) => varint::encode((index - self.stored_last) as u64),
            None => ([0; varint::LONGEST], 0),
        };
        self.stored_last = index;
        self.phase = Phase::Store(Store { head, head_length, head_taken: 0, left, taken: 0 });
        Ok(false)
    }

    fn open_super_block(&mut self) -> Result<Open> {
        if std::mem::replace(&mut self.used, true) {
            self.codec.restart()?;
        }
        let index = self.map.push_super_block(SuperBlock {
            reference: self.spec.reference,
            bundle_id: self.spec.bundle_id,
            offset: self.offset,
            stored: 0,
            size: 0,
        });
        Ok(Open { index, size: 0, stored: 0, number: 0 })
    }

    /// Goes on with the block that is being stored. False when more input or more room is needed.
    fn store(&mut self, input: &[u8], output: &mut [u8], step: &mut Step) -> Result<bool> {
        let Phase::Store(store) = &mut self.phase else { return Ok(true) };
        let mut sink = Sink { chunks: self.chunks.as_mut(), output: &mut output[step.produced..], written: 0 };
        let mut head = &store.head[store.head_taken..store.head_length];
        let mut progress = Progress::NeedsInput;
        if !head.is_empty() {
            progress = self.codec.pump(&mut head, false, &mut sink, SLICE)?;
            store.head_taken = store.head_length - head.len();
        }
        let mut finished = false;
        if store.head_taken == store.head_length {
            let rest = match store.left {
                Some(left) => &input[step.consumed..][..left.min(input.len() - step.consumed)],
                None => &self.block[store.taken..],
            };
            let mut source = rest;
            progress = self.codec.pump(&mut source, false, &mut sink, SLICE)?;
            let taken = rest.len() - source.len();
            if let Some(left) = &mut store.left {
                *left -= taken;
                step.consumed += taken;
                finished = *left == 0;
            } else {
                store.taken += taken;
                step.effort += taken;
                finished = store.taken == self.block.len();
            }
        }
        let written = sink.written;
        self.leave(written, step);
        if finished {
            self.block.clear();
            let full = self.open.as_ref().is_some_and(|open| open.size >= self.spec.super_block_size);
            self.phase = if full { Phase::Close } else { Phase::Search };
            return Ok(true);
        }
        Ok(self.make_room(progress, step))
    }

    /// Goes on with the end of a super block. False when more room is needed.
    fn close(&mut self, output: &mut [u8], step: &mut Step) -> Result<bool> {
        let mut sink = Sink { chunks: self.chunks.as_mut(), output: &mut output[step.produced..], written: 0 };
        let progress = self.codec.pump(&mut &[][..], true, &mut sink, SLICE)?;
        let written = sink.written;
        self.leave(written, step);
        if progress != Progress::Finished {
            return Ok(self.make_room(progress, step));
        }
        if let Some(chunks) = &mut self.chunks {
            chunks.seal(true);
        }
        self.phase = Phase::Closed;
        Ok(true)
    }

    /// Notes a super block of which everything has left.
    fn closed(&mut self, step: &mut Step) -> Result<()> {
        if let Some(open) = self.open.take() {
            self.map.close_super_block(open.index, open.stored, open.size);
            let next = self.offset.checked_add(open.stored);
            self.offset = next.ok_or_else(|| Error::format("bundle offset is out of range"))?;
        }
        self.stored_any = true;
        self.phase = Phase::Search;
        // Before the next super block others get their turn, however small this one was.
        step.effort += self.codec.memory() / PREPARED;
        step.more = true;
        Ok(())
    }

    /// Counts what has left of a super block.
    fn leave(&mut self, written: usize, step: &mut Step) {
        step.produced += written;
        if let Some(open) = &mut self.open {
            open.stored += written as u64;
        }
    }

    /// Sees to it that the codec can go on. False when the step has to end for that.
    fn make_room(&mut self, progress: Progress, step: &mut Step) -> bool {
        match (&mut self.chunks, progress) {
            (Some(chunks), Progress::OutputFull) => {
                chunks.seal(false);
                true
            }
            (_, Progress::Budget) => {
                step.more = true;
                false
            }
            _ => false,
        }
    }

    /// All blocks have left: the map follows, if there is to be one.
    fn begin_map(&mut self, step: &mut Step) -> Result<()> {
        let shorter = self.prior.as_ref().is_some_and(|prior| self.map.len() < prior.len());
        let changed = self.stored_any || shorter;
        let wanted = match self.spec.map_rule {
            MapRule::Always => self.map.len() > 0,
            MapRule::Changed => changed,
            MapRule::ChangedNotEmpty => changed && self.map.len() > 0,
        };
        self.phase = if wanted {
            let block_size = self.spec.block_size as u64;
            let bytes = match self.spec.storage {
                BlockStorage::Single => self.map.encode_single(block_size)?,
                BlockStorage::Numbered | BlockStorage::Plain => self.map.encode(block_size)?,
            };
            step.effort += bytes.len();
            let encryption = Chain::new(self.spec.encrypt.iter().cloned().collect())?;
            Phase::Map { bytes, taken: 0, encryption }
        } else {
            Phase::Done
        };
        self.prior = None;
        self.map = BlockMap::new(self.spec.checksum_size);
        Ok(())
    }

    /// Goes on with the map. False when more room is needed.
    fn put_map(&mut self, output: &mut [u8], step: &mut Step) -> Result<bool> {
        let Phase::Map { bytes, taken, encryption } = &mut self.phase else { return Ok(true) };
        let mut source = &bytes[*taken..];
        let mut sink = Sink { chunks: None, output: &mut output[step.produced..], written: 0 };
        let progress = encryption.pump(&mut source, true, &mut sink, SLICE)?;
        *taken = bytes.len() - source.len();
        step.produced += sink.written;
        self.map_size += sink.written as u64;
        if progress == Progress::Finished {
            self.phase = Phase::Done;
            return Ok(true);
        }
        step.more = progress == Progress::Budget;
        Ok(false)
    }
}

impl Transform for Blocks {
    fn step(&mut self, input: &[u8], ended: bool, output: &mut [u8]) -> Result<Step> {
        let mut step = Step::default();
        loop {
            let popped = self.chunks.as_mut().map_or(0, |chunks| chunks.pop(&mut output[step.produced..]));
            self.leave(popped, &mut step);
            if step.produced == output.len() {
                // Perhaps part of a chunk is left, perhaps there is just no room.
                return Ok(step);
            }
            let goes_on = match self.phase {
                Phase::Search => self.search(input, ended, &mut step)?,
                Phase::Store(_) => self.store(input, output, &mut step)?,
                Phase::Close => self.close(output, &mut step)?,
                Phase::Closed => {
                    self.closed(&mut step)?;
                    false
                }
                Phase::Map { .. } => self.put_map(output, &mut step)?,
                Phase::Done => {
                    step.done = true;
                    false
                }
            };
            if !goes_on {
                return Ok(step);
            }
        }
    }

    fn memory(&self) -> usize {
        let maps = self.map.memory() + self.prior.as_ref().map_or(0, BlockMap::memory);
        let bytes = if let Phase::Map { bytes, encryption, .. } = &self.phase {
            bytes.capacity() + encryption.memory()
        } else {
            0
        };
        let chunks = self.chunks.as_ref().map_or(0, Chunks::memory);
        self.spec.block_size + self.codec.memory() + chunks + maps + bytes
    }

    fn result(&self) -> FilterResult {
        FilterResult::MapSize(self.map_size)
    }
}

/// Where super blocks go: to the output of a step, or into chunks.
struct Sink<'a> {
    chunks: Option<&'a mut Chunks>,
    output: &'a mut [u8],
    /// Bytes that went to the output.
    written: usize,
}

impl Target for Sink<'_> {
    fn room(&self) -> usize {
        match &self.chunks {
            Some(chunks) => chunks.room(),
            None => self.output.len() - self.written,
        }
    }

    fn put(&mut self, data: &[u8]) {
        match &mut self.chunks {
            Some(chunks) => chunks.put(data),
            None => self.written += copy(data, &mut self.output[self.written..]),
        }
    }
}

#[cfg(test)]
mod tests;
