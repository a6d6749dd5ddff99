//! Sessions on a cluster: which one a client may read, and what is known of its server.

use std::path::Path;
use std::time::Duration;

use super::{MINIMAL, NEWEST, Site, assert_error, environment, strings};
use crate::config::{Cluster, SessionSettings, parse_session};
use crate::protocol::error::{Code, Result};
use crate::protocol::release::Release;

/// A `PostgreSQL` host as the original's user guide sets it up, with these lines in its stanza.
fn site(stanza: &str) -> Site {
    Site::new(&format!("{MINIMAL}repo1-host=repository\nlock-path=/lock\n[demo]\n{stanza}\n[other]\npg1-path=/other\n"))
}

fn ask(site: &Site, release: &str, variables: &[(&str, &str)], words: &[&str]) -> Result<SessionSettings> {
    let (files, loaded) = site.load(&[], &[])?;
    let mut params = strings(&["--exec-id=1-12345678", "--process=0", "--remote-type=pg"]);
    params.extend(words.iter().map(|word| site.filled(word)));
    parse_session(&files, &environment(variables), &loaded.server, Release::find(release).unwrap(), &params)
}

fn cluster(site: &Site, words: &[&str]) -> Result<Cluster> {
    let mut all = vec!["--stanza=demo"];
    all.extend(words);
    all.push("backup:remote");
    ask(site, NEWEST, &[], &all).map(|settings| settings.cluster().unwrap().clone())
}

#[test]
fn what_real_clients_ask_of_a_postgresql_host_is_understood() {
    for (release, words, locks) in [
        ("2.37", "--pg1-path=/pg --repo=1 --stanza=demo backup:remote", &["demo-backup.lock"][..]),
        ("2.45", "--pg1-path=/pg --repo=1 --stanza=demo check:remote", &[]),
        ("2.45", "--db-timeout=60.0 --pg1-path=/pg --repo=1 --stanza=demo stanza-create:remote", &[]),
        ("2.55.1", "--lock=demo-backup-1.lock --pg1-path=/pg --stanza=demo backup:remote", &["demo-backup-1.lock"]),
        (
            "2.60.0",
            "--lock=demo-archive-1.lock --lock=demo-backup-1.lock --lock=demo-restore-1.lock --pg1-path=/pg \
             --pg1-port=5433 --pg1-socket-path=/run/pg --stanza=demo stanza-create:remote",
            &["demo-archive-1.lock", "demo-backup-1.lock", "demo-restore-1.lock"],
        ),
    ] {
        let words: Vec<_> = words.split_whitespace().collect();
        let settings = ask(&site("pg1-path=/pg"), release, &[], &words).unwrap();
        assert_eq!(settings.locks, locks, "{release} {words:?}");
        assert_eq!((settings.cluster().unwrap().path.as_path(), settings.repository()), (Path::new("/pg"), None));
    }
}

#[test]
fn a_connection_is_made_with_what_the_client_says_and_else_with_what_the_host_has() {
    let defaults = Cluster {
        path: "/pg".into(),
        port: 5432,
        socket_path: None,
        user: None,
        database: "postgres".to_owned(),
        db_timeout: Duration::from_secs(1800),
        any_statement: false,
    };
    assert_eq!(cluster(&site("pg1-path=/pg"), &["--pg1-path=/pg"]).unwrap(), defaults);
    let own = site("pg1-path=/one\npg1-port=1\npg3-path=/pg\npg3-port=5999\npg3-socket-path=/own\npg3-user=backup");
    let found = cluster(&own, &["--pg1-path=/pg/", "--db-timeout=60"]).unwrap();
    let expected = Cluster {
        port: 5999,
        socket_path: Some("/own".to_owned()),
        user: Some("backup".to_owned()),
        db_timeout: Duration::from_secs(60),
        ..defaults.clone()
    };
    assert_eq!(found, expected, "the index is the one that has this path here");
    let words = ["--pg1-path=/pg", "--pg1-port=7", "--pg1-socket-path=@pg", "--pg1-user=me", "--pg1-database=db"];
    let expected = Cluster {
        port: 7,
        socket_path: Some("@pg".to_owned()),
        user: Some("me".to_owned()),
        database: "db".to_owned(),
        ..defaults
    };
    assert_eq!(cluster(&own, &words).unwrap(), expected);
    let error = cluster(&own, &["--pg1-path=/pg", "--pg1-port=65536"]).unwrap_err();
    assert_error(&error, Code::OptionInvalidValue, "'65536' is out of range for 'pg1-port' option");
    assert_eq!(cluster(&own, &[]).unwrap().path, Path::new("/one"), "the host's own first one");
}

#[test]
fn a_client_cannot_read_a_directory_that_is_not_its_stanzas_cluster_here() {
    let refused = |site: &Site, path: &str| cluster(site, &[&format!("--pg1-path={path}")]).unwrap_err();
    let own = site("pg1-path=/pg");
    for path in ["/", "/etc", "/pg2", "/pg/base", "/pg/../etc", "/other", "/var/lib/postgresql"] {
        let expected = own.filled(&format!(
            "'{path}' is not allowed for 'pg1-path' option because the PostgreSQL host uses '/pg' for stanza 'demo'\n\
             HINT: see '$/pgbackrest.conf' of the PostgreSQL host: set the option of the client to the value of the \
             PostgreSQL host.\n\
             HINT: to accept it from clients, add 'allow-client-pg-path={path}' to '$/repohostd.conf' of the PostgreSQL \
             host and reload."
        ));
        assert_error(&refused(&own, path), Code::OptionInvalidValue, &expected);
    }
    let without = site("archive-async=y");
    assert_error(
        &refused(&without, "/pg"),
        Code::OptionInvalidValue,
        &without.filled(
            "'/pg' is not allowed for 'pg1-path' option because this host has no cluster of stanza 'demo'\n\
             HINT: see '$/pgbackrest.conf' of the PostgreSQL host: set pg1-path in section [demo] of this file, without \
             pg1-host.",
        ),
    );
    let repository_host = site("pg1-path=/pg\npg1-host=pg1\npg2-path=/standby\npg2-host=pg2");
    let expected = "'/standby' is not allowed for 'pg1-path' option because pg2-host of this host says that pg2-path is \
                    on another one";
    assert_error(&refused(&repository_host, "/standby"), Code::OptionInvalidValue, expected);
    let both = site("pg1-path=/pg\npg2-path=/pg2\npg2-host=pg2\npg3-path=/pg3\npg3-host=me\npg3-local=y");
    assert_eq!(cluster(&both, &["--pg1-path=/pg3"]).unwrap().path, Path::new("/pg3"));
    assert!(refused(&both, "/x").message.contains("uses '/pg' and '/pg3' for stanza 'demo'"));
    assert!(refused(&both, "/pg2").message.contains("pg2-host"));
    let error = cluster(&own, &["--pg1-path=/pg", "--config=/other.conf"]).unwrap_err();
    let expected =
        "'/other.conf' is not allowed for 'config' option because the PostgreSQL host uses '$/pgbackrest.conf'";
    assert_error(&error, Code::OptionInvalidValue, &own.filled(expected));
    let error = ask(&own, NEWEST, &[], &["--pg1-path=/pg", "check:remote"]).unwrap_err();
    assert!(error.message.contains("no cluster of any stanza"), "{error}");
    let error = ask(&without, NEWEST, &[], &["--stanza=demo", "backup:remote"]).unwrap_err();
    let expected = "backup command requires option: pg1-path\nHINT: does this stanza exist?";
    assert_error(&error, Code::OptionRequired, expected);
}

#[test]
fn the_administrator_may_allow_further_clusters() {
    let own = site("pg1-path=/pg\npg1-port=5433");
    own.write("repohostd.conf", "[global]\nallow-client-pg-path=/link/to/pg, /data/\n");
    let found = cluster(&own, &["--pg1-path=/link/to/pg"]).unwrap();
    assert_eq!((found.path.as_path(), found.port), (Path::new("/link/to/pg"), 5433));
    assert!(cluster(&own, &["--pg1-path=/data"]).is_ok() && cluster(&own, &["--pg1-path=/data2"]).is_err());

    let words = ["--stanza=demo", "--pg1-path=/elsewhere", "backup:remote"];
    let settings = ask(&own, NEWEST, &[("PGBACKREST_PG1_PATH", "/elsewhere")], &words).unwrap();
    assert_eq!(settings.cluster().unwrap().path, Path::new("/elsewhere"), "the environment is the server's own");
}

#[test]
fn a_session_on_a_cluster_tells_nothing_of_repositories() {
    let site = site("pg1-path=/pg");
    let words = ["--stanza=demo", "--pg1-path=/pg", "--db-timeout=60", "backup:remote"];
    let settings = ask(&site, NEWEST, &[], &words).unwrap();
    assert_eq!(settings.option_json(&["db-timeout", "pg1-path", "pg1-user"]).unwrap(), "[60000,\"/pg\",null]");
    assert_eq!(settings.option_json(&["repo1-cipher-pass"]).unwrap_err().code, Code::Access);
    assert_eq!(settings.option_json(&["pg2-path"]).unwrap_err().code, Code::Assert);
}
