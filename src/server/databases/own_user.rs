//! Who this process is to the C library of the host, which the database asks for the name, too: in a container with
//! a user made up for it, or where users are in a directory service, `/etc/passwd` alone does not tell.
//!
//! The program `getent` is asked once the name is needed. It may wait for a network, so nothing here waits for it.

use std::io::{ErrorKind, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mio::unix::pipe::Receiver;
use mio::{Interest, Registry, Token};
use rustix::process::geteuid;

use crate::disk::passwd::{self, User};
use crate::process;

/// How long the program may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A longer answer is none for one user.
const ANSWER_MAXIMUM: usize = 4096;
/// For how long nothing is asked again where there was no answer: clients decide how often the name is wanted.
const UNKNOWN: Duration = Duration::from_secs(60);
/// How often a program is looked at that was ended and does not end.
const AGAIN: Duration = Duration::from_secs(1);

/// What is known of it.
#[derive(Debug)]
pub(super) struct OwnUser {
    program: String,
    known: Option<User>,
    question: Option<Question>,
    /// When there was no answer, or none could be asked.
    failed: Option<Instant>,
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

impl OwnUser {
    /// Nothing is known yet, and `program` will be asked, which is `getent` but in tests.
    pub(super) fn new(program: &str) -> Self {
        Self { program: program.to_owned(), known: None, question: None, failed: None, ended: vec![], look_again: None }
    }

    /// What the program has said.
    pub(super) const fn known(&self) -> Option<&User> {
        self.known.as_ref()
    }

    /// Asks the program, unless that is under way; whether there will be an answer.
    pub(super) fn ask(&mut self, now: Instant, registry: &Registry, token: Token) -> bool {
        if self.question.is_none() && self.failed.is_none_or(|at| now.saturating_duration_since(at) >= UNKNOWN) {
            self.question = self.start(now, registry, token);
            self.failed = self.question.is_none().then_some(now);
        }
        self.question.is_some()
    }

    fn start(&mut self, now: Instant, registry: &Registry, token: Token) -> Option<Question> {
        let mut command = Command::new(&self.program);
        process::leave_to_c_library(command.arg("passwd").arg(geteuid().as_raw().to_string()));
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

    /// When to call [`OwnUser::advance`] though nothing can be read.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.question.as_ref().map(|question| question.until).into_iter().chain(self.look_again).min()
    }

    /// Reads what there is; true once there is an answer, or none is to be expected any more.
    pub(super) fn advance(&mut self, now: Instant) -> bool {
        if self.look_again.is_some_and(|at| at <= now) {
            self.reap(now);
        }
        let Some(question) = &mut self.question else { return false };
        if !question.has_answered() && now < question.until {
            return false;
        }
        let Some(Question { child, printed, .. }) = self.question.take() else { return false };
        self.known = passwd::user_in(&printed, geteuid().as_raw());
        self.failed = self.known.is_none().then_some(now);
        self.end(child, now);
        true
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
        true
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use mio::{Events, Poll};

    use super::*;

    fn asked(program: &str, time: Duration) -> OwnUser {
        let mut poll = Poll::new().unwrap();
        let mut own = OwnUser::new(program);
        let mut now = Instant::now();
        assert!(own.ask(now, poll.registry(), Token(0)) && own.ask(now, poll.registry(), Token(0)));
        for _ in 0..10_000 {
            poll.poll(&mut Events::with_capacity(1), Some(Duration::from_millis(1))).unwrap();
            now += time;
            if own.advance(now) {
                while own.look_again.is_some() {
                    now += AGAIN;
                    own.advance(now);
                }
                assert_eq!(own.deadline(), None);
                return own;
            }
        }
        panic!("{own:?}");
    }

    #[test]
    fn the_hosts_own_program_knows_who_we_are() {
        let uid = geteuid().as_raw();
        assert_eq!(asked("getent", Duration::ZERO).known(), passwd::user(uid).as_ref());
    }

    #[test]
    fn a_program_that_hangs_or_says_something_else_or_is_missing_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let program = |text: &str| {
            let path = directory.path().join(text.len().to_string());
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path.display().to_string()
        };
        let line = format!("echo made-up:x:{}:0::/nowhere:", geteuid().as_raw());
        let made_up = User { name: "made-up".to_owned(), home: Some("/nowhere".to_owned()) };
        assert_eq!(asked(&program(&line), Duration::ZERO).known(), Some(&made_up));
        assert_eq!(asked(&program("exec sleep 1000"), Duration::from_millis(50)).known(), None);
        assert_eq!(asked(&program("echo other:x:4000000000:0::/:"), Duration::ZERO).known(), None);
        assert_eq!(asked(&program("exec cat /dev/zero"), Duration::ZERO).known(), None);
        let poll = Poll::new().unwrap();
        let missing = directory.path().join("none").display().to_string();
        assert!(!OwnUser::new(&missing).ask(Instant::now(), poll.registry(), Token(0)));
    }

    #[test]
    fn where_nobody_knows_who_we_are_it_is_not_asked_for_each_client() {
        let (mut own, poll) = (asked("true", Duration::ZERO), Poll::new().unwrap());
        let failed = own.failed.unwrap();
        assert!(!own.ask(failed, poll.registry(), Token(1)) && own.question.is_none());
        assert!(own.ask(failed + UNKNOWN, poll.registry(), Token(1)));
    }
}
