//! A worker that hangs keeps its connections, and gets no more of them until it answers.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::host::Host;
use super::{Reader, Readers, SOON, is_there, pid, status, who_serves, with_workers};
use crate::for_each_release;
use crate::harness::fuse::{Call, FuseDisk, Traits};
use crate::harness::{Bench, Process, wait_until};

for_each_release! {
    a_worker_that_hangs_gets_no_connections_until_it_answers: full, always, always;
    a_worker_that_hangs_for_long_is_replaced_and_ended: always, full, always;
    a_worker_that_cannot_be_killed_is_replaced_all_the_same: full, always, full;
    a_server_without_clients_sleeps: full, full, always;
}

/// What a client may take that waits for nobody.
const AT_ONCE: Duration = Duration::from_secs(40);

/// A bench whose server has two workers, the first one with a client that stands still in the middle of a file, so
/// that the second one was started for somebody else.
fn with_two_workers(release: &str) -> (Bench, Reader) {
    let mut bench = with_workers(release, 2);
    // who was given to a worker that hangs waits until it goes on
    bench.client.config.set("global", "io-timeout", "600");
    bench.server.own_config.set("global", "worker-timeout", "10m");
    bench.with_cluster().stop();
    let reader = Reader::start(&bench, "got");
    bench.client.ok(&["repo-ls"]);
    assert_eq!(views(&bench).len(), 2);
    (bench, reader)
}

/// What the server tells of its workers.
fn views(bench: &Bench) -> Vec<Value> {
    status(&bench.server)["workers"].as_array().expect("there are workers").clone()
}

/// Clients that come at once, so that no worker has less to do than all others.
fn come(bench: &Bench, count: usize) -> Vec<Process> {
    (0..count).map(|_| bench.client.start(&["repo-ls"])).collect()
}

fn are_served(clients: Vec<Process>) {
    for client in clients {
        client.output(AT_ONCE).ok();
    }
}

/// How many sessions of `repo-ls` the worker with this number has ended, as the log says.
fn served(bench: &Bench, worker: &Value) -> usize {
    let name = format!(" P{:02} ", worker["number"].as_u64().expect("a number"));
    let log = bench.server.log();
    log.lines().filter(|line| line.contains(&name) && line.contains(" command=repo-ls ")).count()
}

fn a_worker_that_hangs_gets_no_connections_until_it_answers(release: &str) {
    let (bench, reader) = with_two_workers(release);
    let workers_before = views(&bench);
    // the one that has nothing to do, and would be the first choice
    let hung = workers_before.iter().find(|worker| worker["connections"] == 0).expect("one has nothing to do");
    let well = workers_before.iter().find(|worker| worker["connections"] != 0).expect("one has a client");
    assert!(workers_before.iter().all(|worker| worker["silent"].is_null()), "{workers_before:?}");
    kill_process(pid(&hung["pid"]), Signal::STOP).expect("a worker can be stopped");
    let unlucky = come(&bench, 2);
    let name = format!("worker {}, process {},", hung["number"], hung["pid"]);
    bench.server.wait_for_log(&format!("{name} has not answered for 5 s"));

    let before = served(&bench, well);
    for _ in 0..3 {
        are_served(come(&bench, 4));
    }
    wait_until("the sessions in the log", SOON, || served(&bench, well) >= before + 12);
    let told = views(&bench);
    let told = |worker: &Value| told.iter().find(|told| told["pid"] == worker["pid"]).expect("it is there").clone();
    assert!(told(hung)["silent"].as_u64().is_some_and(|seconds| (5..600).contains(&seconds)), "{}", told(hung));
    assert!(told(well)["silent"].is_null(), "{}", told(well));
    let table = bench.server.own_command(&["status"]).ok();
    assert!(table.contains("SILENT"), "{table}");

    kill_process(pid(&hung["pid"]), Signal::CONT).expect("a worker can go on");
    bench.server.wait_for_log(&format!("{name} answers after "));
    are_served(unlucky);
    let before = served(&bench, hung);
    wait_until("the worker to take part again", SOON, || {
        are_served(come(&bench, 4));
        served(&bench, hung) > before
    });
    assert!(views(&bench).iter().all(|worker| worker["silent"].is_null()));
    let log = bench.server.log();
    let told = [" has not answered for ", " answers after "].map(|text| log.matches(&format!("{name}{text}")).count());
    assert_eq!(told, [1, 1], "{log}");
    drop(reader);
}

fn a_worker_that_hangs_for_long_is_replaced_and_ended(release: &str) {
    let mut bench = with_workers(release, 2);
    bench.server.own_config.set("global", "worker-timeout", "10s");
    bench.with_cluster().stop();
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", bench.server.id())).expect("readable").count();
    bench.client.ok(&["info"]);
    let before = descriptors();
    let readers = Readers::start(&bench);
    let hung = who_serves(&bench.server, "repo-get");
    assert_eq!(hung.len(), 2);
    for worker in &hung {
        kill_process(*worker, Signal::STOP).expect("a worker can be stopped");
    }
    // who comes now waits until nobody is believed to answer, and not for the end of those
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_secs(15) {
        bench.client.ok(&["info"]);
    }
    for worker in &hung {
        let process = worker.as_raw_nonzero();
        bench.server.wait_for_log(&format!(", process {process}, has not answered for 10 s, counts as lost"));
        // nothing else ends a process that stands still
        let end =
            |line: &str| line.contains(&format!(", process {process}, is lost with ")) && line.ends_with("(SIGKILL)");
        wait_until("its end in the log", SOON, || bench.server.log().lines().any(end));
    }
    assert_eq!(readers.finish(), 0, "who hangs for long has lost its clients");
    assert!(!hung.iter().any(|worker| is_there(*worker)));
    wait_until("descriptors to be closed", SOON, || descriptors() <= before + 2);
    assert_eq!(bench.server.terminate(), 0);
}

/// What the kernel has a process do: `D` is to wait for what no signal interrupts.
fn state(process: Pid) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

fn a_worker_that_cannot_be_killed_is_replaced_all_the_same(release: &str) {
    let mut bench = with_workers(release, 2);
    bench.server.own_config.set("global", "worker-timeout", "10s");
    let lock = bench.server.path("lock");
    let disk = FuseDisk::mount(&lock, Traits::default());
    let mut cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0").display().to_string();
    cluster.stop();
    let host = Host::with_stanza(&bench, 1);
    // whoever takes a lock now waits for a disk that does not answer
    for call in [Call::Create, Call::Open] {
        disk.delay(call, SOON);
    }
    let push = host.start(&["archive-push", &segment]);
    bench.server.wait_for_log(" has not answered for 5 s");
    bench.client.ok(&["info"]);
    // the other one hangs, too
    let other = views(&bench).iter().find(|worker| worker["silent"].is_null()).map(|worker| pid(&worker["pid"]));
    kill_process(other.expect("somebody served it"), Signal::STOP).expect("a worker can be stopped");
    let unlucky = come(&bench, 1);
    let lost = ", has not answered for 10 s, counts as lost";
    wait_until("the loss of both in the log", SOON, || bench.server.log().matches(lost).count() == 2);
    let at = Instant::now();
    bench.client.ok(&["info"]);
    assert!(at.elapsed() < Duration::from_secs(5), "its successor served after {:?}", at.elapsed());
    let log = bench.server.log();
    let process =
        |line: &str| line.split_once(lost)?.0.rsplit_once(", process ")?.1.parse().ok().and_then(Pid::from_raw);
    let stuck = log.lines().find_map(process).expect("the log names it");
    bench.server.wait_for_log(&format!("process {} of a lost worker cannot be killed", stuck.as_raw_nonzero()));
    assert_eq!(state(stuck), Some('D'), "nothing kept it: {}", bench.server.log());
    for _ in 0..3 {
        bench.client.ok(&["info"]);
    }
    // the disk answers again
    for call in [Call::Create, Call::Open] {
        disk.delay(call, Duration::ZERO);
    }
    wait_until("its end", SOON, || !is_there(stuck));
    // what these were told depends on when
    unlucky.into_iter().chain([push]).for_each(|client| _ = client.output(AT_ONCE));
    host.run(&["archive-push", &segment]).ok();
    assert_eq!(bench.server.terminate(), 0);
}

fn a_server_without_clients_sleeps(release: &str) {
    let (bench, reader) = with_two_workers(release);
    drop(reader);
    wait_until("the end of the sessions", SOON, || views(&bench).iter().all(|worker| worker["connections"] == 0));
    let mut processes: Vec<_> = views(&bench).iter().map(|worker| pid(&worker["pid"]).as_raw_pid()).collect();
    processes.push(i32::try_from(bench.server.id()).expect("processes have small numbers"));
    let switches = || {
        let of = |process: &i32| {
            let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process is there");
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:")).map(str::to_owned);
            line.expect("the kernel counts when a process waits")
        };
        processes.iter().map(of).collect::<Vec<_>>()
    };
    // what came last has its consequences, such as a note of a release that was learned
    let mut last = switches();
    wait_until("a server that sleeps for twice as long as workers may be silent", SOON, || {
        std::thread::sleep(Duration::from_secs(10));
        let now = switches();
        std::mem::replace(&mut last, now.clone()) == now
    });
}
