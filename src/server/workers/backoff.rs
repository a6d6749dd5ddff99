//! When workers that were lost are replaced.
//!
//! While no worker serves, the next one is started at once, or within a second when many were lost: whoever knows
//! how to end a worker must not be able to stop everybody. Longer pauses are for workers that others serve beside,
//! and for those that end before they can serve, as where the system lets no process begin.

use std::time::{Duration, Instant};

use crate::observe::log;

/// Losses tolerated per [`WINDOW`] before the next worker has to wait.
pub(super) const LOSSES: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// The pause before the next one after that; it doubles with each loss, up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The pause where no worker serves.
const ALONE: Duration = Duration::from_secs(1);

/// Losses, and until when nobody is started.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    losses: Vec<Instant>,
    /// Workers in a row that ended before they could serve.
    stillborn: u32,
    beside_others: Option<Instant>,
    alone: Option<Instant>,
}

impl Backoff {
    /// Notes that a worker was lost, which `could_serve` or not.
    pub(super) fn lose(&mut self, could_serve: bool, now: Instant) {
        self.losses.retain(|at| now.saturating_duration_since(*at) < WINDOW);
        self.losses.push(now);
        let many = self.losses.len().checked_sub(LOSSES + 1).map(pause);
        self.stillborn = if could_serve { 0 } else { self.stillborn.saturating_add(1) };
        let stillborn = usize::try_from(self.stillborn).unwrap_or(usize::MAX).checked_sub(2).map(pause);
        self.beside_others = many.max(stillborn).map(|pause| now + pause);
        self.alone = many.map(|pause| pause.min(ALONE)).max(stillborn).map(|pause| now + pause);
        if let Some(pause) = many.max(stillborn) {
            log::warn(format_args!(
                "{} workers were lost in {} s; the next one is started in {} ms, and in {} ms where no other serves",
                self.losses.len(),
                WINDOW.as_secs(),
                pause.as_millis(),
                self.alone.map_or(0, |until| until.saturating_duration_since(now).as_millis()),
            ));
        }
    }

    /// Notes that one serves.
    pub(super) const fn begin(&mut self) {
        self.stillborn = 0;
    }

    /// Until when nobody is to be started beside others or, `alone`, where no worker serves.
    pub(super) fn until(&self, alone: bool, now: Instant) -> Option<Instant> {
        let until = if alone { self.alone } else { self.beside_others };
        until.filter(|until| *until > now)
    }
}

/// The pause after so many losses beyond those that cost none.
fn pause(more: usize) -> Duration {
    let doublings = u32::try_from(more).unwrap_or(u32::MAX).min(16);
    (PAUSE.0 * 2_u32.pow(doublings)).min(PAUSE.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses after each of `count` losses, a second apart: beside others, and alone.
    fn after(count: u64, could_serve: bool) -> Vec<[u128; 2]> {
        let (mut backoff, begin) = (Backoff::default(), Instant::now());
        let lose = |number| {
            let now = begin + Duration::from_secs(number);
            backoff.lose(could_serve, now);
            [false, true].map(|alone| backoff.until(alone, now).map_or(0, |until| (until - now).as_millis()))
        };
        (1..=count).map(lose).collect()
    }

    #[test]
    fn where_no_worker_serves_the_next_one_comes_within_a_second_however_many_are_lost() {
        let pauses = after(20, true);
        assert_eq!(pauses[..8], [[0, 0], [0, 0], [0, 0], [0, 0], [0, 0], [500, 500], [1000, 1000], [2000, 1000]]);
        assert_eq!(pauses[19], [30_000, 1000]);
    }

    #[test]
    fn those_that_never_served_are_waited_for_but_for_the_first() {
        let pauses = after(5, false);
        assert_eq!(pauses, [[0, 0], [500, 500], [1000, 1000], [2000, 2000], [4000, 4000]]);
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        for _ in 0..4 {
            backoff.lose(false, now);
            backoff.begin();
        }
        assert_eq!(backoff.until(true, now), None);
    }

    #[test]
    fn losses_are_forgotten_after_a_minute() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        (0..=LOSSES).for_each(|_| backoff.lose(true, now));
        assert!(backoff.until(false, now).is_some());
        backoff.lose(true, now + WINDOW);
        assert_eq!(backoff.until(false, now + WINDOW), None);
    }
}
