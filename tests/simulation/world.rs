//! One course of events: whose turn it is, what he does, how the disk and the time go on.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use repohostd::config::Role;
use repohostd::disk::{Disk, Ticket};
use repohostd::protocol::error::{Code, Error};
use repohostd::protocol::framing::Framing;
use repohostd::protocol::pack::{Reader, Writer};
use repohostd::protocol::string_id::StringId;
use repohostd::session::{Host, State};

use crate::classic;
use crate::client::{Cast, Client, Doing, Expiry, LIMITS};
use crate::files::Files;
use crate::random::Random;

/// How many files each client writes.
pub(crate) const FILES: usize = 3;
/// How many files there are in the directory that is listed.
pub(crate) const MANY: usize = 1100;

/// For so long a session relies on what it found to be young, and clocks of file systems show whole seconds here.
const RELIED: Duration = Duration::from_secs(11);

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
    pub(crate) cast: Cast,
    pub(crate) host: Rc<Host>,
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
    /// What the clock on the wall shows then.
    pub(crate) time: SystemTime,
    /// How often a session gave its client up, a list was complete, a backup had to stay, and one could go.
    pub(crate) timeouts: usize,
    pub(crate) lists: usize,
    pub(crate) kept: usize,
    pub(crate) expired: usize,
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

    /// The backup that a client asks to have removed now.
    pub(crate) fn wants_expired(&mut self, index: usize) -> Option<String> {
        let expiry = self.clients[index].expires.as_mut()?;
        (expiry.age, expiry.asked) = (age(&expiry.path, self.time), self.now);
        Some(expiry.path.to_str().unwrap().to_owned())
    }

    /// Insists that a backup that is asked to be removed stays whole until it is old, and that it can go afterwards.
    pub(crate) fn check_expired(&mut self, index: usize, succeeded: bool) {
        let Some(Expiry { path, age, asked }) = &self.clients[index].expires else { panic!("nothing was asked") };
        let (min_age, is_old_now) = (self.cast.min_age, age.saturating_add(self.now - *asked) >= self.cast.min_age);
        if succeeded {
            assert!(is_old_now && !path.exists(), "a young backup is removed");
            self.expired += 1;
            self.clients[index].expires = None;
            return;
        }
        assert!(*age < min_age + RELIED || self.habits.drain.is_some(), "an old backup cannot be removed");
        if !is_old_now {
            assert!(path.join("pg_data/file").exists(), "a young backup is not whole any more");
            self.kept += 1;
        }
    }

    /// Insists that a client may have begun to write.
    pub(crate) fn check_opened(&self, index: usize) {
        let client = &self.clients[index];
        assert!(client.role > Role::Reader && !client.is_late, "{:?} writes {}", client.role, client.path.display());
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
        if doing == Doing::Opening && succeeded {
            self.check_opened(index);
        }
        match doing {
            Doing::Config => self.send(index, Doing::Greeted, "config", "prc", false, |pack| {
                pack.array(|array| _ = array.str("archive-push:remote"));
            }),
            Doing::Greeted => self.send(index, Doing::Noop, "noop", "prc", false, |_| {}),
            Doing::Noop if !succeeded => self.send(index, Doing::Exiting, "exit", "prc", false, |_| {}),
            Doing::Noop | Doing::Cancelling | Doing::Reading | Doing::Listing | Doing::Expiring => {
                assert!(succeeded || doing != Doing::Cancelling, "a cancellation always succeeds");
                if doing == Doing::Listing && succeeded {
                    self.check_list(&received);
                }
                if doing == Doing::Expiring {
                    self.check_expired(index, succeeded);
                }
                self.clients[index].number += 1;
                if self.habits.list && !matches!(doing, Doing::Listing | Doing::Expiring) {
                    let many = self.many();
                    return self.send(index, Doing::Listing, "s-l", "prc", false, |pack| {
                        pack.str(many.to_str().unwrap()).u32(1);
                    });
                }
                if doing != Doing::Expiring
                    && let Some(path) = self.wants_expired(index)
                {
                    return self.send(index, Doing::Expiring, "s-pr", "prc", false, |pack| {
                        pack.str(&path).bool(true);
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
        let role = self.clients[index].role;
        let archive = self.directory.join("repo/archive/demo/15-1");
        let backup = self.directory.join(format!("repo/backup/demo/20260101-{:06}F", self.first));
        let manifest = backup.join("backup.manifest");
        self.clients[index].is_late = role == Role::Backup && self.files.is_acknowledged(&manifest);
        let is_shared = role < Role::Admin || self.random.one_in(4);
        let (length, byte) = if role < Role::Admin {
            // What several push is the same or not, and its name tells.
            (1 + 100_000 * number, number + usize::from(self.random.one_in(3)))
        } else {
            (1 + self.random.below(700_000), self.random.below(256))
        };
        let content: Vec<u8> = (0..length).map(|at| (at % 251 + byte).to_le_bytes()[0]).collect();
        let finishes = role == Role::Backup && self.clients[index].file == FILES;
        // Two who write into one file in place get what they ask for.
        let atomic = !self.random.one_in(8) || is_shared;
        let sync = self.random.one_in(if self.habits.unreliable { 3 } else { 2 }) || role < Role::Admin;
        let path = match role {
            Role::Backup if finishes => manifest,
            Role::Backup => backup.join(format!("pg_data/{}", number / 2)),
            Role::Admin if is_shared => archive.join(format!("{}/shared-{number}", number / 2)),
            Role::Admin => archive.join(format!("{}/{index}-{number}", number / 2)),
            _ => archive.join(format!("0000000100000000/0000000100000000{number:08X}-{byte:040x}")),
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
        match self.cast.release.framing {
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
        let passed = Duration::from_millis(self.random.below(most) as u64);
        (self.now, self.time) = (self.now + passed, self.time + passed);
        self.host.set_time(self.time);
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

/// How old a finished backup is by the clock of the file system; one that is gone is as old as can be.
fn age(backup: &Path, now: SystemTime) -> Duration {
    let Ok(manifest) = std::fs::metadata(backup.join("backup.manifest")) else { return Duration::MAX };
    let changed = Duration::from_secs(manifest.ctime().try_into().unwrap());
    now.duration_since(UNIX_EPOCH).unwrap().saturating_sub(changed)
}

fn content_left(client: &Client) -> usize {
    client.content.len() - client.sent
}
