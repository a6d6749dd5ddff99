//! The end of a server of several processes.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::{Reader, Readers, SOON, is_there, lost, who_serves, with_workers, workers};
use crate::for_each_release;
use crate::harness::wait_until;

for_each_release! {
    a_termination_waits_for_every_worker: full, full, always;
    a_worker_that_is_told_to_end_does_so_after_its_sessions_and_is_replaced: always, full, always;
    workers_end_with_their_supervisor: full, always, full;
}

fn a_termination_waits_for_every_worker(release: &str) {
    let mut bench = with_workers(release, 2);
    bench.server.own_config.set("global", "drain-timeout", "60s");
    bench.with_cluster().stop();
    let readers = Readers::start(&bench);
    let workers = workers(&bench);
    assert_eq!(workers.len(), 2);
    // as somebody does who signals all processes of that name
    for worker in &workers {
        kill_process(*worker, Signal::TERM).expect("a worker can be told to end");
    }
    bench.server.signal(Signal::TERM);
    bench.server.wait_for_log("no more connections, 2 open ones finish their request");
    assert!(bench.server.runs());
    assert_eq!(readers.finish(), 2, "a request in flight was cut off");
    assert_eq!(bench.server.wait(SOON), 0);
    assert!(workers.iter().all(|worker| !is_there(*worker)), "a worker is left");
    assert_eq!(lost(&bench.server.log()), [], "somebody who was served to the end is told of as lost");
}

fn a_worker_that_is_told_to_end_does_so_after_its_sessions_and_is_replaced(release: &str) {
    let mut bench = with_workers(release, 2);
    bench.server.own_config.set("global", "drain-timeout", "1s");
    bench.with_cluster().stop();
    let readers = Readers::start(&bench);
    let before = workers(&bench);
    assert_eq!(before.len(), 2);
    for worker in &before {
        kill_process(*worker, Signal::TERM).expect("a worker can be told to end");
        let told = format!(", process {}, got signal [SIGTERM]: it gets no more connections", worker.as_raw_nonzero());
        bench.server.wait_for_log(&told);
    }
    // others serve who comes, for longer than drain-timeout
    let begun = Instant::now();
    let mut others = HashSet::new();
    while begun.elapsed() < Duration::from_secs(3) || others.is_empty() {
        bench.client.ok(&["info"]);
        others.extend(workers(&bench).into_iter().filter(|worker| !before.contains(worker)));
    }
    assert!(before.iter().all(|worker| is_there(*worker)), "one has ended before its session");
    assert_eq!(readers.finish(), 2, "a session was cut off");
    wait_until("the end of both", SOON, || !before.iter().any(|worker| is_there(*worker)));
    bench.client.ok(&["info"]);
    assert_eq!(lost(&bench.server.log()), []);
    assert!(!bench.server.log().contains("lost"), "{}", bench.server.log());
    assert!(bench.server.runs(), "the server has ended");

    // a second one ends the session, too
    let reader = Reader::start(&bench, "three");
    let worker = who_serves(&bench.server, "repo-get")[0];
    kill_process(worker, Signal::TERM).expect("a worker can be told to end");
    let told = format!(", process {}, got signal [SIGTERM]", worker.as_raw_nonzero());
    bench.server.wait_for_log(&told);
    let mut again = Instant::now();
    kill_process(worker, Signal::TERM).expect("a worker can be told to end");
    wait_until("its end", SOON, || {
        // the first one counts only when the worker knows that nobody will come any more
        if again.elapsed() > Duration::from_secs(1) && kill_process(worker, Signal::TERM).is_ok() {
            again = Instant::now();
        }
        !is_there(worker)
    });
    assert!(!reader.finish());
    bench.client.ok(&["info"]);
    assert_eq!(bench.server.terminate(), 0);
}

fn workers_end_with_their_supervisor(release: &str) {
    for signal in [Signal::KILL, Signal::INT] {
        let mut bench = with_workers(release, 2);
        bench.with_cluster().stop();
        let readers = Readers::start(&bench);
        let workers = workers(&bench);
        assert_eq!(workers.len(), 2);
        bench.server.signal(signal);
        let code = bench.server.wait(SOON);
        assert!(signal == Signal::KILL || code == 63, "exit code {code}");
        wait_until("the end of the workers", SOON, || workers.iter().all(|worker| !is_there(*worker)));
        assert_eq!(readers.finish(), 0);
    }
}
