//! What listings under way may take together, and which of them has to wait.
//!
//! Since 2.54 a list is one message and has to be held whole until it is sent. Lists that would take
//! too much together wait for each other; the oldest that is being built may use what is reserved for
//! it, so that two of them never wait for one another. Where other processes serve sessions of the same server, the ledger is
//! told who keeps their common count.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// A list of so many bytes is not counted: connections are bounded too.
const SMALL: usize = 64 << 10;

/// Has this process hold so many bytes in all, of a maximum for all processes, for the oldest list that it builds or
/// for another one. False if that has to wait for others. To hold less always succeeds.
pub(crate) type Hold = Box<dyn FnMut(usize, usize, bool) -> bool>;

/// What the lists of one process take.
#[derive(Default)]
pub(crate) struct Ledger {
    lists: RefCell<Lists>,
    /// Where the bound is one that this process shares with others.
    shared: RefCell<Option<Hold>>,
}

#[derive(Debug, Default)]
struct Lists {
    used: usize,
    next: u64,
    /// Tickets of the lists that still grow, the oldest first.
    growing: BTreeSet<u64>,
}

impl Ledger {
    /// Has the bound be one that this process shares with others.
    pub(crate) fn share(&self, hold: Hold) {
        self.shared.replace(Some(hold));
    }

    fn hold(&self, bytes: usize, maximum: usize, oldest: bool) -> bool {
        self.shared.borrow_mut().as_mut().is_none_or(|hold| hold(bytes, maximum, oldest))
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.lists.borrow().fmt(f)
    }
}

/// What one list takes, until it is sent.
#[derive(Debug)]
pub(crate) struct Share {
    ledger: Rc<Ledger>,
    ticket: Option<u64>,
    bytes: usize,
}

impl Share {
    /// For a list that takes nothing yet.
    pub(super) fn new(ledger: &Rc<Ledger>) -> Self {
        Self { ledger: Rc::clone(ledger), ticket: None, bytes: 0 }
    }

    /// Takes `bytes` in all, of `maximum` for all listings; half of that is for the oldest one alone,
    /// and the most that one may take. False when it has to wait until others are done.
    pub(super) fn grow(&mut self, bytes: usize, maximum: usize) -> bool {
        if bytes <= SMALL {
            return true;
        }
        let mut lists = self.ledger.lists.borrow_mut();
        let next = &mut lists.next;
        let ticket = *self.ticket.get_or_insert_with(|| {
            *next += 1;
            *next
        });
        lists.growing.insert(ticket);
        let oldest = lists.growing.first() == Some(&ticket);
        let limit = if oldest { maximum } else { maximum / 2 };
        let used = lists.used - self.bytes + bytes;
        if used > limit || !self.ledger.hold(used, maximum, oldest) {
            return false;
        }
        lists.used = used;
        self.bytes = bytes;
        true
    }

    /// Hands over what is taken, and takes nothing any more.
    pub(super) fn hand_over(&mut self) -> Self {
        let nothing = Self::new(&self.ledger);
        std::mem::replace(self, nothing)
    }

    /// The list is complete; what it takes stays taken until this value is dropped.
    pub(super) fn complete(&self) {
        if let Some(ticket) = self.ticket {
            self.ledger.lists.borrow_mut().growing.remove(&ticket);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.complete();
        if self.bytes > 0 {
            let used = {
                let mut lists = self.ledger.lists.borrow_mut();
                lists.used -= self.bytes;
                lists.used
            };
            self.ledger.hold(used, 0, false);
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
        let ledger = Rc::<Ledger>::default();
        let new = || Share::new(&ledger);
        let (mut first, mut second, mut third) = (new(), new(), new());
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
        ledger.share(Box::new(|bytes, _, _| bytes == 0));
        assert!(!new().grow(100 * KIB, MAXIMUM) && new().grow(SMALL, MAXIMUM));
        let lists = ledger.lists.borrow();
        assert_eq!((lists.used, lists.growing.len()), (0, 0));
    }
}
