//! Whether a file that may not be replaced says what the new one says.
//!
//! Clients push `.history` and `.backup` files again without looking whether they are there.

use super::whole_file::{Progress as Reading, WholeFile};
use crate::disk::{Completion, Location, Operation};
use crate::filter::whole;
use crate::protocol::error::Result;
use crate::protocol::filter::Secret;

/// Such files have some hundred bytes; larger ones are never the same.
const MAXIMUM: usize = 1 << 20;

/// How a comparison goes on.
#[derive(Debug)]
pub enum Progress {
    /// With this operation.
    Disk(Operation),
    /// Not at all: this came of it.
    Same(bool),
}

/// A comparison of two files.
#[derive(Debug)]
pub struct Comparison {
    reading: WholeFile,
    second: Option<Location>,
    first: Vec<u8>,
    key: Option<Secret>,
}

impl Comparison {
    /// Compares `first` and `second`, which are encrypted with `key` if there is one: each with a salt
    /// of its own.
    #[must_use]
    pub fn new(first: Location, second: Location, key: Option<Secret>) -> Self {
        let reading = WholeFile::new(first, MAXIMUM);
        Self { reading, second: Some(second), first: Vec::new(), key }
    }

    /// The first operation.
    #[must_use]
    pub fn begin(&self) -> Operation {
        self.reading.begin()
    }

    /// Goes on after the operation that was asked for last.
    ///
    /// # Errors
    ///
    /// Only for an outcome that does not belong to it.
    pub fn resume(&mut self, completion: Completion) -> Result<Progress> {
        let bytes = match self.reading.resume(completion)? {
            Reading::Disk(operation) => return Ok(Progress::Disk(operation)),
            Reading::Read(bytes) => bytes,
            Reading::Missing | Reading::TooLarge | Reading::Failed(_) => return Ok(Progress::Same(false)),
        };
        if let Some(second) = self.second.take() {
            self.first = bytes;
            self.reading = WholeFile::new(second, MAXIMUM);
            return Ok(Progress::Disk(self.reading.begin()));
        }
        Ok(Progress::Same(match &self.key {
            None => self.first == bytes,
            Some(key) => match (whole::decrypt(&self.first, key), whole::decrypt(&bytes, key)) {
                (Some(first), Some(second)) => first == second,
                _ => false,
            },
        }))
    }
}
