//! Buffers for blocks, kept for the next transfer.
//!
//! A transfer takes its buffers when it starts and gives them back when it ends, so that nothing is
//! allocated in between. The pool belongs to the thread, of which there is one.

use std::cell::RefCell;

/// Buffers that are kept while nobody uses them: enough for the workers of one backup.
const KEPT_MAXIMUM: usize = 8;
/// Larger ones are rare (they come of a large `buffer-size`) and go back to the system.
const KEPT_CAPACITY: usize = (1 << 20) + (64 << 10);

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for `capacity` bytes.
#[must_use]
pub(super) fn take(capacity: usize) -> Vec<u8> {
    let kept = POOL.with_borrow_mut(|pool| {
        // The smallest one that is large enough.
        let fit = (0..pool.len()).filter(|&index| pool[index].capacity() >= capacity);
        fit.min_by_key(|&index| pool[index].capacity()).map(|index| pool.swap_remove(index))
    });
    kept.unwrap_or_else(|| Vec::with_capacity(capacity))
}

/// Keeps `buffer` for later, or frees it.
pub(super) fn give(mut buffer: Vec<u8>) {
    buffer.clear();
    POOL.with_borrow_mut(|pool| {
        if pool.len() < KEPT_MAXIMUM && (4096..=KEPT_CAPACITY).contains(&buffer.capacity()) {
            pool.push(buffer);
        }
    });
}

/// Frees everything that is kept, also by filters, once nobody transfers anything.
pub fn release() {
    POOL.with_borrow_mut(Vec::clear);
    crate::filter::release();
}
