//! The back end of the server: what may wait for the disk is done by helper processes, so that no
//! session waits for another one's.
//!
//! A helper is this program once more, started when there is something to do for it and ended when
//! there was nothing for a minute. It gets an operation over a socket, with the descriptors that it
//! needs, and runs it as [`Inline`] does. Each does one at a time; what finds none that is free waits in
//! a queue. Two operations on one name wait for each other, because each looks at what has the name
//! before it acts on it.
//!
//! Here, in the server's own process, is done what does not wait: data go to the page cache, and are read
//! from it. Data that are not there are read by a helper first, and come from the page cache after that.
//! Listings and looks at single entries are cheap too; on a disk that is slow to find an inode they are
//! what others still wait for. Where an owner is in no file, a helper finds the name before the outcome is
//! handed back.

mod link;
mod message;
pub mod worker;

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::{Errno, ReadWriteFlags, preadv2, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use slab::Slab;

use self::message::{Reply, decode_reply, encode, encode_names, encode_warm, is_for_helpers, names};
use super::inline::{Inline, Options};
use super::names::{Found, Unknown};
use super::{Completion, Disk, Failure, Location, Metadata, Operation, Outcome, Ticket, getent};
use crate::observe::log;

/// The word that makes this program a helper.
pub const COMMAND: &str = "disk-helper";
/// Helpers at a time. Each is a process that waits for the disk; more of them than clients that sync
/// at once gain nothing.
const HELPERS: usize = 16;
/// The tokens from here on tell of processes that have ended.
const LEAVING: usize = HELPERS;

/// How a helper is started that serves the other end of a socket; the process, unless it is none.
pub type Start = fn(OwnedFd) -> io::Result<Option<Child>>;

/// The back end.
pub struct Helpers {
    inline: Inline,
    start: Start,
    processes: Slab<Helper>,
    /// Those that were told to end and may not have done so, and what tells when they have, where the kernel
    /// knows that (Linux 5.3).
    leaving: Slab<(Child, Option<OwnedFd>)>,
    queue: VecDeque<Job>,
    completed: VecDeque<(Ticket, Completion)>,
    watched: Option<(Registry, usize)>,
    buffer: Vec<u8>,
    /// Starting a helper has failed, which is told once.
    told: bool,
}

/// A helper process.
struct Helper {
    socket: OwnedFd,
    process: Option<Child>,
    running: Option<Running>,
}

/// Something that waits for a helper.
struct Job {
    ticket: Ticket,
    wanted: Wanted,
    names: Vec<String>,
}

enum Wanted {
    Operation(Operation),
    /// The names of owners, for an outcome that lacks them.
    Names(Box<Nameless>),
}

/// An outcome in which owners have no name, those of whom a helper is asked next, and all others.
struct Nameless {
    completion: Completion,
    asked: Unknown,
    rest: Unknown,
}

/// What a helper does.
struct Running {
    ticket: Ticket,
    names: Vec<String>,
    then: Then,
}

/// What is to be done here when the helper is ready.
enum Then {
    Nothing,
    /// Reading what it brought into the page cache.
    Read(Operation),
    /// Going on with the removal of this.
    Removal(Location),
    /// Giving up the handle of this root, if it was removed.
    Root(Location),
    /// Putting the names in.
    Names(Box<Nameless>),
}

impl Helpers {
    /// A back end whose helpers are started by `start`.
    #[must_use]
    pub fn new(options: Options, start: Start) -> Self {
        Self {
            inline: Inline::new(options),
            start,
            processes: Slab::new(),
            leaving: Slab::new(),
            queue: VecDeque::new(),
            completed: VecDeque::new(),
            watched: None,
            buffer: vec![0; link::MESSAGE],
            told: false,
        }
    }

    #[cfg(test)]
    pub(super) fn ending(&self) -> usize {
        self.leaving.len()
    }

    #[cfg(test)]
    pub(super) fn start_with(&mut self, start: Start) {
        self.start = start;
    }

    /// Gives what waits to helpers, as far as there are any, in the order in which it came.
    fn dispatch(&mut self) {
        let mut index = 0;
        while let Some(job) = self.queue.get(index) {
            let earlier = self.queue.iter().take(index).map(|job| &job.names);
            let running = self.processes.iter().filter_map(|(_, helper)| helper.running.as_ref());
            if running.map(|running| &running.names).chain(earlier).any(|names| share(names, &job.names)) {
                index += 1;
                continue;
            }
            let Some(key) = self.free_helper() else { return };
            let Some(job) = self.queue.remove(index) else { return };
            match key {
                Some(key) => self.hand_over(key, job),
                None => self.go_on_here(job.ticket, job.wanted),
            }
        }
    }

    /// A helper with nothing to do; `None` when all have, and nobody when none can be started.
    #[allow(clippy::option_option, reason = "documented above; the caller matches both at once")]
    fn free_helper(&mut self) -> Option<Option<usize>> {
        if let Some((key, _)) = self.processes.iter().find(|(_, helper)| helper.running.is_none()) {
            return Some(Some(key));
        }
        if self.processes.len() >= HELPERS {
            return None;
        }
        self.reap();
        match self.start_helper() {
            Ok(key) => Some(Some(key)),
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    log::warn(format_args!(
                        "unable to start a helper for the disk: {error}; clients wait for each other's disk\n\
                         HINT: the limit of processes (LimitNPROC=, TasksMax=) has to allow {HELPERS} more."
                    ));
                }
                // Those that run will be free some time.
                if self.processes.is_empty() { Some(None) } else { None }
            }
        }
    }

    fn start_helper(&mut self) -> io::Result<usize> {
        let (ours, theirs) = link::pair()?;
        let process = (self.start)(theirs)?;
        let entry = self.processes.vacant_entry();
        if let Some((registry, first)) = &self.watched {
            registry.register(&mut SourceFd(&ours.as_raw_fd()), Token(first + entry.key()), Interest::READABLE)?;
        }
        let key = entry.key();
        entry.insert(Helper { socket: ours, process, running: None });
        Ok(key)
    }

    fn hand_over(&mut self, key: usize, job: Job) {
        let Job { ticket, wanted, names } = job;
        let operation = match wanted {
            Wanted::Operation(operation) => operation,
            Wanted::Names(nameless) => return self.ask_for_names(key, ticket, nameless),
        };
        let (mut handle, mut descriptors) = (None, Vec::new());
        let message = match &operation {
            Operation::Read { file, length, offset, .. } => {
                descriptors.push(file.0.as_fd());
                encode_warm(*length, *offset)
            }
            operation => encode(operation, &mut handle, &mut descriptors),
        };
        let Some(helper) = self.processes.get_mut(key) else { return };
        let Some(message) = message else {
            drop(descriptors);
            return self.run_here(ticket, operation);
        };
        if let Err(errno) = link::send(helper.socket.as_fd(), &message, &descriptors) {
            drop(descriptors);
            // It ended before it was asked, so that nothing of this is done yet.
            if matches!(errno, Errno::PIPE | Errno::CONNRESET) {
                self.end(key);
            }
            return self.run_here(ticket, operation);
        }
        drop(descriptors);
        let then = match operation {
            operation @ Operation::Read { .. } => Then::Read(operation),
            Operation::RemoveTree { at } => Then::Removal(at),
            Operation::RemoveMore { removal } => Then::Removal(removal.into_location()),
            Operation::RemoveDirectory { at } if at.path.is_root() => Then::Root(at),
            // Its files are closed here: the helper's descriptor is the last one, and closing that one
            // may take long where a large file goes with it.
            _ => Then::Nothing,
        };
        helper.running = Some(Running { ticket, names, then });
    }

    fn run_here(&mut self, ticket: Ticket, operation: Operation) {
        let completion = self.inline.run(operation);
        let unknown = self.inline.names().take_unknown();
        // A failure to change an owner tells of owners too, but names are only found for what clients record.
        if unknown.is_empty() || !matches!(completion, Ok(Outcome::Metadata(_) | Outcome::Entries(..))) {
            self.completed.push_back((ticket, completion));
        } else {
            self.want_names(ticket, completion, unknown);
        }
    }

    /// Does without a helper what one was wanted for.
    fn go_on_here(&mut self, ticket: Ticket, wanted: Wanted) {
        match wanted {
            Wanted::Operation(operation) => self.run_here(ticket, operation),
            Wanted::Names(nameless) => self.completed.push_back((ticket, nameless.completion)),
        }
    }

    /// Has a helper asked at the next [`Self::dispatch`].
    fn want_names(&mut self, ticket: Ticket, completion: Completion, mut rest: Unknown) {
        let asked = rest.take(getent::BATCH);
        let wanted = Wanted::Names(Box::new(Nameless { completion, asked, rest }));
        self.queue.push_back(Job { ticket, wanted, names: Vec::new() });
    }

    fn ask_for_names(&mut self, key: usize, ticket: Ticket, nameless: Box<Nameless>) {
        let Some(helper) = self.processes.get_mut(key) else { return };
        let sent = encode_names(&nameless.asked).map(|message| link::send(helper.socket.as_fd(), &message, &[]));
        if !matches!(sent, Some(Ok(()))) {
            if matches!(sent, Some(Err(Errno::PIPE | Errno::CONNRESET))) {
                self.end(key);
            }
            return self.completed.push_back((ticket, nameless.completion));
        }
        helper.running = Some(Running { ticket, names: Vec::new(), then: Then::Names(nameless) });
    }

    /// Puts in the names that a helper found, or asks for those of the rest.
    fn take_names(&mut self, ticket: Ticket, nameless: Nameless, found: Found) {
        let Nameless { mut completion, asked, rest } = nameless;
        let names = self.inline.names();
        let news = names.learn(&asked, found);
        for (what, numbers) in [("user", &news.users), ("group", &news.groups)] {
            for number in numbers {
                log::warn(format_args!(
                    "{what} {number} has no name on this host, so clients record none for what belongs to it"
                ));
            }
        }
        let mut name = |metadata: &mut Metadata| {
            if asked.users.contains(&metadata.uid) {
                metadata.user = names.user(metadata.uid);
            }
            if asked.groups.contains(&metadata.gid) {
                metadata.group = names.group(metadata.gid);
            }
        };
        match &mut completion {
            Ok(Outcome::Metadata(metadata)) => name(metadata),
            Ok(Outcome::Entries(entries, _)) => entries.iter_mut().for_each(|entry| name(&mut entry.metadata)),
            _ => {}
        }
        // What was asked for a moment ago is known, whether it has a name or not.
        names.take_unknown();
        if rest.is_empty() {
            self.completed.push_back((ticket, completion));
        } else {
            self.want_names(ticket, completion, rest);
        }
    }

    /// Takes what a helper says.
    fn hear(&mut self, key: usize) {
        let Some(helper) = self.processes.get_mut(key) else { return };
        let mut descriptors = Vec::new();
        let message = match link::receive(helper.socket.as_fd(), &mut self.buffer, &mut descriptors) {
            Ok(Some(message)) => message,
            Err(Errno::AGAIN) => return,
            Ok(None) | Err(_) => return self.lose(key, "it has ended"),
        };
        let Ok(reply) = postcard::from_bytes(message) else { return self.lose(key, "it makes no sense") };
        if matches!(reply, Reply::Leaving) {
            if helper.running.is_none() {
                self.end(key);
            }
            return;
        }
        let Some(Running { ticket, then, .. }) = helper.running.take() else { return };
        let (then, reply) = match (then, reply) {
            (Then::Names(nameless), Reply::Names(found)) => return self.take_names(ticket, *nameless, found),
            (then @ Then::Names(_), _) => {
                helper.running = Some(Running { ticket, names: Vec::new(), then });
                return self.lose(key, "it makes no sense");
            }
            others => others,
        };
        let at = match &then {
            Then::Removal(at) => Some(at.clone()),
            _ => None,
        };
        let Some(completion) = decode_reply(reply, descriptors.pop(), at) else {
            helper.running = Some(Running { ticket, names: Vec::new(), then });
            return self.lose(key, "it makes no sense");
        };
        match then {
            Then::Read(operation) => return self.run_here(ticket, operation),
            // Its own handle of the root has seen it vanish, ours has not.
            Then::Root(at) | Then::Removal(at)
                if at.path.is_root() && matches!(completion, Ok(Outcome::Done | Outcome::Removed(None))) =>
            {
                at.root.forget();
            }
            _ => {}
        }
        self.completed.push_back((ticket, completion));
    }

    /// Gives up a helper that is not there any more, and fails what it was doing: nobody knows how far it
    /// got.
    fn lose(&mut self, key: usize, why: &str) {
        if let Some(running) = self.processes.get_mut(key).and_then(|helper| helper.running.take()) {
            log::warn(format_args!("a helper for the disk is lost: {why}; what it was doing has failed"));
            let completion = match running.then {
                Then::Names(nameless) => nameless.completion,
                _ => Err(Failure::from(Errno::IO)),
            };
            self.completed.push_back((running.ticket, completion));
        }
        self.end(key);
    }

    fn end(&mut self, key: usize) {
        let Some(helper) = self.processes.try_remove(key) else { return };
        // Closing the socket, which the poll forgets with it, tells the process to end.
        drop(helper.socket);
        let Some(process) = helper.process else { return };
        let exit = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
        let exit = exit.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let key = self.leaving.insert((process, exit));
        if let (Some((registry, first)), Some((_, Some(exit)))) = (&self.watched, self.leaving.get(key)) {
            let token = Token(first + LEAVING + key);
            // Without it the process is reaped when the next helper starts.
            let _ = registry.register(&mut SourceFd(&exit.as_raw_fd()), token, Interest::READABLE);
        }
    }

    /// Takes note of processes that have ended, which the system keeps for that.
    fn reap(&mut self) {
        self.leaving.retain(|_, (process, _)| matches!(process.try_wait(), Ok(None)));
    }
}

impl Disk for Helpers {
    fn submit(&mut self, ticket: Ticket, operation: Operation) {
        let wanted = match &operation {
            Operation::Read { file, length, offset, .. } => is_cold(file.0.as_fd(), *length, *offset),
            operation => is_for_helpers(operation),
        };
        if wanted {
            let names = names(&operation);
            self.queue.push_back(Job { ticket, wanted: Wanted::Operation(operation), names });
        } else {
            self.run_here(ticket, operation);
        }
        self.dispatch();
    }

    fn complete(&mut self) -> Option<(Ticket, Completion)> {
        self.completed.pop_front()
    }

    fn outstanding(&self) -> usize {
        let running = self.processes.iter().filter(|(_, helper)| helper.running.is_some()).count();
        self.completed.len() + self.queue.len() + running
    }

    fn watch(&mut self, registry: Registry, first: usize) {
        self.watched = Some((registry, first));
    }

    fn ready(&mut self, index: usize) {
        if index >= LEAVING {
            return self.reap();
        }
        self.hear(index);
        self.dispatch();
    }
}

/// Starts this program as a helper.
///
/// # Errors
///
/// What the system says.
pub fn start_process(socket: OwnedFd) -> io::Result<Option<Child>> {
    let child = Command::new("/proc/self/exe")
        .arg0("repohostd")
        .arg(COMMAND)
        // It needs nothing of what the service manager and the administrator told the server.
        .env_clear()
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .spawn()?;
    Ok(Some(child))
}

fn share(one: &[String], other: &[String]) -> bool {
    one.iter().any(|name| other.contains(name))
}

/// Whether reading this would wait for the disk. Only its first and its last byte are looked at: what is
/// read ahead is read in order.
fn is_cold(file: BorrowedFd<'_>, length: usize, offset: u64) -> bool {
    let last = offset.saturating_add(length.saturating_sub(1) as u64);
    [offset, last].iter().any(|offset| {
        let mut byte = [0];
        let read = retry_on_intr(|| preadv2(file, &mut [IoSliceMut::new(&mut byte)], *offset, ReadWriteFlags::NOWAIT));
        // A file system that cannot tell, as those of a network, is taken to be slow.
        matches!(read, Err(Errno::AGAIN | Errno::OPNOTSUPP))
    })
}
