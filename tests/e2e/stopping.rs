//! What the real `pgbackrest` on the repository host stops and sees of sessions, and whose a lock is.

use std::fs;
use std::io::Write as _;

use rustix::process::Signal;

use crate::crashes::{slow_down, stopped_backup, stopped_while_it_pushes};
use crate::for_each_release;
use crate::harness::client::Client;
use crate::harness::{
    Bench, LIMIT, Output, Process, SOON, hold_lock, own, temporary_files, wait_until, wait_until_unlocked,
};

for_each_release! {
    stop_force_ends_a_running_backup_and_not_the_server:
        never "its backup runs on the repository host, which ends it without the server", full, always;
    stop_force_for_all_stanzas_ends_a_running_backup_and_not_the_server:
        never "its backup runs on the repository host, which ends it without the server", always, full;
    stop_force_ends_a_push_and_not_the_server: always, full, full;
    stop_force_without_sessions_ends_nothing: always, always, always;
    info_on_the_repository_host_shows_a_running_backup: never "its backup opens no session", always, full;
    garbage_in_a_lock_file_stops_nobody_and_is_no_excuse: always, always, full;
    processes_of_one_run_share_a_lock_and_others_do_not: always, full, always;
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
    let file = fs::File::create(&got).expect("the file can be made");
    let reader = bench.client.start_into(file, &["repo-get", "--log-level-console=off", "archive/demo/large"]);
    wait_until("the first part of a file", SOON, || fs::metadata(&got).is_ok_and(|metadata| metadata.len() > 0));
    reader.signal(Signal::STOP);
    let backup = stopped_backup(&bench, &[]);
    let text = stop(&bench).ok();
    let signalled =
        text.split_once("sent term signal to process ").and_then(|(_, rest)| rest.split_whitespace().next());
    let signalled = signalled.and_then(|number| number.parse().ok()).expect(&text);
    assert!(bench.server.has_process(signalled), "{signalled} is none of the server's:\n{text}");
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
    let text = bench.fails(62, &["backup"]);
    assert!(text.contains(refusal), "{text}");
    bench.server.wait_for_log("stop --force");

    for arguments in [&["start"][..], &["start", "--stanza=demo"]] {
        bench.server.local_exactly(arguments).ok();
    }
    bench.ok(&["backup", "--type=full"]);
    bench.client.verifies();
    wait_until_unlocked(&bench.server.path("lock"));
    assert_eq!(bench.server.terminate(), 0);
}

fn stop_force_ends_a_push_and_not_the_server(release: &str) {
    let mut bench = Bench::new(release);
    slow_down(&mut bench);
    let cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0");
    let push = stopped_while_it_pushes(&bench, &segment);
    let text = bench.server.local(&["stop", "--force"]).ok();
    assert!(text.contains("sent term signal to process "), "{text}");
    push.signal(Signal::CONT);
    let output = push.output(SOON);
    assert_ne!(output.code, 0, "the push was not stopped: {}", output.text());
    wait_until("the temporary file to go", SOON, || temporary_files(&bench.server.repository()).is_empty());
    assert!(bench.server.runs(), "the server was stopped with the session");

    let segment = segment.display().to_string();
    let text = bench.client.fails(103, &["archive-push", &segment]);
    assert!(text.contains("stop file exists for stanza demo"), "{text}");
    bench.server.local(&["start"]).ok();
    bench.client.ok(&["archive-push", &segment]);
    wait_until_unlocked(&bench.server.path("lock"));
}

fn stop_force_without_sessions_ends_nothing(release: &str) {
    let mut bench = Bench::new(release);
    let _cluster = bench.with_cluster();
    let stale = r#"{"execId":"99999999-0123456789abcdef0123456789abcdef","pid":99999999}"#;
    wait_until_unlocked(&bench.server.path("lock"));
    let lock = bench.server.lock("archive");
    fs::write(&lock, stale).expect("the lock file can be written");
    own(&lock);
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
    bench.ok(&["backup", "--type=full"]);
    wait_until_unlocked(&bench.server.path("lock"));
    let local = |bench: &Bench| bench.server.local(&["info", "--log-level-console=off"]).ok();
    assert!(!local(&bench).contains("running"), "{}", local(&bench));

    let backup = stopped_backup(&bench, &[]);
    let text = local(&bench);
    assert!(text.contains("status: ok (backup/expire running"), "{text}");
    let json = bench.server.local(&["info", "--log-level-console=off", "--output=json"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).expect("info prints JSON");
    assert_eq!(json[0]["status"]["lock"]["backup"]["held"], true, "{json}");

    backup.signal(Signal::CONT);
    backup.output(LIMIT).ok();
    wait_until("the lock to be gone from info", SOON, || !local(&bench).contains("running"));
}

fn garbage_in_a_lock_file_stops_nobody_and_is_no_excuse(release: &str) {
    let mut bench = Bench::new(release);
    let cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0").display().to_string();
    // a command that takes the lock on the server
    let (kind, code, command) = if release == "2.45" {
        ("archive", 103, vec!["archive-push", &segment])
    } else {
        ("backup", 50, vec!["expire"])
    };
    let path = bench.server.lock(kind);
    let long = "{".repeat(100_000);
    for garbage in ["", "{", "null", "\u{0}\u{1}\u{2}", r#"{"execId":7,"pid":"x"}"#, &long] {
        wait_until_unlocked(&bench.server.path("lock"));
        fs::write(&path, garbage).expect("the lock file can be written");
        own(&path);
        bench.server.local(&["info"]).ok();
        bench.client.ok(&command);

        let mut lock = hold_lock(&path);
        lock.write_all(garbage.as_bytes()).expect("the lock file can be written");
        let text = bench.client.fails(code, &command);
        assert!(text.contains("HINT: is another pgBackRest process running?"), "{text}");
        drop(lock);
        fs::remove_file(&path).expect("the lock file can be removed");
    }
    bench.ok(&["backup"]);
}

fn processes_of_one_run_share_a_lock_and_others_do_not(release: &str) {
    let mut bench = Bench::new(release);
    let cluster = bench.with_cluster();
    cluster.fill(1);
    bench.ok(&["backup", "--type=full"]);
    let label = bench.client.labels().remove(0);
    let mut other = Client::new(&bench.server, "other");
    for key in ["pg1-path", "pg1-socket-path"] {
        other.config.set("demo", key, bench.client.config.value("demo", key));
    }
    slow_down(&mut bench);
    wait_until_unlocked(&bench.server.path("lock"));

    let backup = stopped_backup(&bench, &["--exec-id=1-0badcafe"]);
    let lock = bench.server.lock("backup");
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
    process.output(LIMIT).ok();
}
