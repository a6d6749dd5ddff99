//! What only clients of 2.45 do, Debian 12's own release, which speaks the framing of releases up to
//! 2.53.1.
//!
//! It backs up and expires on the repository host, beside the server and in the same repository;
//! everything else goes through the server. [`Bench::ok`] knows that, so that other scenarios read the
//! same for all releases.

use std::fs;

use crate::harness::{Bench, hold_lock, wait_until_unlocked};

const RELEASE: &str = "2.45";

#[test]
fn a_backup_from_another_host_is_refused_by_the_client_itself() {
    let mut bench = Bench::new(RELEASE);
    let _cluster = bench.with_cluster();
    for command in ["backup", "expire"] {
        let text = bench.client.fails(72, &[command]);
        assert!(text.contains("command must be run on the repository host"), "{text}");
        bench.ok(&[command]);
    }
}

#[test]
fn stop_files_and_locks_of_the_repository_host_count() {
    let mut bench = Bench::new(RELEASE);
    let cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0").display().to_string();
    bench.ok(&["backup"]);
    let label = bench.client.labels().remove(0);
    let annotate = ["annotate", "--set", &label, "--annotation=one=1"];

    // the original's own exit codes: 103 where several repositories could have taken a segment, and
    // annotate counts its errors
    for (stop, start, words) in [
        (&["stop"][..], &["start"][..], "stop file exists for all stanzas"),
        (&["stop", "--stanza=demo"], &["start", "--stanza=demo"], "stop file exists for stanza demo"),
    ] {
        bench.server.local_exactly(stop).ok();
        let text = bench.client.fails(103, &["archive-push", &segment]);
        assert!(text.contains(words), "{text}");
        let text = bench.client.fails(104, &annotate);
        assert!(text.contains(words), "{text}");
        bench.server.local_exactly(start).ok();
    }

    for (kind, code, command) in [("archive", 103, &["archive-push", &segment][..]), ("backup", 104, &annotate)] {
        let lock = hold_lock(&bench.server.lock(kind));
        let text = bench.client.fails(code, command);
        assert!(text.contains("is another pgBackRest process running?"), "{text}");
        drop(lock);
        fs::remove_file(bench.server.lock(kind)).expect("the lock file can be removed");
        bench.client.ok(command);
    }
    wait_until_unlocked(&bench.server.path("lock"));
}
