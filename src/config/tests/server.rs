use std::path::Path;
use std::time::Duration;

use super::{MINIMAL, Site, assert_error, environment, strings};
use crate::config::snapshot::Origin;
use crate::config::{
    Files, ListenerPin, NamedRights, NetworkCompression, OwnSettings, Pin, Protection, Role, ServerSettings, Workers,
    describe, load_from,
};
use crate::observe::log::Level;
use crate::protocol::error::{Code, Error};

fn settings(main: &str, arguments: &[&str]) -> ServerSettings {
    Site::new(main).load(arguments, &[]).unwrap().1.server
}

fn failure(main: &str, arguments: &[&str]) -> Error {
    Site::new(main).load(arguments, &[]).unwrap_err()
}

#[test]
fn defaults_are_the_originals() {
    let server = settings(MINIMAL, &["server"]);
    assert_eq!(server.addresses, ["localhost"]);
    assert_eq!(server.port, 8432);
    assert_eq!(server.protocol_timeout, Duration::from_secs(31 * 60));
    assert_eq!(server.io_timeout, Duration::from_secs(60));
    assert_eq!(server.buffer_size, 1 << 20);
    assert!(server.keep_alive && server.log_timestamp && !server.allow_root);
    assert_eq!((server.keep_alive_count, server.keep_alive_idle, server.keep_alive_interval), (None, None, None));
    let levels = [server.log_level_console, server.log_level_stderr, server.log_level_file];
    assert_eq!(levels, [Level::Warn, Level::Off, Level::Info]);
    assert_eq!(server.log_path, Path::new("/var/log/pgbackrest"));
    assert_eq!(server.lock_path, Path::new("/tmp/pgbackrest"));
    assert_eq!((server.priority, server.tls_cipher_12, server.tls_cipher_13), (None, None, None));
    assert_eq!(server.own, OwnSettings::default());
}

#[test]
fn every_option_of_the_server_arrives() {
    let main = format!(
        "{MINIMAL}tls-server-address=127.0.0.1, ::1\ntls-server-port=1\nprotocol-timeout=2m\nio-timeout=300ms\n\
         buffer-size=16MB\ntcp-keep-alive-count=2\ntcp-keep-alive-idle=3\ntcp-keep-alive-interval=4\n\
         log-level-console=detail\nlog-level-stderr=error\nlog-level-file=off\nlog-path=/l/\nlog-timestamp=n\n\
         priority=-5\nallow-root=y\nlock-path=/lock\ntls-cipher-12=A\ntls-cipher-13=B\n\
         [global:server]\ntls-server-auth=only=*\n"
    );
    let server = settings(&main, &["--tls-server-port=7", "serve"]);
    assert_eq!(server.addresses, ["127.0.0.1", "::1"]);
    assert_eq!(server.port, 7);
    assert_eq!(server.protocol_timeout, Duration::from_secs(120));
    assert_eq!(server.io_timeout, Duration::from_millis(300));
    assert_eq!(server.buffer_size, 16 << 20);
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(
        (server.keep_alive_count, server.keep_alive_idle, server.keep_alive_interval),
        (Some(2), seconds(3), seconds(4))
    );
    let levels = [server.log_level_console, server.log_level_stderr, server.log_level_file];
    assert_eq!(levels, [Level::Detail, Level::Error, Level::Off]);
    assert_eq!((server.log_path.as_path(), server.lock_path.as_path()), (Path::new("/l"), Path::new("/lock")));
    assert_eq!((server.priority, server.log_timestamp, server.allow_root), (Some(-5), false, true));
    assert_eq!((server.tls_cipher_12.as_deref(), server.tls_cipher_13.as_deref()), (Some("A"), Some("B")));
    // Entries of a nearer section replace those of [global].
    assert!(server.grants.lookup(&["client".to_owned()]).is_none());
    assert!(server.grants.lookup(&["only".to_owned()]).is_some());
}

#[test]
fn several_addresses_may_be_repeated_or_listed() {
    let server = settings(MINIMAL, &["--tls-server-address=a,b", "--tls-server-address=*"]);
    assert_eq!(server.addresses, ["a", "b", "*"]);
    let server = settings(&format!("{MINIMAL}tls-server-address=a\ntls-server-address=b"), &[]);
    assert_eq!(server.addresses, ["a", "b"]);
    let error = failure(MINIMAL, &["--tls-server-address=,"]);
    assert_error(&error, Code::OptionInvalidValue, "'' must be >= 1 character for 'tls-server-address' option");
}

#[test]
fn a_wrong_invocation_is_reported_in_the_originals_words() {
    for (arguments, code, expected) in [
        (&["bogus"][..], Code::CommandInvalid, "invalid command 'bogus'"),
        (&[""], Code::CommandInvalid, "invalid command ''"),
        (&["server:remote"], Code::CommandInvalid, "invalid command/role combination 'server:remote'"),
        (&["server:bogus"], Code::CommandInvalid, "invalid command role 'bogus'"),
        (&["server", "x"], Code::ParamInvalid, "command does not allow parameters"),
        (&["--repo1-path=/x", "server"], Code::OptionInvalid, "option 'repo-path' not valid for command 'server'"),
        (&["--stanza=x", "server"], Code::OptionInvalid, "option 'stanza' not valid for command 'server'"),
        (
            &["--no-sck-keep-alive", "--tcp-keep-alive-idle=1"],
            Code::OptionInvalid,
            "option 'tcp-keep-alive-idle' not valid without option 'sck-keep-alive'",
        ),
        (&["--config-path=x"], Code::OptionInvalidValue, "'x' must begin with / for 'config-path' option"),
        (&["--tls-server-auth=x"], Code::OptionInvalid, "key/value 'x' not valid for 'tls-server-auth' option"),
        (&["--release=new"], Code::OptionInvalidValue, "'new' is not valid for 'release' option"),
    ] {
        assert_error(&failure(MINIMAL, arguments), code, expected);
    }
    for word in ["server", "serve", "serv", "s"] {
        assert!(Site::new(MINIMAL).load(&["--beta", word], &[]).is_ok());
    }
}

#[test]
fn missing_options_are_named_in_the_originals_order() {
    let mut main = "[global]\n".to_owned();
    for (option, value) in [
        ("tls-server-auth", "a=b"),
        ("tls-server-ca-file", "/a"),
        ("tls-server-cert-file", "/a"),
        ("tls-server-key-file", "/a"),
    ] {
        let error = failure(&main, &[]);
        assert_eq!(
            (error.code, error.message),
            (Code::OptionRequired, format!("server command requires option: {option}"))
        );
        main = format!("{main}{option}={value}\n");
    }
    settings(&main, &[]);
}

#[test]
fn a_bad_value_of_a_file_is_reported_with_its_place() {
    let site = Site::new(&format!("{MINIMAL}buffer-size=1"));
    let error = site.load(&[], &[]).unwrap_err();
    assert!(error.message.starts_with("'1' is not allowed for 'buffer-size' option\nHINT: allowed values are '16KiB'"));
    assert!(error.message.ends_with(&site.filled("\nHINT: the value stands in '$/pgbackrest.conf:6'.")), "{error}");
}

#[test]
fn keep_alive_values_of_a_file_are_unset_without_keep_alive() {
    let server = settings(&format!("{MINIMAL}sck-keep-alive=n\ntcp-keep-alive-idle=bad"), &[]);
    assert_eq!((server.keep_alive, server.keep_alive_idle), (false, None));
}

#[test]
fn times_may_have_fractions_when_an_old_release_is_announced() {
    let main = format!("{MINIMAL}io-timeout=0.5");
    assert_error(&failure(&main, &[]), Code::OptionInvalidValue, "'0.5' is not valid for 'io-timeout' option");
    assert_eq!(settings(&main, &["--release=2.45"]).io_timeout, Duration::from_millis(500));
}

#[test]
fn warnings_are_collected_in_order_and_root_is_warned() {
    let site = Site::new(&format!("{MINIMAL}bogus=1\nallow-root=y\n[global:server]\nlock-path=/x\n"));
    let (_, loaded) = site.load(&[], &[("PGBACKREST_ODD", "1")]).unwrap();
    assert_eq!(
        loaded.warnings,
        [
            "environment contains invalid option 'odd'",
            "configuration file contains option 'lock-path' invalid for section 'global:server'",
            "configuration file contains invalid option 'bogus'",
        ]
    );
    let root = Site::new(MINIMAL).load(&[], &[]).unwrap().1.warnings;
    assert_eq!(root.len(), usize::from(rustix::process::getuid().is_root()));
    assert!(root.iter().all(|warning| warning.starts_with("the 'server' command is run as the root user\nHINT: ")));
}

#[test]
fn the_begin_line_lists_what_is_not_default() {
    let site = Site::new(&format!("{MINIMAL}log-timestamp=n\nlog-path=/a b\nrepo1-path=/r\n"));
    let arguments = ["--exec-id=1-abc", "--beta", "--reset-log-level-file", "--tls-server-auth=x=y", "serve"];
    let (_, loaded) = site.load(&arguments, &[("PGBACKREST_TLS_SERVER_PORT", "9")]).unwrap();
    assert_eq!(
        loaded.begin,
        "--beta --exec-id=1-abc --reset-log-level-file --log-path=\"/a b\" --no-log-timestamp --tls-server-auth=x=y \
         --tls-server-ca-file=/c/ca.crt --tls-server-cert-file=/c/server.crt --tls-server-key-file=/c/server.key \
         --tls-server-port=9"
    );
    let (_, loaded) = site.load(&[], &[]).unwrap();
    let (process, random) = loaded.server.exec_id.split_once('-').unwrap();
    assert_eq!(process, "7");
    assert!(random.len() == 8 && random.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    assert!(loaded.begin.starts_with(&format!("--exec-id={} ", loaded.server.exec_id)));
}

#[test]
fn our_own_settings_arrive() {
    let site = Site::new(MINIMAL);
    site.write(
        "repohostd.conf",
        "[global]\nrelease=2.55.1\nreleases=2.45, 2.60.0\ndrain-timeout=0\nhandshake-timeout=1m\nconnection-max=7\n\
         connection-max-per-address=3\nallow-client-config=/a,/b\nallow-client-config=/c\nallow-client-repository=/r\n\
         allow-client-pg-path=/p\nend-revoked-sessions=n\ncrl-file=/crl\nlisting-memory-max=1GiB\nmemory-max=2GiB\n\
         state-path=/state\nstatus-socket=/run/x.sock\nrole=reader\nsql=any\nmin-age=7d\nopaque-info=n\n\
         info-history=3\ninstalled-release=n\nhistory-path=/history\nnetwork-compression=never\nworkers=3\nworker-timeout=7s\n\
         [client:db1.example, db2.example]\nrelease=2.45\nrole=backup\nstanza=demo, other\n\
         [listener:[::1]:8433]\nrelease=2.60.0\n[release:2.61.0]\nlike=2.60.0\n\
         [server-name:Old.Repo.example., older]\nrelease=2.45\n",
    );
    let own = site.load(&[], &[]).unwrap().1.server.own;
    let place = |line| site.filled(&format!("$/repohostd.conf:{line}"));
    let pin = |subject: &str, release: &str, line| Pin {
        subject: subject.to_owned(),
        release: release.to_owned(),
        place: place(line),
    };
    let expected = OwnSettings {
        release: Some("2.55.1".to_owned()),
        releases: strings(&["2.45", "2.60.0"]),
        installed_release: false,
        drain_timeout: Duration::ZERO,
        handshake_timeout: Duration::from_secs(60),
        connection_max: 7,
        connection_max_per_address: Some(3),
        allow_client_config: strings(&["/a", "/b", "/c"]),
        allow_client_pg_path: strings(&["/p"]),
        allow_client_repository: strings(&["/r"]),
        any_statement: true,
        end_revoked_sessions: false,
        crl_file: Some("/crl".into()),
        listing_memory_max: 1 << 30,
        memory_max: 2 << 30,
        network_compression: NetworkCompression::Never,
        worker_timeout: Duration::from_secs(7),
        workers: Workers::Number(3),
        state_path: Some("/state".into()),
        status_socket: Some("/run/x.sock".into()),
        server_names: vec![pin("old.repo.example", "2.45", 37), pin("older", "2.45", 37)],
        clients: vec![pin("db1.example", "2.45", 29), pin("db2.example", "2.45", 29)],
        role: Role::Reader,
        rights: ["db1.example", "db2.example"]
            .map(|name| NamedRights {
                name: name.to_owned(),
                role: Some(Role::Backup),
                stanzas: Some(strings(&["demo", "other"])),
            })
            .to_vec(),
        protection: Protection { min_age: Duration::from_secs(7 * 86_400), opaque_info: false, info_history: 3 },
        history_path: Some("/history".into()),
        listeners: vec![ListenerPin {
            address: Some("::1".parse().unwrap()),
            port: Some(8433),
            release: "2.60.0".to_owned(),
            place: place(33),
        }],
        declared: vec![pin("2.61.0", "2.60.0", 35)],
    };
    assert_eq!(own, expected);
    let own = site.load(&["--release=2.45"], &[]).unwrap().1.server.own;
    assert_eq!(own.release.as_deref(), Some("2.45"));
}

#[test]
fn the_environment_comes_before_our_own_file_and_after_the_command_line() {
    let site = Site::new(MINIMAL);
    site.write("repohostd.conf", "[global]\nrelease=2.45\nworkers=3\nreleases=2.45\nreleases=2.55.1\nmin-age=1d\n");
    let variables = [
        ("REPOHOSTD_RELEASE", "2.58.0"),
        ("REPOHOSTD_RELEASES", "2.60.0,2.58.0"),
        ("REPOHOSTD_WORKERS", "1"),
        ("REPOHOSTD_TEST_PEERS", "/peers"),
        ("REPOHOSTD_RELAESE", "2.58.0"),
    ];
    let loaded = site.load(&[], &variables).unwrap().1;
    let own = loaded.server.own;
    assert_eq!((own.release.as_deref(), own.workers), (Some("2.58.0"), Workers::Number(1)));
    assert_eq!(own.releases, strings(&["2.60.0", "2.58.0"]), "a list takes the place of the file's");
    assert_eq!(own.protection.min_age, Duration::from_secs(86_400), "what is not in the environment stays");
    let warnings: Vec<_> = loaded.warnings.iter().filter(|text| text.starts_with("environment")).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("environment contains invalid option 'relaese' (REPOHOSTD_RELAESE)\nHINT: known"));
    let loaded = site.load(&["--release=2.60.0"], &variables).unwrap().1;
    assert_eq!(loaded.server.own.release.as_deref(), Some("2.60.0"));
    for (value, text) in [
        ("", "environment variable 'REPOHOSTD_WORKERS' must have a value"),
        ("99", "'99' is out of range for 'workers' option\nHINT: see 'environment variable REPOHOSTD_WORKERS'."),
    ] {
        let error = site.load(&[], &[("REPOHOSTD_WORKERS", value)]).unwrap_err();
        assert_error(&error, Code::OptionInvalidValue, text);
    }
}

#[test]
fn an_option_that_has_no_effect_any_more_is_warned_of() {
    let site = Site::new(MINIMAL);
    site.write("repohostd.conf", "[global]\nworkers=3\nio-uring=n\n");
    for (variables, place) in [
        (&[][..], site.filled("$/repohostd.conf:3")),
        (&[("REPOHOSTD_IO_URING", "y")], "environment variable REPOHOSTD_IO_URING".to_owned()),
    ] {
        let loaded = site.load(&[], variables).unwrap().1;
        assert_eq!(loaded.server.own.workers, Workers::Number(3));
        let expected = format!("option 'io-uring' has no effect any more\nHINT: remove it; see '{place}'.");
        assert!(loaded.warnings.contains(&expected), "{:?}", loaded.warnings);
    }
}

#[test]
fn a_typo_in_our_own_file_is_found() {
    for (text, code, expected) in [
        (
            "[global]\n\ndrain-timout=1",
            Code::Config,
            "unknown option 'drain-timout' in '$/repohostd.conf:3'\nHINT: known options are allow-client-config, \
             allow-client-pg-path, allow-client-repository, connection-max, connection-max-per-address, crl-file, \
             drain-timeout, end-revoked-sessions, handshake-timeout, history-path, info-history, \
             installed-release, listing-memory-max, memory-max, min-age, network-compression, opaque-info, release, releases, role, sql, state-path, \
             status-socket, worker-timeout, workers.",
        ),
        (
            "[server]\nrelease=2.45",
            Code::Config,
            "unknown section '[server]' in '$/repohostd.conf', above line 2\nHINT: sections are [global], \
             [client:NAME], [server-name:NAME], [listener:ADDRESS] and [release:VERSION].",
        ),
        (
            "[global]\nworkers=0",
            Code::OptionInvalidValue,
            "'0' is out of range for 'workers' option\nHINT: see '$/repohostd.conf:2'.",
        ),
        (
            "[global]\nworkers=all",
            Code::OptionInvalidValue,
            "'all' is not valid for 'workers' option\nHINT: see '$/repohostd.conf:2'.\nHINT: auto, or a number from 1 to \
             32.",
        ),
        (
            "[global]\nsql=y",
            Code::OptionInvalidValue,
            "'y' is not valid for 'sql' option\nHINT: see '$/repohostd.conf:2'.\nHINT: known, which is what pgbackrest \
             clients send, or any.",
        ),
        (
            "[global]\nrelease=2.45\nrelease=2.46",
            Code::OptionInvalid,
            "option 'release' cannot be set multiple times\nHINT: see '$/repohostd.conf:3'.",
        ),
        (
            "[client:a]\nrelease=2.45\n[client:a,b]\nrelease=2.46",
            Code::OptionInvalid,
            "'a' has release 2.45 in '$/repohostd.conf:2' and 2.46 in '$/repohostd.conf:4'\nHINT: keep one of them.",
        ),
        (
            "[client: ]\nrelease=2.45",
            Code::Config,
            "section '[client: ]' must name names of certificates, separated by commas\nHINT: see \
             '$/repohostd.conf:2'.",
        ),
        (
            "[listener:localhost]\nrelease=2.45",
            Code::Config,
            "section '[listener:localhost]' must name an address in numbers, which may be followed by a colon and a \
             port\nHINT: see '$/repohostd.conf:2'.",
        ),
        (
            "[client:a]\nlike=2.45",
            Code::Config,
            "unknown option 'like' in section '[client:a]'\nHINT: see '$/repohostd.conf:2'.\nHINT: known options \
             are release, role, stanza.",
        ),
        (
            "[client:a]\nrole=owner",
            Code::OptionInvalidValue,
            "'owner' is not valid for 'role' option\nHINT: see '$/repohostd.conf:2'.\nHINT: roles are pg-reader, \
             reader, archiver, backup, admin.",
        ),
        ("[client:a]\nstanza= , ", Code::OptionInvalidValue, "option 'stanza' must have a value"),
        ("[global]\nmin-age=11000d", Code::OptionInvalidValue, "'11000d' is out of range for 'min-age' option"),
        ("[listener:::1]\nrole=reader", Code::Config, "unknown option 'role' in section '[listener:::1]'"),
        ("[release:2.61.0]", Code::Config, "section '[release:2.61.0]' has none of the options like"),
        ("[global]\nrelease=", Code::OptionInvalidValue, "option 'release' must have a value"),
        ("[global]\nrelease=2.x", Code::OptionInvalidValue, "'2.x' is not valid for 'release' option"),
        ("[global]\nreleases=2.45,x", Code::OptionInvalidValue, "'x' is not valid for 'releases' option"),
        ("[global]\ndrain-timeout=2h", Code::OptionInvalidValue, "'2h' is out of range for 'drain-timeout' option"),
        ("[global]\nconnection-max=0", Code::OptionInvalidValue, "'0' is out of range for 'connection-max' option"),
        (
            "[global]\nend-revoked-sessions=1",
            Code::OptionInvalidValue,
            "boolean option 'end-revoked-sessions' must be 'y' or 'n'",
        ),
        ("[global]\ncrl-file=x", Code::OptionInvalidValue, "'x' must begin with / for 'crl-file' option"),
        ("release=2.45", Code::Format, "key/value found outside of section at line 1: release=2.45"),
    ] {
        let site = Site::new(MINIMAL);
        site.write("repohostd.conf", text);
        assert_error(&site.load(&[], &[]).unwrap_err(), code, &site.filled(expected));
    }
}

#[test]
fn an_administrator_sees_where_each_value_comes_from_and_no_secret() {
    let site = Site::new(&format!("{MINIMAL}repo1-cipher-pass=hidden\nrepo1-path=/r\n[demo]\npg1-path=/pg\n"));
    site.write("repohostd.conf", "[global]\nrelease=2.45\n");
    let variables = environment(&[("PGBACKREST_LOG_PATH", "/l")]);
    let described = describe(&strings(&["--tls-server-port=9"]), &variables, &site.search()).unwrap();
    for (name, value, source) in [
        ("tls-server-port", "9", "command line"),
        ("log-path", "/l", "environment"),
        ("tls-server-ca-file", "/c/ca.crt", "$/pgbackrest.conf:4"),
        ("sck-keep-alive", "y", "default"),
        ("buffer-size", "1MiB", "default"),
        ("release", "2.45", "$/repohostd.conf:2"),
        ("repo1-path", "/r", "$/pgbackrest.conf:7"),
        ("repo1-cipher-pass", "<redacted>", "$/pgbackrest.conf:6"),
        ("[demo] pg1-path", "/pg", "$/pgbackrest.conf:9"),
    ] {
        let row = (name.to_owned(), value.to_owned(), site.filled(source));
        assert!(described.contains(&row), "{row:?} in {described:#?}");
    }
    assert!(described.iter().all(|(_, value, _)| value != "hidden"));
    let names: Vec<_> = described.iter().map(|(name, _, _)| name).collect();
    assert_eq!(names.iter().filter(|name| **name == "repo1-path").count(), 1);
}

#[test]
fn the_environment_names_the_configuration_file() {
    let site = Site::new("broken");
    site.write("x/main.conf", MINIMAL);
    let file = site.filled("$/x/main.conf");
    let (files, loaded): (Files, _) =
        load_from(&[], &environment(&[("PGBACKREST_CONFIG", &file)]), &site.search(), &Origin::Disk).unwrap();
    assert_eq!(files.main_or_default(), Path::new(&file));
    assert_eq!(loaded.server.config_file, Path::new(&file));
    assert_eq!(loaded.server.own_file, site.path("x/repohostd.conf"));
}
