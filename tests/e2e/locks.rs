//! Locks and stop files are shared with the real `pgbackrest` on the repository host.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;

use crate::crashes::stopped_backup;
use crate::for_each_release;
use crate::harness::{Bench, LIMIT, hold_lock, own, wait_until_unlocked};

for_each_release! {
    a_stop_file_on_the_repository_host_stops_archiving_until_it_is_removed: always, always, always;
    a_stop_file_for_all_stanzas_stops_a_backup: never "its backup opens no session", always, always;
    a_lock_held_on_the_repository_host_stops_a_backup: never "its backup opens no session", always, always;
    a_backup_keeps_a_command_on_the_repository_host_waiting_outside: never "its backup opens no session", always, full;
    a_lock_file_left_by_a_dead_process_stops_nobody: always, always, always;
    a_lock_path_that_the_server_cannot_reach_is_named: full, full, always;
    two_backups_at_once_are_refused: never "its backup opens no session", full, always;
}

fn a_stop_file_on_the_repository_host_stops_archiving_until_it_is_removed(release: &str) {
    let mut bench = Bench::new(release);
    let cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0").display().to_string();

    bench.server.local(&["stop"]).ok();
    let text = bench.client.fails(103, &["archive-push", &segment]);
    assert!(
        text.contains("[StopError] raised from remote-0 tls protocol on 'localhost': stop file exists for stanza demo"),
        "{text}"
    );

    bench.server.local(&["start"]).ok();
    bench.client.ok(&["archive-push", &segment]);
}

fn a_stop_file_for_all_stanzas_stops_a_backup(release: &str) {
    let mut bench = Bench::new(release);
    let _cluster = bench.with_cluster();
    fs::write(bench.server.path("lock/all.stop"), "").expect("the stop file can be written");
    let text = bench.fails(62, &["backup"]);
    assert!(text.contains("stop file exists for all stanzas"), "{text}");
    fs::remove_file(bench.server.path("lock/all.stop")).expect("the stop file can be removed");
    bench.ok(&["backup"]);
}

fn a_lock_held_on_the_repository_host_stops_a_backup(release: &str) {
    let mut bench = Bench::new(release);
    let _cluster = bench.with_cluster();
    let path = bench.server.lock("backup");
    let mut lock = hold_lock(&path);
    lock.write_all(br#"{"execId":"1-deadbeef","pid":1}"#).expect("the lock file can be written");

    let text = bench.fails(50, &["backup"]);
    let expected = format!("unable to acquire lock on file '{}': Resource temporarily unavailable", path.display());
    assert!(text.contains(&expected), "{text}");
    assert!(text.contains("HINT: is another pgBackRest process running?"), "{text}");
    let content = fs::read_to_string(&path).expect("the lock file is still there");
    assert_eq!(content, r#"{"execId":"1-deadbeef","pid":1}"#, "another's lock file was written to");

    drop(lock);
    bench.ok(&["backup"]);
}

fn a_backup_keeps_a_command_on_the_repository_host_waiting_outside(release: &str) {
    let mut bench = Bench::new(release);
    let cluster = bench.with_cluster();
    cluster.fill(1);
    bench.ok(&["backup"]);

    let backup = stopped_backup(&bench, &[]);
    let lock = bench.server.lock("backup");
    let content: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&lock).expect("the lock file is there")).expect("it holds JSON");
    let owner = content["execId"].as_str().expect("an exec-id");
    assert!(owner.starts_with(&format!("{}-", backup.id())), "the lock names the client: {content}");
    let process = content["pid"].as_u64().expect("a process id");
    assert!(fs::exists(format!("/proc/{process}")).expect("/proc is readable"), "the lock names a live process");

    let text = bench.server.local(&["expire"]).fails_with(50);
    assert!(text.contains("Resource temporarily unavailable"), "{text}");

    backup.signal(Signal::CONT);
    backup.output(LIMIT).ok();
    wait_until_unlocked(&bench.server.path("lock"));
    bench.server.local(&["expire"]).ok();
    wait_until_unlocked(&bench.server.path("lock"));
}

fn a_lock_path_that_the_server_cannot_reach_is_named(release: &str) {
    let mut bench = Bench::new(release);
    let cluster = bench.with_cluster_only();
    // the server of the PostgreSQL host takes locks for each release
    let mut host = bench.serve_cluster(&cluster, 1);
    host.start();
    bench.client.ok(&["stanza-create"]);
    let place = host.path("lock");
    fs::set_permissions(&place, Permissions::from_mode(0o000)).expect("its mode can be set");
    let text = bench.run_at_repository(&["backup"]).text();
    let expected = format!("unable to get info for path/file '{}/demo.stop': [13] Permission denied", place.display());
    assert!(text.contains(&expected) && text.contains("have permissions on lock-path?"), "{text}");
    fs::set_permissions(&place, Permissions::from_mode(0o750)).expect("its mode can be set");
    bench.run_at_repository(&["backup"]).ok();
}

fn a_lock_file_left_by_a_dead_process_stops_nobody(release: &str) {
    let mut bench = Bench::new(release);
    let cluster = bench.with_cluster();
    let stale = r#"{"execId":"99999999-0123456789abcdef0123456789abcdef","pid":99999999,"sz":1,"szCplt":1}"#;
    wait_until_unlocked(&bench.server.path("lock"));
    for kind in ["archive", "backup"] {
        let lock = bench.server.lock(kind);
        fs::write(&lock, stale).expect("the lock file can be written");
        own(&lock);
    }
    cluster.archive();
    bench.ok(&["backup"]);
    wait_until_unlocked(&bench.server.path("lock"));
}

fn two_backups_at_once_are_refused(release: &str) {
    let mut bench = Bench::new(release);
    let cluster = bench.with_cluster();
    cluster.fill(1);
    let backup = stopped_backup(&bench, &[]);
    // another host's client, which does not see the first one's own locks
    let mut other = crate::harness::client::Client::new(&bench.server, "other");
    for key in ["pg1-path", "pg1-socket-path"] {
        other.config.set("demo", key, bench.client.config.value("demo", key));
    }
    let text = other.fails(50, &["backup"]);
    assert!(text.contains("unable to acquire lock on file"), "{text}");

    backup.signal(Signal::CONT);
    backup.output(LIMIT).ok();
    wait_until_unlocked(&bench.server.path("lock"));
    other.ok(&["backup"]);
}
