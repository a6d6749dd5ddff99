//! A client that is no pgBackRest: it says on the wire whatever a test wants, in both framings.
//!
//! It decodes no more of an answer than whether the request failed, and with what. Where the bytes
//! go is the business of a [`Transport`], so that the same requests are tried against the session
//! in memory and against the running server.

use repohostd::protocol::framing::Framing;
use repohostd::protocol::pack::{Reader, Type, Writer, decode_field};
use repohostd::protocol::release::{DatabaseAnswers, ReadLayout, Release};
use repohostd::protocol::string_id::StringId;

/// Brings bytes to a server and back.
pub(crate) trait Transport {
    /// Sends what the client says.
    fn send(&mut self, bytes: &[u8]);

    /// What the server said since; nothing when the connection is over.
    fn receive(&mut self) -> Vec<u8>;
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was done; the bytes of the answer.
    Done(Vec<u8>),
    /// It was refused with a code and a text.
    Failed(i32, String),
    /// The connection ended instead.
    Ended,
}

impl Answer {
    /// Whether the request was done.
    pub(crate) const fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// One connection.
pub(crate) struct Conversation {
    transport: Box<dyn Transport>,
    framing: Framing,
    read_layout: ReadLayout,
    /// Whether a statement says what is expected of it.
    is_typed: bool,
    number: u64,
    /// The number of the connection to the database.
    database: u64,
    unread: Vec<u8>,
}

/// How a file is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    /// Under a temporary name first.
    pub(crate) atomic: bool,
    /// With the directories that are missing.
    pub(crate) create_path: bool,
}

impl Conversation {
    /// A connection over which nothing was said yet; takes the greeting.
    pub(crate) fn begin(transport: impl Transport + 'static, release: &str) -> Self {
        let release = Release::find(release).expect("the release is known");
        let transport = Box::new(transport);
        let mut conversation = Self {
            transport,
            framing: release.framing,
            read_layout: release.read_layout,
            is_typed: release.database_answers == DatabaseAnswers::Typed,
            number: 0,
            database: 0,
            unread: Vec::new(),
        };
        let greeting = release.greeting();
        while conversation.unread.len() < greeting.len() {
            assert!(conversation.fill(), "no greeting: {:?}", String::from_utf8_lossy(&conversation.unread));
        }
        let greeted: Vec<u8> = conversation.unread.drain(..greeting.len()).collect();
        assert_eq!(String::from_utf8_lossy(&greeted), greeting);
        conversation
    }

    /// Says who it is and what it wants, as the command line of a session.
    pub(crate) fn config(&mut self, parameters: &[&str]) -> Answer {
        self.ask("config", |pack| {
            pack.array(|array| {
                for parameter in parameters {
                    array.str(parameter);
                }
            });
        })
    }

    /// Says something that is no request, and listens until the connection is over.
    pub(crate) fn babble(mut self, bytes: &[u8]) {
        self.transport.send(bytes);
        while self.fill() {}
    }

    /// A simple request.
    pub(crate) fn ask(&mut self, command: &str, fill: impl FnOnce(&mut Writer)) -> Answer {
        self.number += 1;
        self.send(command, "prc", false, fill);
        self.answer()
    }

    /// Looks at a path, following a last link or not.
    pub(crate) fn info(&mut self, path: &str, follow: bool) -> Answer {
        self.ask("s-i", |pack| _ = pack.str(path).u32(4).bool(follow))
    }

    /// Lists a directory.
    pub(crate) fn list(&mut self, path: &str) -> Answer {
        self.ask("s-l", |pack| _ = pack.str(path).u32(4))
    }

    /// Reads the first block of a file, or all of it where the framing has no blocks.
    pub(crate) fn read(&mut self, path: &str) -> Answer {
        match self.framing {
            Framing::Classic => self.ask("s-or", |pack| _ = pack.str(path)),
            Framing::Session => {
                self.number += 1;
                self.send("s-rd", "opn", false, |pack| _ = pack.str(path));
                let answer = self.answer();
                self.cancel("s-rd");
                answer
            }
        }
    }

    /// Reads all of a file without keeping it, and returns how many bytes came for it.
    pub(crate) fn read_whole(&mut self, path: &str) -> Result<usize, Answer> {
        self.number += 1;
        // the original crashes without a list of filters
        let nulls = match self.read_layout {
            ReadLayout::TextLimit => 2,
            ReadLayout::OffsetTextLimit | ReadLayout::Offset | ReadLayout::Plain => 3,
            ReadLayout::IgnoreMissing => 5,
        };
        let open = |pack: &mut Writer| {
            pack.str(path);
            (0..nulls).for_each(|_| _ = pack.null());
            pack.pack(|_| {});
        };
        match self.framing {
            Framing::Classic => self.send("s-or", "prc", false, open),
            Framing::Session => self.send("s-rd", "opn", false, open),
        }
        let mut length = 0;
        loop {
            let message = self.message().ok_or(Answer::Ended)?;
            length += message.len();
            match (self.framing, message_type(self.framing, &message)) {
                (Framing::Classic, ERROR) | (Framing::Session, 2) => return Err(failure(self.framing, &message)),
                (Framing::Classic, DATA) => {}
                (Framing::Session, _) if !closes(&message) => self.send("s-rd", "prc", true, |_| {}),
                _ => return Ok(length),
            }
        }
    }

    /// Writes a file.
    pub(crate) fn write(&mut self, path: &str, content: &[u8], how: How) -> Answer {
        let opened = self.open_write(path, how);
        if !opened.is_done() {
            return opened;
        }
        let written = self.write_block(content);
        if written.is_done() { self.close_write() } else { written }
    }

    /// Begins to write a file.
    pub(crate) fn open_write(&mut self, path: &str, how: How) -> Answer {
        self.open(path, how, false)
    }

    /// Begins to write a file that is to be on stable storage, with its name, once it is closed.
    pub(crate) fn open_write_synced(&mut self, path: &str, how: How) -> Answer {
        self.open(path, how, true)
    }

    fn open(&mut self, path: &str, how: How, sync: bool) -> Answer {
        self.number += 1;
        let open = |pack: &mut Writer| {
            pack.str(path).mode_default(0o640, 0).mode_default(0o750, 0).null().null().time(0);
            pack.bool(how.create_path).bool(sync).bool(sync).bool(how.atomic).pack(|_| {});
        };
        match self.framing {
            Framing::Classic => {
                self.send("s-ow", "opn", false, open);
                // the server is ready, or it is not
                match self.message() {
                    Some(message) if message_type(self.framing, &message) == DATA => Answer::Done(message),
                    Some(message) => failure(self.framing, &message),
                    None => Answer::Ended,
                }
            }
            Framing::Session => {
                self.send("s-wr", "opn", false, open);
                self.answer_or_cancel()
            }
        }
    }

    /// Writes more of the file that was opened last, which no classic server answers.
    pub(crate) fn write_block(&mut self, content: &[u8]) -> Answer {
        match self.framing {
            Framing::Classic => {
                let mut data = Writer::new();
                data.u32_forced(DATA).pack(|pack| _ = pack.bin(content));
                self.transport.send(&data.finish());
                Answer::Done(Vec::new())
            }
            Framing::Session => {
                self.send("s-wr", "prc", true, |pack| _ = pack.bin(content));
                self.answer_or_cancel()
            }
        }
    }

    /// Completes the file that was opened last.
    pub(crate) fn close_write(&mut self) -> Answer {
        match self.framing {
            Framing::Classic => {
                let mut end = Writer::new();
                end.u32_forced(DATA);
                self.transport.send(&end.finish());
                self.answer()
            }
            Framing::Session => {
                self.send("s-wr", "cls", true, |_| {});
                self.answer_or_cancel()
            }
        }
    }

    /// The answer to a request of a write, which is dropped if that failed.
    fn answer_or_cancel(&mut self) -> Answer {
        let answer = self.answer();
        if matches!(answer, Answer::Failed(..)) {
            self.cancel("s-wr");
        }
        answer
    }

    /// Makes a directory with those above.
    pub(crate) fn path_create(&mut self, path: &str) -> Answer {
        self.ask("s-pc", |pack| _ = pack.str(path).bool(false).bool(false))
    }

    /// Puts a directory on stable storage.
    pub(crate) fn path_sync(&mut self, path: &str) -> Answer {
        self.ask("s-ps", |pack| _ = pack.str(path))
    }

    /// Removes a directory, with all in it or empty.
    pub(crate) fn path_remove(&mut self, path: &str, recurse: bool) -> Answer {
        self.ask("s-pr", |pack| _ = pack.str(path).bool(recurse))
    }

    /// Removes a file.
    pub(crate) fn remove(&mut self, path: &str) -> Answer {
        self.ask("s-r", |pack| _ = pack.str(path).bool(true))
    }

    /// Makes a link at `path`: symbolic with the text `target`, or a second name of the file `target`.
    pub(crate) fn link(&mut self, target: &str, path: &str, hard: bool) -> Answer {
        self.ask("s-lc", |pack| _ = pack.str(target).str(path).u32(u32::from(hard)))
    }

    /// Connects to the database. There is one such connection at a time.
    pub(crate) fn open_database(&mut self) -> Answer {
        self.number += 1;
        self.database = self.number;
        match self.framing {
            Framing::Classic => self.send("db-o", "prc", false, |_| {}),
            Framing::Session => self.send("db", "opn", false, |_| {}),
        }
        self.answer()
    }

    /// Sends a statement, of which this is expected.
    pub(crate) fn query(&mut self, statement: &str, expected: &str) -> Answer {
        let is_typed = self.is_typed;
        let fill = |pack: &mut Writer| {
            if is_typed {
                pack.string_id(StringId::new(expected));
            }
            pack.str(statement);
        };
        match self.framing {
            Framing::Classic => self.send("db-q", "prc", false, |pack| {
                pack.u32(0);
                fill(pack);
            }),
            Framing::Session => {
                let number = std::mem::replace(&mut self.number, self.database);
                self.send("db", "prc", true, fill);
                self.number = number;
            }
        }
        self.answer()
    }

    /// Closes the connection to the database.
    pub(crate) fn close_database(&mut self) -> Answer {
        match self.framing {
            Framing::Classic => self.send("db-c", "prc", false, |_| {}),
            Framing::Session => {
                let number = std::mem::replace(&mut self.number, self.database);
                self.send("db", "cnc", true, |_| {});
                self.number = number;
            }
        }
        self.answer()
    }

    /// Says goodbye, which is not answered.
    pub(crate) fn exit(&mut self) {
        self.number += 1;
        self.send("exit", "prc", false, |_| {});
    }

    fn cancel(&mut self, command: &str) {
        self.send(command, "cnc", true, |_| {});
        self.answer();
    }

    fn send(&mut self, command: &str, kind: &str, open: bool, fill: impl FnOnce(&mut Writer)) {
        let mut message = Writer::new();
        match self.framing {
            Framing::Classic => message.u32(COMMAND).string_id(StringId::new(command)),
            Framing::Session => {
                message.u32(1).string_id(StringId::new(command)).string_id(StringId::new(kind));
                message.u64(self.number).bool(open)
            }
        };
        message.pack(fill);
        self.transport.send(&message.finish());
    }

    /// The whole answer to the last request.
    fn answer(&mut self) -> Answer {
        let mut all = Vec::new();
        loop {
            let Some(message) = self.message() else { return Answer::Ended };
            let kind = message_type(self.framing, &message);
            all.extend_from_slice(&message);
            match (self.framing, kind) {
                (Framing::Classic, ERROR) | (Framing::Session, 2) => return failure(self.framing, &message),
                (Framing::Classic, DATA) => {}
                _ => return Answer::Done(all),
            }
        }
    }

    /// The next message of the server; `None` at the end of the connection.
    fn message(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(length) = message_length(&self.unread) {
                return Some(self.unread.drain(..length).collect());
            }
            if !self.fill() {
                assert!(self.unread.is_empty(), "the connection ended within a message");
                return None;
            }
        }
    }

    fn fill(&mut self) -> bool {
        let more = self.transport.receive();
        self.unread.extend_from_slice(&more);
        !more.is_empty()
    }
}

const DATA: u32 = 0;
const COMMAND: u32 = 2;
const ERROR: u32 = 3;

/// Skips what is in front of the type of a message.
fn skip_number(framing: Framing, reader: &mut Reader<'_>) {
    if framing == Framing::Session {
        reader.read_u64().expect("an answer has a number");
    }
}

fn message_type(framing: Framing, message: &[u8]) -> u32 {
    let mut reader = Reader::new(message);
    skip_number(framing, &mut reader);
    reader.read_u32().expect("a message has a type")
}

/// Whether an answer is the last of its session.
fn closes(message: &[u8]) -> bool {
    let mut reader = Reader::new(message);
    skip_number(Framing::Session, &mut reader);
    reader.read_u32().expect("a message has a type");
    reader.read_bool().expect("an answer says whether it is the last")
}

fn failure(framing: Framing, message: &[u8]) -> Answer {
    let mut reader = Reader::new(message);
    skip_number(framing, &mut reader);
    reader.read_u32().expect("a message has a type");
    let mut error = match framing {
        Framing::Classic => reader,
        Framing::Session => {
            reader.read_bool().expect("an answer says whether it is the last");
            reader.read_pack().expect("an error has data").expect("an error has data")
        }
    };
    let code = error.read_i32().expect("an error has a code");
    let text = error.read_str().expect("an error has a text").unwrap_or_default().to_owned();
    Answer::Failed(code, text)
}

/// How long the message is that begins there, once it is all there.
fn message_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let (field, length) = decode_field(bytes.get(at..)?).expect("the server sends packs")?;
        at += length;
        let Some(field) = field else { return Some(at) };
        if matches!(field.kind, Type::Str | Type::Bin | Type::Pack) {
            at += usize::try_from(field.value).expect("a message fits into memory");
        }
    }
}
