//! The real system behind connections to databases: the server's environment and its files.

use std::cell::Cell;
use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::process::geteuid;

use crate::disk::passwd::User;
use crate::postgres::{SmallFile, System};

/// Longer files are not read, in bytes.
const FILE_MAXIMUM: u64 = 1 << 20;

/// The machine that the server runs on.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    own: Option<&'a User>,
    /// Whether something of our own user was wanted.
    is_wanted: Cell<bool>,
}

impl<'a> Machine<'a> {
    /// Where our own user is `own`.
    pub(super) const fn new(own: Option<&'a User>) -> Self {
        Self { own, is_wanted: Cell::new(false) }
    }

    /// Whether it makes a difference who we are.
    pub(super) const fn needs_own_user(&self) -> bool {
        self.is_wanted.get()
    }

    fn own(&self) -> Option<&'a User> {
        self.is_wanted.set(true);
        self.own
    }
}

impl System for Machine<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn user(&self) -> (u32, Option<String>) {
        (geteuid().as_raw(), self.own().map(|user| user.name.clone()))
    }

    fn home(&self) -> Option<String> {
        let home = std::env::var("HOME").ok().filter(|home| !home.is_empty());
        home.or_else(|| self.own()?.home.clone())
    }

    fn file(&self, path: &str) -> SmallFile {
        // Opening does not wait for the other end of a pipe.
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let opened = fs::OpenOptions::new().read(true).custom_flags(nonblock).open(path);
        let Ok(file) = opened else { return SmallFile::Missing };
        let Ok(metadata) = file.metadata() else { return SmallFile::Missing };
        if !metadata.is_file() {
            return SmallFile::NotPlain;
        }
        let mut bytes = Vec::new();
        match file.take(FILE_MAXIMUM).read_to_end(&mut bytes) {
            Ok(_) => {
                SmallFile::Found { text: String::from_utf8_lossy(&bytes).into_owned(), mode: metadata.mode() & 0o7777 }
            }
            Err(_) => SmallFile::Missing,
        }
    }

    fn exists(&self, path: &str) -> bool {
        Path::new(path).exists()
    }

    fn addresses(&self, name: &str) -> Vec<IpAddr> {
        match self.file("/etc/hosts") {
            SmallFile::Found { text, .. } => of_host(&text, name),
            SmallFile::Missing | SmallFile::NotPlain => vec![],
        }
    }
}

/// The addresses that the text of `/etc/hosts` has for `name`, in its order.
fn of_host(text: &str, name: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| line.split('#').next());
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
        })
        .collect()
}

/// Whether both are names of one directory.
pub(super) fn is_same_directory(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    one == other || identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// Who owns a directory, if it is there.
pub(super) fn owner(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|metadata| metadata.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_all_its_addresses() {
        let text =
            "127.0.0.1 localhost # loop\n::1 ip6-localhost localhost\n# 192.0.2.1 db\n192.0.2.2\tDB db.example\n";
        let addresses = |name| of_host(text, name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(addresses("localhost"), ["127.0.0.1", "::1"]);
        assert_eq!(addresses("db"), ["192.0.2.2"]);
        assert_eq!(addresses("loop"), [""; 0]);
        assert_eq!(addresses("127.0.0.1"), [""; 0]);
    }

    #[test]
    fn whether_it_makes_a_difference_who_we_are_is_noted() {
        let own = User { name: "one".to_owned(), home: None };
        let machine = Machine::new(Some(&own));
        assert!(machine.variable("PGUSER").is_none() && !machine.needs_own_user());
        assert_eq!(machine.user(), (geteuid().as_raw(), Some("one".to_owned())));
        assert!(machine.needs_own_user());
    }

    #[test]
    fn a_file_is_read_with_its_mode_and_a_pipe_is_not_waited_for() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        fs::write(path("file"), "text").unwrap();
        fs::set_permissions(path("file"), fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(Machine::new(None).file(&path("file")), SmallFile::Found { text: "text".into(), mode: 0o640 });
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(Machine::new(None).file(&path("pipe")), SmallFile::NotPlain);
        assert_eq!(Machine::new(None).file(&path("missing")), SmallFile::Missing);
        assert!(is_same_directory(directory.path(), &directory.path().join(".")));
        assert!(!is_same_directory(directory.path(), Path::new("/")));
        assert!(is_same_directory(Path::new("/nowhere"), Path::new("/nowhere")));
    }
}
