//! A quickstart as its user meets it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};

use super::{Options, Quickstart};
use crate::config::snapshot::Origin;
use crate::protocol::error::{Code, Result};
use crate::server::tls::testing::{BOTH, handshake};
use crate::server::tls::{TlsFiles, identity, server_config};

fn options(directory: &Path) -> Options {
    Options { directory: directory.to_owned(), port: None, release: None, pg_path: None }
}

fn create(options: &Options) -> Result<Quickstart> {
    super::create(options, "/opt/repohostd", Path::new("/nonexistent/pgbackrest"))
}

/// The value of an option in one of the files.
fn value(file: &Path, key: &str) -> String {
    super::text::get(&fs::read_to_string(file).unwrap(), key).unwrap().to_owned()
}

/// A program that answers like `pgbackrest version`.
fn installed(directory: &Path, answer: &str) -> PathBuf {
    // Written by another process: a file that this one has open for writing, and that a test on another
    // thread inherits to its children for a moment, cannot be executed.
    let script = format!("printf '#!/bin/sh\\necho \"{answer}\"\\n' > pgbackrest && chmod 755 pgbackrest");
    let status = Command::new("sh").args(["-c", &script]).current_dir(directory).status().unwrap();
    assert!(status.success());
    directory.join("pgbackrest")
}

#[test]
fn its_client_and_server_shake_hands_and_verify_each_other() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("demo");
    let server = &create(&options(&directory)).unwrap().server_config;
    let client = &directory.join("client/pgbackrest.conf");
    let (server_files, warnings) = server_config(&TlsFiles {
        cert: Path::new(&value(server, "tls-server-cert-file")),
        key: Path::new(&value(server, "tls-server-key-file")),
        ca: Path::new(&value(server, "tls-server-ca-file")),
        crl: None,
        cipher_12: None,
        cipher_13: None,
        user: None,
        origin: &Origin::Disk,
    })
    .unwrap();
    assert_eq!(warnings, Vec::<String>::new());

    let pem = |key: &str| fs::read(value(client, key)).unwrap();
    let mut roots = RootCertStore::empty();
    for root in rustls_pemfile::certs(&mut pem("repo1-host-ca-file").as_slice()) {
        roots.add(root.unwrap()).unwrap();
    }
    for version in BOTH {
        let chain: Result<_, _> = rustls_pemfile::certs(&mut pem("repo1-host-cert-file").as_slice()).collect();
        let key = rustls_pemfile::private_key(&mut pem("repo1-host-key-file").as_slice()).unwrap().unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(chain.unwrap(), key)
            .unwrap();
        let connection = handshake(&server_files, config).unwrap();
        assert_eq!(identity(&connection).unwrap().unwrap().names, ["pgbackrest-client"]);
    }
}

#[test]
fn everything_lies_under_one_directory_and_keys_are_closed() {
    let place = tempfile::tempdir().unwrap();
    let root = &place.path().canonicalize().unwrap().join("a/b");
    let quickstart = create(&options(root)).unwrap();
    for key in ["server.key", "client.key"] {
        assert_eq!(fs::metadata(root.join(key)).unwrap().permissions().mode() & 0o777, 0o600, "{key}");
    }
    let (server, client) = (&quickstart.server_config, &root.join("client/pgbackrest.conf"));
    for (file, key) in [
        (server, "repo1-path"),
        (server, "lock-path"),
        (server, "log-path"),
        (client, "lock-path"),
        (client, "log-path"),
        (client, "spool-path"),
    ] {
        let path = PathBuf::from(value(file, key));
        assert!(path.starts_with(root) && path.is_dir(), "{key}={}", path.display());
    }
    // The same lock directory on both sides would make every backup wait for itself.
    assert_ne!(value(server, "lock-path"), value(client, "lock-path"));
    let commands = &quickstart.instructions;
    for command in ["server-ping", "stanza-create", "archive-push %p", "check", "backup", "info", "restore"] {
        assert!(commands.contains(command), "{command} is missing in\n{commands}");
    }
}

#[test]
fn its_backup_command_is_one_that_the_release_knows() {
    let place = tempfile::tempdir().unwrap();
    for (release, file) in [("2.45", "server/pgbackrest.conf"), ("2.60.0", "client/pgbackrest.conf")] {
        let options = Options { release: Some(release.to_owned()), ..options(&place.path().join("demo")) };
        let quickstart = create(&options).unwrap();
        let line = quickstart.instructions.lines().find(|line| line.contains(" backup ")).unwrap();
        assert!(line.contains(file), "{release}: {line}");
        assert_eq!(line.contains("--pg1-path=/var/lib/postgresql/15/main"), release == "2.45", "{line}");
    }
}

#[test]
fn a_second_run_keeps_certificates_and_edits_and_applies_options() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("demo");
    let server = create(&options(&directory)).unwrap().server_config;
    let (client, own) = (directory.join("client/pgbackrest.conf"), directory.join("server/repohostd.conf"));
    assert_eq!((value(&server, "tls-server-port"), value(&own, "release")), ("8432".to_owned(), "2.60.0".to_owned()));
    let certificate = fs::read(directory.join("client.crt")).unwrap();
    let edited = fs::read_to_string(&client).unwrap().replace("/15/", "/17/") + "process-max=4\n";
    fs::write(&client, edited).unwrap();

    let changed = Options { port: Some(9999), release: Some("2.55.1".to_owned()), ..options(&directory) };
    create(&changed).unwrap();
    assert_eq!(fs::read(directory.join("client.crt")).unwrap(), certificate);
    assert_eq!(value(&server, "tls-server-port"), "9999");
    assert_eq!(value(&client, "repo1-host-port"), "9999");
    assert_eq!(value(&client, "pg1-path"), "/var/lib/postgresql/17/main");
    assert_eq!(value(&client, "process-max"), "4");
    assert_eq!(value(&own, "release"), "2.55.1");

    // What was chosen stays chosen, and a lost key means new certificates.
    fs::remove_file(directory.join("client.key")).unwrap();
    create(&options(&directory)).unwrap();
    assert_eq!((value(&server, "tls-server-port"), value(&own, "release")), ("9999".to_owned(), "2.55.1".to_owned()));
    assert_ne!(fs::read(directory.join("client.crt")).unwrap(), certificate);
}

#[test]
fn somebodys_data_is_not_touched() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("precious"), "data").unwrap();
    let error = create(&options(place.path())).err().unwrap();
    assert_eq!(error.code, Code::OptionInvalidValue);
    assert!(error.message.contains("is not empty and was not made by quickstart"), "{}", error.message);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);

    let error = create(&options(&place.path().join("with space"))).err().unwrap();
    assert!(error.message.contains("cannot handle spaces"), "{}", error.message);
}

#[test]
fn the_installed_release_is_announced_and_an_unknown_one_is_said_loudly() {
    let place = tempfile::tempdir().unwrap();
    let with = |name: &str, program: &Path| {
        let directory = place.path().join(name);
        let quickstart = super::create(&options(&directory), "/opt/repohostd", program).unwrap();
        (value(&directory.join("server/repohostd.conf"), "release"), quickstart.warning)
    };
    let program = installed(place.path(), "pgBackRest 2.55.1");
    assert_eq!(with("one", &program), ("2.55.1".to_owned(), None));

    let program = installed(place.path(), "pgBackRest 2.36");
    let (release, warning) = with("two", &program);
    let warning = warning.unwrap();
    assert_eq!(release, "2.60.0");
    assert!(warning.contains("pgbackrest is 2.36") && warning.contains("CANNOT"), "{warning}");

    let asked = Options { release: Some("2.36".to_owned()), ..options(&place.path().join("three")) };
    let error = create(&asked).err().unwrap();
    assert_eq!(error.code, Code::OptionInvalidValue);
    assert!(error.message.contains("2.59.3, 2.60.0"), "{}", error.message);
}
