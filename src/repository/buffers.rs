//! Buffers for blocks, kept for the next transfer.
//!
//! A transfer takes its buffers when it starts and gives them back when it ends, so that nothing is
//! allocated in between.

use std::cell::RefCell;

/// Buffers that are kept while nobody uses them: enough for the workers of one backup.
const KEPT_MAXIMUM: usize = 8;
/// Larger ones are rare (they come of a large `buffer-size`) and go back to the system.
const KEPT_CAPACITY: usize = (1 << 20) + (64 << 10);

/// Buffers that nobody uses.
#[derive(Debug, Default)]
pub(crate) struct Buffers(RefCell<Vec<Vec<u8>>>);

impl Buffers {
    /// An empty buffer with room for `capacity` bytes.
    pub(crate) fn take(&self, capacity: usize) -> Vec<u8> {
        let mut kept = self.0.borrow_mut();
        // The smallest one that is large enough.
        let fit = (0..kept.len()).filter(|&index| kept[index].capacity() >= capacity);
        let fit = fit.min_by_key(|&index| kept[index].capacity());
        fit.map_or_else(|| Vec::with_capacity(capacity), |index| kept.swap_remove(index))
    }

    /// Keeps `buffer` for later, or frees it.
    pub(crate) fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT_MAXIMUM && (4096..=KEPT_CAPACITY).contains(&buffer.capacity()) {
            kept.push(buffer);
        }
    }

    /// Frees all of them.
    pub(crate) fn release(&self) {
        self.0.borrow_mut().clear();
    }
}
