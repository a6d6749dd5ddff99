//! A host that has a pgbackrest of its own greets unknown clients with the release of that first.

use rustix::process::{Signal, kill_process};

use crate::harness::{Bench, SOON, peer, wait_until};
use crate::workers::workers;

/// The release of clients and of the host; two are tried before it otherwise.
const RELEASE: &str = "2.60.0";

/// A server that knows nothing of its clients, on a host with a pgbackrest on the `PATH` that leaves a mark when it is
/// run. `text` is what it does then.
fn bench(text: &str) -> Bench {
    let mut bench = Bench::new(RELEASE);
    bench.server.learns = true;
    bench.server.own_config.unset("global", "installed-release");
    let directory = bench.workspace.directory("server/bin");
    let mark = directory.join("asked");
    bench.workspace.file("server/bin/pgbackrest", 0o755, &format!("#!/bin/sh\n: > '{}'\n{text}\n", mark.display()));
    bench.server.environment.push(("PATH".to_owned(), format!("{}:/usr/bin:/bin", directory.display())));
    bench
}

fn was_asked(bench: &Bench) -> bool {
    bench.server.path("bin/asked").exists()
}

fn first_ping(bench: &Bench) -> i32 {
    let port = format!("--tls-server-port={}", bench.server.port);
    bench.client.run_exactly(&["server-ping", "localhost", &port]).code
}

/// The real program says it.
fn the_first_ping_works(workers: &str) {
    let mut bench = bench(&format!("exec '{}' \"$@\"", peer(RELEASE).display()));
    bench.server.own_config.set("global", "workers", workers);
    bench.server.start();
    bench.server.wait_for_log("the installed pgbackrest is 2.60.0, which is tried first");
    bench.server.reload();
    assert_eq!(first_ping(&bench), 0, "{}", bench.server.log());
    assert_eq!(bench.server.terminate(), 0);
}

#[test]
fn the_first_ping_works_with_one_process() {
    the_first_ping_works("1");
}

#[test]
fn the_first_ping_works_with_several_workers() {
    the_first_ping_works("2");
}

#[test]
fn a_worker_that_comes_later_knows_it_too() {
    let mut bench = bench(&format!("exec '{}' \"$@\"", peer(RELEASE).display()));
    let state = bench.workspace.directory("server/state");
    bench.server.own_config.set("global", "state-path", &state.display().to_string());
    bench.server.own_config.set("global", "workers", "2");
    bench.server.start();
    bench.server.wait_for_log("the installed pgbackrest is 2.60.0");
    let before = workers(&bench);
    for worker in &before {
        kill_process(*worker, Signal::KILL).expect("the worker can be killed");
    }
    wait_until("another worker", SOON, || workers(&bench).iter().all(|worker| !before.contains(worker)));
    assert_eq!(first_ping(&bench), 0, "{}", bench.server.log());
}

#[test]
fn nobody_is_asked_where_the_administrator_says_so() {
    let mut bench = bench(&format!("exec '{}' \"$@\"", peer(RELEASE).display()));
    bench.server.environment.push(("REPOHOSTD_INSTALLED_RELEASE".to_owned(), "n".to_owned()));
    bench.server.start();
    assert_ne!(first_ping(&bench), 0, "two others are tried before");
    assert_eq!(bench.server.terminate(), 0);
    assert!(!was_asked(&bench));
}

#[test]
fn root_asks_nobody() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can start a server as root");
        return;
    }
    let mut bench = bench(&format!("exec '{}' \"$@\"", peer(RELEASE).display()));
    bench.server.uid = Some(0);
    // root takes no key that is somebody else's
    let key = bench.server.path("server.key");
    std::os::unix::fs::chown(key, Some(0), None).expect("root can take a file");
    bench.server.start();
    assert_ne!(first_ping(&bench), 0, "two others are tried before");
    assert_eq!(bench.server.terminate(), 0);
    assert!(!was_asked(&bench));
}

/// What says something else, or nothing, or goes on for ever harms nobody.
#[test]
fn other_answers_are_told_and_change_nothing() {
    for (text, told) in [
        (
            "echo pgBackRest 2.99.0",
            "the installed pgbackrest says \"pgBackRest 2.99.0\", which names no release that is",
        ),
        ("exec cat /dev/zero", "the installed pgbackrest says \"\\0\\0"),
        ("exec sleep 1000", "the installed pgbackrest says \"\", which"),
    ] {
        let mut bench = bench(text);
        bench.server.start();
        assert_ne!(first_ping(&bench), 0, "two others are tried before");
        bench.server.wait_for_log(told);
        assert!(was_asked(&bench));
        assert_eq!(bench.server.terminate(), 0, "{text}");
    }
}
