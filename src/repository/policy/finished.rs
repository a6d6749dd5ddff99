//! Backups that got their manifest through this server lately.
//!
//! What is not finished when a request begins may be when it ends: another session can finish it. Where several
//! processes serve, each has to be told what the others [finished](Finished::take_news).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::config::Role;
use crate::disk::Location;
use crate::protocol::carried::Carried;
use crate::protocol::error::{Error, Result};

use super::access::Access;
use super::view::lacks;

/// So many are remembered. Whoever has been at it for longer is taken to be too late.
const REMEMBERED: usize = 64;

/// The backups that were finished through this process, and what it was told of other ones.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    count: Cell<u64>,
    /// The directories of the last of them, the latest first.
    recent: RefCell<VecDeque<String>>,
    /// What other processes are to be told, where there are some, the latest last.
    news: RefCell<Option<VecDeque<String>>>,
}

impl Finished {
    /// Notes that the backup in `directory` got its manifest.
    pub(in crate::repository) fn note(&self, directory: String) {
        if let Some(news) = self.news.borrow_mut().as_mut() {
            news.push_back(directory.clone());
            // Whoever hears of so many at once takes every other backup to be finished too.
            if news.len() > REMEMBERED + 1 {
                news.pop_front();
            }
        }
        self.note_of_another(directory);
    }

    /// Has what this process finishes from now on noted for [`take_news`](Self::take_news).
    pub(crate) fn collect_news(&self) {
        self.news.borrow_mut().get_or_insert_default();
    }

    /// The directories of the backups that were finished through this process since the last call, in that order; each
    /// is to be [noted](Self::note_of_another) by all others. Not more than 65.
    pub(crate) fn take_news(&self) -> Vec<String> {
        self.news.borrow_mut().iter_mut().flat_map(|news| news.drain(..)).collect()
    }

    /// Notes that the backup in `directory` got its manifest through another process of this server.
    pub(crate) fn note_of_another(&self, directory: String) {
        self.count.set(self.count.get() + 1);
        let mut recent = self.recent.borrow_mut();
        recent.truncate(REMEMBERED - 1);
        recent.push_front(directory);
    }

    /// This point in time.
    pub(super) fn generation(&self) -> Generation {
        Generation(self.count.get())
    }

    /// Whether the backup in `directory` was finished since then, or may have been.
    fn has_seen(&self, directory: &str, Generation(since): Generation) -> bool {
        let since = usize::try_from(self.count.get() - since).unwrap_or(usize::MAX);
        since > REMEMBERED || self.recent.borrow().iter().take(since).any(|other| other == directory)
    }
}

/// How many backups were finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u64);

/// Watches that a backup is not finished while something in it is changed.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    finished: Rc<Finished>,
    directory: String,
    since: Generation,
    role: Role,
    access: Access,
}

impl Watch {
    pub(super) fn new(finished: &Rc<Finished>, directory: String, role: Role, access: Access) -> Self {
        Self { finished: Rc::clone(finished), directory, since: finished.generation(), role, access }
    }

    pub(in crate::repository) fn directory(&self) -> &str {
        &self.directory
    }

    /// Whether it was not finished since. The error is for who changes `at`.
    pub(crate) fn check(&self, at: &Location) -> Result<()> {
        if self.finished.has_seen(&self.directory, self.since) { Err(self.refusal(at)) } else { Ok(()) }
    }

    /// What the client is told if it is.
    pub(in crate::repository) fn refusal(&self, at: &Location) -> Error {
        let mut error = lacks(self.role, Role::Admin, Carried::cut(&at.absolute()), self.access);
        let end = error.message.find('\n').unwrap_or(error.message.len());
        error.message.insert_str(end, ", since the backup is finished");
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{RelativePath, Root};

    fn watch(finished: &Rc<Finished>, directory: &str) -> Watch {
        Watch::new(finished, directory.to_owned(), Role::Backup, Access::Write)
    }

    fn at(path: &str) -> Location {
        Location::new(Root::new("/r/backup/demo"), RelativePath::new(path).unwrap())
    }

    #[test]
    fn a_backup_that_is_finished_meanwhile_is_noticed() {
        let finished = Rc::<Finished>::default();
        let at = at("1/file");
        let (first, second) = (watch(&finished, "/r/backup/demo/1"), watch(&finished, "/r/backup/demo/2"));
        finished.note("/r/backup/demo/1".to_owned());
        let text = first.check(&at).unwrap_err().message;
        assert!(text.contains("may not write '/r/backup/demo/1/file', since the backup is finished\nHINT: "), "{text}");
        second.check(&at).unwrap();
        watch(&finished, "/r/backup/demo/1").check(&at).unwrap();
        for number in 0..REMEMBERED {
            finished.note(format!("/r/backup/other/{number}"));
        }
        assert!(second.check(&at).is_err(), "what happened meanwhile is not remembered");
        assert!(finished.take_news().is_empty(), "nobody wants them");
    }

    #[test]
    fn what_other_processes_have_to_know_is_told_once() {
        let finished = Rc::<Finished>::default();
        finished.collect_news();
        finished.note("/r/backup/demo/1".to_owned());
        finished.note_of_another("/r/backup/demo/2".to_owned());
        finished.collect_news();
        finished.note("/r/backup/demo/3".to_owned());
        assert_eq!(finished.take_news(), ["/r/backup/demo/1", "/r/backup/demo/3"]);
        assert!(finished.take_news().is_empty());

        let other = Rc::<Finished>::default();
        let (here, there) = (watch(&finished, "/r/backup/demo/4"), watch(&other, "/r/backup/demo/4"));
        finished.note("/r/backup/demo/4".to_owned());
        (0..1000).for_each(|number| finished.note(format!("/r/backup/other/{number}")));
        finished.take_news().into_iter().for_each(|directory| other.note_of_another(directory));
        assert!(there.check(&at("4/file")).is_err(), "too many for one message");
        assert!(here.check(&at("4/file")).is_err());
    }
}
