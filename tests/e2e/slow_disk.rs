//! A disk that keeps one client waiting is no other client's business.
//!
//! What waits for the disk are helper processes of the server; one that is stopped stands for a disk that does not
//! answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::for_each_release;
use crate::harness::fuse::{Call, FuseDisk, Traits};
use crate::harness::server::Server;
use crate::harness::{Bench, Process, STANZA, files, run_quietly, temporary_files, wait_for, wait_until};

/// How long a client may take that waits for nobody.
const SOON: Duration = Duration::from_secs(60);

for_each_release! {
    a_client_that_waits_for_the_disk_keeps_no_other_waiting: full, always, always;
    what_a_lost_helper_was_doing_is_done_all_the_same: always, full, full;
    helpers_that_are_lost_all_the_time_fail_no_push: full, full, always;
    locks_and_reads_wait_for_no_helper_where_several_workers_serve: full, always, full;
    a_file_system_where_each_call_waits_is_waited_for_by_nobody_else: full, full, always;
    a_disk_that_turns_out_to_be_slow_is_left_to_helpers: full, full, always;
}

/// The helpers that the server has.
fn helpers(server: u32) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").expect("processes are listed").flatten();
    processes
        .filter_map(|entry| {
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // the name in parentheses may hold anything; the state and the parent follow it
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
            let ours = parent.parse() == Ok(server) && !stat.contains(") Z ");
            ours.then(|| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)).flatten()
        })
        .collect()
}

/// Runs `command` of the client for a stanza of the test's own: two pushes of one stanza would exclude each
/// other.
fn of_stanza<'a>(stanza: &'a str, data: &'a str, command: &'a [&'a str]) -> Vec<&'a str> {
    [&["--stanza", stanza, data], command].concat()
}

/// Stops the helpers that there are, and starts one more push than they can keep waiting. Returns the
/// helpers, and the stanzas and pushes that wait once the other one has succeeded.
fn one_of_many_gets_through(bench: &mut Bench, segment: &str) -> (Vec<Pid>, Vec<(String, Process)>) {
    let data = format!("--pg1-path={}", bench.client.config.value(STANZA, "pg1-path"));
    let mut stanzas = Vec::new();
    // more stanzas may need more helpers
    while stanzas.len() <= helpers(bench.server.id()).len() {
        let stanza = format!("stanza{}", stanzas.len());
        bench.client.run_exactly(&of_stanza(&stanza, &data, &["--no-online", "stanza-create"])).ok();
        stanzas.push(stanza);
    }
    let stopped = helpers(bench.server.id());
    assert!(!stopped.is_empty(), "the server has no helper");
    for pid in &stopped {
        kill_process(*pid, Signal::STOP).expect("a helper can be stopped");
    }
    let start = |stanza: String| {
        let push = bench.client.start_exactly(&of_stanza(&stanza, &data, &["archive-push", segment]));
        (stanza, push)
    };
    let mut pushes: Vec<_> = stanzas.into_iter().take(stopped.len() + 1).map(start).collect();
    let (_, first) = wait_for("a push that waits for nobody", SOON, || {
        let ended = pushes.iter_mut().position(|(_, push)| push.ended().is_some());
        ended.map(|index| pushes.remove(index))
    });
    first.output(SOON).ok();
    (stopped, pushes)
}

/// A bench whose server has one process, whose helpers are counted.
fn with_helpers(release: &str) -> Bench {
    let mut bench = Bench::new(release);
    bench.server.own_config.set("global", "workers", "1");
    bench
}

fn a_client_that_waits_for_the_disk_keeps_no_other_waiting(release: &str) {
    let mut bench = with_helpers(release);
    let cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0").display().to_string();
    let (stopped, mut pushes) = one_of_many_gets_through(&mut bench, &segment);
    bench.client.ok(&["info"]);
    for (_, push) in &mut pushes {
        assert!(push.ended().is_none(), "what waits for the disk has ended: {}", push.printed());
    }
    for pid in stopped {
        kill_process(pid, Signal::CONT).expect("a helper can go on");
    }
    for (_, push) in pushes {
        push.output(SOON).ok();
    }
    let helpers = helpers(bench.server.id());
    assert_eq!(bench.server.terminate(), 0);
    let is_there = |pid: &Pid| {
        let line = fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        line.contains("disk-helper")
    };
    wait_until("the end of the helpers", SOON, || !helpers.iter().any(is_there));
}

fn what_a_lost_helper_was_doing_is_done_all_the_same(release: &str) {
    let mut bench = with_helpers(release);
    let cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0").display().to_string();
    let (stopped, pushes) = one_of_many_gets_through(&mut bench, &segment);
    for pid in stopped {
        kill_process(pid, Signal::KILL).expect("a helper can be killed");
    }
    for (_, push) in pushes {
        push.output(SOON).ok();
    }
    bench.server.wait_for_log("a helper for the disk is lost");
    assert_eq!(temporary_files(&bench.server.repository()), Vec::<PathBuf>::new());
}

/// Makes a stanza as the bench's own one is, without asking a client for it.
fn copy_stanza(bench: &Bench, name: &str) {
    for kind in ["archive", "backup"] {
        let place = bench.server.repository().join(kind);
        let mut command = bench.workspace.command("cp");
        command.arg("-r").arg(place.join(STANZA)).arg(place.join(name));
        run_quietly(command).ok();
    }
}

/// The helpers of every process of the server that has some.
fn all_helpers(server: &Server) -> Vec<(u32, Vec<Pid>)> {
    let children = |of: u32| helpers(of).into_iter().map(|pid| pid.as_raw_nonzero().get().cast_unsigned());
    children(server.id()).map(|worker| (worker, helpers(worker))).collect()
}

fn helpers_that_are_lost_all_the_time_fail_no_push(release: &str) {
    const KILLS: usize = 60;
    let mut bench = with_helpers(release);
    let cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0").display().to_string();
    let data = format!("--pg1-path={}", bench.client.config.value(STANZA, "pg1-path"));
    let stanzas: Vec<_> = (0..3).map(|number| format!("stanza{number}")).collect();
    for stanza in &stanzas {
        copy_stanza(&bench, stanza);
    }
    let start = |stanza: &str| bench.client.start_exactly(&of_stanza(stanza, &data, &["archive-push", &segment]));
    let mut pushes: Vec<_> = stanzas.iter().map(|stanza| (stanza, start(stanza))).collect();
    let (mut kills, mut done) = (0, 0);
    // where the disk is quick it takes a while to hit one that is at work
    let has_hit = || bench.server.log().contains("another one does what it was doing");
    while kills < KILLS || kills < 10 * KILLS && !has_hit() {
        if let Some(helper) = helpers(bench.server.id()).into_iter().cycle().nth(kills) {
            kills += usize::from(kill_process(helper, Signal::KILL).is_ok());
        }
        let again = Instant::now() + Duration::from_millis(100);
        while Instant::now() < again {
            for (stanza, push) in &mut pushes {
                if push.ended().is_some() {
                    std::mem::replace(push, start(stanza)).output(SOON).ok();
                    done += 1;
                    // the same segment is to be written once more
                    let archived = bench.server.repository().join("archive").join(stanza);
                    let archived = files(&archived).into_iter().filter(|path| is_segment(path));
                    archived.for_each(|path| _ = fs::remove_file(path));
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    for (_, push) in pushes {
        push.output(SOON).ok();
    }
    let log = bench.server.log();
    let hit = log.matches("another one does what it was doing").count();
    eprintln!("{kills} helpers killed, {hit} of them at work; {done} pushes");
    assert!(hit > 0 && done > 0, "no helper was lost over anything");
    assert_eq!(temporary_files(&bench.server.repository()), Vec::<PathBuf>::new());
}

/// Whether this is a WAL segment of the repository.
fn is_segment(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("0000000100000001000000A0"))
}

fn locks_and_reads_wait_for_no_helper_where_several_workers_serve(release: &str) {
    const HELPERS: usize = 12;
    let mut bench = with_helpers(release);
    let socket = bench.server.path("status.sock").display().to_string();
    bench.server.own_config.set("global", "workers", "2");
    bench.server.own_config.set("global", "status-socket", &socket);
    let cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0").display().to_string();
    let data = format!("--pg1-path={}", bench.client.config.value(STANZA, "pg1-path"));
    let cached = "archive/demo/archive.info";
    let expected = bench.client.ok(&["repo-get", "--log-level-console=off", cached]);

    let mut pushes = Vec::new();
    let mut stopped = Vec::new();
    // More than there are helpers wait in each worker, and all that there are stand still.
    wait_until("pushes that wait in both workers", SOON, || {
        let status = bench.server.own_command(&["status", "--json"]).ok();
        let status: serde_json::Value = serde_json::from_str(&status).expect("status prints JSON");
        let workers = status["workers"].as_array().expect("there are workers").clone();
        let busy = |worker: &&serde_json::Value| {
            worker["connections"].as_u64().is_some_and(|count| count > HELPERS as u64 + 4)
        };
        let all = all_helpers(&bench.server);
        stopped = all.iter().flat_map(|(_, helpers)| helpers.clone()).collect();
        for pid in &stopped {
            let _ = kill_process(*pid, Signal::STOP);
        }
        let full = all.iter().filter(|(_, helpers)| helpers.len() == HELPERS).count();
        if full == 2 && workers.iter().filter(busy).count() == 2 {
            return true;
        }
        let stanza = format!("stanza{}", pushes.len());
        copy_stanza(&bench, &stanza);
        pushes.push(bench.client.start_exactly(&of_stanza(&stanza, &data, &["archive-push", &segment])));
        false
    });
    for _ in 0..4 {
        bench.client.ok(&["stanza-create", "--no-online"]);
        let got = bench.client.ok(&["repo-get", "--log-level-console=off", cached]);
        assert_eq!(got, expected);
    }
    let is_of_stanza =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("demo-"));
    wait_until("its locks to go", SOON, || !files(&bench.server.path("lock")).iter().any(is_of_stanza));
    for pid in stopped {
        let _ = kill_process(pid, Signal::CONT);
    }
    for push in pushes {
        push.output(SOON).ok();
    }
    assert_eq!(bench.server.terminate(), 0);
}

/// The longest time that a ping and an `info` of the bench's stanza took, while something goes on and has not ended.
fn longest_waits(bench: &Bench, mut goes_on: impl FnMut() -> bool) -> (Duration, Duration) {
    let (mut ping, mut info) = (Duration::ZERO, Duration::ZERO);
    let timed = |arguments: &[&str]| {
        let begun = Instant::now();
        bench.client.run_exactly(arguments).ok();
        begun.elapsed()
    };
    let port = format!("--tls-server-port={}", bench.server.port);
    while goes_on() {
        if bench.client.release != "2.45" {
            ping = ping.max(timed(&["server-ping", &port, "localhost"]));
        }
        info = info.max(timed(&["info"]));
    }
    (ping, info)
}

/// Has three clients push to stanzas on the slow file system of a server with one process.
fn push_to_slow(bench: &mut Bench, disk: &FuseDisk, slow: &[(Call, Duration)]) -> (Duration, Duration) {
    let cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0").display().to_string();
    let data = format!("--pg1-path={}", bench.client.config.value(STANZA, "pg1-path"));
    let stanzas: Vec<_> = (0..3).map(|number| format!("stanza{number}")).collect();
    for stanza in &stanzas {
        copy_stanza(bench, stanza);
    }
    for (call, delay) in slow {
        disk.delay(*call, *delay);
    }
    let start = |stanza: &String| bench.client.start_exactly(&of_stanza(stanza, &data, &["archive-push", &segment]));
    let mut pushes: Vec<_> = stanzas.iter().map(start).collect();
    let waits = longest_waits(bench, || pushes.iter_mut().any(|push| push.ended().is_none()));
    for push in pushes {
        push.output(SOON).ok();
    }
    for (call, _) in slow {
        disk.delay(*call, Duration::ZERO);
    }
    bench.client.verifies();
    waits
}

fn a_file_system_where_each_call_waits_is_waited_for_by_nobody_else(release: &str) {
    // Each is longer than what a client takes for itself on a busy machine.
    let long = Duration::from_secs(2);
    for direct in [false, true] {
        let mut bench = Bench::new(release);
        bench.server.own_config.set("global", "workers", "1");
        let disk = FuseDisk::mount(&bench.server.repository(), Traits { direct, ..Traits::default() });
        let (ping, info) = push_to_slow(&mut bench, &disk, &[(Call::Write, long)]);
        let writes = disk.count(Call::Write);
        eprintln!("direct {direct}: a ping took {ping:?} at most, an info {info:?}; {writes} writes");
        assert!(ping < long && info < long, "a ping took {ping:?}, an info {info:?}");
        assert_eq!(bench.server.terminate(), 0);
    }
    let mut bench = Bench::new(release);
    bench.server.own_config.set("global", "workers", "1");
    let disk = FuseDisk::mount(&bench.server.repository(), Traits::default());
    let slow = [Call::Create, Call::Open, Call::GetAttributes, Call::Lookup, Call::ReadDirectory];
    let (ping, _) = push_to_slow(&mut bench, &disk, &slow.map(|call| (call, long / 4)));
    eprintln!("with slow looks a ping took {ping:?} at most");
    assert!(ping < long / 2, "a ping took {ping:?}");
    assert_eq!(bench.server.terminate(), 0);
}

fn a_disk_that_turns_out_to_be_slow_is_left_to_helpers(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.own_config.set("global", "workers", "1");
    let socket = bench.server.path("status.sock").display().to_string();
    bench.server.own_config.set("global", "status-socket", &socket);
    let delay = Duration::from_millis(500);
    bench.server.slow_call = Some(("pwrite64", delay));
    let cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0").display().to_string();
    bench.client.ok(&["archive-push", &segment]);
    let status = bench.server.own_command(&["status", "--json"]).ok();
    let status: serde_json::Value = serde_json::from_str(&status).expect("status prints JSON");
    let file_systems = status["file-systems"].as_array().expect("file systems are told of");
    let slow = |one: &serde_json::Value| {
        let quick = one["looks"] == "at once" && one["data"] == "helpers";
        quick && one["slow-ms"].as_u64().is_some_and(|took| Duration::from_millis(took) >= delay)
    };
    assert!(file_systems.iter().any(slow), "looks are quick, writes are not: {file_systems:?}");
    let by_helpers = || {
        let trace = fs::read_to_string(bench.server.path("pwrite64.trace")).expect("calls are traced");
        let server = bench.server.id().to_string();
        trace.lines().filter(|line| line.split_whitespace().next().is_some_and(|pid| pid != server)).count()
    };
    let before = by_helpers();
    let segment = cluster.copy_segment("0000000100000001000000A1").display().to_string();
    bench.client.ok(&["archive-push", &segment]);
    assert!(by_helpers() > before, "no helper writes");
}
