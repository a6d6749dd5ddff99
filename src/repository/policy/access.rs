//! What requests do with paths.

/// What a request is about to do with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Look at an entry or list a directory.
    Look,
    /// Read a file.
    Read,
    /// Make a directory or put it on stable storage.
    Directory,
    /// Write or replace a file.
    Write,
    /// Remove a file or an empty directory.
    Remove,
    /// Remove a directory with all that is in it.
    RemoveTree,
    /// Make a symbolic link.
    Link,
    /// Make a second name of a file.
    HardLink,
}

impl Access {
    /// Whether anything is other than before afterwards.
    pub(crate) const fn changes(self) -> bool {
        !matches!(self, Self::Look | Self::Read)
    }

    pub(super) const fn verb(self) -> &'static str {
        match self {
            Self::Look => "look at",
            Self::Read => "read",
            Self::Directory => "make or sync",
            Self::Write => "write",
            Self::Remove | Self::RemoveTree => "remove",
            Self::Link | Self::HardLink => "link",
        }
    }
}
