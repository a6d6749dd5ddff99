//! The back end of the server: what may wait for the disk is done beside the event loop, so that no session
//! waits for another one's.
//!
//! [Helper processes](Helpers) do it. What none of them can take now waits in a [queue](Queue), and keeps nothing
//! else from being done. Two operations on one name wait for each other, because each looks at what has the name
//! before it acts on it; where several processes serve, an [`Exclusion`] makes them wait for those of the others
//! too. What a helper was doing that is lost the next one does again, where that does no harm.
//!
//! Here, in the call that submits it, is done what does not wait: data go to the page cache, and are read from it;
//! listings and looks at single entries are cheap too, and so are changes while nobody syncs. Where the
//! [file system](FileSystem) has lately been slow with them, or may be, helpers do that as well. Closing the last
//! descriptor of a file on such a file system is what others still wait for, where it does not come back at once.
//! Where an owner is in no file, a helper finds the name before the outcome is handed back.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::Registry;
use rustix::io::Errno;

use super::exclusion::{Exclusion, Taken};
use super::file_system::{FileSystem, FileSystems, Kind, Syncs, kind_of};
use super::helpers::{Ended, Free, Helpers, Refused, SHARE, Start};
use super::inline::{Inline, Options};
use super::names::{Found, Unknown};
use super::queue::Queue;
use super::who::{Who, who};
use super::{Completion, Disk, Failure, FileSystemView, Level, Location, Metadata, Operation, Outcome, Ticket, getent};
use crate::observe::log;

/// How long an operation leaves a name to other processes before it is tried again, first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(10));

/// How often an operation is given to a helper at most, if each of them is lost.
const ATTEMPTS: u8 = 8;

/// The back end.
pub struct Offload {
    inline: Inline,
    exclusion: Option<Exclusion>,
    helpers: Helpers<Job>,
    file_systems: FileSystems,
    queue: Queue<Queued>,
    /// Outcomes that lack names.
    nameless: VecDeque<Job>,
    completed: VecDeque<(Ticket, Completion)>,
    /// When operations that wait for other processes are tried again.
    again: Option<Instant>,
}

/// What an operation belongs to while it is under way.
#[derive(Debug)]
pub(super) struct Job {
    ticket: Ticket,
    /// Its number in the queue.
    number: u64,
    /// The names that it gives, takes or replaces.
    names: Vec<String>,
    /// That no other process works on them.
    taken: Option<Taken>,
    /// What it came to already, if only owners have no name yet.
    outcome: Option<Box<Nameless>>,
    /// How many helpers were lost over it.
    losses: u8,
    /// Which file system it is on.
    on: Option<Rc<FileSystem>>,
    /// What it says of that file system.
    says: Says,
    /// Whether it tells of owners.
    has_owners: bool,
}

impl Job {
    const fn new(ticket: Ticket) -> Self {
        Self {
            ticket,
            number: 0,
            names: Vec::new(),
            taken: None,
            outcome: None,
            losses: 0,
            on: None,
            says: Says::Nothing,
            has_owners: false,
        }
    }

    /// It took so long.
    fn note(&self, took: Duration) {
        if let (Some(on), Says::Pace(kind, syncs)) = (&self.on, self.says) {
            on.note(kind, took, syncs);
        }
    }
}

/// What an operation says of the file system that it is on.
#[derive(Debug, Clone, Copy)]
enum Says {
    Nothing,
    /// How long this kind of call takes, while these sync.
    Pace(Kind, Syncs),
    /// That somebody syncs.
    Sync,
}

/// An outcome in which owners have no name.
#[derive(Debug)]
struct Nameless {
    completion: Completion,
    /// Those whose names are looked for next.
    asked: Unknown,
    /// All others.
    rest: Unknown,
}

/// An operation that waits for its turn.
struct Queued {
    job: Job,
    operation: Operation,
    who: Who,
    /// When it is tried again, if another process has one of its names, and how long that is from the last time.
    again: Option<(Instant, Duration)>,
}

impl Offload {
    /// A back end whose helpers are started by `start`. With an `exclusion` other processes may work on the same files.
    #[must_use]
    pub fn new(options: Options, start: Start, exclusion: Option<Exclusion>) -> Self {
        let inline = Inline::new(options).excluding(exclusion.clone());
        let (queue, nameless, completed) = (Queue::new(), VecDeque::new(), VecDeque::new());
        let (helpers, file_systems) = (Helpers::new(start), FileSystems::default());
        Self { inline, exclusion, helpers, file_systems, queue, nameless, completed, again: None }
    }

    #[cfg(test)]
    pub(super) fn helpers(&mut self) -> &mut Helpers<impl Sized> {
        &mut self.helpers
    }

    #[cfg(test)]
    pub(super) const fn take_all_for_slow(&mut self) {
        self.file_systems.are_slow = true;
    }

    /// Begins what waits, as far as there is somebody to do it, in the order in which it came.
    fn dispatch(&mut self) {
        self.begin_operations();
        self.look_for_names();
    }

    /// The file system that an operation is on.
    fn file_system(&self, operation: &Operation) -> Option<Rc<FileSystem>> {
        match operation {
            Operation::Read { file, .. }
            | Operation::Write { file, .. }
            | Operation::Sync { file }
            | Operation::Close { file }
            | Operation::SetTimes { file, .. }
            | Operation::SetOwner { file, .. } => file.1.clone(),
            Operation::Stat { at, .. }
            | Operation::StatTarget { at, .. }
            | Operation::OpenRead { at }
            | Operation::OpenWrite { at, .. }
            | Operation::MakeDirectory { at, .. }
            | Operation::SyncDirectory { at }
            | Operation::RemoveFile { at }
            | Operation::RemoveOwn { at, .. }
            | Operation::RemoveDirectory { at }
            | Operation::SymbolicLink { at, .. }
            | Operation::HardLink { at, .. }
            | Operation::Rename { to: at, .. }
            | Operation::List { at, .. }
            | Operation::RemoveTree { at } => self.file_systems.of(&at.root),
            Operation::ListMore { listing } => self.file_systems.of(&listing.parts().0.root),
            Operation::RemoveMore { removal } => self.file_systems.of(&removal.at().root),
            Operation::Lock { .. } | Operation::Unlock { .. } | Operation::Claim { .. } => None,
        }
    }

    fn begin_operations(&mut self) {
        self.again = None;
        let (mut index, mut is_busy) = (0, false);
        while let Some(queued) = self.queue.ready(index) {
            let by_helper = queued.who == Who::Helpers;
            // One that does not answer leaves some to the others.
            let has_share = queued.job.on.as_ref().is_none_or(|on| on.helpers() < SHARE);
            if by_helper && (is_busy || !has_share) {
                index += 1;
                continue;
            }
            match self.keep_others_out(index) {
                Ok(true) => {}
                Ok(false) => {
                    index += 1;
                    continue;
                }
                Err(errno) => {
                    if let Some(Queued { job, .. }) = self.queue.take(index) {
                        self.finish(job, Err(errno.into()));
                    }
                    continue;
                }
            }
            let free = if by_helper { self.helpers.free() } else { Free::Nobody };
            if matches!(free, Free::Busy) {
                is_busy = true;
                continue;
            }
            let Some(Queued { job, operation, .. }) = self.queue.take(index) else { return };
            match free {
                Free::Helper(key) => {
                    if !self.give_to_helper(key, job, operation) {
                        index = 0;
                    }
                }
                Free::Busy | Free::Nobody => self.run_here(job, operation),
            }
        }
    }

    /// False when another helper has to be found, and the operation is the first in the queue.
    fn give_to_helper(&mut self, key: usize, job: Job, operation: Operation) -> bool {
        let along = self.exclusion.as_ref().filter(|_| job.taken.is_some()).map(AsFd::as_fd);
        let (again, on) = (job.losses > 0, job.on.clone());
        match self.helpers.begin(key, job, operation, again, along) {
            Ok(()) => {
                if let Some(on) = on {
                    on.takes_helper();
                }
            }
            Err((job, operation, Refused::Ended)) if job.losses < ATTEMPTS => {
                self.give_back(Job { losses: job.losses + 1, ..job }, operation);
                return false;
            }
            Err((job, operation, _)) => self.run_here(job, operation),
        }
        true
    }

    /// Has a helper begin what somebody else has begun, before all others.
    fn give_back(&mut self, job: Job, operation: Operation) {
        self.queue.put_back(Queued { job, operation, who: Who::Helpers, again: None });
    }

    /// Keeps other processes from the names of an operation in the queue. False when it has to wait for one that
    /// works on them.
    fn keep_others_out(&mut self, index: usize) -> rustix::io::Result<bool> {
        let (Some(exclusion), Some(queued)) = (&self.exclusion, self.queue.ready(index)) else { return Ok(true) };
        if queued.job.names.is_empty() || queued.job.taken.is_some() {
            return Ok(true);
        }
        let now = Instant::now();
        let at = match queued.again {
            Some((at, _)) if now < at => at,
            again => {
                queued.job.taken = exclusion.try_take(&queued.job.names)?;
                if queued.job.taken.is_some() {
                    return Ok(true);
                }
                let pause = again.map_or(PAUSE.0, |(_, pause)| PAUSE.1.min(pause * 2));
                queued.again = Some((now + pause, pause));
                now + pause
            }
        };
        self.again = Some(self.again.map_or(at, |other| other.min(at)));
        Ok(false)
    }

    /// An operation has ended: gives up its names. Those of this process that wait for one leave it to the
    /// others for a moment, who could not get hold of it otherwise.
    fn finish(&mut self, job: Job, completion: Completion) {
        let Job { ticket, number, names, taken, on, says, .. } = job;
        if let (Some(on), Says::Sync) = (&on, says) {
            on.ends_sync();
        }
        self.hand_back(ticket, completion, on);
        self.give_up(number, &names, taken);
    }

    fn give_up(&mut self, number: u64, names: &[String], taken: Option<Taken>) {
        let again = taken.as_ref().map(|_| (Instant::now() + PAUSE.0, PAUSE.0));
        self.queue.give_up(number, names, |queued| queued.again = again);
        drop(taken);
    }

    fn take(&mut self, mut job: Job, ended: Ended) {
        match (ended, job.outcome.take()) {
            (Ended::Named(found), Some(outcome)) => self.take_names(job.ticket, *outcome, found),
            // Whoever looked for names is lost, and with it nothing else.
            (_, Some(outcome)) => self.completed.push_back((job.ticket, outcome.completion)),
            (Ended::Answered(mut completion, took), None) => {
                job.note(took);
                if job.has_owners {
                    self.name_owners(&mut completion);
                }
                self.finish(job, completion);
            }
            (Ended::Left(operation), None) => self.run_here(job, operation),
            (Ended::Lost(Some(operation)), None) if job.losses < ATTEMPTS => {
                job.losses += 1;
                self.give_back(job, operation);
            }
            (Ended::Lost(_) | Ended::Named(_), None) => self.finish(job, Err(Failure::from(Errno::IO))),
        }
    }

    fn run_here(&mut self, job: Job, operation: Operation) {
        let begun = Instant::now();
        let completion = self.inline.run(operation);
        job.note(begun.elapsed());
        self.finish(job, completion);
    }

    /// Hands back what an operation on this file system came to, or has names put in first.
    fn hand_back(&mut self, ticket: Ticket, mut completion: Completion, on: Option<Rc<FileSystem>>) {
        if let Ok(Outcome::File(file)) = &mut completion {
            file.1 = on;
        }
        let unknown = self.inline.names().take_unknown();
        // A failure to change an owner tells of owners too, but names are only found for what clients record.
        if unknown.is_empty() || !matches!(completion, Ok(Outcome::Metadata(_) | Outcome::Entries(..))) {
            self.completed.push_back((ticket, completion));
        } else {
            self.want_names(ticket, completion, unknown);
        }
    }

    /// Puts the names of owners into what a helper found, which has their numbers only.
    fn name_owners(&mut self, completion: &mut Completion) {
        let names = self.inline.names();
        for_each(completion, |metadata| {
            (metadata.user, metadata.group) = (names.user(metadata.uid), names.group(metadata.gid));
        });
    }

    /// Has the names of these owners looked for at the next [`Self::dispatch`].
    fn want_names(&mut self, ticket: Ticket, completion: Completion, mut rest: Unknown) {
        let asked = rest.take(getent::BATCH);
        let outcome = Some(Box::new(Nameless { completion, asked, rest }));
        self.nameless.push_back(Job { outcome, ..Job::new(ticket) });
    }

    /// Has helpers look for names; an outcome keeps lacking them where there is none.
    fn look_for_names(&mut self) {
        while let Some(Job { outcome: Some(outcome), .. }) = self.nameless.front() {
            let asked = outcome.asked.clone();
            let free = self.helpers.free();
            if matches!(free, Free::Busy) {
                return;
            }
            let Some(job) = self.nameless.pop_front() else { return };
            let left = match free {
                Free::Helper(key) => self.helpers.ask(key, job, &asked).err(),
                Free::Busy | Free::Nobody => Some(job),
            };
            if let Some(Job { ticket, outcome: Some(outcome), .. }) = left {
                self.completed.push_back((ticket, outcome.completion));
            }
        }
    }

    /// Puts in the names that were found, or has those of the rest looked for.
    fn take_names(&mut self, ticket: Ticket, outcome: Nameless, found: Found) {
        let Nameless { mut completion, asked, rest } = outcome;
        let names = self.inline.names();
        let news = names.learn(&asked, found);
        for (what, numbers) in [("user", &news.users), ("group", &news.groups)] {
            for number in numbers {
                log::warn(format_args!(
                    "{what} {number} has no name on this host, so clients record none for what belongs to it"
                ));
            }
        }
        for_each(&mut completion, |metadata| {
            if asked.users.contains(&metadata.uid) {
                metadata.user = names.user(metadata.uid);
            }
            if asked.groups.contains(&metadata.gid) {
                metadata.group = names.group(metadata.gid);
            }
        });
        if rest.is_empty() {
            self.completed.push_back((ticket, completion));
        } else {
            self.want_names(ticket, completion, rest);
        }
    }
}

impl Disk for Offload {
    fn submit(&mut self, ticket: Ticket, operation: Operation) {
        let on = self.file_system(&operation);
        let who = who(&operation, on.as_deref());
        // With nobody else at work none can be in the way.
        let is_alone = who == Who::Server && self.exclusion.is_none() && self.queue.is_idle();
        let names = if is_alone { Vec::new() } else { names(&operation) };
        let says = match (&operation, &on) {
            (Operation::Sync { .. } | Operation::SyncDirectory { .. }, Some(on)) => {
                on.begins_sync();
                Says::Sync
            }
            // That the disk has to be asked says nothing.
            (Operation::Read { .. }, Some(on)) if who == Who::Helpers && !on.is_slow(Kind::Data) => Says::Nothing,
            (Operation::RemoveTree { .. } | Operation::RemoveMore { .. }, _) | (_, None) => Says::Nothing,
            (operation, Some(on)) => Says::Pace(kind_of(operation), on.syncs()),
        };
        let job = Job { on, says, has_owners: tells_of_owners(&operation), ..Job::new(ticket) };
        if who == Who::Server && names.is_empty() {
            self.run_here(job, operation);
            return self.look_for_names();
        }
        let place = self.queue.enter(&names);
        let job = Job { number: place.number, names, ..job };
        self.queue.add(place, Queued { job, operation, who, again: None });
        self.dispatch();
    }

    fn complete(&mut self) -> Option<(Ticket, Completion)> {
        if self.again.is_some_and(|again| again <= Instant::now()) {
            self.dispatch();
        }
        self.completed.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        self.again
    }

    fn outstanding(&self) -> usize {
        self.completed.len() + self.queue.len() + self.nameless.len() + self.helpers.under_way().count()
    }

    fn file_systems(&self) -> Vec<FileSystemView> {
        self.file_systems.view()
    }

    fn watch(&mut self, registry: Registry, first: usize) {
        self.helpers.watch(registry, first);
    }

    fn ready(&mut self, index: usize) {
        if let Some((job, ended)) = self.helpers.ready(index) {
            if let Some(on) = &job.on {
                on.gives_helper_back();
            }
            self.take(job, ended);
        }
        self.dispatch();
    }
}

impl Drop for Offload {
    fn drop(&mut self) {
        let is_at_work = self.helpers.under_way().any(|job| job.taken.is_some());
        if let Some(exclusion) = self.exclusion.as_ref().filter(|_| is_at_work) {
            exclusion.abandon();
        }
    }
}

/// Does something with all that a completion tells of entries.
fn for_each(completion: &mut Completion, mut act: impl FnMut(&mut Metadata)) {
    match completion {
        Ok(Outcome::Metadata(metadata)) => act(metadata),
        Ok(Outcome::Entries(entries, _)) => entries.iter_mut().for_each(|entry| act(&mut entry.metadata)),
        _ => {}
    }
}

/// Whether owners are wanted of what it looks at.
fn tells_of_owners(operation: &Operation) -> bool {
    match operation {
        Operation::Stat { level, .. } | Operation::StatTarget { level, .. } | Operation::List { level, .. } => {
            matches!(level, Level::Detail)
        }
        Operation::ListMore { listing } => matches!(listing.parts().1, Level::Detail),
        _ => false,
    }
}

/// The absolute names that an operation gives, takes or replaces. Two that share one run one after the
/// other: each looks what has the name and then acts on it.
fn names(operation: &Operation) -> Vec<String> {
    let names = |places: &[&Location]| places.iter().map(ToString::to_string).collect();
    match operation {
        Operation::OpenWrite { at, .. }
        | Operation::RemoveFile { at }
        | Operation::RemoveOwn { at, .. }
        | Operation::SymbolicLink { at, .. }
        | Operation::Lock { at, .. } => names(&[at]),
        Operation::Unlock { lock } => names(&[lock.location()]),
        Operation::Rename { from, to, .. } => names(&[from, to]),
        Operation::HardLink { target, at } => names(&[target, at]),
        _ => Vec::new(),
    }
}
