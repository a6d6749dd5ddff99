//! What lies outside a root cannot be reached, whatever links say.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tempfile::TempDir;

use super::*;

/// `root` with links of every kind, beside `outside`. Each file says its own path.
fn scene() -> (TempDir, Rc<Root>) {
    let base = tempfile::tempdir().unwrap();
    let at = |path: &str| base.path().join(path);
    for directory in ["outside", "root/dir/deep", "root-sibling"] {
        std::fs::create_dir_all(at(directory)).unwrap();
    }
    for path in ["outside/file", "root/dir/file", "root/file", "root/dir/deep/file", "root-sibling/file"] {
        write(at(path), path);
    }
    for (path, target) in [
        ("latest", "dir"),
        ("slash", "dir/"),
        ("self", "."),
        ("to-file", "dir/file"),
        ("file-slash", "dir/file/"),
        ("dots", "dir/deep/../file"),
        ("dir/back", "../file"),
        ("dir/deep/far-back", "../../dir/file"),
        ("two", "latest/back"),
        ("dangling", "nowhere"),
        ("loop-a", "loop-b"),
        ("loop-b", "loop-a"),
        ("out", "../outside"),
        ("out-file", "../outside/file"),
        ("climb", "dir/../../outside"),
        ("sibling", "../root-sibling"),
        ("out-and-back", "../root/dir"),
        ("dir/out", "../../outside"),
        ("absolute", "/etc"),
        ("via-out", "latest/out"),
        ("chain-0", "file"),
    ] {
        link(target, at("root").join(path));
    }
    link(at("root/file"), at("root/absolute-inside"));
    for number in 1..=40 {
        link(format!("chain-{}", number - 1), at(&format!("root/chain-{number}")));
    }
    let root = Root::new(at("root"));
    (base, root)
}

pub(super) fn read_text(disk: &mut Tried, at: Location) -> Result<String, Errno> {
    let file = match run(disk, Operation::OpenRead { at }) {
        Ok(Outcome::File(file)) => file,
        other => return Err(errno(other)),
    };
    let read = Operation::Read { file, buffer: Vec::with_capacity(64), length: 64, offset: 0 };
    match run(disk, read) {
        Ok(Outcome::Read(bytes)) => Ok(String::from_utf8(bytes).unwrap()),
        other => Err(errno(other)),
    }
}

#[test]
fn links_lead_where_they_point_within_the_root_and_nowhere_else() {
    let (_base, root) = scene();
    let expected: &[(&str, Result<&str, Errno>)] = &[
        ("file", Ok("root/file")),
        ("dir/deep/file", Ok("root/dir/deep/file")),
        ("latest/file", Ok("root/dir/file")),
        ("slash/file", Ok("root/dir/file")),
        ("self/self/file", Ok("root/file")),
        ("to-file", Ok("root/dir/file")),
        ("dots", Ok("root/dir/file")),
        ("dir/back", Ok("root/file")),
        ("latest/deep/far-back", Ok("root/dir/file")),
        ("two", Ok("root/file")),
        ("chain-39", Ok("root/file")),
        ("chain-40", Err(Errno::LOOP)),
        ("loop-a", Err(Errno::LOOP)),
        ("loop-a/file", Err(Errno::LOOP)),
        ("dangling", Err(Errno::NOENT)),
        ("nothing", Err(Errno::NOENT)),
        ("nothing/file", Err(Errno::NOENT)),
        ("file/below", Err(Errno::NOTDIR)),
        ("to-file/below", Err(Errno::NOTDIR)),
        ("file-slash", Err(Errno::NOTDIR)),
        ("latest", Err(Errno::ISDIR)),
        ("slash", Err(Errno::ISDIR)),
        ("self", Err(Errno::ISDIR)),
        ("out/file", Err(Errno::XDEV)),
        ("out", Err(Errno::XDEV)),
        ("out-file", Err(Errno::XDEV)),
        ("climb/file", Err(Errno::XDEV)),
        ("sibling/file", Err(Errno::XDEV)),
        ("out-and-back/file", Err(Errno::XDEV)),
        ("dir/out/file", Err(Errno::XDEV)),
        ("via-out/file", Err(Errno::XDEV)),
        ("absolute/passwd", Err(Errno::XDEV)),
        ("absolute-inside", Err(Errno::XDEV)),
    ];
    for mut disk in back_ends() {
        for (path, expected) in expected {
            let found = read_text(&mut disk, place(&root, path));
            assert_eq!(found, expected.map(str::to_owned), "{path}");
        }
    }
}

#[test]
fn links_of_the_process_file_system_open_nothing() {
    let root = Root::new("/proc/self");
    for mut disk in back_ends() {
        for path in ["fd/0", "exe", "cwd", "root/etc/passwd"] {
            let errno = errno(run(&mut disk, Operation::OpenRead { at: place(&root, path) }));
            assert!(matches!(errno, Errno::XDEV | Errno::LOOP | Errno::NOENT), "{path}: {errno}");
        }
        assert!(
            metadata(run(&mut disk, Operation::Stat { at: place(&root, "exe"), follow: false, level: Level::Type }))
                .kind
                == Kind::Link
        );
    }
}

#[test]
fn stat_sees_links_themselves_unless_it_follows_them() {
    let (_base, root) = scene();
    let expected = [
        ("latest", Ok(Kind::Link), Ok(Kind::Directory)),
        ("dir/back", Ok(Kind::Link), Ok(Kind::File)),
        ("latest/back", Ok(Kind::Link), Ok(Kind::File)),
        ("file", Ok(Kind::File), Ok(Kind::File)),
        ("dir/deep", Ok(Kind::Directory), Ok(Kind::Directory)),
        ("dangling", Ok(Kind::Link), Err(Errno::NOENT)),
        ("out", Ok(Kind::Link), Err(Errno::XDEV)),
        ("dir/out", Ok(Kind::Link), Err(Errno::XDEV)),
        ("out/file", Err(Errno::XDEV), Err(Errno::XDEV)),
        ("loop-a", Ok(Kind::Link), Err(Errno::LOOP)),
        ("nothing", Err(Errno::NOENT), Err(Errno::NOENT)),
        ("dir/nothing", Err(Errno::NOENT), Err(Errno::NOENT)),
        ("file/below", Err(Errno::NOTDIR), Err(Errno::NOTDIR)),
        ("", Ok(Kind::Directory), Ok(Kind::Directory)),
    ];
    for mut disk in back_ends() {
        for (path, itself, followed) in &expected {
            for (follow, expected) in [(false, itself), (true, followed)] {
                let at = place(&root, path);
                let kind = match run(&mut disk, Operation::Stat { at, follow, level: Level::Basic }) {
                    Ok(Outcome::Metadata(metadata)) => Ok(metadata.kind),
                    other => Err(errno(other)),
                };
                assert_eq!(&kind, expected, "{path}, follow {follow}");
            }
        }
    }
}

#[test]
fn nothing_outside_can_be_changed() {
    let (base, root) = scene();
    for mut disk in back_ends() {
        let out = || place(&root, "out/new");
        let operations = [
            Operation::OpenWrite { at: out(), mode: 0o640, fresh: false },
            Operation::OpenWrite { at: place(&root, "out/file"), mode: 0o640, fresh: false },
            Operation::MakeDirectory { at: out(), mode: 0o750 },
            Operation::RemoveFile { at: place(&root, "out/file") },
            Operation::RemoveFile { at: place(&root, "absolute/passwd") },
            Operation::RemoveDirectory { at: place(&root, "dir/out/file") },
            Operation::SymbolicLink { target: "x".into(), at: out() },
            Operation::HardLink { target: place(&root, "file"), at: out() },
            Operation::HardLink { target: place(&root, "out/file"), at: place(&root, "stolen") },
            Operation::Rename { over: Over::Anything, file: None, from: place(&root, "file"), to: out() },
            Operation::Rename {
                over: Over::Anything,
                file: None,
                from: place(&root, "out/file"),
                to: place(&root, "stolen"),
            },
        ];
        for operation in operations {
            let text = format!("{operation:?}");
            assert_eq!(errno(run(&mut disk, operation)), Errno::XDEV, "{text}");
        }
        let steps = [
            (Operation::SyncDirectory { at: place(&root, "out") }, Step::Open),
            (Operation::List { at: place(&root, "out"), level: Level::Exists }, Step::Whole),
            (Operation::RemoveTree { at: place(&root, "out/deep") }, Step::Listing),
        ];
        for (operation, step) in steps {
            assert_eq!(failed(run(&mut disk, operation)), (Errno::XDEV, step));
        }
    }
    let names: Vec<_> = std::fs::read_dir(base.path().join("outside")).unwrap().collect();
    assert_eq!(names.len(), 1);
    assert_eq!(std::fs::read_to_string(base.path().join("outside/file")).unwrap(), "outside/file");
}

#[test]
fn a_last_name_that_is_a_link_is_never_written_through() {
    let (base, root) = scene();
    for mut disk in back_ends() {
        for path in ["to-file", "out-file", "dangling", "dir/back"] {
            let open = Operation::OpenWrite { at: place(&root, path), mode: 0o640, fresh: false };
            assert_eq!(errno(run(&mut disk, open)), Errno::LOOP, "{path}");
        }
        done(run(&mut disk, Operation::RemoveFile { at: place(&root, "out-file") }));
        done(run(
            &mut disk,
            Operation::SymbolicLink { target: "../outside/file".into(), at: place(&root, "out-file") },
        ));
    }
    assert_eq!(std::fs::read_to_string(base.path().join("outside/file")).unwrap(), "outside/file");
    assert_eq!(std::fs::read_to_string(base.path().join("root/dir/file")).unwrap(), "root/dir/file");
}

#[test]
fn a_directory_swapped_for_a_link_during_the_walk_leads_nowhere() {
    for by_component in [false, true] {
        let base = tempfile::tempdir().unwrap();
        let at = |path: &str| base.path().join(path);
        for (path, text) in [("root/swap/deep", "inside"), ("outside/deep", "outside")] {
            std::fs::create_dir_all(at(path)).unwrap();
            write(at(path).join("file"), text);
        }
        link("../outside", at("root/link"));
        let root = Root::new(at("root"));
        let mut disk = Tried::inline(Options { by_component, ..Options::default() });
        let stop = AtomicBool::new(false);
        // The one thing that this test needs a second thread for is to change the tree while a system
        // call is under way.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    renameat_with(CWD, at("root/swap"), CWD, at("root/link"), RenameFlags::EXCHANGE).unwrap();
                }
            });
            let (mut inside, mut refused) = (0_u32, 0_u32);
            let mut wrong = None;
            for round in 0..2_000_000 {
                match read_text(&mut disk, place(&root, "swap/deep/file")) {
                    Ok(text) if text == "inside" => inside += 1,
                    Err(Errno::XDEV | Errno::LOOP | Errno::NOTDIR) => refused += 1,
                    other => wrong = Some(other),
                }
                if wrong.is_some() || round > 3000 && inside > 0 && refused > 0 {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
            assert_eq!(wrong, None);
            assert!(inside > 0 && refused > 0, "{inside} inside, {refused} refused");
        });
    }
}

#[test]
fn a_root_that_is_itself_a_link_works_as_the_administrator_made_it() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(base.path().join("big/archive")).unwrap();
    link("big/archive", base.path().join("archive"));
    write(base.path().join("big/archive/file"), "text");
    let root = Root::new(base.path().join("archive"));
    for mut disk in back_ends() {
        assert_eq!(read_text(&mut disk, place(&root, "file")).unwrap(), "text");
        let stat = |follow| Operation::Stat { at: place(&root, ""), follow, level: Level::Detail };
        let itself = metadata(run(&mut disk, stat(false)));
        assert_eq!((itself.kind, itself.link_destination), (Kind::Link, Some("big/archive".into())));
        assert_eq!(metadata(run(&mut disk, stat(true))).kind, Kind::Directory);
    }
}

#[test]
fn a_root_that_appears_later_or_is_made_anew_is_found() {
    for mut disk in back_ends() {
        let base = tempfile::tempdir().unwrap();
        let root = Root::new(base.path().join("repository"));
        let write_file = || Operation::OpenWrite { at: place(&root, "file"), mode: 0o640, fresh: false };
        let make_root = || Operation::MakeDirectory { at: place(&root, ""), mode: 0o750 };
        assert_eq!(errno(run(&mut disk, write_file())), Errno::NOENT);
        done(run(&mut disk, make_root()));
        file(run(&mut disk, write_file()));
        // Removed and made by this session …
        assert!(matches!(run(&mut disk, Operation::RemoveTree { at: place(&root, "") }), Ok(Outcome::Removed(None))));
        assert_eq!(errno(run(&mut disk, write_file())), Errno::NOENT);
        done(run(&mut disk, make_root()));
        file(run(&mut disk, write_file()));
        // … and by somebody else.
        std::fs::remove_dir_all(root.path()).unwrap();
        std::fs::create_dir(root.path()).unwrap();
        file(run(&mut disk, write_file()));
        assert!(root.path().join("file").exists());
        std::fs::remove_dir_all(root.path()).unwrap();
        assert_eq!(errno(run(&mut disk, write_file())), Errno::NOENT);
    }
}

#[test]
fn the_root_cannot_be_used_as_a_file() {
    let (_base, root) = scene();
    let here = || place(&root, "");
    for mut disk in back_ends() {
        for (operation, expected) in [
            (Operation::OpenWrite { at: here(), mode: 0o640, fresh: false }, Errno::ISDIR),
            (Operation::RemoveFile { at: here() }, Errno::ISDIR),
            (Operation::RemoveDirectory { at: here() }, Errno::NOTEMPTY),
            (Operation::MakeDirectory { at: here(), mode: 0o750 }, Errno::EXIST),
            (Operation::SymbolicLink { target: "x".into(), at: here() }, Errno::EXIST),
            (Operation::HardLink { target: place(&root, "file"), at: here() }, Errno::EXIST),
            (Operation::Rename { over: Over::Anything, file: None, from: here(), to: place(&root, "x") }, Errno::BUSY),
            (
                Operation::Rename { over: Over::Anything, file: None, from: place(&root, "file"), to: here() },
                Errno::BUSY,
            ),
        ] {
            let text = format!("{operation:?}");
            assert_eq!(errno(run(&mut disk, operation)), expected, "{text}");
        }
        done(run(&mut disk, Operation::SyncDirectory { at: here() }));
    }
}
