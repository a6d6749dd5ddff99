//! Making a directory with whatever is missing above it.

use std::path::Path;
use std::rc::Rc;

use crate::disk::{Completion, Errno, Location, Operation, RelativePath, Root};

use crate::repository::{Next, Shared};

/// A directory that is being made, from the first ancestor that exists downwards.
#[derive(Debug)]
pub(crate) struct MakePath {
    /// The directory and its ancestors, deepest first.
    chain: Vec<Location>,
    at: usize,
    /// Something above is there, so that whatever is missing from now on cannot be made.
    descending: bool,
    mode: u32,
    shared: Rc<Shared>,
}

impl MakePath {
    /// Makes `directory`, with permission bits `mode` for all that is made.
    pub(crate) fn new(shared: &Rc<Shared>, directory: Location, mode: u32) -> Self {
        let mut chain = vec![directory];
        while let Some(parent) = chain.last().and_then(parent) {
            chain.push(parent);
        }
        Self { chain, at: 0, descending: false, mode, shared: Rc::clone(shared) }
    }

    /// The first operation.
    pub(crate) fn begin(&self) -> Operation {
        self.shared.anchored.make(self.chain[self.at].clone(), self.mode)
    }

    /// What comes after `completion`. The error is the directory that cannot be made, and why.
    pub(crate) fn resume(&mut self, completion: Completion) -> Result<Next<()>, (Location, Errno)> {
        match completion.map_err(|failure| failure.errno) {
            Err(Errno::NOENT) if !self.descending && self.at + 1 < self.chain.len() => self.at += 1,
            Err(errno) if errno != Errno::EXIST => return Err((self.chain[self.at].clone(), errno)),
            _ if self.at == 0 => return Ok(Next::Done(())),
            _ => {
                self.at -= 1;
                self.descending = true;
            }
        }
        Ok(Next::Disk(self.begin()))
    }
}

/// The directory that `location` is in, also where that is above its root.
pub(crate) fn parent(location: &Location) -> Option<Location> {
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
        let mut path = MakePath::new(&Rc::default(), at, 0o750);
        let mut operation = path.begin();
        for _ in 0..20 {
            disk.submit(Ticket { session: 0, operation: 0 }, operation);
            match path.resume(disk.complete().unwrap().1) {
                Ok(Next::Disk(next)) => operation = next,
                Ok(Next::Done(())) => panic!("there is nothing to make it in"),
                Err((at, errno)) => {
                    assert_eq!(errno, Errno::NOENT);
                    assert!(at.to_string().ends_with("archive/demo"), "{at}");
                    return;
                }
            }
        }
        panic!("it never ends");
    }
}
