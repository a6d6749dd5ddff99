//! What listings under way may take together, and which of them has to wait.
//!
//! Since 2.54 a list is one message and has to be held whole until it is sent. Lists that would take
//! too much together wait for each other; the oldest that is being built may use what is reserved for
//! it, so that two of them never wait for one another. The ledger belongs to the thread, of which
//! there is one.

use std::cell::RefCell;
use std::collections::BTreeSet;

/// A list of so many bytes is not counted: connections are bounded too.
const SMALL: usize = 64 << 10;

#[derive(Debug, Default)]
struct Ledger {
    used: usize,
    next: u64,
    /// Tickets of the lists that still grow, the oldest first.
    growing: BTreeSet<u64>,
}

thread_local! {
    static LEDGER: RefCell<Ledger> = RefCell::default();
}

/// What one list takes, until it is sent.
#[derive(Debug, Default)]
pub struct Share {
    ticket: Option<u64>,
    bytes: usize,
}

impl Share {
    /// Takes `bytes` in all, of `maximum` for all listings; half of that is for the oldest one alone,
    /// and the most that one may take. False when it has to wait until others are done.
    pub(super) fn grow(&mut self, bytes: usize, maximum: usize) -> bool {
        if bytes <= SMALL {
            return true;
        }
        LEDGER.with_borrow_mut(|ledger| {
            let next = &mut ledger.next;
            let ticket = *self.ticket.get_or_insert_with(|| {
                *next += 1;
                *next
            });
            ledger.growing.insert(ticket);
            let limit = if ledger.growing.first() == Some(&ticket) { maximum } else { maximum / 2 };
            let used = ledger.used - self.bytes + bytes;
            if used > limit {
                return false;
            }
            ledger.used = used;
            self.bytes = bytes;
            true
        })
    }

    /// The list is complete; what it takes stays taken until this value is dropped.
    pub(super) fn complete(&self) {
        if let Some(ticket) = self.ticket {
            LEDGER.with_borrow_mut(|ledger| _ = ledger.growing.remove(&ticket));
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.complete();
        LEDGER.with_borrow_mut(|ledger| ledger.used -= self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;
    const MAXIMUM: usize = 1000 * KIB;

    #[test]
    fn lists_wait_for_each_other_and_the_oldest_for_none() {
        let (mut first, mut second, mut third) = (Share::default(), Share::default(), Share::default());
        assert!(first.grow(300 * KIB, MAXIMUM) && second.grow(200 * KIB, MAXIMUM));
        assert!(!second.grow(201 * KIB, MAXIMUM), "half is for the oldest");
        assert!(!third.grow(100 * KIB, MAXIMUM));
        assert!(third.grow(SMALL, MAXIMUM), "small lists never wait");
        assert!(first.grow(500 * KIB, MAXIMUM));

        // complete, but not sent: the next one is the oldest, and may take the rest
        first.complete();
        assert!(second.grow(500 * KIB, MAXIMUM));
        assert!(!third.grow(100 * KIB, MAXIMUM));
        second.complete();
        assert!(!third.grow(100 * KIB, MAXIMUM), "everything waits to be sent");
        drop(first);
        assert!(third.grow(500 * KIB, MAXIMUM));
        drop((second, third));
        LEDGER.with_borrow(|ledger| assert_eq!((ledger.used, ledger.growing.len()), (0, 0)));
    }
}
