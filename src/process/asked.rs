//! A program of the host that is asked something while everything else goes on. It may hang, print without end or wait
//! for a network: nothing here waits for it.

use std::io::{ErrorKind, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mio::unix::pipe::Receiver;
use mio::{Interest, Registry, Token};

use super::leave_to_c_library;

/// How long the program may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// No more of an answer is read.
const ANSWER_MAXIMUM: usize = 4096;
/// How often a program is looked at that was ended and does not end.
const AGAIN: Duration = Duration::from_secs(1);

/// A program that may be asked again and again, once at a time.
#[derive(Debug, Default)]
pub struct Asked {
    question: Option<Question>,
    /// Programs that were ended.
    ended: Vec<Child>,
    look_again: Option<Instant>,
}

/// A program that was asked.
#[derive(Debug)]
struct Question {
    child: Child,
    stdout: Receiver,
    printed: Vec<u8>,
    until: Instant,
}

impl Asked {
    /// Has `program` answer, unless a question is under way; whether there will be an answer. It gets nothing of the
    /// environment but what the C library needs.
    pub fn ask(&mut self, program: &str, arguments: &[&str], now: Instant, registry: &Registry, token: Token) -> bool {
        if self.question.is_none() {
            let mut command = Command::new(program);
            leave_to_c_library(command.args(arguments));
            self.question = self.start(&mut command, now, registry, token);
        }
        self.question.is_some()
    }

    fn start(&mut self, command: &mut Command, now: Instant, registry: &Registry, token: Token) -> Option<Question> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let stdout = child.stdout.take().map(Receiver::from).and_then(|mut stdout| {
            stdout
                .set_nonblocking(true)
                .and_then(|()| registry.register(&mut stdout, token, Interest::READABLE))
                .ok()?;
            Some(stdout)
        });
        let Some(stdout) = stdout else {
            self.end(child, now);
            return None;
        };
        Some(Question { child, stdout, printed: vec![], until: now + PATIENCE })
    }

    /// Whether there will be an answer.
    #[must_use]
    pub const fn is_under_way(&self) -> bool {
        self.question.is_some()
    }

    /// When to call [`Asked::advance`] though nothing can be read.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.question.as_ref().map(|question| question.until).into_iter().chain(self.look_again).min()
    }

    /// Reads what there is. What was printed, once that is all, or no more is to be expected.
    pub fn advance(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.look_again.is_some_and(|at| at <= now) {
            self.reap(now);
        }
        let is_over = |question: &mut Question| question.has_answered() || now >= question.until;
        let Question { child, printed, .. } = self.question.take_if(is_over)?;
        self.end(child, now);
        Some(printed)
    }

    /// Whatever it still does nobody waits for.
    fn end(&mut self, mut child: Child, now: Instant) {
        let _ = child.kill();
        self.ended.push(child);
        self.reap(now);
    }

    fn reap(&mut self, now: Instant) {
        self.ended.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        self.look_again = (!self.ended.is_empty()).then_some(now + AGAIN);
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(question) = &mut self.question {
            let _ = question.child.kill();
        }
    }
}

impl Question {
    /// Reads what there is; whether that was all.
    fn has_answered(&mut self) -> bool {
        let mut piece = [0; 1024];
        while self.printed.len() < ANSWER_MAXIMUM {
            match self.stdout.read(&mut piece) {
                Ok(count @ 1..) => self.printed.extend_from_slice(piece.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return true,
            }
        }
        self.printed.truncate(ANSWER_MAXIMUM);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use mio::{Events, Poll};

    use super::*;

    /// What a program says, to whom time passes in steps.
    fn asked(program: &str, step: Duration) -> Vec<u8> {
        let mut poll = Poll::new().unwrap();
        let mut asked = Asked::default();
        let mut now = Instant::now();
        let mut ask = || asked.ask(program, &["passwd", "7"], now, poll.registry(), Token(0));
        assert!(ask() && ask());
        for _ in 0..10_000 {
            poll.poll(&mut Events::with_capacity(1), Some(Duration::from_millis(1))).unwrap();
            now += step;
            if let Some(printed) = asked.advance(now) {
                while asked.look_again.is_some() {
                    now += AGAIN;
                    asked.advance(now);
                }
                assert_eq!(asked.deadline(), None);
                return printed;
            }
        }
        panic!("{asked:?}");
    }

    #[test]
    fn a_program_that_hangs_or_never_stops_or_is_missing_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let program = |text: &str| {
            let path = directory.path().join(text.len().to_string());
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path.display().to_string()
        };
        assert_eq!(asked(&program("echo $1 $2"), Duration::ZERO), b"passwd 7\n");
        assert_eq!(asked(&program("printf begun; exec sleep 1000"), Duration::from_millis(50)), b"begun");
        assert_eq!(asked(&program("exec cat /dev/zero"), Duration::ZERO), [0; ANSWER_MAXIMUM]);
        assert_eq!(asked(&program("echo wrong >&2; exit 1"), Duration::ZERO), b"");
        let variables = asked(&program("exec env"), Duration::ZERO);
        assert!(String::from_utf8(variables).unwrap().lines().all(|line| !line.starts_with("CARGO")));
        let poll = Poll::new().unwrap();
        let missing = directory.path().join("none").display().to_string();
        assert!(!Asked::default().ask(&missing, &[], Instant::now(), poll.registry(), Token(0)));
    }
}
