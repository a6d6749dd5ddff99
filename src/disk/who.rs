//! Who does an operation: the server itself what does not wait for the disk, helpers the rest.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::{Errno, ReadWriteFlags, preadv2, retry_on_intr};

use super::Operation;
use super::file_system::{FileSystem, Kind, kind_of};
use super::helpers::is_for_helpers;

/// Who may do an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// It may keep its caller waiting.
    Helpers,
    /// It does not wait for the disk.
    Server,
}

/// Who does an operation on this file system: by what it is, and by what the file system has lately done.
pub(super) fn who(operation: &Operation, on: Option<&FileSystem>) -> Who {
    let others = |kind| if on.is_some_and(|on| on.is_slow(kind)) { Who::Helpers } else { Who::Server };
    match (operation, kind_of(operation)) {
        (operation, _) if !is_for_helpers(operation) => Who::Server,
        (_, Kind::Look) => others(Kind::Look),
        (Operation::Read { file, length, offset, .. }, Kind::Data) => match others(Kind::Data) {
            Who::Server if is_cold(file.0.as_fd(), *length, *offset) => Who::Helpers,
            who => who,
        },
        (_, Kind::Data) => others(Kind::Data),
        // The last two are many changes each.
        (
            Operation::Sync { .. }
            | Operation::SyncDirectory { .. }
            | Operation::RemoveTree { .. }
            | Operation::RemoveMore { .. },
            _,
        ) => Who::Helpers,
        (_, Kind::Change) if on.is_some_and(|on| !on.may_be_slow() && on.changes_at_once()) => Who::Server,
        (_, Kind::Change) => Who::Helpers,
    }
}

/// Whether reading this would wait for the disk. Only its first and its last byte are looked at: what is
/// read ahead is read in order. To read the data themselves in this way, safe Rust would have to zero their room
/// first, which takes longer from 64 KiB on (50 us for a block of 1 MiB, where both looks take one).
fn is_cold(file: BorrowedFd<'_>, length: usize, offset: u64) -> bool {
    let last = offset.saturating_add(length.saturating_sub(1) as u64);
    [offset, last].iter().any(|offset| {
        let mut byte = [0];
        let read = retry_on_intr(|| preadv2(file, &mut [IoSliceMut::new(&mut byte)], *offset, ReadWriteFlags::NOWAIT));
        // A file system that cannot tell, as those of a network, is taken to be slow.
        matches!(read, Err(Errno::AGAIN | Errno::OPNOTSUPP))
    })
}
