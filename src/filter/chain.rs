//! A list of filters at work: data in, data out, results at the end.
//!
//! Owns the order of the filters and the buffers between them. What the filters do is in the files
//! beside this one; reading and writing the data is the caller's.

use std::rc::Rc;

use super::block_checksum::Checksums;
use super::block_incremental::Blocks;
use super::cipher_block::{Decrypt as BlockDecrypt, Encrypt as BlockEncrypt};
use super::cipher_format::Decrypt as FormatDecrypt;
use super::hash::Hasher;
use super::network::{self, Link};
use super::page_checksum::{Pages, Suspect};
use super::simple::{Prefix, Sink};
use super::zst::Contexts;
use super::{STEP, Step, Transform, bz2, gz, lz4, zst};
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::filter::{CipherMode, FilterResult, FilterSpec};
use crate::protocol::string_id::StringId;

/// More filters than any client lists, and few enough that their buffers do no harm.
const MAXIMUM_FILTERS: usize = 32;

/// A list of filters at work on one stream of data.
///
/// Order of calls: either [`observe`](Self::observe) with all of the data, on a
/// [passive](Self::is_passive) chain; or [`process`](Self::process) until it says
/// [`Progress::Finished`]. Then [`results`](Self::results). Everything that the chain needs is
/// allocated by [`new`](Self::new), except what the libraries allocate at the first data, or at
/// the beginning of another LZ4 frame.
pub struct Chain {
    /// What looks at the data before the first transform.
    head: Vec<Observer>,
    stages: Vec<Stage>,
    /// Whether the results end with a pair that was not asked for.
    extra_buffer: bool,
    /// Whether something that looks at the data keeps more of them than a few bytes.
    collects: bool,
    /// The first failure, which every later call repeats.
    failed: Option<Error>,
}

/// Why [`Chain::process`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All input is used up, and all output there was is delivered.
    NeedsInput,
    /// There is more output than the limit allows.
    OutputFull,
    /// The budget is spent; there may be more to do with the same input.
    Budget,
    /// The data have ended, and all output is delivered.
    Finished,
}

impl Chain {
    /// A chain of the filters `specs`, in this order.
    ///
    /// # Errors
    ///
    /// Code 29 for a compression level out of range or for more than 32 filters; 94 or 95 when a
    /// library cannot set up its filter.
    pub fn new(specs: Vec<FilterSpec>) -> Result<Self> {
        Self::sharing(&Rc::default(), specs)
    }

    /// As [`Chain::new`], with compressors that use and keep `contexts`.
    pub(crate) fn sharing(contexts: &Rc<Contexts>, specs: Vec<FilterSpec>) -> Result<Self> {
        if specs.len() > MAXIMUM_FILTERS {
            return Err(Error::format(format!("a list of {} filters is longer than {MAXIMUM_FILTERS}", specs.len())));
        }
        // The original buffers the data itself when the last filter puts nothing out, and reports
        // that buffer as one more filter.
        let extra_buffer = specs.last().is_none_or(|last| {
            use FilterSpec::{BlockChecksum, Hash, PageChecksum, Size};
            matches!(last, Hash(_) | Size | PageChecksum(_) | BlockChecksum { .. })
        });
        let collects =
            specs.iter().any(|spec| matches!(spec, FilterSpec::PageChecksum(_) | FilterSpec::BlockChecksum { .. }));
        let mut chain = Self { head: Vec::new(), stages: Vec::new(), extra_buffer, collects, failed: None };
        for spec in specs {
            chain.add(spec, contexts)?;
        }
        Ok(chain)
    }

    /// As [`Chain::sharing`], of what a client reads over `link`. What a client compresses for its way is last in the
    /// list, and nothing that is to be stored like that is: behind its compression come its size and its hash.
    ///
    /// # Errors
    ///
    /// As [`Chain::new`].
    pub(crate) fn over(link: &Rc<Link>, contexts: &Rc<Contexts>, mut specs: Vec<FilterSpec>) -> Result<Self> {
        let Some(FilterSpec::Lz4Compress { level, .. }) =
            specs.pop_if(|last| matches!(last, FilterSpec::Lz4Compress { raw: true, .. }))
        else {
            return Self::sharing(contexts, specs);
        };
        let name = FilterSpec::Lz4Compress { level, raw: true }.name();
        let mut chain = Self { extra_buffer: false, ..Self::sharing(contexts, specs)? };
        chain.add_transform(name, Box::new(network::Compress::new(level, link)?));
        Ok(chain)
    }

    /// Whether no filter changes or swallows the data: they may then be observed where they are,
    /// without a copy.
    pub(crate) fn is_passive(&self) -> bool {
        self.stages.is_empty()
    }

    /// About how many bytes the filters and the buffers between them take now.
    pub(crate) fn memory(&self) -> usize {
        let stages: usize = self.stages.iter().map(|stage| STEP + stage.transform.memory()).sum();
        if self.collects { stages + self.observers().map(Observer::memory).sum::<usize>() } else { stages }
    }

    /// Shows `data`, the next piece of the stream, to the filters of a passive chain.
    ///
    /// # Errors
    ///
    /// Code 25 when the chain is not passive, which is a mistake of the caller; 29 when a filter finds
    /// more than it can report.
    pub fn observe(&mut self, data: &[u8]) -> Result<()> {
        if !self.is_passive() {
            return Err(Error::new(Code::Assert, "filters that change the data cannot only observe them"));
        }
        show(&mut self.head, data)
    }

    /// Whether all that is done to the data now is that they are put into a frame as they are. They may then be read into
    /// it between [`begin_stored`](Self::begin_stored) and [`end_stored`](Self::end_stored), without a copy.
    pub(crate) fn stores(&mut self) -> bool {
        self.frame().is_some_and(|frame| frame.stores())
    }

    /// Appends to `output` what stands before data that are stored; at most [`network::BLOCK`] bytes of them follow.
    pub(crate) fn begin_stored(&mut self, output: &mut Vec<u8>) {
        if let Some(frame) = self.frame() {
            frame.begin_stored(output);
        }
    }

    /// What is in `output` from `at` on is data that were put behind what [`begin_stored`](Self::begin_stored) appended.
    ///
    /// # Errors
    ///
    /// Code 29 when a filter finds more than it can report.
    pub(crate) fn end_stored(&mut self, output: &mut Vec<u8>, at: usize) -> Result<()> {
        show(&mut self.head, &output[at..])?;
        if let Some(frame) = self.frame() {
            frame.end_stored(output, at);
        }
        Ok(())
    }

    fn frame(&mut self) -> Option<&mut network::Compress> {
        match self.stages.as_mut_slice() {
            [only] if only.observers.is_empty() && only.waiting().is_empty() => only.transform.frame(),
            _ => None,
        }
    }

    /// A page of the file that looks wrong. The caller reads it once more, without filters, and tells
    /// [`settle`](Self::settle) what it is now. It may do so after every piece of the data, and until
    /// there are no more; a page that is never read again is reported as damaged.
    pub(crate) fn suspect(&self) -> Option<Suspect> {
        if self.collects { self.observers().find_map(Observer::suspect) } else { None }
    }

    /// Decides on the page that [`suspect`](Self::suspect) named, of which `again` was read now.
    pub(crate) fn settle(&mut self, again: &[u8]) {
        let behind = self.stages.iter_mut().flat_map(|stage| &mut stage.observers);
        if let Some(observer) = self.head.iter_mut().chain(behind).find(|observer| observer.suspect().is_some())
            && let View::Pages(pages) = &mut observer.view
        {
            pages.settle(again);
        }
    }

    /// Feeds the front of `input`, which moves past what was taken, and appends to `output`, up to
    /// a length of `limit` bytes in all. Comes back when about `budget` bytes have been taken in
    /// or put out by the filters, each of them counted; at least one piece of work is done in
    /// every call, and a piece is at most 64 KiB each way for each filter, 256 KiB into LZ4.
    ///
    /// `finish` says that no input follows `input`. Call again, with what is left of the input,
    /// until the answer is [`Progress::Finished`]; the filters put out their last bytes on the way.
    ///
    /// # Errors
    ///
    /// Code 29 for data that cannot be decompressed, or when a filter finds more than it can report; 95
    /// for data that cannot be decrypted; 94 when a library gets no memory. The chain is of no use
    /// then; further calls repeat the error.
    pub fn process(
        &mut self,
        input: &mut &[u8],
        finish: bool,
        output: &mut Vec<u8>,
        limit: usize,
        budget: usize,
    ) -> Result<Progress> {
        self.pump(input, finish, &mut Bounded { bytes: output, limit }, budget)
    }

    /// As [`process`](Self::process), with another place for the output.
    pub(super) fn pump(
        &mut self,
        input: &mut &[u8],
        finish: bool,
        target: &mut dyn Target,
        budget: usize,
    ) -> Result<Progress> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.run(input, finish, target, budget);
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    /// Makes a finished chain of compressors and ciphers ready for another stream.
    pub(super) fn restart(&mut self) -> Result<()> {
        for stage in &mut self.stages {
            stage.transform.restart()?;
            (stage.taken, stage.filled, stage.pending, stage.done) = (0, 0, false, false);
        }
        Ok(())
    }

    /// What the filters found, one entry for each of the list, in its order. Where the original
    /// adds a pair `buffer` without a result, so does this: after a list that is empty or ends
    /// with `hash` or `size`. Final once the data have ended.
    #[must_use]
    pub fn results(&self) -> Vec<(StringId, FilterResult)> {
        let mut results: Vec<_> = self.head.iter().map(Observer::result).collect();
        for stage in &self.stages {
            results.push((stage.name, stage.transform.result()));
            results.extend(stage.observers.iter().map(Observer::result));
        }
        if self.extra_buffer {
            results.push((FilterSpec::Buffer.name(), FilterResult::None));
        }
        results
    }

    fn add(&mut self, spec: FilterSpec, contexts: &Rc<Contexts>) -> Result<()> {
        let name = spec.name();
        let transform: Box<dyn Transform> = match spec {
            FilterSpec::Hash(digest) => return self.add_observer(name, View::Hash(Hasher::new(digest))),
            FilterSpec::Size => return self.add_observer(name, View::Size(0)),
            FilterSpec::Buffer => return self.add_observer(name, View::Nothing),
            FilterSpec::PageChecksum(spec) => return self.add_observer(name, View::Pages(Pages::new(spec))),
            FilterSpec::BlockChecksum { block_size, checksum_size } => {
                return self.add_observer(name, View::Blocks(Checksums::new(block_size, checksum_size)));
            }
            FilterSpec::BlockIncremental(spec) => Box::new(Blocks::new(*spec, contexts)?),
            FilterSpec::Sink => Box::new(Sink),
            FilterSpec::GzCompress { level, raw } => Box::new(gz::Compress::new(level, raw)?),
            FilterSpec::GzDecompress { raw } => Box::new(gz::Decompress::new(raw)),
            FilterSpec::Lz4Compress { level, raw } => Box::new(lz4::Compress::new(level, raw)?),
            FilterSpec::Lz4Decompress => Box::new(lz4::Decompress::new()),
            FilterSpec::ZstCompress { level } => Box::new(zst::Compress::new(level, Rc::clone(contexts))?),
            FilterSpec::ZstDecompress => Box::new(zst::Decompress::new()?),
            FilterSpec::Bz2Compress { level } => Box::new(bz2::Compress::new(level)?),
            FilterSpec::Bz2Decompress => Box::new(bz2::Decompress::new()),
            FilterSpec::CipherBlock { mode: CipherMode::Encrypt, pass, digest, magic } => {
                Box::new(BlockEncrypt::new(pass, digest, magic)?)
            }
            FilterSpec::CipherBlock { mode: CipherMode::Decrypt, pass, digest, magic } => {
                Box::new(BlockDecrypt::new(pass, digest, magic))
            }
            FilterSpec::CipherFormat { keys, expected } => Box::new(FormatDecrypt::new(keys, expected)),
            FilterSpec::CipherHeader(bytes) => Box::new(Prefix::new(bytes)),
        };
        self.add_transform(name, transform);
        Ok(())
    }

    fn add_transform(&mut self, name: StringId, transform: Box<dyn Transform>) {
        self.stages.push(Stage {
            name,
            transform,
            buffer: vec![0; STEP].into_boxed_slice(),
            taken: 0,
            filled: 0,
            pending: false,
            done: false,
            observers: Vec::new(),
        });
    }

    #[allow(clippy::unnecessary_wraps, reason = "lets `add` return what this returns")]
    fn add_observer(&mut self, name: StringId, view: View) -> Result<()> {
        let observers = self.stages.last_mut().map_or(&mut self.head, |stage| &mut stage.observers);
        observers.push(Observer { name, view });
        Ok(())
    }

    fn run(&mut self, input: &mut &[u8], finish: bool, target: &mut dyn Target, budget: usize) -> Result<Progress> {
        let mut spent = 0;
        loop {
            let mut moved = self.deliver(input, target)?;
            for index in (0..self.stages.len()).rev() {
                moved += self.advance(index, input, finish)?;
            }
            if self.is_finished(input, finish) {
                return Ok(Progress::Finished);
            }
            if moved == 0 {
                return self.stalled(input, finish, target.room() == 0);
            }
            spent += moved;
            if spent >= budget {
                return Ok(Progress::Budget);
            }
        }
    }

    /// Moves what the last filter has put out to `target`, and tells how much that was.
    fn deliver(&mut self, input: &mut &[u8], target: &mut dyn Target) -> Result<usize> {
        let room = target.room();
        if let Some(last) = self.stages.last_mut() {
            let waiting = last.waiting();
            let length = waiting.len().min(room);
            target.put(&waiting[..length]);
            last.taken += length;
            return Ok(length);
        }
        let (data, rest) = input.split_at(input.len().min(room).min(STEP));
        show(&mut self.head, data)?;
        target.put(data);
        *input = rest;
        Ok(data.len())
    }

    /// Makes a step of the transform at `index`, if it has anything to do and an empty buffer to
    /// do it in; tells how many bytes it moved, and one more if
    /// it is done now or asks for another step.
    fn advance(&mut self, index: usize, input: &mut &[u8], finish: bool) -> Result<usize> {
        let (before, rest) = self.stages.split_at_mut(index);
        let Some(stage) = rest.first_mut() else { return Ok(0) };
        let Some(previous) = before.last_mut() else {
            let length = input.len().min(stage.transform.piece());
            let (consumed, moved) = stage.advance(&input[..length], finish && length == input.len())?;
            show(&mut self.head, &input[..consumed])?;
            *input = &input[consumed..];
            return Ok(moved);
        };
        let (consumed, moved) = stage.advance(previous.waiting(), previous.done)?;
        previous.taken += consumed;
        Ok(moved)
    }

    fn observers(&self) -> impl Iterator<Item = &Observer> {
        self.head.iter().chain(self.stages.iter().flat_map(|stage| &stage.observers))
    }

    fn is_finished(&self, input: &[u8], finish: bool) -> bool {
        finish && input.is_empty() && self.stages.iter().all(|stage| stage.done && stage.waiting().is_empty())
    }

    /// Why nothing moves.
    fn stalled(&self, input: &[u8], finish: bool, full: bool) -> Result<Progress> {
        let waiting = self.stages.last().map_or(input, Stage::waiting);
        if full && !waiting.is_empty() {
            return Ok(Progress::OutputFull);
        }
        if input.is_empty() && !finish {
            return Ok(Progress::NeedsInput);
        }
        // A caller would call again and again otherwise.
        Err(Error::new(Code::Assert, "filters do not take their input"))
    }
}

impl std::fmt::Debug for Chain {
    /// The filters' names: nothing of their parameters, which may be secret, or of the data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.results().iter().map(|(name, _)| *name)).finish()
    }
}

/// Where the output of a chain goes.
pub(super) trait Target {
    /// How many bytes it takes now.
    fn room(&self) -> usize;
    /// Takes bytes, not more than there is room for.
    fn put(&mut self, data: &[u8]);
}

/// A list of bytes that grows to a limit.
struct Bounded<'a> {
    bytes: &'a mut Vec<u8>,
    limit: usize,
}

impl Target for Bounded<'_> {
    fn room(&self) -> usize {
        self.limit.saturating_sub(self.bytes.len())
    }

    fn put(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
    }
}

/// A transform with the buffer that it writes to and what looks at its output.
struct Stage {
    name: StringId,
    transform: Box<dyn Transform>,
    buffer: Box<[u8]>,
    /// Bytes at the front of the buffer that are gone already.
    taken: usize,
    /// Bytes of the buffer that the last step wrote.
    filled: usize,
    /// There may be more output without more input, for instance because the buffer was full.
    pending: bool,
    done: bool,
    observers: Vec<Observer>,
}

impl Stage {
    fn waiting(&self) -> &[u8] {
        &self.buffer[self.taken..self.filled]
    }

    /// A step on `input`: bytes taken from it, and bytes moved in all as [`Chain::advance`] counts.
    fn advance(&mut self, input: &[u8], ended: bool) -> Result<(usize, usize)> {
        if self.done {
            // Data behind the end of a compressed stream.
            return Ok((input.len(), input.len()));
        }
        if !self.waiting().is_empty() || (input.is_empty() && !ended && !self.pending) {
            return Ok((0, 0));
        }
        let Step { consumed, produced, more, done, effort } = self.transform.step(input, ended, &mut self.buffer)?;
        debug_assert!(consumed <= input.len() && produced <= self.buffer.len(), "a filter counts what it moves");
        self.taken = 0;
        self.filled = produced;
        self.pending = more || produced == self.buffer.len();
        self.done = done;
        show(&mut self.observers, &self.buffer[..produced])?;
        Ok((consumed, consumed + produced + effort + usize::from(more || done)))
    }
}

/// A filter that leaves the data alone.
struct Observer {
    name: StringId,
    view: View,
}

enum View {
    Hash(Hasher),
    Size(u64),
    Pages(Pages),
    Blocks(Checksums),
    Nothing,
}

impl Observer {
    fn result(&self) -> (StringId, FilterResult) {
        let result = match &self.view {
            View::Hash(hasher) => FilterResult::Hash(hasher.clone().finish().as_ref().to_vec()),
            View::Size(size) => FilterResult::Size(*size),
            View::Pages(pages) => pages.result(),
            View::Blocks(checksums) => checksums.result(),
            View::Nothing => FilterResult::None,
        };
        (self.name, result)
    }

    fn suspect(&self) -> Option<Suspect> {
        if let View::Pages(pages) = &self.view { pages.suspect() } else { None }
    }

    fn memory(&self) -> usize {
        match &self.view {
            View::Pages(pages) => pages.memory(),
            View::Blocks(checksums) => checksums.memory(),
            View::Hash(_) | View::Size(_) | View::Nothing => 0,
        }
    }
}

fn show(observers: &mut [Observer], data: &[u8]) -> Result<()> {
    for observer in observers {
        match &mut observer.view {
            View::Hash(hasher) => hasher.update(data),
            View::Size(size) => *size += data.len() as u64,
            View::Pages(pages) => pages.update(data)?,
            View::Blocks(checksums) => checksums.update(data)?,
            View::Nothing => {}
        }
    }
    Ok(())
}
