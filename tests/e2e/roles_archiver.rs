//! A client of role archiver: archives, and neither replaces nor removes what it archived.

use std::fs;
use std::path::{Path, PathBuf};

use crate::archiving::{archive_under_load, archived_segments};
use crate::for_each_release;
use crate::harness::client::Client;
use crate::harness::roles::{Role, assert_needs};
use crate::harness::snapshot::Snapshot;
use crate::harness::{Bench, SOON, STANZA, own, temporary_files, wait_until, wait_until_unlocked};

for_each_release! {
    an_archiver_archives_under_load: full, full, full;
    an_archiver_archives_asynchronously_under_load: full, always, full;
    an_archiver_archives_into_an_encrypted_repository: always, full, full;
    an_archiver_keeps_up_with_a_promoted_standby: full, full, always;
    what_was_archived_is_neither_replaced_nor_pushed_in_vain: full, always, full;
    what_was_archived_encrypted_is_neither_replaced_nor_pushed_in_vain: full, full, always;
    an_archiver_can_do_nothing_else: full, always, full;
}

fn an_archiver_archives_under_load(release: &str) {
    archives_under_load(Bench::with_roles(release));
}

fn an_archiver_archives_asynchronously_under_load(release: &str) {
    let mut bench = Bench::with_roles(release);
    bench.client.config.set("global", "archive-async", "y");
    bench.set("process-max", "2");
    archives_under_load(bench);
}

fn an_archiver_archives_into_an_encrypted_repository(release: &str) {
    archives_under_load(encrypted(release));
}

fn archives_under_load(mut bench: Bench) {
    let mut cluster = bench.with_cluster();
    bench.become_client(Role::Archiver);
    bench.client.ok(&["check"]);
    archive_under_load(&cluster);
    cluster.stop();

    let archived = archived_segments(&bench.server.repository());
    assert!(archived.len() >= 6, "too little was archived: {archived:?}");
    assert_eq!(temporary_files(&bench.server.repository()), Vec::<PathBuf>::new());
    let before = Snapshot::of(&bench.server.repository());
    let target = bench.workspace.directory("got").join("segment");
    for (segment, _) in archived {
        bench.client.ok(&["archive-get", &segment, &target.display().to_string()]);
        assert_eq!(fs::metadata(&target).expect("the segment was got").len(), 16 << 20, "{segment}");
        fs::remove_file(&target).expect("the segment can be removed");
    }
    bench.client.verifies();
    before.assert_unchanged(&bench.server.repository());
}

fn an_archiver_keeps_up_with_a_promoted_standby(release: &str) {
    let mut bench = Bench::with_roles(release);
    let mut cluster = bench.with_cluster();
    cluster.fill(1);
    bench.ok(&["backup", "--type=full"]);
    bench.become_client(Role::Archiver);
    cluster.archive();
    cluster.stop();

    // in its place, on a timeline of its own, which begins with a partial segment and a history file
    for _ in 0..2 {
        bench.client.ok(&["restore", "--delta"]);
        cluster.start();
        cluster.archive();
        bench.client.ok(&["check"]);
        cluster.stop();
    }
    let place = bench.server.repository().join("archive").join(STANZA).join("15-1");
    for name in ["00000002.history", "00000003.history"] {
        assert!(place.join(name).exists(), "{name} was not archived");
    }
    let rows = {
        bench.client.ok(&["restore", "--delta", "--target-timeline=latest", "--archive-mode=off"]);
        cluster.start();
        cluster.rows()
    };
    assert!(rows.contains_key("pgbench_accounts"));
    cluster.stop();
}

fn what_was_archived_is_neither_replaced_nor_pushed_in_vain(release: &str) {
    nothing_is_replaced(Bench::with_roles(release));
}

fn what_was_archived_encrypted_is_neither_replaced_nor_pushed_in_vain(release: &str) {
    nothing_is_replaced(encrypted(release));
}

fn nothing_is_replaced(mut bench: Bench) {
    let mut cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0");
    let partial = cluster.copy_segment("0000000100000001000000A1.partial");
    cluster.stop();
    bench.become_client(Role::Archiver);
    let history = record(&bench, "00000002.history", "1\t0/3000000\tno recovery target specified\n");
    let label = record(&bench, "0000000100000001000000A0.00000028.backup", "START WAL LOCATION: 1/A0000028\n");

    let all = [&segment, &partial, &history, &label];
    for path in all {
        push(&bench.client, path).ok();
    }
    wait_until_unlocked(&bench.server.path("lock"));
    let before = snapshot(&bench);
    assert_eq!(archived_names(&bench), 4, "each of the four is archived once");
    for path in all {
        push(&bench.client, path).ok();
        assert_eq!(before.differences(&snapshot(&bench)), Vec::<String>::new());
    }

    // what the client finds out itself
    for path in [&segment, &partial] {
        let mut bytes = fs::read(path).expect("the segment is readable");
        bytes[10_000_000] ^= 1;
        fs::write(path, bytes).expect("the segment can be changed");
        let text = push(&bench.client, path).fails_with(45);
        assert!(text.contains("already exists in the repo1 archive with a different checksum"), "{text}");
        assert_eq!(before.differences(&snapshot(&bench)), Vec::<String>::new());
    }
    // and what it would replace without asking
    for (path, text) in [(&history, "1\t0/4000000\tsomething else\n"), (&label, "START WAL LOCATION: 2/A0000028\n")] {
        fs::write(path, text).expect("the file can be changed");
        let output = push(&bench.client, path);
        assert_ne!(output.code, 0, "{} was replaced", path.display());
        let text = output.text();
        assert!(text.contains("raised from remote-0 tls protocol") || text.contains("localhost"), "{text}");
        assert_eq!(before.differences(&snapshot(&bench)), Vec::<String>::new());
    }
    // for an administrator it is no mistake
    bench.become_client(Role::Admin);
    push(&bench.client, &history).ok();
}

fn an_archiver_can_do_nothing_else(release: &str) {
    let mut bench = Bench::with_roles(release);
    let mut cluster = bench.with_cluster();
    bench.ok(&["backup", "--type=full"]);
    let label = bench.client.labels().remove(0);
    bench.become_client(Role::Archiver);
    let segment = cluster.archive();
    cluster.stop();
    wait_until_unlocked(&bench.server.path("lock"));

    let client = &bench.client;
    let before = Snapshot::of(&bench.server.repository());
    assert_needs(&client.run(&["annotate", "--set", &label, "--annotation=one=1"]), Role::Backup);
    for command in ["stanza-create", "stanza-upgrade"] {
        assert_needs(&client.run(&[command, "--no-online"]), Role::Admin);
    }
    if release != "2.45" {
        assert_needs(&client.run(&["backup", "--no-online"]), Role::Backup);
        assert_needs(&client.run(&["expire"]), Role::Admin);
    }
    let archived = archived_path(&bench.server.repository(), &segment);
    let name = archived.strip_prefix(bench.server.repository()).expect("it is in the repository").display().to_string();
    if release == "2.60.0" {
        assert_needs(&client.run(&["repo-rm", &name]), Role::Admin);
        assert_needs(&client.run(&["repo-rm", "--recurse", &format!("archive/{STANZA}/15-1")]), Role::Admin);
    } else {
        assert_needs(&client.run(&["repo-put", &name]), Role::Admin);
    }
    client.ok(&["stop"]);
    let output = client.run(&["stanza-delete", "--force"]);
    client.ok(&["start"]);
    assert_needs(&output, Role::Admin);
    before.assert_unchanged(&bench.server.repository());
}

fn encrypted(release: &str) -> Bench {
    let mut bench = Bench::with_roles(release);
    bench.server.config.set("global", "repo1-cipher-type", "aes-256-cbc");
    bench.server.config.set("global", "repo1-cipher-pass", "correct horse battery staple");
    bench
}

/// What is in the repository once nothing is under way in it: a refused client is told before what it
/// wrote is removed.
fn snapshot(bench: &Bench) -> Snapshot {
    let repository = bench.server.repository();
    wait_until("temporary files to go", SOON, || temporary_files(&repository).is_empty());
    Snapshot::of(&repository).without_directory_times()
}

/// A file beside the segments that `PostgreSQL` would have archived.
fn record(bench: &Bench, name: &str, text: &str) -> PathBuf {
    let path = bench.workspace.directory("segments").join(name);
    fs::write(&path, text).expect("the file can be written");
    own(&path);
    path
}

fn push(client: &Client, path: &Path) -> crate::harness::Output {
    client.run(&["archive-push", &path.display().to_string()])
}

/// How many files of those that the test pushed by hand are archived.
fn archived_names(bench: &Bench) -> usize {
    let files = crate::harness::files(&bench.server.repository().join("archive").join(STANZA).join("15-1"));
    let pushed = |name: &str| name.starts_with("0000000100000001000000A") || name.ends_with(".history");
    files.iter().filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(pushed)).count()
}

fn archived_path(repository: &Path, segment: &str) -> PathBuf {
    let files = crate::harness::files(&repository.join("archive"));
    let named = |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(segment));
    files.iter().find(named).expect("the segment is archived").clone()
}
