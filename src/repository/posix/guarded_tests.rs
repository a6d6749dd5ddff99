//! What is looked at before a request, on a real directory whose files are as old as a test says.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::change::PathRemove;
use super::check::{Check, Checked};
use super::write::WriteStream;
use super::write::tests::request;
use crate::config::Role;
use crate::disk::inline::{Inline, Options};
use crate::disk::{Disk, Operation, Outcome, Ticket};
use crate::protocol::error::{Code, Result};
use crate::protocol::release::Release;
use crate::protocol::request::WriteRequest;
use crate::repository::policy::access::Access;
use crate::repository::policy::guard::{Guard, Measures, RELIED_MAXIMUM};
use crate::repository::policy::layout::MANIFEST;
use crate::repository::policy::versions::Versions;
use crate::repository::policy::view::View;
use crate::repository::{Next, Shared, Step, Task as _};

const BASE: &str = "archive/demo/15-1/0000000100000000";
const SUM: &str = "0123456789abcdef0123456789abcdef01234567";
const FULL: &str = "20261125-030052F";
const FIRST_INCR: &str = "20261125-030052F_20261125-030100I";
const DIFF: &str = "20261125-030052F_20261125-030105D";
const INCR: &str = "20261125-030052F_20261125-030108I";
const DAY: Duration = Duration::from_secs(86_400);

/// A repository with four backups and their WAL, all of them older than any `min-age` here.
struct Site {
    directory: tempfile::TempDir,
    shared: Rc<Shared>,
    /// What is only an hour old, by the end of its path.
    young: Vec<&'static str>,
}

impl Site {
    fn new() -> Self {
        let site = Self { directory: tempfile::tempdir().unwrap(), shared: Rc::default(), young: Vec::new() };
        site.shared.now.set("2026-11-26T00:00:00Z".parse().unwrap());
        for label in [FULL, FIRST_INCR, DIFF, INCR] {
            site.write(&format!("backup/demo/{label}/{MANIFEST}"), b"");
        }
        site.write("backup/demo/backup.info", include_bytes!("../policy/info/data/2.55.1-annotate.backup.info"));
        for number in 1..=0x12 {
            site.write(&Self::segment(number), b"");
        }
        site.write("archive/demo/15-1/00000002.history", b"");
        site
    }

    fn segment(number: u32) -> String {
        format!("{BASE}/0000000100000000{number:08X}-{SUM}.gz")
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn ask(&self, role: Role, min_age: Duration, path: &str, access: Access) -> Result<()> {
        Session::new(self, role, min_age).ask(path, access)
    }
}

/// Runs a write to its end, with `meanwhile` before the last data.
fn write(session: &mut Session<'_>, path: &str, atomic: bool, meanwhile: impl FnOnce()) -> Result<()> {
    let path = format!("{}/{path}", session.site.directory.path().display()).into_bytes();
    let place = session.view.locate(&path, Access::Write)?;
    let safeguard = session.guard.safeguard(&session.view, &place, &path, &[])?;
    let request = WriteRequest { atomic, ..request() };
    let (mut stream, mut step) =
        WriteStream::begin(request, place.location, safeguard, Release::newest(), &session.site.shared)?;
    let mut meanwhile = Some(meanwhile);
    loop {
        step = match step {
            Step::Disk(operation) => {
                session.disk.submit(Ticket { session: 0, operation: 0 }, operation);
                stream.resume(session.disk.complete().unwrap().1)?
            }
            Step::Done(answer) if answer.close => return Ok(()),
            Step::Done(_) => {
                stream.feed(&mut &b"new"[..])?;
                meanwhile.take().expect("it is asked once")();
                stream.finish()?
            }
            step => panic!("{step:?}"),
        };
    }
}

struct Session<'a> {
    site: &'a Site,
    view: View,
    guard: Rc<Guard>,
    disk: Inline,
    operations: usize,
}

impl<'a> Session<'a> {
    fn new(site: &'a Site, role: Role, min_age: Duration) -> Self {
        let base = site.directory.path().display().to_string();
        Self {
            site,
            view: View::new(&base, Some("demo"), role, !min_age.is_zero()),
            guard: Guard::new(Measures { role, min_age, ..Measures::of_nobody() }, &site.shared.finished),
            disk: Inline::new(Options::default()),
            operations: 0,
        }
    }

    fn ask(&mut self, path: &str, access: Access) -> Result<()> {
        let path = format!("{}/{path}", self.site.directory.path().display()).into_bytes();
        let place = self.view.locate(&path, access)?;
        let precaution = self.guard.precaution(&self.view, &place, &path, access)?;
        let Some(preconditions) = precaution.preconditions else { return Ok(()) };
        let Some((mut check, mut operation)) = Check::begin(&self.site.shared, preconditions)? else {
            return Ok(());
        };
        loop {
            let at = match &operation {
                Operation::Stat { at, .. } | Operation::List { at, .. } => at.to_string(),
                _ => String::new(),
            };
            self.operations += 1;
            self.disk.submit(Ticket { session: 0, operation: 0 }, operation);
            let mut completion = self.disk.complete().unwrap().1;
            self.age(&at, &mut completion);
            match check.resume(completion)? {
                Next::Disk(next) => operation = next,
                Next::Done(()) => return Ok(()),
            }
        }
    }

    /// Makes what was found as old as the test wants it.
    fn age(&self, at: &str, completion: &mut crate::disk::Completion) {
        let now = self.site.shared.now.get().as_second();
        let changed = |path: &str| {
            let young = self.site.young.iter().any(|end| path.ends_with(end));
            now - if young { 3600 } else { 365 * 86_400 }
        };
        match completion {
            Ok(Outcome::Metadata(metadata)) => metadata.changed = changed(at),
            Ok(Outcome::Entries(entries, _)) => {
                for entry in entries {
                    entry.metadata.changed = changed(&format!("{at}/{}", entry.name));
                }
            }
            _ => {}
        }
    }
}

#[track_caller]
fn denied(result: Result<()>, text: &str) {
    let error = result.expect_err("it is denied");
    assert_eq!(error.code, Code::Access, "{error}");
    assert!(error.message.starts_with("access denied: ") && error.message.contains(text), "{error}");
}

#[test]
fn a_finished_backup_is_not_for_the_role_backup_and_an_unfinished_one_is() {
    let site = Site::new();
    let unfinished = "20261126-010101F";
    for (access, rest) in [
        (Access::Write, "/pg_data/a"),
        (Access::Write, "/backup.manifest"),
        (Access::Remove, "/backup.manifest.copy"),
        (Access::RemoveTree, ""),
        (Access::HardLink, "/pg_data/a"),
        (Access::Link, "/pg_data/pg_tblspc/1"),
        (Access::Directory, "/pg_data"),
    ] {
        let finished = site.ask(Role::Backup, Duration::ZERO, &format!("backup/demo/{INCR}{rest}"), access);
        denied(finished, "the backup is finished\nHINT: this needs role 'admin'");
        site.ask(Role::Backup, Duration::ZERO, &format!("backup/demo/{unfinished}{rest}"), access).unwrap();
        site.ask(Role::Admin, Duration::ZERO, &format!("backup/demo/{INCR}{rest}"), access).unwrap();
    }
    let linked = site.directory.path().join("backup/demo/20261126-020202F");
    std::os::unix::fs::symlink(FULL, linked).unwrap();
    site.ask(Role::Backup, Duration::ZERO, "backup/demo/20261126-020202F/backup.manifest", Access::Remove)
        .expect_err("a finished backup by another name");
}

#[test]
fn an_unfinished_backup_is_looked_at_once_until_one_is_finished() {
    let site = Site::new();
    let mut session = Session::new(&site, Role::Backup, Duration::ZERO);
    let write = |session: &mut Session<'_>| session.ask("backup/demo/20261126-010101F/pg_data/a", Access::Write);
    for _ in 0..=RELIED_MAXIMUM {
        write(&mut session).unwrap();
    }
    assert_eq!(session.operations, 1);
    write(&mut session).unwrap();
    assert_eq!(session.operations, 2, "somebody else may have finished it");
    site.write("backup/demo/20261126-010101F/backup.manifest", b"");
    site.shared.finished.note(site.directory.path().join("backup/demo/20261126-010101F").display().to_string());
    denied(write(&mut session), "the backup is finished");
}

#[test]
fn young_backups_are_kept_with_what_they_need() {
    let mut site = Site::new();
    site.young.push("20261125-030052F_20261125-030108I/backup.manifest");
    for (label, kept) in [(INCR, true), (DIFF, true), (FULL, true), (FIRST_INCR, false)] {
        for (access, rest) in [(Access::RemoveTree, ""), (Access::Remove, "/backup.manifest"), (Access::Write, "/a")] {
            let result = site.ask(Role::Admin, DAY, &format!("backup/demo/{label}{rest}"), access);
            if kept {
                denied(result, &format!("min-age of 86400 s: backup '{label}' is younger, or a younger one needs it"));
            } else {
                result.unwrap();
            }
        }
    }
    let needed: HashMap<u32, bool> = (1..=0x12).map(|number| (number, [2, 9, 10, 13, 14].contains(&number))).collect();
    for (number, needed) in needed {
        let result = site.ask(Role::Admin, DAY, &Site::segment(number), Access::Remove);
        assert_eq!(result.is_err(), needed, "segment {number}: {result:?}");
    }
    for path in ["archive/demo", "archive/demo/15-1", BASE, "backup/demo"] {
        denied(site.ask(Role::Admin, DAY, path, Access::RemoveTree), "younger");
        site.ask(Role::Admin, DAY, path, Access::Remove).unwrap();
    }
    denied(site.ask(Role::Admin, DAY, "backup/demo/backup.info", Access::Remove), "younger");
    site.ask(Role::Admin, DAY, "archive/demo/14-1", Access::RemoveTree).unwrap();

    site.young.clear();
    for path in ["archive/demo", "archive/demo/15-1", BASE, "backup/demo", &format!("backup/demo/{INCR}")] {
        site.ask(Role::Admin, DAY, path, Access::RemoveTree).unwrap();
    }
}

#[test]
fn young_files_of_the_archive_are_kept_though_no_backup_needs_them() {
    let mut site = Site::new();
    site.young.extend(["000000010000000000000012-0123456789abcdef0123456789abcdef01234567.gz", "00000002.history"]);
    denied(site.ask(Role::Admin, DAY, &Site::segment(0x12), Access::Remove), "it is younger");
    denied(site.ask(Role::Admin, DAY, "archive/demo/15-1/00000002.history", Access::Remove), "it is younger");
    site.ask(Role::Admin, DAY, &Site::segment(0x11), Access::Remove).unwrap();
    for path in ["archive/demo", "archive/demo/15-1", BASE] {
        denied(site.ask(Role::Admin, DAY, path, Access::RemoveTree), "in it is younger");
    }
}

#[test]
fn without_backup_info_all_older_backups_of_the_set_are_kept() {
    let mut site = Site::new();
    site.young.push("20261125-030052F_20261125-030105D/backup.manifest");
    site.write("backup/demo/backup.info", b"Salted__12345678 and something that nobody can read");
    for (label, kept) in [(INCR, false), (DIFF, true), (FIRST_INCR, true), (FULL, true)] {
        let result = site.ask(Role::Admin, DAY, &format!("backup/demo/{label}"), Access::RemoveTree);
        assert_eq!(result.is_err(), kept, "{label}: {result:?}");
    }
    site.write("backup/demo/backup.info.copy", include_bytes!("../policy/info/data/2.55.1-annotate.backup.info"));
    site.ask(Role::Admin, DAY, &format!("backup/demo/{FIRST_INCR}"), Access::RemoveTree).unwrap();
}

#[test]
fn a_repository_is_not_removed_as_a_whole_while_ages_count() {
    let site = Site::new();
    let base = site.directory.path().display().to_string();
    let view = View::new(&base, None, Role::Admin, true);
    let guard = Guard::new(Measures { role: Role::Admin, min_age: DAY, ..Measures::of_nobody() }, &Rc::default());
    for path in [base.clone(), format!("{base}/archive"), format!("{base}/backup")] {
        let place = view.locate(path.as_bytes(), Access::RemoveTree).unwrap();
        let result = guard.precaution(&view, &place, path.as_bytes(), Access::RemoveTree).map(|_| ());
        denied(result, "cannot be removed while backups are protected");
    }
    assert!(Path::new(&base).join("backup/demo").is_dir());
}

#[test]
fn what_is_being_written_when_its_backup_is_finished_comes_too_late() {
    let site = Site::new();
    let label = "backup/demo/20261126-010101F";
    let file = site.directory.path().join(label).join("pg_data/a");
    for atomic in [true, false] {
        let mut session = Session::new(&site, Role::Backup, Duration::ZERO);
        write(&mut session, &format!("{label}/pg_data/a"), atomic, || ()).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        site.write(&format!("{label}/pg_data/a"), b"good");
        let finish = || site.shared.finished.note(site.directory.path().join(label).display().to_string());
        denied(write(&mut session, &format!("{label}/pg_data/a"), atomic, finish), "the backup is finished");
        if atomic {
            assert_eq!(fs::read(&file).unwrap(), b"good");
        }
    }
}

#[test]
fn another_name_of_a_protected_file_is_not_written_through() {
    let site = Site::new();
    let name = "backup/demo/20261126-010101F/a";
    site.write("backup/demo/20261126-010101F/b", b"");
    for (role, min_age) in [(Role::Backup, Duration::ZERO), (Role::Admin, DAY)] {
        let (finished, linked) = (format!("backup/demo/{FULL}/{MANIFEST}"), site.directory.path().join(name));
        let _ = fs::remove_file(&linked);
        fs::hard_link(site.directory.path().join(&finished), &linked).unwrap();
        write(&mut Session::new(&site, role, min_age), name, false, || ()).unwrap();
        assert_eq!(fs::read(&linked).unwrap(), b"new");
        assert_eq!(fs::read(site.directory.path().join(finished)).unwrap(), b"", "{role:?}");
    }
}

#[test]
fn an_info_file_that_is_removed_is_kept_before() {
    let site = Site::new();
    let history = tempfile::tempdir().unwrap();
    let mut session = Session::new(&site, Role::Admin, Duration::ZERO);
    session.guard = Guard::new(
        Measures { role: Role::Admin, versions: Versions::new(history.path(), 3), ..Measures::of_nobody() },
        &Rc::default(),
    );
    session.ask("backup/demo/backup.info", Access::Remove).unwrap();
    let kept = site.directory.path().join("backup/demo/backup.info");
    let directory = history.path().join(kept.strip_prefix("/").unwrap());
    let versions: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(versions.len(), 1);
    assert_eq!(fs::read(&versions[0]).unwrap(), fs::read(kept).unwrap());
    session.ask("backup/demo/backup.info.copy", Access::Remove).unwrap();
}

#[test]
fn a_removal_stops_where_its_backup_is_finished_meanwhile() {
    let site = Site::new();
    let label = "backup/demo/20261126-010101F";
    for number in 0..3000 {
        site.write(&format!("{label}/pg_data/{number}"), b"");
    }
    let session = Session::new(&site, Role::Backup, Duration::ZERO);
    let path = site.directory.path().join(label);
    let place = session.view.locate(path.as_os_str().as_bytes(), Access::RemoveTree).unwrap();
    let precaution =
        session.guard.precaution(&session.view, &place, path.as_os_str().as_bytes(), Access::RemoveTree).unwrap();
    let at = place.location.clone();
    let (mut task, mut step) = Checked::begin(
        &site.shared,
        place.location,
        precaution,
        Box::new(|| {
            let (task, step) = PathRemove::begin(at, true);
            (Box::new(task), step)
        }),
    )
    .unwrap();
    let mut disk = Inline::new(Options::default());
    // the look at the manifest, and the first slice
    for _ in 0..2 {
        let Step::Disk(operation) = step else { panic!("{step:?}") };
        disk.submit(Ticket { session: 0, operation: 0 }, operation);
        step = task.resume(disk.complete().unwrap().1).unwrap();
    }
    site.shared.finished.note(path.display().to_string());
    let Step::Disk(operation) = step else { panic!("it was not removed in slices: {step:?}") };
    disk.submit(Ticket { session: 0, operation: 0 }, operation);
    denied(task.resume(disk.complete().unwrap().1).map(|_| ()), "the backup is finished");
    assert!(fs::read_dir(path.join("pg_data")).unwrap().count() > 0);
}
