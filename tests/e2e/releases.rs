//! Hosts of several releases use one server that nobody told which.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use crate::harness::certificates::Certificates;
use crate::harness::client::Client;
use crate::harness::postgres::Cluster;
use crate::harness::relay::Relay;
use crate::harness::server::Server;
use crate::harness::{Bench, Output, Process, SOON, STANZA, Workspace, wait_until};

/// What a client says that was greeted with another release.
const MISMATCH: &str = "for greeting key 'version' but got";

/// The releases that the tests have clients of.
fn known() -> Vec<&'static str> {
    include_str!("../releases").lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// A host with a stanza of its own.
struct Host {
    client: Client,
    port: u16,
    stanza: String,
    /// Its own address, for as long as it lives.
    _relay: Option<Relay>,
}

impl Host {
    /// The `number`th host, which has `release` and the certificate that all hosts have.
    fn new(server: &Server, number: u8, release: &str) -> Self {
        let relay = Relay::from(Ipv4Addr::new(127, 0, 0, 10 + number), server.port);
        let port = relay.port;
        Self { _relay: Some(relay), ..Self::at(server, number, release, port) }
    }

    /// A host that shares the address of all others.
    fn beside(server: &Server, number: u8, release: &str) -> Self {
        Self::at(server, number, release, server.port)
    }

    fn at(server: &Server, number: u8, release: &str, port: u16) -> Self {
        let stanza = format!("host{number}");
        let mut client = Client::new(server, &stanza);
        release.clone_into(&mut client.release);
        client.config.set("global", "repo1-host-port", &port.to_string());
        Self { client, port, stanza, _relay: None }
    }

    /// `until pgbackrest server-ping HOST; do sleep 1; done`; how often it failed.
    fn ping_until_it_works(&self) -> usize {
        let port = format!("--tls-server-port={}", self.port);
        let mut failures = 0;
        wait_until("an answered ping", SOON, || {
            let output = self.client.run_exactly(&["server-ping", "localhost", &port]);
            failures += usize::from(output.code != 0);
            output.code == 0
        });
        failures
    }

    /// Runs a command for its stanza.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut all = vec!["--stanza", &self.stanza];
        all.extend(arguments);
        self.client.run_exactly(&all)
    }

    /// Runs a command for its stanza and insists on success.
    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).ok()
    }

    /// Archives a segment: after a failure another try a second later, and after three of them a minute later. How many
    /// it took.
    fn archive_as_postgresql_does(&self, segment: &str) -> usize {
        for tries in 1.. {
            let output = self.run(&["archive-push", segment]);
            if output.code == 0 {
                return tries;
            }
            assert!(output.text().contains(MISMATCH), "{}", output.text());
            thread::sleep(Duration::from_secs(if tries % 3 == 0 { 60 } else { 1 }));
        }
        unreachable!("the loop has no end");
    }

    /// Runs a command again and again until it works; how often it failed, always for its release.
    fn until_it_works(&self, arguments: &[&str]) -> usize {
        let mut failures = 0;
        wait_until(&format!("{arguments:?} to work"), SOON, || {
            let output = self.run(arguments);
            if output.code != 0 {
                assert!(output.text().contains(MISMATCH), "{}", output.text());
                failures += 1;
            }
            output.code == 0
        });
        failures
    }
}

/// A server that learns, and a cluster whose host is the first one.
struct Site {
    bench: Bench,
    cluster: Cluster,
}

impl Site {
    fn new() -> Self {
        let mut bench = Bench::new(known()[0]);
        bench.server.learns = true;
        let state = bench.workspace.directory("server/state");
        bench.server.own_config.set("global", "state-path", &state.display().to_string());
        bench.server.start();
        let cluster = Cluster::create(&bench.workspace, &mut bench.client);
        // hosts archive when the test says so, and not when PostgreSQL does
        let file = cluster.path.join("postgresql.conf");
        let text = fs::read_to_string(&file).expect("the cluster has a configuration");
        fs::write(&file, text + "archive_command = 'true'\n").expect("the configuration can be written");
        Self { bench, cluster }
    }

    /// Has a host archive for the cluster.
    fn adopt(&self, host: &mut Host) {
        host.client.config.set(&host.stanza, "pg1-path", &self.cluster.path.display().to_string());
        let sockets = self.bench.client.config.value(STANZA, "pg1-socket-path");
        host.client.config.set(&host.stanza, "pg1-socket-path", sockets);
    }

    /// A WAL segment of the cluster under a name of its own.
    fn segment(&self, number: usize) -> String {
        let directory = self.bench.workspace.directory("segments");
        let first = directory.join("first");
        if !first.exists() {
            let name = self.cluster.switch_wal();
            fs::copy(self.cluster.path.join("pg_wal").join(name), &first).expect("the segment can be copied");
        }
        let path = directory.join(format!("0000000100000001000000{number:02X}"));
        fs::copy(&first, &path).expect("the segment can be copied");
        crate::harness::own(&path);
        path.display().to_string()
    }
}

/// Runs something for each host at the same time.
fn at_once<T: Send>(hosts: &[Host], run: impl Fn(usize, &Host) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> =
            hosts.iter().enumerate().map(|(number, host)| scope.spawn(move || run(number, host))).collect();
        threads.into_iter().map(|thread| thread.join().expect("the host works")).collect()
    })
}

#[test]
fn hosts_of_several_releases_share_a_server_and_a_certificate() {
    let releases = known();
    let mut site = Site::new();
    let mut hosts: Vec<Host> = (0..3u8)
        .map(|number| Host::new(&site.bench.server, number, releases[usize::from(number) % releases.len()]))
        .collect();
    for host in &mut hosts {
        site.adopt(host);
    }

    // Nothing is known, and all of them ask at once as the documentation says.
    let failures = at_once(&hosts, |_, host| host.ping_until_it_works());
    assert!(failures.iter().all(|failures| *failures < 3), "one attempt for each common release: {failures:?}");
    site.cluster.start();
    let segments: Vec<String> = (0..12).map(|number| site.segment(number)).collect();
    at_once(&hosts, |number, host| {
        // A ping has taught for the certificate too, so nothing fails any more.
        host.ok(&["stanza-create"]);
        host.ok(&["archive-push", &segments[number]]);
        assert!(host.ok(&["info"]).contains("wal archive min/max (15): 0000000100000001"), "info shows the segment");
    });
    assert!(!site.bench.server.log().contains("take turns"), "{}", site.bench.server.log());

    // Who shows what, and the lines that write it down.
    let status = site.bench.server.own_command(&["status", "--json"]).ok();
    let status: serde_json::Value = serde_json::from_str(&status).expect("status prints JSON");
    for (number, host) in hosts.iter().enumerate() {
        let address = format!("127.0.0.{}", 10 + number);
        let clients = status["clients"].as_array().expect("there are clients");
        let client = clients.iter().find(|one| one["address"] == *address && one["client"] == "pgbackrest-client");
        let client = client.unwrap_or_else(|| panic!("{address} is missing in {status:#}"));
        assert_eq!(client["releases"][0]["release"], *host.client.release);
    }
    let text = site.bench.server.own_command(&["status"]).ok();
    assert!(text.contains("127.0.0.10"), "{text}");
    let lines = site.bench.server.own_command(&["learn"]).ok();
    assert!(lines.contains("'pgbackrest-client' is several hosts of different releases"), "{lines}");

    // A restart forgets nothing.
    assert_eq!(site.bench.server.terminate(), 0);
    let lines = site.bench.server.own_command(&["learn"]).ok();
    assert!(lines.contains("127.0.0.10"), "without a server it is read from the file: {lines}");
    site.bench.server.start();
    at_once(&hosts, |number, host| host.ok(&["archive-push", &segments[3 + number]]));

    // One host is upgraded in place.
    let upgraded = (*releases.last().expect("there are releases")).to_owned();
    assert_ne!(hosts[0].client.release, upgraded);
    hosts[0].client.release = upgraded;
    assert_eq!(hosts[0].until_it_works(&["archive-push", &segments[6]]), 1, "one failed attempt");
    hosts[0].ok(&["archive-push", &segments[7]]);

    // Garbage in place of the file costs what was learned, and says so.
    assert_eq!(site.bench.server.terminate(), 0);
    let file = site.bench.server.path("state/releases.json");
    fs::write(&file, "garbage").expect("the file can be written");
    site.bench.server.start();
    site.bench.server.wait_for_log("is ignored, so clients teach their release again");
    let failures = at_once(&hosts, |number, host| host.until_it_works(&["archive-push", &segments[8 + number]]));
    assert!(failures.iter().all(|failures| *failures < 12), "{failures:?}");
    wait_until("the file to be written anew", SOON, || {
        fs::read_to_string(&file).is_ok_and(|text| text.starts_with("{\"version\":1"))
    });
    site.cluster.stop();
}

/// Each host tries again as PostgreSQL's archiver does, while the others archive and fail in between.
#[test]
fn hosts_that_share_an_address_too_take_turns_and_are_told_how_to_end_that() {
    const PUSHES: usize = 6;
    let releases = known();
    let mut site = Site::new();
    let mut hosts: Vec<Host> =
        (0u8..).zip(&releases).map(|(number, release)| Host::beside(&site.bench.server, number, release)).collect();
    for host in &mut hosts {
        site.adopt(host);
    }
    site.cluster.start();
    for host in &hosts {
        host.until_it_works(&["stanza-create"]);
    }
    let segments: Vec<String> = (0..PUSHES * hosts.len()).map(|number| site.segment(number)).collect();
    let tries = at_once(&hosts, |number, host| {
        let own = &segments[number * PUSHES..][..PUSHES];
        own.iter().map(|segment| host.archive_as_postgresql_does(segment)).collect::<Vec<_>>()
    });
    let all: Vec<_> = tries.iter().flatten().copied().collect();
    eprintln!("tries of each push, by host: {tries:?}");
    // The simulation of the turns holds each push to its tries. Beside other tests a command may take longer than a turn,
    // so that it meets any release: then it takes three tries on average.
    assert!(all.iter().sum::<usize>() <= 2 * hosts.len() * all.len(), "{tries:?}");
    let log = site.bench.server.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("between them, which take turns")).collect();
    // each worker tells it once
    assert!((1..=2).contains(&told.len()), "{told:#?} in {log}");
    assert!(told[0].contains("WARN: clients 'pgbackrest-client' at 127.0.0.1 have releases"), "{told:#?}");
    for hint in ["[client:NAME] release=", "[server-name:NAME] release=", "[listener:ADDRESS:PORT] release="] {
        assert!(log.contains(hint), "{hint} is not in {log}");
    }
    site.cluster.stop();
}

#[test]
fn a_release_that_is_written_down_costs_no_attempt() {
    let releases = known();
    let workspace = Workspace::new();
    let mut server = Server::new(&workspace, releases[0]);
    server.learns = true;
    let mut hosts = Vec::new();
    for (number, release) in (0u8..).zip(&releases) {
        let name = format!("host{number}.example");
        let host = Host::beside(&server, number, release);
        host.client.write_identity(&Certificates::shared().authority.issue(&name));
        server.config.add("global", "tls-server-auth", &format!("{name}=*"));
        server.own_config.set(&format!("client:{name}"), "release", release);
        hosts.push(host);
    }
    server.start();
    for _ in 0..2 {
        at_once(&hosts, |_, host| host.client.ok(&["repo-ls"]));
    }
    // The wrong one is told to be wrong.
    let wrong = &mut hosts[0].client;
    (*releases.last().expect("there are releases")).clone_into(&mut wrong.release);
    for _ in 0..2 {
        let output = wrong.run(&["repo-ls"]);
        assert!(output.code != 0 && output.text().contains(MISMATCH), "{}", output.text());
    }
    // what monitors see that ask by it, as README says
    let text = hosts[0].client.run_exactly(&["info", "--output=json"]).ok();
    assert!(text.contains("[invalid]") && text.contains("\"code\":99") && text.contains(MISMATCH), "{text}");
    server.wait_for_log("which is written down for it");
}

#[test]
fn parallel_commands_of_an_upgraded_host_do_not_run_past_its_release() {
    let releases = known();
    let site = Site::new();
    let upgraded = *releases.last().expect("there are releases");
    // A release that is seen here is tried first.
    let other = Host::new(&site.bench.server, 1, upgraded);
    other.ping_until_it_works();
    let mut host = Host::new(&site.bench.server, 0, releases[0]);
    host.until_it_works(&["repo-ls"]);
    upgraded.clone_into(&mut host.client.release);
    let before = site.bench.server.log().len();
    let commands: Vec<Process> =
        (0..8).map(|_| host.client.start_exactly(&["--stanza", &host.stanza, "repo-ls"])).collect();
    for command in commands {
        let output = command.output(SOON);
        assert!(output.code == 0 || output.text().contains(MISMATCH), "{}", output.text());
    }
    // a worker may move on before it hears that another one has, but each does so once and to this release
    let log = site.bench.server.log().split_off(before);
    let moves: Vec<_> = log.lines().filter(|line| line.contains("its next connection is greeted with")).collect();
    let workers: BTreeSet<_> = moves.iter().map(|line| line.split_whitespace().find(|word| word.len() == 3)).collect();
    assert!(!moves.is_empty() && moves.len() == workers.len(), "{moves:#?} of {workers:?}");
    let target = format!("its next connection is greeted with {upgraded}");
    assert!(moves.iter().all(|line| line.contains(&target)), "{moves:#?}");
    host.ok(&["repo-ls"]);
}
