//! Hosts that run a command after the other, and what becomes of each.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::SOON;
use crate::harness::client::Client;
use crate::harness::relay::Relay;
use crate::harness::{Bench, Output, Process, STANZA};

/// A client whose connections are told from those of others, since they come from an address of its own. It runs
/// a command after the other.
pub(super) struct Host {
    pub(super) client: Client,
    pub(super) stanza: String,
    pub(super) relay: Relay,
    /// What it runs.
    running: Option<Running>,
    pub(super) done: usize,
    /// The connections of each command that failed, and what it said.
    pub(super) failures: Vec<(Vec<SocketAddr>, String)>,
    /// When each command began, and how long it took.
    pub(super) times: Vec<(Instant, Duration)>,
}

/// A command, when it began, and how many connections there were before.
struct Running {
    process: Process,
    begun: Instant,
    before: usize,
}

impl Host {
    /// The one with this number, which works on a stanza.
    pub(super) fn new(bench: &Bench, number: u8, stanza: &str, mut client: Client) -> Self {
        let relay = Relay::from(Ipv4Addr::new(127, 0, 1, number), bench.server.port);
        client.config.set("global", "repo1-host-port", &relay.port.to_string());
        Self { client, stanza: stanza.to_owned(), relay, running: None, done: 0, failures: vec![], times: vec![] }
    }

    /// With a stanza of its own, so that several can push at a time.
    pub(super) fn with_stanza(bench: &Bench, number: u8) -> Self {
        let stanza = format!("stanza{number}");
        let mut client = Client::new(&bench.server, &stanza);
        client.config.set(&stanza, "pg1-path", bench.client.config.value(STANZA, "pg1-path"));
        let host = Self::new(bench, number, &stanza, client);
        host.run(&["--no-online", "stanza-create"]).ok();
        host
    }

    /// Starts a command for its stanza.
    pub(super) fn start(&self, arguments: &[&str]) -> Process {
        self.client.start_exactly(&[&["--stanza", &self.stanza], arguments].concat())
    }

    /// Runs one to its end.
    pub(super) fn run(&self, arguments: &[&str]) -> Output {
        self.start(arguments).output(SOON)
    }

    /// Runs the next command once the one before is over.
    pub(super) fn advance(&mut self, next: impl FnOnce(&Self) -> Process) {
        if self.running.as_mut().is_none_or(|running| running.process.ended().is_some()) {
            self.take();
            let (before, begun) = (self.relay.peers().len(), Instant::now());
            self.running = Some(Running { process: next(self), begun, before });
        }
    }

    /// Takes note of how the last command ends.
    pub(super) fn take(&mut self) {
        let Some(Running { process, begun, before }) = self.running.take() else { return };
        let output = process.output(SOON);
        self.times.push((begun, begun.elapsed()));
        if output.code == 0 {
            self.done += 1;
        } else {
            let peers = self.relay.peers().split_off(before);
            self.failures.push((peers, format!("exit code {} of {}:\n{}", output.code, output.command, output.text())));
        }
    }
}
