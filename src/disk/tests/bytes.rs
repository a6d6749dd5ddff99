//! Names that are no text: whatever a file may be called, every back end makes, finds, lists and removes it.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;

use proptest::prelude::*;

use super::*;
use crate::disk::calls::write_at;

/// Names that are awkward somewhere.
const NAMES: [&[u8]; 8] = [
    b"caf\xe9.txt",
    b"\xff",
    b"a\nb",
    b"back\\slash",
    b"quote'\"",
    b"\x01\x1b[2J\x7f",
    b"\xf4\x8f\xb8\x80",
    b"\xc3\xa9 ",
];

fn at(root: &Rc<Root>, path: &[u8]) -> Location {
    Location::new(Rc::clone(root), RelativePath::new(path).unwrap())
}

/// Makes a directory, a file, a link and a second name, all called `name` and so on, and takes them away.
fn go_round(disk: &mut Tried, name: &[u8]) {
    let base = tempfile::tempdir().unwrap();
    let root = Root::new(base.path());
    let path = |path: &[u8]| base.path().join(std::ffi::OsStr::from_bytes(path));
    let (outer, inner) = (at(&root, name), at(&root, &[name, name].join(&b'/')));
    done(run(disk, Operation::MakeDirectory { at: outer.clone(), mode: 0o750 }));
    let temporary = inner.with_suffix(".t").unwrap();
    let made = file(run(disk, Operation::OpenWrite { at: temporary.clone(), mode: 0o640, fresh: true }));
    write_at(made.0.as_fd(), b"content", 0).unwrap();
    let rename = Operation::Rename { over: Over::Nothing, file: Some(made), from: temporary, to: inner.clone() };
    done(run(disk, rename));
    assert_eq!(std::fs::read(path(name).join(path(name).file_name().unwrap())).unwrap(), b"content");

    let opened = file(run(disk, Operation::OpenRead { at: inner.clone() }));
    let read = Operation::Read { file: opened, buffer: Vec::new(), length: 100, offset: 0 };
    assert_eq!(bytes(run(disk, read)), b"content");
    let second = inner.with_suffix("2").unwrap();
    done(run(disk, Operation::HardLink { target: inner.clone(), at: second.clone() }));
    let link = inner.with_suffix("l").unwrap();
    done(run(disk, Operation::SymbolicLink { target: name.into(), at: link.clone() }));
    let seen = metadata(run(disk, Operation::Stat { at: link, follow: false, level: Level::Detail }));
    assert_eq!(seen.link_destination, Some(name.into()));

    // On a busy machine even this takes more than one slice.
    let (mut found, mut next) = (BTreeSet::new(), Some(Operation::List { at: outer.clone(), level: Level::Detail }));
    while let Some(operation) = next {
        let listed = run(disk, operation);
        let Ok(Outcome::Entries(entries, rest)) = listed else { panic!("{listed:?}") };
        found.extend(entries.into_iter().map(|entry| entry.name));
        next = rest.map(|listing| Operation::ListMore { listing });
    }
    assert_eq!(found, [name.into(), [name, b"2"].concat().into(), [name, b"l"].concat().into()].into());

    done(run(disk, Operation::SyncDirectory { at: outer.clone() }));
    done(run(disk, Operation::RemoveFile { at: second }));
    assert_eq!(errno(run(disk, Operation::RemoveDirectory { at: outer.clone() })), rustix::io::Errno::NOTEMPTY);
    let mut next = Some(Operation::RemoveTree { at: outer });
    while let Some(operation) = next {
        let removed = run(disk, operation);
        let Ok(Outcome::Removed(rest)) = removed else { panic!("{removed:?}") };
        next = rest.map(|removal| Operation::RemoveMore { removal });
    }
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
}

#[test]
fn names_that_are_no_text_are_names() {
    for mut disk in back_ends() {
        for name in NAMES {
            go_round(&mut disk, name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_are_a_name(name in proptest::collection::vec(any::<u8>(), 1..120)) {
        let name: Vec<u8> = name.into_iter().filter(|byte| !matches!(byte, 0 | b'/')).collect();
        if RelativePath::new(&name).is_some_and(|path| !path.is_root()) {
            go_round(&mut Tried::inline(Options::default()), &name);
            go_round(&mut Tried::inline(Options { by_component: true, ..Options::default() }), &name);
        }
    }
}
