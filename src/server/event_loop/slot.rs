//! What the loop knows of a connection beside what the connection knows itself.

use std::collections::VecDeque;
use std::time::Instant;

use super::clock::Timers;
use super::reports::Reports;
use crate::server::client::connection::Connection;

/// A connection in the table of the loop.
pub(super) struct Slot {
    pub(super) connection: Connection,
    pub(super) arrival: Arrival,
    /// It is in the queue of those that may have something to do.
    pub(super) is_queued: bool,
    /// When its timer expires. Deadlines move on with every request, timers only when they are looked at.
    pub(super) armed: Option<Instant>,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It was accepted here, and nobody else knows of it.
    Accepted,
    /// The supervisor gave it, and is told what becomes of it.
    Given {
        /// Its number there.
        number: u64,
        /// Whether the supervisor knows that its client is authorized.
        is_proven: bool,
    },
}

impl Arrival {
    /// That of a connection which the supervisor gives by this number.
    pub(crate) const fn given(number: u64) -> Self {
        Self::Given { number, is_proven: false }
    }

    pub(super) fn is(&self, wanted: u64) -> bool {
        matches!(self, Self::Given { number, .. } if *number == wanted)
    }

    /// Notes that a connection from there is over, or was not taken.
    pub(super) fn report_end(self, reports: &mut Reports) {
        if let Self::Given { number, .. } = self {
            reports.closes(number);
        }
    }
}

impl Slot {
    pub(super) const fn new(connection: Connection, arrival: Arrival) -> Self {
        Self { connection, arrival, is_queued: false, armed: None }
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
        let Self { connection, arrival: Arrival::Given { number, is_proven }, .. } = self else { return };
        if connection.is_transferring() {
            reports.transfers(*number, now);
        }
        if !*is_proven && !connection.is_unproven() {
            *is_proven = true;
            reports.proves(*number, connection.client_name());
        }
    }
}
