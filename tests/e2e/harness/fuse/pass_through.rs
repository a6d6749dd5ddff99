//! What the file system answers: what the directory below says, with its own traits.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{self, AtFlags, CWD, Dir, Gid, Mode, OFlags, RawMode, Stat, Timespec, Timestamps, Uid};
use rustix::io::{pread, pwrite};

use super::nodes::{Handles, Nodes};
use super::{Behaviour, Call, Inodes, Traits};

type Result<T> = std::result::Result<T, Errno>;

/// Nothing is remembered.
const NEVER: Duration = Duration::ZERO;
const GENERATION: Generation = Generation(0);
const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The file system.
#[derive(Debug)]
pub(super) struct PassThrough {
    traits: Traits,
    behaviour: Arc<Behaviour>,
    nodes: Nodes,
    files: Handles<OwnedFd>,
    directories: Handles<Vec<(OsString, FileType)>>,
    looks: AtomicU64,
}

impl PassThrough {
    pub(super) fn new(path: &Path, traits: Traits, behaviour: Arc<Behaviour>) -> Self {
        let root = fs::open(path, HANDLE, Mode::empty()).expect("the directory is there");
        Self {
            traits,
            behaviour,
            nodes: Nodes::new(root, traits.inodes != Inodes::NewAtEachLookup),
            files: Handles::default(),
            directories: Handles::default(),
            looks: AtomicU64::new(1 << 40),
        }
    }

    /// Takes as long as a call of this kind takes.
    fn begin(&self, call: Call) {
        let begun = Instant::now();
        // it may become less meanwhile
        let left = || {
            let delay = self.behaviour.delays[call as usize].load(Ordering::Relaxed);
            Duration::from_micros(delay).saturating_sub(begun.elapsed()).min(Duration::from_millis(100))
        };
        loop {
            let left = left();
            if left.is_zero() {
                break;
            }
            thread::sleep(left);
        }
        self.behaviour.counts[call as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn attributes(&self, number: INodeNo, stat: &Stat) -> FileAttr {
        let shift = self.behaviour.shift.load(Ordering::Relaxed);
        FileAttr {
            ino: number,
            size: unsigned(stat.st_size),
            blocks: unsigned(stat.st_blocks),
            atime: time(stat.st_atime, stat.st_atime_nsec),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime + shift, stat.st_ctime_nsec),
            crtime: UNIX_EPOCH,
            kind: kind(stat.st_mode),
            perm: u16::try_from(stat.st_mode & 0o7777).expect("it is short"),
            nlink: u32::try_from(stat.st_nlink).expect("there are few"),
            uid: stat.st_uid,
            gid: stat.st_gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    /// What an answer about attributes says, which may have another number each time.
    fn look(&self, number: INodeNo, stat: &Stat) -> FileAttr {
        let shown = match self.traits.inodes {
            Inodes::NewAtEachLook => INodeNo(self.looks.fetch_add(1, Ordering::Relaxed)),
            Inodes::Stable | Inodes::NewAtEachLookup => number,
        };
        self.attributes(shown, stat)
    }

    /// Tells of the entry `name` in a directory.
    fn entry(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr> {
        let handle = fs::openat(&self.nodes.find(parent)?.handle, name, HANDLE, Mode::empty()).map_err(errno)?;
        let stat = fs::fstat(&handle).map_err(errno)?;
        Ok(self.attributes(self.nodes.tell(handle, &stat), &stat))
    }

    /// Tells of an entry that was just made, which is the caller's.
    fn made(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: Option<u32>) -> Result<FileAttr> {
        let directory = self.nodes.find(parent)?;
        let (uid, gid) = (Some(Uid::from_raw(request.uid())), Some(Gid::from_raw(request.gid())));
        fs::chownat(&directory.handle, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(errno)?;
        if let Some(mode) = mode {
            let mode = Mode::from_raw_mode(mode & 0o7777);
            fs::chmodat(&directory.handle, name, mode, AtFlags::empty()).map_err(errno)?;
        }
        self.entry(parent, name)
    }

    fn open_flags(&self) -> FopenFlags {
        if self.traits.direct { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::empty() }
    }

    /// Opens what is behind a handle.
    fn reopen(&self, number: INodeNo, flags: OFlags) -> Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.nodes.find(number)?.handle.as_raw_fd());
        fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(errno)
    }
}

fn errno(errno: rustix::io::Errno) -> Errno {
    Errno::from_i32(errno.raw_os_error())
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(unsigned(seconds)) + Duration::from_nanos(nanoseconds)
}

fn kind(mode: RawMode) -> FileType {
    match fs::FileType::from_raw_mode(mode) {
        fs::FileType::Directory => FileType::Directory,
        fs::FileType::Symlink => FileType::Symlink,
        fs::FileType::Fifo => FileType::NamedPipe,
        fs::FileType::Socket => FileType::Socket,
        _ => FileType::RegularFile,
    }
}

fn timespec(time: Option<TimeOrNow>) -> Timespec {
    let (seconds, nanoseconds) = match time {
        None => (0, fs::UTIME_OMIT),
        Some(TimeOrNow::Now) => (0, fs::UTIME_NOW),
        Some(TimeOrNow::SpecificTime(time)) => {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            (i64::try_from(since.as_secs()).expect("it is this century"), i64::from(since.subsec_nanos()))
        }
    };
    Timespec { tv_sec: seconds, tv_nsec: nanoseconds }
}

macro_rules! answer {
    ($reply:ident, $result:expr, |$value:pat_param| $success:expr) => {
        match $result {
            Ok($value) => $success,
            Err(errno) => $reply.error(errno),
        }
    };
}

impl Filesystem for PassThrough {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.begin(Call::Lookup);
        answer!(reply, self.entry(parent, name), |found| reply.entry(&NEVER, &found, GENERATION));
    }

    fn forget(&self, _: &Request, number: INodeNo, times: u64) {
        self.nodes.forget(number, times);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.begin(Call::GetAttributes);
        let stat = self.nodes.find(number).and_then(|node| fs::fstat(&node.handle).map_err(errno));
        answer!(reply, stat, |stat| reply.attr(&NEVER, &self.look(number, &stat)));
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.begin(Call::SetAttributes);
        let set = || {
            let node = self.nodes.find(number)?;
            let path = format!("/proc/self/fd/{}", node.handle.as_raw_fd());
            if let Some(mode) = mode {
                fs::chmod(&path, Mode::from_raw_mode(mode & 0o7777)).map_err(errno)?;
            }
            if uid.is_some() || gid.is_some() {
                let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                fs::chownat(&node.handle, "", uid, gid, AtFlags::EMPTY_PATH).map_err(errno)?;
            }
            if let Some(size) = size {
                fs::ftruncate(self.reopen(number, OFlags::WRONLY)?, size).map_err(errno)?;
            }
            if accessed.is_some() || modified.is_some() {
                let times = Timestamps { last_access: timespec(accessed), last_modification: timespec(modified) };
                fs::utimensat(CWD, &path, &times, AtFlags::empty()).map_err(errno)?;
            }
            fs::fstat(&node.handle).map_err(errno)
        };
        answer!(reply, set(), |stat| reply.attr(&NEVER, &self.look(number, &stat)));
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        self.begin(Call::ReadLink);
        let text = self.nodes.find(number).and_then(|node| fs::readlinkat(&node.handle, "", Vec::new()).map_err(errno));
        answer!(reply, text, |text| reply.data(text.as_bytes()));
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        self.begin(Call::MakeDirectory);
        let make = || {
            fs::mkdirat(&self.nodes.find(parent)?.handle, name, Mode::from_raw_mode(0o700)).map_err(errno)?;
            self.made(request, parent, name, Some(mode))
        };
        answer!(reply, make(), |entry| reply.entry(&NEVER, &entry, GENERATION));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.begin(Call::Remove);
        let parent = self.nodes.find(parent);
        let removed = parent.and_then(|parent| fs::unlinkat(&parent.handle, name, AtFlags::empty()).map_err(errno));
        answer!(reply, removed, |()| reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.begin(Call::RemoveDirectory);
        let parent = self.nodes.find(parent);
        let removed = parent.and_then(|parent| fs::unlinkat(&parent.handle, name, AtFlags::REMOVEDIR).map_err(errno));
        answer!(reply, removed, |()| reply.ok());
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.begin(Call::SymbolicLink);
        let make = || {
            fs::symlinkat(target, &self.nodes.find(parent)?.handle, name).map_err(errno)?;
            self.made(request, parent, name, None)
        };
        answer!(reply, make(), |entry| reply.entry(&NEVER, &entry, GENERATION));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.begin(Call::Rename);
        let rename = || {
            if !self.traits.links && !flags.is_empty() {
                return Err(Errno::EINVAL);
            }
            let (old, new) = (self.nodes.find(parent)?, self.nodes.find(new_parent)?);
            let flags = fs::RenameFlags::from_bits_retain(flags.bits());
            fs::renameat_with(&old.handle, name, &new.handle, new_name, flags).map_err(errno)
        };
        answer!(reply, rename(), |()| reply.ok());
    }

    fn link(&self, _: &Request, number: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.begin(Call::Link);
        let link = || {
            if !self.traits.links {
                return Err(Errno::EPERM);
            }
            let (node, directory) = (self.nodes.find(number)?, self.nodes.find(parent)?);
            let path = format!("/proc/self/fd/{}", node.handle.as_raw_fd());
            fs::linkat(CWD, &path, &directory.handle, name, AtFlags::SYMLINK_FOLLOW).map_err(errno)?;
            self.entry(parent, name)
        };
        answer!(reply, link(), |linked| reply.entry(&NEVER, &linked, GENERATION));
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.begin(Call::Open);
        let how = OFlags::from_bits_retain(flags.0.cast_unsigned()) & OFlags::RWMODE;
        answer!(reply, self.reopen(number, how), |file| reply.opened(self.files.add(file), self.open_flags()));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.begin(Call::Create);
        let create = || {
            let flags = OFlags::from_bits_retain(flags.cast_unsigned());
            let how = (flags & OFlags::RWMODE) | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let directory = self.nodes.find(parent)?;
            let open = |how| fs::openat(&directory.handle, name, how, Mode::from_raw_mode(0o600));
            match open(how | OFlags::CREATE | OFlags::EXCL) {
                // somebody else was faster
                Err(rustix::io::Errno::EXIST) if !flags.contains(OFlags::EXCL) => {
                    Ok((open(how).map_err(errno)?, self.entry(parent, name)?))
                }
                result => Ok((result.map_err(errno)?, self.made(request, parent, name, Some(mode))?)),
            }
        };
        answer!(reply, create(), |(file, entry)| {
            reply.created(&NEVER, &entry, GENERATION, self.files.add(file), self.open_flags());
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.begin(Call::Read);
        let read = || {
            let mut buffer = vec![0; usize::try_from(size).expect("it is short")];
            let count = pread(&*self.files.find(handle)?, &mut buffer, offset).map_err(errno)?;
            buffer.truncate(count);
            Ok(buffer)
        };
        answer!(reply, read(), |buffer| reply.data(&buffer));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.begin(Call::Write);
        let written = self.files.find(handle).and_then(|file| pwrite(&*file, data, offset).map_err(errno));
        answer!(reply, written, |count| reply.written(u32::try_from(count).expect("it is short")));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.begin(Call::Flush);
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.files.remove(handle);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        self.begin(Call::Sync);
        let synced = self.files.find(handle).and_then(|file| fs::fsync(&*file).map_err(errno));
        answer!(reply, synced, |()| reply.ok());
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.begin(Call::OpenDirectory);
        let list = || {
            let entries = Dir::new(self.reopen(number, OFlags::RDONLY | OFlags::DIRECTORY)?).map_err(errno)?;
            entries
                .map(|entry| {
                    let entry = entry.map_err(errno)?;
                    let kind = kind(entry.file_type().as_raw_mode());
                    Ok((OsStr::from_bytes(entry.file_name().to_bytes()).to_owned(), kind))
                })
                .collect::<Result<Vec<_>>>()
        };
        answer!(reply, list(), |entries| reply.opened(self.directories.add(entries), FopenFlags::empty()));
    }

    fn readdir(&self, _: &Request, number: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.begin(Call::ReadDirectory);
        answer!(reply, self.directories.find(handle), |entries| {
            let rest = (1..).zip(entries.iter()).skip(usize::try_from(offset).expect("it is short"));
            for (next, (name, kind)) in rest {
                if reply.add(number, next, *kind, name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.directories.remove(handle);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.begin(Call::SyncDirectory);
        let directory = self.reopen(number, OFlags::RDONLY | OFlags::DIRECTORY);
        let synced = directory.and_then(|directory| fs::fsync(directory).map_err(errno));
        answer!(reply, synced, |()| reply.ok());
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.begin(Call::Statistics);
        let statistics = self.reopen(INodeNo::ROOT, OFlags::RDONLY).and_then(|root| fs::fstatvfs(root).map_err(errno));
        answer!(reply, statistics, |space| {
            let size = u32::try_from(space.f_frsize).expect("a block is small");
            reply.statfs(space.f_blocks, space.f_bfree, space.f_bavail, space.f_files, space.f_ffree, size, 255, size);
        });
    }
}
