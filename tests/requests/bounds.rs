//! What all clients together may make the server hold.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use repohostd::protocol::string_id::StringId;
use repohostd::session::Limits;

use crate::talk::{LIMITS, Talk, reply, request, settings};

/// Longer than a session that waits for others waits before it tries again.
const MOMENT: Duration = Duration::from_millis(100);

#[test]
fn lists_that_together_would_take_too_much_wait_for_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let many = directory.path().join("archive/demo");
    fs::create_dir_all(&many).unwrap();
    for number in 0..3000 {
        File::create(many.join(format!("{number:0>100}"))).unwrap();
    }
    // a list takes about 330 kB
    let limits = Limits { listing: 900 << 10, ..LIMITS };
    let list = request(7, "s-l", "prc", false, |pack| _ = pack.str(&many.display().to_string()).u32(1));
    let mut talks = [(); 4].map(|()| Talk::within(limits, settings(directory.path())));
    for talk in &mut talks {
        talk.send(&list);
    }
    let ready = |talk: &Talk| !talk.session.poll_output().is_empty();
    assert_eq!(talks.each_ref().map(ready), [true, true, false, false]);
    for talk in &mut talks[2..] {
        talk.wait(MOMENT);
        assert!(!ready(talk), "nothing was given back");
    }
    let first = talks[0].exchange(&[]);
    assert!(first.len() > 300_000);
    // the one that asked first goes first, whoever looks first
    talks[3].wait(MOMENT);
    talks[2].wait(MOMENT);
    assert_eq!(talks.each_ref().map(ready), [false, true, true, false]);
    talks[1].vanish();
    talks[3].wait(MOMENT);
    for talk in &mut talks[2..] {
        assert!(talk.exchange(&[]) == first);
    }

    let small = Limits { listing: 600 << 10, ..LIMITS };
    let mut talk = Talk::within(small, settings(directory.path()));
    let reply = talk.path("s-l", &many.display().to_string(), |pack| _ = pack.u32(1));
    let (code, text) = reply.failed();
    assert_eq!(code, 53);
    assert!(text.contains("the list is larger than 307200 bytes\nHINT: see listing-memory-max"), "{text}");
    assert!(talk.is_open());
}

#[test]
fn a_client_that_opens_files_without_measure_is_sent_away_and_others_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("archive/demo/file");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    // a file that is read to its end is closed, so these stay open in the middle
    fs::write(&file, vec![1; 9 << 20]).unwrap();
    let file = file.display().to_string();
    let limits = Limits { memory: 14 << 20, ..LIMITS };
    let mut large = settings(directory.path());
    large.buffer_size = 4 << 20;
    let mut greedy = Talk::within(limits, large);
    let mut modest = Talk::within(limits, settings(directory.path()));
    let open = |talk: &mut Talk| talk.ask("s-rd", "opn", false, |pack| _ = pack.str(&file));
    for _ in 0..2 {
        assert_eq!(open(&mut greedy).error, None);
    }
    // its file is open and its first block is read before it is found to be too much
    let answers = greedy.exchange(&request(99, "s-rd", "opn", false, |pack| _ = pack.str(&file)));
    let error = answers.windows(4).position(|bytes| bytes == b"open").expect("an error follows the block");
    let text = String::from_utf8_lossy(&answers[error..]);
    assert!(text.contains("more than 14680064 bytes") && text.contains("memory-max"), "{text}");
    assert!(!greedy.is_open());
    assert_eq!(open(&mut modest).error, None);
}

#[test]
fn what_a_client_has_not_read_yet_counts_until_its_last_byte_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let many = directory.path().join("archive/demo");
    fs::create_dir_all(&many).unwrap();
    for number in 0..3000 {
        File::create(many.join(format!("{number:0>100}"))).unwrap();
    }
    let block = directory.path().join("archive/demo/block");
    fs::write(&block, vec![1; 1 << 20]).unwrap();
    let list = request(7, "s-l", "prc", false, |pack| _ = pack.str(&many.display().to_string()).u32(1));
    let read = request(8, "s-rd", "opn", false, |pack| _ = pack.str(&block.display().to_string()));
    let noop = request(9, "noop", "prc", false, |_| {});
    let exit = request(10, "exit", "cmd", false, |_| {});
    let mut large = settings(directory.path());
    large.buffer_size = 4 << 20;

    // the end of the answer is left, so that further requests are taken while its buffer is still held
    let limits = Limits { listing: 900 << 10, ..LIMITS };
    let mut lists = [(); 2].map(|()| Talk::within(limits, settings(directory.path())));
    for talk in &mut lists {
        talk.send(&list);
        talk.take_all_but(100);
        talk.send(&noop);
    }
    let mut waits = Talk::within(limits, settings(directory.path()));
    waits.send(&list);
    assert!(waits.session.poll_output().is_empty(), "the lists before are still held");
    lists[0].exchange(&[]);
    waits.wait(MOMENT);
    assert!(waits.exchange(&[]).len() > 300_000);

    let limits = Limits { memory: 10 << 20, ..LIMITS };
    let mut blocks = [(); 2].map(|()| Talk::within(limits, large.clone()));
    for talk in &mut blocks {
        talk.send(&read);
        talk.take_all_but(100);
        talk.send(&exit);
    }
    let mut next = Talk::within(limits, large);
    assert_eq!(reply(&next.exchange(&read)).failed().0, 94, "the blocks before are still held");
    let mut next = Talk::within(limits, settings(directory.path()));
    assert_eq!(reply(&next.exchange(&noop)).error, None, "whoever asks for nothing large is served");
    for talk in &mut blocks {
        talk.exchange(&[]);
    }
    assert_eq!(reply(&next.exchange(&read)).error, None);
}

#[test]
fn a_window_of_a_compressed_file_counts() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("archive/demo/file");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    // a frame that asks for a window of 128 MiB, and the first of its blocks
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 17 << 3];
    frame.extend([0x00, 0x00, 0x10]);
    frame.extend(vec![7; 100_000]);
    fs::write(&file, frame).unwrap();
    let limits = Limits { memory: 64 << 20, ..LIMITS };
    let mut talk = Talk::within(limits, settings(directory.path()));
    let reply = talk.ask("s-rd", "opn", false, |pack| {
        pack.str(&file.display().to_string()).null().null().null();
        pack.pack(|list| _ = list.string_id(StringId::new("zst-dcmp")));
    });
    assert_eq!(reply.failed().0, 94, "{reply:?}");
}

#[test]
fn modes_are_those_that_the_client_asks_for_unless_it_wants_the_servers_mask() {
    // as in the server, whose mask only shows where a client wants it
    rustix::process::umask(rustix::fs::Mode::empty());
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("archive/demo")).unwrap();
    for (neutral, expected) in [(true, [0o777, 0o666]), (false, [0o750, 0o640])] {
        let mut settings = settings(directory.path());
        settings.neutral_umask = neutral;
        let mut talk = Talk::new("2.60.0", settings, false);
        let path = directory.path().join(format!("archive/demo/{neutral}"));
        let reply = talk.path("s-pc", &path.display().to_string(), |pack| {
            pack.bool(false).bool(false).mode_default(0o777, 0);
        });
        assert_eq!(reply.error, None);
        let file = path.join("file");
        let reply = talk.ask("s-wr", "opn", false, |pack| {
            pack.str(&file.display().to_string()).mode_default(0o666, 0).mode_default(0o777, 0);
            pack.null().null().time(0).bool(true).bool(true).bool(true).bool(true).pack(|_| {});
        });
        assert_eq!(reply.error, None);
        let number = talk.last();
        assert_eq!(talk.ask_in(number, "s-wr", "cls", true, |_| {}).error, None);
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!([mode(&path), mode(&file)], expected, "neutral-umask is {neutral}");
    }
}
