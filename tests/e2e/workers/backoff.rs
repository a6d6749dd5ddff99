//! Workers that keep dying are not started again and again without a pause, which is short where none is left.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Reader, SOON, who_serves, with_workers, workers};
use crate::for_each_release;
use crate::harness::relay::Relay;
use crate::harness::{Bench, wait_for, wait_until};

for_each_release! {
    who_comes_while_workers_keep_dying_waits_for_the_next_one: always, always, always;
}

/// Kills these workers, and waits until the server knows.
fn kill(bench: &Bench, dead: &[Pid]) {
    for worker in dead {
        kill_process(*worker, Signal::KILL).expect("a worker can be killed");
    }
    wait_until("the loss to be noticed", SOON, || workers(bench).iter().all(|worker| !dead.contains(worker)));
}

fn who_comes_while_workers_keep_dying_waits_for_the_next_one(release: &str) {
    let mut bench = with_workers(release, 2);
    let mut cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0").display().to_string();
    cluster.stop();
    let reported = |count: u32, pause: u32| {
        let line = format!(" WARN: {count} workers were lost in 60 s; the next one is started in {pause} ms, and in ");
        bench.server.log().contains(&line)
    };

    // one worker is left alone with its client, and the other one dies whenever somebody had it started
    let reader = Reader::start(&bench, "one");
    let beside = who_serves(&bench.server, "repo-get")[0];
    let others = || -> Vec<Pid> { workers(&bench).into_iter().filter(|worker| *worker != beside).collect() };
    for loss in 1..=6 {
        let other = wait_for("another worker", SOON, || {
            bench.client.ok(&["info"]);
            others().first().copied()
        });
        assert!(!bench.server.log().contains("were lost in"), "{loss}: {}", bench.server.log());
        kill(&bench, &[other]);
    }
    wait_until("the report", SOON, || reported(6, 500));
    bench.client.ok(&["info"]);
    assert!(reader.finish(), "its worker was not killed");

    // now nobody is left, and whoever comes waits for a second at most, however many are lost
    let relay = Relay::from(Ipv4Addr::new(127, 0, 1, 1), bench.server.port);
    let port = format!("--repo1-host-port={}", relay.port);
    for _ in 0..4 {
        let losses = workers(&bench);
        kill(&bench, &losses);
        let before = relay.peers().len();
        let begun = Instant::now();
        bench.client.ok(&[&port, "archive-push", &segment]);
        // six more losses would have cost half a minute
        assert!(begun.elapsed() < Duration::from_secs(8), "a push took {:?}", begun.elapsed());
        assert_eq!(relay.peers().len(), before + 1, "it was sent away and came again");
    }
    bench.server.wait_for_log(" ms, and in 1000 ms where no other serves");
    assert_eq!(bench.server.terminate(), 0);
}
