//! Whatever a client puts in the place of an info file: what was there before comes back.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use crate::for_each_release;
use crate::harness::certificates::Certificates;
use crate::harness::client::Client;
use crate::harness::roles::Role;
use crate::harness::{Bench, SOON, STANZA, as_root, files, hold_lock, own, peer};

for_each_release! {
    garbage_is_replaced_by_what_was_there: always, always, never "it has no repo-put";
    encrypted_garbage_is_replaced_by_what_was_there: full, always, never "it has no repo-put";
    an_expiration_is_undone: never "its expiration opens no session", full, always;
    nothing_is_replaced_that_cannot_be_kept: never "its backup opens no session", always, full;
    nothing_is_put_back_while_a_backup_runs: always, full, full;
}

/// One line of `repohostd history`.
#[derive(Debug)]
struct Version {
    name: String,
    file: String,
    backups: String,
    newest: String,
}

fn garbage_is_replaced_by_what_was_there(release: &str) {
    garbage_is_replaced(bench(release));
}

fn encrypted_garbage_is_replaced_by_what_was_there(release: &str) {
    let mut bench = bench(release);
    for (key, value) in [("repo1-cipher-type", "aes-256-cbc"), ("repo1-cipher-pass", "correct horse battery staple")] {
        bench.server.config.set("global", key, value);
        // annotate does not ask the repository host for it
        bench.client.config.set("global", key, value);
    }
    garbage_is_replaced(bench);
}

fn garbage_is_replaced(mut bench: Bench) {
    let mut cluster = bench.with_cluster();
    bench.ok(&["backup", "--type=full"]);
    bench.ok(&["backup", "--type=incr"]);
    let labels = bench.client.labels();
    assert_eq!(labels.len(), 2);
    // also where backups are made beside the server, this goes through it
    bench.client.ok(&["annotate", "--set", &labels[0], "--annotation=reason=before the attack"]);
    let text = |bench: &Bench| bench.client.ok(&["info", "--set", &labels[0], "--log-level-console=off"]);
    assert!(text(&bench).contains("before the attack"));

    for name in ["backup.info", "backup.info.copy"] {
        put(&bench, &format!("backup/{STANZA}/{name}"), "[backup:current]\ngarbage={}\n");
    }
    let broken = bench.client.run(&["info", "--output=json", "--log-level-console=off"]);
    assert!(!broken.stdout.contains(&labels[0]), "there is nothing to put back: {broken:?}");

    let versions = history(&bench, &["--stanza", STANZA]);
    let main: Vec<_> = versions.iter().filter(|version| version.file.ends_with("/backup.info")).collect();
    let last = main.last().expect("versions are kept");
    assert_eq!((last.backups.as_str(), last.newest.as_str()), ("2", labels[1].as_str()), "{versions:#?}");
    let mut sorted: Vec<_> = versions.iter().map(|version| version.name.clone()).collect();
    sorted.sort();
    assert!(sorted.iter().eq(versions.iter().map(|version| &version.name)), "{versions:#?}");

    let said = bench.server.own_command(&["history", &format!("--restore={}", last.name)]).ok();
    assert!(said.contains("2 backups") && said.contains(&format!("pgbackrest --stanza={STANZA} info")), "{said}");
    assert_eq!(bench.client.labels(), labels);
    assert!(text(&bench).contains("before the attack"));
    bench.server.local(&["check"]).ok();
    bench.ok(&["backup", "--type=incr"]);
    assert_eq!(bench.client.labels().len(), 3);
    bench.client.verifies();
    let damaged = history(&bench, &[]).iter().filter(|version| version.backups == "damaged").count();
    assert_eq!(damaged, 2, "what was replaced by the restoration is kept too");
    cluster.stop();
}

fn an_expiration_is_undone(release: &str) {
    let mut bench = bench(release);
    let mut cluster = bench.with_cluster();
    for kind in ["full", "incr", "full"] {
        bench.ok(&["backup", "--type", kind]);
    }
    let labels = bench.client.labels();
    assert_eq!(labels.len(), 3);
    let count = |bench: &Bench| {
        let versions = history(bench, &["--repo=1"]);
        versions.iter().filter(|version| version.file.ends_with("backup.info")).count()
    };
    assert_eq!(count(&bench), 3, "each backup replaced one: none, one and two backups were listed before");
    bench.ok(&["expire", "--repo1-retention-full=1"]);
    assert_eq!(bench.client.labels(), labels[2..]);
    let versions = history(&bench, &[]);
    let last = versions.iter().rfind(|version| version.backups == "3").expect("the last one is kept");
    let config = format!("--config={}", bench.server.path("pgbackrest.conf").display());
    let program = bench.server.binary();
    let restore = ["history", "--restore", &last.name, "--stanza", STANZA, "--repo=1", &config];
    let status = as_root(program.to_str().expect("a name"), &restore).expect("root can run it");
    assert!(status.success(), "{status}");
    assert_eq!(bench.client.labels(), labels);
    // what root did belongs to those who go on with it
    let repository = fs::metadata(bench.server.repository()).expect("a repository");
    let kept = files(&bench.server.path("history"));
    for path in kept.iter().chain(&files(&bench.server.repository().join("backup"))) {
        let metadata = fs::symlink_metadata(path).expect("a file");
        assert_eq!((metadata.uid(), metadata.gid()), (repository.uid(), repository.gid()), "{}", path.display());
    }
    // whose files are gone are dropped from the list, which a client of role backup may do
    bench.client.config.set("global", "expire-auto", "n");
    bench.become_client(Role::Backup);
    bench.ok(&["backup", "--type=incr"]);
    let left = bench.client.labels();
    assert_eq!((left.len(), &left[0]), (2, &labels[2]));
    cluster.stop();
}

fn nothing_is_replaced_that_cannot_be_kept(release: &str) {
    let mut bench = bench(release);
    let mut cluster = bench.with_cluster();
    bench.ok(&["backup", "--type=full"]);
    let place = bench.server.path("history");
    let labels = bench.client.labels();
    // who is root is not kept out by a mode, but by a file in the place of the directory
    let aside = bench.server.path("aside");
    fs::rename(&place, &aside).expect("the directory can be moved");
    fs::write(&place, "").expect("a file can be made");
    own(&place);
    let text = bench.run(&["backup", "--type=incr"]).text();
    assert!(text.contains(place.to_str().expect("a name")) && text.contains("info-history=0"), "{text}");
    assert_eq!(bench.client.labels(), labels, "it was replaced all the same");

    fs::remove_file(&place).expect("the file can be removed");
    fs::rename(&aside, &place).expect("the directory can be moved");
    bench.ok(&["backup", "--type=incr"]);
    assert_eq!(bench.client.labels().len(), 3, "the one that was complete but for its place in the list is there too");
    cluster.stop();
}

fn nothing_is_put_back_while_a_backup_runs(release: &str) {
    let mut bench = bench(release);
    let mut cluster = bench.with_cluster();
    bench.ok(&["backup", "--type=full"]);
    let label = bench.client.labels().remove(0);
    bench.client.ok(&["annotate", "--set", &label, "--annotation=key=value"]);
    let versions = history(&bench, &[]);
    let last = versions.iter().rfind(|version| version.backups == "1").expect("a version with the backup");
    let lock = hold_lock(&bench.server.lock("backup"));
    let restore = ["history", "--restore", last.name.as_str()];
    let text = bench.server.own_command(&restore).fails_with(50);
    assert!(text.contains("unable to acquire lock on file") && text.contains("demo-backup"), "{text}");
    drop(lock);
    bench.server.own_command(&restore).ok();
    let text = bench.client.ok(&["info", "--set", &label, "--log-level-console=off"]);
    assert!(!text.contains("value"), "{text}");
    cluster.stop();
}

#[test]
fn clients_of_other_releases_add_to_what_is_there_and_lose_nothing() {
    let mut bench = bench("2.45");
    let mut clients = Vec::new();
    for (name, release) in [("middle", "2.55.1"), ("new", "2.60.0")] {
        let section = format!("client:{name}");
        bench.server.config.add("global", "tls-server-auth", &format!("{name}={STANZA}"));
        bench.server.own_config.set(&section, "role", "backup");
        bench.server.own_config.set(&section, "release", release);
        clients.push((name, release));
    }
    let mut cluster = bench.with_cluster();
    let clients: Vec<_> = clients
        .into_iter()
        .map(|(name, release)| {
            let mut client = Client::new(&bench.server, name);
            release.clone_into(&mut client.release);
            client.config.inherit(&bench.client.config);
            client.config.set("global", "expire-auto", "n");
            client.write_identity(&Certificates::shared().authority.issue(name));
            client
        })
        .collect();
    bench.ok(&["backup", "--type=full", "--annotation=by=the oldest"]);
    for client in clients.iter().chain(clients.iter().rev()) {
        client.ok(&["backup", "--type=incr"]);
        let labels = client.labels();
        for (number, label) in labels.iter().enumerate() {
            client.ok(&["annotate", "--set", label, &format!("--annotation=by={} {number}", client.release)]);
        }
        bench.ok(&["backup", "--type=diff"]);
    }
    assert_eq!(bench.client.labels().len(), 9);
    bench.client.verifies();
    let versions = history(&bench, &[]);
    assert!(versions.len() > 20, "{versions:#?}");
    assert!(versions.iter().all(|version| version.backups != "damaged"), "{versions:#?}");
    cluster.stop();
}

#[test]
fn a_history_that_clients_could_reach_keeps_the_server_from_starting() {
    let mut bench = Bench::new("2.55.1");
    let place = bench.server.repository().join("history");
    bench.server.own_config.set("global", "history-path", &place.display().to_string());
    bench.server.launch();
    assert_eq!(bench.server.wait(SOON), 32);
    let text = bench.server.own_command(&["check"]).fails_with(32);
    assert!(text.contains("because it is in the repository"), "{text}");
    assert!(bench.server.log().contains("because it is in the repository"));
}

/// A repository host that keeps versions and knows clients of all roles.
fn bench(release: &str) -> Bench {
    let mut bench = Bench::with_roles(release);
    let place = bench.server.path("history").display().to_string();
    bench.server.own_config.set("global", "history-path", &place);
    bench
}

fn history(bench: &Bench, arguments: &[&str]) -> Vec<Version> {
    let text = bench.server.own_command(&[&["history"], arguments].concat()).ok();
    let mut lines = text.lines();
    let head: Vec<_> = lines.next().expect("a line").split_whitespace().collect();
    assert_eq!(head, ["VERSION", "FILE", "SIZE", "BACKUPS", "NEWEST"]);
    let version = |line: &str| {
        let columns: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        let [name, file, _, backups, newest] = columns.try_into().expect("five columns");
        Version { name, file, backups, newest }
    };
    lines.map(version).collect()
}

/// Has the client put a file into the repository.
fn put(bench: &Bench, name: &str, content: &str) {
    let source = bench.workspace.file("source", 0o644, content);
    let input = fs::File::open(source).expect("the file is readable");
    bench.client.write_config();
    let mut command = bench.workspace.command(peer(&bench.client.release));
    command.arg(format!("--config={}", bench.client.config_file().display())).arg(format!("--stanza={STANZA}"));
    command.args(["repo-put", name]).stdin(Stdio::from(input));
    let output = bench.workspace.run("put", command);
    output.ok();
}
