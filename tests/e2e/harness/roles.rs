//! Clients of each role, by the names in their certificates.

use std::sync::OnceLock;

use super::certificates::{Certificates, Identity};
use super::client::Client;
use super::{Bench, Config, Output, STANZA};

/// What `[client:NAME] role=` can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Reader,
    Archiver,
    Backup,
    Admin,
}

impl Role {
    pub(crate) const ALL: [Self; 4] = [Self::Reader, Self::Archiver, Self::Backup, Self::Admin];

    /// As it is written in the configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Archiver => "archiver",
            Self::Backup => "backup",
            Self::Admin => "admin",
        }
    }

    /// The name in the certificate of its client.
    pub(crate) fn subject(self) -> String {
        format!("host-{}", self.name())
    }

    /// The key and certificate of its client.
    pub(crate) fn identity(self) -> &'static Identity {
        static IDENTITIES: [OnceLock<Identity>; 4] = [const { OnceLock::new() }; 4];
        IDENTITIES[self as usize].get_or_init(|| Certificates::shared().authority.issue(&self.subject()))
    }
}

impl Bench {
    /// Has the server know a client of each role, which is granted nothing but its stanza.
    pub(crate) fn with_roles(release: &str) -> Self {
        let mut bench = Self::new(release);
        bench.add_roles();
        bench
    }

    /// As [`Bench::with_roles`], for a bench that is there.
    pub(crate) fn add_roles(&mut self) {
        for role in Role::ALL {
            let subject = role.subject();
            self.server.config.add("global", "tls-server-auth", &format!("{subject}={STANZA}"));
            self.server.own_config.set(&format!("client:{subject}"), "role", role.name());
        }
    }

    /// Lets the bench's client, and with it the cluster's archive command, be of a role from now on.
    pub(crate) fn become_client(&self, role: Role) {
        self.client.write_identity(role.identity());
    }

    /// Another client of a role, which knows what the bench's client knows.
    pub(crate) fn client_of(&self, role: Role) -> Client {
        let mut client = Client::new(&self.server, role.name());
        client.config.inherit(&self.client.config);
        client.write_identity(role.identity());
        client
    }
}

impl Config {
    /// Takes over what another one says of keys that this one does not know.
    pub(crate) fn inherit(&mut self, other: &Self) {
        for (section, entries) in &other.sections {
            let own = self.sections.entry(section.clone()).or_default();
            let known: Vec<String> = own.iter().map(|(key, _)| key.clone()).collect();
            own.extend(entries.iter().filter(|(key, _)| !known.contains(key)).cloned());
        }
    }
}

/// Insists that a command was refused for its role, and that it was told which one it needs.
#[track_caller]
pub(crate) fn assert_needs(output: &Output, role: Role) {
    let text = output.text();
    // commands that look at several repositories tell of each, and end with codes of their own
    let told = text.contains("ERROR: [105]: repo1: raised from remote-0") || text.contains("repo1: [AccessError]");
    let refused = output.code == 105 || [103, 104].contains(&output.code) && told;
    assert!(refused, "exit code {} of {}:\n{text}", output.code, output.command);
    assert!(text.contains("access denied: "), "{text}");
    let needed = format!("role '{}'", role.name());
    assert!(text.contains(&needed), "the text does not name {needed}: {text}");
}
