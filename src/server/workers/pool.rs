//! The worker processes: started when there is something to do for them, replaced when they are lost, ended
//! when there was nothing to do for a minute.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::process::Signal;
use slab::Slab;

use super::backoff::Backoff;
use super::choice::prefer;
use super::endings::{Endings, signal};
use super::handle::{Stage, Waiting, WorkerHandle};
use super::link::{Link, Received};
use super::message::{LONGEST, ToSupervisor, ToWorker};
use super::snapshot_file::keep;
use super::spawn::Spawn;
use crate::config::snapshot::Snapshot;
use crate::disk::exclusion::Exclusion;
use crate::observe::log;
use crate::process;
use crate::protocol::error::{Code, Error};
use crate::server::status::document::WorkerState;

/// A worker beyond the first one that has no connection for so long ends.
const IDLE: Duration = Duration::from_secs(60);
/// Bytes of the configuration files in one message.
const PART: usize = LONGEST / 2;
/// How often it is tried to send what a worker did not take yet.
const AGAIN: Duration = Duration::from_millis(20);
/// How often it is looked whether somebody answers where nobody does.
const HUSH: Duration = Duration::from_millis(100);

/// Who gets a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) place: usize,
    /// It was started for that.
    pub(crate) is_new: bool,
}

/// Another configuration, and a descriptor of it for each worker.
#[derive(Debug)]
pub(crate) struct Prepared {
    snapshot: OwnedFd,
    copies: Vec<OwnedFd>,
}

#[derive(Debug)]
pub(crate) enum PoolEvent {
    /// The worker said something that concerns others.
    Said(ToSupervisor),
    Gone(Departure),
}

/// A worker that is gone, and its connections with it.
#[derive(Debug)]
pub(crate) struct Departure {
    /// Its place, which another one may have from now on.
    pub(crate) place: usize,
    /// What there was to tell of it.
    pub(crate) view: WorkerState,
    /// It served, and should not have ended.
    pub(crate) is_lost: bool,
    /// Connections that it was still to get.
    pub(crate) waiting: Vec<Waiting>,
    /// Why it could not begin, if it said so.
    pub(crate) error: Option<Error>,
}

pub(crate) struct WorkerPool {
    spawn: Spawn,
    pub(crate) maximum: usize,
    /// The mask of modes that the server was started with.
    umask: u32,
    /// Who has not answered for so long is lost.
    pub(crate) timeout: Duration,
    /// What workers exclude each other by.
    names: OwnedFd,
    snapshot: OwnedFd,
    workers: Slab<WorkerHandle>,
    turn: u64,
    backoff: Backoff,
    endings: Endings,
}

impl WorkerPool {
    /// A pool of up to `maximum` workers that are started by `spawn` and serve what the snapshot has, none of which
    /// is there yet. Who has not answered for `timeout` is lost.
    pub(crate) fn new(
        maximum: usize,
        spawn: Spawn,
        snapshot: &Snapshot,
        umask: u32,
        timeout: Duration,
    ) -> io::Result<Self> {
        Ok(Self {
            spawn,
            maximum,
            umask,
            timeout,
            names: Exclusion::create()?,
            snapshot: keep(snapshot)?,
            workers: Slab::new(),
            turn: 0,
            backoff: Backoff::default(),
            endings: Endings::default(),
        })
    }

    /// Whether there is none that could do anything, those included that leave.
    pub(crate) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// The places of those that serve or will, and whom: somebody's suspects, or everybody else.
    fn able(&self, slot: Option<usize>) -> impl Iterator<Item = (usize, &WorkerHandle)> {
        self.workers.iter().filter(move |(_, worker)| worker.stage != Stage::Leaving && worker.slot == slot)
    }

    /// Those of them that answer, as far as is known.
    fn responsive(&self, slot: Option<usize>) -> impl Iterator<Item = (usize, &WorkerHandle)> {
        self.able(slot).filter(|(_, worker)| worker.is_responsive())
    }

    /// The place of the worker that the next connection is for, which comes from suspects or not. It is started if all
    /// others have something to do, or do not answer. `None` when none answers and none can be started now.
    pub(crate) fn choose(&mut self, registry: &Registry, slot: Option<usize>, now: Instant) -> Option<Assignment> {
        let preferred = prefer(self.responsive(slot).map(|(place, worker)| (place, worker.load(now))));
        let started = match preferred {
            Some((_, true)) => None,
            _ => self.start(registry, slot, now).map(|place| Assignment { place, is_new: true }),
        };
        started.or(preferred.map(|(place, _)| Assignment { place, is_new: false }))
    }

    /// Starts a worker, for suspects or for everybody else, unless there are enough or it is too early. Its token of
    /// the poll is its place.
    pub(crate) fn start(&mut self, registry: &Registry, slot: Option<usize>, now: Instant) -> Option<usize> {
        let alone = self.responsive(slot).next().is_none();
        // Where nobody answers, one more takes the place of all of them for the time being.
        let most = if slot.is_some() { 1 } else { self.maximum } + usize::from(alone);
        if self.able(slot).count() >= most || self.backoff.until(alone, now).is_some() {
            return None;
        }
        match self.try_start(registry, slot, now) {
            Ok(place) => Some(place),
            Err(error) => {
                log::error(&Error::io(Code::Kernel, "unable to start a worker", &error));
                self.backoff.lose(false, now);
                None
            }
        }
    }

    fn try_start(&mut self, registry: &Registry, slot: Option<usize>, now: Instant) -> io::Result<usize> {
        let descriptors = vec![self.names.try_clone()?, self.snapshot.try_clone()?];
        let (ours, theirs) = process::link::pair()?;
        let token = Token(self.workers.vacant_key());
        // First, since nobody would wait for a process whose socket cannot be watched.
        registry.register(&mut SourceFd(&ours.as_raw_fd()), token, Interest::READABLE | Interest::WRITABLE)?;
        let process = (self.spawn)(theirs)?;
        let number = self.lowest_free_number();
        let mut link = Link::new(ours);
        link.send(&ToWorker::Begin { number, umask: self.umask }, descriptors);
        Ok(self.workers.insert(WorkerHandle::new(number, link, process, slot, now)))
    }

    /// Numbers are those of log lines, which are easier to follow when they are few.
    fn lowest_free_number(&self) -> u32 {
        let is_free = |number: &u32| self.workers.iter().all(|(_, worker)| worker.number != *number);
        (1..=u32::MAX).find(is_free).unwrap_or(0)
    }

    /// Sends a message to the worker in this place.
    pub(crate) fn send(&mut self, place: usize, message: &ToWorker) {
        if let Some(worker) = self.workers.get_mut(place) {
            worker.link.send(message, vec![]);
        }
    }

    /// What [`WorkerPool::reload`] needs to have all serve what another snapshot has.
    pub(crate) fn prepare(&self, snapshot: &Snapshot) -> io::Result<Prepared> {
        let snapshot = keep(snapshot)?;
        let copies = self.workers.iter().map(|_| snapshot.try_clone()).collect::<io::Result<_>>()?;
        Ok(Prepared { snapshot, copies })
    }

    /// Has all serve what was prepared. Returns the places of those.
    pub(crate) fn reload(&mut self, prepared: Prepared) -> Vec<usize> {
        let mut places = Vec::new();
        for ((place, worker), copy) in self.workers.iter_mut().zip(prepared.copies) {
            worker.link.send(&ToWorker::Reload, vec![copy]);
            places.push(place);
        }
        self.snapshot = prepared.snapshot;
        places
    }

    /// Tells the worker in this place of the configuration files that sessions use.
    pub(crate) fn send_files(&mut self, place: usize, told: &[u8]) {
        let parts = told.chunks(PART).map(|part| ToWorker::Files(part.to_vec()));
        for message in parts.chain([ToWorker::AllFiles]) {
            self.send(place, &message);
        }
    }

    /// Sends a message to all in places that are `meant`.
    pub(crate) fn send_where(&mut self, message: &ToWorker, meant: impl Fn(usize) -> bool) {
        for (_, worker) in self.workers.iter_mut().filter(|(place, _)| meant(*place)) {
            worker.link.send(message, vec![]);
        }
    }

    /// Asks all that answer something. Returns the places of those.
    pub(crate) fn ask(&mut self, question: &ToWorker) -> Vec<usize> {
        let responsive = self.workers.iter().filter(|(_, worker)| worker.is_responsive());
        let places: Vec<_> = responsive.map(|(place, _)| place).collect();
        self.send_where(question, |place| places.contains(&place));
        places
    }

    /// Gives a connection to the worker in this place, once that serves.
    pub(crate) fn assign(&mut self, place: usize, connection: Waiting, now: Instant) {
        self.turn += 1;
        if let Some(worker) = self.workers.get_mut(place) {
            worker.assign(connection, self.turn, now);
        }
    }

    /// Has the worker in this place give up a connection, if it is without authorization. Whether that has been done:
    /// otherwise the worker tells when it is.
    pub(crate) fn evict(&mut self, place: usize, number: u64) -> bool {
        self.workers.get_mut(place).is_some_and(|worker| worker.evict(number))
    }

    /// Lets workers that were kept for suspects serve everybody, but for those of slots that are `used`.
    pub(crate) fn mix(&mut self, used: impl Fn(usize) -> bool) {
        for (_, worker) in &mut self.workers {
            worker.slot = worker.slot.filter(|slot| used(*slot));
        }
    }

    /// Notes that a connection of the worker in this place is over.
    pub(crate) fn note_end(&mut self, place: usize, now: Instant) {
        if let Some(worker) = self.workers.get_mut(place) {
            worker.note_end(now);
        }
    }

    /// The next thing that the worker in this place has to say.
    pub(crate) fn poll_event(&mut self, place: usize, now: Instant) -> Option<PoolEvent> {
        let worker = self.workers.get_mut(place)?;
        worker.link.flush();
        loop {
            let message = match worker.link.recv() {
                Received::Message(message, _) => message,
                Received::Nothing => return None,
                Received::Ended => return Some(PoolEvent::Gone(self.remove(place, None, now))),
            };
            match &message {
                ToSupervisor::Ready => {
                    worker.begin_serving(now);
                    self.backoff.begin();
                }
                ToSupervisor::Alive => {
                    worker.note_answer(now);
                    continue;
                }
                ToSupervisor::Failed(reason) => {
                    let error = Error::new(Code::Service, format!("worker {} cannot serve: {reason}", worker.number));
                    return Some(PoolEvent::Gone(self.remove(place, Some(error), now)));
                }
                ToSupervisor::Report(report) => worker.transfers = report.transfers,
                _ => {}
            }
            return Some(PoolEvent::Said(message));
        }
    }

    fn remove(&mut self, place: usize, error: Option<Error>, now: Instant) -> Departure {
        let worker = self.workers.remove(place);
        let (expected, could_serve) = (worker.stage == Stage::Leaving, worker.stage != Stage::Starting);
        if !expected {
            self.backoff.lose(could_serve, now);
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
    pub(crate) fn give_up_unresponsive(&mut self, now: Instant) -> Option<Departure> {
        let is_lost = |worker: &WorkerHandle| worker.heartbeat.unanswered(now) >= self.timeout;
        let (place, worker) = self.workers.iter_mut().find(|(_, worker)| is_lost(worker))?;
        let message = format!(
            "{} has not answered for {} s, counts as lost, and is ended by SIGABRT\nHINT: see worker-timeout.",
            worker.name(),
            worker.heartbeat.unanswered(now).as_secs()
        );
        log::error(&Error::new(Code::Service, message));
        signal(&worker.process, Signal::ABORT);
        Some(self.remove(place, None, now))
    }

    /// Whether there is one that answers, as far as is known.
    pub(crate) fn is_responsive(&self) -> bool {
        self.responsive(None).next().is_some()
    }

    /// Until when there is no worker that answers, if none can be started before.
    pub(crate) fn away(&self, now: Instant) -> Option<Instant> {
        if self.is_responsive() {
            return None;
        }
        // Nobody is there who could take a connection, though as many are as may be.
        let is_hushed = self.able(None).count() > self.maximum;
        if is_hushed { Some(now + HUSH) } else { self.backoff.until(true, now) }
    }

    /// When something here is due.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let endings = self.endings.deadline(now);
        let behind = self.workers.iter().any(|(_, worker)| worker.link.is_behind()).then(|| now + AGAIN);
        let surplus = self.surplus().map(|(_, worker)| worker.idle + IDLE);
        let workers = self.workers.iter();
        let beats = workers.filter_map(|(_, worker)| worker.heartbeat.deadline(worker.connections > 0, self.timeout));
        endings.into_iter().chain(behind).chain(surplus).chain(beats).min()
    }

    /// The worker that has been without a connection for the longest time, if it is not the only one that answers.
    fn surplus(&self) -> Option<(usize, &WorkerHandle)> {
        let several = self.responsive(None).nth(1).is_some();
        let is_spare = |worker: &WorkerHandle| worker.slot.is_some() || several && worker.is_responsive();
        let is_idle = |worker: &WorkerHandle| worker.stage == Stage::Serving && worker.connections == 0;
        let spare = self.workers.iter().filter(|(_, worker)| is_idle(worker) && is_spare(worker));
        spare.min_by_key(|(_, worker)| worker.idle)
    }

    /// Sends what waits to be sent, asks those who have something to do whether they live, and ends whoever had
    /// nothing to do for long.
    pub(crate) fn maintain(&mut self, now: Instant) {
        self.endings.reap(now);
        for (_, worker) in &mut self.workers {
            worker.link.flush();
            worker.poll_heartbeat(now);
        }
        while let Some(place) = self.surplus().filter(|(_, worker)| worker.idle + IDLE <= now).map(|(place, _)| place) {
            self.workers[place].dismiss(&ToWorker::Drain);
        }
    }

    /// Has the worker in this place end, since it cannot take the configuration over for this reason: it would go on
    /// to serve those to whom that grants nothing any more.
    pub(crate) fn retire(&mut self, place: usize, reason: &str) {
        let Some(worker) = self.workers.get_mut(place) else { return };
        log::warn(format_args!("{} cannot take the configuration over, and ends: {reason}", worker.name()));
        worker.dismiss(&ToWorker::Drain);
    }

    /// Has the worker in this place end after its sessions, as somebody wants it to.
    pub(crate) fn relieve(&mut self, place: usize) {
        let Some(worker) = self.workers.get_mut(place).filter(|worker| worker.stage != Stage::Leaving) else { return };
        log::info(format_args!(
            "{} got signal [SIGTERM]: it gets no more connections, and ends after the {} that it has",
            worker.name(),
            worker.connections
        ));
        worker.dismiss(&ToWorker::Leave);
    }

    /// Has all workers let requests in flight finish, and end.
    pub(crate) fn drain_all(&mut self) {
        self.workers.iter_mut().for_each(|(_, worker)| worker.dismiss(&ToWorker::Drain));
    }

    /// Asks all whether they live, those too that have nothing to do.
    pub(crate) fn ping_all(&mut self, now: Instant) {
        self.workers.iter_mut().for_each(|(_, worker)| worker.ping(now));
    }

    /// Ends all that are left at once. Returns how many workers these were.
    pub(crate) fn kill_all(&mut self) -> usize {
        self.workers.iter().for_each(|(_, worker)| signal(&worker.process, Signal::KILL));
        self.endings.kill_all();
        self.workers.len()
    }

    pub(crate) fn view(&self, now: Instant) -> Vec<WorkerState> {
        self.workers.iter().map(|(_, worker)| worker.view(now)).collect()
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
