//! File systems that are not like others: see [`crate::harness::fuse`].

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::harness::Workspace;
use crate::harness::fuse::{Call, FuseDisk, Inodes, Traits};

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
