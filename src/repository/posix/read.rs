//! Read sessions: a file, or several ranges as one stream, in blocks and through filters.
//!
//! A block is filled completely unless the stream ends. Without filters that change the data it is
//! read straight to where it is sent from.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::disk::{Completion, Errno, File, Location, Operation, Outcome};
use crate::filter::{Chain, Progress};
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::filter::{FilterSpec, encode_results};
use crate::protocol::framing::Framing;
use crate::protocol::pack::Writer;
use crate::protocol::release::Release;
use crate::protocol::response::{Payload, classic, session};

use crate::repository::policy::view::leads_out;
use crate::repository::{Answer, Shared, Step, unexpected_outcome};

/// Work of filters is cut into slices of about so many bytes, so that other sessions get their turn.
/// 256 KiB of the slowest codec take some 20 ms.
const SLICE: usize = 256 << 10;

/// Bytes that are read at once for filters that change the data: what a slice takes, so that they find in the
/// processor's cache what was read, and no block more is held.
const RAW: usize = SLICE;

/// About so many bytes one of the ranges takes that a client lists.
const RANGE: usize = 256;

/// A part of a file, as a place.
#[derive(Debug)]
pub struct ReadRange {
    /// The file.
    pub at: Location,
    /// Where to begin, in bytes.
    pub offset: u64,
    /// How many bytes at most; all when `None`.
    pub limit: Option<u64>,
}

/// How a read session was asked for.
#[derive(Debug)]
pub struct ReadOptions {
    /// Parts, read one after the other.
    pub ranges: VecDeque<ReadRange>,
    /// The answer says whether the file exists.
    pub tells_existence: bool,
    /// A missing file is an answer and no error.
    pub ignore_missing: bool,
    /// What is done to the data.
    pub filters: Vec<FilterSpec>,
    /// Bytes of a block.
    pub block: usize,
    /// Whose layouts the answers have.
    pub release: &'static Release,
}

/// The range that is being read.
#[derive(Debug)]
struct Current {
    file: File,
    range: ReadRange,
}

/// A read session.
pub struct ReadStream {
    ranges: VecDeque<ReadRange>,
    opening: Option<ReadRange>,
    current: Option<Current>,
    tells_existence: bool,
    ignore_missing: bool,
    chain: Chain,
    block: usize,
    release: &'static Release,
    /// The block that is being filled; away while a read fills it.
    out: Option<Payload>,
    /// What was read for filters that change the data, and how much of it they took.
    raw: Option<Vec<u8>>,
    taken: usize,
    /// Bytes that the read under way wants, and bytes that were in its buffer before.
    wanted: usize,
    before: usize,
    /// The file that was opened last, whose pages may have to be read again.
    opened: Option<(File, Location)>,
    /// Whether the read under way is of a page, and the buffer for that.
    is_again: bool,
    page: Vec<u8>,
    shared: Rc<Shared>,
}

impl ReadStream {
    /// A session that reads as `options` say and takes its buffers from `shared`.
    ///
    /// # Errors
    ///
    /// What a filter refuses its parameters with.
    pub fn new(options: ReadOptions, shared: &Rc<Shared>) -> Result<Self> {
        Ok(Self {
            ranges: options.ranges,
            opening: None,
            current: None,
            tells_existence: options.tells_existence,
            ignore_missing: options.ignore_missing,
            chain: Chain::sharing(&shared.contexts, options.filters)?,
            block: options.block,
            release: options.release,
            out: None,
            raw: None,
            taken: 0,
            wanted: 0,
            before: 0,
            opened: None,
            is_again: false,
            page: Vec::new(),
            shared: Rc::clone(shared),
        })
    }

    /// Gives the buffers back.
    pub fn into_buffers(self) -> impl Iterator<Item = Vec<u8>> {
        self.out.map(Payload::into_buffer).into_iter().chain(self.raw)
    }

    /// How many bytes it holds or may hold.
    #[must_use]
    pub fn memory(&self) -> usize {
        let raw = if self.chain.is_passive() { 0 } else { self.raw_size() };
        self.block + raw + self.ranges.len() * RANGE + self.chain.memory()
    }

    /// Fills the next block.
    ///
    /// # Errors
    ///
    /// What the client is told.
    pub fn advance(&mut self) -> Result<Step> {
        if let Some(operation) = self.read_again() {
            return Ok(Step::Disk(operation));
        }
        if self.chain.is_passive() { Ok(self.advance_passive()) } else { self.advance_filtered() }
    }

    /// Goes on after the operation that was asked for last.
    ///
    /// # Errors
    ///
    /// What the client is told.
    pub fn resume(&mut self, completion: Completion) -> Result<Step> {
        match self.opening.take() {
            Some(range) => {
                if let Some(answer) = self.take_file(range, completion)? {
                    return Ok(Step::Done(answer));
                }
            }
            None if std::mem::take(&mut self.is_again) => self.take_page(completion)?,
            None => self.take_read(completion)?,
        }
        self.advance()
    }

    /// The operation that reads a page again that looks wrong. It reads from the file that is read
    /// anyway, whatever file the client named for that.
    fn read_again(&mut self) -> Option<Operation> {
        let suspect = self.chain.suspect()?;
        let (file, _) = self.opened.as_ref()?;
        let mut buffer = std::mem::take(&mut self.page);
        buffer.clear();
        buffer.reserve_exact(suspect.length);
        self.is_again = true;
        Some(Operation::Read { file: file.clone(), buffer, length: suspect.length, offset: suspect.offset })
    }

    fn take_page(&mut self, completion: Completion) -> Result<()> {
        match completion {
            Ok(Outcome::Read(page)) => {
                self.chain.settle(&page);
                self.page = page;
                Ok(())
            }
            Ok(_) => Err(unexpected_outcome()),
            Err(failure) => {
                let (_, at) = self.opened.as_ref().ok_or_else(unexpected_outcome)?;
                Err(Error::system(Code::FileRead, format_args!("unable to read '{at}'"), failure.errno.0))
            }
        }
    }

    fn take_file(&mut self, range: ReadRange, completion: Completion) -> Result<Option<Answer>> {
        match completion {
            Ok(Outcome::File(file)) => {
                self.opened = Some((file.clone(), range.at.clone()));
                self.current = Some(Current { file, range });
                Ok(None)
            }
            Ok(_) => Err(unexpected_outcome()),
            Err(failure) => match failure.errno {
                Errno::NOENT if self.ignore_missing => {
                    let payload = Payload::from_pack(|pack| _ = pack.bool_forced(false));
                    Ok(Some(Answer { close: true, ..Answer::data(payload) }))
                }
                Errno::NOENT => {
                    let message = format!("unable to open missing file '{}' for read", range.at);
                    Err(Error::new(Code::FileMissing, message))
                }
                Errno::XDEV => Err(leads_out(&range.at)),
                errno => {
                    let message = format_args!("unable to open file '{}' for read", range.at);
                    Err(Error::system(Code::FileOpen, message, errno.0))
                }
            },
        }
    }

    fn take_read(&mut self, completion: Completion) -> Result<()> {
        let Some(current) = &mut self.current else { return Err(unexpected_outcome()) };
        let buffer = match completion {
            Ok(Outcome::Read(buffer)) => buffer,
            Ok(_) => return Err(unexpected_outcome()),
            Err(failure) => {
                let message = format_args!("unable to read '{}'", current.range.at);
                return Err(Error::system(Code::FileRead, message, failure.errno.0));
            }
        };
        let got = buffer.len() - self.before;
        current.range.offset += got as u64;
        if let Some(limit) = &mut current.range.limit {
            *limit = limit.saturating_sub(got as u64);
        }
        if got < self.wanted || current.range.limit == Some(0) {
            self.end_range();
        }
        if self.chain.is_passive() {
            self.chain.observe(&buffer[self.before..])?;
            self.out = Some(Payload::from_buffer(buffer));
        } else {
            self.raw = Some(buffer);
            self.taken = 0;
        }
        Ok(())
    }

    /// Leaves the current range. Its file stays open when the next range is of the same file, as the
    /// parts of a block-incremental restore are.
    fn end_range(&mut self) {
        let Some(current) = self.current.take() else { return };
        let same = self.ranges.front().is_some_and(|next| {
            Rc::ptr_eq(&next.at.root, &current.range.at.root) && next.at.path == current.range.at.path
        });
        if same && let Some(range) = self.ranges.pop_front() {
            self.current = Some(Current { file: current.file, range });
        }
    }

    /// The operation that brings more data, or `None` when the stream has ended.
    fn more(&mut self, buffer: impl FnOnce(&mut Self) -> Vec<u8>, room: usize) -> Option<Operation> {
        loop {
            let Some(current) = &self.current else {
                let range = self.ranges.pop_front()?;
                let at = range.at.clone();
                self.opening = Some(range);
                return Some(Operation::OpenRead { at });
            };
            let limit = current.range.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
            if limit == 0 {
                self.end_range();
                continue;
            }
            let (file, offset) = (current.file.clone(), current.range.offset);
            let length = room.min(limit);
            let buffer = buffer(self);
            self.wanted = length;
            self.before = buffer.len();
            return Some(Operation::Read { file, buffer, length, offset });
        }
    }

    /// Bytes of the buffer that filters take their data from.
    fn raw_size(&self) -> usize {
        self.block.min(RAW)
    }

    fn take_out(&mut self) -> Payload {
        self.out.take().unwrap_or_else(|| Payload::new(self.shared.buffers.take(self.block), self.block))
    }

    fn advance_passive(&mut self) -> Step {
        let filled = self.out.as_ref().map_or(0, Payload::len);
        if filled < self.block {
            let out = |stream: &mut Self| stream.take_out().into_buffer();
            if let Some(operation) = self.more(out, self.block - filled) {
                return Step::Disk(operation);
            }
        }
        let ended = self.current.is_none() && self.ranges.is_empty();
        self.answer(ended)
    }

    fn advance_filtered(&mut self) -> Result<Step> {
        loop {
            let ended = self.current.is_none() && self.ranges.is_empty();
            let raw = self.raw.take().unwrap_or_default();
            let mut input = &raw[self.taken..];
            let before = input.len();
            let mut out = self.take_out().into_buffer();
            let progress = self.chain.process(&mut input, ended, &mut out, Payload::limit(self.block), SLICE);
            self.taken += before - input.len();
            let drained = input.is_empty();
            self.raw = Some(raw);
            self.out = Some(Payload::from_buffer(out));
            let progress = progress?;
            if let Some(operation) = self.read_again() {
                // The filters go on from where they are.
                return Ok(Step::Disk(operation));
            }
            match progress {
                Progress::Budget => return Ok(Step::Work),
                Progress::OutputFull => return Ok(self.answer(false)),
                Progress::Finished => return Ok(self.answer(true)),
                Progress::NeedsInput if !drained => return Ok(Step::Work),
                Progress::NeedsInput => {
                    let raw = |stream: &mut Self| {
                        let mut raw = stream.raw.take().unwrap_or_default();
                        if raw.capacity() == 0 {
                            raw = stream.shared.buffers.take(stream.raw_size());
                        }
                        raw.clear();
                        raw.reserve_exact(stream.raw_size());
                        raw
                    };
                    if let Some(operation) = self.more(raw, self.raw_size()) {
                        return Ok(Step::Disk(operation));
                    }
                    // The last range ended just now: the filters have to be told.
                    self.taken = self.raw.as_ref().map_or(0, Vec::len);
                }
            }
        }
    }

    /// Sends the block that was filled: as the answer to a request for it, or as a part of the one
    /// answer that is the whole file.
    fn answer(&mut self, ended: bool) -> Step {
        let mut block = self.take_out();
        let tells_existence = std::mem::take(&mut self.tells_existence);
        let results = ended.then(|| {
            let mut results = Writer::new();
            encode_results(&mut results, &self.chain.results(), self.release);
            results.finish()
        });
        match (self.release.framing, results) {
            (Framing::Session, results) => {
                session::block(&mut block, tells_existence, results.as_deref());
                Step::Done(Answer { close: ended, ..Answer::data(block) })
            }
            (Framing::Classic, None) => {
                classic::block(&mut block, tells_existence);
                Step::Part(block)
            }
            (Framing::Classic, Some(results)) => {
                classic::block(&mut block, tells_existence);
                let results = Payload::from_pack(|pack| _ = pack.pack_bytes(&results));
                Step::Done(Answer { lead: Some(block), payload: Some(results), close: true, ..Answer::null() })
            }
        }
    }
}

#[cfg(test)]
mod tests;
