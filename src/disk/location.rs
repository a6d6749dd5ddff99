//! Places on disk: a directory that the administrator chose, and a path below it that may not
//! leave it.

use std::cell::RefCell;
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bstr::{BString, ByteSlice};
use serde::{Deserialize, Serialize};

use super::file_system::FileSystem;
use crate::protocol::carried::Carried;

/// The longest path that Linux takes, without its final zero byte.
const PATH_MAXIMUM: usize = 4095;
/// The longest name of one entry.
const NAME_MAXIMUM: usize = 255;

/// A directory that the administrator chose, opened when it is first needed.
///
/// It and everything above it are resolved following links, as the administrator made them. Each
/// session has roots of its own, so that no handle is held while nobody needs it and a volume that
/// is mounted later is seen by the next session.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    /// Set by the first operation that finds the directory, emptied when it turns out to be removed.
    handle: RefCell<Option<Rc<OwnedFd>>>,
    /// Which file system it is on, and whether the handle has told.
    file_system: RefCell<Option<(Rc<FileSystem>, bool)>>,
}

impl Root {
    /// The directory at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Rc<Self> {
        Rc::new(Self { path: path.into(), handle: RefCell::default(), file_system: RefCell::default() })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The handle, if the directory has been found before.
    pub(super) fn held(&self) -> Option<Rc<OwnedFd>> {
        self.handle.borrow().clone()
    }

    /// Keeps `handle` for the next operations.
    pub(super) fn hold(&self, handle: &Rc<OwnedFd>) {
        *self.handle.borrow_mut() = Some(Rc::clone(handle));
    }

    /// Gives the handle up, because the directory was removed or may be another one now.
    pub(super) fn forget(&self) {
        *self.handle.borrow_mut() = None;
        *self.file_system.borrow_mut() = None;
    }

    /// Which file system it is on, as far as anybody has found out, and whether the handle has told.
    pub(super) fn file_system(&self) -> Option<(Rc<FileSystem>, bool)> {
        self.file_system.borrow().clone()
    }

    /// Notes which file system it is on, and whether the handle has told.
    pub(super) fn set_file_system(&self, file_system: &Rc<FileSystem>, by_handle: bool) {
        *self.file_system.borrow_mut() = Some((Rc::clone(file_system), by_handle));
    }
}

/// A path below a root: no `..`, no empty or `.` component, nothing absolute, no zero byte. Empty
/// for the root itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RelativePath(BString);

impl RelativePath {
    /// `path` as a path below a root, or `None` when it is not one.
    #[must_use]
    pub fn new(path: impl AsRef<[u8]>) -> Option<Self> {
        Self::checked(path.as_ref().into())
    }

    fn checked(path: BString) -> Option<Self> {
        let clean = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && name.len() <= NAME_MAXIMUM;
        let valid = path.is_empty()
            || path.len() <= PATH_MAXIMUM && !path.contains(&0) && path.split(|byte| *byte == b'/').all(clean);
        valid.then_some(Self(path))
    }

    /// The path, without a slash in front.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path of `name`, or of a path below it, in this directory, if such a name is allowed.
    #[must_use]
    pub fn join(&self, name: impl AsRef<[u8]>) -> Option<Self> {
        let name = name.as_ref();
        if self.is_root() { Self::new(name) } else { Self::checked([&self.0, name].join(&b'/').into()) }
    }

    /// The last name, which is empty for the root itself.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.split_last().map_or(b"", |(_, name)| name)
    }

    /// Whether it is the root itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path of the directory that holds the entry (empty for the root) and the entry's name, or
    /// `None` for the root itself.
    pub(super) fn split_last(&self) -> Option<(&[u8], &[u8])> {
        (!self.is_root()).then(|| self.0.rsplit_once_str("/").unwrap_or((b"", &self.0)))
    }
}

/// Which symbolic links lead on to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Links {
    /// Those that stay below the root.
    #[default]
    Inside,
    /// None.
    Never,
    /// Those that belong to root, to the user that this process runs as, or to the owner of the root directory
    /// (which does not count where this process is root's), wherever they lead. Nothing special is opened.
    Owned,
}

/// A place below a root, or one that a trusted link below it leads to.
#[derive(Debug, Clone)]
pub struct Location {
    /// The directory that confines it.
    pub root: Rc<Root>,
    /// Where below it.
    pub path: RelativePath,
    /// Which links are followed on the way there.
    pub links: Links,
}

impl Location {
    /// The place `path` below `root`.
    #[must_use]
    pub const fn new(root: Rc<Root>, path: RelativePath) -> Self {
        Self { root, path, links: Links::Inside }
    }

    /// The same place, but only if it is reached without a link.
    #[must_use]
    pub fn without_links(self) -> Self {
        Self { links: Links::Never, ..self }
    }

    /// The same place, reached through links that the owner made.
    #[must_use]
    pub fn through_owned_links(self) -> Self {
        Self { links: Links::Owned, ..self }
    }

    /// The directory that this place is in, if that is still within the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (parent, _) = self.path.split_last()?;
        Some(Self { root: Rc::clone(&self.root), path: RelativePath(parent.into()), ..*self })
    }

    /// The place whose last name has `suffix` added, if such a name is allowed.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Option<Self> {
        if self.path.is_root() {
            return None;
        }
        let path = RelativePath::checked([&self.path.0, suffix.as_bytes()].concat().into())?;
        Some(Self { root: Rc::clone(&self.root), path, ..*self })
    }

    /// The absolute path.
    #[must_use]
    pub fn absolute(&self) -> BString {
        let (root, between) = self.parts();
        [root, between, &self.path.0].concat().into()
    }

    /// What the absolute path begins with, and what is between that and the path below the root.
    fn parts(&self) -> (&[u8], &'static [u8]) {
        match (self.root.path.as_os_str().as_bytes(), self.path.is_root()) {
            (b"/", _) => (b"", b"/"),
            (root, true) => (root, b""),
            (root, false) => (root, b"/"),
        }
    }
}

impl fmt::Display for Location {
    /// The absolute path, as error texts [carry](crate::protocol::carried) it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (root, between) = self.parts();
        write!(f, "{}{}{}", Carried(root), Carried(between), Carried(&self.path.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::carried::restore;

    #[test]
    fn nothing_that_leaves_a_root_is_a_relative_path() {
        for text in ["..", "a/..", "../a", "/a", "a//b", "a/", "./a", "a/.", "a\0b", &"x".repeat(256)] {
            assert_eq!(RelativePath::new(text), None, "{text:?}");
        }
        for text in ["", "a", "a/b", "..a", "a..", "...", "ü"] {
            assert!(RelativePath::new(text).is_some(), "{text:?}");
        }
    }

    #[test]
    fn names_are_bytes() {
        let path = RelativePath::new(b"a\xff/caf\xe9\n").unwrap();
        assert_eq!(path.name(), b"caf\xe9\n");
        assert_eq!(path.join(b"\x80").unwrap().as_bytes(), b"a\xff/caf\xe9\n/\x80");
        assert_eq!(path.join(b"a\0"), None);
        let place = Location::new(Root::new(std::ffi::OsStr::from_bytes(b"/\xfe")), path);
        assert_eq!(place.absolute(), b"/\xfe/a\xff/caf\xe9\n".as_bstr());
        assert_eq!(*restore(&place.to_string()), *place.absolute());
        assert_eq!(place.with_suffix(".tmp").unwrap().path.name(), b"caf\xe9\n.tmp");
        let top = Location::new(Root::new("/"), RelativePath::default());
        assert_eq!((top.absolute(), top.to_string().as_str()), ("/".into(), "/"));
    }

    #[test]
    fn places_print_as_absolute_paths() {
        let root = Root::new("/srv/repo");
        let place = Location::new(Rc::clone(&root), RelativePath::new("archive/demo").unwrap());
        assert_eq!(place.to_string(), "/srv/repo/archive/demo");
        assert_eq!(place.parent().unwrap().to_string(), "/srv/repo/archive");
        assert_eq!(place.parent().unwrap().parent().unwrap().to_string(), "/srv/repo");
        assert!(Location::new(root, RelativePath::default()).parent().is_none());
        assert_eq!(place.with_suffix(".tmp").unwrap().to_string(), "/srv/repo/archive/demo.tmp");
    }
}
