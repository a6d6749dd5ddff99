//! The bounds of memory are the server's, however many workers there are.

use std::fs::{self, File};

use rustix::process::Signal;

use super::{SOON, with_workers};
use crate::for_each_release;
use crate::harness::{Process, wait_until};

for_each_release! {
    memory_max_holds_for_all_workers_together: full, full, always;
}

/// Clients that read a file at a time.
const READERS: usize = 6;
/// So many have room at a time.
const FIT: usize = 2;

fn memory_max_holds_for_all_workers_together(release: &str) {
    let mut bench = with_workers(release, 4);
    // a file that is read takes a buffer, and what a session has beside it is small
    bench.set("buffer-size", "16MiB");
    bench.server.config.set("global", "buffer-size", "16MiB");
    bench.server.own_config.set("global", "memory-max", "40MiB");
    bench.with_cluster().stop();
    let large = "server/repository/archive/demo/large";
    bench.workspace.file(large, 0o640, &"0123456789abcdef".repeat(8 << 20));
    let mut standing: Vec<Process> = Vec::new();
    for number in 0..READERS {
        let got = bench.workspace.path().join(format!("got-{number}"));
        let file = File::create(&got).expect("the file can be made");
        let mut process = bench.client.start_into(file, &["repo-get", "--log-level-console=off", "archive/demo/large"]);
        wait_until("a part of a file, or a refusal", SOON, || {
            process.ended().is_some() || fs::metadata(&got).is_ok_and(|metadata| metadata.len() > 0)
        });
        process.signal(Signal::STOP);
        standing.push(process);
    }
    // what is too much is known when a buffer has been filled, and the client may have had that
    let refusal = "open files of all clients would take more than 41943040 bytes of memory";
    wait_until("refusals", SOON, || bench.server.log().matches(refusal).count() >= READERS - FIT);
    // what one gives back another one may have, in whatever worker
    let goes_on = |process: Process| {
        process.signal(Signal::CONT);
        process.output(SOON).code == 0
    };
    let served = standing.into_iter().map(goes_on).filter(|whole| *whole).count();
    assert!((1..=FIT).contains(&served), "{served} were served:\n{}", bench.server.log());
    bench.client.ok(&["repo-get", "--log-level-console=off", "archive/demo/large"]);
    assert_eq!(bench.server.terminate(), 0);
}
