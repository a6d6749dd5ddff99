//! Backups of a cluster by a repository host, through each server on the cluster's host.

use std::fs;

use super::servers::{Pair, Server};
use super::table::{self, Target};
use super::{Run, commands};
use crate::harness::pg_host::identity;
use crate::harness::{Bench, STANZA, files};

/// What is measured: a name, and what the client is told.
const KINDS: [(&str, &[&str]); 6] = [
    ("none", &["--compress-type=none"]),
    ("gz", &["--compress-type=gz"]),
    ("lz4", &["--compress-type=lz4"]),
    ("zst", &["--compress-type=zst"]),
    ("bz2", &["--compress-type=bz2"]),
    ("zst, block incremental", &["--compress-type=zst", "--repo1-bundle", "--repo1-block"]),
];

/// Full backups with each compression, whose work is done on the cluster's host. The archive is ours for both.
pub(crate) fn cluster(run: Run) {
    if !commands::has_postgresql() {
        return table::not_run("backup of a cluster", "there is no PostgreSQL 15");
    }
    let bench = Bench::new(&run.bench.client.release);
    let mut run = Run { bench, ..run };
    let bench = &mut run.bench;
    let mut cluster = bench.create_cluster();
    let host = bench.serve_cluster(&cluster, 1);
    let pair = Pair::configured(bench, &host.config, &run.build, identity());
    for (key, value) in [("repo1-retention-full", "1"), ("log-level-console", "warn"), ("log-level-file", "off")] {
        bench.server.config.set("global", key, value);
    }
    bench.server.config.set(STANZA, "pg1-host-port", &pair.ours.port.to_string());
    bench.server.start();
    cluster.start();
    bench.run_at_repository(&["stanza-create"]).ok();
    cluster.fill(commands::scale(&run));
    cluster.query("checkpoint");
    let sizes = files(&cluster.path.join("base")).into_iter().filter_map(|file| fs::metadata(file).ok());
    let mebibytes = sizes.map(|file| file.len()).sum::<u64>() >> 20;
    for (name, options) in KINDS {
        measure(&run, &pair, &format!("backup of a cluster of {mebibytes} MiB, {name}"), options);
    }
}

fn measure(run: &Run, pair: &Pair, what: &str, options: &[&str]) {
    let mut options = options.to_vec();
    if run.bench.client.release == "2.45" && options.contains(&"--repo1-block") {
        options.push("--beta");
    }
    let [processor, wall, memory] = pair.alternate(run.rounds().min(3), |server: &Server| {
        let port = format!("--pg1-host-port={}", server.port);
        let mut arguments = vec!["backup", "--type=full", commands::PROCESSES, &port];
        arguments.extend(&options);
        let mut memory = 0.0;
        let cost = server.cost(|| {
            memory = server.group.most_memory(|| drop(run.bench.run_at_repository(&arguments).ok()));
        });
        rustix::fs::sync();
        [cost.processor, cost.wall, memory / f64::from(1 << 20)]
    });
    table::both(&format!("{what}: server CPU, s"), processor, Target::Share(0.9), "");
    table::both(&format!("{what}: wall, s"), wall, Target::Share(0.9), "");
    table::both(&format!("{what}: memory, MiB"), memory, Target::Share(1.0 / 3.0), "");
}
