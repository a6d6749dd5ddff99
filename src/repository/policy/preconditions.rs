//! What has to be so before a request begins, where the names in its path do not decide that.

use std::rc::Rc;

use bstr::BString;

use super::access::Access;
use super::finished::Watch;
use super::guard::Guard;
use super::layout::{Area, Part, Wal};
use super::view::Place;
use crate::disk::Location;

/// What has to be so.
#[derive(Debug)]
pub(crate) struct Preconditions {
    pub(in crate::repository) guard: Rc<Guard>,
    /// What the request is about, and what it does with that.
    pub(in crate::repository) place: Place,
    pub(in crate::repository) access: Access,
    /// The backup that it is in is not finished.
    pub(in crate::repository) unfinished: Option<Watch>,
    pub(in crate::repository) aged: Option<Aged>,
    /// A version of the file has to be kept.
    pub(in crate::repository) kept: bool,
}

/// That what would be removed is old enough.
#[derive(Debug)]
pub(in crate::repository) struct Aged {
    /// `backup/STANZA`, where it is found out what is protected.
    pub(in crate::repository) backups: Location,
    /// The path as the client gave it.
    pub(in crate::repository) path: BString,
}

/// What would be removed or replaced.
pub(in crate::repository) enum RemovalSubject<'a> {
    /// A backup, or a part of it.
    Backup(&'a str),
    /// All backups, or what leads to them.
    Backups,
    Segment(Wal<'a>),
    /// A directory of segments.
    Segments(Wal<'a>),
    /// All of one archive.
    Archive(&'a str),
    /// All archives.
    Archives,
    /// A file that counts by its own age only.
    Record,
}

impl<'a> RemovalSubject<'a> {
    /// What `access` to a place in a stanza would remove or replace, if its age matters.
    pub(in crate::repository) fn of(place: &'a Place, access: Access) -> Option<Self> {
        Some(match (access, place.part()?) {
            (Access::Write | Access::Remove | Access::RemoveTree, Part::Backup { label, .. }) => Self::Backup(label),
            (Access::Remove, Part::Info) => Self::Backups,
            (Access::RemoveTree, Part::Stanza) if place.area == Some(Area::Backup) => Self::Backups,
            (Access::RemoveTree, Part::Stanza) => Self::Archives,
            (Access::RemoveTree, Part::Archive { name }) => Self::Archive(name),
            (Access::RemoveTree, Part::WalDirectory(wal)) => Self::Segments(wal),
            (Access::Remove, Part::Segment(wal)) => Self::Segment(wal),
            (Access::Remove, Part::Record) => Self::Record,
            // Directories that are empty may go, and links do not replace anything.
            _ => return None,
        })
    }
}
