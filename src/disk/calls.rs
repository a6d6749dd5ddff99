//! What operations consist of: reading, writing, closing, making, renaming and removing, each until it is done.
//!
//! Where a place is, [`super::resolve`] finds out; what an operation comes to, its back end says.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps};
use rustix::io::{Errno, Result, pread, pwrite, retry_on_intr};

use super::location::Location;
use super::resolve::Resolver;
use super::{File, Over, identity};

/// Neither a pipe without a partner nor a terminal may stop or take over the process; regular files
/// know no difference.
pub(super) const CAREFUL: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Spare room of a buffer, beyond the bytes that are wanted, that may be read into and cut off again:
/// an eighth of them. More would be worse than zeroing the buffer.
const SLACK_DIVISOR: usize = 8;

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

/// Closes a file and tells what only closing tells, also while others keep it open.
pub(super) fn close(file: File) -> Result<()> {
    match Rc::try_unwrap(file.0) {
        Ok(descriptor) => close_descriptor(descriptor),
        // The others keep the file open. Closing any of its descriptors tells what closing tells.
        Err(shared) => close_descriptor(rustix::io::fcntl_dupfd_cloexec(&shared, 0)?),
    }
}

/// A directory and a name in it.
pub(super) type At<'a> = (BorrowedFd<'a>, &'a [u8]);

/// Renames `file`, if it is one. It may have been done before by a helper that is lost, which only tells where device
/// and inode number are relied on.
pub(super) fn rename(file: Option<&File>, over: &Over, (old, old_name): At<'_>, (new, new_name): At<'_>) -> Result<()> {
    let is_there = || file.is_some_and(|file| is_place_of(file, new, new_name, |_, _| false));
    if file.is_some_and(|file| !is_place_of(file, old, old_name, identity::as_long)) {
        return if is_there() { Ok(()) } else { Err(Errno::STALE) };
    }
    match over {
        Over::Nothing => match rename_new((old, old_name), (new, new_name)) {
            // Both names are the file's.
            Err(Errno::EXIST) if is_there() => rustix::fs::unlinkat(old, old_name, AtFlags::empty()),
            result => result,
        },
        Over::This(file) if !is_place_of(file, new, new_name, identity::as_old_and_long) => Err(Errno::STALE),
        Over::Anything | Over::This(_) => rustix::fs::renameat(old, old_name, new, new_name),
    }
}

/// Renames to a name that nothing has, also where the file system does not know how to.
fn rename_new(old: At<'_>, new: At<'_>) -> Result<()> {
    match rename_refusing(old, new)? {
        Refusing::Renamed => Ok(()),
        Refusing::Cannot => look_and_rename(old, new),
    }
}

/// What came of renaming to a name that the file system itself refuses if something has it.
pub(super) enum Refusing {
    Renamed,
    /// The file system has no means for that.
    Cannot,
}

/// Renames to a name that nothing has, if the file system can tell by itself.
pub(super) fn rename_refusing(old: At<'_>, new: At<'_>) -> Result<Refusing> {
    match rustix::fs::renameat_with(old.0, old.1, new.0, new.1, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => link_new(old, new),
        result => result.map(|()| Refusing::Renamed),
    }
}

/// As [`rename_refusing`], in two steps: a crash in between leaves both names, of which the old one is known
/// to be temporary.
fn link_new((old, old_name): At<'_>, (new, new_name): At<'_>) -> Result<Refusing> {
    match rustix::fs::linkat(old, old_name, new, new_name, AtFlags::empty()) {
        Ok(()) => rustix::fs::unlinkat(old, old_name, AtFlags::empty()).map(|()| Refusing::Renamed),
        // What the kernel and file systems say that have no hard links.
        Err(Errno::PERM | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(Refusing::Cannot),
        Err(errno) => Err(errno),
    }
}

/// As [`rename_new`] where nothing else is left. Operations of this server on one name follow each other, so only
/// another program can give the name to something else in between.
fn look_and_rename((old, old_name): At<'_>, (new, new_name): At<'_>) -> Result<()> {
    match rustix::fs::statat(new, new_name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Err(Errno::EXIST),
        Err(Errno::NOENT) => rustix::fs::renameat(old, old_name, new, new_name),
        Err(errno) => Err(errno),
    }
}

/// Whether `name` in `directory` is still the name of `file`; `alike` is what counts where inode numbers do not.
pub(super) fn is_place_of(
    file: &File,
    directory: BorrowedFd<'_>,
    name: &[u8],
    alike: fn(&Stat, &Stat) -> bool,
) -> bool {
    let look = || rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    identity::is_name_of(file.0.as_fd(), look, alike).unwrap_or(false)
}

/// Closes and tells what closing says, which on network file systems is where writing fails.
pub(super) fn close_descriptor(descriptor: OwnedFd) -> Result<()> {
    match nix::unistd::close(descriptor) {
        // Linux has released the descriptor even when a signal interrupted the call.
        Ok(()) | Err(nix::Error::EINTR) => Ok(()),
        Err(errno) => Err(Errno::from_raw_os_error(errno as i32)),
    }
}

/// Sets access and modification time to seconds since 1970.
pub(super) fn set_times(file: BorrowedFd<'_>, modified: i64) -> Result<()> {
    let time = Timespec { tv_sec: modified, tv_nsec: 0 };
    rustix::fs::futimens(file, &Timestamps { last_access: time, last_modification: time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_something_has_is_not_taken_in_either_way() {
        let base = tempfile::tempdir().unwrap();
        let directory = rustix::fs::open(base.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        let at = directory.as_fd();
        let by_link =
            |old: At<'_>, new: At<'_>| link_new(old, new).map(|done| assert!(matches!(done, Refusing::Renamed)));
        for rename in [rename_new, by_link, look_and_rename] {
            std::fs::write(base.path().join("old"), "old").unwrap();
            std::fs::write(base.path().join("taken"), "taken").unwrap();
            assert_eq!(rename((at, b"old"), (at, b"taken")), Err(Errno::EXIST));
            assert_eq!(std::fs::read(base.path().join("taken")).unwrap(), b"taken");
            rename((at, b"old"), (at, b"new")).unwrap();
            assert!(!base.path().join("old").exists());
            assert_eq!(std::fs::read(base.path().join("new")).unwrap(), b"old");
            std::fs::remove_file(base.path().join("new")).unwrap();
        }
    }
}
