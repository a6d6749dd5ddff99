//! What clients make the server hold: requests in part, buffers and filters of open files.
//!
//! A client chooses how large they are, so their sum over all sessions is bounded. Where other processes serve
//! sessions of the same server, somebody else keeps their common count.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Buffers of so many bytes are not counted: connections are bounded too, and a client that asks for
/// nothing large must not pay for those that do.
pub(super) const SMALL: usize = 64 << 10;

/// Has this process hold so many bytes in all, of a maximum for all processes. False if others leave less; to hold
/// less always succeeds.
pub type Hold = Box<dyn FnMut(usize, usize) -> bool>;

/// What all sessions of a process hold.
#[derive(Default)]
pub(super) struct Pool {
    used: Cell<usize>,
    shared: RefCell<Option<Hold>>,
}

impl Pool {
    /// Has other processes that serve sessions of the same server keep to the bound too.
    pub(super) fn share(&self, hold: Hold) {
        self.shared.replace(Some(hold));
    }

    fn hold(&self, bytes: usize, maximum: usize) -> bool {
        self.shared.borrow_mut().as_mut().is_none_or(|hold| hold(bytes, maximum))
    }
}

/// What one session holds.
pub(super) struct Share {
    pool: Rc<Pool>,
    bytes: usize,
}

impl Share {
    /// Of a session that holds nothing.
    pub(super) const fn new(pool: Rc<Pool>) -> Self {
        Self { pool, bytes: 0 }
    }

    /// The session now holds `bytes`. False when that is more than before and more than `maximum` for
    /// all sessions together.
    #[must_use]
    pub(super) fn set(&mut self, bytes: usize, maximum: usize) -> bool {
        if bytes == self.bytes {
            return true;
        }
        let used = self.pool.used.get() - self.bytes + bytes;
        let grown = bytes > self.bytes;
        self.bytes = bytes;
        self.pool.used.set(used);
        // Also tells others that it is less now.
        let is_left = used <= maximum && self.pool.hold(used, maximum);
        !grown || is_left
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            let used = self.pool.used.get() - self.bytes;
            self.pool.used.set(used);
            self.pool.hold(used, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(pool: &Rc<Pool>) -> (Share, Share) {
        (Share::new(Rc::clone(pool)), Share::new(Rc::clone(pool)))
    }

    #[test]
    fn only_a_share_that_grows_past_the_maximum_is_refused() {
        let (mut first, mut second) = shares(&Rc::default());
        assert!(first.set(60, 100) && second.set(40, 100));
        assert!(!second.set(41, 100));
        assert!(second.set(41, 100), "it did not grow");
        assert!(first.set(10, 100) && second.set(90, 100));
        drop(second);
        assert!(first.set(100, 100));
    }

    #[test]
    fn what_other_processes_hold_counts_too_and_they_are_told_of_less() {
        let told = Rc::new(RefCell::new(Vec::new()));
        let others = Rc::clone(&told);
        let pool = Rc::<Pool>::default();
        pool.share(Box::new(move |bytes, _| {
            others.borrow_mut().push(bytes);
            bytes <= 50
        }));
        let (mut first, mut second) = shares(&pool);
        assert!(first.set(40, 100) && !second.set(20, 100) && second.set(5, 100) && second.set(5, 100));
        drop((first, second));
        assert_eq!(*told.borrow(), [40, 60, 45, 5, 0]);
    }
}
