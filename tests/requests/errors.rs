//! The texts and codes of what can fail on disk, as the specification's table of storage operations
//! lists them (section 6.4). Clients show them and administrators search for them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use repohostd::protocol::pack::Writer;

use crate::talk::{Reply, Talk, settings};

/// One failing request: what it does, its code, and its text with the stanza's directory as `~`.
struct Row {
    what: &'static str,
    ask: fn(&mut Talk, &str) -> Reply,
    code: i32,
    text: &'static str,
}

fn write(talk: &mut Talk, path: &str, create: bool, atomic: bool) -> Reply {
    talk.ask("s-wr", "opn", false, |pack| {
        pack.str(path).mode_default(0o640, 0).mode_default(0o750, 0).null().null().time(0);
        pack.bool(create).bool(false).bool(false).bool(atomic).pack(|_| {});
    })
}

fn read(talk: &mut Talk, path: &str) -> Reply {
    talk.ask("s-rd", "opn", false, |pack| _ = pack.str(path))
}

fn no_more(_: &mut Writer) {}

const ROWS: &[Row] = &[
    Row {
        what: "look below a file",
        ask: |talk, base| talk.path("s-i", &format!("{base}/file/x"), |pack| _ = pack.u32(4)),
        code: 41,
        text: "unable to get info for path/file '~/file/x': [20] Not a directory",
    },
    Row {
        what: "list a file",
        ask: |talk, base| talk.path("s-l", &format!("{base}/file"), |pack| _ = pack.u32(4)),
        code: 53,
        text: "unable to list file info for path '~/file': [20] Not a directory",
    },
    Row {
        what: "read a file that is missing",
        ask: |talk, base| read(talk, &format!("{base}/none")),
        code: 55,
        text: "unable to open missing file '~/none' for read",
    },
    Row {
        what: "read below a file",
        ask: |talk, base| read(talk, &format!("{base}/file/x")),
        code: 41,
        text: "unable to open file '~/file/x' for read: [20] Not a directory",
    },
    Row {
        what: "read a directory",
        ask: |talk, base| read(talk, &format!("{base}/dir")),
        code: 42,
        text: "unable to read '~/dir': [21] Is a directory",
    },
    Row {
        what: "write where the path is missing",
        ask: |talk, base| write(talk, &format!("{base}/none/x"), false, true),
        code: 55,
        text: "unable to open file '~/none/x' for write in missing path",
    },
    Row {
        what: "write below a file",
        ask: |talk, base| write(talk, &format!("{base}/file/x"), true, true),
        code: 41,
        text: "unable to open file '~/file/x' for write: [20] Not a directory",
    },
    Row {
        what: "write over a directory in place",
        ask: |talk, base| write(talk, &format!("{base}/dir"), true, false),
        code: 41,
        text: "unable to open file '~/dir' for write: [21] Is a directory",
    },
    Row {
        what: "rename over a directory",
        ask: |talk, base| {
            write(talk, &format!("{base}/dir"), true, true);
            talk.ask_in(talk.last(), "s-wr", "cls", true, no_more)
        },
        code: 74,
        text: "unable to move '~/dir.pgbackrest.tmp' to '~/dir': [21] Is a directory",
    },
    Row {
        what: "make a directory that exists",
        ask: |talk, base| talk.path("s-pc", &format!("{base}/dir"), |pack| _ = pack.bool(true)),
        code: 47,
        text: "unable to create path '~/dir': [17] File exists",
    },
    Row {
        what: "make a directory whose parent is missing",
        ask: |talk, base| talk.path("s-pc", &format!("{base}/none/x"), |pack| _ = pack.bool(false).bool(true)),
        code: 47,
        text: "unable to create path '~/none/x': [2] No such file or directory",
    },
    Row {
        what: "remove a directory that is not empty",
        ask: |talk, base| talk.path("s-pr", &format!("{base}/dir"), no_more),
        code: 61,
        text: "unable to remove path '~/dir': [39] Directory not empty",
    },
    Row {
        what: "remove a file as a directory",
        ask: |talk, base| talk.path("s-pr", &format!("{base}/file"), no_more),
        code: 61,
        text: "unable to remove path '~/file': [20] Not a directory",
    },
    Row {
        what: "sync a directory that is missing",
        ask: |talk, base| talk.path("s-ps", &format!("{base}/none"), no_more),
        code: 73,
        text: "unable to sync missing path '~/none'",
    },
    Row {
        what: "remove a file that is missing",
        ask: |talk, base| talk.path("s-r", &format!("{base}/none"), |pack| _ = pack.bool(true)),
        code: 60,
        text: "unable to remove '~/none': [2] No such file or directory",
    },
    Row {
        what: "remove a directory as a file",
        ask: |talk, base| talk.path("s-r", &format!("{base}/dir"), no_more),
        code: 60,
        text: "unable to remove '~/dir': [21] Is a directory",
    },
    Row {
        what: "make a symbolic link that exists",
        ask: |talk, base| talk.ask("s-lc", "prc", false, |pack| _ = pack.str("file").str(&format!("{base}/dir/link"))),
        code: 41,
        text: "unable to create symlink '~/dir/link' to 'file': [17] File exists",
    },
    Row {
        what: "make a hard link that exists",
        ask: |talk, base| {
            talk.ask("s-lc", "prc", false, |pack| {
                pack.str(&format!("{base}/file")).str(&format!("{base}/dir/link")).u32(1);
            })
        },
        code: 41,
        text: "unable to create hardlink '~/dir/link' to '~/file': [17] File exists",
    },
    Row {
        what: "add a filter that there is not",
        ask: |talk, base| {
            talk.ask("s-rd", "opn", false, |pack| {
                pack.str(&format!("{base}/file")).null().null().null().null().null();
                pack.pack(|list| _ = list.string_id(repohostd::protocol::string_id::StringId::new("zzz")));
            })
        },
        code: 25,
        text: "unable to add filter 'zzz'",
    },
];

fn stanza(directory: &Path) -> String {
    let base = directory.join("repo/backup/demo");
    fs::create_dir_all(base.join("dir")).unwrap();
    fs::write(base.join("file"), "text").unwrap();
    symlink("../file", base.join("dir/link")).unwrap();
    base.to_str().unwrap().to_owned()
}

#[test]
fn what_fails_on_disk_is_said_in_the_originals_words() {
    let directory = tempfile::tempdir().unwrap();
    let base = stanza(directory.path());
    for Row { what, ask, code, text } in ROWS {
        let mut talk = Talk::new("2.55.1", settings(&directory.path().join("repo")), false);
        let reply = ask(&mut talk, &base);
        assert_eq!(reply.failed(), (*code, text.replace('~', &base).as_str()), "{what}");
        assert_eq!(talk.is_open(), *code != 25, "{what}");
        if talk.is_open() {
            assert_eq!(talk.ask("noop", "prc", false, no_more).error, None, "{what}: the connection stays usable");
        }
    }
}

#[test]
fn a_file_that_cannot_be_removed_is_named_as_the_release_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let base = stanza(directory.path());
    let mut talk = Talk::new("2.60.0", settings(&directory.path().join("repo")), false);
    let reply = talk.path("s-r", &format!("{base}/none"), |pack| _ = pack.bool(true));
    assert_eq!(reply.failed().1, format!("unable to remove file '{base}/none': [2] No such file or directory"));
}
