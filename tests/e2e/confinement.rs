//! A client reaches its stanza's part of the repository and nothing else.

use std::fs;

use crate::for_each_release;
use crate::harness::Bench;

for_each_release! {
    a_client_of_one_stanza_cannot_read_another: always, always, always;
    a_client_cannot_move_the_repository: always, always, always;
    a_client_cannot_follow_a_link_out_of_the_repository: always, always, always;
    a_repository_host_is_no_postgresql_host: always, always, always;
}

fn a_client_of_one_stanza_cannot_read_another(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.config.set("global", "tls-server-auth", "pgbackrest-client=demo");
    for name in ["archive/demo", "archive/other", "backup/other"] {
        bench.workspace.directory(&format!("server/repository/{name}"));
        bench.workspace.file(&format!("server/repository/{name}/secret"), 0o640, "the content");
    }
    bench.server.start();
    let own = bench.client.ok(&["repo-get", "archive/demo/secret", "--log-level-console=off"]);
    assert_eq!(own, "the content");
    for path in ["archive/other/secret", "backup/other/secret", "archive/demo/../other/secret"] {
        let output = bench.client.run(&["repo-get", path]);
        assert_ne!(output.code, 0, "{path} was read: {}", output.text());
        assert!(!output.text().contains("the content"), "{path} was read");
    }
    for path in ["archive/other", "backup/other"] {
        let output = bench.client.run(&["repo-ls", path, "--log-level-console=off"]);
        assert!(!output.stdout.contains("secret"), "{path} was listed: {}", output.text());
    }
    for path in ["archive/other/new", "backup/other/new", "new"] {
        let output = bench.client.run(&["repo-rm", path]);
        assert_ne!(output.code, 0, "{path} could be removed: {}", output.text());
    }
    assert!(fs::exists(bench.server.repository().join("archive/other/secret")).expect("the repository is readable"));
}

fn a_client_cannot_move_the_repository(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.start();
    bench.workspace.directory("elsewhere/archive/demo");
    bench.workspace.file("elsewhere/archive/demo/secret", 0o640, "the content");
    let elsewhere = bench.workspace.path().join("elsewhere").display().to_string();
    let place = format!("--repo1-path={elsewhere}");
    let text = bench.client.fails(32, &["repo-get", "archive/demo/secret", &place]);
    assert!(text.contains(&elsewhere), "the error names the value: {text}");
    assert!(text.contains(&bench.server.repository().display().to_string()), "and the server's: {text}");
    assert!(text.contains("allow-client-repository"), "and the remedy: {text}");

    // its administrator configured the same path on both hosts
    bench.client.config.set("global", "repo1-path", &bench.server.repository().display().to_string());
    bench.client.ok(&["repo-ls"]);
}

fn a_client_cannot_follow_a_link_out_of_the_repository(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.start();
    bench.workspace.directory("server/repository/archive/demo");
    let secret = bench.workspace.file("secret", 0o644, "the content");
    std::os::unix::fs::symlink(secret, bench.server.path("repository/archive/demo/link")).expect("a link can be made");
    let output = bench.client.run(&["repo-get", "archive/demo/link"]);
    assert_ne!(output.code, 0, "the link was followed: {}", output.text());
    assert!(!output.text().contains("the content"), "the link was followed");
}

fn a_repository_host_is_no_postgresql_host(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.start();
    // a repository host that looks for its cluster where repohostd listens
    let config = &mut bench.client.config;
    for kind in ["", "-type", "-port", "-ca-file", "-cert-file", "-key-file"] {
        let value = config.value("global", &format!("repo1-host{kind}")).to_owned();
        config.unset("global", &format!("repo1-host{kind}"));
        config.set("demo", &format!("pg1-host{kind}"), &value);
    }
    config.set("demo", "pg1-path", "/var/lib/postgresql/15/main");
    config.set("global", "repo1-path", &bench.workspace.directory("client/repository").display().to_string());
    let output = bench.client.run(&["stanza-create"]);
    assert_ne!(output.code, 0, "{}", output.text());
    let text = output.text();
    assert!(text.contains("[032]") || text.contains("[OptionInvalidValueError]"), "{text}");
    assert!(text.contains("because this host has no cluster of stanza 'demo'"), "{text}");
}
