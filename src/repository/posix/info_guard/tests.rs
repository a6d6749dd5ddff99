//! The guard at work on a disk, with files that real clients wrote.

use std::time::Duration;

use super::*;
use crate::disk::inline::Options;
use crate::disk::scrambled::{Faults, Scrambled};
use crate::disk::{Disk, Root, Ticket};
use crate::repository::policy::guard::Measures;
use crate::repository::policy::versions::Versions;

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("../../policy/info/data/", $name))
    };
}

const FIRST: &[u8] = file!("2.45-full.backup.info");
const SECOND: &[u8] = file!("2.45-incr.backup.info");
const LAST: &[u8] = file!("2.55.1-annotate.backup.info");
const EXPIRED: &[u8] = file!("2.60.0-expire.backup.info");
const ENCRYPTED: &[u8] = file!("encrypted.2.45-full.backup.info");
const ENCRYPTED_LAST: &[u8] = file!("encrypted.2.55.1-annotate.backup.info");
const ARCHIVE: &[u8] = file!("2.45.archive.info");
const ARCHIVE_LAST: &[u8] = file!("2.60.0.archive.info");
const FULL: &str = "20261125-030052F";
const PASS: &str = "secret passphrase";

fn shared() -> Rc<Shared> {
    let shared = Rc::<Shared>::default();
    shared.now.set("2026-11-25T10:11:12Z".parse().unwrap());
    shared
}

struct Bench {
    directory: tempfile::TempDir,
    disk: Scrambled,
    role: Role,
    protected: &'static [&'static str],
    opaque_info: bool,
    pass: Option<&'static str>,
    history: usize,
    target: &'static str,
}

impl Bench {
    fn new(role: Role) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("demo")).unwrap();
        Self {
            directory,
            disk: Scrambled::new(3, Options::default(), Faults::default()),
            role,
            protected: &[],
            opaque_info: true,
            pass: None,
            history: 0,
            target: "backup.info",
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.directory.path().join("demo").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// What is there, with its copy.
    fn present(self, bytes: &[u8]) -> Self {
        self.put(self.target, bytes);
        self.put(&format!("{}.copy", self.target), bytes);
        self
    }

    fn replace(&mut self, bytes: &[u8]) -> Result<Verdict> {
        self.put("written.tmp", bytes);
        let (guard, target, written) = (self.guard(), self.at(self.target), self.at("written.tmp"));
        let replacement = InfoReplacement { guard, backups: self.at("backups"), key: None };
        let labels = self.protected.iter().map(|label| (*label).to_owned()).collect();
        let protected = Rc::new(Protected::of(&labels, &BTreeSet::new(), None));
        self.run(InfoGuard::begin(&shared(), &replacement, protected, target, written))
    }

    fn remove(&mut self) -> Result<Verdict> {
        let (guard, target) = (self.guard(), self.at(self.target));
        self.run(InfoGuard::begin_removal(&shared(), &guard, target))
    }

    fn at(&self, name: &str) -> Location {
        Location::new(Root::new(self.directory.path()), RelativePath::new(format!("demo/{name}")).unwrap())
    }

    fn guard(&self) -> Rc<Guard> {
        let measures = Measures {
            role: self.role,
            min_age: Duration::ZERO,
            opaque_info: self.opaque_info,
            keys: self.pass.iter().map(|pass| Secret(pass.as_bytes().to_vec())).collect(),
            versions: Versions::new(self.directory.path().join("history"), self.history),
        };
        Guard::new(measures, &Rc::default())
    }

    fn run(&mut self, (mut guard, mut operation): (InfoGuard, Operation)) -> Result<Verdict> {
        loop {
            self.disk.submit(Ticket { session: 0, operation: 0 }, operation);
            let completion = std::iter::repeat_with(|| self.disk.complete()).flatten().next().unwrap().1;
            match guard.resume(completion)? {
                Next::Disk(next) => operation = next,
                Next::Done(verdict) => return Ok(verdict),
            }
        }
    }

    #[track_caller]
    fn allows(&mut self, bytes: &[u8]) {
        let verdict = self.replace(bytes).unwrap();
        assert_eq!(verdict.unverified, None);
    }

    #[track_caller]
    fn refuses(&mut self, bytes: &[u8], expected: &str) {
        let error = self.replace(bytes).unwrap_err();
        assert_eq!(error.code, Code::Access, "{error}");
        assert!(error.message.starts_with("access denied: "), "{error}");
        assert!(error.message.contains(expected), "{error}");
        assert!(error.message.contains(self.target), "{error}");
    }

    fn versions(&self) -> Vec<Vec<u8>> {
        let place = self.directory.path().to_str().unwrap().trim_start_matches('/');
        let place = self.directory.path().join("history").join(place).join("demo").join(self.target);
        let entries = std::fs::read_dir(place).into_iter().flatten();
        entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
    }
}

#[test]
fn a_backup_client_adds_backups_and_drops_only_those_that_are_gone() {
    let mut bench = Bench::new(Role::Backup).present(SECOND);
    bench.allows(LAST);
    bench.allows(SECOND);
    let incr = "20261125-030052F_20261125-030100I";
    bench.allows(FIRST);
    bench.put(&format!("{incr}/backup.manifest"), b"");
    bench.refuses(FIRST, &format!("backup {incr} would be gone"));
    bench.refuses(b"garbage", "no client could read the new one: neither section nor key in line 1");
    bench.refuses(ENCRYPTED, "nobody could read it any more");
    bench.refuses(EXPIRED, "would be gone");

    let mut bench = Bench::new(Role::Backup).present(LAST);
    let labels = [FULL, incr, "20261125-030052F_20261125-030105D", "20261125-030052F_20261125-030108I"];
    for label in labels {
        bench.put(&format!("{label}/backup.manifest"), b"");
    }
    bench.refuses(
        file!("created.backup.info"),
        &format!("backups {FULL}, {incr}, {} and 1 more would be gone", labels[2]),
    );
    bench.refuses(file!("created.backup.info"), "needs role 'admin'");
}

#[test]
fn both_files_count_so_that_not_one_after_the_other_loses_a_backup() {
    let mut bench = Bench::new(Role::Backup);
    bench.put("backup.info", FIRST);
    bench.put("backup.info.copy", SECOND);
    bench.put("20261125-030052F_20261125-030100I/backup.manifest", b"");
    bench.refuses(FIRST_AGAIN.as_slice(), "would be gone");
    bench.allows(SECOND);
    bench.target = "backup.info.copy";
    bench.refuses(FIRST_AGAIN.as_slice(), "would be gone");
    // half of it is as good as none
    bench.put("backup.info", &FIRST[..100]);
    bench.refuses(FIRST_AGAIN.as_slice(), "would be gone");
    bench.allows(LAST);
    bench.put("backup.info.copy", b"garbage");
    bench.refuses(b"other garbage", "no client could read");
    bench.allows(FIRST);
}

/// The first file with a newline more, which changes nothing that it says.
static FIRST_AGAIN: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| [FIRST, b"\n"].concat());

#[test]
fn a_backup_client_changes_nothing_of_archive_info_but_the_release() {
    let mut bench = Bench { target: "archive.info", ..Bench::new(Role::Backup) }.present(ARCHIVE);
    bench.allows(ARCHIVE_LAST);
    bench.refuses(file!("format-6.archive.info"), "backrest-format would change");
    bench.refuses(FIRST, "section [");
    bench.refuses(b"", "no client could read the new one");
    Bench { target: "archive.info", ..Bench::new(Role::Admin) }.present(ARCHIVE).allows(b"whatever");
    let mut bench = Bench { target: "archive.info", protected: &[FULL], ..Bench::new(Role::Admin) }.present(ARCHIVE);
    bench.refuses(b"whatever", "min-age");
    bench.allows(file!("format-6.archive.info"));
}

#[test]
fn an_encrypted_file_stays_readable_for_those_who_have_the_passphrase() {
    let mut bench = Bench { pass: Some(PASS), ..Bench::new(Role::Backup) }.present(ENCRYPTED);
    bench.allows(ENCRYPTED_LAST);
    bench.refuses(FIRST, "would not be encrypted any more");
    bench.refuses(b"Salted__12345678", "nobody could read it any more");
    bench.refuses(&[&ENCRYPTED_LAST[..64], b"garbage"].concat(), "nobody could read it any more");

    let mut bench = Bench::new(Role::Backup).present(ENCRYPTED);
    let verdict = bench.replace(ENCRYPTED_LAST).unwrap();
    assert!(verdict.unverified.unwrap().contains("repo-cipher-pass"));
    bench.refuses(FIRST, "would not be encrypted with the passphrase of the present one");
    bench.opaque_info = false;
    bench.refuses(ENCRYPTED_LAST, "opaque-info=n");
    let mut bench = Bench { opaque_info: false, ..Bench::new(Role::Backup) };
    bench.refuses(ENCRYPTED, "opaque-info=n");
    bench.allows(FIRST);
    bench.refuses(b"garbage", "no client could read");
}

#[test]
fn an_administrators_client_may_do_all_but_lose_what_is_protected() {
    for bytes in [FIRST, EXPIRED, b"garbage", ENCRYPTED] {
        Bench::new(Role::Admin).present(LAST).allows(bytes);
    }
    let mut bench = Bench { protected: &[FULL], ..Bench::new(Role::Admin) }.present(LAST);
    bench.allows(FIRST);
    bench.refuses(EXPIRED, &format!("backup {FULL} would be gone"));
    bench.refuses(EXPIRED, "min-age");
    bench.refuses(b"garbage", "min-age");
    bench.refuses(ENCRYPTED, "min-age");
    Bench { protected: &["20200101-000000F"], ..Bench::new(Role::Admin) }.present(LAST).allows(EXPIRED);
    Bench { protected: &[FULL], ..Bench::new(Role::Admin) }.allows(b"garbage");
}

#[test]
fn what_is_replaced_is_kept_first_and_nothing_is_replaced_that_cannot_be_kept() {
    let mut bench = Bench { history: 5, ..Bench::new(Role::Admin) }.present(LAST);
    let verdict = bench.replace(b"garbage").unwrap();
    assert!(verdict.replaced.is_some());
    assert_eq!(bench.versions(), [LAST]);
    bench.allows(LAST);
    assert_eq!(bench.versions().len(), 1, "nothing is replaced by the same");
    bench.put("backup.info", FIRST);
    for faults in [
        Faults { write: 1000, ..Faults::default() },
        Faults { sync: 1000, ..Faults::default() },
        Faults { rename: 1000, ..Faults::default() },
        Faults { read: 1000, ..Faults::default() },
    ] {
        bench.disk.set_faults(faults);
        let error = bench.replace(SECOND).unwrap_err();
        assert_ne!(error.code, Code::Access);
        assert!(faults.read > 0 || error.message.contains("info-history=0"), "{error}");
    }
    bench.disk.set_faults(Faults::default());
    bench.allows(SECOND);
    assert_eq!(bench.versions().len(), 2);

    let mut bench = Bench { history: 5, ..Bench::new(Role::Backup) };
    assert!(bench.replace(FIRST).unwrap().replaced.is_none());
    bench.put("backup.info.copy", FIRST);
    bench.allows(SECOND);
    assert!(bench.versions().is_empty(), "there was nothing to replace");
}

#[test]
fn what_is_removed_is_kept_first() {
    let mut bench = Bench { history: 5, ..Bench::new(Role::Admin) }.present(LAST);
    bench.remove().unwrap();
    assert_eq!(bench.versions(), [LAST]);
    bench.put("backup.info", b"garbage");
    bench.disk.set_faults(Faults { write: 1000, ..Faults::default() });
    assert!(bench.remove().unwrap_err().message.contains("info-history=0"));
    let mut bench = Bench { history: 5, ..Bench::new(Role::Admin) };
    assert!(bench.remove().unwrap().replaced.is_none(), "there is nothing to remove, which is the request's business");
}
