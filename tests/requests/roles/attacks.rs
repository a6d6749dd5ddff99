//! What takes more than one request: links and second names, what is still open, what is swapped.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use repohostd::config::Role;

use super::{RELEASES, repository, session};
use crate::tree::{changes, contents};
use crate::victim::{FINISHED, FINISHED_FILE, HISTORY, LABEL, MANIFEST_HISTORY, SEGMENT, UNFINISHED};
use crate::wire::{Answer, Conversation, How};

/// Everything below `base` but for the unfinished backup, which its client may do anything with.
fn protected(base: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = contents(base);
    found.retain(|path, _| !path.starts_with(UNFINISHED));
    found
}

/// Runs `attack` with a session of role backup at a repository, for each release and both ways to find a
/// path, and insists that nothing but the unfinished backup has changed.
fn attack(attack: impl Fn(&mut Conversation, &str, &str)) {
    for release in RELEASES {
        for by_component in [false, true] {
            let directory = repository();
            let before = protected(directory.path());
            let base = directory.path().to_str().unwrap();
            let mut conversation = session(release, directory.path(), Role::Backup, by_component);
            attack(&mut conversation, base, &format!("{base}/{UNFINISHED}"));
            let changed = changes(&before, &protected(directory.path()));
            assert!(changed.is_empty(), "{release}, walked: {by_component}: {changed:?} changed");
        }
    }
}

const IN_PLACE: How = How { atomic: false, create_path: true };
const AT_ONCE: How = How { atomic: true, create_path: true };

#[test]
fn a_second_name_of_a_protected_file_is_no_way_to_change_it() {
    attack(|client, base, own| {
        let victims = [
            FINISHED_FILE,
            &format!("{FINISHED}/backup.manifest"),
            SEGMENT,
            HISTORY,
            LABEL,
            MANIFEST_HISTORY,
            "archive/demo/archive.info",
            "backup/demo/backup.info",
        ];
        for (number, victim) in victims.iter().enumerate() {
            for how in [IN_PLACE, AT_ONCE] {
                let name = format!("{own}/pg_data/second-{number}-{}", how.atomic);
                let linked = client.link(&format!("{base}/{victim}"), &name, true);
                assert!(linked.is_done() || *victim != FINISHED_FILE, "backups with repo-hardlink need it: {linked:?}");
                client.write(&name, b"evil", how);
                client.write(&name, b"", how);
                client.path_create(&name);
                client.path_sync(&name);
                client.remove(&name);
                client.path_remove(&name, true);
            }
        }
        // a second name for what finishes a backup, or of the whole of one
        client.link(&format!("{base}/{FINISHED}/backup.manifest"), &format!("{own}/backup.manifest"), true);
        client.link(&format!("{base}/{FINISHED}"), &format!("{own}/whole"), true);
        client.write(&format!("{own}/backup.manifest"), b"evil", IN_PLACE);
    });
}

#[test]
fn a_link_to_a_protected_place_is_no_way_to_change_it() {
    attack(|client, _, own| {
        let targets = [
            "../20260101-000000F",
            "../20260101-000000F/pg_data",
            "../20260101-000000F/pg_data/base/1/1",
            "../20260101-000000F/backup.manifest",
            "../latest",
            "../backup.history",
            "../backup.info",
            "..",
            "x",
            "x/pg_data",
        ];
        for (number, target) in targets.iter().enumerate() {
            let link = format!("{own}/link-{number}");
            client.link(target, &link, false);
            for below in
                ["", "/pg_data/base/1/1", "/base/1/1", "/backup.manifest", "/new", "/20260101-000000F", "/2026"]
            {
                let path = format!("{link}{below}");
                client.path_create(&path);
                client.path_create(&format!("{path}/new"));
                client.write(&path, b"evil", AT_ONCE);
                client.write(&path, b"evil", IN_PLACE);
                client.link("evil", &path, false);
                client.link(&format!("{own}/pg_data/base/1/1"), &path, true);
                client.remove(&path);
                client.path_remove(&path, false);
                client.path_remove(&path, true);
                client.link(target, &link, false);
            }
        }
        // with all links in it, as a whole
        client.link("../20260101-000000F", &format!("{own}/pg_data/last"), false);
        assert!(client.path_remove(&format!("{own}/pg_data"), true).is_done());
        assert!(client.path_remove(own, true).is_done());
    });
}

#[test]
fn the_link_to_the_latest_backup_is_all_that_can_be_at_its_place() {
    attack(|client, base, _| {
        let latest = format!("{base}/backup/demo/latest");
        assert!(client.remove(&latest).is_done());
        for target in ["/etc", "..", "../other", "20260101-000000F/../..", "", "/"] {
            assert!(!client.link(target, &latest, false).is_done(), "a link to {target:?}");
        }
        for how in [IN_PLACE, AT_ONCE] {
            assert!(!client.write(&latest, b"evil", how).is_done());
            assert!(!client.write(&format!("{latest}/evil"), b"evil", how).is_done());
        }
        assert!(!client.path_create(&latest).is_done());
        assert!(!client.link(&format!("{base}/{FINISHED_FILE}"), &latest, true).is_done());
        assert!(client.link("20260101-000000F", &latest, false).is_done());
        assert!(!client.path_create(&format!("{latest}/evil")).is_done());
        assert!(!client.path_remove(&format!("{latest}/pg_data"), true).is_done());
        assert!(!client.remove(&format!("{latest}/pg_data/base/1/1")).is_done());
    });
}

#[test]
fn a_file_that_is_still_open_when_its_backup_is_finished_changes_it_no_more() {
    for release in RELEASES {
        for how in [AT_ONCE, IN_PLACE] {
            for name in ["pg_data/base/1/1", "pg_data/late", "backup.manifest.copy"] {
                let directory = repository();
                let base = directory.path();
                let own = base.join(UNFINISHED);
                // of its own, so that what is written in place has something to lose
                let path = own.join(name).display().to_string();
                let mut late = session(release, base, Role::Backup, false);
                let mut client = session(release, base, Role::Backup, false);
                assert!(late.open_write(&path, how).is_done());
                let manifest = own.join("backup.manifest").display().to_string();
                assert!(client.write(&manifest, b"finished", AT_ONCE).is_done());
                let finished = contents(&own);
                let written = late.write_block(b"evil");
                if written.is_done() {
                    late.close_write();
                }
                drop(late);
                let mut after = contents(&own);
                // what is under a temporary name is no part of the backup
                after.retain(|path, _| path.extension().is_none_or(|extension| extension != "tmp"));
                let mut before = finished;
                before.retain(|path, _| path.extension().is_none_or(|extension| extension != "tmp"));
                let changed = changes(&before, &after);
                assert!(changed.is_empty(), "{release} {how:?}: {changed:?} changed in a finished backup");
                // nor does the session that finished it rely on what it saw before
                assert!(!client.write(&own.join("new").display().to_string(), b"evil", how).is_done());
                assert!(!client.remove(&own.join("pg_data/base/1/1").display().to_string()).is_done());
            }
        }
    }
}

#[test]
fn a_backup_that_somebody_else_finishes_is_soon_protected() {
    let directory = repository();
    let own = directory.path().join(UNFINISHED);
    let mut client = session("2.60.0", directory.path(), Role::Backup, false);
    let write = |client: &mut Conversation, name: &str| {
        client.write(&own.join(name).display().to_string(), b"content", AT_ONCE).is_done()
    };
    assert!(write(&mut client, "first"));
    // by pgbackrest on the repository host, of which the server hears nothing
    fs::write(own.join("backup.manifest"), "finished").unwrap();
    let tries = (0..1000).take_while(|number| write(&mut client, &format!("late-{number}"))).count();
    assert!(tries <= 300, "{tries} files were still written into it");
    // a session that comes later does not have to find out
    let mut next = session("2.60.0", directory.path(), Role::Backup, false);
    assert!(!write(&mut next, "later"));
}

#[test]
fn what_is_swapped_for_a_link_in_the_middle_of_a_request_leads_nowhere() {
    use std::sync::atomic::{AtomicBool, Ordering};

    for release in ["2.45", "2.60.0"] {
        for by_component in [false, true] {
            let directory = repository();
            let before = protected(directory.path());
            let own = directory.path().join(UNFINISHED);
            for (directory, link, target) in [
                ("pg_data", "swap", "../20260101-000000F/pg_data"),
                ("pg_data/base", "pg_data/swap", "../../20260101-000000F/pg_data/base"),
                ("pg_data/base/1", "pg_data/base/swap", "../../../20260101-000000F/pg_data/base/1"),
            ] {
                std::os::unix::fs::symlink(target, own.join(link)).unwrap();
                let stop = AtomicBool::new(false);
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        while !stop.load(Ordering::Relaxed) {
                            let flags = rustix::fs::RenameFlags::EXCHANGE;
                            let _ = rustix::fs::renameat_with(
                                rustix::fs::CWD,
                                own.join(directory),
                                rustix::fs::CWD,
                                own.join(link),
                                flags,
                            );
                        }
                    });
                    let base = own.parent().unwrap().parent().unwrap().parent().unwrap();
                    let mut client = session(release, base, Role::Backup, by_component);
                    let file = own.join("pg_data/base/1/1").display().to_string();
                    let new = own.join("pg_data/base/1/new/new").display().to_string();
                    let (mut done, mut rounds, begun) = (0, 0, std::time::Instant::now());
                    // how often the two meet depends on the scheduler
                    while rounds < 1500 || done <= 100 && begun.elapsed().as_secs() < 60 {
                        rounds += 1;
                        done += usize::from(client.write(&file, b"evil", IN_PLACE).is_done());
                        done += usize::from(client.write(&file, b"evil", AT_ONCE).is_done());
                        done += usize::from(client.write(&new, b"evil", AT_ONCE).is_done());
                        client.remove(&file);
                        client.path_remove(&own.join("pg_data/base/1").display().to_string(), true);
                    }
                    stop.store(true, Ordering::Relaxed);
                    assert!(done > 100, "only {done} of the requests met the directory");
                });
                // as it was, whichever of the two has the name now
                let names = [own.join(directory), own.join(link)];
                let is_link = |path: &Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
                if is_link(&names[0]) {
                    fs::remove_file(&names[0]).unwrap();
                    let _ = fs::rename(&names[1], &names[0]);
                } else {
                    let _ = fs::remove_file(&names[1]);
                }
                fs::create_dir_all(own.join("pg_data/base/1")).unwrap();
            }
            let changed = changes(&before, &protected(directory.path()));
            assert!(changed.is_empty(), "{release}, walked: {by_component}: {changed:?} changed");
        }
    }
}

#[test]
fn a_segment_that_is_archived_gets_no_twin() {
    for release in RELEASES {
        let directory = repository();
        let before = contents(directory.path());
        let base = directory.path().to_str().unwrap();
        let mut client = session(release, directory.path(), Role::Archiver, false);
        let (segment, _) = SEGMENT.rsplit_once('-').unwrap();
        let twin = format!("{base}/{segment}-{}.gz", "f".repeat(40));
        let answer = client.write(&twin, b"evil", AT_ONCE);
        let Answer::Failed(105, text) = answer else { panic!("{release}: {answer:?}") };
        assert!(text.contains("with other content, as '"), "{text}");
        assert_eq!(contents(directory.path()), before, "{release}");
    }
}
