//! Every request with every kind of path, for every role: what is not written down here as allowed is
//! refused, and nothing changes by it.
//!
//! The tables are written by hand. Neither they nor what they are compared with asks the code under
//! test what it would do.

mod attacks;
mod tables;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use repohostd::config::{Command, Role, SessionSettings};

use crate::talk::{converse, settings};
use crate::tree::{changes, contents};
use crate::victim::{self, SECRET, UNFINISHED};
use crate::wire::{Answer, Conversation, How};
use tables::{ALL, Ask, FOREIGN, Row};

/// One of each framing and each layout of requests.
const RELEASES: [&str; 3] = ["2.45", "2.55.1", "2.60.0"];

fn ask(conversation: &mut Conversation, ask: Ask, path: &str, base: &str) -> Answer {
    use Ask::{
        Atomic, Follow, HardFrom, HardHere, Info, List, Make, Plain, Read, Remove, Rmdir, Rmtree, SoftHere, Sync,
    };

    let how = |atomic| How { atomic, create_path: true };
    let own = |name: &str| format!("{base}/{UNFINISHED}/{name}");
    match ask {
        Info => conversation.info(path, false),
        Follow => conversation.info(path, true),
        List => conversation.list(path),
        Read => conversation.read(path),
        Atomic => conversation.write(path, b"evil", how(true)),
        Plain => conversation.write(path, b"evil", how(false)),
        Make => conversation.path_create(path),
        Sync => conversation.path_sync(path),
        Remove => conversation.remove(path),
        Rmdir => conversation.path_remove(path, false),
        Rmtree => conversation.path_remove(path, true),
        SoftHere => conversation.link("evil", path, false),
        HardHere => conversation.link(&own("pg_data/base/1/1"), path, true),
        HardFrom => conversation.link(path, &own("from"), true),
    }
}

/// A repository in memory where there is such a place, since thousands of them are made.
fn repository() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let directory = directory.unwrap();
    victim::build(directory.path());
    directory
}

/// A session of stanza `demo` of the command that the role is for.
fn session(release: &str, base: &Path, role: Role, by_component: bool) -> Conversation {
    let command = match role {
        Role::PgReader | Role::Reader => Command::Restore,
        Role::Archiver => Command::ArchivePush,
        Role::Backup => Command::Backup,
        Role::Admin => Command::Expire,
    };
    converse(release, SessionSettings { command, ..settings(base) }, role, by_component)
}

/// What was found wrong, all of it.
#[derive(Default)]
struct Findings(String);

impl Findings {
    fn note(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.0, "{text}");
    }
}

impl Drop for Findings {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "{} findings:\n{}", self.0.lines().count(), self.0);
        }
    }
}

/// Tries every request on the place of a row, and compares with what the row says.
fn try_row(findings: &mut Findings, row: &Row, role: Role, release: &str, by_component: bool) {
    let shown: String = row.path.chars().take(120).collect();
    let about =
        |what: Ask| format!("{release} {role:?} {what:?} {shown}{}", if by_component { " (walked)" } else { "" });
    let shared = repository();
    let untouched = contents(shared.path());
    for what in ALL {
        let (done, either) = (row.is_done(role, what), row.is_either(role, what));
        let fresh = (done || either).then(repository);
        let base = fresh.as_ref().unwrap_or(&shared).path();
        let text = base.to_str().unwrap();
        let answer = ask(&mut session(release, base, role, by_component), what, &format!("{text}/{}", row.path), text);
        if done || either {
            if done && !answer.is_done() {
                findings.note(format_args!("{}: refused: {answer:?}", about(what)));
            }
            let place = Path::new(&row.path);
            for changed in changes(&untouched, &contents(base)) {
                let own = changed.starts_with(place) || place.starts_with(&changed);
                let unfinished = role >= Role::Backup && changed.starts_with(UNFINISHED);
                if !own && !unfinished {
                    findings.note(format_args!("{}: changed {}: {answer:?}", about(what), changed.display()));
                }
            }
            continue;
        }
        match answer {
            _ if row.is_quiet(role, what) => {}
            Answer::Done(_) => findings.note(format_args!("{}: done", about(what))),
            Answer::Ended => {}
            Answer::Failed(code, text) => {
                let helpful = Role::ALL.into_iter().find(|other| row.is_done(*other, what));
                if let Some(helpful) = helpful
                    && (code != 105
                        || !text.contains("access denied: ")
                        || !text.contains(&format!("role '{}'", helpful.name())))
                {
                    findings.note(format_args!("{}: should name {helpful:?}: {code} {text}", about(what)));
                }
            }
        }
    }
    for changed in changes(&untouched, &contents(shared.path())) {
        findings.note(format_args!("{release} {role:?} {shown}: changed {} though refused", changed.display()));
    }
}

fn try_rows(rows: &[Row]) {
    let mut findings = Findings::default();
    for release in RELEASES {
        for by_component in [false, true] {
            for role in [Role::Reader, Role::Archiver, Role::Backup] {
                for row in rows {
                    try_row(&mut findings, row, role, release, by_component);
                }
            }
        }
    }
}

#[test]
fn of_the_archive_each_role_gets_what_it_needs_and_no_more() {
    try_rows(&tables::archive());
}

#[test]
fn of_the_backups_each_role_gets_what_it_needs_and_no_more() {
    try_rows(&tables::finished_backups());
    try_rows(&tables::unfinished_backups());
    try_rows(&tables::stray_backups());
}

#[test]
fn no_detour_leads_to_what_is_refused() {
    try_rows(&tables::detours());
}

#[test]
fn no_role_reaches_another_stanza() {
    let mut findings = Findings::default();
    for release in RELEASES {
        for by_component in [false, true] {
            for role in Role::ALL {
                let directory = tempfile::tempdir().unwrap();
                let base = directory.path().join("repository");
                fs::create_dir(&base).unwrap();
                fs::write(directory.path().join("outside"), SECRET).unwrap();
                victim::build(&base);
                let before = contents(directory.path());
                let text = base.to_str().unwrap();
                let relative = FOREIGN.iter().map(|path| (*path).to_owned());
                let all = FOREIGN.iter().map(|path| format!("{text}/{path}")).chain(relative);
                for path in all.chain([format!("{text}2/backup/demo/x"), "/etc/passwd".to_owned(), String::new()]) {
                    for what in ALL {
                        let answer = ask(&mut session(release, &base, role, by_component), what, &path, text);
                        if let Answer::Done(bytes) = &answer {
                            findings.note(format_args!("{release} {role:?} {what:?} {path}: {}", bytes.len()));
                        }
                    }
                }
                for changed in changes(&before, &contents(directory.path())) {
                    findings.note(format_args!("{release} {role:?}: {} has changed", changed.display()));
                }
            }
        }
    }
}
