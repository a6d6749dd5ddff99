//! Minutes in which everything goes wrong that may go wrong with processes and files of the server, while four
//! clients archive and read back. In the end nothing is missing, nothing is there twice, and nothing is left.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustix::process::{Pid, Signal, kill_process};

use super::host::Host;
use super::{SOON, pid, sessions, status, with_workers};
use crate::for_each_release;
use crate::harness::{Bench, Process, files, own, run_quietly, temporary_files, wait_until, wait_until_unlocked};

for_each_release! {
    four_clients_archive_while_everything_goes_wrong: full, full, full;
}

/// How long that lasts, unless `REPOHOSTD_TEST_SOAK` has another number of seconds.
const TIME: Duration = Duration::from_secs(180);
/// How often each of it happens.
const RELOADS: Duration = Duration::from_millis(250);
const KNOCKS: Duration = Duration::from_millis(300);
const KILLS: Duration = Duration::from_secs(4);
const STOPS: Duration = Duration::from_secs(15);
const BREAKS: Duration = Duration::from_secs(7);
/// What a push may take, and what it may take while a worker is stopped: until that counts as lost.
const PUSH: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(45));
/// Within this time everything is as before.
const AFTERMATH: Duration = Duration::from_secs(90);

/// One of the four, and what it was told is archived.
struct Archiver {
    host: Host,
    source: PathBuf,
    base: Vec<u8>,
    /// The segment that is being pushed, and its digest.
    pushing: Option<(String, String)>,
    acknowledged: Vec<(String, String)>,
    reading: Option<Process>,
    read_back: usize,
    next: u32,
}

impl Archiver {
    fn new(bench: &Bench, number: u8, segment: &Path) -> Self {
        let base = fs::read(segment).expect("the segment is readable");
        let source = bench.workspace.directory(&format!("segments-{number}"));
        let host = Host::with_stanza(bench, number);
        Self { host, source, base, pushing: None, acknowledged: vec![], reading: None, read_back: 0, next: 0 }
    }

    /// Takes note of the last push, and begins the next one: of a new segment, or of the same one again until it is
    /// acknowledged, as PostgreSQL does.
    fn advance(&mut self) {
        let Self { host, source, base, pushing, acknowledged, next, .. } = self;
        let before = host.done;
        host.advance(|host| {
            if host.done > acknowledged.len() {
                if let Some((last, _)) = acknowledged.last() {
                    fs::remove_file(source.join(last)).expect("it is there");
                }
                acknowledged.extend(pushing.take());
            }
            let (name, _) = pushing.get_or_insert_with(|| {
                *next += 1;
                let name = format!("00000001{:08X}{:08X}", 1 + *next / 256, *next % 256);
                // behind the header of a page, which tells the client what cluster it is of
                let mark = format!("{}/{name}", source.display());
                base[4096..4096 + mark.len()].copy_from_slice(mark.as_bytes());
                fs::write(source.join(&name), &base).expect("the segment can be written");
                own(&source.join(&name));
                let sum = hex(base);
                (name, sum)
            });
            host.start(&["archive-push", &source.join(&*name).display().to_string()])
        });
        debug_assert!(host.done <= before + 1, "one command at a time");
        self.read();
    }

    /// Reads one of the segments that are archived, now and then. It may fail for what happens to the server, but
    /// what it gets is what was sent.
    fn read(&mut self) {
        let got = self.source.join("got");
        if let Some(reading) = &mut self.reading {
            if reading.ended().is_none() {
                return;
            }
            let output = self.reading.take().expect("there is one").output(SOON);
            if output.code == 0 {
                let sum = hex(&fs::read(&got).expect("it was got"));
                assert!(self.acknowledged.iter().any(|(_, digest)| *digest == sum), "something else was read");
                self.read_back += 1;
            }
        } else if let Some((name, _)) = self.acknowledged.get(self.read_back * 7 % self.acknowledged.len().max(1)) {
            let _ = fs::remove_file(&got);
            self.reading = Some(self.host.start(&["archive-get", name, &got.display().to_string()]));
        }
    }

    /// Waits for what runs.
    fn finish(&mut self) {
        self.host.take();
        if self.host.done > self.acknowledged.len() {
            self.acknowledged.extend(self.pushing.take());
        }
        if let Some(reading) = self.reading.take() {
            reading.output(SOON);
        }
    }

    /// Pushes once more, now that nothing goes wrong: which also takes away the lock file of a worker that was killed.
    fn push_again(&self) {
        let (name, _) = self.pushing.as_ref().or(self.acknowledged.last()).expect("something was pushed");
        self.host.run(&["archive-push", &self.source.join(name).display().to_string()]).ok();
    }

    /// Insists that each segment that was acknowledged is there once, and is what was sent.
    fn verify(&self, repository: &Path) {
        let archive = repository.join("archive").join(&self.host.stanza);
        let names: Vec<String> =
            files(&archive).iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
        for (segment, digest) in &self.acknowledged {
            let found: Vec<_> = names.iter().filter(|name| name.starts_with(&**segment)).collect();
            assert_eq!(found.len(), 1, "{segment} of {}: {found:?}", self.host.stanza);
            assert!(found[0].starts_with(&format!("{segment}-{digest}")), "{found:?} is not {digest}");
        }
        let text = self.host.run(&["verify", "--output=text", "--verbose"]).ok();
        assert!(text.contains("status: ok"), "{text}");
    }
}

/// What happens to the server, and when it happened last.
struct Harm {
    last: [Instant; 5],
    /// Workers that were stopped, and when they were.
    stopped: Vec<(Pid, Instant)>,
    counts: [u32; 5],
    broken: bool,
}

impl Harm {
    fn is_due(&mut self, kind: usize, every: Duration) -> bool {
        let due = self.last[kind].elapsed() >= every;
        if due {
            self.last[kind] = Instant::now();
            self.counts[kind] += 1;
        }
        due
    }

    fn strike(&mut self, bench: &mut Bench) {
        if self.is_due(0, RELOADS) {
            bench.server.signal(Signal::HUP);
        }
        if self.is_due(1, KNOCKS)
            && let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, bench.server.port))
        {
            // the server may hang up at any time
            let _ =
                stream.write_all(&[0x16, 3, 1, 0, 200, 1, 0xff][..usize::from(self.counts[1].is_multiple_of(2)) * 7]);
        }
        if self.is_due(2, KILLS)
            && let Some(worker) = self.worker(bench)
        {
            // it may have ended
            let _ = kill_process(worker, Signal::KILL);
        }
        if self.is_due(3, STOPS)
            && let Some(worker) = self.worker(bench)
            && kill_process(worker, Signal::STOP).is_ok()
        {
            self.stopped.push((worker, Instant::now()));
        }
        if self.is_due(4, BREAKS) {
            self.set_broken(bench, !self.broken);
        }
    }

    fn set_broken(&mut self, bench: &mut Bench, broken: bool) {
        self.broken = broken;
        if broken {
            bench.server.own_config.set("global", "no-such-option", "1");
        } else {
            bench.server.own_config.unset("global", "no-such-option");
        }
        bench.server.write_config();
    }

    /// One that runs, of those in turn.
    fn worker(&self, bench: &Bench) -> Option<Pid> {
        let mut command = bench.workspace.command("pgrep");
        command.args(["--exact", "repohostd-work", "--parent", &bench.server.id().to_string()]);
        let found = run_quietly(command).stdout;
        let workers = found.lines().filter_map(|line| line.parse().ok().and_then(Pid::from_raw));
        let able: Vec<_> = workers.filter(|worker| self.stopped.iter().all(|(old, _)| old != worker)).collect();
        able.get((self.counts[2] + self.counts[3]) as usize % able.len().max(1)).copied()
    }

    /// Whether a worker may have been stopped in this time.
    fn is_beside_stopped(&self, begun: Instant, time: Duration) -> bool {
        self.stopped.iter().any(|(_, at)| *at < begun + time && begun < *at + PUSH.1)
    }
}

/// KiB in memory, and descriptors.
fn size(process: u32) -> (u64, usize) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    let memory = line.trim().trim_end_matches(" kB").parse().expect("a number");
    (memory, fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count))
}

/// The sizes of the server's own process and of the largest worker, and how many there are.
fn sizes(bench: &Bench) -> [(u64, usize); 3] {
    let status = status(&bench.server);
    let workers = status["workers"].as_array().expect("there are workers");
    let each = workers.iter().map(|worker| size(pid(&worker["pid"]).as_raw_nonzero().get().unsigned_abs()));
    let largest = each.fold((0, 0), |(memory, files), (more, also)| (memory.max(more), files.max(also)));
    [size(bench.server.id()), largest, (0, workers.len())]
}

fn four_clients_archive_while_everything_goes_wrong(release: &str) {
    let time = std::env::var("REPOHOSTD_TEST_SOAK").map_or(TIME, |seconds| {
        Duration::from_secs(seconds.parse().expect("REPOHOSTD_TEST_SOAK is a number of seconds"))
    });
    let mut bench = with_workers(release, 2);
    bench.set("compress-type", "lz4");
    let mut cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0");
    cluster.stop();
    let mut archivers: Vec<Archiver> = (1..=4).map(|number| Archiver::new(&bench, number, &segment)).collect();
    let warm = Instant::now();
    while archivers.iter().any(|archiver| archiver.acknowledged.len() < 3) {
        assert!(warm.elapsed() < SOON, "nothing is archived");
        archivers.iter_mut().for_each(Archiver::advance);
        std::thread::sleep(Duration::from_millis(10));
    }
    archivers.iter_mut().for_each(Archiver::finish);
    wait_until("the sessions to end", SOON, || sessions(&bench.server).is_empty());
    let before = sizes(&bench);

    let now = Instant::now();
    let mut harm = Harm { last: [now; 5], stopped: vec![], counts: [0; 5], broken: false };
    while now.elapsed() < time {
        archivers.iter_mut().for_each(Archiver::advance);
        harm.strike(&mut bench);
        assert!(bench.server.runs(), "the server ended:\n{}", bench.server.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    harm.set_broken(&mut bench, false);
    archivers.iter_mut().for_each(Archiver::finish);
    let over = Instant::now();

    let times = archivers.iter().flat_map(|archiver| &archiver.host.times);
    let (beside, alone): (Vec<_>, Vec<_>) =
        times.copied().partition(|(begun, time)| harm.is_beside_stopped(*begun, *time));
    let slowest = |times: &[(Instant, Duration)]| times.iter().map(|(_, time)| *time).max().unwrap_or_default();
    let slowest = (slowest(&alone), slowest(&beside));
    let acknowledged: Vec<_> = archivers.iter().map(|archiver| archiver.acknowledged.len()).collect();
    let failed: usize = archivers.iter().map(|archiver| archiver.host.failures.len()).sum();
    let read_back: usize = archivers.iter().map(|archiver| archiver.read_back).sum();
    eprintln!(
        "{time:?}: {acknowledged:?} segments acknowledged, {failed} pushes failed, {read_back} read back; the slowest \
         push took {slowest:?} (beside a stopped worker: {} of them); reloads, knocks, kills, stops, breaks: {:?}",
        beside.len(),
        harm.counts
    );
    assert!(slowest.0 <= PUSH.0 && slowest.1 <= PUSH.1, "a push took {slowest:?}:\n{}", bench.server.log());
    assert!(acknowledged.iter().all(|count| *count > 3) && read_back > 0, "nothing succeeds");

    wait_until("everything to be as before", AFTERMATH.saturating_sub(over.elapsed()), || {
        let now = sizes(&bench);
        let is_back = |now: (u64, usize), before: (u64, usize)| {
            now.0 <= before.0 + before.0 / 2 + (4 << 10) && now.1 <= before.1 + 8
        };
        let stopped = harm.stopped.iter().any(|(worker, _)| super::is_there(*worker));
        is_back(now[0], before[0]) && is_back(now[1], before[1]) && now[2].1 <= 2 && !stopped
    });
    eprintln!(
        "memory in KiB and descriptors of server and workers, before: {before:?}, {:?} after the end: {:?}",
        over.elapsed(),
        sizes(&bench)
    );
    archivers.iter().for_each(Archiver::push_again);
    wait_until_unlocked(&bench.server.path("lock"));
    for archiver in &archivers {
        archiver.verify(&bench.server.repository());
    }
    assert_eq!(temporary_files(&bench.server.repository()), Vec::<PathBuf>::new());
    assert_eq!(bench.server.terminate(), 0);
}

/// The SHA-1 that names a segment's contents.
fn hex(contents: &[u8]) -> String {
    digest(&SHA1_FOR_LEGACY_USE_ONLY, contents).as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
