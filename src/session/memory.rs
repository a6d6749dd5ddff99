//! What clients make the server hold: requests in part, buffers and filters of open files.
//!
//! A client chooses how large they are, so their sum over all sessions is bounded. The count belongs
//! to the thread, of which there is one.

use std::cell::Cell;

/// Buffers of so many bytes are not counted: connections are bounded too, and a client that asks for
/// nothing large must not pay for those that do.
pub(super) const SMALL: usize = 64 << 10;

thread_local! {
    static USED: Cell<usize> = const { Cell::new(0) };
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
        let used = USED.get() - self.bytes + bytes;
        let grown = bytes > self.bytes;
        self.bytes = bytes;
        USED.set(used);
        !grown || used <= maximum
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        USED.set(USED.get() - self.bytes);
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
}
