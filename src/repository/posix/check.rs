//! What is looked at before a request that the names in its path do not decide.

use std::rc::Rc;

use super::info_guard::InfoGuard;
use super::search::Search;
use crate::disk::{Completion, Entry, Errno, Kind, Level, Location, Operation, Outcome, RelativePath};
use crate::protocol::carried::Carried;
use crate::protocol::error::{Code, Error, Result};
use crate::repository::policy::aged::{Protected, future, is_young};
use crate::repository::policy::finished::Watch;
use crate::repository::policy::guard::Precaution;
use crate::repository::policy::layout::{MANIFEST, Part};
use crate::repository::policy::preconditions::{Preconditions, RemovalSubject};
use crate::repository::{Next, Shared, Step, Task, unexpected_outcome};

/// More directories than any archive has; they are not removed at once while ages count.
const DIRECTORIES_MAXIMUM: usize = 100_000;

/// Looks whether a request may begin.
#[derive(Debug)]
pub(crate) struct Check {
    shared: Rc<Shared>,
    wanted: Box<Preconditions>,
    phase: Phase,
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

impl Check {
    /// Begins to look; `None` when what is known already lets the request begin.
    pub(crate) fn begin(shared: &Rc<Shared>, wanted: Box<Preconditions>) -> Result<Option<(Self, Operation)>> {
        let mut check = Self { shared: Rc::clone(shared), wanted, phase: Phase::Begun };
        Ok(match check.look_at_backup()? {
            Next::Disk(operation) => Some((check, operation)),
            Next::Done(()) => None,
        })
    }

    /// Goes on after the operation that was asked for last.
    pub(crate) fn resume(&mut self, completion: Completion) -> Result<Next<()>> {
        match std::mem::replace(&mut self.phase, Phase::Begun) {
            Phase::Begun => Err(unexpected_outcome()),
            Phase::Manifest => {
                let watch = self.wanted.unfinished.take().ok_or_else(unexpected_outcome)?;
                match completion {
                    Err(failure) if failure.errno == Errno::NOENT => {
                        self.wanted.guard.note_unfinished(watch.directory().to_owned());
                        self.look_at_age()
                    }
                    Err(failure) => Err(Error::system(
                        Code::FileOpen,
                        format_args!("unable to look whether backup '{}' is finished", watch.directory()),
                        failure.errno.0,
                    )),
                    Ok(_) => Err(watch.refusal(self.at())),
                }
            }
            Phase::Searching(mut search) => {
                let progress = search.resume(completion)?;
                self.take_search(search, progress)
            }
            Phase::Age => match completion {
                Ok(Outcome::Metadata(metadata)) if self.is_young(metadata.changed) => {
                    Err(self.refused(&format!("it is younger{}", self.dated(metadata.changed))))
                }
                // What is wrong with it the request says.
                Ok(Outcome::Metadata(_)) | Err(_) => Ok(self.keep()),
                Ok(_) => Err(unexpected_outcome()),
            },
            Phase::Keeping(mut guard) => Ok(match guard.resume(completion)? {
                Next::Disk(operation) => {
                    self.phase = Phase::Keeping(guard);
                    Next::Disk(operation)
                }
                Next::Done(_) => Next::Done(()),
            }),
            Phase::Ages(mut directories) => {
                let (entries, rest) = match completion {
                    Ok(Outcome::Entries(entries, rest)) => (entries, rest),
                    Ok(_) => return Err(unexpected_outcome()),
                    Err(failure) if failure.errno == Errno::NOENT => (Vec::new(), None),
                    Err(failure) => {
                        return Err(Error::system(
                            Code::PathOpen,
                            format_args!("unable to look how old the files in '{}' are", self.at()),
                            failure.errno.0,
                        ));
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
    fn keep(&mut self) -> Next<()> {
        if !std::mem::take(&mut self.wanted.kept) {
            return Next::Done(());
        }
        // Its age has been seen to.
        let (guard, operation) = InfoGuard::begin_removal(&self.shared, &self.wanted.guard, self.at().clone());
        self.phase = Phase::Keeping(Box::new(guard));
        Next::Disk(operation)
    }

    fn look_at_backup(&mut self) -> Result<Next<()>> {
        let Some(Part::Backup { label, .. }) = self.wanted.place.part().filter(|_| self.wanted.unfinished.is_some())
        else {
            return self.look_at_age();
        };
        let path = RelativePath::new(format!("{label}/{MANIFEST}")).ok_or_else(unexpected_outcome)?;
        let at = Location::new(Rc::clone(&self.at().root), path).without_links();
        self.phase = Phase::Manifest;
        Ok(Next::Disk(Operation::Stat { at, follow: false, level: Level::Exists }))
    }

    fn look_at_age(&mut self) -> Result<Next<()>> {
        let Some(aged) = &self.wanted.aged else { return Ok(self.keep()) };
        let (search, progress) = Search::begin(&self.shared, Rc::clone(&self.wanted.guard), aged.backups.clone());
        self.take_search(search, progress)
    }

    fn take_search(&mut self, search: Search, progress: Next<Rc<Protected>>) -> Result<Next<()>> {
        match progress {
            Next::Disk(operation) => {
                self.phase = Phase::Searching(search);
                Ok(Next::Disk(operation))
            }
            Next::Done(protected) => self.decide(&protected),
        }
    }

    fn decide(&mut self, protected: &Protected) -> Result<Next<()>> {
        let Some(subject) = RemovalSubject::of(&self.wanted.place, self.wanted.access) else { return Ok(self.keep()) };
        let needed = || Err(self.refused("a younger backup needs it"));
        let kept = |label: &str| Err(self.refused(&format!("backup '{label}' is younger, or a younger one needs it")));
        match (subject, protected.labels().last()) {
            (RemovalSubject::Backup(label), _) if protected.labels().contains(label) => kept(label),
            (RemovalSubject::Backups | RemovalSubject::Archives, Some(label)) => kept(label),
            (RemovalSubject::Segment(wal) | RemovalSubject::Segments(wal), _) if protected.needs(wal) => needed(),
            (RemovalSubject::Archive(name), _) if protected.needs_archive(name) => needed(),
            (RemovalSubject::Backup(_) | RemovalSubject::Backups, _) => Ok(self.keep()),
            (RemovalSubject::Segment(..) | RemovalSubject::Record, _) => {
                self.phase = Phase::Age;
                Ok(Next::Disk(Operation::Stat { at: self.at().clone(), follow: false, level: Level::Detail }))
            }
            (RemovalSubject::Segments(..) | RemovalSubject::Archive(_) | RemovalSubject::Archives, _) => {
                Ok(self.look_further(vec![self.at().clone()], None))
            }
        }
    }

    /// Goes on with `more` of the last directory, or with the directory before it.
    fn look_further(&mut self, directories: Vec<Location>, more: Option<Operation>) -> Next<()> {
        let next = more.or_else(|| Some(Operation::List { at: directories.last()?.clone(), level: Level::Detail }));
        self.phase = Phase::Ages(directories);
        next.map_or_else(|| self.keep(), Next::Disk)
    }

    /// Looks at what is in a directory; those in it are added to `further`.
    fn look_at_entries(&self, at: &Location, entries: Vec<Entry>, further: &mut Vec<Location>) -> Result<()> {
        for Entry { name, metadata } in entries {
            if metadata.kind == Kind::Directory {
                let path = at.path.join(name).ok_or_else(unexpected_outcome)?;
                further.push(Location::new(Rc::clone(&at.root), path).without_links());
                if further.len() > DIRECTORIES_MAXIMUM {
                    let message = format!("'{}' has more than {DIRECTORIES_MAXIMUM} directories", self.at());
                    return Err(Error::new(Code::Memory, message));
                }
            } else if self.is_young(metadata.changed) {
                let dated = self.dated(metadata.changed);
                return Err(self.refused(&format!("'{}' in it is younger{dated}", Carried(&name))));
            }
        }
        Ok(())
    }

    /// Where what the request is about is.
    fn at(&self) -> &Location {
        &self.wanted.place.location
    }

    fn is_young(&self, changed: i64) -> bool {
        is_young(changed, self.wanted.guard.measures.min_age, self.shared.now.get())
    }

    /// What is said of something that was changed in the future.
    fn dated(&self, changed: i64) -> String {
        future(changed, self.shared.now.get())
            .map_or_else(String::new, |time| format!(", dated {time}, which has not come yet"))
    }

    fn refused(&self, why: &str) -> Error {
        let path = Carried::cut(self.wanted.aged.as_ref().map_or(&[], |aged| aged.path.as_slice()));
        Error::access(format!(
            "access denied: '{path}' cannot be removed or replaced before the min-age of {} s: {why}\n\
             HINT: the retention of clients has to be longer than min-age in repohostd.conf of the repository host.",
            self.wanted.guard.measures.min_age.as_secs()
        ))
    }
}

/// A request that begins once its check is passed, and ends when its backup is finished meanwhile.
pub(crate) struct Checked {
    at: Location,
    watch: Option<Watch>,
    /// What is looked at, and what begins then.
    check: Option<(Check, Start)>,
    task: Option<Box<dyn Task>>,
}

/// Begins a request.
pub(crate) type Start = Box<dyn FnOnce() -> (Box<dyn Task>, Step)>;

impl Checked {
    /// Lets the request on `at` begin with `start` when the precaution allows it.
    pub(crate) fn begin(
        shared: &Rc<Shared>,
        at: Location,
        precaution: Precaution,
        start: Start,
    ) -> Result<(Self, Step)> {
        let Precaution { preconditions, watch } = precaution;
        let check = preconditions.map_or(Ok(None), |wanted| Check::begin(shared, wanted))?;
        let Some((check, operation)) = check else {
            let (task, step) = start();
            return Ok((Self { at, watch, check: None, task: Some(task) }, step));
        };
        Ok((Self { at, watch, check: Some((check, start)), task: None }, Step::Disk(operation)))
    }
}

impl Task for Checked {
    fn resume(&mut self, completion: Completion) -> Result<Step> {
        if let Some((check, _)) = &mut self.check {
            if let Next::Disk(operation) = check.resume(completion)? {
                return Ok(Step::Disk(operation));
            }
            let (_, start) = self.check.take().ok_or_else(unexpected_outcome)?;
            let (task, step) = start();
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
