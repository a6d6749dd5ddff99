//! Names that only one of several server processes works on at a time.
//!
//! The processes share a file in memory, and each has an opening of its own. A name is one byte of that file,
//! at a hash of the name far behind its end; whoever has locked the byte has the name. Such a lock belongs to
//! the opening, so that the kernel gives it up when the last descriptor of that is closed: when the process is
//! dead and no [helper](super::helpers) does what it was told any more.
//!
//! Two names of one byte wait for each other needlessly. The hash is one that no client finds such names for.
//!
//! In the file itself each process writes when it last had [claimed](Exclusion::claim) a name, in a column of its
//! own and one byte at a time, so that nobody reads half of what another one writes.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{MemfdFlags, Mode, OFlags, ftruncate, memfd_create, open};
use rustix::io::{Errno, Result, pread, pwrite};
use rustix::time::{ClockId, clock_gettime};

/// Processes at a time.
const COLUMNS: u16 = 64;
/// Names that are claimed share so many rows, whose bytes take a megabyte at most.
const ROWS: u16 = 16 * 1024;
/// Bytes of names have bit 62 of their offset set. Those of columns are the first ones.
const NAMES: u64 = 1 << 62;

/// The unit of the times that are written.
const TICK: Duration = Duration::from_millis(50);
/// So many ticks are told apart, which are twelve seconds.
const TICKS: u128 = 254;
/// A time that is longer ago is no more told, before it looks like a later one.
const TOLD: Duration = Duration::from_secs(10);
/// Nothing of this row was claimed lately.
const NEVER: u8 = 0;
/// Something of this row is claimed, or was when the process died.
const CLAIMED: u8 = u8::MAX;

/// A process' part in the exclusion.
#[derive(Debug, Clone)]
pub struct Exclusion(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    file: OwnedFd,
    column: u16,
    /// The bytes that this process has, since its own locks do not keep itself out.
    held: RefCell<HashSet<u64>>,
    claims: RefCell<Rows>,
    is_abandoned: Cell<bool>,
    clock: Clock,
}

/// The time that all processes of a host have in common.
#[derive(Debug, Default)]
struct Clock {
    /// How far tests are ahead of it.
    #[cfg(test)]
    ahead: Cell<Duration>,
}

/// A moment, in this process and as others are told of it.
#[derive(Debug, Clone, Copy)]
struct Moment {
    at: Instant,
    /// Which tick this is, from 1 to 254.
    tick: u8,
}

/// What this process has written to its column.
#[derive(Debug, Default)]
struct Rows {
    /// How many claims are in a row, and when there were some before.
    claimed: HashMap<u16, (usize, Option<Instant>)>,
    /// Rows by the end of claims, the earliest first.
    ended: VecDeque<(Instant, u16)>,
}

/// Names that no other process works on, until this is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    shared: Rc<Shared>,
    bytes: Vec<u64>,
}

/// A name that nobody else claims, until this is dropped.
#[derive(Debug)]
pub(super) struct Claimed {
    taken: Taken,
    row: u16,
    /// Until when other processes may have had this name claimed, within the last ten seconds.
    pub(super) others: Option<Instant>,
}

impl Exclusion {
    /// Makes the file that processes share; each of them [joins](Self::join) with a descriptor of it.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn create() -> io::Result<OwnedFd> {
        let file = memfd_create("repohostd-names", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, u64::from(ROWS) * u64::from(COLUMNS))?;
        Ok(file)
    }

    /// Takes part with the file of [`Self::create`], whose descriptor is not needed any more afterwards.
    ///
    /// # Errors
    ///
    /// What the system says, for want of `/proc` for instance; or that 64 processes take part already.
    pub fn join(file: BorrowedFd<'_>) -> io::Result<Self> {
        let file = open(format!("/proc/self/fd/{}", file.as_raw_fd()), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        for column in 0..COLUMNS {
            if lock(&file, u64::from(column))? {
                let (held, claims) = (RefCell::default(), RefCell::default());
                return Ok(Self(Rc::new(Shared {
                    file,
                    column,
                    held,
                    claims,
                    is_abandoned: Cell::new(false),
                    clock: Clock::default(),
                })));
            }
        }
        Err(io::Error::other(format!("{COLUMNS} processes exclude each other already")))
    }

    /// Takes these names, all of them or none: `None` when somebody has one.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn try_take(&self, names: &[String]) -> Result<Option<Taken>> {
        self.take(names.iter().map(|name| Place::of(b"name", name).byte))
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
    pub(super) fn claim(&self, name: &str) -> Result<Option<Claimed>> {
        let Place { byte, row } = Place::of(b"claim", name);
        let Some(taken) = self.take(std::iter::once(byte))? else { return Ok(None) };
        let others = self.0.last_claimed_by_others(row)?;
        self.0.write(row, CLAIMED)?;
        self.0.claims.borrow_mut().claimed.entry(row).or_default().0 += 1;
        self.0.forget_old();
        Ok(Some(Claimed { taken, row, others }))
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

impl Drop for Claimed {
    fn drop(&mut self) {
        let shared = &self.taken.shared;
        let Rows { claimed, ended } = &mut *shared.claims.borrow_mut();
        let Some((count, last)) = claimed.get_mut(&self.row) else { return };
        *count -= 1;
        if *count == 0 && !shared.is_abandoned.get() {
            let now = shared.clock.now();
            *last = Some(now.at);
            ended.push_back((now.at, self.row));
            // What stays there otherwise makes others look again, which is never wrong.
            let _ = shared.write(self.row, now.tick);
        }
    }
}

impl Shared {
    /// Until when other processes may have had something of this row claimed.
    fn last_claimed_by_others(&self, row: u16) -> Result<Option<Instant>> {
        let mut cells = [CLAIMED; COLUMNS as usize];
        pread(&self.file, &mut cells, offset(row, 0))?;
        let Moment { at: now, tick } = self.clock.now();
        let others = (0..COLUMNS).zip(cells).filter(|(column, cell)| *column != self.column && *cell != NEVER);
        let age = |cell| match cell {
            CLAIMED => Duration::ZERO,
            // Both are somewhere in their ticks.
            cell => TICK * (u32::from(elapsed(cell, tick)).saturating_sub(1)),
        };
        Ok(others.map(|(_, cell)| age(cell)).min().map(|age| now.checked_sub(age).unwrap_or(now)))
    }

    /// Takes back what was written long ago.
    fn forget_old(&self) {
        let now = self.clock.now().at;
        let Rows { claimed, ended } = &mut *self.claims.borrow_mut();
        while let Some((at, row)) = ended.front().copied().filter(|(at, _)| now.saturating_duration_since(*at) > TOLD) {
            ended.pop_front();
            // It may have been claimed again since.
            if claimed.get(&row) == Some(&(0, Some(at))) {
                claimed.remove(&row);
                let _ = self.write(row, NEVER);
            }
        }
    }

    fn write(&self, row: u16, cell: u8) -> Result<()> {
        match pwrite(&self.file, &[cell], offset(row, self.column))? {
            1 => Ok(()),
            _ => Err(Errno::IO),
        }
    }
}

/// What stands for a name.
struct Place {
    byte: u64,
    row: u16,
}

impl Place {
    fn of(kind: &[u8], name: &str) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(kind);
        context.update(name.as_bytes());
        let digest = context.finish();
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let (byte, row) = digest.as_ref().split_at(8);
        let byte = number(byte) % NAMES + NAMES;
        let row = number(row) % u64::from(ROWS);
        Self { byte, row: u16::try_from(row).unwrap_or_default() }
    }
}

fn offset(row: u16, column: u16) -> u64 {
    u64::from(row) * u64::from(COLUMNS) + u64::from(column)
}

impl Clock {
    #[cfg_attr(not(test), allow(clippy::unused_self, reason = "only tests have a time of their own"))]
    fn now(&self) -> Moment {
        let (at, time) = (Instant::now(), clock_gettime(ClockId::Monotonic));
        let time = Duration::try_from(time).unwrap_or_default();
        #[cfg(test)]
        let (at, time) = (at + self.ahead.get(), time + self.ahead.get());
        let tick = u8::try_from(time.as_nanos() / TICK.as_nanos() % TICKS + 1).unwrap_or(CLAIMED);
        Moment { at, tick }
    }
}

/// How many ticks `then` was before `now`, both as a [`Moment`] has them.
fn elapsed(then: u8, now: u8) -> u8 {
    if now >= then { now - then } else { u8::MAX - 1 - then + now }
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
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn processes<const COUNT: usize>() -> [Exclusion; COUNT] {
        let file = Exclusion::create().unwrap();
        [(); COUNT].map(|()| Exclusion::join(file.as_fd()).unwrap())
    }

    /// Lets time pass, for these.
    fn pass<const COUNT: usize>(time: Duration, processes: [&Exclusion; COUNT]) -> Instant {
        for process in processes {
            process.0.clock.ahead.set(process.0.clock.ahead.get() + time);
        }
        processes[0].0.clock.now().at
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

    #[test]
    fn as_many_take_part_as_there_are_columns() {
        let file = Exclusion::create().unwrap();
        let mut all: Vec<_> = (0..COLUMNS).map(|_| Exclusion::join(file.as_fd()).unwrap()).collect();
        assert!(Exclusion::join(file.as_fd()).is_err());
        all.remove(7);
        let next = Exclusion::join(file.as_fd()).unwrap();
        assert_eq!(next.0.column, 7);
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
            let Place { byte, row } = Place::of(b"name", &name);
            prop_assert!((NAMES..1 << 63).contains(&byte) && row < ROWS);
            prop_assert!(byte != Place::of(b"claim", &name).byte);
        }

        #[test]
        fn a_tick_is_as_long_ago_as_it_is(then in 0..10_000_u64, ticks in 0..254_u64) {
            let tick = |number: u64| u8::try_from(number % 254 + 1).unwrap();
            prop_assert_eq!(u64::from(elapsed(tick(then), tick(then + ticks))), ticks);
        }
    }

    #[test]
    fn who_claims_a_name_hears_when_others_had_it() {
        let [one, two] = processes();
        let claim = |exclusion: &Exclusion| exclusion.claim("a").unwrap();
        let first = claim(&one).unwrap();
        assert!(claim(&one).is_none() && claim(&two).is_none());
        assert!(take(&two, &["a"]).is_some(), "that is another matter");
        let before = Instant::now();
        let between = pass(TICK * 3, [&one, &two]);
        drop(first);
        pass(TICK * 3, [&one, &two]);
        let second = claim(&two).unwrap();
        let others = second.others.unwrap();
        assert!((between..between + TICK * 2).contains(&others), "{:?}", others - before);
        drop(second);
        pass(TICK * 3, [&one, &two]);
        assert!(claim(&two).unwrap().others.unwrap() < between + TICK * 2, "only others count");
    }

    #[test]
    fn a_row_is_claimed_while_one_of_its_names_is() {
        let [one, two] = processes();
        let row = |number: u32| Place::of(b"claim", &number.to_string()).row;
        let twin = (1..1 << 20).find(|number| row(*number) == row(0)).unwrap().to_string();
        let first = one.claim("0").unwrap().unwrap();
        drop(one.claim(&twin).unwrap().unwrap());
        let asked = pass(TICK * 3, [&one, &two]);
        assert!(two.claim(&twin).unwrap().unwrap().others.unwrap() >= asked);
        let dropped = one.0.clock.now().at;
        drop(first);
        pass(TICK * 3, [&one, &two]);
        assert!(two.claim(&twin).unwrap().unwrap().others.unwrap() < dropped + TICK * 2);
    }

    #[test]
    fn what_was_claimed_long_ago_is_not_told() {
        let [one, two] = processes();
        let others = |name: &str| two.claim(name).unwrap().unwrap().others;
        for name in ["a", "b", "c"] {
            drop(one.claim(name).unwrap().unwrap());
        }
        let held = one.claim("c").unwrap().unwrap();
        pass(TOLD / 2, [&one, &two]);
        drop(one.claim("b").unwrap().unwrap());
        pass(TOLD / 2 + TICK, [&one, &two]);
        drop(one.claim("d").unwrap().unwrap());
        assert_eq!(others("a"), None);
        assert!(others("b").is_some() && others("d").is_some());
        assert!(two.claim("c").unwrap().is_none());
        drop(held);
        assert!(others("c").is_some());
        let rows = one.0.claims.borrow();
        assert_eq!((rows.claimed.len(), rows.ended.len()), (3, 3));
    }

    #[test]
    fn what_is_abandoned_stays_taken() {
        let [one, two] = processes();
        let (taken, claimed) = (take(&one, &["a"]), one.claim("b").unwrap());
        one.abandon();
        drop((taken, claimed, one));
        assert!(take(&two, &["a"]).is_none() && two.claim("b").unwrap().is_none());
    }

    #[test]
    fn what_a_dead_process_had_is_free_and_what_it_claimed_counts_as_just_claimed() {
        let [exclusion, dying] = processes();
        let had = (take(&dying, &["a"]).unwrap(), dying.claim("b").unwrap().unwrap());
        // From now on another process alone has what it had.
        let mut process =
            Command::new("sleep").arg("600").stdin(dying.as_fd().try_clone_to_owned().unwrap()).spawn().unwrap();
        dying.0.is_abandoned.set(true);
        drop((had, dying));
        assert!(take(&exclusion, &["a"]).is_none() && exclusion.claim("b").unwrap().is_none());
        process.kill().unwrap();
        process.wait().unwrap();
        // A program that another test starts has it open until it is executed.
        let begun = Instant::now();
        while take(&exclusion, &["a"]).is_none() {
            assert!(begun.elapsed() < Duration::from_secs(60), "what a dead process had stays taken");
            std::thread::yield_now();
        }
        let asked = pass(TICK * 3, [&exclusion]);
        let others = exclusion.claim("b").unwrap().unwrap().others;
        assert!(others.is_some_and(|others| others >= asked), "it may have added something before it died");
    }
}
