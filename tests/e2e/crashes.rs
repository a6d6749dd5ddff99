//! Whoever dies, no half file stands under a final name and nobody is locked out.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;

use crate::archiving::assert_whole_segments;
use crate::for_each_release;
use crate::harness::postgres::Cluster;
use crate::harness::{Bench, LIMIT, Process, SOON, STANZA, files, temporary_files, wait_until, wait_until_unlocked};

for_each_release! {
    a_client_killed_while_it_pushes_leaves_no_temporary_file_and_no_lock: always, always, always;
    a_client_killed_during_a_backup_leaves_no_temporary_file_and_no_lock:
        never "its backup opens no session", always, full;
    a_server_killed_under_load_loses_no_segment_and_locks_nobody_out: always, full, always;
    a_server_killed_during_a_backup_lets_the_next_one_pass: never "its backup opens no session", full, always;
}

fn a_client_killed_while_it_pushes_leaves_no_temporary_file_and_no_lock(release: &str) {
    let mut bench = Bench::new(release);
    slow_down(&mut bench);
    let cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0");

    let push = stopped_while_it_pushes(&bench, &segment);
    push.signal(Signal::KILL);
    drop(push);

    assert_nothing_is_left(&bench);
    bench.client.ok(&["archive-push", &segment.display().to_string()]);
    assert!(assert_whole_segments(&bench.server.repository()) >= 1);
}

fn a_client_killed_during_a_backup_leaves_no_temporary_file_and_no_lock(release: &str) {
    let mut bench = Bench::new(release);
    slow_down(&mut bench);
    bench.set("process-max", "2");
    let cluster = bench.with_cluster();
    cluster.fill(2);

    let backup = stopped_backup(&bench, &[]);
    backup.signal(Signal::KILL);
    drop(backup);

    assert_nothing_is_left(&bench);
    bench.ok(&["backup", "--type=full"]);
    bench.client.verifies();
}

fn a_server_killed_under_load_loses_no_segment_and_locks_nobody_out(release: &str) {
    let mut bench = Bench::new(release);
    slow_down(&mut bench);
    let cluster = bench.with_cluster();
    cluster.fill(1);
    let load = cluster.load();
    for _ in 0..3 {
        let segment = half_written_segment(&bench, &cluster);
        bench.server.kill();
        assert_whole_segments(&bench.server.repository());
        bench.server.start();
        // a new segment wakes the archiver, which may have given up for a minute
        cluster.archive();
        cluster.wait_until_archived(&segment);
    }
    drop(load);
    cluster.archive();
    bench.ok(&["backup", "--type=full"]);
    cluster.archive();

    assert!(assert_whole_segments(&bench.server.repository()) >= 6);
    assert_eq!(temporary_files(&bench.server.repository()), Vec::<PathBuf>::new());
    bench.client.verifies();
}

fn a_server_killed_during_a_backup_lets_the_next_one_pass(release: &str) {
    let mut bench = Bench::new(release);
    slow_down(&mut bench);
    let cluster = bench.with_cluster();
    cluster.fill(2);

    let backup = stopped_backup(&bench, &[]);
    bench.server.kill();
    backup.signal(Signal::CONT);
    let output = backup.output(LIMIT);
    assert_ne!(output.code, 0, "a backup without a server: {}", output.text());
    bench.server.start();

    bench.ok(&["backup", "--type=full"]);
    bench.client.verifies();
    assert_eq!(temporary_files(&bench.server.repository()), Vec::<PathBuf>::new());
}

/// Makes transfers take long enough to be caught in the middle.
pub(crate) fn slow_down(bench: &mut Bench) {
    bench.set("compress-type", "none");
    bench.set("buffer-size", "16KiB");
}

/// A push that stands still while its segment lies half-written in the repository.
pub(crate) fn stopped_while_it_pushes(bench: &Bench, segment: &Path) -> Process {
    let repository = bench.server.repository();
    for _ in 0..50 {
        let mut push = bench.client.start(&["archive-push", &segment.display().to_string()]);
        while push.ended().is_none() {
            if !archive_temporary_files(&repository).is_empty() {
                push.signal(Signal::STOP);
                break;
            }
        }
        if push.ended().is_none() && !archive_temporary_files(&repository).is_empty() {
            return push;
        }
        // it was quicker than the look at the directory: once more
        push.signal(Signal::CONT);
        push.output(SOON).ok();
        let name = segment.file_name().and_then(|name| name.to_str()).expect("segments have names");
        for path in files(&repository.join("archive")) {
            if path.to_string_lossy().contains(name) {
                fs::remove_file(path).expect("the segment can be removed");
            }
        }
    }
    panic!("no push could be caught in the middle");
}

/// A full backup that has begun to write files and stands still, where its release runs it.
pub(crate) fn stopped_backup(bench: &Bench, arguments: &[&str]) -> Process {
    stopped_backup_after(bench, 1, arguments)
}

/// A full backup that has written some files of databases and stands still.
pub(crate) fn stopped_backup_after(bench: &Bench, count: usize, arguments: &[&str]) -> Process {
    let mut all = vec!["backup", "--type=full"];
    all.extend(arguments);
    let place = bench.server.repository().join("backup").join(STANZA);
    let written = || {
        let is_whole = |path: &Path| path.extension().is_none_or(|extension| extension != "tmp");
        let is_in_database = |path: &Path| path.components().any(|part| part.as_os_str() == "base");
        files(&place).iter().filter(|path| is_whole(path) && is_in_database(path)).count()
    };
    for _ in 0..10 {
        // those of a backup that was over too soon
        let before = written();
        let mut backup = bench.start(&all);
        while backup.ended().is_none() {
            if written() >= before + count {
                backup.signal(Signal::STOP);
                if backup.ended().is_none() {
                    return backup;
                }
            }
            // the backup needs the processor that looking takes
            thread::sleep(Duration::from_millis(5));
        }
        backup.output(SOON).ok();
        wait_until_unlocked(&bench.server.path("lock"));
    }
    panic!("no backup could be caught in the middle");
}

/// Insists that the server tidies up after a client that is gone.
fn assert_nothing_is_left(bench: &Bench) {
    wait_until("temporary files to go", SOON, || temporary_files(&bench.server.repository()).is_empty());
    // the client's own lock goes with the last of its processes
    let locks = [bench.server.path("lock"), bench.workspace.path().join("client/lock")];
    wait_until("locks to be free", SOON, || {
        locks.iter().flat_map(|place| files(place)).all(|path| {
            // a lock file that vanished meanwhile is free, too
            fs::File::open(path).map_or(true, |file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok())
        })
    });
}

/// Switches segments until one of them is seen half-written in the repository; its name.
fn half_written_segment(bench: &Bench, cluster: &Cluster) -> String {
    for _ in 0..50 {
        let segment = cluster.switch_wal();
        let archived = || cluster.query("select last_archived_wal from pg_stat_archiver").as_str() >= segment.as_str();
        while !archived() {
            let look = Instant::now() + Duration::from_millis(500);
            while Instant::now() < look {
                if !archive_temporary_files(&bench.server.repository()).is_empty() {
                    return segment;
                }
            }
        }
    }
    panic!("no segment was seen half-written");
}

fn archive_temporary_files(repository: &Path) -> Vec<PathBuf> {
    temporary_files(&repository.join("archive").join(STANZA))
}
