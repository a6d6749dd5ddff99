//! Many clients, slow clients, dying clients and large directories: all are served within bounds.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use crate::archiving::assert_whole_segments;
use crate::crashes::slow_down;
use crate::for_each_release;
use crate::harness::{Bench, Process, SOON, STANZA, files, own, temporary_files, wait_until};

for_each_release! {
    two_hundred_clients_at_once_are_served: full, always, full;
    a_directory_of_300_000_files_is_listed_while_others_are_served: full, full, always;
    a_client_that_stands_still_for_seconds_gets_its_file: always, full, always;
    a_client_that_stands_still_for_a_minute_gets_its_file: full, full, full;
    a_restore_that_stands_still_for_a_minute_goes_on: full, full, full;
    clients_killed_at_any_moment_of_a_push_leave_nothing: always, full, full;
}

/// What the server may need at most, whatever is asked of it here.
const MEMORY: u64 = 64 << 20;

fn two_hundred_clients_at_once_are_served(release: &str) {
    let mut bench = Bench::new(release);
    bench.set("compress-type", "lz4");
    let mut cluster = bench.with_cluster();
    let path = format!("--pg1-path={}", cluster.path.display());
    let segment = cluster.copy_segment("0000000100000001000000A0");
    cluster.stop();
    // a push locks its stanza, so that each gets one of its own
    let archive = bench.server.path("repository/archive");
    let stanzas: Vec<String> = (0..100).map(|number| format!("s{number}")).collect();
    for stanza in &stanzas {
        bench.workspace.directory(&format!("server/repository/archive/{stanza}"));
        for name in ["archive.info", "archive.info.copy"] {
            let target = archive.join(stanza).join(name);
            fs::copy(archive.join(STANZA).join(name), &target).expect("the file can be copied");
            own(&target);
        }
    }
    let segment = segment.display().to_string();
    let port = format!("--tls-server-port={}", bench.server.port);
    let mut clients: Vec<Process> = Vec::new();
    for stanza in &stanzas {
        let stanza = format!("--stanza={stanza}");
        clients.push(bench.client.start_exactly(&[&stanza, &path, "archive-push", &segment]));
        clients.push(bench.client.start_exactly(&["server-ping", &port, "localhost"]));
    }
    assert_eq!(clients.len(), 200);
    for client in clients {
        client.output(SOON * 4).ok();
    }
    for stanza in &stanzas {
        let found = files(&archive.join(stanza).join("15-1"));
        assert_eq!(found.len(), 1, "stanza {stanza} has {found:?}");
    }
    assert_eq!(temporary_files(&bench.server.repository()), Vec::<PathBuf>::new());
    assert_memory(&bench);
    wait_until("locks to be free", SOON, || all_free(&bench.server.path("lock")));
}

fn a_directory_of_300_000_files_is_listed_while_others_are_served(release: &str) {
    const FILES: usize = 300_000;
    let mut bench = Bench::new(release);
    bench.server.start();
    let directory = bench.workspace.directory("server/repository/archive/demo/15-1/0000000100000001");
    for number in 0..FILES {
        let name = format!("0000000100000001{number:08X}-0123456789abcdef0123456789abcdef01234567.zst");
        File::create(directory.join(name)).expect("the file can be made");
    }
    let arguments = ["repo-ls", "--log-level-console=off", "archive/demo/15-1/0000000100000001"];
    let mut listing = bench.client.start(&arguments);
    let mut served = 0;
    while listing.ended().is_none() {
        let begin = Instant::now();
        bench.client.ok(&["repo-ls", "backup"]);
        assert!(begin.elapsed() < SOON, "others wait {:?} for a listing", begin.elapsed());
        served += 1;
    }
    let text = listing.output(SOON).ok();
    assert_eq!(text.lines().count(), FILES);
    assert!(served >= 1, "nobody was served meanwhile");
    let last = format!("0000000100000001{:08X}-0123456789abcdef0123456789abcdef01234567.zst", FILES - 1);
    assert_eq!(text.lines().last(), Some(last.as_str()));
    assert_memory(&bench);
    fs::remove_dir_all(directory).expect("the files can be removed");
}

fn a_client_that_stands_still_for_seconds_gets_its_file(release: &str) {
    stands_still(release, Duration::from_secs(5));
}

fn a_client_that_stands_still_for_a_minute_gets_its_file(release: &str) {
    stands_still(release, Duration::from_secs(65));
}

fn stands_still(release: &str, time: Duration) {
    let mut bench = Bench::new(release);
    bench.server.start();
    bench.workspace.directory("server/repository/archive/demo");
    let large = bench.server.path("repository/archive/demo/large");
    noise(&large, 128 << 20);
    // nobody reads what the client prints, so that it cannot go on
    let (mut reader, writer) = io::pipe().expect("a pipe can be made");
    let mut client = bench.client.start_into(
        File::from(OwnedFd::from(writer)),
        &["repo-get", "--log-level-console=error", "archive/demo/large"],
    );
    let mut got = vec![0; 1 << 10];
    reader.read_exact(&mut got).expect("the first part of the file");
    serve_others_for(&bench, time);
    assert!(client.ended().is_none(), "the file was there too soon");
    reader.read_to_end(&mut got).expect("the rest of the file");
    client.output(SOON).ok();
    assert!(got == fs::read(&large).expect("readable"), "the file came back different");
    assert_memory(&bench);
}

fn a_restore_that_stands_still_for_a_minute_goes_on(release: &str) {
    let mut bench = Bench::new(release);
    slow_down(&mut bench);
    let mut cluster = bench.with_cluster();
    cluster.fill(20);
    bench.ok(&["backup", "--type=full"]);
    cluster.archive();
    let rows = cluster.rows();
    cluster.stop();
    let mut restored = crate::harness::postgres::Cluster::at(&bench.workspace, "restored");
    let place = format!("--pg1-path={}", restored.path.display());
    let mut restore = bench.client.start(&["restore", &place, "--archive-mode=off"]);
    wait_until("the restore to write files", SOON, || files(&restored.path.join("base")).len() > 3);
    assert!(restore.ended().is_none(), "the restore was over too soon");
    let family = family(restore.id());
    assert!(family.len() >= 2, "the restore has processes that read: {family:?}");
    for pid in &family {
        kill_process(*pid, Signal::STOP).expect("the process can be signalled");
    }
    serve_others_for(&bench, Duration::from_secs(65));
    for pid in &family {
        kill_process(*pid, Signal::CONT).expect("the process can be signalled");
    }
    restore.output(SOON * 4).ok();
    restored.start();
    assert_eq!(restored.rows(), rows);
    restored.stop();
    assert_memory(&bench);
}

fn clients_killed_at_any_moment_of_a_push_leave_nothing(release: &str) {
    let mut bench = Bench::new(release);
    slow_down(&mut bench);
    let mut cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0");
    cluster.stop();
    let name = |number: usize| segment.with_file_name(format!("0000000100000002{number:08X}"));
    let begin = Instant::now();
    bench.client.ok(&["archive-push", &segment.display().to_string()]);
    // how long the quickest push took so far, since others work on this machine too
    let mut whole = begin.elapsed();
    let mut unfinished = 0;
    for number in 0..24 {
        let path = name(number);
        fs::copy(&segment, &path).expect("the segment can be copied");
        own(&path);
        let begin = Instant::now();
        let moment = begin + whole * u32::try_from(number * 7 % 24).expect("small") / 24;
        let mut push = bench.client.start(&["archive-push", &path.display().to_string()]);
        while Instant::now() < moment && push.ended().is_none() {
            std::thread::yield_now();
        }
        if push.ended().is_none() {
            push.signal(Signal::KILL);
            unfinished += 1;
        } else {
            whole = whole.min(begin.elapsed());
        }
        drop(push);
        // the next one needs the lock
        wait_until("locks to be free", SOON, || all_free(&bench.server.path("lock")));
    }
    assert!(unfinished >= 8, "only {unfinished} clients were killed in time");
    wait_until("temporary files to go", SOON, || temporary_files(&bench.server.repository()).is_empty());
    let done = assert_whole_segments(&bench.server.repository());
    assert!(done < 2 + 24, "every push was over before its client was killed");
    for number in 0..24 {
        bench.client.ok(&["archive-push", &name(number).display().to_string()]);
    }
    assert!(assert_whole_segments(&bench.server.repository()) >= 25);
    wait_until("locks to be free", SOON, || all_free(&bench.server.path("lock")));
}

/// Lets other clients work for a time.
fn serve_others_for(bench: &Bench, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        let begin = Instant::now();
        bench.client.ok(&["repo-ls", "archive/demo"]);
        assert!(begin.elapsed() < SOON, "others wait {:?}", begin.elapsed());
    }
}

/// Insists that the server never needed too much.
#[track_caller]
fn assert_memory(bench: &Bench) {
    let status = fs::read_to_string(format!("/proc/{}/status", bench.server.id())).expect("the server runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a running process has memory");
    let kibibytes: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    eprintln!("the server needed {} MiB at most", kibibytes >> 10);
    assert!(kibibytes << 10 < MEMORY, "the server needed {kibibytes} KiB");
}

/// Whether no lock file in a directory is locked.
fn all_free(directory: &Path) -> bool {
    files(directory).iter().all(|path| {
        // a lock file that vanished meanwhile is free, too
        File::open(path).map_or(true, |file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok())
    })
}

/// A process and all that it started.
fn family(root: u32) -> Vec<Pid> {
    let mut found = vec![root];
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.into_iter().filter_map(|pid| Pid::from_raw(pid.try_into().ok()?)).collect()
}

/// A file that does not compress.
fn noise(path: &Path, size: usize) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(size / 8)
    .flatten()
    .collect();
    fs::write(path, bytes).expect("the file can be written");
    own(path);
}
