//! A configuration that is read again reaches every worker, and a new one what others know.

use std::io::{ErrorKind, Read as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Readers, SOON, is_there, status, who_serves, with_workers, workers};
use crate::for_each_release;
use crate::harness::service_manager::ServiceManager;
use crate::harness::{Bench, wait_until};

for_each_release! {
    a_reload_reaches_every_worker: full, always, full;
    a_worker_that_cannot_take_a_new_configuration_ends: always, always, always;
    a_worker_that_stands_still_takes_a_new_configuration_later: full, full, always;
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

/// Connects, but says nothing. Whether the server has closed the connection for want of a file descriptor.
fn is_closed_at_once(bench: &Bench) -> bool {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, bench.server.port)).expect("the server accepts");
    stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout can be set");
    !matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Limits the files that a process of the tests' user may open.
fn limit_files(bench: &Bench, process: Pid, limit: u32) {
    let mut command = bench.workspace.command("prlimit");
    command.arg(format!("--nofile={limit}:")).args(["--pid", &process.as_raw_nonzero().to_string()]);
    bench.workspace.run("prlimit", command).ok();
}

fn a_worker_that_cannot_take_a_new_configuration_ends(release: &str) {
    let mut bench = with_workers(release, 2);
    let mut manager = ServiceManager::of(&mut bench.server);
    bench.server.own_config.set("global", "drain-timeout", "60s");
    bench.with_cluster().stop();
    let readers = Readers::start(&bench);
    let served = who_serves(&bench.server, "repo-get");
    let starved = served[0];
    limit_files(&bench, starved, 0);

    // whom it cannot take is not counted for ever
    assert!((0..8).any(|_| is_closed_at_once(&bench)), "it could open a file");
    wait_until("the others to be forgotten", SOON, || status(&bench.server)["connections"].as_u64() == Some(2));

    bench.server.config.set("global", "tls-server-auth", "somebody-else=*");
    bench.server.reload();
    let reason = "[100]: unable to take over the configuration: [24] Too many open files";
    let process = starved.as_raw_nonzero();
    let told = format!(", process {process}, cannot take the configuration over, and ends: {reason}");
    bench.server.wait_for_log(&told);
    manager.hears(&format!("STATUS=configuration reload failed in a worker, which ends: {reason}; listening on "));
    assert_eq!(bench.server.log().matches(" cannot take the configuration over").count(), 1, "{}", bench.server.log());
    // nobody gets what only the old configuration grants, not from that worker either
    limit_files(&bench, starved, 1000);
    for _ in 0..4 {
        bench.client.fails(105, &["repo-ls"]);
    }
    assert!(is_there(starved), "it has a client whose request is in flight");
    assert_eq!(readers.finish(), 2, "a request in flight was cut off");
    let finished = Instant::now();
    wait_until("the end of the worker", SOON, || !is_there(starved));
    assert!(finished.elapsed() < Duration::from_secs(30), "it ended after {:?}", finished.elapsed());
    assert!(!bench.server.log().contains("lost"), "{}", bench.server.log());
    assert!(bench.server.runs(), "the server has ended");
    assert_eq!(bench.server.terminate(), 0);
}

fn a_worker_that_stands_still_takes_a_new_configuration_later(release: &str) {
    let mut bench = with_workers(release, 2);
    bench.with_cluster().stop();
    let readers = Readers::start(&bench);
    let stopped = who_serves(&bench.server, "repo-get")[0];
    kill_process(stopped, Signal::STOP).expect("a worker can be stopped");
    bench.server.config.set("global", "tls-server-auth", "somebody-else=*");
    bench.server.reload();
    bench.server.wait_for_log(" WARN: 1 workers have not read the configuration yet");
    // one of them has the other worker
    let mut clients = [0, 1].map(|_| bench.client.start(&["repo-ls"]));
    wait_until("the other worker to refuse a client", SOON, || {
        clients.iter_mut().any(|client| client.ended().is_some())
    });
    kill_process(stopped, Signal::CONT).expect("a worker can go on");
    for client in clients {
        client.output(SOON).fails_with(105);
    }
    assert!(is_there(stopped));
    for _ in 0..4 {
        bench.client.fails(105, &["repo-ls"]);
    }
    drop(readers);
    assert_eq!(bench.server.terminate(), 0);
}
