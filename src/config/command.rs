//! The commands that a client can run against a remote.
//!
//! Facts: specification, sections 4.3, 4.5 and 5.1.

use crate::protocol::error::{Code, Error, Result};
use crate::protocol::release::Release;

/// A command whose remote role a session plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are pgBackRest's own and explain themselves")]
pub enum Command {
    Annotate,
    ArchiveGet,
    ArchivePush,
    Backup,
    Check,
    Expire,
    Info,
    Manifest,
    RepoGet,
    RepoLs,
    RepoPut,
    RepoRm,
    Restore,
    StanzaCreate,
    StanzaDelete,
    StanzaUpgrade,
    Verify,
}

const WITHOUT_REMOTE: [&str; 7] = ["help", "repo-create", "server", "server-ping", "start", "stop", "version"];
const ROLES: [&str; 3] = ["async", "local", "remote"];

impl Command {
    /// All commands with the names that they have on a command line, in the order of their declaration.
    pub const ALL: [(Self, &'static str); 17] = [
        (Self::Annotate, "annotate"),
        (Self::ArchiveGet, "archive-get"),
        (Self::ArchivePush, "archive-push"),
        (Self::Backup, "backup"),
        (Self::Check, "check"),
        (Self::Expire, "expire"),
        (Self::Info, "info"),
        (Self::Manifest, "manifest"),
        (Self::RepoGet, "repo-get"),
        (Self::RepoLs, "repo-ls"),
        (Self::RepoPut, "repo-put"),
        (Self::RepoRm, "repo-rm"),
        (Self::Restore, "restore"),
        (Self::StanzaCreate, "stanza-create"),
        (Self::StanzaDelete, "stanza-delete"),
        (Self::StanzaUpgrade, "stanza-upgrade"),
        (Self::Verify, "verify"),
    ];

    /// The name as it stands on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// The command that has this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, other)| *other == name).map(|(command, _)| command)
    }

    /// The command and role at the end of a client's list, such as `backup:remote`.
    ///
    /// # Errors
    ///
    /// 48 for anything but a command's remote role: other roles have side effects that no client
    /// may cause here.
    pub(super) fn from_word(word: &str) -> Result<Self> {
        let invalid = |message: String| Err(Error::new(Code::CommandInvalid, message));
        let (name, role) = word.split_once(':').map_or((word, None), |(name, role)| (name, Some(role)));
        let command = Self::named(name);
        if command.is_none() && !WITHOUT_REMOTE.contains(&name) {
            return invalid(format!("invalid command '{word}'"));
        }
        match (command, role) {
            (Some(command), Some("remote")) => Ok(command),
            (_, Some(role)) if !ROLES.contains(&role) => invalid(format!("invalid command role '{role}'")),
            _ => invalid(format!("invalid command/role combination '{word}'")),
        }
    }

    /// The types of the locks that the main session of the command takes on a remote, in the order
    /// of taking; without any it does not look for stop files either.
    pub(super) const fn lock_types(self, release: &Release) -> &'static [&'static str] {
        match self {
            Self::ArchivePush => &["archive"],
            Self::Backup | Self::Annotate => &["backup"],
            Self::Expire if release.expire_locks => &["backup"],
            Self::StanzaCreate | Self::StanzaDelete | Self::StanzaUpgrade => release.stanza_locks,
            _ => &[],
        }
    }

    pub(super) const fn requires_stanza(self, release: &Release) -> bool {
        match self {
            Self::Info | Self::RepoGet | Self::RepoLs | Self::RepoPut | Self::RepoRm => false,
            Self::Check => release.check_needs_stanza,
            _ => true,
        }
    }

    pub(super) const fn requires_pg_path(self, has_stanza: bool) -> bool {
        match self {
            Self::ArchiveGet
            | Self::Backup
            | Self::Restore
            | Self::StanzaCreate
            | Self::StanzaDelete
            | Self::StanzaUpgrade => true,
            Self::Check => has_stanza,
            _ => false,
        }
    }
}

// `Command::name` finds each by its number.
const _: () = {
    let mut index = 0;
    while index < Command::ALL.len() {
        assert!(Command::ALL[index].0 as usize == index);
        index += 1;
    }
};
