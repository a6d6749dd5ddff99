//! Links of a cluster lead anywhere, but only those of whom is trusted, and nothing special is opened.

use std::fs;
use std::os::unix::fs::lchown;
use std::os::unix::net::UnixListener;
use std::time::Instant;

use rustix::fs::{CWD, FileType, Mode, inotify, mknodat};
use rustix::io::Errno;
use tempfile::TempDir;

use super::confinement::read_text;
use super::*;

/// Nobody's number, which owns nothing else.
const STRANGER: u32 = 12_345;

fn owned(root: &Rc<Root>, path: &str) -> Location {
    place(root, path).through_owned_links()
}

/// A data directory with links of every kind to what is beside it. Each file says its own path.
fn scene() -> (TempDir, Rc<Root>) {
    let base = tempfile::tempdir().unwrap();
    let at = |path: &str| base.path().join(path);
    for directory in ["pg/base/5", "pg/pg_tblspc", "ts/PG_15/5", "wal", "etc", "log"] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    for path in ["pg/base/5/1", "ts/PG_15/5/2", "wal/3", "etc/postgresql.conf", "secret"] {
        write(at(path), path);
    }
    let absolute = |path: &str| at(path).to_str().unwrap().to_owned();
    for (path, target) in [
        ("pg/pg_tblspc/1", absolute("ts")),
        ("pg/pg_tblspc/2", "../../ts".to_owned()),
        ("pg/pg_wal", absolute("wal/")),
        ("pg/postgresql.conf", "../etc/main.conf".to_owned()),
        ("etc/main.conf", absolute("etc/postgresql.conf")),
        ("pg/chain", "second".to_owned()),
        ("pg/second", "../third".to_owned()),
        ("third", absolute("ts/PG_15")),
        ("ts/PG_15/inner", "../../wal".to_owned()),
        ("pg/inside", "base/5/1".to_owned()),
        ("pg/loop", "loop".to_owned()),
        ("pg/dangling", absolute("nothing")),
        ("pg/up", "../pg/../wal/./3".to_owned()),
        ("pg/root", "/".to_owned()),
        ("pg/pg_log", absolute("log")),
    ] {
        link(target, at(path));
    }
    let root = Root::new(at("pg"));
    (base, root)
}

#[test]
fn a_cluster_is_read_wherever_its_links_lead() {
    let (base, root) = scene();
    let expected: &[(&str, Result<&str, Errno>)] = &[
        ("base/5/1", Ok("pg/base/5/1")),
        ("pg_tblspc/1/PG_15/5/2", Ok("ts/PG_15/5/2")),
        ("pg_tblspc/2/PG_15/5/2", Ok("ts/PG_15/5/2")),
        ("pg_tblspc/2/PG_15/inner/3", Ok("wal/3")),
        ("pg_wal/3", Ok("wal/3")),
        ("postgresql.conf", Ok("etc/postgresql.conf")),
        ("chain/5/2", Ok("ts/PG_15/5/2")),
        ("inside", Ok("pg/base/5/1")),
        ("up", Ok("wal/3")),
        ("loop", Err(Errno::LOOP)),
        ("dangling", Err(Errno::NOENT)),
        ("pg_tblspc/3", Err(Errno::NOENT)),
        ("base/5/1/x", Err(Errno::NOTDIR)),
        ("pg_wal", Err(Errno::ISDIR)),
    ];
    for mut disk in back_ends() {
        for (path, expected) in expected {
            assert_eq!(read_text(&mut disk, owned(&root, path)), expected.map(str::to_owned), "{path}");
            let confined = read_text(&mut disk, place(&root, path));
            assert!(confined.is_err() || matches!(*path, "base/5/1" | "inside"), "{path} is read in a repository");
        }
        for (path, names) in
            [("pg_tblspc/2/PG_15", &["5", "inner"][..]), ("pg_wal", &["3"]), ("chain", &["5", "inner"])]
        {
            let listed = run(&mut disk, Operation::List { at: owned(&root, path), level: Level::Detail });
            let Ok(Outcome::Entries(entries, None)) = listed else { panic!("{path}: {listed:?}") };
            let mut found: Vec<_> = entries.into_iter().map(|entry| entry.name).collect();
            found.sort_unstable();
            assert_eq!(found, names, "{path}");
        }
        let stat = |path: &str, follow| Operation::Stat { at: owned(&root, path), follow, level: Level::Detail };
        for (path, itself, followed) in [
            ("pg_wal", Kind::Link, Kind::Directory),
            ("postgresql.conf", Kind::Link, Kind::File),
            ("pg_tblspc/2/PG_15/inner", Kind::Link, Kind::Directory),
            ("pg_tblspc/1/PG_15", Kind::Directory, Kind::Directory),
            ("", Kind::Directory, Kind::Directory),
        ] {
            assert_eq!(metadata(run(&mut disk, stat(path, false))).kind, itself, "{path}");
            assert_eq!(metadata(run(&mut disk, stat(path, true))).kind, followed, "{path}");
        }
        let file = fs::metadata(base.path().join("etc/postgresql.conf")).unwrap();
        assert_eq!(metadata(run(&mut disk, stat("postgresql.conf", true))).size, file.len());
    }
}

#[test]
fn what_a_link_points_to_is_told_also_when_that_is_a_link() {
    let (base, root) = scene();
    for mut disk in back_ends() {
        let mut target = |path| run(&mut disk, Operation::StatTarget { at: owned(&root, path), level: Level::Detail });
        assert_eq!(metadata(target("pg_wal")).kind, Kind::Directory);
        let link = metadata(target("postgresql.conf"));
        let expected = base.path().join("etc/postgresql.conf").to_str().unwrap().into();
        assert_eq!((link.kind, link.link_destination), (Kind::Link, Some(expected)));
        let link = metadata(target("chain"));
        assert_eq!((link.kind, link.link_destination), (Kind::Link, Some("../third".into())));
        assert_eq!(metadata(target("base/5/1")).kind, Kind::File);
        assert_eq!(errno(target("dangling")), Errno::NOENT);
    }
}

#[test]
fn a_strangers_link_leads_nowhere() {
    if !rustix::process::geteuid().is_root() {
        // Only root can make one; who is trusted is tested beside the rule.
        return;
    }
    let (base, root) = scene();
    let secret = base.path().join("secret");
    link(&secret, base.path().join("log/today"));
    link("../../secret", base.path().join("ts/PG_15/x"));
    for path in ["log/today", "ts/PG_15/x"] {
        lchown(base.path().join(path), Some(STRANGER), None).unwrap();
    }
    for mut disk in back_ends() {
        for path in ["pg_log/today", "pg_tblspc/1/PG_15/x"] {
            assert_eq!(read_text(&mut disk, owned(&root, path)), Err(Errno::XDEV), "{path}");
            let look = |follow| Operation::Stat { at: owned(&root, path), follow, level: Level::Detail };
            assert_eq!(metadata(run(&mut disk, look(false))).kind, Kind::Link);
            assert_eq!(errno(run(&mut disk, look(true))), Errno::XDEV, "{path}");
            let behind = Operation::StatTarget { at: owned(&root, path), level: Level::Detail };
            assert_eq!(errno(run(&mut disk, behind)), Errno::XDEV, "{path}");
        }
    }
    // This process is root's, so the owner of the data directory could not read what it can.
    lchown(base.path().join("pg"), Some(STRANGER), None).unwrap();
    let root = Root::new(base.path().join("pg"));
    for mut disk in back_ends() {
        assert_eq!(read_text(&mut disk, owned(&root, "pg_log/today")), Err(Errno::XDEV));
    }
}

#[test]
fn pipes_sockets_and_devices_are_seen_but_never_opened() {
    let (base, root) = scene();
    let pipe = base.path().join("pg/pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let _socket = UnixListener::bind(base.path().join("pg/socket")).unwrap();
    link("/dev/zero", base.path().join("pg/device"));
    link("pipe", base.path().join("pg/to-pipe"));
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    for path in [&pipe, &base.path().join("pg/socket")] {
        inotify::add_watch(&watch, path, inotify::WatchFlags::OPEN).unwrap();
    }
    let opened = || rustix::io::read(&watch, &mut [0; 256]).map(|_| ());
    for mut disk in back_ends() {
        let begun = Instant::now();
        for path in ["pipe", "socket", "device", "to-pipe"] {
            assert_eq!(read_text(&mut disk, owned(&root, path)), Err(Errno::NXIO), "{path}");
            let listed = run(&mut disk, Operation::List { at: owned(&root, path), level: Level::Exists });
            assert_eq!(errno(listed), Errno::NOTDIR, "{path}");
            let look = Operation::Stat { at: owned(&root, path), follow: true, level: Level::Detail };
            assert_eq!(metadata(run(&mut disk, look)).kind, Kind::Special, "{path}");
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "nothing waits");
        assert_eq!(opened(), Err(Errno::AGAIN));
    }
    fs::File::options().read(true).write(true).open(&pipe).unwrap();
    assert_eq!(opened(), Ok(()), "the watch would have seen it");
}
