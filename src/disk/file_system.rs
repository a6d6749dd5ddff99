//! What the file systems below the roots have lately done, which decides who waits for them.
//!
//! A file system of a kind that may wait for another machine or process (nfs, cifs, fuse, …) is never waited for by
//! the server itself. On all others a kind of call is done at once, as long as it comes back at once; one that took
//! [`SLOW`] is left to helpers for [`PAUSE`], and for twice as long each time that it turns out to be slow again.
//! Changes wait for those who sync, on ext4 for instance. So they are done at once only while nobody here syncs, and
//! after some that were quick; how long one takes while somebody syncs says nothing of the others.
//!
//! Which file system a root is on is read from `/proc/self/mountinfo`, and compared with the device of the root's
//! open handle: asking the file system itself may mean to wait for it.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, StatxFlags, statx};

use super::location::Root;
use super::{FileSystemView, Operation};
use crate::process::mounts::{self, Mount};

/// A call that takes longer keeps others waiting that want an answer within some 50 ms.
const SLOW: Duration = Duration::from_millis(10);
/// How long a kind of call is left to helpers that was slow, first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3600));
/// Changes are done at once while they take less on average: the last one counts a sixteenth, so that one of 4 ms ends
/// that for a while, one that was kept from running for a moment does not, and some sixty are needed in the beginning.
const QUICK: Duration = Duration::from_micros(250);
const WEIGHT: u32 = 16;
/// So many file systems are known at a time.
const KNOWN_MAXIMUM: usize = 64;
/// How old what is known of the mounts may be when a root is opened.
const MOUNTS_LAST: Duration = Duration::from_secs(10);

/// Kinds of file systems that wait for another machine or another process.
const MAY_BE_SLOW: [&str; 20] = [
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "davfs",
    "fuse",
    "fuseblk",
    "gfs2",
    "glusterfs",
    "gpfs",
    "lustre",
    "nfs",
    "nfs4",
    "ocfs2",
    "orangefs",
    "smb3",
    "smbfs",
    "vboxsf",
];

/// Kinds of calls that are slow or quick each for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Looking at entries, listing, opening.
    Look,
    /// Reading and writing.
    Data,
    /// Whatever else changes something.
    Change,
}

/// One file system, as it is mounted.
#[derive(Debug)]
pub(super) struct FileSystem {
    device: (u32, u32),
    place: PathBuf,
    name: String,
    may_be_slow: bool,
    paces: [Cell<Pace>; 3],
    /// How long changes take on average that no sync was in the way of.
    changes_take: Cell<Duration>,
    syncs: Cell<Syncs>,
    helpers: Cell<usize>,
}

/// How a kind of call has been lately.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// Until when it counts as slow, and for how long it does each time.
    slow: Option<(Instant, Duration)>,
    /// How long the last slow call took.
    took: Duration,
}

/// Who syncs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Syncs {
    under_way: usize,
    /// How many have been begun.
    begun: u64,
}

impl FileSystem {
    fn new(mount: Mount) -> Self {
        let may_be_slow = MAY_BE_SLOW.contains(&mount.name.split('.').next().unwrap_or_default());
        Self {
            device: mount.device,
            place: mount.place,
            name: mount.name,
            may_be_slow,
            paces: Default::default(),
            changes_take: Cell::new(SLOW),
            syncs: Cell::default(),
            helpers: Cell::new(0),
        }
    }

    /// Whether it waits for another machine or process.
    pub(super) const fn may_be_slow(&self) -> bool {
        self.may_be_slow
    }

    /// Whether calls of this kind are left to others.
    pub(super) fn is_slow(&self, kind: Kind) -> bool {
        self.may_be_slow || self.paces[kind as usize].get().slow.is_some_and(|(until, _)| Instant::now() < until)
    }

    /// Whether changes come back at once too, as they do not while somebody syncs.
    pub(super) fn changes_at_once(&self) -> bool {
        self.changes_take.get() < QUICK && !self.is_slow(Kind::Change) && self.syncs.get().under_way == 0
    }

    /// Who syncs now.
    pub(super) const fn syncs(&self) -> Syncs {
        self.syncs.get()
    }

    /// How many helpers wait for it.
    pub(super) fn helpers(&self) -> usize {
        self.helpers.get()
    }

    /// One more does.
    pub(super) fn takes_helper(&self) {
        self.helpers.set(self.helpers.get() + 1);
    }

    /// One does no more.
    pub(super) fn gives_helper_back(&self) {
        self.helpers.set(self.helpers.get().saturating_sub(1));
    }

    /// Somebody syncs from now on.
    pub(super) fn begins_sync(&self) {
        let Syncs { under_way, begun } = self.syncs.get();
        self.syncs.set(Syncs { under_way: under_way + 1, begun: begun + 1 });
    }

    /// Somebody syncs no more.
    pub(super) fn ends_sync(&self) {
        let Syncs { under_way, begun } = self.syncs.get();
        self.syncs.set(Syncs { under_way: under_way.saturating_sub(1), begun });
    }

    /// A call took so long that was asked for when `syncs` were under way.
    pub(super) fn note(&self, kind: Kind, took: Duration, syncs: Syncs) {
        if kind == Kind::Change {
            if syncs.under_way > 0 || syncs.begun != self.syncs.get().begun {
                return;
            }
            let before = self.changes_take.get();
            self.changes_take.set(before.saturating_sub(before / WEIGHT) + took.min(SLOW) / WEIGHT);
        }
        if took < SLOW {
            return;
        }
        let cell = &self.paces[kind as usize];
        let now = Instant::now();
        let pause = match cell.get().slow {
            Some((until, pause)) if now < until => pause,
            // It has been quick for a while, but not for long.
            Some((until, pause)) if now < until + pause => PAUSE.1.min(pause * 2),
            _ => PAUSE.0,
        };
        cell.set(Pace { slow: Some((now + pause, pause)), took });
    }

    /// What there is to tell of it.
    fn view(&self) -> FileSystemView {
        let is_quick = [!self.is_slow(Kind::Look), !self.is_slow(Kind::Data), self.changes_at_once()];
        let slow = self.paces.iter().map(Cell::get).filter(|pace| pace.slow.is_some());
        FileSystemView {
            place: self.place.clone(),
            name: self.name.clone(),
            is_quick,
            slow: slow.map(|pace| pace.took).max(),
        }
    }
}

/// All that are known.
#[derive(Debug, Default)]
pub(super) struct FileSystems {
    /// Whether all are taken for such that may be slow.
    #[cfg(test)]
    pub(super) are_slow: bool,
    known: RefCell<Vec<Rc<FileSystem>>>,
    mounts: RefCell<(Vec<Mount>, Option<Instant>)>,
}

impl FileSystems {
    /// The one that a root is on, as far as that can be told without asking it.
    pub(super) fn of(&self, root: &Root) -> Option<Rc<FileSystem>> {
        let handle = root.held();
        if let Some((known, was_open)) = root.file_system()
            && (was_open || handle.is_none())
        {
            return Some(known);
        }
        let found = match &handle {
            Some(handle) => {
                // What the file system has told already is enough.
                let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
                let found = statx(handle, "", flags, StatxFlags::TYPE).ok()?;
                self.find(root.path(), Some((found.stx_dev_major, found.stx_dev_minor)))?
            }
            None => self.find(root.path(), None)?,
        };
        root.set_file_system(&found, handle.is_some());
        Some(found)
    }

    fn find(&self, path: &Path, device: Option<(u32, u32)>) -> Option<Rc<FileSystem>> {
        let mounts = &mut *self.mounts.borrow_mut();
        if mounts.1.is_none_or(|at| at.elapsed() > MOUNTS_LAST) {
            *mounts = (mounts::read(), Some(Instant::now()));
        }
        let (mounts, _) = mounts;
        let by_path = mounts::above(mounts, path);
        let is_device = |mount: &&Mount| device.is_none_or(|device| mount.device == device);
        // Some file systems have devices that no mount tells of.
        let mount = by_path.filter(is_device).or_else(|| mounts.iter().rfind(is_device)).or(by_path)?;
        let known = &mut *self.known.borrow_mut();
        let is_same =
            |one: &&Rc<FileSystem>| (one.device, &one.place, &one.name) == (mount.device, &mount.place, &mount.name);
        if let Some(found) = known.iter().find(is_same) {
            return Some(Rc::clone(found));
        }
        if known.len() >= KNOWN_MAXIMUM {
            known.remove(0);
        }
        let new = FileSystem::new(mount.clone());
        #[cfg(test)]
        let new = FileSystem { may_be_slow: new.may_be_slow || self.are_slow, ..new };
        let new = Rc::new(new);
        known.push(Rc::clone(&new));
        Some(new)
    }

    /// What there is to tell of them.
    pub(super) fn view(&self) -> Vec<FileSystemView> {
        self.known.borrow().iter().map(|one| one.view()).collect()
    }
}

/// What kind of call an operation is, and whether it is one that a slow file system is asked for at all.
pub(super) const fn kind_of(operation: &Operation) -> Kind {
    match operation {
        Operation::Stat { .. }
        | Operation::StatTarget { .. }
        | Operation::OpenRead { .. }
        | Operation::List { .. }
        | Operation::ListMore { .. } => Kind::Look,
        Operation::Read { .. } | Operation::Write { .. } | Operation::Close { .. } => Kind::Data,
        _ => Kind::Change,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        30 22 0:40 / /srv rw shared:1 - nfs4 host:/srv rw\n\
        31 22 0:41 / /srv/with\\040blank rw shared:2 master:1 - fuse.sshfs there rw\n\
        32 22 0:42 / /srv rw - tmpfs tmpfs rw\nnonsense\n";

    fn systems() -> FileSystems {
        let systems = FileSystems::default();
        *systems.mounts.borrow_mut() = (mounts::parse(MOUNTS), Some(Instant::now()));
        systems
    }

    #[test]
    fn a_path_is_on_what_is_mounted_next_above_it_unless_its_device_says_otherwise() {
        let systems = systems();
        let find = |path: &str, device| systems.find(Path::new(path), device).unwrap();
        for (path, device, name, may_be_slow) in [
            ("/var/lib", None, "ext4", false),
            ("/srvx", None, "ext4", false),
            ("/srv/with blank/repo", None, "fuse.sshfs", true),
            ("/srv/repo", None, "tmpfs", false),
            ("/srv/repo", Some((0, 40)), "nfs4", true),
            ("/var/link", Some((0, 41)), "fuse.sshfs", true),
            ("/var/subvolume", Some((0, 99)), "ext4", false),
        ] {
            let found = find(path, device);
            assert_eq!((found.name.as_str(), found.may_be_slow()), (name, may_be_slow), "{path}");
        }
        assert!(Rc::ptr_eq(&find("/a", None), &find("/b", Some((8, 1)))));
    }

    #[test]
    fn what_was_slow_once_is_left_to_others_for_longer_each_time() {
        let systems = systems();
        let local = systems.find(Path::new("/a"), None).unwrap();
        local.note(Kind::Data, SLOW / 2, local.syncs());
        assert!(!local.is_slow(Kind::Data));
        for expected in [PAUSE.0, PAUSE.0 * 2, PAUSE.0 * 4] {
            for _ in 0..9 {
                local.note(Kind::Data, SLOW * 3, local.syncs());
            }
            assert!(local.is_slow(Kind::Data) && !local.is_slow(Kind::Look));
            let cell = &local.paces[Kind::Data as usize];
            let (_, pause) = cell.get().slow.unwrap();
            assert_eq!(pause, expected);
            // It has been quick since.
            cell.set(Pace { slow: Some((Instant::now(), pause)), ..cell.get() });
            assert!(!local.is_slow(Kind::Data));
        }
        local.note(Kind::Look, SLOW, local.syncs());
        let view = &systems.view()[0];
        assert_eq!((view.is_quick, view.slow), ([false, true, false], Some(SLOW * 3)));
    }

    #[test]
    fn changes_are_done_at_once_when_many_were_quick_and_nobody_syncs() {
        let local = systems().find(Path::new("/a"), None).unwrap();
        let quick = || local.note(Kind::Change, QUICK / 20, local.syncs());
        for _ in 0..WEIGHT {
            assert!(!local.changes_at_once());
            quick();
        }
        (0..WEIGHT * 4).for_each(|_| quick());
        local.note(Kind::Change, QUICK * 8, local.syncs());
        assert!(local.changes_at_once(), "one alone does not count");
        let before = local.syncs();
        local.begins_sync();
        assert!(!local.changes_at_once());
        let meanwhile = local.syncs();
        local.ends_sync();
        for syncs in [before, meanwhile] {
            local.note(Kind::Change, SLOW, syncs);
            assert!(local.changes_at_once(), "it may have waited for who synced");
        }
        (0..3).for_each(|_| local.note(Kind::Change, SLOW / 2, local.syncs()));
        assert!(!local.changes_at_once());
        (0..WEIGHT * 2).for_each(|_| quick());
        assert!(local.changes_at_once());
        local.note(Kind::Change, SLOW, local.syncs());
        assert!(!local.changes_at_once());
    }
}
