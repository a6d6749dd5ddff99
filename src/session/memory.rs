//! What clients make the server hold: requests in part, buffers and filters of open files.
//!
//! A client chooses how large they are, so their sum over all sessions is bounded. The count belongs
//! to the thread, of which there is one; where other processes serve sessions of the same server, it is told who
//! keeps their common count.

use std::cell::{Cell, RefCell};

/// Buffers of so many bytes are not counted: connections are bounded too, and a client that asks for
/// nothing large must not pay for those that do.
pub(super) const SMALL: usize = 64 << 10;

type Hold = Box<dyn FnMut(usize, usize) -> bool>;

thread_local! {
    static USED: Cell<usize> = const { Cell::new(0) };
    static SHARED: RefCell<Option<Hold>> = const { RefCell::new(None) };
}

/// Has the bound be one that this process shares with others. `hold` has this process hold so many bytes in all, of a
/// maximum for all processes, and is false if others leave less; to hold less always succeeds.
pub fn share_memory(hold: Box<dyn FnMut(usize, usize) -> bool>) {
    SHARED.replace(Some(hold));
}

fn hold(bytes: usize, maximum: usize) -> bool {
    SHARED.with_borrow_mut(|shared| shared.as_mut().is_none_or(|hold| hold(bytes, maximum)))
}

/// What one session holds.
#[derive(Debug, Default)]
pub(super) struct Share {
    bytes: usize,
}

impl Share {
    /// The session now holds `bytes`. False when that is more than before and more than `maximum` for
    /// all sessions together.
    #[must_use]
    pub(super) fn set(&mut self, bytes: usize, maximum: usize) -> bool {
        if bytes == self.bytes {
            return true;
        }
        let used = USED.get() - self.bytes + bytes;
        let grown = bytes > self.bytes;
        self.bytes = bytes;
        USED.set(used);
        // Also tells that it is less now.
        let is_left = used <= maximum && hold(used, maximum);
        !grown || is_left
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            USED.set(USED.get() - self.bytes);
            hold(USED.get(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_share_that_grows_past_the_maximum_is_refused() {
        let (mut first, mut second) = (Share::default(), Share::default());
        assert!(first.set(60, 100) && second.set(40, 100));
        assert!(!second.set(41, 100));
        assert!(second.set(41, 100), "it did not grow");
        assert!(first.set(10, 100) && second.set(90, 100));
        drop(second);
        assert!(first.set(100, 100));
    }

    #[test]
    fn what_other_processes_hold_counts_too_and_they_are_told_of_less() {
        let told = std::rc::Rc::new(RefCell::new(Vec::new()));
        let others = std::rc::Rc::clone(&told);
        share_memory(Box::new(move |bytes, _| {
            others.borrow_mut().push(bytes);
            bytes <= 50
        }));
        let (mut first, mut second) = (Share::default(), Share::default());
        assert!(first.set(40, 100) && !second.set(20, 100) && second.set(5, 100) && second.set(5, 100));
        drop((first, second));
        assert_eq!(*told.borrow(), [40, 60, 45, 5, 0]);
        SHARED.take();
    }
}
