//! What is told of the server, as one JSON document.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::disk::FileSystemView;
use crate::server::client::view::SessionView;
use crate::server::releases::learner::Learner;
use crate::server::releases::policy::Policy;

/// Raised when the meaning of the document changes.
pub const VERSION: u64 = 1;
/// Entries are left out, and counted, when a list gets longer than this.
pub(super) const SESSIONS_LENGTH: usize = 2 << 20;
pub(super) const CLIENTS_LENGTH: usize = 2 << 20;
const FILE_SYSTEMS_LENGTH: usize = 1 << 20;

/// What is told of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// Its number.
    pub number: u32,
    /// Its process.
    pub pid: u32,
    /// Connections that it has.
    pub connections: usize,
    /// Those of them that transfer files.
    pub transfers: usize,
    /// For how long it has not answered, if that is so long that it gets no connections.
    pub silent: Option<Duration>,
    /// It gets no more connections, and ends after those that it has.
    pub leaving: bool,
    /// Which suspects it is kept for, as [`Suspects`](crate::server::workers::suspects::Suspects) numbers them.
    pub slot: Option<usize>,
    /// Who they are.
    pub kept_for: Option<String>,
}

/// Calls back with each session, as a JSON object.
pub(crate) type Sessions<'a> = Box<dyn Fn(&mut dyn FnMut(&str)) + 'a>;

/// What an answer is made of.
pub(crate) struct View<'a> {
    pub(crate) addresses: &'a [SocketAddr],
    pub(crate) policy: &'a Policy,
    pub(crate) learner: &'a Learner,
    pub(crate) connections: usize,
    /// None where one process does everything.
    pub(crate) workers: &'a [WorkerView],
    pub(crate) file_systems: &'a [String],
    pub(crate) sessions: Sessions<'a>,
}

impl View<'_> {
    pub(super) fn compose(&self) -> String {
        let head = json!({
            "version": VERSION,
            "server": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "addresses": self.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "release": self.policy.general().map(|release| release.version),
            "connections": self.connections,
            "workers": self.workers.iter().map(worker_json).collect::<Vec<_>>(),
        });
        let mut text = head.to_string();
        // The lists go between the head's last value and its brace.
        text.pop();
        let mut file_systems = List::begin(&mut text, "file-systems", FILE_SYSTEMS_LENGTH);
        for file_system in self.file_systems {
            file_systems.add(file_system);
        }
        file_systems.end();
        let mut sessions = List::begin(&mut text, "sessions", SESSIONS_LENGTH);
        (self.sessions)(&mut |session| sessions.add(session));
        sessions.end();
        let mut clients = List::begin(&mut text, "clients", CLIENTS_LENGTH);
        for (key, worked) in self.learner.worked() {
            let releases: Vec<_> =
                worked.iter().map(|worked| json!({ "release": worked.release.version, "at": worked.at })).collect();
            let address = key.address.to_string();
            clients.add(&json!({ "client": key.client, "address": address, "releases": releases }).to_string());
        }
        clients.end();
        text.push_str("}\n");
        text
    }
}

fn worker_json(worker: &WorkerView) -> Value {
    json!({
        "number": worker.number,
        "pid": worker.pid,
        "connections": worker.connections,
        "transfers": worker.transfers,
        "silent": worker.silent.map(|silent| silent.as_secs()),
        "leaving": worker.leaving,
        "kept-for": worker.kept_for,
    })
}

/// What is told of a file system that this process has asked for something.
pub(crate) fn file_system_json(file_system: &FileSystemView) -> String {
    let [looks, data, changes] = file_system.is_quick.map(|quick| if quick { "at once" } else { "helpers" });
    let value = json!({
        "pid": std::process::id(),
        "path": file_system.place.to_string_lossy(),
        "type": file_system.name,
        "looks": looks,
        "data": data,
        "changes": changes,
        "slow-ms": file_system.slow.map(|slow| u64::try_from(slow.as_millis()).unwrap_or(u64::MAX)),
    });
    value.to_string()
}

/// What is told of a session that this process has.
pub(crate) fn session_json(session: &SessionView<'_>) -> String {
    let opened = session.opened;
    let value = json!({
        "pid": std::process::id(),
        "peer": session.peer.to_string(),
        "client": session.client,
        "stanza": opened.and_then(|opened| opened.stanza.as_deref()),
        "command": opened.map(|opened| opened.command.as_str()),
        "process": opened.map(|opened| opened.process),
        "release": session.release,
        "seconds": session.age.as_secs(),
        "requests": session.counters.requests,
        "errors": session.counters.errors,
        "denied": session.counters.denied,
        "read": session.counters.read,
        "written": session.counters.written,
    });
    value.to_string()
}

/// A list of an answer that does not grow without bound.
struct List<'a> {
    text: &'a mut String,
    name: &'static str,
    longest: usize,
    empty: bool,
    omitted: usize,
}

impl<'a> List<'a> {
    fn begin(text: &'a mut String, name: &'static str, length: usize) -> Self {
        text.push_str(",\"");
        text.push_str(name);
        text.push_str("\":[");
        let longest = text.len() + length;
        Self { text, name, longest, empty: true, omitted: 0 }
    }

    fn add(&mut self, value: &str) {
        if self.text.len() >= self.longest {
            self.omitted += 1;
            return;
        }
        self.text.push_str(if std::mem::replace(&mut self.empty, false) { "\n" } else { ",\n" });
        self.text.push_str(value);
    }

    fn end(self) {
        self.text.push_str("],\"");
        self.text.push_str(self.name);
        self.text.push_str("-omitted\":");
        self.text.push_str(&self.omitted.to_string());
    }
}
