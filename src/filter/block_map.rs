//! Block maps: where each block of a file is stored, in the backup at hand or an earlier one.
//!
//! Source: specification, section 5.7, and real maps of 2.44 to 2.60. Two forms: that of 2.44, where
//! each block is stored by itself, and that of all later releases, which knows super blocks.

use super::varint::{self, ends_early, take, unzigzag, zigzag};
use crate::protocol::error::{Error, Result};

/// More blocks than a segment of 1 GiB has in the smallest blocks that make sense.
pub(super) const BLOCKS_MAXIMUM: usize = 1 << 20;

// In a reference, the number of a backup shifted by three.
const LAST: u64 = 1;
const BUNDLE_ID: u64 = 2;
const OFFSET: u64 = 4;
// The same in one to a backup that was referred to before.
const CONTINUE: u64 = 2;
const CONTINUE_LAST: u64 = 4;
const REFERENCE_SHIFT: u32 = 3;
// In a super block, its stored size shifted by three; `LAST` also.
const SIZE_CHANGE: u64 = 2;
const TOTAL_OFFSET: u64 = 4;
const SUPER_BLOCK_SHIFT: u32 = 3;
// In the size of a super block in blocks: there is a remainder.
const REMAINDER: u64 = 1;
// In the number of blocks of a super block: blocks before are left out.
const BLOCK_OFFSET: u64 = 1;

/// Blocks that are stored together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SuperBlock {
    /// The backup, by its number in the list of the manifest.
    pub(super) reference: u32,
    /// The bundle that it is in, or 0.
    pub(super) bundle_id: u64,
    /// Where it begins in the bundle or file.
    pub(super) offset: u64,
    /// Bytes that it takes there.
    pub(super) stored: u64,
    /// Bytes of its blocks.
    pub(super) size: u64,
}

/// Where a block is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Index of its super block.
    within: u32,
    /// Its number in that.
    number: u32,
}

/// A map in the making or one that was read.
pub(super) struct BlockMap {
    checksum_size: usize,
    checksums: Vec<u8>,
    places: Vec<Place>,
    super_blocks: Vec<SuperBlock>,
    /// The super block of another map that the last block was taken over with, and its index here.
    taken_over: Option<(u32, u32)>,
}

impl BlockMap {
    /// A map without blocks.
    pub(super) fn new(checksum_size: usize) -> Self {
        let checksum_size = checksum_size.max(1);
        Self { checksum_size, checksums: Vec::new(), places: Vec::new(), super_blocks: Vec::new(), taken_over: None }
    }

    /// How many blocks the file has.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The checksum of a block, or `None` behind the last.
    pub(super) fn checksum(&self, index: usize) -> Option<&[u8]> {
        self.checksums.chunks_exact(self.checksum_size).nth(index)
    }

    /// Adds a super block, whose blocks follow, and tells its index.
    pub(super) fn push_super_block(&mut self, super_block: SuperBlock) -> u32 {
        self.super_blocks.push(super_block);
        // There are not more of them than blocks, but for one.
        u32::try_from(self.super_blocks.len() - 1).unwrap_or(u32::MAX)
    }

    /// Says how large a super block has become.
    pub(super) fn close_super_block(&mut self, index: u32, stored: u64, size: u64) {
        if let Some(super_block) = self.super_blocks.get_mut(index as usize) {
            super_block.stored = stored;
            super_block.size = size;
        }
    }

    /// Adds the next block of the file, which is block `number` of super block `within`.
    pub(super) fn push(&mut self, within: u32, number: u32, checksum: &[u8]) -> Result<()> {
        if self.places.len() >= BLOCKS_MAXIMUM {
            return Err(Error::format(format!("file has more than {BLOCKS_MAXIMUM} blocks")));
        }
        self.places.push(Place { within, number });
        self.checksums.extend_from_slice(checksum);
        Ok(())
    }

    /// Adds the next block of the file as the map `prior` has it.
    pub(super) fn take_over(&mut self, prior: &Self) -> Result<()> {
        let index = self.len();
        let (Some(place), Some(checksum)) = (prior.places.get(index), prior.checksum(index)) else {
            return Err(ends_early());
        };
        let within = match (self.taken_over, prior.super_blocks.get(place.within as usize)) {
            (Some((there, here)), _) if there == place.within => here,
            (_, Some(super_block)) => self.push_super_block(*super_block),
            (_, None) => return Err(ends_early()),
        };
        self.taken_over = Some((place.within, within));
        self.push(within, place.number, checksum)
    }

    /// About how many bytes it takes.
    pub(super) fn memory(&self) -> usize {
        self.checksums.capacity()
            + self.places.capacity() * size_of::<Place>()
            + self.super_blocks.capacity() * size_of::<SuperBlock>()
    }

    /// Reads the map of a release with super blocks. Nothing behind the flags is a map without blocks,
    /// which 2.51 to 2.59.1 write for a file that has become empty.
    pub(super) fn decode(mut bytes: &[u8], block_size: u64, checksum_size: usize) -> Result<Self> {
        let bytes = &mut bytes;
        if take(bytes)? & 1 != 0 {
            return Err(Error::format("block map version must be zero"));
        }
        let mut map = Self::new(checksum_size);
        let mut known = Known::default();
        let mut previous = 0;
        let mut ended = bytes.is_empty();
        while !ended {
            let head = take(bytes)?;
            ended = head & LAST != 0;
            map.decode_group(bytes, head, &mut known, &mut previous, block_size)?;
        }
        Ok(map)
    }

    /// Reads what follows the `head` of a reference: consecutive blocks of one backup.
    fn decode_group(
        &mut self,
        bytes: &mut &[u8],
        head: u64,
        known: &mut Known,
        previous: &mut u64,
        block_size: u64,
    ) -> Result<()> {
        let reference = u32::try_from(head >> REFERENCE_SHIFT).map_err(|_| out_of_range())?;
        let (state, is_new) = known.find(reference, block_size);
        let mut continues = false;
        // Where the next super block begins.
        let mut offset;
        if is_new {
            state.super_block.bundle_id = take_with(bytes, head, BUNDLE_ID)?;
            offset = take_with(bytes, head, OFFSET)?;
        } else if head & CONTINUE != 0 {
            continues = true;
            offset = state.super_block.offset;
        } else {
            let gap = take_with(bytes, head, OFFSET)?;
            offset = sum(sum(state.super_block.offset, state.super_block.stored)?, gap)?;
        }
        loop {
            let flags = if std::mem::take(&mut continues) {
                TOTAL_OFFSET | if head & CONTINUE_LAST == 0 { 0 } else { LAST }
            } else {
                let head = take(bytes)?;
                let stored = head >> SUPER_BLOCK_SHIFT;
                state.super_block.stored =
                    if *previous == 0 { stored } else { differing(*previous, unzigzag(stored))? };
                if head & SIZE_CHANGE != 0 {
                    let size = take(bytes)?;
                    let whole = (size >> 1).checked_mul(block_size).ok_or_else(out_of_range)?;
                    state.super_block.size = sum(whole, take_with(bytes, size, REMAINDER)?)?;
                }
                state.super_block.offset = offset;
                state.block = 0;
                head
            };
            *previous = state.super_block.stored;
            let total = if flags & TOTAL_OFFSET == 0 {
                state.super_block.size.div_ceil(block_size)
            } else {
                let total = take(bytes)?;
                state.block = sum(state.block, take_with(bytes, total, BLOCK_OFFSET)?)?;
                (total >> 1) + 1
            };
            let within = self.push_super_block(state.super_block);
            let total = usize::try_from(total).ok().filter(|total| *total > 0).ok_or_else(out_of_range)?;
            let length = total.checked_mul(self.checksum_size).ok_or_else(out_of_range)?;
            let (checksums, rest) = bytes.split_at_checked(length).ok_or_else(ends_early)?;
            *bytes = rest;
            for checksum in checksums.chunks_exact(self.checksum_size) {
                self.push(within, u32::try_from(state.block).map_err(|_| out_of_range())?, checksum)?;
                state.block += 1;
            }
            offset = sum(offset, state.super_block.stored)?;
            if flags & LAST != 0 {
                return Ok(());
            }
        }
    }

    /// Writes the map for a release with super blocks.
    pub(super) fn encode(&self, block_size: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.checksums.len() + self.checksums.len() / 4 + 64);
        varint::push(&mut bytes, 0);
        let mut known = Known::default();
        let mut previous = 0;
        let mut start = 0;
        while let Some((first, _)) = self.place(start) {
            let end = self.run(start, self.len(), |other| other.reference == first.reference);
            let last = if end == self.len() { LAST } else { 0 };
            let head = u64::from(first.reference) << REFERENCE_SHIFT | last;
            let (state, is_new) = known.find(first.reference, block_size);
            let mut continued = None;
            if is_new {
                push_with(&mut bytes, head, &[(BUNDLE_ID, first.bundle_id), (OFFSET, first.offset)]);
            } else if first.offset == state.super_block.offset {
                // Written once it is known whether the super block is the last of the group.
                continued = Some(head | CONTINUE);
            } else {
                let behind = sum(state.super_block.offset, state.super_block.stored)?;
                let gap = first.offset.checked_sub(behind).ok_or_else(out_of_order)?;
                push_with(&mut bytes, head, &[(OFFSET, gap)]);
            }
            self.encode_group(&mut bytes, start..end, continued, state, &mut previous, block_size)?;
            start = end;
        }
        Ok(bytes)
    }

    /// Writes the super blocks of consecutive blocks of one backup.
    fn encode_group(
        &self,
        bytes: &mut Vec<u8>,
        group: std::ops::Range<usize>,
        mut continued: Option<u64>,
        state: &mut Reference,
        previous: &mut u64,
        block_size: u64,
    ) -> Result<()> {
        let mut start = group.start;
        while start < group.end {
            let Some((super_block, number)) = self.place(start) else { return Ok(()) };
            let end = self.run(start, group.end, |other| other.offset == super_block.offset);
            let total = (end - start) as u64;
            let last = if end == group.end { LAST } else { 0 };
            let is_part = continued.is_some() || number != 0 || total != super_block.size.div_ceil(block_size);
            let flags = last | if is_part { TOTAL_OFFSET } else { 0 };
            if let Some(head) = continued.take() {
                varint::push(bytes, head | if last == 0 { 0 } else { CONTINUE_LAST });
            } else {
                let stored = match *previous {
                    0 => super_block.stored,
                    previous => zigzag(super_block.stored.cast_signed().wrapping_sub(previous.cast_signed())),
                };
                let changed = super_block.size != state.super_block.size;
                varint::push(bytes, stored << SUPER_BLOCK_SHIFT | flags | if changed { SIZE_CHANGE } else { 0 });
                if changed {
                    let remainder = super_block.size % block_size;
                    push_with(bytes, (super_block.size / block_size) << 1, &[(REMAINDER, remainder)]);
                }
                *state = Reference { super_block: *super_block, block: 0 };
            }
            *previous = super_block.stored;
            let number = u64::from(number);
            if is_part {
                let skipped = number.checked_sub(state.block).ok_or_else(out_of_order)?;
                push_with(bytes, (total - 1) << 1, &[(BLOCK_OFFSET, skipped)]);
                state.block = number;
            }
            state.block += total;
            bytes.extend_from_slice(self.checksums_of(start..end));
            start = end;
        }
        Ok(())
    }

    /// Reads a map of 2.44.
    pub(super) fn decode_single(mut bytes: &[u8], block_size: u64, checksum_size: usize) -> Result<Self> {
        let bytes = &mut bytes;
        let mut map = Self::new(checksum_size);
        let mut known = Known::default();
        let mut previous = 0;
        loop {
            let head = take(bytes)?;
            let Some(reference) = head.checked_sub(1) else { return Ok(map) };
            let reference = u32::try_from(reference).map_err(|_| out_of_range())?;
            let (state, is_new) = known.find(reference, block_size);
            let super_block = &mut state.super_block;
            if is_new {
                super_block.bundle_id = take(bytes)?;
            }
            super_block.offset = sum(super_block.offset, take(bytes)?)?;
            loop {
                let stored = take(bytes)?;
                let Some(difference) = stored.checked_sub(1) else { break };
                super_block.stored = if previous == 0 { stored } else { differing(previous, unzigzag(difference))? };
                previous = super_block.stored;
                let (checksum, rest) = bytes.split_at_checked(checksum_size).ok_or_else(ends_early)?;
                *bytes = rest;
                let within = map.push_super_block(*super_block);
                map.push(within, 0, checksum)?;
                super_block.offset = sum(super_block.offset, super_block.stored)?;
            }
        }
    }

    /// Writes the map for 2.44.
    pub(super) fn encode_single(&self, block_size: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.checksums.len() + self.checksums.len() / 4 + 64);
        let mut known = Known::default();
        let mut previous = 0;
        let mut start = 0;
        while let Some((first, _)) = self.place(start) {
            let end = self.run(start, self.len(), |other| other.reference == first.reference);
            varint::push(&mut bytes, u64::from(first.reference) + 1);
            let (state, is_new) = known.find(first.reference, block_size);
            if is_new {
                varint::push(&mut bytes, first.bundle_id);
            }
            let gap = first.offset.checked_sub(state.super_block.offset).ok_or_else(out_of_order)?;
            varint::push(&mut bytes, gap);
            for index in start..end {
                let Some((block, _)) = self.place(index) else { break };
                varint::push(
                    &mut bytes,
                    match previous {
                        0 => block.stored,
                        previous => sum(zigzag(block.stored.cast_signed().wrapping_sub(previous)), 1)?,
                    },
                );
                previous = block.stored.cast_signed();
                state.super_block.offset = sum(block.offset, block.stored)?;
                bytes.extend_from_slice(self.checksums_of(index..index + 1));
            }
            varint::push(&mut bytes, 0);
            start = end;
        }
        varint::push(&mut bytes, 0);
        Ok(bytes)
    }

    /// The super block of a block, and its number in that.
    fn place(&self, index: usize) -> Option<(&SuperBlock, u32)> {
        let place = self.places.get(index)?;
        Some((self.super_blocks.get(place.within as usize)?, place.number))
    }

    /// Where the run of blocks ends that begins at `start` and whose super blocks are alike.
    fn run(&self, start: usize, end: usize, is_alike: impl Fn(&SuperBlock) -> bool) -> usize {
        let differs = |index: &usize| !self.place(*index).is_some_and(|(other, _)| is_alike(other));
        (start + 1..end).find(differs).unwrap_or(end)
    }

    fn checksums_of(&self, blocks: std::ops::Range<usize>) -> &[u8] {
        let range = blocks.start * self.checksum_size..blocks.end * self.checksum_size;
        self.checksums.get(range).unwrap_or_default()
    }
}

/// What reader and writer remember of a backup that was referred to.
struct Reference {
    /// Its last super block.
    super_block: SuperBlock,
    /// How many blocks of that are done with.
    block: u64,
}

/// The backups that were referred to.
#[derive(Default)]
struct Known(std::collections::HashMap<u32, Reference>);

impl Known {
    /// What is remembered of `reference`, and whether it is new.
    fn find(&mut self, reference: u32, block_size: u64) -> (&mut Reference, bool) {
        use std::collections::hash_map::Entry;
        match self.0.entry(reference) {
            Entry::Occupied(entry) => (entry.into_mut(), false),
            Entry::Vacant(entry) => {
                let super_block = SuperBlock { reference, bundle_id: 0, offset: 0, stored: 0, size: block_size };
                (entry.insert(Reference { super_block, block: 0 }), true)
            }
        }
    }
}

/// Writes `head` with the flags of those numbers that are not 0, and then these.
fn push_with(bytes: &mut Vec<u8>, head: u64, numbers: &[(u64, u64)]) {
    let present = numbers.iter().filter(|(_, number)| *number != 0);
    varint::push(bytes, present.clone().fold(head, |head, (flag, _)| head | flag));
    present.for_each(|(_, number)| varint::push(bytes, *number));
}

/// Takes the number that is there if `head` has its `flag`, and otherwise 0.
fn take_with(bytes: &mut &[u8], head: u64, flag: u64) -> Result<u64> {
    if head & flag == 0 { Ok(0) } else { take(bytes) }
}

/// Offsets and sizes are those of files, so their sums fit into a signed number.
fn sum(one: u64, other: u64) -> Result<u64> {
    one.checked_add(other).filter(|sum| i64::try_from(*sum).is_ok()).ok_or_else(out_of_range)
}

fn differing(from: u64, by: i64) -> Result<u64> {
    from.checked_add_signed(by).filter(|size| i64::try_from(*size).is_ok()).ok_or_else(out_of_range)
}

fn out_of_range() -> Error {
    Error::format("number in block map is out of range")
}

fn out_of_order() -> Error {
    Error::format("block map has blocks out of order")
}

#[cfg(test)]
pub(super) mod tests;
