//! Whether a file that may not be replaced says what the new one says.
//!
//! Clients push `.history` and `.backup` files again without looking whether they are there.

use super::whole_file::{Contents, WholeFile};
use crate::disk::{Completion, Location, Operation};
use crate::filter::whole;
use crate::protocol::error::Result;
use crate::protocol::filter::Secret;
use crate::repository::Next;

/// Such files have some hundred bytes; larger ones are never the same.
const MAXIMUM: usize = 1 << 20;

/// A comparison of two files.
#[derive(Debug)]
pub(super) struct Comparison {
    reading: WholeFile,
    second: Option<Location>,
    first: Vec<u8>,
    key: Option<Secret>,
}

impl Comparison {
    /// Compares `first` and `second`, which are encrypted with `key` if there is one: each with a salt
    /// of its own.
    pub(super) fn begin(first: Location, second: Location, key: Option<Secret>) -> (Self, Operation) {
        let (reading, operation) = WholeFile::begin(first, MAXIMUM);
        (Self { reading, second: Some(second), first: Vec::new(), key }, operation)
    }

    /// Goes on after the operation that was asked for last; whether they say the same comes of it.
    pub(super) fn resume(&mut self, completion: Completion) -> Result<Next<bool>> {
        let bytes = match self.reading.resume(completion)? {
            Next::Disk(operation) => return Ok(Next::Disk(operation)),
            Next::Done(Ok(Contents::Read(bytes))) => bytes,
            Next::Done(_) => return Ok(Next::Done(false)),
        };
        if let Some(second) = self.second.take() {
            self.first = bytes;
            let (reading, operation) = WholeFile::begin(second, MAXIMUM);
            self.reading = reading;
            return Ok(Next::Disk(operation));
        }
        Ok(Next::Done(match &self.key {
            None => self.first == bytes,
            Some(key) => match (whole::decrypt(&self.first, key), whole::decrypt(&bytes, key)) {
                (Some(first), Some(second)) => first == second,
                _ => false,
            },
        }))
    }
}
