//! Clients that lose the right to their session while it lasts hear of it, whatever they are doing.

use std::fs::{self, File};
use std::io::{self, PipeWriter, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::for_each_release;
use crate::harness::certificates::Certificates;
use crate::harness::{Bench, Output, Process, SOON, wait_until};
use crate::workers::{Session, sessions, tell};

for_each_release! {
    who_reads_a_file_is_told: always, always, always;
    who_writes_a_file_is_told: always, always, never "it has no repo-put any more";
    who_backs_up_is_told: never "it backs up on the repository host only", always, full;
    who_lost_a_grant_finishes_the_file_in_transfer: always, always, never "it has no repo-put any more";
}

/// More than what sockets and both programs hold on the way.
const LARGE: usize = 24 << 20;

fn who_reads_a_file_is_told(release: &str) {
    let mut bench = started(release);
    let large = bench.workspace.file("server/repository/archive/demo/large", 0o640, &"much ".repeat(LARGE / 5));
    // nobody reads what the client prints, so that it cannot go on
    let (mut reader, writer) = io::pipe().expect("a pipe can be made");
    let command = ["repo-get", "--log-level-console=error", "--log-level-stderr=error", "archive/demo/large"];
    let client = bench.client.start_into(File::from(OwnedFd::from(writer)), &command);
    reader.read_exact(&mut [0]).expect("the first byte of the file");
    revoke(&mut bench);
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).expect("what comes of the file");
    let size = fs::metadata(large).expect("it is there").len();
    assert!((rest.len() as u64) < size / 2, "the client got {} of {size} bytes", rest.len());
    let output = client.output(SOON);
    if release == "2.45" {
        // Whatever goes wrong within a file, also with its own server, leaves it without words for it.
        assert_ne!(output.code, 0, "{output:?}");
    } else {
        is_told(output);
    }
}

fn who_writes_a_file_is_told(release: &str) {
    let (mut bench, client, mut writer) = writing(release);
    let directory = directory(&bench);
    revoke(&mut bench);
    // it may have given up
    let _ = writer.write_all(&half());
    drop(writer);
    is_told(client.output(SOON));
    wait_until("the removal of what was written", SOON, || is_empty(&directory));
}

fn who_backs_up_is_told(release: &str) {
    let mut bench = Bench::new(release);
    for (key, value) in [("compress-type", "gz"), ("compress-level", "9"), ("process-max", "2")] {
        bench.set(key, value);
    }
    tell(&mut bench.server);
    let cluster = bench.with_cluster();
    cluster.fill(10);
    cluster.archive();
    let backup = bench.start(&["backup", "--type=full"]);
    // its main process and both that copy, each of which would be told by TLS if it came later
    let is_of_backup = |session: &Session| session.command.as_deref() == Some("backup");
    wait_until("the sessions of the backup", SOON, || {
        sessions(&bench.server).iter().filter(|session| is_of_backup(session)).count() == 3
    });
    revoke(&mut bench);
    is_told(backup.output(SOON));
    // its locks are free for who comes with another certificate
    bench.client.write_identity(&Certificates::shared().authority.issue("pgbackrest-client"));
    bench.ok(&["backup", "--type=full", "--compress-type=none"]);
}

fn who_lost_a_grant_finishes_the_file_in_transfer(release: &str) {
    let (mut bench, client, mut writer) = writing(release);
    let directory = directory(&bench);
    bench.server.config.set("global", "tls-server-auth", "somebody=demo");
    bench.server.reload();
    writer.write_all(&half()).expect("the client reads");
    drop(writer);
    client.output(SOON).ok();
    assert_eq!(fs::metadata(directory.join("large")).expect("the file").len(), LARGE as u64);
    bench.client.fails(105, &["repo-ls"]);
}

fn started(release: &str) -> Bench {
    let mut bench = Bench::new(release);
    bench.server.start();
    bench.workspace.directory("server/repository/archive/demo");
    bench
}

/// A client that has written half of a file, which comes from what is returned last.
fn writing(release: &str) -> (Bench, Process, PipeWriter) {
    let bench = started(release);
    let (reader, mut writer) = io::pipe().expect("a pipe can be made");
    let input = File::from(OwnedFd::from(reader));
    let client = bench.client.start_reading(input, &["repo-put", "archive/demo/large"]);
    writer.write_all(&half()).expect("the client reads");
    let directory = directory(&bench);
    wait_until("what is written", SOON, || !is_empty(&directory));
    (bench, client, writer)
}

fn half() -> Vec<u8> {
    vec![b'x'; LARGE / 2]
}

/// Where the file comes to be.
fn directory(bench: &Bench) -> PathBuf {
    bench.server.repository().join("archive/demo")
}

/// Has the server refuse the client's certificate from now on.
fn revoke(bench: &mut Bench) {
    let Certificates { authority, client, .. } = Certificates::shared();
    let list = bench.workspace.file("server/list.crl", 0o644, &authority.revokes(&[client]));
    bench.server.own_config.set("global", "crl-file", &list.display().to_string());
    bench.server.reload();
    bench.server.wait_for_log("session ends: [105]: access denied");
}

#[track_caller]
fn is_told(output: Output) {
    let text = output.fails_with(105);
    assert!(text.contains("access denied") && text.contains("certificate is no longer accepted"), "{text}");
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).expect("the directory is there").next().is_none()
}
