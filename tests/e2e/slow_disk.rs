//! A disk that keeps one client waiting is no other client's business.
//!
//! What waits for the disk is the kernel, or helper processes of the server; one that is stopped stands for a
//! disk that does not answer.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::for_each_release;
use crate::harness::{Bench, Process, STANZA, temporary_files, wait_for, wait_until};

/// How long a client may take that waits for nobody.
const SOON: Duration = Duration::from_secs(60);

for_each_release! {
    a_client_that_waits_for_the_disk_keeps_no_other_waiting: full, always, always;
    a_lost_helper_fails_its_client_and_nobody_else: always, full, full;
    the_kernel_waits_for_the_disk_without_a_helper: full, full, always;
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

/// A bench whose server has helpers wait for the disk.
fn with_helpers(release: &str) -> Bench {
    let mut bench = Bench::new(release);
    bench.server.own_config.set("global", "io-uring", "n");
    // whose helpers are counted
    bench.server.own_config.set("global", "workers", "1");
    bench
}

fn the_kernel_waits_for_the_disk_without_a_helper(release: &str) {
    for (allowed, unknown, expected) in [("y", None, false), ("n", None, true), ("y", Some("io_uring_setup"), true)] {
        let mut bench = Bench::new(release);
        bench.server.own_config.set("global", "io-uring", allowed);
        bench.server.own_config.set("global", "workers", "1");
        bench.server.unknown_call = unknown;
        let cluster = bench.with_cluster();
        // Directories that the repository begins with are made by a helper.
        assert_eq!(bench.server.terminate(), 0);
        bench.server.start();
        for number in 0..4 {
            let segment = cluster.copy_segment(&format!("0000000100000001000000A{number}")).display().to_string();
            bench.client.ok(&["archive-push", &segment]);
        }
        bench.client.ok(&["info"]);
        assert_eq!(!helpers(bench.server.id()).is_empty(), expected, "io-uring={allowed}, without {unknown:?}");
        let told = "no io_uring: Function not implemented (os error 38); helper processes wait for the disk";
        assert_eq!(bench.server.log().contains(told), unknown.is_some());
    }
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

fn a_lost_helper_fails_its_client_and_nobody_else(release: &str) {
    let mut bench = with_helpers(release);
    let cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0").display().to_string();
    let data = format!("--pg1-path={}", bench.client.config.value(STANZA, "pg1-path"));
    let (stopped, pushes) = one_of_many_gets_through(&mut bench, &segment);
    for pid in stopped {
        kill_process(pid, Signal::KILL).expect("a helper can be killed");
    }
    for (stanza, push) in pushes {
        let output = push.output(SOON);
        assert_ne!(output.code, 0, "nobody knows what the helper has done: {}", output.text());
        assert!(output.text().contains("[5] Input/output error"), "{}", output.text());
        bench.client.run_exactly(&of_stanza(&stanza, &data, &["archive-push", &segment])).ok();
    }
    bench.server.wait_for_log("a helper for the disk is lost");
    assert_eq!(temporary_files(&bench.server.repository()), Vec::<std::path::PathBuf>::new());
}
