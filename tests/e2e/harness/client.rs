//! An unmodified `pgbackrest` on a `PostgreSQL` host.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::certificates::{Certificates, Identity};
use super::server::Server;
use super::{Config, LIMIT, Output, Process, STANZA, Workspace, own as own_path, peer};

/// A host's configuration and the commands run with it.
pub(crate) struct Client {
    pub(crate) workspace: Arc<Workspace>,
    pub(crate) release: String,
    /// Its binary that calls itself something else, see [`Client::disguise`].
    alias: Option<PathBuf>,
    /// `pgbackrest.conf`; written when a command starts.
    pub(crate) config: Config,
    name: String,
}

impl Client {
    /// Prepares a host named `name` that keeps its backups at a server.
    pub(crate) fn new(server: &Server, name: &str) -> Self {
        let workspace = Arc::clone(&server.workspace);
        for directory in ["lock", "log", "spool"] {
            workspace.directory(&format!("{name}/{directory}"));
        }
        let mut client = Self {
            workspace,
            release: server.release.clone(),
            alias: None,
            config: Config::default(),
            name: name.to_owned(),
        };
        let certificates = Certificates::shared();
        client.write_authority(&certificates.authority.certificate);
        client.write_identity(&certificates.client);
        let here = client.workspace.path().join(name).display().to_string();
        for (key, value) in [
            ("repo1-host", "localhost".to_owned()),
            ("repo1-host-type", "tls".to_owned()),
            ("repo1-host-port", server.port.to_string()),
            ("repo1-host-ca-file", format!("{here}/ca.crt")),
            ("repo1-host-cert-file", format!("{here}/client.crt")),
            ("repo1-host-key-file", format!("{here}/client.key")),
            ("repo1-retention-full", "9".to_owned()),
            ("lock-path", format!("{here}/lock")),
            ("log-path", format!("{here}/log")),
            ("spool-path", format!("{here}/spool")),
            ("log-level-console", "detail".to_owned()),
            // as it is by default since 2.53, so that what a command says is all in one place
            ("log-level-stderr", "off".to_owned()),
            ("start-fast", "y".to_owned()),
        ] {
            client.config.set("global", key, &value);
        }
        client
    }

    /// Has a copy of its real binary call itself `version`, which must be as long as its own release:
    /// the one way to have a client of a release that does not exist yet, or that nobody packages, but
    /// that speaks as a real one does. Nothing but the number that it greets with is changed, in a
    /// copy in the test's own directory.
    pub(crate) fn disguise(&mut self, version: &str) {
        let [own, other] = [&self.release, version].map(|number| format!("pgBackRest {number}\0").into_bytes());
        assert_eq!(own.len(), other.len(), "a longer number has no room in the binary");
        let mut binary = fs::read(peer(&self.release)).expect("the client's binary can be read");
        let places: Vec<usize> =
            binary.windows(own.len()).enumerate().filter(|(_, text)| *text == own).map(|(place, _)| place).collect();
        assert!(!places.is_empty(), "the binary names its release");
        for place in places {
            binary[place..place + own.len()].copy_from_slice(&other);
        }
        let program = self.workspace.path().join(&self.name).join("pgbackrest");
        fs::write(&program, binary).expect("the copy can be written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode can be set");
        own_path(&program);
        let mut command = self.workspace.command(&program);
        command.arg("version");
        assert_eq!(self.workspace.run("version", command).ok().trim(), format!("pgBackRest {version}"));
        self.alias = Some(program);
    }

    /// Its binary.
    pub(crate) fn program(&self) -> PathBuf {
        self.alias.clone().unwrap_or_else(|| peer(&self.release))
    }

    /// Replaces the host's key and certificate.
    pub(crate) fn write_identity(&self, identity: &Identity) {
        self.workspace.file(&format!("{}/client.crt", self.name), 0o644, &identity.certificate);
        self.workspace.file(&format!("{}/client.key", self.name), 0o600, &identity.key);
    }

    /// Replaces the authorities that the host trusts.
    pub(crate) fn write_authority(&self, certificate: &str) {
        self.workspace.file(&format!("{}/ca.crt", self.name), 0o644, certificate);
    }

    /// Where the host's configuration is.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.workspace.path().join(&self.name).join("pgbackrest.conf")
    }

    /// Writes the configuration, for commands that others run with it.
    pub(crate) fn write_config(&self) {
        self.workspace.update(&format!("{}/pgbackrest.conf", self.name), 0o640, &self.config.text());
    }

    /// Starts a command for the stanza.
    pub(crate) fn start(&self, arguments: &[&str]) -> Process {
        let mut all = vec!["--stanza", STANZA];
        all.extend(arguments);
        self.start_exactly(&all)
    }

    /// Starts a command with these arguments and the configuration only.
    pub(crate) fn start_exactly(&self, arguments: &[&str]) -> Process {
        self.write_config();
        let mut command = self.workspace.command(self.program());
        command.arg(format!("--config={}", self.config_file().display())).args(arguments);
        let name = arguments.iter().rfind(|argument| argument.starts_with(|first: char| first.is_ascii_lowercase()));
        self.workspace.spawn(name.unwrap_or(&"pgbackrest").rsplit('/').next().unwrap_or("pgbackrest"), command)
    }

    /// Starts a command for the stanza that prints into a file of the caller's.
    pub(crate) fn start_into(&self, file: File, arguments: &[&str]) -> Process {
        self.write_config();
        let mut command = self.workspace.command(self.program());
        command.arg(format!("--config={}", self.config_file().display())).arg(format!("--stanza={STANZA}"));
        self.workspace.spawn_into("into", command.args(arguments), file)
    }

    /// Starts a command for the stanza that reads from a file of the caller's.
    pub(crate) fn start_reading(&self, file: File, arguments: &[&str]) -> Process {
        self.write_config();
        let mut command = self.workspace.command(self.program());
        command.arg(format!("--config={}", self.config_file().display())).arg(format!("--stanza={STANZA}"));
        command.args(arguments).stdin(file);
        self.workspace.spawn("reading", command)
    }

    /// Runs a command for the stanza to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.start(arguments).output(LIMIT)
    }

    /// Runs a command with these arguments and the configuration only.
    pub(crate) fn run_exactly(&self, arguments: &[&str]) -> Output {
        self.start_exactly(arguments).output(LIMIT)
    }

    /// Runs a command for the stanza and insists on success.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).ok()
    }

    /// Runs a command for the stanza, insists on an exit code and returns what was printed.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> String {
        self.run(arguments).fails_with(code)
    }

    /// What `info` knows of the stanza.
    #[track_caller]
    pub(crate) fn info(&self) -> serde_json::Value {
        let text = self.ok(&["info", "--output=json", "--log-level-console=off"]);
        let info: serde_json::Value = serde_json::from_str(&text).expect("info prints JSON");
        info[0].clone()
    }

    /// Labels of the stanza's backups, oldest first.
    #[track_caller]
    pub(crate) fn labels(&self) -> Vec<String> {
        let info = self.info();
        let backups = info["backup"].as_array().expect("info lists backups");
        backups.iter().map(|backup| backup["label"].as_str().expect("a backup has a label").to_owned()).collect()
    }

    /// Has the client check every file of the repository and insists that nothing is wrong.
    #[track_caller]
    pub(crate) fn verifies(&self) {
        let text = self.ok(&["verify", "--output=text", "--verbose"]);
        assert!(text.contains("status: ok"), "verify found errors:\n{text}");
    }
}
