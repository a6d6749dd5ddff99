//! What is looked at before a request that the names in its path do not decide.

use std::rc::Rc;

use bstr::BString;

use super::aged::{Progress as SearchProgress, Protected, Search, future, is_young};
use super::finished::Watch;
use super::layout::{Area, Part, Wal};
use super::{MANIFEST, Precaution, Shared};
use crate::disk::{Completion, Entry, Kind, Level, Location, Operation, Outcome, RelativePath};
use crate::protocol::carried::Carried;
use crate::protocol::error::{Code, Error, Result};
use crate::repository::errno::ENOENT;
use crate::repository::info_guard::{InfoGuard, Progress as InfoProgress};
use crate::repository::view::Access;
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
    wanted: Wanted,
    phase: Phase,
}

/// What has to be so.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The backup with this label is not finished.
    pub(super) unfinished: Option<(Watch, String)>,
    pub(super) aged: Option<Aged>,
    /// A version of the file has to be kept.
    pub(super) kept: bool,
}

impl Wanted {
    pub(super) const fn is_nothing(&self) -> bool {
        self.unfinished.is_none() && self.aged.is_none() && !self.kept
    }
}

/// That what would be removed is old enough.
#[derive(Debug)]
pub(super) struct Aged {
    pub(super) matter: Matter,
    /// `backup/STANZA`, where it is found out what is protected.
    pub(super) backups: Location,
    /// The path as the client gave it.
    pub(super) path: BString,
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
        let mut check = Self { shared, place, wanted, phase: Phase::Begun };
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
                let (watch, _) = self.wanted.unfinished.take().ok_or_else(unexpected_outcome)?;
                match completion {
                    Err(failure) if failure.errno == ENOENT => {
                        self.shared.note_unfinished(watch.directory().to_owned());
                        self.look_at_age()
                    }
                    Err(failure) => {
                        let message = format_args!("unable to look whether backup '{}' is finished", watch.directory());
                        Err(Error::system(Code::FileOpen, message, failure.errno.0))
                    }
                    Ok(_) => Err(watch.refusal(&self.place)),
                }
            }
            Phase::Searching(mut search) => {
                let progress = search.resume(completion)?;
                self.take_search(search, progress)
            }
            Phase::Age => match completion {
                Ok(Outcome::Metadata(metadata)) if is_young(metadata.changed, self.shared.min_age) => {
                    Err(self.refused(&format!("it is younger{}", dated(metadata.changed))))
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
        if !std::mem::take(&mut self.wanted.kept) {
            return Progress::Passed;
        }
        // Its age has been seen to.
        let rules = self.shared.info_rules(&Protected::default(), None);
        let (guard, operation) = InfoGuard::begin_removal(rules, self.place.clone());
        self.phase = Phase::Keeping(Box::new(guard));
        Progress::Disk(operation)
    }

    fn look_at_backup(&mut self) -> Result<Progress> {
        match &self.wanted.unfinished {
            Some((_, label)) => {
                let path = RelativePath::new(format!("{label}/{MANIFEST}")).ok_or_else(unexpected_outcome)?;
                let at = Location::new(Rc::clone(&self.place.root), path).without_links();
                self.phase = Phase::Manifest;
                Ok(Progress::Disk(Operation::Stat { at, follow: false, level: Level::Exists }))
            }
            None => self.look_at_age(),
        }
    }

    fn look_at_age(&mut self) -> Result<Progress> {
        let Some(aged) = &self.wanted.aged else { return Ok(self.keep()) };
        let (search, progress) = Search::begin(Rc::clone(&self.shared), aged.backups.clone());
        self.take_search(search, progress)
    }

    fn take_search(&mut self, search: Search, progress: SearchProgress) -> Result<Progress> {
        match progress {
            SearchProgress::Disk(operation) => {
                self.phase = Phase::Searching(search);
                Ok(Progress::Disk(operation))
            }
            SearchProgress::Found(protected) => self.decide(&protected),
        }
    }

    fn decide(&mut self, protected: &Protected) -> Result<Progress> {
        let Some(aged) = &self.wanted.aged else { return Ok(self.keep()) };
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
                let path = at.path.join(name).ok_or_else(unexpected_outcome)?;
                further.push(Location::new(Rc::clone(&at.root), path).without_links());
                if further.len() > DIRECTORIES_MAXIMUM {
                    let message = format!("'{}' has more than {DIRECTORIES_MAXIMUM} directories", self.place);
                    return Err(Error::new(Code::Memory, message));
                }
            } else if is_young(metadata.changed, self.shared.min_age) {
                let dated = dated(metadata.changed);
                return Err(self.refused(&format!("'{}' in it is younger{dated}", Carried(&name))));
            }
        }
        Ok(())
    }

    fn refused(&self, why: &str) -> Error {
        let path = Carried::cut(self.wanted.aged.as_ref().map_or(&[], |aged| aged.path.as_slice()));
        Error::access(format!(
            "access denied: '{path}' cannot be removed or replaced before the min-age of {} s: {why}\n\
             HINT: the retention of clients has to be longer than min-age in repohostd.conf of the repository host.",
            self.shared.min_age.as_secs()
        ))
    }
}

/// What is said of something that was changed in the future.
fn dated(changed: i64) -> String {
    future(changed).map_or_else(String::new, |time| format!(", dated {time}, which has not come yet"))
}

/// A request that begins once its check is passed, and ends when its backup is finished meanwhile.
pub struct Checked {
    at: Location,
    check: Option<Check>,
    watch: Option<Watch>,
    start: Option<Start>,
    task: Option<Box<dyn Task>>,
}

/// Begins a request.
pub type Start = Box<dyn FnOnce() -> (Box<dyn Task>, Step)>;

impl Checked {
    /// Lets the request on `at` begin with `start` when the precaution allows it.
    #[must_use]
    pub fn begin(at: Location, precaution: Precaution, start: Start) -> (Self, Step) {
        let Precaution { check, watch } = precaution;
        let Some((check, operation)) = check else {
            let (task, step) = start();
            return (Self { at, check: None, watch, start: None, task: Some(task) }, step);
        };
        (Self { at, check: Some(check), watch, start: Some(start), task: None }, Step::Disk(operation))
    }
}

impl Task for Checked {
    fn resume(&mut self, completion: Completion) -> Result<Step> {
        if let Some(check) = &mut self.check {
            if let Progress::Disk(operation) = check.resume(completion)? {
                return Ok(Step::Disk(operation));
            }
            self.check = None;
            let (task, step) = self.start.take().ok_or_else(unexpected_outcome)?();
            self.task = Some(task);
            return Ok(step);
        }
        let step = self.task.as_mut().ok_or_else(unexpected_outcome)?.resume(completion)?;
        // What is done is done; what would go on does not.
        if let (Step::Disk(_) | Step::Work, Some(watch)) = (&step, &self.watch) {
            watch.check(&self.at)?;
        }
        Ok(step)
    }

    fn proceed(&mut self) -> Result<Step> {
        self.task.as_mut().ok_or_else(unexpected_outcome)?.proceed()
    }
}
