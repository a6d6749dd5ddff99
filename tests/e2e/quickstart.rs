//! Somebody tries the server for the first time.

use crate::for_each_release;
use crate::harness::{Bench, Process, SOON, STANZA, free_port, peer, wait_until};

for_each_release! {
    a_quickstart_serves_the_client_that_it_set_up: always, always, always;
    a_second_quickstart_serves_what_the_first_one_made: always, always, always;
}

/// Starts a quickstart in the bench's workspace and waits until it listens.
fn quickstart(bench: &Bench, release: &str, port: u16, arguments: &[&str]) -> Process {
    let mut command = bench.workspace.command(bench.server.binary());
    command.arg("quickstart").arg("--directory").arg(bench.workspace.path().join("try"));
    command.arg(format!("--port={port}")).arg(format!("--release={release}")).args(arguments);
    let mut process = bench.workspace.spawn("quickstart", command);
    wait_until("a connection to the quickstart", SOON, || {
        assert!(process.ended().is_none(), "{}", process.printed());
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    process
}

/// Runs a command with the client's configuration of the quickstart.
fn told(bench: &Bench, release: &str, arguments: &[&str]) -> String {
    let mut command = bench.workspace.command(peer(release));
    let config = bench.workspace.path().join("try/client/pgbackrest.conf");
    command.arg(format!("--config={}", config.display())).args(arguments);
    bench.workspace.run("told", command).ok()
}

fn a_quickstart_serves_the_client_that_it_set_up(release: &str) {
    let mut bench = Bench::new(release);
    let mut cluster = bench.create_cluster();
    let place = format!("--pg-path={}", cluster.path.display());
    let port = free_port();
    let process = quickstart(&bench, release, port, &[&place]);
    let printed = process.printed();
    let line = |words: &str| {
        let line = printed.lines().find(|line| line.contains(words));
        line.unwrap_or_else(|| panic!("the instructions say nothing of {words}:\n{printed}")).trim()
    };
    // as the instructions say, but for the program's place and that of a socket which is not the default
    let sockets = format!("--pg1-socket-path={}", bench.client.config.value(STANZA, "pg1-socket-path"));
    let obey = |words: &str, more: &[&str]| {
        let mut parts = line(words).split_whitespace();
        assert_eq!(parts.next(), Some("pgbackrest"), "{}", line(words));
        let mut command = bench.workspace.command(peer(release));
        command.args(parts).args(more);
        bench.workspace.run("obey", command).ok()
    };
    obey(" server-ping ", &[]);
    assert!(obey(" info", &[]).contains("No stanzas exist"));
    let mut parts = line(" status ").split_whitespace();
    let mut status = bench.workspace.command(parts.next().expect("a program"));
    status.args(parts);
    let text = bench.workspace.run("status", status).ok();
    assert!(text.contains(&format!("process {}, listens on 127.0.0.1:{port}", process.id())), "{text}");
    assert!(bench.workspace.path().join("try/state/repohostd.sock").exists(), "the socket is elsewhere");
    let setting = line("archive_command = ").replace("'pgbackrest ", &format!("'{} ", peer(release).display()));
    let file = cluster.path.join("postgresql.conf");
    let text = std::fs::read_to_string(&file).expect("the cluster has a configuration");
    std::fs::write(&file, format!("{text}{setting}\n")).expect("the configuration can be written");
    cluster.start();
    for command in [" stanza-create", "=demo check", " backup --type=full"] {
        obey(command, &[&sockets]);
    }
    assert!(obey("=demo info", &[]).contains("full backup"));
    obey("=demo verify", &[]);
    cluster.fill(1);
    cluster.archive();
    let rows = cluster.rows();
    cluster.stop();
    obey("=demo restore ", &[]);
    cluster.start();
    assert_eq!(cluster.rows(), rows);
    cluster.stop();
}

fn a_second_quickstart_serves_what_the_first_one_made(release: &str) {
    let bench = Bench::new(release);
    let first = quickstart(&bench, release, free_port(), &[]);
    let certificate = || std::fs::read(bench.workspace.path().join("try/server.crt")).unwrap();
    let made = certificate();
    drop(first);
    let port = free_port();
    let _second = quickstart(&bench, release, port, &[]);
    assert!(certificate() == made, "certificates are kept");
    assert!(told(&bench, release, &["info"]).contains("No stanzas exist"), "the client follows to the new port");
}
