//! Error numbers of the operating system.

use rustix::io;
use serde::{Deserialize, Serialize};

/// An error number of the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errno(pub i32);

#[allow(missing_docs, reason = "the names are those of the system")]
impl Errno {
    pub const PERM: Self = Self::of(io::Errno::PERM);
    pub const NOENT: Self = Self::of(io::Errno::NOENT);
    pub const IO: Self = Self::of(io::Errno::IO);
    pub const AGAIN: Self = Self::of(io::Errno::AGAIN);
    pub const ACCESS: Self = Self::of(io::Errno::ACCESS);
    pub const EXIST: Self = Self::of(io::Errno::EXIST);
    pub const XDEV: Self = Self::of(io::Errno::XDEV);
    pub const NOTDIR: Self = Self::of(io::Errno::NOTDIR);
    pub const INVAL: Self = Self::of(io::Errno::INVAL);
    pub const NOSPC: Self = Self::of(io::Errno::NOSPC);
    pub const ROFS: Self = Self::of(io::Errno::ROFS);
    pub const NAMETOOLONG: Self = Self::of(io::Errno::NAMETOOLONG);
    pub const STALE: Self = Self::of(io::Errno::STALE);

    const fn of(errno: io::Errno) -> Self {
        Self(errno.raw_os_error())
    }
}

impl From<io::Errno> for Errno {
    fn from(errno: io::Errno) -> Self {
        Self::of(errno)
    }
}
