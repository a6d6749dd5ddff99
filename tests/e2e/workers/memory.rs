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
    let (mut served, mut refused) = (0, 0);
    for number in 0..READERS {
        let got = bench.workspace.path().join(format!("got-{number}"));
        let file = File::create(&got).expect("the file can be made");
        let arguments = ["repo-get", "--log-level-console=off", "--log-level-stderr=error", "archive/demo/large"];
        let mut process = bench.client.start_into(file, &arguments);
        let mut ended = false;
        wait_until("a part of a file or a refusal", SOON, || {
            ended = process.ended().is_some();
            ended || fs::metadata(&got).is_ok_and(|metadata| metadata.len() > 0)
        });
        if ended {
            let output = process.output(SOON);
            assert_ne!(output.code, 0);
            refused += 1;
        } else {
            process.signal(Signal::STOP);
            standing.push(process);
            served += 1;
        }
    }
    assert!(served >= 2 && refused >= 2, "{served} were served, and {refused} were refused");
    bench.server.wait_for_log("open files of all clients would take more than 41943040 bytes of memory");
    // what one gives back another one may have, in whatever worker
    for process in standing {
        process.signal(Signal::CONT);
        process.output(SOON).ok();
    }
    bench.client.ok(&["repo-get", "--log-level-console=off", "archive/demo/large"]);
    assert_eq!(bench.server.terminate(), 0);
}
