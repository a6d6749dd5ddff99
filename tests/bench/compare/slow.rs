//! A repository where each write waits, and who else waits for it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Run;
use super::commands::{self, has_postgresql, path};
use super::servers::Server;
use super::table::{self, Target};
use crate::harness::fuse::{Call, FuseDisk, Traits};
use crate::harness::{Bench, STANZA, files, run_quietly};

/// How long each write takes.
const WRITE: Duration = Duration::from_millis(100);

/// How many archive at the same time, each to a stanza of its own: two of one stanza would exclude each other.
const CLIENTS: usize = 3;

/// How often somebody pings.
const PINGS: Duration = Duration::from_millis(20);

/// Three real clients archive a segment each, while others ping and a further one asks for `info` all the time.
pub(crate) fn slow(run: Run) -> Run {
    if !has_postgresql() {
        table::not_run("pushes to a slow file system", "the client needs a cluster, and there is no PostgreSQL 15");
        return run;
    }
    let bench = Bench::new(&run.bench.client.release);
    let mut run = Run { bench, ..run };
    run.bench.set("compress-type", "none");
    run.bench.client.config.set("global", "log-level-console", "warn");
    let repository = run.bench.server.repository();
    let disk = FuseDisk::mount(&repository, Traits::default());
    let mut cluster = run.bench.create_cluster();
    let pair = run.start_default();
    run.bench.client.config.set("global", "repo1-host-port", &pair.ours.port.to_string());
    run.bench.client.write_config();
    cluster.start();
    run.bench.client.ok(&["stanza-create"]);
    let segment = path(&cluster.copy_segment("0000000100000001000000A0"));
    cluster.stop();
    let data = format!("--pg1-path={}", path(&cluster.path));
    let push = ["archive-push", &data, &segment];
    let stanzas: Vec<_> = (0..CLIENTS).map(|number| format!("stanza{number}")).collect();
    for stanza in &stanzas {
        for kind in ["archive", "backup"] {
            let place = repository.join(kind);
            let mut command = run.bench.workspace.command("cp");
            command.arg("-r").arg(place.join(STANZA)).arg(place.join(stanza));
            run_quietly(command).ok();
        }
    }
    let mut counts = [Vec::new(), Vec::new()];
    let [wall, processor, ping, info] = pair.alternate(run.rounds(), |server| {
        let before = disk.count(Call::Write);
        disk.delay(Call::Write, WRITE);
        let longest = Longest::default();
        let cost = server.cost(|| push_all(&run, server, &stanzas, &push, &longest));
        disk.delay(Call::Write, Duration::ZERO);
        counts[usize::from(server.ours)].push(disk.count(Call::Write) - before);
        for stanza in &stanzas {
            let archived = files(&repository.join("archive").join(stanza));
            let is_info = |name: &str| name.starts_with("archive.info");
            let segments =
                archived.iter().filter(|path| !path.file_name().is_some_and(|name| is_info(&name.to_string_lossy())));
            segments.for_each(|path| std::fs::remove_file(path).expect("the segment can be removed"));
        }
        let [ping, info] = [longest.ping, longest.info].map(|time| time.into_inner().expect("no thread failed"));
        [cost.wall, cost.processor * 1e3, ping.as_secs_f64() * 1e3, info.as_secs_f64() * 1e3]
    });
    let what = format!("{CLIENTS} archive-push of 16 MiB at once where a write takes {} ms", WRITE.as_millis());
    let [original, ours] = counts.map(|counts| counts.iter().sum::<u64>() / counts.len() as u64);
    table::both(&format!("{what}: wall, s"), wall, Target::Share(1.0), &format!("{ours} and {original} writes"));
    table::both(&format!("{what}: server CPU, ms"), processor, Target::None, "with pings and info");
    table::both(&format!("{what}: longest ping, ms"), ping, Target::Below(50.0), "raw client, sent every 20 ms");
    table::both(&format!("{what}: longest info, ms"), info, Target::None, "the client's process with it");
    run
}

/// What took longest.
#[derive(Default)]
struct Longest {
    ping: Mutex<Duration>,
    info: Mutex<Duration>,
}

/// Has a client push to each stanza, and pings and asks for `info` until they have.
fn push_all(run: &Run, server: &Server, stanzas: &[String], push: &[&str], longest: &Longest) {
    let over = AtomicBool::new(false);
    let take = |place: &Mutex<Duration>, time: Duration| {
        let mut longest = place.lock().expect("no thread failed");
        *longest = time.max(*longest);
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = Instant::now();
            while !over.load(Ordering::Relaxed) {
                thread::sleep(next.saturating_duration_since(Instant::now()));
                // each has a thread of its own, so that a slow one does not keep the next from being sent
                scope.spawn(move || {
                    server.ping();
                    take(&longest.ping, next.elapsed());
                });
                next += PINGS;
            }
        });
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                commands::run_client(run, server, STANZA, &["info"]);
                take(&longest.info, begun.elapsed());
            }
        });
        let pushes: Vec<_> =
            stanzas.iter().map(|stanza| scope.spawn(|| commands::run_client(run, server, stanza, push))).collect();
        for push in pushes {
            push.join().expect("no thread failed");
        }
        over.store(true, Ordering::Relaxed);
    });
}
