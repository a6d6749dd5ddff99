//! The end of a server of several processes.

use rustix::process::{Signal, kill_process};

use super::{Readers, SOON, is_there, lost, with_workers, workers};
use crate::for_each_release;
use crate::harness::wait_until;

for_each_release! {
    a_termination_waits_for_every_worker: full, full, always;
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
