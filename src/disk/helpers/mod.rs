//! Helper processes, which wait for the disk in place of the server.
//!
//! A helper is this program once more, started when there is something to do for it and ended when
//! there was nothing for a minute. It gets an operation over a socket, with the descriptors that it
//! needs, and runs it as [`Inline`](super::inline::Inline) does. Each does one at a time. Data that are not
//! in the page cache are read by a helper first, and by the server after that. Where the server waits for no data at
//! all they go through memory that it shares with the helper, as much as one operation has.

mod message;
pub mod worker;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Child, Stdio};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use slab::Slab;

use self::message::{Answer, Reply, decode_reply, encode, encode_names, encode_warm, needs_memory};
use super::calls::write_at;
use super::names::{Found, Unknown};
use super::{Completion, Location, Operation, Outcome};
use crate::observe::log;
use crate::process::{self, link};

pub(super) use message::is_for_helpers;

/// The word that makes this program a helper.
pub const COMMAND: &str = "disk-helper";
/// Bytes of the longest message: a root, two paths and what frames them.
const MESSAGE: usize = 16 * 1024;
/// Bytes of data that are kept for the next operation; more go back to the system.
const KEPT: usize = 1 << 20;
/// Helpers at a time. Each is a process that waits for the disk; more of them than clients that sync
/// at once gain nothing.
pub const HELPERS: usize = 16;
/// Those of them that one file system may have, so that one that does not answer leaves some to the others.
pub(super) const SHARE: usize = 12;
/// The tokens from here on tell of processes that have ended.
const LEAVING: usize = HELPERS;

/// How a helper is started that serves the other end of a socket; the process, unless it is none.
pub type Start = fn(OwnedFd) -> io::Result<Option<Child>>;

/// The helpers, with whatever `T` belongs to what each does.
pub(super) struct Helpers<T> {
    start: Start,
    processes: Slab<Helper<T>>,
    /// Those that were told to end and may not have done so, and what tells when they have, where the kernel
    /// knows that (Linux 5.3).
    leaving: Slab<(Child, Option<OwnedFd>)>,
    watched: Option<(Registry, usize)>,
    buffer: Vec<u8>,
    /// Starting a helper has failed, which is told once.
    told: bool,
}

/// Who can do something now.
#[derive(Debug, Clone, Copy)]
pub(super) enum Free {
    /// This one.
    Helper(usize),
    /// All have something to do.
    Busy,
    /// There is none, and none can be started.
    Nobody,
}

/// A helper process.
struct Helper<T> {
    socket: OwnedFd,
    process: Option<Child>,
    running: Option<(T, Running)>,
    /// What is shared with it, once that was needed.
    memory: Option<OwnedFd>,
}

/// What a helper is doing.
enum Running {
    /// This, which another one can do again from its beginning. It was done before by one that is lost, if that is
    /// true.
    Operation(Operation, bool),
    /// What nobody can do again: how far it got is not known.
    Once,
    /// Finding names that were asked for.
    Names,
}

/// What has become of something that a helper was to do.
#[derive(Debug)]
pub(super) enum Ended {
    /// It has done it, in so long.
    Answered(Completion, Duration),
    /// It leaves it to the server itself, from its beginning.
    Left(Operation),
    /// It is lost. What it was doing can be done again, if that is here.
    Lost(Option<Operation>),
    /// Names of owners were found.
    Named(Found),
}

/// Why a helper does not do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It has ended before it was asked, so that nothing is done yet.
    Ended,
    /// No helper can do it now.
    Unable,
}

impl<T> Helpers<T> {
    pub(super) fn new(start: Start) -> Self {
        Self {
            start,
            processes: Slab::new(),
            leaving: Slab::new(),
            watched: None,
            buffer: vec![0; MESSAGE],
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

    /// Wakes the poll of this registry, with tokens from `first` on.
    pub(super) fn watch(&mut self, registry: Registry, first: usize) {
        self.watched = Some((registry, first));
    }

    /// What belongs to the operations under way.
    pub(super) fn under_way(&self) -> impl Iterator<Item = &T> {
        self.processes.iter().filter_map(|(_, helper)| helper.running.as_ref().map(|(tag, _)| tag))
    }

    /// A helper with nothing to do, started if need be.
    pub(super) fn free(&mut self) -> Free {
        if let Some((key, _)) = self.processes.iter().find(|(_, helper)| helper.running.is_none()) {
            return Free::Helper(key);
        }
        if self.processes.len() >= HELPERS {
            return Free::Busy;
        }
        self.reap();
        match self.start_helper() {
            Ok(key) => Free::Helper(key),
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    log::warn(format_args!(
                        "unable to start a helper for the disk: {error}; clients wait for each other's disk\n\
                         HINT: the limit of processes (LimitNPROC=, TasksMax=) has to allow {HELPERS} more."
                    ));
                }
                // Those that run will be free some time.
                if self.processes.is_empty() { Free::Nobody } else { Free::Busy }
            }
        }
    }

    fn start_helper(&mut self) -> io::Result<usize> {
        let (ours, theirs) = link::pair()?;
        let entry = self.processes.vacant_entry();
        // First, since nobody would wait for a process whose socket cannot be watched.
        if let Some((registry, first)) = &self.watched {
            registry.register(&mut SourceFd(&ours.as_raw_fd()), Token(first + entry.key()), Interest::READABLE)?;
        }
        let process = (self.start)(theirs)?;
        let key = entry.key();
        entry.insert(Helper { socket: ours, process, running: None, memory: None });
        Ok(key)
    }

    /// Has the free helper `key` do something, and keep the descriptor `along` open until that is done; `again` if
    /// a helper that is lost may have done it. Gives it back, untouched, if that cannot be.
    pub(super) fn begin(
        &mut self,
        key: usize,
        tag: T,
        operation: Operation,
        again: bool,
        along: Option<BorrowedFd<'_>>,
    ) -> Result<(), (T, Operation, Refused)> {
        let Some(helper) = self.processes.get_mut(key) else { return Err((tag, operation, Refused::Unable)) };
        let is_warmed = matches!(&operation, Operation::Read { file, .. } if !file.has_slow_writes());
        let memory = match &mut helper.memory {
            _ if is_warmed || !needs_memory(&operation) => Ok(None),
            memory => share(memory, &operation).map(Some),
        };
        let (mut handle, mut descriptors) = (None, Vec::new());
        let message = match (&operation, memory) {
            (_, Err(_)) => None,
            (Operation::Read { file, length, offset, .. }, Ok(None)) => {
                descriptors.push(file.0.as_fd());
                encode_warm(*length, *offset)
            }
            (operation, Ok(memory)) => encode(operation, &mut handle, memory, &mut descriptors),
        };
        descriptors.extend(along);
        let sent = message.map(|message| link::send(helper.socket.as_fd(), &message, &descriptors));
        drop(descriptors);
        match sent {
            Some(Ok(())) => {}
            Some(Err(Errno::PIPE | Errno::CONNRESET)) => {
                self.end(key);
                return Err((tag, operation, Refused::Ended));
            }
            _ => return Err((tag, operation, Refused::Unable)),
        }
        let running = if can_be_done_again(&operation) { Running::Operation(operation, again) } else { Running::Once };
        helper.running = Some((tag, running));
        Ok(())
    }

    /// Has the free helper `key` find names. Gives it back if that cannot be.
    pub(super) fn ask(&mut self, key: usize, tag: T, unknown: &Unknown) -> Result<(), T> {
        let (Some(message), Some(helper)) = (encode_names(unknown), self.processes.get_mut(key)) else {
            return Err(tag);
        };
        if let Err(errno) = link::send(helper.socket.as_fd(), &message, &[]) {
            if matches!(errno, Errno::PIPE | Errno::CONNRESET) {
                self.end(key);
            }
            return Err(tag);
        }
        helper.running = Some((tag, Running::Names));
        Ok(())
    }

    /// The poll was woken with the token `first` + `index`.
    pub(super) fn ready(&mut self, index: usize) -> Option<(T, Ended)> {
        if index >= LEAVING {
            self.reap();
            return None;
        }
        self.hear(index)
    }

    /// Takes what a helper says.
    fn hear(&mut self, key: usize) -> Option<(T, Ended)> {
        let helper = self.processes.get_mut(key)?;
        let mut descriptors = Vec::new();
        let message = match link::receive(helper.socket.as_fd(), &mut self.buffer, &mut descriptors) {
            Ok(Some(message)) => message,
            Err(Errno::AGAIN) => return None,
            Ok(None) | Err(_) => return self.lose(key, "it has ended"),
        };
        let Ok(Answer { reply, took }) = postcard::from_bytes(message) else {
            return self.lose(key, "it makes no sense");
        };
        if matches!(reply, Reply::Leaving) {
            if helper.running.is_none() {
                self.end(key);
            }
            return None;
        }
        let (tag, mut running) = helper.running.take()?;
        let descriptor = descriptors.pop();
        let memory = helper.memory.as_ref().map(AsFd::as_fd);
        let completion = match (&mut running, reply) {
            (Running::Names, Reply::Names(found)) => return Some((tag, Ended::Named(found))),
            (Running::Names, _) => None,
            // It is in the page cache now.
            (Running::Operation(Operation::Read { .. }, _), Reply::Done) => {
                let Running::Operation(operation, _) = running else { return None };
                return Some((tag, Ended::Left(operation)));
            }
            (Running::Operation(operation, _), reply) => decode_reply(Some(operation), reply, descriptor, memory),
            (Running::Once, reply) => decode_reply(None, reply, descriptor, None),
        };
        let Some(completion) = completion else {
            helper.running = Some((tag, running));
            return self.lose(key, "it makes no sense");
        };
        if let Some(memory) = &helper.memory
            && rustix::fs::fstat(memory).is_ok_and(|stat| usize::try_from(stat.st_size).is_ok_and(|size| size > KEPT))
        {
            helper.memory = None;
        }
        let took = Duration::from_micros(took);
        let Running::Operation(operation, again) = running else {
            return Some((tag, Ended::Answered(completion, took)));
        };
        let completion = if again { after_loss(&operation, completion) } else { completion };
        match &operation {
            Operation::RemoveDirectory { at } | Operation::RemoveTree { at } if at.path.is_root() => {
                forget_if_removed(at, &completion);
            }
            Operation::RemoveMore { removal } if removal.at().path.is_root() => {
                forget_if_removed(removal.at(), &completion);
            }
            _ => {}
        }
        Some((tag, Ended::Answered(completion, took)))
    }

    /// Gives up a helper that is not there any more. What it was doing is done again, unless that could do harm: nobody
    /// knows how far it got.
    fn lose(&mut self, key: usize, why: &str) -> Option<(T, Ended)> {
        let running = self.processes.get_mut(key).and_then(|helper| helper.running.take());
        self.end(key);
        let (tag, running) = running?;
        let (operation, what) = match running {
            Running::Operation(operation, _) => (Some(operation), "another one does what it was doing"),
            Running::Once | Running::Names => (None, "what it was doing has failed"),
        };
        log::warn(format_args!("a helper for the disk is lost: {why}; {what}"));
        Some((tag, Ended::Lost(operation)))
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

/// Whether something can be done again from its beginning when it is not known how far somebody got with it. Its
/// names are kept from others until then. A file that its writer gives up is not kept open for that here: the
/// helper's descriptor is the last one, and closing that one may take long where a large file goes with it. What
/// has made a link is not known by looking at the link.
fn can_be_done_again(operation: &Operation) -> bool {
    match operation {
        Operation::Rename { file, .. } => file.is_some(),
        Operation::RemoveOwn { .. } | Operation::SymbolicLink { .. } | Operation::HardLink { .. } => false,
        _ => true,
    }
}

/// What an operation came to in the end that a helper may have done before it was lost.
fn after_loss(operation: &Operation, completion: Completion) -> Completion {
    let Err(failure) = &completion else { return completion };
    let is = |errno: Errno| failure.errno == errno.into() && failure.path.is_none();
    match operation {
        Operation::MakeDirectory { .. } if is(Errno::EXIST) => Ok(Outcome::Done),
        Operation::RemoveFile { .. } | Operation::RemoveDirectory { .. } if is(Errno::NOENT) => Ok(Outcome::Done),
        Operation::RemoveTree { .. } if is(Errno::NOENT) => Ok(Outcome::Removed(None)),
        _ => completion,
    }
}

/// Puts what a helper needs of an operation into the memory that is shared with it. Returns that, and how much it is.
fn share<'a>(memory: &'a mut Option<OwnedFd>, operation: &Operation) -> rustix::io::Result<(BorrowedFd<'a>, usize)> {
    let memory = match memory {
        Some(memory) => &*memory,
        None => &*memory.insert(memfd_create("repohostd-data", MemfdFlags::CLOEXEC)?),
    };
    let length = match operation {
        Operation::Write { data, .. } => {
            write_at(memory.as_fd(), data, 0)?;
            data.len()
        }
        Operation::ListMore { listing } => {
            let rest = postcard::to_allocvec(&listing.rest()).map_err(|_| Errno::PROTO)?;
            write_at(memory.as_fd(), &rest, 0)?;
            rest.len()
        }
        _ => 0,
    };
    Ok((memory.as_fd(), length))
}

/// The helper's own handle of the root has seen it vanish, ours has not.
fn forget_if_removed(at: &Location, completion: &Completion) {
    if matches!(completion, Ok(Outcome::Done | Outcome::Removed(None))) {
        at.root.forget();
    }
}

/// Starts this program as a helper.
///
/// # Errors
///
/// What the system says.
pub fn start_process(socket: OwnedFd) -> io::Result<Option<Child>> {
    let child = process::leave_to_c_library(&mut process::again(COMMAND))
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .spawn()?;
    Ok(Some(child))
}
