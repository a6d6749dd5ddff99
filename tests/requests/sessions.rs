//! Several open files in one connection, and what is left when it ends.

use std::fs;
use std::path::Path;

use repohostd::protocol::string_id::StringId;

use crate::talk::{Talk, request, settings};

fn open(talk: &mut Talk, path: &str, atomic: bool) -> u64 {
    let reply = talk.ask("s-wr", "opn", false, |pack| {
        pack.str(path).mode_default(0o640, 0).mode_default(0o750, 0).null().null().time(0);
        pack.bool(true).bool(true).bool(true).bool(atomic).pack(|_| {});
    });
    assert_eq!(reply.error, None);
    talk.last()
}

fn block(talk: &mut Talk, session: u64, data: &[u8]) {
    let reply = talk.ask_in(session, "s-wr", "prc", true, |pack| _ = pack.bin(data));
    assert_eq!((reply.error, reply.close), (None, false));
}

fn base(directory: &Path) -> String {
    directory.join("archive/demo/15-1").display().to_string()
}

#[test]
fn files_that_are_open_together_do_not_mix() {
    let directory = tempfile::tempdir().unwrap();
    let base = base(directory.path());
    let mut talk = Talk::new("2.60.0", settings(directory.path()), false);
    let first = open(&mut talk, &format!("{base}/first"), true);
    let second = open(&mut talk, &format!("{base}/second"), true);
    for _ in 0..100 {
        block(&mut talk, first, &[1; 5000]);
        block(&mut talk, second, &[2; 7000]);
    }
    assert!(!Path::new(&base).join("first").exists(), "nothing has its final name before it is complete");
    for number in [second, first] {
        let reply = talk.ask_in(number, "s-wr", "cls", true, |_| {});
        assert_eq!((reply.error, reply.close), (None, true));
    }
    assert!(fs::read(format!("{base}/first")).unwrap() == vec![1; 500_000]);
    assert!(fs::read(format!("{base}/second")).unwrap() == vec![2; 700_000]);

    let mut contents = Vec::new();
    let reply = talk.ask("s-rd", "opn", false, |pack| _ = pack.str(&format!("{base}/second")));
    let number = talk.last();
    let mut data = reply.data();
    assert!(data.read_bool().unwrap() && !data.read_bool().unwrap());
    contents.extend_from_slice(data.read_bin().unwrap().unwrap());
    // A keep-alive in between is answered.
    assert_eq!(talk.ask("noop", "prc", false, |_| {}).error, None);
    loop {
        let reply = talk.ask_in(number, "s-rd", "prc", true, |_| {});
        let mut data = reply.data();
        if !data.read_bool().unwrap() {
            contents.extend_from_slice(data.read_bin().unwrap().unwrap());
        }
        if reply.close {
            break;
        }
    }
    assert!(contents == vec![2; 700_000]);
}

#[test]
fn a_cancelled_write_leaves_nothing_and_a_vanished_client_neither() {
    let directory = tempfile::tempdir().unwrap();
    let base = base(directory.path());
    let mut talk = Talk::new("2.60.0", settings(directory.path()), false);
    let cancelled = open(&mut talk, &format!("{base}/cancelled"), true);
    block(&mut talk, cancelled, &vec![1; 300_000]);
    let reply = talk.ask_in(cancelled, "s-wr", "cnc", true, |_| {});
    assert_eq!((reply.error, reply.close), (None, true));
    assert_eq!(fs::read_dir(&base).unwrap().count(), 0);

    let abandoned = open(&mut talk, &format!("{base}/abandoned"), true);
    block(&mut talk, abandoned, &vec![1; 300_000]);
    assert_eq!(fs::read_dir(&base).unwrap().count(), 1);
    talk.vanish();
    assert_eq!(fs::read_dir(&base).unwrap().count(), 0);
}

#[test]
fn two_writers_of_one_name_never_share_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let base = base(directory.path());
    let mut one = Talk::new("2.60.0", settings(directory.path()), false);
    let mut two = Talk::new("2.60.0", settings(directory.path()), false);
    let path = format!("{base}/segment");
    let (first, second) = (open(&mut one, &path, true), open(&mut two, &path, true));
    block(&mut one, first, &vec![1; 400_000]);
    block(&mut two, second, &vec![2; 300_000]);
    assert_eq!(two.ask_in(second, "s-wr", "cls", true, |_| {}).error, None);
    block(&mut one, first, &vec![1; 400_000]);
    one.ask_in(first, "s-wr", "cls", true, |_| {});
    let content = fs::read(&path).unwrap();
    assert!(content == vec![2; 300_000] || content == vec![1; 800_000], "a mixture of {} bytes", content.len());
}

#[test]
fn data_for_a_session_that_there_is_not_is_refused_and_the_connection_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut talk = Talk::new("2.60.0", settings(directory.path()), false);
    let reply = talk.ask_in(77, "s-wr", "prc", true, |pack| _ = pack.bin(&vec![0; 100_000]));
    assert_eq!(reply.failed(), (39, "unable to find session id 77 for request s-wr:prc"));
    assert_eq!(talk.ask_in(77, "s-wr", "cls", true, |_| {}).failed().0, 39);
    assert!(talk.ask_in(77, "s-wr", "cnc", true, |_| {}).close);
    assert_eq!(talk.ask("s-i", "zzz", false, |_| {}).failed(), (39, "unknown request type 'zzz'"));
    assert_eq!(talk.ask("noop", "prc", false, |_| {}).error, None);
}

#[test]
fn requests_that_arrive_together_are_answered_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut talk = Talk::new("2.60.0", settings(directory.path()), false);
    let mut bytes = Vec::new();
    for number in 100..200 {
        bytes.extend(request(number, "noop", "prc", false, |_| {}));
    }
    let answer = talk.exchange(&bytes);
    let mut expected = Vec::new();
    for number in 100..200 {
        let mut writer = repohostd::protocol::pack::Writer::new();
        writer.u64(number).u32_forced(0);
        expected.extend(writer.finish());
    }
    assert_eq!(answer, expected);
}

#[test]
fn the_first_requests_come_in_their_order_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let mut talk = Talk::greeted("2.60.0", settings(directory.path()), false);
    let reply = talk.ask("s-f", "prc", false, |_| {});
    assert_eq!((reply.session, reply.failed()), (None, (29, "expected config command")));
    assert!(!talk.is_open());

    let mut talk = Talk::greeted("2.60.0", settings(directory.path()), false);
    talk.ask("config", "prc", false, |pack| _ = pack.array(|array| _ = array.str("info:remote")));
    let reply = talk.ask("s-f", "prc", false, |_| {});
    assert_eq!((reply.session, reply.failed()), (None, (29, "noop expected")));
    assert!(!talk.is_open());
}

#[test]
fn null_parameters_of_a_filter_mean_its_defaults() {
    let directory = tempfile::tempdir().unwrap();
    let base = base(directory.path());
    fs::create_dir_all(&base).unwrap();
    fs::write(format!("{base}/file"), "content").unwrap();
    for filter in ["gz-cmp", "lz4-cmp", "zst-cmp", "bz2-cmp", "hash"] {
        let mut talk = Talk::new("2.60.0", settings(directory.path()), false);
        let reply = talk.ask("s-rd", "opn", false, |pack| {
            pack.str(&format!("{base}/file")).null().null().null();
            pack.pack(|list| _ = list.string_id(StringId::new(filter)));
        });
        assert_eq!((reply.error, reply.close), (None, true), "{filter}");
    }
}

#[test]
fn a_cancelled_write_leaves_nothing_behind_whatever_the_client_thinks_of_its_state() {
    let directory = tempfile::tempdir().unwrap();
    let base = base(directory.path());
    let mut talk = Talk::new("2.60.0", settings(directory.path()), false);
    let number = open(&mut talk, &format!("{base}/file"), true);
    assert_eq!(fs::read_dir(&base).unwrap().count(), 1);
    assert!(talk.ask_in(number, "s-wr", "cnc", false, |_| {}).close);
    assert_eq!(fs::read_dir(&base).unwrap().count(), 0);
}

#[test]
fn a_request_for_options_without_number_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut talk = Talk::new("2.60.0", settings(directory.path()), false);
    let reply = talk.ask("opt-g", "prc", false, |pack| {
        for _ in 0..100_000 {
            pack.str("repo");
        }
    });
    assert_eq!(reply.failed(), (29, "more than 1000 options"));
}
