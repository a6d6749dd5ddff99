//! The worker processes: started when there is something to do for them, replaced when they are lost, ended
//! when there was nothing to do for a minute.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process};
use slab::Slab;

use super::COMMAND;
use super::link::{Heard, Link};
use super::message::{LONGEST, ToSupervisor, ToWorker};
use super::pulse::{PATIENCE, Pulse};
use crate::config::snapshot::Snapshot;
use crate::disk::exclusion::Exclusion;
use crate::observe::log;
use crate::process;
use crate::protocol::error::{Code, Error};
use crate::server::umask;

/// A worker beyond the first one that has no connection for so long ends.
const IDLE: Duration = Duration::from_secs(60);
/// So many workers may be lost in [`WINDOW`] and be replaced at once.
const LOSSES: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// The pause before the next one after that; it doubles with each loss, up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Clients that transfer files come several at a time: for so long a connection counts as a transfer too.
const YOUNG: Duration = Duration::from_secs(1);
/// Bytes of the configuration files in one message.
const PART: usize = LONGEST / 2;
/// How often it is looked whether processes have ended that closed their socket.
const REAP: Duration = Duration::from_millis(20);

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
    /// Connections that were given to it and are not over.
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

/// A process that will have ended soon.
#[derive(Debug)]
struct Gone {
    process: Child,
    /// The number of the worker that should not have ended, and the connections that it had.
    lost: Option<(u32, usize)>,
}

/// What is told of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerView {
    /// Its number.
    pub number: u32,
    /// Its process.
    pub pid: u32,
    /// Connections that it has.
    pub connections: usize,
    /// Those of them that transfer files.
    pub transfers: usize,
    /// For how long it has not answered, if that is so long that it gets no connections.
    pub silent: Option<Duration>,
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
    /// This worker is gone, and its connections with it. The error if it could not begin.
    Gone(WorkerView, Option<Error>),
}

/// All workers.
pub struct Crew {
    start: Start,
    maximum: usize,
    /// What workers exclude each other by.
    names: OwnedFd,
    /// The configuration.
    snapshot: OwnedFd,
    workers: Slab<Worker>,
    turn: u64,
    losses: Vec<Instant>,
    /// No worker is started before.
    paused: Option<Instant>,
    /// Processes that have closed their socket, or will.
    ending: Vec<Gone>,
}

impl Crew {
    /// A crew of `maximum` workers that are started by `start` and serve what the snapshot has, none of which
    /// is there yet.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn new(maximum: usize, start: Start, snapshot: &Snapshot) -> io::Result<Self> {
        Ok(Self {
            start,
            maximum,
            names: Exclusion::create()?,
            snapshot: keep(snapshot)?,
            workers: Slab::new(),
            turn: 0,
            losses: Vec::new(),
            paused: None,
            ending: Vec::new(),
        })
    }

    /// Whether there is none that could do anything, those included that leave.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// The places of those that serve or will.
    fn able(&self) -> impl Iterator<Item = (usize, &Worker)> {
        self.workers.iter().filter(|(_, worker)| worker.stage != Stage::Leaving)
    }

    /// The place of the worker that the next connection is for: with the fewest transfers, those that may come
    /// included, and among those the fewest connections; a silent one only where all are. It is started if all
    /// others have something to do, or are silent. `None` when there is none and none can be started now.
    pub fn choose(&mut self, registry: &Registry, now: Instant) -> Option<Choice> {
        for (_, worker) in &mut self.workers {
            worker.young.retain(|since| now.saturating_duration_since(*since) < YOUNG);
        }
        let load = |worker: &Worker| worker.transfers + worker.young.len();
        let order = |worker: &Worker| (worker.pulse.is_silent(), load(worker), worker.connections, worker.turn);
        let best = self.able().min_by_key(|(_, worker)| order(worker));
        let is_free = best.is_some_and(|(_, worker)| !worker.pulse.is_silent() && worker.connections == 0);
        let old = best.map(|(place, _)| Choice { place, is_new: false });
        if is_free {
            return old;
        }
        self.start(registry, now).map(|place| Choice { place, is_new: true }).or(old)
    }

    /// Starts a worker, unless there are enough or it is too early. Its token of the poll is its place.
    pub fn start(&mut self, registry: &Registry, now: Instant) -> Option<usize> {
        if self.able().count() >= self.maximum || self.paused.is_some_and(|until| until > now) {
            return None;
        }
        self.paused = None;
        match self.try_start(registry, now) {
            Ok(place) => Some(place),
            Err(error) => {
                log::error(&Error::system(Code::Kernel, "unable to start a worker", error.raw_os_error().unwrap_or(0)));
                self.lose(now);
                None
            }
        }
    }

    fn try_start(&mut self, registry: &Registry, now: Instant) -> io::Result<usize> {
        let names = self.names.try_clone()?;
        let (ours, theirs) = process::link::pair()?;
        let process = (self.start)(theirs)?;
        let number = self.lowest_free_number();
        let mut link = Link::new(ours);
        let begin = ToWorker::Begin { number, workers: self.maximum, umask: umask::inherited() };
        link.say(&begin, vec![names, self.snapshot.try_clone()?]);
        let entry = self.workers.vacant_entry();
        let place = entry.key();
        let mut source = SourceFd(&link.as_fd().as_raw_fd());
        registry.register(&mut source, Token(place), Interest::READABLE | Interest::WRITABLE)?;
        entry.insert(Worker {
            number,
            link,
            process,
            stage: Stage::Starting,
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

    /// Notes that a connection was given to the worker in this place.
    pub fn give(&mut self, place: usize, now: Instant) {
        self.turn += 1;
        if let Some(worker) = self.workers.get_mut(place) {
            worker.connections += 1;
            worker.young.push_back(now);
            worker.turn = self.turn;
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
                        worker.answers(now);
                        return Some(News::Said(place, ToSupervisor::Ready));
                    }
                    ToSupervisor::Alive => worker.answers(now),
                    ToSupervisor::Failed(reason) => {
                        let message = format!("worker {} cannot serve: {reason}", worker.number);
                        return Some(self.remove(place, Some(Error::new(Code::Service, message)), now));
                    }
                    ToSupervisor::Report { transfers, .. } => {
                        worker.transfers = transfers;
                        return Some(News::Said(place, message));
                    }
                    message => return Some(News::Said(place, message)),
                },
                Heard::Nothing => return None,
                Heard::Ended => return Some(self.remove(place, None, now)),
            }
        }
    }

    fn remove(&mut self, place: usize, error: Option<Error>, now: Instant) -> News {
        let worker = self.workers.remove(place);
        let expected = worker.stage == Stage::Leaving;
        if !expected {
            self.lose(now);
        }
        // Closing the socket ends it, if it has not ended.
        let (view, lost) = (worker.view(now), (worker.number, worker.connections));
        let lost = (!expected && error.is_none()).then_some(lost);
        self.ending.push(Gone { process: worker.process, lost });
        self.reap();
        News::Gone(view, error)
    }

    /// Notes that a worker was lost. If that happens often, the next one has to wait.
    fn lose(&mut self, now: Instant) {
        self.losses.retain(|at| now.saturating_duration_since(*at) < WINDOW);
        self.losses.push(now);
        let Some(more) = self.losses.len().checked_sub(LOSSES).filter(|more| *more > 0) else { return };
        let doublings = u32::try_from(more - 1).unwrap_or(u32::MAX).min(16);
        let pause = (PAUSE.0 * 2_u32.pow(doublings)).min(PAUSE.1);
        log::warn(format_args!(
            "{} workers were lost in {} s; the next one is started in {} ms",
            self.losses.len(),
            WINDOW.as_secs(),
            pause.as_millis()
        ));
        self.paused = Some(now + pause);
    }

    /// Takes note of processes that have ended.
    pub fn reap(&mut self) {
        self.ending.retain_mut(|gone| {
            let Ok(status) = gone.process.try_wait() else { return false };
            if let (Some(status), Some((number, connections))) = (status, gone.lost) {
                let process = gone.process.id();
                log::error(&Error::new(
                    Code::Service,
                    format!("worker {number}, process {process}, is lost with {connections} connections: {status}"),
                ));
            }
            status.is_none()
        });
    }

    /// Whether there is a worker that serves or will.
    #[must_use]
    pub fn is_able(&self) -> bool {
        self.able().next().is_some()
    }

    /// Until when there is no worker, if none can be started before.
    #[must_use]
    pub fn away(&self) -> Option<Instant> {
        self.paused.filter(|_| !self.is_able())
    }

    /// How many workers there are at most.
    #[must_use]
    pub const fn maximum(&self) -> usize {
        self.maximum
    }

    /// When something here is due.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let reap = (!self.ending.is_empty()).then(|| now + REAP);
        let behind = self.workers.iter().any(|(_, worker)| worker.link.is_behind()).then(|| now + REAP);
        let surplus = self.surplus().map(|(_, worker)| worker.idle + IDLE);
        let pulse = self.able().filter_map(|(_, worker)| worker.pulse.deadline(worker.connections > 0));
        reap.into_iter().chain(behind).chain(surplus).chain(pulse).min()
    }

    /// The worker that has been without a connection for the longest time, if it is not the only one that answers.
    fn surplus(&self) -> Option<(usize, &Worker)> {
        let well = || self.able().filter(|(_, worker)| !worker.pulse.is_silent());
        let several = well().nth(1).is_some();
        let idle = well().filter(|(_, worker)| worker.stage == Stage::Serving && worker.connections == 0);
        idle.min_by_key(|(_, worker)| worker.idle).filter(|_| several)
    }

    /// Sends what waits to be sent, asks those who have something to do whether they live, and ends whoever had
    /// nothing to do for long.
    pub fn tend(&mut self, now: Instant) {
        self.reap();
        for (_, worker) in &mut self.workers {
            worker.link.flush();
            if worker.stage != Stage::Leaving {
                worker.feel(now);
            }
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

    /// Ends those who have not answered for the service manager's `period`, and asks the others whether they live.
    pub fn check(&mut self, period: Duration, now: Instant) {
        for (_, worker) in self.workers.iter_mut().filter(|(_, worker)| worker.stage == Stage::Serving) {
            if worker.pulse.unanswered(now) >= period {
                log::error(&Error::new(Code::Service, format!("{} hangs and is ended", worker.name())));
                kill(&worker.process);
            } else if worker.pulse.ask(now) {
                worker.link.say(&ToWorker::Ping, vec![]);
            }
        }
    }

    /// Ends all that are left at once. Returns how many these were.
    pub fn kill_all(&mut self) -> usize {
        self.workers.iter().for_each(|(_, worker)| kill(&worker.process));
        self.workers.len()
    }

    /// What is told of the workers.
    #[must_use]
    pub fn view(&self, now: Instant) -> Vec<WorkerView> {
        self.workers.iter().map(|(_, worker)| worker.view(now)).collect()
    }
}

impl Worker {
    /// What is told of it.
    fn view(&self, now: Instant) -> WorkerView {
        WorkerView {
            number: self.number,
            pid: self.process.id(),
            connections: self.connections,
            transfers: self.transfers,
            silent: self.pulse.is_silent().then(|| self.pulse.unanswered(now)),
        }
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

fn kill(process: &Child) {
    if let Some(pid) = i32::try_from(process.id()).ok().and_then(Pid::from_raw) {
        // It is ours until it is waited for, so nobody else is meant. It may have ended.
        let _ = kill_process(pid, Signal::KILL);
    }
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
mod tests {
    use std::process::Command;

    use mio::Poll;

    use super::*;
    use crate::server::workers::message::ToSupervisor;

    /// A crew of processes that do what `program` does, and say nothing.
    fn crew(maximum: usize, program: &'static [&'static str]) -> (Poll, Crew) {
        let start = move |socket: OwnedFd| {
            Command::new(program[0]).args(&program[1..]).stdin(Stdio::from(socket)).stdout(Stdio::null()).spawn()
        };
        (Poll::new().unwrap(), Crew::new(maximum, Box::new(start), &Snapshot::default()).unwrap())
    }

    /// Gives a connection to whoever it is for: the place, and whether the worker was started for that.
    fn give(poll: &Poll, crew: &mut Crew, at: Instant) -> (usize, bool) {
        let Choice { place, is_new } = crew.choose(poll.registry(), at).unwrap();
        crew.give(place, at);
        (place, is_new)
    }

    /// Two workers that serve, each with a connection since `now`.
    fn two_that_serve(now: Instant) -> (Poll, Crew) {
        let (poll, mut crew) = crew(2, &["sleep", "100"]);
        for _ in 0..2 {
            let (place, _) = give(&poll, &mut crew, now);
            crew.workers[place].stage = Stage::Serving;
            crew.workers[place].answers(now);
        }
        (poll, crew)
    }

    fn says(crew: &mut Crew, place: usize, transfers: usize) {
        crew.workers[place].transfers = transfers;
    }

    #[test]
    fn a_connection_goes_where_the_fewest_transfers_are_and_nobody_is_started_without_need() {
        let (poll, mut crew) = crew(3, &["sleep", "100"]);
        let now = Instant::now();
        let give = |crew: &mut Crew, after: u32| give(&poll, crew, now + YOUNG * after);
        assert_eq!(give(&mut crew, 0), (0, true));
        crew.take_back(0, now);
        assert_eq!(give(&mut crew, 0), (0, false), "it has nothing to do");
        assert_eq!([give(&mut crew, 0), give(&mut crew, 0)], [(1, true), (2, true)]);
        says(&mut crew, 0, 1);
        says(&mut crew, 1, 2);
        assert_eq!([give(&mut crew, 1), give(&mut crew, 2)], [(2, false), (2, false)]);
        says(&mut crew, 2, 3);
        assert_eq!(give(&mut crew, 3), (0, false));
        says(&mut crew, 0, 2);
        assert_eq!(give(&mut crew, 4), (1, false), "as many transfers, but fewer connections");
        let view = crew.view(now);
        assert_eq!(view.iter().map(|worker| worker.number).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(view.iter().map(|worker| worker.connections).collect::<Vec<_>>(), [2, 2, 3]);
        crew.kill_all();
    }

    #[test]
    fn two_that_come_at_once_are_not_given_to_one_because_it_transfers_nothing_yet() {
        let now = Instant::now();
        let (poll, mut crew) = two_that_serve(now);
        crew.take_back(1, now);
        says(&mut crew, 0, 1);
        let places = [(); 2].map(|()| give(&poll, &mut crew, now + YOUNG * 2).0);
        assert_eq!(places, [1, 0]);
        crew.kill_all();
    }

    #[test]
    fn whoever_has_nothing_to_do_for_a_minute_ends_but_for_one() {
        let now = Instant::now();
        let (_poll, mut crew) = two_that_serve(now);
        crew.take_back(0, now);
        crew.take_back(1, now + IDLE / 2);
        assert_eq!(crew.deadline(now), Some(now + IDLE));
        crew.tend(now + IDLE / 2);
        assert_eq!(crew.able().count(), 2);
        crew.tend(now + IDLE * 3);
        assert_eq!(crew.able().map(|(_, worker)| worker.number).collect::<Vec<_>>(), [2]);
        crew.kill_all();
    }

    #[test]
    fn one_that_is_lost_is_replaced_and_those_who_keep_dying_are_waited_for() {
        let (poll, mut crew) = crew(1, &["true"]);
        let now = Instant::now();
        for loss in 1..=LOSSES + 2 {
            let at = now + Duration::from_secs(u64::try_from(loss).unwrap());
            let place = crew.start(poll.registry(), at).expect("it is not too early");
            let begun = Instant::now();
            let news = loop {
                if let Some(news) = crew.hear(place, at) {
                    break news;
                }
                assert!(begun.elapsed() < Duration::from_secs(30), "its end is not noticed");
            };
            assert!(matches!(news, News::Gone(_, None)), "{news:?}");
            let pause = match loss - LOSSES.min(loss) {
                0 => None,
                1 => Some(PAUSE.0),
                _ => Some(PAUSE.0 * 2),
            };
            assert_eq!(crew.away(), pause.map(|pause| at + pause), "after loss {loss}");
        }
        let begun = Instant::now();
        while !crew.ending.is_empty() {
            crew.reap();
            assert!(begun.elapsed() < Duration::from_secs(30), "a process is not waited for");
        }
    }

    #[test]
    fn one_that_is_to_end_before_it_serves_is_not_lost_when_it_ends() {
        let (poll, mut crew) = crew(1, &["true"]);
        let now = Instant::now();
        let place = crew.start(poll.registry(), now).unwrap();
        let (ours, theirs) = process::link::pair().unwrap();
        crew.workers[place].link = Link::new(ours);
        crew.drain_all();
        Link::new(theirs).say(&ToSupervisor::Ready, vec![]);
        assert!(matches!(crew.hear(place, now), Some(News::Said(_, ToSupervisor::Ready))));
        assert!(!crew.is_able(), "it would get connections");
        assert!(matches!(crew.hear(place, now), Some(News::Gone(_, None))));
        assert!(crew.losses.is_empty());
    }

    #[test]
    fn who_does_not_answer_is_ended_and_who_does_is_not() {
        let (poll, mut crew) = crew(2, &["sleep", "100"]);
        let now = Instant::now();
        let (ours, theirs) = process::link::pair().unwrap();
        for link in [None, Some(ours)] {
            let place = crew.start(poll.registry(), now).unwrap();
            crew.workers[place].stage = Stage::Serving;
            if let Some(link) = link {
                crew.workers[place].link = Link::new(link);
            }
        }
        for (_, worker) in &mut crew.workers {
            worker.answers(now);
        }
        let period = Duration::from_secs(1);
        crew.check(period, now);
        Link::new(theirs.try_clone().unwrap()).say(&ToSupervisor::Alive, vec![]);
        assert!(crew.hear(1, now).is_none());
        crew.check(period, now + period);
        let begun = Instant::now();
        while !matches!(crew.hear(0, now), Some(News::Gone(WorkerView { number: 1, .. }, None))) {
            assert!(begun.elapsed() < Duration::from_secs(30), "it was not ended");
        }
        assert!(crew.hear(1, now).is_none());
        crew.kill_all();
    }

    #[test]
    fn who_does_not_answer_gets_connections_only_where_nobody_does() {
        let (poll, mut crew) = crew(2, &["sleep", "100"]);
        let begin = Instant::now();
        let given = |crew: &mut Crew, at: Instant| {
            let to = give(&poll, crew, at);
            crew.tend(at);
            to
        };
        assert_eq!(given(&mut crew, begin), (0, true));
        crew.workers[0].answers(begin);
        crew.tend(begin);
        let asked = crew.deadline(begin).unwrap();
        assert!(asked > begin && asked < begin + PATIENCE, "a worker that has a connection is asked");
        crew.tend(asked);
        let silent = asked + PATIENCE;
        assert_eq!(crew.deadline(asked), Some(silent));
        crew.take_back(0, asked);
        crew.tend(silent);
        assert_eq!(crew.view(silent)[0].silent, Some(PATIENCE));
        assert_eq!(given(&mut crew, silent), (1, true), "though the other one has nothing to do");
        assert_eq!((crew.ask(&ToWorker::Sessions), crew.workers.len()), (vec![1], 2));
        for at in [silent, silent + PATIENCE / 2] {
            crew.workers[1].answers(at);
            assert_eq!(given(&mut crew, at), (1, false));
        }
        crew.take_back(1, silent);
        crew.take_back(1, silent);
        crew.take_back(1, silent);
        crew.workers[1].stage = Stage::Serving;
        crew.tend(silent + IDLE * 2);
        assert!(crew.able().any(|(place, _)| place == 1), "the only one that answers ended");

        let again = silent + IDLE * 2;
        crew.workers[0].answers(again);
        assert_eq!(crew.view(again)[0].silent, None);
        assert_eq!(given(&mut crew, again), (0, false));
        crew.kill_all();
    }

    #[test]
    fn a_crew_that_does_nothing_is_not_woken() {
        let (poll, mut crew) = crew(2, &["sleep", "100"]);
        let now = Instant::now();
        let place = crew.start(poll.registry(), now).unwrap();
        crew.workers[place].answers(now);
        crew.tend(now + IDLE);
        assert_eq!(crew.deadline(now + IDLE), None);
        crew.kill_all();
    }

    #[test]
    fn a_snapshot_is_recalled_as_often_as_it_is_given() {
        let (_, snapshot) = crate::config::snapshot::record(|| crate::config::snapshot::read("/proc/version".as_ref()));
        let kept = keep(&snapshot).unwrap();
        for _ in 0..2 {
            let recalled = recall(kept.try_clone().unwrap()).unwrap();
            assert_eq!(postcard::to_allocvec(&recalled).unwrap(), postcard::to_allocvec(&snapshot).unwrap());
        }
    }
}
