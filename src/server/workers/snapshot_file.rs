//! The configuration in a file in memory, which workers are given.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::config::snapshot::Snapshot;

/// Keeps a snapshot in memory.
pub(super) fn keep(snapshot: &Snapshot) -> io::Result<OwnedFd> {
    let bytes = postcard::to_allocvec(snapshot).map_err(io::Error::other)?;
    let file = memfd_create("repohostd-configuration", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(file);
    file.write_all(&bytes)?;
    Ok(file.into())
}

/// What [`keep`] kept.
///
/// # Errors
///
/// Those of reading the file; `InvalidData` for something else.
pub(crate) fn recall(kept: OwnedFd) -> io::Result<Snapshot> {
    let file = std::fs::File::from(kept);
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    // All share one position in it, so none uses that.
    file.read_exact_at(&mut bytes, 0)?;
    postcard::from_bytes(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::snapshot::Origin;

    #[test]
    fn a_snapshot_is_recalled_as_often_as_it_is_given() {
        let origin = Origin::recording();
        origin.read("/proc/version".as_ref()).unwrap();
        let snapshot = origin.into_snapshot();
        let kept = keep(&snapshot).unwrap();
        for _ in 0..2 {
            let recalled = recall(kept.try_clone().unwrap()).unwrap();
            assert_eq!(postcard::to_allocvec(&recalled).unwrap(), postcard::to_allocvec(&snapshot).unwrap());
        }
    }
}
