//! Reading a small file as a whole, for what the server itself looks into.

use crate::disk::{Completion, Errno, Failure, File, Location, Operation, Outcome};
use crate::protocol::error::Result;

use crate::repository::{Next, unexpected_outcome};

/// Bytes that are asked for at a time.
const CHUNK: usize = 64 << 10;

/// What there is under a name.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) enum Contents {
    Read(Vec<u8>),
    #[default]
    Missing,
    /// It has more bytes than are wanted.
    TooLarge,
}

/// A file that is being read.
#[derive(Debug)]
pub(super) struct WholeFile {
    maximum: usize,
    file: Option<File>,
    /// How many bytes of it were read.
    length: usize,
}

impl WholeFile {
    /// Reads the file `at`, of `maximum` bytes at most.
    pub(super) fn begin(at: Location, maximum: usize) -> (Self, Operation) {
        (Self { maximum, file: None, length: 0 }, Operation::OpenRead { at })
    }

    /// The file, once it is open.
    pub(super) const fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Goes on after the operation that was asked for last; a failure is that of one of them.
    pub(super) fn resume(&mut self, completion: Completion) -> Result<Next<Result<Contents, Failure>>> {
        let buffer = match completion {
            Ok(Outcome::File(file)) => {
                self.file = Some(file);
                Vec::new()
            }
            Ok(Outcome::Read(buffer)) if buffer.len() > self.maximum => return Ok(Next::Done(Ok(Contents::TooLarge))),
            Ok(Outcome::Read(buffer)) if buffer.len() < self.length + CHUNK => {
                return Ok(Next::Done(Ok(Contents::Read(buffer))));
            }
            Ok(Outcome::Read(buffer)) => buffer,
            Ok(_) => return Err(unexpected_outcome()),
            Err(failure) if failure.errno == Errno::NOENT => return Ok(Next::Done(Ok(Contents::Missing))),
            Err(failure) => return Ok(Next::Done(Err(failure))),
        };
        let file = self.file.clone().ok_or_else(unexpected_outcome)?;
        self.length = buffer.len();
        Ok(Next::Disk(Operation::Read { file, offset: buffer.len() as u64, buffer, length: CHUNK }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::inline::{Inline, Options};
    use crate::disk::{Disk, RelativePath, Root, Ticket};

    fn read(path: &std::path::Path, name: &str, maximum: usize) -> Result<Contents, Failure> {
        let at = Location::new(Root::new(path), RelativePath::new(name).unwrap());
        let mut disk = Inline::new(Options::default());
        let (mut file, mut operation) = WholeFile::begin(at, maximum);
        loop {
            disk.submit(Ticket { session: 0, operation: 0 }, operation);
            match file.resume(disk.complete().unwrap().1).unwrap() {
                Next::Disk(next) => operation = next,
                Next::Done(contents) => return contents,
            }
        }
    }

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
            std::fs::write(directory.path().join("file"), &bytes).unwrap();
            let found = read(directory.path(), "file", 3 * CHUNK);
            assert!(matches!(found, Ok(Contents::Read(found)) if found == bytes), "{length} bytes");
            let found = read(directory.path(), "file", length.saturating_sub(1));
            assert_eq!(matches!(found, Ok(Contents::TooLarge)), length > 0, "{length} bytes");
        }
        assert!(matches!(read(directory.path(), "other", 1), Ok(Contents::Missing)));
        assert!(read(directory.path(), "", 1).is_err());
    }
}
