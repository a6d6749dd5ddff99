//! Lists of operations on sessions: bytes of clients, well-formed or not, completions of the disk in any order, errors
//! of it, time, the answers of a database, the end of the connection, of the right to it or of the server, at any time.
//!
//! Two clients work on one repository that has a finished backup of ours and a secret of somebody else. Whatever
//! happens: the contract on `Session` holds, nobody waits without a deadline, what waits to be sent is bounded, a session
//! whose client is gone comes to its end and leaves no lock and no temporary file, nothing outside of the repository or
//! of the stanza changes or is told, and a role changes nothing that it may not.

#![no_main]

mod disk;
mod place;
mod requests;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use libfuzzer_sys::fuzz_target;
use repohostd::config::{
    Cluster, Command, NetworkCompression, Protection, Repository, RepositoryKind, Role, SessionSettings, Storage,
};
use repohostd::disk::Ticket;
use repohostd::postgres::{Finished, First};
use repohostd::protocol::error::{Code, Error};
use repohostd::protocol::release::{RELEASES, Release};
use repohostd::repository::policy::versions::Versions;
use repohostd::session::{
    Authority, Authorized, DatabaseAction, DatabaseOutcome, Host, Limits, Peer, Refusal, Session, State,
};
use repohostd_fuzz::{Tape, seeds};

use disk::Pending;
use place::{LABEL, Place, SECRET, SEGMENT};

const CLIENTS: usize = 2;
const OPERATIONS_MAXIMUM: usize = 400;
const LISTING: usize = 1 << 20;
const BUFFER: usize = 16 << 10;
/// The longest answer: a list of all that is allowed, with what is around it.
const OUTPUT_MAXIMUM: usize = 2 * LISTING;

/// Grants what the head of the input says.
#[derive(Clone)]
struct Grant {
    role: Role,
    storage: Storage,
    lock_path: PathBuf,
    locks: bool,
    protection: Protection,
    versions: Option<Versions>,
    refuses: bool,
    current: Rc<Cell<bool>>,
}

impl Authority for Grant {
    fn admit(&self, _names: &[String]) -> Result<(), Refusal> {
        if self.refuses { Err(Error::access("no").into()) } else { Ok(()) }
    }

    fn is_current(&self) -> bool {
        self.current.get()
    }

    fn authorize(
        &self,
        _release: &'static Release,
        names: &[String],
        _parameters: &[String],
    ) -> Result<Authorized, Refusal> {
        self.admit(names)?;
        let settings = SessionSettings {
            command: Command::Backup,
            stanza: Some("demo".to_owned()),
            storage: self.storage.clone(),
            process: 0,
            exec_id: Some("1-fuzz".to_owned()),
            locks: if self.locks { vec!["demo-backup-1.lock".into(), "demo-archive-1.lock".into()] } else { vec![] },
            lock_path: self.lock_path.clone(),
            buffer_size: BUFFER,
            neutral_umask: true,
            protocol_timeout: Duration::from_secs(60),
            db_timeout: Duration::from_secs(60),
        };
        Ok(Authorized {
            settings,
            whole_repository: false,
            role: self.role,
            protection: self.protection,
            versions: self.versions.clone(),
            network: NetworkCompression::Auto,
            umask: 0o027,
        })
    }
}

struct Client {
    session: Session,
    /// What the client has sent and the session has not taken.
    inbox: Vec<u8>,
    databases: Vec<(u64, DatabaseAction)>,
    state: State,
    disconnected: bool,
}

struct World<'a> {
    place: &'a Place,
    host: Rc<Host>,
    release: &'static Release,
    grant: Grant,
    certificate: bool,
    disk: Pending,
    clients: Vec<Client>,
    /// Number of each client's present session, for the disk.
    numbers: [u64; CLIENTS],
    now: Instant,
    /// What the clock on the wall shows then.
    time: SystemTime,
    /// Somebody sent the secret or the name of a temporary file, so that it proves nothing to find them.
    tainted: bool,
}

fn limits() -> Limits {
    Limits { first_request: Duration::from_secs(30), idle: Duration::from_secs(60), listing: LISTING, memory: 64 << 20 }
}

impl World<'_> {
    fn wait_until(&mut self, now: Instant) {
        self.time += now - self.now;
        self.now = now;
        self.host.set_time(self.time);
    }

    fn connect(&self) -> Client {
        let peer = Peer { names: self.certificate.then(|| vec!["client".to_owned()]) };
        let session = Session::new(&self.host, peer, self.release, Rc::new(self.grant.clone()), limits(), self.now);
        Client { state: session.state(), session, inbox: Vec::new(), databases: Vec::new(), disconnected: false }
    }

    /// Asks a session for all that it wants, and insists on what holds then.
    fn pump(&mut self, index: usize) {
        let session = self.numbers[index];
        let client = &mut self.clients[index];
        while let Some((operation, work)) = client.session.poll_disk() {
            self.disk.submit(Ticket { session, operation }, work);
        }
        while let Some((id, action)) = client.session.poll_database() {
            if action == DatabaseAction::Close {
                client.databases.retain(|(waiting, _)| *waiting != id);
            } else {
                client.databases.push((id, action));
            }
        }
        while client.session.poll_event().is_some() {}
        let output = client.session.poll_output();
        assert!(output.len() <= OUTPUT_MAXIMUM, "{} bytes wait to be sent", output.len());
        assert!(self.tainted || !output.windows(SECRET.len()).any(|part| part == SECRET), "a secret is told");
        assert!(!client.disconnected || output.is_empty(), "nobody is there to read");

        let state = client.session.state();
        match (client.state, state) {
            (State::Open, _) | (State::Closing, State::Closing | State::Closed) | (State::Closed, State::Closed) => {}
            (before, after) => panic!("from {before:?} to {after:?}"),
        }
        client.state = state;
        let under_way = self.disk.of(session) + client.databases.len();
        match state {
            State::Open => {
                let goes_on = under_way > 0 || client.session.poll_work() || !client.session.poll_output().is_empty();
                assert!(goes_on || client.session.wants_input() || client.session.poll_timeout().is_some(), "stuck");
                let waits = client.session.wants_input() || !client.session.poll_output().is_empty();
                assert!(!waits || client.session.poll_timeout().is_some(), "waits for a client without a deadline");
            }
            State::Closing => assert!(!client.session.wants_input()),
            State::Closed => {
                assert!(!client.session.wants_input() && self.disk.of(session) == 0);
                assert!(client.session.locks().is_empty());
            }
        }
    }

    fn offer(&mut self, index: usize, length: usize) {
        let client = &mut self.clients[index];
        let offered = &client.inbox[..length.min(client.inbox.len())];
        let wanted = client.session.wants_input();
        let taken = client.session.handle_input(self.now, offered);
        assert!(wanted || taken == 0, "took what it did not want");
        assert!(taken == offered.len() || !client.session.wants_input(), "leaves what it wants");
        client.inbox.drain(..taken);
    }

    fn complete(&mut self, which: usize, fails: bool) {
        let Some((ticket, completion)) = self.disk.complete(which, fails) else { return };
        let Some(index) = self.numbers.iter().position(|number| *number == ticket.session) else {
            panic!("an operation of nobody");
        };
        self.clients[index].session.handle_completion(self.now, ticket.operation, completion);
        self.pump(index);
    }

    fn work(&mut self, index: usize) {
        if self.clients[index].session.poll_work() {
            self.clients[index].session.handle_work(self.now);
        }
    }

    fn consume(&mut self, index: usize, count: usize) {
        let session = &mut self.clients[index].session;
        let count = count.min(session.poll_output().len());
        if count > 0 {
            session.consume_output(self.now, count);
        }
    }

    /// Has one client get as far as it gets.
    fn settle(&mut self, index: usize) {
        for turn in 0.. {
            assert!(turn < 100_000, "no end of work");
            let client = &self.clients[index];
            let before = (client.inbox.len(), self.disk.is_idle(), client.session.poll_output().len());
            let idle = before.1 && before.2 == 0 && !client.session.poll_work();
            self.offer(index, usize::MAX);
            self.pump(index);
            self.consume(index, usize::MAX);
            self.pump(index);
            self.work(index);
            self.pump(index);
            self.complete(0, false);
            if idle && self.clients[index].inbox.len() == before.0 && self.disk.is_idle() {
                return;
            }
        }
    }

    fn answer_database(&mut self, index: usize, outcome: u8) {
        let client = &mut self.clients[index];
        let Some((id, action)) = client.databases.pop() else { return };
        let outcome = match (action, outcome % 4) {
            (_, 3) => {
                client.databases.push((id, DatabaseAction::Close));
                client.databases.pop();
                DatabaseOutcome::Noticed("gone".to_owned())
            }
            (DatabaseAction::Open { .. }, 0) => DatabaseOutcome::Refused("no".to_owned()),
            (DatabaseAction::Open { .. }, _) => DatabaseOutcome::Opened,
            (_, 0) => DatabaseOutcome::Finished(Finished::Answered { first: First::Error("no".into()), further: None }),
            (_, 1) => DatabaseOutcome::Finished(Finished::TimedOut { further: None }),
            _ => DatabaseOutcome::Finished(Finished::Answered { first: First::Command, further: None }),
        };
        client.session.handle_database(self.now, id, outcome);
    }

    fn step(&mut self, tape: &mut Tape<'_>) {
        let (operation, index) = (tape.below(20), tape.below(CLIENTS));
        let base = self.place.base.clone();
        match operation {
            0 => {
                let wanted = requests::request(tape, self.release, &base);
                self.clients[index].inbox.extend(wanted);
            }
            1 => self.clients[index].inbox.extend(requests::hello(self.release)),
            2 => {
                let length = usize::from(tape.short());
                let bytes = requests::rebased(tape.bytes(length), &base);
                self.clients[index].inbox.extend(bytes);
            }
            3 => {
                let length = usize::from(tape.short());
                self.offer(index, length);
            }
            4 => self.complete(tape.below(16), false),
            5 => self.settle(index),
            6 => self.complete(tape.below(16), true),
            7 => {
                let count = usize::from(tape.short());
                self.consume(index, count);
            }
            8 => self.work(index),
            9 => {
                self.wait_until(self.now + Duration::from_millis(u64::from(tape.short())));
                self.clients[index].session.handle_timeout(self.now);
            }
            10 => {
                if let Some(deadline) = self.clients[index].session.poll_timeout() {
                    self.wait_until(self.now.max(deadline));
                    self.clients[index].session.handle_timeout(self.now);
                }
            }
            11 => self.disconnect(index),
            12 => self.clients[index].session.handle_drain(self.now, Error::new(Code::Service, "ends")),
            13 => {
                let at_once = tape.flag();
                self.clients[index].session.handle_revoke(self.now, Error::access("not any more"), at_once);
            }
            14 => self.clients[index].session.handle_abort(self.now, Error::new(Code::Service, "ends")),
            15 => {
                self.grant.current.set(tape.flag());
                self.clients[index].session.handle_authority();
            }
            16 => _ = self.clients[index].session.replace_authority(Rc::new(self.grant.clone())),
            17 => {
                let outcome = tape.byte();
                self.answer_database(index, outcome);
            }
            18 => {
                // a request, and all that comes of it
                let wanted = requests::request(tape, self.release, &base);
                self.clients[index].inbox.extend(wanted);
                self.settle(index);
            }
            _ => {
                if self.clients[index].session.state() == State::Closed {
                    self.numbers[index] += CLIENTS as u64;
                    self.clients[index] = self.connect();
                }
            }
        }
        self.pump(index);
    }

    fn disconnect(&mut self, index: usize) {
        // a session gives up a client that does not read by itself
        if !self.clients[index].disconnected && self.clients[index].state != State::Closed {
            self.clients[index].disconnected = true;
            self.clients[index].databases.clear();
            self.clients[index].session.handle_disconnect(self.now, "the client vanished");
        }
        self.pump(index);
    }

    /// All clients vanish, and everything comes to its end.
    fn end(&mut self) {
        for index in 0..CLIENTS {
            self.disconnect(index);
        }
        for turn in 0.. {
            assert!(turn < 100_000, "no end");
            if self.disk.is_idle() {
                break;
            }
            self.complete(0, false);
        }
        for client in &self.clients {
            assert_eq!(client.session.state(), State::Closed);
            assert_eq!(client.session.poll_timeout(), None);
        }
    }
}

fn check(world: &World<'_>, before: &[(PathBuf, Vec<u8>)]) {
    let place = world.place;
    let after = Place::contents(&place.base);
    let beside = Place::contents(&place.beside);
    assert_eq!(beside.get(&place.beside.join("secret")).map(Vec::as_slice), Some(SECRET));
    assert_eq!(after.get(&place.base.join("archive/other/secret")).map(Vec::as_slice), Some(SECRET));
    for path in after.keys().chain(beside.keys()) {
        let name = path.file_name().map_or(&b""[..], |name| name.as_encoded_bytes());
        assert!(!path.starts_with(place.beside.join("lock")) || !name.ends_with(b".lock"), "left behind: {path:?}");
        assert!(world.tainted || !name.ends_with(b".tmp"), "left behind: {path:?}");
    }
    let unchanged = |path: &Path| {
        before.iter().filter(|(old, _)| old.starts_with(path)).all(|(old, content)| after.get(old) == Some(content))
    };
    let cluster = matches!(world.grant.storage, Storage::Cluster(_));
    if cluster || world.grant.role <= Role::Reader || world.grant.refuses || !world.certificate {
        assert!(unchanged(&place.base) && after.len() == before.len(), "a reader changes something");
    }
    if world.grant.role < Role::Admin {
        let segment = format!("archive/demo/15-1/{}/{SEGMENT}", &SEGMENT[..16]);
        for kept in [segment, format!("backup/demo/{LABEL}/backup.manifest"), format!("backup/demo/{LABEL}/pg_data/x")]
        {
            assert!(unchanged(&place.base.join(&kept)), "{kept} of a finished backup has changed");
        }
    }
}

fn grant(tape: &mut Tape<'_>, place: &Place, what: u8) -> Grant {
    let role = [Role::PgReader, Role::Reader, Role::Archiver, Role::Backup, Role::Admin][tape.below(5)];
    let flags = tape.byte();
    let storage = if what % 4 == 3 {
        Storage::Cluster(Cluster {
            path: place.base.join("archive/demo"),
            port: 5432,
            socket_path: None,
            user: None,
            database: "postgres".to_owned(),
            db_timeout: Duration::from_secs(60),
            any_statement: flags & 64 != 0,
        })
    } else {
        Storage::Repository(Repository {
            key: 1,
            path: place.base.clone(),
            kind: if what % 4 == 2 { RepositoryKind::Cifs } else { RepositoryKind::Posix },
            cipher_pass: None,
            own_pass: None,
        })
    };
    let min_age = Duration::from_secs(if flags & 4 == 0 { 0 } else { 1 << 40 });
    Grant {
        role,
        storage,
        lock_path: place.beside.join("lock"),
        locks: flags & 1 != 0,
        protection: Protection { min_age, opaque_info: flags & 8 != 0, info_history: 3 },
        versions: Versions::new(place.beside.join("history"), if flags & 16 == 0 { 0 } else { 3 }),
        refuses: flags & 0xa0 == 0xa0,
        current: Rc::new(Cell::new(flags & 2 == 0)),
    }
}

fuzz_target!(
    init: {
        // as the server does at its start
        rustix::process::umask(rustix::fs::Mode::empty());
        seeds::offer(requests::seeds);
    },
    |data: &[u8]| {
        let place = Place::new();
        let mut tape = Tape::new(data);
        let release = &RELEASES[tape.below(RELEASES.len())];
        let what = tape.byte();
        let grant = grant(&mut tape, &place, what);
        let certificate = what & 0x30 != 0x30;
        let tainted = [SECRET, b".tmp"].iter().any(|text| data.windows(text.len()).any(|part| part == *text));
        let before: Vec<_> = Place::contents(&place.base).into_iter().collect();
        let (now, time) = (Instant::now(), SystemTime::now());
        let mut world = World {
            place: &place,
            host: Rc::new(Host::new(std::process::id())),
            release,
            grant,
            certificate,
            disk: Pending::new(what & 0x40 != 0),
            clients: Vec::new(),
            numbers: std::array::from_fn(|index| index as u64),
            now,
            time,
            tainted,
        };
        for _ in 0..CLIENTS {
            let client = world.connect();
            world.clients.push(client);
        }
        (0..CLIENTS).for_each(|index| world.pump(index));
        for _ in 0..OPERATIONS_MAXIMUM {
            if tape.is_over() {
                break;
            }
            world.step(&mut tape);
        }
        world.end();
        check(&world, &before);
    }
);
