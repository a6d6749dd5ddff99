//! The block that is prepared before the client asks for it, and clients that then do not want it.

use super::*;
use crate::disk::{Completion, Errno, Failure, Operation};

const BLOCKS: usize = 3;

/// A client that has the first of three blocks of a file, and what the file holds.
struct Reading {
    talk: Talk,
    content: Vec<u8>,
    file: tempfile::NamedTempFile,
    number: u64,
    _directory: tempfile::TempDir,
}

impl Reading {
    /// `filters` are those of the file.
    fn begin(filters: impl FnOnce(&mut Writer)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = tempfile::NamedTempFile::new_in(directory.path()).unwrap();
        let content: Vec<u8> = {
            let mut state = 1_u32;
            // Hardly compressible, and every block another one.
            let mut next = |_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            };
            (0..BLOCKS * BLOCK).map(&mut next).collect()
        };
        std::fs::write(file.path(), &content).unwrap();
        let mut talk = Talk::open("2.60.0", directory.path());
        let open = Self::opening(&mut talk, &file, filters);
        talk.say(&open);
        let number = talk.number;
        Self { talk, content, file, number, _directory: directory }
    }

    fn opening(talk: &mut Talk, file: &tempfile::NamedTempFile, filters: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let path = file.path().to_str().unwrap().to_owned();
        talk.command("s-rd", |pack| {
            pack.str(&path).null().null().null().pack(filters);
        })
    }

    /// A request to the open file.
    fn request(&self, kind: &str) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u32(1).string_id(StringId::new("s-rd")).string_id(StringId::new(kind)).u64(self.number).bool(true);
        writer.finish()
    }

    /// Takes the block that waits, and returns what the session then wants of the disk for the next one.
    fn operation(&mut self) -> (u64, Operation) {
        assert!(!self.talk.waiting().is_empty());
        assert!(self.talk.session.poll_work());
        self.talk.session.handle_work(self.talk.now);
        let operation = self.talk.session.poll_disk().expect("the next block is read");
        assert!(matches!(operation.1, Operation::Read { .. }));
        operation
    }

    fn complete(&mut self, (number, operation): (u64, Operation)) {
        let completion = self.run(operation);
        self.talk.session.handle_completion(self.talk.now, number, completion);
    }

    /// Does one thing that the session wants done; whether there was one.
    fn step(&mut self) -> bool {
        if let Some(operation) = self.talk.session.poll_disk() {
            self.complete(operation);
        } else if self.talk.session.poll_work() {
            self.talk.session.handle_work(self.talk.now);
        } else {
            return false;
        }
        true
    }

    fn run(&mut self, operation: Operation) -> Completion {
        self.talk.disk.submit(Ticket { session: 0, operation: 0 }, operation);
        self.talk.disk.complete().unwrap().1
    }

    /// Sends, while the disk and the processor stand still.
    fn send(&mut self, request: &[u8]) -> Vec<u8> {
        assert_eq!(self.talk.session.handle_input(self.talk.now, request), request.len());
        self.talk.waiting()
    }
}

/// The data of an answer and whether it is the last one; or code and text of an error.
#[track_caller]
fn block(answer: &[u8]) -> Result<(Vec<u8>, bool), (i32, String)> {
    let mut reader = Reader::new(answer);
    reader.read_u64().unwrap();
    let is_error = reader.read_u32().unwrap() == 2;
    let close = reader.read_bool().unwrap();
    let mut data = reader.read_pack().unwrap().expect("the answer has data");
    if is_error {
        return Err((data.read_i32().unwrap(), data.read_str().unwrap().unwrap().to_owned()));
    }
    let empty = data.read_bool().unwrap();
    Ok((if empty { Vec::new() } else { data.read_bin().unwrap().unwrap().to_vec() }, close))
}

#[test]
fn the_next_block_is_there_when_it_is_asked_for() {
    let mut reading = Reading::begin(|_| {});
    let next = reading.request("prc");
    let mut index = 1;
    loop {
        reading.talk.listen();
        assert!(!reading.talk.session.poll_work(), "one block is prepared and no more");
        let (data, close) = block(&reading.send(&next)).unwrap();
        assert_eq!(data, reading.content.chunks(BLOCK).nth(index).unwrap_or_default());
        if close {
            assert_eq!(index, BLOCKS);
            break;
        }
        index += 1;
    }
}

#[test]
fn nothing_is_prepared_while_the_block_before_waits_to_be_sent() {
    let mut reading = Reading::begin(|_| {});
    let session = &mut reading.talk.session;
    let length = session.poll_output().len();
    session.consume_output(reading.talk.now, length - 1);
    assert!(!session.poll_work());
    session.consume_output(reading.talk.now, 1);
    assert!(session.poll_work());
}

#[test]
fn a_block_that_is_asked_for_while_it_is_read_is_read_once() {
    let mut reading = Reading::begin(|_| {});
    let operation = reading.operation();
    let next = reading.request("prc");
    assert!(reading.send(&next).is_empty());
    assert!(!reading.talk.session.wants_input(), "requests are answered one after the other");
    assert!(reading.talk.session.poll_disk().is_none() && !reading.talk.session.poll_work());
    reading.complete(operation);
    assert_eq!(block(&reading.talk.waiting()), Ok((reading.content[BLOCK..2 * BLOCK].to_vec(), false)));
}

#[test]
fn a_block_is_the_same_however_far_it_was_when_it_was_asked_for() {
    let compressed = |steps: usize| {
        let mut reading =
            Reading::begin(|filters| _ = filters.string_id(StringId::new("gz-cmp")).pack(|pack| _ = pack.i32(1)));
        let next = reading.request("prc");
        let mut blocks = vec![reading.talk.waiting()];
        loop {
            for _ in 0..steps {
                reading.step();
            }
            let mut answer = reading.send(&next);
            while answer.is_empty() {
                assert!(reading.step());
                answer = reading.talk.waiting();
            }
            let (_, close) = block(&answer).unwrap();
            blocks.push(answer);
            if close {
                assert_eq!(blocks.len(), BLOCKS + 1, "it hardly compresses");
                return blocks;
            }
        }
    };
    let whole = compressed(0);
    for steps in [1, 2, 3, 100] {
        assert_eq!(compressed(steps), whole, "{steps} steps");
    }
}

#[test]
fn what_fails_before_it_is_asked_for_is_told_when_it_is() {
    let mut reading = Reading::begin(|_| {});
    let (number, _) = reading.operation();
    let failure = Failure::from(Errno::IO);
    reading.talk.session.handle_completion(reading.talk.now, number, Err(failure));
    assert!(reading.talk.waiting().is_empty());
    assert_eq!(reading.talk.session.counters().errors, 0);
    let noop = reading.talk.command("noop", |_| {});
    assert!(!reading.send(&noop).is_empty());
    let next = reading.request("prc");
    let (code, text) = block(&reading.send(&next)).unwrap_err();
    let path = reading.file.path().to_str().unwrap();
    assert_eq!((code, text), (42, format!("unable to read '{path}': [5] Input/output error")));
    assert_eq!(reading.talk.session.counters().errors, 1);
}

#[test]
fn a_file_is_cancelled_at_once_while_its_next_block_is_read() {
    let mut reading = Reading::begin(|_| {});
    let (number, operation) = reading.operation();
    let cancel = reading.request("cnc");
    assert!(!reading.send(&cancel).is_empty(), "it is answered before the disk is done");
    // The same number again, which real clients do not use twice.
    reading.talk.number = reading.number - 1;
    let open = Reading::opening(&mut reading.talk, &reading.file, |_| {});
    assert!(reading.send(&open).is_empty());
    let late = reading.run(operation);
    reading.talk.session.handle_completion(reading.talk.now, number, late);
    assert!(reading.talk.waiting().is_empty(), "that block belongs to the file that was closed");
    let mut answer = reading.talk.listen();
    for index in 1..=BLOCKS {
        let next = reading.request("prc");
        answer = reading.talk.ask(&next);
        assert_eq!(block(&answer).unwrap().0, reading.content.chunks(BLOCK).nth(index).unwrap_or_default());
    }
    assert!(block(&answer).unwrap().1);
}

#[test]
fn a_session_ends_after_the_disk_has_given_the_next_block_back() {
    for gone in [false, true] {
        let mut reading = Reading::begin(|_| {});
        let operation = reading.operation();
        if gone {
            reading.talk.session.handle_disconnect(reading.talk.now, "the connection broke");
        } else {
            let exit = reading.talk.command("exit", |_| {});
            reading.send(&exit);
            reading.talk.session.handle_disconnect(reading.talk.now, "");
        }
        assert_eq!(reading.talk.session.state(), State::Closing);
        reading.complete(operation);
        assert_eq!(reading.talk.session.state(), State::Closed);
        assert!(!reading.talk.session.poll_work());
    }
}

#[test]
fn a_prepared_block_that_nobody_wants_goes_with_its_file() {
    let mut reading = Reading::begin(|_| {});
    reading.talk.listen();
    let cancel = reading.request("cnc");
    assert!(!reading.send(&cancel).is_empty());
    assert!(!reading.talk.session.poll_work() && reading.talk.session.poll_disk().is_none());
    let next = reading.request("prc");
    let (code, _) = block(&reading.send(&next)).unwrap_err();
    assert_eq!(code, 39, "the file is not open any more");
}
