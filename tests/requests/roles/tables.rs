//! What each role may ask of which path, written by hand.

use repohostd::config::Role;

use crate::victim::{FINISHED, FINISHED_FILE, HISTORY, LABEL, MANIFEST_HISTORY, SEGMENT, UNFINISHED};

/// What a client can ask of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
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

pub(super) const ALL: [Ask; 14] =
    [Info, Follow, List, Read, Atomic, Plain, Make, Sync, Remove, Rmdir, Rmtree, SoftHere, HardHere, HardFrom];

/// What of a directory or of a file can be looked at.
const DIRECTORY: &[Ask] = &[Info, Follow, List];
const FILE: &[Ask] = &[Info, Follow, Read];
/// What can be asked of what there is not.
const NOTHING: &[Ask] = &[Info, Follow, List];

/// Which roles may ask what of a path; each may what the ones before it may.
pub(super) struct Row {
    pub(super) path: String,
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
    pub(super) fn is_done(&self, role: Role, ask: Ask) -> bool {
        self.reader.contains(&ask)
            || role >= Role::Archiver && self.archiver.contains(&ask)
            || role >= Role::Backup && self.backup.contains(&ask)
    }

    pub(super) fn is_either(&self, role: Role, ask: Ask) -> bool {
        self.either.iter().any(|(least, either)| role >= *least && *either == ask)
    }

    pub(super) fn is_quiet(&self, role: Role, ask: Ask) -> bool {
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
pub(super) fn archive() -> Vec<Row> {
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
    // the same segment with another checksum, which a real client would find out before
    let twin = SEGMENT.replace("0123456789abcdef0123456789abcdef01234567", sum);
    rows.push(row(twin, NOTHING, &[], &[]).either(&[(Role::Archiver, Atomic), (Role::Archiver, Plain)]));
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

/// Finished backups, and what is beside the directories of backups.
pub(super) fn finished_backups() -> Vec<Row> {
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
    ];
    for name in ["latest/new", "backup.history/2026/evil", "backup.history/evil/20260103-000000F.manifest.gz"] {
        rows.push(row(format!("backup/demo/{name}"), NOTHING, &[], &[]));
    }
    for name in ["new", "new/new", "backup.manifest.pgbackrest.tmp", "pg_data/base/1/1.pgbackrest.tmp"] {
        rows.push(row(finished(name), NOTHING, &[], &[]));
    }
    rows
}

/// A backup that is being made, with links that lead out of it.
pub(super) fn unfinished_backups() -> Vec<Row> {
    let unfinished = |name: &str| format!("{UNFINISHED}/{name}");
    let mut rows = vec![
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
    rows
}

/// What only looks like a part of a stanza's backups.
pub(super) fn stray_backups() -> Vec<Row> {
    let mut rows = Vec::new();
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
    rows
}

/// The finished backup and the archive by other ways than the straight one, and what is no path at all.
pub(super) fn detours() -> Vec<Row> {
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
pub(super) const FOREIGN: [&str; 18] = [
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
