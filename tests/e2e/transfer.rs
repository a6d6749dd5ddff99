//! Sizes and layouts: buffers, files of every size, links in the repository, several repositories,
//! and a backup that goes on where another was interrupted.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::archiving::archived_segments;
use crate::crashes::{slow_down, stopped_backup_after};
use crate::for_each_release;
use crate::harness::postgres::Cluster;
use crate::harness::{Bench, SOON, STANZA, files, own, wait_until, wait_until_unlocked};

for_each_release! {
    files_of_every_size_come_back_through_small_buffers: full, always, full;
    files_of_every_size_come_back_through_large_buffers: always, full, always;
    a_file_of_5_gib_comes_back: full, full, full;
    unchanged_files_are_hard_links_where_asked_for: never "its backup makes the links without the server", always, full;
    an_interrupted_backup_is_resumed: never "its backup opens no session", full, always;
    files_go_over_the_network_as_the_configuration_says: never "its network compression is gz", always, always;
    two_repositories_hold_their_own_backups_and_one_is_enough: always, full, full;
}

fn files_of_every_size_come_back_through_small_buffers(release: &str) {
    files_of_every_size_come_back(release, "16KiB", "16MiB");
}

fn files_of_every_size_come_back_through_large_buffers(release: &str) {
    files_of_every_size_come_back(release, "16MiB", "16KiB");
}

/// The cluster does not run, so that every file of it can be compared.
fn files_of_every_size_come_back(release: &str, client: &str, server: &str) {
    let mut bench = Bench::new(release);
    bench.client.config.set("global", "buffer-size", client);
    bench.server.config.set("global", "buffer-size", server);
    let cluster = offline(&mut bench);
    for size in [0, 1, 16 << 10, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 16 << 20, (16 << 20) + 1] {
        add_file(&cluster.path.join(format!("base/5/edge-{size}")), size);
    }
    let expected = contents(&cluster.path);
    for (number, options) in [
        &["--compress-type=none"][..],
        &["--compress-type=zst", "--repo1-bundle", "--repo1-block", "--compress-level=1"],
        &["--compress-type=gz", "--compress-level=1"],
    ]
    .iter()
    .enumerate()
    {
        let mut backup = vec!["backup", "--no-online", "--type=full"];
        // 2.45 can store blocks but not verify them
        backup.extend(options.iter().filter(|option| release != "2.45" || **option != "--repo1-block"));
        bench.ok(&backup);
        let place = bench.workspace.directory(&format!("restored{number}/data"));
        bench.client.ok(&["restore", "--type=none", &format!("--pg1-path={}", place.display())]);
        let found = contents(&place);
        let names = expected.keys().chain(found.keys());
        let different: Vec<_> = names.filter(|name| expected.get(*name) != found.get(*name)).collect();
        assert_eq!(different, Vec::<&PathBuf>::new(), "files came back different with {options:?}");
        fs::remove_dir_all(place).expect("the restored files can be removed");
    }
    bench.client.verifies();
}

fn files_go_over_the_network_as_the_configuration_says(release: &str) {
    let mut bench = Bench::new(release);
    bench.set("compress-type", "none");
    let cluster = offline(&mut bench);
    let large = cluster.path.join("base/5/large");
    fs::write(&large, "a line that compresses well\n".repeat(2 << 20)).expect("the file can be written");
    own(&large);
    add_file(&cluster.path.join("base/5/random"), 8 << 20);
    let expected = contents(&cluster.path);
    let size: usize = expected.values().map(Vec::len).sum();
    bench.ok(&["backup", "--no-online", "--type=full"]);
    for (setting, sent) in [("never", size..2 * size), ("always", 8 << 20..size / 2), ("auto", 8 << 20..2 * size)] {
        bench.server.own_config.set("global", "network-compression", setting);
        bench.server.reload();
        let before = bench.server.log().len();
        let place = bench.workspace.directory(&format!("restored-{setting}/data"));
        bench.client.ok(&["restore", "--type=none", &format!("--pg1-path={}", place.display())]);
        assert_eq!(contents(&place), expected, "files came back different with {setting}");
        let ends = || {
            let log = bench.server.log().split_off(before);
            let ends = log.lines().filter(|line| line.contains("session end") && line.contains("command=restore"));
            ends.map(str::to_owned).collect::<Vec<_>>()
        };
        // the client's own session, and that of its worker
        wait_until("the sessions to end", SOON, || ends().len() == 2);
        let read = |line: &String| {
            let count = line.split("read=").nth(1).and_then(|rest| rest.split('B').next());
            count.and_then(|count| count.parse::<usize>().ok()).expect("the line tells what was read")
        };
        let total: usize = ends().iter().map(read).sum();
        assert!(sent.contains(&total), "{total} bytes of {size} with {setting}");
    }
}

fn a_file_of_5_gib_comes_back(release: &str) {
    let mut bench = Bench::new(release);
    bench.set("compress-type", "none");
    let cluster = offline(&mut bench);
    let large = cluster.path.join("base/5/large");
    let mut file = fs::File::create(&large).expect("the file can be made");
    own(&large);
    for number in 0..5 * 64_u64 {
        file.seek(SeekFrom::Start(number << 24)).expect("the file can be as large");
        file.write_all(format!("part {number}").as_bytes()).expect("the file can be written");
    }
    file.set_len(5 << 30).expect("the file can be as large");
    drop(file);
    let limit = Duration::from_secs(1_200);
    bench.start(&["backup", "--no-online", "--type=full"]).output(limit).ok();
    let label = bench.client.labels().remove(0);
    let stored = bench.server.path("repository/backup/demo").join(label).join("pg_data/base/5/large");
    assert_eq!(fs::metadata(stored).expect("the file is stored as it is").len(), 5 << 30);
    let place = bench.workspace.directory("restored/data");
    bench.client.start(&["restore", "--type=none", &format!("--pg1-path={}", place.display())]).output(limit).ok();
    let status = Command::new("cmp").arg(&large).arg(place.join("base/5/large")).status().expect("cmp starts");
    assert!(status.success(), "the file came back different");
}

fn unchanged_files_are_hard_links_where_asked_for(release: &str) {
    let mut bench = Bench::new(release);
    bench.set("repo1-hardlink", "y");
    bench.set("compress-type", "none");
    let mut cluster = bench.with_cluster();
    cluster.fill(1);
    bench.ok(&["backup", "--type=full"]);
    cluster.query("update pgbench_branches set bbalance = 1");
    cluster.query("checkpoint");
    bench.ok(&["backup", "--type=incr"]);
    cluster.archive();
    let rows = cluster.rows();
    let accounts = cluster.query("select pg_relation_filepath('pgbench_accounts')");
    let branches = cluster.query("select pg_relation_filepath('pgbench_branches')");
    cluster.stop();

    let labels = bench.client.labels();
    let inode = |label: &str, file: &str| {
        let path = bench.server.path("repository/backup/demo").join(label).join("pg_data").join(file);
        fs::metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).ino()
    };
    assert_eq!(inode(&labels[0], &accounts), inode(&labels[1], &accounts), "an unchanged file is stored twice");
    assert_ne!(inode(&labels[0], &branches), inode(&labels[1], &branches), "a changed file is linked");
    bench.client.verifies();
    let mut restored = Cluster::at(&bench.workspace, "restored");
    bench.client.ok(&["restore", &format!("--pg1-path={}", restored.path.display()), "--archive-mode=off"]);
    restored.start();
    assert_eq!(restored.rows(), rows);
    restored.stop();
}

fn an_interrupted_backup_is_resumed(release: &str) {
    let mut bench = Bench::new(release);
    slow_down(&mut bench);
    // what was copied counts as soon as the manifest is saved again
    bench.set("manifest-save-threshold", "1MiB");
    let mut cluster = bench.with_cluster();
    cluster.fill(3);
    cluster.query("checkpoint");

    let backup = stopped_backup_after(&bench, 10, &[]);
    let place = bench.server.path("repository/backup/demo");
    backup.signal(Signal::KILL);
    drop(backup);
    wait_until_unlocked(&bench.server.path("lock"));
    let left: Vec<PathBuf> = files(&place);
    assert!(left.iter().any(|path| path.ends_with("backup.manifest.copy")), "nothing to resume from: {left:?}");
    let before = bench.client.labels().len();
    // the client's own lock goes with the last of its processes
    wait_until("the client's processes to end", SOON, || {
        files(&bench.workspace.path().join("client/lock")).iter().all(|path| {
            fs::File::open(path).map_or(true, |file| {
                rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
            })
        })
    });

    let text = bench.ok(&["backup", "--type=full"]);
    assert!(text.contains("exists -- invalid files will be removed then the backup will resume"), "{text}");
    assert!(text.contains("checksum resumed file"), "{text}");
    cluster.archive();
    let rows = cluster.rows();
    cluster.stop();
    bench.client.verifies();
    assert_eq!(bench.client.labels().len(), before + 1);
    let mut restored = Cluster::at(&bench.workspace, "restored");
    bench.client.ok(&["restore", &format!("--pg1-path={}", restored.path.display()), "--archive-mode=off"]);
    restored.start();
    assert_eq!(restored.rows(), rows);
    restored.stop();
}

fn two_repositories_hold_their_own_backups_and_one_is_enough(release: &str) {
    let mut bench = Bench::new(release);
    let second = bench.workspace.directory("server/second");
    bench.server.config.set("global", "repo2-path", &second.display().to_string());
    for (key, value) in [("repo2-cipher-type", "aes-256-cbc"), ("repo2-cipher-pass", "another secret")] {
        bench.server.config.set("global", key, value);
        if release != "2.60.0" {
            // its info asks the repository host for the first repository's only
            bench.client.config.set("global", key, value);
        }
    }
    let kept = bench.client.config.value("global", "repo1-retention-full").to_owned();
    bench.set("repo2-retention-full", &kept);
    for name in ["host", "host-type", "host-port", "host-ca-file", "host-cert-file", "host-key-file"] {
        let value = bench.client.config.value("global", &format!("repo1-{name}")).to_owned();
        bench.client.config.set("global", &format!("repo2-{name}"), &value);
    }
    let mut cluster = bench.with_cluster();
    cluster.fill(1);
    bench.client.ok(&["check"]);
    bench.ok(&["backup", "--repo=1", "--type=full"]);
    cluster.query("update pgbench_branches set bbalance = 2");
    bench.ok(&["backup", "--repo=2", "--type=full"]);
    bench.ok(&["backup", "--repo=2", "--type=incr"]);
    cluster.archive();
    let rows = cluster.rows();
    cluster.stop();
    wait_until_unlocked(&bench.server.path("lock"));

    let info = bench.client.info();
    let keys: Vec<_> = info["backup"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|backup| backup["database"]["repo-key"].as_u64())
        .collect();
    assert_eq!(keys, [1, 2, 2], "{info}");
    let segments = archived_segments(&bench.server.repository());
    assert!(segments.len() >= 3);
    assert_eq!(archived_segments(&second), segments, "the archives differ");
    // but for the link to the latest backup
    for path in files(&second).iter().filter(|path| path.is_file()) {
        let start = fs::read(path).expect("the file is readable");
        assert!(start.is_empty() || start.starts_with(b"Salted__"), "{} is not encrypted", path.display());
    }
    for repository in ["--repo=1", "--repo=2"] {
        let text = bench.client.ok(&["verify", "--output=text", "--verbose", repository]);
        assert!(text.contains("status: ok"), "{text}");
    }

    // the first one is lost
    fs::rename(bench.server.repository(), bench.server.path("lost")).expect("the repository can be moved");
    let mut restored = Cluster::at(&bench.workspace, "restored");
    bench.client.ok(&["restore", &format!("--pg1-path={}", restored.path.display()), "--archive-mode=off"]);
    restored.start();
    assert_eq!(restored.rows(), rows);
    restored.stop();
}

/// A cluster that never runs, its stanza and its server.
fn offline(bench: &mut Bench) -> Cluster {
    let cluster = bench.create_cluster();
    bench.server.start();
    bench.client.ok(&["stanza-create", "--no-online"]);
    cluster
}

/// Makes a file of bytes that do not compress to nothing.
fn add_file(path: &Path, size: usize) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state >> 8).to_le_bytes());
    }
    bytes.truncate(size);
    fs::write(path, bytes).expect("the file can be written");
    own(path);
}

/// Every file of a cluster that a backup holds, but those that a restore changes.
fn contents(cluster: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let left_out = ["backup_label", "postgresql.auto.conf", "pg_wal", "postmaster.opts", "pg_subtrans"];
    let found: BTreeMap<_, _> = files(cluster)
        .into_iter()
        .filter_map(|path| {
            let name = path.strip_prefix(cluster).ok()?.to_owned();
            let kept = left_out.iter().all(|left_out| !name.starts_with(left_out));
            kept.then(|| (name, fs::read(&path).expect("the file is readable")))
        })
        .collect();
    assert!(found.len() > 300, "the cluster of stanza {STANZA} has {} files only", found.len());
    found
}
