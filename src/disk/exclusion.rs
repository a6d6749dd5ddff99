//! Names that only one of several server processes works on at a time.
//!
//! The processes share a file in memory, and each has an opening of its own. A name is one byte of that file,
//! at a hash of the name far behind its end; whoever has locked the byte has the name. Such a lock belongs to
//! the opening, so that the kernel gives it up when the last descriptor of that is closed: when the process is
//! dead and no [helper](super::helpers) does what it was told any more.
//!
//! Two names of one byte wait for each other needlessly. The hash is one that no client finds such names for.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use aws_lc_rs::digest::{Context, SHA256};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open};
use rustix::io::{Errno, Result};

/// Bytes of names have bit 62 of their offset set: what else is shared by locks of this file is before them.
const NAMES: u64 = 1 << 62;

/// A process' part in the exclusion.
#[derive(Debug, Clone)]
pub struct Exclusion(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    file: OwnedFd,
    /// The bytes that this process has, since its own locks do not keep itself out.
    held: RefCell<HashSet<u64>>,
    is_abandoned: Cell<bool>,
}

/// Names that no other process works on, until this is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    shared: Rc<Shared>,
    bytes: Vec<u64>,
}

impl Exclusion {
    /// Makes the file that processes share; each of them [joins](Self::join) with a descriptor of it.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn create() -> io::Result<OwnedFd> {
        Ok(memfd_create("repohostd-names", MemfdFlags::CLOEXEC)?)
    }

    /// Takes part with the file of [`Self::create`], whose descriptor is not needed any more afterwards.
    ///
    /// # Errors
    ///
    /// What the system says, for want of `/proc` for instance.
    pub fn join(file: BorrowedFd<'_>) -> io::Result<Self> {
        let file = open(format!("/proc/self/fd/{}", file.as_raw_fd()), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self(Rc::new(Shared { file, held: RefCell::default(), is_abandoned: Cell::new(false) })))
    }

    /// Takes these names, all of them or none: `None` when somebody has one.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn try_take(&self, names: &[String]) -> Result<Option<Taken>> {
        self.take(names.iter().map(|name| byte(b"name", name)))
    }

    fn take(&self, bytes: impl Iterator<Item = u64>) -> Result<Option<Taken>> {
        // Dropping it gives up what it has so far.
        let mut taken = Taken { shared: Rc::clone(&self.0), bytes: Vec::new() };
        for byte in bytes {
            if taken.bytes.contains(&byte) {
                continue;
            }
            if self.0.held.borrow().contains(&byte) || !lock(&self.0.file, byte)? {
                return Ok(None);
            }
            self.0.held.borrow_mut().insert(byte);
            taken.bytes.push(byte);
        }
        Ok(Some(taken))
    }

    /// Claims a name, which has nothing to do with [taking](Self::try_take) it: `None` when somebody has claimed it.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn claim(&self, name: &str) -> Result<Option<Taken>> {
        self.take(std::iter::once(byte(b"claim", name)))
    }

    /// Leaves what is held now to the kernel, which gives it up when this process has ended: something that was
    /// begun goes on for as long.
    pub(super) fn abandon(&self) {
        self.0.is_abandoned.set(true);
        std::mem::forget(self.clone());
    }
}

impl AsFd for Exclusion {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.shared.is_abandoned.get() {
            return;
        }
        for byte in &self.bytes {
            self.shared.held.borrow_mut().remove(byte);
            // This cannot fail but for want of memory; the name is held until the process ends then.
            let _ = fcntl(&self.shared.file, FcntlArg::F_OFD_SETLK(&range(libc::F_UNLCK, *byte)));
        }
    }
}

/// What stands for a name.
fn byte(kind: &[u8], name: &str) -> u64 {
    let mut context = Context::new(&SHA256);
    context.update(kind);
    context.update(name.as_bytes());
    let digest = context.finish();
    digest.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)) % NAMES + NAMES
}

/// Locks one byte, unless somebody else has it.
fn lock(file: &OwnedFd, byte: u64) -> Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&range(libc::F_WRLCK, byte))) {
        Ok(_) => Ok(true),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(false),
        Err(errno) => Err(Errno::from_raw_os_error(errno as i32)),
    }
}

fn range(kind: libc::c_int, byte: u64) -> libc::flock {
    libc::flock {
        l_type: libc::c_short::try_from(kind).unwrap_or_default(),
        l_whence: libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: byte.cast_signed(),
        l_len: 1,
        // Has to be 0 for a lock of an opening.
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    fn processes<const COUNT: usize>() -> [Exclusion; COUNT] {
        let file = Exclusion::create().unwrap();
        [(); COUNT].map(|()| Exclusion::join(file.as_fd()).unwrap())
    }

    fn take(exclusion: &Exclusion, names: &[&str]) -> Option<Taken> {
        exclusion.try_take(&names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_name_is_one_process_at_a_time() {
        let [one, two] = processes();
        for (first, second) in [(&one, &two), (&two, &one), (&one, &one)] {
            let taken = take(first, &["a", "b", "a"]).unwrap();
            assert!(take(second, &["b"]).is_none());
            assert!(take(second, &["c", "a"]).is_none());
            assert!(take(first, &["c"]).is_some(), "what was taken before is given back");
            let other = take(second, &["c"]).unwrap();
            drop(taken);
            assert!(take(second, &["a", "b"]).is_some());
            drop(other);
        }
    }

    proptest! {
        #[test]
        fn nobody_has_what_another_one_has(steps in prop::collection::vec((0..3_usize, 0..8_u8, 0..8_u8, any::<bool>()), 1..64)) {
            let processes = processes::<3>();
            let mut held: Vec<([u8; 2], Taken)> = Vec::new();
            for (process, first, second, gives_up) in steps {
                let names = [first, second].map(|name| name.to_string());
                let is_free = held.iter().all(|(other, _)| other.iter().all(|name| *name != first && *name != second));
                let taken = processes[process].try_take(&names).unwrap();
                prop_assert_eq!(taken.is_some(), is_free);
                held.extend(taken.map(|taken| ([first, second], taken)));
                if gives_up && !held.is_empty() {
                    held.swap_remove(0);
                }
            }
        }

        #[test]
        fn a_place_is_no_offset_that_the_system_refuses(name in ".*") {
            prop_assert!((NAMES..1 << 63).contains(&byte(b"name", &name)));
            prop_assert!(byte(b"claim", &name) != byte(b"name", &name));
        }
    }

    #[test]
    fn a_claim_keeps_other_claims_out_and_nothing_else() {
        let [one, two] = processes();
        let first = one.claim("a").unwrap().unwrap();
        assert!(one.claim("a").unwrap().is_none() && two.claim("a").unwrap().is_none());
        assert!(take(&two, &["a"]).is_some() && two.claim("b").unwrap().is_some());
        drop(first);
        assert!(two.claim("a").unwrap().is_some());
    }

    #[test]
    fn what_is_abandoned_stays_taken() {
        let [one, two] = processes();
        let (taken, claimed) = (take(&one, &["a"]), one.claim("b").unwrap());
        one.abandon();
        drop((taken, claimed, one));
        assert!(take(&two, &["a"]).is_none() && two.claim("b").unwrap().is_none());
    }

    /// What the process does that the next test starts.
    #[test]
    #[ignore = "it is a part of the next one"]
    fn takes_and_claims_and_waits() {
        let exclusion = Exclusion::join(std::io::stdin().as_fd()).unwrap();
        let _taken = take(&exclusion, &["a"]).unwrap();
        let _claimed = exclusion.claim("b").unwrap().unwrap();
        std::io::stderr().write_all(b"!").unwrap();
        std::thread::sleep(std::time::Duration::from_secs(600));
    }

    #[test]
    fn what_a_dead_process_had_is_free() {
        let file = Exclusion::create().unwrap();
        let exclusion = Exclusion::join(file.as_fd()).unwrap();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture", "disk::exclusion::tests::takes_and_claims_and_waits"])
            .stdin(Stdio::from(file))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        process.stderr.take().unwrap().read_exact(&mut [0]).unwrap();
        assert!(take(&exclusion, &["a"]).is_none() && exclusion.claim("b").unwrap().is_none());
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(take(&exclusion, &["a"]).is_some() && exclusion.claim("b").unwrap().is_some());
    }
}
