//! What a session has in all of its phases: what comes from its client and goes there, and what it wants done.

use std::collections::VecDeque;
use std::rc::Rc;

use super::output::Output;
use super::{Counters, Event, Host, Limits};
use crate::disk::Operation;
use crate::protocol::error::{Code, Error};
use crate::protocol::framing::Framer;
use crate::protocol::release::Release;
use crate::protocol::response::{self, Payload};

/// The line to the client and to what does the session's work.
pub(super) struct Line {
    pub(super) host: Rc<Host>,
    pub(super) release: &'static Release,
    pub(super) limits: Limits,
    pub(super) framer: Framer,
    pub(super) output: Output,
    pub(super) events: VecDeque<Event>,
    pub(super) counters: Counters,
    operations: VecDeque<(u64, Operation)>,
    next_operation: u64,
    outstanding: usize,
}

impl Line {
    /// A line on which the greeting is to be sent, and the parameters of a request may take `maximum` bytes.
    pub(super) fn new(host: Rc<Host>, release: &'static Release, limits: Limits, maximum: usize) -> Self {
        let mut output = Output::default();
        let mut greeting = Payload::new(Vec::new(), 0);
        greeting.append(release.greeting().as_bytes());
        output.push(greeting);
        Self {
            host,
            release,
            limits,
            framer: Framer::new(release.framing, maximum),
            output,
            events: VecDeque::new(),
            counters: Counters::default(),
            operations: VecDeque::new(),
            next_operation: 0,
            outstanding: 0,
        }
    }

    /// Wants an operation done; returns the session's number for it.
    pub(super) fn submit(&mut self, operation: Operation) -> u64 {
        let number = self.next_operation;
        self.operations.push_back((number, operation));
        self.next_operation += 1;
        self.outstanding += 1;
        number
    }

    /// The next operation to be done.
    pub(super) fn take_operation(&mut self) -> Option<(u64, Operation)> {
        self.operations.pop_front()
    }

    /// An operation has completed.
    pub(super) const fn complete(&mut self) {
        self.outstanding -= 1;
    }

    /// Whether the completion of an operation is still to come.
    pub(super) const fn awaits_disk(&self) -> bool {
        self.outstanding > 0
    }

    /// Sends an error as the answer to the request of a file's number, or of none. It counts as an answer.
    pub(super) fn answer_error(&mut self, session: u64, error: &Error) {
        self.counters.requests += 1;
        self.counters.errors += 1;
        self.counters.denied += u64::from(error.code == Code::Access);
        self.output.push(response::error(self.release.framing, session, error));
    }

    pub(super) fn push_part(&mut self, part: Payload) {
        if part.is_empty() {
            self.give_buffer(part.into_buffer());
        } else {
            self.output.push(part);
        }
    }

    /// Has `buffer` kept for other transfers.
    pub(super) fn give_buffer(&self, buffer: Vec<u8>) {
        self.host.repository.buffers.give(buffer);
    }

    /// What must always be true.
    pub(super) fn check_invariants(&self) -> bool {
        self.operations.len() <= self.outstanding && self.output.check_invariants()
    }
}
