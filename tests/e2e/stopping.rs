//! What the real `pgbackrest` on the repository host stops and sees of sessions, and whose a lock is.

use std::fs;
use std::io::Write as _;

use rustix::process::Signal;

use crate::crashes::{running_backup, slow_down};
use crate::for_each_release;
use crate::harness::client::Client;
use crate::harness::{Bench, Output, Process, SOON, hold_lock, wait_until, wait_until_unlocked};

for_each_release! {
    stop_force_ends_a_running_backup_and_not_the_server;
    stop_force_for_all_stanzas_ends_a_running_backup_and_not_the_server;
    stop_force_without_sessions_ends_nothing;
    info_on_the_repository_host_shows_a_running_backup;
    garbage_in_a_lock_file_stops_nobody_and_is_no_excuse;
    processes_of_one_run_share_a_lock_and_others_do_not;
}

fn stop_force_ends_a_running_backup_and_not_the_server(release: &str) {
    is_stopped_by(release, |bench| bench.server.local(&["stop", "--force"]), "stop file exists for stanza demo");
}

fn stop_force_for_all_stanzas_ends_a_running_backup_and_not_the_server(release: &str) {
    is_stopped_by(
        release,
        |bench| bench.server.local_exactly(&["stop", "--force"]),
        "stop file exists for all stanzas",
    );
}

fn is_stopped_by(release: &str, stop: impl Fn(&Bench) -> Output, refusal: &str) {
    let mut bench = Bench::new(release);
    slow_down(&mut bench);
    let cluster = bench.with_cluster();
    cluster.fill(2);
    let server = bench.server.id();

    // reads a file that is larger than what fits between client and server
    bench.workspace.directory("server/repository/archive/demo");
    let large =
        bench.workspace.file("server/repository/archive/demo/large", 0o640, &"0123456789abcdef".repeat(4 << 20));
    let got = bench.workspace.path().join("got");
    let reader = bench.client.start_into(&got, &["repo-get", "--log-level-console=off", "archive/demo/large"]);
    wait_until("the first part of a file", SOON, || fs::metadata(&got).is_ok_and(|metadata| metadata.len() > 0));
    reader.signal(Signal::STOP);
    let mut backup = running_backup(&bench);
    backup.signal(Signal::STOP);
    assert!(backup.ended().is_none(), "the backup was over too soon:\n{}", backup.printed());
    let text = stop(&bench).ok();
    assert!(text.contains(&format!("sent term signal to process {server}")), "{text}");
    backup.signal(Signal::CONT);
    let output = backup.output(SOON);
    assert_ne!(output.code, 0, "the backup was not stopped: {}", output.text());
    assert!(output.text().contains("ERROR"), "{}", output.text());

    assert!(bench.server.runs(), "the server was stopped with the session");
    assert_eq!(bench.server.id(), server);
    bench.client.ok(&["info"]);
    // who holds no lock is nobody's to stop
    reader.signal(Signal::CONT);
    reader.output(SOON).ok();
    assert!(fs::read(&got).expect("readable") == fs::read(&large).expect("readable"), "a reader was stopped, too");
    fs::remove_file(large).expect("the file can be removed");
    let text = bench.client.fails(62, &["backup"]);
    assert!(text.contains(refusal), "{text}");
    bench.server.wait_for_log("stop --force");

    for arguments in [&["start"][..], &["start", "--stanza=demo"]] {
        bench.server.local_exactly(arguments).ok();
    }
    bench.client.ok(&["backup", "--type=full"]);
    bench.client.verifies();
    wait_until_unlocked(&bench.server.path("lock"));
    assert_eq!(bench.server.terminate(), 0);
}

fn stop_force_without_sessions_ends_nothing(release: &str) {
    let mut bench = Bench::new(release);
    let _cluster = bench.with_cluster();
    let stale = r#"{"execId":"99999999-0123456789abcdef0123456789abcdef","pid":99999999}"#;
    wait_until_unlocked(&bench.server.path("lock"));
    bench.workspace.file("server/lock/demo-archive-1.lock", 0o640, stale);
    bench.server.local(&["stop", "--force"]).ok();
    assert!(bench.server.runs());
    bench.client.ok(&["repo-ls"]);
    bench.server.local(&["start"]).ok();
    bench.client.ok(&["check"]);
}

fn info_on_the_repository_host_shows_a_running_backup(release: &str) {
    let mut bench = Bench::new(release);
    slow_down(&mut bench);
    let cluster = bench.with_cluster();
    cluster.fill(1);
    bench.client.ok(&["backup", "--type=full"]);
    wait_until_unlocked(&bench.server.path("lock"));
    let local = |bench: &Bench| bench.server.local(&["info", "--log-level-console=off"]).ok();
    assert!(!local(&bench).contains("running"), "{}", local(&bench));

    let lock = bench.server.lock("backup");
    let mut backup = bench.client.start(&["backup", "--type=full"]);
    wait_until("the backup to take its lock", SOON, || fs::read_to_string(&lock).is_ok_and(|text| text.ends_with('}')));
    backup.signal(Signal::STOP);
    assert!(backup.ended().is_none(), "the backup was over too soon:\n{}", backup.printed());
    let text = local(&bench);
    assert!(text.contains("status: ok (backup/expire running"), "{text}");
    let json = bench.server.local(&["info", "--log-level-console=off", "--output=json"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).expect("info prints JSON");
    assert_eq!(json[0]["status"]["lock"]["backup"]["held"], true, "{json}");

    backup.signal(Signal::CONT);
    backup.output(SOON * 3).ok();
    wait_until("the lock to be gone from info", SOON, || !local(&bench).contains("running"));
}

fn garbage_in_a_lock_file_stops_nobody_and_is_no_excuse(release: &str) {
    let mut bench = Bench::new(release);
    let _cluster = bench.with_cluster();
    let path = bench.server.lock("backup");
    let long = "{".repeat(100_000);
    for garbage in ["", "{", "null", "\u{0}\u{1}\u{2}", r#"{"execId":7,"pid":"x"}"#, &long] {
        wait_until_unlocked(&bench.server.path("lock"));
        bench.workspace.file("server/lock/demo-backup-1.lock", 0o640, garbage);
        bench.server.local(&["info"]).ok();
        bench.client.ok(&["expire"]);

        let mut lock = hold_lock(&path);
        lock.write_all(garbage.as_bytes()).expect("the lock file can be written");
        let text = bench.client.fails(50, &["expire"]);
        assert!(text.contains("HINT: is another pgBackRest process running?"), "{text}");
        drop(lock);
        fs::remove_file(&path).expect("the lock file can be removed");
    }
    bench.client.ok(&["backup"]);
}

fn processes_of_one_run_share_a_lock_and_others_do_not(release: &str) {
    let mut bench = Bench::new(release);
    let cluster = bench.with_cluster();
    cluster.fill(1);
    bench.client.ok(&["backup", "--type=full"]);
    let label = bench.client.labels().remove(0);
    let mut other = Client::new(&bench.server, "other");
    for key in ["pg1-path", "pg1-socket-path"] {
        other.config.set("demo", key, bench.client.config.value("demo", key));
    }
    slow_down(&mut bench);
    wait_until_unlocked(&bench.server.path("lock"));

    let backup = bench.client.start(&["backup", "--type=full", "--exec-id=1-0badcafe"]);
    let lock = bench.server.lock("backup");
    wait_until("the backup to take its lock", SOON, || fs::read_to_string(&lock).is_ok_and(|text| text.ends_with('}')));
    backup.signal(Signal::STOP);
    let held = fs::read_to_string(&lock).expect("the lock file is there");
    assert!(held.contains("1-0badcafe"), "{held}");

    let annotate = |id: &str| other.run(&["annotate", "--set", &label, "--annotation=by=other", id]);
    let text = annotate("--exec-id=2-0badcafe").fails_with(104);
    assert!(text.contains("unable to acquire lock on file"), "{text}");
    annotate("--exec-id=1-0badcafe").ok();
    // whose session ends has not taken the lock along
    let text = annotate("--exec-id=2-0badcafe").fails_with(104);
    assert!(text.contains("unable to acquire lock on file"), "{text}");
    assert_eq!(fs::read_to_string(&lock).expect("the lock file is still there"), held);

    finishes(backup);
    wait_until_unlocked(&bench.server.path("lock"));
    annotate("--exec-id=2-0badcafe").ok();
}

fn finishes(process: Process) {
    process.signal(Signal::CONT);
    process.output(SOON * 3).ok();
}
