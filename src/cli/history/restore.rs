//! Putting a version back: no client may notice half of it, and what is replaced is kept as well.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown, lchown};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bstr::ByteSlice;
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};

use super::{Version, newest, read, understand};
use crate::cli::{entries, failed};
use crate::config::Host;
use crate::disk::inline::{Inline, Options};
use crate::disk::{Disk, Location, RelativePath, Root, Ticket, replace_file};
use crate::protocol::error::{Code, Error, Result};
use crate::repository::policy::info::Reading;
use crate::repository::policy::versions::Versions;
use crate::repository::posix::keep::Keep;
use crate::repository::{Next, Shared};

const COPY_SUFFIX: &str = ".copy";
/// Mode of a file that takes nobody's place.
const FILE_MODE: u32 = 0o640;

/// Puts `version` back in place of its file and the copy, which pgBackRest keeps alike. Returns what to
/// say about it.
pub(super) fn restore(host: &Host, history: &Path, version: &Version) -> Result<String> {
    let bytes = read(&version.path)?;
    let contents = match understand(host, &bytes) {
        Reading::Known(file) => match newest(&file) {
            Some(newest) => format!("{} backups, the newest is {newest}", file.labels().count()),
            None => "no backups".to_owned(),
        },
        Reading::Opaque => "encrypted, and not looked into without repo-cipher-pass".to_owned(),
        Reading::Damaged(reason) => {
            let message = format!("version '{}' is of no use: {reason}", version.path.display());
            return Err(Error::new(Code::FileInvalid, message));
        }
    };
    let stanza = version.stanza();
    let _locks = lock(&host.lock_path, stanza)?;
    let directory = version.file.parent().filter(|directory| directory.is_dir()).ok_or_else(|| {
        let text = format!("'{}' cannot be put back since its directory is gone", version.file.display());
        Error::new(Code::PathMissing, text)
    })?;
    let [main, copy] = both(&version.file);
    for file in [&main, &copy] {
        keep(history, host.own.protection.info_history, file)?;
    }
    for (file, other) in [(&main, &copy), (&copy, &main)] {
        replace(directory, file, other, &bytes)
            .map_err(|error| failed(Code::FileWrite, "unable to replace", file, &error))?;
    }
    Ok(format!(
        "version {} of '{}' is put back: {contents}.\n'{}' and its copy say that now, and what they said before is kept \
         as versions too.\nLook at the result with:\n  pgbackrest --stanza={stanza} info\nand on the PostgreSQL \
         host:\n  pgbackrest --stanza={stanza} check",
        version.name,
        version.file.display(),
        main.display()
    ))
}

/// An info file and its copy, in the order in which pgBackRest writes them.
fn both(file: &Path) -> [PathBuf; 2] {
    let path = file.as_os_str().as_bytes();
    let main = Path::new(OsStr::from_bytes(path.strip_suffix(COPY_SUFFIX.as_bytes()).unwrap_or(path)));
    [main.to_owned(), with_suffix(main, COPY_SUFFIX)]
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Takes the locks of backups of the stanza, as far as there are such files, or says who has one.
fn lock(lock_path: &Path, stanza: &str) -> Result<Vec<File>> {
    let mut held = Vec::new();
    for path in entries(lock_path) {
        if !path.file_name().and_then(OsStr::to_str).is_some_and(|name| is_lock(name, stanza)) {
            continue;
        }
        let busy = |error: &io::Error| {
            let mut error = Error::io(
                Code::LockAcquire,
                format_args!("unable to acquire lock on file '{}'", path.display()),
                error,
            );
            error.message +=
                "\nHINT: a backup or expire of this stanza is running; wait for its end, or 'pgbackrest stop --force'.";
            error
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(busy(&error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => held.push(file),
            Err(errno) => return Err(busy(&errno.into())),
        }
    }
    Ok(held)
}

/// Whether a file is a lock of backups of the stanza: `demo-backup.lock`, or `demo-backup-1.lock` of newer
/// releases.
fn is_lock(name: &str, stanza: &str) -> bool {
    let rest = name.strip_prefix(stanza).and_then(|rest| rest.strip_prefix("-backup")?.strip_suffix(".lock"));
    rest.is_some_and(|rest| {
        let digits = rest.strip_prefix('-');
        rest.is_empty()
            || digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// Keeps what `file` is now.
fn keep(history: &Path, count: usize, file: &Path) -> Result<()> {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(Code::FileRead, "unable to read", file, &error)),
    };
    let path = RelativePath::new(file.as_os_str().as_bytes().trim_start_with(|first| first == '/'));
    let (Some(path), Some(versions)) = (path, Versions::new(history, count)) else { return Ok(()) };
    let at = Location::new(Root::new("/"), path);
    let place = history.join(OsStr::from_bytes(at.path.as_bytes()));
    let missing: Vec<_> = place.ancestors().take_while(|path| !path.exists()).map(Path::to_owned).collect();
    let before: Vec<_> = entries(&place).collect();

    let shared = Rc::<Shared>::default();
    shared.now.set(Timestamp::now());
    let (mut keep, operation) = Keep::begin(&shared, versions, &at, bytes)?;
    let mut disk = Inline::new(Options::default());
    let mut next = Next::Disk(operation);
    while let Next::Disk(operation) = next {
        disk.submit(Ticket { session: 0, operation: 0 }, operation);
        let Some((_, completion)) = disk.complete() else { break };
        next = keep.resume(completion)?;
    }
    let made = missing.into_iter().chain(entries(&place).filter(|path| !before.contains(path)));
    give_to_server(made.collect())
        .map_err(|error| failed(Code::FileOwner, "unable to set ownership for", &place, &error))
}

/// Gives what root has made to the owner of the directory that it was made in, so that the server can keep
/// more there.
fn give_to_server(mut made: Vec<PathBuf>) -> io::Result<()> {
    // Outer directories first.
    made.sort();
    for path in &made {
        let Some(above) = path.parent() else { continue };
        let (owner, own) = (fs::metadata(above)?, fs::symlink_metadata(path)?);
        if (owner.uid(), owner.gid()) != (own.uid(), own.gid()) {
            lchown(path, Some(owner.uid()), Some(owner.gid()))?;
        }
    }
    Ok(())
}

/// Replaces `file` by one that says `bytes`, with the owner and mode of the file itself, of the `other` one
/// or of their directory.
fn replace(directory: &Path, file: &Path, other: &Path, bytes: &[u8]) -> io::Result<()> {
    let before = fs::symlink_metadata(file).or_else(|_| fs::symlink_metadata(other)).ok().filter(fs::Metadata::is_file);
    let mode = before.as_ref().map_or(FILE_MODE, |before| before.mode() & 0o777);
    let owner = before.map_or_else(|| fs::metadata(directory), Ok)?;
    replace_file(file, mode, bytes, |new| {
        let own = new.metadata()?;
        if (own.uid(), own.gid()) != (owner.uid(), owner.gid()) {
            fchown(new, Some(owner.uid()), Some(owner.gid()))?;
        }
        new.set_permissions(fs::Permissions::from_mode(mode))
    })
}
