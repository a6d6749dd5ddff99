//! What protects a stanza from its own clients: their roles, and the age of its backups.
//!
//! [`view`](super::view) finds by a path's name which [`rules::Rule`] is for a request; what the name
//! does not tell is looked at here before the request begins.

pub mod aged;
pub mod check;
pub mod finished;
pub mod layout;
pub mod replacement;
pub mod rules;
pub mod same;
pub mod segments;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Deref;
use std::rc::Rc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::config::Role;
use crate::disk::{Location, Operation, RelativePath};
use crate::filter::whole;
use crate::protocol::carried::Carried;
use crate::protocol::error::{Error, Result};
use crate::protocol::filter::{FilterSpec, Secret};

use self::aged::Protected;
use self::check::{Aged, Check, Matter, Wanted};
use self::finished::{Moment, Watch};
use self::layout::Part;
use self::replacement::Replacement;
use self::rules::Rule;
use super::info_guard::InfoRules;
use super::versions::Versions;
use super::view::{Access, Place, View};

/// The name of the file that a finished backup has.
pub(super) const MANIFEST: &str = "backup.manifest";

/// How many requests in a row may rely on a backup that was seen to be unfinished. Other servers and
/// pgbackrest itself may finish it, which nobody tells.
const RELIED_MAXIMUM: u32 = 256;

/// So many backups from the future are told of in a session.
const TOLD_MAXIMUM: usize = 8;

/// How long what was found to be protected is relied on.
const FOUND_LASTS: Duration = Duration::from_secs(10);

/// What is seen to before and while something is changed.
#[derive(Debug, Default)]
pub struct Precaution {
    /// What has to be looked at before, and the first operation for that.
    pub check: Option<(Check, Operation)>,
    /// The backup that it is in, which must not be finished meanwhile.
    pub watch: Option<Watch>,
}

/// What is seen to while a file is written.
#[derive(Debug, Default)]
pub struct Safeguard {
    /// As for every change.
    pub precaution: Precaution,
    /// What may have the name before.
    pub replace: Replace,
    /// The file is made anew rather than opened, since another name of it may be protected.
    pub separate: bool,
}

/// What becomes of a file that has the name already.
#[derive(Debug, Default)]
pub enum Replace {
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
    Info(Box<Replacement>),
}

/// What a session is protected with.
#[derive(Debug)]
pub struct Measures {
    /// What the client may do.
    pub role: Role,
    /// `min-age`: how long backups and their WAL are not removed.
    pub min_age: Duration,
    /// What info files may be encrypted with.
    pub keys: Rc<[Secret]>,
    /// Whether info files that cannot be read may be replaced below admin.
    pub opaque_info: bool,
    /// Where earlier versions of info files are kept.
    pub versions: Option<Versions>,
}

impl Measures {
    /// For whom is not authorized yet.
    #[must_use]
    pub fn of_nobody() -> Self {
        Self { role: Role::Reader, min_age: Duration::ZERO, keys: Rc::default(), opaque_info: false, versions: None }
    }

    /// For a cluster, where there is nothing to protect because nothing is ever written.
    #[must_use]
    pub fn of_cluster() -> Self {
        Self { role: Role::PgReader, ..Self::of_nobody() }
    }
}

/// The protection that a session is under.
#[derive(Debug)]
pub struct Guard(Rc<Shared>);

/// What checks share with each other.
#[derive(Debug)]
struct Shared {
    measures: Measures,
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
struct Found(Instant, Rc<Protected>);

/// Something that was found out about a directory.
#[derive(Debug)]
struct Known<T> {
    directory: String,
    since: Moment,
    what: T,
}

impl<T> Known<T> {
    fn new(directory: String, what: T) -> RefCell<Option<Self>> {
        RefCell::new(Some(Self { directory, since: Moment::now(), what }))
    }

    fn is_of(&self, directory: &str) -> bool {
        self.directory == directory && !self.since.is_past()
    }
}

impl Shared {
    fn is_known_unfinished(&self, directory: &str) -> bool {
        let mut known = self.unfinished.borrow_mut();
        let Some(known) = known.as_mut().filter(|known| known.is_of(directory)) else { return false };
        known.what += 1;
        known.what <= RELIED_MAXIMUM
    }

    fn note_unfinished(&self, directory: String) {
        self.unfinished.swap(&Known::new(directory, 0));
    }

    /// What holds for an info file that a client encrypts with `key`.
    fn info_rules(&self, protected: &Protected, key: Option<&Secret>) -> InfoRules {
        InfoRules {
            role: self.role,
            protected: protected.labels().clone(),
            opaque_info: self.opaque_info,
            keys: self.keys.iter().chain(key).cloned().collect(),
            versions: self.versions.clone(),
            now: Timestamp::now(),
        }
    }

    /// What is protected in the stanza whose backups are in `directory`, if that is known.
    fn protected(&self, directory: &str) -> Option<Rc<Protected>> {
        let known = self.protected.borrow();
        let Found(found, protected) = &known.as_ref().filter(|known| known.is_of(directory))?.what;
        (found.elapsed() < FOUND_LASTS).then(|| Rc::clone(protected))
    }

    /// Has it told once that a backup comes from the future.
    fn note_future(&self, backups: &Location, label: &str, time: Timestamp) {
        let mut future = self.future.borrow_mut();
        let backup = format!("{backups}/{label}");
        if future.len() < TOLD_MAXIMUM && future.insert(backup.clone()) {
            self.notices.borrow_mut().push(aged::future_backup(backup, time));
        }
    }

    fn note_protected(&self, directory: String, protected: &Rc<Protected>) {
        self.protected.swap(&Known::new(directory, Found(Instant::now(), Rc::clone(protected))));
    }
}

impl Guard {
    /// The guard for a session.
    #[must_use]
    pub fn new(measures: Measures) -> Self {
        Self(Rc::new(Shared {
            measures,
            unfinished: RefCell::default(),
            protected: RefCell::default(),
            future: RefCell::default(),
            notices: RefCell::default(),
        }))
    }

    /// What the client may do.
    #[must_use]
    pub fn role(&self) -> Role {
        self.0.role
    }

    /// What was found on the way that the log should tell.
    #[must_use]
    pub fn take_notices(&self) -> Vec<String> {
        self.0.notices.take()
    }

    /// What is seen to when `access` to `place`, which the client calls `path`, is asked for.
    ///
    /// # Errors
    ///
    /// What the client is told.
    pub fn precaution(&self, view: &View, place: &Place, path: &[u8], access: Access) -> Result<Precaution> {
        let part = place.part();
        let backup = match part {
            Some(Part::Backup { label, .. }) if place.rule == Rule::Unfinished => Some(label),
            _ => None,
        };
        let watch = backup.map(|label| {
            let stanza = Location::new(Rc::clone(&place.location.root), RelativePath::default());
            Watch::new(format!("{stanza}/{label}"), self.role(), access)
        });
        let unfinished = watch.clone().filter(|watch| !self.0.is_known_unfinished(watch.directory()));
        let aged = match (place.area, part) {
            _ if self.0.min_age.is_zero() => None,
            (Some(area), Some(part)) => Matter::of(area, part, access).and_then(|matter| {
                let backups = view.backups_of(&place.location)?;
                Some(Aged { matter, backups, path: path.into() })
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
        let kept = access == Access::Remove && part == Some(Part::Info) && self.0.versions.is_some();
        let wanted = Wanted { unfinished: unfinished.zip(backup.map(str::to_owned)), aged, kept };
        let check =
            if wanted.is_nothing() { None } else { Check::begin(Rc::clone(&self.0), place.location.clone(), wanted)? };
        Ok(Precaution { check, watch })
    }

    /// What is seen to while `place` is written through `filters`.
    ///
    /// # Errors
    ///
    /// As for [`Guard::precaution`].
    pub fn safeguard(&self, view: &View, place: &Place, path: &[u8], filters: &[FilterSpec]) -> Result<Safeguard> {
        let precaution = self.precaution(view, place, path, Access::Write)?;
        let part = place.part();
        // What no client may remove, none may replace either.
        let is_kept = !self.0.min_age.is_zero() && matches!(part, Some(Part::Segment(_) | Part::Record));
        let is_manifest = matches!(part, Some(Part::Backup { rest, .. }) if rest == MANIFEST.as_bytes());
        let finishes = is_manifest && place.rule == Rule::Unfinished;
        let key = || whole::encryption_key(filters).cloned();
        let is_guarded = view.is_guarded();
        let replace = match (part, view.backups_of(&place.location)) {
            (Some(Part::Info), Some(backups)) if is_guarded || self.0.versions.is_some() => {
                Replace::Info(Box::new(Replacement::new(Rc::clone(&self.0), backups, key())))
            }
            (Some(Part::Segment(_)), _) if is_kept || place.rule == Rule::New => Replace::NeverSegment,
            _ if is_kept || finishes || place.rule == Rule::New => Replace::Never { key: key() },
            _ => Replace::Always,
        };
        Ok(Safeguard { precaution, replace, separate: is_guarded })
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod workers_tests;
