//! What has to be so before a request begins, where the names in its path do not decide that.

use std::rc::Rc;

use bstr::BString;

use super::access::Access;
use super::finished::Watch;
use super::layout::{Area, Part, Wal};
use super::shared::Shared;
use crate::disk::Location;

/// What has to be so.
#[derive(Debug)]
pub(crate) struct Preconditions {
    pub(in crate::repository) shared: Rc<Shared>,
    /// The backup with this label is not finished.
    pub(in crate::repository) unfinished: Option<(Watch, String)>,
    pub(in crate::repository) aged: Option<Aged>,
    /// A version of the file has to be kept.
    pub(in crate::repository) kept: bool,
}

/// That what would be removed is old enough.
#[derive(Debug)]
pub(in crate::repository) struct Aged {
    pub(in crate::repository) subject: RemovalSubject,
    /// `backup/STANZA`, where it is found out what is protected.
    pub(in crate::repository) backups: Location,
    /// The path as the client gave it.
    pub(in crate::repository) path: BString,
}

/// What would be removed or replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::repository) enum RemovalSubject {
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

impl RemovalSubject {
    /// What `access` to a part of a stanza would remove or replace, if its age matters.
    pub(in crate::repository) fn of(area: Area, part: Part<'_>, access: Access) -> Option<Self> {
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
