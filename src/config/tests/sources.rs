use super::super::Environment;
use super::super::definitions::{Definition, Matching, definitions, find};
use super::super::ini::Ini;
use super::super::settings::{self, Arguments, Scope, Settings, Source};
use super::{assert_error, environment, strings};
use crate::protocol::error::{Code, Result};
use std::path::Path;

fn arguments(texts: &[&str]) -> Result<Arguments> {
    settings::command_line(&strings(texts), Matching { abbreviations: true, own: true }, false)
}

#[test]
fn a_wrong_command_line_is_reported_in_the_originals_words() {
    let long = format!("--{}", "x".repeat(65));
    let too_long = format!("option '{}' exceeds maximum size of 64", "x".repeat(65));
    let secret = "option 'repo1-cipher-pass' is not allowed on the command-line\n\
        HINT: this option could expose secrets in the process list.\n\
        HINT: specify the option in a configuration file or an environment variable instead.";
    for (texts, code, expected) in [
        (&["-x"][..], Code::OptionInvalid, "option '-x' must begin with --"),
        (&["--bogus=1"], Code::OptionInvalid, "invalid option '--bogus=1'"),
        (&["--"], Code::OptionInvalid, "invalid option '--'"),
        (&[&long], Code::OptionInvalid, &too_long),
        (&["--no--x"], Code::OptionInvalid, "option 'no--x' cannot begin with a dash"),
        (&["--1-x"], Code::OptionInvalid, "option '1-x' cannot begin with a number"),
        (&["--repo0-path=/"], Code::OptionInvalid, "option 'repo0-path' key must be between 1 and 256"),
        (&["--repo257-path=/"], Code::OptionInvalid, "option 'repo257-path' key must be between 1 and 256"),
        (
            &["--repo99999999999999999999-path=/"],
            Code::OptionInvalid,
            "option 'repo99999999999999999999-path' key must be between 1 and 256",
        ),
        (
            &["--pg-path=/"],
            Code::OptionInvalid,
            "option 'pg-path' requires an index\nHINT: add the required index, e.g. pg1-path.",
        ),
        (&["--stanza1-x"], Code::OptionInvalid, "invalid option '--stanza1-x'"),
        (&["--log1-path=/"], Code::OptionInvalid, "option 'log1-path' cannot have an index"),
        (&["--hardlink"], Code::OptionInvalid, ""),
        (&["--backup1-host=x"], Code::OptionInvalid, "deprecated option 'backup1-host' cannot have an index"),
        (
            &["--repo-azure-port=1"],
            Code::OptionInvalid,
            "deprecated option 'repo-azure-port' requires an index\n\
             HINT: add the required index, e.g. repo1-azure-port.\n\
             HINT: consider using the non-deprecated name, e.g. repo1-storage-port.",
        ),
        (&["--no-log-path"], Code::OptionInvalid, "option 'no-log-path' cannot be negated"),
        (&["--reset-stanza"], Code::OptionInvalid, "option 'reset-stanza' cannot be reset"),
        (&["--log-path"], Code::OptionInvalid, "option '--log-path' requires an argument"),
        (&["--no-beta=y"], Code::OptionInvalid, "option 'no-beta' does not allow an argument"),
        (&["--beta=yes"], Code::OptionInvalidValue, "boolean option '--beta' argument must be 'y' or 'n'"),
        (&["--repo1-cipher-pass=x"], Code::OptionInvalid, secret),
        (&["--log-path=/a", "--log-path=/a"], Code::OptionInvalid, "option 'log-path' cannot be set multiple times"),
        (&["--beta", "--beta"], Code::OptionInvalid, "option 'beta' cannot be set multiple times"),
        (&["--no-beta", "--no-beta"], Code::OptionInvalid, "option 'beta' is negated multiple times"),
        (&["--reset-beta", "--reset-beta"], Code::OptionInvalid, "option 'beta' is reset multiple times"),
        (&["--no-beta", "--reset-beta"], Code::OptionInvalid, "option 'beta' cannot be negated and reset"),
        (&["--beta", "--beta=n"], Code::OptionInvalid, "option 'beta' cannot be set and negated"),
        (&["--beta", "--reset-beta"], Code::OptionInvalid, "option 'beta' cannot be set and reset"),
    ] {
        if expected.is_empty() {
            assert!(arguments(texts).is_ok(), "{texts:?}");
        } else {
            let error = arguments(texts).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (code, expected));
        }
    }
}

#[test]
fn every_form_of_a_command_line_option_is_understood() {
    let read = arguments(&[
        "--log-path",
        "--odd",
        "serve",
        "--tls-server-au=a=b",
        "--tls-server-auth=c=d",
        "--no-sck-keep-alive",
        "--beta=y",
        "--no-backup-standby",
        "--repo7-path=/x",
        "--reset-log-level-file",
        "--db-path=/old",
        "word",
    ])
    .unwrap();
    let said: Vec<_> = read.settings.iter().map(|(name, key, setting)| (name, key, setting.texts.join("|"))).collect();
    let expected = [
        ("backup-standby", 1, "n"),
        ("beta", 1, ""),
        ("log-level-file", 1, ""),
        ("log-path", 1, "--odd"),
        ("pg-path", 1, "/old"),
        ("repo-path", 7, "/x"),
        ("sck-keep-alive", 1, ""),
        ("tls-server-auth", 1, "a=b|c=d"),
    ];
    assert_eq!(said, expected.map(|(name, key, text)| (name, key, text.to_owned())));
    assert_eq!(read.words, ["serve", "word"]);
    assert!(!read.settings.boolean("sck-keep-alive"));
    assert!(read.settings.boolean("beta"));
    assert!(read.settings.setting("log-level-file", 1).unwrap().reset);
}

#[test]
fn values_that_a_client_quoted_for_a_shell_are_unquoted() {
    for (text, expected) in
        [("\"/a/sp ace\"", "/a/sp ace"), ("\"a\"", "\"a\""), ("\"a b", "\"a b"), ("a \"b\"", "a \"b\""), ("\"", "\"")]
    {
        let read = settings::command_line(&[format!("--repo1-path={text}")], Matching::default(), true).unwrap();
        assert_eq!(read.settings.texts("repo-path", 1).unwrap().texts, [expected]);
    }
}

#[test]
fn every_deprecated_name_finds_its_option() {
    for (old, new, key) in [
        ("repo-path", "repo-path", 1),
        ("repo-type", "repo-type", 1),
        ("repo-cipher-type", "repo-cipher-type", 1),
        ("repo-cipher-pass", "repo-cipher-pass", 1),
        ("repo-s3-bucket", "repo-s3-bucket", 1),
        ("repo-s3-host", "repo-storage-host", 1),
        ("repo3-s3-host", "repo-storage-host", 3),
        ("repo2-azure-port", "repo-storage-port", 2),
        ("repo-s3-verify-ssl", "repo-storage-verify-tls", 1),
        ("repo2-s3-verify-tls", "repo-storage-verify-tls", 2),
        ("db-path", "pg-path", 1),
        ("db2-path", "pg-path", 2),
        ("db8-socket-path", "pg-socket-path", 8),
        ("db-ssh-port", "pg-host-port", 1),
        ("backup-host", "repo-host", 1),
        ("backup-ssh-port", "repo-host-port", 1),
        ("retention-archive-type", "repo-retention-archive-type", 1),
        ("hardlink", "repo-hardlink", 1),
        ("archive-queue-max", "archive-push-queue-max", 1),
    ] {
        let found = find(old, Matching::default()).unwrap().expect(old);
        assert_eq!((found.definition.name, found.key), (new, key), "{old}");
    }
}

#[test]
fn abbreviations_work_on_a_command_line_only_and_must_be_unique() {
    let abbreviated = Matching { abbreviations: true, own: true };
    assert_eq!(find("tls-server-a", abbreviated).unwrap().map(|found| found.definition.name), None);
    assert_eq!(find("tls-server-ad", abbreviated).unwrap().unwrap().definition.name, "tls-server-address");
    assert_eq!(find("tls-server-ad", Matching::default()).unwrap().map(|found| found.key), None);
    assert_eq!(find("release", abbreviated).unwrap().unwrap().definition.name, "release");
    assert_eq!(find("release", Matching::default()).unwrap().map(|found| found.key), None);
    assert_eq!(find("db8-socket", abbreviated).unwrap().unwrap().key, 8);
    assert!(definitions().windows(2).all(|pair| pair[0].name < pair[1].name));
    assert_eq!(definitions().len(), 203);
}

fn for_server(definition: &Definition) -> bool {
    definition.known_to("server")
}

fn from_environment(variables: &[(&str, &str)]) -> Result<(Settings, Vec<String>)> {
    let mut settings = Settings::default();
    let mut warnings = vec![];
    let scope = Scope { command: "server", stanza: None, takes: &for_server };
    settings::add_environment(&mut settings, &environment(variables), &scope, &mut warnings)?;
    Ok((settings, warnings))
}

#[test]
fn the_environment_is_read_with_the_originals_warnings_and_errors() {
    for (name, value, expected) in [
        ("PGBACKREST_BOGUS", "x", Ok("environment contains invalid option 'bogus'")),
        ("PGBACKREST_RELEASE", "x", Ok("environment contains invalid option 'release'")),
        ("PGBACKREST_NO_BETA", "y", Ok("environment contains invalid negate option 'no-beta'")),
        ("PGBACKREST_RESET_LOG_PATH", "y", Ok("environment contains invalid reset option 'reset-log-path'")),
        (
            "PGBACKREST_REPO_HOST",
            "x",
            Err((
                Code::OptionInvalid,
                "option 'repo-host' requires an index\nHINT: add the required index, e.g. repo1-host.",
            )),
        ),
        (
            "PGBACKREST_LOG_PATH",
            "",
            Err((Code::OptionInvalidValue, "environment variable 'log-path' must have a value")),
        ),
        (
            "PGBACKREST_BETA",
            "x",
            Err((Code::OptionInvalidValue, "environment boolean option 'beta' must be 'y' or 'n'")),
        ),
    ] {
        match (from_environment(&[(name, value)]), expected) {
            (Ok((_, warnings)), Ok(warning)) => assert_eq!(warnings, [warning]),
            (Err(error), Err((code, message))) => assert_eq!((error.code, error.message.as_str()), (code, message)),
            (read, expected) => panic!("{name}: {read:?} instead of {expected:?}"),
        }
    }
    let (settings, warnings) = from_environment(&[
        ("PGBACKREST_TLS_SERVER_AUTH", "a=b:c=d,e"),
        ("PGBACKREST_log_level_file", "off"),
        ("PGBACKREST_REPO1_PATH", ""),
        ("pgbackrest_LOG_PATH", "/x"),
        ("PATH", "/bin"),
    ])
    .unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(settings.texts("tls-server-auth", 1).unwrap().texts, ["a=b", "c=d,e"]);
    assert_eq!(settings.texts("log-level-file", 1).unwrap().source, Source::Environment);
    assert_eq!(settings.iter().count(), 2);
}

fn from_text(text: &str, stanza: Option<&str>) -> Result<(Settings, Vec<String>)> {
    let mut ini = Ini::default();
    ini.add(Path::new("/f.conf"), text)?;
    let mut settings = Settings::default();
    let mut warnings = vec![];
    let takes = |definition: &Definition| definition.known_to("backup");
    let scope = Scope { command: "backup", stanza, takes: &takes };
    settings::add_environment(&mut settings, &Environment::default(), &scope, &mut warnings)?;
    settings::add_files(&mut settings, &ini, &scope, &mut warnings)?;
    Ok((settings, warnings))
}

#[test]
fn a_configuration_file_is_read_with_the_originals_warnings() {
    for (text, warning) in [
        ("[global]\nbogus=1", "configuration file contains invalid option 'bogus'"),
        ("[global]\nno-beta=y", "configuration file contains negate option 'no-beta'"),
        ("[global]\nreset-log-path=y", "configuration file contains reset option 'reset-log-path'"),
        ("[global]\nstanza=x", "configuration file contains command-line only option 'stanza'"),
        (
            "[global:backup]\nspool-path=/x",
            "configuration file contains option 'spool-path' invalid for section 'global:backup'",
        ),
        (
            "[demo:backup]\nspool-path=/x",
            "configuration file contains option 'spool-path' invalid for section 'demo:backup'",
        ),
        (
            "[global]\npg1-path=/x",
            "configuration file contains stanza-only option 'pg1-path' in global section 'global'",
        ),
    ] {
        let (settings, warnings) = from_text(text, Some("demo")).unwrap();
        assert_eq!(warnings, [warning]);
        assert_eq!(settings.iter().count(), 0);
    }
    for text in ["[global]\nspool-path=/x", "[demo]\nspool-path=/x", "[other]\nbogus=1\n[demo:info]\nbogus=1"] {
        assert_eq!(from_text(text, Some("demo")).unwrap().1, Vec::<String>::new(), "{text}");
    }
}

#[test]
fn a_wrong_configuration_file_is_reported_with_file_and_line() {
    for (text, code, expected) in [
        (
            "[global]\nrepo1-path=/a\nrepo-path=/b",
            Code::OptionInvalid,
            "configuration file contains duplicate options ('repo-path', 'repo1-path') in section '[global]'\n\
             HINT: the value stands in '/f.conf:3'.",
        ),
        (
            "[global]\nlog-path=/a\nlog-path=/a",
            Code::OptionInvalid,
            "option 'log-path' cannot be set multiple times\nHINT: the value stands in '/f.conf:2'.",
        ),
        (
            "[global]\nlog-path=",
            Code::OptionInvalidValue,
            "section 'global', key 'log-path' must have a value\nHINT: the value stands in '/f.conf:2'.",
        ),
        (
            "[global]\nbeta=yes",
            Code::OptionInvalidValue,
            "boolean option 'beta' must be 'y' or 'n'\nHINT: the value stands in '/f.conf:2'.",
        ),
        (
            "[global]\nrepo-host=x\npg-path=/x",
            Code::OptionInvalid,
            "option 'repo-host' requires an index\nHINT: add the required index, e.g. repo1-host.",
        ),
    ] {
        assert_error(&from_text(text, None).unwrap_err(), code, expected);
    }
}

#[test]
fn the_nearest_section_wins() {
    let text = "[global]\nlog-path=/4\nlock-path=/4\ndb-timeout=4\nio-timeout=4\n[global:backup]\nlog-path=/3\n\
        lock-path=/3\ndb-timeout=3\n[demo]\nlog-path=/2\nlock-path=/2\n[demo:backup]\nlog-path=/1\n";
    let (settings, _) = from_text(text, Some("demo")).unwrap();
    let first = |name| settings.texts(name, 1).unwrap().texts[0].clone();
    assert_eq!(["log-path", "lock-path", "db-timeout", "io-timeout"].map(first), ["/1", "/2", "3", "4"]);
    let (settings, _) = from_text(text, None).unwrap();
    assert_eq!(settings.texts("log-path", 1).unwrap().texts, ["/3"]);
    // An overridden value is not even looked at.
    assert!(from_text("[global]\nlog-path=\n[demo]\nlog-path=/x", Some("demo")).is_ok());
}
