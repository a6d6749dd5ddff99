//! Replacing a file as a whole, by what does so itself and waits for the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// What the name ends with under which a file is written. Not pgBackRest's, since a client may be writing.
const TEMPORARY_SUFFIX: &str = ".repohostd.tmp";

/// Replaces the file at `path` by one that says `bytes`: whatever happens to the power, it is the old or the new one. The
/// umask cuts its `mode`; `prepare` is what else is to be done to it before it has its name.
///
/// # Errors
///
/// The old file is still there then, unless it is only the sync of its directory that failed.
pub fn replace_file(
    path: &Path,
    mode: u32,
    bytes: &[u8],
    prepare: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(TEMPORARY_SUFFIX);
    // One that a crash has left; a link that somebody put there is not followed.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let replace = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        prepare(&file)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    };
    replace().inspect_err(|_| {
        // What to report is why it could not be written.
        let _ = fs::remove_file(&temporary);
    })
}
