//! A bound on bytes that several processes share: what one holds the others cannot have.
//!
//! Each grain of the bytes is one byte, far behind the end, of a file in memory, and whoever has locked that has the
//! grain. Such a lock belongs to an open file description, and each process has its own, so that the kernel gives
//! back what a process held when it is dead. Nobody waits, and nobody has to be asked.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{Mode, OFlags, open};

/// Bytes that are held together.
const GRAIN: usize = 256 << 10;
/// Grains that are kept for the next time, at most, and which part of all: so that a client that opens a file after
/// the other costs no system call for each.
const SPARE: (u64, u64) = (16, 512);

/// A bound, told from others of the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// What open files take.
    Files,
    /// What lists of directories take.
    Lists,
}

/// What this process holds of a bound.
#[derive(Debug)]
pub struct Budget {
    file: OwnedFd,
    base: u64,
    /// Ranges of grains, in order.
    held: Vec<(u64, u64)>,
    spare: u64,
}

impl Budget {
    /// Takes part with a file in memory, whose descriptor is not needed any more afterwards.
    ///
    /// # Errors
    ///
    /// That of open(2) on `/proc/self/fd`, where `/proc` is not mounted for instance.
    pub fn join(file: BorrowedFd<'_>, bound: Bound) -> io::Result<Self> {
        let file = open(format!("/proc/self/fd/{}", file.as_raw_fd()), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let base = match bound {
            Bound::Files => 1 << 40,
            Bound::Lists => 1 << 41,
        };
        Ok(Self { file, base, held: Vec::new(), spare: 0 })
    }

    /// Holds `bytes` in all from now on, of `maximum` for all processes together. False if the others leave less: it
    /// holds what it held then.
    pub fn hold(&mut self, bytes: usize, maximum: usize) -> bool {
        let (wanted, end) = (grains(bytes.div_ceil(GRAIN)), grains(maximum / GRAIN).max(1));
        if wanted <= self.count() {
            self.shrink(wanted + self.spare);
            return true;
        }
        self.spare = SPARE.0.min(end / SPARE.1);
        self.grow(wanted, 0, end)
    }

    /// As [`Self::hold`], where one process at a time may have more than a half, if it is `first`: so that of those
    /// that want more, while each holds what the next one needs, one gets it.
    pub fn hold_more_than_half(&mut self, bytes: usize, maximum: usize, first: bool) -> bool {
        let (wanted, end) = (grains(bytes.div_ceil(GRAIN)), grains(maximum / GRAIN).max(1));
        let half = end.div_ceil(2);
        if wanted <= self.count() {
            self.shrink(wanted);
            return true;
        }
        if self.grow(wanted, 0, half) {
            return true;
        }
        // Whoever has the first grain of the second half has that half.
        let has_second = self.held.last().is_some_and(|(begin, length)| begin + length > half);
        if !first || half >= end || !has_second && !self.lock(half, 1) {
            return false;
        }
        if !has_second {
            self.keep(half, 1);
        }
        let grown = self.grow(wanted, 0, end);
        if !grown && !has_second {
            self.shrink(self.count() - 1);
        }
        grown
    }

    /// How many grains it holds.
    fn count(&self) -> u64 {
        self.held.iter().map(|(_, length)| length).sum()
    }

    /// Takes grains from `cursor` to `end` until it has `wanted`; all that are missing, or none.
    fn grow(&mut self, wanted: u64, mut cursor: u64, end: u64) -> bool {
        let before = self.held.clone();
        let mut missing = wanted.saturating_sub(self.count());
        while missing > 0 && cursor < end {
            let own = self.held.iter().find(|(begin, length)| begin + length > cursor).copied();
            if let Some((begin, length)) = own.filter(|(begin, _)| *begin <= cursor) {
                cursor = begin + length;
                continue;
            }
            let mut room = own.map_or(end, |(begin, _)| begin.min(end)) - cursor;
            // The kernel tells of any of them, not of the first one.
            while let Some((begin, length)) = self.others(cursor, room) {
                room = begin.saturating_sub(cursor);
                if room == 0 {
                    cursor = begin + length;
                    break;
                }
            }
            let taken = room.min(missing);
            // Somebody may have been quicker, which the next look tells.
            if taken > 0 && self.lock(cursor, taken) {
                self.keep(cursor, taken);
                missing -= taken;
            }
        }
        if missing == 0 {
            return true;
        }
        for (begin, length) in std::mem::replace(&mut self.held, before) {
            self.release_unheld(begin, length);
        }
        false
    }

    /// Gives back what is beyond so many grains, the last ones first.
    fn shrink(&mut self, wanted: u64) {
        let mut surplus = self.count().saturating_sub(wanted);
        while surplus > 0
            && let Some((begin, length)) = self.held.pop()
        {
            let given = surplus.min(length);
            self.unlock(begin + length - given, given);
            if given < length {
                self.held.push((begin, length - given));
            }
            surplus -= given;
        }
    }

    fn release_unheld(&self, begin: u64, length: u64) {
        for grain in begin..begin + length {
            if !self.held.iter().any(|(begin, length)| (*begin..begin + length).contains(&grain)) {
                self.unlock(grain, 1);
            }
        }
    }

    fn keep(&mut self, begin: u64, length: u64) {
        match self.held.iter_mut().find(|(first, count)| first + count == begin) {
            Some((_, count)) => *count += length,
            None => self.held.push((begin, length)),
        }
        self.held.sort_unstable();
    }

    fn lock(&self, begin: u64, length: u64) -> bool {
        fcntl(&self.file, FcntlArg::F_OFD_SETLK(&self.range(libc::F_WRLCK, begin, length))).is_ok()
    }

    fn unlock(&self, begin: u64, length: u64) {
        // This cannot fail but for want of memory; others have less then until the process ends.
        let _ = fcntl(&self.file, FcntlArg::F_OFD_SETLK(&self.range(libc::F_UNLCK, begin, length)));
    }

    /// Some of these grains that others have, if they have any.
    fn others(&self, begin: u64, length: u64) -> Option<(u64, u64)> {
        let mut range = self.range(libc::F_WRLCK, begin, length);
        let asked = fcntl(&self.file, FcntlArg::F_OFD_GETLK(&mut range));
        if asked.is_err() {
            // None is free, as far as is known.
            return Some((begin, length));
        }
        if libc::c_int::from(range.l_type) == libc::F_UNLCK {
            return None;
        }
        let start = range.l_start.cast_unsigned().saturating_sub(self.base);
        Some((start, range.l_len.cast_unsigned().max(1)))
    }

    fn range(&self, kind: libc::c_int, begin: u64, length: u64) -> libc::flock {
        libc::flock {
            l_type: libc::c_short::try_from(kind).unwrap_or_default(),
            l_whence: libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default(),
            l_start: (self.base + begin).cast_signed(),
            l_len: length.cast_signed(),
            // Has to be 0 for a lock of an opening.
            l_pid: 0,
        }
    }
}

/// So many grains at most that the bounds of one file do not meet.
fn grains(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX).min(1 << 39)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use proptest::prelude::*;
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    fn budgets<const COUNT: usize>(bound: Bound) -> [Budget; COUNT] {
        let file = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        [(); COUNT].map(|()| Budget::join(file.as_fd(), bound).unwrap())
    }

    #[test]
    fn one_may_have_all_that_the_others_leave() {
        let [mut one, mut two, mut three] = budgets(Bound::Files);
        let maximum = 20 * GRAIN;
        assert!(one.hold(maximum, maximum), "nobody else has anything");
        assert!(!one.hold(maximum + 1, maximum) && !two.hold(1, maximum));
        assert!(one.hold(12 * GRAIN, maximum) && two.hold(5 * GRAIN, maximum));
        assert!(!three.hold(4 * GRAIN, maximum) && three.hold(3 * GRAIN, maximum));
        assert!(one.hold(2 * GRAIN, maximum) && three.hold(13 * GRAIN, maximum), "it is not in one piece");
        drop(two);
        assert!(one.hold(7 * GRAIN, maximum), "as when a process dies");
        assert!(one.hold(0, 0) && three.hold(maximum, maximum));
    }

    #[test]
    fn bounds_of_one_file_have_nothing_to_do_with_each_other() {
        let file = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        let mut all = [Bound::Files, Bound::Lists].map(|bound| Budget::join(file.as_fd(), bound).unwrap());
        for budget in &mut all {
            assert!(budget.hold(usize::MAX, usize::MAX));
        }
    }

    #[test]
    fn a_file_after_the_other_locks_nothing_anew() {
        let [mut one] = budgets(Bound::Files);
        let maximum = 8192 * GRAIN;
        assert!(one.hold(8 * GRAIN, maximum));
        let held = one.held.clone();
        for grains in [0, 7] {
            assert!(one.hold(grains * GRAIN, maximum));
            assert_eq!(one.held, held);
        }
        assert!(one.hold(1000 * GRAIN, maximum) && one.hold(0, maximum));
        assert_eq!(one.count(), SPARE.0);
    }

    #[test]
    fn of_those_who_each_hold_what_the_next_one_needs_one_goes_on() {
        let [mut one, mut two, mut three] = budgets(Bound::Lists);
        let maximum = 12 * GRAIN;
        for budget in [&mut one, &mut two, &mut three] {
            assert!(budget.hold_more_than_half(2 * GRAIN, maximum, true));
        }
        assert!(!one.hold_more_than_half(6 * GRAIN, maximum, false), "it is not the first of its own");
        assert!(one.hold_more_than_half(6 * GRAIN, maximum, true));
        assert!(!two.hold_more_than_half(3 * GRAIN, maximum, true), "half is for one");
        assert!(one.hold_more_than_half(8 * GRAIN, maximum, true), "and all of that half");
        assert!(one.hold_more_than_half(0, 0, false));
        assert!(two.hold_more_than_half(6 * GRAIN, maximum, true));
        assert!(!three.hold_more_than_half(6 * GRAIN, maximum, true));
    }

    proptest! {
        #[test]
        fn together_they_never_hold_more_than_there_is(steps in prop::collection::vec((0_usize..3, 0_usize..30), 1..60)) {
            let mut budgets: [Budget; 3] = budgets(Bound::Files);
            let maximum = 24 * GRAIN;
            for (index, grains) in steps {
                let held = |budgets: &[Budget; 3]| budgets.iter().map(Budget::count).sum::<u64>();
                let before = held(&budgets) - budgets[index].count();
                let got = budgets[index].hold(grains * GRAIN, maximum);
                prop_assert_eq!(got, before + grains as u64 <= 24 || budgets[index].count() >= grains as u64);
                prop_assert!(held(&budgets) <= 24);
                for budget in &budgets {
                    let mut last = 0;
                    for (begin, length) in &budget.held {
                        prop_assert!(*begin >= last && *length > 0);
                        last = begin + length;
                    }
                }
            }
        }
    }
}
