//! A host with a server, a repository host unless it says otherwise: ours, or the original in its place.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use super::certificates::{Certificates, Identity};
use super::{Config, LIMIT, Output, Process, SOON, STANZA, Workspace, free_port, peer, wait_until};

/// Whether the original server runs instead of ours.
fn original() -> bool {
    match std::env::var("REPOHOSTD_TEST_SERVER").as_deref() {
        Err(_) | Ok("" | "repohostd") => false,
        Ok("original") => true,
        Ok(other) => panic!("REPOHOSTD_TEST_SERVER={other}: original or repohostd"),
    }
}

/// A repository host with its configuration and, while it runs, its server.
pub(crate) struct Server {
    pub(crate) workspace: Arc<Workspace>,
    pub(crate) release: String,
    /// Whether our server finds out the clients' releases itself instead of being told `release`.
    pub(crate) learns: bool,
    pub(crate) port: u16,
    /// `pgbackrest.conf`.
    pub(crate) config: Config,
    /// `repohostd.conf`, which only our server reads.
    pub(crate) own_config: Config,
    /// What the server finds in its environment.
    pub(crate) environment: Vec<(String, String)>,
    /// Whether it is the original server.
    pub(crate) is_original: bool,
    /// The number of another user than the tests' one to run it as, which takes root.
    pub(crate) uid: Option<u32>,
    /// How many files each of its processes may have open.
    pub(crate) descriptors: Option<u64>,
    /// A system call that the kernel acts as not to know.
    pub(crate) unknown_call: Option<&'static str>,
    /// A system call that takes so long.
    pub(crate) slow_call: Option<(&'static str, Duration)>,
    name: String,
    process: Option<Process>,
    log: String,
}

impl Server {
    /// Prepares a host that lets `pgbackrest-client` use every stanza.
    pub(crate) fn new(workspace: &Arc<Workspace>, release: &str) -> Self {
        Self::named(workspace, release, "server")
    }

    /// As [`Server::new`], in a directory of this name.
    pub(crate) fn named(workspace: &Arc<Workspace>, release: &str, name: &str) -> Self {
        for directory in ["repository", "lock", "log"] {
            workspace.directory(&format!("{name}/{directory}"));
        }
        let mut server = Self {
            workspace: Arc::clone(workspace),
            release: release.to_owned(),
            learns: false,
            port: free_port(),
            config: Config::default(),
            own_config: Config::default(),
            environment: Vec::new(),
            is_original: original(),
            uid: None,
            descriptors: None,
            unknown_call: None,
            slow_call: None,
            name: name.to_owned(),
            process: None,
            log: String::new(),
        };
        let certificates = Certificates::shared();
        server.write_authority(&certificates.authority.certificate);
        server.write_identity(&certificates.server);
        let here = workspace.path().join(name).display().to_string();
        let port = server.port.to_string();
        for (key, value) in [
            ("repo1-path", format!("{here}/repository")),
            ("lock-path", format!("{here}/lock")),
            ("log-path", format!("{here}/log")),
            ("log-level-console", "detail".to_owned()),
            ("tls-server-port", port),
            ("tls-server-auth", "pgbackrest-client=*".to_owned()),
            ("tls-server-ca-file", format!("{here}/ca.crt")),
            ("tls-server-cert-file", format!("{here}/server.crt")),
            ("tls-server-key-file", format!("{here}/server.key")),
        ] {
            server.config.set("global", key, &value);
        }
        // what is installed on the machine must not decide what a server learns first
        server.own_config.set("global", "installed-release", "n");
        // as many as there are processors, which differ from machine to machine
        let workers = std::env::var("REPOHOSTD_TEST_WORKERS");
        server.own_config.set("global", "workers", workers.as_deref().unwrap_or("2"));
        server
    }

    /// Replaces the files of the server's key and certificate.
    pub(crate) fn write_identity(&self, identity: &Identity) {
        self.file("server.crt", 0o644, &identity.certificate);
        self.file("server.key", 0o600, &identity.key);
    }

    /// Where the repository is.
    pub(crate) fn repository(&self) -> PathBuf {
        self.path("repository")
    }

    /// The lock file of the stanza and the first repository.
    pub(crate) fn lock(&self, kind: &str) -> PathBuf {
        // a lock was the whole stanza's once
        let repository = if self.release == "2.45" { "" } else { "-1" };
        self.path("lock").join(format!("{STANZA}-{kind}{repository}.lock"))
    }

    /// A path of this host.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.workspace.path().join(&self.name).join(name)
    }

    /// Writes a file of this host.
    pub(crate) fn file(&self, name: &str, mode: u32, text: &str) -> PathBuf {
        self.workspace.file(&format!("{}/{name}", self.name), mode, text)
    }

    /// Writes the configuration and starts the server; returns when it accepts connections.
    pub(crate) fn start(&mut self) {
        self.launch();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        self.wait_until_listening(address);
    }

    /// Writes the configuration and starts the server, without waiting for it.
    pub(crate) fn launch(&mut self) {
        assert!(self.process.is_none(), "the server runs already");
        self.write_config();
        let config = self.path("pgbackrest.conf");
        let mut command = if self.is_original {
            let mut command = self.workspace.command(peer(&self.release));
            // its sessions do not know a --config of its command line
            command.env("PGBACKREST_CONFIG", &config).arg("server");
            command
        } else {
            let injected = match (self.unknown_call, self.slow_call) {
                (Some(call), _) => Some((call, "error=ENOSYS".to_owned())),
                (None, Some((call, delay))) => Some((call, format!("delay_enter={}", delay.as_micros()))),
                (None, None) => None,
            };
            let mut command = if let Some((call, what)) = injected {
                // the tracer is no parent: the server's process keeps its number and its status
                let mut command = self.workspace.command("strace");
                command.args(["-D", "-f", "--seccomp-bpf", "-qq", "-e"]).arg(format!("trace={call}"));
                command.arg("-e").arg(format!("inject={call}:{what}"));
                command.arg("-o").arg(self.path(&format!("{call}.trace"))).arg(self.binary());
                command
            } else if let Some(count) = self.descriptors {
                let mut command = self.workspace.command("prlimit");
                command.arg(format!("--nofile={count}:{count}")).arg(self.binary());
                command
            } else {
                self.workspace.command(self.binary())
            };
            command.arg(format!("--config={}", config.display()));
            if !self.learns {
                command.arg(format!("--release={}", self.release));
            }
            command
        };
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(uid) = self.uid {
            command.uid(uid);
        }
        self.process = Some(self.workspace.spawn(&self.name, command));
    }

    /// Waits until the server accepts connections at an address.
    pub(crate) fn wait_until_listening(&mut self, address: SocketAddr) {
        let process = self.process.as_mut().expect("the server was started");
        wait_until(&format!("a listener at {address}"), SOON, || {
            if let Some(status) = process.ended() {
                panic!("the server ended at once with {status}:\n{}", process.printed());
            }
            TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok()
        });
    }

    /// Writes `pgbackrest.conf` and `repohostd.conf`.
    pub(crate) fn write_config(&self) {
        for (name, text) in [("pgbackrest.conf", self.config.text()), ("repohostd.conf", self.own_config.text())] {
            self.workspace.update(&format!("{}/{name}", self.name), 0o640, &text);
        }
    }

    /// Writes the configuration and has the server read it again; returns when it says that it has.
    pub(crate) fn reload(&mut self) {
        let before = self.log().matches("configuration reload end").count();
        self.write_config();
        self.signal(Signal::HUP);
        wait_until("the end of the reload", SOON, || self.log().matches("configuration reload end").count() > before);
    }

    /// Sends a signal to the server.
    pub(crate) fn signal(&self, signal: Signal) {
        self.running().signal(signal);
    }

    /// Whether a process is the server's own or one of its workers.
    pub(crate) fn has_process(&self, process: u32) -> bool {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // the name in parentheses may hold anything; the state and the parent follow it
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        process == self.id() || parent == Some(self.id())
    }

    /// The server's process id.
    pub(crate) fn id(&self) -> u32 {
        self.running().id()
    }

    /// Whether the server still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().is_none())
    }

    /// Waits for the server's end and returns how it ended; `limit` is how long it may take.
    pub(crate) fn wait(&mut self, limit: Duration) -> i32 {
        let output = self.process.take().expect("the server runs").output(limit);
        self.log.push_str(&output.text());
        output.code
    }

    /// Asks the server to end and returns its exit code.
    pub(crate) fn terminate(&mut self) -> i32 {
        self.signal(Signal::TERM);
        self.wait(SOON)
    }

    /// Ends the server without notice.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait(SOON);
    }

    /// What the server printed, over all its starts.
    pub(crate) fn log(&self) -> String {
        let now = self.process.as_ref().map(Process::printed);
        format!("{}{}", self.log, now.unwrap_or_default())
    }

    /// Waits until the server has printed something.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        wait_until(&format!("{text:?} in the server's log"), SOON, || self.log().contains(text));
    }

    /// Runs one of our own commands on the repository host.
    pub(crate) fn own_command(&self, arguments: &[&str]) -> Output {
        let mut command = self.workspace.command(self.binary());
        command.args(arguments).arg(format!("--config={}", self.path("pgbackrest.conf").display()));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.workspace.run(&format!("own-{}", arguments[0]), command)
    }

    /// Starts the real pgbackrest on the repository host, for the stanza.
    pub(crate) fn start_local(&self, arguments: &[&str]) -> Process {
        let mut all = vec![arguments[0], "--stanza", STANZA];
        all.extend(&arguments[1..]);
        self.start_local_exactly(&all)
    }

    /// Runs the real pgbackrest on the repository host, for the stanza.
    pub(crate) fn local(&self, arguments: &[&str]) -> Output {
        self.start_local(arguments).output(LIMIT)
    }

    /// Runs the real pgbackrest on the repository host with these arguments and the configuration only.
    pub(crate) fn local_exactly(&self, arguments: &[&str]) -> Output {
        self.start_local_exactly(arguments).output(LIMIT)
    }

    fn start_local_exactly(&self, arguments: &[&str]) -> Process {
        let mut command = self.workspace.command(peer(&self.release));
        command.arg(format!("--config={}", self.path("pgbackrest.conf").display())).args(arguments);
        self.workspace.spawn(&format!("local-{}", arguments[0]), command)
    }

    /// Writes the CA file that clients are checked with.
    pub(crate) fn write_authority(&self, certificates: &str) {
        self.file("ca.crt", 0o644, certificates);
    }

    /// Our server at a place that the tests' user can reach, wherever the source tree is.
    pub(crate) fn binary(&self) -> PathBuf {
        let other = std::env::var_os("REPOHOSTD_TEST_BINARY");
        let built = other.map_or_else(|| env!("CARGO_BIN_EXE_repohostd").into(), PathBuf::from);
        let place = self.path("repohostd");
        if !place.exists() && fs::hard_link(&built, &place).is_err() {
            fs::copy(&built, &place).expect("the server can be copied");
        }
        place
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("the server runs")
    }
}
