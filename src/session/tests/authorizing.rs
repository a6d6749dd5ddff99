//! Clients whose first request comes when it has to be asked what counts.

use std::cell::Cell;

use super::*;

/// An authority that knows only now and then what counts.
struct Slow {
    grant: Grant,
    current: Cell<bool>,
}

impl Authority for Slow {
    fn admit(&self, names: &[String]) -> Result<(), Refusal> {
        self.grant.admit(names)
    }

    fn is_current(&self) -> bool {
        self.current.get()
    }

    fn authorize(
        &self,
        release: &'static Release,
        names: &[String],
        parameters: &[String],
    ) -> Result<Authorized, Refusal> {
        self.grant.authorize(release, names, parameters)
    }
}

/// A client that has sent its first request, while something else may count than what is known.
fn waiting(release: &str, directory: &Path) -> (Talk, Rc<Slow>) {
    let mut talk = Talk::begin(release, directory, Some("client"));
    let slow = Rc::new(Slow { grant: Grant { repository: directory.to_owned() }, current: Cell::new(false) });
    let authority: Rc<dyn Authority> = Rc::clone(&slow) as Rc<dyn Authority>;
    assert!(!talk.session.replace_authority(authority), "it has not asked for anything");
    let config = talk.command("config", |pack| _ = pack.array(|array| _ = array.str("backup:remote")));
    assert_eq!(talk.ask(&config), [0; 0], "it is answered by what was known before");
    (talk, slow)
}

#[test]
fn a_request_waits_until_is_known_what_counts_and_no_longer() {
    let directory = tempfile::tempdir().unwrap();
    for release in ["2.45", "2.60.0"] {
        for (answers, known) in [(1, true), (2, false)] {
            let (mut talk, slow) = waiting(release, directory.path());
            let noop = talk.command("noop", |_| {});
            assert_eq!(talk.say(&noop), 0, "what comes after it waits too");
            for _ in 1..answers {
                assert!(talk.session.handle_authority());
                assert_eq!(talk.listen(), [0; 0], "the answer may be older than the request");
            }
            slow.current.set(known);
            assert!(talk.session.handle_authority());
            assert!(!talk.session.handle_authority());
            assert!(!talk.listen().is_empty());
            assert!(!talk.ask(&noop).is_empty());
            assert!(talk.session.poll_timeout().unwrap() > talk.now + Duration::from_secs(30));
        }
    }
}

#[test]
fn a_new_authority_decides_if_it_knows_what_counts() {
    let directory = tempfile::tempdir().unwrap();
    let (mut talk, slow) = waiting("2.60.0", directory.path());
    assert!(talk.session.replace_authority(slow));
    assert_eq!(talk.listen(), [0; 0]);
    assert!(talk.session.replace_authority(Rc::new(Grant { repository: directory.path().to_owned() })));
    assert!(!talk.listen().is_empty());
}

#[test]
fn a_client_that_waits_in_vain_is_told_why_and_one_that_goes_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (mut talk, _) = waiting("2.45", directory.path());
    let deadline = talk.session.poll_timeout().expect("it waits for ever");
    talk.session.handle_timeout(deadline);
    let (code, text) = error(&talk.listen());
    assert_eq!(code, i32::from(Code::Service.number()));
    assert!(text.starts_with("timeout after 30000ms waiting for configuration files that have changed\n"), "{text}");

    let (mut talk, _) = waiting("2.60.0", directory.path());
    talk.session.handle_disconnect(talk.now, "gone");
    assert!(!talk.session.handle_authority());
    assert_eq!(talk.session.state(), State::Closed);
}

#[test]
fn a_client_that_asks_for_nothing_at_a_shutdown_has_the_grace_once_more_for_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    for is_reading in [true, false] {
        let mut talk = Talk::begin("2.45", directory.path(), Some("client"));
        talk.session.handle_drain(talk.now, Error::new(Code::Term, "the server ends"));
        let over = talk.now + GRACE;
        talk.session.handle_timeout(over);
        // Deadlines are looked at before the socket may have taken anything.
        talk.session.handle_timeout(over);
        assert_eq!(talk.session.poll_timeout(), Some(over + GRACE));
        if is_reading {
            assert_eq!(error(&talk.listen()).1, "the server ends");
            continue;
        }
        talk.session.handle_timeout(over + GRACE);
        assert_eq!((talk.session.poll_output(), talk.session.state()), (&[][..], State::Closed));
        let events: Vec<_> = std::iter::from_fn(|| talk.session.poll_event()).collect();
        let Some(Event::Refused(refusal)) = events.last() else { panic!("{events:?}") };
        assert_eq!(refusal.error.message, "timeout after 2000ms waiting for write to the client");
    }
}
