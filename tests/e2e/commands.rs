//! Every command that opens a session: what it prints, what it changes, and how it fails.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::for_each_release;
use crate::harness::postgres::Cluster;
use crate::harness::{Bench, STANZA, files, own, peer, wait_until_unlocked};

for_each_release! {
    a_directory_can_be_listed_in_every_form: always, always, always;
    a_file_can_be_read_put_and_removed: always, always, always;
    what_is_not_there_is_said_to_be_not_there: always, always, always;
    an_encrypted_file_is_read_in_clear_and_raw: always, always, always;
    info_tells_of_each_backup_with_its_sizes: always, always, always;
    an_annotation_can_be_added_changed_and_removed: always, always, always;
    a_manifest_can_be_queried: always, always, always;
    check_says_what_is_wrong: always, always, always;
    a_stanza_can_be_upgraded_to_a_new_cluster: full, always, full;
    a_stanza_can_be_created_without_a_running_cluster: always, always, always;
    a_deleted_stanza_can_be_created_again: always, full, full;
}

/// Prints nothing but the result.
const QUIET: &str = "--log-level-console=off";

fn a_directory_can_be_listed_in_every_form(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.start();
    bench.workspace.directory("server/repository/archive/demo/deep/deeper");
    bench.workspace.file("server/repository/archive/demo/empty", 0o640, "");
    bench.workspace.file("server/repository/archive/demo/deep/deeper/file", 0o640, "12345");
    let link = bench.server.path("repository/archive/demo/link");
    std::os::unix::fs::symlink("deep", &link).expect("a link can be made");

    let names = |arguments: &[&str]| -> Vec<String> {
        let mut all = vec!["repo-ls", QUIET];
        all.extend(arguments);
        bench.client.ok(&all).lines().map(str::to_owned).collect()
    };
    assert_eq!(names(&["archive/demo"]), ["deep", "empty", "link"]);
    assert_eq!(names(&["archive/demo", "--sort=desc"]), ["link", "empty", "deep"]);
    assert_eq!(names(&["archive/demo", "--filter=^e"]), ["empty"]);
    let all = ["deep", "deep/deeper", "deep/deeper/file", "empty", "link"];
    assert_eq!(names(&["archive/demo", "--recurse"]), all);
    assert_eq!(names(&["archive/demo/empty"]), ["."]);

    let text = bench.client.ok(&["repo-ls", QUIET, "archive/demo", "--recurse", "--output=json"]);
    let list: serde_json::Value = serde_json::from_str(&text).expect("repo-ls prints JSON");
    assert_eq!(list["deep/deeper"]["type"], "path", "{list}");
    assert_eq!(list["deep/deeper/file"]["type"], "file", "{list}");
    assert_eq!(list["deep/deeper/file"]["size"], 5, "{list}");
    let time = fs::metadata(bench.server.path("repository/archive/demo/deep/deeper/file"))
        .and_then(|metadata| metadata.modified())
        .expect("the file has a time")
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    assert_eq!(list["deep/deeper/file"]["time"], time.as_secs(), "{list}");
    assert_eq!(list["empty"]["size"], 0, "{list}");
    assert_eq!(list["link"]["type"], "link", "{list}");
    assert_eq!(list["link"]["destination"], "deep", "{list}");
    let entries = list.as_object().expect("an object").len();
    assert_eq!(entries, if list.get(".").is_some() { 6 } else { 5 }, "{list}");
}

fn a_file_can_be_read_put_and_removed(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.start();
    // two blocks of 1 MiB and a byte that belongs to neither
    let content = "0123456789abcdef".repeat(128 << 10) + "!";
    if has_repo_put(release) {
        put(&bench, "archive/demo/new/file", &content);
    } else {
        bench.workspace.directory("server/repository/archive/demo/new");
        bench.workspace.file("server/repository/archive/demo/new/file", 0o640, &content);
    }
    let place = bench.server.path("repository/archive/demo/new/file");
    assert!(fs::read(&place).expect("the file is readable") == content.as_bytes(), "what was put is not there");
    assert!(bench.client.ok(&["repo-get", QUIET, "archive/demo/new/file"]) == content, "what was got is different");

    if release != "2.60.0" {
        // its repo-rm asks itself for an option that it does not have, before it says anything to a server
        let text = bench.client.fails(25, &["repo-rm", "archive/demo/new/file"]);
        assert!(text.contains("option 'compress-level-network' is not valid for the current command"), "{text}");
        return;
    }
    bench.client.ok(&["repo-rm", "archive/demo/new/file"]);
    assert!(!place.exists());
    // a directory with something in it goes only when asked for
    bench.workspace.file("server/repository/archive/demo/new/file", 0o640, "again");
    let output = bench.client.run(&["repo-rm", "archive/demo/new"]);
    assert_ne!(output.code, 0, "{}", output.text());
    assert!(place.exists(), "a directory was removed with what was in it");
    bench.client.ok(&["repo-rm", "--recurse", "archive/demo/new"]);
    assert!(!bench.server.path("repository/archive/demo/new").exists());
    assert!(bench.server.path("repository/archive/demo").exists(), "too much was removed");
}

fn what_is_not_there_is_said_to_be_not_there(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.start();
    assert_eq!(bench.client.ok(&["repo-ls", QUIET, "archive/demo/nothing"]), "");
    let text = bench.client.fails(55, &["repo-get", "archive/demo/nothing"]);
    assert!(text.contains("unable to open missing file '"), "{text}");
    assert_eq!(bench.client.fails(1, &["repo-get", QUIET, "--ignore-missing", "archive/demo/nothing"]), "");
    // neither the file nor the directory was made by asking for it
    assert_eq!(files(&bench.server.repository()), Vec::<std::path::PathBuf>::new());

    let text = bench.fails(55, &["backup", "--no-online", "--pg1-path=/nowhere"]);
    let place = bench.server.path("repository/backup/demo/backup.info").display().to_string();
    assert!(text.contains(&format!("unable to load info file '{place}' or '{place}.copy':")), "{text}");
    assert!(text.contains(&format!("unable to open missing file '{place}' for read")), "{text}");
    let text = bench.client.ok(&["info"]);
    assert!(text.contains("missing stanza path"), "{text}");
}

fn an_encrypted_file_is_read_in_clear_and_raw(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.config.set("global", "repo1-cipher-type", "aes-256-cbc");
    bench.server.config.set("global", "repo1-cipher-pass", "correct horse battery staple");
    let _cluster = bench.with_cluster();
    let info = bench.client.ok(&["repo-get", QUIET, "archive/demo/archive.info"]);
    assert!(info.contains("[backrest]") && info.contains("cipher-pass="), "{info}");
    let place = bench.server.path("repository/archive/demo/archive.info");
    let stored = fs::read(&place).expect("the file is readable");
    assert!(stored.starts_with(b"Salted__"), "the file is not encrypted");
    let target = bench.workspace.path().join("raw");
    let arguments = ["repo-get", QUIET, "--raw", "archive/demo/archive.info"];
    let code = run_between(&bench, &arguments, Stdio::null(), &target);
    assert_eq!(code, 0);
    assert!(fs::read(target).expect("the output is readable") == stored, "raw is not what is stored");

    if has_repo_put(release) {
        put(&bench, "archive/demo/secret", "nobody knows");
        let stored = fs::read(bench.server.path("repository/archive/demo/secret")).expect("the file is readable");
        assert!(stored.starts_with(b"Salted__"), "the file was not encrypted");
        let arguments = ["repo-get", QUIET, "--cipher-pass=correct horse battery staple", "archive/demo/secret"];
        assert_eq!(bench.client.ok(&arguments), "nobody knows");
    }
}

fn info_tells_of_each_backup_with_its_sizes(release: &str) {
    let mut bench = Bench::new(release);
    let cluster = bench.with_cluster();
    cluster.fill(1);
    bench.ok(&["backup", "--type=full", "--annotation=kind=first"]);
    bench.ok(&["backup", "--type=incr"]);
    cluster.archive();

    let info = bench.client.info();
    assert_eq!(info["name"], STANZA);
    assert_eq!(info["status"]["code"], 0, "{info}");
    assert_eq!(info["cipher"], "none", "{info}");
    let (full, incremental) = (&info["backup"][0], &info["backup"][1]);
    assert_eq!(full["annotation"]["kind"], "first", "{full}");
    assert_eq!(incremental["prior"], full["label"], "{incremental}");
    assert!(full["info"]["size"].as_u64() > Some(20 << 20), "{full}");
    assert!(incremental["info"]["repository"]["delta"].as_u64() < full["info"]["repository"]["delta"].as_u64());
    assert_eq!(full["error"], false, "{full}");

    let label = full["label"].as_str().expect("a label");
    let one = bench.client.ok(&["info", QUIET, "--output=json", "--set", label]);
    let one: serde_json::Value = serde_json::from_str(&one).expect("info prints JSON");
    let databases = one[0]["backup"][0]["database-ref"].as_array().expect("the databases of the backup");
    assert!(databases.iter().any(|database| database["name"] == "postgres"), "{one}");
    let text = bench.client.ok(&["info", QUIET]);
    assert!(text.contains("wal archive min/max (15): 0000000100000000"), "{text}");

    // what the repository host itself says
    let here = bench.server.local(&["info", QUIET, "--output=json"]).ok();
    let here: serde_json::Value = serde_json::from_str(&here).expect("info prints JSON");
    assert_eq!(here[0]["backup"], info["backup"], "client and repository host disagree");
    assert_eq!(here[0]["archive"], info["archive"], "client and repository host disagree");
}

fn an_annotation_can_be_added_changed_and_removed(release: &str) {
    let mut bench = Bench::new(release);
    let _cluster = bench.with_cluster();
    bench.ok(&["backup", "--type=full"]);
    let label = bench.client.labels().remove(0);
    bench.client.ok(&["annotate", "--set", &label, "--annotation=one=1", "--annotation=two=2"]);
    bench.client.ok(&["annotate", "--set", &label, "--annotation=one=", "--annotation=two=changed"]);
    let info = bench.client.info();
    assert_eq!(info["backup"][0]["annotation"], serde_json::json!({"two": "changed"}), "{info}");
    let copy = fs::read_to_string(bench.server.path("repository/backup/demo/backup.info.copy")).expect("a copy");
    assert!(copy.contains("changed"), "only one of the two files was changed: {copy}");
    wait_until_unlocked(&bench.server.path("lock"));
    let text = bench.client.fails(75, &["annotate", "--set=20200101-000000F", "--annotation=one=1"]);
    assert!(text.contains("no backup set to annotate found"), "{text}");
}

fn a_manifest_can_be_queried(release: &str) {
    let mut bench = Bench::new(release);
    let cluster = bench.with_cluster();
    cluster.fill(1);
    bench.ok(&["backup", "--type=full"]);
    let label = bench.client.labels().remove(0);
    // the default is the link that later releases do not make on a repository host
    let text = bench.client.ok(&["manifest", QUIET, "--set", &label]);
    assert!(text.contains("PG_VERSION"), "{text}");
    let json = bench.client.ok(&["manifest", QUIET, "--output=json", "--set", &label]);
    let manifest: serde_json::Value = serde_json::from_str(&json).expect("manifest prints JSON");
    assert!(manifest.to_string().contains("PG_VERSION"), "{manifest}");
}

fn check_says_what_is_wrong(release: &str) {
    let mut bench = Bench::new(release);
    let mut cluster = bench.create_cluster();
    bench.server.start();
    cluster.start();
    let text = bench.client.fails(55, &["check"]);
    assert!(text.contains("unable to load info file '"), "{text}");
    assert!(text.contains("HINT: archive.info cannot be opened but is required to push/get WAL segments"), "{text}");
    assert!(text.contains("HINT: has a stanza-create been performed?"), "{text}");

    bench.client.ok(&["stanza-create"]);
    bench.client.ok(&["check"]);

    // a segment that does not arrive
    cluster.query("alter system set archive_command = 'false # pgbackrest'");
    cluster.query("select pg_reload_conf()");
    let text = bench.client.fails(82, &["check", "--archive-timeout=1s"]);
    assert!(text.contains("was not archived before the 1000ms timeout"), "{text}");
    cluster.query("alter system reset archive_command");
    cluster.query("select pg_reload_conf()");

    // a repository that cannot be written
    let archive = bench.server.path("repository/archive/demo");
    let aside = bench.server.path("repository/archive/aside");
    fs::rename(&archive, &aside).expect("the directory can be moved");
    fs::write(&archive, "a file where a directory should be").expect("a file can be made");
    own(&archive);
    let output = bench.client.run(&["check"]);
    assert_ne!(output.code, 0, "{}", output.text());
    assert!(output.text().contains("Not a directory"), "{}", output.text());
    fs::remove_file(&archive).expect("the file can be removed");
    fs::rename(&aside, &archive).expect("the directory can be moved back");

    // a file that somebody has changed
    let other = bench.server.path("repository/backup/demo/backup.info");
    let text = fs::read_to_string(&other).expect("the file is readable");
    fs::write(&other, text.replace("db-system-id", "db-system-ix")).expect("the file can be damaged");
    fs::remove_file(bench.server.path("repository/backup/demo/backup.info.copy")).expect("the copy can be removed");
    let output = bench.client.run(&["check"]);
    assert_ne!(output.code, 0, "{}", output.text());
    assert!(output.text().contains("required key 'db-system-id' not found"), "{}", output.text());
}

fn a_stanza_can_be_upgraded_to_a_new_cluster(release: &str) {
    let mut bench = Bench::new(release);
    let mut old = bench.with_cluster();
    old.fill(1);
    bench.ok(&["backup", "--type=full"]);
    let text = bench.client.ok(&["stanza-upgrade"]);
    assert!(text.contains("is already up to date"), "{text}");
    old.stop();

    // another cluster in its place has another system identifier
    fs::rename(&old.path, bench.workspace.path().join("pg/old")).expect("the cluster can be moved");
    let mut new = bench.create_cluster();
    new.start();
    new.fill(1);
    let output = bench.client.run(&["check"]);
    assert_eq!(output.code, 28, "{}", output.text());
    assert!(output.text().contains("HINT: is this the correct stanza?"), "{}", output.text());

    bench.client.ok(&["stanza-upgrade"]);
    wait_until_unlocked(&bench.server.path("lock"));
    bench.client.ok(&["check"]);
    bench.ok(&["backup", "--type=incr"]);
    let rows = new.rows();
    let info = bench.client.info();
    let kinds: Vec<_> = info["backup"].as_array().expect("a list").iter().map(|backup| &backup["type"]).collect();
    assert_eq!(kinds, ["full", "full"], "the first backup of the new cluster is a full one: {info}");
    assert_eq!(info["db"].as_array().map(Vec::len), Some(2), "{info}");
    assert!(bench.server.path("repository/archive/demo/15-2").is_dir());

    new.stop();
    let mut restored = Cluster::at(&bench.workspace, "restored");
    bench.client.ok(&["restore", &format!("--pg1-path={}", restored.path.display()), "--archive-mode=off"]);
    restored.start();
    assert_eq!(restored.rows(), rows);
    restored.stop();
    bench.client.verifies();
}

fn a_stanza_can_be_created_without_a_running_cluster(release: &str) {
    let mut bench = Bench::new(release);
    let cluster = bench.create_cluster();
    bench.server.start();
    bench.client.ok(&["stanza-create", "--no-online"]);
    let text = bench.client.ok(&["stanza-create", "--no-online"]);
    assert!(text.contains("already exists"), "{text}");
    bench.ok(&["backup", "--no-online", "--type=full"]);
    assert_eq!(bench.client.labels().len(), 1);
    let place = bench.workspace.directory("restored/data");
    bench.client.ok(&["restore", "--type=none", &format!("--pg1-path={}", place.display())]);
    for name in ["PG_VERSION", "global/pg_control", "global/1262"] {
        let read = |path: &Path| fs::read(path.join(name)).expect("the file is readable");
        assert!(read(&place) == read(&cluster.path), "{name} came back different");
    }
}

fn a_deleted_stanza_can_be_created_again(release: &str) {
    let mut bench = Bench::new(release);
    let mut cluster = bench.with_cluster();
    cluster.fill(1);
    bench.ok(&["backup", "--type=full"]);
    let text = bench.server.local(&["stanza-delete"]).fails_with(55);
    assert!(text.contains("stop file does not exist for stanza 'demo'"), "{text}");
    bench.server.local(&["stop"]).ok();
    // the cluster still runs on another host, which nobody here can know
    bench.server.local(&["stanza-delete", "--force"]).ok();
    for area in ["archive", "backup"] {
        assert!(!bench.server.repository().join(area).join(STANZA).exists(), "{area} is still there");
    }
    let text = bench.client.ok(&["info"]);
    assert!(text.contains("missing stanza path"), "{text}");
    bench.server.local(&["start"]).ok();

    bench.client.ok(&["stanza-create"]);
    bench.client.ok(&["check"]);
    bench.ok(&["backup", "--type=full"]);
    bench.client.verifies();
    cluster.stop();
}

/// `repo-put` was for tests only and is gone from later releases.
fn has_repo_put(release: &str) -> bool {
    release != "2.60.0"
}

/// Puts a file into the repository.
fn put(bench: &Bench, name: &str, content: &str) {
    let source = bench.workspace.file("source", 0o644, content);
    let input = fs::File::open(source).expect("the file is readable");
    let code = run_between(bench, &["repo-put", name], input.into(), &bench.workspace.path().join("put.log"));
    assert_eq!(code, 0, "{name} could not be put");
}

/// Runs a command whose input and output are files, since the harness keeps output as text.
fn run_between(bench: &Bench, arguments: &[&str], input: Stdio, output: &Path) -> i32 {
    bench.client.write_config();
    let mut command = bench.workspace.command(peer(&bench.client.release));
    command.arg(format!("--config={}", bench.client.config_file().display())).arg(format!("--stanza={STANZA}"));
    let output = fs::File::create(output).expect("the file can be made");
    let status = command.args(arguments).stdin(input).stdout(output).status().expect("the client starts");
    status.code().unwrap_or(-1)
}
