//! Reading a small file as a whole, for what the server itself looks into.

use crate::disk::{Completion, Errno, Failure, File, Location, Operation, Outcome};
use crate::protocol::error::Result;

use crate::repository::{Next, unexpected_outcome};

/// Bytes that are asked for at a time.
const CHUNK: usize = 64 << 10;

/// What came of it.
#[derive(Debug)]
pub(crate) enum Contents {
    /// Here it is.
    Read(Vec<u8>),
    /// There is no such file.
    Missing,
    /// It has more bytes than are wanted.
    TooLarge,
    /// It cannot be read.
    Failed(Failure),
}

/// A file that is being read.
#[derive(Debug)]
pub(crate) struct WholeFile {
    at: Location,
    maximum: usize,
    file: Option<File>,
    /// How many bytes of it were read.
    length: usize,
}

impl WholeFile {
    /// Reads the file `at`, of `maximum` bytes at most.
    pub(crate) const fn new(at: Location, maximum: usize) -> Self {
        Self { at, maximum, file: None, length: 0 }
    }

    /// The file, once it is open.
    pub(crate) const fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// The first operation.
    pub(crate) fn begin(&self) -> Operation {
        Operation::OpenRead { at: self.at.clone() }
    }

    /// Goes on after the operation that was asked for last.
    pub(crate) fn resume(&mut self, completion: Completion) -> Result<Next<Contents>> {
        let buffer = match completion {
            Ok(Outcome::File(file)) => {
                self.file = Some(file);
                Vec::new()
            }
            Ok(Outcome::Read(buffer)) if buffer.len() > self.maximum => return Ok(Next::Done(Contents::TooLarge)),
            Ok(Outcome::Read(buffer)) if buffer.len() < self.length + CHUNK => {
                return Ok(Next::Done(Contents::Read(buffer)));
            }
            Ok(Outcome::Read(buffer)) => buffer,
            Ok(_) => return Err(unexpected_outcome()),
            Err(failure) if failure.errno == Errno::NOENT => return Ok(Next::Done(Contents::Missing)),
            Err(failure) => return Ok(Next::Done(Contents::Failed(failure))),
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

    fn read(path: &std::path::Path, name: &str, maximum: usize) -> Contents {
        let at = Location::new(Root::new(path), RelativePath::new(name).unwrap());
        let mut disk = Inline::new(Options::default());
        let mut file = WholeFile::new(at, maximum);
        let mut operation = file.begin();
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
            let Contents::Read(found) = read(directory.path(), "file", 3 * CHUNK) else { panic!("{length} bytes") };
            assert_eq!(found, bytes);
            let found = read(directory.path(), "file", length.saturating_sub(1));
            assert_eq!(matches!(found, Contents::TooLarge), length > 0, "{length} bytes");
        }
        assert!(matches!(read(directory.path(), "other", 1), Contents::Missing));
        assert!(matches!(read(directory.path(), "", 1), Contents::Failed(_)));
    }
}
