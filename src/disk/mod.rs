//! Disk work: file operations that are submitted now and complete later.
//!
//! A session describes what it wants as an [`Operation`] on a [`Location`]; a [`Disk`] runs it and
//! hands back an [`Outcome`]. Sessions cannot tell which back end runs: [`offload::Offload`] lets
//! helper processes wait for the disk, [`inline::Inline`] does the work at once, [`scrambled::Scrambled`] (for
//! tests) completes in a seeded random order and injects faults. This is also the one place that opens a
//! path: `resolve` walks below a root so that no link and no `..` leads out of it.
//!
//! Long work (listings, removal of trees) comes in slices of a few hundred entries, so that the
//! event loop stays fair: an outcome then carries the rest, which the session submits again.

mod calls;
mod claims;
mod errno;
pub mod exclusion;
mod file_system;
mod getent;
pub mod helpers;
mod identity;
mod information;
pub mod inline;
pub mod location;
pub mod lock;
pub mod names;
pub mod offload;
pub mod passwd;
mod queue;
mod replace_file;
mod resolve;
pub mod scrambled;
pub mod tree;
pub mod trial;
mod who;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bstr::BString;
use serde::{Deserialize, Serialize};

pub use claims::Claim;
pub use errno::Errno;
use file_system::FileSystem;
pub use location::{Links, Location, RelativePath, Root};
pub use lock::{HeldLock, LockAttempt};
pub use replace_file::replace_file;
pub use tree::{Listing, Removal};

/// An open file. Clones share the descriptor, which is closed with the last of them.
#[derive(Debug, Clone)]
pub struct File(pub Rc<OwnedFd>, Option<Rc<FileSystem>>);

impl From<OwnedFd> for File {
    fn from(descriptor: OwnedFd) -> Self {
        Self(Rc::new(descriptor), None)
    }
}

impl File {
    /// Whether a few large writes are better than many small ones: where each one waits.
    #[must_use]
    pub fn has_slow_writes(&self) -> bool {
        self.1.as_ref().is_some_and(|file_system| file_system.is_slow(file_system::Kind::Data))
    }
}

/// What kind of thing a directory entry is, numbered as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[repr(u8)]
pub enum Kind {
    /// A regular file.
    #[default]
    File = 0,
    /// A directory.
    Directory = 1,
    /// A symbolic link.
    Link = 2,
    /// Anything else: a pipe, socket or device.
    Special = 3,
}

/// How much a caller wants to know of an entry (specification, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Level {
    /// Only that it exists.
    Exists = 1,
    /// Its kind.
    Type = 2,
    /// Kind, modification time, size.
    Basic = 3,
    /// Also owner, mode and the destination of a link.
    Detail = 4,
}

/// What is known of a directory entry; fields beyond the asked level hold zero or `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// Modification time, seconds since 1970.
    pub modified: i64,
    /// Bytes of a regular file, otherwise 0.
    pub size: u64,
    /// Permission bits, `0o777` at most.
    pub mode: u32,
    /// When the entry was last changed in any way, seconds since 1970. Nobody can set this time.
    pub changed: i64,
    /// Numeric owner.
    pub uid: u32,
    /// Owner's name, if it has one. A helper leaves it to the server to find it.
    #[serde(skip)]
    pub user: Option<Rc<str>>,
    /// Numeric group.
    pub gid: u32,
    /// Group's name, if it has one, likewise.
    #[serde(skip)]
    pub group: Option<Rc<str>>,
    /// Where a link points, as it is written in the link.
    pub link_destination: Option<BString>,
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Name within its directory.
    pub name: BString,
    /// What is known of it at the level that was asked for.
    pub metadata: Metadata,
}

/// One piece of disk work.
#[derive(Debug)]
pub enum Operation {
    /// Looks at one entry. Outcome: [`Outcome::Metadata`].
    Stat {
        /// What to look at.
        at: Location,
        /// Look at what a link in the last place points to, not at the link.
        follow: bool,
        /// How much is wanted.
        level: Level,
    },
    /// Looks at what the link at a place points to, but not at what a link there points to. Outcome:
    /// [`Outcome::Metadata`].
    StatTarget {
        /// The link; anything else is looked at itself.
        at: Location,
        /// How much is wanted.
        level: Level,
    },
    /// Opens for reading, without blocking on a pipe. A directory opens too and fails with EISDIR when
    /// it is read. Outcome: [`Outcome::File`].
    OpenRead {
        /// What to open.
        at: Location,
    },
    /// Reads `length` bytes at `offset`, fewer only at the end of the file, and appends them to
    /// `buffer`, whose spare capacity is at least `length`. It is cheapest when it is hardly more,
    /// an eighth at most; a roomier buffer is zeroed first. Outcome: [`Outcome::Read`].
    Read {
        /// From `OpenRead`.
        file: File,
        /// Where the bytes go.
        buffer: Vec<u8>,
        /// Bytes wanted.
        length: usize,
        /// Offset in the file, in bytes.
        offset: u64,
    },
    /// Creates a file or truncates it, for writing. A link in the last place is not written through
    /// but fails with ELOOP. Outcome: [`Outcome::File`].
    OpenWrite {
        /// What to open.
        at: Location,
        /// Permission bits of a new file, applied as they are.
        mode: u32,
        /// Always make a new file: one that has the name is removed first, so that two writers never
        /// share a file.
        fresh: bool,
    },
    /// Writes all of `data` at `offset`. Outcome: [`Outcome::Written`].
    Write {
        /// From `OpenWrite`.
        file: File,
        /// What to write; comes back for reuse.
        data: Vec<u8>,
        /// Offset in the file, in bytes.
        offset: u64,
    },
    /// Puts a file's data and size on stable storage. Outcome: [`Outcome::Done`].
    Sync {
        /// From `OpenWrite`.
        file: File,
    },
    /// Closes a file and reports what only closing tells. While clones of the handle are held, the
    /// descriptor itself stays open. Outcome: [`Outcome::Done`].
    Close {
        /// From `OpenRead` or `OpenWrite`.
        file: File,
    },
    /// Sets access and modification time, of the file that is open and not of whatever has its name now.
    /// Outcome: [`Outcome::Done`].
    SetTimes {
        /// From `OpenWrite`.
        file: File,
        /// Seconds since 1970.
        modified: i64,
    },
    /// Gives a file to the named user and group where it differs; names that nobody has are left
    /// alone. Outcome: [`Outcome::Done`].
    SetOwner {
        /// From `OpenWrite`.
        file: File,
        /// New owner, if any.
        user: Option<String>,
        /// New group, if any.
        group: Option<String>,
    },
    /// Renames within one root. Outcome: [`Outcome::Done`].
    Rename {
        /// What may be at the new place.
        over: Over,
        /// Fail with ESTALE unless the old place is the place of this file: another writer may have
        /// made it anew.
        file: Option<File>,
        /// Old place.
        from: Location,
        /// New place, below the same root.
        to: Location,
    },
    /// Makes one directory. Outcome: [`Outcome::Done`].
    MakeDirectory {
        /// Which.
        at: Location,
        /// Permission bits, applied as they are.
        mode: u32,
    },
    /// Puts a directory's entries on stable storage. Outcome: [`Outcome::Done`].
    SyncDirectory {
        /// Which.
        at: Location,
    },
    /// Removes one file or link. Outcome: [`Outcome::Done`].
    RemoveFile {
        /// Which.
        at: Location,
    },
    /// Removes the name of a file that its writer gives up, unless another writer has made it anew.
    /// Outcome: [`Outcome::Done`].
    RemoveOwn {
        /// From `OpenWrite`.
        file: File,
        /// Where it was made.
        at: Location,
    },
    /// Removes one empty directory. Outcome: [`Outcome::Done`].
    RemoveDirectory {
        /// Which.
        at: Location,
    },
    /// Makes a symbolic link. Outcome: [`Outcome::Done`].
    SymbolicLink {
        /// The text of the link.
        target: BString,
        /// Where the link is made.
        at: Location,
    },
    /// Makes a second name of a file below the same root. Outcome: [`Outcome::Done`].
    HardLink {
        /// The file.
        target: Location,
        /// The new name.
        at: Location,
    },
    /// Begins a listing. Outcome: [`Outcome::Entries`] with the first slice.
    List {
        /// Which directory.
        at: Location,
        /// How much is wanted of each entry.
        level: Level,
    },
    /// Goes on with a listing. Outcome: [`Outcome::Entries`].
    ListMore {
        /// What the slice before left.
        listing: Listing,
    },
    /// Empties a directory of everything below it, links not followed, and removes it. Outcome:
    /// [`Outcome::Removed`].
    RemoveTree {
        /// Which directory.
        at: Location,
    },
    /// Goes on with the removal of a tree. Outcome: [`Outcome::Removed`].
    RemoveMore {
        /// What the slice before left.
        removal: Removal,
    },
    /// Opens or makes a lock file, its missing directories included, and tries to lock it. Outcome:
    /// [`Outcome::Lock`].
    Lock {
        /// The lock file.
        at: Location,
        /// What is written into it once it is locked.
        contents: String,
    },
    /// Removes a lock file if it is still ours, and gives the lock up. Outcome: [`Outcome::Done`].
    Unlock {
        /// From `Lock`.
        lock: HeldLock,
    },
    /// Claims a name, also against other processes of this server, without waiting for who has claimed it.
    /// Outcome: [`Outcome::Claim`].
    Claim {
        /// Anything on which those agree who exclude each other.
        name: String,
    },
}

/// What a renaming may replace.
#[derive(Debug, Clone, Default)]
pub enum Over {
    /// Whatever is there.
    #[default]
    Anything,
    /// Nothing: EEXIST if there is something.
    Nothing,
    /// This file: ESTALE if there is another one.
    This(File),
}

/// What an operation came to.
#[derive(Debug)]
pub enum Outcome {
    /// It is done and there is nothing to say.
    Done,
    /// Of `Stat`.
    Metadata(Metadata),
    /// Of `OpenRead` and `OpenWrite`.
    File(File),
    /// Of `Read`: the buffer with what was read at its end; fewer bytes than wanted mean the end of
    /// the file.
    Read(Vec<u8>),
    /// Of `Write`: the buffer, for reuse.
    Written(Vec<u8>),
    /// Of `List` and `ListMore`: the next entries and, unless this was the last slice, the rest.
    Entries(Vec<Entry>, Option<Listing>),
    /// Of `RemoveTree` and `RemoveMore`: the rest, unless all is gone.
    Removed(Option<Removal>),
    /// Of `Lock`.
    Lock(LockAttempt),
    /// Of `Claim`: nothing when somebody has claimed the name.
    Claim(Option<Claim>),
}

/// What went wrong, in which part of the operation, and on which path where that is not the
/// operation's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The system's error number.
    pub errno: Errno,
    /// The absolute path of what failed, if that is an entry below the operation's own place: in the
    /// removal of a tree, in a listing, or a directory that a lock file needs. As texts
    /// [carry](crate::protocol::carried) it.
    pub path: Option<String>,
    /// What failed, where parts of an operation have error texts of their own.
    pub step: Step,
}

impl Failure {
    /// A failure of `step` on the operation's own path.
    #[must_use]
    pub fn new(errno: impl Into<Errno>, step: Step) -> Self {
        Self { errno: errno.into(), path: None, step }
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::new(errno, Step::Whole)
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::new(errno, Step::Whole)
    }
}

/// The part of an operation that failed. Every operation can fail as [`Step::Whole`]; the others are
/// told apart because clients see a different text for each.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Step {
    /// The operation as such: the call that it is named after.
    #[default]
    Whole,
    /// `SyncDirectory`: the directory could not be opened.
    Open,
    /// `SyncDirectory`: closing it reported an error.
    Close,
    /// A listing: an entry could not be looked at.
    Information,
    /// `Stat` and listings: where a link points could not be read.
    LinkDestination,
    /// The removal of a tree: a directory could not be opened or read.
    Listing,
    /// The removal of a tree: something that is not a directory could not be removed.
    RemoveFile,
    /// The removal of a tree: a directory could not be removed.
    RemoveDirectory,
    /// `Lock`: a missing directory could not be made.
    MakeDirectory,
    /// `SetOwner`: the change that the system refused. `Whole` means that the present owner could not
    /// be found out.
    #[serde(skip)]
    ChangeOwner(Box<OwnerChange>),
}

/// A refused change of owner, as its error text shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerChange {
    /// Number of the wanted user; `None` when no user was given or nobody has the name.
    pub uid: Option<u32>,
    /// Number of the wanted group, likewise.
    pub gid: Option<u32>,
    /// Number of the present owner.
    pub current_uid: u32,
    /// Name of the present owner, if there is one.
    pub current_user: Option<Rc<str>>,
    /// Number of the present group.
    pub current_gid: u32,
    /// Name of the present group, if there is one.
    pub current_group: Option<Rc<str>>,
}

/// How an operation ended.
pub type Completion = Result<Outcome, Failure>;

/// Names an operation under way: which session it belongs to and which of its operations it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The session, as the server counts them; never used twice while an operation is under way.
    pub session: u64,
    /// The session's own number for the operation.
    pub operation: u64,
}

/// What there is to tell of a file system, and of what is done on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystemView {
    /// Where it is mounted.
    pub place: PathBuf,
    /// Its kind, such as `ext4`.
    pub name: String,
    /// Whether looks, reads and writes, and changes are done at once.
    pub is_quick: [bool; 3],
    /// How long the last call took that was slow, if there was one.
    pub slow: Option<Duration>,
}

/// A back end that runs operations.
///
/// Operations that are under way at the same time have no order among each other. Who needs one, a
/// sync after a write for instance, submits the second when the first has completed.
pub trait Disk {
    /// Takes on an operation. Everything that it needs lives in `operation` until it completes, even
    /// when the session that asked for it is gone.
    fn submit(&mut self, ticket: Ticket, operation: Operation);

    /// The next operation that has completed, if there is one. `None` says nothing of operations that
    /// are still [outstanding](Self::outstanding).
    fn complete(&mut self) -> Option<(Ticket, Completion)>;

    /// Operations that were taken on and have not been handed back.
    fn outstanding(&self) -> usize;

    /// When to call [`Self::complete`] again, although nothing wakes the poll before.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// What it knows of file systems.
    fn file_systems(&self) -> Vec<FileSystemView> {
        Vec::new()
    }

    /// Wakes the poll of this registry for what completes later, with tokens from `first` on.
    fn watch(&mut self, registry: mio::Registry, first: usize) {
        let _ = (registry, first);
    }

    /// The poll was woken with the token `first` + `index`.
    fn ready(&mut self, index: usize) {
        let _ = index;
    }
}

#[cfg(test)]
mod tests;
