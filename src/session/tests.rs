//! Conversations of the classic framing that no recording has, and clients that do not read.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::*;
use crate::config::{Command, NetworkCompression, Repository, RepositoryKind, Storage};
use crate::disk::inline::{Inline, Options};
use crate::disk::{Disk, Ticket};
use crate::protocol::error::Code;
use crate::protocol::framing::Framing;
use crate::protocol::pack::{Reader, Writer};
use crate::protocol::release::Release;
use crate::protocol::string_id::StringId;

const BLOCK: usize = 16 << 10;
const END: [u8; 2] = [0x84, 0x00];
const NO_DATA: [u8; 2] = [0x80, 0x00];
const DROP: [u8; 6] = [0x80, 0xf0, 0x02, 0x01, 0x00, 0x00];

mod ahead;
mod authorizing;

struct Grant {
    repository: std::path::PathBuf,
}

impl Authority for Grant {
    fn admit(&self, names: &[String]) -> Result<(), Refusal> {
        if names == ["client"] { Ok(()) } else { Err(Error::access("access denied").into()) }
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
            stanza: None,
            storage: Storage::Repository(Repository {
                key: 1,
                path: self.repository.clone(),
                kind: RepositoryKind::Posix,
                cipher_pass: None,
                own_pass: None,
            }),
            process: 1,
            exec_id: None,
            locks: Vec::new(),
            lock_path: "/tmp".into(),
            buffer_size: BLOCK,
            neutral_umask: true,
            protocol_timeout: Duration::from_secs(60),
            db_timeout: Duration::from_secs(60),
        };
        Ok(Authorized {
            settings,
            whole_repository: true,
            role: Role::Admin,
            protection: Protection::default(),
            versions: None,
            network: NetworkCompression::Auto,
            umask: 0,
        })
    }
}

/// A client beside the session that it talks to.
struct Talk {
    session: Session,
    disk: Inline,
    now: Instant,
    number: u64,
    framing: Framing,
}

impl Talk {
    fn begin(release: &str, repository: &Path, names: Option<&str>) -> Self {
        let now = Instant::now();
        let limits = Limits {
            first_request: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            listing: 1 << 20,
            memory: 256 << 20,
        };
        let peer = Peer { names: names.map(|name| vec![name.to_owned()]) };
        let release = Release::find(release).unwrap();
        let authority = Rc::new(Grant { repository: repository.to_owned() });
        let session = Session::new(&Rc::new(Host::new(1)), peer, release, authority, limits, now);
        let mut talk =
            Self { session, disk: Inline::new(Options::default()), now, number: 0, framing: release.framing };
        let greeting = talk.session.poll_output().to_vec();
        assert_eq!(greeting, release.greeting().as_bytes());
        talk.session.consume_output(now, greeting.len());
        talk
    }

    fn open(release: &str, repository: &Path) -> Self {
        let mut talk = Self::begin(release, repository, Some("client"));
        let config = talk.command("config", |pack| _ = pack.array(|array| _ = array.str("backup:remote")));
        talk.say(&config);
        let noop = talk.command("noop", |_| {});
        talk.say(&noop);
        assert!(!talk.listen().is_empty());
        talk
    }

    fn command(&mut self, command: &str, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
        self.number += 1;
        let mut writer = Writer::new();
        let id = StringId::new(command);
        match self.framing {
            Framing::Classic => writer.u32(2).string_id(id),
            Framing::Session => {
                let kind = StringId::new(if command == "s-rd" { "opn" } else { "prc" });
                writer.u32(1).string_id(id).string_id(kind).u64(self.number).null()
            }
        };
        writer.pack(fill);
        writer.finish()
    }

    /// Sends without reading what comes back; returns how much the session took.
    fn say(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        loop {
            let count = self.session.handle_input(self.now, &bytes[taken..]);
            taken += count;
            if !self.work() && count == 0 {
                return taken;
            }
        }
    }

    /// Does all that the session wants done; whether that was anything.
    fn work(&mut self) -> bool {
        let mut any = false;
        loop {
            let mut busy = false;
            while let Some((operation, work)) = self.session.poll_disk() {
                self.disk.submit(Ticket { session: 0, operation }, work);
                busy = true;
            }
            while let Some((ticket, completion)) = self.disk.complete() {
                self.session.handle_completion(self.now, ticket.operation, completion);
                busy = true;
            }
            if self.session.poll_work() {
                self.session.handle_work(self.now);
                busy = true;
            }
            if !busy {
                return any;
            }
            any = true;
        }
    }

    /// Reads what is there already, without letting the session go on.
    fn waiting(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !self.session.poll_output().is_empty() {
            let output = self.session.poll_output().to_vec();
            self.session.consume_output(self.now, output.len());
            bytes.extend(output);
        }
        bytes
    }

    /// Reads until nothing more comes.
    fn listen(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            bytes.extend(self.waiting());
            if !self.work() {
                return bytes;
            }
        }
    }

    fn ask(&mut self, bytes: &[u8]) -> Vec<u8> {
        let taken = self.say(bytes);
        assert!(taken == bytes.len() || self.session.state() != State::Open);
        self.listen()
    }

    fn write_to(&mut self, path: &Path) -> Vec<u8> {
        let path = path.to_str().unwrap().to_owned();
        self.command("s-ow", |pack| {
            pack.str(&path).mode_default(0o640, 0).mode_default(0o750, 0).null().null().time(0);
            pack.bool(false).bool(false).bool(false).bool(true).pack(|_| {});
        })
    }
}

fn data(bytes: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u32_forced(0).pack(|pack| _ = pack.bin(bytes));
    writer.finish()
}

/// Code and text of a classic error.
#[track_caller]
fn error(answer: &[u8]) -> (i32, String) {
    let mut reader = Reader::new(answer);
    assert_eq!(reader.read_u32().unwrap(), 3, "no error: {answer:02x?}");
    (reader.read_i32().unwrap(), reader.read_str().unwrap().unwrap().to_owned())
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_client_that_does_not_read_is_sent_no_more_than_its_backlog() {
    let directory = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..4 << 20).map(|index: u32| index.to_le_bytes()[1]).collect();
    let file = directory.path().join("file");
    std::fs::write(&file, &content).unwrap();
    for index in 0..5000 {
        std::fs::write(directory.path().join(format!("a-rather-long-name-of-an-entry-{index:06}")), "").unwrap();
    }
    let file = file.to_str().unwrap();
    let list = directory.path().to_str().unwrap();
    let mut talk = Talk::open("2.45", directory.path());
    for (command, path, least) in [("s-or", file, content.len()), ("s-l", list, 5000 * 40)] {
        let request = talk.command(command, |pack| {
            pack.str(path);
            if command == "s-l" {
                pack.u32(1);
            }
        });
        assert_eq!(talk.say(&request), request.len());
        assert_eq!(talk.say(&request), 0, "nothing more is taken meanwhile");
        let held = talk.waiting();
        assert!(!held.is_empty() && held.len() <= (64 << 10) + BLOCK + 100, "{command}: {} bytes", held.len());
        let rest = talk.listen();
        assert!(held.len() + rest.len() >= least, "{command}: all of it comes once it is read");
        assert!(rest.ends_with(&END));
    }

    let mut talk = Talk::open("2.55.1", directory.path());
    let mut requests = Vec::new();
    for _ in 0..30 {
        requests.extend(talk.command("s-rd", |pack| _ = pack.str(file)));
    }
    assert!(talk.say(&requests) < requests.len());
    let held = talk.waiting();
    assert!(!held.is_empty() && held.len() <= (64 << 10) + BLOCK + 100, "{} bytes", held.len());
}

#[test]
fn a_classic_client_without_a_certificate_is_answered_when_it_asks() {
    let mut talk = Talk::begin("2.45", Path::new("/nowhere"), None);
    assert_eq!(talk.session.state(), State::Open);
    let noop = [0x88, 0x02, 0xa8, 0xe0, 0xbd, 0x8f, 0x04, 0x00];
    assert_eq!(talk.say(&noop), noop.len());
    assert_eq!(talk.listen(), END);
    assert_eq!(talk.session.state(), State::Closing);
    assert_eq!(talk.session.counters().requests, 1);
}

#[test]
fn a_classic_client_that_nothing_is_granted_is_refused_before_it_asks() {
    let mut talk = Talk::begin("2.45", Path::new("/nowhere"), Some("stranger"));
    assert_eq!(error(&talk.listen()), (105, "access denied".to_owned()));
    assert_eq!(talk.session.state(), State::Closing);
    assert!(matches!(talk.session.poll_event(), Some(Event::Refused(_))));
}

#[test]
fn a_file_that_the_client_drops_leaves_nothing_and_the_conversation_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut talk = Talk::open("2.45", directory.path());
    let open = talk.write_to(&directory.path().join("file"));
    assert_eq!(talk.ask(&open), NO_DATA);
    assert!(talk.ask(&data(&vec![7; 700_000])).is_empty(), "data is not acknowledged");
    assert_eq!(names(directory.path()), ["file.pgbackrest.tmp"]);
    assert!(talk.ask(&DROP).is_empty());
    assert!(names(directory.path()).is_empty());
    assert_eq!(talk.ask(&NO_DATA), END);
    assert_eq!(talk.ask(&open), NO_DATA);
    assert!(talk.ask(&[data(b"ab"), data(b""), data(b"c"), NO_DATA.to_vec()].concat()).ends_with(&END));
    assert_eq!(std::fs::read(directory.path().join("file")).unwrap(), b"abc");
}

#[test]
fn an_error_in_the_middle_of_a_file_is_told_once_and_the_conversation_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut talk = Talk::open("2.45", directory.path());
    let path = directory.path().join("file");
    let path = path.to_str().unwrap();
    let open = talk.command("s-ow", |pack| {
        pack.str(path).null().null().null().null().null().null().null().null().bool(true);
        pack.pack(|filters| _ = filters.string_id(StringId::new("gz-dcmp")));
    });
    assert_eq!(talk.ask(&open), NO_DATA);
    let (code, _) = error(&talk.ask(&data(&vec![b'x'; 500_000])));
    assert_eq!(code, 29, "that is no gzip");
    assert!(names(directory.path()).is_empty());
    assert!(talk.ask(&[data(b"more"), DROP.to_vec(), data(b"and more")].concat()).is_empty());
    assert!(talk.ask(&NO_DATA).is_empty());
    let noop = talk.command("noop", |_| {});
    assert_eq!(talk.ask(&noop), END);
}

#[test]
fn what_a_filter_takes_with_its_first_byte_counts_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut talk = Talk::open("2.45", directory.path());
    talk.session.line.limits.memory = 16 << 20;
    let path = directory.path().join("file");
    let path = path.to_str().unwrap();
    let open = talk.command("s-ow", |pack| {
        pack.str(path).null().null().null().null().null().null().null().null().bool(true);
        pack.pack(|filters| _ = filters.string_id(StringId::new("zst-cmp")).pack(|level| _ = level.i32(19)));
    });
    assert_eq!(talk.ask(&open), NO_DATA);
    let block = data(&[7; 100]);
    // behind the data are the ends of two packs
    let (head, rest) = block.split_at(block.len() - 102);
    assert!(talk.ask(head).is_empty());
    assert!(error(&talk.ask(&rest[..1])).1.contains("would take more than 16777216 bytes"));
    assert_ne!(talk.session.state(), State::Open);
}

#[test]
fn a_read_that_fails_on_the_way_ends_in_an_error_and_the_conversation_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut talk = Talk::open("2.45", directory.path());
    // Opening a directory succeeds and reading it does not.
    let place = directory.path().to_str().unwrap();
    let read = talk.command("s-or", |pack| _ = pack.str(place));
    let (code, text) = error(&talk.ask(&read));
    assert_eq!((code, text), (42, format!("unable to read '{place}': [21] Is a directory")));
    let noop = talk.command("noop", |_| {});
    assert_eq!(talk.ask(&[noop.clone(), noop].concat()), [END, END].concat());
}

#[test]
fn messages_out_of_place_end_the_conversation() {
    let directory = tempfile::tempdir().unwrap();
    for message in [data(b"x"), NO_DATA.to_vec(), DROP.to_vec()] {
        let mut talk = Talk::open("2.45", directory.path());
        assert_eq!(error(&talk.ask(&message)), (29, "expected command message".to_owned()));
        assert_eq!(talk.session.state(), State::Closing);
    }
    let mut talk = Talk::open("2.45", directory.path());
    let open = talk.write_to(&directory.path().join("file"));
    assert_eq!(talk.ask(&open), NO_DATA);
    let noop = talk.command("noop", |_| {});
    assert_eq!(error(&talk.ask(&noop)), (29, "expected data message".to_owned()));
    assert!(names(directory.path()).is_empty(), "what was begun is removed");
}

#[test]
fn links_are_unknown_before_2_42() {
    let directory = tempfile::tempdir().unwrap();
    let mut talk = Talk::open("2.41", directory.path());
    let link = talk.command("s-lc", |pack| _ = pack.str("a").str("b"));
    assert_eq!(error(&talk.ask(&link)), (39, "invalid command 's-lc' (0x1b3730)".to_owned()));
}
