//! Tests of the back ends on real directories, each with the kernel's and with our own way of
//! resolving paths.

mod confinement;
mod files;
mod locks;
mod scrambling;
mod trees;

use std::path::Path;
use std::rc::Rc;

use super::inline::{Inline, Options};
use super::*;

/// A back end with the kernel's resolution of paths and one with our own.
fn back_ends() -> [Inline; 2] {
    [false, true].map(|by_component| Inline::new(Options { by_component, ..Options::default() }))
}

fn place(root: &Rc<Root>, path: &str) -> Location {
    Location::new(Rc::clone(root), RelativePath::new(path).unwrap())
}

/// Runs an operation as a session would, through the interface that all back ends have.
fn run(disk: &mut Inline, operation: Operation) -> Completion {
    let ticket = Ticket { session: 1, operation: 2 };
    disk.submit(ticket, operation);
    assert_eq!(disk.outstanding(), 1);
    let (completed, completion) = disk.complete().expect("inline work is done at once");
    assert_eq!(completed, ticket);
    assert!(disk.complete().is_none());
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
