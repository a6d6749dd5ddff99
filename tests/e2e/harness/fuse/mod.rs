//! File systems that are slow, or lack what others have: a directory seen through the kernel's FUSE.
//!
//! What is in the directory stays there; what is asked of it comes through threads of the test's own process, at
//! most [`THREADS`] calls at a time, none of which keeps another one waiting. Nothing is cached but the pages of open
//! files, so each call arrives.
//!
//! Root mounts for the tests' user. An ordinary user mounts for himself with `fusermount3`, from the package fuse3.

mod nodes;
mod pass_through;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use fuser::{BackgroundSession, Config, MountOption, SessionACL};
use rustix::process::{Resource, getrlimit, setrlimit};

use pass_through::PassThrough;

/// Calls that are answered at a time.
const THREADS: usize = 16;

/// What a file system may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Call {
    Lookup,
    GetAttributes,
    SetAttributes,
    ReadLink,
    Create,
    Open,
    Read,
    Write,
    /// What `close` waits for.
    Flush,
    Sync,
    OpenDirectory,
    ReadDirectory,
    SyncDirectory,
    MakeDirectory,
    RemoveDirectory,
    Remove,
    Rename,
    SymbolicLink,
    Link,
    Statistics,
}

const CALLS: usize = Call::Statistics as usize + 1;

/// Which inode number a file is seen with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Inodes {
    /// Always the same.
    #[default]
    Stable,
    /// Another one each time that its name is looked up; who has it open sees the same one.
    NewAtEachLookup,
    /// Another one each time that anybody looks.
    NewAtEachLook,
}

/// What a file system is like from beginning to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traits {
    /// Whether it knows hard links and the flags of `renameat2`.
    pub(crate) links: bool,
    pub(crate) inodes: Inodes,
    /// Whether reads and writes go past the page cache.
    pub(crate) direct: bool,
}

impl Default for Traits {
    fn default() -> Self {
        Self { links: true, inodes: Inodes::Stable, direct: false }
    }
}

/// What may change while it is mounted, and what it has done.
#[derive(Debug, Default)]
struct Behaviour {
    /// Microseconds that each kind of call takes.
    delays: [AtomicU64; CALLS],
    counts: [AtomicU64; CALLS],
    /// Seconds that are added to each `ctime`.
    shift: AtomicI64,
}

/// A directory that is seen through such a file system until this is dropped.
pub(crate) struct FuseDisk {
    path: PathBuf,
    behaviour: Arc<Behaviour>,
    _session: BackgroundSession,
}

impl FuseDisk {
    /// Mounts it on a directory, whose content is seen through it.
    pub(crate) fn mount(path: &Path, traits: Traits) -> Self {
        // each file that the kernel remembers is open
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit);

        let behaviour = Arc::<Behaviour>::default();
        let file_system = PassThrough::new(path, traits, Arc::clone(&behaviour));
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("repohostd-test".to_owned()),
            MountOption::DefaultPermissions,
            MountOption::NoAtime,
        ];
        config.n_threads = Some(THREADS);
        if rustix::process::geteuid().is_root() {
            config.acl = SessionACL::All;
        }
        let session = fuser::spawn_mount(file_system, path, &config)
            .expect("a file system can be mounted: that needs /dev/fuse and, for who is not root, the package fuse3");
        Self { path: path.to_owned(), behaviour, _session: session }
    }

    /// Has each call of a kind take so long from now on, also one that has begun.
    pub(crate) fn delay(&self, call: Call, delay: Duration) {
        let delay = u64::try_from(delay.as_micros()).expect("it is short");
        self.behaviour.delays[call as usize].store(delay, Ordering::Relaxed);
    }

    /// How many calls of a kind have been answered.
    pub(crate) fn count(&self, call: Call) -> u64 {
        self.behaviour.counts[call as usize].load(Ordering::Relaxed)
    }

    /// Shows everything as changed so many seconds later than it was.
    pub(crate) fn shift_changes(&self, seconds: i64) {
        self.behaviour.shift.store(seconds, Ordering::Relaxed);
    }
}

impl Drop for FuseDisk {
    fn drop(&mut self) {
        for index in 0..CALLS {
            self.behaviour.delays[index].store(0, Ordering::Relaxed);
        }
        // the server may still have files open in it
        let (program, how) =
            if rustix::process::geteuid().is_root() { ("umount", "--lazy") } else { ("fusermount3", "-uz") };
        let _ = Command::new(program).arg(how).arg(&self.path).status();
    }
}
