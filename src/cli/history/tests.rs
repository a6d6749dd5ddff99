use std::os::unix::fs::PermissionsExt as _;

use rustix::fs::{FlockOperation, flock};

use super::*;
use crate::config::{KnownRepository, OwnSettings};
use crate::protocol::filter::Secret;

const FULL: &[u8] = include_bytes!("../../repository/policy/info/data/2.45-full.backup.info");
const INCR: &[u8] = include_bytes!("../../repository/policy/info/data/2.45-incr.backup.info");
const ENCRYPTED: &[u8] = include_bytes!("../../repository/policy/info/data/encrypted.2.45-full.backup.info");
const ARCHIVE: &[u8] = include_bytes!("../../repository/policy/info/data/2.45.archive.info");
const FIRST: &str = "20201125T101112.000001Z";
const SECOND: &str = "20201125T101112.000002Z";

/// A repository host in a directory, with a configuration that it is found by.
struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { directory: tempfile::tempdir().unwrap() };
        let root = bench.directory.path().display();
        let main = format!(
            "[global]\nrepo1-path={root}/repo\nrepo2-path={root}/other\nlock-path={root}/lock\ntls-server-auth=x=*\n"
        );
        bench.put("pgbackrest.conf", main.as_bytes());
        bench.put("repohostd.conf", format!("[global]\nhistory-path={root}/history\n").as_bytes());
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn keep(&self, file: &str, name: &str, bytes: &[u8]) -> PathBuf {
        let file = self.path(file).display().to_string();
        self.put(&format!("history{file}/{name}"), bytes)
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        let mut arguments: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        arguments.push(format!("--config={}", self.path("pgbackrest.conf").display()));
        arguments.push(format!("--repohostd-config={}", self.path("repohostd.conf").display()));
        answer(&arguments, &Environment::default())
    }

    fn columns(&self, words: &[&str]) -> Vec<Vec<String>> {
        let root = self.directory.path().display().to_string();
        let text = self.run(words).unwrap().replace(&root, "");
        text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    }
}

#[test]
fn versions_are_listed_oldest_first_with_what_is_in_them() {
    let bench = Bench::new();
    assert!(bench.run(&[]).unwrap().starts_with("no versions are kept in '"));
    bench.keep("repo/backup/demo/backup.info", SECOND, INCR);
    bench.keep("repo/backup/demo/backup.info.copy", FIRST, b"garbage");
    bench.keep("other/backup/demo/backup.info", FIRST, ENCRYPTED);
    bench.keep("repo/archive/main/archive.info", FIRST, ARCHIVE);
    bench.keep("repo/backup/demo/backup.info", "notes.txt", b"somebody's");
    let size = |bytes: &[u8]| bytes.len().to_string();
    let line = |name: &str, file: &str, size: &str, backups: &str, newest: &str| {
        [name, file, size, backups, newest].map(str::to_owned).to_vec()
    };
    let head = line("VERSION", "FILE", "SIZE", "BACKUPS", "NEWEST");
    let other = line(FIRST, "/other/backup/demo/backup.info", &size(ENCRYPTED), "encrypted", "-");
    let archive = line(FIRST, "/repo/archive/main/archive.info", &size(ARCHIVE), "-", "-");
    let copy = line(FIRST, "/repo/backup/demo/backup.info.copy", "7", "damaged", "-");
    let newest = "20261125-030052F_20261125-030100I";
    let main = line(SECOND, "/repo/backup/demo/backup.info", &size(INCR), "2", newest);
    assert_eq!(bench.columns(&[]), [&head, &other, &archive, &copy, &main].map(Clone::clone));
    assert_eq!(bench.columns(&["--stanza=demo", "--repo", "1"]), [&head, &copy, &main].map(Clone::clone));
    assert_eq!(bench.columns(&["--stanza", "main"]), [&head, &archive].map(Clone::clone));
    assert_eq!(bench.columns(&["--repo=2"]), [&head, &other].map(Clone::clone));
    assert_eq!(bench.run(&["--repo=3"]).unwrap_err().code, Code::OptionInvalidValue);
    assert_eq!(bench.run(&["--repo"]).unwrap_err().code, Code::OptionInvalidValue, "the next word is its value");
    assert_eq!(bench.run(&["--stanza="]).unwrap_err().code, Code::OptionInvalid);
    assert_eq!(bench.run(&["--stanza=a", "--stanza=b"]).unwrap_err().code, Code::OptionInvalid);

    let repository = KnownRepository {
        key: 1,
        path: "/r".into(),
        kind: "posix".to_owned(),
        host: None,
        cipher_pass: Some(Secret(b"secret passphrase".into())),
    };
    let host = Host { own: OwnSettings::default(), repositories: vec![repository], lock_path: "/l".into() };
    assert!(matches!(understand(&host, ENCRYPTED), Reading::Known(_)));
}

#[test]
fn a_version_takes_the_place_of_the_file_and_its_copy_which_become_versions() {
    let bench = Bench::new();
    let version = bench.keep("repo/backup/demo/backup.info", FIRST, INCR);
    let file = bench.put("repo/backup/demo/backup.info", b"garbage");
    let copy = bench.put("repo/backup/demo/backup.info.copy", FULL);
    bench.put("repo/backup/demo/backup.info.repohostd.tmp", b"of a crash");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o640)).unwrap();

    let text = bench.run(&[&format!("--restore={FIRST}")]).unwrap();
    assert!(text.contains("2 backups, the newest is 20261125-030052F_20261125-030100I"), "{text}");
    assert!(
        text.contains("pgbackrest --stanza=demo info") && text.contains("pgbackrest --stanza=demo check"),
        "{text}"
    );
    for (path, mode) in [(&file, 0o600), (&copy, 0o640)] {
        assert_eq!(fs::read(path).unwrap(), INCR);
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode);
    }
    assert_eq!(fs::read_dir(bench.path("repo/backup/demo")).unwrap().count(), 2, "nothing is left behind");
    let listed = bench.columns(&["--stanza=demo"]);
    let contents: Vec<_> = listed.iter().skip(1).map(|line| (line[1].as_str(), line[3].as_str())).collect();
    let (main, copy) = ("/repo/backup/demo/backup.info", "/repo/backup/demo/backup.info.copy");
    assert_eq!(contents, [(main, "2"), (main, "damaged"), (copy, "1")]);

    // by its path, and where there is nothing any more
    fs::remove_file(&file).unwrap();
    fs::remove_file(bench.path("repo/backup/demo/backup.info.copy")).unwrap();
    bench.run(&["--restore", version.to_str().unwrap()]).unwrap();
    assert_eq!(fs::read(&file).unwrap(), INCR);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn nothing_is_put_back_that_is_of_no_use_or_while_somebody_works_on_it() {
    let bench = Bench::new();
    let restore = || bench.run(&["--restore", FIRST]).unwrap_err();
    assert_eq!(restore().code, Code::FileMissing);
    let version = bench.keep("repo/backup/demo/backup.info", FIRST, b"garbage");
    let file = bench.put("repo/backup/demo/backup.info", FULL);
    assert_eq!(restore().code, Code::FileInvalid);
    fs::write(&version, INCR).unwrap();
    for name in ["demo-backup.lock", "demo-backup-2.lock"] {
        let lock = fs::File::open(bench.put(&format!("lock/{name}"), b"")).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let error = restore();
        assert_eq!(error.code, Code::LockAcquire);
        assert!(error.message.contains(name), "{error}");
    }
    assert_eq!(fs::read(&file).unwrap(), FULL);
    let other = fs::File::open(bench.put("lock/demo-backup-x-backup.lock", b"")).unwrap();
    flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
    bench.keep("repo/backup/demo/backup.info.copy", FIRST, FULL);
    let error = restore();
    assert_eq!(error.code, Code::OptionInvalidValue);
    assert!(error.message.contains(version.to_str().unwrap()), "{error}");
    bench.run(&["--restore", version.to_str().unwrap()]).unwrap();
    assert!(bench.path("lock/demo-backup.lock").exists(), "locks are left alone");
    fs::remove_dir_all(bench.path("repo")).unwrap();
    assert_eq!(bench.run(&["--restore", version.to_str().unwrap()]).unwrap_err().code, Code::PathMissing);
}
