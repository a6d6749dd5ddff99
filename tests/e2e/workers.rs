//! Several processes serve: one that is lost takes its own sessions with it and nobody else's.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::archiving::archived_segments;
use crate::for_each_release;
use crate::harness::client::Client;
use crate::harness::postgres::Cluster;
use crate::harness::{Bench, Process, STANZA, temporary_files, wait_until, wait_until_unlocked};

/// How long anything here may take.
const SOON: Duration = Duration::from_secs(120);
/// How long workers are killed.
const KILLING: Duration = Duration::from_secs(20);

for_each_release! {
    workers_that_are_killed_at_random_take_only_their_sessions_with_them: always, full, always;
    the_session_beside_a_lost_worker_goes_on: full, always, full;
    heavy_sessions_are_spread_over_the_workers: full, full, always;
    a_postgresql_host_compresses_in_every_worker: full, always, full;
    a_reload_reaches_every_worker: full, always, full;
    a_new_worker_knows_what_others_learned: always, full, full;
    a_termination_waits_for_every_worker: full, full, always;
    workers_end_with_their_supervisor: full, always, full;
}

/// A bench whose server has so many workers.
fn with_workers(release: &str, workers: u32) -> Bench {
    let mut bench = Bench::new(release);
    set_workers(&mut bench, workers);
    bench
}

fn set_workers(bench: &mut Bench, workers: u32) {
    let socket = bench.server.path("status.sock").display().to_string();
    bench.server.own_config.set("global", "workers", &workers.to_string());
    bench.server.own_config.set("global", "status-socket", &socket);
}

/// What the server tells of itself.
fn status(bench: &Bench) -> serde_json::Value {
    serde_json::from_str(&bench.server.own_command(&["status", "--json"]).ok()).expect("status prints JSON")
}

/// The processes of the workers.
fn workers(bench: &Bench) -> Vec<Pid> {
    let status = status(bench);
    let workers = status["workers"].as_array().expect("there are workers");
    workers.iter().map(|worker| pid(&worker["pid"])).collect()
}

fn pid(value: &serde_json::Value) -> Pid {
    let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
    number.and_then(Pid::from_raw).expect("a process has a number")
}

/// The sessions that do `command`: the number of the client's process, and the worker's.
fn sessions(bench: &Bench, command: &str) -> Vec<(u64, Pid)> {
    let status = status(bench);
    let sessions = status["sessions"].as_array().expect("there are sessions").iter();
    let sessions = sessions.filter(|session| session["command"].as_str() == Some(command));
    sessions.map(|session| (session["process"].as_u64().expect("a number"), pid(&session["pid"]))).collect()
}

/// How many connections were lost with workers, as the server tells.
fn lost(bench: &Bench) -> usize {
    let log = bench.server.log();
    let lines = log.lines().filter_map(|line| line.split_once(" is lost with ")?.1.split_once(" connections"));
    lines.map(|(count, _)| count.parse::<usize>().expect("a number")).sum()
}

/// Two clients that stand still in the middle of a file, each at a worker of its own.
struct Readers {
    readers: Vec<(Process, PathBuf)>,
    large: PathBuf,
}

impl Readers {
    fn start(bench: &Bench) -> Self {
        bench.workspace.directory("server/repository/archive/demo");
        let text = "0123456789abcdef".repeat(4 << 20);
        let large = bench.workspace.file("server/repository/archive/demo/large", 0o640, &text);
        let readers = ["one", "two"].map(|name| {
            let got = bench.workspace.path().join(name);
            let file = fs::File::create(&got).expect("the file can be made");
            let reader = bench.client.start_into(file, &["repo-get", "--log-level-console=off", "archive/demo/large"]);
            wait_until("a part of a file", SOON, || fs::metadata(&got).is_ok_and(|metadata| metadata.len() > 0));
            reader.signal(Signal::STOP);
            (reader, got)
        });
        Self { readers: readers.into(), large }
    }

    /// Lets both go on. How many have got the whole file.
    fn finish(self) -> usize {
        let large = fs::read(&self.large).expect("readable");
        let finished = self.readers.into_iter().filter_map(|(reader, got)| {
            reader.signal(Signal::CONT);
            let output = reader.output(SOON);
            let whole = fs::read(&got).expect("readable") == large;
            assert_eq!(output.code == 0, whole, "{}", output.text());
            whole.then_some(())
        });
        finished.count()
    }
}

/// A client with a stanza of its own, so that several can push at a time.
struct Pusher {
    client: Client,
    stanza: String,
    done: usize,
    running: Option<Process>,
    failures: usize,
}

impl Pusher {
    fn new(bench: &Bench, number: usize) -> Self {
        let stanza = format!("stanza{number}");
        let mut client = Client::new(&bench.server, &stanza);
        client.config.set(&stanza, "pg1-path", bench.client.config.value(STANZA, "pg1-path"));
        client.run_exactly(&["--stanza", &stanza, "--no-online", "stanza-create"]).ok();
        Self { client, stanza, done: 0, running: None, failures: 0 }
    }

    /// Pushes the next segment once the one before has been archived.
    fn advance(&mut self, segments: &[String]) {
        if self.running.as_mut().is_none_or(|process| process.ended().is_some()) {
            self.take();
            let segment = &segments[self.done % segments.len()];
            self.running = Some(self.client.start_exactly(&["--stanza", &self.stanza, "archive-push", segment]));
        }
    }

    fn take(&mut self) {
        let Some(process) = self.running.take() else { return };
        if process.output(SOON).code == 0 { self.done += 1 } else { self.failures += 1 }
    }
}

fn workers_that_are_killed_at_random_take_only_their_sessions_with_them(release: &str) {
    let mut bench = with_workers(release, 2);
    bench.set("process-max", "2");
    let mut cluster = bench.with_cluster();
    cluster.fill(2);
    bench.ok(&["backup", "--type=full"]);
    let segments: Vec<String> = (0..8).map(|number| format!("0000000100000001000000A{number}")).collect();
    let segments: Vec<String> = segments.iter().map(|name| cluster.copy_segment(name).display().to_string()).collect();
    let rows = cluster.rows();
    cluster.stop();
    let server = bench.server.id();

    // four clients push the same segments, each for a stanza of its own; one restores all the time
    let mut pushers: Vec<Pusher> = (0..4).map(|number| Pusher::new(&bench, number)).collect();
    let mut copy = Cluster::at(&bench.workspace, "restored");
    let target = copy.path.display().to_string();
    let restore = ["restore", "--delta", "--force", "--archive-mode=off", &format!("--pg1-path={target}")];
    let (mut restoring, mut restored, mut restores_failed) = (None::<Process>, 0, 0);
    let (begun, mut killed, mut kills, mut chance) = (Instant::now(), Instant::now(), 0, 0x9e37_79b9_u32);
    while begun.elapsed() < KILLING || restored == 0 || pushers.iter().any(|pusher| pusher.done < 8) {
        assert!(begun.elapsed() < SOON, "too little succeeds: {restored} restores");
        for pusher in &mut pushers {
            pusher.advance(&segments);
        }
        if restoring.as_mut().is_none_or(|process| process.ended().is_some()) {
            if let Some(process) = restoring.take() {
                if process.output(SOON).code == 0 { restored += 1 } else { restores_failed += 1 }
            }
            restoring = Some(bench.client.start(&restore));
        }
        if killed.elapsed() > Duration::from_millis(1500) && begun.elapsed() < KILLING {
            let workers = workers(&bench);
            chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if let Some(worker) = workers.get(chance as usize % workers.len().max(1)) {
                kill_process(*worker, Signal::KILL).expect("a worker can be killed");
                kills += 1;
            }
            killed = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    pushers.iter_mut().for_each(Pusher::take);
    if let Some(process) = restoring
        && process.output(SOON).code != 0
    {
        restores_failed += 1;
    }
    let failures = restores_failed + pushers.iter().map(|pusher| pusher.failures).sum::<usize>();
    let lost = lost(&bench);
    let done: usize = pushers.iter().map(|pusher| pusher.done).sum();
    eprintln!("{kills} workers killed, {lost} connections lost; {done} pushes, {restored} restores, {failures} failed");
    assert!(kills >= 5 && lost > 0, "{kills} workers were killed, with {lost} connections");
    assert!(failures <= lost, "{failures} clients failed, but only {lost} connections were lost");
    assert_eq!(bench.server.id(), server);
    assert!(bench.server.runs(), "the server has ended");

    wait_until_unlocked(&bench.server.path("lock"));
    for Pusher { client, stanza, .. } in &pushers {
        for segment in &segments {
            client.run_exactly(&["--stanza", stanza, "archive-push", segment]).ok();
        }
        let text = client.run_exactly(&["--stanza", stanza, "verify", "--output=text", "--verbose"]).ok();
        assert!(text.contains("status: ok"), "{text}");
    }
    bench.client.verifies();
    assert!(!archived_segments(&bench.server.repository()).is_empty());
    assert_eq!(temporary_files(&bench.server.repository()), Vec::<PathBuf>::new());
    bench.client.ok(&restore);
    copy.start();
    assert_eq!(copy.rows(), rows);
    copy.stop();
    assert_eq!(bench.server.terminate(), 0);
}

fn the_session_beside_a_lost_worker_goes_on(release: &str) {
    let mut bench = with_workers(release, 2);
    bench.with_cluster().stop();
    let readers = Readers::start(&bench);
    let served = sessions(&bench, "repo-get");
    assert_eq!(served.len(), 2, "{served:?}");
    assert_ne!(served[0].1, served[1].1, "both have the same worker");
    kill_process(served[0].1, Signal::KILL).expect("a worker can be killed");
    assert_eq!(readers.finish(), 1, "one worker was killed, and the other was not");
    bench.client.ok(&["info"]);
    wait_until("the loss in the log", SOON, || lost(&bench) == 1);
    assert_eq!(bench.server.terminate(), 0);
}

fn heavy_sessions_are_spread_over_the_workers(release: &str) {
    let mut bench = with_workers(release, 2);
    bench.set("process-max", "2");
    bench.set("compress-type", "none");
    let mut cluster = bench.with_cluster();
    cluster.fill(8);
    bench.ok(&["backup", "--type=full"]);
    cluster.stop();
    let target = format!("--pg1-path={}", bench.workspace.directory("restored").display());
    let mut spread = false;
    for _ in 0..20 {
        let mut restore = bench.client.start(&["restore", "--force", "--archive-mode=off", &target]);
        while restore.ended().is_none() {
            let status = status(&bench);
            let transfers = status["workers"].as_array().expect("workers").iter();
            let transfers: Vec<_> = transfers.map(|worker| worker["transfers"].as_u64().expect("a number")).collect();
            assert!(transfers.iter().all(|count| *count <= 2), "{status}");
            spread |= transfers == [1, 1];
        }
        restore.output(SOON).ok();
        if spread {
            return;
        }
    }
    panic!("two transfers never had a worker each");
}

fn a_postgresql_host_compresses_in_every_worker(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.config.set("global", "process-max", "2");
    let mut cluster = bench.create_cluster();
    let mut host = bench.serve_cluster(&cluster, 1);
    host.own_config.set("global", "workers", "2");
    bench.server.start();
    host.start();
    cluster.start();
    bench.run_at_repository(&["stanza-create"]).ok();
    cluster.fill(2);
    for _ in 0..3 {
        let before = host.log().len();
        bench.run_at_repository(&["backup", "--type=full"]).ok();
        let log = host.log().split_off(before);
        // the main process, which compresses nothing, and two that do
        let worker = |process: u32| {
            let session = format!(" command=backup process={process} ");
            let line = log.lines().find(|line| line.contains(&session));
            let line = line.unwrap_or_else(|| panic!("no{session}in\n{log}"));
            line.split_whitespace().find(|word| word.starts_with("P0")).expect("lines name the worker").to_owned()
        };
        assert_ne!(worker(1), worker(2), "both have the same worker:\n{log}");
    }
    cluster.stop();
    assert_eq!(host.terminate(), 0);
    assert_eq!(bench.server.terminate(), 0);
}

fn a_reload_reaches_every_worker(release: &str) {
    let mut bench = with_workers(release, 2);
    bench.with_cluster().stop();
    let readers = Readers::start(&bench);
    assert_eq!(sessions(&bench, "repo-get").len(), 2);
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

fn is_there(process: Pid) -> bool {
    let line = fs::read_to_string(format!("/proc/{}/cmdline", process.as_raw_nonzero())).unwrap_or_default();
    line.contains("serve-worker")
}
