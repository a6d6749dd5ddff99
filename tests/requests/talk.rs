//! A conversation in memory: a session on a real directory, without sockets.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use repohostd::config::{
    Command, NetworkCompression, Protection, Repository, RepositoryKind, Role, SessionSettings, Storage,
};
use repohostd::disk::inline::{Inline, Options};
use repohostd::disk::{Disk, Ticket};
use repohostd::postgres::{Finished, First};
use repohostd::protocol::pack::{Reader, Writer};
use repohostd::protocol::release::Release;
use repohostd::protocol::string_id::StringId;
use repohostd::session::{
    Authority, Authorized, DatabaseAction, DatabaseOutcome, Host, Limits, Peer, Refusal, Session, State,
};

use crate::wire::{Conversation, Transport};

thread_local! {
    /// All conversations of a test are with one server.
    static HOST: Rc<Host> = Rc::new(Host::new(std::process::id()));
}

/// Grants every client what a test wants.
struct Granted {
    settings: SessionSettings,
    whole_repository: bool,
    role: Role,
}

/// The mask that the server was started with.
pub(crate) const UMASK: u32 = 0o027;

impl Authority for Granted {
    fn admit(&self, _names: &[String]) -> Result<(), Refusal> {
        Ok(())
    }

    fn authorize(
        &self,
        _release: &'static Release,
        _names: &[String],
        _parameters: &[String],
    ) -> Result<Authorized, Refusal> {
        let Self { settings, whole_repository, role } = self;
        Ok(Authorized {
            settings: settings.clone(),
            whole_repository: *whole_repository,
            role: *role,
            protection: Protection::default(),
            versions: None,
            network: NetworkCompression::Auto,
            umask: UMASK,
        })
    }
}

/// What a session of stanza `demo` on the repository at `base` is set to.
pub(crate) fn settings(base: &Path) -> SessionSettings {
    SessionSettings {
        command: Command::Backup,
        stanza: Some("demo".to_owned()),
        storage: Storage::Repository(Repository {
            key: 1,
            path: base.to_owned(),
            kind: RepositoryKind::Posix,
            cipher_pass: None,
            own_pass: None,
        }),
        process: 1,
        exec_id: Some("1-test".to_owned()),
        locks: Vec::new(),
        lock_path: base.join("lock"),
        buffer_size: 16 << 10,
        neutral_umask: true,
        protocol_timeout: Duration::from_secs(60),
        db_timeout: Duration::from_secs(60),
    }
}

/// A conversation in either framing with a client of a role that is granted stanza `demo` only, past
/// `config` and the first `noop`.
pub(crate) fn converse(release: &str, settings: SessionSettings, role: Role, by_component: bool) -> Conversation {
    converse_with(release, settings, role, by_component, Rc::default())
}

/// What a session did with its connections to databases.
pub(crate) type DatabaseActions = Rc<RefCell<Vec<(u64, DatabaseAction)>>>;

/// As `converse`, with a database that does every statement, unless it is called `down`.
pub(crate) fn converse_with(
    release: &str,
    settings: SessionSettings,
    role: Role,
    by_component: bool,
    database: DatabaseActions,
) -> Conversation {
    let granted = Granted { settings, whole_repository: false, role };
    let mut talk = Talk::connected(release, granted, LIMITS, Options { by_component, ..Options::default() });
    talk.database = database;
    let greeting = Release::find(release).expect("the release is known").greeting().into_bytes();
    let mut conversation = Conversation::begin(Memory { talk, said: greeting }, release);
    assert!(conversation.config(&["backup:remote"]).is_done());
    assert!(conversation.ask("noop", |_| {}).is_done());
    conversation
}

/// A session in memory, which answers at once.
struct Memory {
    talk: Talk,
    said: Vec<u8>,
}

impl Transport for Memory {
    fn send(&mut self, bytes: &[u8]) {
        let answer = self.talk.exchange(bytes);
        self.said.extend_from_slice(&answer);
    }

    fn receive(&mut self) -> Vec<u8> {
        assert!(!self.said.is_empty() || !self.talk.is_open(), "the session says nothing, but has not ended");
        std::mem::take(&mut self.said)
    }
}

/// One answer of the server.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) session: Option<u64>,
    pub(crate) close: bool,
    /// The data, an empty pack where there are none.
    pub(crate) data: Vec<u8>,
    /// Code and text.
    pub(crate) error: Option<(i32, String)>,
}

impl Reply {
    pub(crate) fn data(&self) -> Reader<'_> {
        assert_eq!(self.error, None);
        Reader::new(&self.data)
    }

    #[track_caller]
    pub(crate) fn failed(&self) -> (i32, &str) {
        let (code, text) = self.error.as_ref().expect("the request fails");
        (*code, text)
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Bounds that no usual conversation meets.
pub(crate) const LIMITS: Limits = Limits { first_request: MINUTE, idle: MINUTE, listing: 16 << 20, memory: 256 << 20 };

pub(crate) struct Talk {
    pub(crate) session: Session,
    disk: Inline,
    database: DatabaseActions,
    /// The repository's path.
    pub(crate) base: PathBuf,
    now: Instant,
    number: u64,
}

impl Talk {
    /// A conversation that is past `config` and the first `noop`.
    pub(crate) fn new(release: &str, settings: SessionSettings, whole_repository: bool) -> Self {
        Self::begun(Self::greeted(release, settings, whole_repository))
    }

    /// As `new`, for a whole repository and with other bounds than usual.
    pub(crate) fn within(limits: Limits, settings: SessionSettings) -> Self {
        let granted = Granted { settings, whole_repository: true, role: Role::Admin };
        Self::begun(Self::connected("2.60.0", granted, limits, Options::default()))
    }

    fn begun(mut talk: Self) -> Self {
        let config = talk.ask("config", "prc", false, |pack| _ = pack.array(|array| _ = array.str("backup:remote")));
        assert_eq!(config.error, None);
        let noop = talk.ask("noop", "prc", false, |_| {});
        assert_eq!(noop.error, None);
        talk
    }

    /// A conversation in which only the greeting was said.
    pub(crate) fn greeted(release: &str, settings: SessionSettings, whole_repository: bool) -> Self {
        let granted = Granted { settings, whole_repository, role: Role::Admin };
        Self::connected(release, granted, LIMITS, Options::default())
    }

    fn connected(release: &str, granted: Granted, limits: Limits, options: Options) -> Self {
        let now = Instant::now();
        let release = Release::find(release).expect("the release is known");
        let base = match &granted.settings.storage {
            Storage::Repository(repository) => repository.path.clone(),
            Storage::Cluster(cluster) => cluster.path.clone(),
        };
        let authority = Rc::new(granted);
        let peer = Peer { names: Some(vec!["client".to_owned()]) };
        let session = HOST.with(|host| Session::new(host, peer, release, authority, limits, now));
        let mut talk = Self { session, disk: Inline::new(options), database: Rc::default(), base, now, number: 0 };
        assert_eq!(talk.exchange(&[]), release.greeting().as_bytes());
        talk
    }

    pub(crate) fn is_open(&self) -> bool {
        self.session.state() == State::Open
    }

    /// The client vanishes; what it left is cleaned up.
    pub(crate) fn vanish(&mut self) {
        self.session.handle_disconnect(self.now, "the client vanished");
        self.exchange(&[]);
        assert_eq!(self.session.state(), State::Closed);
    }

    /// Sends bytes and returns all that comes back.
    pub(crate) fn exchange(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        loop {
            let mut busy = self.advance(&mut bytes);
            while !self.session.poll_output().is_empty() {
                answer.extend_from_slice(self.session.poll_output());
                let count = self.session.poll_output().len();
                self.session.consume_output(self.now, count);
                busy = true;
            }
            if !busy {
                return answer;
            }
        }
    }

    /// Sends bytes and lets the server work, but takes no answer.
    pub(crate) fn send(&mut self, mut bytes: &[u8]) {
        while self.advance(&mut bytes) {}
    }

    /// Takes what waits, but for so many bytes at the end.
    pub(crate) fn take_all_but(&mut self, left: usize) {
        let count = self.session.poll_output().len();
        assert!(count > left, "only {count} bytes wait");
        self.session.consume_output(self.now, count - left);
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.session.handle_timeout(self.now);
        self.send(&[]);
    }

    /// Lets the session take input and do its work; whether there was any.
    fn advance(&mut self, bytes: &mut &[u8]) -> bool {
        let taken = self.session.handle_input(self.now, bytes);
        *bytes = &bytes[taken..];
        let mut busy = taken > 0;
        while let Some((operation, work)) = self.session.poll_disk() {
            self.disk.submit(Ticket { session: 0, operation }, work);
            busy = true;
        }
        while let Some((ticket, completion)) = self.disk.complete() {
            self.session.handle_completion(self.now, ticket.operation, completion);
        }
        while let Some((id, action)) = self.session.poll_database() {
            let outcome = match &action {
                DatabaseAction::Open { settings, .. } if settings.database == "down" => {
                    Some(DatabaseOutcome::Refused("it is down".to_owned()))
                }
                DatabaseAction::Open { .. } => Some(DatabaseOutcome::Opened),
                DatabaseAction::Query { .. } => {
                    Some(DatabaseOutcome::Finished(Finished::Answered { first: First::Command, further: None }))
                }
                DatabaseAction::Close => None,
            };
            self.database.borrow_mut().push((id, action));
            if let Some(outcome) = outcome {
                self.session.handle_database(self.now, id, outcome);
            }
            busy = true;
        }
        if self.session.poll_work() {
            self.session.handle_work(self.now);
            busy = true;
        }
        busy
    }

    /// A request under the next number.
    pub(crate) fn ask(&mut self, command: &str, kind: &str, open: bool, fill: impl FnOnce(&mut Writer)) -> Reply {
        self.number += 1;
        self.ask_in(self.number, command, kind, open, fill)
    }

    /// A request that belongs to session `number`.
    pub(crate) fn ask_in(
        &mut self,
        number: u64,
        command: &str,
        kind: &str,
        open: bool,
        fill: impl FnOnce(&mut Writer),
    ) -> Reply {
        let bytes = self.exchange(&request(number, command, kind, open, fill));
        reply(&bytes)
    }

    /// The number of the session that was opened last.
    pub(crate) fn last(&self) -> u64 {
        self.number
    }

    /// A simple request with a path.
    pub(crate) fn path(&mut self, command: &str, path: &str, fill: impl FnOnce(&mut Writer)) -> Reply {
        self.ask(command, "prc", false, |pack| {
            pack.str(path);
            fill(pack);
        })
    }
}

pub(crate) fn request(number: u64, command: &str, kind: &str, open: bool, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u32(1).string_id(StringId::new(command)).string_id(StringId::new(kind)).u64(number).bool(open);
    writer.pack(fill);
    writer.finish()
}

pub(crate) fn reply(bytes: &[u8]) -> Reply {
    let mut reader = Reader::new(bytes);
    let session = reader.read_u64().unwrap();
    let failed = reader.read_u32().unwrap() == 2;
    let close = reader.read_bool().unwrap();
    if failed {
        let mut error = reader.read_pack().unwrap().expect("an error has data");
        let error = (error.read_i32().unwrap(), error.read_str().unwrap().unwrap().to_owned());
        return Reply { session, close, data: Vec::new(), error: Some(error) };
    }
    // The pack's bytes, found by their length from the end: the answer's own end is one zero byte.
    let mut head = Writer::new();
    head.u64(session.unwrap_or(0)).u32_forced(0).bool(close);
    let data = match reader.read_pack().unwrap() {
        None => Vec::new(),
        Some(_) => (1..=12)
            .filter_map(|length| bytes.get(head.len() + length..bytes.len() - 1))
            .find(|data| {
                let mut whole = Writer::new();
                whole.u64(session.unwrap_or(0)).u32_forced(0).bool(close).pack_bytes(data);
                whole.finish() == bytes
            })
            .expect("the data are a pack")
            .to_vec(),
    };
    Reply { session, close, data, error: None }
}
