//! What protects a stanza from its own clients: their roles, and the age of its backups.
//!
//! [`view`](super::view) finds by a path's name which [`Rule`] is for a request; what the name does not tell is
//! said here, and looked at before the request begins.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::access::Access;
use super::aged::{Protected, future_backup};
use super::finished::{Finished, Generation, Watch};
use super::layout::{MANIFEST, Part};
use super::preconditions::{Aged, Preconditions, RemovalSubject};
use super::rules::Rule;
use super::versions::Versions;
use super::view::{Place, View};
use crate::config::Role;
use crate::disk::{Location, RelativePath};
use crate::filter::whole;
use crate::protocol::carried::Carried;
use crate::protocol::error::{Error, Result};
use crate::protocol::filter::{FilterSpec, Secret};

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

/// What is seen to before and while something is changed.
#[derive(Debug, Default)]
pub(crate) struct Precaution {
    /// What has to be looked at before.
    pub(crate) preconditions: Option<Box<Preconditions>>,
    /// The backup that it is in, which must not be finished meanwhile.
    pub(crate) watch: Option<Watch>,
}

/// What is seen to while a file is written.
#[derive(Debug, Default)]
pub(crate) struct Safeguard {
    /// As for every change.
    pub(crate) precaution: Precaution,
    /// What may have the name before.
    pub(crate) replace: Replace,
    /// The file is made anew rather than opened, since another name of it may be protected.
    pub(crate) separate: bool,
}

/// What becomes of a file that has the name already.
#[derive(Debug, Default)]
pub(crate) enum Replace {
    /// It is replaced.
    #[default]
    Always,
    /// It stays, which is fine if it says the same.
    Never {
        /// What both are encrypted with.
        key: Option<Secret>,
    },
    /// It stays, and so does any other file of that segment. The name has the checksum of the content in it,
    /// so that what has the same name is the same.
    NeverSegment,
    /// It is an info file, and is replaced if what it says is not lost.
    Info(Rc<InfoReplacement>),
}

/// What decides whether an info file is replaced.
#[derive(Debug)]
pub(crate) struct InfoReplacement {
    pub(in crate::repository) guard: Rc<Guard>,
    /// `backup/STANZA`.
    pub(in crate::repository) backups: Location,
    /// What the client encrypts with.
    pub(in crate::repository) key: Option<Secret>,
}

/// The protection that a session is under, with what its checks have found out so far.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) measures: Measures,
    finished: Rc<Finished>,
    unfinished: RefCell<Option<Known<u32>>>,
    protected: RefCell<Option<Known<Found>>>,
    /// Backups from the future that were told of, and what is still to be told.
    future: RefCell<BTreeSet<String>>,
    notices: RefCell<Vec<String>>,
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

impl Guard {
    /// The guard for a session of a process through which these backups were `finished`.
    pub(crate) fn new(measures: Measures, finished: &Rc<Finished>) -> Rc<Self> {
        Rc::new(Self {
            measures,
            finished: Rc::clone(finished),
            unfinished: RefCell::default(),
            protected: RefCell::default(),
            future: RefCell::default(),
            notices: RefCell::default(),
        })
    }

    /// What was found on the way that the log should tell.
    pub(crate) fn take_notices(&self) -> Vec<String> {
        self.notices.take()
    }

    /// What is seen to when `access` to `place`, which the client calls `path`, is asked for.
    pub(crate) fn precaution(
        self: &Rc<Self>,
        view: &View,
        place: &Place,
        path: &[u8],
        access: Access,
    ) -> Result<Precaution> {
        let part = place.part();
        let backup = match part {
            Some(Part::Backup { label, .. }) if place.rule == Rule::Unfinished => Some(label),
            _ => None,
        };
        let watch = backup.map(|label| {
            let stanza = Location::new(Rc::clone(&place.location.root), RelativePath::default());
            Watch::new(&self.finished, format!("{stanza}/{label}"), self.measures.role, access)
        });
        let unfinished = watch.clone().filter(|watch| !self.is_known_unfinished(watch.directory()));
        let aged = match part {
            _ if self.measures.min_age.is_zero() => None,
            Some(_) => RemovalSubject::of(place, access).and_then(|_| {
                let backups = view.backups_of(&place.location)?;
                Some(Aged { backups, path: path.into() })
            }),
            // All of the repository, or of its backups or archives.
            _ if access == Access::RemoveTree && place.location.path.is_root() => {
                return Err(Error::access(format!(
                    "access denied: '{}' cannot be removed while backups are protected by their age\nHINT: see min-age \
                     in repohostd.conf of the repository host, and remove what is older by stanza.",
                    Carried::cut(path)
                )));
            }
            _ => None,
        };
        let kept = access == Access::Remove && part == Some(Part::Info) && self.measures.versions.is_some();
        let preconditions = (unfinished.is_some() || aged.is_some() || kept).then(|| {
            Box::new(Preconditions { guard: Rc::clone(self), place: place.clone(), access, unfinished, aged, kept })
        });
        Ok(Precaution { preconditions, watch })
    }

    /// What is seen to while `place` is written through `filters`.
    pub(crate) fn safeguard(
        self: &Rc<Self>,
        view: &View,
        place: &Place,
        path: &[u8],
        filters: &[FilterSpec],
    ) -> Result<Safeguard> {
        let precaution = self.precaution(view, place, path, Access::Write)?;
        let part = place.part();
        // What no client may remove, none may replace either.
        let is_kept = !self.measures.min_age.is_zero() && matches!(part, Some(Part::Segment(_) | Part::Record));
        let is_manifest = matches!(part, Some(Part::Backup { rest, .. }) if rest == MANIFEST.as_bytes());
        let finishes = is_manifest && place.rule == Rule::Unfinished;
        let key = || whole::encryption_key(filters).cloned();
        let is_guarded = view.is_guarded();
        let replace = match (part, view.backups_of(&place.location)) {
            (Some(Part::Info), Some(backups)) if is_guarded || self.measures.versions.is_some() => {
                Replace::Info(Rc::new(InfoReplacement { guard: Rc::clone(self), backups, key: key() }))
            }
            (Some(Part::Segment(_)), _) if is_kept || place.rule == Rule::New => Replace::NeverSegment,
            _ if is_kept || finishes || place.rule == Rule::New => Replace::Never { key: key() },
            _ => Replace::Always,
        };
        Ok(Safeguard { precaution, replace, separate: is_guarded })
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
