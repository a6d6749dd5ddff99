//! Who may do what, by the name in the certificate.

use crate::for_each_release;
use crate::harness::Bench;
use crate::harness::certificates::Certificates;
use crate::harness::client::Client;

for_each_release! {
    an_unknown_client_is_denied_and_the_server_says_whom: always, always, always;
    a_stanza_that_is_not_granted_is_denied_and_the_server_says_which: always, always, always;
    granted_stanzas_are_served_and_no_others: always, always, always;
    a_command_for_all_stanzas_needs_the_star: always, always, always;
    repeated_entries_grant_to_each_client: always, always, always;
}

fn an_unknown_client_is_denied_and_the_server_says_whom(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.start();
    bench.client.write_identity(&Certificates::shared().authority.issue("stranger"));
    let text = bench.client.fails(105, &["repo-ls"]);
    assert!(text.contains("[105]: raised from remote-0 tls protocol on 'localhost': access denied"), "{text}");
    bench.server.wait_for_log("stranger");
}

fn a_stanza_that_is_not_granted_is_denied_and_the_server_says_which(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.config.set("global", "tls-server-auth", "pgbackrest-client=other");
    bench.server.start();
    let text = bench.client.fails(105, &["repo-ls"]);
    assert!(text.contains("access denied"), "{text}");
    bench.server.wait_for_log("demo");
    bench.server.wait_for_log("pgbackrest-client");
}

fn granted_stanzas_are_served_and_no_others(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.config.set("global", "tls-server-auth", "pgbackrest-client=first, second");
    bench.server.start();
    for stanza in ["first", "second"] {
        bench.client.run_exactly(&["--stanza", stanza, "repo-ls"]).ok();
    }
    for stanza in ["third", "First", "first, second"] {
        let output = bench.client.run_exactly(&["--stanza", stanza, "repo-ls"]);
        assert_ne!(output.code, 0, "{stanza}: {}", output.text());
    }
}

fn a_command_for_all_stanzas_needs_the_star(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.config.set("global", "tls-server-auth", "pgbackrest-client=demo");
    bench.server.start();
    let text = bench.client.run_exactly(&["repo-ls"]).fails_with(105);
    assert!(text.contains("access denied"), "{text}");
}

fn repeated_entries_grant_to_each_client(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.config.set("global", "tls-server-auth", "pgbackrest-client=demo");
    bench.server.config.add("global", "tls-server-auth", "second-client=demo");
    bench.server.start();
    let second = Client::new(&bench.server, "second");
    second.write_identity(&Certificates::shared().authority.issue("second-client"));
    bench.client.ok(&["repo-ls"]);
    second.ok(&["repo-ls"]);
}
