//! Conversations without sockets.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Authority, Authorized, Limits, Peer, Refusal, Session, State};
use crate::config::{CipherType, Command, RemoteType, Repository, RepositoryKind, SessionSettings};
use crate::disk::inline::{Inline, Options};
use crate::disk::{Disk, Ticket};
use crate::protocol::pack::Writer;
use crate::protocol::release::Release;
use crate::protocol::string_id::StringId;

/// Lets everybody into the repository at this path.
struct Anybody(PathBuf);

impl Authority for Anybody {
    fn authorize(&self, _names: &[String], _parameters: &[String]) -> Result<Authorized, Refusal> {
        let settings = SessionSettings {
            command: Command::Backup,
            stanza: Some("demo".to_owned()),
            remote_type: RemoteType::Repo,
            repository: Repository {
                key: 1,
                path: self.0.clone(),
                kind: RepositoryKind::Posix,
                cipher: CipherType::None,
                cipher_pass: None,
            },
            process: 1,
            exec_id: None,
            locks: Vec::new(),
            lock_path: PathBuf::from("/nonexistent"),
            buffer_size: 1 << 20,
            neutral_umask: true,
            protocol_timeout: Duration::from_secs(60),
            db_timeout: Duration::from_secs(60),
        };
        Ok(Authorized { settings, whole_repository: false })
    }
}

fn request(command: &str, kind: &str, session: u64, open: bool, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u32(1).string_id(StringId::new(command)).string_id(StringId::new(kind)).u64(session).bool(open);
    writer.pack(fill);
    writer.finish()
}

struct Conversation {
    session: Session,
    disk: Inline,
    now: Instant,
}

impl Conversation {
    /// A client of the stanza `demo` that may send requests.
    fn begin(repository: PathBuf) -> Self {
        let (now, minute) = (Instant::now(), Duration::from_secs(60));
        let limits = Limits { first_request: minute, idle: minute, listing: 1 << 20 };
        let peer = Peer { names: Some(vec!["client".to_owned()]) };
        let session = Session::new(peer, Release::newest(), Rc::new(Anybody(repository)), limits, now);
        let mut conversation = Self { session, disk: Inline::new(Options::default()), now };
        conversation.say(&request("config", "prc", 0, false, |pack| _ = pack.array(|_| {})));
        conversation.say(&request("noop", "prc", 0, false, |_| {}));
        conversation
    }

    /// Sends one request and returns the answers to it, heads included.
    fn say(&mut self, request: &[u8]) -> Vec<u8> {
        assert_eq!(self.session.handle_input(self.now, request), request.len());
        self.settle();
        let mut answers = Vec::new();
        while !self.session.poll_output().is_empty() {
            answers.extend_from_slice(self.session.poll_output());
            let count = self.session.poll_output().len();
            self.session.consume_output(self.now, count);
        }
        answers
    }

    fn settle(&mut self) {
        while let Some((operation, work)) = self.session.poll_disk() {
            self.disk.submit(Ticket { session: 0, operation }, work);
            let (ticket, completion) = self.disk.complete().unwrap();
            self.session.handle_completion(self.now, ticket.operation, completion);
        }
    }
}

#[test]
fn a_cancelled_write_leaves_nothing_behind_whatever_the_client_thinks_of_its_state() {
    for open in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let mut conversation = Conversation::begin(directory.path().to_owned());
        let file = directory.path().join("archive/demo/file");
        conversation.say(&request("s-wr", "opn", 7, false, |pack| {
            pack.str(file.to_str().unwrap()).mode_default(0o640, 0).mode_default(0o750, 0).null().null().time(0);
            pack.bool(true).bool(true).bool(true).bool(true).pack(|_| {});
        }));
        assert!(directory.path().join("archive/demo/file.pgbackrest.tmp").exists());
        conversation.say(&request("s-wr", "cnc", 7, open, |_| {}));
        assert_eq!(std::fs::read_dir(directory.path().join("archive/demo")).unwrap().count(), 0, "{open}");
        assert_eq!(conversation.session.state(), State::Open);
    }
}

#[test]
fn a_request_for_options_without_number_is_refused() {
    let mut conversation = Conversation::begin(PathBuf::from("/nonexistent"));
    let answer = conversation.say(&request("opt-g", "prc", 7, false, |pack| {
        for _ in 0..100_000 {
            pack.str("repo");
        }
    }));
    assert!(String::from_utf8_lossy(&answer).contains("more than 1000 options"), "{answer:?}");
    assert_eq!(conversation.session.state(), State::Open);
}
