//! Requests to the database of a cluster: what reaches it, and what is left of it when the client goes.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use repohostd::config::{Cluster, Role, SessionSettings, Storage};
use repohostd::protocol::framing::Framing;
use repohostd::protocol::release::{RELEASES, Release};
use repohostd::session::DatabaseAction;

use crate::talk::{DatabaseActions, converse_with, settings};
use crate::wire::{Answer, Conversation};

const KNOWN: &str = "set search_path = 'pg_catalog'";

fn cluster() -> Cluster {
    Cluster {
        path: "/pg/data".into(),
        port: 5999,
        socket_path: Some("/pg/run".to_owned()),
        user: Some("backup".to_owned()),
        database: "postgres".to_owned(),
        db_timeout: Duration::from_millis(1500),
        any_statement: false,
    }
}

fn session(release: &str, cluster: Cluster) -> (Conversation, DatabaseActions) {
    let settings = SessionSettings { storage: Storage::Cluster(cluster), ..settings(Path::new("/pg/data")) };
    let actions = DatabaseActions::default();
    (converse_with(release, settings, Role::PgReader, false, Rc::clone(&actions)), actions)
}

/// The statements that reached the database.
fn statements(actions: &DatabaseActions) -> Vec<String> {
    let actions = actions.borrow();
    let statements = actions.iter().filter_map(|(_, action)| match action {
        DatabaseAction::Query { statement, .. } => Some(statement.clone()),
        DatabaseAction::Open { .. } | DatabaseAction::Close => None,
    });
    statements.collect()
}

#[track_caller]
fn assert_failed(answer: &Answer, code: i32, text: &str) {
    assert!(matches!(answer, Answer::Failed(failed, said) if *failed == code && said.contains(text)), "{answer:?}");
}

#[test]
fn a_statement_reaches_the_database_with_all_that_it_needs() {
    for release in RELEASES {
        let (mut session, actions) = session(release.version, cluster());
        assert!(session.open_database().is_done(), "{}", release.version);
        assert!(session.query(KNOWN, "none").is_done(), "{}", release.version);
        assert!(session.close_database().is_done(), "{}", release.version);
        let actions = actions.borrow();
        let [(0, open), (0, query), (0, DatabaseAction::Close)] = actions.as_slice() else { panic!("{actions:?}") };
        let DatabaseAction::Open { settings, data_directory, timeout } = open else { panic!("{open:?}") };
        assert_eq!(settings.connection_string(), "dbname='postgres' port=5999 user='backup' host='/pg/run'");
        assert_eq!((data_directory.as_path(), timeout.as_millis()), (Path::new("/pg/data"), 1500));
        let expected = DatabaseAction::Query { statement: KNOWN.to_owned(), timeout: Duration::from_millis(1500) };
        assert_eq!(*query, expected);
    }
}

#[test]
fn what_no_client_sends_never_reaches_the_database() {
    for release in RELEASES {
        let (mut session, actions) = session(release.version, cluster());
        assert!(session.open_database().is_done());
        for statement in
            ["select 1", "set search_path = 'pg_catalog'; select 1", "", "drop database postgres", "\u{1b}[2J"]
        {
            let answer = session.query(statement, "any");
            assert_failed(&answer, 105, "access denied: no pgbackrest client sends the statement");
            let Answer::Failed(_, text) = answer else { unreachable!() };
            assert!(!text.contains('\u{1b}'), "{text:?}");
        }
        assert!(session.query(KNOWN, "none").is_done(), "the connection goes on");
        assert_eq!(statements(&actions), [KNOWN]);
    }
}

#[test]
fn the_administrator_can_let_clients_send_what_they_like() {
    let (mut session, actions) = session("2.60.0", Cluster { any_statement: true, ..cluster() });
    assert!(session.open_database().is_done());
    assert!(session.query("drop table t", "none").is_done());
    assert_eq!(statements(&actions), ["drop table t"]);
}

#[test]
fn a_repository_has_no_database() {
    let directory = tempfile::tempdir().unwrap();
    for release in RELEASES {
        let actions = DatabaseActions::default();
        let mut session =
            converse_with(release.version, settings(directory.path()), Role::Admin, false, Rc::clone(&actions));
        assert_failed(&session.open_database(), 105, "access denied");
        assert!(matches!(session.query(KNOWN, "none"), Answer::Failed(39, _)), "{}", release.version);
        assert!(session.ask("noop", |_| {}).is_done());
        assert!(actions.borrow().is_empty());
    }
}

#[test]
fn a_database_that_cannot_be_connected_to_says_why() {
    for release in RELEASES {
        let (mut session, _) = session(release.version, Cluster { database: "down".to_owned(), ..cluster() });
        let answer = session.open_database();
        let expected = "unable to connect to 'dbname='down' port=5999 user='backup' host='/pg/run'': it is down";
        assert_failed(&answer, 56, expected);
        assert!(matches!(session.query(KNOWN, "none"), Answer::Failed(39, _)), "{}", release.version);
        if release.framing == Framing::Session {
            assert!(session.close_database().is_done(), "clients cancel what failed");
        }
        assert!(session.ask("noop", |_| {}).is_done());
    }
}

#[test]
fn a_client_cannot_have_the_servers_password_sent_to_a_host_of_its_choice() {
    for host in ["localhost", "192.0.2.1", "evil.example.org", "/tmp,evil.example.org", "."] {
        let (mut session, actions) = session("2.60.0", Cluster { socket_path: Some(host.to_owned()), ..cluster() });
        assert_failed(&session.open_database(), 56, "neither an absolute path nor a name");
        assert!(actions.borrow().is_empty(), "{host}");
    }
}

#[test]
fn connections_of_a_client_are_bounded_and_end_with_it() {
    for release in ["2.37", "2.45", "2.60.0"] {
        let (mut session, actions) = session(release, cluster());
        for _ in 0..8 {
            assert!(session.open_database().is_done());
        }
        assert_failed(&session.open_database(), 39, "more than 8 connections to the database are open");
        let opened = actions.borrow().len();
        assert_eq!(opened, 8);
        assert!(session.ask("noop", |_| {}).is_done());
        session.exit();
        let actions = actions.borrow();
        let mut closed: Vec<u64> = actions[opened..]
            .iter()
            .map(|(id, action)| {
                assert_eq!(*action, DatabaseAction::Close);
                *id
            })
            .collect();
        closed.sort_unstable();
        assert_eq!(closed, (0..8).collect::<Vec<_>>(), "{release}");
    }
}

#[test]
fn connections_are_counted_where_they_have_numbers_of_their_own() {
    let release = Release::find("2.45").unwrap();
    let (mut session, actions) = session(release.version, cluster());
    assert!(session.open_database().is_done());
    let second = session.open_database();
    let Answer::Done(bytes) = &second else { panic!("{second:?}") };
    // data with a pack of one number, 1, and the end of the answer
    assert_eq!(bytes, b"\x80\xf0\x02\x02\x84\x00\x00\x84\x00");
    assert!(session.query(KNOWN, "none").is_done());
    assert!(session.close_database().is_done());
    assert_failed(&session.query(KNOWN, "none"), 39, "database connection 0 is not open");
    assert_failed(&session.close_database(), 39, "database connection 0 is not open");
    let ids: Vec<u64> = actions.borrow().iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [0, 1, 0, 0]);
}
