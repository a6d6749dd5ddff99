//! Answers on their way to the client.

use std::collections::VecDeque;

use crate::protocol::response::Payload;
use crate::repository::posix::listing_memory::Share;

use super::memory::SMALL;

/// A session takes the next request while at most so many bytes wait to be sent: the next block is
/// read while the end of the one before is on its way, and a client that does not read gets no more
/// than two.
const BACKLOG_MAXIMUM: usize = 64 << 10;

/// A queue of answers, of which the first may be sent in part.
#[derive(Debug, Default)]
pub(super) struct Output {
    queue: VecDeque<Answer>,
    sent: usize,
}

#[derive(Debug)]
struct Answer {
    payload: Payload,
    /// What a list takes; it is given back with the payload.
    share: Option<Share>,
}

impl Output {
    pub(super) fn push(&mut self, payload: Payload) {
        self.push_list(payload, None);
    }

    pub(super) fn push_list(&mut self, payload: Payload, share: Option<Share>) {
        self.queue.push_back(Answer { payload, share });
    }

    pub(super) fn front(&self) -> &[u8] {
        self.queue.front().map_or(&[], |answer| &answer.payload.as_slice()[self.sent..])
    }

    /// `count` bytes of the first answer were sent. Returns its buffer if that was all of it.
    pub(super) fn consume(&mut self, count: usize) -> Option<Vec<u8>> {
        self.sent += count;
        self.queue.front().filter(|answer| self.sent >= answer.payload.len())?;
        self.sent = 0;
        self.queue.pop_front().map(|answer| answer.payload.into_buffer())
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
        let waiting: usize = self.queue.iter().map(|answer| answer.payload.len()).sum();
        waiting - self.sent <= BACKLOG_MAXIMUM
    }

    /// Bytes of the buffers of blocks in it. One is held whole until its last byte is sent; lists are
    /// counted elsewhere.
    pub(super) fn memory(&self) -> usize {
        let blocks = self.queue.iter().filter(|answer| answer.share.is_none()).map(|answer| answer.payload.capacity());
        blocks.filter(|capacity| *capacity > SMALL).sum()
    }
}
