//! A repository that hostile clients are let loose on: stanza `demo` with what they must not touch, a
//! backup that is being made, and two stanzas that are none of their business.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// A finished backup of the stanza, and one of its files.
pub(crate) const FINISHED: &str = "backup/demo/20260101-000000F";
pub(crate) const FINISHED_FILE: &str = "backup/demo/20260101-000000F/pg_data/base/1/1";
/// One that is being made, which holds a file of its own, links to the finished one (`x` to its
/// directory, `f` to its file) and a second name of the finished file (`h`).
pub(crate) const UNFINISHED: &str = "backup/demo/20260103-000000F";
/// An archived segment and the records beside it.
pub(crate) const SEGMENT: &str = "archive/demo/15-1/0000000100000000/\
                                  000000010000000000000001-0123456789abcdef0123456789abcdef01234567.gz";
pub(crate) const HISTORY: &str = "archive/demo/15-1/00000002.history";
pub(crate) const LABEL: &str = "archive/demo/15-1/0000000100000000/000000010000000000000001.00000028.backup";
/// The manifest of the finished backup in the history of manifests.
pub(crate) const MANIFEST_HISTORY: &str = "backup/demo/backup.history/2026/20260101-000000F.manifest.gz";

/// What every file of the repository holds, whoever must not learn it.
pub(crate) const SECRET: &str = "the secret content of ";

/// Makes the repository at `base`, which exists and is empty.
pub(crate) fn build(base: &Path) {
    let incremental = "backup/demo/20260101-000000F_20260102-000000I";
    let mut files = vec![
        "archive/demo/archive.info".to_owned(),
        "archive/demo/archive.info.copy".to_owned(),
        SEGMENT.to_owned(),
        HISTORY.to_owned(),
        LABEL.to_owned(),
        "backup/demo/backup.info".to_owned(),
        "backup/demo/backup.info.copy".to_owned(),
        MANIFEST_HISTORY.to_owned(),
        format!("{UNFINISHED}/backup.manifest.copy"),
        format!("{UNFINISHED}/pg_data/base/1/1"),
        "file".to_owned(),
    ];
    for label in [FINISHED, incremental] {
        for name in ["backup.manifest", "backup.manifest.copy", "pg_data/base/1/1", "pg_data/PG_VERSION"] {
            files.push(format!("{label}/{name}"));
        }
    }
    for stanza in ["other", "demo2"] {
        files.push(format!("archive/{stanza}/archive.info"));
        files.push(format!("backup/{stanza}/backup.info"));
        files.push(format!("backup/{stanza}/20260103-000000F/backup.manifest.copy"));
    }
    for name in files {
        let path = base.join(&name);
        fs::create_dir_all(path.parent().expect("it is in a directory")).expect("a directory can be made");
        fs::write(path, format!("{SECRET}{name}")).expect("a file can be made");
    }
    fs::create_dir(base.join("lock")).expect("a directory can be made");
    let unfinished = base.join(UNFINISHED);
    symlink("20260101-000000F", base.join("backup/demo/latest")).expect("a link can be made");
    symlink("../20260101-000000F", unfinished.join("x")).expect("a link can be made");
    symlink("../20260101-000000F/pg_data/base/1/1", unfinished.join("f")).expect("a link can be made");
    symlink("pg_data", unfinished.join("own")).expect("a link can be made");
    fs::hard_link(base.join(FINISHED_FILE), unfinished.join("h")).expect("a link can be made");
}
