//! A disk that can lose its power.
//!
//! What was synced stays. Of everything else chance decides, each for itself: every page of a file's data, its size, and
//! every entry of a directory. A file's sync says nothing of its name, and a directory's sync nothing of what is in its
//! files. What is kept in the end is written anew in place of what was there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use repohostd::disk::scrambled::Scrambled;
use repohostd::disk::{Completion, Disk, Location, Operation, Ticket};

use crate::random::Random;

const PAGE: usize = 4096;

/// A file or a directory, whatever it is called.
type Inode = u64;

/// The entries of a directory.
type Entries = BTreeMap<OsString, Inode>;

/// The disk, and what is known to be on it whatever happens.
pub(crate) struct Power {
    inner: Scrambled,
    base: PathBuf,
    /// What is to be noted once it has succeeded.
    syncing: HashMap<Ticket, Syncing>,
    synced: Synced,
}

#[derive(Default)]
struct Synced {
    files: HashMap<Inode, Vec<u8>>,
    directories: HashMap<Inode, Entries>,
}

enum Syncing {
    File(OwnedFd),
    Directory(PathBuf),
}

/// What is left of something.
enum Left {
    File(Vec<u8>),
    Directory(BTreeMap<OsString, Left>),
}

impl Power {
    /// The disk below `base`, on which everything that is there is safe.
    pub(crate) fn new(inner: Scrambled, base: &Path) -> Self {
        let mut synced = Synced::default();
        for (inode, place) in tree(base) {
            if place.is_dir() {
                synced.directories.insert(inode, entries(&place));
            } else {
                synced.files.insert(inode, fs::read(place).expect("a file of the test"));
            }
        }
        Self { inner, base: base.to_path_buf(), syncing: HashMap::new(), synced }
    }

    /// Cuts the power: what is under way ends where it is, and what was not synced is there or not by chance.
    pub(crate) fn cut(self, random: &mut Random) {
        let Self { inner, base, synced, .. } = self;
        drop(inner);
        let now: HashMap<Inode, PathBuf> = tree(&base).into_iter().collect();
        let root = fs::metadata(&base).expect("the directory is there").ino();
        let left = synced.left(root, &now, random);
        let Left::Directory(left) = left else { panic!("it is a directory") };
        for name in entries(&base).into_keys() {
            let place = base.join(name);
            if place.is_dir() { fs::remove_dir_all(place) } else { fs::remove_file(place) }.expect("it can be removed");
        }
        restore(&base, left);
    }
}

impl Disk for Power {
    fn submit(&mut self, ticket: Ticket, operation: Operation) {
        let syncing = match &operation {
            Operation::Sync { file } => Some(Syncing::File(reopen(file))),
            Operation::SyncDirectory { at } => Some(Syncing::Directory(place(at))),
            _ => None,
        };
        if let Some(syncing) = syncing {
            self.syncing.insert(ticket, syncing);
        }
        self.inner.submit(ticket, operation);
    }

    fn complete(&mut self) -> Option<(Ticket, Completion)> {
        let (ticket, completion) = self.inner.complete()?;
        match self.syncing.remove(&ticket).filter(|_| completion.is_ok()) {
            Some(Syncing::File(file)) => {
                let content = fs::read(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("the file is open");
                let inode = rustix::fs::fstat(&file).expect("the file is open").st_ino;
                self.synced.files.insert(inode, content);
            }
            Some(Syncing::Directory(place)) => {
                // somebody may have removed it since
                if let Ok(metadata) = fs::metadata(&place) {
                    self.synced.directories.insert(metadata.ino(), entries(&place));
                }
            }
            None => {}
        }
        Some((ticket, completion))
    }

    fn outstanding(&self) -> usize {
        self.inner.outstanding()
    }
}

impl Synced {
    /// What is left of an inode.
    fn left(&self, inode: Inode, now: &HashMap<Inode, PathBuf>, random: &mut Random) -> Left {
        let place = now.get(&inode);
        let is_directory = place.map_or(self.directories.contains_key(&inode), |place| place.is_dir());
        if !is_directory {
            let now = place.map(|place| fs::read(place).expect("it is there"));
            return Left::File(self.file(inode, now, random));
        }
        let after = place.map(|place| entries(place)).unwrap_or_default();
        let before = self.directories.get(&inode).cloned().unwrap_or_default();
        let names: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
        let mut left = BTreeMap::new();
        for name in names {
            let kept = if random.one_in(2) { before.get(&name) } else { after.get(&name) };
            if let Some(inode) = kept {
                left.insert(name, self.left(*inode, now, random));
            }
        }
        Left::Directory(left)
    }

    fn file(&self, inode: Inode, now: Option<Vec<u8>>, random: &mut Random) -> Vec<u8> {
        let before = self.files.get(&inode).cloned().unwrap_or_default();
        let now = now.unwrap_or_else(|| before.clone());
        if before == now {
            return now;
        }
        let length = if random.one_in(2) { before.len() } else { now.len() };
        let mut content = vec![0; length];
        for begin in (0..length).step_by(PAGE) {
            let source = if random.one_in(2) { &before } else { &now };
            let end = length.min(begin + PAGE).min(source.len());
            if begin < end {
                content[begin..end].copy_from_slice(&source[begin..end]);
            }
        }
        content
    }
}

/// Everything below a directory, and the directory itself.
fn tree(base: &Path) -> Vec<(Inode, PathBuf)> {
    let mut found = vec![];
    let mut pending = vec![base.to_path_buf()];
    while let Some(place) = pending.pop() {
        let metadata = fs::symlink_metadata(&place).expect("it is there");
        if metadata.is_dir() {
            pending.extend(entries(&place).into_keys().map(|name| place.join(name)));
        }
        found.push((metadata.ino(), place));
    }
    found
}

fn entries(directory: &Path) -> Entries {
    let entries = fs::read_dir(directory).expect("the directory is there");
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.expect("it can be read");
        (entry.file_name(), entry.metadata().expect("it is there").ino())
    };
    entries.map(entry).collect()
}

fn restore(place: &Path, left: BTreeMap<OsString, Left>) {
    for (name, left) in left {
        let place = place.join(name);
        match left {
            Left::File(content) => fs::write(place, content).expect("it can be written"),
            Left::Directory(left) => {
                fs::create_dir(&place).expect("it can be made");
                restore(&place, left);
            }
        }
    }
}

/// The file, also once its name is another one and the server has closed it.
fn reopen(file: &repohostd::disk::File) -> OwnedFd {
    file.0.try_clone().expect("a descriptor can be copied")
}

/// Where that is.
pub(crate) fn place(at: &Location) -> PathBuf {
    std::ffi::OsStr::from_bytes(&at.absolute()).into()
}
