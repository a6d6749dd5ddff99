//! Read sessions: a file, or several ranges as one stream, in blocks and through filters.
//!
//! A block is filled completely unless the stream ends. Without filters that change the data it is
//! read straight to where it is sent from.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::disk::{Completion, Errno, File, Location, Operation, Outcome};
use crate::filter::network::{BLOCK, Link, OVERHEAD};
use crate::filter::{Chain, Progress};
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::filter::encode_results;
use crate::protocol::framing::Framing;
use crate::protocol::pack::Writer;
use crate::protocol::release::Release;
use crate::protocol::request::ReadRequest;
use crate::protocol::response::{Payload, classic, session};

use crate::repository::{Answer, Shared, Step, failed, refused, unexpected_outcome};

/// Work of filters is cut into slices of about so many bytes, so that other sessions get their turn.
/// 256 KiB of the slowest codec take some 20 ms.
const SLICE: usize = 256 << 10;

/// Bytes that are read at once for filters that change the data: what a slice takes, so that they find in the
/// processor's cache what was read, and no block more is held.
const RAW: usize = SLICE;

/// The end of a block that is not worth a read.
const SMALLEST: usize = 4 << 10;

/// About so many bytes one of the ranges takes that a client lists.
const RANGE: usize = 256;

/// A part of a file, as a place.
#[derive(Debug)]
pub(crate) struct ReadRange {
    /// The file.
    pub(crate) at: Location,
    /// Where to begin, in bytes.
    pub(crate) offset: u64,
    /// How many bytes at most; all when `None`.
    pub(crate) limit: Option<u64>,
}

/// The file that was opened last, whose pages may have to be read again.
struct Opened {
    file: File,
    at: Location,
    /// What is still to be read of it: from an offset so many bytes, or all.
    rest: Option<(u64, Option<u64>)>,
}

/// What the operation under way is for.
#[derive(Debug, Clone, Copy)]
enum Pending {
    Nothing,
    /// Opening the file of the next range.
    Opening,
    /// Reading `wanted` bytes behind those that were in the buffer before.
    Filling {
        to: Target,
        before: usize,
        wanted: usize,
    },
    /// Reading a page again.
    Page,
}

/// Where data of the file are read to.
#[derive(Debug, Clone, Copy)]
enum Target {
    /// The block.
    Block,
    /// A block of the frame that the block is a part of: all that is done to the data is that a length stands before them.
    Frame,
    /// The buffer that filters take their data from.
    Filters,
}

/// A read session.
pub(crate) struct ReadStream {
    ranges: VecDeque<ReadRange>,
    opened: Option<Opened>,
    pending: Pending,
    tells_existence: bool,
    ignore_missing: bool,
    chain: Chain,
    block: usize,
    release: &'static Release,
    /// The block that is being filled; away while a read fills it.
    out: Option<Payload>,
    /// What was read for filters that change the data, away while a read fills it, and how much of it they took.
    raw: Vec<u8>,
    taken: usize,
    /// The buffer for a page that is read again.
    page: Vec<u8>,
    shared: Rc<Shared>,
}

impl ReadStream {
    /// A session that reads `ranges`, one after the other, as `request` says, in blocks of so many bytes, and answers as
    /// `release` does, over `link`. Fails if a filter refuses its parameters.
    pub(crate) fn new(
        ranges: VecDeque<ReadRange>,
        request: ReadRequest,
        block: usize,
        release: &'static Release,
        link: &Rc<Link>,
        shared: &Rc<Shared>,
    ) -> Result<Self> {
        Ok(Self {
            ranges,
            opened: None,
            pending: Pending::Nothing,
            tells_existence: request.tells_existence,
            ignore_missing: request.ignore_missing,
            chain: Chain::over(link, &shared.contexts, request.filters)?,
            block,
            release,
            out: None,
            raw: Vec::new(),
            taken: 0,
            page: Vec::new(),
            shared: Rc::clone(shared),
        })
    }

    /// Gives the buffers back.
    pub(crate) fn into_buffers(self) -> impl Iterator<Item = Vec<u8>> {
        self.out.map(Payload::into_buffer).into_iter().chain([self.raw])
    }

    /// How many bytes it holds or may hold.
    pub(crate) fn memory(&self) -> usize {
        let raw = if self.chain.is_passive() { 0 } else { self.raw_size() };
        self.block + raw + self.ranges.len() * RANGE + self.chain.memory()
    }

    /// Fills the next block.
    pub(crate) fn advance(&mut self) -> Result<Step> {
        if let Some(operation) = self.read_again() {
            return Ok(Step::Disk(operation));
        }
        if self.chain.is_passive() { Ok(self.advance_passive()) } else { self.advance_filtered() }
    }

    /// Goes on after the operation that was asked for last.
    pub(crate) fn resume(&mut self, completion: Completion) -> Result<Step> {
        match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Filling { to, before, wanted } => self.take_read(to, before, wanted, completion)?,
            Pending::Page => self.take_page(completion)?,
            Pending::Opening => {
                if let Some(answer) = self.take_file(completion)? {
                    return Ok(Step::Done(answer));
                }
            }
            Pending::Nothing => return Err(unexpected_outcome()),
        }
        self.advance()
    }

    /// The operation that reads a page again that looks wrong. It reads from the file that is read
    /// anyway, whatever file the client named for that.
    fn read_again(&mut self) -> Option<Operation> {
        let suspect = self.chain.suspect()?;
        let file = self.opened.as_ref()?.file.clone();
        let mut buffer = std::mem::take(&mut self.page);
        buffer.clear();
        buffer.reserve_exact(suspect.length);
        self.pending = Pending::Page;
        Some(Operation::Read { file, buffer, length: suspect.length, offset: suspect.offset })
    }

    fn take_page(&mut self, completion: Completion) -> Result<()> {
        let Opened { at, .. } = self.opened.as_ref().ok_or_else(unexpected_outcome)?;
        self.page = bytes_of(at, completion)?;
        self.chain.settle(&self.page);
        Ok(())
    }

    fn take_file(&mut self, completion: Completion) -> Result<Option<Answer>> {
        let ReadRange { at, offset, limit } = self.ranges.pop_front().ok_or_else(unexpected_outcome)?;
        match completion {
            Ok(Outcome::File(file)) => {
                self.opened = Some(Opened { file, at, rest: Some((offset, limit)) });
                Ok(None)
            }
            Ok(_) => Err(unexpected_outcome()),
            Err(failure) => match failure.errno {
                Errno::NOENT if self.ignore_missing => {
                    let payload = Payload::from_pack(|pack| _ = pack.bool_forced(false));
                    Ok(Some(Answer { close: true, ..Answer::data(payload) }))
                }
                Errno::NOENT => {
                    Err(Error::new(Code::FileMissing, format!("unable to open missing file '{at}' for read")))
                }
                errno => Err(refused(Code::FileOpen, format_args!("unable to open file '{at}' for read"), &at, errno)),
            },
        }
    }

    fn take_read(&mut self, to: Target, before: usize, wanted: usize, completion: Completion) -> Result<()> {
        let Some(Opened { at, rest: Some((offset, limit)), .. }) = &mut self.opened else {
            return Err(unexpected_outcome());
        };
        let mut buffer = bytes_of(at, completion)?;
        let got = buffer.len() - before;
        *offset += got as u64;
        if let Some(limit) = limit {
            *limit = limit.saturating_sub(got as u64);
        }
        if got < wanted || *limit == Some(0) {
            self.end_range();
        }
        match to {
            Target::Block => {
                self.chain.observe(&buffer[before..])?;
                self.out = Some(Payload::from_buffer(buffer));
            }
            Target::Frame => {
                self.chain.end_stored(&mut buffer, before)?;
                self.out = Some(Payload::from_buffer(buffer));
            }
            Target::Filters => {
                self.raw = buffer;
                self.taken = 0;
            }
        }
        Ok(())
    }

    /// Leaves the current range. Its file is read on when the next range is of the same file, as the
    /// parts of a block-incremental restore are.
    fn end_range(&mut self) {
        let Some(opened) = &mut self.opened else { return };
        let is_same = |next: &ReadRange| Rc::ptr_eq(&next.at.root, &opened.at.root) && next.at.path == opened.at.path;
        let next = if self.ranges.front().is_some_and(is_same) { self.ranges.pop_front() } else { None };
        opened.rest = next.map(|range| (range.offset, range.limit));
    }

    /// Whether nothing is left to read.
    fn has_ended(&self) -> bool {
        self.ranges.is_empty() && self.opened.as_ref().is_none_or(|opened| opened.rest.is_none())
    }

    /// The operation that brings more data, or `None` when the stream has ended.
    fn more(&mut self, to: Target, room: usize) -> Option<Operation> {
        loop {
            let Some(Opened { file, rest: Some((offset, limit)), .. }) = &self.opened else {
                let at = self.ranges.front()?.at.clone();
                self.pending = Pending::Opening;
                return Some(Operation::OpenRead { at });
            };
            let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
            if limit == 0 {
                self.end_range();
                continue;
            }
            let (file, offset, length) = (file.clone(), *offset, room.min(limit));
            let buffer = self.take_target(to);
            self.pending = Pending::Filling { to, before: buffer.len(), wanted: length };
            return Some(Operation::Read { file, buffer, length, offset });
        }
    }

    /// Bytes of the buffer that filters take their data from.
    fn raw_size(&self) -> usize {
        self.block.min(RAW)
    }

    fn take_target(&mut self, to: Target) -> Vec<u8> {
        match to {
            Target::Block => self.take_out().into_buffer(),
            Target::Frame => {
                let mut buffer = self.take_out().into_buffer();
                self.chain.begin_stored(&mut buffer);
                buffer
            }
            Target::Filters => {
                let mut raw = std::mem::take(&mut self.raw);
                if raw.capacity() == 0 {
                    raw = self.shared.buffers.take(self.raw_size());
                }
                raw.clear();
                raw.reserve_exact(self.raw_size());
                raw
            }
        }
    }

    fn take_out(&mut self) -> Payload {
        self.out.take().unwrap_or_else(|| Payload::new(self.shared.buffers.take(self.block), self.block))
    }

    fn advance_passive(&mut self) -> Step {
        let filled = self.out.as_ref().map_or(0, Payload::len);
        if filled < self.block
            && let Some(operation) = self.more(Target::Block, self.block - filled)
        {
            return Step::Disk(operation);
        }
        self.answer(self.has_ended())
    }

    /// Reads on without a copy, where filters only put the data into a frame. `None` when they have to be asked.
    fn advance_stored(&mut self) -> Option<Step> {
        if self.taken < self.raw.len() || !self.chain.stores() {
            return None;
        }
        let filled = self.out.as_ref().map_or(0, Payload::len);
        let room = self.block.saturating_sub(filled + OVERHEAD);
        if filled > 0 && room < SMALLEST {
            return Some(self.answer(false));
        }
        self.more(Target::Frame, room.min(BLOCK)).map(Step::Disk)
    }

    fn advance_filtered(&mut self) -> Result<Step> {
        if let Some(step) = self.advance_stored() {
            return Ok(step);
        }
        loop {
            let ended = self.has_ended();
            let raw = std::mem::take(&mut self.raw);
            let mut input = &raw[self.taken..];
            let before = input.len();
            let mut out = self.take_out().into_buffer();
            let progress = self.chain.process(&mut input, ended, &mut out, Payload::limit(self.block), SLICE);
            self.taken += before - input.len();
            let drained = input.is_empty();
            self.raw = raw;
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
                    if let Some(step) = self.advance_stored() {
                        return Ok(step);
                    }
                    if let Some(operation) = self.more(Target::Filters, self.raw_size()) {
                        return Ok(Step::Disk(operation));
                    }
                    // The last range ended just now: the filters have to be told.
                    self.taken = self.raw.len();
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

/// The bytes that were read of the file `at`.
fn bytes_of(at: &Location, completion: Completion) -> Result<Vec<u8>> {
    match completion {
        Ok(Outcome::Read(bytes)) => Ok(bytes),
        Ok(_) => Err(unexpected_outcome()),
        Err(failure) => Err(failed(Code::FileRead, "unable to read", at, failure.errno)),
    }
}

#[cfg(test)]
mod tests;
