//! Every request with every kind of path to a `PostgreSQL` host: what belongs to the cluster is read, nothing else
//! is, and nothing is written.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use repohostd::config::{Cluster, Role, SessionSettings, Storage};
use repohostd::protocol::pack::Writer;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::talk::{Talk, converse, settings};
use crate::tree::contents;
use crate::wire::{Answer, Conversation, How};

const RELEASES: [&str; 4] = ["2.37", "2.45", "2.55.1", "2.60.0"];

/// A database host: a cluster with links to what is elsewhere, and what nobody may read over the network.
struct Host {
    directory: tempfile::TempDir,
    _socket: UnixListener,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        for path in ["pg/base/5", "pg/global", "pg/pg_tblspc", "ts/PG_15/5", "wal", "etc", "ssh", "other/global"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        for path in [
            "pg/PG_VERSION",
            "pg/base/5/1",
            "pg/global/pg_control",
            "ts/PG_15/5/2",
            "wal/000000010000000000000001",
            "etc/postgresql.conf",
            "ssh/id_rsa",
            "other/global/pg_control",
        ] {
            fs::write(at(path), path).unwrap();
        }
        symlink(at("ts"), at("pg/pg_tblspc/1")).unwrap();
        symlink("../../ts", at("pg/pg_tblspc/2")).unwrap();
        symlink(at("wal"), at("pg/pg_wal")).unwrap();
        symlink(at("etc/main.conf"), at("pg/postgresql.conf")).unwrap();
        symlink("postgresql.conf", at("etc/main.conf")).unwrap();
        mknodat(CWD, at("pg/pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let socket = UnixListener::bind(at("pg/.s.PGSQL.5432")).unwrap();
        Self { directory, _socket: socket }
    }

    fn path(&self, path: &str) -> String {
        self.directory.path().join(path).display().to_string()
    }

    fn session(&self, release: &str, by_component: bool) -> Conversation {
        converse(release, self.settings(), Role::PgReader, by_component)
    }

    fn settings(&self) -> SessionSettings {
        let storage = Storage::Cluster(cluster(&self.directory.path().join("pg")));
        SessionSettings { storage, ..settings(self.directory.path()) }
    }
}

fn cluster(path: &Path) -> Cluster {
    Cluster {
        path: path.to_owned(),
        port: 5432,
        socket_path: None,
        user: None,
        database: "postgres".to_owned(),
        db_timeout: std::time::Duration::from_secs(60),
        any_statement: false,
    }
}

/// Whether the answer has these bytes in it.
fn says(answer: &Answer, text: &str) -> bool {
    let Answer::Done(bytes) = answer else { panic!("{answer:?}") };
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_cluster_is_read_with_all_that_it_links_to() {
    let host = Host::new();
    for release in RELEASES {
        for by_component in [false, true] {
            let mut session = host.session(release, by_component);
            assert!(says(&session.ask("s-f", |_| {}), &host.path("pg")), "{release}");
            for (path, content) in [
                ("pg/PG_VERSION", "pg/PG_VERSION"),
                ("pg/base/5/1", "pg/base/5/1"),
                ("pg/pg_tblspc/1/PG_15/5/2", "ts/PG_15/5/2"),
                ("pg/pg_tblspc/2/PG_15/5/2", "ts/PG_15/5/2"),
                ("pg/pg_wal/000000010000000000000001", "wal/000000010000000000000001"),
                ("pg/postgresql.conf", "etc/postgresql.conf"),
            ] {
                assert!(says(&session.read(&host.path(path)), content), "{release} {path}");
                assert!(session.info(&host.path(path), true).is_done(), "{release} {path}");
            }
            for (path, names) in [
                ("pg", &["PG_VERSION", "base", "pg_tblspc", "pg_wal", "postgresql.conf", "pipe", ".s.PGSQL.5432"][..]),
                ("pg/pg_tblspc", &["1", "2"]),
                ("pg/pg_tblspc/2/PG_15/5", &["2"]),
                ("pg/pg_wal", &["000000010000000000000001"]),
            ] {
                let list = session.list(&host.path(path));
                assert!(names.iter().all(|name| says(&list, name)), "{release} {path}: {list:?}");
            }
        }
    }
}

#[test]
fn each_release_is_told_what_the_storage_of_a_cluster_can_do() {
    let host = Host::new();
    let releases = [("2.37", 127), ("2.38", 31), ("2.53.1", 31), ("2.56.0", 31), ("2.57.0", 31), ("2.58.0", 31)];
    for (release, bits) in releases.into_iter().chain([("2.59.0", 159), ("2.60.0", 159)]) {
        let mut expected = Writer::new();
        expected.str(&host.path("pg")).u64(bits);
        let expected = expected.finish();
        let answer = host.session(release, false).ask("s-f", |_| {});
        let Answer::Done(bytes) = &answer else { panic!("{answer:?}") };
        assert!(bytes.windows(expected.len()).any(|window| window == expected), "{release}: {bytes:?}");
    }
}

#[test]
fn what_a_link_points_to_is_looked_at_when_the_link_was_listed_and_not_otherwise() {
    let host = Host::new();
    for release in RELEASES {
        let mut session = host.session(release, false);
        let destinations = ["ts", "wal", "etc/main.conf"].map(|path| host.path(path));
        for path in &destinations {
            let answer = session.info(path, false);
            assert!(
                matches!(&answer, Answer::Failed(105, text) if text.contains("session has listed links")),
                "{answer:?}"
            );
        }
        assert!(session.list(&host.path("pg")).is_done() && session.list(&host.path("pg/pg_tblspc")).is_done());
        for path in &destinations {
            assert!(session.info(path, false).is_done(), "{release} {path}");
            // No more than that.
            for answer in [session.read(path), session.list(path), session.info(&format!("{path}/x"), false)] {
                assert!(matches!(answer, Answer::Failed(105, _)), "{release} {path}: {answer:?}");
            }
        }
        let link = session.info(&host.path("etc/main.conf"), false);
        assert!(
            says(&link, "postgresql.conf"),
            "a client learns that it is a link, and refuses to back it up: {link:?}"
        );
        assert!(matches!(host.session(release, false).info(&destinations[0], false), Answer::Failed(105, _)));
    }
}

/// Everything that would change something.
fn write_everything(session: &mut Conversation, path: &str, other: &str) -> Vec<(&'static str, Answer)> {
    let how = |atomic| How { atomic, create_path: true };
    vec![
        ("write", session.write(path, b"evil", how(false))),
        ("write anew", session.write(path, b"evil", how(true))),
        ("make", session.path_create(path)),
        ("sync", session.path_sync(path)),
        ("remove", session.remove(path)),
        ("remove directory", session.path_remove(path, false)),
        ("remove tree", session.path_remove(path, true)),
        ("link", session.link("evil", path, false)),
        ("hard link", session.link(other, path, true)),
        ("hard link from", session.link(path, other, true)),
    ]
}

#[test]
fn nothing_is_written_on_a_postgresql_host() {
    let host = Host::new();
    let before = contents(host.directory.path());
    for release in RELEASES {
        for path in ["pg", "pg/new", "pg/base/5/1", "pg/pg_tblspc/1/new", "pg/pg_wal", "pg/new/deep", "ts/new", "new"] {
            let mut session = host.session(release, false);
            session.list(&host.path("pg"));
            for (what, answer) in write_everything(&mut session, &host.path(path), &host.path("pg/other")) {
                let links = release != "2.37" || !what.contains("link");
                if links {
                    let told =
                        matches!(&answer, Answer::Failed(105, text) if text.contains("role 'pg-reader' may not"));
                    assert!(told, "{release} {what} {path}: {answer:?}");
                } else {
                    assert!(!answer.is_done(), "{release} {what} {path}: {answer:?}");
                    session = host.session(release, false);
                }
            }
        }
    }
    assert_eq!(contents(host.directory.path()), before);
}

#[test]
fn no_path_leads_out_of_a_cluster() {
    let host = Host::new();
    let base = host.path("pg");
    let paths: Vec<String> = [
        host.path("ssh/id_rsa"),
        host.path("ssh"),
        host.path("other/global/pg_control"),
        host.path("wal/000000010000000000000001"),
        host.path("etc/postgresql.conf"),
        host.path(""),
        format!("{base}/../ssh/id_rsa"),
        format!("{base}/pg_tblspc/1/../../ssh/id_rsa"),
        format!("{base}/pg_wal/../ssh/id_rsa"),
        format!("{base}/./PG_VERSION"),
        format!("{base}//PG_VERSION"),
        format!("{base}-2/PG_VERSION"),
        format!("{base}2"),
        "/etc/shadow".to_owned(),
        "/proc/self/environ".to_owned(),
        "/".to_owned(),
        "PG_VERSION".to_owned(),
        "../ssh/id_rsa".to_owned(),
        String::new(),
        format!("{base}/{}x//y", "x/".repeat(1000)),
        format!("{base}/{}", "y".repeat(300)),
    ]
    .into();
    for release in RELEASES {
        for by_component in [false, true] {
            for path in &paths {
                let mut session = host.session(release, by_component);
                session.list(&base);
                session.list(&format!("{base}/pg_tblspc"));
                let looks =
                    [session.info(path, false), session.info(path, true), session.list(path), session.read(path)];
                for answer in looks {
                    assert!(matches!(answer, Answer::Failed(105, _)), "{release} {path:.200}: {answer:?}");
                }
            }
        }
    }
}

#[test]
fn special_files_are_listed_and_not_opened() {
    let host = Host::new();
    for release in RELEASES {
        let mut session = host.session(release, false);
        for path in ["pg/pipe", "pg/.s.PGSQL.5432"] {
            assert!(session.info(&host.path(path), false).is_done());
            let expected = format!("unable to open file '{}' for read: [6] No such device or address", host.path(path));
            assert_eq!(session.read(&host.path(path)), Answer::Failed(41, expected), "{release}");
        }
        assert!(session.ask("noop", |_| {}).is_done(), "the session goes on");
    }
}

/// Reads a file block by block; before each block after the first one `meddle` runs.
fn read_meddled(talk: &mut Talk, path: &Path, limit: u64, mut meddle: impl FnMut()) -> Vec<u8> {
    let mut all = Vec::new();
    let mut reply = talk.ask("s-rd", "opn", false, |pack| _ = pack.str(path.to_str().unwrap()).u64(0).u64(limit));
    let number = talk.last();
    assert_eq!(reply.data().read_bool(), Ok(true));
    let mut first = true;
    loop {
        let mut data = reply.data();
        if std::mem::take(&mut first) {
            data.read_bool().unwrap();
        }
        if !data.read_bool().unwrap() {
            all.extend_from_slice(data.read_bin().unwrap().unwrap());
        }
        if reply.close {
            return all;
        }
        meddle();
        reply = talk.ask_in(number, "s-rd", "prc", true, |_| {});
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_ends_where_it_ends_now() {
    const BLOCK: usize = 16 << 10;
    let host = Host::new();
    let file: PathBuf = host.path("pg/base/5/1").into();
    let content: Vec<u8> = (0..4 * BLOCK).map(|index| u8::try_from(index / BLOCK).unwrap()).collect();
    let whole = content.len() as u64;
    let prepare = || fs::write(&file, &content).unwrap();
    let resize = |length: usize| fs::File::options().write(true).open(&file).unwrap().set_len(length as u64).unwrap();
    let mut talk = Talk::new("2.60.0", host.settings(), false);

    prepare();
    let read = read_meddled(&mut talk, &file, whole, || resize(2 * BLOCK + 7));
    assert!(read == content[..2 * BLOCK + 7], "it shrinks: {} bytes", read.len());
    prepare();
    let read = read_meddled(&mut talk, &file, whole, || resize(0));
    assert!(read == content[..2 * BLOCK], "it is emptied, and one block was prepared before: {} bytes", read.len());
    prepare();
    let read = read_meddled(&mut talk, &file, whole, || resize(8 * BLOCK));
    assert!(read == content, "it grows, and what the client knew of is read: {} bytes", read.len());
    prepare();
    let read = read_meddled(&mut talk, &file, whole, || _ = fs::remove_file(&file));
    assert!(read == content, "it is dropped: {} bytes", read.len());
    let missing = talk.ask("s-rd", "opn", false, |pack| _ = pack.str(file.to_str().unwrap()));
    assert_eq!(missing.data().read_bool(), Ok(false), "then it is not there");
}
