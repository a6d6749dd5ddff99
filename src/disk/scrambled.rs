//! A back end for tests that brings out what a friendly disk hides.
//!
//! Operations run in a seeded random order and complete in another one, some later than others, reads
//! and writes are done in pieces, and operations fail at the rates that the test sets. The same seed
//! and the same submissions give the same course of events. The work itself is [`Inline`]'s.
//!
//! Operations that are under way together have no order, so a session that needs one has to wait for
//! the first to complete before it submits the second. That is the contract of [`Disk`]; this back end
//! is there to punish whoever forgets it.

use std::os::fd::AsFd;

use super::calls::{read_at, write_at};
use super::inline::{Inline, Options};
use super::{Completion, Disk, Errno, Failure, Operation, Outcome, Ticket};

/// How often operations fail or are held back, in a thousand. All zero by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Opening for reading or writing: EIO, or ENOSPC for writing.
    pub open: u32,
    /// Reading: EIO.
    pub read: u32,
    /// Writing: EIO or ENOSPC, after a part of the data has been written.
    pub write: u32,
    /// Syncing files and directories: EIO.
    pub sync: u32,
    /// Closing: EIO. The file is closed all the same.
    pub close: u32,
    /// Renaming: EIO, without effect.
    pub rename: u32,
    /// Whatever else changes the disk, except giving up a lock: EIO, without effect.
    pub other: u32,
    /// Calls of `complete` that answer with nothing though something is under way.
    pub delay: u32,
}

/// An error that was made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Injected {
    /// The operation that failed.
    pub ticket: Ticket,
    /// What it was.
    pub operation: &'static str,
    /// What it failed with.
    pub errno: Errno,
}

/// The back end.
#[derive(Debug)]
pub struct Scrambled {
    inner: Inline,
    random: Random,
    faults: Faults,
    waiting: Vec<(Ticket, Operation)>,
    finished: Vec<(Ticket, Completion)>,
    injected: Vec<Injected>,
}

impl Scrambled {
    /// A back end whose course of events follows from `seed`.
    #[must_use]
    pub fn new(seed: u64, options: Options, faults: Faults) -> Self {
        Self {
            inner: Inline::new(options),
            random: Random::new(seed),
            faults,
            waiting: Vec::new(),
            finished: Vec::new(),
            injected: Vec::new(),
        }
    }

    /// What failed without a reason so far, in the order in which it happened.
    #[must_use]
    pub fn injected(&self) -> &[Injected] {
        &self.injected
    }

    /// Changes how often operations fail from now on.
    pub const fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Runs one of the waiting operations.
    fn advance(&mut self) {
        let index = self.random.below(self.waiting.len());
        let (ticket, operation) = self.waiting.swap_remove(index);
        let completion = match self.fault(&operation) {
            Some((name, errno)) => {
                self.injected.push(Injected { ticket, operation: name, errno });
                self.spoil(operation);
                Err(Failure::from(errno))
            }
            None => self.run(operation),
        };
        self.finished.push((ticket, completion));
    }

    /// Decides whether an operation fails.
    fn fault(&mut self, operation: &Operation) -> Option<(&'static str, Errno)> {
        let faults = self.faults;
        let (name, rate, full) = match operation {
            Operation::OpenRead { .. } => ("open", faults.open, false),
            Operation::OpenWrite { .. } => ("open for write", faults.open, true),
            Operation::Read { .. } => ("read", faults.read, false),
            Operation::Write { .. } => ("write", faults.write, true),
            Operation::Sync { .. } => ("sync", faults.sync, false),
            Operation::SyncDirectory { .. } => ("sync directory", faults.sync, false),
            Operation::Close { .. } => ("close", faults.close, false),
            Operation::Rename { .. } => ("rename", faults.rename, false),
            Operation::SetTimes { .. } => ("set times", faults.other, false),
            Operation::MakeDirectory { .. } => ("make directory", faults.other, true),
            Operation::RemoveFile { .. } | Operation::RemoveOwn { .. } => ("remove file", faults.other, false),
            Operation::RemoveDirectory { .. } => ("remove directory", faults.other, false),
            Operation::SymbolicLink { .. } => ("make link", faults.other, true),
            Operation::HardLink { .. } => ("make hard link", faults.other, true),
            Operation::RemoveTree { .. } | Operation::RemoveMore { .. } => ("remove tree", faults.other, false),
            Operation::Lock { .. } => ("lock", faults.other, true),
            // Looking has no effect to lose; the failure of a change of owner has details that cannot be
            // made up; a lock is given up even when its file stays; and a claim is no matter of the disk.
            Operation::Stat { .. }
            | Operation::StatTarget { .. }
            | Operation::List { .. }
            | Operation::ListMore { .. }
            | Operation::SetOwner { .. }
            | Operation::Unlock { .. }
            | Operation::Claim { .. } => return None,
        };
        let fails = self.random.chance(rate);
        let errno = if full && self.random.chance(500) { Errno::NOSPC } else { Errno::IO };
        fails.then_some((name, errno))
    }

    /// Does what an operation that fails may have done before.
    fn spoil(&mut self, operation: Operation) {
        match operation {
            Operation::Write { file, data, offset } => {
                let part = self.random.below(data.len() + 1);
                // Its own failure changes nothing: the operation fails anyway.
                let _ = write_at(file.0.as_fd(), &data[..part], offset);
            }
            operation @ Operation::Close { .. } => drop(self.inner.run(operation)),
            operation => drop(operation),
        }
    }

    fn run(&mut self, operation: Operation) -> Completion {
        match operation {
            Operation::Read { file, mut buffer, length, offset } => {
                let part = self.random.below(length + 1);
                let begin = buffer.len();
                // The room is the caller's promise for the whole length, so that pieces fit.
                read_at(file.0.as_fd(), &mut buffer, part, offset)?;
                if buffer.len() - begin == part {
                    read_at(file.0.as_fd(), &mut buffer, length - part, offset + part as u64)?;
                }
                Ok(Outcome::Read(buffer))
            }
            Operation::Write { file, data, offset } => {
                let (first, second) = data.split_at(self.random.below(data.len() + 1));
                write_at(file.0.as_fd(), first, offset)?;
                write_at(file.0.as_fd(), second, offset + first.len() as u64)?;
                Ok(Outcome::Written(data))
            }
            operation => self.inner.run(operation),
        }
    }
}

impl Disk for Scrambled {
    fn submit(&mut self, ticket: Ticket, operation: Operation) {
        self.waiting.push((ticket, operation));
    }

    /// The next operation that has completed. `None` while [`Disk::outstanding`] is not zero means
    /// that it takes longer; asking again gets there.
    fn complete(&mut self) -> Option<(Ticket, Completion)> {
        if self.outstanding() == 0 || self.random.chance(self.faults.delay.min(999)) {
            return None;
        }
        let least = usize::from(self.finished.is_empty());
        for _ in 0..self.random.below(self.waiting.len() + 1).max(least) {
            self.advance();
        }
        let index = self.random.below(self.finished.len());
        Some(self.finished.swap_remove(index))
    }

    fn outstanding(&self) -> usize {
        self.waiting.len() + self.finished.len()
    }
}

/// Numbers that look random and follow from a seed: xorshift64*, Marsaglia 2003 and Vigna 2014.
#[derive(Debug)]
struct Random(u64);

impl Random {
    /// Spreads small seeds, whose first numbers would otherwise resemble each other; zero is the one
    /// state that the generator cannot leave.
    const fn new(seed: u64) -> Self {
        let state = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Self(if state == 0 { 1 } else { state })
    }

    const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number from 0 to `bound` − 1, or 0 when `bound` is 0.
    fn below(&mut self, bound: usize) -> usize {
        let bound = bound.max(1) as u64;
        // The upper half is the better one. The result is below `bound`, a usize.
        usize::try_from((self.next() >> 32) % bound).unwrap_or(0)
    }

    /// True in `rate` of a thousand cases.
    const fn chance(&mut self, rate: u32) -> bool {
        (self.next() >> 32) % 1000 < rate as u64
    }
}
