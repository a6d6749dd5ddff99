//! Who this process is to the C library of the host, which the database asks for the name, too: in a container with
//! a user made up for it, or where users are in a directory service, `/etc/passwd` alone does not tell.
//!
//! The program `getent` is asked once the name is needed. It may wait for a network, so nothing here waits for it.

use std::time::{Duration, Instant};

use mio::{Registry, Token};
use rustix::process::geteuid;

use crate::disk::passwd::{self, User};
use crate::process::asked::Asked;

/// For how long nothing is asked again where there was no answer: clients decide how often the name is wanted.
const UNKNOWN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct OwnUser {
    program: String,
    known: Option<User>,
    asked: Asked,
    /// When there was no answer, or none could be asked.
    failed: Option<Instant>,
}

impl OwnUser {
    /// Nothing is known yet, and `program` will be asked, which is `getent` but in tests.
    pub(super) fn new(program: &str) -> Self {
        Self { program: program.to_owned(), known: None, asked: Asked::default(), failed: None }
    }

    /// What the program has said.
    pub(super) const fn known(&self) -> Option<&User> {
        self.known.as_ref()
    }

    /// Asks the program, unless that is under way; whether there will be an answer.
    pub(super) fn ask(&mut self, now: Instant, registry: &Registry, token: Token) -> bool {
        let may_know = self.failed.is_none_or(|at| now.saturating_duration_since(at) >= UNKNOWN);
        if !self.asked.is_under_way() && may_know {
            let uid = geteuid().as_raw().to_string();
            let is_asked = self.asked.ask(&self.program, &["passwd", &uid], now, registry, token);
            self.failed = (!is_asked).then_some(now);
        }
        self.asked.is_under_way()
    }

    /// When to call [`OwnUser::advance`] though nothing can be read.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.asked.deadline()
    }

    /// Reads what there is; true once there is an answer, or none is to be expected any more.
    pub(super) fn advance(&mut self, now: Instant) -> bool {
        let Some(printed) = self.asked.advance(now) else { return false };
        self.known = passwd::user_in(&printed, geteuid().as_raw());
        self.failed = self.known.is_none().then_some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use mio::{Events, Poll};

    use super::*;

    fn asked(program: &str) -> OwnUser {
        let mut poll = Poll::new().unwrap();
        let mut own = OwnUser::new(program);
        assert!(own.ask(Instant::now(), poll.registry(), Token(0)));
        while !own.advance(Instant::now()) {
            poll.poll(&mut Events::with_capacity(1), Some(Duration::from_millis(1))).unwrap();
        }
        own
    }

    #[test]
    fn the_hosts_own_program_knows_who_we_are() {
        let uid = geteuid().as_raw();
        assert_eq!(asked("getent").known(), passwd::user(uid).as_ref());
    }

    #[test]
    fn where_nobody_knows_who_we_are_it_is_not_asked_for_each_client() {
        let (mut own, poll) = (asked("true"), Poll::new().unwrap());
        let failed = own.failed.unwrap();
        assert!(!own.ask(failed, poll.registry(), Token(1)));
        assert!(own.ask(failed + UNKNOWN, poll.registry(), Token(1)));
    }

    #[test]
    fn a_user_who_is_in_no_file_has_a_name_and_somebody_else_has_none() {
        let directory = tempfile::tempdir().unwrap();
        let program = |name: &str, line: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\necho {line}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path.display().to_string()
        };
        let line = format!("made-up:x:{}:0::/nowhere:", geteuid().as_raw());
        let made_up = User { name: "made-up".to_owned(), home: Some("/nowhere".to_owned()) };
        assert_eq!(asked(&program("own", &line)).known(), Some(&made_up));
        assert_eq!(asked(&program("other", "other:x:4000000000:0::/:")).known(), None);
    }
}
