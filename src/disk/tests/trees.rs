//! Listings and the removal of trees.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use bstr::BString;
use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
use rustix::io::Errno;

use super::*;

fn entries(completion: Completion) -> (Vec<Entry>, Option<Listing>) {
    match completion {
        Ok(Outcome::Entries(entries, rest)) => (entries, rest),
        other => panic!("no entries: {other:?}"),
    }
}

fn list(disk: &mut Tried, at: Location, level: Level) -> (Vec<Entry>, usize) {
    let (mut all, mut rest) = entries(run(disk, Operation::List { at, level }));
    let mut slices = 1;
    while let Some(listing) = rest {
        let (more, left) = entries(run(disk, Operation::ListMore { listing }));
        assert!(more.len() <= 256);
        all.extend(more);
        rest = left;
        slices += 1;
    }
    (all, slices)
}

/// Removes to the end and tells in how many slices.
fn remove(disk: &mut Tried, at: Location) -> Result<u32, Failure> {
    let mut slices = 1;
    let mut outcome = run(disk, Operation::RemoveTree { at })?;
    loop {
        match outcome {
            Outcome::Removed(None) => return Ok(slices),
            Outcome::Removed(Some(removal)) => outcome = run(disk, Operation::RemoveMore { removal })?,
            other => panic!("not removed: {other:?}"),
        }
        slices += 1;
    }
}

#[test]
fn a_listing_names_every_entry_once_in_bounded_slices() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::new(base.path());
    for mut disk in back_ends() {
        for (count, expected_slices) in [(0, 1), (1, 1), (256, 1), (257, 2), (1000, 4)] {
            let directory = format!("dir-{count}");
            let path = base.path().join(&directory);
            let expected: BTreeSet<BString> = (0..count).map(|number| format!("{number:024}").into()).collect();
            if std::fs::create_dir(&path).is_ok() {
                for name in &expected {
                    write(path.join(name.to_string()), "");
                }
            }
            for level in [Level::Exists, Level::Basic] {
                let (found, slices) = list(&mut disk, place(&root, &directory), level);
                assert_eq!(found.len(), count);
                assert_eq!(found.into_iter().map(|entry| entry.name).collect::<BTreeSet<_>>(), expected);
                assert!(slices >= expected_slices, "{count} entries in {slices} slices");
            }
        }
    }
}

#[test]
fn a_listing_tells_kinds_sizes_and_destinations() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(base.path().join("top/dir")).unwrap();
    write(base.path().join("top/file"), "four");
    link("../elsewhere", base.path().join("top/link"));
    let root = Root::new(base.path());
    for mut disk in back_ends() {
        let mut seen = |level| {
            let (mut found, _) = list(&mut disk, place(&root, "top"), level);
            found.sort_by(|a, b| a.name.cmp(&b.name));
            found
        };
        let kinds: Vec<_> = seen(Level::Type).into_iter().map(|entry| (entry.name, entry.metadata.kind)).collect();
        let expected = [("dir", Kind::Directory), ("file", Kind::File), ("link", Kind::Link)];
        assert_eq!(kinds, expected.map(|(name, kind)| (name.into(), kind)));
        let [dir, file, link] = seen(Level::Detail).try_into().unwrap();
        assert_eq!((dir.metadata.size, file.metadata.size), (0, 4));
        assert_eq!(link.metadata.link_destination, Some("../elsewhere".into()));
        assert!(file.metadata.modified > 1_600_000_000);
    }
}

#[test]
fn entries_that_vanish_during_a_listing_are_left_out() {
    for mut disk in back_ends() {
        let base = tempfile::tempdir().unwrap();
        for number in 0..600 {
            write(base.path().join(number.to_string()), "");
        }
        let root = Root::new(base.path());
        let (first, rest) = entries(run(&mut disk, Operation::List { at: place(&root, ""), level: Level::Basic }));
        assert!((1..=256).contains(&first.len()), "{}", first.len());
        for entry in std::fs::read_dir(base.path()).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let mut rest = rest;
        while let Some(listing) = rest {
            let (more, left) = entries(run(&mut disk, Operation::ListMore { listing }));
            assert_eq!(more, []);
            rest = left;
        }
    }
}

#[test]
fn what_is_not_a_directory_cannot_be_listed_or_emptied() {
    let base = tempfile::tempdir().unwrap();
    write(base.path().join("file"), "");
    let root = Root::new(base.path());
    for mut disk in back_ends() {
        for (path, expected) in [("missing", Errno::NOENT), ("file", Errno::NOTDIR), ("file/below", Errno::NOTDIR)] {
            let listing = Operation::List { at: place(&root, path), level: Level::Basic };
            assert_eq!(errno(run(&mut disk, listing)), expected, "{path}");
            let removal = Operation::RemoveTree { at: place(&root, path) };
            assert_eq!(failed(run(&mut disk, removal)), (expected, Step::Listing), "{path}");
        }
        let nowhere = Root::new(base.path().join("nowhere"));
        let listing = Operation::List { at: place(&nowhere, ""), level: Level::Basic };
        assert_eq!(errno(run(&mut disk, listing)), Errno::NOENT);
    }
}

#[test]
fn a_link_to_a_directory_inside_is_listed_as_what_it_points_to() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join("dir")).unwrap();
    write(base.path().join("dir/file"), "");
    link("dir", base.path().join("latest"));
    let root = Root::new(base.path());
    for mut disk in back_ends() {
        let (found, _) = list(&mut disk, place(&root, "latest"), Level::Type);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "file");
    }
}

#[test]
fn a_tree_is_removed_with_everything_in_it_and_nothing_else() {
    for mut disk in back_ends() {
        let base = tempfile::tempdir().unwrap();
        let at = |path: &str| base.path().join(path);
        std::fs::create_dir_all(at("outside/deep")).unwrap();
        write(at("outside/deep/file"), "keep");
        for directory in 0..20 {
            std::fs::create_dir_all(at(&format!("root/tree/{directory}/sub"))).unwrap();
            for file in 0..60 {
                write(at(&format!("root/tree/{directory}/{file}")), "");
            }
        }
        link("../../outside", at("root/tree/out"));
        link("/", at("root/tree/3/slash"));
        link("5", at("root/tree/inside"));
        write(at("root/tree").join(OsStr::from_bytes(b"\xff")), "");
        write(at("root/kept"), "keep");
        let root = Root::new(at("root"));
        let slices = remove(&mut disk, place(&root, "tree")).unwrap();
        assert!(slices > 4, "{slices}");
        assert!(!at("root/tree").exists());
        assert!(at("root/kept").exists() && at("outside/deep/file").exists());
        // The root itself.
        std::fs::create_dir_all(at("root/again/and/again")).unwrap();
        remove(&mut disk, place(&root, "")).unwrap();
        assert!(!at("root").exists());
    }
}

#[test]
fn a_link_at_the_top_of_a_removal_is_not_followed() {
    for mut disk in back_ends() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("dir")).unwrap();
        write(base.path().join("dir/file"), "keep");
        link("dir", base.path().join("latest"));
        let root = Root::new(base.path());
        let (errno, step) = failed(run(&mut disk, Operation::RemoveTree { at: place(&root, "latest") }));
        assert!(matches!(errno, Errno::NOTDIR | Errno::LOOP), "{errno}");
        assert_eq!(step, Step::Listing);
        assert!(base.path().join("dir/file").exists());
    }
}

#[test]
fn a_tree_deeper_than_any_path_is_removed_with_few_open_directories() {
    for mut disk in back_ends() {
        let base = tempfile::tempdir().unwrap();
        let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut here = open(base.path(), directory, Mode::empty()).unwrap();
        let name = "a-name-of-some-length";
        for _ in 0..400 {
            mkdirat(&here, name, Mode::RWXU).unwrap();
            // A sibling on each level, so that each is read again on the way up.
            drop(openat(&here, "file", OFlags::CREATE | OFlags::CLOEXEC, Mode::RUSR).unwrap());
            here = openat(&here, name, directory, Mode::empty()).unwrap();
        }
        let root = Root::new(base.path());
        let slices = remove(&mut disk, place(&root, name)).unwrap();
        assert!(slices > 2, "{slices}");
        assert!(!base.path().join(name).exists());
        assert!(base.path().join("file").exists());
    }
}

#[test]
fn a_removal_that_fails_names_the_entry() {
    for mut disk in back_ends() {
        let base = tempfile::tempdir().unwrap();
        let closed = base.path().join("tree/closed");
        std::fs::create_dir_all(&closed).unwrap();
        write(closed.join("file"), "");
        std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o500)).unwrap();
        let root = Root::new(base.path());
        let result = remove(&mut disk, place(&root, "tree"));
        if is_superuser() {
            result.expect("the superuser may do anything");
        } else {
            let path = Some(closed.join("file").display().to_string());
            let expected = Failure { errno: Errno::ACCESS.into(), path, step: Step::RemoveFile };
            assert_eq!(result.unwrap_err(), expected);
            std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
        }
    }
}

#[test]
fn a_tree_that_changes_between_slices_is_removed_all_the_same() {
    for mut disk in back_ends() {
        let base = tempfile::tempdir().unwrap();
        let tree = base.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        for number in 0..600 {
            std::fs::create_dir(tree.join(number.to_string())).unwrap();
        }
        let root = Root::new(base.path());
        let first = run(&mut disk, Operation::RemoveTree { at: place(&root, "tree") });
        let Ok(Outcome::Removed(Some(mut removal))) = first else { panic!("{first:?}") };
        // Directories that are files now, others that are gone, and new ones.
        for (index, entry) in std::fs::read_dir(&tree).unwrap().enumerate() {
            let path = entry.unwrap().path();
            if index % 3 > 0 {
                std::fs::remove_dir(&path).unwrap();
            }
            if index % 3 == 1 {
                write(&path, "");
            }
        }
        write(tree.join("new"), "");
        while let Outcome::Removed(Some(rest)) = run(&mut disk, Operation::RemoveMore { removal }).unwrap() {
            removal = rest;
        }
        assert!(!tree.exists());
    }
}
