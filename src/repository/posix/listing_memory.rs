//! What listings under way may take together, and which of them has to wait.
//!
//! Since 2.54 a list is one message and has to be held whole until it is sent. Lists that would take
//! too much together wait for each other; the oldest that is being built may use what is reserved for
//! it, so that two of them never wait for one another. The ledger belongs to the thread, of which
//! there is one; where other processes serve sessions of the same server, it is told who keeps their common
//! count.

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

/// Has this process hold so many bytes in all, of a maximum for all processes, for the oldest list that it builds or
/// for another one. False if that has to wait for others. To hold less always succeeds.
pub type Hold = Box<dyn FnMut(usize, usize, bool) -> bool>;

thread_local! {
    static LEDGER: RefCell<Ledger> = RefCell::default();
    static SHARED: RefCell<Option<Hold>> = const { RefCell::new(None) };
}

/// Has the bound be one that this process shares with others.
pub fn share(hold: Hold) {
    SHARED.replace(Some(hold));
}

fn hold(bytes: usize, maximum: usize, oldest: bool) -> bool {
    SHARED.with_borrow_mut(|shared| shared.as_mut().is_none_or(|hold| hold(bytes, maximum, oldest)))
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
            let oldest = ledger.growing.first() == Some(&ticket);
            let limit = if oldest { maximum } else { maximum / 2 };
            let used = ledger.used - self.bytes + bytes;
            if used > limit || !hold(used, maximum, oldest) {
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
        if self.bytes > 0 {
            let used = LEDGER.with_borrow_mut(|ledger| {
                ledger.used -= self.bytes;
                ledger.used
            });
            hold(used, 0, false);
        }
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

        // as another process has all of it
        share(Box::new(|bytes, _, _| bytes == 0));
        assert!(!Share::default().grow(100 * KIB, MAXIMUM) && Share::default().grow(SMALL, MAXIMUM));
        SHARED.take();
        LEDGER.with_borrow(|ledger| assert_eq!((ledger.used, ledger.growing.len()), (0, 0)));
    }
}
