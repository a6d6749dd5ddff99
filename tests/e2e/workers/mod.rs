//! Several processes serve: one that is lost takes its own sessions with it and nobody else's.

mod backoff;
mod ending;
mod host;
mod hung;
mod killed;
mod memory;
mod names;
mod races;
mod reload;
mod soak;
mod spread;
mod suspects;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::harness::server::Server;
use crate::harness::{Bench, Process, wait_until};

/// How long anything here may take.
const SOON: Duration = Duration::from_secs(120);

/// A bench whose server has so many workers.
fn with_workers(release: &str, workers: u32) -> Bench {
    let mut bench = Bench::new(release);
    set_workers(&mut bench.server, workers);
    bench
}

/// Has a server have so many workers, and tell of them.
fn set_workers(server: &mut Server, workers: u32) {
    server.own_config.set("global", "workers", &workers.to_string());
    tell(server);
}

/// Has a server tell of its workers and sessions.
pub(crate) fn tell(server: &mut Server) {
    let socket = server.path("status.sock").display().to_string();
    server.own_config.set("global", "status-socket", &socket);
}

/// What a server tells of itself.
fn status(server: &Server) -> serde_json::Value {
    serde_json::from_str(&server.own_command(&["status", "--json"]).ok()).expect("status prints JSON")
}

/// The processes of the workers.
pub(crate) fn workers(bench: &Bench) -> Vec<Pid> {
    let status = status(&bench.server);
    let workers = status["workers"].as_array().expect("there are workers");
    workers.iter().map(|worker| pid(&worker["pid"])).collect()
}

fn pid(value: &serde_json::Value) -> Pid {
    let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
    number.and_then(Pid::from_raw).expect("a process has a number")
}

/// A session, as the worker tells that has it.
#[derive(Debug)]
pub(crate) struct Session {
    peer: SocketAddr,
    pub(crate) command: Option<String>,
    /// The number of the client's process.
    process: Option<u64>,
    worker: Pid,
}

pub(crate) fn sessions(server: &Server) -> Vec<Session> {
    let status = status(server);
    let sessions = status["sessions"].as_array().expect("there are sessions").iter();
    let session = |session: &serde_json::Value| Session {
        peer: session["peer"].as_str().and_then(|peer| peer.parse().ok()).expect("an address"),
        command: session["command"].as_str().map(str::to_owned),
        process: session["process"].as_u64(),
        worker: pid(&session["pid"]),
    };
    sessions.map(session).collect()
}

/// The workers that have the sessions that do `command`.
fn who_serves(server: &Server, command: &str) -> Vec<Pid> {
    let sessions = sessions(server).into_iter().filter(|session| session.command.as_deref() == Some(command));
    sessions.map(|session| session.worker).collect()
}

/// Who was lost with a worker, and its process, as the log tells.
fn lost(log: &str) -> Vec<(SocketAddr, Pid)> {
    let line = |line: &str| {
        let (peer, rest) = line.split_once(" WARN: client at ")?.1.split_once(": lost with worker ")?;
        let (_, process) = rest.split_once(", process ")?;
        Some((peer.parse().expect("an address"), process.parse().ok().and_then(Pid::from_raw).expect("a process")))
    };
    log.lines().filter_map(line).collect()
}

/// A client that stands still in the middle of a file.
struct Reader {
    process: Process,
    got: PathBuf,
    large: PathBuf,
}

impl Reader {
    fn start(bench: &Bench, name: &str) -> Self {
        bench.workspace.directory("server/repository/archive/demo");
        let large = "server/repository/archive/demo/large";
        bench.workspace.update(large, 0o640, &"0123456789abcdef".repeat(4 << 20));
        let large = bench.workspace.path().join(large);
        let got = bench.workspace.path().join(name);
        let file = fs::File::create(&got).expect("the file can be made");
        let process = bench.client.start_into(file, &["repo-get", "--log-level-console=off", "archive/demo/large"]);
        wait_until("a part of a file", SOON, || fs::metadata(&got).is_ok_and(|metadata| metadata.len() > 0));
        process.signal(Signal::STOP);
        Self { process, got, large }
    }

    /// Lets it go on. Whether it gets the whole file.
    fn finish(self) -> bool {
        self.process.signal(Signal::CONT);
        let output = self.process.output(SOON);
        let whole = fs::read(&self.got).expect("readable") == fs::read(&self.large).expect("readable");
        assert_eq!(output.code == 0, whole, "{}", output.text());
        whole
    }
}

/// Two of them, each at a worker of its own.
struct Readers([Reader; 2]);

impl Readers {
    fn start(bench: &Bench) -> Self {
        Self(["one", "two"].map(|name| Reader::start(bench, name)))
    }

    /// Lets both go on. How many have got the whole file.
    fn finish(self) -> usize {
        self.0.map(Reader::finish).iter().filter(|whole| **whole).count()
    }
}

fn is_there(process: Pid) -> bool {
    let line = fs::read_to_string(format!("/proc/{}/cmdline", process.as_raw_nonzero())).unwrap_or_default();
    line.contains("serve-worker")
}
