//! What a role may do with which part of a stanza.
//!
//! The whole policy is in [`Rule::of`]; nothing else decides by role what a request may do.

use super::access::Access;
use super::layout::{Area, Part};
use crate::config::Role;

/// Whether a request is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// It is.
    Allowed,
    /// Only if the backup that it is about is not finished, as its manifest tells.
    Unfinished,
    /// If nothing is replaced by it.
    New,
    /// If the info file keeps what it says.
    Info,
    /// Not for this role, but for this one.
    Needs(Role),
}

impl Rule {
    /// The rule for a client of `role` and what it wants with a part of a stanza.
    pub(crate) fn of(role: Role, area: Area, part: Part<'_>, access: Access) -> Self {
        let least = |least: Role, rule: Self| if role >= least { rule } else { Self::Needs(least) };
        if role < Role::Reader {
            return Self::Needs(Role::Reader);
        }
        if role == Role::Admin || matches!(access, Access::Look | Access::Read) {
            return Self::Allowed;
        }
        match (area, part, access) {
            (Area::Archive, Part::Archive { .. } | Part::WalDirectory(_), Access::Directory) => {
                least(Role::Archiver, Self::Allowed)
            }
            (Area::Archive, Part::Segment(_) | Part::Record, Access::Write) => least(Role::Archiver, Self::New),
            (_, Part::Info, Access::Write) => least(Role::Backup, Self::Info),
            (Area::Backup, Part::Stanza | Part::ManifestHistory, Access::Directory)
            | (Area::Backup, Part::Latest, Access::Remove | Access::Link) => least(Role::Backup, Self::Allowed),
            (Area::Backup, Part::OldManifest, Access::Write) => least(Role::Backup, Self::New),
            // A link in the place of the whole backup could lead to a finished one.
            (Area::Backup, Part::Backup { rest: b"", .. }, Access::Link | Access::HardLink | Access::Write) => {
                Self::Needs(Role::Admin)
            }
            (Area::Backup, Part::Backup { .. }, _) => least(Role::Backup, Self::Unfinished),
            _ => Self::Needs(Role::Admin),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::part;
    use super::*;

    const ALL: [Access; 8] = [
        Access::Look,
        Access::Read,
        Access::Directory,
        Access::Write,
        Access::Remove,
        Access::RemoveTree,
        Access::Link,
        Access::HardLink,
    ];

    /// The least role for what is asked, and the rule for it.
    fn least(area: Area, path: &str, access: Access) -> (Role, Rule) {
        let rules = Role::ALL.map(|role| (role, Rule::of(role, area, part(area, path.as_bytes()), access)));
        let first = *rules.iter().find(|(_, rule)| !matches!(rule, Rule::Needs(_))).unwrap();
        for (lower, refused) in rules.iter().take_while(|(lower, _)| *lower < first.0) {
            assert_eq!(*refused, Rule::Needs(first.0), "{path} {access:?}: what {lower:?} is told is not what helps");
        }
        first
    }

    #[test]
    fn nothing_is_written_that_no_real_client_writes() {
        let sum = "0123456789abcdef0123456789abcdef01234567";
        let segment = format!("15-1/0000000100000000/000000010000000000000001-{sum}.gz");
        let expected = [
            (Area::Archive, segment.as_str(), Access::Write, Role::Archiver, Rule::New),
            (Area::Archive, "15-1/00000002.history", Access::Write, Role::Archiver, Rule::New),
            (Area::Archive, "15-1", Access::Directory, Role::Archiver, Rule::Allowed),
            (Area::Archive, "15-1/0000000100000000", Access::Directory, Role::Archiver, Rule::Allowed),
            (Area::Archive, "archive.info", Access::Write, Role::Backup, Rule::Info),
            (Area::Backup, "backup.info.copy", Access::Write, Role::Backup, Rule::Info),
            (Area::Backup, "", Access::Directory, Role::Backup, Rule::Allowed),
            (Area::Backup, "backup.history/2026", Access::Directory, Role::Backup, Rule::Allowed),
            (Area::Backup, "backup.history/2026/20260102-030405F.manifest.gz", Access::Write, Role::Backup, Rule::New),
            (Area::Backup, "latest", Access::Remove, Role::Backup, Rule::Allowed),
            (Area::Backup, "latest", Access::Link, Role::Backup, Rule::Allowed),
            (Area::Backup, "20260102-030405F", Access::Directory, Role::Backup, Rule::Unfinished),
            (Area::Backup, "20260102-030405F", Access::Remove, Role::Backup, Rule::Unfinished),
            (Area::Backup, "20260102-030405F", Access::RemoveTree, Role::Backup, Rule::Unfinished),
            (Area::Backup, "20260102-030405F/x/y", Access::Directory, Role::Backup, Rule::Unfinished),
            (Area::Backup, "20260102-030405F/x/y", Access::Write, Role::Backup, Rule::Unfinished),
            (Area::Backup, "20260102-030405F/x/y", Access::Remove, Role::Backup, Rule::Unfinished),
            (Area::Backup, "20260102-030405F/x/y", Access::RemoveTree, Role::Backup, Rule::Unfinished),
            (Area::Backup, "20260102-030405F/x/y", Access::Link, Role::Backup, Rule::Unfinished),
            (Area::Backup, "20260102-030405F/x/y", Access::HardLink, Role::Backup, Rule::Unfinished),
        ];
        let places = [
            (Area::Archive, ""),
            (Area::Archive, "archive.info"),
            (Area::Archive, "archive.info.pgbackrest.tmp"),
            (Area::Archive, "15-1"),
            (Area::Archive, "15-1/0000000100000000"),
            (Area::Archive, segment.as_str()),
            (Area::Archive, "15-1/00000002.history"),
            (Area::Archive, "20260102-030405F"),
            (Area::Backup, ""),
            (Area::Backup, "backup.info.copy"),
            (Area::Backup, "archive.info"),
            (Area::Backup, "latest"),
            (Area::Backup, "latest/backup.manifest"),
            (Area::Backup, "backup.history/2026"),
            (Area::Backup, "backup.history/2026/20260102-030405F.manifest.gz"),
            (Area::Backup, "20260102-030405F"),
            (Area::Backup, "20260102-030405F/x/y"),
            (Area::Backup, "15-1/00000002.history"),
        ];
        for (area, path) in places {
            for access in ALL {
                let listed = expected.iter().find(|row| (row.0, row.1, row.2) == (area, path, access));
                let reads = matches!(access, Access::Look | Access::Read);
                let default = (if reads { Role::Reader } else { Role::Admin }, Rule::Allowed);
                let wanted = listed.map_or(default, |row| (row.3, row.4));
                assert_eq!(least(area, path, access), wanted, "{area:?} {path:?} {access:?}");
            }
        }
    }
}
