//! What is told of the server, as one JSON document.
//!
//! These types are the document; who reads it finds the same members in it for as long as [`VERSION`] stays.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::disk::FileSystemView;
use crate::server::client::view::SessionState;
use crate::server::releases::learner::Learner;
use crate::server::releases::memory::Remembered;
use crate::server::releases::policy::Policy;

/// Raised when the meaning of the document changes.
pub(crate) const VERSION: u64 = 1;
/// Bytes of each list: further entries are left out, and counted.
const SESSIONS_LENGTH: usize = 2 << 20;
const CLIENTS_LENGTH: usize = 2 << 20;
const FILE_SYSTEMS_LENGTH: usize = 1 << 20;

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct ServerState<'a> {
    version: u64,
    /// The version of this program.
    server: &'static str,
    pid: u32,
    addresses: &'a [SocketAddr],
    /// What clients are greeted with for whom nothing else is written down.
    release: Option<&'static str>,
    connections: usize,
    /// None where one process does everything.
    workers: Vec<WorkerState>,
    file_systems: Vec<FileSystemState>,
    file_systems_omitted: usize,
    sessions: Vec<SessionState>,
    sessions_omitted: usize,
    clients: Vec<Remembered>,
    clients_omitted: usize,
}

/// What is told of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct WorkerState {
    pub(crate) number: u32,
    pub(crate) pid: u32,
    /// Connections that it has.
    pub(crate) connections: usize,
    /// Those of them that transfer files.
    pub(crate) transfers: usize,
    /// For how many seconds it has not answered, if that is so long that it gets no connections.
    pub(crate) silent: Option<u64>,
    /// It gets no more connections, and ends after those that it has.
    pub(crate) leaving: bool,
    /// Which suspects it is kept for, as [`Suspects`](crate::server::workers::suspects::Suspects) numbers them.
    #[serde(skip)]
    pub(crate) slot: Option<usize>,
    /// Who they are.
    pub(crate) kept_for: Option<String>,
}

/// What a process tells of a file system that it has asked for something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct FileSystemState {
    pid: u32,
    path: String,
    #[serde(rename = "type")]
    kind: String,
    looks: Executor,
    data: Executor,
    changes: Executor,
    slow_ms: Option<u64>,
}

/// Who does what is asked of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Executor {
    /// The process itself, which waits for it.
    #[serde(rename = "at once")]
    AtOnce,
    Helpers,
}

impl<'a> ServerState<'a> {
    /// A server that listens on `addresses` and has these workers, and of all its processes these sessions and file
    /// systems.
    pub(crate) fn new(
        addresses: &'a [SocketAddr],
        policy: &Policy,
        learner: &Learner,
        connections: usize,
        workers: Vec<WorkerState>,
        sessions: impl IntoIterator<Item = SessionState>,
        file_systems: Vec<FileSystemState>,
    ) -> Self {
        let (clients, clients_omitted) = bounded(learner.worked().map(Remembered::new), CLIENTS_LENGTH);
        let (sessions, sessions_omitted) = bounded(sessions, SESSIONS_LENGTH);
        let (file_systems, file_systems_omitted) = bounded(file_systems, FILE_SYSTEMS_LENGTH);
        Self {
            version: VERSION,
            server: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            addresses,
            release: policy.general().map(|release| release.version),
            connections,
            workers,
            file_systems,
            file_systems_omitted,
            sessions,
            sessions_omitted,
            clients,
            clients_omitted,
        }
    }

    /// As it is sent.
    pub(crate) fn compose(&self) -> Vec<u8> {
        // Serializing to memory does not fail.
        let mut text = serde_json::to_vec(self).unwrap_or_default();
        text.push(b'\n');
        text
    }
}

impl FileSystemState {
    /// What this process tells of one.
    pub(crate) fn new(seen: &FileSystemView) -> Self {
        let [looks, data, changes] =
            seen.is_quick.map(|is_quick| if is_quick { Executor::AtOnce } else { Executor::Helpers });
        let milliseconds = |slow: Duration| u64::try_from(slow.as_millis()).unwrap_or(u64::MAX);
        Self {
            pid: std::process::id(),
            path: seen.place.to_string_lossy().into_owned(),
            kind: seen.name.clone(),
            looks,
            data,
            changes,
            slow_ms: seen.slow.map(milliseconds),
        }
    }
}

/// The first entries, of `longest` bytes in JSON or little more, and how many are left out.
fn bounded<T: Serialize>(entries: impl IntoIterator<Item = T>, longest: usize) -> (Vec<T>, usize) {
    let (mut taken, mut bytes, mut omitted) = (Vec::new(), 0, 0);
    for entry in entries {
        if bytes >= longest {
            omitted += 1;
        } else {
            bytes += length(&entry);
            taken.push(entry);
        }
    }
    (taken, omitted)
}

/// Bytes of a value in JSON, which is longer than the form in which processes send it to each other.
pub(crate) fn length(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Neither does counting.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::release::Release;
    use crate::server::releases::Key;
    use crate::server::releases::policy::tests::pinned_to;

    fn session() -> SessionState {
        SessionState {
            pid: 7,
            peer: "192.0.2.1:1".parse().unwrap(),
            client: Some("db\"1".to_owned()),
            stanza: Some("demo".to_owned()),
            command: Some("archive-push".to_owned()),
            process: Some(1),
            release: "2.60.0".to_owned(),
            seconds: 2,
            requests: 3,
            errors: 0,
            denied: 0,
            read: 0,
            written: 5,
        }
    }

    fn state(sessions: usize) -> Value {
        let mut learner = Learner::default();
        let key = Key { address: "192.0.2.1".parse().unwrap(), client: Some("db\"1".into()) };
        learner.confirm(&key, Release::newest(), 7);
        let file_system = FileSystemView {
            place: "/srv".into(),
            name: "nfs4".to_owned(),
            is_quick: [true, false, false],
            slow: Some(Duration::from_millis(70)),
        };
        let worker = WorkerState {
            number: 1,
            pid: 2,
            connections: 3,
            transfers: 4,
            silent: Some(5),
            leaving: true,
            slot: Some(0),
            kept_for: Some("'db1'".to_owned()),
        };
        let addresses = ["127.0.0.1:8432".parse().unwrap()];
        let (policy, file_systems) = (pinned_to(Release::newest()), vec![FileSystemState::new(&file_system)]);
        let all = (0..sessions).map(|_| session());
        let state = ServerState::new(&addresses, &policy, &learner, sessions, vec![worker], all, file_systems);
        serde_json::from_slice(&state.compose()).unwrap()
    }

    #[test]
    fn the_members_of_the_document_are_those_of_its_version() {
        let mut value = state(1);
        let (server, pid) = (value["server"].take(), value["pid"].take());
        assert_eq!((server, pid), (json!(env!("CARGO_PKG_VERSION")), json!(std::process::id())));
        value["file-systems"][0]["pid"].take();
        let newest = Release::newest().version;
        let expected = json!({
            "version": 1, "server": null, "pid": null, "addresses": ["127.0.0.1:8432"], "release": newest,
            "connections": 1,
            "workers": [{ "number": 1, "pid": 2, "connections": 3, "transfers": 4, "silent": 5, "leaving": true,
                "kept-for": "'db1'" }],
            "file-systems": [{ "pid": null, "path": "/srv", "type": "nfs4", "looks": "at once", "data": "helpers",
                "changes": "helpers", "slow-ms": 70 }],
            "file-systems-omitted": 0,
            "sessions": [{ "pid": 7, "peer": "192.0.2.1:1", "client": "db\"1", "stanza": "demo",
                "command": "archive-push", "process": 1, "release": "2.60.0", "seconds": 2, "requests": 3,
                "errors": 0, "denied": 0, "read": 0, "written": 5 }],
            "sessions-omitted": 0,
            "clients": [{ "client": "db\"1", "address": "192.0.2.1", "releases": [{ "release": newest, "at": 7 }] }],
            "clients-omitted": 0,
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn a_very_long_list_is_cut_and_says_so() {
        let value = state(100_000);
        let shown = value["sessions"].as_array().unwrap();
        assert!(length(shown) < SESSIONS_LENGTH * 2, "{}", length(shown));
        assert_eq!(shown.len() as u64 + value["sessions-omitted"].as_u64().unwrap(), 100_000);
        assert_eq!(value["clients-omitted"], 0);
    }

    #[test]
    fn what_processes_send_each_other_is_shorter_than_its_json() {
        let mut session = session();
        for number in [0, 9, 10, 127, 128, 16_383, 16_384, u64::MAX] {
            session.read = number;
            assert!(postcard::to_allocvec(&session).unwrap().len() < length(&session));
        }
    }
}
