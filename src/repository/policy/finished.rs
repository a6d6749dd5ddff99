//! Backups that got their manifest through this server lately.
//!
//! What is not finished when a request begins may be when it ends: another session can finish it. Where several
//! processes serve, each has to be told what the others [finished](take_news).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use crate::config::Role;
use crate::disk::Location;
use crate::protocol::carried::Carried;
use crate::protocol::error::{Error, Result};

use super::access::Access;
use super::view::lacks;

/// So many are remembered. Whoever has been at it for longer is taken to be too late.
const REMEMBERED: usize = 64;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    /// The directories of the last of them, the latest first.
    static RECENT: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
    /// What other processes are to be told, where there are some, the latest last.
    static NEWS: RefCell<Option<VecDeque<String>>> = const { RefCell::new(None) };
}

/// Notes that the backup in `directory` got its manifest.
pub(in crate::repository) fn note(directory: String) {
    NEWS.with_borrow_mut(|news| {
        let Some(news) = news else { return };
        news.push_back(directory.clone());
        // Whoever hears of so many at once takes every other backup to be finished too.
        if news.len() > REMEMBERED + 1 {
            news.pop_front();
        }
    });
    note_of_another(directory);
}

/// Has what this process finishes from now on noted for [`take_news`].
pub fn collect_news() {
    NEWS.with_borrow_mut(|news| _ = news.get_or_insert_default());
}

/// The directories of the backups that were finished through this process since the last call, in that order; each
/// is to be [noted](note_of_another) by all others. Not more than 65.
#[must_use]
pub fn take_news() -> Vec<String> {
    NEWS.with_borrow_mut(|news| news.iter_mut().flat_map(|news| news.drain(..)).collect())
}

/// Notes that the backup in `directory` got its manifest through another process of this server.
pub fn note_of_another(directory: String) {
    COUNT.set(COUNT.get() + 1);
    RECENT.with_borrow_mut(|recent| {
        recent.truncate(REMEMBERED - 1);
        recent.push_front(directory);
    });
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::repository) struct Moment(u64);

impl Moment {
    pub(in crate::repository) fn now() -> Self {
        Self(COUNT.get())
    }

    /// Whether a backup was finished since then, whichever.
    pub(in crate::repository) fn is_past(self) -> bool {
        self != Self::now()
    }

    /// Whether the backup in `directory` was finished since then, or may have been.
    fn has_seen(self, directory: &str) -> bool {
        let since = usize::try_from(COUNT.get() - self.0).unwrap_or(usize::MAX);
        since > REMEMBERED || RECENT.with_borrow(|recent| recent.iter().take(since).any(|other| other == directory))
    }
}

/// Watches that a backup is not finished while something in it is changed.
#[derive(Debug, Clone)]
pub struct Watch {
    directory: String,
    since: Moment,
    role: Role,
    access: Access,
}

impl Watch {
    pub(in crate::repository) fn new(directory: String, role: Role, access: Access) -> Self {
        Self { directory, since: Moment::now(), role, access }
    }

    pub(in crate::repository) fn directory(&self) -> &str {
        &self.directory
    }

    /// Whether it was not finished since.
    ///
    /// # Errors
    ///
    /// What the client is told that changes `at` if it was.
    pub fn check(&self, at: &Location) -> Result<()> {
        if self.since.has_seen(&self.directory) { Err(self.refusal(at)) } else { Ok(()) }
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

    #[test]
    fn a_backup_that_is_finished_meanwhile_is_noticed() {
        let watch = |directory: &str| Watch::new(directory.to_owned(), Role::Backup, Access::Write);
        let at = Location::new(Root::new("/r/backup/demo"), RelativePath::new("1/file").unwrap());
        let (first, second) = (watch("/r/backup/demo/1"), watch("/r/backup/demo/2"));
        note("/r/backup/demo/1".to_owned());
        let text = first.check(&at).unwrap_err().message;
        assert!(text.contains("may not write '/r/backup/demo/1/file', since the backup is finished\nHINT: "), "{text}");
        second.check(&at).unwrap();
        watch("/r/backup/demo/1").check(&at).unwrap();
        for number in 0..REMEMBERED {
            note(format!("/r/backup/other/{number}"));
        }
        assert!(second.check(&at).is_err(), "what happened meanwhile is not remembered");
        assert!(take_news().is_empty(), "nobody wants them");
    }

    #[test]
    fn what_other_processes_have_to_know_is_told_once() {
        collect_news();
        note("/r/backup/demo/1".to_owned());
        note_of_another("/r/backup/demo/2".to_owned());
        collect_news();
        note("/r/backup/demo/3".to_owned());
        assert_eq!(take_news(), ["/r/backup/demo/1", "/r/backup/demo/3"]);
        assert!(take_news().is_empty());

        let watch = Watch::new("/r/backup/demo/4".to_owned(), Role::Backup, Access::Write);
        let at = Location::new(Root::new("/r/backup/demo"), RelativePath::new("4/file").unwrap());
        note(watch.directory.clone());
        (0..1000).for_each(|number| note(format!("/r/backup/other/{number}")));
        // In the other process, which shares these with nobody.
        let news = take_news();
        let told = std::thread::spawn(move || {
            let watch = Watch::new("/r/backup/demo/4".to_owned(), Role::Backup, Access::Write);
            news.into_iter().for_each(note_of_another);
            watch.check(&Location::new(Root::new("/r/backup/demo"), RelativePath::new("4/file").unwrap())).is_err()
        });
        assert!(told.join().unwrap(), "too many for one message");
        assert!(watch.check(&at).is_err());
    }
}
