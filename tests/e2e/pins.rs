//! Releases that are written down for an address of the server, or declared to be like others, and
//! releases that few hosts have.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::harness::client::Client;
use crate::harness::relay::Relay;
use crate::harness::server::Server;
use crate::harness::{Bench, SOON, Workspace, wait_until};

/// What a client says that was greeted with another release.
const MISMATCH: &str = "for greeting key 'version' but got";

/// `until pgbackrest server-ping HOST; do sleep 1; done`; how often it failed, each time for its release.
fn ping_until_it_works(client: &Client, port: u16) -> usize {
    let port = format!("--tls-server-port={port}");
    let mut failures = 0;
    wait_until("an answered ping", SOON, || {
        let output = client.run_exactly(&["server-ping", "localhost", &port]);
        assert!(output.code == 0 || output.text().contains(MISMATCH), "{}", output.text());
        failures += usize::from(output.code != 0);
        output.code == 0
    });
    failures
}

#[test]
fn an_address_of_the_server_is_for_the_release_that_is_written_down_for_it() {
    let workspace = Workspace::new();
    let mut server = Server::new(&workspace, "2.60.0");
    server.learns = true;
    let addresses = [
        (Ipv4Addr::LOCALHOST, "2.45"),
        (Ipv4Addr::new(127, 0, 0, 2), "2.55.1"),
        (Ipv4Addr::new(127, 0, 0, 3), "2.60.0"),
    ];
    server.config.set("global", "tls-server-address", "127.0.0.1,127.0.0.2,127.0.0.3");
    for (address, release) in addresses {
        server.own_config.set(&format!("listener:{address}"), "release", release);
    }
    server.start();
    let relays = addresses.map(|(address, _)| Relay::to(SocketAddrV4::new(address, server.port)));
    // They come from one address with one certificate, so only where they go to tells them apart.
    for (number, (_, release)) in addresses.iter().enumerate() {
        let mut client = Client::new(&server, &format!("host{number}"));
        (*release).clone_into(&mut client.release);
        for (other, relay) in relays.iter().enumerate() {
            client.config.set("global", "repo1-host-port", &relay.port.to_string());
            let port = format!("--tls-server-port={}", relay.port);
            for _ in 0..2 {
                for output in [client.run(&["repo-ls"]), client.run_exactly(&["server-ping", "localhost", &port])] {
                    let works = output.code == 0;
                    assert_eq!(works, number == other, "{release} at {}: {}", addresses[other].0, output.text());
                    assert!(works || output.text().contains(MISMATCH), "{}", output.text());
                }
            }
        }
    }
    server.wait_for_log("the client hung up at the greeting of release 2.45, which is written down for it");
}

#[test]
fn a_name_of_the_server_is_for_the_release_that_is_written_down_for_it() {
    let workspace = Workspace::new();
    let mut server = Server::new(&workspace, "2.60.0");
    server.learns = true;
    for (name, release) in [("LocalHost", "2.45"), ("repository.example", "2.60.0")] {
        server.own_config.set(&format!("server-name:{name}"), "release", release);
    }
    server.start();
    let mut client = Client::new(&server, "host");
    for (release, works) in [("2.45", true), ("2.55.1", false), ("2.60.0", false), ("2.45", true)] {
        release.clone_into(&mut client.release);
        let port = format!("--tls-server-port={}", server.port);
        for output in [client.run(&["repo-ls"]), client.run_exactly(&["server-ping", "localhost", &port])] {
            assert_eq!(output.code == 0, works, "{release}: {}", output.text());
            assert!(works || output.text().contains(MISMATCH), "{}", output.text());
        }
    }
    server.wait_for_log("the client hung up at the greeting of release 2.45, which is written down for it");
}

/// A container has neither the command line nor the files to itself.
#[test]
fn the_environment_says_what_repohostd_conf_may_say() {
    let workspace = Workspace::new();
    let mut server = Server::new(&workspace, "2.55.1");
    server.learns = true;
    server.own_config.set("global", "release", "2.45");
    server.environment.push(("REPOHOSTD_RELEASE".to_owned(), "2.55.1".to_owned()));
    server.environment.push(("REPOHOSTD_RELAESE".to_owned(), "2.60.0".to_owned()));
    server.start();
    let client = Client::new(&server, "host");
    let port = format!("--tls-server-port={}", server.port);
    // a probe that may not fail once
    client.run_exactly(&["server-ping", "localhost", &port]).ok();
    client.ok(&["repo-ls"]);
    assert!(server.log().contains("WARN: environment contains invalid option 'relaese'"), "{}", server.log());
    let check = server.own_command(&["check"]);
    let line =
        check.text().lines().find(|line| line.contains("environment variable REPOHOSTD_RELEASE")).map(str::to_owned);
    assert!(line.is_some_and(|line| line.contains("2.55.1")), "{}", check.text());
}

/// No later release exists, so a copy of the real 2.60.0 calls itself 2.61.0.
#[test]
fn a_release_that_is_declared_to_be_like_another_is_served_and_warned_of() {
    let mut bench = Bench::new("2.60.0");
    bench.server.learns = true;
    let state = bench.workspace.directory("server/state");
    bench.server.own_config.set("global", "state-path", &state.display().to_string());
    bench.client.disguise("2.61.0");
    let mut cluster = bench.with_cluster_only();

    // Undeclared, it gets whatever is next and never its own.
    let port = format!("--tls-server-port={}", bench.server.port);
    for _ in 0..3 {
        let output = bench.client.run_exactly(&["server-ping", "localhost", &port]);
        assert!(output.code != 0 && output.text().contains(MISMATCH), "{}", output.text());
    }
    assert!(!bench.server.log().contains("2.61.0"));

    bench.server.own_config.set("release:2.61.0", "like", "2.60.0");
    bench.server.own_config.set("global", "releases", "2.61.0");
    bench.server.reload();
    let warning = "WARN: release 2.61.0 is not known: it is spoken like 2.60.0, as repohostd.conf declares";
    bench.server.wait_for_log(warning);
    let check = bench.server.own_command(&["check"]);
    assert!(check.code == 0 && check.text().contains("release 2.61.0 is not known"), "{}", check.text());

    assert!(ping_until_it_works(&bench.client, bench.server.port) <= 1);
    bench.client.ok(&["stanza-create"]);
    bench.client.ok(&["check"]);
    bench.client.ok(&["backup", "--type=full"]);
    bench.client.ok(&["backup", "--type=incr"]);
    assert_eq!(bench.client.labels().len(), 2);
    bench.client.verifies();
    let learned = bench.server.own_command(&["learn"]).ok();
    assert!(learned.contains("[client:pgbackrest-client]\nrelease=2.61.0"), "{learned}");
    let status = bench.server.own_command(&["status"]).ok();
    assert!(status.contains("2.61.0"), "{status}");
    cluster.stop();
}

/// No Debian packages 2.55.0, which speaks as 2.55.1 does, so a copy of the real 2.55.1 calls itself so.
#[test]
fn a_host_of_a_release_that_few_have_is_found_by_the_ping_loop() {
    let mut bench = Bench::new("2.55.1");
    bench.server.learns = true;
    let state = bench.workspace.directory("server/state");
    bench.server.own_config.set("global", "state-path", &state.display().to_string());
    bench.server.start();
    bench.client.disguise("2.55.0");
    let mut version = bench.workspace.command(bench.server.binary());
    version.arg("version");
    let known = bench.workspace.run("version", version).ok().matches(", ").count() + 1;
    let failures = ping_until_it_works(&bench.client, bench.server.port);
    assert!(failures < known, "{failures} failed pings, one for each release at most");
    bench.client.ok(&["repo-ls"]);
    // Another one of that release does not have to look for it.
    let relay = Relay::from(Ipv4Addr::new(127, 0, 0, 9), bench.server.port);
    assert_eq!(ping_until_it_works(&bench.client, relay.port), 0);
    bench.server.terminate();
    bench.server.start();
    bench.client.ok(&["repo-ls"]);
}
