//! What protects a stanza from its own clients: their roles.
//!
//! [`view`](super::view) finds by a path's name which [`rules::Rule`] is for a request; what the name
//! does not tell is looked at here before the request begins.

pub mod check;
pub mod layout;
pub mod rules;
pub mod same;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::config::Role;
use crate::filter::whole;
use crate::protocol::error::{Error, Result};
use crate::protocol::filter::{FilterSpec, Secret};

use self::check::Check;
use self::layout::Part;
use self::rules::Rule;
use super::view::{Access, Place, View};

/// The name of the file that a finished backup has.
pub(super) const MANIFEST: &str = "backup.manifest";

/// How many requests in a row may rely on a backup that was seen to be unfinished. Other servers and
/// pgbackrest itself may finish it, which nobody tells.
const RELIED_MAXIMUM: u32 = 256;

thread_local! {
    /// Counts backups that were finished through this server.
    static FINISHED: Cell<u64> = const { Cell::new(0) };
}

/// Notes that a backup got its manifest.
pub(super) fn note_finished() {
    FINISHED.set(FINISHED.get() + 1);
}

/// What is seen to while a file is written.
#[derive(Debug, Default)]
pub struct Safeguard {
    /// What has to be looked at before.
    pub check: Option<Check>,
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
    /// It stays, which is fine if it is the same.
    Never {
        /// The name has the checksum of the content in it, so that what has the same name is the same.
        named_by_content: bool,
        /// What both are encrypted with.
        key: Option<Secret>,
        /// What the client is told if it is not the same.
        refusal: Error,
    },
}

/// The protection that a session is under.
#[derive(Debug)]
pub struct Guard {
    role: Role,
    unfinished: Rc<RefCell<Option<Unfinished>>>,
}

/// A backup that was seen without a manifest.
#[derive(Debug)]
pub(super) struct Unfinished {
    /// The directory of the backup.
    directory: String,
    finished_before: u64,
    relied: u32,
}

impl Guard {
    /// The guard for a client of `role`.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self { role, unfinished: Rc::default() }
    }

    /// What has to be looked at before `access` to `place` begins, if anything.
    ///
    /// # Errors
    ///
    /// What the client is told.
    pub fn check(&self, view: &View, place: &Place, path: &str, access: Access) -> Result<Option<Check>> {
        let (Rule::Unfinished, Some(Part::Backup { label, .. })) = (place.rule, place.part()) else { return Ok(None) };
        let directory = format!("{}/{label}", place.location.root.path().display());
        if self.is_known_unfinished(&directory) {
            return Ok(None);
        }
        let refusal = view.lacks(Role::Admin, path, access);
        Ok(Some(Check::unfinished(place, label, directory, refusal, Rc::clone(&self.unfinished))))
    }

    /// What is seen to while `place` is written through `filters`.
    ///
    /// # Errors
    ///
    /// As for [`Guard::check`].
    pub fn safeguard(&self, view: &View, place: &Place, path: &str, filters: &[FilterSpec]) -> Result<Safeguard> {
        let check = self.check(view, place, path, Access::Write)?;
        let (part, is_new) = (place.part(), place.rule == Rule::New);
        let finishes = matches!(part, Some(Part::Backup { rest: MANIFEST, .. })) && place.rule == Rule::Unfinished;
        let replace = if is_new || finishes {
            let mut refusal = view.lacks(Role::Admin, path, Access::Write);
            refusal.message = refusal.message.replacen('\n', ", which is there already with other content\n", 1);
            Replace::Never {
                named_by_content: matches!(part, Some(Part::Segment(_))),
                key: whole::encryption_key(filters).cloned(),
                refusal,
            }
        } else {
            Replace::Always
        };
        Ok(Safeguard { check, replace, separate: view.is_guarded() })
    }

    /// What the client may do.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    fn is_known_unfinished(&self, directory: &str) -> bool {
        let mut known = self.unfinished.borrow_mut();
        let Some(known) = known.as_mut().filter(|known| known.directory == directory) else { return false };
        known.relied += 1;
        known.finished_before == FINISHED.get() && known.relied <= RELIED_MAXIMUM
    }
}
