//! Whether a worker lives. It is asked while it has connections, and answers in each turn of its event loop; who has
//! nothing to do is left alone, so that an idle server sleeps.

use std::time::{Duration, Instant};

/// How long after an answer a worker that has connections is asked again.
const INTERVAL: Duration = Duration::from_secs(3);
/// Whoever has not answered for so long is silent. A turn of an event loop takes milliseconds, the heaviest slice of
/// work (64 KiB by the slowest filter) tenths of a second, and several of these may wait for a processor that others
/// use. What is taken for silent wrongly has no connection less, and gets the next ones when it has answered.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What is known of the life of one worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pulse {
    /// Since when there is no answer to a question.
    asked: Option<Instant>,
    answered: Instant,
    silent: bool,
}

impl Pulse {
    /// That of a worker which is started: unasked it tells when it serves.
    #[must_use]
    pub(super) const fn begin(now: Instant) -> Self {
        Self { asked: Some(now), answered: now, silent: false }
    }

    /// Notes that it was asked, if it is not being asked already. Whether that is to be sent.
    pub(super) fn ask(&mut self, now: Instant) -> bool {
        self.asked.replace(self.asked.unwrap_or(now)).is_none()
    }

    /// Asks whoever has not answered for a while. Whether that is to be sent.
    pub(super) fn ask_again(&mut self, now: Instant) -> bool {
        self.answered + INTERVAL <= now && self.ask(now)
    }

    /// Notes an answer. Returns for how long there was none, if it was silent.
    pub(super) fn answer(&mut self, now: Instant) -> Option<Duration> {
        let waited = self.unanswered(now);
        let was_silent = std::mem::take(&mut self.silent);
        (self.asked, self.answered) = (None, now);
        was_silent.then_some(waited)
    }

    /// Whether it has just become silent.
    pub(super) fn falls_silent(&mut self, now: Instant) -> bool {
        self.unanswered(now) >= PATIENCE && !std::mem::replace(&mut self.silent, true)
    }

    /// Whether there was no answer for long.
    #[must_use]
    pub(super) const fn is_silent(&self) -> bool {
        self.silent
    }

    /// For how long an answer has been missing.
    #[must_use]
    pub(super) fn unanswered(&self, now: Instant) -> Duration {
        self.asked.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// When it is to be asked, if it is `busy`, becomes silent, or has been silent for `longest`.
    #[must_use]
    pub(super) fn deadline(&self, busy: bool, longest: Duration) -> Option<Instant> {
        match self.asked {
            Some(since) => Some(since + if self.silent { longest } else { PATIENCE }),
            None => Some(self.answered + INTERVAL).filter(|_| busy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(30);

    #[test]
    fn whoever_is_busy_is_asked_now_and_then_and_nobody_else() {
        let begin = Instant::now();
        let mut pulse = Pulse::begin(begin);
        assert_eq!(pulse.deadline(false, LONGEST), Some(begin + PATIENCE), "it has to begin");
        assert!(!pulse.ask_again(begin + INTERVAL), "it will say so unasked");
        assert_eq!(pulse.answer(begin), None);
        assert_eq!((pulse.deadline(false, LONGEST), pulse.deadline(true, LONGEST)), (None, Some(begin + INTERVAL)));
        assert!(!pulse.ask_again(begin + INTERVAL / 2));
        assert!(pulse.ask_again(begin + INTERVAL) && !pulse.ask_again(begin + INTERVAL), "it is asked once");
        assert_eq!(pulse.deadline(false, LONGEST), Some(begin + INTERVAL + PATIENCE));
    }

    #[test]
    fn who_does_not_answer_is_silent_until_it_does() {
        let begin = Instant::now();
        let mut pulse = Pulse::begin(begin);
        pulse.answer(begin);
        assert!(pulse.ask(begin));
        assert!(!pulse.falls_silent(begin + PATIENCE / 2) && !pulse.is_silent());
        assert!(!pulse.ask(begin + PATIENCE / 2), "that does not begin anew");
        assert!(pulse.falls_silent(begin + PATIENCE) && !pulse.falls_silent(begin + PATIENCE * 2), "that is news once");
        assert_eq!((pulse.is_silent(), pulse.deadline(true, LONGEST)), (true, Some(begin + LONGEST)));
        assert_eq!(pulse.answer(begin + PATIENCE * 3), Some(PATIENCE * 3));
        assert_eq!((pulse.is_silent(), pulse.answer(begin + PATIENCE * 3)), (false, None));
    }
}
