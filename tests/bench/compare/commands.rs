//! What the real client does, with a real cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Run;
use super::servers::{Pair, Server};
use super::table::{self, Target};
use crate::harness::postgres::Cluster;
use crate::harness::{STANZA, own, run_quietly};

/// Where `PostgreSQL` is.
const INITDB: &str = "/usr/lib/postgresql/15/bin/initdb";

/// Kinds of compression of WAL segments.
const COMPRESSIONS: [&str; 5] = ["none", "gz", "lz4", "zst", "bz2"];

/// Processes of the client that back up or restore at the same time.
pub(crate) const PROCESSES: &str = "--process-max=2";

/// Scale of pgbench's tables, 15 MiB each.
const SCALE: u32 = 34;
const SCALE_QUICK: u32 = 6;

/// WAL segments archived and got, and a backup restored, by the real client.
pub(crate) fn commands(run: &mut Run) {
    if !has_postgresql() {
        for measure in ["archive-push", "archive-get", "restore"] {
            table::not_run(measure, "the client needs a cluster, and there is no PostgreSQL 15");
        }
        return;
    }
    // the options of a backup that its size says something about
    run.bench.set("compress-type", "none");
    run.bench.client.config.set("global", "log-level-console", "warn");
    let mut cluster = run.bench.create_cluster();
    let pair = run.start_default();
    run.bench.client.config.set("global", "repo1-host-port", &pair.ours.port.to_string());
    run.bench.client.write_config();
    cluster.start();
    run.bench.client.ok(&["stanza-create"]);
    cluster.fill(scale(run));
    let segment = full_segment(run, &cluster);
    cluster.archive();
    if run.asked("restore") {
        run.bench.ok(&["backup", "--type=full"]);
    }
    // the cluster itself archives by our server, which must be over
    cluster.stop();
    if run.asked("archive") {
        archive(run, &pair, &segment);
    }
    if run.asked("restore") {
        restore(run, &pair);
    }
}

/// Whether there is a PostgreSQL to make a cluster with.
pub(crate) fn has_postgresql() -> bool {
    Path::new(INITDB).exists()
}

/// The scale of pgbench's tables.
pub(crate) const fn scale(run: &Run) -> u32 {
    if run.quick { SCALE_QUICK } else { SCALE }
}

/// A copy of a WAL segment that was written to its end.
fn full_segment(run: &Run, cluster: &Cluster) -> PathBuf {
    let name = cluster.query("select pg_walfile_name(pg_current_wal_lsn() - 33554432)");
    let copy = run.bench.workspace.directory("segments").join("full");
    fs::copy(cluster.path.join("pg_wal").join(name), &copy).expect("the segment can be copied");
    copy
}

fn archive(run: &Run, pair: &Pair, segment: &Path) {
    let directory = run.bench.workspace.directory("segments");
    let mut number = 0;
    // what a segment in the way costs, of which there is none in a new range of names
    let mut next = || {
        number += 1;
        let name = format!("00000001000000F0{number:08X}");
        let copy = directory.join(&name);
        fs::copy(segment, &copy).expect("the segment can be copied");
        own(&copy);
        (name, copy)
    };
    for kind in COMPRESSIONS {
        let compress = format!("--compress-type={kind}");
        let mut pushed = String::new();
        let [processor, wall] = pair.alternate(run.rounds(), |server| {
            let (name, copy) = next();
            rustix::fs::sync();
            let cost = server.cost(|| run_client(run, server, STANZA, &["archive-push", &compress, &path(&copy)]));
            fs::remove_file(copy).expect("the segment can be removed");
            pushed = name;
            [cost.processor * 1e3, cost.wall * 1e3]
        });
        let what = format!("archive-push of 16 MiB, {kind}");
        table::both(&format!("{what}: server CPU, ms"), processor, Target::Share(0.5), "");
        table::both(&format!("{what}: wall, ms"), wall, Target::None, "");
        let got = directory.join("got");
        let [processor, wall] = pair.alternate(run.rounds(), |server| {
            let cost = server.cost(|| run_client(run, server, STANZA, &["archive-get", &pushed, &path(&got)]));
            let length = fs::metadata(&got).expect("the segment came").len();
            assert_eq!(length, 16 << 20, "the segment is whole");
            fs::remove_file(&got).expect("the segment can be removed");
            [cost.processor * 1e3, cost.wall * 1e3]
        });
        let what = format!("archive-get of 16 MiB, {kind}");
        table::both(&format!("{what}: server CPU, ms"), processor, Target::Share(0.5), "");
        table::both(&format!("{what}: wall, ms"), wall, Target::None, "");
    }
}

fn restore(run: &Run, pair: &Pair) {
    let target = Cluster::at(&run.bench.workspace, "restored");
    let option = format!("--pg1-path={}", path(&target.path));
    let mut mebibytes = 0;
    let [processor, wall, memory] = pair.alternate(run.rounds().min(3), |server| {
        let mut memory = 0.0;
        let arguments = ["restore", "--type=none", PROCESSES, &option];
        let cost = server.cost(|| memory = server.group.most_memory(|| run_client(run, server, STANZA, &arguments)));
        let files = crate::harness::files(&target.path);
        let sizes = files.iter().filter_map(|file| fs::metadata(file).ok()).map(|file| file.len());
        mebibytes = sizes.sum::<u64>() >> 20;
        clear(&target.path);
        [cost.processor, cost.wall, memory / f64::from(1 << 20)]
    });
    let what = format!("restore of {mebibytes} MiB, not compressed");
    table::both(&format!("{what}: server CPU, s"), processor, Target::None, "");
    table::both(&format!("{what}: wall, s"), wall, Target::None, "");
    table::both(&format!("{what}: memory, MiB"), memory, Target::None, "");
}

/// Removes a restored cluster, but not its directory.
pub(crate) fn clear(cluster: &Path) {
    for entry in fs::read_dir(cluster).expect("the cluster was restored").flatten() {
        let gone = if entry.path().is_dir() && !entry.path().is_symlink() {
            fs::remove_dir_all(entry.path())
        } else {
            fs::remove_file(entry.path())
        };
        gone.expect("the restored cluster can be removed");
    }
    rustix::fs::sync();
}

/// Runs the client for a server and insists on success.
pub(crate) fn run_client(run: &Run, server: &Server, stanza: &str, arguments: &[&str]) {
    let client = &run.bench.client;
    let mut command: Command = client.workspace.command(client.program());
    command.arg(format!("--config={}", path(&client.config_file()))).arg(format!("--stanza={stanza}"));
    command.arg(format!("--repo1-host-port={}", server.port)).args(arguments);
    run_quietly(command).ok();
}

pub(crate) fn path(path: &Path) -> String {
    path.display().to_string()
}
