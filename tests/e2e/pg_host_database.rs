//! A repository host that asks the databases of `PostgreSQL` hosts, where our server runs beside them: what works,
//! and what is said when it does not, which is what the original server says.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;

use rustix::process::{Pid, Signal, kill_process};

use crate::for_each_release;
use crate::harness::pg_host::identity;
use crate::harness::postgres::Cluster;
use crate::harness::raw::connect;
use crate::harness::server::Server;
use crate::harness::{Bench, LIMIT, Owner, Process, SOON, STANZA, as_root, free_port, wait_until};
use crate::wire::Answer;

for_each_release! {
    a_running_cluster_is_checked_and_backed_up: always, always, always;
    whoever_cannot_connect_is_told_why_as_by_the_original: always, always, always;
    a_standby_without_its_primary_is_refused_as_by_the_original: full, always, always;
    a_statement_that_takes_too_long_is_cancelled_and_reported_as_by_the_original: always, full, always;
    a_database_that_is_lost_is_reported_as_by_the_original_and_quoted: always, always, always;
    a_client_that_vanishes_leaves_no_backup_running: full, always, full;
    the_database_of_another_cluster_is_refused: always, full, always;
    the_servers_environment_says_how_to_connect: full, always, always;
    a_user_that_only_the_c_library_has_a_name_for_connects_by_it: always, always, always;
    a_statement_that_no_client_sends_is_refused_unless_the_administrator_wants_it: always, always, always;
}

/// A repository host that knows a running cluster, on whose host a server is about to start.
fn running(release: &str) -> (Bench, Cluster, Server) {
    let mut bench = Bench::new(release);
    let cluster = bench.with_cluster_only();
    let host = bench.serve_cluster(&cluster, 1);
    (bench, cluster, host)
}

/// Warnings and errors of a command, without the times of their lines.
fn complaints(text: &str) -> Vec<String> {
    let mut result: Vec<String> = vec![];
    let mut is_complaint = false;
    for line in text.lines() {
        let message = line.find(" P0").filter(|at| *at < 30).map(|at| &line[at + 1..]);
        is_complaint = message.map_or(is_complaint, |text| text.contains("  WARN: ") || text.contains(" ERROR: "));
        if is_complaint {
            result.push(message.unwrap_or(line).to_owned());
        }
    }
    result
}

/// Runs a command on the repository host with our server and with the original, and insists that both make it
/// say the same. Before each, `prepare` is called.
#[track_caller]
fn same_complaints(
    bench: &Bench,
    host: &mut Server,
    arguments: &[&str],
    prepare: impl FnMut(&Bench, &mut Server),
    meanwhile: impl FnMut(),
) -> String {
    let [ours, theirs] = both_complaints(bench, host, arguments, prepare, meanwhile);
    assert_eq!(ours, theirs);
    ours
}

/// What a command on the repository host says with our server, and with the original. Both end it with the same code.
#[track_caller]
fn both_complaints(
    bench: &Bench,
    host: &mut Server,
    arguments: &[&str],
    mut prepare: impl FnMut(&Bench, &mut Server),
    mut meanwhile: impl FnMut(),
) -> [String; 2] {
    let mut both = [false, true].map(|is_original| {
        host.is_original = is_original;
        prepare(bench, host);
        host.start();
        let process = bench.start_at_repository(arguments);
        meanwhile();
        let output = process.output(LIMIT);
        assert!(host.runs(), "the server ended");
        host.terminate();
        assert_ne!(output.code, 0, "{}", output.text());
        (output.code, complaints(&output.text()))
    });
    host.is_original = false;
    let (mut theirs, ours) = (std::mem::take(&mut both[1]), std::mem::take(&mut both[0]));
    // libpq stumbles over the socket that it has closed itself
    theirs.1.retain(|line| line.trim() != "invalid socket");
    assert_eq!(ours.0, theirs.0);
    assert!(!ours.1.is_empty(), "nothing was said");
    [ours.1.join("\n"), theirs.1.join("\n")]
}

fn a_running_cluster_is_checked_and_backed_up(release: &str) {
    let (bench, cluster, mut host) = running(release);
    cluster.fill(1);
    host.start();
    bench.run_at_repository(&["stanza-create"]).ok();
    bench.run_at_repository(&["check"]).ok();
    let text = bench.run_at_repository(&["backup", "--type=full"]).ok();
    assert!(text.contains("backup start archive = ") && text.contains("backup stop archive = "), "{text}");
    bench.run_at_repository(&["backup", "--type=incr"]).ok();
    bench.client.verifies();
    assert_eq!(bench.client.labels().len(), 2);
    let left = "select count(*) from pg_stat_activity where application_name like 'pgBackRest%'";
    wait_until("the connections to end", SOON, || cluster.query(left) == "0");
    let log = host.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    assert_eq!(host.terminate(), 0);
}

fn whoever_cannot_connect_is_told_why_as_by_the_original(release: &str) {
    let (mut bench, mut cluster, mut host) = running(release);
    bench.client.ok(&["stanza-create"]);
    let sockets = cluster.sockets().display().to_string();
    let nowhere = bench.workspace.directory("nowhere").display().to_string();
    let long = "/long".repeat(30);
    for (option, value, expected) in [
        ("pg1-socket-path", nowhere.as_str(), "failed: No such file or directory"),
        ("pg1-socket-path", &long, "is too long (maximum 107 bytes)"),
        ("pg1-port", "5999", "/.s.PGSQL.5999\" failed: No such file or directory"),
        ("pg1-user", "nobody", "FATAL:  role \"nobody\" does not exist"),
        ("pg1-user", "o'ne\\two", "FATAL:  role \"o'ne\\two\" does not exist"),
        ("pg1-database", "nosuch", "FATAL:  database \"nosuch\" does not exist"),
    ] {
        bench.server.config.set(STANZA, option, value);
        let text = same_complaints(&bench, &mut host, &["check"], |_, _| {}, || {});
        assert!(
            text.contains("WARN: unable to check pg1: [DbConnectError] raised from remote-0 tls protocol"),
            "{text}"
        );
        assert!(text.contains(expected), "{text}");
        if option == "pg1-socket-path" {
            bench.server.config.set(STANZA, option, &sockets);
        } else {
            bench.server.config.unset(STANZA, option);
        }
    }
    // who may connect but not see the settings
    cluster.query("create role watcher login");
    bench.server.config.set(STANZA, "pg1-user", "watcher");
    host.start();
    let text = bench.run_at_repository(&["check"]).text();
    assert!(text.contains("is the pg_read_all_settings role assigned"), "{text}");
    host.terminate();
    bench.server.config.unset(STANZA, "pg1-user");

    cluster.stop();
    for command in ["check", "stanza-upgrade", "backup"] {
        let text = same_complaints(&bench, &mut host, &[command], |_, _| {}, || {});
        assert!(text.contains("Is the server running locally and accepting connections on that socket?"), "{text}");
    }
}

fn a_standby_without_its_primary_is_refused_as_by_the_original(release: &str) {
    let (bench, mut cluster, mut host) = running(release);
    bench.client.ok(&["stanza-create"]);
    cluster.stop();
    fs::write(cluster.path.join("standby.signal"), "").expect("the file can be written");
    crate::harness::own(&cluster.path.join("standby.signal"));
    cluster.start_standby();
    for command in ["check", "backup", "stanza-upgrade"] {
        let text = same_complaints(&bench, &mut host, &[command], |_, _| {}, || {});
        assert!(text.contains("primary"), "{command}: {text}");
    }
}

/// The process of the cluster that makes checkpoints.
fn checkpointer(cluster: &Cluster) -> Pid {
    let id = cluster.query("select pid from pg_stat_activity where backend_type = 'checkpointer'");
    Pid::from_raw(id.parse().expect("an id is a number")).expect("it is the id of a process")
}

const STARTING: &str = "from pg_stat_activity where state = 'active' and query like '%start%pgBackRest backup started%' \
                        and pid <> pg_backend_pid()";

fn a_statement_that_takes_too_long_is_cancelled_and_reported_as_by_the_original(release: &str) {
    let (mut bench, cluster, mut host) = running(release);
    bench.client.ok(&["stanza-create"]);
    // a backup begins with a checkpoint, which nobody makes
    let stopped = checkpointer(&cluster);
    bench.server.config.set("global", "db-timeout", "2");
    kill_process(stopped, Signal::STOP).expect("it can be stopped");
    let text = same_complaints(&bench, &mut host, &["backup", "--type=full"], |_, _| {}, || {});
    assert!(text.contains("timed out after 2000ms"), "{text}");
    let left = cluster.query(&format!("select count(*) {STARTING}"));
    kill_process(stopped, Signal::CONT).expect("it can go on");
    assert_eq!(left, "0", "the statement was not cancelled");
    bench.server.config.unset("global", "db-timeout");
    host.start();
    bench.run_at_repository(&["backup", "--type=full"]).ok();
}

fn a_database_that_is_lost_is_reported_as_by_the_original_and_quoted(release: &str) {
    let (bench, cluster, mut host) = running(release);
    bench.client.ok(&["stanza-create"]);
    for is_killed in [false, true] {
        let stop = |_: &Bench, _: &mut Server| {
            wait_until("the cluster to be there", SOON, || cluster.answers("select 1").is_some());
            kill_process(checkpointer(&cluster), Signal::STOP).expect("it can be stopped");
        };
        let lose = || {
            let stopped = checkpointer(&cluster);
            let find = format!("select pid {STARTING}");
            wait_until("the backup to begin", SOON, || !cluster.query(&find).is_empty());
            let id = cluster.query(&find);
            if is_killed {
                // without a word; then the whole cluster begins anew
                let id = Pid::from_raw(id.parse().expect("an id is a number")).expect("it is the id of a process");
                kill_process(id, Signal::KILL).expect("it can be killed");
            } else {
                cluster.query(&format!("select pg_terminate_backend({id}, 60000)"));
            }
            let _ = kill_process(stopped, Signal::CONT);
        };
        let [ours, theirs] = both_complaints(&bench, &mut host, &["backup", "--type=full"], stop, lose);
        if is_killed {
            assert_eq!(ours, theirs);
            assert!(ours.contains("server closed the connection unexpectedly"), "{ours}");
            continue;
        }
        // the original keeps to itself why the connection ended
        let said = "FATAL:  terminating connection due to administrator command";
        assert!(ours.contains(said) && !theirs.contains(said), "{ours}\n{theirs}");
        if release == "2.60.0" {
            assert!(ours.contains("unable to complete query"), "{ours}");
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(words(&ours.replace(said, "")), words(&theirs));
        } else {
            let expected = "NULL result required to complete request";
            assert!(ours.contains(&format!("{expected}: {said}")) && theirs.contains(expected), "{ours}\n{theirs}");
        }
    }
    wait_until("the cluster to be there", SOON, || cluster.answers("select 1").is_some());
    host.start();
    bench.run_at_repository(&["stanza-upgrade"]).ok();
}

fn a_client_that_vanishes_leaves_no_backup_running(release: &str) {
    let (bench, cluster, mut host) = running(release);
    bench.client.ok(&["stanza-create"]);
    host.start();
    let stopped = checkpointer(&cluster);
    kill_process(stopped, Signal::STOP).expect("it can be stopped");
    let mut process = bench.start_at_repository(&["backup", "--type=full"]);
    wait_until("the backup to begin", SOON, || cluster.query(&format!("select count(*) {STARTING}")) == "1");
    process.signal(Signal::KILL);
    process.wait(LIMIT);
    // the statement is cancelled though nobody makes the checkpoint that it waits for
    let connections = "select count(*) from pg_stat_activity where application_name like 'pgBackRest%'";
    wait_until("the connections to end", SOON, || cluster.query(connections) == "0");
    kill_process(stopped, Signal::CONT).expect("it can go on");
    bench.run_at_repository(&["backup", "--type=full"]).ok();
}

fn the_database_of_another_cluster_is_refused(release: &str) {
    let (mut bench, cluster, mut host) = running(release);
    bench.client.ok(&["stanza-create"]);
    let mut other = Bench::new(release);
    let second = other.with_cluster_only();
    host.start();
    bench.server.config.set(STANZA, "pg1-socket-path", &second.sockets().display().to_string());
    let text = bench.run_at_repository(&["check"]).text();
    let expected = format!(
        "the server there is that of cluster '{}' and not of '{}'",
        second.path.display(),
        cluster.path.display()
    );
    assert!(text.contains(&expected), "{text}");
    for value in ["localhost", "192.0.2.1"] {
        bench.server.config.set(STANZA, "pg1-socket-path", value);
        let text = bench.run_at_repository(&["check"]).text();
        assert!(text.contains("socket-path") && text.contains("ERROR"), "{text}");
    }
    if rustix::process::geteuid().is_root() {
        // it takes root to be somebody else
        let (sockets, _process) = of_nobody(&bench);
        bench.server.config.set(STANZA, "pg1-socket-path", &sockets);
        let text = bench.run_at_repository(&["check"]).text();
        let expected = format!("is user {NOBODY}'s, but cluster '{}' is user", cluster.path.display());
        assert!(text.contains(&expected), "{text}");
    }
}

/// A user who has nothing to do with the cluster.
const NOBODY: u32 = 65_534;

/// A cluster of nobody's: where its socket is, and its process.
fn of_nobody(bench: &Bench) -> (String, Process) {
    let directory = bench.workspace.path().join("nobody");
    fs::create_dir(&directory).expect("the directory can be made");
    chown(&directory, Some(NOBODY), Some(NOBODY)).expect("the directory can be given away");
    let data = directory.join("data");
    let command = |name: &str| {
        let mut command = bench.workspace.command(format!("/usr/lib/postgresql/15/bin/{name}"));
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
        command
    };
    let mut initdb = command("initdb");
    initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--pgdata"]).arg(&data);
    bench.workspace.run("initdb", initdb).ok();
    let mut postgres = command("postgres");
    postgres.arg("-D").arg(&data).arg("-k").arg(&directory).args(["-c", "listen_addresses="]);
    let process = bench.workspace.spawn("postgres", postgres);
    wait_until("the socket of nobody's cluster", SOON, || directory.join(".s.PGSQL.5432").exists());
    (directory.display().to_string(), process)
}

fn the_servers_environment_says_how_to_connect(release: &str) {
    let (mut bench, mut cluster, mut host) = running(release);
    bench.client.ok(&["stanza-create"]);
    let me = cluster.query("select current_user");
    cluster.query("create role backup superuser login password 'secret'");
    cluster.stop();
    let port = free_port();
    for (file, text) in [
        ("postgresql.conf", format!("listen_addresses = '127.0.0.1'\nport = {port}\n")),
        ("pg_hba.conf", format!("local all {me} trust\nhost all backup 127.0.0.1/32 scram-sha-256\n")),
    ] {
        let path = cluster.path.join(file);
        let before =
            if file == "pg_hba.conf" { String::new() } else { fs::read_to_string(&path).expect("it is there") };
        fs::write(&path, before + &text).expect("it can be written");
    }
    cluster.port = port;
    cluster.start();
    bench.server.config.unset(STANZA, "pg1-socket-path");
    bench.server.config.set(STANZA, "pg1-port", &port.to_string());
    let passwords = host.file("passwords", 0o600, "127.0.0.1:*:postgres:backup:secret\n");
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    host.environment = vec![variable("PGHOST", "127.0.0.1"), variable("PGUSER", "backup"), variable("PGAPPNAME", "x")];
    for is_original in [false, true] {
        host.is_original = is_original;
        host.environment.truncate(3);
        host.start();
        let text = bench.run_at_repository(&["stanza-upgrade"]).text();
        assert!(text.contains("fe_sendauth: no password supplied"), "{text}");
        host.terminate();
        host.environment.push(variable("PGPASSFILE", &passwords.display().to_string()));
        host.start();
        bench.run_at_repository(&["stanza-upgrade"]).ok();
        host.terminate();
    }
    host.is_original = false;
    host.environment.push(variable("PGSERVICE", "main"));
    host.start();
    let text = bench.run_at_repository(&["stanza-upgrade"]).text();
    assert!(text.contains("PGSERVICE=main in the environment of the server is not supported"), "{text}");
}

/// As in a container that is given a random user, whom a library makes up a name for.
fn a_user_that_only_the_c_library_has_a_name_for_connects_by_it(release: &str) {
    let (bench, mut cluster, mut host) = running(release);
    cluster.query("create role made_up superuser login");
    cluster.stop();
    let mut uid = Owner::get().uid;
    if rustix::process::geteuid().is_root() {
        uid = 4_711_011;
        let places = [cluster.path.clone(), cluster.sockets().to_owned(), host.path("")];
        let places = places.each_ref().map(|path| path.to_str().expect("the workspace's name is text"));
        let status = as_root("chown", &[&["-R", &uid.to_string()], &places[..]].concat()).expect("chown starts");
        assert!(status.success());
        host.uid = Some(uid);
    }
    let users = host.file("passwd", 0o644, &format!("made_up:x:{uid}:0::/nowhere:/bin/false\n"));
    let groups = host.file("group", 0o644, "");
    for (name, value) in [("PASSWD", users), ("GROUP", groups)] {
        host.environment.push((format!("NSS_WRAPPER_{name}"), value.display().to_string()));
    }
    host.environment.push(("LD_PRELOAD".to_owned(), "libnss_wrapper.so".to_owned()));
    let mut postgres = bench.workspace.command("/usr/lib/postgresql/15/bin/postgres");
    postgres.arg("-D").arg(&cluster.path).arg("-k").arg(cluster.sockets());
    postgres.args(["-c", "archive_mode=off", "-c", "log_connections=on"]);
    if let Some(uid) = host.uid {
        postgres.uid(uid);
    }
    let postgres = bench.workspace.spawn("postgres", postgres);
    wait_until("the cluster to be there", SOON, || cluster.answers("select 1").is_some());
    host.start();
    bench.run_at_repository(&["stanza-create"]).ok();
    bench.run_at_repository(&["backup", "--type=full", "--no-archive-check"]).ok();
    assert!(postgres.printed().contains("connection authorized: user=made_up"), "{}", postgres.printed());
    let log = host.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

fn a_statement_that_no_client_sends_is_refused_unless_the_administrator_wants_it(release: &str) {
    let (bench, cluster, mut host) = running(release);
    host.start();
    let own = format!("--pg1-path={}", cluster.path.display());
    let sockets = format!("--pg1-socket-path={}", cluster.sockets().display());
    let session = |port: u16| {
        let mut session = connect(port, identity(), release);
        let parameters = [
            "--exec-id=1-12345678",
            "--process=0",
            "--remote-type=pg",
            &own,
            &sockets,
            "--stanza=demo",
            "check:remote",
        ];
        assert!(session.config(&parameters).is_done() && session.ask("noop", |_| {}).is_done());
        assert!(session.open_database().is_done());
        session
    };
    let evil = "select pg_catalog.pg_read_file('/etc/passwd')::text";
    let known = "select pg_catalog.pg_is_in_recovery()";
    let mut first = session(host.port);
    for statement in [evil, "set search_path = 'pg_catalog'; create table t ()", "copy t to program 'id'"] {
        let answer = first.query(statement, "any");
        assert!(
            matches!(&answer, Answer::Failed(105, text) if text.contains("no pgbackrest client sends")),
            "{answer:?}"
        );
    }
    assert!(first.query(known, "column").is_done(), "the connection goes on");
    host.wait_for_log("denied");
    // several connections, and each its own
    let others: Vec<_> = (0..20).map(|_| session(host.port)).collect();
    assert!(first.query(known, "column").is_done());
    drop(others);
    drop(first);
    let left =
        "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()";
    wait_until("the connections to end", SOON, || cluster.query(left) == "0");
    host.own_config.set("global", "sql", "any");
    host.reload();
    let answer = session(host.port).query(evil, "any");
    assert!(matches!(&answer, Answer::Done(bytes) if bytes.windows(5).any(|text| text == b"root:")), "{answer:?}");
    drop(bench);
}
