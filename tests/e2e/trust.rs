//! Certificates as administrators have them: chains, several authorities, every kind of key, revoked
//! ones, and those that must not get in.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use crate::for_each_release;
use crate::harness::certificates::{Authority, Certificates, Identity, Kind, Wish, trusted_for};
use crate::harness::{Bench, SOON, wait_until};

for_each_release! {
    chains_with_an_intermediate_work_on_both_sides: always, always, always;
    clients_of_every_authority_in_the_file_are_let_in: always, always, always;
    certificates_before_and_after_their_time_are_refused_and_the_server_says_so: always, always, always;
    a_key_that_is_not_the_certificates_is_refused: always, always, always;
    every_kind_of_key_works_on_both_sides: full, full, always;
    an_encrypted_server_key_is_refused_with_the_remedy: full, full, always;
    a_revoked_client_is_refused_and_the_server_says_so: always, always, always;
    an_alternative_name_is_an_identity: always, always, always;
    a_certificate_for_something_else_is_refused_and_the_log_says_what_it_lacks: always, always, always;
    a_server_certificate_that_clients_refuse_is_warned_of: full, always, full;
    files_as_windows_and_openssl_write_them_are_read: always, always, always;
    a_server_name_that_is_no_dns_name_is_ignored: always, always, always;
}

/// The name that `tls-server-auth` lets in.
const CLIENT: &str = "pgbackrest-client";

fn chains_with_an_intermediate_work_on_both_sides(release: &str) {
    let mut bench = Bench::new(release);
    let root = Authority::new("root.example");
    let (hosts, databases) = (root.subordinate("hosts.example"), root.subordinate("databases.example"));
    let deeper = databases.subordinate("berlin.example");
    bench.server.write_authority(&root.certificate);
    bench.server.write_identity(&hosts.issue("localhost").with_chain(&[&hosts]));
    bench.client.write_authority(&root.certificate);
    bench.server.start();
    for (identity, chain) in [
        (databases.issue(CLIENT), vec![&databases]),
        (deeper.issue(CLIENT), vec![&deeper, &databases]),
        (deeper.issue_as(CLIENT, &version_3("")), vec![&deeper, &databases]),
    ] {
        bench.client.write_identity(&identity.with_chain(&chain));
        bench.client.ok(&["repo-ls"]);
        bench.client.write_identity(&identity);
        is_refused(&bench, &[CLIENT]);
    }
    // an authority of somebody else in the middle
    let forged = Authority::new("databases.example");
    bench.client.write_identity(&forged.issue(CLIENT).with_chain(&[&databases]));
    is_refused(&bench, &[CLIENT]);
    // who may not sign
    let wish = version_3("basicConstraints=critical,CA:FALSE\n");
    let Identity { key, certificate } = root.issue_as("ordinary", &wish);
    let ordinary = Authority::of(key, certificate);
    bench.client.write_identity(&ordinary.issue(CLIENT).with_chain(&[&ordinary]));
    is_refused(&bench, &[CLIENT]);
}

fn clients_of_every_authority_in_the_file_are_let_in(release: &str) {
    let mut bench = Bench::new(release);
    let (first, second, third) = (Authority::new("first"), Authority::new("second"), Authority::new("third"));
    bench.server.write_authority(&format!("# ours\n{}\n# theirs\n{}", first.certificate, second.certificate));
    bench.server.start();
    for authority in [&first, &second] {
        bench.client.write_identity(&authority.issue(CLIENT));
        bench.client.ok(&["repo-ls"]);
    }
    bench.client.write_identity(&third.issue(CLIENT));
    is_refused(&bench, &[CLIENT]);
}

fn certificates_before_and_after_their_time_are_refused_and_the_server_says_so(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.start();
    let authority = &Certificates::shared().authority;
    for extensions in ["", "subjectAltName=DNS:pgbackrest-client\n"] {
        for (valid, word) in
            [(("20200101", "20210101"), "expired"), (("20900101", "20990101"), "is not valid before 2090-01-01")]
        {
            let wish = Wish { extensions, valid, ..Wish::plain(Kind::Curve("P-256")) };
            bench.client.write_identity(&authority.issue_as(CLIENT, &wish));
            is_refused(&bench, &[word, CLIENT]);
        }
    }
    bench.client.write_identity(&Certificates::shared().client);
    bench.client.ok(&["repo-ls"]);
}

fn a_key_that_is_not_the_certificates_is_refused(release: &str) {
    let mut bench = Bench::new(release);
    let authority = &Certificates::shared().authority;
    let mixed = |name| Identity { key: authority.issue(name).key, certificate: authority.issue(name).certificate };
    bench.server.write_identity(&mixed("localhost"));
    bench.server.launch();
    assert_ne!(bench.server.wait(SOON), 0);
    let log = bench.server.log();
    assert!(log.contains("ERROR: [") && log.contains("server.key") && log.contains("key values mismatch"), "{log}");

    bench.server.write_identity(&Certificates::shared().server);
    bench.server.start();
    bench.client.write_identity(&mixed(CLIENT));
    let output = bench.client.run(&["repo-ls"]);
    assert_ne!(output.code, 0, "{}", output.text());
    bench.client.write_identity(&Certificates::shared().client);
    bench.client.ok(&["repo-ls"]);
}

fn every_kind_of_key_works_on_both_sides(release: &str) {
    let mut bench = Bench::new(release);
    let authority = &Certificates::shared().authority;
    let names = "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n";
    let clients: Vec<_> = Kind::ALL
        .into_iter()
        .map(|key| [Wish::plain(key), Wish { extensions: "extendedKeyUsage=clientAuth\n", ..Wish::plain(key) }])
        .map(|wishes| wishes.map(|wish| authority.issue_as(CLIENT, &wish)))
        .collect();
    for (number, key) in Kind::ALL.into_iter().enumerate() {
        // as the user guide makes them, and as other tools do
        let extensions = if number % 2 == 0 { "" } else { names };
        bench.server.write_identity(&authority.issue_as("localhost", &Wish { extensions, ..Wish::plain(key) }));
        if number == 0 {
            bench.server.start();
        } else {
            bench.server.reload();
        }
        for other in [number, (number + 1) % clients.len()] {
            for identity in &clients[other] {
                bench.client.write_identity(identity);
                let output = bench.client.run(&["repo-ls"]);
                assert_eq!(output.code, 0, "server {key:?}, client {:?}: {}", Kind::ALL[other], output.text());
            }
        }
    }
}

fn an_encrypted_server_key_is_refused_with_the_remedy(release: &str) {
    let mut bench = Bench::new(release);
    let server = &Certificates::shared().server;
    let encrypted = Identity { key: server.encrypted_key(), certificate: server.certificate.clone() };
    bench.server.write_identity(&encrypted);
    bench.server.launch();
    assert_ne!(bench.server.wait(SOON), 0);
    let log = bench.server.log();
    for words in ["server.key", "it is encrypted", "openssl pkey -in"] {
        assert!(log.contains(words), "the error says {words:?}: {log}");
    }
    // the same at a reload, which changes nothing
    bench.server.write_identity(server);
    bench.server.start();
    let mark = bench.server.log().len();
    bench.server.write_identity(&encrypted);
    bench.server.signal(rustix::process::Signal::HUP);
    wait_until("the error", SOON, || bench.server.log()[mark..].contains("it is encrypted"));
    bench.client.ok(&["repo-ls"]);
}

fn a_revoked_client_is_refused_and_the_server_says_so(release: &str) {
    let mut bench = Bench::new(release);
    let root = Authority::new("root.example");
    let databases = root.subordinate("databases.example");
    bench.server.write_authority(&root.certificate);
    let stolen = root.issue(CLIENT);
    let kept = root.issue_as(CLIENT, &version_3(""));
    let below = databases.issue(CLIENT).with_chain(&[&databases]);
    bench.server.start();
    for identity in [&stolen, &kept, &below] {
        bench.client.write_identity(identity);
        bench.client.ok(&["repo-ls"]);
    }

    bench.workspace.directory("server/repository/archive/demo");
    let large = bench.workspace.file("server/repository/archive/demo/large", 0o640, &"much ".repeat(5 << 20));
    let reading = [&stolen, &kept].map(|identity| {
        bench.client.write_identity(identity);
        // nobody reads what the client prints, so that it cannot go on
        let (mut reader, writer) = io::pipe().expect("a pipe can be made");
        let command = ["repo-get", "--log-level-console=error", "archive/demo/large"];
        let client = bench.client.start_into(File::from(OwnedFd::from(writer)), &command);
        reader.read_exact(&mut [0]).expect("the first byte of the file");
        (client, reader)
    });

    let revoked = bench.workspace.file("server/list.crl", 0o644, &root.revokes(&[&stolen]));
    bench.server.own_config.set("global", "crl-file", &revoked.display().to_string());
    bench.server.reload();
    bench.client.write_identity(&stolen);
    is_refused(&bench, &[CLIENT, "revoked"]);
    // what was open with the revoked certificate ends, and nothing else does
    let [stopped, complete] = reading.map(|(client, mut reader)| {
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).expect("the rest of the file");
        (client.output(SOON).code, 1 + rest.len() as u64 == fs::metadata(&large).expect("it is there").len())
    });
    assert!(stopped.0 != 0 && !stopped.1, "the revoked client got its file: {stopped:?}");
    assert_eq!(complete, (0, true));
    for identity in [&kept, &below] {
        bench.client.write_identity(identity);
        bench.client.ok(&["repo-ls"]);
    }

    // a newer list takes effect at a reload, and one of an intermediate counts for those below it
    let text = root.revokes(&[&stolen, &kept]) + &databases.revokes(&[&below]);
    bench.workspace.file("server/list.crl", 0o644, &text);
    bench.server.reload();
    for identity in [&stolen, &kept, &below] {
        bench.client.write_identity(identity);
        is_refused(&bench, &[CLIENT, "revoked"]);
    }

    // an authority that is revoked takes those below it along
    let intermediate = Identity { key: String::new(), certificate: databases.certificate.clone() };
    bench.workspace.file("server/list.crl", 0o644, &root.revokes(&[&intermediate]));
    bench.server.reload();
    bench.client.write_identity(&below);
    is_refused(&bench, &["revoked"]);
    bench.client.write_identity(&kept);
    bench.client.ok(&["repo-ls"]);
}

fn an_alternative_name_is_an_identity(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.config.set("global", "tls-server-auth", "db1.example=demo");
    bench.server.start();
    let authority = &Certificates::shared().authority;
    let identity = |names: &str| authority.issue_as("whoever", &version_3(&format!("subjectAltName={names}\n")));
    bench.client.write_identity(&identity("DNS:db0.example,DNS:db1.example,IP:127.0.0.1"));
    bench.client.ok(&["repo-ls"]);
    let text = bench.client.run_exactly(&["--stanza=other", "repo-ls"]).fails_with(105);
    assert!(text.contains("access denied"), "{text}");
    bench.client.write_identity(&identity("DNS:db2.example,DNS:db1.example.org"));
    let text = bench.client.fails(105, &["repo-ls"]);
    assert!(text.contains("access denied"), "{text}");
    bench.server.wait_for_log("db2.example");
}

fn a_certificate_for_something_else_is_refused_and_the_log_says_what_it_lacks(release: &str) {
    const KEY_USAGE: &str = "key usage lacks digitalSignature";
    let mut bench = Bench::new(release);
    bench.server.start();
    let authority = &Certificates::shared().authority;
    for (extensions, lack) in [
        ("keyUsage=critical,digitalSignature\n", None),
        ("keyUsage=critical,keyAgreement\nnsCertType=client,server\n", None),
        ("subjectKeyIdentifier=hash\n", None),
        ("keyUsage=critical,keyEncipherment\n", Some(KEY_USAGE)),
        ("keyUsage=critical,keyCertSign\n", Some(KEY_USAGE)),
        ("nsCertType=server\n", Some("nsCertType lacks client")),
        ("extendedKeyUsage=serverAuth\n", Some("extended key usage lacks clientAuth")),
        // of intermediate CAs, the second as those are made who sign answers about revocation, too
        ("basicConstraints=critical,CA:TRUE\n", Some("is a CA's own")),
        (
            "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,digitalSignature,keyCertSign,cRLSign\n",
            Some("is a CA's own"),
        ),
    ] {
        bench.client.write_identity(&authority.issue_as(CLIENT, &version_3(extensions)));
        match lack {
            None => _ = bench.client.ok(&["repo-ls"]),
            Some(lack) => is_refused(&bench, &[CLIENT, lack]),
        }
    }
    // who may not sign has no clients
    let wish = version_3("basicConstraints=critical,CA:TRUE\nkeyUsage=critical,digitalSignature\n");
    let Identity { key, certificate } = authority.issue_as("between", &wish);
    let between = Authority::of(key, certificate);
    for identity in [between.issue(CLIENT), between.issue_as(CLIENT, &version_3(""))] {
        bench.client.write_identity(&identity.with_chain(&[&between]));
        is_refused(&bench, &[CLIENT, "between", "key usage lacks keyCertSign"]);
    }
}

fn a_server_certificate_that_clients_refuse_is_warned_of(release: &str) {
    let mut bench = Bench::new(release);
    let authority = &Certificates::shared().authority;
    for (extensions, lack) in [
        ("keyUsage=critical,digitalSignature\nsubjectAltName=DNS:localhost\n", None),
        ("keyUsage=critical,keyEncipherment\n", None),
        ("keyUsage=critical,keyCertSign\n", Some("its key usage lacks digitalSignature")),
        ("extendedKeyUsage=clientAuth\n", Some("its extended key usage lacks serverAuth")),
        ("nsCertType=client\n", Some("its nsCertType lacks server")),
    ] {
        let wish = Wish { extensions, ..Wish::plain(Kind::Rsa(2048)) };
        bench.server.write_identity(&authority.issue_as("localhost", &wish));
        if bench.server.runs() {
            bench.server.reload();
        } else {
            bench.server.start();
        }
        match lack {
            None => _ = bench.client.ok(&["repo-ls"]),
            Some(lack) => {
                bench.server.wait_for_log(lack);
                let text = bench.client.fails(95, &["repo-ls"]);
                assert!(text.contains("unable to verify certificate presented by 'localhost:"), "{text}");
            }
        }
    }
}

fn files_as_windows_and_openssl_write_them_are_read(release: &str) {
    let mut bench = Bench::new(release);
    let Certificates { authority, server, client } = Certificates::shared();
    let marked = |text: &str| format!("\u{feff}{}", text.replace('\n', " \r\n"));
    bench.server.write_authority(&marked(&authority.certificate));
    bench.server.write_identity(&Identity { key: marked(&server.key), certificate: marked(&server.certificate) });
    bench.workspace.file("server/list.crl", 0o644, &marked(&authority.revokes(&[])));
    let list = bench.workspace.path().join("server/list.crl").display().to_string();
    bench.server.own_config.set("global", "crl-file", &list);
    bench.server.start();
    bench.client.ok(&["repo-ls"]);
    bench.workspace.file("server/list.crl", 0o644, &marked(&authority.revokes(&[client])));
    bench.server.reload();
    is_refused(&bench, &[CLIENT, "revoked"]);
    bench.server.own_config.unset("global", "crl-file");

    // as the last century called them, and with what OpenSSL adds to say what they are trusted for
    let old = |text: &str| text.replace(" CERTIFICATE-----", " X509 CERTIFICATE-----");
    bench.server.write_authority(&old(&authority.certificate));
    bench.server.write_identity(&Identity { key: server.key.clone(), certificate: old(&server.certificate) });
    bench.server.reload();
    bench.client.ok(&["repo-ls"]);
    let trusted = trusted_for(&server.certificate, &["-addtrust", "serverAuth", "-setalias", "ours"]);
    bench.server.write_identity(&Identity { key: server.key.clone(), certificate: trusted });
    let other = Authority::new("other").certificate;
    for (settings, good) in [
        (&["-addtrust", "clientAuth"][..], true),
        (&["-addreject", "serverAuth"], true),
        (&["-addtrust", "serverAuth"], false),
        (&["-addreject", "clientAuth"], false),
    ] {
        bench.server.write_authority(&(trusted_for(&authority.certificate, settings) + &other));
        bench.server.reload();
        if good {
            bench.client.ok(&["repo-ls"]);
        } else {
            bench.server.wait_for_log("is not trusted for TLS clients");
            is_refused(&bench, &["not in tls-server-ca-file"]);
        }
    }
}

fn a_server_name_that_is_no_dns_name_is_ignored(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.config.set("global", "tls-server-address", "127.0.0.1,::1");
    // an address with a zone, which is what a client asks for that has it for a host
    let zoned = "::1%1";
    bench.server.write_identity(&Certificates::shared().authority.issue(zoned));
    bench.server.start();
    bench.client.config.set("global", "repo1-host", zoned);
    bench.client.ok(&["repo-ls"]);

    let long = format!("{}.example", "a".repeat(64));
    let names = ["host-", "h\u{f6}st", "fe80::1%lo", &long, "two words", "localhost"];
    // the last of these groups is asked for by a second hello
    for options in [&["-tls1_2"][..], &["-tls1_3"], &["-tls1_3", "-groups", "P-521:P-256"]] {
        for name in names {
            let mut command = bench.workspace.command("openssl");
            command.args([
                "s_client",
                "-quiet",
                "-no_ign_eof",
                "-cert",
                "client/client.crt",
                "-key",
                "client/client.key",
            ]);
            command.args(["-servername", name, "-connect", &format!("127.0.0.1:{}", bench.server.port)]).args(options);
            // it hangs up when its input ends
            let (reader, _writer) = io::pipe().expect("a pipe can be made");
            let client = bench.workspace.spawn("s_client", {
                command.stdin(OwnedFd::from(reader));
                command
            });
            wait_until(&format!("a greeting for '{name}' with {options:?}"), SOON, || {
                let printed = client.printed();
                assert!(!printed.contains("alert"), "{name:?} with {options:?}: {printed}");
                printed.contains(&format!("\"version\":\"{release}\""))
            });
        }
    }
}

fn version_3(extensions: &str) -> Wish<'_> {
    let extensions = if extensions.is_empty() { "basicConstraints=CA:FALSE\n" } else { extensions };
    Wish { extensions, ..Wish::plain(Kind::Curve("P-256")) }
}

/// Insists that the client does not get in, and that one line of the log has all the words.
#[track_caller]
fn is_refused(bench: &Bench, words: &[&str]) {
    let mark = bench.server.log().len();
    let output = bench.client.run(&["repo-ls"]);
    assert_ne!(output.code, 0, "the client got in: {}", output.text());
    wait_until(&format!("a log line with {words:?}"), SOON, || {
        bench.server.log()[mark..].lines().any(|line| words.iter().all(|word| line.contains(word)))
    });
}
