//! A configuration that is read again reaches every worker, and a new one what others know.

use rustix::process::{Signal, kill_process};

use super::{Readers, SOON, who_serves, with_workers, workers};
use crate::for_each_release;
use crate::harness::wait_until;

for_each_release! {
    a_reload_reaches_every_worker: full, always, full;
    a_new_worker_knows_what_others_learned: always, full, full;
}

fn a_reload_reaches_every_worker(release: &str) {
    let mut bench = with_workers(release, 2);
    bench.with_cluster().stop();
    let readers = Readers::start(&bench);
    assert_eq!(who_serves(&bench.server, "repo-get").len(), 2);
    bench.server.config.set("global", "tls-server-auth", "somebody-else=*");
    bench.server.reload();
    // each asks the worker that was not asked for longer
    for _ in 0..4 {
        bench.client.fails(105, &["repo-ls"]);
    }
    drop(readers);
    bench.server.config.set("global", "tls-server-auth", "pgbackrest-client=*");
    bench.server.reload();
    bench.client.ok(&["repo-ls"]);

    // what cannot be used is told once, and nothing changes
    let readers = Readers::start(&bench);
    bench.server.file("server.crt", 0o644, "nonsense");
    bench.server.signal(Signal::HUP);
    bench.server.wait_for_log("configuration reload failed, so the server goes on with what it had");
    assert_eq!(bench.server.log().matches("configuration reload failed").count(), 1);
    assert_eq!(readers.finish(), 2);
    // nor does a worker that is new take what is broken
    for worker in workers(&bench) {
        kill_process(worker, Signal::KILL).expect("a worker can be killed");
    }
    wait_until("the losses in the log", SOON, || bench.server.log().matches(" is lost with ").count() == 2);
    bench.client.ok(&["repo-ls"]);
}

fn a_new_worker_knows_what_others_learned(release: &str) {
    let mut bench = with_workers(release, 2);
    bench.server.learns = true;
    // the client's own is not among those that are tried first
    let others: Vec<_> = ["2.45", "2.55.1", "2.60.0"].into_iter().filter(|other| *other != release).collect();
    bench.server.own_config.set("global", "releases", &others.join(","));
    bench.server.start();
    wait_until("the client to be known", SOON, || bench.client.run_exactly(&["repo-ls"]).code == 0);
    for _ in 0..3 {
        let before = workers(&bench);
        for worker in &before {
            kill_process(*worker, Signal::KILL).expect("a worker can be killed");
        }
        wait_until("another worker", SOON, || {
            let now = workers(&bench);
            !now.is_empty() && now.iter().all(|worker| !before.contains(worker))
        });
        bench.client.run_exactly(&["repo-ls"]).ok();
    }
}
