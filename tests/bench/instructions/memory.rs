//! A session with a disk of which nothing is real, so that nothing but the session is counted.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use repohostd::config::snapshot::Origin;
use repohostd::config::{
    Environment, Files, NetworkCompression, Protection, Role, Search, ServerSettings, load_from, parse_session,
};
use repohostd::disk::{Completion, Entry, Errno, File, Kind, LockAttempt, Metadata, Operation, Outcome};
use repohostd::protocol::error::Error;
use repohostd::protocol::release::Release;
use repohostd::session::{Authority, Authorized, Host, Limits, Peer, Refusal, Session};

use crate::callgrind::counted;
use crate::wire::Transport;

/// The most that one TLS record brings.
const RECORD: usize = 16 << 10;

/// Entries of every directory: as many as one slice of a listing has.
const ENTRIES: usize = 256;

/// Bytes of a directory's files.
const SIZE: u64 = 8192;

const MINUTE: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits { first_request: MINUTE, idle: MINUTE, listing: 16 << 20, memory: 256 << 20 };

/// Lets clients in as the server's own authority does, except that it never looks whether its files have
/// changed: that depends on the clock.
pub(crate) struct Granting {
    files: Files,
    server: ServerSettings,
    release: &'static Release,
    host: Rc<Host>,
}

impl Granting {
    pub(crate) fn new(release: &'static Release) -> Self {
        let directory = tempfile::tempdir().expect("there is room for a file");
        let file = directory.path().join("pgbackrest.conf");
        let text = "[global]\nrepo1-path=/var/lib/pgbackrest\nrepo1-retention-full=2\nlock-path=/run/pgbackrest\n\
                    log-level-file=off\ntls-server-address=*\ntls-server-cert-file=/etc/pgbackrest/cert/server.crt\n\
                    tls-server-key-file=/etc/pgbackrest/cert/server.key\n\
                    tls-server-ca-file=/etc/pgbackrest/cert/ca.crt\ntls-server-auth=client=demo\n\n\
                    [demo]\npg1-path=/var/lib/postgresql/15/main\n";
        std::fs::write(&file, text).expect("the file can be written");
        let search = Search {
            config: Some(file),
            default_directory: directory.path().to_owned(),
            fallback: PathBuf::from("/nonexistent"),
            ..Search::default()
        };
        let (files, loaded) =
            load_from(&[], &Environment::default(), &search, &Origin::Disk).expect("the configuration is right");
        Self { files, server: loaded.server, release, host: Rc::new(Host::new(std::process::id())) }
    }
}

impl Authority for Granting {
    fn admit(&self, names: &[String]) -> Result<(), Refusal> {
        let grant = self.server.grants.lookup(names);
        grant.map(|_| ()).ok_or_else(|| Error::access("access denied").into())
    }

    fn authorize(
        &self,
        _release: &'static Release,
        names: &[String],
        parameters: &[String],
    ) -> Result<Authorized, Refusal> {
        let grant = self.server.grants.lookup(names).ok_or_else(|| Error::access("access denied"))?;
        let settings = parse_session(&self.files, &Environment::default(), &self.server, self.release, parameters)?;
        if !grant.allows(settings.stanza.as_deref())? {
            return Err(Error::access("access denied").into());
        }
        Ok(Authorized {
            settings,
            whole_repository: grant.is_for_all(),
            role: Role::Admin,
            protection: Protection::default(),
            versions: None,
            network: NetworkCompression::Auto,
            umask: 0,
        })
    }
}

/// The server's end of a connection.
pub(crate) struct Memory {
    session: Session,
    disk: Nothing,
    now: Instant,
    said: Vec<u8>,
    counting: Rc<Cell<bool>>,
}

impl Memory {
    /// A connection that was just made, to read files of `length` bytes. What the session does from here on
    /// is counted while `counting`.
    pub(crate) fn new(authority: Rc<Granting>, length: u64, counting: Rc<Cell<bool>>) -> Self {
        let now = Instant::now();
        let (release, host) = (authority.release, Rc::clone(&authority.host));
        let peer = Peer { names: Some(vec!["client".to_owned()]) };
        let new = || Session::new(&host, peer, release, authority, LIMITS, now);
        let session = if counting.get() { counted(new) } else { new() };
        let file = std::fs::File::open("/dev/null").expect("it is always there");
        let disk = Nothing { file: File::from(std::os::fd::OwnedFd::from(file)), length };
        let mut memory = Self { session, disk, now, said: Vec::new(), counting };
        memory.work();
        memory
    }

    /// Lets the session do something, and nobody else.
    fn step<T>(&mut self, work: impl FnOnce(&mut Session, Instant) -> T) -> T {
        let Self { session, now, .. } = self;
        if self.counting.get() { counted(|| work(session, *now)) } else { work(session, *now) }
    }

    /// Lets the session do all that it can; whether that was anything.
    fn work(&mut self) -> bool {
        let mut any = false;
        loop {
            let mut busy = false;
            while let Some((number, operation)) = self.step(|session, _| session.poll_disk()) {
                let completion = self.disk.run(operation);
                self.step(|session, now| session.handle_completion(now, number, completion));
                busy = true;
            }
            while !self.session.poll_output().is_empty() {
                self.said.extend_from_slice(self.session.poll_output());
                self.step(|session, now| session.consume_output(now, session.poll_output().len()));
                busy = true;
            }
            while self.session.poll_work() {
                self.step(Session::handle_work);
                busy = true;
            }
            while self.session.poll_event().is_some() {}
            if !busy {
                return any;
            }
            any = true;
        }
    }
}

impl Transport for Memory {
    fn send(&mut self, bytes: &[u8]) {
        for mut record in bytes.chunks(RECORD) {
            while !record.is_empty() {
                let taken = self.step(|session, now| session.handle_input(now, record));
                record = &record[taken..];
                assert!(self.work() || taken > 0, "the session takes what a client says");
            }
        }
    }

    fn receive(&mut self) -> Vec<u8> {
        assert!(!self.said.is_empty(), "the session answers");
        std::mem::take(&mut self.said)
    }
}

/// A disk on which everything succeeds: no file is there before it is made, every directory is full, and
/// every file that is read has the same length.
struct Nothing {
    file: File,
    length: u64,
}

impl Nothing {
    fn run(&self, operation: Operation) -> Completion {
        Ok(match operation {
            Operation::Stat { .. } => return Err(Errno(2).into()),
            Operation::OpenRead { .. } | Operation::OpenWrite { .. } => Outcome::File(self.file.clone()),
            Operation::Read { mut buffer, length, offset, .. } => {
                let left = usize::try_from(self.length - offset).expect("it fits into memory");
                buffer.resize(buffer.len() + length.min(left), 7);
                Outcome::Read(buffer)
            }
            Operation::Write { data, .. } => Outcome::Written(data),
            Operation::List { .. } => Outcome::Entries((0..ENTRIES).map(entry).collect(), None),
            // held by another connection of the same client
            Operation::Lock { contents, .. } => Outcome::Lock(LockAttempt::Busy { contents }),
            Operation::Close { .. } | Operation::Rename { .. } => Outcome::Done,
            other => panic!("no case needs {other:?}"),
        })
    }
}

fn entry(number: usize) -> Entry {
    let owner = Some(Rc::from("postgres"));
    let metadata = Metadata {
        kind: Kind::File,
        modified: 1_700_000_000 + i64::try_from(number % 16).expect("it is small"),
        size: SIZE,
        mode: 0o640,
        changed: 1_700_000_000,
        uid: 107,
        user: owner.clone(),
        gid: 112,
        group: owner,
        link_destination: None,
    };
    Entry { name: format!("{}.gz", 16384 + number).into(), metadata }
}
