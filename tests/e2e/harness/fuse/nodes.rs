//! What the kernel has been told of: a number for each file that it knows, and a handle for each that is open.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::{Errno, INodeNo};
use rustix::fs::Stat;

/// A file or directory that the kernel knows.
#[derive(Debug)]
pub(super) struct Node {
    /// A mere handle, which keeps device and inode from being given to another file.
    pub(super) handle: OwnedFd,
    identity: (u64, u64),
}

/// All that the kernel knows.
#[derive(Debug)]
pub(super) struct Nodes {
    tables: Mutex<Tables>,
    /// Whether a file keeps its number.
    stable: bool,
}

#[derive(Debug, Default)]
struct Tables {
    /// With how often the kernel was told.
    nodes: HashMap<u64, (Arc<Node>, u64)>,
    numbers: HashMap<(u64, u64), u64>,
    last: u64,
}

impl Nodes {
    pub(super) fn new(root: OwnedFd, stable: bool) -> Self {
        let root = Arc::new(Node { handle: root, identity: (0, 0) });
        let tables =
            Tables { nodes: [(INodeNo::ROOT.0, (root, 1))].into(), last: INodeNo::ROOT.0, ..Tables::default() };
        Self { tables: Mutex::new(tables), stable }
    }

    pub(super) fn find(&self, number: INodeNo) -> Result<Arc<Node>, Errno> {
        self.lock().nodes.get(&number.0).map(|(node, _)| Arc::clone(node)).ok_or(Errno::ESTALE)
    }

    /// The number that the kernel is told of a file.
    pub(super) fn tell(&self, handle: OwnedFd, stat: &Stat) -> INodeNo {
        let identity = (stat.st_dev, stat.st_ino);
        let tables = &mut *self.lock();
        if let Some(number) = tables.numbers.get(&identity)
            && let Some((_, told)) = tables.nodes.get_mut(number)
        {
            *told += 1;
            return INodeNo(*number);
        }
        tables.last += 1;
        let number = tables.last;
        if self.stable {
            tables.numbers.insert(identity, number);
        }
        tables.nodes.insert(number, (Arc::new(Node { handle, identity }), 1));
        INodeNo(number)
    }

    /// The kernel has forgotten a file, as often as it was told.
    pub(super) fn forget(&self, number: INodeNo, times: u64) {
        let tables = &mut *self.lock();
        let Some((node, told)) = tables.nodes.get_mut(&number.0) else { return };
        *told = told.saturating_sub(times);
        if *told == 0 && number != INodeNo::ROOT {
            if tables.numbers.get(&node.identity) == Some(&number.0) {
                tables.numbers.remove(&node.identity);
            }
            tables.nodes.remove(&number.0);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is open, by handle.
#[derive(Debug)]
pub(super) struct Handles<T> {
    table: Mutex<HashMap<u64, Arc<T>>>,
    last: AtomicU64,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self { table: Mutex::default(), last: AtomicU64::new(0) }
    }
}

impl<T> Handles<T> {
    pub(super) fn add(&self, value: T) -> fuser::FileHandle {
        let handle = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.lock().insert(handle, Arc::new(value));
        fuser::FileHandle(handle)
    }

    pub(super) fn find(&self, handle: fuser::FileHandle) -> Result<Arc<T>, Errno> {
        self.lock().get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    pub(super) fn remove(&self, handle: fuser::FileHandle) {
        self.lock().remove(&handle.0);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<T>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
