//! What protects a stanza from its own clients: their roles, and the age of its backups.
//!
//! [`view`](super::view) finds by a path's name which [`Rule`] is for a request; what the name does not tell is
//! said here, and looked at before the request begins.

use std::rc::Rc;

use super::access::Access;
use super::finished::{Finished, Watch};
use super::layout::{MANIFEST, Part};
use super::preconditions::{Aged, Preconditions, RemovalSubject};
use super::rules::Rule;
use super::shared::{Measures, Shared};
use super::view::{Place, View};
use crate::config::Role;
use crate::disk::{Location, RelativePath};
use crate::filter::whole;
use crate::protocol::carried::Carried;
use crate::protocol::error::{Error, Result};
use crate::protocol::filter::{FilterSpec, Secret};

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
    pub(in crate::repository) shared: Rc<Shared>,
    /// `backup/STANZA`.
    pub(in crate::repository) backups: Location,
    /// What the client encrypts with.
    pub(in crate::repository) key: Option<Secret>,
}

/// The protection that a session is under.
#[derive(Debug)]
pub(crate) struct Guard(Rc<Shared>);

impl Guard {
    /// The guard for a session of a process through which these backups were `finished`.
    pub(crate) fn new(measures: Measures, finished: &Rc<Finished>) -> Self {
        Self(Rc::new(Shared::new(measures, Rc::clone(finished))))
    }

    /// What the client may do.
    pub(crate) fn role(&self) -> Role {
        self.0.role
    }

    /// What was found on the way that the log should tell.
    pub(crate) fn take_notices(&self) -> Vec<String> {
        self.0.take_notices()
    }

    /// What is seen to when `access` to `place`, which the client calls `path`, is asked for.
    pub(crate) fn precaution(&self, view: &View, place: &Place, path: &[u8], access: Access) -> Result<Precaution> {
        let part = place.part();
        let backup = match part {
            Some(Part::Backup { label, .. }) if place.rule == Rule::Unfinished => Some(label),
            _ => None,
        };
        let watch = backup.map(|label| {
            let stanza = Location::new(Rc::clone(&place.location.root), RelativePath::default());
            Watch::new(&self.0.finished, format!("{stanza}/{label}"), self.role(), access)
        });
        let unfinished = watch.clone().filter(|watch| !self.0.is_known_unfinished(watch.directory()));
        let aged = match (place.area, part) {
            _ if self.0.min_age.is_zero() => None,
            (Some(area), Some(part)) => RemovalSubject::of(area, part, access).and_then(|subject| {
                let backups = view.backups_of(&place.location)?;
                Some(Aged { subject, backups, path: path.into() })
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
        let unfinished = unfinished.zip(backup.map(str::to_owned));
        let preconditions = (unfinished.is_some() || aged.is_some() || kept)
            .then(|| Box::new(Preconditions { shared: Rc::clone(&self.0), unfinished, aged, kept }));
        Ok(Precaution { preconditions, watch })
    }

    /// What is seen to while `place` is written through `filters`.
    pub(crate) fn safeguard(
        &self,
        view: &View,
        place: &Place,
        path: &[u8],
        filters: &[FilterSpec],
    ) -> Result<Safeguard> {
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
                Replace::Info(Rc::new(InfoReplacement { shared: Rc::clone(&self.0), backups, key: key() }))
            }
            (Some(Part::Segment(_)), _) if is_kept || place.rule == Rule::New => Replace::NeverSegment,
            _ if is_kept || finishes || place.rule == Rule::New => Replace::Never { key: key() },
            _ => Replace::Always,
        };
        Ok(Safeguard { precaution, replace, separate: is_guarded })
    }
}
