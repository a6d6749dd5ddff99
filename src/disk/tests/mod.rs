//! Tests of the back ends on real directories, each with the kernel's and with our own way of
//! resolving paths.

mod bytes;
mod confinement;
mod exclusion;
mod files;
mod locks;
mod offloading;
mod owned_links;
mod scrambling;
mod trees;

use std::os::fd::AsFd;
use std::path::Path;
use std::process::Child;
use std::rc::Rc;
use std::time::Duration;

use mio::{Events, Poll};

use super::exclusion::Exclusion;
use super::helpers::{Start, worker};
use super::inline::{Inline, Options};
use super::offload::Offload;
use super::*;

/// A back end that the tests try.
enum Tried {
    Inline(Box<Inline>),
    Offload(Box<Offload>, Poll),
}

impl Tried {
    fn disk(&mut self) -> &mut dyn Disk {
        match self {
            Self::Inline(disk) => &mut **disk,
            Self::Offload(disk, _) => &mut **disk,
        }
    }

    fn inline(options: Options) -> Self {
        Self::Inline(Box::new(Inline::new(options)))
    }

    /// Helpers that are threads of the test.
    fn helpers(start: Start) -> Self {
        Self::excluding(false, start, None)
    }

    /// Helpers that are threads of the test and do whatever they can, as on a slow disk.
    fn slow() -> Self {
        Self::excluding(true, in_a_thread, None)
    }

    fn excluding(is_slow: bool, start: Start, exclusion: Option<Exclusion>) -> Self {
        let poll = Poll::new().unwrap();
        let mut disk = Offload::new(Options::default(), start, exclusion);
        disk.watch(poll.registry().try_clone().unwrap(), 0);
        if is_slow {
            disk.take_all_for_slow();
        }
        Self::Offload(Box::new(disk), poll)
    }

    fn wait(&mut self) -> (Ticket, Completion) {
        loop {
            if let Some(completed) = self.disk().complete() {
                return completed;
            }
            let Self::Offload(disk, poll) = self else { panic!("inline work is done at once") };
            let longest = disk.deadline().map(|at| at.saturating_duration_since(Instant::now()));
            let begun = Instant::now();
            assert!(turn(disk, poll, longest.unwrap_or(WAIT)) || longest.is_some(), "nobody has answered");
            assert!(begun.elapsed() < WAIT);
        }
    }

    /// Completions so far, without waiting for more.
    fn completed(&mut self) -> Vec<(Ticket, Completion)> {
        if let Self::Offload(disk, poll) = self {
            turn(disk, poll, Duration::ZERO);
        }
        std::iter::from_fn(|| self.disk().complete()).collect()
    }
}

/// How long anything may take.
const WAIT: Duration = Duration::from_secs(10);

/// What the event loop does for a back end; whether it was woken.
fn turn(disk: &mut Offload, poll: &mut Poll, longest: Duration) -> bool {
    let mut events = Events::with_capacity(8);
    poll.poll(&mut events, Some(longest)).unwrap();
    events.iter().for_each(|event| disk.ready(event.token().0));
    !events.is_empty()
}

fn in_a_thread(socket: OwnedFd) -> std::io::Result<Option<Child>> {
    let serve = move || worker::serve(socket.as_fd(), Options::default());
    std::thread::Builder::new().spawn(serve).map(|_| None)
}

/// A back end with the kernel's resolution of paths, one with our own, one with helpers, and one that takes every
/// disk for a slow one.
fn back_ends() -> [Tried; 4] {
    let inline = |by_component| Tried::inline(Options { by_component, ..Options::default() });
    [inline(false), inline(true), Tried::helpers(in_a_thread), Tried::slow()]
}

fn place(root: &Rc<Root>, path: &str) -> Location {
    Location::new(Rc::clone(root), RelativePath::new(path).unwrap())
}

/// Runs an operation as a session would, through the interface that all back ends have.
fn run(tried: &mut Tried, operation: Operation) -> Completion {
    let ticket = Ticket { session: 1, operation: 2 };
    let disk = tried.disk();
    disk.submit(ticket, operation);
    assert_eq!(disk.outstanding(), 1);
    let (completed, completion) = tried.wait();
    assert_eq!(completed, ticket);
    assert!(tried.disk().complete().is_none());
    completion
}

#[track_caller]
fn file(completion: Completion) -> File {
    match completion {
        Ok(Outcome::File(file)) => file,
        other => panic!("no file: {other:?}"),
    }
}

#[track_caller]
fn claim(completion: Completion) -> Option<Claim> {
    match completion {
        Ok(Outcome::Claim(claim)) => claim,
        other => panic!("no claim: {other:?}"),
    }
}

#[track_caller]
fn bytes(completion: Completion) -> Vec<u8> {
    match completion {
        Ok(Outcome::Read(bytes)) => bytes,
        other => panic!("nothing read: {other:?}"),
    }
}

#[track_caller]
fn metadata(completion: Completion) -> Metadata {
    match completion {
        Ok(Outcome::Metadata(metadata)) => metadata,
        other => panic!("no metadata: {other:?}"),
    }
}

#[track_caller]
fn done(completion: Completion) {
    match completion {
        Ok(Outcome::Done) => {}
        other => panic!("not done: {other:?}"),
    }
}

/// The error number and step of what must have failed.
#[track_caller]
fn failed(completion: Completion) -> (rustix::io::Errno, Step) {
    let failure = completion.expect_err("it should have failed");
    (rustix::io::Errno::from_raw_os_error(failure.errno.0), failure.step)
}

/// The error number of an operation that failed as a whole.
#[track_caller]
fn errno(completion: Completion) -> rustix::io::Errno {
    let (errno, step) = failed(completion);
    assert_eq!(step, Step::Whole, "{errno}");
    errno
}

fn write(path: impl AsRef<Path>, text: &str) {
    std::fs::write(path, text).unwrap();
}

fn link(target: impl AsRef<Path>, path: impl AsRef<Path>) {
    std::os::unix::fs::symlink(target, path).unwrap();
}

fn is_superuser() -> bool {
    rustix::process::geteuid().is_root()
}
