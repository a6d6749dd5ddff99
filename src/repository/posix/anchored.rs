//! Which directories a power cut cannot take with what is in them.
//!
//! A file that was synced in a directory that was synced is lost all the same if the entry of that directory in the
//! one above it is not on the disk yet: another session may just have made it. So whoever is told that a file is safe
//! has to have every directory above it synced, unless this process knows that its entry is on the disk. That takes
//! one look into memory for a directory that files were written to before.
//!
//! Other processes of the server make directories too, and nobody tells of that. That does no harm: what a process
//! knows it has synced itself. Only where a directory is removed and made anew by others does it know what is no
//! longer so.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use bstr::BString;

use super::change::sync_failure;
use super::make_path::parent;
use crate::disk::{Completion, Errno, Location, Operation};
use crate::protocol::error::Result;
use crate::repository::{Next, Shared, unexpected_outcome};

/// So many directories are remembered. Archives are written to in one or two of them.
const REMEMBERED: usize = 64;

/// Directories that are on the disk with everything above them, as far as this process knows.
#[derive(Debug, Default)]
pub(crate) struct Anchored {
    known: RefCell<VecDeque<BString>>,
    /// How many directories this process has begun to make.
    made: Cell<u64>,
}

impl Anchored {
    /// The operation that makes the directory `at`. Whatever was known of it is forgotten: another one may have had
    /// the name.
    pub(crate) fn make(&self, at: Location, mode: u32) -> Operation {
        self.made.set(self.made.get() + 1);
        let path = at.absolute();
        let is_other =
            |known: &BString| known.strip_prefix(path.as_slice()).is_none_or(|rest| !matches!(rest, [] | [b'/', ..]));
        self.known.borrow_mut().retain(is_other);
        Operation::MakeDirectory { at, mode }
    }

    fn knows(&self, directory: &Location) -> bool {
        let directory = directory.absolute();
        self.known.borrow().contains(&directory)
    }

    /// All of `way` was synced since `made` directories had been begun.
    fn note(&self, way: &[Location], made: u64) {
        // One that was begun meanwhile may be made too late for a sync above it.
        if made != self.made.get() {
            return;
        }
        let mut known = self.known.borrow_mut();
        for directory in way.iter().rev().map(Location::absolute) {
            if !known.contains(&directory) {
                known.truncate(REMEMBERED - 1);
                known.push_front(directory);
            }
        }
    }
}

/// Puts a directory on the disk, with what is in it and the way to it.
#[derive(Debug)]
pub(crate) struct SyncPath {
    /// The directory and what is to be synced above it, up to what is known.
    way: Vec<Location>,
    /// How much of it is synced, or is being synced.
    begun: usize,
    made: u64,
}

impl SyncPath {
    /// Starts with `directory` itself.
    pub(crate) fn begin(shared: &Shared, directory: Location) -> (Self, Operation) {
        let anchored = &shared.anchored;
        let operation = Operation::SyncDirectory { at: directory.clone() };
        let mut way = vec![directory];
        while let Some(above) = way.last().filter(|last| !anchored.knows(last)).and_then(parent) {
            way.push(above);
        }
        (Self { way, begun: 1, made: anchored.made.get() }, operation)
    }

    /// Goes on after `completion`.
    pub(crate) fn resume(&mut self, shared: &Shared, completion: Completion) -> Result<Next<()>> {
        if let Err(failure) = completion {
            let at = self.way.get(self.begun - 1).ok_or_else(unexpected_outcome)?;
            if !self.is_foreign(at, failure.errno) {
                return Err(sync_failure(at, &failure));
            }
        }
        let Some(at) = self.way.get(self.begun) else {
            shared.anchored.note(&self.way, self.made);
            return Ok(Next::Done(()));
        };
        self.begun += 1;
        Ok(Next::Disk(Operation::SyncDirectory { at: at.clone() }))
    }

    /// Whether `at` is none of the server's: above what the administrator gave it, and out of its reach, or of a file
    /// system that syncs no directories or changes none.
    fn is_foreign(&self, at: &Location, errno: Errno) -> bool {
        !Rc::ptr_eq(&at.root, &self.way[0].root)
            && [Errno::PERM, Errno::ACCESS, Errno::INVAL, Errno::ROFS].contains(&errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Failure, Outcome, RelativePath, Root, Step};
    use crate::protocol::error::Code;

    fn at(path: &str) -> Location {
        Location::new(Root::new("/r/archive/demo"), RelativePath::new(path).unwrap())
    }

    fn denied(errno: i32) -> Completion {
        Err(Failure::new(Errno(errno), Step::Open))
    }

    /// What is synced for a directory, with `meanwhile` while the first of it is under way.
    fn sync(shared: &Shared, directory: Location, meanwhile: impl FnOnce()) -> Vec<String> {
        let (mut path, mut operation) = SyncPath::begin(shared, directory);
        meanwhile();
        let mut synced = Vec::new();
        loop {
            let Operation::SyncDirectory { at } = operation else { panic!("{operation:?}") };
            synced.push(at.to_string());
            match path.resume(shared, Ok(Outcome::Done)).unwrap() {
                Next::Disk(next) => operation = next,
                Next::Done(()) => return synced,
            }
        }
    }

    #[test]
    fn the_way_to_a_directory_is_synced_once_until_something_on_it_is_made() {
        let shared = Shared::default();
        let own = "/r/archive/demo/15-1/1";
        let way = ["/r/archive/demo/15-1", "/r/archive/demo", "/r/archive", "/r", "/"];
        assert_eq!(sync(&shared, at("15-1/1"), || ()), [&[own], &way[..]].concat());
        assert_eq!(sync(&shared, at("15-1/1"), || ()), [own]);
        assert_eq!(sync(&shared, at("15-1/2"), || ()), ["/r/archive/demo/15-1/2", way[0]]);
        let _ = shared.anchored.make(at("15-1/10"), 0o750);
        assert_eq!(sync(&shared, at("15-1/1"), || ()), [own], "that is another one");
        let _ = shared.anchored.make(at("15-1"), 0o750);
        for _ in 0..2 {
            let made = || _ = shared.anchored.make(at("other"), 0o750);
            assert_eq!(sync(&shared, at("15-1/1"), made).len(), 3, "it may be made too late for a sync above it");
        }
    }

    #[test]
    fn what_is_above_the_repository_and_none_of_the_servers_is_passed_over() {
        let shared = Shared::default();
        for (errno, passes) in [(13, true), (22, true), (30, true), (5, false)] {
            let (mut path, _) = SyncPath::begin(&shared, at(""));
            assert!(matches!(path.resume(&shared, Ok(Outcome::Done)), Ok(Next::Disk(_))));
            assert_eq!(path.resume(&shared, denied(errno)).is_ok(), passes, "{errno}");
        }
        let (mut path, _) = SyncPath::begin(&shared, at(""));
        assert_eq!(path.resume(&shared, denied(13)).unwrap_err().code, Code::PathOpen);
    }
}
