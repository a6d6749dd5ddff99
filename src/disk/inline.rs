//! The back end that does the work at once, in the call that submits it.
//!
//! It owns what each operation is in system calls. Where paths lead is [`super::resolve`]'s business;
//! listings, removals and locks have modules of their own.
//!
//! Modes are applied as they come: the process' umask is zero, which the server sees to at its start.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::{Errno, Result, pread, pwrite, retry_on_intr};

use super::claims::Claims;
use super::exclusion::Exclusion;
use super::location::Location;
use super::names::Names;
use super::passwd::{GROUP, PASSWD};
use super::resolve::Resolver;
use super::{Completion, Disk, Failure, File, Listing, Operation, Outcome, Over, OwnerChange, Removal, Step, Ticket};
use super::{identity, information, lock};

/// Neither a pipe without a partner nor a terminal may stop or take over the process; regular files
/// know no difference.
pub(super) const CAREFUL: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Spare room of a buffer, beyond the bytes that are wanted, that may be read into and cut off again:
/// an eighth of them. More would be worse than zeroing the buffer.
const SLACK_DIVISOR: usize = 8;

/// How long a slice of a listing takes at most where others wait for it.
const SLICE_TIME: Duration = Duration::from_millis(2);

/// What a back end can be told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Users' names and numbers.
    pub passwd: PathBuf,
    /// Groups' names and numbers.
    pub group: PathBuf,
    /// The program that knows users and groups that are not in these files, for helpers.
    pub getent: PathBuf,
    /// Resolve paths component by component even where the kernel would do it.
    pub by_component: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { passwd: PASSWD.into(), group: GROUP.into(), getent: "getent".into(), by_component: false }
    }
}

/// The back end.
#[derive(Debug)]
pub struct Inline {
    resolver: Resolver,
    names: Names,
    claims: Claims,
    slice: Duration,
    completed: VecDeque<(Ticket, Completion)>,
}

impl Inline {
    /// A back end with nothing to do yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let resolver = if options.by_component { Resolver::by_component() } else { Resolver::new() };
        let names = Names::new(options.passwd, options.group);
        Self { resolver, names, claims: Claims::default(), slice: SLICE_TIME, completed: VecDeque::new() }
    }

    /// The same, whose slices of listings may take so long.
    pub(super) fn with_slices(self, slice: Duration) -> Self {
        Self { slice, ..self }
    }

    /// The same, whose claims count for other processes too.
    pub(super) fn excluding(self, exclusion: Option<Exclusion>) -> Self {
        Self { claims: Claims::new(exclusion), ..self }
    }

    /// The names of users and groups.
    pub(super) const fn names(&mut self) -> &mut Names {
        &mut self.names
    }

    /// Whether paths are resolved component by component.
    pub(super) const fn by_component(&self) -> bool {
        self.resolver.is_by_component()
    }

    /// Runs one operation.
    pub(super) fn run(&mut self, operation: Operation) -> Completion {
        let resolver = &self.resolver;
        match operation {
            Operation::Stat { at, follow, level } => {
                information::look(resolver, &mut self.names, &at, follow, level).map(Outcome::Metadata)
            }
            Operation::StatTarget { at, level } => {
                information::look_behind(&mut self.names, &at, level).map(Outcome::Metadata)
            }
            Operation::OpenRead { at } => opened(resolver.open(&at, OFlags::RDONLY | CAREFUL, Mode::empty())),
            Operation::Read { file, mut buffer, length, offset } => {
                read_at(file.0.as_fd(), &mut buffer, length, offset)?;
                Ok(Outcome::Read(buffer))
            }
            Operation::OpenWrite { at, mode, fresh } => {
                let flags = write_flags(fresh);
                let open = || resolver.open(&at, flags, Mode::from_raw_mode(mode));
                match open() {
                    Err(Errno::EXIST) if fresh => {
                        remove_file(resolver, &at)?;
                        opened(open())
                    }
                    result => opened(result),
                }
            }
            Operation::Write { file, data, offset } => {
                write_at(file.0.as_fd(), &data, offset)?;
                Ok(Outcome::Written(data))
            }
            // Not fdatasync: the file's owner and mode have to survive a crash as well as its data, and
            // both may have been set since it was created.
            Operation::Sync { file } => done(retry_on_intr(|| rustix::fs::fsync(&file.0))),
            Operation::Close { file } => done(close(file)),
            Operation::SetTimes { file, modified } => done(set_times(file.0.as_fd(), modified)),
            Operation::SetOwner { file, user, group } => {
                set_owner(&mut self.names, file.0.as_fd(), user.as_deref(), group.as_deref())
            }
            Operation::Rename { file, from, to, over } => {
                done(resolver.in_parents(&from, &to, |old, old_name, new, new_name| {
                    rename(file.as_ref(), &over, (old, old_name), (new, new_name))
                }))
            }
            Operation::MakeDirectory { at, mode } => done(make_directory(resolver, &at, mode)),
            Operation::SyncDirectory { at } => sync_directory(resolver, &at),
            Operation::RemoveFile { at } => done(remove_file(resolver, &at)),
            Operation::RemoveOwn { file, at } => done(resolver.in_parent(&at, |directory, name| {
                if is_place_of(&file, directory, name, identity::as_long) {
                    rustix::fs::unlinkat(directory, name, AtFlags::empty())
                } else {
                    Ok(())
                }
            })),
            Operation::RemoveDirectory { at } => done(remove_directory(resolver, &at)),
            Operation::SymbolicLink { target, at } => done(exists_if_root(&at).and_then(|()| {
                resolver.in_parent(&at, |directory, name| rustix::fs::symlinkat(target.as_slice(), directory, name))
            })),
            Operation::HardLink { target, at } => done(exists_if_root(&at).and_then(|()| {
                resolver.in_parents(&target, &at, |old, old_name, new, new_name| {
                    rustix::fs::linkat(old, old_name, new, new_name, AtFlags::empty())
                })
            })),
            Operation::List { at, level } => Listing::begin(resolver, at, level)?.slice(&mut self.names, self.slice),
            Operation::ListMore { listing } => listing.slice(&mut self.names, self.slice),
            Operation::RemoveTree { at } => Removal::begin(resolver, at)?.slice(resolver),
            Operation::RemoveMore { removal } => removal.slice(resolver),
            Operation::Lock { at, contents } => lock::acquire(resolver, at, &contents).map(Outcome::Lock),
            Operation::Unlock { lock } => done(lock::release(resolver, lock)),
            Operation::Claim { name } => Ok(Outcome::Claim(self.claims.take(&name)?)),
        }
    }
}

impl Disk for Inline {
    fn submit(&mut self, ticket: Ticket, operation: Operation) {
        let completion = self.run(operation);
        self.completed.push_back((ticket, completion));
    }

    fn complete(&mut self) -> Option<(Ticket, Completion)> {
        self.completed.pop_front()
    }

    fn outstanding(&self) -> usize {
        self.completed.len()
    }
}

/// How a file is opened for writing.
pub(super) fn write_flags(fresh: bool) -> OFlags {
    let how = if fresh { OFlags::EXCL } else { OFlags::TRUNC };
    OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | CAREFUL | how
}

/// Appends `length` bytes at `offset`, or what there is of them, to `buffer`.
///
/// Nothing tells the kernel that reads are sequential: it finds out by itself from blocks read in
/// order, and telling it costs a call for each of the many small files.
pub(super) fn read_at(file: BorrowedFd<'_>, buffer: &mut Vec<u8>, length: usize, offset: u64) -> Result<()> {
    let begin = buffer.len();
    let end = begin.saturating_add(length);
    buffer.reserve(length);
    if buffer.capacity() - end > length / SLACK_DIVISOR {
        return read_at_zeroed(file, buffer, end, offset);
    }
    // Safe Rust can fill a vector's spare room unread, but only all of it: a little too much is cut
    // off below.
    while buffer.len() < end {
        let position = offset.saturating_add((buffer.len() - begin) as u64);
        if retry_on_intr(|| pread(file, spare_capacity(buffer), position))? == 0 {
            break;
        }
    }
    buffer.truncate(end);
    Ok(())
}

/// As [`read_at`] up to length `end`, for a buffer with much more room than that.
fn read_at_zeroed(file: BorrowedFd<'_>, buffer: &mut Vec<u8>, end: usize, offset: u64) -> Result<()> {
    let begin = buffer.len();
    buffer.resize(end, 0);
    let mut filled = begin;
    while filled < end {
        let position = offset.saturating_add((filled - begin) as u64);
        match retry_on_intr(|| pread(file, &mut buffer[filled..], position))? {
            0 => break,
            count => filled += count,
        }
    }
    buffer.truncate(filled);
    Ok(())
}

/// Writes all of `data` at `offset`, however many calls that takes.
pub(super) fn write_at(file: BorrowedFd<'_>, data: &[u8], offset: u64) -> Result<()> {
    let mut written = 0;
    while written < data.len() {
        let position = offset.saturating_add(written as u64);
        match retry_on_intr(|| pwrite(file, &data[written..], position))? {
            // Cannot happen with a regular file; going on would never end.
            0 => return Err(Errno::IO),
            count => written += count,
        }
    }
    Ok(())
}

/// Removes an empty directory. Its root's handle is given up with it, so that a directory made anew is
/// found.
pub(super) fn remove_directory(resolver: &Resolver, at: &Location) -> Result<()> {
    if at.path.is_root() {
        rustix::fs::unlinkat(CWD, at.root.path(), AtFlags::REMOVEDIR)?;
        at.root.forget();
        return Ok(());
    }
    resolver.in_parent(at, |directory, name| rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR))
}

/// Makes one directory.
pub(super) fn make_directory(resolver: &Resolver, at: &Location, mode: u32) -> Result<()> {
    let mode = Mode::from_raw_mode(mode);
    if at.path.is_root() {
        return rustix::fs::mkdirat(CWD, at.root.path(), mode);
    }
    resolver.in_parent(at, |directory, name| rustix::fs::mkdirat(directory, name, mode))
}

/// Removes something that is not a directory.
pub(super) fn remove_file(resolver: &Resolver, at: &Location) -> Result<()> {
    if at.path.is_root() {
        // The directory, or the administrator's link to it.
        return Err(Errno::ISDIR);
    }
    resolver.in_parent(at, |directory, name| rustix::fs::unlinkat(directory, name, AtFlags::empty()))
}

fn done(result: Result<()>) -> Completion {
    result.map(|()| Outcome::Done).map_err(Failure::from)
}

fn opened(result: Result<std::os::fd::OwnedFd>) -> Completion {
    Ok(Outcome::File(result?.into()))
}

/// A new entry cannot take the place of a root.
fn exists_if_root(at: &Location) -> Result<()> {
    if at.path.is_root() { Err(Errno::EXIST) } else { Ok(()) }
}

fn close(file: File) -> Result<()> {
    match Rc::try_unwrap(file.0) {
        Ok(descriptor) => close_descriptor(descriptor),
        // The others keep the file open. Closing any of its descriptors tells what closing tells.
        Err(shared) => close_descriptor(rustix::io::fcntl_dupfd_cloexec(&shared, 0)?),
    }
}

/// A directory and a name in it.
type At<'a> = (BorrowedFd<'a>, &'a [u8]);

/// Renames `file`, if it is one. It may have been done before by a helper that is lost, which only tells where device
/// and inode number are relied on.
fn rename(file: Option<&File>, over: &Over, (old, old_name): At<'_>, (new, new_name): At<'_>) -> Result<()> {
    let is_there = || file.is_some_and(|file| is_place_of(file, new, new_name, |_, _| false));
    if file.is_some_and(|file| !is_place_of(file, old, old_name, identity::as_long)) {
        return if is_there() { Ok(()) } else { Err(Errno::STALE) };
    }
    match over {
        Over::Nothing => match rename_new(old, old_name, new, new_name) {
            // Both names are the file's.
            Err(Errno::EXIST) if is_there() => rustix::fs::unlinkat(old, old_name, AtFlags::empty()),
            result => result,
        },
        Over::This(file) if !is_place_of(file, new, new_name, identity::as_old_and_long) => Err(Errno::STALE),
        Over::Anything | Over::This(_) => rustix::fs::renameat(old, old_name, new, new_name),
    }
}

/// Renames to a name that nothing has, also where the file system does not know how to.
fn rename_new(old: BorrowedFd<'_>, old_name: &[u8], new: BorrowedFd<'_>, new_name: &[u8]) -> Result<()> {
    match rename_refusing(old, old_name, new, new_name)? {
        Refusing::Renamed => Ok(()),
        Refusing::Cannot => look_and_rename(old, old_name, new, new_name),
    }
}

/// What came of renaming to a name that the file system itself refuses if something has it.
pub(super) enum Refusing {
    Renamed,
    /// The file system has no means for that.
    Cannot,
}

/// Renames to a name that nothing has, if the file system can tell by itself.
pub(super) fn rename_refusing(
    old: BorrowedFd<'_>,
    old_name: &[u8],
    new: BorrowedFd<'_>,
    new_name: &[u8],
) -> Result<Refusing> {
    match rustix::fs::renameat_with(old, old_name, new, new_name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => link_new(old, old_name, new, new_name),
        result => result.map(|()| Refusing::Renamed),
    }
}

/// As [`rename_refusing`], in two steps: a crash in between leaves both names, of which the old one is known
/// to be temporary.
fn link_new(old: BorrowedFd<'_>, old_name: &[u8], new: BorrowedFd<'_>, new_name: &[u8]) -> Result<Refusing> {
    match rustix::fs::linkat(old, old_name, new, new_name, AtFlags::empty()) {
        Ok(()) => rustix::fs::unlinkat(old, old_name, AtFlags::empty()).map(|()| Refusing::Renamed),
        // What the kernel and file systems say that have no hard links.
        Err(Errno::PERM | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(Refusing::Cannot),
        Err(errno) => Err(errno),
    }
}

/// As [`rename_new`] where nothing else is left. Operations of this server on one name follow each other, so only
/// another program can give the name to something else in between.
fn look_and_rename(old: BorrowedFd<'_>, old_name: &[u8], new: BorrowedFd<'_>, new_name: &[u8]) -> Result<()> {
    match rustix::fs::statat(new, new_name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Err(Errno::EXIST),
        Err(Errno::NOENT) => rustix::fs::renameat(old, old_name, new, new_name),
        Err(errno) => Err(errno),
    }
}

/// Whether `name` in `directory` is still the name of `file`; `alike` is what counts where inode numbers do not.
fn is_place_of(file: &File, directory: BorrowedFd<'_>, name: &[u8], alike: fn(&Stat, &Stat) -> bool) -> bool {
    let look = || rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    identity::is_name_of(file.0.as_fd(), look, alike).unwrap_or(false)
}

/// Closes and tells what closing says, which on network file systems is where writing fails.
pub(super) fn close_descriptor(descriptor: std::os::fd::OwnedFd) -> Result<()> {
    match nix::unistd::close(descriptor) {
        // Linux has released the descriptor even when a signal interrupted the call.
        Ok(()) | Err(nix::Error::EINTR) => Ok(()),
        Err(errno) => Err(Errno::from_raw_os_error(errno as i32)),
    }
}

fn set_times(file: BorrowedFd<'_>, modified: i64) -> Result<()> {
    let time = Timespec { tv_sec: modified, tv_nsec: 0 };
    rustix::fs::futimens(file, &Timestamps { last_access: time, last_modification: time })
}

fn set_owner(names: &mut Names, file: BorrowedFd<'_>, user: Option<&str>, group: Option<&str>) -> Completion {
    let uid = user.and_then(|name| names.uid(name));
    let gid = group.and_then(|name| names.gid(name));
    let stat = rustix::fs::fstat(file)?;
    let differs = uid.is_some_and(|uid| uid != stat.st_uid) || gid.is_some_and(|gid| gid != stat.st_gid);
    if differs {
        let (owner, owning_group) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        rustix::fs::fchown(file, owner, owning_group).map_err(|errno| {
            let change = OwnerChange {
                uid,
                gid,
                current_uid: stat.st_uid,
                current_user: names.user(stat.st_uid),
                current_gid: stat.st_gid,
                current_group: names.group(stat.st_gid),
            };
            Failure::new(errno, Step::ChangeOwner(Box::new(change)))
        })?;
    }
    Ok(Outcome::Done)
}

fn sync_directory(resolver: &Resolver, at: &Location) -> Completion {
    let directory = resolver
        .open(at, OFlags::RDONLY | OFlags::DIRECTORY | CAREFUL, Mode::empty())
        .map_err(|errno| Failure::new(errno, Step::Open))?;
    retry_on_intr(|| rustix::fs::fsync(&directory))?;
    close_descriptor(directory).map_err(|errno| Failure::new(errno, Step::Close))?;
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_something_has_is_not_taken_in_either_way() {
        let base = tempfile::tempdir().unwrap();
        let directory = rustix::fs::open(base.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        let at = directory.as_fd();
        let by_link = |old: BorrowedFd<'_>, old_name: &[u8], new: BorrowedFd<'_>, new_name: &[u8]| {
            link_new(old, old_name, new, new_name).map(|done| assert!(matches!(done, Refusing::Renamed)))
        };
        for rename in [rename_new, by_link, look_and_rename] {
            std::fs::write(base.path().join("old"), "old").unwrap();
            std::fs::write(base.path().join("taken"), "taken").unwrap();
            assert_eq!(rename(at, b"old", at, b"taken"), Err(Errno::EXIST));
            assert_eq!(std::fs::read(base.path().join("taken")).unwrap(), b"taken");
            rename(at, b"old", at, b"new").unwrap();
            assert!(!base.path().join("old").exists());
            assert_eq!(std::fs::read(base.path().join("new")).unwrap(), b"old");
            std::fs::remove_file(base.path().join("new")).unwrap();
        }
    }
}
