//! A host asks whether the server is there.

use crate::for_each_release;
use crate::harness::Bench;

for_each_release! {
    a_ping_is_answered_without_a_certificate: always, always, always;
    a_ping_when_nobody_listens_fails: always, always, always;
    a_command_with_a_certificate_is_answered: always, always, always;
    a_command_for_all_stanzas_is_answered: always, always, always;
}

fn a_ping_is_answered_without_a_certificate(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.start();
    let port = format!("--tls-server-port={}", bench.server.port);
    // server-ping never shows a certificate, so it needs no configuration either
    let address = ["server-ping", "localhost", &port, "--log-level-console=info"];
    for _ in 0..3 {
        let text = bench.client.run_exactly(&address).ok();
        assert!(text.contains("server-ping command end: completed successfully"), "{text}");
    }
    assert_eq!(bench.server.terminate(), 0);
}

fn a_ping_when_nobody_listens_fails(release: &str) {
    let bench = Bench::new(release);
    let port = format!("--tls-server-port={}", bench.server.port);
    let text = bench.client.run_exactly(&["server-ping", "localhost", &port, "--io-timeout=1"]).fails_with(49);
    assert!(text.contains("Connection refused"), "{text}");
}

fn a_command_with_a_certificate_is_answered(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.start();
    let text = bench.client.ok(&["info"]);
    assert!(text.contains("missing stanza path"), "{text}");
}

fn a_command_for_all_stanzas_is_answered(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.start();
    let text = bench.client.run_exactly(&["info", "--log-level-console=off"]).ok();
    assert!(text.contains("No stanzas exist in the repository"), "{text}");
}
