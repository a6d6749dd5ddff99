//! How often a message may be repeated, so that a flood of clients cannot fill the log.

use std::time::{Duration, Instant};

/// Lets a few messages through in each period and counts the rest.
#[derive(Debug)]
pub struct Rate {
    period: Duration,
    burst: u32,
    start: Option<Instant>,
    passed: u32,
    held_back: u64,
}

impl Rate {
    /// Lets `burst` messages through in each `period`.
    #[must_use]
    pub const fn new(burst: u32, period: Duration) -> Self {
        Self { period, burst, start: None, passed: 0, held_back: 0 }
    }

    /// Whether a message may be logged now; if so, how many were held back since the last one.
    pub fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.start.is_none_or(|start| now.saturating_duration_since(start) >= self.period) {
            self.start = Some(now);
            self.passed = 0;
        }
        if self.passed >= self.burst {
            self.held_back += 1;
            return None;
        }
        self.passed += 1;
        Some(std::mem::take(&mut self.held_back))
    }
}

/// ` (and N more like it)` for a message that stands for others, otherwise nothing.
#[must_use]
pub fn more(held_back: u64) -> String {
    if held_back == 0 { String::new() } else { format!(" (and {held_back} more like it before)") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_leaves_a_few_lines_and_a_count() {
        let mut rate = Rate::new(2, Duration::from_secs(1));
        let start = Instant::now();
        assert_eq!(rate.pass(start), Some(0));
        assert_eq!(rate.pass(start), Some(0));
        for _ in 0..1000 {
            assert_eq!(rate.pass(start), None);
        }
        assert_eq!(rate.pass(start + Duration::from_secs(1)), Some(1000));
        assert_eq!(more(1000), " (and 1000 more like it before)");
        assert_eq!(more(0), "");
    }
}
