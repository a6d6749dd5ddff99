//! Whether a file that may not be replaced says what the new one says.
//!
//! Clients push `.history` and `.backup` files again without looking whether they are there.

use crate::disk::{Completion, Location, Operation};
use crate::filter::whole;
use crate::protocol::error::Result;
use crate::protocol::filter::Secret;
use crate::repository::whole_file::{Progress as Reading, WholeFile};
use crate::repository::write::TEMPORARY_SUFFIX;

/// Such files have some hundred bytes; larger ones are never the same.
const MAXIMUM: usize = 1 << 20;

/// A file of the same segment as another one.
#[derive(Debug, PartialEq, Eq)]
pub enum Twin {
    /// With the same content, perhaps compressed in another way.
    Same,
    /// With other content; its name.
    Other(String),
}

/// Whether one of `names` is of the same segment as the file at `path`, but not that file.
pub fn twin<'a>(path: &str, names: impl Iterator<Item = &'a str>) -> Option<Twin> {
    let own = path.rsplit('/').next().unwrap_or_default();
    // the segment and the checksum of its content
    let split = |name: &'_ str| name.split_once('-').map(|(segment, rest)| (segment.to_owned(), rest.to_owned()));
    let checksum = |rest: &str| rest.split('.').next().unwrap_or_default().to_owned();
    let (segment, rest) = split(own)?;
    let mut twins = names.filter(|name| *name != own && !name.ends_with(TEMPORARY_SUFFIX)).filter_map(|name| {
        let (other, other_rest) = split(name).filter(|(other, _)| *other == segment)?;
        let same = checksum(&other_rest) == checksum(&rest);
        Some(if same { Twin::Same } else { Twin::Other(format!("{other}-{other_rest}")) })
    });
    twins.next()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_not_archived_twice() {
        let (one, two) = ("0123456789abcdef0123456789abcdef01234567", "f123456789abcdef0123456789abcdef01234567");
        let segment = "000000010000000000000001";
        let own = format!("15-1/0000000100000000/{segment}-{one}.gz");
        let ask = |name: String| twin(&own, ["other", &name].into_iter());
        for name in [
            format!("{segment}-{one}.gz"),
            format!("{segment}-{two}.gz.pgbackrest.tmp"),
            format!("{segment}.partial-{two}.gz"),
            format!("000000010000000000000002-{two}.gz"),
            format!("{segment}.00000028.backup"),
        ] {
            assert_eq!(ask(name.clone()), None, "{name}");
        }
        assert_eq!(ask(format!("{segment}-{one}.zst")), Some(Twin::Same));
        assert_eq!(ask(format!("{segment}-{one}")), Some(Twin::Same));
        let other = format!("{segment}-{two}.gz");
        assert_eq!(ask(other.clone()), Some(Twin::Other(other)));
    }
}
