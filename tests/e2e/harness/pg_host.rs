//! `PostgreSQL` hosts that the repository host reads over the network, as the original's user guide sets them up:
//! a server on each, and backups made by `pgbackrest` on the repository host.

use std::fs;
use std::os::unix::fs::{lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::certificates::{Certificates, Identity};
use super::postgres::Cluster;
use super::server::Server;
use super::{Bench, LIMIT, Output, Owner, Process, STANZA, Workspace, own};

/// The name in the certificate of the repository host.
pub(crate) const REPOSITORY_HOST: &str = "repository-host";

/// The repository host's key and certificate.
pub(crate) fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| Certificates::shared().authority.issue(REPOSITORY_HOST))
}

impl Bench {
    /// Prepares a server on the host of a cluster, which the repository host knows from now on as its `pgN`. It
    /// does not run yet.
    pub(crate) fn serve_cluster(&mut self, cluster: &Cluster, index: u32) -> Server {
        let mut host = Server::named(&self.workspace, &self.client.release, &format!("pg{index}-host"));
        host.config.unset("global", "repo1-path");
        host.config.set("global", "tls-server-auth", &format!("{REPOSITORY_HOST}={STANZA}"));
        host.config.set(STANZA, "pg1-path", &cluster.path.display().to_string());

        self.server.file("repository.crt", 0o644, &identity().certificate);
        self.server.file("repository.key", 0o600, &identity().key);
        let file = |name: &str| self.server.path(name).display().to_string();
        let (authority, certificate, key) = (file("ca.crt"), file("repository.crt"), file("repository.key"));
        for (option, value) in [
            ("host", "localhost".to_owned()),
            ("host-type", "tls".to_owned()),
            ("host-port", host.port.to_string()),
            ("host-ca-file", authority),
            ("host-cert-file", certificate),
            ("host-key-file", key),
            ("path", cluster.path.display().to_string()),
            ("socket-path", cluster.sockets().display().to_string()),
        ] {
            self.server.config.set(STANZA, &format!("pg{index}-{option}"), &value);
        }
        for (key, value) in [("repo1-retention-full", "9"), ("start-fast", "y"), ("log-level-stderr", "off")] {
            self.server.config.set("global", key, value);
        }
        host
    }

    /// Starts the real pgbackrest on the repository host, for the stanza.
    pub(crate) fn start_at_repository(&self, arguments: &[&str]) -> Process {
        self.server.write_config();
        self.server.start_local(arguments)
    }

    /// Runs the real pgbackrest on the repository host, for the stanza.
    pub(crate) fn run_at_repository(&self, arguments: &[&str]) -> Output {
        self.start_at_repository(arguments).output(LIMIT)
    }
}

/// Makes a link of the tests' user.
pub(crate) fn link(text: &Path, at: &Path) {
    symlink(text, at).expect("the link can be made");
    if rustix::process::geteuid().is_root() {
        let owner = Owner::get();
        lchown(at, Some(owner.uid), Some(owner.gid)).expect("the link can be given away");
    }
}

/// Moves parts of a cluster that does not run elsewhere, with links of every kind that a client follows in their
/// place, and adds what no backup takes.
pub(crate) fn spread(workspace: &Workspace, cluster: &Cluster) {
    let elsewhere = workspace.directory("elsewhere");
    let at = |name: &str| cluster.path.join(name);
    fs::rename(at("pg_wal"), elsewhere.join("wal")).expect("the WAL can be moved");
    link(&elsewhere.join("wal"), &at("pg_wal"));
    fs::rename(at("postgresql.conf"), elsewhere.join("main.conf")).expect("the file can be moved");
    link(Path::new("../../elsewhere/main.conf"), &at("postgresql.conf"));
    let notes = workspace.directory("notes");
    workspace.file("notes/today", 0o640, "a note");
    link(&notes, &at("notes"));
    mknodat(CWD, at("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a pipe can be made");
    own(&at("pipe"));
    drop(UnixListener::bind(at("socket")).expect("a socket can be made"));
}
