//! Opening a path below a root so that nothing leads out of it.
//!
//! This is the only place that turns a [`Location`] into a descriptor. It owns the rule of
//! confinement, and what happens to a root's handle; what is done with the descriptor is the
//! business of the back ends.
//!
//! Two ways lead to the same answer. Linux 5.6 and later resolve a path in one call,
//! `openat2(RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)`. Older kernels, and sandboxes that forbid the
//! call, get a walk that opens one component at a time without following links and interprets the
//! text of each link itself. A link inside a root may point inside it (`latest` names a backup);
//! whatever would leave it, an absolute link included, fails with EXDEV, as `openat2` has it. So does
//! any link on the way to a place [without links](Location::without_links).
//!
//! A cluster is another matter: its administrator puts tablespaces, the WAL and configuration files elsewhere
//! by links, at any depth, and whoever reads it has to follow them. There the walk goes wherever a link leads,
//! as long as the link's owner is [trusted](Trusted); who may write to a directory that the cluster links to, such
//! as one of log files, cannot lead the walk on with a link of his own. Without a link on the way one call does
//! it there too.
//!
//! What each operation costs in system calls, for a root that is open:
//!
//! | operation | last place | directories below the root |
//! |---|---|---|
//! | open | `openat2` | the same |
//! | stat, link not followed | `fstatat` on the root's handle, since a single name without a slash cannot leave it | `openat2(O_PATH)`, `fstatat`, `close` |
//! | stat, link followed | the same unless it is a link | `openat2(O_PATH)`, `fstatat`, `close` |
//! | make, remove, rename, … | the call itself on the root's handle | `openat2(O_PATH)` of the parent, the call, `close` |
//!
//! An operation that fails with ENOENT costs an `fstat` of the root's handle more; see `below`.
//! A stat of a path with directories costs three calls whether its parent or the entry itself is
//! opened; the entry is opened, because that alone also serves links that are followed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat, openat2, readlinkat};
use rustix::io::{Errno, Result, retry_on_intr};
use rustix::process::geteuid;

use super::location::{Links, Location, Root};

/// How a descriptor is opened that only serves as the start of other calls.
pub(super) const DIRECTORY_HANDLE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// How an entry is opened to find out what it is, without any effect on it.
const ENTRY_HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How often `openat2` is tried again after it noticed a rename on its way. The walk, which a rename
/// cannot mislead, takes over then.
const ATTEMPTS: u32 = 16;

/// Links that one path may lead through, as in the kernel.
const LINKS_MAXIMUM: u32 = 40;

/// How the kernel resolves a path below a root.
pub(super) const CONFINED: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// Opens places below roots.
#[derive(Debug)]
pub(super) struct Resolver {
    /// Walk instead of asking the kernel.
    by_component: bool,
}

impl Resolver {
    /// Finds out once whether the kernel resolves confined paths itself.
    pub(super) fn new() -> Self {
        // Asked with a call that cannot fail otherwise: EPERM from opening a real file could also
        // come from the file.
        let probe = openat2(CWD, "/", DIRECTORY_HANDLE, Mode::empty(), ResolveFlags::empty());
        Self { by_component: matches!(probe, Err(Errno::NOSYS | Errno::PERM)) }
    }

    /// Walks component by component whatever the kernel can do.
    pub(super) const fn by_component() -> Self {
        Self { by_component: true }
    }

    /// Opens a place.
    ///
    /// The root itself is opened by its own path, as the administrator made it: links are followed
    /// even with `O_NOFOLLOW`.
    ///
    /// # Errors
    ///
    /// EXDEV when the path leads out of the root, EISDIR when the root itself is to be created, and
    /// everything that `open` fails with.
    pub(super) fn open(&self, at: &Location, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        if at.path.is_root() {
            if flags.contains(OFlags::CREATE) {
                return Err(Errno::ISDIR);
            }
            return retry_on_intr(|| open(at.root.path(), flags.difference(OFlags::NOFOLLOW), mode));
        }
        below(&at.root, |root| self.open_below(root, at, at.path.as_bytes(), flags, mode))
    }

    /// Opens what the link at a place points to as a mere handle, and no link that is there.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub(super) fn open_target(at: &Location) -> Result<OwnedFd> {
        below(&at.root, |root| walk_owned(root, at.path.as_bytes(), ENTRY_HANDLE, 1))
    }

    /// Runs `act` on the directory that a place is in and the place's last name.
    ///
    /// `act` must be one `*at` call that does not follow that name. It may run twice, the first time
    /// without effect, on a root that was removed and made again.
    ///
    /// # Errors
    ///
    /// EBUSY when the place is the root itself, EXDEV when its directory is outside the root, and
    /// what `act` fails with.
    pub(super) fn in_parent<T>(
        &self,
        at: &Location,
        mut act: impl FnMut(BorrowedFd<'_>, &[u8]) -> Result<T>,
    ) -> Result<T> {
        let (parent, name) = at.path.split_last().ok_or(Errno::BUSY)?;
        below(&at.root, |root| {
            if parent.is_empty() {
                return act(root, name);
            }
            let directory = self.open_below(root, at, parent, DIRECTORY_HANDLE, Mode::empty())?;
            act(directory.as_fd(), name)
        })
    }

    /// As [`Self::in_parent`] for two places, whose directory is opened once when they share it.
    ///
    /// # Errors
    ///
    /// As [`Self::in_parent`].
    pub(super) fn in_parents<T>(
        &self,
        first: &Location,
        second: &Location,
        mut act: impl FnMut(BorrowedFd<'_>, &[u8], BorrowedFd<'_>, &[u8]) -> Result<T>,
    ) -> Result<T> {
        let (parent, _) = first.path.split_last().ok_or(Errno::BUSY)?;
        let (other, second_name) = second.path.split_last().ok_or(Errno::BUSY)?;
        self.in_parent(first, |directory, name| {
            if parent == other && Rc::ptr_eq(&first.root, &second.root) {
                return act(directory, name, directory, second_name);
            }
            self.in_parent(second, |second_directory, second_name| act(directory, name, second_directory, second_name))
        })
    }

    /// Opens `path` below `root`, on the way to `at`.
    fn open_below(
        &self,
        root: BorrowedFd<'_>,
        at: &Location,
        path: &[u8],
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd> {
        if at.links == Links::Owned {
            return self.open_owned(root, path, flags);
        }
        let without_links = at.links == Links::Never;
        if !self.by_component {
            let how = if without_links { CONFINED.union(ResolveFlags::NO_SYMLINKS) } else { CONFINED };
            for _ in 0..ATTEMPTS {
                match retry_on_intr(|| openat2(root, path, flags, mode, how)) {
                    Err(Errno::AGAIN) => {}
                    Err(Errno::LOOP) if without_links => return Err(Errno::XDEV),
                    result => return result,
                }
            }
        }
        walk(root, path, without_links, flags, mode)
    }

    /// Opens `path` through links of trusted owners, for reading only.
    fn open_owned(&self, root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let open = |flags: OFlags| {
            let how = CONFINED.union(ResolveFlags::NO_SYMLINKS);
            retry_on_intr(|| openat2(root, path, flags | OFlags::NOFOLLOW, Mode::empty(), how))
        };
        if self.by_component {
            return walk_owned(root, path, flags, 0);
        }
        let opened = open(ENTRY_HANDLE).and_then(|found| {
            let kind = FileType::from_raw_mode(fstat(&found)?.st_mode);
            if kind == FileType::Symlink && !flags.contains(OFlags::NOFOLLOW) {
                return Err(Errno::LOOP);
            }
            open_found(found, kind, flags, open)
        });
        match opened {
            // There is a link on the way, or something was renamed meanwhile.
            Err(Errno::LOOP | Errno::AGAIN) => walk_owned(root, path, flags, 0),
            result => result,
        }
    }
}

/// Runs `act` on a root's handle, which is opened if nobody did so before.
///
/// A root can be removed and made again while its handle is held, by this session or another one.
/// In a removed directory nothing exists and nothing can be made, so every operation fails with
/// ENOENT; only then is the handle looked at, and `act` runs once more on the new directory.
pub(super) fn below<T>(root: &Root, mut act: impl FnMut(BorrowedFd<'_>) -> Result<T>) -> Result<T> {
    if let Some(handle) = root.held() {
        let result = act(handle.as_fd());
        let gone = matches!(result, Err(Errno::NOENT)) && fstat(&handle).is_ok_and(|stat| stat.st_nlink == 0);
        if !gone {
            return result;
        }
        root.forget();
    }
    let handle = Rc::new(retry_on_intr(|| open(root.path(), DIRECTORY_HANDLE, Mode::empty()))?);
    root.hold(&handle);
    act(handle.as_fd())
}

/// Opens `path` below `root` one component at a time.
///
/// Every directory on the way down stays open, so that `..` in a link goes back to the very
/// directory that the walk came through, wherever it has been moved meanwhile, and never above the
/// root. Nothing is ever opened by more than one name and nothing follows a link, so there is no
/// moment in which a directory swapped for a link could lead elsewhere.
fn walk(root: BorrowedFd<'_>, path: &[u8], without_links: bool, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let mut above: Vec<OwnedFd> = Vec::new();
    let mut pending: Vec<Vec<u8>> = Vec::new();
    push_components(&mut pending, path);
    let mut links = 0;
    while let Some(name) = pending.pop() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                above.pop().ok_or(Errno::XDEV)?;
                continue;
            }
            _ => {}
        }
        let here = above.last().map_or(root, AsFd::as_fd);
        let last = pending.is_empty();
        let name = name.as_slice();
        let found = match openat(here, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) if last && flags.contains(OFlags::CREATE) => {
                return retry_on_intr(|| openat(here, name, flags | OFlags::NOFOLLOW, mode));
            }
            result => result?,
        };
        let kind = FileType::from_raw_mode(fstat(&found)?.st_mode);
        let follow = !last || !flags.contains(OFlags::NOFOLLOW);
        if kind == FileType::Symlink && without_links {
            return Err(Errno::XDEV);
        }
        if kind == FileType::Symlink && follow {
            links = count_link(links)?;
            let target = readlinkat(&found, "", Vec::new())?.into_bytes();
            if target.first() == Some(&b'/') {
                return Err(Errno::XDEV);
            }
            push_components(&mut pending, &target);
            continue;
        }
        if last {
            if flags.contains(OFlags::PATH) {
                let wrong = flags.contains(OFlags::DIRECTORY) && kind != FileType::Directory;
                return if wrong { Err(Errno::NOTDIR) } else { Ok(found) };
            }
            match retry_on_intr(|| openat(here, name, flags | OFlags::NOFOLLOW, mode)) {
                // It has become a link since it was looked at.
                Err(Errno::LOOP) if follow => {
                    links = count_link(links)?;
                    let name = name.to_vec();
                    pending.push(name);
                    continue;
                }
                result => return result,
            }
        }
        if kind != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        above.push(found);
    }
    // A link's text ended in a slash or in dots: the place is the directory that was reached.
    let here = above.last().map_or(root, AsFd::as_fd);
    retry_on_intr(|| openat(here, ".", flags.difference(OFlags::CREATE | OFlags::NOFOLLOW), Mode::empty()))
}

/// Opens `path` below `root` one component at a time, through links of trusted owners wherever they lead. With
/// `O_NOFOLLOW` that many links in the last place are followed nevertheless.
fn walk_owned(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, mut behind: u32) -> Result<OwnedFd> {
    let mut trusted = None;
    let mut directory: Option<OwnedFd> = None;
    let mut pending: Vec<Vec<u8>> = Vec::new();
    push_components(&mut pending, path);
    let mut links = 0;
    while let Some(name) = pending.pop() {
        let here = directory.as_ref().map_or(root, AsFd::as_fd);
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                directory = Some(retry_on_intr(|| openat(here, "..", DIRECTORY_HANDLE, Mode::empty()))?);
                continue;
            }
            _ => {}
        }
        let last = pending.is_empty();
        let found = openat(here, name.as_slice(), ENTRY_HANDLE, Mode::empty())?;
        let stat = fstat(&found)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let stays = last && flags.contains(OFlags::NOFOLLOW) && behind == 0;
        if kind == FileType::Symlink && !stays {
            if last {
                behind = behind.saturating_sub(1);
            }
            links = count_link(links)?;
            let trusted = match trusted {
                Some(trusted) => trusted,
                None => *trusted.insert(Trusted::below(root)?),
            };
            if !trusted.owns(stat.st_uid) {
                return Err(Errno::XDEV);
            }
            let target = readlinkat(&found, "", Vec::new())?.into_bytes();
            if target.first() == Some(&b'/') {
                directory = Some(retry_on_intr(|| open("/", DIRECTORY_HANDLE, Mode::empty()))?);
            }
            push_components(&mut pending, &target);
            continue;
        }
        if last {
            let opened = open_found(found, kind, flags, |flags| {
                retry_on_intr(|| openat(here, name.as_slice(), flags | OFlags::NOFOLLOW, Mode::empty()))
            });
            match opened {
                // It has become a link since it was looked at.
                Err(Errno::LOOP) if !stays => {
                    links = count_link(links)?;
                    pending.push(name);
                    continue;
                }
                result => return result,
            }
        }
        if kind != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        directory = Some(found);
    }
    let here = directory.as_ref().map_or(root, AsFd::as_fd);
    retry_on_intr(|| openat(here, ".", flags.difference(OFlags::NOFOLLOW), Mode::empty()))
}

/// Goes from the handle of an entry to what was asked for, with `open` if that is more than the handle. Opening a
/// pipe or a device may wait, or do something, so only files and directories are opened.
fn open_found(
    found: OwnedFd,
    kind: FileType,
    flags: OFlags,
    open: impl FnOnce(OFlags) -> Result<OwnedFd>,
) -> Result<OwnedFd> {
    if flags.contains(OFlags::DIRECTORY) && kind != FileType::Directory {
        return Err(Errno::NOTDIR);
    }
    if flags.contains(OFlags::PATH) {
        return Ok(found);
    }
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return Err(if kind == FileType::Symlink { Errno::LOOP } else { Errno::NXIO });
    }
    let opened = open(flags)?;
    // Something else may have its name now. Not even a pipe has made this wait.
    match FileType::from_raw_mode(fstat(&opened)?.st_mode) {
        FileType::RegularFile | FileType::Directory => Ok(opened),
        _ => Err(Errno::NXIO),
    }
}

/// Whose links are followed out of a root directory.
#[derive(Debug, Clone, Copy)]
struct Trusted {
    ourselves: u32,
    owner: u32,
}

impl Trusted {
    fn below(root: BorrowedFd<'_>) -> Result<Self> {
        Ok(Self { ourselves: geteuid().as_raw(), owner: fstat(root)?.st_uid })
    }

    /// Whether a link of this user is followed: of one who could read what it leads to by himself, that is. Where
    /// this process may read everything, the owner of the directory could not.
    const fn owns(self, uid: u32) -> bool {
        uid == 0 || uid == self.ourselves || uid == self.owner && self.ourselves != 0
    }
}

/// Puts the components of `path` on top of those that are still to be walked, the first on top.
fn push_components(pending: &mut Vec<Vec<u8>>, path: &[u8]) {
    pending.extend(path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
}

fn count_link(links: u32) -> Result<u32> {
    if links < LINKS_MAXIMUM { Ok(links + 1) } else { Err(Errno::LOOP) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_trusted_of_whom_could_read_by_himself_what_they_lead_to() {
        const OWNER: u32 = 100;
        let as_owner = Trusted { ourselves: OWNER, owner: OWNER };
        let in_group = Trusted { ourselves: 200, owner: OWNER };
        let as_root = Trusted { ourselves: 0, owner: OWNER };
        let whom = |trusted: Trusted| [0, OWNER, 200, 300].map(|uid| trusted.owns(uid));
        assert_eq!(whom(as_owner), [true, true, false, false]);
        assert_eq!(whom(in_group), [true, true, true, false]);
        assert_eq!(whom(as_root), [true, false, false, false]);
    }
}
