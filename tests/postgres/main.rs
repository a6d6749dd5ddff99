//! The client of `src/postgres` against a real `PostgreSQL` 15, and its texts against those of libpq, which
//! `psql` shows.

mod cluster;
mod connection;

use std::thread;
use std::time::{Duration, Instant};

use repohostd::postgres::statements::is_sent_by_clients;
use repohostd::postgres::{Finished, First};

use cluster::Cluster;
use connection::Connection;

const PASSWORD: &str = "s3cret: with \\ and ü";

/// The text of a failed statement.
fn error_of(finished: Finished) -> String {
    match finished {
        Finished::Answered { first: First::Error(text), further: None } => text,
        other => panic!("{other:?}"),
    }
}

/// The only value of an answer.
fn value_of(finished: Finished) -> String {
    match finished {
        Finished::Answered { first: First::Rows(rows), further: None } => {
            assert_eq!((rows.count, rows.types.len()), (1, 1));
            String::from_utf8(rows.fields().next().flatten().unwrap().to_vec()).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_way_of_authentication_works_and_fails_as_with_libpq() {
    let cluster = Cluster::start(&["listen_addresses = '127.0.0.1'"]);
    for method in ["md5", "scram-sha-256"] {
        let name = method.split('-').next().unwrap();
        cluster.query(&format!(
            "set password_encryption = '{method}'; create role {name}_user superuser login password '{PASSWORD}'"
        ));
    }
    for (rule, user) in [
        ("trust", "scram_user"),
        ("password", "scram_user"),
        ("md5", "md5_user"),
        ("md5", "scram_user"),
        ("scram-sha-256", "scram_user"),
        ("reject", "scram_user"),
        ("peer map=here", "scram_user"),
        ("peer map=elsewhere", "scram_user"),
    ] {
        cluster.set_access(rule);
        for host in [cluster.sockets(), "127.0.0.1".to_owned()] {
            if rule.starts_with("peer") && host == "127.0.0.1" {
                continue;
            }
            for (password, is_right) in [(Some(PASSWORD), true), (Some("wrong"), false), (None, false)] {
                let mut variables = vec![("PGHOST", host.as_str()), ("PGUSER", user)];
                variables.extend(password.map(|password| ("PGPASSWORD", password)));
                let works = match rule {
                    "trust" | "peer map=here" => true,
                    "reject" | "peer map=elsewhere" => false,
                    _ => is_right,
                };
                let ours = Connection::open(&cluster, &variables, Duration::from_secs(20));
                let theirs = cluster.psql(&variables, "select 1");
                assert_eq!(theirs.is_ok(), works, "{rule} {variables:?}: {theirs:?}");
                match (ours, theirs) {
                    (Ok(mut connection), Ok(_)) => {
                        assert_eq!(value_of(connection.ask("select current_user::text")), user);
                    }
                    (Err(ours), Err(theirs)) => assert_eq!(ours, theirs, "{rule} {variables:?}"),
                    (ours, theirs) => panic!("{rule} {variables:?}: {ours:?}, but {theirs:?}"),
                }
            }
        }
    }
}

#[test]
fn passwords_are_taken_from_the_file_that_libpq_takes_them_from() {
    let cluster = Cluster::start(&[]);
    cluster.query(&format!("create role reader login password '{PASSWORD}'"));
    cluster.set_access("scram-sha-256");
    let escaped = PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
    for (line, mode, works) in [
        (format!("{}:{}:postgres:reader:{escaped}", cluster.sockets(), cluster.port), 0o600, true),
        (format!("# x\n*:*:other:*:no\n*:*:*:reader:{escaped}"), 0o600, true),
        (format!("*:*:*:reader:{escaped}"), 0o640, false),
        ("*:*:*:reader:wrong".to_owned(), 0o600, false),
        (format!("localhost:*:*:reader:{escaped}"), 0o600, false),
    ] {
        let file = cluster.write_password_file(&line, mode);
        let sockets = cluster.sockets();
        let variables = [("PGHOST", sockets.as_str()), ("PGUSER", "reader"), ("PGPASSFILE", file.as_str())];
        let ours = Connection::open(&cluster, &variables, Duration::from_secs(20));
        let theirs = cluster.psql(&variables, "select 1");
        assert_eq!(ours.is_ok(), works, "{line} {mode:o}: {ours:?}");
        assert_eq!(theirs.is_ok(), works, "{line} {mode:o}: {theirs:?}");
        if let (Err(ours), Err(theirs)) = (ours, theirs) {
            // psql also says there why it did not use the file
            assert!(theirs.ends_with(&ours), "{ours:?}, but {theirs:?}");
        }
    }
}

#[test]
fn connections_that_are_refused_are_worded_as_by_libpq() {
    let mut cluster =
        Cluster::start(&["max_connections = 4", "superuser_reserved_connections = 0", "max_wal_senders = 0"]);
    let sockets = cluster.sockets();
    for variables in [
        vec![("PGHOST", "/nowhere")],
        vec![("PGHOST", "@nowhere")],
        vec![("PGHOST", "127.0.0.1")],
        vec![("PGHOST", "127.0.0.1,/nowhere")],
        vec![("PGHOSTADDR", "127.0.0.1"), ("PGHOST", "name")],
        vec![("PGHOST", sockets.as_str()), ("PGDATABASE", "no'such\\one")],
        vec![("PGHOST", sockets.as_str()), ("PGUSER", "nobody \"else\"")],
        vec![("PGHOST", sockets.as_str()), ("PGOPTIONS", "-c work_mem=nonsense")],
        vec![("PGHOST", sockets.as_str()), ("PGCLIENTENCODING", "nonsense")],
    ] {
        let ours = Connection::open(&cluster, &variables, Duration::from_secs(20)).map(drop).unwrap_err();
        assert_eq!(ours, cluster.psql(&variables, "select 1").unwrap_err(), "{variables:?}");
    }
    let variables = [("PGHOST", sockets.as_str())];
    let connections: Vec<_> =
        (0..4).map(|_| Connection::open(&cluster, &variables, Duration::from_secs(20)).unwrap()).collect();
    let ours = Connection::open(&cluster, &variables, Duration::from_secs(20)).map(drop).unwrap_err();
    assert!(ours.ends_with("FATAL:  sorry, too many clients already"), "{ours}");
    drop(connections);
    cluster.stop();
    let ours = Connection::open(&cluster, &variables, Duration::from_secs(20)).map(drop).unwrap_err();
    assert_eq!(ours, cluster.psql(&variables, "select 1").unwrap_err());
}

#[test]
fn an_abstract_socket_is_found() {
    let cluster = Cluster::start_at(Some("@repohostd-test"), &[]);
    let name = cluster.sockets();
    let mut connection = Connection::open(&cluster, &[("PGHOST", &name)], Duration::from_secs(20)).unwrap();
    assert_eq!(value_of(connection.ask("select 'x'::text")), "x");
}

#[test]
fn failed_statements_are_worded_as_by_libpq_and_leave_the_connection_usable() {
    let cluster = Cluster::start(&[]);
    let mut connection = cluster.connect();
    let sockets = cluster.sockets();
    for statement in [
        "selekt",
        "select x",
        "select 1 from\n\tgenerate_series(1, 2) as t where\n  nonsense(t) and true",
        "select 'ü', nonsense",
        "select * from pg_class where relname = 'a' and relname = 'b' and relname = 'c' and nonsense = 'd' and relkind = 'r'",
        "select 1 / 0",
        "do $$ begin raise exception 'one' using detail = 'two', hint = 'three'; end $$",
        "do $$ begin execute 'select nonsense'; end $$",
        "select nonsense(1)",
        "create table pg_catalog.x (x int)",
        "",
        ";",
        "commit; selekt",
    ] {
        let ours = first_error_of(connection.ask(statement));
        let theirs = cluster.psql(&[("PGHOST", &sockets)], statement).err().unwrap_or_default();
        assert_eq!(
            ours.trim(),
            theirs.strip_prefix("WARNING:  there is no transaction in progress\n").unwrap_or(&theirs)
        );
        assert_eq!(value_of(connection.ask("select 'still here'::text")), "still here");
    }
}

/// The text of the first error of an answer.
fn first_error_of(finished: Finished) -> String {
    match finished {
        Finished::Answered { first: First::Error(text), .. } | Finished::Answered { further: Some(text), .. } => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_clients_send_for_a_backup_works() {
    let cluster = Cluster::start(&["archive_mode = on", "archive_command = 'true'"]);
    let mut connection = cluster.connect();
    for statement in [
        "set search_path = 'pg_catalog'",
        "set client_encoding = 'UTF8'",
        "set application_name = 'pgBackRest [backup]'",
        "set max_parallel_workers_per_gather = 0",
        "select pg_catalog.pg_is_in_recovery()",
        "select pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())::text",
        "select lsn::text as lsn,\n       pg_catalog.pg_walfile_name(lsn)::text as wal_segment_name\n  from \
         pg_catalog.pg_backup_start('pgBackRest backup started at ' || current_timestamp, true) as lsn",
        "select oid::oid, datname::text, (select oid::oid from pg_catalog.pg_database where datname = 'template0') as \
         datlastsysoid from pg_catalog.pg_database",
        "select oid::oid, spcname::text from pg_catalog.pg_tablespace",
        "select (extract(epoch from clock_timestamp()) * 1000)::bigint",
        "select lsn::text as lsn,\n       pg_catalog.pg_walfile_name(lsn)::text as wal_segment_name,\n       \
         labelfile::text as backuplabel_file,\n       spcmapfile::text as tablespacemap_file\n  from \
         pg_catalog.pg_backup_stop(false)",
        "select pg_catalog.pg_create_restore_point('pgBackRest Archive Check')::text",
        "select pg_catalog.pg_walfile_name(pg_catalog.pg_switch_wal())::text",
        "checkpoint",
        "select (checkpoint_lsn >= '0/0')::bool as targetReached,\n       checkpoint_lsn::text as checkpointLsn\n  from \
         pg_catalog.pg_control_checkpoint()",
        "select replayLsn::text,\n       (replayLsn > '0/0')::bool as targetReached\n  from \
         pg_catalog.pg_last_wal_replay_lsn() as replayLsn",
    ] {
        assert!(is_sent_by_clients(statement), "{statement}");
        let finished = connection.ask(statement);
        let is_command = statement.starts_with("set ") || statement == "checkpoint";
        match finished {
            Finished::Answered { first: First::Command, further: None } => assert!(is_command, "{statement}"),
            Finished::Answered { first: First::Rows(rows), further: None } => {
                assert!(!is_command && rows.count > 0, "{statement}");
            }
            other => panic!("{statement}: {other:?}"),
        }
    }
}

#[test]
fn a_statement_that_takes_too_long_is_cancelled_and_the_connection_goes_on() {
    let cluster = Cluster::start(&[]);
    let mut connection = cluster.connect();
    connection.timeout = Duration::from_millis(300);
    let begun = Instant::now();
    let finished = connection.ask("select pg_sleep(100)");
    assert_eq!(finished, Finished::TimedOut { further: None });
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(
        cluster
            .query("select count(*) from pg_stat_activity where query = 'select pg_sleep(100)' and state = 'active'"),
        "0"
    );
    connection.timeout = Duration::from_secs(20);
    assert_eq!(value_of(connection.ask("select 'x'::text")), "x");
}

#[test]
fn whoever_leaves_in_the_middle_leaves_nothing_running() {
    let cluster = Cluster::start(&[]);
    let mut connection = cluster.connect();
    connection.begin("select pg_sleep(100)");
    let running = || cluster.query("select count(*) from pg_stat_activity where query = 'select pg_sleep(100)'");
    cluster::until(|| running() == "1");
    connection.leave();
    cluster::until(|| running() == "0");
    cluster::until(|| {
        cluster.query("select count(*) from pg_stat_activity where backend_type = 'client backend'") == "1"
    });
}

#[test]
fn a_connection_that_is_lost_in_the_middle_is_told_from_one_that_is_ended() {
    const ENDED: &str = "server closed the connection unexpectedly\n\tThis probably means the server terminated \
                         abnormally\n\tbefore or while processing the request.\n";
    let cluster = Cluster::start(&[]);
    let mut connection = cluster.connect();
    let pid = value_of(connection.ask("select pg_backend_pid()::text"));
    let ended = |finished: Finished, text: &str| match finished {
        Finished::Answered { first: First::Error(first), further: Some(further) } => {
            assert_eq!((first.as_str(), further.as_str()), (text, format!("{text}{ENDED}").as_str()));
        }
        other => panic!("{other:?}"),
    };
    connection.begin("select pg_sleep(100)");
    cluster.query(&format!("select pg_terminate_backend({pid}, 10000)"));
    ended(connection.wait(), "FATAL:  terminating connection due to administrator command\n");
    assert_eq!(connection.ask("select 1"), Finished::NotSent("no connection to the server".into()));

    // while nothing is under way, it is the answer to the next statement
    let mut connection = cluster.connect();
    let pid = value_of(connection.ask("select pg_backend_pid()::text"));
    cluster.query(&format!("select pg_terminate_backend({pid}, 10000)"));
    ended(connection.ask("select 1"), "FATAL:  terminating connection due to administrator command\n");

    let mut connection = cluster.connect();
    let pid = value_of(connection.ask("select pg_backend_pid()::text"));
    connection.begin("select pg_sleep(100)");
    thread::sleep(Duration::from_millis(200));
    cluster::kill(&pid);
    assert_eq!(error_of(connection.wait()), ENDED);

    // the others are told in a notice that one has crashed
    let cluster = Cluster::start(&[]);
    let mut connection = cluster.connect();
    connection.begin("select pg_sleep(100)");
    let mut other = cluster.connect();
    cluster::kill(&value_of(other.ask("select pg_backend_pid()::text")));
    let text = error_of(connection.wait());
    assert!(
        text.starts_with("WARNING:  terminating connection because of crash of another server process\n"),
        "{text}"
    );
    assert!(text.ends_with(ENDED), "{text}");
}
