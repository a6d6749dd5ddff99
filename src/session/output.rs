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
    /// Bytes of the first answer that were sent.
    sent: usize,
    /// Bytes that wait to be sent.
    waiting: usize,
    /// Bytes of the buffers of blocks in it. One is held whole until its last byte is sent; lists are counted
    /// elsewhere.
    blocks: usize,
}

#[derive(Debug)]
struct Answer {
    payload: Payload,
    /// What a list takes; it is given back with the payload.
    share: Option<Share>,
}

impl Answer {
    /// What it takes of [`Output::blocks`].
    fn block(&self) -> usize {
        let capacity = self.payload.capacity();
        if self.share.is_none() && capacity > SMALL { capacity } else { 0 }
    }
}

impl Output {
    pub(super) fn push(&mut self, payload: Payload) {
        self.push_list(payload, None);
    }

    pub(super) fn push_list(&mut self, payload: Payload, share: Option<Share>) {
        let answer = Answer { payload, share };
        self.waiting += answer.payload.len();
        self.blocks += answer.block();
        self.queue.push_back(answer);
    }

    pub(super) fn front(&self) -> &[u8] {
        self.queue.front().map_or(&[], |answer| &answer.payload.as_slice()[self.sent..])
    }

    /// `count` bytes of the first answer were sent. Returns its buffer if that was all of it.
    pub(super) fn consume(&mut self, count: usize) -> Option<Vec<u8>> {
        self.sent += count;
        self.waiting -= count;
        self.queue.front().filter(|answer| self.sent >= answer.payload.len())?;
        self.sent = 0;
        let answer = self.queue.pop_front()?;
        self.blocks -= answer.block();
        Some(answer.payload.into_buffer())
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether so little waits that the next request may be taken.
    pub(super) const fn has_room(&self) -> bool {
        self.waiting <= BACKLOG_MAXIMUM
    }

    /// Bytes of the buffers of blocks in it.
    pub(super) const fn memory(&self) -> usize {
        self.blocks
    }

    /// What must always be true.
    pub(super) fn check_invariants(&self) -> bool {
        let length: usize = self.queue.iter().map(|answer| answer.payload.len()).sum();
        self.waiting + self.sent == length && self.blocks == self.queue.iter().map(Answer::block).sum::<usize>()
    }
}
