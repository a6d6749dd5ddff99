//! The clients: who they are, and what each is about.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use repohostd::config::{
    Command, NetworkCompression, Protection, Repository, RepositoryKind, Role, SessionSettings, Storage,
};
use repohostd::protocol::error::{Code, Error};
use repohostd::protocol::release::Release;
use repohostd::session::{Authority, Authorized, Event, Host, Limits, Peer, Refusal, Session};

pub(crate) const CLIENTS: usize = 4;

/// Lists of more than 64 KiB wait for each other within these bounds: half is for the oldest alone.
const LISTING: usize = 150 << 10;

pub(crate) const LIMITS: Limits = Limits {
    first_request: Duration::from_secs(30),
    idle: Duration::from_secs(60),
    listing: LISTING,
    memory: 256 << 20,
};

/// What every client is granted.
pub(crate) struct Grant {
    directory: PathBuf,
    role: Role,
    min_age: Duration,
    locks: Vec<String>,
}

impl Authority for Grant {
    fn admit(&self, _names: &[String]) -> Result<(), Refusal> {
        Ok(())
    }

    fn authorize(
        &self,
        _release: &'static Release,
        _names: &[String],
        _parameters: &[String],
    ) -> Result<Authorized, Refusal> {
        let settings = SessionSettings {
            command: Command::ArchivePush,
            stanza: Some("demo".to_owned()),
            storage: Storage::Repository(Repository {
                key: 1,
                path: self.directory.join("repo"),
                kind: RepositoryKind::Posix,
                cipher_pass: None,
                own_pass: None,
            }),
            process: 0,
            exec_id: Some("1-simulation".to_owned()),
            locks: self.locks.clone(),
            lock_path: self.directory.join("lock"),
            buffer_size: 16 << 10,
            neutral_umask: true,
            protocol_timeout: Duration::from_secs(60),
            db_timeout: Duration::from_secs(60),
        };
        Ok(Authorized {
            settings,
            whole_repository: false,
            role: self.role,
            protection: Protection { min_age: self.min_age, ..Protection::default() },
            versions: None,
            network: NetworkCompression::Auto,
            umask: 0,
        })
    }
}

/// What a client waits for the answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Config,
    Greeted,
    Noop,
    Opening,
    Block,
    Closing,
    Cancelling,
    Reading,
    Listing,
    Expiring,
    Exiting,
}

/// One client and its session.
pub(crate) struct Client {
    pub(crate) session: Session,
    pub(crate) role: Role,
    pub(crate) doing: Doing,
    pub(crate) sending: Vec<u8>,
    pub(crate) received: Vec<u8>,
    pub(crate) under_way: usize,
    pub(crate) number: u64,
    /// How many files it has begun.
    pub(crate) file: usize,
    /// The file that it writes, or wrote last.
    pub(crate) path: PathBuf,
    pub(crate) content: Vec<u8>,
    pub(crate) sent: usize,
    pub(crate) expires: Option<Expiry>,
    /// The backup that it writes was finished before it began its file.
    pub(crate) is_late: bool,
    /// Does nothing until then.
    pub(crate) sleeps: Instant,
    /// When it last sent something or took what it was sent.
    pub(crate) acted: Instant,
    /// When something last happened for which its session waited.
    pub(crate) moved: Instant,
    pub(crate) gone: bool,
}

/// A backup that a client wants to be rid of.
pub(crate) struct Expiry {
    pub(crate) path: PathBuf,
    /// How old it was when that was last asked for, and when that was.
    pub(crate) age: Duration,
    pub(crate) asked: Instant,
}

impl Client {
    /// It has done something.
    pub(crate) fn acts(&mut self, now: Instant) {
        (self.acted, self.moved) = (now, now);
    }

    /// Whether an event tells that the session does not wait for its client any longer. Insists that it has waited for
    /// as long as it should; the server began at `begun`.
    pub(crate) fn is_given_up(&self, event: &Event, begun: Instant, now: Instant) -> bool {
        let Event::Refused(Refusal { error: Error { code, message }, .. }) = event else { return false };
        if !matches!(code, Code::FileRead | Code::FileWrite) || !message.starts_with("timeout") {
            return false;
        }
        let waited = now - self.acted;
        let is_first = matches!(self.doing, Doing::Config | Doing::Greeted) && now - begun >= LIMITS.first_request;
        assert!(is_first || waited >= LIMITS.idle, "given up after {waited:?}: {message}");
        true
    }
}

/// Who the clients are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cast {
    pub(crate) release: &'static Release,
    /// They are dealt out in turn.
    pub(crate) roles: &'static [Role],
    pub(crate) min_age: Duration,
}

/// Sessions of a server that begins now, and the clients behind them.
pub(crate) fn clients(directory: &Path, host: &Rc<Host>, cast: Cast, now: Instant) -> Vec<Client> {
    let Cast { release, roles, min_age } = cast;
    let client = |index: usize| {
        let role = roles[index % roles.len()];
        let expires = (role == Role::Admin && !min_age.is_zero()).then(|| Expiry {
            path: expired(directory, index),
            age: Duration::ZERO,
            asked: now,
        });
        let locks = if index == 0 { vec!["demo-archive-1.lock".to_owned()] } else { Vec::new() };
        let authority = Rc::new(Grant { directory: directory.to_path_buf(), role, min_age, locks });
        Client {
            session: Session::new(host, Peer { names: Some(vec!["x".to_owned()]) }, release, authority, LIMITS, now),
            role,
            doing: Doing::Config,
            sending: Vec::new(),
            received: Vec::new(),
            under_way: 0,
            number: 0,
            file: 0,
            path: PathBuf::new(),
            content: Vec::new(),
            sent: 0,
            expires,
            is_late: false,
            sleeps: now,
            acted: now,
            moved: now,
            gone: false,
        }
    };
    (0..CLIENTS).map(client).collect()
}

/// The finished backup that a client wants to be rid of.
pub(crate) fn expired(directory: &Path, index: usize) -> PathBuf {
    directory.join(format!("repo/backup/demo/20250101-00000{index}F"))
}
