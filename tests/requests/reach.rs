//! Every request with every kind of path: none of them gets out of the session's stanza.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::talk::{Reply, Talk, settings};

/// Everything below `directory` with contents, to be compared before and after.
fn snapshot(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            b"directory".to_vec()
        } else if metadata.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            fs::read(&path).unwrap()
        };
        found.insert(path, content);
    }
    found
}

/// Everything that a client can ask of a path.
fn ask_everything(talk: &mut Talk, path: &str) -> Vec<(&'static str, Reply)> {
    let mut replies = Vec::new();
    let mut note = |what, reply| replies.push((what, reply));
    note("look", talk.path("s-i", path, |pack| _ = pack.u32(4)));
    note("look behind", talk.path("s-i", path, |pack| _ = pack.u32(4).bool(true)));
    note("list", talk.path("s-l", path, |pack| _ = pack.u32(4)));
    note("read", talk.ask("s-rd", "opn", false, |pack| _ = pack.str(path)));
    for atomic in [false, true] {
        let open = talk.ask("s-wr", "opn", false, |pack| {
            pack.str(path).mode_default(0o640, 0).mode_default(0o750, 0).null().null().time(0);
            pack.bool(true).bool(false).bool(false).bool(atomic).pack(|_| {});
        });
        note("write", open);
        let number = talk.last();
        talk.ask_in(number, "s-wr", "prc", true, |pack| _ = pack.bin(b"evil"));
        note("finish", talk.ask_in(number, "s-wr", "cls", true, |_| {}));
        talk.ask_in(number, "s-wr", "cnc", true, |_| {});
    }
    note("make", talk.path("s-pc", path, |pack| _ = pack.bool(true).bool(false)));
    note("sync", talk.path("s-ps", path, |_| {}));
    note("remove file", talk.path("s-r", path, |_| {}));
    note("remove directory", talk.path("s-pr", path, |_| {}));
    note("remove tree", talk.path("s-pr", path, |pack| _ = pack.bool(true)));
    note("link there", talk.ask("s-lc", "prc", false, |pack| _ = pack.str("x").str(path)));
    note("link from there", {
        let own = talk.base.join("backup/demo/own-link").display().to_string();
        talk.ask("s-lc", "prc", false, |pack| _ = pack.str(path).str(&own).u32(1))
    });
    note("symbolic link from there", {
        let own = talk.base.join("backup/demo/own-symbolic-link").display().to_string();
        talk.ask("s-lc", "prc", false, |pack| _ = pack.str(path).str(&own))
    });
    replies
}

#[test]
fn no_request_with_any_path_gets_out_of_its_stanza() {
    let directory = tempfile::tempdir().unwrap();
    let repository = directory.path().join("repo");
    let own = repository.join("backup/demo");
    for stanza in ["demo", "demo2", "other"] {
        for area in ["archive", "backup"] {
            fs::create_dir_all(repository.join(area).join(stanza)).unwrap();
            fs::write(repository.join(area).join(stanza).join("secret"), "secret").unwrap();
        }
    }
    fs::create_dir_all(directory.path().join("outside")).unwrap();
    fs::write(directory.path().join("outside/secret"), "secret").unwrap();
    fs::write(repository.join("secret"), "secret").unwrap();
    symlink("../../backup/other", own.join("to-other")).unwrap();
    symlink(directory.path().join("outside"), own.join("to-outside")).unwrap();
    symlink("/", own.join("to-root")).unwrap();

    let base = repository.to_str().unwrap();
    let outside = directory.path().join("outside").display().to_string();
    let below = format!("{base}/backup/demo");
    let paths = [
        format!("{base}/backup/other"),
        format!("{base}/backup/other/secret"),
        format!("{base}/archive/demo2/secret"),
        format!("{base}/backup/dem"),
        format!("{base}/secret"),
        format!("{base}/new"),
        format!("{base}/lock"),
        format!("{base}/archive/new"),
        format!("{below}/../other/secret"),
        format!("{below}/x/../../other/secret"),
        format!("{below}/./../other/secret"),
        format!("{below}//../other"),
        format!("{below}/to-other/secret"),
        format!("{below}/to-outside/secret"),
        format!("{below}/to-outside/new"),
        format!("{below}/to-root/{outside}/secret"),
        format!("{below}/to-root/etc/passwd"),
        outside.clone(),
        format!("{outside}/secret"),
        format!("{base}2/archive/demo/x"),
        "backup/demo/secret".to_owned(),
        "../outside/secret".to_owned(),
        "/etc/passwd".to_owned(),
        "/".to_owned(),
        String::new(),
        format!("{below}/{}", "x/".repeat(3000)),
        format!("{below}/{}", "y".repeat(300)),
    ];
    let before = snapshot(directory.path());
    for release in ["2.55.1", "2.60.0"] {
        for path in &paths {
            let mut talk = Talk::new(release, settings(&repository), false);
            for (what, reply) in ask_everything(&mut talk, path) {
                let refused = reply.error.is_some();
                // A path that does not exist may be said to be missing; nothing of what is there is told.
                let text = String::from_utf8_lossy(&reply.data).into_owned();
                assert!(refused || !text.contains("secret"), "{release}: {what} {path}: {reply:?}");
            }
            talk.vanish();
            let _ = fs::remove_file(own.join("own-link"));
            let _ = fs::remove_file(own.join("own-symbolic-link"));
        }
    }
    // Only what is in the stanza itself may have changed, and there only the links that pointed out.
    let mut after = snapshot(directory.path());
    let mut expected = before;
    expected.retain(|path, _| !path.starts_with(&own));
    after.retain(|path, _| !path.starts_with(&own));
    assert_eq!(after.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    assert!(after == expected, "contents outside of the stanza are untouched");
}

#[test]
fn a_zero_byte_in_a_path_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut talk = Talk::new("2.60.0", settings(directory.path()), false);
    let path = format!("{}/backup/demo/a\0b", directory.path().display());
    assert_eq!(talk.path("s-i", &path, |pack| _ = pack.u32(4)).failed(), (29, "string contains a null character"));
}
