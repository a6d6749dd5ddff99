//! Reading a small file as a whole, for those who have to understand it.

use crate::disk::{Completion, Failure, File, Location, Operation, Outcome};
use crate::protocol::error::{Code, Error, Result};

use super::errno::{ENOENT, EXDEV};
use super::unexpected_outcome;
use super::view::leads_out;

/// Bytes of the first read; each further one is as long as all before it.
const FIRST: usize = 64 << 10;

/// A file that is being read.
#[derive(Debug)]
pub struct ReadWhole {
    at: Location,
    maximum: usize,
    file: Option<File>,
    wanted: usize,
}

/// A file that was read.
#[derive(Debug)]
pub struct Whole {
    /// What was read, to tell later whether its name is still the name of the same file.
    pub file: File,
    /// All bytes, or one more than the maximum.
    pub bytes: Vec<u8>,
}

/// What reading needs next.
#[derive(Debug)]
pub enum Progress {
    /// This operation.
    Disk(Operation),
    /// Nothing: this is the file, if it exists.
    Done(Option<Whole>),
}

impl ReadWhole {
    /// Starts to read `at`, and stops when there are more than `maximum` bytes.
    #[must_use]
    pub fn begin(at: Location, maximum: usize) -> (Self, Operation) {
        let operation = Operation::OpenRead { at: at.clone() };
        (Self { at, maximum, file: None, wanted: 0 }, operation)
    }

    /// Goes on after `completion`.
    ///
    /// # Errors
    ///
    /// What the client is told.
    pub fn resume(&mut self, completion: Completion) -> Result<Progress> {
        let outcome = match (completion, &self.file) {
            (Err(failure), None) if failure.errno == ENOENT => return Ok(Progress::Done(None)),
            (completion, _) => completion.map_err(|failure| self.failed(&failure))?,
        };
        match (outcome, self.file.take()) {
            (Outcome::File(file), None) => Ok(self.read(file, Vec::new())),
            (Outcome::Read(bytes), Some(file)) if bytes.len() < self.wanted || bytes.len() > self.maximum => {
                Ok(Progress::Done(Some(Whole { file, bytes })))
            }
            (Outcome::Read(bytes), Some(file)) => Ok(self.read(file, bytes)),
            _ => Err(unexpected_outcome()),
        }
    }

    fn read(&mut self, file: File, mut buffer: Vec<u8>) -> Progress {
        let offset = buffer.len();
        // One byte more than the maximum tells that there are more.
        let length = offset.max(FIRST).min(self.maximum + 1 - offset);
        buffer.reserve_exact(length);
        self.wanted = offset + length;
        self.file = Some(file.clone());
        Progress::Disk(Operation::Read { file, buffer, length, offset: offset as u64 })
    }

    fn failed(&self, failure: &Failure) -> Error {
        if failure.errno == EXDEV {
            return leads_out(&self.at);
        }
        let at = &self.at;
        if self.file.is_none() {
            return Error::system(Code::FileOpen, format_args!("unable to open file '{at}' for read"), failure.errno.0);
        }
        Error::system(Code::FileRead, format_args!("unable to read '{at}'"), failure.errno.0)
    }
}
