//! What an administrator does to the server while clients use it.

use std::path::PathBuf;

use rustix::process::Signal;

use crate::archiving::assert_whole_segments;
use crate::crashes::{slow_down, stopped_backup, stopped_while_it_pushes};
use crate::for_each_release;
use crate::harness::certificates::{Certificates, Identity};
use crate::harness::service_manager::ServiceManager;
use crate::harness::{Bench, LIMIT, SOON, temporary_files};

for_each_release! {
    a_reload_lets_a_new_client_in: always, always, always;
    a_reload_shuts_a_client_out: always, always, always;
    a_reload_with_a_broken_certificate_changes_nothing: always, always, always;
    a_reload_with_a_bad_option_changes_nothing: always, always, always;
    a_reload_takes_a_new_certificate: always, always, always;
    sigterm_ends_an_idle_server_with_success: always, always, always;
    sigint_ends_the_server_with_63: always, always, always;
    sigterm_lets_a_push_finish: always, always, always;
    sigterm_during_a_backup_leaves_nothing_half_done: never "its backup opens no session", always, always;
    the_service_manager_is_told: always, always, always;
    a_second_server_on_the_same_port_leaves_the_first_alone: always, always, always;
    a_server_that_may_open_too_few_files_says_how_many_it_needs_and_serves_with_that_many: full, full, always;
}

fn a_reload_lets_a_new_client_in(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.config.set("global", "tls-server-auth", "somebody-else=*");
    bench.server.start();
    let text = bench.client.run(&["repo-ls"]).text();
    assert!(text.contains("access denied"), "{text}");

    bench.server.config.set("global", "tls-server-auth", "pgbackrest-client=*");
    bench.server.reload();
    bench.client.ok(&["repo-ls"]);
    assert!(bench.server.log().contains("DETAIL: configuration reload begin"), "{}", bench.server.log());
    assert!(bench.server.log().contains("DETAIL: configuration reload end"), "{}", bench.server.log());
}

fn a_reload_shuts_a_client_out(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.start();
    bench.client.ok(&["repo-ls"]);
    bench.server.config.set("global", "tls-server-auth", "somebody-else=*");
    bench.server.reload();
    let text = bench.client.fails(105, &["repo-ls"]);
    assert!(text.contains("access denied"), "{text}");
}

fn a_reload_with_a_broken_certificate_changes_nothing(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.start();
    let broken = Identity { key: "no key".to_owned(), certificate: "no certificate".to_owned() };
    bench.server.write_identity(&broken);
    bench.server.signal(Signal::HUP);
    bench.server.wait_for_log("ERROR");
    assert!(bench.server.log().contains("server.crt"), "the error names the file:\n{}", bench.server.log());
    assert!(bench.server.runs(), "the server ended");
    bench.client.ok(&["repo-ls"]);

    bench.server.write_identity(&Certificates::shared().server);
    bench.server.reload();
    bench.client.ok(&["repo-ls"]);
}

fn a_reload_with_a_bad_option_changes_nothing(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.start();
    let port = bench.server.port.to_string();
    bench.server.config.set("global", "tls-server-port", "abc");
    bench.server.write_config();
    bench.server.signal(Signal::HUP);
    bench.server.wait_for_log("'abc' is not valid for 'tls-server-port' option");
    assert!(bench.server.runs(), "the server ended");

    bench.server.config.set("global", "tls-server-port", &port);
    bench.server.reload();
    bench.client.ok(&["repo-ls"]);
}

fn a_reload_takes_a_new_certificate(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.start();
    bench.server.write_identity(&Certificates::shared().authority.issue("elsewhere"));
    bench.server.reload();
    // the client now finds another host's certificate
    let text = bench.client.fails(95, &["repo-ls"]);
    assert!(text.contains("unable to find hostname 'localhost' in certificate"), "{text}");
}

fn sigterm_ends_an_idle_server_with_success(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.start();
    bench.client.ok(&["repo-ls"]);
    assert_eq!(bench.server.terminate(), 0);
    let log = bench.server.log();
    assert!(log.contains(" INFO: server command begin "), "{log}");
    assert!(log.contains(" INFO: server command end: completed successfully"), "{log}");
}

fn sigint_ends_the_server_with_63(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.start();
    bench.server.signal(Signal::INT);
    assert_eq!(bench.server.wait(SOON), 63);
    let log = bench.server.log();
    assert!(log.contains(" INFO: server command end: terminated on signal [SIGINT]"), "{log}");
}

fn sigterm_lets_a_push_finish(release: &str) {
    let mut bench = Bench::new(release);
    slow_down(&mut bench);
    let mut cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0");
    cluster.stop();
    let before = assert_whole_segments(&bench.server.repository());

    let push = stopped_while_it_pushes(&bench, &segment);
    bench.server.signal(Signal::TERM);
    push.signal(Signal::CONT);
    push.output(SOON).ok();

    assert_eq!(bench.server.wait(SOON), 0);
    assert!(bench.server.log().contains("server command end: completed successfully"), "{}", bench.server.log());
    assert_eq!(assert_whole_segments(&bench.server.repository()), before + 1);
    assert_eq!(temporary_files(&bench.server.repository()), Vec::<PathBuf>::new());
}

fn sigterm_during_a_backup_leaves_nothing_half_done(release: &str) {
    let mut bench = Bench::new(release);
    slow_down(&mut bench);
    let cluster = bench.with_cluster();
    cluster.fill(2);

    let backup = stopped_backup(&bench, &[]);
    bench.server.signal(Signal::TERM);
    backup.signal(Signal::CONT);
    assert_eq!(bench.server.wait(SOON), 0, "the server ends within its time for draining");
    let output = backup.output(LIMIT);
    assert_ne!(output.code, 0, "the backup outlived its server: {}", output.text());
    assert!(bench.server.log().contains("server command end: completed successfully"), "{}", bench.server.log());
    assert_eq!(temporary_files(&bench.server.repository()), Vec::<PathBuf>::new());

    bench.server.start();
    bench.ok(&["backup", "--type=full"]);
    bench.client.verifies();
}

fn the_service_manager_is_told(release: &str) {
    let mut bench = Bench::new(release);
    let mut manager = ServiceManager::of(&mut bench.server);
    bench.server.launch();
    manager.hears("READY=1");
    bench.client.ok(&["repo-ls"]);
    bench.server.signal(Signal::TERM);
    manager.hears("STOPPING=1");
    assert_eq!(bench.server.wait(SOON), 0);
}

fn a_second_server_on_the_same_port_leaves_the_first_alone(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.start();
    let mut second = crate::harness::server::Server::new(&bench.workspace, release);
    second.port = bench.server.port;
    second.config.set("global", "tls-server-port", &second.port.to_string());
    second.launch();
    for _ in 0..3 {
        bench.client.ok(&["repo-ls"]);
    }
    assert!(bench.server.runs());
    second.kill();
    bench.client.ok(&["repo-ls"]);
}

fn a_server_that_may_open_too_few_files_says_how_many_it_needs_and_serves_with_that_many(release: &str) {
    let mut bench = Bench::new(release);
    bench.client.config.set("global", "archive-async", "y");
    bench.client.write_config();
    let mut cluster = bench.create_cluster();
    let mut host = bench.serve_cluster(&cluster, 1);
    let words = " open files are needed to serve one client of each kind, but this process may have ";
    for server in [&mut bench.server, &mut host] {
        let mut refused = |descriptors: u64| -> u64 {
            server.descriptors = Some(descriptors);
            let mark = server.log().len();
            server.launch();
            assert_eq!(server.wait(SOON), 100);
            let log = server.log()[mark..].to_owned();
            let (needed, rest) = log.split_once(words).unwrap_or_else(|| panic!("{log}"));
            assert!(rest.starts_with(&format!("{descriptors}\n")) && rest.contains("HINT: set LimitNOFILE="), "{log}");
            needed.rsplit(' ').next().expect("there is a last word").parse().expect("it is a number")
        };
        let needed = refused(64);
        assert_eq!(refused(needed - 1), needed);
        server.descriptors = Some(needed);
        server.start();
    }
    cluster.start();
    bench.client.ok(&["stanza-create"]);
    cluster.fill(1);
    // from the client and from the repository host
    let segment = cluster.switch_wal();
    bench.run_at_repository(&["backup", "--type=full"]).ok();
    bench.ok(&["backup", "--type=incr"]);
    bench.client.ok(&["info"]);
    cluster.wait_until_archived(&segment);
    for server in [&bench.server, &host] {
        let log = server.log();
        assert!(!log.contains("Too many open files") && !log.contains("connection refused"), "{log}");
    }
    bench.client.verifies();
}
