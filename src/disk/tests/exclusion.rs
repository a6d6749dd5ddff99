//! Several processes that serve one repository, which here are several back ends in one.

use std::fs;
use std::os::fd::AsRawFd;
use std::sync::{Barrier, Mutex};
use std::thread;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::super::scrambled::{Faults, Scrambled};
use super::*;

/// So many back ends of one server, which leave all to helpers or only what waits.
fn workers<const COUNT: usize>(is_slow: bool) -> [Tried; COUNT] {
    let file = Exclusion::create().unwrap();
    [(); COUNT].map(|()| Tried::excluding(is_slow, in_a_thread, Some(Exclusion::join(file.as_fd()).unwrap())))
}

/// A back end, and another process of the same server.
fn with_another(is_slow: bool, start: Start) -> (Tried, Exclusion) {
    let file = Exclusion::create().unwrap();
    let join = || Exclusion::join(file.as_fd()).unwrap();
    (Tried::excluding(is_slow, start, Some(join())), join())
}

fn write(at: &Location) -> Operation {
    Operation::OpenWrite { at: at.clone(), mode: 0o640, fresh: true }
}

const fn ticket(operation: u64) -> Ticket {
    Ticket { session: 3, operation }
}

#[test]
fn what_waits_for_another_process_is_overtaken_and_done_when_that_is_ready() {
    let nobody: Start = |_| Err(std::io::ErrorKind::OutOfMemory.into());
    for (is_slow, start) in [(true, in_a_thread as Start), (false, in_a_thread), (false, nobody)] {
        let base = tempfile::tempdir().unwrap();
        let root = Root::new(base.path());
        let (mut tried, other) = with_another(is_slow, start);
        let [one, two, free] = ["one", "two", "free"].map(|name| place(&root, name));
        let theirs = other.try_take(&[one.to_string()]).unwrap().unwrap();
        fs::write(base.path().join("two"), "two").unwrap();
        let rename = Operation::Rename { over: Over::Anything, file: None, from: two.clone(), to: one.clone() };
        tried.disk().submit(ticket(1), rename);
        tried.disk().submit(ticket(2), Operation::RemoveFile { at: two.clone() });
        tried.disk().submit(ticket(3), write(&free));
        assert_eq!(tried.wait().0, ticket(3), "a name that nobody else has");
        assert!(other.try_take(&[two.to_string()]).unwrap().is_some(), "half of what is wanted is not taken");
        let waited = Instant::now();
        while waited.elapsed() < Duration::from_millis(50) {
            assert!(tried.completed().is_empty(), "somebody else has the name");
            let deadline = tried.disk().deadline().expect("nobody would look again");
            let pause = deadline.saturating_duration_since(Instant::now());
            assert!(pause <= Duration::from_millis(10));
            thread::sleep(pause);
        }
        drop(theirs);
        let (first, renamed) = tried.wait();
        done(renamed);
        let (second, removed) = tried.wait();
        assert_eq!((first, second, errno(removed)), (ticket(1), ticket(2), rustix::io::Errno::NOENT));
        assert_eq!(tried.disk().deadline(), None, "nothing is left to wait for");
        assert!(base.path().join("one").exists() && base.path().join("free").exists());
        assert!(other.try_take(&[one.to_string(), two.to_string(), free.to_string()]).unwrap().is_some());
    }
}

#[test]
fn no_two_replacements_are_of_one_file() {
    const WORKERS: usize = 3;
    for is_slow in [true, false] {
        let base = tempfile::tempdir().unwrap();
        let path = base.path();
        fs::write(path.join("file"), "").unwrap();
        let exclusion = Exclusion::create().unwrap();
        let barrier = Barrier::new(WORKERS);
        let replace = |number: usize| {
            let root = Root::new(path);
            let (from, to) = (place(&root, &format!("{number}.tmp")), place(&root, "file"));
            let join = Exclusion::join(exclusion.as_fd()).unwrap();
            let mut tried = Tried::excluding(is_slow, in_a_thread, Some(join));
            let round = |_| {
                let new = file(run(&mut tried, write(&from)));
                barrier.wait();
                let over = Over::This(file(run(&mut tried, Operation::OpenRead { at: to.clone() })));
                barrier.wait();
                let rename = Operation::Rename { over, file: Some(new), from: from.clone(), to: to.clone() };
                run(&mut tried, rename).is_ok()
            };
            (0..300).map(round).collect::<Vec<_>>()
        };
        let replace = &replace;
        let replaced: Vec<Vec<bool>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..WORKERS).map(|number| scope.spawn(move || replace(number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for round in 0..300 {
            let successes = replaced.iter().filter(|rounds| rounds[round]).count();
            assert_eq!(successes, 1, "round {round}");
        }
    }
}

#[test]
fn writers_of_one_name_in_several_processes_find_no_half_done_work_of_each_other() {
    for is_slow in [true, false] {
        let base = tempfile::tempdir().unwrap();
        let root = Root::new(base.path());
        let mut workers = workers::<2>(is_slow);
        // Each removes what has the name and makes the file anew; two at once would find something there again.
        for operation in 0..100 {
            for worker in &mut workers {
                worker.disk().submit(ticket(operation), write(&place(&root, "same")));
            }
        }
        let begun = Instant::now();
        let mut left = 200;
        while left > 0 {
            for worker in &mut workers {
                for (_, completion) in worker.completed() {
                    file(completion);
                    left -= 1;
                }
            }
            assert!(begun.elapsed() < WAIT, "{left} are left");
        }
    }
}

#[test]
fn who_always_has_something_to_do_leaves_a_name_to_others_in_between() {
    for is_slow in [true, false] {
        let base = tempfile::tempdir().unwrap();
        let at = place(&Root::new(base.path()), "same");
        let (mut busy, other) = with_another(is_slow, in_a_thread);
        // The moment may be over when this thread has been kept from looking.
        let is_left = (0..50).any(|round| {
            busy.disk().submit(ticket(round), write(&at));
            busy.disk().submit(ticket(round), write(&at));
            file(busy.wait().1);
            let is_free = other.try_take(&[at.to_string()]).unwrap().is_some();
            let waits = busy.disk().outstanding() == 1;
            file(busy.wait().1);
            is_free && waits
        });
        assert!(is_left);
    }
}

#[test]
fn a_name_is_claimed_once_in_all_processes() {
    let options = Options::default;
    let mut scrambled = Scrambled::new(5, options(), Faults::default());
    let mut claimed = |name: &str| {
        scrambled.submit(ticket(1), Operation::Claim { name: name.to_owned() });
        loop {
            if let Some((_, completion)) = scrambled.complete() {
                return claim(completion);
            }
        }
    };
    let first = claimed("a");
    assert!(first.is_some() && claimed("a").is_none() && claimed("b").is_some());
    drop(first);
    assert!(claimed("a").is_some());

    let [mut one, mut two] = workers::<2>(false);
    let ask = |tried: &mut Tried| claim(run(tried, Operation::Claim { name: "a".to_owned() }));
    let first = ask(&mut one).unwrap();
    assert_eq!(first.others(), None, "nobody has had it");
    assert!(ask(&mut one).is_none() && ask(&mut two).is_none());
    let dropped = Instant::now();
    drop(first);
    let second = ask(&mut two).unwrap();
    assert!(second.others().is_some_and(|others| others >= dropped), "what was added by then has to be looked for");
    assert!(ask(&mut one).is_none());
    drop(second);
    assert!(ask(&mut one).unwrap().others().is_some());
    for mut alone in back_ends() {
        let first = ask(&mut alone).unwrap();
        assert!(first.others().is_none() && ask(&mut alone).is_none());
        drop(first);
        assert!(ask(&mut alone).unwrap().others().is_none());
    }
}

#[test]
fn what_a_dead_server_has_told_a_helper_keeps_its_names_until_it_is_done() {
    static SOCKET: Mutex<Option<OwnedFd>> = Mutex::new(None);
    let base = tempfile::tempdir().unwrap();
    let root = Root::new(base.path());
    // It does nothing before the server is gone.
    let later: Start = |socket| {
        *SOCKET.lock().unwrap() = Some(socket);
        Ok(None)
    };
    let (mut tried, other) = with_another(false, later);
    let at = place(&root, "file");
    let is_free = || other.try_take(&[at.to_string()]).unwrap().is_some();
    tried.disk().submit(ticket(1), write(&at));
    assert!(!is_free());
    drop(tried);
    assert!(!is_free(), "it is not done yet");
    let socket = SOCKET.lock().unwrap().take().unwrap();
    // What it got along keeps the lock, which belongs to the opening. Our own descriptor of that is there until
    // this process ends.
    let along = descriptor(&socket);
    let along = fs::read_link(format!("/proc/self/fd/{}", along.as_raw_fd())).unwrap();
    assert!(along.to_string_lossy().contains("repohostd-names"), "{along:?}");
    worker::serve(socket.as_fd(), Options::default()).unwrap();
    assert!(base.path().join("file").exists());
    assert!(!is_free());
}

/// The only descriptor of the next message.
fn descriptor(socket: &OwnedFd) -> OwnedFd {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [], &mut ancillary, RecvFlags::PEEK).unwrap();
    let descriptors = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors,
        _ => panic!("no descriptors"),
    });
    let [descriptor] = descriptors.collect::<Vec<_>>().try_into().unwrap();
    descriptor
}
