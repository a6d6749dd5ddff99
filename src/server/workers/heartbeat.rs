//! Whether a worker lives. It is asked while it has connections, and answers in each turn of its event loop; who has
//! nothing to do is left alone, so that an idle server sleeps.

use std::time::{Duration, Instant};

/// How long after an answer a worker that has connections is asked again.
const INTERVAL: Duration = Duration::from_secs(3);
/// Who has not answered for so long is unresponsive. A turn of an event loop takes milliseconds, the heaviest slice of
/// work (64 KiB by the slowest filter) tenths of a second, and several of these may wait for a processor that others
/// use. What is taken for that wrongly has no connection less, and gets the next ones when it has answered.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// What is known of the life of one worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heartbeat {
    /// Since when there is no answer to a question.
    asked: Option<Instant>,
    answered: Instant,
    unresponsive: bool,
}

impl Heartbeat {
    /// That of a worker which is started: unasked it tells when it serves.
    pub(super) const fn begin(now: Instant) -> Self {
        Self { asked: Some(now), answered: now, unresponsive: false }
    }

    /// Notes that it was asked, if it is not being asked already. Whether that is to be sent.
    pub(super) fn ask(&mut self, now: Instant) -> bool {
        self.asked.replace(self.asked.unwrap_or(now)).is_none()
    }

    /// Asks whoever has not answered for a while. Whether that is to be sent.
    pub(super) fn ask_again(&mut self, now: Instant) -> bool {
        self.answered + INTERVAL <= now && self.ask(now)
    }

    /// Notes an answer. Returns for how long there was none, if it was unresponsive.
    pub(super) fn answer(&mut self, now: Instant) -> Option<Duration> {
        let waited = self.unanswered(now);
        let was_unresponsive = std::mem::take(&mut self.unresponsive);
        (self.asked, self.answered) = (None, now);
        was_unresponsive.then_some(waited)
    }

    /// Whether it has just become unresponsive.
    pub(super) fn becomes_unresponsive(&mut self, now: Instant) -> bool {
        self.unanswered(now) >= TIMEOUT && !std::mem::replace(&mut self.unresponsive, true)
    }

    /// Whether there was no answer for long.
    pub(super) const fn is_unresponsive(&self) -> bool {
        self.unresponsive
    }

    /// For how long an answer has been missing.
    pub(super) fn unanswered(&self, now: Instant) -> Duration {
        self.asked.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// When it is to be asked, if it is `busy`, becomes unresponsive, or has been that for `longest`.
    pub(super) fn deadline(&self, busy: bool, longest: Duration) -> Option<Instant> {
        match self.asked {
            Some(since) => Some(since + if self.unresponsive { longest } else { TIMEOUT }),
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
        let mut heartbeat = Heartbeat::begin(begin);
        assert_eq!(heartbeat.deadline(false, LONGEST), Some(begin + TIMEOUT), "it has to begin");
        assert!(!heartbeat.ask_again(begin + INTERVAL), "it will say so unasked");
        assert_eq!(heartbeat.answer(begin), None);
        assert_eq!(
            (heartbeat.deadline(false, LONGEST), heartbeat.deadline(true, LONGEST)),
            (None, Some(begin + INTERVAL))
        );
        assert!(!heartbeat.ask_again(begin + INTERVAL / 2));
        assert!(heartbeat.ask_again(begin + INTERVAL) && !heartbeat.ask_again(begin + INTERVAL), "it is asked once");
        assert_eq!(heartbeat.deadline(false, LONGEST), Some(begin + INTERVAL + TIMEOUT));
    }

    #[test]
    fn who_does_not_answer_is_unresponsive_until_it_does() {
        let begin = Instant::now();
        let mut heartbeat = Heartbeat::begin(begin);
        heartbeat.answer(begin);
        assert!(heartbeat.ask(begin));
        assert!(!heartbeat.becomes_unresponsive(begin + TIMEOUT / 2) && !heartbeat.is_unresponsive());
        assert!(!heartbeat.ask(begin + TIMEOUT / 2), "that does not begin anew");
        assert!(
            heartbeat.becomes_unresponsive(begin + TIMEOUT) && !heartbeat.becomes_unresponsive(begin + TIMEOUT * 2),
            "that is news once"
        );
        assert_eq!((heartbeat.is_unresponsive(), heartbeat.deadline(true, LONGEST)), (true, Some(begin + LONGEST)));
        assert_eq!(heartbeat.answer(begin + TIMEOUT * 3), Some(TIMEOUT * 3));
        assert_eq!((heartbeat.is_unresponsive(), heartbeat.answer(begin + TIMEOUT * 3)), (false, None));
    }
}
