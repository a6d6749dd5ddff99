//! What may end the connection to a database while a backup reads files: none of the cluster's timeouts, and whatever
//! else does is said in the database's own words.

use rustix::process::{Pid, Signal, kill_process};

use crate::for_each_release;
use crate::harness::postgres::Cluster;
use crate::harness::server::Server;
use crate::harness::{Bench, LIMIT, Process, SOON, wait_until};

for_each_release! {
    a_backup_outlasts_the_timeouts_of_its_cluster: always, full, always;
    a_timeout_that_the_administrator_asks_for_is_one: full, always, full;
    a_database_that_ends_during_a_backup_is_quoted: always, always, always;
}

/// The connection of a backup that has begun and reads files.
const WAITING: &str = "from pg_stat_activity where application_name like 'pgBackRest [backup%' and state = 'idle' \
                       and query like '%start%pgBackRest backup started%'";

/// A running cluster whose idle sessions are soon ended, and the server on its host.
fn site(release: &str) -> (Bench, Cluster, Server) {
    let mut bench = Bench::new(release);
    let cluster = bench.with_cluster_only();
    let host = bench.serve_cluster(&cluster, 1);
    bench.client.ok(&["stanza-create"]);
    (bench, cluster, host)
}

fn hasten(cluster: &Cluster) {
    for setting in ["idle_session_timeout", "idle_in_transaction_session_timeout"] {
        cluster.query(&format!("alter system set {setting} = '1s'"));
    }
    cluster.query("select pg_reload_conf()");
    wait_until("the timeouts to count", SOON, || cluster.query("show idle_session_timeout") == "1s");
}

fn id(text: &str) -> Pid {
    Pid::from_raw(text.parse().expect("an id is a number")).expect("it is the id of a process")
}

/// A backup that has begun in the database and does nothing any more until it may go on.
fn held(bench: &Bench, cluster: &Cluster) -> Process {
    let checkpointer = id(&cluster.query("select pid from pg_stat_activity where backend_type = 'checkpointer'"));
    kill_process(checkpointer, Signal::STOP).expect("it can be stopped");
    let backup = bench.start_at_repository(&["backup", "--type=full"]);
    let starting = WAITING.replace("'idle'", "'active'");
    wait_until("the backup to begin", SOON, || cluster.query(&format!("select count(*) {starting}")) == "1");
    backup.signal(Signal::STOP);
    kill_process(checkpointer, Signal::CONT).expect("it can go on");
    wait_until("the start to be over", SOON, || {
        cluster.answers(&format!("select count(*) {starting}")).as_deref() == Some("0")
    });
    backup
}

fn a_backup_outlasts_the_timeouts_of_its_cluster(release: &str) {
    let (bench, cluster, mut host) = site(release);
    host.start();
    hasten(&cluster);
    let backup = held(&bench, &cluster);
    let count = |more: &str| cluster.query(&format!("select count(*) {WAITING} {more}"));
    wait_until("three times as long as the timeouts", SOON, || {
        count("and clock_timestamp() - state_change > '3 s'") == "1" || count("") == "0"
    });
    assert_eq!(count(""), "1", "the cluster has ended the connection");
    backup.signal(Signal::CONT);
    backup.output(LIMIT).ok();
    bench.client.verifies();
    let log = host.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

fn a_timeout_that_the_administrator_asks_for_is_one(release: &str) {
    let (bench, cluster, mut host) = site(release);
    host.environment = vec![("PGOPTIONS".to_owned(), "-c idle_session_timeout=1s".to_owned())];
    host.start();
    fails_with(&bench, &cluster, &host, "FATAL:  terminating connection due to idle-session timeout", || {});
}

fn a_database_that_ends_during_a_backup_is_quoted(release: &str) {
    let (bench, cluster, mut host) = site(release);
    host.start();
    let backend = || cluster.query(&format!("select pid {WAITING}"));
    fails_with(&bench, &cluster, &host, "FATAL:  terminating connection due to administrator command", || {
        cluster.query(&format!("select pg_terminate_backend({}, 60000)", backend()));
    });
    // as when the kernel runs out of memory and takes another process, and then that of the backup
    fails_with(&bench, &cluster, &host, "terminating connection because of crash of another server process", || {
        let other = cluster.query("select pid from pg_stat_activity where backend_type = 'walwriter'");
        kill_process(id(&other), Signal::KILL).expect("it can be killed");
    });
    fails_with(&bench, &cluster, &host, "server closed the connection unexpectedly", || {
        kill_process(id(&backend()), Signal::KILL).expect("it can be killed");
    });
}

/// Has a backup lose its database, and insists that client and log say why.
#[track_caller]
fn fails_with(bench: &Bench, cluster: &Cluster, host: &Server, reason: &str, lose: impl FnOnce()) {
    wait_until("the cluster to be there", SOON, || cluster.answers("select 1").is_some());
    let backup = held(bench, cluster);
    let mark = host.log().len();
    lose();
    // before anybody asks the database for more
    wait_until("the end of the connection in the log", SOON, || {
        let log = host.log();
        let ended = "the database ended the connection on socket";
        log[mark..].lines().any(|line| line.contains("WARN") && line.contains(ended) && line.contains(reason))
    });
    backup.signal(Signal::CONT);
    let text = backup.output(LIMIT).text();
    let error = text.lines().find(|line| line.contains("ERROR: ")).unwrap_or_default();
    assert!(error.contains(reason), "{text}");
}
