//! LZ4 on the way to a client: frames whose blocks are compressed or only stored.
//!
//! A client asks for it where what it reads is not compressed in the repository, and undoes it at once. So any
//! frame will do, and one of stored blocks costs next to nothing where the network is not what holds the
//! transfer back. Whoever opens the file decides by its [`Link`]; a frame may hold blocks of both kinds.
//!
//! The binding's encoder of frames stores no block that can be compressed, so that the frame is made here, of seven
//! bytes and of a length before each block: <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>.

use std::cell::Cell;
use std::rc::Rc;

use lz4::block::{CompressionMode, compress_bound, compress_to_buffer};

use super::simple::copy;
use super::{STEP, Step, Transform, check_level};
use crate::protocol::error::{Code, Error, Result};

/// Magic number; version 1 with independent blocks and without checksums; blocks of 256 KiB at most; checksum of both.
const HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x50, 0xfb];
/// The most that a block holds, in bytes.
pub(crate) const BLOCK: usize = 4 * STEP;
/// The most that stands before a block's data, in bytes.
pub(crate) const OVERHEAD: usize = HEADER.len() + LENGTH;
/// What a block's length has that is only stored.
const STORED: u32 = 1 << 31;
/// Bytes of a block's length.
const LENGTH: usize = 4;
/// The level from which on the library looks for what repeats more thoroughly.
const THOROUGH: i32 = 2;

/// How files go to one client, and how much went.
#[derive(Debug, Default)]
pub(crate) struct Link {
    compresses: Cell<bool>,
    taken: Cell<u64>,
    sent: Cell<u64>,
}

impl Link {
    /// A way on which blocks are compressed, or stored at first.
    pub(crate) fn new(compresses: bool) -> Self {
        Self { compresses: Cell::new(compresses), ..Self::default() }
    }

    /// Whether blocks are compressed.
    pub(crate) fn compresses(&self) -> bool {
        self.compresses.get()
    }

    /// Has the blocks that follow be compressed, or stored.
    pub(crate) fn set_compresses(&self, compresses: bool) {
        self.compresses.set(compresses);
    }

    /// Bytes of files that were put into frames, as they were before.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.get()
    }

    /// Bytes of blocks that came of them, compressed or not.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// So many bytes more were taken, and became so many.
    pub(crate) fn note(&self, taken: u64, sent: u64) {
        self.taken.set(self.taken.get() + taken);
        self.sent.set(self.sent.get() + sent);
    }
}

/// Makes one frame of independent blocks without a checksum.
pub(super) struct Compress {
    link: Rc<Link>,
    mode: CompressionMode,
    /// What waits to be put out: the header, a block that is compressed, or the end.
    queue: Vec<u8>,
    /// Bytes of it that are out.
    sent: usize,
    /// The end of the frame is in the queue.
    closed: bool,
}

impl Compress {
    pub(super) fn new(level: i32, link: &Rc<Link>) -> Result<Self> {
        check_level("lz4-cmp", level, -5, 12)?;
        // as the library maps levels where it makes the frame
        let mode = match level {
            THOROUGH.. => CompressionMode::HIGHCOMPRESSION(level),
            0..THOROUGH => CompressionMode::FAST(1),
            _ => CompressionMode::FAST(1 - level),
        };
        Ok(Self { link: Rc::clone(link), mode, queue: HEADER.to_vec(), sent: 0, closed: false })
    }

    /// Whether data may be put into the frame as they are, and before anything else.
    pub(super) fn stores(&self) -> bool {
        !self.link.compresses() && !self.closed && (self.is_drained() || self.sent == 0 && self.queue == HEADER)
    }

    /// Appends what stands before data that are stored.
    pub(super) fn begin_stored(&mut self, output: &mut Vec<u8>) {
        output.extend_from_slice(&self.queue[self.sent..]);
        self.sent = self.queue.len();
        output.extend_from_slice(&[0; LENGTH]);
    }

    /// Tells the length of the data before which [`Compress::begin_stored`] appended something, and which begin at `at`.
    pub(super) fn end_stored(&self, output: &mut Vec<u8>, at: usize) {
        let length = output.len() - at;
        if length == 0 {
            // this would be the end of the frame
            output.truncate(at - LENGTH);
        } else {
            output[at - LENGTH..at].copy_from_slice(&head(length, STORED));
        }
        self.link.note(length as u64, length as u64);
    }

    fn is_drained(&self) -> bool {
        self.sent == self.queue.len()
    }

    /// Moves bytes from the queue to `output`.
    fn drain(&mut self, output: &mut [u8]) -> usize {
        let length = copy(&self.queue[self.sent..], output);
        self.sent += length;
        length
    }

    /// Puts a block into the empty queue, stored where compressing it gains nothing.
    fn compress(&mut self, data: &[u8]) -> Result<()> {
        let bound = compress_bound(data.len()).map_err(|error| failed(&error))?;
        self.queue.resize(LENGTH + bound, 0);
        self.sent = 0;
        let length = compress_to_buffer(data, Some(self.mode), false, &mut self.queue[LENGTH..])
            .map_err(|error| failed(&error))?;
        let head = if length < data.len() {
            self.queue.truncate(LENGTH + length);
            head(length, 0)
        } else {
            self.queue.truncate(LENGTH);
            self.queue.extend_from_slice(data);
            head(data.len(), STORED)
        };
        self.queue[..LENGTH].copy_from_slice(&head);
        Ok(())
    }
}

/// The length before a block.
fn head(length: usize, kind: u32) -> [u8; LENGTH] {
    // a block has 256 KiB at most
    (u32::try_from(length).unwrap_or(0) | kind).to_le_bytes()
}

fn failed(error: &std::io::Error) -> Error {
    Error::new(Code::Format, format!("lz4 error: {error}"))
}

/// Puts as much of `data` as fits into `output` as one stored block. How much that is, and how long the block is.
fn store(data: &[u8], output: &mut [u8]) -> (usize, usize) {
    let Some((length, room)) = output.split_at_mut_checked(LENGTH) else { return (0, 0) };
    let stored = copy(data, room);
    if stored == 0 {
        return (0, 0);
    }
    length.copy_from_slice(&head(stored, STORED));
    (stored, LENGTH + stored)
}

impl Transform for Compress {
    fn step(&mut self, input: &[u8], ended: bool, output: &mut [u8]) -> Result<Step> {
        let mut step = Step { produced: self.drain(output), ..Step::default() };
        if !self.is_drained() {
            return Ok(step);
        }
        if !input.is_empty() && !self.closed {
            if self.link.compresses() {
                step.consumed = input.len().min(BLOCK);
                self.compress(&input[..step.consumed])?;
                self.link.note(step.consumed as u64, self.queue.len() as u64);
            } else {
                let (consumed, produced) = store(input, &mut output[step.produced..]);
                step.consumed = consumed;
                step.produced += produced;
                self.link.note(consumed as u64, consumed as u64);
            }
        }
        if ended && step.consumed == input.len() && !self.closed {
            if self.is_drained() {
                self.queue.clear();
                self.sent = 0;
            }
            self.queue.extend_from_slice(&[0; LENGTH]);
            self.closed = true;
        }
        step.produced += self.drain(&mut output[step.produced..]);
        step.done = self.closed && self.is_drained();
        Ok(step)
    }

    fn frame(&mut self) -> Option<&mut Compress> {
        Some(self)
    }

    fn piece(&self) -> usize {
        BLOCK
    }

    fn memory(&self) -> usize {
        // a block that is compressed, and the library's table
        let table = if matches!(self.mode, CompressionMode::HIGHCOMPRESSION(_)) { BLOCK } else { 0 };
        BLOCK + STEP + table
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::sample;
    use super::super::{Chain, Contexts, Progress};
    use super::*;
    use crate::protocol::filter::FilterSpec;

    fn chain(link: &Rc<Link>, level: i32) -> Chain {
        let specs = vec![FilterSpec::Size, FilterSpec::Lz4Compress { level, raw: true }];
        Chain::over(link, &Rc::<Contexts>::default(), specs).unwrap()
    }

    /// Ends a frame.
    fn finish(chain: &mut Chain, frame: &mut Vec<u8>) {
        while chain.process(&mut &[][..], true, frame, usize::MAX, usize::MAX).unwrap() != Progress::Finished {}
    }

    fn undo(frame: &[u8]) -> Vec<u8> {
        let mut chain = Chain::new(vec![FilterSpec::Lz4Decompress]).unwrap();
        let (mut input, mut data) = (frame, Vec::new());
        while chain.process(&mut input, true, &mut data, usize::MAX, usize::MAX).unwrap() != Progress::Finished {}
        data
    }

    proptest! {
        #[test]
        fn a_frame_of_blocks_of_both_kinds_is_what_was_put_into_it(
            pieces in prop::collection::vec((1..400_000_usize, 0..3_u8), 0..8),
            random in any::<bool>(),
            level in -5..=12_i32,
            room in 16..100_000_usize,
        ) {
            let link = Rc::new(Link::default());
            let mut chain = chain(&link, level);
            let (mut frame, mut expected) = (Vec::new(), Vec::new());
            for (length, way) in pieces {
                let mut piece = sample(length);
                if random {
                    let mut state = 1_u32;
                    for byte in &mut piece {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        *byte = state.to_le_bytes()[3];
                    }
                }
                expected.extend_from_slice(&piece);
                link.set_compresses(way == 0);
                if way == 1 && chain.stores() {
                    for part in piece.chunks(BLOCK) {
                        chain.begin_stored(&mut frame);
                        let at = frame.len();
                        frame.extend_from_slice(part);
                        // another file of the session may have changed that meanwhile
                        link.set_compresses(true);
                        chain.end_stored(&mut frame, at).unwrap();
                        link.set_compresses(false);
                    }
                    continue;
                }
                let mut input = piece.as_slice();
                loop {
                    let limit = frame.len() + room;
                    match chain.process(&mut input, false, &mut frame, limit, 1).unwrap() {
                        Progress::NeedsInput => break,
                        Progress::Budget | Progress::OutputFull => {}
                        Progress::Finished => unreachable!("more may come"),
                    }
                }
            }
            finish(&mut chain, &mut frame);
            prop_assert_eq!(link.taken(), expected.len() as u64);
            prop_assert_eq!(undo(&frame), expected);
        }
    }

    #[test]
    fn nothing_becomes_the_frame_that_the_library_makes_of_nothing() {
        let mut of_library = Vec::new();
        let mut encoder = lz4::EncoderBuilder::new()
            .block_size(lz4::BlockSize::Max256KB)
            .block_mode(lz4::BlockMode::Independent)
            .block_checksum(lz4::liblz4::BlockChecksum::NoBlockChecksum)
            .checksum(lz4::ContentChecksum::NoChecksum)
            .build(&mut of_library)
            .unwrap();
        std::io::Write::flush(&mut encoder).unwrap();
        encoder.finish().1.unwrap();
        let mut frame = Vec::new();
        finish(&mut chain(&Rc::default(), 1), &mut frame);
        assert_eq!(frame, of_library);
        let mut stored = Vec::new();
        let mut chain = chain(&Rc::default(), 1);
        chain.begin_stored(&mut stored);
        let at = stored.len();
        chain.end_stored(&mut stored, at).unwrap();
        finish(&mut chain, &mut stored);
        assert_eq!(stored, of_library, "a block of nothing would be the end");
    }

    #[test]
    fn what_does_not_compress_is_stored() {
        let link = Rc::new(Link::new(true));
        let mut chain = chain(&link, 1);
        let data: Vec<u8> =
            (0..100_000_u32).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let mut frame = Vec::new();
        let mut input = data.as_slice();
        chain.process(&mut input, false, &mut frame, usize::MAX, usize::MAX).unwrap();
        finish(&mut chain, &mut frame);
        assert!(frame.len() <= data.len() + OVERHEAD + LENGTH, "{} bytes", frame.len());
        assert_eq!(undo(&frame), data);
    }

    #[test]
    fn only_what_is_last_in_the_list_is_for_the_network() {
        let compress = FilterSpec::Lz4Compress { level: 1, raw: true };
        let link = Rc::new(Link::default());
        for specs in [vec![compress, FilterSpec::Size], vec![FilterSpec::Lz4Compress { level: 1, raw: false }]] {
            let mut chain = Chain::over(&link, &Rc::<Contexts>::default(), specs).unwrap();
            assert!(!chain.stores());
            let (mut frame, data) = (Vec::new(), vec![0; 100_000]);
            chain.process(&mut data.as_slice(), false, &mut frame, usize::MAX, usize::MAX).unwrap();
            finish(&mut chain, &mut frame);
            assert!(frame.len() < 10_000, "it is compressed");
        }
        assert_eq!(link.taken(), 0);
    }
}
