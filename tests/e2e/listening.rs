//! Where the server can be reached.

use std::net::SocketAddr;

use crate::for_each_release;
use crate::harness::server::Server;
use crate::harness::{Bench, SOON};

for_each_release! {
    a_name_means_all_its_addresses: always, always, always;
    a_list_means_each_of_its_addresses: always, always, always;
    the_star_means_ipv4_and_ipv6: always, always, always;
    one_address_means_only_that_one: always, always, always;
    an_address_that_a_name_has_and_the_host_has_not_is_left_out_and_told: always, full, full;
    a_port_that_another_server_has_is_told_with_that_server: full, full, always;
}

fn a_name_means_all_its_addresses(release: &str) {
    listens(release, "localhost", &["127.0.0.1"]);
}

fn a_list_means_each_of_its_addresses(release: &str) {
    listens(release, "127.0.0.1,::1", &["127.0.0.1", "::1"]);
}

fn the_star_means_ipv4_and_ipv6(release: &str) {
    listens(release, "*", &["127.0.0.1", "127.0.0.2", "::1"]);
}

fn one_address_means_only_that_one(release: &str) {
    let bench = listens(release, "127.0.0.2", &["127.0.0.2"]);
    let port = format!("--tls-server-port={}", bench.server.port);
    bench.client.run_exactly(&["server-ping", "127.0.0.1", &port, "--io-timeout=1"]).fails_with(49);
}

fn an_address_that_a_name_has_and_the_host_has_not_is_left_out_and_told(release: &str) {
    let mut bench = Bench::new(release);
    let hosts = bench.server.file("hosts", 0o644, "127.0.0.1 several.test\n192.0.2.1 several.test\n");
    for (name, value) in [("LD_PRELOAD", "libnss_wrapper.so"), ("NSS_WRAPPER_HOSTS", hosts.to_str().expect("a text"))] {
        bench.server.environment.push((name.to_owned(), value.to_owned()));
    }
    bench.server.config.set("global", "tls-server-address", "several.test");
    bench.server.start();
    let port = bench.server.port;
    bench.server.wait_for_log(&format!(
        "WARN: tls-server-address: 192.0.2.1:{port} is left out: unable to bind socket to 192.0.2.1:{port}: [99] Cannot \
         assign requested address"
    ));
    bench.client.run_exactly(&["server-ping", "127.0.0.1", &format!("--tls-server-port={port}")]).ok();
}

fn a_port_that_another_server_has_is_told_with_that_server(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.start();
    let mut second = Server::named(&bench.workspace, release, "second");
    second.port = bench.server.port;
    second.config.set("global", "tls-server-port", &bench.server.port.to_string());
    second.config.set("global", "tls-server-address", "127.0.0.1");
    second.launch();
    assert_eq!(second.wait(SOON), 41);
    let (log, port) = (second.log(), bench.server.port);
    assert!(
        log.contains(&format!("[041]: unable to bind socket to 127.0.0.1:{port}: [98] Address already in use")),
        "{log}"
    );
    assert!(log.contains(&format!("HINT: process {} (", bench.server.id())), "{log}");
    assert!(log.contains(&format!("listens on port {port}: is another server running?")), "{log}");
}

fn listens(release: &str, value: &str, addresses: &[&str]) -> Bench {
    let mut bench = Bench::new(release);
    bench.server.config.set("global", "tls-server-address", value);
    bench.server.launch();
    for address in addresses {
        let place = SocketAddr::new(address.parse().expect("an address"), bench.server.port);
        bench.server.wait_until_listening(place);
        let port = format!("--tls-server-port={}", bench.server.port);
        bench.client.run_exactly(&["server-ping", address, &port]).ok();
    }
    bench
}
