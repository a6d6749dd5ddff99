//! LZ4 frames.
//!
//! The C library's levels matter, so it does the work; but its binding only offers a `Write` and a
//! `Read` around other ones. Both are turned inside out here: the encoder writes into a buffer
//! that the filter then empties, the decoder reads from a buffer that the filter fills before, and
//! that says "would block" when it has no more, which the decoder passes on without losing
//! anything.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};

use lz4::liblz4::BlockChecksum;
use lz4::{BlockMode, BlockSize, ContentChecksum, Decoder, Encoder, EncoderBuilder};

use super::simple::copy;
use super::{STEP, Step, Transform, check_level, no_memory, unexpected_end};
use crate::protocol::error::{Code, Error, Result};

/// Bytes of a block, each of which is compressed by itself. The original has linked blocks of 64 KiB, which any
/// reader takes as well: to link one, the library copies the one before and then looks in two places for
/// what repeats, a fifth of its time. Four times the size makes good what a block cannot refer to: by these
/// blocks tables take 1.4 % more, programs 0.5 % more, WAL 4 % less.
const BLOCK: usize = 4 * STEP;
/// More than the encoder writes at once: the block that it holds and the one that it is given,
/// neither of them compressible, with their headers.
const ENCODED: usize = 2 * BLOCK + 64;

/// Compresses into one frame of independent blocks, with a content checksum unless raw.
pub(super) struct Compress {
    builder: EncoderBuilder,
    state: Encoding,
}

/// What the encoder is doing.
enum Encoding {
    /// Takes input.
    Open(Encoder<Queue>),
    /// Has put the end of the frame into the queue.
    Closed(Queue),
}

impl Compress {
    pub(super) fn new(level: i32, raw: bool) -> Result<Self> {
        check_level("lz4-cmp", level, -5, 12)?;
        let mut builder = EncoderBuilder::new();
        builder
            .block_size(BlockSize::Max256KB)
            .block_mode(BlockMode::Independent)
            .block_checksum(BlockChecksum::NoBlockChecksum)
            .checksum(if raw { ContentChecksum::NoChecksum } else { ContentChecksum::ChecksumEnabled })
            // A signed number for the library, whatever the binding calls it.
            .level(level.cast_unsigned());
        let mut compress = Self { builder, state: Encoding::Closed(Queue::with_capacity(ENCODED)) };
        compress.restart()?;
        Ok(compress)
    }

    /// Moves compressed bytes from the queue to `output`.
    fn drain(&mut self, output: &mut [u8]) -> usize {
        match &mut self.state {
            Encoding::Open(encoder) => encoder.writer().pop(output),
            Encoding::Closed(queue) => queue.pop(output),
        }
    }

    fn is_drained(&self) -> bool {
        match &self.state {
            Encoding::Open(encoder) => encoder.writer().is_empty(),
            Encoding::Closed(queue) => queue.is_empty(),
        }
    }
}

impl Transform for Compress {
    fn step(&mut self, input: &[u8], ended: bool, output: &mut [u8]) -> Result<Step> {
        let mut step = Step { produced: self.drain(output), ..Step::default() };
        if !self.is_drained() {
            return Ok(step);
        }
        if let Encoding::Open(encoder) = &mut self.state {
            // Nothing waits, so the queue takes what one write of this size can make of it.
            let chunk = &input[..input.len().min(BLOCK)];
            if !chunk.is_empty() {
                encoder.write_all(chunk).map_err(|error| describe("lz4-cmp", &error))?;
                step.consumed = chunk.len();
            }
            if ended && step.consumed == input.len() {
                let closed = Encoding::Closed(Queue::default());
                let Encoding::Open(encoder) = std::mem::replace(&mut self.state, closed) else {
                    return Ok(step);
                };
                let (queue, result) = encoder.finish();
                result.map_err(|error| describe("lz4-cmp", &error))?;
                self.state = Encoding::Closed(queue);
            }
        }
        step.produced += self.drain(&mut output[step.produced..]);
        step.done = matches!(&self.state, Encoding::Closed(queue) if queue.is_empty());
        Ok(step)
    }

    fn piece(&self) -> usize {
        BLOCK
    }

    fn memory(&self) -> usize {
        // a block that is not complete, and what two blocks become, in the binding and in the queue; the
        // library's tables are less than another one
        6 * BLOCK
    }

    fn restart(&mut self) -> Result<()> {
        // The binding does not begin a second frame: a new encoder goes on with the queue of the last.
        if let Encoding::Closed(queue) = &mut self.state {
            let encoder = self.builder.build(std::mem::take(queue)).map_err(|error| describe("lz4-cmp", &error))?;
            self.state = Encoding::Open(encoder);
        }
        Ok(())
    }
}

/// Frames that one step ends, because each costs a new decoder, however short it is.
const FRAMES: u32 = 16;

/// Decompresses frames, one after the other.
///
/// Skippable frames of less than three bytes are the one thing that the binding cannot read; no
/// writer of repositories makes them.
pub(super) struct Decompress {
    state: State,
    /// The input so far ends with a complete frame. False at first: no frame is not a file either.
    complete: bool,
}

/// What the decoder is doing.
enum State {
    /// Between frames.
    Idle(Queue),
    /// Within a frame. Boxed because the decoder is the larger by far.
    Frame(Decoder<Queue>),
}

impl Decompress {
    pub(super) fn new() -> Self {
        Self { state: State::Idle(Queue::with_capacity(STEP)), complete: false }
    }

    /// Opens the next frame.
    fn open(&mut self) -> Result<()> {
        if let State::Idle(queue) = &mut self.state {
            let queue = std::mem::take(queue);
            let decoder = Decoder::new(queue).map_err(|error| describe("lz4-dcmp", &error))?;
            self.state = State::Frame(decoder);
            self.complete = false;
        }
        Ok(())
    }

    /// Closes the frame, whose decoder says that nothing more comes.
    fn close(&mut self) -> Result<()> {
        if let State::Frame(decoder) = std::mem::replace(&mut self.state, State::Idle(Queue::default())) {
            let (queue, result) = decoder.finish();
            self.state = State::Idle(queue);
            // The only reason is that the frame's end has not been seen.
            result.map_err(|_| unexpected_end())?;
            self.complete = true;
        }
        Ok(())
    }

    fn queue(&self) -> &Queue {
        match &self.state {
            State::Idle(queue) => queue,
            State::Frame(decoder) => decoder.reader(),
        }
    }
}

impl Transform for Decompress {
    fn step(&mut self, input: &[u8], ended: bool, output: &mut [u8]) -> Result<Step> {
        let mut step = Step::default();
        let mut frames = 0;
        loop {
            if self.queue().is_empty() {
                step.consumed += self.queue().fill(&input[step.consumed..]);
            }
            let last = ended && step.consumed == input.len();
            let empty = self.queue().is_empty();
            if empty && matches!(self.state, State::Idle(_)) {
                if last && !self.complete {
                    return Err(unexpected_end());
                }
                step.done = last;
                return Ok(step);
            }
            if step.produced == output.len() {
                return Ok(step);
            }
            self.queue().end(last);
            self.open()?;
            let State::Frame(decoder) = &mut self.state else { return Ok(step) };
            match decoder.read(&mut output[step.produced..]) {
                Ok(0) => {
                    self.close()?;
                    frames += 1;
                    if frames == FRAMES {
                        step.more = true;
                        return Ok(step);
                    }
                }
                Ok(length) => step.produced += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if step.consumed == input.len() {
                        return Ok(step);
                    }
                }
                Err(error) => return Err(describe("lz4-dcmp", &error)),
            }
        }
    }

    fn memory(&self) -> usize {
        // blocks of a frame have up to 4 MiB
        9 << 20
    }
}

/// Bytes between the filter and the binding, which shows its reader or writer only unchangeable.
#[derive(Default)]
pub(super) struct Queue(RefCell<Contents>);

#[derive(Default)]
struct Contents {
    bytes: Vec<u8>,
    /// Bytes at the front that are gone already.
    taken: usize,
    /// A reader sees the end behind the bytes, not a wait.
    ended: bool,
}

impl Queue {
    fn with_capacity(capacity: usize) -> Self {
        let contents = Contents { bytes: Vec::with_capacity(capacity), ..Contents::default() };
        Self(RefCell::new(contents))
    }

    fn is_empty(&self) -> bool {
        let contents = self.0.borrow();
        contents.taken == contents.bytes.len()
    }

    /// Copies as many bytes as fit from the front, and tells how many.
    fn pop(&self, output: &mut [u8]) -> usize {
        self.0.borrow_mut().pop(output)
    }

    /// Puts bytes into the empty queue, as many as it holds, and tells how many.
    fn fill(&self, input: &[u8]) -> usize {
        let mut contents = self.0.borrow_mut();
        let length = input.len().min(STEP);
        contents.bytes.extend_from_slice(&input[..length]);
        length
    }

    /// Says whether more bytes will come.
    fn end(&self, ended: bool) {
        self.0.borrow_mut().ended = ended;
    }
}

impl Contents {
    fn pop(&mut self, output: &mut [u8]) -> usize {
        let length = copy(&self.bytes[self.taken..], output);
        self.taken += length;
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            self.taken = 0;
        }
        length
    }
}

impl Write for Queue {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.get_mut().bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Queue {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let contents = self.0.get_mut();
        let length = contents.pop(output);
        if length == 0 && !contents.ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(length)
    }
}

/// The names that the library gives its errors, by their negated number.
const ERROR_NAMES: [&str; 24] = [
    "OK_NoError",
    "ERROR_GENERIC",
    "ERROR_maxBlockSize_invalid",
    "ERROR_blockMode_invalid",
    "ERROR_parameter_invalid",
    "ERROR_compressionLevel_invalid",
    "ERROR_headerVersion_wrong",
    "ERROR_blockChecksum_invalid",
    "ERROR_reservedFlag_set",
    "ERROR_allocation_failed",
    "ERROR_srcSize_tooLarge",
    "ERROR_dstMaxSize_tooSmall",
    "ERROR_frameHeader_incomplete",
    "ERROR_frameType_unknown",
    "ERROR_frameSize_wrong",
    "ERROR_srcPtr_wrong",
    "ERROR_decompressionFailed",
    "ERROR_headerChecksum_invalid",
    "ERROR_contentChecksum_invalid",
    "ERROR_frameDecoding_alreadyStarted",
    "ERROR_compressionState_uninitialized",
    "ERROR_parameter_null",
    "ERROR_io_write",
    "ERROR_io_read",
];

/// The original's words, with the number that the binding drops from the library's error.
fn describe(filter: &str, error: &io::Error) -> Error {
    let text = error.to_string();
    let name = text.strip_prefix("LZ4 error: ").unwrap_or(&text);
    match ERROR_NAMES.iter().position(|known| *known == name) {
        Some(9) => no_memory(filter),
        Some(number) => Error::new(Code::Format, format!("lz4 error: [-{number}] {name}")),
        None => Error::new(Code::Format, format!("lz4 error: {name}")),
    }
}
