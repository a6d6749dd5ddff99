//! A repository host that backs up clusters of `PostgreSQL` hosts, where our server runs beside the cluster.

use std::fs;
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::Path;

use crate::for_each_release;
use crate::harness::pg_host::{REPOSITORY_HOST, identity, link, spread};
use crate::harness::postgres::Cluster;
use crate::harness::raw::connect;
use crate::harness::server::Server;
use crate::harness::{Bench, STANZA, files};

for_each_release! {
    a_stopped_cluster_with_links_is_backed_up_and_restored: full, always, full;
    the_manifest_is_the_one_that_the_original_makes: always, full, always;
    a_strangers_link_stops_the_backup: full, full, always;
    a_link_to_a_link_is_refused_as_by_the_original: always, full, full;
    nothing_but_the_cluster_of_the_stanza_is_read: always, always, always;
}

/// A cluster that has run and is stopped, with tablespaces, and its server's host.
fn stopped(release: &str) -> (Bench, Cluster, Server) {
    let mut bench = Bench::new(release);
    let cluster = bench.with_cluster();
    cluster.fill(1);
    let space = bench.workspace.directory("space/one");
    let relative = bench.workspace.directory("space/two");
    for (name, path) in [("one", &space), ("two", &relative)] {
        cluster.query(&format!("create tablespace {name} location '{}'", path.display()));
        let rows = "select i, md5(i::text) from generate_series(1, 9999) i";
        cluster.query(&format!("create table in_{name} tablespace {name} as {rows}"));
    }
    cluster.query("checkpoint");
    let host = bench.serve_cluster(&cluster, 1);
    (bench, cluster, host)
}

/// Moves more of a stopped cluster: makes the link of its second tablespace a relative one.
fn relate(cluster: &Cluster) {
    let mut spaces = fs::read_dir(cluster.path.join("pg_tblspc"))
        .expect("there are tablespaces")
        .map(|entry| entry.expect("it can be listed").path());
    let second = spaces.find(|path| fs::read_link(path).unwrap().ends_with("two")).expect("there is one");
    fs::remove_file(&second).expect("the link can be removed");
    link(Path::new("../../../space/two"), &second);
}

fn a_stopped_cluster_with_links_is_backed_up_and_restored(release: &str) {
    let (mut bench, mut cluster, mut host) = stopped(release);
    let rows = cluster.rows();
    cluster.stop();
    spread(&bench.workspace, &cluster);
    relate(&cluster);
    bench.server.config.set("global", "process-max", "4");
    host.start();
    let text = bench.run_at_repository(&["backup", "--no-online", "--type=full"]).ok();
    for name in ["pipe", "socket"] {
        assert!(
            text.contains(&format!("exclude special file '{}/{name}' from backup", cluster.path.display())),
            "{text}"
        );
    }
    bench.client.verifies();

    let restored = bench.workspace.directory("restored/space");
    let mut copy = Cluster::at(&bench.workspace, "restored");
    let place = format!("--pg1-path={}", copy.path.display());
    let spaces = format!("--tablespace-map-all={}", restored.display());
    bench.client.ok(&["restore", "--type=none", "--archive-mode=off", &place, &spaces]);
    assert_eq!(fs::read_to_string(copy.path.join("notes/today")).expect("it is restored"), "a note");
    let relations = files(&cluster.path.join("base"));
    assert!(relations.len() > 500, "there are only {} files", relations.len());
    for path in relations.iter().filter(|path| !path.ends_with("pg_internal.init")) {
        let copied = copy.path.join(path.strip_prefix(&cluster.path).expect("it is in the cluster"));
        let about = |path: &Path| {
            let metadata = fs::metadata(path).expect("it is restored");
            (
                metadata.mode(),
                metadata.uid(),
                metadata.gid(),
                metadata.size(),
                metadata.mtime(),
                fs::read(path).unwrap(),
            )
        };
        assert!(about(path) == about(&copied), "{} was restored other than it was", path.display());
    }
    copy.start();
    assert_eq!(copy.rows(), rows);
    copy.stop();

    let log = host.log();
    assert!(host.is_original || log.contains("command=backup process=4"), "{log}");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    assert_eq!(host.terminate(), 0);
}

/// What a manifest says of the cluster, and not of when it was made.
fn about_cluster(bench: &Bench, label: &str) -> String {
    let path = bench.server.repository().join("backup").join(STANZA).join(label).join("backup.manifest");
    let text = fs::read_to_string(path).expect("the backup has a manifest");
    let sections = text.split("\n\n").filter(|section| {
        !section.starts_with("[backup]\n")
            && !section.starts_with("[backrest]\n")
            && !section.starts_with("[backup:option]\n")
    });
    sections.collect::<Vec<_>>().join("\n\n")
}

fn the_manifest_is_the_one_that_the_original_makes(release: &str) {
    let (mut bench, mut cluster, mut host) = stopped(release);
    cluster.stop();
    spread(&bench.workspace, &cluster);
    relate(&cluster);
    // two libraries compress to different bytes
    bench.server.config.set("global", "compress-type", "none");
    let mut labels = Vec::new();
    for is_original in [false, true] {
        host.is_original = is_original;
        host.start();
        bench.run_at_repository(&["backup", "--no-online", "--type=full"]).ok();
        host.terminate();
        labels = bench.client.labels();
    }
    let [ours, originals] = [0, 1].map(|index| about_cluster(&bench, &labels[index]));
    assert!(ours.contains("pg_data/postgresql.conf") && ours.contains("pg_tblspc/"), "{ours}");
    let differing: Vec<_> = ours.lines().zip(originals.lines()).filter(|(ours, theirs)| ours != theirs).collect();
    assert!(ours == originals, "{differing:#?}");
}

fn a_strangers_link_stops_the_backup(release: &str) {
    if !rustix::process::geteuid().is_root() {
        // only root can make a link of somebody else
        return;
    }
    let (bench, mut cluster, mut host) = stopped(release);
    if host.is_original {
        // which follows every link
        return;
    }
    cluster.stop();
    let logs = bench.workspace.directory("logs");
    symlink(&logs, cluster.path.join("log")).expect("the link can be made");
    let secret = bench.workspace.file("secret", 0o600, "what the cluster's owner may read");
    symlink(&secret, logs.join("today.log")).expect("the link can be made");
    lchown(logs.join("today.log"), Some(12_345), Some(12_345)).expect("the link can be given away");
    host.start();
    let backup = ["backup", "--no-online", "--type=full"];
    let text = bench.run_at_repository(&backup).fails_with(105);
    assert!(text.contains("leads through a link of a user that is not trusted"), "{text}");
    // The link to the directory is root's, and what is in it the owner's.
    fs::remove_file(logs.join("today.log")).expect("the link can be removed");
    bench.run_at_repository(&backup).ok();
}

fn a_link_to_a_link_is_refused_as_by_the_original(release: &str) {
    let (bench, mut cluster, mut host) = stopped(release);
    cluster.stop();
    let elsewhere = bench.workspace.directory("elsewhere");
    symlink(&elsewhere, bench.workspace.path().join("way")).expect("the link can be made");
    symlink(bench.workspace.path().join("way"), cluster.path.join("notes")).expect("the link can be made");
    host.start();
    let text = bench.run_at_repository(&["backup", "--no-online"]).fails_with(70);
    assert!(text.contains("/notes' cannot reference another link '"), "{text}");
    assert!(!host.log().contains("WARN"), "{}", host.log());
}

fn nothing_but_the_cluster_of_the_stanza_is_read(release: &str) {
    let mut bench = Bench::new(release);
    let cluster = bench.create_cluster();
    let mut host = bench.serve_cluster(&cluster, 1);
    host.config.set("other", "pg1-path", "/var/lib/other");
    host.start();
    let own = cluster.path.display().to_string();
    let session = |path: &str, stanza: &str, command: &str| {
        let mut session = connect(host.port, identity(), release);
        let path = format!("--pg1-path={path}");
        let stanza = format!("--stanza={stanza}");
        let parameters = ["--exec-id=1-12345678", "--process=1", "--remote-type=pg", &path, &stanza, command];
        let answer = session.config(&parameters);
        (session, answer)
    };
    for (path, stanza, command, code) in [
        ("/etc", STANZA, "backup:remote", 32),
        ("/", STANZA, "backup:remote", 32),
        ("/var/lib/other", STANZA, "backup:remote", 32),
        ("/var/lib/other", "other", "backup:remote", 105),
        (&own, "other", "backup:remote", 32),
        (&own, STANZA, "restore:remote", 105),
        (&own, STANZA, "archive-get:remote", 105),
    ] {
        let (_, answer) = session(path, stanza, command);
        assert!(
            matches!(answer, crate::wire::Answer::Failed(found, _) if found == code),
            "{path} {stanza}: {answer:?}"
        );
    }
    let (mut session, answer) = session(&own, STANZA, "backup:remote");
    assert!(answer.is_done() && session.ask("noop", |_| {}).is_done(), "{answer:?}");
    assert!(session.read(&format!("{own}/PG_VERSION")).is_done());
    for path in [
        "/etc/passwd".to_owned(),
        format!("{own}/../../server/server.key"),
        host.path("server.key").display().to_string(),
    ] {
        assert!(matches!(session.read(&path), crate::wire::Answer::Failed(105, _)), "{path}");
    }
    host.wait_for_log(&format!("client={REPOSITORY_HOST}"));
    host.wait_for_log("access denied");
}
