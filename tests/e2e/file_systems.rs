//! File systems that are not like others: see [`crate::harness::fuse`].

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::archiving::archived_segments;
use crate::for_each_release;
use crate::harness::fuse::{Call, FuseDisk, Inodes, Traits};
use crate::harness::postgres::Cluster;
use crate::harness::roles::Role;
use crate::harness::{
    Bench, Case, Compress, Layout, SOON, Workspace, temporary_files, wait_until, wait_until_unlocked,
};

for_each_release! {
    an_archiver_archives_once_without_hard_links: always, always, always;
    an_archiver_archives_once_where_inode_numbers_change: always, always, always;
    backups_live_without_hard_links: full, always, full;
    backups_live_where_each_name_has_new_inode_numbers: always, full, full;
    backups_live_where_each_look_sees_new_inode_numbers: full, full, always;
    a_whole_host_lives_where_inode_numbers_change: full, full, always;
    check_says_where_names_can_be_taken_twice: never "our own command", never "our own command", always;
}

const WITHOUT_LINKS: Traits = Traits { links: false, inodes: Inodes::Stable, direct: false };

fn an_archiver_archives_once_without_hard_links(release: &str) {
    archives_once(release, WITHOUT_LINKS);
}

fn an_archiver_archives_once_where_inode_numbers_change(release: &str) {
    for inodes in [Inodes::NewAtEachLookup, Inodes::NewAtEachLook] {
        archives_once(release, Traits { inodes, ..WITHOUT_LINKS });
    }
}

fn archives_once(release: &str, traits: Traits) {
    let mut bench = Bench::with_roles(release);
    let repository = bench.server.repository();
    let _disk = FuseDisk::mount(&repository, traits);
    let mut cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0");
    cluster.stop();
    bench.become_client(Role::Archiver);
    let history = segment.with_file_name("00000002.history");
    fs::write(&history, "1\t0/3000000\tno recovery target specified\n").unwrap();
    let push = |path: &PathBuf| bench.client.run(&["archive-push", &path.display().to_string()]);
    for path in [&segment, &history, &segment, &history] {
        push(path).ok();
    }
    // another one of the same segment, and another history
    let mut bytes = fs::read(&segment).unwrap();
    bytes[10_000_000] ^= 1;
    fs::write(&segment, bytes).unwrap();
    push(&segment).fails_with(45);
    fs::write(&history, "1\t0/4000000\tsomething else\n").unwrap();
    assert_ne!(push(&history).code, 0, "a history is replaced");
    assert!(archived_segments(&repository).iter().any(|(name, _)| name == "0000000100000001000000A0"));
    wait_until_unlocked(&bench.server.path("lock"));
    // the client is told before the rest is removed
    wait_until("temporary files to go", SOON, || temporary_files(&repository).is_empty());
}

fn backups_live_without_hard_links(release: &'static str) {
    backups_live(release, WITHOUT_LINKS);
}

fn backups_live_where_each_name_has_new_inode_numbers(release: &'static str) {
    backups_live(release, Traits { inodes: Inodes::NewAtEachLookup, ..Traits::default() });
}

fn backups_live_where_each_look_sees_new_inode_numbers(release: &'static str) {
    backups_live(release, Traits { inodes: Inodes::NewAtEachLook, ..Traits::default() });
}

/// Backs up, restores and expires with all that protects a repository.
fn backups_live(release: &'static str, traits: Traits) {
    let mut bench = Bench::of(Case {
        release,
        compress: Compress::Lz4,
        encrypt: false,
        layout: Layout::Bundles,
        archive_async: false,
        process_max: 2,
    });
    let versions = bench.workspace.directory("versions").display().to_string();
    bench.server.own_config.set("global", "history-path", &versions);
    bench.server.own_config.set("global", "min-age", "1s");
    bench.set("repo1-retention-full", "1");
    let repository = bench.server.repository();
    let disk = FuseDisk::mount(&repository, traits);
    let mut cluster = bench.with_cluster();
    bench.client.ok(&["check"]);
    cluster.fill(1);
    bench.ok(&["backup", "--type=full"]);
    bench.ok(&["backup", "--type=incr"]);
    cluster.archive();
    let rows = cluster.rows();
    let mut restored = Cluster::at(&bench.workspace, "restored");
    bench.client.ok(&["restore", &format!("--pg1-path={}", restored.path.display()), "--archive-mode=off"]);
    restored.start();
    assert_eq!(restored.rows(), rows);
    restored.stop();

    // min-age
    let before = bench.client.labels();
    thread::sleep(Duration::from_secs(2));
    bench.ok(&["backup", "--type=full"]);
    let labels = bench.client.labels();
    assert!(labels.len() == 1 && !before.contains(&labels[0]), "{before:?} should have expired: {labels:?}");
    bench.client.verifies();
    cluster.stop();
    wait_until_unlocked(&bench.server.path("lock"));
    assert_eq!(temporary_files(&repository), Vec::<PathBuf>::new());
    assert!(disk.count(Call::Rename) > 20);
    // 2.45 writes what backups change by itself
    if release != "2.45" && !bench.server.is_original {
        assert!(fs::read_dir(versions).unwrap().count() > 0, "no version was kept");
    }
    assert_eq!(bench.server.terminate(), 0);
}

/// Configuration, locks, status socket and all.
fn a_whole_host_lives_where_inode_numbers_change(release: &str) {
    for inodes in [Inodes::NewAtEachLookup, Inodes::NewAtEachLook] {
        let mut bench = Bench::new(release);
        // mounted before anything is started from there
        let _disk = FuseDisk::mount(&bench.server.path(""), Traits { inodes, ..Traits::default() });
        let mut cluster = bench.with_cluster();
        for number in 0..4 {
            let segment = cluster.copy_segment(&format!("0000000100000001000000A{number}"));
            bench.client.ok(&["archive-push", &segment.display().to_string()]);
        }
        cluster.stop();
        wait_until_unlocked(&bench.server.path("lock"));
        bench.server.reload();
        bench.client.ok(&["info"]);
        assert_eq!(bench.server.terminate(), 0);
    }
}

fn check_says_where_names_can_be_taken_twice(release: &str) {
    let mut bench = Bench::with_roles(release);
    let repository = bench.server.repository();
    bench.server.write_config();
    let warning = format!("the file system of repository '{}' has neither hard links", repository.display());
    let told = |bench: &Bench| {
        let text = bench.server.own_command(&["check"]).fails_with(0);
        assert!(text.contains("configuration is good"), "{text}");
        assert_eq!(fs::read_dir(&repository).unwrap().count(), 0, "the trial has left something");
        text.contains(&warning)
    };
    assert!(!told(&bench), "nothing is wrong with this one");
    let _disk = FuseDisk::mount(&repository, WITHOUT_LINKS);
    assert!(told(&bench));
    for role in Role::ALL {
        bench.server.own_config.set(&format!("client:{}", role.subject()), "role", "admin");
    }
    bench.server.write_config();
    assert!(!told(&bench), "administrators may replace what they like");
}

#[test]
fn a_file_system_of_the_tests_shows_what_is_there_and_keeps_what_is_written() {
    let workspace = Workspace::new();
    let directory = workspace.directory("disk");
    fs::write(directory.join("before"), "before").unwrap();
    let disk = FuseDisk::mount(&directory, Traits::default());
    assert_eq!(fs::read(directory.join("before")).unwrap(), b"before");
    fs::create_dir(directory.join("new")).unwrap();
    let at = |name: &str| directory.join("new").join(name);
    let mut file = File::create_new(at("file")).unwrap();
    file.write_all(&vec![7; 3 << 20]).unwrap();
    file.sync_all().unwrap();
    fs::set_permissions(at("file"), fs::Permissions::from_mode(0o604)).unwrap();
    fs::hard_link(at("file"), at("linked")).unwrap();
    fs::rename(at("file"), at("renamed")).unwrap();
    let busy = renameat_with(CWD, at("renamed"), CWD, at("linked"), RenameFlags::NOREPLACE);
    assert_eq!(busy, Err(Errno::EXIST));
    fs::remove_file(at("linked")).unwrap();
    std::os::unix::fs::symlink("renamed", at("link")).unwrap();
    assert_eq!(fs::read_link(at("link")).unwrap().to_str(), Some("renamed"));
    let mut names: Vec<_> = fs::read_dir(at("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["link", "renamed"]);
    // what is open outlives its name
    fs::remove_file(at("renamed")).unwrap();
    assert_eq!((file.metadata().unwrap().nlink(), file.metadata().unwrap().mode() & 0o777), (0, 0o604));
    assert!(disk.count(Call::Write) >= 3);
    drop((file, disk));
    assert_eq!(fs::read(directory.join("before")).unwrap(), b"before", "without the file system");
    assert!(directory.join("new/link").is_symlink());
}

#[test]
fn a_slow_file_system_of_the_tests_answers_others_meanwhile() {
    let workspace = Workspace::new();
    let directory = workspace.directory("disk");
    fs::write(directory.join("file"), "").unwrap();
    let disk = FuseDisk::mount(&directory, Traits { direct: true, ..Traits::default() });
    let delay = Duration::from_secs(3);
    disk.delay(Call::Write, delay);
    let (begun, path) = (Instant::now(), directory.join("file"));
    let writer = thread::spawn(move || File::options().write(true).open(path).unwrap().write_all_at(b"slow", 0));
    while disk.count(Call::Write) == 0 {
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::metadata(directory.join("file")).unwrap();
    }
    writer.join().unwrap().unwrap();
    assert!(begun.elapsed() >= delay);
    assert!(disk.count(Call::ReadDirectory) > 1 && disk.count(Call::GetAttributes) > 1);
}

#[test]
fn a_file_system_of_the_tests_lacks_what_it_is_told_to_lack() {
    let workspace = Workspace::new();
    let directory = workspace.directory("disk");
    let at = |name: &str| directory.join(name);
    for inodes in [Inodes::Stable, Inodes::NewAtEachLookup, Inodes::NewAtEachLook] {
        let disk = FuseDisk::mount(&directory, Traits { links: false, inodes, ..Traits::default() });
        let file = File::create(at("file")).unwrap();
        let open = || file.metadata().unwrap().ino();
        let named = || fs::metadata(at("file")).unwrap().ino();
        assert_eq!(open() == open(), inodes != Inodes::NewAtEachLook);
        assert_eq!(named() == named(), inodes == Inodes::Stable);
        assert_eq!(fs::hard_link(at("file"), at("other")).unwrap_err().raw_os_error(), Some(1));
        let renamed = renameat_with(CWD, at("file"), CWD, at("other"), RenameFlags::NOREPLACE);
        assert_eq!(renamed, Err(Errno::INVAL));
        let before = file.metadata().unwrap().ctime();
        disk.shift_changes(3600);
        assert_eq!(file.metadata().unwrap().ctime(), before + 3600);
    }
}
