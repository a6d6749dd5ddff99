//! What is counted: each case is one thing that a server does very often.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use repohostd::protocol::framing::{Framer, Framing, Piece};
use repohostd::protocol::release::Release;
use repohostd::protocol::request::Request;

use crate::callgrind::counted;
use crate::memory::{Granting, Memory};
use crate::wire::{Answer, Conversation, How};

/// Requests as real clients sent them.
const REQUESTS: &str = include_str!("requests.txt");

/// What the blocks of a transfer are by default.
const BLOCK: usize = 1 << 20;

const DIRECTORY: &str = "/var/lib/pgbackrest/backup/demo/20261125-081910F/pg_data/base/5";
const HOW: How = How { atomic: false, create_path: true };

/// One of them, with the clients of one release.
pub(crate) struct Case {
    what: What,
    release: &'static str,
}

/// What is done in it.
#[derive(Debug, Clone, Copy)]
enum What {
    /// Decodes the request by which a file with filters is opened for writing.
    Decode,
    /// Greets a client, authorizes it and takes its lock.
    SetUp,
    /// Takes a block of a file.
    WriteBlock,
    /// Sends a block of a file.
    ReadBlock,
    /// Takes a small file, from its opening to its close.
    WriteFile,
    /// Sends a listing of one slice.
    List,
}

const fn case(what: What, release: &'static str) -> Case {
    Case { what, release }
}

/// All of them. The framing of blocks and listings is the same since 2.54.
pub(crate) const CASES: [Case; 14] = [
    case(What::Decode, "2.45"),
    case(What::Decode, "2.55.1"),
    case(What::Decode, "2.60.0"),
    case(What::SetUp, "2.45"),
    case(What::SetUp, "2.55.1"),
    case(What::SetUp, "2.60.0"),
    case(What::WriteBlock, "2.45"),
    case(What::WriteBlock, "2.55.1"),
    case(What::ReadBlock, "2.45"),
    case(What::ReadBlock, "2.55.1"),
    case(What::WriteFile, "2.45"),
    case(What::WriteFile, "2.55.1"),
    case(What::List, "2.45"),
    case(What::List, "2.55.1"),
];

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            What::Decode => "decode-request",
            What::SetUp => "set-up-session",
            What::WriteBlock => "write-block",
            What::ReadBlock => "read-block",
            What::WriteFile => "write-small-file",
            What::List => "list-256-entries",
        };
        write!(f, "{what}-{}", self.release)
    }
}

impl Case {
    /// Its name, for people and for files.
    pub(crate) fn name(&self) -> String {
        self.to_string()
    }

    /// Whether it is mostly moving bytes, beside which the rest could double unnoticed.
    pub(crate) const fn moves_most(&self) -> bool {
        matches!(self.what, What::WriteBlock)
    }

    /// Does it so many times. It was done once before, so that what only happens at first is not counted.
    pub(crate) fn run(&self, rounds: u32) {
        let release = Release::find(self.release).expect("the release is known");
        match self.what {
            What::Decode => decode(release, rounds),
            What::SetUp => set_up(release, rounds),
            What::ReadBlock => read_blocks(release, rounds),
            What::WriteBlock => write_blocks(release, rounds),
            What::WriteFile => {
                let file = format!("{DIRECTORY}/16384.gz");
                repeat(release, rounds, |client| client.write(&file, &[7; 4 << 10], HOW));
            }
            What::List => repeat(release, rounds, |client| client.list(DIRECTORY)),
        }
    }
}

fn decode(release: &'static Release, rounds: u32) {
    let mut lines = REQUESTS.lines().filter_map(|line| line.split_once(' '));
    let (_, text) = lines.find(|(of, _)| *of == release.version).expect("there is a request of this release");
    let request: Vec<u8> = (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("it is hexadecimal"))
        .collect();
    let decode = || {
        let mut rest = &request[..];
        let piece = Framer::new(release.framing, BLOCK).next(&mut rest).expect("it is a request");
        let Some(Piece::Request(envelope, parameters)) = piece else { panic!("it is a whole request") };
        Request::decode(envelope, &parameters, release).expect("its parameters are right")
    };
    let Request::Write(first) = decode() else { panic!("it opens a file for writing") };
    assert!(first.filters.len() > 1, "{first:?}");
    for _ in 0..rounds {
        counted(decode);
    }
}

/// A client of a release, whose sessions are counted when it is told so.
struct Client {
    release: &'static Release,
    authority: Rc<Granting>,
    counting: Rc<Cell<bool>>,
}

impl Client {
    fn new(release: &'static Release) -> Self {
        Self { release, authority: Rc::new(Granting::new(release)), counting: Rc::default() }
    }

    /// Connects and says who it is, to read files of `length` bytes.
    fn connect(&self, length: u64) -> Conversation {
        let memory = Memory::new(Rc::clone(&self.authority), length, Rc::clone(&self.counting));
        let mut conversation = Conversation::begin(memory, self.release.version);
        // as a recorded client says it
        let mut parameters = vec!["--archive-async", "--exec-id=12345-6f2b1a3c"];
        if self.release.framing == Framing::Session {
            parameters.push("--lock=demo-archive-1.lock");
        }
        parameters.extend(["--log-level-console=off", "--log-level-file=off", "--log-level-stderr=error"]);
        parameters.extend(["--process=0", "--remote-type=repo", "--repo=1", "--stanza=demo", "archive-push:remote"]);
        done(&conversation.config(&parameters));
        done(&conversation.ask("noop", |_| {}));
        conversation
    }

    fn count(&self, on: bool) {
        self.counting.set(on);
    }
}

fn done(answer: &Answer) {
    assert!(answer.is_done(), "{answer:?}");
}

fn set_up(release: &'static Release, rounds: u32) {
    let client = Client::new(release);
    drop(client.connect(0));
    for _ in 0..rounds {
        client.count(true);
        let conversation = client.connect(0);
        client.count(false);
        drop(conversation);
    }
}

fn repeat(release: &'static Release, rounds: u32, request: impl Fn(&mut Conversation) -> Answer) {
    let client = Client::new(release);
    let mut conversation = client.connect(0);
    done(&request(&mut conversation));
    client.count(true);
    for _ in 0..rounds {
        done(&request(&mut conversation));
    }
}

fn write_blocks(release: &'static Release, rounds: u32) {
    let client = Client::new(release);
    let mut conversation = client.connect(0);
    done(&conversation.open_write(&format!("{DIRECTORY}/16384"), HOW));
    let block = vec![7; BLOCK];
    done(&conversation.write_block(&block));
    client.count(true);
    for _ in 0..rounds {
        done(&conversation.write_block(&block));
    }
}

/// One file of so many blocks; its opening and end are hardly anything beside them.
fn read_blocks(release: &'static Release, rounds: u32) {
    let client = Client::new(release);
    let length = u64::from(rounds) * BLOCK as u64;
    let mut conversation = client.connect(length);
    let mut read = || {
        let answered = conversation.read_whole(&format!("{DIRECTORY}/16384")).expect("the file is sent");
        assert!(answered as u64 > length, "{answered} bytes were sent");
    };
    read();
    client.count(true);
    read();
}
