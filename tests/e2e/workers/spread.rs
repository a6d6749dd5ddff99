//! Connections are spread over the workers, of which there are as many as there is something to do for.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::{Readers, SOON, is_there, sessions, set_workers, status, who_serves, with_workers, workers};
use crate::for_each_release;
use crate::harness::{Bench, temporary_files, wait_until, wait_until_unlocked};

for_each_release! {
    heavy_sessions_are_spread_over_the_workers: full, full, always;
    each_process_of_a_backup_has_a_worker_on_the_postgresql_host: always, always, always;
    a_worker_without_a_client_ends_after_a_minute_but_for_the_last_one: full, full, full;
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
            let status = status(&bench.server);
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

fn each_process_of_a_backup_has_a_worker_on_the_postgresql_host(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.config.set("global", "process-max", "4");
    bench.server.config.set("global", "compress-type", "gz");
    let mut cluster = bench.create_cluster();
    let mut host = bench.serve_cluster(&cluster, 1);
    set_workers(&mut host, 4);
    bench.server.start();
    host.start();
    cluster.start();
    bench.run_at_repository(&["stanza-create"]).ok();
    cluster.fill(8);

    let mut backup = bench.start_at_repository(&["backup", "--type=full"]);
    // the main process compresses nothing; its number is 0
    let mut served: BTreeMap<u64, Pid> = BTreeMap::new();
    let mut at_once = false;
    while backup.ended().is_none() {
        for session in sessions(&host) {
            if let Some(process) = session.process.filter(|process| *process > 0) {
                let worker = *served.entry(process).or_insert(session.worker);
                assert_eq!(worker, session.worker, "a session has moved");
            }
        }
        let status = status(&host);
        let workers = status["workers"].as_array().expect("workers").iter();
        let transfers: Vec<u64> = workers.map(|worker| worker["transfers"].as_u64().expect("a number")).collect();
        at_once |= transfers.len() == 4 && transfers.iter().all(|count| *count > 0);
    }
    backup.output(SOON).ok();
    assert_eq!(served.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4], "{}", host.log());
    let different: HashSet<Pid> = served.values().copied().collect();
    assert_eq!(different.len(), 4, "two have the same worker: {served:?}");
    assert!(at_once, "the four never transferred at once");
    bench.client.verifies();
    wait_until_unlocked(&host.path("lock"));
    assert_eq!(temporary_files(&bench.server.repository()), Vec::<PathBuf>::new());
    cluster.stop();
    assert_eq!(host.terminate(), 0);
    assert_eq!(bench.server.terminate(), 0);
}

fn a_worker_without_a_client_ends_after_a_minute_but_for_the_last_one(release: &str) {
    let mut bench = with_workers(release, 2);
    bench.with_cluster().stop();
    let readers = Readers::start(&bench);
    let both = who_serves(&bench.server, "repo-get");
    assert_eq!(readers.finish(), 2);
    let finished = Instant::now();
    wait_until("one of the workers to end", SOON, || workers(&bench).len() == 1);
    let minute = Duration::from_secs(60);
    assert!(finished.elapsed() + Duration::from_secs(5) > minute, "it ended after {:?}", finished.elapsed());
    assert!(finished.elapsed() < minute + Duration::from_secs(20), "it ended after {:?}", finished.elapsed());
    let left = workers(&bench);
    assert_eq!(both.iter().filter(|worker| is_there(**worker)).collect::<Vec<_>>(), left.iter().collect::<Vec<_>>());
    assert!(!bench.server.log().contains("lost"), "{}", bench.server.log());

    // a client keeps both for another minute, and the last one stays whatever happens
    bench.client.ok(&["info"]);
    assert_eq!(workers(&bench), left, "there was one that had nothing to do");
    let readers = Readers::start(&bench);
    let now = who_serves(&bench.server, "repo-get");
    assert!(now.len() == 2 && now.contains(&left[0]) && now[0] != now[1], "{now:?}");
    assert_eq!(readers.finish(), 2);
    assert_eq!(bench.server.terminate(), 0);
}
