//! What is looked at before a request that the names in its path do not decide.

use std::rc::Rc;

use super::aged::{Progress as SearchProgress, Protected, Search, is_young};
use super::layout::{Area, Part, Wal};
use super::{FINISHED, MANIFEST, Shared};
use crate::config::Role;
use crate::disk::{Completion, Entry, Kind, Level, Location, Operation, Outcome, RelativePath};
use crate::protocol::error::{Code, Error, Result};
use crate::repository::errno::ENOENT;
use crate::repository::info_guard::{InfoGuard, Progress as InfoProgress};
use crate::repository::view::{Access, lacks};
use crate::repository::{Step, Task, unexpected_outcome};

/// More directories than any archive has; they are not removed at once while ages count.
const DIRECTORIES_MAXIMUM: usize = 100_000;

/// How a check goes on.
#[derive(Debug)]
pub enum Progress {
    /// With this operation.
    Disk(Operation),
    /// Not at all: the request may begin.
    Passed,
}

/// Looks whether a request may begin.
#[derive(Debug)]
pub struct Check {
    shared: Rc<Shared>,
    /// What the request is about.
    place: Location,
    unfinished: Option<Unfinished>,
    aged: Option<Aged>,
    kept: bool,
    phase: Phase,
}

/// What has to be so.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) unfinished: Option<Unfinished>,
    pub(super) aged: Option<Aged>,
    /// A version of the file has to be kept.
    pub(super) kept: bool,
}

/// That a backup is not finished.
#[derive(Debug)]
pub(super) struct Unfinished {
    /// The directory of the backup.
    pub(super) directory: String,
    pub(super) label: String,
    /// What is wanted with it.
    pub(super) access: Access,
}

/// That what would be removed is old enough.
#[derive(Debug)]
pub(super) struct Aged {
    pub(super) matter: Matter,
    /// `backup/STANZA`, where it is found out what is protected.
    pub(super) backups: Location,
    /// The path as the client gave it.
    pub(super) path: String,
}

/// What would be removed or replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Matter {
    /// A backup, or a part of it.
    Backup(String),
    /// All backups, or what leads to them.
    Backups,
    /// A segment: its archive and its name.
    Segment(String, String),
    /// A directory of segments: the archive and the beginning of their names.
    Segments(String, String),
    /// All of one archive.
    Archive(String),
    /// All archives.
    Archives,
    /// A file that counts by its own age only.
    Record,
}

#[derive(Debug)]
enum Phase {
    Begun,
    Manifest,
    Searching(Search),
    /// Looking how old a file is.
    Age,
    /// Keeping a version of an info file.
    Keeping(Box<InfoGuard>),
    /// Looking how old the files in these directories are, the last of which is being listed.
    Ages(Vec<Location>),
}

impl Matter {
    /// What `access` to a part of a stanza would remove or replace, if its age matters.
    pub(super) fn of(area: Area, part: Part<'_>, access: Access) -> Option<Self> {
        let owned = |wal: Wal<'_>| (wal.archive.to_owned(), wal.name.to_owned());
        Some(match (access, part) {
            (Access::Write | Access::Remove | Access::RemoveTree, Part::Backup { label, .. }) => {
                Self::Backup(label.to_owned())
            }
            (Access::Remove, Part::Info) => Self::Backups,
            (Access::RemoveTree, Part::Stanza) if area == Area::Backup => Self::Backups,
            (Access::RemoveTree, Part::Stanza) => Self::Archives,
            (Access::RemoveTree, Part::Archive { name }) => Self::Archive(name.to_owned()),
            (Access::RemoveTree, Part::WalDirectory(wal)) => {
                let (archive, name) = owned(wal);
                Self::Segments(archive, name)
            }
            (Access::Remove, Part::Segment(wal)) => {
                let (archive, name) = owned(wal);
                Self::Segment(archive, name)
            }
            (Access::Remove, Part::Record) => Self::Record,
            // Directories that are empty may go, and links do not replace anything.
            _ => return None,
        })
    }
}

impl Check {
    /// Begins to look; `None` when what is known already lets the request begin.
    ///
    /// # Errors
    ///
    /// What the client is told.
    pub(super) fn begin(shared: Rc<Shared>, place: Location, wanted: Wanted) -> Result<Option<(Self, Operation)>> {
        let Wanted { unfinished, aged, kept } = wanted;
        let mut check = Self { shared, place, unfinished, aged, kept, phase: Phase::Begun };
        Ok(match check.look_at_backup()? {
            Progress::Disk(operation) => Some((check, operation)),
            Progress::Passed => None,
        })
    }

    /// Goes on after the operation that was asked for last.
    ///
    /// # Errors
    ///
    /// What the client is told.
    pub fn resume(&mut self, completion: Completion) -> Result<Progress> {
        match std::mem::replace(&mut self.phase, Phase::Begun) {
            Phase::Begun => Err(unexpected_outcome()),
            Phase::Manifest => {
                let Some(Unfinished { directory, access, .. }) = self.unfinished.take() else {
                    return Err(unexpected_outcome());
                };
                match completion {
                    Err(failure) if failure.errno == ENOENT => {
                        self.shared.note_unfinished(directory);
                        self.look_at_age()
                    }
                    Err(failure) => {
                        let message = format_args!("unable to look whether backup '{directory}' is finished");
                        Err(Error::system(Code::FileOpen, message, failure.errno.0))
                    }
                    Ok(_) => Err(with_reason(lacks(self.shared.role, Role::Admin, &self.place, access), FINISHED)),
                }
            }
            Phase::Searching(mut search) => match search.resume(completion)? {
                SearchProgress::Disk(operation) => {
                    self.phase = Phase::Searching(search);
                    Ok(Progress::Disk(operation))
                }
                SearchProgress::Found(protected) => {
                    let protected = Rc::new(protected);
                    if let Some(aged) = &self.aged {
                        self.shared.note_protected(aged.backups.to_string(), &protected);
                    }
                    self.decide(&protected)
                }
            },
            Phase::Age => match completion {
                Ok(Outcome::Metadata(metadata)) if is_young(metadata.changed, self.shared.min_age) => {
                    Err(self.refused("it is younger"))
                }
                // What is wrong with it the request says.
                Ok(Outcome::Metadata(_)) | Err(_) => Ok(self.keep()),
                Ok(_) => Err(unexpected_outcome()),
            },
            Phase::Keeping(mut guard) => Ok(match guard.resume(completion)? {
                InfoProgress::Disk(operation) => {
                    self.phase = Phase::Keeping(guard);
                    Progress::Disk(operation)
                }
                InfoProgress::Done(_) => Progress::Passed,
            }),
            Phase::Ages(mut directories) => {
                let (entries, rest) = match completion {
                    Ok(Outcome::Entries(entries, rest)) => (entries, rest),
                    Ok(_) => return Err(unexpected_outcome()),
                    Err(failure) if failure.errno == ENOENT => (Vec::new(), None),
                    Err(failure) => {
                        let message = format_args!("unable to look how old the files in '{}' are", self.place);
                        return Err(Error::system(Code::PathOpen, message, failure.errno.0));
                    }
                };
                let directory = directories.pop().ok_or_else(unexpected_outcome)?;
                self.look_at_entries(&directory, entries, &mut directories)?;
                // Its subdirectories come after the rest of it.
                if rest.is_some() {
                    directories.push(directory);
                }
                Ok(self.look_further(directories, rest.map(|listing| Operation::ListMore { listing })))
            }
        }
    }

    /// Keeps a version of what is going to be removed, if that is wanted.
    fn keep(&mut self) -> Progress {
        if !std::mem::take(&mut self.kept) {
            return Progress::Passed;
        }
        // Its age has been seen to.
        let rules = self.shared.info_rules(&Protected::default(), None);
        let (guard, operation) = InfoGuard::begin_removal(rules, self.place.clone());
        self.phase = Phase::Keeping(Box::new(guard));
        Progress::Disk(operation)
    }

    fn look_at_backup(&mut self) -> Result<Progress> {
        match &self.unfinished {
            Some(backup) if !self.shared.is_known_unfinished(&backup.directory) => {
                let path = RelativePath::new(&format!("{}/{MANIFEST}", backup.label)).ok_or_else(unexpected_outcome)?;
                let at = Location::new(Rc::clone(&self.place.root), path).without_links();
                self.phase = Phase::Manifest;
                Ok(Progress::Disk(Operation::Stat { at, follow: false, level: Level::Exists }))
            }
            _ => self.look_at_age(),
        }
    }

    fn look_at_age(&mut self) -> Result<Progress> {
        let Some(aged) = &self.aged else { return Ok(self.keep()) };
        if let Some(protected) = self.shared.protected(&aged.backups.to_string()) {
            return self.decide(&protected);
        }
        let search = Search::new(aged.backups.clone(), self.shared.min_age, Rc::clone(&self.shared.keys));
        let operation = search.begin();
        self.phase = Phase::Searching(search);
        Ok(Progress::Disk(operation))
    }

    fn decide(&mut self, protected: &Protected) -> Result<Progress> {
        let Some(aged) = &self.aged else { return Ok(self.keep()) };
        let needed = || Err(self.refused("a younger backup needs it"));
        let kept = |label: &str| Err(self.refused(&format!("backup '{label}' is younger, or a younger one needs it")));
        match (&aged.matter, protected.labels().last()) {
            (Matter::Backup(label), _) if protected.labels().contains(label) => kept(label),
            (Matter::Backups | Matter::Archives, Some(label)) => kept(label),
            (Matter::Segment(archive, name) | Matter::Segments(archive, name), _)
                if protected.needs(Wal { archive, name }) =>
            {
                needed()
            }
            (Matter::Archive(name), _) if protected.needs_archive(name) => needed(),
            (Matter::Backup(_) | Matter::Backups, _) => Ok(self.keep()),
            (Matter::Segment(..) | Matter::Record, _) => {
                self.phase = Phase::Age;
                Ok(Progress::Disk(Operation::Stat { at: self.place.clone(), follow: false, level: Level::Detail }))
            }
            (Matter::Segments(..) | Matter::Archive(_) | Matter::Archives, _) => {
                Ok(self.look_further(vec![self.place.clone()], None))
            }
        }
    }

    /// Goes on with `more` of the last directory, or with the directory before it.
    fn look_further(&mut self, directories: Vec<Location>, more: Option<Operation>) -> Progress {
        let next = more.or_else(|| Some(Operation::List { at: directories.last()?.clone(), level: Level::Detail }));
        self.phase = Phase::Ages(directories);
        next.map_or_else(|| self.keep(), Progress::Disk)
    }

    /// Looks at what is in a directory; those in it are added to `further`.
    fn look_at_entries(&self, at: &Location, entries: Vec<Entry>, further: &mut Vec<Location>) -> Result<()> {
        for Entry { name, metadata } in entries {
            if metadata.kind == Kind::Directory {
                let path = if at.path.is_root() { name } else { format!("{}/{name}", at.path.as_str()) };
                let path = RelativePath::new(&path).ok_or_else(unexpected_outcome)?;
                further.push(Location::new(Rc::clone(&at.root), path).without_links());
                if further.len() > DIRECTORIES_MAXIMUM {
                    let message = format!("'{}' has more than {DIRECTORIES_MAXIMUM} directories", self.place);
                    return Err(Error::new(Code::Memory, message));
                }
            } else if is_young(metadata.changed, self.shared.min_age) {
                return Err(self.refused(&format!("'{name}' in it is younger")));
            }
        }
        Ok(())
    }

    fn refused(&self, why: &str) -> Error {
        let path: String = self.aged.iter().flat_map(|aged| aged.path.chars()).take(200).collect();
        Error::access(format!(
            "access denied: '{path}' cannot be removed or replaced before the min-age of {} s: {why}\n\
             HINT: the retention of clients has to be longer than min-age in repohostd.conf of the repository host.",
            self.shared.min_age.as_secs()
        ))
    }
}

/// Adds a reason to the first line of a text.
pub(in crate::repository) fn with_reason(mut error: Error, reason: &str) -> Error {
    let end = error.message.find('\n').unwrap_or(error.message.len());
    error.message.insert_str(end, &format!(", {reason}"));
    error
}

/// A request that begins once its check is passed.
pub struct Checked {
    check: Check,
    start: Option<Start>,
    task: Option<Box<dyn Task>>,
}

/// Begins a request.
pub type Start = Box<dyn FnOnce() -> (Box<dyn Task>, Step)>;

impl Checked {
    /// Lets `start` begin when `check` is passed, which has begun with `operation`.
    #[must_use]
    pub fn begin(check: Check, operation: Operation, start: Start) -> (Self, Step) {
        (Self { check, start: Some(start), task: None }, Step::Disk(operation))
    }
}

impl Task for Checked {
    fn resume(&mut self, completion: Completion) -> Result<Step> {
        if let Some(task) = &mut self.task {
            return task.resume(completion);
        }
        if let Progress::Disk(operation) = self.check.resume(completion)? {
            return Ok(Step::Disk(operation));
        }
        let (task, step) = self.start.take().ok_or_else(unexpected_outcome)?();
        self.task = Some(task);
        Ok(step)
    }

    fn proceed(&mut self) -> Result<Step> {
        self.task.as_mut().ok_or_else(unexpected_outcome)?.proceed()
    }
}
