//! What the system says of an entry, as [`Metadata`] at the level that was asked for.

use std::os::fd::{AsFd, BorrowedFd};

use bstr::BString;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, readlinkat, statat};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

use super::location::Location;
use super::names::Names;
use super::resolve::{Resolver, below};
use super::{Failure, Kind, Level, Metadata, Step};

/// Permission bits that pgBackRest knows of; it cuts off set-user-id, set-group-id and sticky.
const PERMISSIONS: u32 = 0o777;

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Link,
            _ => Self::Special,
        }
    }
}

/// An entry of which only the kind is known.
pub(super) fn of_kind(kind: Kind) -> Metadata {
    Metadata { kind, ..Metadata::default() }
}

/// Looks at a place.
pub(super) fn look(
    resolver: &Resolver,
    names: &mut Names,
    at: &Location,
    follow: bool,
    level: Level,
) -> std::result::Result<Metadata, Failure> {
    let not_followed = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
    match at.path.split_last() {
        None => {
            let stat = statat(CWD, at.root.path(), not_followed)?;
            return describe(CWD, at.root.path(), &stat, level, names);
        }
        Some((b"", name)) => {
            let stat = below(&at.root, |root| statat(root, name, AtFlags::SYMLINK_NOFOLLOW))?;
            if !follow || FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                let root = at.root.held().ok_or(Errno::NOENT)?;
                return describe(root.as_fd(), name, &stat, level, names);
            }
        }
        Some(_) => {}
    }
    let not_followed = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    describe_entry(resolver.open(at, OFlags::PATH | not_followed, Mode::empty())?.as_fd(), level, names)
}

/// Looks at what the link at a place points to, but not at what a link there points to.
pub(super) fn look_behind(names: &mut Names, at: &Location, level: Level) -> std::result::Result<Metadata, Failure> {
    describe_entry(Resolver::open_target(at)?.as_fd(), level, names)
}

fn describe_entry(entry: BorrowedFd<'_>, level: Level, names: &mut Names) -> std::result::Result<Metadata, Failure> {
    if level == Level::Exists {
        return Ok(of_kind(Kind::File));
    }
    let stat = statat(entry, "", AtFlags::EMPTY_PATH)?;
    describe(entry, "", &stat, level, names)
}

/// What `stat` says at `level`; `name` in `directory` is where it came from.
pub(super) fn describe(
    directory: BorrowedFd<'_>,
    name: impl Arg,
    stat: &Stat,
    level: Level,
    names: &mut Names,
) -> std::result::Result<Metadata, Failure> {
    if level == Level::Exists {
        return Ok(of_kind(Kind::File));
    }
    let kind = Kind::from(FileType::from_raw_mode(stat.st_mode));
    let mut metadata = of_kind(kind);
    if level >= Level::Basic {
        metadata.modified = stat.st_mtime;
        if kind == Kind::File {
            metadata.size = u64::try_from(stat.st_size).unwrap_or(0);
        }
    }
    if level >= Level::Detail {
        metadata.mode = stat.st_mode & PERMISSIONS;
        metadata.changed = stat.st_ctime;
        (metadata.uid, metadata.gid) = (stat.st_uid, stat.st_gid);
        (metadata.user, metadata.group) = (names.user(stat.st_uid), names.group(stat.st_gid));
        if kind == Kind::Link {
            let destination =
                destination(directory, name).map_err(|errno| Failure::new(errno, Step::LinkDestination))?;
            metadata.link_destination = Some(destination);
        }
    }
    Ok(metadata)
}

/// The text of a link.
fn destination(directory: BorrowedFd<'_>, name: impl Arg) -> Result<BString> {
    Ok(readlinkat(directory, name, Vec::new())?.into_bytes().into())
}
