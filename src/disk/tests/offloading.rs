//! The server's back end: what waits for what, who does what, and what happens when a helper is lost.

use super::*;
use crate::disk::calls::write_at;
use crate::process::link;

fn write(at: &Location, fresh: bool) -> Operation {
    Operation::OpenWrite { at: at.clone(), mode: 0o640, fresh }
}

#[test]
fn operations_on_one_name_run_in_their_order_and_others_beside_them() {
    for mut tried in [Tried::helpers(in_a_thread), Tried::slow()] {
        let base = tempfile::tempdir().unwrap();
        let root = Root::new(base.path());
        // Each makes the file anew; two at once would both find it missing and one of them fail.
        for operation in 0..200 {
            tried.disk().submit(Ticket { session: operation % 2, operation }, write(&place(&root, "same"), true));
            let other = place(&root, &format!("other{operation}"));
            tried.disk().submit(Ticket { session: 2, operation }, write(&other, true));
        }
        assert_eq!(tried.disk().outstanding(), 400);
        let mut same = Vec::new();
        for _ in 0..400 {
            let (ticket, completion) = tried.wait();
            file(completion);
            if ticket.session < 2 {
                same.push(ticket.operation);
            }
        }
        assert!(same.is_sorted() && same.len() == 200, "{same:?}");
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 201);
    }
}

#[test]
fn a_renaming_never_takes_what_another_writer_has_begun_meanwhile() {
    for mut tried in [Tried::helpers(in_a_thread), Tried::slow()] {
        let base = tempfile::tempdir().unwrap();
        let root = Root::new(base.path());
        let (temporary, target) = (place(&root, "file.tmp"), place(&root, "file"));
        for round in 0..200 {
            let mine = file(run(&mut tried, write(&temporary, true)));
            write_at(mine.0.as_fd(), b"whole", 0).unwrap();
            let rename = Operation::Rename {
                over: Over::Anything,
                file: Some(mine),
                from: temporary.clone(),
                to: target.clone(),
            };
            let (first, second) =
                if round % 2 == 0 { (rename, write(&temporary, true)) } else { (write(&temporary, true), rename) };
            tried.disk().submit(Ticket { session: 1, operation: 1 }, first);
            tried.disk().submit(Ticket { session: 2, operation: 2 }, second);
            let results = [tried.wait(), tried.wait()];
            assert!(results.iter().any(|(_, completion)| matches!(completion, Ok(Outcome::File(_)))));
            assert_eq!(std::fs::read(base.path().join("file")).unwrap(), b"whole", "round {round}");
        }
    }
}

/// A helper that takes its first message and is lost.
const DIES: Start = |socket| {
    std::thread::spawn(move || {
        let mut bytes = [0; 64];
        rustix::net::recv(&socket, &mut bytes, rustix::net::RecvFlags::empty()).unwrap();
    });
    Ok(None)
};

/// A helper that does what it is told first and is lost before it can say so.
const DIES_AFTER_WORK: Start = |socket| {
    std::thread::spawn(move || {
        let (ours, theirs) = link::pair().unwrap();
        rustix::io::ioctl_fionbio(&ours, false).unwrap();
        in_a_thread(theirs).unwrap();
        let (mut buffer, mut descriptors) = (vec![0; 16 * 1024], Vec::new());
        let message = link::receive(socket.as_fd(), &mut buffer, &mut descriptors).unwrap().unwrap();
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        link::send(ours.as_fd(), message, &descriptors).unwrap();
        let mut reply = vec![0; 16 * 1024];
        link::receive(ours.as_fd(), &mut reply, &mut Vec::new()).unwrap().unwrap();
    });
    Ok(None)
};

#[test]
fn what_a_lost_helper_was_doing_the_next_one_does_again() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::new(base.path());
    let at = |name: &str| place(&root, name);
    let mut own = Inline::new(Options::default());
    let mend = |tried: &mut Tried| {
        let Tried::Offload(disk, _) = tried else { unreachable!() };
        disk.helpers().start_with(in_a_thread);
    };
    let lost = |operation: Operation| {
        let mut tried = Tried::helpers(DIES_AFTER_WORK);
        tried.disk().submit(Ticket { session: 1, operation: 2 }, operation);
        mend(&mut tried);
        tried.wait().1
    };

    let made = file(lost(write(&at("new"), true)));
    write_at(made.0.as_fd(), b"text", 0).unwrap();
    done(lost(Operation::Sync { file: made.clone() }));
    done(lost(Operation::SetTimes { file: made.clone(), modified: 7 }));
    file(lost(write(&at("other"), false)));
    for over in [Over::Nothing, Over::Anything, Over::This(made.clone())] {
        let from = file(own.run(write(&at("from"), true)));
        let over = if let Over::This(_) = over {
            Over::This(file(own.run(Operation::OpenRead { at: at("to") })))
        } else {
            over
        };
        if let Over::Nothing = over {
            // As somebody leaves it who is lost between the steps of a renaming without a call for it.
            std::fs::hard_link(base.path().join("from"), base.path().join("to")).unwrap();
        }
        done(lost(Operation::Rename { over, file: Some(from.clone()), from: at("from"), to: at("to") }));
        assert!(!base.path().join("from").exists());
        assert!(base.path().join("to").exists());
    }
    done(lost(Operation::MakeDirectory { at: at("directory"), mode: 0o750 }));
    done(lost(Operation::SyncDirectory { at: at("directory") }));
    done(lost(Operation::RemoveDirectory { at: at("directory") }));
    std::fs::create_dir(base.path().join("tree")).unwrap();
    std::fs::write(base.path().join("tree/file"), "").unwrap();
    assert!(matches!(lost(Operation::RemoveTree { at: at("tree") }), Ok(Outcome::Removed(None))));
    done(lost(Operation::RemoveFile { at: at("to") }));
    let names = std::fs::read_dir(base.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<std::collections::BTreeSet<_>>(), ["new".into(), "other".into()].into());

    // What cannot be done again, and what no helper survives.
    let link = Operation::SymbolicLink { target: "new".into(), at: at("link") };
    assert_eq!(errno(lost(link)), rustix::io::Errno::IO);
    let mut tried = Tried::helpers(DIES);
    assert_eq!(errno(run(&mut tried, write(&at("file"), true))), rustix::io::Errno::IO);
    mend(&mut tried);
    file(run(&mut tried, write(&at("file"), true)));
}

#[test]
fn what_needs_no_helper_does_not_wait_for_one() {
    let base = tempfile::tempdir().unwrap();
    std::fs::write(base.path().join("file"), "text").unwrap();
    let root = Root::new(base.path());
    let shared = Exclusion::create().unwrap();
    let never: Start = |socket| {
        std::mem::forget(socket);
        Ok(None)
    };
    let exclusion = Exclusion::join(shared.as_fd()).unwrap();
    let mut tried = Tried::excluding(false, never, Some(exclusion));
    let waiting = 40;
    for operation in 0..waiting {
        let at = place(&root, &format!("file{operation}"));
        tried.disk().submit(Ticket { session: 1, operation }, write(&at, true));
    }
    let mut own = |operation: Operation| {
        tried.disk().submit(Ticket { session: 2, operation: 0 }, operation);
        let (ticket, completion) = tried.disk().complete().expect("it waits for nobody");
        assert_eq!(ticket.session, 2);
        completion.unwrap()
    };
    for _ in 0..2 {
        let lock = Operation::Lock { at: place(&root, "lock"), contents: String::new() };
        let Outcome::Lock(LockAttempt::Acquired(lock)) = own(lock) else { panic!("nobody has it") };
        let Outcome::File(file) = own(Operation::OpenRead { at: place(&root, "file") }) else { panic!("no file") };
        let read = Operation::Read { file, buffer: Vec::with_capacity(4), length: 4, offset: 0 };
        let Outcome::Read(read) = own(read) else { panic!("nothing read") };
        assert_eq!(read, b"text");
        own(Operation::Unlock { lock });
    }
    assert_eq!(u64::try_from(tried.disk().outstanding()).unwrap(), waiting);
}

#[test]
fn a_process_that_has_ended_is_not_kept() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::new(base.path());
    // The process is there only to end; the socket of the helper is closed at once. Whether that is noticed
    // before or after the operation is handed over depends on what other tests start meanwhile.
    let mut tried = Tried::helpers(|_| std::process::Command::new("sleep").arg("0.2").spawn().map(Some));
    let _ = run(&mut tried, write(&place(&root, "file"), true));
    let Tried::Offload(disk, poll) = &mut tried else { unreachable!() };
    let mut events = Events::with_capacity(8);
    while disk.helpers().ending() > 0 {
        poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
        assert!(!events.is_empty(), "nobody tells of the end");
        events.iter().for_each(|event| disk.ready(event.token().0));
    }
}

#[test]
fn without_helpers_the_work_is_done_all_the_same() {
    let base = tempfile::tempdir().unwrap();
    let root = Root::new(base.path());
    let mut tried = Tried::helpers(|_| Err(std::io::Error::from_raw_os_error(11)));
    file(run(&mut tried, write(&place(&root, "file"), true)));
    assert!(base.path().join("file").exists());
}

#[test]
fn what_is_not_in_the_page_cache_is_read_beside_the_loop() {
    let base = tempfile::tempdir_in("/var/tmp").unwrap();
    let root = Root::new(base.path());
    let data: Vec<u8> = (0..1 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
    std::fs::write(base.path().join("file"), &data).unwrap();
    for (mut tried, cold) in [(Tried::helpers(in_a_thread), true), (Tried::slow(), true), (Tried::slow(), false)] {
        let handle = file(run(&mut tried, Operation::OpenRead { at: place(&root, "file") }));
        if cold {
            rustix::fs::fsync(&handle.0).unwrap();
            rustix::fs::fadvise(&handle.0, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
        let buffer = Vec::with_capacity(data.len());
        let read = Operation::Read { file: handle, buffer, length: data.len(), offset: 0 };
        assert!(bytes(run(&mut tried, read)) == data);
    }
}

#[test]
fn a_helper_ends_with_the_server() {
    let (ours, theirs) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let helper = std::thread::spawn(move || worker::serve(theirs.as_fd(), Options::default()));
    drop(ours);
    helper.join().unwrap().unwrap();
}

/// A server whose files know nobody, with these helpers.
fn without_files(start: Start) -> Tried {
    let nobody = || std::path::PathBuf::from("/nonexistent/passwd");
    let poll = Poll::new().unwrap();
    let options = Options { passwd: nobody(), group: nobody(), ..Options::default() };
    let mut disk = Offload::new(options, start, None);
    disk.watch(poll.registry().try_clone().unwrap(), 0);
    Tried::Offload(Box::new(disk), poll)
}

#[test]
fn an_owner_that_is_in_no_file_is_found_by_the_hosts_own_program() {
    let base = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        std::fs::write(base.path().join(name), name).unwrap();
    }
    let root = Root::new(base.path());
    let mut own = Inline::new(Options::default());
    let look = || Operation::Stat { at: place(&root, "a"), follow: false, level: Level::Detail };
    let expected = metadata(own.run(look()));
    assert!(expected.user.is_some() && expected.group.is_some());

    let mut tried = without_files(in_a_thread);
    for _ in 0..2 {
        assert_eq!(metadata(run(&mut tried, look())), expected);
        let listed = run(&mut tried, Operation::List { at: place(&root, ""), level: Level::Detail });
        let Ok(Outcome::Entries(entries, None)) = listed else { panic!("{listed:?}") };
        let owners = entries.iter().map(|entry| (&entry.metadata.user, &entry.metadata.group));
        assert_eq!(owners.collect::<Vec<_>>(), [(&expected.user, &expected.group); 3]);
    }
    let quick = Operation::Stat { at: place(&root, "a"), follow: false, level: Level::Basic };
    assert_eq!(metadata(run(&mut tried, quick)).user, None, "a level without owners asks for none");
}

#[test]
fn an_owner_that_nobody_knows_keeps_no_client_waiting() {
    let base = tempfile::tempdir().unwrap();
    std::fs::write(base.path().join("a"), "a").unwrap();
    let root = Root::new(base.path());
    let knows_nobody: Start = |socket| {
        let options = Options { getent: "/bin/false".into(), ..Options::default() };
        std::thread::Builder::new().spawn(move || worker::serve(socket.as_fd(), options)).map(|_| None)
    };
    let is_missing: Start = |_| Err(std::io::ErrorKind::OutOfMemory.into());
    for start in [knows_nobody, DIES, is_missing] {
        let mut tried = without_files(start);
        let look = || Operation::Stat { at: place(&root, "a"), follow: false, level: Level::Detail };
        let found = metadata(run(&mut tried, look()));
        assert_eq!((found.user, found.group, found.size), (None, None, 1));
        assert_eq!(metadata(run(&mut tried, look())).user, None);
    }
}
