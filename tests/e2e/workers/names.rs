//! What administrators' tools call the processes of a server.

use std::collections::BTreeSet;

use super::{Readers, SOON, with_workers, workers};
use crate::for_each_release;
use crate::harness::{Bench, run_quietly, wait_until};

for_each_release! {
    ps_and_pgrep_tell_server_workers_and_helpers_apart: full, full, always;
}

/// The processes that `pgrep` finds with these arguments.
fn pgrep(bench: &Bench, arguments: &[&str]) -> BTreeSet<u32> {
    let mut command = bench.workspace.command("pgrep");
    command.args(arguments);
    let output = run_quietly(command);
    assert!(output.code < 2, "exit code {} of {}:\n{}", output.code, output.command, output.text());
    output.stdout.lines().map(|line| line.parse().expect("pgrep prints numbers")).collect()
}

/// What `ps` calls a process.
fn ps(bench: &Bench, process: u32) -> String {
    let mut command = bench.workspace.command("ps");
    command.args(["-o", "comm=", "-p", &process.to_string()]);
    run_quietly(command).ok().trim().to_owned()
}

fn ps_and_pgrep_tell_server_workers_and_helpers_apart(release: &str) {
    let mut bench = with_workers(release, 2);
    let mut cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0").display().to_string();
    cluster.stop();
    let readers = Readers::start(&bench);
    bench.client.ok(&["archive-push", &segment]);
    let server = bench.server.id();
    let workers: BTreeSet<u32> =
        workers(&bench).iter().map(|worker| worker.as_raw_nonzero().get().unsigned_abs()).collect();
    assert_eq!(workers.len(), 2);

    let by_name = pgrep(&bench, &["--exact", "repohostd"]);
    assert!(by_name.contains(&server), "{by_name:?}");
    assert!(by_name.is_disjoint(&workers), "who signals the server by its name reaches workers");
    assert_eq!(pgrep(&bench, &["--exact", "repohostd-work", "--parent", &server.to_string()]), workers);
    assert_eq!(ps(&bench, server), "repohostd");
    for worker in &workers {
        assert_eq!(ps(&bench, *worker), "repohostd-work");
    }
    let parents: Vec<_> = workers.iter().map(ToString::to_string).collect();
    let parents = ["--parent", &parents.join(",")];
    wait_until("the helpers to have their name", SOON, || {
        let helpers = pgrep(&bench, &parents);
        let named = pgrep(&bench, &[&["--exact", "repohostd-disk"], &parents[..]].concat());
        !helpers.is_empty() && helpers == named
    });
    drop(readers);
    assert_eq!(bench.server.terminate(), 0);
}
