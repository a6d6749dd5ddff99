//! Making a directory with whatever is missing above it.

use std::path::Path;

use crate::disk::{Completion, Errno, Location, Operation, RelativePath, Root};

use super::errno::{EEXIST, ENOENT};

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
        Self { chain, at: 0, mode, made: Vec::new() }
    }

    /// The first operation.
    #[must_use]
    pub fn begin(&self) -> Operation {
        Operation::MakeDirectory { at: self.chain[self.at].clone(), mode: self.mode }
    }

    /// What comes after `completion`.
    pub fn resume(&mut self, completion: Completion) -> Progress {
        match completion.map_err(|failure| failure.errno) {
            Err(ENOENT) if self.at + 1 < self.chain.len() => self.at += 1,
            Err(errno) if errno != EEXIST => return Progress::Failed(self.chain[self.at].clone(), errno),
            outcome => {
                if outcome.is_ok() {
                    self.made.push(self.chain[self.at].clone());
                }
                if self.at == 0 {
                    return Progress::Done;
                }
                self.at -= 1;
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
