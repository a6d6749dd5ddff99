use std::path::Path;
use std::time::Duration;

use super::{MINIMAL, NEWEST, Site, assert_error, environment, strings};
use crate::config::{Command, RepositoryKind, SessionSettings, parse_session};
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::filter::Secret;
use crate::protocol::release::Release;

fn known(release: &str) -> &'static Release {
    Release::find(release).unwrap()
}

/// A site whose server configures a repository and a stanza.
fn site() -> Site {
    Site::new(&format!("{MINIMAL}repo1-path=/repo\nlock-path=/lock\n[demo]\npg1-path=/pg\n"))
}

fn parse_on(site: &Site, release: &str, params: &[&str]) -> Result<SessionSettings> {
    parse_with(site, &[], &[], release, params)
}

fn parse_with(
    site: &Site,
    arguments: &[&str],
    variables: &[(&str, &str)],
    release: &str,
    params: &[&str],
) -> Result<SessionSettings> {
    let (files, loaded) = site.load(arguments, variables)?;
    let params: Vec<_> = params.iter().map(|param| site.filled(param)).collect();
    parse_session(&files, &environment(variables), &loaded.server, known(release), &params)
}

fn with(extra: &[&str], command: &str) -> Vec<String> {
    let mut params = strings(&["--process=0", "--remote-type=repo", "--repo=1", "--stanza=demo"]);
    params.extend(strings(extra));
    params.push(command.to_owned());
    params
}

fn run(site: &Site, extra: &[&str], command: &str) -> Result<SessionSettings> {
    let params = with(extra, command);
    let params: Vec<_> = params.iter().map(String::as_str).collect();
    parse_on(site, NEWEST, &params)
}

fn fails(site: &Site, extra: &[&str], command: &str) -> Error {
    run(site, extra, command).unwrap_err()
}

/// As `fails`, with a file of the site in place of its default one.
fn message(main: &str, extra: &[&str], command: &str) -> (Code, String) {
    let error = fails(&Site::new(main), extra, command);
    (error.code, error.message)
}

#[test]
fn what_real_clients_send_is_understood() {
    const COMMON: [&str; 4] =
        ["--exec-id=24620-16c4f865", "--log-level-console=off", "--log-level-file=off", "--log-level-stderr=error"];
    let backup = &["demo-backup-1.lock"][..];
    let archive = &["demo-archive-1.lock"][..];
    for (release, list, locks) in [
        ("2.37", "--pg1-path=/rest --process=0 --repo=1 restore:remote", &[][..]),
        ("2.37", "--process=0 --repo=1 repo-ls:remote", &[]),
        ("2.37", "--process=0 --repo=1 verify:remote", &[]),
        ("2.45", "--process=0 --repo=1 archive-push:remote", &["demo-archive.lock"]),
        ("2.45", "--pg1-path=/pg --process=0 --repo=1 stanza-create:remote", &[]),
        ("2.45", "--pg1-path=/pg --process=0 --repo=1 archive-get:remote", &[]),
        ("2.45", "--pg1-path=/pg --process=0 --repo=1 check:remote", &[]),
        ("2.45", "--pg1-path=/rest --process=1 --repo=1 restore:remote", &[]),
        ("2.55.1", "--lock=demo-archive-1.lock --process=0 --repo=1 archive-push:remote", archive),
        ("2.55.1", "--lock=demo-backup-1.lock --process=0 --repo=1 expire:remote", backup),
        ("2.55.1", "--lock=demo-backup-1.lock --pg1-path=/pg --process=0 --repo=1 backup:remote", backup),
        ("2.55.1", "--lock=demo-backup-1.lock --pg1-path=/pg --process=1 --repo=1 backup:remote", &[]),
        (
            "2.55.1",
            "--lock=demo-archive-1.lock --lock=demo-backup-1.lock --pg1-path=/pg --process=0 --repo=1 stanza-create:remote",
            &["demo-archive-1.lock", "demo-backup-1.lock"],
        ),
        ("2.55.1", "--process=0 --repo=1 info:remote", &[]),
        ("2.55.1", "--process=1 --repo=1 verify:remote", &[]),
        ("2.60.0", "--lock=demo-archive-1.lock --pg1-path=/pg --process=0 --repo=1 archive-push:remote", archive),
        (
            "2.60.0",
            "--archive-async --lock=demo-archive-1.lock --pg1-path=/pg --process=1 --repo=1 archive-push:remote",
            &[],
        ),
        (
            "2.60.0",
            "--lock=demo-backup-1.lock --pg1-path=/pg --pg1-port=5999 --pg1-socket-path=/run --process=0 --repo=1 \
             backup:remote",
            backup,
        ),
        (
            "2.60.0",
            "--lock=demo-archive-1.lock --lock=demo-backup-1.lock --lock=demo-restore-1.lock --pg1-path=/pg \
             --process=0 --repo=1 stanza-upgrade:remote",
            &["demo-archive-1.lock", "demo-backup-1.lock", "demo-restore-1.lock"],
        ),
        ("2.60.0", "--lock=demo-backup-1.lock --process=0 --repo=1 annotate:remote", backup),
        ("2.60.0", "--pg1-path=/pg --process=0 --repo=1 manifest:remote", &[]),
        ("2.60.0", "--process=0 --repo=1 repo-get:remote", &[]),
        (
            "2.60.0",
            "--allow-root --beta --buffer-size=64KiB --db-timeout=60 --io-timeout=30 --log-subprocess \
             --no-log-timestamp --no-neutral-umask --pg-version-force=16 --pg1-database=x --pg1-user=u --pg2-path=/b \
             --priority=3 --protocol-timeout=70 --repo1-type=posix --no-sck-keep-alive --tcp-keep-alive-idle=5 \
             --tls-cipher-12=HIGH --pg1-path=/pg --process=2 --repo=1 --reset-repo1-storage-host restore:remote",
            &[],
        ),
    ] {
        let mut params = COMMON.to_vec();
        params.extend(list.split_whitespace().filter(|word| !word.ends_with(":remote")));
        params.extend(["--remote-type=repo", "--stanza=demo"]);
        params.push(list.rsplit(' ').next().unwrap());
        let session = parse_on(&site(), release, &params).unwrap_or_else(|error| panic!("{params:?}: {error}"));
        assert_eq!(format!("{}:remote", session.command.name()), params[params.len() - 1]);
        assert_eq!(session.locks, locks, "{release} {list}");
        assert_eq!(session.stanza.as_deref(), Some("demo"));
        assert_eq!(session.exec_id.as_deref(), Some("24620-16c4f865"));
        assert_eq!(session.lock_path, Path::new("/lock"));
        let repository = session.repository().unwrap();
        assert_eq!((repository.key, repository.path.as_path()), (1, Path::new("/repo")));
    }
}

#[test]
fn a_client_chooses_buffer_umask_and_timeouts() {
    let extra = ["--buffer-size=64KiB", "--no-neutral-umask", "--protocol-timeout=2h", "--pg1-path=/pg"];
    let session = run(&site(), &extra, "restore:remote").unwrap();
    assert_eq!((session.buffer_size, session.neutral_umask, session.process), (65536, false, 0));
    assert_eq!(session.protocol_timeout, Duration::from_secs(7200));
    let session = run(&site(), &[], "backup:remote").unwrap();
    assert_eq!((session.buffer_size, session.neutral_umask), (1 << 20, true));
    assert_eq!(session.db_timeout, Duration::from_secs(1800));
}

#[test]
fn only_the_remote_role_is_served_before_anything_else_is_looked_at() {
    for (word, expected) in [
        ("backup", "invalid command/role combination 'backup'"),
        ("backup:local", "invalid command/role combination 'backup:local'"),
        ("archive-push:async", "invalid command/role combination 'archive-push:async'"),
        ("server:remote", "invalid command/role combination 'server:remote'"),
        ("stop", "invalid command/role combination 'stop'"),
        ("backup:x", "invalid command role 'x'"),
        ("backu:remote", "invalid command 'backu:remote'"),
        ("", "invalid command ''"),
    ] {
        assert_error(&fails(&site(), &["--bogus"], word), Code::CommandInvalid, expected);
    }
    assert_error(&parse_on(&site(), NEWEST, &[]).unwrap_err(), Code::CommandRequired, "no command found");
    let error = parse_on(&site(), NEWEST, &["backup:remote", "--process=0"]).unwrap_err();
    assert_error(&error, Code::CommandRequired, "no command found");
    let error = parse_on(&site(), NEWEST, &["more", "archive-get:remote"]).unwrap_err();
    assert_error(&error, Code::ParamInvalid, "command does not allow parameters");
}

#[test]
fn a_wrong_session_is_refused_in_the_originals_words() {
    for (extra, command, code, expected) in [
        (&["--bogus=1"][..], "info:remote", Code::OptionInvalid, "invalid option '--bogus=1'"),
        (&["--repohostd-config=/x"], "info:remote", Code::OptionInvalid, "invalid option '--repohostd-config=/x'"),
        (
            &["--repo1-cipher-pass=x"],
            "info:remote",
            Code::OptionInvalid,
            "option 'repo1-cipher-pass' is not allowed on the command-line",
        ),
        (&["--buffer-size=1"], "info:remote", Code::OptionInvalidValue, "'1' is not allowed for 'buffer-size' option"),
        (
            &["--repo1-type=s3"],
            "info:remote",
            Code::OptionInvalidValue,
            "pgBackRest not built with 'repo1-type=s3' support\n\
             HINT: if pgBackRest was installed from a package, does the package support this feature?\n\
             HINT: if pgBackRest was built from source, were the required development packages installed?",
        ),
        (
            &["--protocol-timeout=5", "--db-timeout=6"],
            "backup:remote",
            Code::OptionInvalidValue,
            "'5' is not valid for 'protocol-timeout' option\n\
             HINT 'protocol-timeout' option (5) should be greater than 'db-timeout' option (6).",
        ),
        (
            &["--lock-path=/other"],
            "backup:remote",
            Code::OptionInvalidValue,
            "'/other' is not allowed for 'lock-path' option",
        ),
        (&["--exec-id=a\nb"], "backup:remote", Code::OptionInvalidValue, "\"a\\nb\" is not valid for 'exec-id' option"),
    ] {
        assert_error(&fails(&site(), extra, command), code, expected);
    }
    let error =
        parse_on(&site(), NEWEST, &["--process=0", "--repo=2", "--remote-type=repo", "info:remote"]).unwrap_err();
    assert_error(&error, Code::OptionInvalidValue, "key '2' is not valid for 'repo' option");
    let error = parse_on(&site(), NEWEST, &["--stanza=a\0b", "info:remote"]).unwrap_err();
    assert_eq!(error.code, Code::Format);
}

#[test]
fn required_options_are_missed_in_the_originals_words() {
    let without_stanza = |command: &str, release: &str| {
        parse_on(&site(), release, &["--process=0", "--remote-type=repo", "--repo=1", command])
    };
    for command in ["annotate", "archive-get", "archive-push", "backup", "expire", "manifest", "restore", "verify"] {
        let error = without_stanza(&format!("{command}:remote"), NEWEST).unwrap_err();
        assert_error(&error, Code::OptionRequired, &format!("{command} command requires option: stanza"));
    }
    for command in ["check", "info", "repo-get", "repo-ls", "repo-put", "repo-rm"] {
        assert_eq!(without_stanza(&format!("{command}:remote"), NEWEST).unwrap().stanza, None);
    }
    assert!(without_stanza("check:remote", "2.45").is_err());

    let main = format!("{MINIMAL}repo1-path=/repo\n");
    for command in ["archive-get", "backup", "restore", "stanza-create", "stanza-delete", "stanza-upgrade", "check"] {
        let expected = format!("{command} command requires option: pg1-path\nHINT: does this stanza exist?");
        assert_eq!(message(&main, &[], &format!("{command}:remote")), (Code::OptionRequired, expected));
    }
    for command in ["annotate", "archive-push", "expire", "info", "manifest", "verify", "repo-ls"] {
        assert!(run(&Site::new(&main), &[], &format!("{command}:remote")).is_ok(), "{command}");
    }
    let missing = parse_on(&site(), NEWEST, &["--remote-type=repo", "info:remote"]).unwrap_err();
    assert_error(&missing, Code::OptionRequired, "info command requires option: process");
}

#[test]
fn lock_names_cannot_leave_the_lock_path_or_the_stanza() {
    for name in [
        "../demo-backup-1.lock",
        "/tmp/x",
        "other-backup-1.lock",
        "demo-backup-1.lock.lock",
        "demo-backup-.lock",
        "demo-backup-x.lock",
        "demo-expire-1.lock",
        "demo-backup-1",
        "demo.stop",
    ] {
        let error = fails(&site(), &[&format!("--lock={name}")], "backup:remote");
        assert_error(&error, Code::OptionInvalidValue, &format!("'{name}' is not allowed for 'lock' option"));
    }
    let locks = |extra: &[&str]| run(&site(), extra, "backup:remote").unwrap().locks;
    assert_eq!(locks(&["--lock=demo-backup-2.lock", "--lock=demo-backup-2.lock"]), ["demo-backup-2.lock"]);
    assert_eq!(locks(&[]), ["demo-backup-1.lock"]);
    for stanza in ["../x", "a/b", "..", "a\nb", "a\u{10fee9}"] {
        let params = ["--process=0", "--remote-type=repo", "--repo=1", &format!("--stanza={stanza}"), "info:remote"];
        let error = parse_on(&site(), NEWEST, &params).unwrap_err();
        assert_error(&error, Code::OptionInvalidValue, &format!("{stanza:?} is not valid for 'stanza' option"));
    }
    let long = format!("--stanza={}", "x".repeat(256));
    let error = parse_on(&site(), NEWEST, &["--process=0", "--remote-type=repo", &long, "info:remote"]).unwrap_err();
    assert!(error.message.starts_with("a name of 256 bytes is not valid for 'stanza' option"), "{error}");
}

#[test]
fn commands_lock_as_their_release_does() {
    for (command, release, expected) in [
        (Command::ArchivePush, "2.37", &["archive"][..]),
        (Command::Backup, "2.37", &["backup"]),
        (Command::StanzaCreate, "2.52.1", &[]),
        (Command::StanzaCreate, "2.53", &["archive", "backup"]),
        (Command::StanzaDelete, "2.55.1", &["archive", "backup"]),
        (Command::StanzaUpgrade, "2.56.0", &["archive", "backup", "restore"]),
        (Command::Expire, "2.54.2", &[]),
        (Command::Expire, "2.55.0", &["backup"]),
        (Command::Annotate, "2.41", &["backup"]),
        (Command::Restore, "2.60.0", &[]),
        (Command::Verify, "2.60.0", &[]),
    ] {
        assert_eq!(command.lock_types(known(release)), expected, "{command:?} {release}");
    }
}

#[test]
fn a_clients_path_is_used_only_when_the_administrator_agrees() {
    let site = site();
    let path =
        |extra: &[&str]| run(&site, extra, "info:remote").map(|session| session.repository().unwrap().path.clone());
    assert_eq!(path(&["--repo1-path=/repo/"]).unwrap(), Path::new("/repo"));
    let expected = site.filled(
        "'/etc' is not allowed for 'repo1-path' option because the repository host uses '/repo'\n\
         HINT: remove the option from the client, or set it to the value in '$/pgbackrest.conf' of the repository host.\n\
         HINT: to accept it from clients, add 'allow-client-repository=/etc' to '$/repohostd.conf' of the repository \
         host and reload.",
    );
    assert_error(&path(&["--repo1-path=/etc"]).unwrap_err(), Code::OptionInvalidValue, &expected);
    assert_error(
        &path(&["--reset-repo1-path"]).unwrap_err(),
        Code::OptionInvalidValue,
        "'/var/lib/pgbackrest' is not allowed for 'repo1-path' option because the repository host uses '/repo'",
    );
    let second =
        |text: &str| parse_on(&site, NEWEST, &["--process=0", "--remote-type=repo", "--repo=2", text, "info:remote"]);
    assert!(second("--repo2-path=/x").is_err());
    assert!(second("--repo2-path=/var/lib/pgbackrest").is_ok());

    site.write("repohostd.conf", "[global]\nallow-client-repository=/etc/\n");
    assert_eq!(
        run(&site, &["--repo1-path=/etc"], "info:remote").unwrap().repository().unwrap().path,
        Path::new("/etc")
    );
}

#[test]
fn values_with_spaces_arrive_without_the_clients_quotes() {
    let site = Site::new(&format!("{MINIMAL}repo1-path=/sp ace\n"));
    let session = run(&site, &["--repo1-path=\"/sp ace\""], "info:remote").unwrap();
    assert_eq!(session.repository().unwrap().path, Path::new("/sp ace"));
}

#[test]
fn a_clients_configuration_file_is_used_only_when_the_administrator_agrees() {
    let site = site();
    site.write("other/pgbackrest.conf", "[global]\nrepo1-path=/elsewhere\n");
    for extra in [
        &["--config=$/pgbackrest.conf"][..],
        &["--config-path=$"],
        &["--config-path=$/"],
        &["--config-include-path=$/conf.d"],
        &["--config=$/pgbackrest.conf", "--config-path=$", "--config-include-path=$/conf.d"],
    ] {
        assert_eq!(
            run(&site, extra, "info:remote").unwrap().repository().unwrap().path,
            Path::new("/repo"),
            "{extra:?}"
        );
    }
    for (extra, option) in [
        ("--config=$/other/pgbackrest.conf", "config"),
        ("--config-path=$/other", "config-path"),
        ("--config-include-path=/x", "config-include-path"),
        ("--no-config", "config"),
    ] {
        let error = fails(&site, &[extra], "info:remote");
        assert_eq!(error.code, Code::OptionInvalidValue);
        assert!(error.message.contains(&format!("is not allowed for '{option}' option because")), "{error}");
        assert_eq!(error.message.contains("allow-client-config="), extra != "--no-config", "{error}");
        assert!(!error.message.contains("''"), "{error}");
    }
    // A server that is told its file has no directory of included ones.
    let params = ["--process=0", "--remote-type=repo", "--config-include-path=/x", "info:remote"];
    let alone = parse_with(&site, &["--config=$/pgbackrest.conf"], &[], NEWEST, &params).unwrap_err();
    let expected = "'/x' is not allowed for 'config-include-path' option because the repository host uses none\n\
                    HINT: remove the option from the client.\nHINT: to accept it from clients, add ";
    assert!(alone.message.starts_with(expected), "{alone}");
    // Another name of the same file or directory is no other one.
    std::os::unix::fs::symlink(site.path("pgbackrest.conf"), site.path("link.conf")).unwrap();
    std::os::unix::fs::symlink(".", site.path("link")).unwrap();
    for extra in ["--config=$/link.conf", "--config-path=$/link", "--config-include-path=$/link/conf.d"] {
        let session = run(&site, &[extra], "info:remote").unwrap();
        assert_eq!(session.repository().unwrap().path, Path::new("/repo"), "{extra}");
    }
    site.write("repohostd.conf", &site.filled("[global]\nallow-client-config=$/other/pgbackrest.conf,$/other\n"));
    for extra in ["--config=$/other/pgbackrest.conf", "--config-path=$/other"] {
        let session = run(&site, &[extra], "info:remote").unwrap();
        assert_eq!(session.repository().unwrap().path, Path::new("/elsewhere"), "{extra}");
    }
}

#[test]
fn the_servers_own_file_holds_for_its_sessions() {
    let site = Site::new(&format!("{MINIMAL}repo1-path=/wrong\n"));
    site.write("own.conf", &format!("{MINIMAL}repo1-path=/right\n"));
    let params = ["--process=0", "--remote-type=repo", "--repo=1", "info:remote"];
    let session = parse_with(&site, &["--config=$/own.conf"], &[], NEWEST, &params).unwrap();
    assert_eq!(session.repository().unwrap().path, Path::new("/right"));
    let variables = [("PGBACKREST_REPO1_PATH", "/environment")];
    let session = parse_with(&site, &["--config=$/own.conf"], &variables, NEWEST, &params).unwrap();
    assert_eq!(session.repository().unwrap().path, Path::new("/environment"));
}

#[test]
fn sections_of_stanza_and_command_hold_for_a_session() {
    let site = Site::new(&format!(
        "{MINIMAL}repo1-path=/4\n[global:info]\nrepo1-path=/3\n[demo]\nrepo1-path=/2\n[demo:info]\nrepo1-path=/1\n"
    ));
    let path = |command, stanza: &str| {
        let stanza = format!("--stanza={stanza}");
        parse_on(&site, NEWEST, &["--process=0", "--remote-type=repo", "--repo=1", &stanza, command])
            .unwrap()
            .repository()
            .unwrap()
            .path
            .clone()
    };
    assert_eq!(path("info:remote", "demo"), Path::new("/1"));
    assert_eq!(path("verify:remote", "demo"), Path::new("/2"));
    assert_eq!(path("info:remote", "x"), Path::new("/3"));
    assert_eq!(path("verify:remote", "x"), Path::new("/4"));
}

#[test]
fn only_the_selected_repository_must_be_complete() {
    let main = format!("{MINIMAL}repo1-path=/one\nrepo2-type=s3\nrepo3-type=cifs\nrepo3-path=/three\n");
    let session = run(&Site::new(&main), &[], "info:remote").unwrap();
    assert_eq!(session.repository().unwrap().path, Path::new("/one"));
    let select = |key: &str| {
        let repo = format!("--repo={key}");
        parse_on(&Site::new(&main), NEWEST, &["--process=0", "--remote-type=repo", &repo, "info:remote"])
    };
    let three = select("3").unwrap().repository().unwrap().clone();
    assert_eq!((three.key, three.kind, three.path.as_path()), (3, RepositoryKind::Cifs, Path::new("/three")));
    assert_error(
        &select("2").unwrap_err(),
        Code::OptionInvalidValue,
        "pgBackRest not built with 'repo2-type=s3' support",
    );
    let same = format!("{MINIMAL}repo1-path=/one\nrepo2-path=/one\n");
    let expected = "local repo1 and repo2 paths are both '/one' but must be different".to_owned();
    assert_eq!(message(&same, &[], "info:remote"), (Code::OptionInvalidValue, expected));
}

#[test]
fn the_first_repository_is_the_default_one() {
    let site = Site::new(&format!("{MINIMAL}repo5-path=/five\nrepo4-retention-full=3\n"));
    let repository = parse_on(&site, NEWEST, &["--process=0", "--remote-type=repo", "info:remote"]);
    let repository = repository.unwrap().repository().unwrap().clone();
    assert_eq!((repository.key, repository.path.as_path()), (5, Path::new("/five")));
    let repository = run(&Site::new(MINIMAL), &[], "info:remote").unwrap().repository().unwrap().clone();
    assert_eq!((repository.key, repository.path.as_path()), (1, Path::new("/var/lib/pgbackrest")));
}

#[test]
fn the_cipher_of_the_repository_is_answered_and_no_other_secret() {
    let site = Site::new(&format!(
        "{MINIMAL}repo1-path=/r\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=pa\"ss\nrepo2-path=/b\n"
    ));
    let session = run(&site, &[], "info:remote").unwrap();
    assert_eq!(session.repository().unwrap().cipher_pass, Some(Secret(b"pa\"ss".to_vec())));
    assert!(!format!("{session:?}").contains("ss\\"));
    let json = |names: &[&str]| session.option_json(names);
    let both = json(&["repo1-cipher-type", "repo1-cipher-pass"]).unwrap();
    assert_eq!(both, r#"[55237246849960464,"pa\"ss"]"#);
    assert_eq!(json(&["db-timeout", "process", "stanza", "neutral-umask"]).unwrap(), r#"[1800000,0,"demo",true]"#);
    assert_eq!(json(&[]).unwrap(), "[]");
    assert_error(&json(&["bogus"]).unwrap_err(), Code::Assert, "option not found");
    for name in ["repo2-cipher-pass", "repo1-s3-key", "repo1-azure-account"] {
        assert_eq!(json(&[name]).unwrap_err().code, Code::Access, "{name}");
    }
    assert_eq!(json(&["tls-server-auth"]).unwrap_err().code, Code::Assert);

    let plain = run(&Site::new(MINIMAL), &[], "info:remote").unwrap();
    assert_eq!(plain.option_json(&["repo1-cipher-type", "repo1-cipher-pass"]).unwrap(), "[2858720,null]");
    let main = format!("{MINIMAL}repo1-cipher-type=aes-256-cbc\n");
    let expected = "info command requires option: repo1-cipher-pass".to_owned();
    assert_eq!(message(&main, &[], "info:remote"), (Code::OptionRequired, expected));
}

#[test]
fn timeouts_give_way_to_each_other_when_they_are_defaults() {
    let timeouts = |extra: &[&str]| {
        let session = run(&site(), extra, "backup:remote").unwrap();
        (session.protocol_timeout.as_secs(), session.db_timeout.as_secs())
    };
    assert_eq!(timeouts(&[]), (1860, 1800));
    assert_eq!(timeouts(&["--db-timeout=1h"]), (3630, 3600));
    assert_eq!(timeouts(&["--protocol-timeout=45"]), (45, 15));
    assert_eq!(timeouts(&["--protocol-timeout=40"]), (40, 20));
}

#[test]
fn an_old_client_may_send_decimal_seconds() {
    let params = ["--process=0", "--remote-type=repo", "--repo=1", "--protocol-timeout=1830.5", "info:remote"];
    assert_eq!(parse_on(&site(), "2.45", &params).unwrap().protocol_timeout, Duration::from_millis(1_830_500));
    assert!(parse_on(&site(), "2.55.1", &params).is_err());
}

#[test]
fn a_client_cannot_hold_locks_without_number() {
    let locks: Vec<_> = (1..=20).map(|number| format!("--lock=demo-backup-{number}.lock")).collect();
    let locks: Vec<_> = locks.iter().map(String::as_str).collect();
    let error = fails(&site(), &locks, "expire:remote");
    assert_eq!(error.code, Code::OptionInvalidValue);
    assert!(error.message.contains("more than 16"), "{error}");
}
