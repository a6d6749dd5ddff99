//! Making a directory with whatever is missing above it.

use std::path::Path;
use std::rc::Rc;

use crate::disk::{Completion, Errno, Location, Operation, RelativePath, Root};
use crate::protocol::error::{Code, Error, Result};
use crate::repository::{Next, Shared, refused};

/// A directory that is being made, from the first ancestor that exists downwards.
#[derive(Debug)]
pub(super) struct MakePath {
    pub(super) directory: Location,
    /// What is to be made above it before, the nearest first.
    missing: Vec<Location>,
    /// Something above is there, so that whatever is missing from now on cannot be made.
    descending: bool,
    mode: u32,
    shared: Rc<Shared>,
}

impl MakePath {
    /// Makes `directory`, and if `parents` what is missing above it, with permission bits `mode` for all that is made.
    pub(super) fn begin(shared: &Rc<Shared>, directory: Location, parents: bool, mode: u32) -> (Self, Operation) {
        let shared = Rc::clone(shared);
        let path = Self { directory, missing: Vec::new(), descending: !parents, mode, shared };
        let operation = path.make();
        (path, operation)
    }

    /// What is being made.
    fn at(&self) -> &Location {
        self.missing.last().unwrap_or(&self.directory)
    }

    fn make(&self) -> Operation {
        self.shared.anchored.make(self.at().clone(), self.mode)
    }

    /// What comes after `completion`.
    pub(super) fn resume(&mut self, completion: Completion) -> Result<Next<()>> {
        match completion.map_err(|failure| failure.errno) {
            Err(errno) if errno != Errno::EXIST => {
                let above = if errno == Errno::NOENT && !self.descending { parent(self.at()) } else { None };
                let above = above.ok_or_else(|| uncreated(self.at(), errno))?;
                self.missing.push(above);
            }
            _ => match self.missing.pop() {
                Some(_) => self.descending = true,
                None => return Ok(Next::Done(())),
            },
        }
        Ok(Next::Disk(self.make()))
    }
}

/// The error of a directory that cannot be made.
pub(super) fn uncreated(at: &Location, errno: Errno) -> Error {
    refused(Code::PathCreate, format_args!("unable to create path '{at}'"), at, errno)
}

/// The directory that `location` is in, also where that is above its root.
pub(super) fn parent(location: &Location) -> Option<Location> {
    location.parent().or_else(|| {
        let above = location.root.path().parent().filter(|above| *above != Path::new(""))?;
        Some(Location::new(Root::new(above), RelativePath::default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::inline::{Inline, Options};
    use crate::disk::{Disk, Ticket};

    #[test]
    fn a_link_to_a_volume_that_is_not_mounted_is_an_error_and_no_endless_loop() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/nonexistent/volume", directory.path().join("archive")).unwrap();
        let at = Location::new(Root::new(directory.path().join("archive/demo")), RelativePath::default());
        let mut disk = Inline::new(Options::default());
        let (mut path, mut operation) = MakePath::begin(&Rc::default(), at, true, 0o750);
        for _ in 0..20 {
            disk.submit(Ticket { session: 0, operation: 0 }, operation);
            match path.resume(disk.complete().unwrap().1) {
                Ok(Next::Disk(next)) => operation = next,
                Ok(Next::Done(())) => panic!("there is nothing to make it in"),
                Err(error) => {
                    assert_eq!(error.code, Code::PathCreate);
                    assert!(error.message.ends_with("archive/demo': [2] No such file or directory"), "{error}");
                    return;
                }
            }
        }
        panic!("it never ends");
    }
}
