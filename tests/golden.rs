//! Recorded conversations with the original's servers are held with ours, byte for byte.
//!
//! `data/golden.txt` has requests and the answers of real binaries, release by release. The session
//! is driven without sockets; a scripted disk supplies the order, times and owners of the files that
//! the recording was made with. Only the stack in error answers may differ.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use repohostd::config::{CipherType, Command, RemoteType, Repository, RepositoryKind, SessionSettings};
use repohostd::disk::{Completion, Entry, Errno, Failure, File, Kind, Level, Metadata, Operation, Outcome};
use repohostd::protocol::framing::Framing;
use repohostd::protocol::pack::{Reader, Type, Writer};
use repohostd::protocol::release::{RELEASES, Release};
use repohostd::protocol::string_id::StringId;
use repohostd::session::{Authority, Authorized, Limits, Peer, Refusal, Session, State};

const GOLDEN: &str = include_str!("data/golden.txt");
const BASE: &str = "/srv/repository";

/// One recorded request, or several for a session of requests, with all answers to it.
struct Exchange {
    title: String,
    request: Vec<u8>,
    answer: Vec<u8>,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn exchanges(version: &str) -> Vec<Exchange> {
    let start = GOLDEN.find(&format!("### {version} ")).expect("the release is in the recording");
    let section = &GOLDEN[start + 4..];
    let section = section.find("\n### ").map_or(section, |end| &section[..end]);
    let mut exchanges: Vec<Exchange> = Vec::new();
    let mut title = "";
    for line in section.lines() {
        if let Some(name) = line.strip_prefix("-- ") {
            title = name;
        } else if let Some(request) = line.strip_prefix("  C> ") {
            exchanges.push(Exchange { title: title.to_owned(), request: unhex(request), answer: Vec::new() });
        } else if let Some(answer) = line.strip_prefix("  <S ") {
            exchanges.last_mut().unwrap().answer.extend(unhex(answer));
        }
    }
    exchanges
}

/// What the recording's repository held.
struct ScriptedDisk {
    entries: HashMap<String, Node>,
    /// The order of the recording's directory.
    order: [&'static str; 4],
    open: HashMap<i32, String>,
}

#[derive(Clone)]
struct Node {
    kind: Kind,
    mode: u32,
    modified: i64,
    data: Vec<u8>,
    link: Option<String>,
}

impl ScriptedDisk {
    fn new() -> Self {
        let node = |kind, mode, modified, data: &str, link: Option<&str>| Node {
            kind,
            mode,
            modified,
            data: data.as_bytes().to_vec(),
            link: link.map(str::to_owned),
        };
        let entries = [
            ("", node(Kind::Directory, 0o750, 1_700_000_000, "", None)),
            ("a", node(Kind::File, 0o640, 1_700_000_000, "hello", None)),
            ("b", node(Kind::File, 0o600, 1_700_000_010, "world!!", None)),
            ("ln", node(Kind::Link, 0o777, 1_700_000_000, "", Some("a"))),
            ("sub", node(Kind::Directory, 0o750, 1_700_000_000, "", None)),
        ];
        let entries = entries.map(|(name, node)| (name.to_owned(), node)).into();
        Self { entries, order: ["b", "ln", "sub", "a"], open: HashMap::new() }
    }

    fn metadata(&self, path: &str) -> Option<Metadata> {
        let node = self.entries.get(path)?;
        Some(Metadata {
            kind: node.kind,
            modified: node.modified,
            size: node.data.len() as u64,
            mode: node.mode,
            uid: 0,
            user: Some(Rc::from("root")),
            gid: 0,
            group: Some(Rc::from("root")),
            link_destination: node.link.clone(),
        })
    }

    fn open(&mut self, path: &str) -> Outcome {
        let file = std::fs::File::open("/dev/null").unwrap();
        self.open.insert(file.as_raw_fd(), path.to_owned());
        Outcome::File(File(Rc::new(file.into())))
    }

    fn parent_exists(&self, path: &str) -> bool {
        self.entries.contains_key(path.rsplit_once('/').map_or("", |(parent, _)| parent))
    }

    fn add(&mut self, path: &str, kind: Kind, mode: u32, link: Option<String>) {
        self.entries.insert(path.to_owned(), Node { kind, mode, modified: 0, data: Vec::new(), link });
    }

    fn run(&mut self, operation: Operation) -> Completion {
        const ENOENT: Failure = Failure { errno: Errno(2), path: None, step: repohostd::disk::Step::Whole };
        const EEXIST: Failure = Failure { errno: Errno(17), path: None, step: repohostd::disk::Step::Whole };
        let name = |at: &repohostd::disk::Location| {
            let path = at.to_string();
            path.strip_prefix(BASE).expect("all requests are within the repository").trim_start_matches('/').to_owned()
        };
        match operation {
            Operation::Stat { at, level, .. } => {
                let metadata = self.metadata(&name(&at)).ok_or(ENOENT)?;
                assert!(level >= Level::Exists);
                Ok(Outcome::Metadata(metadata))
            }
            Operation::List { at, .. } => {
                if !self.entries.contains_key(&name(&at)) {
                    return Err(ENOENT);
                }
                let entry = |name: &&str| Entry { name: (*name).to_owned(), metadata: self.metadata(name).unwrap() };
                Ok(Outcome::Entries(self.order.iter().map(entry).collect(), None))
            }
            Operation::OpenRead { at } => {
                if !self.entries.contains_key(&name(&at)) {
                    return Err(ENOENT);
                }
                Ok(self.open(&name(&at)))
            }
            Operation::Read { file, mut buffer, length, offset } => {
                let data = &self.entries[&self.open[&file.0.as_raw_fd()]].data;
                let start = data.len().min(usize::try_from(offset).unwrap());
                buffer.extend_from_slice(&data[start..data.len().min(start + length)]);
                Ok(Outcome::Read(buffer))
            }
            Operation::OpenWrite { at, mode, .. } => {
                if !self.parent_exists(&name(&at)) {
                    return Err(ENOENT);
                }
                self.add(&name(&at), Kind::File, mode, None);
                Ok(self.open(&name(&at)))
            }
            Operation::Write { file, data, offset } => {
                let node = self.entries.get_mut(&self.open[&file.0.as_raw_fd()]).unwrap();
                assert_eq!(node.data.len() as u64, offset);
                node.data.extend_from_slice(&data);
                Ok(Outcome::Written(data))
            }
            Operation::Rename { from, to, .. } => {
                let node = self.entries.remove(&name(&from)).ok_or(ENOENT)?;
                self.entries.insert(name(&to), node);
                Ok(Outcome::Done)
            }
            Operation::MakeDirectory { at, mode } => {
                if self.entries.contains_key(&name(&at)) {
                    return Err(EEXIST);
                }
                self.add(&name(&at), Kind::Directory, mode, None);
                Ok(Outcome::Done)
            }
            Operation::RemoveFile { at } | Operation::RemoveOwn { at, .. } => {
                self.entries.remove(&name(&at)).map(|_| Outcome::Done).ok_or(ENOENT)
            }
            Operation::RemoveTree { at } => {
                self.entries.remove(&name(&at)).map(|_| Outcome::Removed(None)).ok_or(ENOENT)
            }
            Operation::SymbolicLink { target, at } => {
                self.add(&name(&at), Kind::Link, 0o777, Some(target));
                Ok(Outcome::Done)
            }
            Operation::Sync { .. } | Operation::Close { .. } | Operation::SyncDirectory { .. } => Ok(Outcome::Done),
            other => panic!("the recording needs no {other:?}"),
        }
    }
}

struct Anybody;

impl Authority for Anybody {
    fn admit(&self, _names: &[String]) -> Result<(), Refusal> {
        Ok(())
    }

    fn authorize(&self, _names: &[String], _parameters: &[String]) -> Result<Authorized, Refusal> {
        let repository = Repository {
            key: 1,
            path: PathBuf::from(BASE),
            kind: RepositoryKind::Posix,
            cipher: CipherType::None,
            cipher_pass: None,
        };
        let settings = SessionSettings {
            command: Command::Backup,
            stanza: None,
            remote_type: RemoteType::Repo,
            repository,
            process: 1,
            exec_id: None,
            locks: Vec::new(),
            lock_path: PathBuf::from("/tmp"),
            buffer_size: 1 << 20,
            neutral_umask: true,
            protocol_timeout: Duration::from_secs(60),
            db_timeout: Duration::from_secs(60),
        };
        Ok(Authorized { settings, whole_repository: true, umask: 0 })
    }
}

struct Conversation {
    session: Session,
    disk: ScriptedDisk,
    now: Instant,
}

impl Conversation {
    fn new(release: &'static Release) -> Self {
        let now = Instant::now();
        let limits = Limits {
            first_request: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            listing: 1 << 20,
            memory: 256 << 20,
        };
        let peer = Peer { names: Some(vec!["client".to_owned()]) };
        let session = Session::new(peer, release, Rc::new(Anybody), limits, now);
        let mut conversation = Self { session, disk: ScriptedDisk::new(), now };
        assert_eq!(conversation.exchange(&[]), release.greeting().as_bytes());
        let parameters = |pack: &mut Writer| _ = pack.array(|array| _ = array.str("backup:remote"));
        let mut config = Writer::new();
        match release.framing {
            Framing::Classic => {
                config.u32(2).string_id(StringId::new("config")).pack(parameters);
                assert_eq!(conversation.exchange(&config.finish()), [0x84, 0x00]);
            }
            Framing::Session => {
                config.u32(1).string_id(StringId::new("config")).string_id(StringId::new("prc")).u64(1000).null();
                config.pack(parameters);
                assert_eq!(conversation.exchange(&config.finish()), [0x98, 0xe8, 0x07, 0x80, 0x00]);
            }
        }
        conversation
    }

    /// Sends `request` and returns all that comes back.
    fn exchange(&mut self, mut request: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        loop {
            let taken = self.session.handle_input(self.now, request);
            request = &request[taken..];
            let mut busy = taken > 0;
            while let Some((number, operation)) = self.session.poll_disk() {
                let completion = self.disk.run(operation);
                self.session.handle_completion(self.now, number, completion);
                busy = true;
            }
            while self.session.poll_work() {
                self.session.handle_work(self.now);
                busy = true;
            }
            while !self.session.poll_output().is_empty() {
                let output = self.session.poll_output();
                let count = output.len();
                answer.extend_from_slice(output);
                self.session.consume_output(self.now, count);
            }
            if !busy {
                assert!(request.is_empty() || self.session.state() != State::Open);
                return answer;
            }
        }
    }
}

/// An error answer without its stack: session, code and text.
fn error_of(framing: Framing, answer: &[u8]) -> Option<(Option<u64>, i32, String)> {
    let mut reader = Reader::new(answer);
    let (session, mut error) = match framing {
        Framing::Classic => (None, Reader::new(answer)),
        Framing::Session => {
            let session = reader.read_u64().ok()?;
            if reader.read_u32().ok()? != 2 || reader.read_bool().ok()? {
                return None;
            }
            (session, reader.read_pack().ok()??)
        }
    };
    if framing == Framing::Classic && error.read_u32().ok()? != 3 {
        return None;
    }
    let (code, text) = (error.read_i32().ok()?, error.read_str().ok()??.to_owned());
    assert!(error.read_str().unwrap().is_some(), "clients insist on a stack");
    Some((session, code, text))
}

/// A list of the classic framing, sorted, without the time and mode of the directory itself, which the
/// recording has of another one. Fields that an entry has only where the one before differs are
/// spelled out: the real server reads the directory's own entry with the others, ours before them.
fn entries_of(answer: &[u8]) -> Vec<String> {
    let mut entries = Vec::new();
    let (mut modified, mut mode, mut names) = (0, 0, [None, None]);
    let mut rest = answer;
    while rest != [0x84, 0x00] {
        assert_eq!(rest[..3], [0x80, 0xf0, 0x02]);
        let end = 4 + usize::from(rest[3]);
        let mut entry = Reader::new(&rest[4..end]);
        assert_eq!(rest[end], 0);
        rest = &rest[end + 1..];
        if entry.peek().unwrap().unwrap().1 == Type::Bool {
            entries.push(format!("found: {}", entry.read_bool().unwrap()));
            continue;
        }
        let name = entry.read_str().unwrap().unwrap().to_owned();
        let kind = entry.read_u32().unwrap();
        modified += entry.read_time().unwrap();
        let size = if kind == 0 { entry.read_u64().unwrap() } else { None };
        mode = entry.read_mode().unwrap().unwrap_or(mode);
        for known in &mut names {
            assert_eq!((entry.read_u32().unwrap(), entry.read_bool().unwrap()), (0, false));
            let now = entry.read_str().unwrap().map(str::to_owned);
            *known = now.or(known.take());
        }
        let link = entry.read_str().unwrap();
        entries.push(match name.as_str() {
            "." => format!(". {kind} {names:?}"),
            _ => format!("{name} {kind} {modified} {size:?} {mode:o} {names:?} {link:?}"),
        });
    }
    entries.sort();
    entries
}

fn replay(version: &str) {
    let release = Release::find(version).expect("the release is known");
    let exchanges = exchanges(version);
    let last = exchanges.last().map(|exchange| exchange.title.as_str());
    assert!(exchanges.len() >= 26 && last == Some("unknown command"), "the recording of {version} is complete");
    let mut conversation = Conversation::new(release);
    for Exchange { title, request, answer } in exchanges {
        let ours = conversation.exchange(&request);
        match error_of(release.framing, &answer) {
            None if release.lists_itself && title.starts_with("list level") => {
                assert_eq!(entries_of(&ours), entries_of(&answer), "{version}: {title}");
            }
            Some(error) => assert_eq!(error_of(release.framing, &ours), Some(error), "{version}: {title}"),
            None => assert_eq!(ours, answer, "{version}: {title}\n ours {ours:02x?}\n real {answer:02x?}"),
        }
        let ended = conversation.session.state() != State::Open;
        assert_eq!(ended, title == "unknown command", "{version}: {title}");
    }
}

#[test]
fn recorded_clients_of_2_37_get_the_recorded_answers() {
    replay("2.37");
}

#[test]
fn recorded_clients_of_2_38_get_the_recorded_answers() {
    replay("2.38");
}

#[test]
fn recorded_clients_of_2_41_get_the_recorded_answers() {
    replay("2.41");
}

#[test]
fn recorded_clients_of_2_44_get_the_recorded_answers() {
    replay("2.44");
}

#[test]
fn recorded_clients_of_2_45_get_the_recorded_answers() {
    replay("2.45");
}

#[test]
fn recorded_clients_of_2_54_2_get_the_recorded_answers() {
    replay("2.54.2");
}

#[test]
fn recorded_clients_of_2_55_1_get_the_recorded_answers() {
    replay("2.55.1");
}

#[test]
fn recorded_clients_of_2_59_1_get_the_recorded_answers() {
    replay("2.59.1");
}

#[test]
fn recorded_clients_of_2_60_0_get_the_recorded_answers() {
    replay("2.60.0");
}

#[test]
fn every_announced_release_is_replayed() {
    let replayed = ["2.37", "2.38", "2.41", "2.44", "2.45", "2.54.2", "2.55.1", "2.59.1", "2.60.0"];
    assert!(RELEASES.iter().all(|release| replayed.contains(&release.version)));
}
