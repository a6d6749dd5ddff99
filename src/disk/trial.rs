//! What a file system can do, found out by trying.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use super::calls::{Refusing, rename_refusing};

/// Whether the file system that `directory` is on refuses by itself to give a file a name that is taken. Tries it with
/// an empty file, which is removed again.
///
/// # Errors
///
/// What the system says, if that cannot be tried.
pub fn refuses_taken_names(directory: &Path) -> io::Result<bool> {
    let directory = openat(CWD, directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let names = ["one", "other"].map(|name| format!(".repohostd-{name}-{}.tmp", std::process::id()));
    let [old, new] = &names;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    drop(openat(&directory, old, flags, Mode::RUSR | Mode::WUSR)?);
    let renamed = rename_refusing((directory.as_fd(), old.as_bytes()), (directory.as_fd(), new.as_bytes()));
    let left = if matches!(renamed, Ok(Refusing::Renamed)) { new } else { old };
    match unlinkat(&directory, left, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(matches!(renamed?, Refusing::Renamed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        assert!(refuses_taken_names(directory.path()).unwrap());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(refuses_taken_names(&directory.path().join("missing")).is_err());
    }
}
