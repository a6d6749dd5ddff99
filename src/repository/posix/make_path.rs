//! Making a directory with whatever is missing above it.

use std::path::Path;

use crate::disk::{Completion, Errno, Location, Operation, RelativePath, Root};

use crate::repository::errno::{EEXIST, ENOENT};

/// What making a path needs next.
#[derive(Debug)]
pub enum Progress {
    /// This operation.
    Disk(Operation),
    /// Nothing: the directory is there.
    Done,
    /// Nothing: this failed.
    Failed(Location, Errno),
}

/// A directory that is being made, from the first ancestor that exists downwards.
#[derive(Debug)]
pub struct MakePath {
    /// The directory and its ancestors, deepest first.
    chain: Vec<Location>,
    at: usize,
    /// Something above is there, so that whatever is missing from now on cannot be made.
    descending: bool,
    mode: u32,
    /// What was made, shallowest first.
    pub made: Vec<Location>,
}

impl MakePath {
    /// Makes `directory`, with permission bits `mode` for all that is made.
    #[must_use]
    pub fn new(directory: Location, mode: u32) -> Self {
        let mut chain = vec![directory];
        while let Some(parent) = chain.last().and_then(parent) {
            chain.push(parent);
        }
        Self { chain, at: 0, descending: false, mode, made: Vec::new() }
    }

    /// The first operation.
    #[must_use]
    pub fn begin(&self) -> Operation {
        Operation::MakeDirectory { at: self.chain[self.at].clone(), mode: self.mode }
    }

    /// What comes after `completion`.
    pub fn resume(&mut self, completion: Completion) -> Progress {
        match completion.map_err(|failure| failure.errno) {
            Err(ENOENT) if !self.descending && self.at + 1 < self.chain.len() => self.at += 1,
            Err(errno) if errno != EEXIST => return Progress::Failed(self.chain[self.at].clone(), errno),
            outcome => {
                if outcome.is_ok() {
                    self.made.push(self.chain[self.at].clone());
                }
                if self.at == 0 {
                    return Progress::Done;
                }
                self.at -= 1;
                self.descending = true;
            }
        }
        Progress::Disk(self.begin())
    }
}

/// The directory that `location` is in, also where that is above its root.
#[must_use]
pub fn parent(location: &Location) -> Option<Location> {
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
        let mut path = MakePath::new(at, 0o750);
        let mut operation = path.begin();
        for _ in 0..20 {
            disk.submit(Ticket { session: 0, operation: 0 }, operation);
            match path.resume(disk.complete().unwrap().1) {
                Progress::Disk(next) => operation = next,
                Progress::Done => panic!("there is nothing to make it in"),
                Progress::Failed(at, errno) => {
                    assert_eq!(errno, ENOENT);
                    assert!(at.to_string().ends_with("archive/demo"), "{at}");
                    return;
                }
            }
        }
        panic!("it never ends");
    }
}
