//! Reading, writing, renaming and what else is done to single entries.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustix::io::Errno;

use super::*;

fn open_write(disk: &mut Tried, at: Location) -> File {
    file(run(disk, Operation::OpenWrite { at, mode: 0o640, fresh: false }))
}

fn open_read(disk: &mut Tried, at: Location) -> File {
    file(run(disk, Operation::OpenRead { at }))
}

#[test]
fn a_file_reads_back_as_it_was_written() {
    for mut disk in back_ends() {
        let base = tempfile::tempdir().unwrap();
        let root = Root::new(base.path());
        done(run(&mut disk, Operation::MakeDirectory { at: place(&root, "dir"), mode: 0o750 }));
        let at = || place(&root, "dir/file");
        let written = open_write(&mut disk, at());
        for (data, offset) in [("hello ", 0), ("world", 6)] {
            let write = Operation::Write { file: written.clone(), data: data.into(), offset };
            let Ok(Outcome::Written(returned)) = run(&mut disk, write) else { panic!("not written") };
            assert_eq!(returned, data.as_bytes());
        }
        done(run(&mut disk, Operation::SetTimes { file: written.clone(), modified: 1_700_000_000 }));
        done(run(&mut disk, Operation::Sync { file: written.clone() }));
        done(run(&mut disk, Operation::Close { file: written }));
        done(run(&mut disk, Operation::SyncDirectory { at: place(&root, "dir") }));

        let found = metadata(run(&mut disk, Operation::Stat { at: at(), follow: false, level: Level::Detail }));
        assert_eq!((found.kind, found.size, found.mode, found.modified), (Kind::File, 11, 0o640, 1_700_000_000));
        assert_eq!(found.uid, rustix::process::geteuid().as_raw());
        let read = open_read(&mut disk, at());
        for (length, offset, expected) in [(11, 0, "hello world"), (5, 3, "lo wo"), (64, 6, "world"), (8, 11, "")] {
            // A buffer that just fits, one with a little to spare, and one with much.
            for spare in [0, 1, 4096] {
                let mut buffer = Vec::with_capacity(length + 2 + spare);
                buffer.extend_from_slice(b"> ");
                let operation = Operation::Read { file: read.clone(), buffer, length, offset };
                assert_eq!(bytes(run(&mut disk, operation)), format!("> {expected}").as_bytes());
            }
        }
        // Opening again truncates and keeps the mode.
        std::fs::set_permissions(base.path().join("dir/file"), PermissionsExt::from_mode(0o600)).unwrap();
        open_write(&mut disk, at());
        let found = metadata(run(&mut disk, Operation::Stat { at: at(), follow: false, level: Level::Detail }));
        assert_eq!((found.size, found.mode), (0, 0o600));
    }
}

#[test]
fn each_level_tells_what_it_should_and_no_more() {
    let base = tempfile::tempdir().unwrap();
    write(base.path().join("file"), "four");
    link("file", base.path().join("link"));
    let root = Root::new(base.path());
    for mut disk in back_ends() {
        let mut stat =
            |path, level| metadata(run(&mut disk, Operation::Stat { at: place(&root, path), follow: false, level }));
        let exists = stat("link", Level::Exists);
        assert_eq!((exists.size, exists.modified, exists.mode), (0, 0, 0));
        let of_type = stat("link", Level::Type);
        assert_eq!((of_type.kind, of_type.modified, of_type.link_destination), (Kind::Link, 0, None));
        let basic = stat("file", Level::Basic);
        assert_eq!((basic.size, basic.mode, basic.user.clone()), (4, 0, None));
        assert!(basic.modified > 1_600_000_000);
        assert_eq!(stat("", Level::Basic).size, 0, "only files have a size");
        assert_eq!(stat("link", Level::Detail).link_destination, Some("file".into()));
    }
}

#[test]
fn a_directory_opens_for_reading_and_fails_at_the_first_read() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join("dir")).unwrap();
    let root = Root::new(base.path());
    for mut disk in back_ends() {
        let file = open_read(&mut disk, place(&root, "dir"));
        let read = Operation::Read { file, buffer: Vec::with_capacity(8), length: 8, offset: 0 };
        assert_eq!(errno(run(&mut disk, read)), Errno::ISDIR);
        let open = Operation::OpenWrite { at: place(&root, "dir"), mode: 0o640, fresh: false };
        assert_eq!(errno(run(&mut disk, open)), Errno::ISDIR);
    }
}

#[test]
fn a_pipe_stops_nobody() {
    let base = tempfile::tempdir().unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, base.path().join("pipe"), mode).unwrap();
    let root = Root::new(base.path());
    for mut disk in back_ends() {
        let open = Operation::OpenWrite { at: place(&root, "pipe"), mode: 0o640, fresh: false };
        assert_eq!(errno(run(&mut disk, open)), Errno::NXIO);
        let file = open_read(&mut disk, place(&root, "pipe"));
        let read = Operation::Read { file, buffer: Vec::with_capacity(8), length: 8, offset: 0 };
        assert_eq!(errno(run(&mut disk, read)), Errno::SPIPE);
        let stat = Operation::Stat { at: place(&root, "pipe"), follow: true, level: Level::Type };
        assert_eq!(metadata(run(&mut disk, stat)).kind, Kind::Special);
    }
}

#[test]
fn a_full_disk_is_reported() {
    let root = Root::new("/dev");
    for mut disk in back_ends() {
        let file = open_write(&mut disk, place(&root, "full"));
        let write = Operation::Write { file, data: b"x".to_vec(), offset: 0 };
        assert_eq!(errno(run(&mut disk, write)), Errno::NOSPC);
    }
}

#[test]
fn a_write_to_a_file_opened_for_reading_is_an_error() {
    let base = tempfile::tempdir().unwrap();
    write(base.path().join("file"), "text");
    let root = Root::new(base.path());
    for mut disk in back_ends() {
        let file = open_read(&mut disk, place(&root, "file"));
        let write = Operation::Write { file, data: b"x".to_vec(), offset: 0 };
        assert_eq!(errno(run(&mut disk, write)), Errno::BADF);
    }
}

#[test]
fn closing_one_clone_of_a_handle_leaves_the_others_usable() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::new(base.path());
    for mut disk in back_ends() {
        let file = open_write(&mut disk, place(&root, "file"));
        done(run(&mut disk, Operation::Close { file: file.clone() }));
        let write = Operation::Write { file: file.clone(), data: b"x".to_vec(), offset: 0 };
        assert!(matches!(run(&mut disk, write), Ok(Outcome::Written(_))));
        done(run(&mut disk, Operation::Close { file }));
    }
}

#[test]
fn renames_replace_what_is_there() {
    for mut disk in back_ends() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("dir")).unwrap();
        for path in ["file.tmp", "file", "dir/file.tmp"] {
            write(base.path().join(path), path);
        }
        let root = Root::new(base.path());
        let mut rename = |from, to| {
            run(
                &mut disk,
                Operation::Rename { over: Over::Anything, file: None, from: place(&root, from), to: place(&root, to) },
            )
        };
        done(rename("file.tmp", "file"));
        assert_eq!(std::fs::read_to_string(base.path().join("file")).unwrap(), "file.tmp");
        done(rename("dir/file.tmp", "dir/file"));
        done(rename("dir/file", "file"));
        assert_eq!(std::fs::read_to_string(base.path().join("file")).unwrap(), "dir/file.tmp");
        assert_eq!(errno(rename("missing", "file")), Errno::NOENT);
        assert_eq!(errno(rename("file", "missing/file")), Errno::NOENT);
        assert_eq!(errno(rename("file", "dir")), Errno::ISDIR);
    }
}

#[test]
fn directories_files_and_links_are_made_and_removed() {
    for mut disk in back_ends() {
        let base = tempfile::tempdir().unwrap();
        let root = Root::new(base.path());
        let at = |path| place(&root, path);
        done(run(&mut disk, Operation::MakeDirectory { at: at("a"), mode: 0o750 }));
        done(run(&mut disk, Operation::MakeDirectory { at: at("a/b"), mode: 0o700 }));
        assert_eq!(std::fs::metadata(base.path().join("a/b")).unwrap().mode() & 0o7777, 0o700);
        let again = Operation::MakeDirectory { at: at("a"), mode: 0o750 };
        assert_eq!(errno(run(&mut disk, again)), Errno::EXIST);
        let without_parent = Operation::MakeDirectory { at: at("x/y"), mode: 0o750 };
        assert_eq!(errno(run(&mut disk, without_parent)), Errno::NOENT);

        write(base.path().join("a/file"), "text");
        done(run(&mut disk, Operation::SymbolicLink { target: "a".into(), at: at("latest") }));
        done(run(&mut disk, Operation::HardLink { target: at("latest/file"), at: at("a/b/second") }));
        let second = std::fs::metadata(base.path().join("a/b/second")).unwrap();
        assert_eq!(second.nlink(), 2);
        let taken = Operation::HardLink { target: at("a/file"), at: at("a/b/second") };
        assert_eq!(errno(run(&mut disk, taken)), Errno::EXIST);
        let taken = Operation::SymbolicLink { target: "a".into(), at: at("latest") };
        assert_eq!(errno(run(&mut disk, taken)), Errno::EXIST);

        assert_eq!(errno(run(&mut disk, Operation::RemoveDirectory { at: at("a") })), Errno::NOTEMPTY);
        assert_eq!(errno(run(&mut disk, Operation::RemoveFile { at: at("a") })), Errno::ISDIR);
        assert_eq!(errno(run(&mut disk, Operation::RemoveDirectory { at: at("latest") })), Errno::NOTDIR);
        done(run(&mut disk, Operation::RemoveFile { at: at("latest") }));
        done(run(&mut disk, Operation::RemoveFile { at: at("a/b/second") }));
        done(run(&mut disk, Operation::RemoveFile { at: at("a/file") }));
        assert_eq!(errno(run(&mut disk, Operation::RemoveFile { at: at("a/file") })), Errno::NOENT);
        done(run(&mut disk, Operation::RemoveDirectory { at: at("a/b") }));
        done(run(&mut disk, Operation::RemoveDirectory { at: at("a") }));
        assert_eq!(errno(run(&mut disk, Operation::RemoveDirectory { at: at("a") })), Errno::NOENT);
    }
}

#[test]
fn times_are_set_on_the_open_file_and_not_on_what_has_its_name_now() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::new(base.path());
    for mut disk in back_ends() {
        let at = || place(&root, "file");
        let written = file(run(&mut disk, Operation::OpenWrite { at: at(), mode: 0o640, fresh: true }));
        std::fs::rename(base.path().join("file"), base.path().join("moved")).unwrap();
        write(base.path().join("file"), "another");
        let before = std::fs::metadata(base.path().join("file")).unwrap().mtime();
        done(run(&mut disk, Operation::SetTimes { file: written, modified: 5 }));
        assert_eq!(std::fs::metadata(base.path().join("file")).unwrap().mtime(), before);
        let moved = std::fs::metadata(base.path().join("moved")).unwrap();
        assert_eq!((moved.mtime(), moved.atime()), (5, 5));
    }
}

#[test]
fn a_directory_that_cannot_be_synced_says_which_part_failed() {
    let base = tempfile::tempdir().unwrap();
    write(base.path().join("file"), "text");
    let root = Root::new(base.path());
    for mut disk in back_ends() {
        for (path, expected) in [("missing", Errno::NOENT), ("file", Errno::NOTDIR)] {
            let sync = Operation::SyncDirectory { at: place(&root, path) };
            assert_eq!(failed(run(&mut disk, sync)), (expected, Step::Open));
        }
    }
}

/// A back end in whose tables the present user is `me` and 12345 is `postgres`.
fn with_names(base: &Path) -> Tried {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let (passwd, group) = (base.join("passwd"), base.join("group"));
    write(&passwd, &format!("me:x:{uid}:{gid}::/:\npostgres:x:12345:12346::/:\n"));
    write(&group, &format!("mine:x:{gid}:\npostgres:x:12346:\n"));
    Tried::inline(Options { passwd, group, ..Options::default() })
}

fn set_owner(file: &File, user: Option<&str>, group: Option<&str>) -> Operation {
    Operation::SetOwner { file: file.clone(), user: user.map(str::to_owned), group: group.map(str::to_owned) }
}

#[test]
fn owners_that_nobody_knows_or_that_are_right_are_left_alone() {
    let base = tempfile::tempdir().unwrap();
    let mut disk = with_names(base.path());
    let root = Root::new(base.path());
    let file = open_write(&mut disk, place(&root, "file"));
    for (user, group) in [(None, None), (Some("nobody-at-all"), Some("nor-they")), (Some("me"), Some("mine"))] {
        done(run(&mut disk, set_owner(&file, user, group)));
    }
    let stat = Operation::Stat { at: place(&root, "file"), follow: false, level: Level::Detail };
    let found = metadata(run(&mut disk, stat));
    assert_eq!((found.user.as_deref(), found.group.as_deref()), (Some("me"), Some("mine")));
}

#[test]
fn giving_a_file_away_works_for_the_superuser_and_is_refused_to_others() {
    let base = tempfile::tempdir().unwrap();
    let mut disk = with_names(base.path());
    let root = Root::new(base.path());
    let file = open_write(&mut disk, place(&root, "file"));
    let completion = run(&mut disk, set_owner(&file, Some("postgres"), None));
    if is_superuser() {
        done(completion);
        assert_eq!(std::fs::metadata(base.path().join("file")).unwrap().uid(), 12345);
    } else {
        assert!(matches!(failed(completion), (Errno::PERM, Step::ChangeOwner(_))));
    }
}

#[test]
fn a_refused_change_of_owner_tells_all_that_its_text_needs() {
    let base = tempfile::tempdir().unwrap();
    let mut disk = with_names(base.path());
    write(base.path().join("file"), "text");
    // A handle without rights, on which even the superuser's change fails.
    let handle = rustix::fs::open(base.path().join("file"), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty());
    let file = File::from(handle.unwrap());
    let (errno, step) = failed(run(&mut disk, set_owner(&file, Some("postgres"), Some("unknown"))));
    let change = OwnerChange {
        uid: Some(12345),
        gid: None,
        current_uid: rustix::process::geteuid().as_raw(),
        current_user: Some("me".into()),
        current_gid: rustix::process::getegid().as_raw(),
        current_group: Some("mine".into()),
    };
    assert_eq!((errno, step), (Errno::BADF, Step::ChangeOwner(Box::new(change))));
}

#[test]
fn missing_permissions_are_an_error_except_for_the_superuser() {
    let base = tempfile::tempdir().unwrap();
    let closed = base.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    write(closed.join("file"), "text");
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o000)).unwrap();
    let root = Root::new(base.path());
    for mut disk in back_ends() {
        for operation in [
            Operation::OpenRead { at: place(&root, "closed/file") },
            Operation::Stat { at: place(&root, "closed/file"), follow: false, level: Level::Basic },
            Operation::List { at: place(&root, "closed"), level: Level::Basic },
        ] {
            let completion = run(&mut disk, operation);
            if is_superuser() {
                completion.expect("the superuser may do anything");
            } else {
                assert_eq!(errno(completion), Errno::ACCESS);
            }
        }
    }
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
}
