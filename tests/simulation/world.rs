//! One course of events: whose turn it is, what he does, how the disk and the time go on.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use repohostd::config::Role;
use repohostd::disk::{Disk, Ticket};
use repohostd::protocol::error::{Code, Error};
use repohostd::protocol::framing::Framing;
use repohostd::protocol::pack::{Reader, Writer};
use repohostd::protocol::string_id::StringId;
use repohostd::session::State;

use crate::classic;
use crate::client::{Client, Doing, LIMITS};
use crate::files::Files;
use crate::random::Random;

/// How many files each client writes.
pub(crate) const FILES: usize = 3;
/// How many files there are in the directory that is listed.
pub(crate) const MANY: usize = 1100;

/// What clients do besides writing files to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Habits {
    /// They vanish, and sleep, longer at times than anybody waits.
    pub(crate) unreliable: bool,
    /// They list a large directory.
    pub(crate) list: bool,
    /// In which turn the server begins to end.
    pub(crate) drain: Option<usize>,
}

pub(crate) struct World<'a, D> {
    pub(crate) framing: Framing,
    pub(crate) directory: &'a Path,
    pub(crate) random: Random,
    pub(crate) disk: D,
    pub(crate) clients: Vec<Client>,
    pub(crate) files: Files,
    pub(crate) habits: Habits,
    /// Where the files of one life of the server begin to be numbered.
    pub(crate) first: usize,
    pub(crate) begun: Instant,
    pub(crate) now: Instant,
    /// How often a session gave its client up, and how often a list was complete.
    pub(crate) timeouts: usize,
    pub(crate) lists: usize,
}

fn request(command: &str, kind: &str, session: u64, open: bool, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u32(1).string_id(StringId::new(command)).string_id(StringId::new(kind)).u64(session).bool(open);
    writer.pack(fill);
    writer.finish()
}

/// Whether the one answer in `bytes` reports success, and its data, an empty pack where there are none.
fn answer(bytes: &[u8]) -> Option<Reader<'_>> {
    let mut reader = Reader::new(bytes);
    reader.read_u64().unwrap();
    let failed = reader.read_u32().unwrap() != 0;
    reader.read_bool().unwrap();
    let data = reader.read_pack().unwrap();
    (!failed).then(|| data.unwrap_or(Reader::new(&[])))
}

impl<D: Disk> World<'_, D> {
    /// The directory that has many files.
    pub(crate) fn many(&self) -> PathBuf {
        self.directory.join("repo/archive/demo/15-1/many")
    }

    /// Insists that a list is whole.
    pub(crate) fn check_list(&mut self, received: &[u8]) {
        let names = received.windows(6).filter(|window| window == b"entry-").count();
        assert_eq!(names, MANY, "a list that succeeds is whole");
        self.lists += 1;
    }

    /// Sends the next request of an idle client, judging the answer to the one before.
    fn act(&mut self, index: usize) {
        let received = std::mem::take(&mut self.clients[index].received);
        let Client { doing, number, sent, ref content, ref path, .. } = self.clients[index];
        let data = if doing == Doing::Config { None } else { answer(&received) };
        let succeeded = data.is_some();
        if doing == Doing::Reading
            && let Some(mut data) = data
        {
            assert!(data.read_bool().unwrap(), "an acknowledged file is there");
            assert!(!data.read_bool().unwrap());
            let block = data.read_bin().unwrap().unwrap();
            assert!(self.files.begins_with(path, block, 16 << 10), "what is read is what was written");
        }
        let unfinished = sent < content.len();
        let path = path.clone();
        match doing {
            Doing::Config => self.send(index, Doing::Greeted, "config", "prc", false, |pack| {
                pack.array(|array| _ = array.str("archive-push:remote"));
            }),
            Doing::Greeted => self.send(index, Doing::Noop, "noop", "prc", false, |_| {}),
            Doing::Noop if !succeeded => self.send(index, Doing::Exiting, "exit", "prc", false, |_| {}),
            Doing::Noop | Doing::Cancelling | Doing::Reading | Doing::Listing => {
                assert!(succeeded || doing != Doing::Cancelling, "a cancellation always succeeds");
                if doing == Doing::Listing && succeeded {
                    self.check_list(&received);
                }
                self.clients[index].number += 1;
                if self.habits.list && doing != Doing::Listing {
                    let many = self.many();
                    return self.send(index, Doing::Listing, "s-l", "prc", false, |pack| {
                        pack.str(many.to_str().unwrap()).u32(1);
                    });
                }
                self.clients[index].file += 1;
                if self.clients[index].file > FILES {
                    self.send(index, Doing::Exiting, "exit", "prc", false, |_| {});
                } else {
                    let parameters = self.begin_file(index);
                    self.send(index, Doing::Opening, "s-wr", "opn", false, parameters);
                }
            }
            _ if !succeeded => self.send(index, Doing::Cancelling, "s-wr", "cnc", true, |_| {}),
            _ if doing == Doing::Closing => {
                self.files.acknowledge(&path);
                self.clients[index].number = number + 1;
                self.send(index, Doing::Reading, "s-rd", "opn", false, |pack| _ = pack.str(path.to_str().unwrap()));
            }
            _ if self.random.one_in(20) => self.send(index, Doing::Cancelling, "s-wr", "cnc", true, |_| {}),
            _ if unfinished => {
                let length = (1 + self.random.below(300_000)).min(content_left(&self.clients[index]));
                let block = self.clients[index].content[sent..sent + length].to_vec();
                self.clients[index].sent += length;
                self.send(index, Doing::Block, "s-wr", "prc", true, |pack| _ = pack.bin(&block));
            }
            _ => self.send(index, Doing::Closing, "s-wr", "cls", true, |_| {}),
        }
    }

    /// Makes up a client's next file; returns what writes the parameters for it.
    pub(crate) fn begin_file(&mut self, index: usize) -> Box<dyn FnOnce(&mut Writer)> {
        let number = self.first + self.clients[index].file;
        let archive = self.directory.join("repo/archive/demo/15-1");
        let is_archiver = self.clients[index].role == Role::Archiver;
        let is_shared = is_archiver || self.random.one_in(4);
        let (length, byte) = if is_archiver {
            // What several push is the same or not, and its name tells.
            (1 + 100_000 * number, number + usize::from(self.random.one_in(3)))
        } else {
            (1 + self.random.below(700_000), self.random.below(256))
        };
        let content: Vec<u8> = (0..length).map(|at| (at % 251 + byte).to_le_bytes()[0]).collect();
        // Two who write into one file in place get what they ask for.
        let atomic = !self.random.one_in(8) || is_shared;
        let sync = self.random.one_in(if self.habits.unreliable { 3 } else { 2 }) || is_archiver;
        let path = match (is_archiver, is_shared) {
            (true, _) => archive.join(format!("0000000100000000/0000000100000000{number:08X}-{byte:040x}")),
            (false, true) => archive.join(format!("{}/shared-{number}", number / 2)),
            (false, false) => archive.join(format!("{}/{index}-{number}", number / 2)),
        };
        self.files.begin(&path, &content, atomic, sync);
        let client = &mut self.clients[index];
        (client.content, client.sent, client.path) = (content, 0, path.clone());
        Box::new(move |pack: &mut Writer| {
            pack.str(path.to_str().unwrap()).mode_default(0o640, 0).mode_default(0o750, 0).null().null().time(0);
            pack.bool(true).bool(sync).bool(sync).bool(atomic).pack(|_| {});
        })
    }

    fn send(
        &mut self,
        index: usize,
        doing: Doing,
        command: &str,
        kind: &str,
        open: bool,
        fill: impl FnOnce(&mut Writer),
    ) {
        let client = &mut self.clients[index];
        client.doing = doing;
        client.sending = request(command, kind, client.number, open, fill);
    }

    fn step(&mut self, index: usize) {
        let vanish = self.habits.unreliable && self.random.one_in(150);
        if self.habits.unreliable && self.random.one_in(300) {
            self.clients[index].sleeps = self.now + Duration::from_millis(self.random.below(100_000) as u64);
        }
        let amount = 1 + self.random.below(60_000);
        let client = &mut self.clients[index];
        if client.gone {
            return;
        }
        if client.session.poll_work() {
            client.session.handle_work(self.now);
            client.moved = self.now;
        }
        let sleeps = client.sleeps > self.now;
        let exits = client.doing == Doing::Exiting && client.sending.is_empty() && client.received.is_empty();
        let ended = client.session.state() != State::Open && client.session.poll_output().is_empty();
        if vanish || exits || ended && !sleeps {
            client.gone = true;
            client.session.handle_disconnect(self.now, "the client vanished");
            return;
        }
        if sleeps {
            return;
        }
        if !client.sending.is_empty() {
            let part = amount.min(client.sending.len());
            let taken = client.session.handle_input(self.now, &client.sending[..part]);
            client.sending.drain(..taken);
            if taken > 0 {
                client.acts(self.now);
            }
        }
        while !client.session.poll_output().is_empty() {
            let count = amount.min(client.session.poll_output().len());
            client.received.extend_from_slice(&client.session.poll_output()[..count]);
            client.session.consume_output(self.now, count);
            client.acts(self.now);
        }
        let idle = client.sending.is_empty() && client.under_way == 0 && !client.session.poll_work();
        if !idle || client.session.state() != State::Open {
            return;
        }
        match self.framing {
            Framing::Session if !client.received.is_empty() => self.act(index),
            Framing::Classic if classic::is_complete(client.doing, &client.received) => self.act_classic(index),
            _ => {}
        }
    }

    fn submit(&mut self) {
        for (index, client) in self.clients.iter_mut().enumerate() {
            while let Some((operation, work)) = client.session.poll_disk() {
                client.under_way += 1;
                self.disk.submit(Ticket { session: index as u64, operation }, work);
            }
        }
    }

    fn complete(&mut self) {
        if let Some((ticket, completion)) = self.disk.complete() {
            let client = &mut self.clients[usize::try_from(ticket.session).unwrap()];
            client.under_way -= 1;
            client.session.handle_completion(self.now, ticket.operation, completion);
            client.moved = self.now;
        }
    }

    /// Lets time go by, and has the sessions know that whose deadlines have passed.
    fn wait(&mut self) {
        let all_sleep = self.clients.iter().all(|client| client.gone || client.sleeps > self.now);
        let most = if all_sleep { 2000 } else { 30 };
        self.now += Duration::from_millis(self.random.below(most) as u64);
        for client in &mut self.clients {
            // The second time it does not wait for the client to read why.
            for _ in 0..2 {
                let was_open = client.session.state() == State::Open;
                client.session.handle_timeout(self.now);
                while let Some(event) = client.session.poll_event() {
                    self.timeouts += usize::from(was_open && client.is_given_up(&event, self.begun, self.now));
                }
            }
            let next = client.session.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "a deadline that has passed is done with");
            // Whoever waits for memory waits for others, and what waits for the disk for that.
            let waits = client.under_way == 0 && client.doing != Doing::Listing && !client.gone;
            let waited = self.now - client.moved;
            assert!(
                !waits || client.session.state() != State::Open || waited < LIMITS.idle + Duration::from_secs(3),
                "a client that does nothing is waited for: {:?}, {waited:?}",
                client.doing
            );
        }
    }

    /// Goes on until all sessions have ended, or the power is cut after so many turns. Returns whether that was so.
    pub(crate) fn run(&mut self, cut: Option<usize>) -> bool {
        for turn in 0.. {
            assert!(turn < 1_000_000, "sessions make no progress");
            if Some(turn) == cut {
                return true;
            }
            if Some(turn) == self.habits.drain {
                for client in self.clients.iter_mut().filter(|client| !client.gone) {
                    client.session.handle_drain(self.now, Error::new(Code::Term, "the server ends"));
                }
            }
            let index = self.random.below(self.clients.len());
            self.step(index);
            self.submit();
            self.complete();
            self.wait();
            let over = |client: &Client| client.gone && client.session.state() == State::Closed;
            if self.clients.iter().all(over) {
                break;
            }
        }
        assert_eq!(self.disk.outstanding(), 0);
        false
    }
}

fn content_left(client: &Client) -> usize {
    client.content.len() - client.sent
}
