//! System calls through `io_uring`, without unsafe code outside of this file.
//!
//! What the kernel reads and writes while a call is under way belongs to the [`Ring`] from
//! [`Ring::start`] until [`Ring::next`] gives it back, whoever asked for it may be gone meanwhile.
#![allow(unsafe_code, reason = "the kernel is given addresses; each block says why they stay valid")]

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::opcode;
use io_uring::squeue::{self, Flags};
use io_uring::types::{Fd, OpenHow};
use io_uring::{EnterFlags, IoUring, Probe};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;
use slab::Slab;

/// Calls that are under way at the same time. The kernel's queue of completions has twice as many
/// places, so that it never overflows.
const CALLS: u32 = 64;
/// Threads of the kernel that wait for the disk on our behalf, as many as there are helpers otherwise.
const WORKERS: u32 = 16;

/// A system call with everything that it needs.
#[derive(Debug)]
pub(super) enum Call {
    /// `fsync`.
    Sync { file: Rc<OwnedFd> },
    /// `pread` of `length` bytes at most to the end of `buffer`, which has room for them.
    Read { file: Rc<OwnedFd>, buffer: Vec<u8>, length: usize, offset: u64 },
    /// `openat2`.
    Open { directory: Rc<OwnedFd>, path: CString, flags: OFlags, mode: Mode, resolve: ResolveFlags },
    /// `statx` of a name, links not followed.
    Look { directory: Rc<OwnedFd>, name: CString },
    /// `renameat2`.
    Rename { old: Rc<OwnedFd>, old_name: CString, new: Rc<OwnedFd>, new_name: CString, flags: RenameFlags },
    /// `unlinkat`.
    Remove { directory: Rc<OwnedFd>, name: CString, flags: AtFlags },
    /// `mkdirat`.
    MakeDirectory { directory: Rc<OwnedFd>, name: CString, mode: Mode },
}

/// What a call came to.
#[derive(Debug)]
pub(super) enum Answer {
    /// It is done.
    Done,
    /// Of `Open`.
    Opened(OwnedFd),
    /// Of `Read`: the buffer, and how many bytes it has more; none at the end of the file.
    Read(Vec<u8>, usize),
    /// Of `Look`: device, as its two numbers, and inode.
    Found((u32, u32, u64)),
}

/// What the kernel may look at until a call has ended.
struct Pending {
    key: usize,
    call: Call,
    how: OpenHow,
    found: MaybeUninit<Statx>,
}

/// A queue of system calls that are done beside each other.
pub(super) struct Ring {
    kernel: IoUring,
    /// Counts ended calls. It is never read: each of them is an edge of its own for the poll.
    ended: OwnedFd,
    /// Boxed: the kernel has addresses of what is in there.
    #[allow(clippy::vec_box, reason = "entries must not move when the table grows")]
    pending: Slab<Box<Pending>>,
    /// The kernel has not taken all calls, for want of memory; that is tried again.
    unsent: bool,
}

impl Ring {
    /// A ring, if the kernel allows one and knows all the calls.
    ///
    /// # Errors
    ///
    /// What the kernel says: usually EPERM or ENOSYS.
    pub(super) fn new() -> io::Result<Self> {
        let ring = match IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(CALLS) {
            // Linux before 6.1 cannot leave it to us when we look what has ended.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => IoUring::new(CALLS)?,
            result => result?,
        };
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let needed = [
            opcode::Fsync::CODE,
            opcode::Read::CODE,
            opcode::OpenAt2::CODE,
            opcode::Statx::CODE,
            opcode::RenameAt::CODE,
            opcode::UnlinkAt::CODE,
            opcode::MkDirAt::CODE,
        ];
        if !needed.iter().all(|code| probe.is_supported(*code)) {
            return Err(Errno::NOSYS.into());
        }
        // Where this is refused the kernel has its own idea of their number, which will do.
        let _ = ring.submitter().register_iowq_max_workers(&mut [WORKERS, WORKERS]);
        let ended = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        ring.submitter().register_eventfd(ended.as_raw_fd())?;
        Ok(Self { kernel: ring, ended, pending: Slab::with_capacity(CALLS as usize), unsent: false })
    }

    /// Whether one more call can be started.
    pub(super) fn has_room(&self) -> bool {
        self.pending.len() < CALLS as usize
    }

    /// Starts a call; `key` comes back with its answer.
    ///
    /// # Errors
    ///
    /// EBUSY when there is no [room](Self::has_room).
    pub(super) fn start(&mut self, key: usize, call: Call) -> Result<(), Errno> {
        if !self.has_room() {
            return Err(Errno::BUSY);
        }
        let entry = self.pending.vacant_entry();
        let index = entry.key();
        let pending = entry.insert(Box::new(Pending { key, call, how: OpenHow::new(), found: MaybeUninit::uninit() }));
        let submission = describe(pending).user_data(index as u64);
        // SAFETY: descriptors and memory that the entry names are owned by `pending`, in places of the
        // heap that nobody touches or moves until the completion of `index` is taken, and never freed
        // without that (see `drop`).
        let pushed = unsafe { self.kernel.submission().push(&submission) };
        if pushed.is_err() {
            self.pending.remove(index);
            return Err(Errno::BUSY);
        }
        self.submit();
        Ok(())
    }

    /// Gives the kernel what it has not taken yet.
    fn submit(&mut self) {
        let mut taken = self.kernel.submit();
        while matches!(&taken, Err(error) if error.kind() == io::ErrorKind::Interrupted) {
            taken = self.kernel.submit();
        }
        self.unsent = taken.is_err();
    }

    /// Whether the kernel has to be asked again to take calls.
    pub(super) fn is_behind(&self) -> bool {
        self.unsent
    }

    /// Has the kernel tell what has ended, for [`Self::next`].
    pub(super) fn look(&self) {
        // SAFETY: no argument is given that the kernel would read.
        let _ = unsafe { self.kernel.submitter().enter::<()>(0, 0, EnterFlags::GETEVENTS.bits(), None) };
    }

    /// The next call that has ended.
    pub(super) fn next(&mut self) -> Option<(usize, Result<Answer, Errno>)> {
        if self.unsent {
            self.submit();
        }
        let completion = self.kernel.completion().next()?;
        let index = usize::try_from(completion.user_data()).ok()?;
        // The kernel is done with it.
        let pending = *self.pending.try_remove(index)?;
        Some((pending.key, answer(completion.result(), pending)))
    }
}

impl AsFd for Ring {
    /// Becomes readable whenever a call ends.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel may still read and write there; nobody waits for that when the server ends.
        std::mem::take(&mut self.pending).into_iter().for_each(|(_, pending)| {
            Box::leak(pending);
        });
    }
}

/// The kernel's form of a call.
fn describe(pending: &mut Pending) -> squeue::Entry {
    let fd = |descriptor: &Rc<OwnedFd>| Fd(descriptor.as_raw_fd());
    match &mut pending.call {
        Call::Sync { file } => opcode::Fsync::new(fd(file)).build(),
        Call::Read { file, buffer, length, offset } => {
            let room = buffer.spare_capacity_mut();
            let length = u32::try_from((*length).min(room.len())).unwrap_or(u32::MAX >> 1);
            opcode::Read::new(fd(file), room.as_mut_ptr().cast(), length).offset(*offset).build()
        }
        Call::Open { directory, path, flags, mode, resolve } => {
            pending.how =
                OpenHow::new().flags(u64::from(flags.bits())).mode(u64::from(mode.bits())).resolve(resolve.bits());
            opcode::OpenAt2::new(fd(directory), path.as_ptr(), &raw const pending.how).build()
        }
        Call::Look { directory, name } => {
            let flags = AtFlags::SYMLINK_NOFOLLOW.bits().cast_signed();
            opcode::Statx::new(fd(directory), name.as_ptr(), pending.found.as_mut_ptr().cast())
                .flags(flags)
                .mask(StatxFlags::INO.bits())
                .build()
        }
        Call::Rename { old, old_name, new, new_name, flags } => {
            opcode::RenameAt::new(fd(old), old_name.as_ptr(), fd(new), new_name.as_ptr()).flags(flags.bits()).build()
        }
        Call::Remove { directory, name, flags } => {
            opcode::UnlinkAt::new(fd(directory), name.as_ptr()).flags(flags.bits().cast_signed()).build()
        }
        Call::MakeDirectory { directory, name, mode } => {
            opcode::MkDirAt::new(fd(directory), name.as_ptr()).mode(mode.bits()).build()
        }
    }
    .flags(Flags::empty())
}

fn answer(result: i32, pending: Pending) -> Result<Answer, Errno> {
    if result < 0 {
        return Err(Errno::from_raw_os_error(-result));
    }
    Ok(match pending.call {
        // SAFETY: the kernel has just opened it for this call alone.
        Call::Open { .. } => Answer::Opened(unsafe { OwnedFd::from_raw_fd(result) }),
        Call::Read { mut buffer, .. } => {
            let count = usize::try_from(result).unwrap_or(0);
            // SAFETY: `describe` gave the kernel no more than the spare capacity, and it has filled
            // `count` bytes of it.
            unsafe { buffer.set_len(buffer.len() + count) };
            Answer::Read(buffer, count)
        }
        Call::Look { .. } => {
            // SAFETY: the call has filled it, and any bytes make a `Statx`.
            let found = unsafe { pending.found.assume_init() };
            Answer::Found((found.stx_dev_major, found.stx_dev_minor, found.stx_ino))
        }
        _ => Answer::Done,
    })
}
