//! The back end that does the work at once, in the call that submits it.
//!
//! It owns which [calls](super::calls) each operation is. Where paths lead is [`super::resolve`]'s business;
//! listings, removals and locks have modules of their own.
//!
//! Modes are applied as they come: the process' umask is zero, which the server sees to at its start.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::{Errno, Result, retry_on_intr};

use super::calls::{
    CAREFUL, close, close_descriptor, is_place_of, make_directory, read_at, remove_directory, remove_file, rename,
    set_times, write_at, write_flags,
};
use super::claims::Claims;
use super::exclusion::Exclusion;
use super::location::Location;
use super::names::{CHECK_INTERVAL, Names};
use super::passwd::{GROUP, PASSWD};
use super::resolve::Resolver;
use super::{Completion, Disk, Failure, Listing, Operation, Outcome, OwnerChange, Removal, Step, Ticket};
use super::{identity, information, lock};

/// How long a slice of a listing takes at most where others wait for it.
const SLICE_TIME: Duration = Duration::from_millis(2);

/// What a back end can be told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Users' names and numbers.
    pub passwd: PathBuf,
    /// Groups' names and numbers.
    pub group: PathBuf,
    /// The program that knows users and groups that are not in these files, for helpers.
    pub getent: PathBuf,
    /// Resolve paths component by component even where the kernel would do it.
    pub by_component: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { passwd: PASSWD.into(), group: GROUP.into(), getent: "getent".into(), by_component: false }
    }
}

/// The back end.
#[derive(Debug)]
pub struct Inline {
    resolver: Resolver,
    names: Names,
    claims: Claims,
    slice: Duration,
    completed: VecDeque<(Ticket, Completion)>,
}

impl Inline {
    /// A back end with nothing to do yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let resolver = if options.by_component { Resolver::by_component() } else { Resolver::new() };
        let names = Names::new(options.passwd, options.group, CHECK_INTERVAL);
        Self { resolver, names, claims: Claims::default(), slice: SLICE_TIME, completed: VecDeque::new() }
    }

    /// The same, whose slices of listings may take so long.
    pub(super) fn with_slices(self, slice: Duration) -> Self {
        Self { slice, ..self }
    }

    /// The same, whose claims count for other processes too.
    pub(super) fn excluding(self, exclusion: Option<Exclusion>) -> Self {
        Self { claims: Claims::new(exclusion), ..self }
    }

    /// The names of users and groups.
    pub(super) const fn names(&mut self) -> &mut Names {
        &mut self.names
    }

    /// Runs one operation.
    pub(super) fn run(&mut self, operation: Operation) -> Completion {
        let resolver = &self.resolver;
        match operation {
            Operation::Stat { at, follow, level } => {
                information::look(resolver, &mut self.names, &at, follow, level).map(Outcome::Metadata)
            }
            Operation::StatTarget { at, level } => {
                information::look_behind(&mut self.names, &at, level).map(Outcome::Metadata)
            }
            Operation::OpenRead { at } => opened(resolver.open(&at, OFlags::RDONLY | CAREFUL, Mode::empty())),
            Operation::Read { file, mut buffer, length, offset } => {
                read_at(file.0.as_fd(), &mut buffer, length, offset)?;
                Ok(Outcome::Read(buffer))
            }
            Operation::OpenWrite { at, mode, fresh } => {
                let flags = write_flags(fresh);
                let open = || resolver.open(&at, flags, Mode::from_raw_mode(mode));
                match open() {
                    Err(Errno::EXIST) if fresh => {
                        remove_file(resolver, &at)?;
                        opened(open())
                    }
                    result => opened(result),
                }
            }
            Operation::Write { file, data, offset } => {
                write_at(file.0.as_fd(), &data, offset)?;
                Ok(Outcome::Written(data))
            }
            // Not fdatasync: the file's owner and mode have to survive a crash as well as its data, and
            // both may have been set since it was created.
            Operation::Sync { file } => done(retry_on_intr(|| rustix::fs::fsync(&file.0))),
            Operation::Close { file } => done(close(file)),
            Operation::SetTimes { file, modified } => done(set_times(file.0.as_fd(), modified)),
            Operation::SetOwner { file, user, group } => {
                set_owner(&mut self.names, file.0.as_fd(), user.as_deref(), group.as_deref())
            }
            Operation::Rename { file, from, to, over } => {
                done(resolver.in_parents(&from, &to, |old, old_name, new, new_name| {
                    rename(file.as_ref(), &over, (old, old_name), (new, new_name))
                }))
            }
            Operation::MakeDirectory { at, mode } => done(make_directory(resolver, &at, mode)),
            Operation::SyncDirectory { at } => sync_directory(resolver, &at),
            Operation::RemoveFile { at } => done(remove_file(resolver, &at)),
            Operation::RemoveOwn { file, at } => done(resolver.in_parent(&at, |directory, name| {
                if is_place_of(&file, directory, name, identity::as_long) {
                    rustix::fs::unlinkat(directory, name, AtFlags::empty())
                } else {
                    Ok(())
                }
            })),
            Operation::RemoveDirectory { at } => done(remove_directory(resolver, &at)),
            Operation::SymbolicLink { target, at } => done(exists_if_root(&at).and_then(|()| {
                resolver.in_parent(&at, |directory, name| rustix::fs::symlinkat(target.as_slice(), directory, name))
            })),
            Operation::HardLink { target, at } => done(exists_if_root(&at).and_then(|()| {
                resolver.in_parents(&target, &at, |old, old_name, new, new_name| {
                    rustix::fs::linkat(old, old_name, new, new_name, AtFlags::empty())
                })
            })),
            Operation::List { at, level } => Listing::begin(resolver, at, level)?.slice(&mut self.names, self.slice),
            Operation::ListMore { listing } => listing.slice(&mut self.names, self.slice),
            Operation::RemoveTree { at } => Removal::begin(resolver, at)?.slice(resolver),
            Operation::RemoveMore { removal } => removal.slice(resolver),
            Operation::Lock { at, contents } => lock::acquire(resolver, at, &contents).map(Outcome::Lock),
            Operation::Unlock { lock } => done(lock::release(resolver, lock)),
            Operation::Claim { name } => Ok(Outcome::Claim(self.claims.take(&name)?)),
        }
    }
}

impl Disk for Inline {
    fn submit(&mut self, ticket: Ticket, operation: Operation) {
        let completion = self.run(operation);
        self.completed.push_back((ticket, completion));
    }

    fn complete(&mut self) -> Option<(Ticket, Completion)> {
        self.completed.pop_front()
    }

    fn outstanding(&self) -> usize {
        self.completed.len()
    }
}

fn done(result: Result<()>) -> Completion {
    result.map(|()| Outcome::Done).map_err(Failure::from)
}

fn opened(result: Result<std::os::fd::OwnedFd>) -> Completion {
    Ok(Outcome::File(result?.into()))
}

/// A new entry cannot take the place of a root.
fn exists_if_root(at: &Location) -> Result<()> {
    if at.path.is_root() { Err(Errno::EXIST) } else { Ok(()) }
}

fn set_owner(names: &mut Names, file: BorrowedFd<'_>, user: Option<&str>, group: Option<&str>) -> Completion {
    let uid = user.and_then(|name| names.uid(name));
    let gid = group.and_then(|name| names.gid(name));
    let stat = rustix::fs::fstat(file)?;
    let differs = uid.is_some_and(|uid| uid != stat.st_uid) || gid.is_some_and(|gid| gid != stat.st_gid);
    if differs {
        let (owner, owning_group) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        rustix::fs::fchown(file, owner, owning_group).map_err(|errno| {
            let change = OwnerChange {
                uid,
                gid,
                current_uid: stat.st_uid,
                current_user: names.user(stat.st_uid),
                current_gid: stat.st_gid,
                current_group: names.group(stat.st_gid),
            };
            Failure::new(errno, Step::ChangeOwner(Box::new(change)))
        })?;
    }
    Ok(Outcome::Done)
}

fn sync_directory(resolver: &Resolver, at: &Location) -> Completion {
    let directory = resolver
        .open(at, OFlags::RDONLY | OFlags::DIRECTORY | CAREFUL, Mode::empty())
        .map_err(|errno| Failure::new(errno, Step::Open))?;
    retry_on_intr(|| rustix::fs::fsync(&directory))?;
    close_descriptor(directory).map_err(|errno| Failure::new(errno, Step::Close))?;
    Ok(Outcome::Done)
}
