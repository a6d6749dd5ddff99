//! Answers on their way to the client.

use std::collections::VecDeque;

use crate::protocol::response::Payload;

use super::buffers;

/// A session takes the next request while at most so many bytes wait to be sent: the next block is
/// read while the end of the one before is on its way, and a client that does not read gets no more
/// than two.
const BACKLOG_MAXIMUM: usize = 64 << 10;

/// A queue of answers, of which the first may be sent in part.
#[derive(Debug, Default)]
pub(super) struct Output {
    queue: VecDeque<Payload>,
    sent: usize,
}

impl Output {
    pub(super) fn push(&mut self, payload: Payload) {
        self.queue.push_back(payload);
    }

    pub(super) fn front(&self) -> &[u8] {
        self.queue.front().map_or(&[], |payload| &payload.as_slice()[self.sent..])
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.sent += count;
        if self.queue.front().is_some_and(|payload| self.sent >= payload.len()) {
            self.sent = 0;
            if let Some(payload) = self.queue.pop_front() {
                buffers::give(payload.into_buffer());
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.sent = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether so little waits that the next request may be taken.
    pub(super) fn has_room(&self) -> bool {
        let waiting: usize = self.queue.iter().map(Payload::len).sum();
        waiting - self.sent <= BACKLOG_MAXIMUM
    }
}
