//! The worker processes: started when there is something to do for them, replaced when they are lost, ended
//! when there was nothing to do for a minute.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::Signal;
use slab::Slab;

use super::COMMAND;
use super::endings::{Endings, signal};
use super::heartbeat::{PATIENCE, Pulse};
use super::link::{Heard, Link};
use super::message::{LONGEST, ToSupervisor, ToWorker};
use super::pauses::Pauses;
use crate::config::snapshot::Snapshot;
use crate::disk::exclusion::Exclusion;
use crate::observe::log;
use crate::process;
use crate::protocol::error::{Code, Error};
use crate::server::status::document::WorkerState;

/// A worker beyond the first one that has no connection for so long ends.
const IDLE: Duration = Duration::from_secs(60);
/// Clients that transfer files come several at a time: for so long a connection counts as a transfer too.
const YOUNG: Duration = Duration::from_secs(1);
/// Bytes of the configuration files in one message.
const PART: usize = LONGEST / 2;
/// How often it is tried to say what a worker did not take yet.
const AGAIN: Duration = Duration::from_millis(20);
/// How often it is looked whether somebody answers where nobody does.
const HUSH: Duration = Duration::from_millis(100);

/// How a worker is started that obeys the other end of a socket.
pub type Start = Box<dyn FnMut(OwnedFd) -> io::Result<Child>>;

/// How far a worker has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It reads the configuration. Connections wait for it.
    Starting,
    Serving,
    /// It gets no more connections.
    Leaving,
}

/// A worker process.
#[derive(Debug)]
struct Worker {
    number: u32,
    link: Link,
    process: Child,
    stage: Stage,
    /// Which suspects it is kept for, if it is.
    slot: Option<usize>,
    /// Connections that it gets when it serves: if it never does, nothing has happened to them.
    waiting: Vec<Waiting>,
    /// Connections that were given to it and are not over, those included that wait.
    connections: usize,
    /// Those of them that transfer files, as it said last.
    transfers: usize,
    /// When it got the connections that may still begin to transfer files.
    young: VecDeque<Instant>,
    /// When it got its last connection, as a number.
    turn: u64,
    /// Since when it has no connection.
    idle: Instant,
    pulse: Pulse,
}

/// A connection that no worker has read anything of.
#[derive(Debug)]
pub struct Waiting {
    /// Its number.
    pub number: u64,
    /// The other end of it.
    pub peer: SocketAddr,
    /// The connection itself.
    pub socket: OwnedFd,
}

/// Who gets a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Its place.
    pub place: usize,
    /// It was started for that.
    pub is_new: bool,
}

/// Another configuration, and a descriptor of it for each worker.
#[derive(Debug)]
pub struct Prepared {
    snapshot: OwnedFd,
    copies: Vec<OwnedFd>,
}

/// What happened to the crew.
#[derive(Debug)]
pub enum News {
    /// The worker in this place said something that concerns others.
    Said(usize, ToSupervisor),
    /// A worker is gone.
    Gone(Departure),
}

/// A worker that is gone, and its connections with it.
#[derive(Debug)]
pub struct Departure {
    /// Its place, which another one may have from now on.
    pub place: usize,
    /// What there was to tell of it.
    pub view: WorkerState,
    /// It served, and should not have ended.
    pub is_lost: bool,
    /// Connections that it was still to get.
    pub waiting: Vec<Waiting>,
    /// Why it could not begin, if it said so.
    pub error: Option<Error>,
}

/// All workers.
pub struct Crew {
    start: Start,
    maximum: usize,
    /// The mask of modes that the server was started with.
    umask: u32,
    /// Who has not answered for so long is lost.
    patience: Duration,
    /// What workers exclude each other by.
    names: OwnedFd,
    /// The configuration.
    snapshot: OwnedFd,
    workers: Slab<Worker>,
    turn: u64,
    pauses: Pauses,
    endings: Endings,
}

impl Crew {
    /// A crew of `maximum` workers that are started by `start` and serve what the snapshot has, none of which
    /// is there yet. Who has not answered for `patience` is lost.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn new(maximum: usize, start: Start, snapshot: &Snapshot, umask: u32, patience: Duration) -> io::Result<Self> {
        Ok(Self {
            start,
            maximum,
            umask,
            patience,
            names: Exclusion::create()?,
            snapshot: keep(snapshot)?,
            workers: Slab::new(),
            turn: 0,
            pauses: Pauses::default(),
            endings: Endings::default(),
        })
    }

    /// Has whoever does not answer for so long be lost.
    pub const fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Whether there is none that could do anything, those included that leave.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// The places of those that serve or will, and whom: somebody's suspects, or everybody else.
    fn able(&self, slot: Option<usize>) -> impl Iterator<Item = (usize, &Worker)> {
        self.workers.iter().filter(move |(_, worker)| worker.stage != Stage::Leaving && worker.slot == slot)
    }

    /// Those of them that answer, as far as is known.
    fn well(&self, slot: Option<usize>) -> impl Iterator<Item = (usize, &Worker)> {
        self.able(slot).filter(|(_, worker)| !worker.pulse.is_silent())
    }

    /// The place of the worker that the next connection is for, which comes from suspects or not: with the fewest
    /// transfers, those that may come included, and among those the fewest connections. It is started if all others
    /// have something to do, or are silent. `None` when none answers and none can be started now.
    pub fn choose(&mut self, registry: &Registry, slot: Option<usize>, now: Instant) -> Option<Choice> {
        for (_, worker) in &mut self.workers {
            worker.young.retain(|since| now.saturating_duration_since(*since) < YOUNG);
        }
        let load = |worker: &Worker| worker.transfers + worker.young.len();
        let order = |worker: &Worker| (load(worker), worker.connections, worker.turn);
        let best = self.well(slot).min_by_key(|(_, worker)| order(worker));
        let is_free = best.is_some_and(|(_, worker)| worker.connections == 0);
        let old = best.map(|(place, _)| Choice { place, is_new: false });
        if is_free {
            return old;
        }
        self.start(registry, slot, now).map(|place| Choice { place, is_new: true }).or(old)
    }

    /// Starts a worker, for suspects or for everybody else, unless there are enough or it is too early. Its token of
    /// the poll is its place.
    pub fn start(&mut self, registry: &Registry, slot: Option<usize>, now: Instant) -> Option<usize> {
        let alone = self.well(slot).next().is_none();
        // Where nobody answers, one more takes the place of all of them for the time being.
        let most = if slot.is_some() { 1 } else { self.maximum } + usize::from(alone);
        if self.able(slot).count() >= most || self.pauses.until(alone, now).is_some() {
            return None;
        }
        match self.try_start(registry, slot, now) {
            Ok(place) => Some(place),
            Err(error) => {
                log::error(&Error::system(Code::Kernel, "unable to start a worker", error.raw_os_error().unwrap_or(0)));
                self.pauses.lose(false, now);
                None
            }
        }
    }

    fn try_start(&mut self, registry: &Registry, slot: Option<usize>, now: Instant) -> io::Result<usize> {
        let descriptors = vec![self.names.try_clone()?, self.snapshot.try_clone()?];
        let (ours, theirs) = process::link::pair()?;
        let place = self.workers.vacant_key();
        // First, since nobody would wait for a process whose socket cannot be watched.
        registry.register(&mut SourceFd(&ours.as_raw_fd()), Token(place), Interest::READABLE | Interest::WRITABLE)?;
        let process = (self.start)(theirs)?;
        let number = self.lowest_free_number();
        let mut link = Link::new(ours);
        let begin = ToWorker::Begin { number, umask: self.umask };
        link.say(&begin, descriptors);
        self.workers.insert(Worker {
            number,
            link,
            process,
            stage: Stage::Starting,
            slot,
            waiting: Vec::new(),
            connections: 0,
            transfers: 0,
            young: VecDeque::new(),
            turn: 0,
            idle: now,
            pulse: Pulse::begin(now),
        });
        Ok(place)
    }

    /// Numbers are those of log lines, which are easier to follow when they are few.
    fn lowest_free_number(&self) -> u32 {
        let is_free = |number: &u32| self.workers.iter().all(|(_, worker)| worker.number != *number);
        (1..=u32::MAX).find(is_free).unwrap_or(0)
    }

    /// Says something to the worker in this place.
    pub fn say(&mut self, place: usize, message: &ToWorker, descriptor: Option<OwnedFd>) {
        if let Some(worker) = self.workers.get_mut(place) {
            worker.link.say(message, descriptor.into_iter().collect());
        }
    }

    /// What [`Crew::reload`] needs to have all serve what another snapshot has.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn prepare(&self, snapshot: &Snapshot) -> io::Result<Prepared> {
        let snapshot = keep(snapshot)?;
        let copies = self.workers.iter().map(|_| snapshot.try_clone()).collect::<io::Result<_>>()?;
        Ok(Prepared { snapshot, copies })
    }

    /// Has all serve what was prepared. Returns the places of those.
    pub fn reload(&mut self, prepared: Prepared) -> Vec<usize> {
        let mut places = Vec::new();
        for ((place, worker), copy) in self.workers.iter_mut().zip(prepared.copies) {
            worker.link.say(&ToWorker::Reload, vec![copy]);
            places.push(place);
        }
        self.snapshot = prepared.snapshot;
        places
    }

    /// Tells the worker in this place of the configuration files that sessions use.
    pub fn tell_files(&mut self, place: usize, told: &[u8]) {
        let parts = told.chunks(PART).map(|part| ToWorker::Files(part.to_vec()));
        for message in parts.chain([ToWorker::AllFiles]) {
            self.say(place, &message, None);
        }
    }

    /// Says something to all.
    pub fn say_to_all(&mut self, message: &ToWorker) {
        for (_, worker) in &mut self.workers {
            worker.link.say(message, vec![]);
        }
    }

    /// Says something to all but the one in this place.
    pub fn say_to_others(&mut self, message: &ToWorker, place: usize) {
        for (_, worker) in self.workers.iter_mut().filter(|(other, _)| *other != place) {
            worker.link.say(message, vec![]);
        }
    }

    /// Asks all that are not silent something. Returns the places of those.
    pub fn ask(&mut self, question: &ToWorker) -> Vec<usize> {
        let mut places = Vec::new();
        for (place, worker) in self.workers.iter_mut().filter(|(_, worker)| !worker.pulse.is_silent()) {
            worker.link.say(question, vec![]);
            places.push(place);
        }
        places
    }

    /// Gives a connection to the worker in this place, once that serves.
    pub fn give(&mut self, place: usize, connection: Waiting, now: Instant) {
        self.turn += 1;
        if let Some(worker) = self.workers.get_mut(place) {
            if worker.stage == Stage::Starting {
                worker.waiting.push(connection);
            } else {
                worker.hand(connection);
            }
            worker.connections += 1;
            worker.young.push_back(now);
            worker.turn = self.turn;
        }
    }

    /// Has the worker in this place give up a connection, if it is without authorization. Whether that has been done:
    /// otherwise the worker tells when it is.
    pub fn evict(&mut self, place: usize, number: u64) -> bool {
        let Some(worker) = self.workers.get_mut(place) else { return false };
        let waiting = worker.waiting.iter().position(|waiting| waiting.number == number);
        match waiting {
            Some(index) => drop(worker.waiting.remove(index)),
            None => worker.link.say(&ToWorker::Evict(number), vec![]),
        }
        waiting.is_some()
    }

    /// Lets workers that were kept for suspects serve everybody, but for those of slots that are `used`.
    pub fn mix(&mut self, used: impl Fn(usize) -> bool) {
        for (_, worker) in &mut self.workers {
            worker.slot = worker.slot.filter(|slot| used(*slot));
        }
    }

    /// Notes that a connection of the worker in this place is over.
    pub fn take_back(&mut self, place: usize, now: Instant) {
        if let Some(worker) = self.workers.get_mut(place) {
            worker.connections = worker.connections.saturating_sub(1);
            worker.young.truncate(worker.connections);
            worker.idle = now;
        }
    }

    /// The next thing that the worker in this place has to say.
    pub fn hear(&mut self, place: usize, now: Instant) -> Option<News> {
        let worker = self.workers.get_mut(place)?;
        worker.link.flush();
        loop {
            match worker.link.hear() {
                Heard::Message(message, _) => match message {
                    ToSupervisor::Ready => {
                        if worker.stage == Stage::Starting {
                            worker.stage = Stage::Serving;
                        }
                        for waiting in std::mem::take(&mut worker.waiting) {
                            worker.hand(waiting);
                        }
                        worker.answers(now);
                        self.pauses.begin();
                        return Some(News::Said(place, ToSupervisor::Ready));
                    }
                    ToSupervisor::Alive => worker.answers(now),
                    ToSupervisor::Failed(reason) => {
                        let message = format!("worker {} cannot serve: {reason}", worker.number);
                        return Some(News::Gone(self.remove(place, Some(Error::new(Code::Service, message)), now)));
                    }
                    ToSupervisor::Report { transfers, .. } => {
                        worker.transfers = transfers;
                        return Some(News::Said(place, message));
                    }
                    message => return Some(News::Said(place, message)),
                },
                Heard::Nothing => return None,
                Heard::Ended => return Some(News::Gone(self.remove(place, None, now))),
            }
        }
    }

    fn remove(&mut self, place: usize, error: Option<Error>, now: Instant) -> Departure {
        let worker = self.workers.remove(place);
        let (expected, could_serve) = (worker.stage == Stage::Leaving, worker.stage != Stage::Starting);
        if !expected {
            self.pauses.lose(could_serve, now);
        }
        let mut view = worker.view(now);
        view.connections -= worker.waiting.len().min(view.connections);
        let lost = (!expected && error.is_none()).then_some((worker.number, view.connections));
        let is_lost = !expected && could_serve;
        // Closing the socket ends it, if it has not ended.
        self.endings.add(worker.process, lost, now);
        Departure { place, view, is_lost, waiting: worker.waiting, error }
    }

    /// Takes leave of a worker that has not answered for too long, if there is one: whether it can end or not, it is
    /// not waited for.
    pub fn give_up(&mut self, now: Instant) -> Option<Departure> {
        let is_lost = |worker: &Worker| worker.pulse.unanswered(now) >= self.patience;
        let (place, worker) = self.workers.iter_mut().find(|(_, worker)| is_lost(worker))?;
        let message = format!(
            "{} has not answered for {} s, counts as lost, and is ended by SIGABRT\nHINT: see worker-timeout.",
            worker.name(),
            worker.pulse.unanswered(now).as_secs()
        );
        log::error(&Error::new(Code::Service, message));
        signal(&worker.process, Signal::ABORT);
        Some(self.remove(place, None, now))
    }

    /// Whether there is one that answers, as far as is known.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.well(None).next().is_some()
    }

    /// Whether nobody is there who could take a connection, though as many are as may be.
    fn is_hushed(&self) -> bool {
        !self.is_well() && self.able(None).count() > self.maximum
    }

    /// Until when there is no worker that answers, if none can be started before.
    #[must_use]
    pub fn away(&self, now: Instant) -> Option<Instant> {
        if self.is_hushed() {
            return Some(now + HUSH);
        }
        self.pauses.until(true, now).filter(|_| !self.is_well())
    }

    /// How many workers there are at most.
    #[must_use]
    pub const fn maximum(&self) -> usize {
        self.maximum
    }

    /// When something here is due.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let endings = self.endings.deadline(now);
        let behind = self.workers.iter().any(|(_, worker)| worker.link.is_behind()).then(|| now + AGAIN);
        let surplus = self.surplus().map(|(_, worker)| worker.idle + IDLE);
        let workers = self.workers.iter();
        let pulse = workers.filter_map(|(_, worker)| worker.pulse.deadline(worker.connections > 0, self.patience));
        endings.into_iter().chain(behind).chain(surplus).chain(pulse).min()
    }

    /// The worker that has been without a connection for the longest time, if it is not the only one that answers.
    fn surplus(&self) -> Option<(usize, &Worker)> {
        let several = self.well(None).nth(1).is_some();
        let is_spare = |worker: &Worker| worker.slot.is_some() || several && !worker.pulse.is_silent();
        let is_idle = |worker: &Worker| worker.stage == Stage::Serving && worker.connections == 0;
        let spare = self.workers.iter().filter(|(_, worker)| is_idle(worker) && is_spare(worker));
        spare.min_by_key(|(_, worker)| worker.idle)
    }

    /// Sends what waits to be sent, asks those who have something to do whether they live, and ends whoever had
    /// nothing to do for long.
    pub fn tend(&mut self, now: Instant) {
        self.endings.reap(now);
        for (_, worker) in &mut self.workers {
            worker.link.flush();
            worker.feel(now);
        }
        while let Some(place) = self.surplus().filter(|(_, worker)| worker.idle + IDLE <= now).map(|(place, _)| place) {
            self.drain(place);
        }
    }

    /// Has the worker in this place end, since it cannot take the configuration over for this reason: it would go on
    /// to serve those to whom that grants nothing any more.
    pub fn retire(&mut self, place: usize, reason: &str) {
        if let Some(worker) = self.workers.get(place) {
            let (number, process) = (worker.number, worker.process.id());
            log::warn(format_args!(
                "worker {number}, process {process}, cannot take the configuration over, and ends: {reason}"
            ));
        }
        self.drain(place);
    }

    /// Has the worker in this place end after its sessions, as somebody wants it to.
    pub fn relieve(&mut self, place: usize) {
        let Some(worker) = self.workers.get_mut(place).filter(|worker| worker.stage != Stage::Leaving) else { return };
        log::info(format_args!(
            "{} got signal [SIGTERM]: it gets no more connections, and ends after the {} that it has",
            worker.name(),
            worker.connections
        ));
        worker.stage = Stage::Leaving;
        worker.link.say(&ToWorker::Leave, vec![]);
    }

    /// Has a worker let requests in flight finish, and end. It gets no more connections.
    fn drain(&mut self, place: usize) {
        if let Some(worker) = self.workers.get_mut(place) {
            worker.stage = Stage::Leaving;
            worker.link.say(&ToWorker::Drain, vec![]);
        }
    }

    /// Has all workers let requests in flight finish, and end.
    pub fn drain_all(&mut self) {
        let places: Vec<_> = self.workers.iter().map(|(place, _)| place).collect();
        for place in places {
            self.drain(place);
        }
    }

    /// Asks all whether they live, those too that have nothing to do.
    pub fn check(&mut self, now: Instant) {
        for (_, worker) in &mut self.workers {
            if worker.pulse.ask(now) {
                worker.link.say(&ToWorker::Ping, vec![]);
            }
        }
    }

    /// Ends all that are left at once. Returns how many workers these were.
    pub fn kill_all(&mut self) -> usize {
        self.workers.iter().for_each(|(_, worker)| signal(&worker.process, Signal::KILL));
        self.endings.kill_all();
        self.workers.len()
    }

    /// What is told of the workers.
    #[must_use]
    pub fn view(&self, now: Instant) -> Vec<WorkerState> {
        self.workers.iter().map(|(_, worker)| worker.view(now)).collect()
    }
}

impl Worker {
    /// What is told of it.
    fn view(&self, now: Instant) -> WorkerState {
        WorkerState {
            number: self.number,
            pid: self.process.id(),
            connections: self.connections,
            transfers: self.transfers,
            silent: self.pulse.is_silent().then(|| self.pulse.unanswered(now).as_secs()),
            leaving: self.stage == Stage::Leaving,
            slot: self.slot,
            kept_for: None,
        }
    }

    /// Hands it a connection.
    fn hand(&mut self, Waiting { number, peer, socket }: Waiting) {
        self.link.say(&ToWorker::Connection { number, peer }, vec![socket]);
    }

    /// Notes that it lives.
    fn answers(&mut self, now: Instant) {
        if let Some(silence) = self.pulse.answer(now) {
            let seconds = silence.as_secs();
            log::warn(format_args!("{} answers after {seconds} s: it gets connections again", self.name()));
        }
    }

    /// Asks whether it lives, if it has something to do, and notes when it does not answer.
    fn feel(&mut self, now: Instant) {
        if self.connections > 0 && self.pulse.ask_again(now) {
            self.link.say(&ToWorker::Ping, vec![]);
        }
        if self.pulse.falls_silent(now) {
            log::warn(format_args!(
                "{} has not answered for {} s: it gets no connections while another one answers",
                self.name(),
                PATIENCE.as_secs()
            ));
        }
    }

    /// What it is called in the log.
    fn name(&self) -> String {
        format!("worker {}, process {},", self.number, self.process.id())
    }
}

/// A snapshot in memory that workers can be given.
fn keep(snapshot: &Snapshot) -> io::Result<OwnedFd> {
    let bytes = postcard::to_allocvec(snapshot).map_err(io::Error::other)?;
    let file = memfd_create("repohostd-configuration", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(file);
    file.write_all(&bytes)?;
    Ok(file.into())
}

/// What [`keep`] kept.
///
/// # Errors
///
/// What the system says; `InvalidData` for something else.
pub fn recall(kept: OwnedFd) -> io::Result<Snapshot> {
    let file = std::fs::File::from(kept);
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    // All share one position in it, so none uses that.
    file.read_exact_at(&mut bytes, 0)?;
    postcard::from_bytes(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Starts this program as a worker with these arguments.
#[must_use]
pub fn start_process(arguments: &[String]) -> Start {
    let arguments = arguments.to_vec();
    Box::new(move |socket| {
        let mut command = process::again(COMMAND);
        command.args(&arguments).stdin(Stdio::from(socket));
        // What the service manager tells, it tells the supervisor.
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
            command.env_remove(name);
        }
        command.spawn()
    })
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
