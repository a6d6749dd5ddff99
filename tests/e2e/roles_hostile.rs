//! A host that was broken into: its certificate, and a client that asks for whatever it likes.
//!
//! `tests/requests` tries every request with every path against the session. Here the most dangerous
//! ones go over TLS to the running server.

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::for_each_release;
use crate::harness::certificates::Certificates;
use crate::harness::raw::connect;
use crate::harness::roles::Role;
use crate::harness::snapshot::Snapshot;
use crate::harness::{Bench, SOON, files, own, wait_until};
use crate::victim::{self, FINISHED, FINISHED_FILE, HISTORY, LABEL, MANIFEST_HISTORY, SEGMENT, UNFINISHED};
use crate::wire::{Answer, Conversation, How};

for_each_release! {
    a_hostile_client_destroys_nothing_and_each_of_its_tries_is_logged: always, always, always;
    a_hostile_client_destroys_nothing_where_the_kernel_resolves_no_paths: full, always, full;
    a_hostile_client_gets_no_session_that_its_role_is_not_for: always, always, always;
    a_hostile_client_of_role_backup_ruins_only_what_is_not_finished: always, always, always;
    a_hostile_client_of_role_backup_gains_nothing_where_the_kernel_resolves_no_paths: full, full, always;
}

/// What a client of a role says that it is doing.
fn command(role: Role) -> &'static str {
    match role {
        Role::Reader => "restore:remote",
        Role::Archiver => "archive-push:remote",
        Role::Backup => "backup:remote",
        Role::Admin => "expire:remote",
    }
}

/// A server with a repository worth destroying.
fn bench(release: &str) -> Bench {
    started(Bench::with_roles(release))
}

/// The same on a kernel that does not know `openat2`, so that the server walks each path itself.
fn bench_without_openat2(release: &str) -> Bench {
    let mut bench = Bench::with_roles(release);
    bench.server.unknown_call = Some("openat2");
    started(bench)
}

fn assert_walked(bench: &Bench) {
    let trace = fs::read_to_string(bench.server.path("openat2.trace")).expect("the server was traced");
    let asked: Vec<_> = trace.lines().filter(|line| line.contains("openat2(")).collect();
    assert!(!asked.is_empty() && asked.iter().all(|line| line.contains("ENOSYS")), "{trace}");
    // the server and each of its helpers
    let mut processes: Vec<_> = asked.iter().filter_map(|line| line.split(' ').next()).collect();
    processes.sort_unstable();
    processes.dedup();
    assert_eq!(processes.len(), asked.len(), "each asks once and walks from then on:\n{trace}");
}

fn started(mut bench: Bench) -> Bench {
    let repository = bench.server.repository();
    victim::build(&repository);
    own_all(&repository);
    for stanza in ["demo", "other", "demo2", "dem"] {
        bench.server.config.set(stanza, "pg1-path", "/var/lib/postgresql/15/main");
    }
    let socket = bench.server.path("status.sock").display().to_string();
    bench.server.own_config.set("global", "status-socket", &socket);
    bench.server.start();
    bench
}

fn own_all(directory: &Path) {
    own(directory);
    for entry in fs::read_dir(directory).expect("it was made").flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => own_all(&entry.path()),
            Ok(kind) if kind.is_file() => own(&entry.path()),
            _ => {}
        }
    }
}

/// A connection of a role that wants to run a command; what the server says to that.
fn try_session(bench: &Bench, role: Role, parameters: &[&str]) -> (Conversation, Answer) {
    let mut conversation = connect(bench.server.port, role.identity(), &bench.client.release);
    let mut all = vec!["--exec-id=1-0badc0de", "--process=1", "--remote-type=repo", "--repo=1"];
    all.extend(parameters);
    let mut answer = conversation.config(&all);
    if answer.is_done() {
        answer = conversation.ask("noop", |_| {});
    }
    (conversation, answer)
}

fn session(bench: &Bench, role: Role) -> Conversation {
    let (conversation, answer) = try_session(bench, role, &["--stanza=demo", command(role)]);
    assert!(answer.is_done(), "{role:?} gets no session: {answer:?}");
    conversation
}

#[track_caller]
fn denied(what: &str, answer: Answer) {
    let Answer::Failed(code, text) = answer else { panic!("{what}: {answer:?}") };
    assert_eq!(code, 105, "{what}: {text}");
    assert!(text.contains("access denied"), "{what}: {text}");
}

fn a_hostile_client_destroys_nothing_and_each_of_its_tries_is_logged(release: &str) {
    destroys_nothing(&bench(release));
}

fn a_hostile_client_destroys_nothing_where_the_kernel_resolves_no_paths(release: &str) {
    let bench = bench_without_openat2(release);
    destroys_nothing(&bench);
    assert_walked(&bench);
}

fn destroys_nothing(bench: &Bench) {
    let release = bench.client.release.as_str();
    let repository = bench.server.repository();
    let base = repository.display().to_string();
    let before = Snapshot::of(&repository);
    for role in [Role::Reader, Role::Archiver, Role::Backup] {
        let mark = bench.server.log().len();
        let mut tried = Vec::new();
        for place in [
            FINISHED,
            FINISHED_FILE,
            &format!("{FINISHED}/backup.manifest"),
            &format!("{FINISHED}/new"),
            SEGMENT,
            HISTORY,
            LABEL,
            MANIFEST_HISTORY,
            "archive/demo",
            "archive/demo/15-1",
            "archive/demo/archive.info",
            "backup/demo",
            "backup/demo/backup.info",
            "backup/demo/backup.history",
            "backup/demo/20260101-000000F_20260102-000000I",
            "backup/other/backup.info",
            "archive/other/archive.info",
            "lock/demo-backup-1.lock",
            "backup/demo/demo.stop",
        ] {
            let path = format!("{base}/{place}");
            // of one session only the first ones are logged, and the others counted
            let mut client = session(bench, role);
            denied(&path, client.path_remove(&path, true));
            denied(&path, client.path_remove(&path, false));
            denied(&path, client.remove(&path));
            denied(&path, client.link("evil", &path, false));
            if place != "backup/demo" || role != Role::Backup {
                // who makes backups may put the directory of all of them on stable storage
                assert!(!client.path_create(&format!("{path}/evil")).is_done(), "{path}");
            }
            tried.extend(["s-pr", "s-r", "s-lc"].map(|request| (request, path.clone())));
        }
        for place in [&format!("{FINISHED}/backup.manifest"), FINISHED_FILE, "backup/demo/evil", "file", "new"] {
            let path = format!("{base}/{place}");
            let mut client = session(bench, role);
            for atomic in [true, false] {
                denied(&path, client.write(&path, b"evil", How { atomic, create_path: true }));
            }
            tried.push((if release == "2.45" { "s-ow" } else { "s-wr" }, path));
        }
        for place in ["backup/other", "archive/other", "backup/demo2/backup.info", "file", "lock"] {
            let path = format!("{base}/{place}");
            let mut client = session(bench, role);
            denied(&path, client.info(&path, true));
            denied(&path, client.list(&path));
            denied(&path, client.read(&path));
            denied(&path, client.path_create(&path));
            denied(&path, client.path_sync(&path));
        }
        let logged = |words: &[&str]| {
            bench.server.log()[mark..].lines().any(|line| words.iter().all(|word| line.contains(word)))
        };
        let client = format!("client={}", role.subject());
        wait_until("the ends of its sessions", SOON, || logged(&[&client, "stanza=demo", " denied=5 "]));
        for (request, path) in tried {
            let words = [&role.subject(), "127.0.0.1", "stanza demo", &format!("'{request}'"), &format!("'{path}'")];
            assert!(logged(&words), "no line with {words:?}:\n{}", &bench.server.log()[mark..]);
        }
        before.assert_unchanged(&repository);

        // a flood is cut short in the log, but not in the count
        let (mut flood, begun) = (session(bench, role), Instant::now());
        for number in 0..100 {
            denied("a flood", flood.remove(&format!("{base}/{FINISHED}/flood-{number}")));
        }
        let status = bench.server.own_command(&["status"]).ok();
        let counted = |line: &str| line.contains(&role.subject()) && line.split_whitespace().any(|word| word == "100");
        assert!(status.lines().any(counted), "{status}");
        drop(flood);
        wait_until("the count", SOON, || logged(&[&client, " denied=100 "]));
        let shown = bench.server.log()[mark..].lines().filter(|line| line.contains("/flood-")).count();
        let most = 21 + begun.elapsed().as_secs();
        assert!(shown >= 20 && shown as u64 <= most, "{shown} lines in a log that a client can fill");
    }
}

fn a_hostile_client_gets_no_session_that_its_role_is_not_for(release: &str) {
    let bench = bench(release);
    let repository = bench.server.repository();
    let before = Snapshot::of(&repository);
    let locks = bench.server.path("lock");
    let elsewhere = bench.workspace.directory("elsewhere");
    let roles = [
        ("restore:remote", Role::Reader),
        ("check:remote", Role::Reader),
        ("verify:remote", Role::Reader),
        ("info:remote", Role::Reader),
        ("archive-get:remote", Role::Reader),
        ("archive-push:remote", Role::Archiver),
        ("annotate:remote", Role::Backup),
        ("stanza-create:remote", Role::Admin),
        ("stanza-upgrade:remote", Role::Admin),
        ("stanza-delete:remote", Role::Admin),
    ];
    // of a release that has them on a client at all
    let more = if release == "2.45" {
        &[("repo-put:remote", Role::Admin)][..]
    } else {
        &[("backup:remote", Role::Backup), ("expire:remote", Role::Admin)][..]
    };
    for role in Role::ALL {
        for (command, needed) in roles.iter().chain(more) {
            let (_, answer) = try_session(&bench, role, &["--stanza=demo", command]);
            if (role as usize) < (*needed as usize) {
                denied(command, answer.clone());
                let Answer::Failed(_, text) = answer else { unreachable!("it was denied") };
                assert!(text.contains(&format!("role '{}'", needed.name())), "{role:?} {command}: {text}");
            } else {
                assert!(answer.is_done(), "{role:?} {command}: {answer:?}");
            }
        }
        // whatever the role, no other stanza, repository, configuration or place of locks
        let other_repository = format!("--repo1-path={}", elsewhere.display());
        let other_locks = format!("--lock-path={}", elsewhere.display());
        let other_config = format!("--config={}/pgbackrest.conf", elsewhere.display());
        for parameters in [
            &["--stanza=other", command(role)][..],
            &["--stanza=dem", command(role)],
            &["--stanza=demo2", command(role)],
            &["--stanza=demo/../other", command(role)],
            &[command(role)],
            &["--stanza=demo", "--stanza=other", command(role)],
            &["--stanza=demo", &other_repository, command(role)],
            &["--stanza=demo", &other_config, command(role)],
        ] {
            let (_, answer) = try_session(&bench, role, parameters);
            assert!(!answer.is_done(), "{role:?} {parameters:?}: {answer:?}");
        }
        let (_, _) = try_session(&bench, role, &["--stanza=demo", &other_locks, command(role)]);
        assert!(files(&elsewhere).is_empty(), "{role:?} had something made elsewhere: {:?}", files(&elsewhere));
        // locks that no client of the role takes, under names that are none; 2.45 names no locks
        for lock in ["../repository/backup/demo/evil", "other-backup-1.lock", "/etc/evil.lock", "demo.stop"] {
            let mut conversation = connect(bench.server.port, role.identity(), release);
            let lock = format!("--lock={lock}");
            let answer = conversation.config(&["--stanza=demo", "--remote-type=repo", &lock, command(role)]);
            if answer.is_done() {
                conversation.ask("noop", |_| {});
            }
        }
    }
    before.assert_unchanged(&repository);
    wait_until("the locks to go", SOON, || {
        files(&locks)
            .iter()
            .all(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("demo-")))
    });

    // one that nothing is granted has nothing, whatever the role would be
    let stranger = Certificates::shared().authority.issue("stranger");
    let mut conversation = connect(bench.server.port, &stranger, release);
    denied("a stranger", conversation.config(&["--stanza=demo", "--remote-type=repo", "restore:remote"]));
}

fn a_hostile_client_of_role_backup_ruins_only_what_is_not_finished(release: &str) {
    ruins_only_what_is_not_finished(&bench(release));
}

fn a_hostile_client_of_role_backup_gains_nothing_where_the_kernel_resolves_no_paths(release: &str) {
    let bench = bench_without_openat2(release);
    ruins_only_what_is_not_finished(&bench);
    assert_walked(&bench);
}

fn ruins_only_what_is_not_finished(bench: &Bench) {
    let repository = bench.server.repository();
    let base = repository.display().to_string();
    let own = format!("{base}/{UNFINISHED}");
    let stanza = Snapshot::of(&repository.join("archive"));
    let finished = Snapshot::of(&repository.join(FINISHED));
    let incremental = repository.join("backup/demo/20260101-000000F_20260102-000000I");
    let other = Snapshot::of(&incremental);
    let (in_place, at_once) = (How { atomic: false, create_path: true }, How { atomic: true, create_path: true });

    let mut client = session(bench, Role::Backup);
    for name in ["x/pg_data/base/1/1", "x/backup.manifest", "x/new", "f", "h"] {
        client.write(&format!("{own}/{name}"), b"evil", in_place);
        client.write(&format!("{own}/{name}"), b"evil", at_once);
        client.remove(&format!("{own}/{name}"));
    }
    client.link("../20260101-000000F", &format!("{own}/again"), false);
    denied("through a link", client.path_remove(&format!("{own}/again/pg_data"), true));
    client.path_remove(&format!("{own}/again"), true);
    client.link(&format!("{base}/{FINISHED_FILE}"), &format!("{own}/second"), true);
    client.write(&format!("{own}/second"), b"", in_place);
    client.remove(&format!("{own}/second"));
    finished.assert_unchanged(&repository.join(FINISHED));
    assert!(client.path_remove(&own, true).is_done(), "an unfinished backup can be removed");
    assert!(!Path::new(&own).exists());

    // one that it makes itself is its own until it is finished
    assert!(client.write(&format!("{own}/pg_data/1"), b"content", in_place).is_done());
    assert!(client.write(&format!("{own}/backup.manifest"), b"content", at_once).is_done());
    let made = Snapshot::of(Path::new(&own));
    denied("its own backup", client.write(&format!("{own}/pg_data/1"), b"evil", in_place));
    denied("its own backup", client.remove(&format!("{own}/backup.manifest")));
    denied("its own backup", client.path_remove(&own, true));
    made.assert_unchanged(Path::new(&own));
    finished.assert_unchanged(&repository.join(FINISHED));
    other.assert_unchanged(&incremental);
    stanza.assert_unchanged(&repository.join("archive"));
}
