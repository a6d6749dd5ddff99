//! Somebody tries the server for the first time.

use std::time::Duration;

use crate::for_each_release;
use crate::harness::{Bench, Process, free_port, peer, wait_until};

for_each_release! {
    a_quickstart_serves_the_client_that_it_set_up;
    a_second_quickstart_serves_what_the_first_one_made;
}

/// Starts a quickstart in the bench's workspace and waits until it listens.
fn quickstart(bench: &Bench, release: &str, port: u16) -> Process {
    let mut command = bench.workspace.command(bench.server.binary());
    command.arg("quickstart").arg("--directory").arg(bench.workspace.path().join("try"));
    command.arg(format!("--port={port}")).arg(format!("--release={release}"));
    let mut process = bench.workspace.spawn("quickstart", command);
    wait_until("a connection to the quickstart", Duration::from_secs(20), || {
        assert!(process.ended().is_none(), "{}", process.printed());
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    process
}

/// Runs the client exactly as the quickstart says.
fn told(bench: &Bench, release: &str, arguments: &[&str]) -> String {
    let mut command = bench.workspace.command(peer(release));
    let config = bench.workspace.path().join("try/client/pgbackrest.conf");
    command.arg(format!("--config={}", config.display())).args(arguments);
    bench.workspace.run("told", command).ok()
}

fn a_quickstart_serves_the_client_that_it_set_up(release: &str) {
    let mut bench = Bench::new(release);
    let port = free_port();
    let process = quickstart(&bench, release, port);
    let printed = process.printed();
    for text in ["server-ping", "stanza-create", "archive-push", "backup"] {
        assert!(printed.contains(text), "the instructions name {text}:\n{printed}");
    }
    let ping = format!("--tls-server-port={port}");
    told(&bench, release, &["server-ping", "--log-level-console=info", &ping, "localhost"]);
    assert!(told(&bench, release, &["info"]).contains("No stanzas exist"));

    // A cluster of our own goes through the quickstart's server with the quickstart's certificates.
    let mut cluster = crate::harness::postgres::Cluster::create(&bench.workspace, &mut bench.client);
    let file = |name: &str| bench.workspace.path().join("try").join(name).display().to_string();
    let settings = [
        ("repo1-host-port", port.to_string()),
        ("repo1-host-ca-file", file("ca.crt")),
        ("repo1-host-cert-file", file("client.crt")),
        ("repo1-host-key-file", file("client.key")),
    ];
    for (name, value) in settings {
        bench.client.config.set("global", name, &value);
    }
    bench.client.write_config();
    cluster.start();
    bench.client.ok(&["stanza-create"]);
    bench.client.ok(&["check"]);
    bench.client.ok(&["backup"]);
    assert!(told(&bench, release, &["info", "--stanza=demo"]).contains("full backup"));
}

fn a_second_quickstart_serves_what_the_first_one_made(release: &str) {
    let bench = Bench::new(release);
    let first = quickstart(&bench, release, free_port());
    let certificate = || std::fs::read(bench.workspace.path().join("try/server.crt")).unwrap();
    let made = certificate();
    drop(first);
    let port = free_port();
    let _second = quickstart(&bench, release, port);
    assert!(certificate() == made, "certificates are kept");
    assert!(told(&bench, release, &["info"]).contains("No stanzas exist"), "the client follows to the new port");
}
