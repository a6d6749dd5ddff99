//! What the loop knows of a connection beside what the connection knows itself.

use std::collections::VecDeque;
use std::time::Instant;

use super::clock::Timers;
use super::reports::Reports;
use crate::server::client::connection::Connection;

/// A connection in the table of the loop.
pub(super) struct Slot {
    pub(super) connection: Connection,
    /// None where it was accepted here, and nobody else knows of it.
    pub(super) given: Option<Given>,
    /// It is in the queue of those that may have something to do.
    pub(super) is_queued: bool,
    /// When its timer expires. Deadlines move on with every request, timers only when they are looked at.
    pub(super) armed: Option<Instant>,
}

/// A connection that the supervisor gave, and is told of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given {
    /// Its number there.
    pub(super) number: u64,
    /// Whether the supervisor knows that its client is authorized.
    is_proven: bool,
}

impl Slot {
    pub(super) fn new(connection: Connection, number: Option<u64>) -> Self {
        let given = number.map(|number| Given { number, is_proven: false });
        Self { connection, given, is_queued: false, armed: None }
    }

    pub(super) fn enqueue(&mut self, queue: &mut VecDeque<u64>) {
        if !std::mem::replace(&mut self.is_queued, true) {
            queue.push_back(self.connection.key());
        }
    }

    /// Sets the timer if the deadline is sooner than what is set; a later one is found out in time.
    pub(super) fn arm(&mut self, timers: &mut Timers) {
        if let Some(deadline) = self.connection.deadline()
            && self.armed.is_none_or(|at| at > deadline)
        {
            self.disarm(timers);
            self.arm_at(deadline, timers);
        }
    }

    /// Sets the timer, which is not set.
    pub(super) fn arm_at(&mut self, at: Instant, timers: &mut Timers) {
        self.armed = Some(at);
        timers.set(at, self.connection.key());
    }

    pub(super) fn disarm(&mut self, timers: &mut Timers) {
        if let Some(at) = self.armed.take() {
            timers.cancel(at, self.connection.key());
        }
    }

    /// Takes note of what the supervisor wants to know.
    pub(super) fn report(&mut self, reports: &mut Reports, now: Instant) {
        let Self { connection, given: Some(Given { number, is_proven }), .. } = self else { return };
        if connection.is_transferring() {
            reports.transfers(*number, now);
        }
        if !*is_proven && !connection.is_unproven() {
            *is_proven = true;
            reports.proves(*number, connection.client_name());
        }
    }
}
