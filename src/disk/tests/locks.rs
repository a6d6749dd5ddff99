//! Lock files.

use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;

use super::*;

fn attempt(disk: &mut Tried, at: Location, contents: &str) -> LockAttempt {
    match run(disk, Operation::Lock { at, contents: contents.to_owned() }) {
        Ok(Outcome::Lock(attempt)) => attempt,
        other => panic!("no lock: {other:?}"),
    }
}

fn acquire(disk: &mut Tried, at: Location, contents: &str) -> HeldLock {
    match attempt(disk, at, contents) {
        LockAttempt::Acquired(lock) => lock,
        LockAttempt::Busy { contents } => panic!("busy: {contents}"),
    }
}

#[test]
fn a_lock_keeps_others_out_and_tells_them_who_has_it() {
    for mut disk in back_ends() {
        let base = tempfile::tempdir().unwrap();
        let root = Root::new(base.path());
        let at = || place(&root, "demo-backup-1.lock");
        let lock = acquire(&mut disk, at(), r#"{"execId":"1-a","pid":1}"#);
        assert!(!lock.is_orphaned());
        assert_eq!(lock.location().to_string(), at().to_string());
        let LockAttempt::Busy { contents } = attempt(&mut disk, at(), "other") else { panic!("taken twice") };
        assert_eq!(contents, r#"{"execId":"1-a","pid":1}"#);
        let path = base.path().join("demo-backup-1.lock");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        done(run(&mut disk, Operation::Unlock { lock }));
        assert!(!path.exists());
        let lock = acquire(&mut disk, at(), "again");
        drop(lock);
        assert!(path.exists(), "a lock that is only dropped leaves its file");
        let stale = acquire(&mut disk, at(), "x");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "x", "nothing of the stale contents remains");
        done(run(&mut disk, Operation::Unlock { lock: stale }));
    }
}

#[test]
fn missing_lock_directories_are_made() {
    for mut disk in back_ends() {
        let base = tempfile::tempdir().unwrap();
        let root = Root::new(base.path().join("run/pgbackrest"));
        let lock = acquire(&mut disk, place(&root, "below/it/demo.lock"), "x");
        for path in ["run", "run/pgbackrest", "run/pgbackrest/below/it"] {
            assert_eq!(std::fs::metadata(base.path().join(path)).unwrap().mode() & 0o7777, 0o750, "{path}");
        }
        done(run(&mut disk, Operation::Unlock { lock }));
        write(base.path().join("file"), "");
        let root = Root::new(base.path().join("file/below"));
        let failure =
            run(&mut disk, Operation::Lock { at: place(&root, "x.lock"), contents: String::new() }).unwrap_err();
        assert_eq!(failure.errno, Errno::NOTDIR.into());
    }
}

#[test]
fn a_lock_whose_file_was_taken_away_is_noticed_and_leaves_the_new_file_alone() {
    for mut disk in back_ends() {
        let base = tempfile::tempdir().unwrap();
        let root = Root::new(base.path());
        let path = base.path().join("demo.lock");
        let lock = acquire(&mut disk, place(&root, "demo.lock"), "first");
        std::fs::remove_file(&path).unwrap();
        assert!(lock.is_orphaned());
        let second = acquire(&mut disk, place(&root, "demo.lock"), "second");
        assert!(lock.is_orphaned() && !second.is_orphaned());
        done(run(&mut disk, Operation::Unlock { lock }));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "second");
        done(run(&mut disk, Operation::Unlock { lock: second }));
        assert!(!path.exists());
    }
}

#[test]
fn a_lock_file_that_is_a_link_or_a_directory_is_refused() {
    for mut disk in back_ends() {
        let base = tempfile::tempdir().unwrap();
        write(base.path().join("precious"), "keep");
        link("precious", base.path().join("link.lock"));
        std::fs::create_dir(base.path().join("dir.lock")).unwrap();
        let root = Root::new(base.path());
        for (name, expected) in [("link.lock", Errno::LOOP), ("dir.lock", Errno::ISDIR)] {
            let lock = Operation::Lock { at: place(&root, name), contents: "x".into() };
            assert_eq!(errno(run(&mut disk, lock)), expected, "{name}");
        }
        assert_eq!(std::fs::read_to_string(base.path().join("precious")).unwrap(), "keep");
    }
}

#[test]
fn of_a_huge_lock_file_only_the_beginning_is_read() {
    for mut disk in back_ends() {
        let base = tempfile::tempdir().unwrap();
        let root = Root::new(base.path());
        let _lock = acquire(&mut disk, place(&root, "x.lock"), &"é".repeat(10_000));
        let LockAttempt::Busy { contents } = attempt(&mut disk, place(&root, "x.lock"), "") else {
            panic!("taken twice")
        };
        assert_eq!(contents, "é".repeat(2048));
    }
}
