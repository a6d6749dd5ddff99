//! How much of a stanza a client may do, and which clients may do how much.
//!
//! Roles are ours: pgBackRest authorizes a client for a stanza and everything in it. Those of repositories
//! are a ladder; a session on a cluster has [`Role::PgReader`] whatever role its client has in repositories.

use std::time::Duration;

use super::command::Command;
use super::own::OwnSettings;

/// What a client may do inside of its stanzas; each role may do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Role {
    /// Look at and read a cluster. In repositories: nothing.
    PgReader,
    /// Look and read.
    Reader,
    /// Add WAL segments and history files.
    Archiver,
    /// Make backups.
    Backup,
    /// Everything.
    #[default]
    Admin,
}

impl Role {
    /// All roles in repositories, the one that may do the least first.
    pub const ALL: [Self; 4] = [Self::Reader, Self::Archiver, Self::Backup, Self::Admin];
    /// The names of all roles.
    pub const NAMES: [&str; 5] = ["pg-reader", "reader", "archiver", "backup", "admin"];

    /// The name in `repohostd.conf` and in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PgReader => "pg-reader",
            Self::Reader => "reader",
            Self::Archiver => "archiver",
            Self::Backup => "backup",
            Self::Admin => "admin",
        }
    }

    /// The role with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::PgReader].into_iter().chain(Self::ALL).find(|role| role.name() == name)
    }

    /// Whether a session on a cluster may be one of `command`: those that read clusters over the network, all
    /// of them on a repository host.
    #[must_use]
    pub const fn reads_cluster(command: Command) -> bool {
        matches!(
            command,
            Command::Backup
                | Command::Check
                | Command::Manifest
                | Command::StanzaCreate
                | Command::StanzaDelete
                | Command::StanzaUpgrade
        )
    }

    /// The least role that a client needs for `command` in a repository.
    #[must_use]
    pub const fn for_command(command: Command) -> Self {
        match command {
            Command::ArchiveGet
            | Command::Check
            | Command::Info
            | Command::Manifest
            | Command::RepoGet
            | Command::RepoLs
            | Command::Restore
            | Command::Verify => Self::Reader,
            Command::ArchivePush => Self::Archiver,
            Command::Annotate | Command::Backup => Self::Backup,
            Command::Expire
            | Command::RepoPut
            | Command::RepoRm
            | Command::StanzaCreate
            | Command::StanzaDelete
            | Command::StanzaUpgrade => Self::Admin,
        }
    }

    /// The types of locks that a session of this role may take. On a cluster they are those of any command
    /// there.
    #[must_use]
    pub const fn lock_types(self) -> &'static [&'static str] {
        match self {
            Self::Reader => &[],
            Self::Archiver => &["archive"],
            Self::Backup => &["archive", "backup"],
            Self::PgReader | Self::Admin => &["archive", "backup", "restore"],
        }
    }
}

/// What `[client:NAME]` says of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedRights {
    /// The name.
    pub name: String,
    /// `role=`, if it is there.
    pub role: Option<Role>,
    /// `stanza=`, if it is there: the only stanzas that are left of those granted.
    pub stanzas: Option<Vec<String>>,
}

/// What one client may do in the stanzas that it is granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Its role.
    pub role: Role,
    /// The only stanzas that it may reach, if that is restricted.
    pub stanzas: Option<Vec<String>>,
}

/// What guards a repository against its own clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protection {
    /// `min-age=`: how long a finished backup and its WAL cannot be removed by any client. Default: 0.
    pub min_age: Duration,
    /// `opaque-info=`: whether a client below admin may replace info files that the server cannot
    /// read, since they are encrypted with a passphrase that it does not know. Default: y.
    pub opaque_info: bool,
    /// `info-history=`: how many earlier versions of each info file are kept; 0 to 10000. Default:
    /// 100.
    pub info_history: usize,
}

impl Default for Protection {
    fn default() -> Self {
        Self { min_age: Duration::ZERO, opaque_info: true, info_history: 100 }
    }
}

impl OwnSettings {
    /// What a client with these names may do. Where several sections are for it, the least that any of
    /// them says.
    #[must_use]
    pub fn rights(&self, names: &[String]) -> Rights {
        let mut result = Rights { role: self.role, stanzas: None };
        let mut role = None::<Role>;
        for rights in self.rights.iter().filter(|rights| names.contains(&rights.name)) {
            role = match (role, rights.role) {
                (Some(first), Some(second)) => Some(first.min(second)),
                (first, second) => first.or(second),
            };
            if let Some(stanzas) = &rights.stanzas {
                let both = |before: Vec<String>| before.into_iter().filter(|stanza| stanzas.contains(stanza)).collect();
                result.stanzas = Some(result.stanzas.take().map_or_else(|| stanzas.clone(), both));
            }
        }
        result.role = role.unwrap_or(self.role);
        result
    }
}

impl Rights {
    /// Whether the stanza (none: sessions without one) is left of what the client is granted.
    #[must_use]
    pub fn reaches(&self, stanza: Option<&str>) -> bool {
        self.stanzas.as_ref().is_none_or(|stanzas| stanza.is_some_and(|stanza| stanzas.iter().any(|own| own == stanza)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, role: Option<Role>, stanzas: Option<&[&str]>) -> NamedRights {
        let stanzas = stanzas.map(|stanzas| stanzas.iter().map(|stanza| (*stanza).to_owned()).collect());
        NamedRights { name: name.to_owned(), role, stanzas }
    }

    #[test]
    fn a_client_may_do_the_least_that_any_section_for_it_says() {
        let rights = vec![
            named("host", Some(Role::Backup), Some(&["a", "b"])),
            named("host.example.org", Some(Role::Reader), Some(&["b", "c"])),
            named("release only", None, None),
            named("admin", Some(Role::Admin), None),
        ];
        let own = OwnSettings { role: Role::Archiver, rights, ..OwnSettings::default() };
        let rights = |names: &[&str]| own.rights(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let both = rights(&["host", "host.example.org"]);
        assert_eq!((both.role, both.stanzas.as_deref()), (Role::Reader, Some(&["b".to_owned()][..])));
        assert!(both.reaches(Some("b")) && !both.reaches(Some("a")) && !both.reaches(None));
        assert_eq!(rights(&["host"]).role, Role::Backup);
        assert_eq!(rights(&["admin", "release only"]), Rights { role: Role::Admin, stanzas: None });
        assert_eq!(rights(&["release only"]).role, Role::Archiver, "what is not said is the default");
        assert_eq!(rights(&["somebody"]), Rights { role: Role::Archiver, stanzas: None });
        assert!(rights(&["somebody"]).reaches(None));
    }
}
