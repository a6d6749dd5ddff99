//! What a session is protected with, and what its checks have found out so far.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::aged::{Protected, future_backup};
use super::finished::{Finished, Generation};
use super::info::InfoRules;
use super::versions::Versions;
use crate::config::Role;
use crate::disk::Location;
use crate::protocol::filter::Secret;

/// How many requests in a row may rely on a backup that was seen to be unfinished. Other servers and
/// pgbackrest itself may finish it, which nobody tells.
pub(in crate::repository) const RELIED_MAXIMUM: u32 = 256;

/// So many backups from the future are told of in a session.
const TOLD_MAXIMUM: usize = 8;

/// How long what was found to be protected is relied on.
const FOUND_LASTS: SignedDuration = SignedDuration::from_secs(10);

/// What a session is protected with.
#[derive(Debug)]
pub(crate) struct Measures {
    /// What the client may do.
    pub(crate) role: Role,
    /// `min-age`: how long backups and their WAL are not removed.
    pub(crate) min_age: Duration,
    /// What info files may be encrypted with.
    pub(crate) keys: Rc<[Secret]>,
    /// Whether info files that cannot be read may be replaced below admin.
    pub(crate) opaque_info: bool,
    /// Where earlier versions of info files are kept.
    pub(crate) versions: Option<Versions>,
}

impl Measures {
    /// For whom is not authorized yet.
    pub(crate) fn of_nobody() -> Self {
        Self { role: Role::Reader, min_age: Duration::ZERO, keys: Rc::default(), opaque_info: false, versions: None }
    }

    /// For a cluster, where there is nothing to protect because nothing is ever written.
    pub(crate) fn of_cluster() -> Self {
        Self { role: Role::PgReader, ..Self::of_nobody() }
    }
}

/// What checks share with each other.
#[derive(Debug)]
pub(in crate::repository) struct Shared {
    measures: Measures,
    pub(super) finished: Rc<Finished>,
    unfinished: RefCell<Option<Known<u32>>>,
    protected: RefCell<Option<Known<Found>>>,
    /// Backups from the future that were told of, and what is still to be told.
    future: RefCell<BTreeSet<String>>,
    notices: RefCell<Vec<String>>,
}

impl Deref for Shared {
    type Target = Measures;

    fn deref(&self) -> &Measures {
        &self.measures
    }
}

/// What was found to be protected, and when.
#[derive(Debug)]
struct Found(Timestamp, Rc<Protected>);

/// Something that was found out about a directory.
#[derive(Debug)]
struct Known<T> {
    directory: String,
    since: Generation,
    what: T,
}

impl<T> Known<T> {
    /// Whether it is about `directory`, and no backup was finished since.
    fn is_of(&self, directory: &str, finished: &Finished) -> bool {
        self.directory == directory && self.since == finished.generation()
    }
}

impl Shared {
    pub(super) fn new(measures: Measures, finished: Rc<Finished>) -> Self {
        Self {
            measures,
            finished,
            unfinished: RefCell::default(),
            protected: RefCell::default(),
            future: RefCell::default(),
            notices: RefCell::default(),
        }
    }

    /// What was found on the way that the log should tell.
    pub(super) fn take_notices(&self) -> Vec<String> {
        self.notices.take()
    }

    fn known<T>(&self, directory: String, what: T) -> Known<T> {
        Known { directory, since: self.finished.generation(), what }
    }

    /// Whether the backup in `directory` was just seen to be unfinished.
    pub(in crate::repository) fn is_known_unfinished(&self, directory: &str) -> bool {
        let mut known = self.unfinished.borrow_mut();
        let Some(known) = known.as_mut().filter(|known| known.is_of(directory, &self.finished)) else { return false };
        known.what += 1;
        known.what <= RELIED_MAXIMUM
    }

    pub(in crate::repository) fn note_unfinished(&self, directory: String) {
        self.unfinished.replace(Some(self.known(directory, 0)));
    }

    /// What holds for an info file that a client encrypts with `key`.
    pub(in crate::repository) fn info_rules(
        &self,
        protected: &Protected,
        key: Option<&Secret>,
        now: Timestamp,
    ) -> InfoRules {
        InfoRules {
            role: self.role,
            protected: protected.labels().clone(),
            opaque_info: self.opaque_info,
            keys: self.keys.iter().chain(key).cloned().collect(),
            versions: self.versions.clone(),
            now,
        }
    }

    /// What is protected in the stanza whose backups are in `directory`, if that is known.
    pub(in crate::repository) fn protected(&self, directory: &str, now: Timestamp) -> Option<Rc<Protected>> {
        let known = self.protected.borrow();
        let Found(found, protected) = &known.as_ref().filter(|known| known.is_of(directory, &self.finished))?.what;
        (SignedDuration::ZERO..FOUND_LASTS).contains(&now.duration_since(*found)).then(|| Rc::clone(protected))
    }

    /// Has it told once that a backup comes from the future.
    pub(in crate::repository) fn note_future(&self, backups: &Location, label: &str, time: Timestamp) {
        let mut future = self.future.borrow_mut();
        let backup = format!("{backups}/{label}");
        if future.len() < TOLD_MAXIMUM && future.insert(backup.clone()) {
            self.notices.borrow_mut().push(future_backup(backup, time));
        }
    }

    pub(in crate::repository) fn note_protected(&self, directory: String, protected: &Rc<Protected>, now: Timestamp) {
        self.protected.replace(Some(self.known(directory, Found(now, Rc::clone(protected)))));
    }
}
