//! Processes of workers that will have ended soon: they closed their socket, or were told to end.

use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::observe::log;
use crate::protocol::error::{Code, Error};

/// How often it is looked whether one has ended: at first, and once it has taken a second.
const LOOK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Who has not ended by then is killed.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Endings(Vec<Ending>);

#[derive(Debug)]
struct Ending {
    process: Child,
    /// The number of the worker that should not have ended, and the connections that it had.
    lost: Option<(u32, usize)>,
    since: Instant,
    grip: Grip,
}

/// What was done to have it end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grip {
    /// It ends by itself, or by a signal that it could take otherwise.
    Loose,
    Killed,
    /// It was killed, has not ended, and that was told.
    Stuck,
}

impl Endings {
    /// Takes a process over that ends from `now` on.
    pub(super) fn add(&mut self, process: Child, lost: Option<(u32, usize)>, now: Instant) {
        self.0.push(Ending { process, lost, since: now, grip: Grip::Loose });
        self.reap(now);
    }

    /// Takes note of processes that have ended, and kills those that do not.
    pub(super) fn reap(&mut self, now: Instant) {
        self.0.retain_mut(|ending| match ending.process.try_wait() {
            Ok(Some(status)) => {
                if let Some((number, connections)) = ending.lost {
                    let process = ending.process.id();
                    log::error(&Error::new(
                        Code::Service,
                        format!("worker {number}, process {process}, is lost with {connections} connections: {status}"),
                    ));
                }
                false
            }
            Ok(None) => {
                ending.press(now);
                true
            }
            Err(_) => false,
        });
    }

    pub(super) fn kill_all(&self) {
        self.0.iter().for_each(|ending| signal(&ending.process, Signal::KILL));
    }

    /// When to look again.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let is_new = |ending: &Ending| now.saturating_duration_since(ending.since) < LOOK.1;
        let pause = if self.0.iter().any(is_new) { LOOK.0 } else { LOOK.1 };
        (!self.0.is_empty()).then(|| now + pause)
    }
}

impl Ending {
    fn press(&mut self, now: Instant) {
        let (process, taken) = (self.process.id(), now.saturating_duration_since(self.since));
        match self.grip {
            Grip::Loose if taken >= PATIENCE => {
                signal(&self.process, Signal::KILL);
                self.grip = Grip::Killed;
            }
            Grip::Killed if taken >= PATIENCE * 2 => {
                log::warn(format_args!(
                    "process {process} of a lost worker cannot be killed, and its clients wait as long as it does\n\
                     HINT: it waits in the kernel, as for a network file system that does not answer."
                ));
                self.grip = Grip::Stuck;
            }
            _ => {}
        }
    }
}

/// Sends a signal to a process that nobody has waited for, so that nobody else is meant.
pub(super) fn signal(process: &Child, signal: Signal) {
    // It may have ended.
    let _ = kill_process(Pid::from_child(process), signal);
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Reaps until all have ended; false if that takes too long.
    fn end(endings: &mut Endings, at: Instant) -> bool {
        let begun = Instant::now();
        while !endings.0.is_empty() {
            if begun.elapsed() > Duration::from_secs(30) {
                return false;
            }
            endings.reap(at);
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    #[test]
    fn who_does_not_end_is_killed_and_looked_at_less_often() {
        let shell = ["-c", "trap '' ABRT; echo; while :; do sleep 1; done"];
        let mut process = Command::new("sh").args(shell).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = [0];
        std::io::Read::read_exact(process.stdout.as_mut().unwrap(), &mut line).unwrap();
        let (mut endings, now) = (Endings::default(), Instant::now());
        assert_eq!(endings.deadline(now), None);
        signal(&process, Signal::ABORT);
        endings.add(process, None, now);
        assert_eq!(endings.deadline(now), Some(now + LOOK.0));
        assert_eq!(endings.deadline(now + LOOK.1), Some(now + LOOK.1 * 2));
        endings.reap(now + PATIENCE / 2);
        assert_eq!(endings.0[0].grip, Grip::Loose);
        endings.reap(now + PATIENCE);
        assert!(end(&mut endings, now + PATIENCE), "it was not killed");
    }
}
