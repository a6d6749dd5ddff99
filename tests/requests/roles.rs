//! Every request with every kind of path, for every role: what is not written down here as allowed is
//! refused, and nothing changes by it.
//!
//! The tables are written by hand. Neither they nor what they are compared with asks the code under
//! test what it would do.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use repohostd::config::{Command, Role, SessionSettings};

use crate::talk::{converse, settings};
use crate::tree::{changes, contents};
use crate::victim::{self, FINISHED, FINISHED_FILE, HISTORY, LABEL, MANIFEST_HISTORY, SECRET, SEGMENT, UNFINISHED};
use crate::wire::{Answer, Conversation, How};

/// One of each framing and each layout of requests.
const RELEASES: [&str; 3] = ["2.45", "2.55.1", "2.60.0"];

/// What a client can ask of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Info,
    Follow,
    List,
    Read,
    /// Write a file under a temporary name, with the directories that are missing.
    Atomic,
    /// Write a file in place, with the directories that are missing.
    Plain,
    Make,
    Sync,
    Remove,
    Rmdir,
    Rmtree,
    /// Make a symbolic link there.
    SoftHere,
    /// Make it a second name of a file of the unfinished backup.
    HardHere,
    /// Give it a second name in the unfinished backup.
    HardFrom,
}

use Ask::{Atomic, Follow, HardFrom, HardHere, Info, List, Make, Plain, Read, Remove, Rmdir, Rmtree, SoftHere, Sync};

const ALL: [Ask; 14] =
    [Info, Follow, List, Read, Atomic, Plain, Make, Sync, Remove, Rmdir, Rmtree, SoftHere, HardHere, HardFrom];

/// What of a directory or of a file can be looked at.
const DIRECTORY: &[Ask] = &[Info, Follow, List];
const FILE: &[Ask] = &[Info, Follow, Read];
/// What can be asked of what there is not.
const NOTHING: &[Ask] = &[Info, Follow, List];

/// Which roles may ask what of a path; each may what the ones before it may.
struct Row {
    path: String,
    reader: &'static [Ask],
    archiver: &'static [Ask],
    backup: &'static [Ask],
    /// What may be answered either way, as long as nothing changes but the place itself and what is in the
    /// unfinished backup: for these roles and those above.
    either: &'static [(Role, Ask)],
    /// What may be answered either way as long as nothing changes at all, like whatever only looks.
    quiet: &'static [(Role, Ask)],
}

impl Row {
    fn is_done(&self, role: Role, ask: Ask) -> bool {
        self.reader.contains(&ask)
            || role >= Role::Archiver && self.archiver.contains(&ask)
            || role >= Role::Backup && self.backup.contains(&ask)
    }

    fn is_either(&self, role: Role, ask: Ask) -> bool {
        self.either.iter().any(|(least, either)| role >= *least && *either == ask)
    }

    fn is_quiet(&self, role: Role, ask: Ask) -> bool {
        let looks = [Info, Follow, List, Read].contains(&ask);
        looks || self.quiet.iter().any(|(least, quiet)| role >= *least && *quiet == ask)
    }
}

fn row(path: impl Into<String>, reader: &'static [Ask], archiver: &'static [Ask], backup: &'static [Ask]) -> Row {
    Row { path: path.into(), reader, archiver, backup, either: &[], quiet: &[] }
}

impl Row {
    fn either(self, either: &'static [(Role, Ask)]) -> Self {
        Self { either, ..self }
    }

    fn quiet(self, quiet: &'static [(Role, Ask)]) -> Self {
        Self { quiet, ..self }
    }
}

/// The stanza's archive.
fn archive() -> Vec<Row> {
    let wal = "archive/demo/15-1/0000000100000000";
    let sum = "76543210fedcba9876543210fedcba9876543210";
    let segment = "000000010000000000000002";
    let mut rows = vec![
        row("archive/demo", DIRECTORY, &[], &[]).either(&[(Role::Archiver, Make), (Role::Archiver, Sync)]),
        row("archive/demo/15-1", DIRECTORY, &[], &[]).either(&[(Role::Archiver, Make), (Role::Archiver, Sync)]),
        row(wal, DIRECTORY, &[], &[]).either(&[(Role::Archiver, Make), (Role::Archiver, Sync)]),
        row("archive/demo/archive.info", FILE, &[], &[]).either(&[(Role::Backup, HardFrom)]),
        row("archive/demo/archive.info.copy", FILE, &[], &[]).either(&[(Role::Backup, HardFrom)]),
        // its name holds the checksum of its content, so whoever writes it again writes the same
        row(SEGMENT, FILE, &[], &[])
            .either(&[(Role::Backup, HardFrom)])
            .quiet(&[(Role::Archiver, Atomic), (Role::Archiver, Plain)]),
        row(HISTORY, FILE, &[], &[]).either(&[(Role::Backup, HardFrom)]),
        row(LABEL, FILE, &[], &[]).either(&[(Role::Backup, HardFrom)]),
    ];
    // what is archived
    for new in [
        format!("{wal}/{segment}-{sum}"),
        format!("{wal}/{segment}-{sum}.gz"),
        format!("{wal}/{segment}-{sum}.zst"),
        format!("{wal}/{segment}.partial-{sum}.lz4"),
        format!("{wal}/{segment}.00000028.backup"),
        "archive/demo/15-1/00000003.history".to_owned(),
        format!("archive/demo/15-1/000000020000000A/000000020000000A000000FF-{sum}.bz2"),
        format!("archive/demo/16-2/0000000300000000/000000030000000000000001-{sum}.gz"),
    ] {
        rows.push(row(new, NOTHING, &[Atomic], &[]).either(&[(Role::Archiver, Plain)]));
    }
    // what is not
    for stray in [
        "archive/demo/evil".to_owned(),
        "archive/demo/demo-archive-1.lock".to_owned(),
        "archive/demo/demo.stop".to_owned(),
        "archive/demo/archive.info.pgbackrest.tmp".to_owned(),
        "archive/demo/backup.info".to_owned(),
        "archive/demo/00000003.history".to_owned(),
        "archive/demo/20260103-000000F/pg_data/x".to_owned(),
        "archive/demo/15-1/evil".to_owned(),
        "archive/demo/15-1/00000003.history.gz".to_owned(),
        "archive/demo/15-1/0000003.history".to_owned(),
        "archive/demo/15-1/00000003.history.pgbackrest.tmp".to_owned(),
        format!("{wal}/evil"),
        format!("{wal}/{segment}"),
        format!("{wal}/{segment}-{sum}.exe"),
        format!("{wal}/{segment}-{sum}.gz.pgbackrest.tmp"),
        format!("{wal}/{segment}-{}", sum.to_uppercase()),
        format!("{wal}/{segment}-{}", &sum[1..]),
        format!("{wal}/{segment}-{sum}.gz/x"),
        format!("{wal}/{segment}.0000028.backup"),
        format!("{wal}/0000000200000000000000FF-{sum}"),
        format!("archive/demo/15-1/{segment}-{sum}"),
        format!("archive/demo/evil/0000000100000000/{segment}-{sum}"),
        format!("archive/demo/15-1/x/0000000100000000/{segment}-{sum}"),
        // a segment that is there already, under another name
        SEGMENT.trim_end_matches(".gz").to_owned() + ".gz.gz",
    ] {
        rows.push(row(stray, &[], &[], &[]));
    }
    rows
}

/// The stanza's backups.
fn backups() -> Vec<Row> {
    let unfinished = |name: &str| format!("{UNFINISHED}/{name}");
    let finished = |name: &str| format!("{FINISHED}/{name}");
    let mut rows = vec![
        row("backup/demo", DIRECTORY, &[], &[]).either(&[(Role::Backup, Make), (Role::Backup, Sync)]),
        row(FINISHED, DIRECTORY, &[], &[]).either(&[(Role::Backup, Make), (Role::Backup, Sync)]),
        row(finished("pg_data"), DIRECTORY, &[], &[]).either(&[(Role::Backup, Make), (Role::Backup, Sync)]),
        row(FINISHED_FILE, FILE, &[], &[HardFrom]),
        row(finished("backup.manifest"), FILE, &[], &[]).either(&[(Role::Backup, HardFrom)]),
        row(finished("backup.manifest.copy"), FILE, &[], &[]).either(&[(Role::Backup, HardFrom)]),
        row("backup/demo/20260101-000000F_20260102-000000I/pg_data/PG_VERSION", FILE, &[], &[HardFrom]),
        row("backup/demo/latest", &[Info, Follow], &[], &[Remove]).either(&[(Role::Backup, Rmtree)]),
        row("backup/demo/latest/pg_data/base/1/1", FILE, &[], &[]).either(&[(Role::Backup, HardFrom)]),
        row(MANIFEST_HISTORY, FILE, &[], &[]).either(&[(Role::Backup, HardFrom)]),
        row("backup/demo/backup.history", DIRECTORY, &[], &[Sync]).either(&[(Role::Backup, Make)]),
        row("backup/demo/backup.history/2026", DIRECTORY, &[], &[])
            .either(&[(Role::Backup, Make), (Role::Backup, Sync)]),
        row("backup/demo/backup.history/2026/20260103-000000F.manifest.gz", NOTHING, &[], &[Atomic])
            .either(&[(Role::Backup, Plain)]),
        row(UNFINISHED, DIRECTORY, &[], &[Make, Sync, Rmtree]),
        row(unfinished("pg_data/base/1/1"), FILE, &[], &[Atomic, Plain, Remove, HardFrom])
            .either(&[(Role::Backup, Make)]),
        row(unfinished("pg_data"), DIRECTORY, &[], &[Make, Sync, Rmtree]),
        row(unfinished("backup.manifest.copy"), FILE, &[], &[Atomic, Plain, Remove])
            .either(&[(Role::Backup, Make), (Role::Backup, HardFrom)]),
        row(unfinished("backup.manifest"), NOTHING, &[], &[Atomic]).either(&[
            (Role::Backup, Plain),
            (Role::Backup, Make),
            (Role::Backup, SoftHere),
            (Role::Backup, HardHere),
            (Role::Backup, Rmdir),
            (Role::Backup, Rmtree),
        ]),
        // a link of its own, to a directory, that leads to the finished backup
        row(unfinished("x"), &[Info, Follow], &[], &[Remove]).either(&[
            (Role::Backup, Atomic),
            (Role::Backup, Plain),
            (Role::Backup, Make),
            (Role::Backup, Sync),
            (Role::Backup, Rmtree),
            (Role::Backup, HardFrom),
        ]),
        // one to a file
        row(unfinished("f"), FILE, &[], &[Remove]).either(&[
            (Role::Backup, Atomic),
            (Role::Backup, Plain),
            (Role::Backup, Make),
            (Role::Backup, Sync),
            (Role::Backup, HardFrom),
            (Role::Backup, Rmtree),
        ]),
        // a second name of that file
        row(unfinished("h"), FILE, &[], &[Atomic, Remove]).either(&[
            (Role::Backup, Plain),
            (Role::Backup, Make),
            (Role::Backup, HardFrom),
        ]),
        // and a link that stays inside
        row(unfinished("own/base/1/1"), FILE, &[], &[]).either(&[
            (Role::Backup, Atomic),
            (Role::Backup, Plain),
            (Role::Backup, Make),
            (Role::Backup, Remove),
            (Role::Backup, HardFrom),
        ]),
        row(unfinished("x/pg_data/base/1/1"), FILE, &[], &[]).either(&[(Role::Backup, HardFrom)]),
        row(unfinished("x/pg_data/base"), DIRECTORY, &[], &[]).either(&[(Role::Backup, Make), (Role::Backup, Sync)]),
        row(unfinished("x/backup.manifest"), FILE, &[], &[]).either(&[(Role::Backup, HardFrom)]),
        row(unfinished("x/backup.manifest.pgbackrest.tmp"), NOTHING, &[], &[])
            .either(&[(Role::Backup, Rmdir), (Role::Backup, Rmtree)]),
        row(unfinished("x/new"), NOTHING, &[], &[]).either(&[(Role::Backup, Rmdir), (Role::Backup, Rmtree)]),
        row(unfinished("x/new/new"), NOTHING, &[], &[]).either(&[(Role::Backup, Rmdir), (Role::Backup, Rmtree)]),
    ];
    // what a backup is made of
    for new in [
        unfinished("new"),
        unfinished("pg_data/new/new/new.gz"),
        unfinished("bundle/1"),
        "backup/demo/20260104-000000F/pg_data/base/1/1".to_owned(),
        "backup/demo/20260101-000000F_20260104-000000I/backup.manifest.copy".to_owned(),
    ] {
        let rest: &'static [(Role, Ask)] =
            &[(Role::Backup, Rmdir), (Role::Backup, Rmtree), (Role::Backup, SoftHere), (Role::Backup, HardHere)];
        rows.push(row(new, NOTHING, &[], &[Atomic, Plain, Make]).either(rest));
    }
    // a directory of a new backup can be made, and nothing else can be in its place
    rows.push(
        row("backup/demo/20260104-000000F", NOTHING, &[], &[Make])
            .either(&[(Role::Backup, Rmdir), (Role::Backup, Rmtree)]),
    );
    // what only looks like it
    let names = [
        "evil",
        "demo.stop",
        "demo-backup-1.lock",
        "backup.info.pgbackrest.tmp",
        "archive.info",
        "20260104-000000X",
        "20260104-000000F.x",
        "20260104-000000F ",
        "20260104-000000F.pgbackrest.tmp",
        "20260101-000000F_20260104-000000F",
        "20260104-000000D",
        "backup.history.x",
        "latest.pgbackrest.tmp",
    ];
    for name in names {
        rows.push(row(format!("backup/demo/{name}"), NOTHING, &[], &[]));
        rows.push(row(format!("backup/demo/{name}/new"), NOTHING, &[], &[]));
    }
    for name in ["latest/new", "backup.history/2026/evil", "backup.history/evil/20260103-000000F.manifest.gz"] {
        rows.push(row(format!("backup/demo/{name}"), NOTHING, &[], &[]));
    }
    for name in ["new", "new/new", "backup.manifest.pgbackrest.tmp", "pg_data/base/1/1.pgbackrest.tmp"] {
        rows.push(row(finished(name), NOTHING, &[], &[]));
    }
    rows
}

/// The finished backup and the archive by other ways than the straight one, and what is no path at all.
fn detours() -> Vec<Row> {
    let mut rows: Vec<Row> = [
        format!("{UNFINISHED}/../20260101-000000F"),
        format!("{UNFINISHED}/../20260101-000000F/pg_data/base/1/1"),
        format!("{UNFINISHED}/x/../20260101-000000F/pg_data/base/1/1"),
        format!("{UNFINISHED}/./x"),
        format!("{UNFINISHED}//x"),
        format!("{UNFINISHED}/"),
        format!("{UNFINISHED}/."),
        format!("{UNFINISHED}/.."),
        format!("{FINISHED}/"),
        format!("{FINISHED}/."),
        format!("{FINISHED}//pg_data"),
        format!("{FINISHED_FILE}/"),
        "backup//demo/20260103-000000F/new".to_owned(),
        "/backup/demo/20260103-000000F/new".to_owned(),
        "backup/./demo/20260103-000000F/new".to_owned(),
        "backup/demo/../demo/20260103-000000F/new".to_owned(),
        "backup/demo/backup.history/../20260101-000000F/new".to_owned(),
        "archive/demo/15-1/../archive.info".to_owned(),
        format!("{UNFINISHED}/new\0new"),
        format!("{FINISHED}\0"),
        format!("{UNFINISHED}/{}", "n".repeat(256)),
        format!("{UNFINISHED}/{}", "n/".repeat(2100)),
    ]
    .into_iter()
    .map(|path| row(path, &[], &[], &[]))
    .collect();
    // too long only with the suffix of a temporary name
    rows.push(row(format!("{UNFINISHED}/{}", "n".repeat(255)), NOTHING, &[], &[Plain, Make]).either(&[
        (Role::Backup, Rmdir),
        (Role::Backup, Rmtree),
        (Role::Backup, SoftHere),
        (Role::Backup, HardHere),
    ]));
    rows
}

/// Places that no client of stanza `demo` has anything to do with, of whatever role.
const FOREIGN: [&str; 18] = [
    "backup/other",
    "backup/other/backup.info",
    "backup/other/20260103-000000F",
    "backup/other/20260103-000000F/new",
    "archive/other/archive.info",
    "archive/other/15-1/00000003.history",
    "backup/demo2/20260103-000000F/backup.manifest.copy",
    "backup/demo2",
    "backup/dem",
    "backup/demo3/20260103-000000F/new",
    "file",
    "lock",
    "lock/demo-backup-1.lock",
    "demo.stop",
    "new",
    "../outside",
    "backup/demo/../other/backup.info",
    "backup/demo/20260103-000000F/../../other/backup.info",
];

fn ask(conversation: &mut Conversation, ask: Ask, path: &str, base: &str) -> Answer {
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
        Role::Reader => Command::Restore,
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
    try_rows(&archive());
}

#[test]
fn of_the_backups_each_role_gets_what_it_needs_and_no_more() {
    try_rows(&backups());
}

#[test]
fn no_detour_leads_to_what_is_refused() {
    try_rows(&detours());
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

/// Everything below `base` but for the unfinished backup, which its client may do anything with.
fn protected(base: &Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
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
                    let mut done = 0;
                    for _ in 0..1500 {
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
