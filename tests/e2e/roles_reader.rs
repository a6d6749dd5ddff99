//! A client of role reader: restores and looks at everything, and changes not one byte.

use std::fs;

use crate::archiving::archived_segments;
use crate::for_each_release;
use crate::harness::certificates::{Certificates, Kind, Wish};
use crate::harness::postgres::Cluster;
use crate::harness::roles::{Role, assert_needs};
use crate::harness::snapshot::Snapshot;
use crate::harness::{Bench, STANZA, files, wait_until_unlocked};

for_each_release! {
    a_reader_restores_and_looks_at_everything: full, full, always;
    a_reader_restores_what_is_encrypted: full, always, full;
    a_reader_can_change_nothing: always, full, full;
    a_client_without_a_role_is_what_the_default_says: always, full, full;
    every_name_of_a_client_counts_and_the_least_of_what_they_say: full, full, always;
}

#[test]
fn an_administrator_is_told_in_words_what_a_client_may_do() {
    let bench = Bench::with_roles("2.55.1");
    bench.server.write_config();
    let text = bench.server.own_command(&["check", "--client=host-archiver"]).ok();
    assert!(text.contains("client 'host-archiver' has role 'archiver' in stanza demo"), "{text}");
    assert!(text.contains("SEGMENT-CHECKSUM: read, add, never replace or remove"), "{text}");
    let text = bench.server.own_command(&["check", "--client=stranger"]).fails_with(105);
    assert!(text.contains("no tls-server-auth entry is for it"), "{text}");
}

fn a_reader_restores_and_looks_at_everything(release: &str) {
    reads_everything(Bench::with_roles(release), false);
}

fn a_reader_restores_what_is_encrypted(release: &str) {
    let mut bench = Bench::with_roles(release);
    bench.server.config.set("global", "repo1-cipher-type", "aes-256-cbc");
    bench.server.config.set("global", "repo1-cipher-pass", "correct horse battery staple");
    if release != "2.45" {
        // which it can store but not verify
        bench.store_blocks();
    }
    reads_everything(bench, true);
}

fn reads_everything(mut bench: Bench, is_encrypted: bool) {
    let mut cluster = bench.with_cluster();
    cluster.fill(1);
    bench.ok(&["backup", "--type=full"]);
    cluster.query("update pgbench_branches set bbalance = 1");
    bench.ok(&["backup", "--type=incr"]);
    let reader = bench.client_of(Role::Reader);
    // the segment that it waits for is archived by the cluster's own client
    reader.ok(&["check"]);
    cluster.archive();
    let rows = cluster.rows();
    cluster.stop();
    wait_until_unlocked(&bench.server.path("lock"));

    let before = Snapshot::of(&bench.server.repository());
    let labels = reader.labels();
    assert_eq!(labels.len(), 2);
    reader.ok(&["info", "--set", &labels[1]]);
    if !is_encrypted || bench.client.release == "2.60.0" {
        // earlier ones ask nobody for the passphrase
        reader.ok(&["manifest", "--set", &labels[1]]);
    }
    reader.verifies();
    let listed = reader.ok(&["repo-ls", "--recurse", "--log-level-console=off"]);
    for path in files(&bench.server.repository().join("backup").join(STANZA)) {
        let name = path.strip_prefix(bench.server.repository()).expect("it is in the repository").display().to_string();
        assert!(listed.lines().any(|line| line == name), "{name} is not listed");
    }
    for area in ["archive", "backup"] {
        let name = format!("{area}/{STANZA}/{area}.info");
        assert!(reader.ok(&["repo-get", "--log-level-console=off", &name]).contains("[backrest]"));
    }
    let (segment, _) = archived_segments(&bench.server.repository()).remove(0);
    let target = bench.workspace.directory("got").join("segment");
    reader.ok(&["archive-get", &segment, &target.display().to_string()]);
    assert_eq!(fs::metadata(&target).expect("the segment was got").len(), 16 << 20);

    let mut restored = Cluster::at(&bench.workspace, "restored");
    reader.ok(&["restore", &format!("--pg1-path={}", restored.path.display()), "--archive-mode=off"]);
    restored.start();
    assert_eq!(restored.rows(), rows);
    restored.stop();
    before.assert_unchanged(&bench.server.repository());
    assert!(files(&bench.server.path("lock")).is_empty(), "a reader has locked something");
}

fn a_reader_can_change_nothing(release: &str) {
    let mut bench = Bench::with_roles(release);
    let mut cluster = bench.with_cluster();
    bench.ok(&["backup", "--type=full"]);
    let segment = cluster.copy_segment("0000000100000001000000A0").display().to_string();
    let label = bench.client.labels().remove(0);
    cluster.stop();
    wait_until_unlocked(&bench.server.path("lock"));

    let reader = bench.client_of(Role::Reader);
    let before = Snapshot::of(&bench.server.repository());
    assert_needs(&reader.run(&["archive-push", &segment]), Role::Archiver);
    assert_needs(&reader.run(&["annotate", "--set", &label, "--annotation=one=1"]), Role::Backup);
    for command in ["stanza-create", "stanza-upgrade"] {
        assert_needs(&reader.run(&[command, "--no-online"]), Role::Admin);
    }
    if release != "2.45" {
        // whose backups and expirations need no server
        assert_needs(&reader.run(&["backup", "--no-online"]), Role::Backup);
        assert_needs(&reader.run(&["expire"]), Role::Admin);
    }
    refuses_to_change_files(&bench, &reader, &label);
    assert_deletes_nothing(&reader);
    before.assert_unchanged(&bench.server.repository());
    reader.ok(&["repo-ls"]);
    let log = bench.server.log();
    let line = |words: &[&str]| log.lines().any(|line| words.iter().all(|word| line.contains(word)));
    let refused = ["WARN: client 'host-reader' at 127.0.0.1", "'archive-push' for stanza 'demo'"];
    assert!(line(&refused), "no line tells of the refusal:\n{log}");
    assert!(line(&["client=host-reader", " denied=1 "]), "the refusal is not counted:\n{log}");
}

fn a_client_without_a_role_is_what_the_default_says(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.own_config.set("global", "role", "reader");
    bench.server.own_config.set("client:host-admin", "role", "admin");
    bench.server.config.add("global", "tls-server-auth", "host-admin=demo");
    let _cluster = bench.create_cluster();
    bench.server.start();
    assert_needs(&bench.client.run(&["stanza-create", "--no-online"]), Role::Admin);
    bench.client_of(Role::Admin).ok(&["stanza-create", "--no-online"]);
    bench.client.ok(&["info"]);

    // a reload gives another role to the sessions that come
    bench.server.own_config.unset("global", "role");
    bench.server.reload();
    bench.client.ok(&["stanza-create", "--no-online"]);
}

/// The commands that change single files, where the release has them.
fn refuses_to_change_files(bench: &Bench, reader: &crate::harness::client::Client, label: &str) {
    let name = format!("backup/{STANZA}/{label}/backup.manifest");
    if bench.client.release == "2.60.0" {
        assert_needs(&reader.run(&["repo-rm", &name]), Role::Admin);
        assert_needs(&reader.run(&["repo-rm", "--recurse", &format!("backup/{STANZA}/{label}")]), Role::Admin);
    } else {
        assert_needs(&reader.run(&["repo-put", &name]), Role::Admin);
    }
}

/// `stanza-delete` asks for a stop file, which every host has for itself.
fn assert_deletes_nothing(client: &crate::harness::client::Client) {
    client.ok(&["stop"]);
    let output = client.run(&["stanza-delete", "--force"]);
    client.ok(&["start"]);
    assert_needs(&output, Role::Admin);
}

fn every_name_of_a_client_counts_and_the_least_of_what_they_say(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.config.set("global", "tls-server-auth", "db1.example=demo,other");
    bench.server.config.set("other", "pg1-path", "/nowhere");
    // one name says the role and another one the stanza
    bench.server.own_config.set("client:whoever", "role", "admin");
    bench.server.own_config.set("client:db1.example, db2.example", "role", "reader");
    bench.server.own_config.set("client:db1.example, db2.example", "stanza", "demo");
    let _cluster = bench.create_cluster();
    bench.server.start();
    let authority = &Certificates::shared().authority;
    let names = "subjectAltName=DNS:db1.example,IP:127.0.0.1\n";
    let names = Wish { extensions: names, ..Wish::plain(Kind::Curve("P-256")) };
    bench.client.write_identity(&authority.issue_as("whoever", &names));
    bench.client.ok(&["repo-ls", "archive/demo"]);
    let text = bench.client.run_exactly(&["--stanza=other", "repo-ls"]).fails_with(105);
    assert!(text.contains("access denied"), "{text}");
    bench.server.wait_for_log("repohostd.conf does not leave the stanza to 'whoever' or 'db1.example'");
    assert_needs(&bench.client.run(&["stanza-create", "--no-online"]), Role::Admin);
    let text = bench.server.own_command(&["check", "--client=whoever,db1.example"]).ok();
    assert!(text.contains("has role 'reader' in stanza demo\n"), "{text}");
}
