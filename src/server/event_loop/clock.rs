//! The time that clients' deadlines are measured by, and the deadlines themselves.
//!
//! While the loop itself is busy or the process does not run, clients cannot make progress, so such
//! time must not count against them. The [`Clock`] therefore advances by the time that the loop
//! waited for events, and by a little for the work in between.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// More work than this between two waits is a stall and does not count.
const ALLOWANCE: Duration = Duration::from_millis(100);

/// A clock that stands still while the loop does.
#[derive(Debug)]
pub(crate) struct Clock {
    now: Instant,
    looked: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { now, looked: now }
    }

    /// The time of this turn of the loop. It changes between turns only.
    pub(crate) const fn now(&self) -> Instant {
        self.now
    }

    /// Begins a turn after a wait that should have taken no longer than `wait`.
    pub(crate) fn advance(&mut self, wait: Option<Duration>) {
        self.advance_to(Instant::now(), wait);
    }

    fn advance_to(&mut self, real: Instant, wait: Option<Duration>) {
        let elapsed = real.saturating_duration_since(self.looked);
        let counted = wait.map_or(elapsed, |wait| elapsed.min(wait + ALLOWANCE));
        self.looked = real;
        self.now += counted;
    }
}

/// Deadlines of connections, which have keys, soonest first.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Instant, u64)>);

impl Timers {
    pub(crate) fn set(&mut self, at: Instant, key: u64) {
        self.0.insert((at, key));
    }

    pub(crate) fn cancel(&mut self, at: Instant, key: u64) {
        self.0.remove(&(at, key));
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes out the next one that is due.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<(Instant, u64)> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_of_the_loop_does_not_eat_the_clients_time() {
        let mut clock = Clock::new();
        let start = clock.now();
        let second = Duration::from_secs(1);
        // Waited a second for events as asked: that is the client's time.
        clock.advance_to(start + second, Some(second));
        assert_eq!(clock.now(), start + second);
        // Worked for 40 s, then asked for events without waiting.
        clock.advance_to(start + second * 41, Some(Duration::ZERO));
        assert_eq!(clock.now(), start + second + ALLOWANCE);
        // An endless wait counts in full.
        clock.advance_to(start + second * 50, None);
        assert_eq!(clock.now(), start + second * 10 + ALLOWANCE);
    }

    #[test]
    fn deadlines_expire_in_order_and_only_when_due() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        timers.set(at(3), 6);
        timers.set(at(1), 7);
        timers.set(at(2), 8);
        timers.cancel(at(2), 8);
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.expire(at(0)), None);
        assert_eq!(timers.expire(at(2)), Some((at(1), 7)));
        assert_eq!(timers.expire(at(2)), None);
        assert_eq!(timers.expire(at(3)), Some((at(3), 6)));
    }
}
