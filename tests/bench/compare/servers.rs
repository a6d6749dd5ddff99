//! Both servers at once, on one repository with the same certificates, and the turns that they take.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::time::Instant;

use super::group::Group;
use super::table::Both;
use crate::harness::certificates::{Certificates, Identity, Kind, Wish};
use crate::harness::raw::Caller;
use crate::harness::{Bench, Config, Process, SOON, free_port, peer, wait_until};
use crate::wire::{Answer, Conversation};

/// The stanza of what the raw client does, which no backup is made of.
pub(crate) const RAW: &str = "raw";

/// More than our server is to hold.
const CONNECTIONS: &str = "6000";

/// The two servers, while they run.
pub(crate) struct Pair {
    pub(crate) ours: Server,
    pub(crate) original: Server,
}

/// What our server is.
#[derive(Default, Clone)]
pub(crate) struct Build {
    /// The program, where it is not the one that was just built.
    pub(crate) binary: Option<PathBuf>,
    /// `workers` of its configuration.
    pub(crate) workers: Option<String>,
    /// What else is in it.
    pub(crate) lines: String,
}

/// One of them.
pub(crate) struct Server {
    pub(crate) ours: bool,
    pub(crate) port: u16,
    pub(crate) repository: PathBuf,
    pub(crate) group: Group,
    callers: [Caller; 2],
    /// How many processes it has without sessions.
    processes: usize,
    // ends first: only then can the cgroup go
    process: Option<Process>,
}

/// What something cost.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    /// Seconds of the server's processor time.
    pub(crate) processor: f64,
    /// Seconds until it was done.
    pub(crate) wall: f64,
}

impl Pair {
    /// Starts both, with keys of a kind or with the certificates that the real client has.
    pub(crate) fn start(bench: &Bench, build: &Build, keys: Option<Kind>) -> Self {
        let certificates = Certificates::shared();
        let issued = keys.map(|keys| {
            ["localhost", "pgbackrest-client"].map(|name| certificates.authority.issue_as(name, &Wish::plain(keys)))
        });
        let [server, client] = match &issued {
            Some(issued) => issued.each_ref(),
            None => [&certificates.server, &certificates.client],
        };
        bench.server.write_identity(server);
        Self::configured(bench, &bench.server.config, build, client)
    }

    /// Starts both with a configuration, but for the port, for a client with this certificate.
    pub(crate) fn configured(bench: &Bench, config: &Config, build: &Build, client: &Identity) -> Self {
        let start = |name, ours| Server::start(bench, config, name, ours, client);
        Self { ours: start("ours", Some(build)), original: start("original", None) }
    }

    /// Has both do something in turns, and takes the medians of each of its numbers and of their ratios.
    pub(crate) fn alternate<const N: usize>(
        &self,
        rounds: usize,
        mut work: impl FnMut(&Server) -> [f64; N],
    ) -> [Both; N] {
        let mut all = [Vec::new(), Vec::new()];
        for round in 0..rounds {
            // neither is always the first
            for side in [round % 2, (round + 1) % 2] {
                all[side].push(work([&self.ours, &self.original][side]));
            }
        }
        std::array::from_fn(|index| {
            let [ours, original] =
                [0, 1].map(|side| all[side].iter().map(|numbers| numbers[index]).collect::<Vec<_>>());
            // what else the machine does changes both numbers of a round, but hardly their ratio
            let ratio = median(ours.iter().zip(&original).map(|(ours, original)| ours / original).collect());
            Both { ours: median(ours), original: median(original), ratio }
        })
    }
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Server {
    /// Starts ours, or else the original, in a directory of that name.
    pub(crate) fn start(bench: &Bench, config: &Config, name: &str, ours: Option<&Build>, client: &Identity) -> Self {
        let workspace = &bench.workspace;
        let directory = workspace.directory(&format!("server/{name}"));
        let port = free_port();
        let mut config = config.clone();
        config.set("global", "tls-server-port", &port.to_string());
        config.set("global", "log-level-console", "warn");
        config.set("global", "log-level-file", "off");
        config.set(RAW, "pg1-path", "/var/lib/postgresql/15/main");
        workspace.file(&format!("server/{name}/pgbackrest.conf"), 0o640, &config.text());
        let workers = ours.and_then(|build| build.workers.as_ref());
        let workers = workers.map_or(String::new(), |workers| format!("workers={workers}\n"));
        let lines = ours.map_or("", |build| &build.lines);
        workspace.file(
            &format!("server/{name}/repohostd.conf"),
            0o640,
            &format!("[global]\nconnection-max={CONNECTIONS}\n{workers}{lines}"),
        );
        let config = directory.join("pgbackrest.conf");
        let release = &bench.client.release;
        let command = if let Some(build) = ours {
            let binary = build.binary.clone().unwrap_or_else(|| bench.server.binary());
            let mut command = workspace.command(binary);
            command.arg(format!("--config={}", config.display())).arg(format!("--release={release}"));
            command
        } else {
            let mut command = workspace.command(peer(release));
            // its sessions do not know a --config of its command line
            command.env("PGBACKREST_CONFIG", &config).arg("server");
            command
        };
        let mut process = workspace.spawn(name, command);
        let group = Group::of(name, process.id());
        wait_until("a listener", SOON, || {
            if let Some(status) = process.ended() {
                panic!("the server {name} ended at once with {status}:\n{}", process.printed());
            }
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        group.take_children(process.id());
        // Workers that have nothing to do stay for a while.
        let processes = if ours.is_some() { usize::MAX } else { group.processes() };
        group.settle(processes);
        let callers = [Some(client), None].map(|identity| Caller::new(port, identity, release));
        let repository = bench.server.repository();
        Self { ours: ours.is_some(), port, repository, group, callers, processes, process: Some(process) }
    }

    /// What some work costs the server, until it is done and its sessions have ended.
    pub(crate) fn cost(&self, work: impl FnOnce()) -> Cost {
        self.group.settle(self.processes);
        let (before, begin) = (self.group.processor_time(), Instant::now());
        work();
        let wall = begin.elapsed().as_secs_f64();
        self.group.settle(self.processes);
        Cost { processor: self.group.processor_time() - before, wall }
    }

    /// A session of a client with a certificate that may do all.
    pub(crate) fn session(&self) -> Conversation {
        let mut client = self.callers[0].connect();
        let stanza = format!("--stanza={RAW}");
        done(&client.config(&["--process=1", "--remote-type=repo", &stanza, "archive-push:remote"]));
        done(&client.ask("noop", |_| {}));
        client
    }

    /// Such a session that is going to use the repository.
    pub(crate) fn storage_session(&self) -> Conversation {
        let mut client = self.session();
        // every client asks for this first, and the original's sessions crash without
        done(&client.ask("s-f", |_| {}));
        client
    }

    /// A whole connection of such a client that wants nothing more.
    pub(crate) fn visit(&self) {
        end(self.session());
    }

    /// Asks without a certificate whether the server is there.
    pub(crate) fn ping(&self) {
        let mut client = self.callers[1].connect();
        done(&client.ask("noop", |_| {}));
    }

    /// A path in the repository.
    pub(crate) fn place(&self, name: &str) -> String {
        self.repository.join(name).display().to_string()
    }

    /// Removes what was written to the repository, and has the disk come to rest.
    pub(crate) fn remove(&self, name: &str) {
        let path = self.repository.join(name);
        if path.is_dir() {
            fs::remove_dir_all(path).expect("the directory can be removed");
        } else if path.exists() {
            fs::remove_file(path).expect("the file can be removed");
        }
        rustix::fs::sync();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.take();
    }
}

/// Ends a session as a client does, and waits until the server has closed.
pub(crate) fn end(mut client: Conversation) {
    assert_eq!(client.ask("exit", |_| {}), Answer::Ended);
}

/// Insists that a request was done.
pub(crate) fn done(answer: &Answer) {
    assert!(answer.is_done(), "{answer:?}");
}
