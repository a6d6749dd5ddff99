//! Places on disk: a directory that the administrator chose, and a path below it that may not
//! leave it.

use std::cell::RefCell;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

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
}

impl Root {
    /// The directory at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Rc<Self> {
        Rc::new(Self { path: path.into(), handle: RefCell::new(None) })
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
    }
}

/// A path below a root: no `..`, no empty or `.` component, nothing absolute, no zero byte. Empty
/// for the root itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RelativePath(String);

impl RelativePath {
    /// `text` as a path below a root, or `None` when it is not one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let clean = |name: &str| !matches!(name, "" | "." | "..") && name.len() <= NAME_MAXIMUM && !name.contains('\0');
        let valid = text.is_empty() || text.len() <= PATH_MAXIMUM && text.split('/').all(clean);
        valid.then(|| Self(text.to_owned()))
    }

    /// The path as text, without a slash in front.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of `name` in this directory, if such a name is allowed.
    #[must_use]
    pub fn join(&self, name: &str) -> Option<Self> {
        if self.is_root() { Self::new(name) } else { Self::new(&format!("{}/{name}", self.0)) }
    }

    /// Whether it is the root itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path of the directory that holds the entry (empty for the root) and the entry's name, or
    /// `None` for the root itself.
    pub(super) fn split_last(&self) -> Option<(&str, &str)> {
        (!self.is_root()).then(|| self.0.rsplit_once('/').unwrap_or(("", &self.0)))
    }
}

/// Which symbolic links lead on to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
        Some(Self { root: Rc::clone(&self.root), path: RelativePath(parent.to_owned()), ..*self })
    }

    /// The place whose last name has `suffix` added, if such a name is allowed.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Option<Self> {
        if self.path.is_root() {
            return None;
        }
        let path = RelativePath::new(&format!("{}{suffix}", self.path.0))?;
        Some(Self { root: Rc::clone(&self.root), path, ..*self })
    }
}

impl fmt::Display for Location {
    /// The absolute path, as error texts show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.root.path.to_str(), self.path.is_root()) {
            (Some("/"), _) => write!(f, "/{}", self.path.0),
            (_, true) => write!(f, "{}", self.root.path.display()),
            (_, false) => write!(f, "{}/{}", self.root.path.display(), self.path.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
