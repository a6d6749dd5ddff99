//! Finds out which backups of a stanza no client may remove, and the WAL that they need.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::whole_file::{Contents, WholeFile};
use crate::disk::{Completion, Errno, Kind, Level, Location, Operation, Outcome, RelativePath};
use crate::protocol::error::{Code, Error, Result};
use crate::repository::policy::aged::{Protected, future, is_young};
use crate::repository::policy::guard::Guard;
use crate::repository::policy::info::{self, InfoFile, Reading};
use crate::repository::policy::layout::{MANIFEST, is_label};
use crate::repository::{Next, Shared, unexpected_outcome};

/// More backups than any stanza has; who makes so many directories must not make the server hold them.
const BACKUPS_MAXIMUM: usize = 100_000;

/// The two info files of a stanza's backups, in the order in which they are tried.
const INFO: [&str; 2] = ["backup.info", "backup.info.copy"];

#[derive(Debug)]
enum Phase {
    Listing,
    /// Looking at the manifest of the last of these labels.
    Ages(Vec<String>),
    Info(WholeFile, usize),
}

/// Finds out what is protected in one stanza.
#[derive(Debug)]
pub(super) struct Search {
    shared: Rc<Shared>,
    guard: Rc<Guard>,
    /// `backup/STANZA`.
    backups: Location,
    phase: Phase,
    finished: BTreeSet<String>,
    young: BTreeSet<String>,
}

impl Search {
    /// Looks through `backups`, unless the session has done so just before.
    pub(super) fn begin(shared: &Rc<Shared>, guard: Rc<Guard>, backups: Location) -> (Self, Next<Rc<Protected>>) {
        let progress = match guard.protected(&backups.to_string(), shared.now.get()) {
            Some(protected) => Next::Done(protected),
            None if guard.measures.min_age.is_zero() => Next::Done(Rc::default()),
            None => Next::Disk(Operation::List { at: backups.clone(), level: Level::Type }),
        };
        let (shared, finished, young) = (Rc::clone(shared), BTreeSet::new(), BTreeSet::new());
        (Self { shared, guard, backups, phase: Phase::Listing, finished, young }, progress)
    }

    /// Goes on after the operation that was asked for last.
    pub(super) fn resume(&mut self, completion: Completion) -> Result<Next<Rc<Protected>>> {
        match &mut self.phase {
            Phase::Listing => {
                let (entries, rest) = match completion {
                    Ok(Outcome::Entries(entries, rest)) => (entries, rest),
                    Ok(_) => return Err(unexpected_outcome()),
                    Err(failure) if failure.errno == Errno::NOENT => return Ok(self.found(Protected::default())),
                    Err(failure) => return Err(failed("list backups in", &self.backups, failure.errno.0)),
                };
                let backups = entries.into_iter().filter(|entry| entry.metadata.kind != Kind::File);
                let names = backups.filter_map(|entry| String::from_utf8(entry.name.into()).ok());
                self.finished.extend(names.filter(|name| is_label(name)));
                if self.finished.len() > BACKUPS_MAXIMUM {
                    let message = format!("'{}' has more than {BACKUPS_MAXIMUM} backups", self.backups);
                    return Err(Error::new(Code::Memory, message));
                }
                if let Some(listing) = rest {
                    return Ok(Next::Disk(Operation::ListMore { listing }));
                }
                let labels: Vec<_> = std::mem::take(&mut self.finished).into_iter().collect();
                self.look(labels)
            }
            Phase::Ages(labels) => {
                let (mut labels, label) = (std::mem::take(labels), completion);
                let Some(last) = labels.pop() else { return Err(unexpected_outcome()) };
                match label {
                    Ok(Outcome::Metadata(metadata)) => {
                        let now = self.shared.now.get();
                        if is_young(metadata.changed, self.guard.measures.min_age, now) {
                            self.young.insert(last.clone());
                            if let Some(time) = future(metadata.changed, now) {
                                self.guard.note_future(&self.backups, &last, time);
                            }
                        }
                        self.finished.insert(last);
                    }
                    Ok(_) => return Err(unexpected_outcome()),
                    Err(failure) if failure.errno == Errno::NOENT => {}
                    Err(failure) => return Err(failed("look at backup", last, failure.errno.0)),
                }
                self.look(labels)
            }
            Phase::Info(file, index) => {
                let index = *index;
                let bytes = match file.resume(completion)? {
                    Next::Disk(operation) => return Ok(Next::Disk(operation)),
                    Next::Done(Ok(Contents::Read(bytes))) => bytes,
                    Next::Done(_) => Vec::new(),
                };
                let keys: Vec<&[u8]> = self.guard.measures.keys.iter().map(|key| key.0.as_slice()).collect();
                match InfoFile::read(&bytes, &keys) {
                    Reading::Known(info) => Ok(self.found(self.needed(Some(&info)))),
                    Reading::Opaque | Reading::Damaged(_) => Ok(self.read_info(index + 1)),
                }
            }
        }
    }

    /// Looks at the last of `labels`; once there are none, goes on.
    fn look(&mut self, labels: Vec<String>) -> Result<Next<Rc<Protected>>> {
        let Some(last) = labels.last() else {
            return Ok(if self.young.is_empty() { self.found(Protected::default()) } else { self.read_info(0) });
        };
        let at = self.below(&format!("{last}/{MANIFEST}"))?;
        self.phase = Phase::Ages(labels);
        Ok(Next::Disk(Operation::Stat { at, follow: false, level: Level::Detail }))
    }

    fn read_info(&mut self, index: usize) -> Next<Rc<Protected>> {
        let Some(at) = INFO.get(index).and_then(|name| self.below(name).ok()) else {
            return self.found(self.needed(None));
        };
        let (file, operation) = WholeFile::begin(at, info::MAXIMUM);
        self.phase = Phase::Info(file, index);
        Next::Disk(operation)
    }

    fn found(&self, protected: Protected) -> Next<Rc<Protected>> {
        let protected = Rc::new(protected);
        let now = self.shared.now.get();
        self.guard.note_protected(self.backups.to_string(), &protected, now);
        Next::Done(protected)
    }

    fn needed(&self, info: Option<&InfoFile>) -> Protected {
        Protected::of(&self.young, &self.finished, info)
    }

    fn below(&self, path: &str) -> Result<Location> {
        let path = RelativePath::new(path).ok_or_else(unexpected_outcome)?;
        Ok(Location::new(Rc::clone(&self.backups.root), path).without_links())
    }
}

fn failed(what: &str, which: impl std::fmt::Display, errno: i32) -> Error {
    let message = format_args!("unable to {what} '{which}', so that nothing is removed before its min-age");
    Error::system(Code::FileOpen, message, errno)
}
