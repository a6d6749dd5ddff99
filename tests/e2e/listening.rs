//! Where the server can be reached.

use std::net::SocketAddr;

use crate::for_each_release;
use crate::harness::Bench;

for_each_release! {
    a_name_means_all_its_addresses: always, always, always;
    a_list_means_each_of_its_addresses: always, always, always;
    the_star_means_ipv4_and_ipv6: always, always, always;
    one_address_means_only_that_one: always, always, always;
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
