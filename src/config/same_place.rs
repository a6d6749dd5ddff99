//! Whether two paths name the same file or directory, by links that somebody made who may decide on that.
//!
//! A client names one of them, so nothing is looked at that may have to wait for another host: below the mount point
//! of such a file system, names count as they are.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::process::mounts::{self, Mount};

/// Links that are followed on one path, as many as the kernel follows.
const LINKS_MAXIMUM: usize = 40;
/// Kinds of file systems that answer by themselves.
const LOCAL: [&str; 18] = [
    "aufs", "bcachefs", "btrfs", "devtmpfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay",
    "ramfs", "rootfs", "squashfs", "tmpfs", "xfs", "zfs",
];

/// Bytes of the longest path that the system takes. What is longer leads nowhere, and a client may send a lot of it.
const PATH_MAXIMUM: usize = 4095;

/// Whether both paths lead to the same place by links of root and of the user of this process.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    if one.len().max(other.len()) > PATH_MAXIMUM {
        return false;
    }
    let links = Resolver { mounts: mounts::read(), trusted: [0, rustix::process::geteuid().as_raw()] };
    let place = links.resolve(Path::new(one));
    place.is_some() && place == links.resolve(Path::new(other))
}

struct Resolver {
    mounts: Vec<Mount>,
    /// Whose links are followed.
    trusted: [u32; 2],
}

impl Resolver {
    /// The path without links; none if it is not absolute, or has links of somebody else.
    fn resolve(&self, path: &Path) -> Option<PathBuf> {
        if !path.is_absolute() {
            return None;
        }
        let mut rest = names(path);
        let mut resolved = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                resolved.pop();
                continue;
            }
            resolved.push(name);
            if !self.is_local(&resolved) {
                continue;
            }
            // What is not there may be made later, under this name.
            let Some(link) = fs::symlink_metadata(&resolved).ok().filter(fs::Metadata::is_symlink) else { continue };
            links += 1;
            if !self.trusted.contains(&link.uid()) || links > LINKS_MAXIMUM {
                return None;
            }
            let target = fs::read_link(&resolved).ok()?;
            resolved.pop();
            if target.is_absolute() {
                resolved = PathBuf::from("/");
            }
            rest.extend(names(&target));
        }
        Some(resolved)
    }

    fn is_local(&self, path: &Path) -> bool {
        mounts::above(&self.mounts, path).is_some_and(|mount| LOCAL.contains(&mount.name.as_str()))
    }
}

/// The names in a path, the first one last.
fn names(path: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = path
        .components()
        .filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir))
        .map(|component| component.as_os_str().to_owned())
        .collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_is_another_name_and_whatever_else_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        fs::create_dir_all(path("real/deep")).unwrap();
        fs::write(path("real/file"), "").unwrap();
        symlink("real", path("relative")).unwrap();
        symlink(path("relative/deep"), path("absolute")).unwrap();
        symlink("deep/../../real/deep", path("real/inside")).unwrap();
        symlink("loop", path("loop")).unwrap();
        for (one, other) in [
            ("relative", "real"),
            ("relative/", "real"),
            ("real/.", "real"),
            ("absolute", "real/deep"),
            ("relative/inside", "absolute"),
            ("absolute/../file", "real/file"),
            ("relative/not/there", "real/not/there"),
        ] {
            assert!(is_same(&path(one), &path(other)), "{one} {other}");
            assert!(is_same(&path(other), &path(one)), "{other} {one}");
        }
        for (one, other) in [("real", "real/deep"), ("loop", "loop"), ("absolute", "real/file"), ("none", "real")] {
            assert!(!is_same(&path(one), &path(other)), "{one} {other}");
        }
        assert!(!is_same("real", "real") && !is_same("", ""));
    }

    #[test]
    fn a_link_of_somebody_else_and_one_on_another_host_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        fs::create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        let owner = fs::symlink_metadata(&link).unwrap().uid();
        let resolver = |trusted: u32, kind: &str| {
            let text = format!(
                "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /else\\040where rw shared:1 master:2 - ext4 /dev/b rw\n3 1 \
                 0:9 / {} rw - {kind} x rw\n",
                directory.path().display()
            );
            Resolver { mounts: mounts::parse(text.as_bytes()), trusted: [trusted; 2] }
        };
        assert_eq!(resolver(owner, "xfs").resolve(&link), Some(real));
        assert_eq!(resolver(owner + 1, "xfs").resolve(&link), None);
        for kind in ["nfs4", "fuse.sshfs", "autofs", "unheard-of"] {
            assert_eq!(resolver(owner, kind).resolve(&link), Some(link.clone()), "{kind}");
        }
        let resolver = resolver(0, "nfs");
        assert!(resolver.is_local(Path::new("/else where")) && !resolver.is_local(directory.path()));
    }
}
