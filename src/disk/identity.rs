//! Whether a name still belongs to an open file.
//!
//! Device and inode number tell, where they are the same each time that one looks. On some network and FUSE file
//! systems they are not, and then only what else is known of a file counts. Since two operations of this server on
//! one name never run at a time, what that leaves unnoticed is what other programs do.

use std::os::fd::BorrowedFd;

use rustix::fs::{Stat, fstat};
use rustix::io::Result;

/// Whether what `look` finds under a name is `file`. Where inode numbers are not to be relied on, it is if the file
/// still has a name and the two are `alike`.
///
/// The inode of an open file cannot have been given to another one.
///
/// # Errors
///
/// What looking at either fails with: that there is nothing of that name, for instance.
pub(super) fn is_name_of(
    file: BorrowedFd<'_>,
    look: impl Fn() -> Result<Stat>,
    alike: fn(&Stat, &Stat) -> bool,
) -> Result<bool> {
    let (ours, there) = (fstat(file)?, look()?);
    if is_one(&ours, &there) {
        return Ok(true);
    }
    let (ours_again, there_again) = (fstat(file)?, look()?);
    let is_reliable = is_one(&ours, &ours_again) && is_one(&there, &there_again);
    Ok(!is_reliable && ours_again.st_nlink > 0 && alike(&ours_again, &there_again))
}

/// For a file that somebody else may be writing too: half of it has another size.
pub(super) fn as_long(one: &Stat, other: &Stat) -> bool {
    (one.st_mode, one.st_size) == (other.st_mode, other.st_size)
}

/// For a file that nobody writes any more.
pub(super) fn as_old_and_long(one: &Stat, other: &Stat) -> bool {
    as_long(one, other) && (one.st_mtime, one.st_mtime_nsec) == (other.st_mtime, other.st_mtime_nsec)
}

fn is_one(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs::{self, File};
    use std::os::fd::AsFd;
    use std::path::Path;

    use rustix::fs::lstat;
    use rustix::io::Errno;

    use super::*;

    /// What is at `path`, with another inode number each time.
    fn unstable(path: &Path) -> impl Fn() -> Result<Stat> {
        let looks = Cell::new(0);
        move || {
            looks.set(looks.get() + 1);
            let mut stat = lstat(path)?;
            stat.st_ino += looks.get() << 40;
            Ok(stat)
        }
    }

    #[test]
    fn another_file_of_the_same_size_and_time_is_another_one_where_numbers_are_stable() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = File::create(&path).unwrap();
        let is_ours = || is_name_of(file.as_fd(), || lstat(&path), |_, _| true);
        assert_eq!(is_ours(), Ok(true));
        fs::remove_file(&path).unwrap();
        assert_eq!(is_ours(), Err(Errno::NOENT));
        fs::write(&path, "").unwrap();
        assert_eq!(is_ours(), Ok(false));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert_eq!(is_ours(), Ok(false));
    }

    #[test]
    fn where_numbers_change_the_size_tells_half_a_file_from_a_whole_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "whole").unwrap();
        let file = File::open(&path).unwrap();
        let second_name = directory.path().join("second");
        fs::hard_link(&path, &second_name).unwrap();
        let is_ours = |alike| is_name_of(file.as_fd(), unstable(&path), alike);
        assert_eq!((is_ours(as_long), is_ours(as_old_and_long)), (Ok(true), Ok(true)));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "half").unwrap();
        assert_eq!(is_ours(as_long), Ok(false));
        fs::write(&path, "other").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!((is_ours(as_long), is_ours(as_old_and_long)), (Ok(true), Ok(false)));
        fs::remove_file(second_name).unwrap();
        assert_eq!(is_ours(as_long), Ok(false), "the file that is open has no name any more");
    }
}
