//! What stands between a newly written info file and its name.
//!
//! A client writes `backup.info`, `archive.info` and their copies as a whole, so whoever may write them
//! could lose every backup of the stanza at once. Between the end of writing and the renaming,
//! [`InfoGuard`] reads what is there and what is new, tells whether the client may do that, and keeps
//! what is replaced. Below role `admin` an info file only gains backups; an administrator's client cannot
//! drop what `min-age` protects.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::rc::Rc;

use super::keep::Keep;
use super::whole_file::{Contents, WholeFile};
use crate::config::Role;
use crate::disk::{Completion, Errno, File, Level, Location, Operation, RelativePath};
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::filter::Secret;
use crate::repository::policy::aged::Protected;
use crate::repository::policy::guard::{Guard, InfoReplacement};
use crate::repository::policy::info::{InfoFile, MAXIMUM, Reading};
use crate::repository::policy::layout::MANIFEST;
use crate::repository::{Next, Shared, refused, unexpected_outcome};

const BACKUP: &str = "backup.info";
const COPY_SUFFIX: &str = ".copy";
/// More labels than this are not named in a message.
const NAMED: usize = 3;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// What could not be verified, for the log.
    pub(super) unverified: Option<String>,
    /// The file that was looked at under the final name, or none if there was none. When another one has
    /// the name by now, the verdict is void.
    pub(super) replaced: Option<File>,
}

#[derive(Debug)]
enum Phase {
    /// The file that is replaced, then its copy or what it is a copy of, then the new one.
    Reading(WholeFile),
    /// Looking whether lost backups are there.
    Looking,
    Keeping(Box<Keep>),
}

/// The check of one new info file.
#[derive(Debug)]
pub(super) struct InfoGuard {
    shared: Rc<Shared>,
    guard: Rc<Guard>,
    /// What no client may lose.
    protected: Rc<Protected>,
    /// What the client encrypts with.
    key: Option<Secret>,
    target: Location,
    /// The file is removed, not replaced.
    removes: bool,
    /// What is still to be read after the present one.
    unread: VecDeque<Location>,
    /// What was read of the present file, its sibling and the new one.
    read: Vec<Contents>,
    /// The present file, if the new one differs.
    replaced: Contents,
    /// Labels that are not in the new file, and which of them are still there.
    lost: Vec<String>,
    present: Vec<String>,
    verdict: Verdict,
    phase: Phase,
}

impl InfoGuard {
    /// Starts to look at what is `written` and meant to get the name `target`.
    pub(super) fn begin(
        shared: &Rc<Shared>,
        replacement: &InfoReplacement,
        protected: Rc<Protected>,
        target: Location,
        written: Location,
    ) -> (Self, Operation) {
        let (mut guard, operation) = Self::begin_removal(shared, &replacement.guard, target);
        guard.unread.extend(sibling(&guard.target));
        guard.unread.push_back(written);
        (Self { protected, key: replacement.key.clone(), removes: false, ..guard }, operation)
    }

    /// Starts to keep what is at `target`, which is going to be removed. Whether it may be is seen to before.
    pub(super) fn begin_removal(shared: &Rc<Shared>, guard: &Rc<Guard>, target: Location) -> (Self, Operation) {
        let (file, operation) = WholeFile::begin(target.clone(), MAXIMUM);
        let guard = Self {
            shared: Rc::clone(shared),
            guard: Rc::clone(guard),
            protected: Rc::default(),
            key: None,
            target,
            removes: true,
            unread: VecDeque::new(),
            read: vec![],
            replaced: Contents::Missing,
            lost: vec![],
            present: vec![],
            verdict: Verdict::default(),
            phase: Phase::Reading(file),
        };
        (guard, operation)
    }

    /// About how many bytes it holds.
    pub(super) fn memory(&self) -> usize {
        let keeping = if let Phase::Keeping(keep) = &self.phase { keep.memory() } else { 0 };
        self.read.iter().chain([&self.replaced]).map(memory).sum::<usize>() + keeping
    }

    /// Goes on after `completion`. After an error, 105 when the client may not do that, the file must not be replaced.
    pub(super) fn resume(&mut self, completion: Completion) -> Result<Next<Verdict>> {
        match &mut self.phase {
            Phase::Reading(file) => match file.resume(completion)? {
                Next::Disk(operation) => Ok(Next::Disk(operation)),
                Next::Done(Ok(contents)) => self.was_read(contents),
                Next::Done(Err(failure)) => {
                    let text = format_args!("unable to read '{}' before it is replaced", self.target);
                    Err(refused(Code::FileRead, text, &self.target, failure.errno))
                }
            },
            Phase::Looking => {
                let label = self.lost.pop().ok_or_else(unexpected_outcome)?;
                match completion {
                    Ok(_) => self.present.push(label),
                    Err(failure) if [Errno::NOENT, Errno::NOTDIR].contains(&failure.errno) => {}
                    Err(failure) => {
                        let text = format_args!("unable to get info for the manifest of backup '{label}'");
                        return Err(refused(Code::FileOpen, text, &self.target, failure.errno));
                    }
                }
                self.look()
            }
            Phase::Keeping(keep) => match keep.resume(completion)? {
                Next::Disk(operation) => Ok(Next::Disk(operation)),
                Next::Done(()) => Ok(self.done()),
            },
        }
    }

    fn was_read(&mut self, found: Contents) -> Result<Next<Verdict>> {
        if let (Phase::Reading(file), true) = (&self.phase, self.read.is_empty()) {
            self.verdict.replaced = file.file().cloned();
        }
        self.read.push(found);
        if let Some(next) = self.unread.pop_front() {
            let (file, operation) = WholeFile::begin(next, MAXIMUM);
            self.phase = Phase::Reading(file);
            return Ok(Next::Disk(operation));
        }
        let new = self.read.pop().unwrap_or_default();
        if self.removes {
            self.replaced = new;
            return self.keep();
        }
        if let Contents::Missing = new {
            let message = format!("'{}' is gone before it has its name: another client writes it too", self.target);
            return Err(Error::new(Code::FileMissing, message));
        }
        if self.read.first() != Some(&new) {
            self.judge(&new)?;
            self.replaced = self.read.drain(..).next().unwrap_or_default();
        }
        self.read.clear();
        self.phase = Phase::Looking;
        self.look()
    }

    /// Whether the client may do that, as far as the files tell.
    fn judge(&mut self, new: &Contents) -> Result<()> {
        // Both are usually alike.
        self.read.dedup();
        let keys: Vec<_> = self.guard.measures.keys.iter().chain(&self.key).map(|key| key.0.as_slice()).collect();
        let admin = self.guard.measures.role == Role::Admin;
        if admin && self.protected.labels().is_empty() {
            return Ok(());
        }
        let mut opaque = false;
        let mut known = Vec::new();
        for old in &self.read {
            match understand(old, &keys) {
                Some(Reading::Known(file)) => known.push(file),
                Some(Reading::Opaque) => opaque = true,
                Some(Reading::Damaged(_)) | None => {}
            }
        }
        let Some(new) = understand(new, &keys) else { return Err(unexpected_outcome()) };
        match new {
            Reading::Known(new) if !known.is_empty() => {
                let mut lost = BTreeSet::new();
                for old in &known {
                    lost.extend(self.compare(old, &new)?);
                }
                self.lost = lost.into_iter().collect();
                Ok(())
            }
            Reading::Opaque if !known.is_empty() => Err(self.denied("nobody could read it any more")),
            Reading::Damaged(reason) if !known.is_empty() => Err(self.denied(&damaged(&reason))),
            _ if admin => {
                // `opaque-info` is for the roles below.
                if opaque {
                    self.unseen();
                }
                Ok(())
            }
            Reading::Known(_) | Reading::Damaged(_) if opaque => {
                Err(self.denied("it would not be encrypted with the passphrase of the present one"))
            }
            Reading::Known(_) => Ok(()),
            Reading::Damaged(reason) => Err(self.denied(&damaged(&reason))),
            Reading::Opaque => self.opaque(),
        }
    }

    fn compare(&self, old: &InfoFile, new: &InfoFile) -> Result<Vec<String>> {
        let result = if self.guard.measures.role == Role::Admin {
            old.keeps_in(new, self.protected.labels().iter().map(String::as_str)).map(|()| vec![])
        } else if self.is_backup() {
            old.lost_in(new)
        } else {
            old.unchanged_in(new).map(|()| vec![])
        };
        result.map_err(|reason| self.denied(&reason))
    }

    /// Nothing is known of either file.
    fn opaque(&mut self) -> Result<()> {
        if !self.guard.measures.opaque_info {
            let reason = "the server cannot read it without the repository's passphrase, and opaque-info=n is set";
            return Err(self.denied(reason));
        }
        self.unseen();
        Ok(())
    }

    fn unseen(&mut self) {
        self.verdict.unverified = Some(format!(
            "'{}' is replaced unseen, since it is encrypted with a passphrase that this server does not have\nHINT: set \
             repo-cipher-pass on the repository host, or opaque-info=n to refuse this to roles below admin.",
            self.target
        ));
    }

    fn is_backup(&self) -> bool {
        let name = self.target.path.name();
        name.strip_suffix(COPY_SUFFIX.as_bytes()).unwrap_or(name) == BACKUP.as_bytes()
    }

    /// Looks for the next of the lost backups. A client drops those of its own accord whose manifest is
    /// gone; the others would be lost.
    fn look(&mut self) -> Result<Next<Verdict>> {
        if let Some(label) = self.lost.last() {
            let directory = self.target.parent().ok_or_else(unexpected_outcome)?;
            let path = directory.path.join(format!("{label}/{MANIFEST}")).ok_or_else(unexpected_outcome)?;
            let at = Location::new(directory.root, path);
            return Ok(Next::Disk(Operation::Stat { at, follow: false, level: Level::Exists }));
        }
        if !self.present.is_empty() {
            // They were looked at from the end.
            self.present.reverse();
            let mut names = self.present.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
            if let Some(more) = self.present.len().checked_sub(NAMED + 1) {
                // Writing to a string does not fail.
                let _ = write!(names, " and {} more", more + 1);
            }
            let plural = if self.present.len() > 1 { "s" } else { "" };
            return Err(self.denied(&format!("backup{plural} {names} would be gone")));
        }
        self.keep()
    }

    fn keep(&mut self) -> Result<Next<Verdict>> {
        let Some(versions) = self.guard.measures.versions.clone() else { return Ok(self.done()) };
        let bytes = match std::mem::take(&mut self.replaced) {
            Contents::Read(bytes) => bytes,
            Contents::Missing => return Ok(self.done()),
            Contents::TooLarge => {
                let target = &self.target;
                self.verdict.unverified =
                    Some(format!("'{target}' is larger than {} MiB, so no version of it is kept", MAXIMUM >> 20));
                return Ok(self.done());
            }
        };
        let (keep, operation) = Keep::begin(&self.shared, versions, &self.target, bytes)?;
        self.phase = Phase::Keeping(Box::new(keep));
        Ok(Next::Disk(operation))
    }

    fn done(&mut self) -> Next<Verdict> {
        Next::Done(std::mem::take(&mut self.verdict))
    }

    /// The refusal, with what would be needed instead.
    fn denied(&self, reason: &str) -> Error {
        let target = &self.target;
        if self.guard.measures.role == Role::Admin {
            return Error::access(format!(
                "access denied: '{target}' has backups that are protected: {reason}\nHINT: min-age in repohostd.conf \
                 of the repository host protects them from every client; retention must be longer than that."
            ));
        }
        let may = if self.is_backup() { "only add backups to it" } else { "not change it" };
        Error::access(format!(
            "access denied: role '{}' may {may}, but {reason}: '{target}'\nHINT: that needs role '{}'.",
            self.guard.measures.role.name(),
            Role::Admin.name()
        ))
    }
}

fn damaged(reason: &str) -> String {
    format!("no client could read the new one: {reason}")
}

fn memory(contents: &Contents) -> usize {
    if let Contents::Read(bytes) = contents { bytes.capacity() } else { 0 }
}

fn understand(contents: &Contents, keys: &[&[u8]]) -> Option<Reading> {
    match contents {
        Contents::Missing => None,
        Contents::Read(bytes) => Some(InfoFile::read(bytes, keys)),
        Contents::TooLarge => Some(Reading::Damaged(format!("it is larger than {} MiB", MAXIMUM >> 20))),
    }
}

/// The copy of an info file, or what it is a copy of.
fn sibling(target: &Location) -> Option<Location> {
    let path = target.path.as_bytes();
    match path.strip_suffix(COPY_SUFFIX.as_bytes()) {
        Some(path) => Some(Location::new(target.root.clone(), RelativePath::new(path)?)),
        None => target.with_suffix(COPY_SUFFIX),
    }
}

#[cfg(test)]
mod tests;
