//! A client of role backup: adds backups, and changes or removes nothing of a finished one.
//!
//! 2.45 backs up on the repository host only, where no role holds.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::crashes::{slow_down, stopped_backup_after};
use crate::for_each_release;
use crate::harness::client::Client;
use crate::harness::postgres::Cluster;
use crate::harness::roles::{Role, assert_needs};
use crate::harness::snapshot::Snapshot;
use crate::harness::{Bench, SOON, STANZA, files, temporary_files, wait_until, wait_until_unlocked};

for_each_release! {
    backups_of_files_are_added: never "its backup opens no session", full, full;
    backups_of_bundles_are_added: never "its backup opens no session", full, full;
    backups_of_encrypted_blocks_are_added: never "its backup opens no session", full, always;
    backups_with_hard_links_and_tablespaces_are_added: never "its backup opens no session", always, full;
    backups_with_their_archive_are_added: never "its backup opens no session", full, full;
    an_interrupted_backup_is_resumed: never "its backup opens no session", full, full;
    an_interrupted_backup_that_cannot_be_resumed_is_removed: never "its backup opens no session", full, full;
    an_expiration_is_refused_and_the_client_is_told_what_to_set: never "its expiration opens no session", full, always;
    an_annotation_is_added: full, full, full;
    a_finished_backup_is_not_touched: full, always, full;
}

fn backups_of_files_are_added(release: &str) {
    backups_are_added(bench(release));
}

fn backups_of_bundles_are_added(release: &str) {
    let mut bench = bench(release);
    bench.set("repo1-bundle", "y");
    backups_are_added(bench);
}

fn backups_of_encrypted_blocks_are_added(release: &str) {
    let mut bench = bench(release);
    bench.store_blocks();
    bench.server.config.set("global", "repo1-cipher-type", "aes-256-cbc");
    bench.server.config.set("global", "repo1-cipher-pass", "correct horse battery staple");
    backups_are_added(bench);
}

fn backups_with_hard_links_and_tablespaces_are_added(release: &str) {
    let mut bench = bench(release);
    bench.set("repo1-hardlink", "y");
    bench.set("compress-type", "none");
    backups_are_added(bench);
}

fn backups_with_their_archive_are_added(release: &str) {
    let mut bench = bench(release);
    bench.set("archive-copy", "y");
    backups_are_added(bench);
}

/// Backs up thrice with a change in between, and insists that what was finished stays as it was and that
/// every row comes back.
fn backups_are_added(mut bench: Bench) {
    // earlier ones ask nobody for the passphrase when they annotate
    let annotates = bench.client.release == "2.60.0" || !bench.server.config.text().contains("cipher-pass");
    let mut cluster = bench.with_cluster();
    bench.become_client(Role::Backup);
    bench.client.ok(&["check"]);
    cluster.fill(1);
    let space = bench.workspace.directory("space");
    cluster.query(&format!("create tablespace space location '{}'", space.display()));
    cluster.query("create table in_space tablespace space as select i, md5(i::text) from generate_series(1, 9999) i");

    let mut finished = Vec::new();
    for kind in ["full", "diff", "incr"] {
        bench.ok(&["backup", "--type", kind]);
        assert_unchanged(&finished);
        finished = snapshots(&bench);
        cluster.query("update pgbench_branches set bbalance = bbalance + 1");
        cluster.query("delete from in_space where i % 7 = 0");
        cluster.query("checkpoint");
    }
    assert_eq!(finished.len(), 3);
    if annotates {
        let labels = bench.client.labels();
        bench.client.ok(&["annotate", "--set", &labels[1], "--annotation=kept=yes"]);
        let info = bench.client.info();
        assert_eq!(info["backup"][1]["annotation"]["kept"], "yes", "{info}");
    }
    bench.ok(&["backup", "--type=incr"]);
    cluster.archive();
    let rows = cluster.rows();
    cluster.stop();
    bench.client.verifies();
    restores(&bench, &rows);
    assert_unchanged(&finished);
    wait_until_unlocked(&bench.server.path("lock"));
    assert_eq!(temporary_files(&bench.server.repository()), Vec::<PathBuf>::new());
    let latest = bench.server.path("repository/backup/demo/latest");
    let expected = (bench.client.release != "2.60.0").then(|| PathBuf::from(bench.client.labels().pop().unwrap()));
    assert_eq!(fs::read_link(latest).ok(), expected, "clients of 2.58 and later make no link to the latest");
}

fn an_interrupted_backup_is_resumed(release: &str) {
    let text = goes_on_after_a_kill(release, &[]);
    assert!(text.contains("exists -- invalid files will be removed then the backup will resume"), "{text}");
    assert!(text.contains("checksum resumed file"), "{text}");
}

fn an_interrupted_backup_that_cannot_be_resumed_is_removed(release: &str) {
    let text = goes_on_after_a_kill(release, &["--no-resume"]);
    assert!(!text.contains("checksum resumed file"), "{text}");
}

/// Kills a backup in the middle and backs up again; what the second one printed.
fn goes_on_after_a_kill(release: &str, options: &[&str]) -> String {
    let mut bench = bench(release);
    slow_down(&mut bench);
    // what was copied counts as soon as the manifest is saved again
    bench.set("manifest-save-threshold", "1MiB");
    let mut cluster = bench.with_cluster();
    bench.become_client(Role::Backup);
    cluster.fill(3);
    bench.ok(&["backup", "--type=full"]);
    cluster.query("checkpoint");
    let first = snapshots(&bench);

    let backup = stopped_backup_after(&bench, 10, &[]);
    backup.signal(Signal::KILL);
    drop(backup);
    wait_until_unlocked(&bench.server.path("lock"));
    let finished = snapshots(&bench);
    assert_unchanged(&first);
    let place = bench.server.repository().join("backup").join(STANZA);
    assert!(fs::read_dir(&place).expect("readable").flatten().any(|entry| is_unfinished(&entry.path())));
    wait_until("the client's processes to end", SOON, || {
        files(&bench.workspace.path().join("client/lock")).iter().all(|path| {
            fs::File::open(path).map_or(true, |file| {
                rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
            })
        })
    });

    let mut again = vec!["backup", "--type=full"];
    again.extend(options);
    let text = bench.ok(&again);
    assert_unchanged(&finished);
    assert!(!fs::read_dir(&place).expect("readable").flatten().any(|entry| is_unfinished(&entry.path())));
    cluster.archive();
    let rows = cluster.rows();
    cluster.stop();
    bench.client.verifies();
    restores(&bench, &rows);
    text
}

fn an_expiration_is_refused_and_the_client_is_told_what_to_set(release: &str) {
    let mut bench = bench(release);
    bench.client.config.unset("global", "expire-auto");
    bench.client.config.set("global", "repo1-retention-full", "1");
    let mut cluster = bench.with_cluster();
    bench.become_client(Role::Backup);
    bench.ok(&["backup", "--type=full", "--no-expire-auto"]);
    wait_until_unlocked(&bench.server.path("lock"));
    let first = snapshots(&bench);

    // the backup itself is made
    let output = bench.run(&["backup", "--type=full"]);
    let text = output.text();
    assert!(text.contains("backup command end: completed successfully"), "{text}");
    assert_needs(&output, Role::Admin);
    assert!(text.contains("expire-auto=n"), "the text names no remedy: {text}");
    assert_eq!(bench.client.labels().len(), 2);
    assert_unchanged(&first);
    wait_until_unlocked(&bench.server.path("lock"));
    let both = snapshots(&bench);
    let output = bench.run(&["expire"]);
    assert_needs(&output, Role::Admin);
    assert!(output.text().contains("expire-auto=n"), "{}", output.text());
    assert_unchanged(&both);
    cluster.archive();
    cluster.stop();
    bench.client.verifies();

    // somebody who may
    wait_until_unlocked(&bench.server.path("lock"));
    bench.become_client(Role::Admin);
    bench.ok(&["expire"]);
    assert_eq!(bench.client.labels().len(), 1);
}

fn an_annotation_is_added(release: &str) {
    let mut bench = bench(release);
    let mut cluster = bench.with_cluster();
    bench.ok(&["backup", "--type=full"]);
    cluster.stop();
    wait_until_unlocked(&bench.server.path("lock"));
    bench.become_client(Role::Backup);
    let finished = snapshots(&bench);
    let label = bench.client.labels().remove(0);
    bench.client.ok(&["annotate", "--set", &label, "--annotation=one=1", "--annotation=two=2"]);
    wait_until_unlocked(&bench.server.path("lock"));
    bench.client.ok(&["annotate", "--set", &label, "--annotation=one=", "--annotation=two=changed"]);
    let info = bench.client.info();
    assert_eq!(info["backup"][0]["annotation"], serde_json::json!({"two": "changed"}), "{info}");
    assert_unchanged(&finished);
    bench.client.verifies();
}

fn a_finished_backup_is_not_touched(release: &str) {
    let mut bench = bench(release);
    let mut cluster = bench.with_cluster();
    bench.ok(&["backup", "--type=full"]);
    cluster.archive();
    cluster.stop();
    wait_until_unlocked(&bench.server.path("lock"));
    bench.become_client(Role::Backup);
    let client = &bench.client;
    let label = client.labels().remove(0);
    let before = Snapshot::of(&bench.server.repository());
    for command in ["stanza-create", "stanza-upgrade"] {
        assert_needs(&client.run(&[command, "--no-online"]), Role::Admin);
    }
    if release != "2.45" {
        assert_needs(&client.run(&["expire", "--set", &label]), Role::Admin);
    }
    let finished = format!("backup/{STANZA}/{label}");
    for name in [
        format!("{finished}/backup.manifest"),
        format!("backup/{STANZA}/backup.info"),
        format!("archive/{STANZA}/archive.info"),
        format!("backup/{STANZA}/20990101-000000F/x"),
    ] {
        if release == "2.60.0" {
            assert_needs(&client.run(&["repo-rm", &name]), Role::Admin);
        } else {
            assert_needs(&client.run(&["repo-put", &name]), Role::Admin);
        }
    }
    if release == "2.60.0" {
        for name in [&finished, &format!("archive/{STANZA}/15-1"), &format!("backup/{STANZA}")] {
            assert_needs(&client.run(&["repo-rm", "--recurse", name]), Role::Admin);
        }
    }
    client.ok(&["stop"]);
    let output = client.run(&["stanza-delete", "--force"]);
    client.ok(&["start"]);
    assert_needs(&output, Role::Admin);
    before.assert_unchanged(&bench.server.repository());
}

/// A bench with roles whose backups expire nothing, as a client of role backup has to.
fn bench(release: &str) -> Bench {
    let mut bench = Bench::with_roles(release);
    bench.client.config.set("global", "expire-auto", "n");
    bench
}

/// The directory of each finished backup, and what is in it.
fn snapshots(bench: &Bench) -> Vec<(PathBuf, Snapshot)> {
    let place = bench.server.repository().join("backup").join(STANZA);
    let entries = fs::read_dir(place).expect("the stanza's backups can be listed").flatten();
    let finished = entries.map(|entry| entry.path()).filter(|path| {
        let link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
        !link && path.join("backup.manifest").exists()
    });
    finished.map(|path| (path.clone(), Snapshot::of(&path))).collect()
}

#[track_caller]
fn assert_unchanged(finished: &[(PathBuf, Snapshot)]) {
    for (path, snapshot) in finished {
        snapshot.assert_unchanged(path);
    }
}

fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("20") && path.is_dir() && !path.join("backup.manifest").exists()
}

/// Restores as somebody who can only read, and compares every row.
fn restores(bench: &Bench, rows: &std::collections::BTreeMap<String, String>) {
    let reader: Client = bench.client_of(Role::Reader);
    let mut restored = Cluster::at(&bench.workspace, "restored");
    let spaces = bench.workspace.directory("restored-spaces");
    let place = format!("--pg1-path={}", restored.path.display());
    let spaces = format!("--tablespace-map-all={}", spaces.display());
    reader.ok(&["restore", &place, &spaces, "--archive-mode=off"]);
    restored.start();
    assert_eq!(&restored.rows(), rows);
    restored.stop();
}
