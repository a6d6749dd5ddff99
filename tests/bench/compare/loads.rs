//! What the raw client does.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::Run;
use super::servers::{Cost, RAW, Server, done, end, median};
use super::table::{self, Both, Target};
use crate::harness::certificates::Kind;
use crate::harness::own;
use crate::wire::{Conversation, How};

/// What a client sends and is sent at once, pgBackRest's default `buffer-size`.
const BLOCK: usize = 1 << 20;

const DIRECTORIES: usize = 100;
const FILES_EACH: usize = 1_000;

/// Files that are written at once, the clients that write them, and their size in blocks.
const FILES: usize = 32;
const WRITERS: usize = 8;
const FILE_BLOCKS: usize = 16;

/// How often a ping is sent while files are written.
const PINGS: Duration = Duration::from_millis(10);

/// Connections held by both servers, and by ours.
const HELD: usize = 200;
const HELD_BY_OURS: usize = 5_000;

/// Open files that our server wants to be allowed before it holds that many, of which so many for each.
const FILES_FOR_HELD: u64 = 20_100;
const FILES_EACH_HELD: u64 = 4;
const FILES_BESIDE: u64 = 64;

/// Connections with and without a certificate, one after the other and at once.
pub(crate) fn connections(run: &Run) {
    for (keys, name, share) in [(Kind::Rsa(2048), "RSA-2048", 8.0), (Kind::Curve("P-256"), "P-256", 12.0)] {
        let pair = run.start(keys);
        for clients in [1, 8, 32] {
            let count = if run.quick { 64 } else { 320 };
            let mut generator = Generator::default();
            let [processor, rate] = pair.alternate(run.rounds(), |server| {
                let cost = generator.watch(server, || at_once(clients, count, || server.visit()));
                [cost.processor / f64::from(count) * 1e3, f64::from(count) / cost.wall]
            });
            let what = format!("connection, {name} keys, {clients} at once");
            table::both(&format!("{what}: server CPU, ms"), processor, Target::Share(1.0 / share), "");
            let target = if clients == 8 { Target::Times(5.0) } else { Target::None };
            table::both(&format!("{what}: connections a second"), rate, target, &generator.text(count));
        }
        if matches!(keys, Kind::Rsa(_)) {
            let count = if run.quick { 64 } else { 320 };
            let [processor, rate] = pair.alternate(run.rounds(), |server| {
                let cost = server.cost(|| (0..count).for_each(|_| server.ping()));
                [cost.processor / f64::from(count) * 1e3, f64::from(count) / cost.wall]
            });
            table::both("ping: server CPU, ms", processor, Target::None, "");
            table::both("ping, one after the other: a second", rate, Target::None, "");
        }
    }
}

/// Does something in threads.
fn at_once(threads: u32, count: u32, work: impl Fn() + Sync) {
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..count / threads).for_each(|_| work()));
        }
    });
}

/// What the load generator itself needed beside our server, which shows where it is the limit.
#[derive(Default)]
struct Generator {
    processor: f64,
    both: f64,
    wall: f64,
    rounds: u32,
}

impl Generator {
    fn watch(&mut self, server: &Server, work: impl FnOnce()) -> Cost {
        let before = Self::processor_time();
        let cost = server.cost(work);
        if server.ours {
            let own = Self::processor_time() - before;
            self.processor += own;
            self.both += own + cost.processor;
            self.wall += cost.wall;
            self.rounds += 1;
        }
        cost
    }

    fn text(&self, count: u32) -> String {
        format!(
            "load generator with ours: {:.2} ms CPU each; {:.2} cores busy with both",
            self.processor / f64::from(count * self.rounds) * 1e3,
            self.both / self.wall
        )
    }

    fn processor_time() -> f64 {
        Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).map_or(0.0, |time| time.as_secs_f64())
    }
}

/// Memory of the servers without connections, and for each connection that is held.
pub(crate) fn memory(run: &Run) {
    let mut rounds = Vec::new();
    for _ in 0..if run.quick { 1 } else { 3 } {
        let pair = run.start(Kind::Rsa(2048));
        rounds.push([&pair.ours, &pair.original].map(|server| {
            let resident = server.group.resident();
            let idle = server.group.memory();
            let sessions: Vec<_> = (0..HELD).map(|_| server.session()).collect();
            let held = (server.group.memory() - idle) / f64::from(u32::try_from(HELD).expect("few"));
            sessions.into_iter().for_each(end);
            [resident, idle, held]
        }));
    }
    let [resident, idle, held] = [0, 1, 2].map(|number| {
        let [ours, original] = [0, 1].map(|side| median(rounds.iter().map(|round| round[side][number]).collect()));
        Both { ours, original, ratio: ours / original }
    });
    let mebibyte = f64::from(1 << 20);
    table::both("idle: resident memory, MiB", resident.times(1.0 / mebibyte), Target::Below(6.0), run.binary_text());
    table::both("idle: memory that is not shared (PSS), MiB", idle.times(1.0 / mebibyte), Target::None, "");
    let what = format!("a held connection of {HELD}: memory, KiB");
    table::both(&what, held.times(1.0 / 1024.0), Target::Below(32.0), run.binary_text());
    many(run);
}

/// Memory of our server alone with very many connections.
fn many(run: &Run) {
    let (wanted, note) = match allow_files(FILES_FOR_HELD) {
        Ok(()) => (HELD_BY_OURS, String::new()),
        Err(files) => {
            let possible = usize::try_from(files.saturating_sub(FILES_BESIDE) / FILES_EACH_HELD).unwrap_or(0);
            (possible.min(HELD_BY_OURS), format!(", as many as {files} open files allow"))
        }
    };
    let count = if run.quick { wanted / 10 } else { wanted };
    let target = if count * 2 > HELD_BY_OURS { Target::Below(200.0) } else { Target::None };
    let pair = run.start(Kind::Curve("P-256"));
    let sessions: Vec<_> = (0..count).map(|_| pair.ours.session()).collect();
    let memory = pair.ours.group.memory() / f64::from(1 << 20);
    sessions.into_iter().for_each(end);
    let what = format!("{count} held connections: memory in all, MiB");
    table::ours(&what, memory, target, &format!("{}{note}", run.binary_text()));
}

/// Has this process and the servers that it starts open many files, or says how many they may.
fn allow_files(wanted: u64) -> Result<(), u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    // root may have more than the limit says
    for most in [maximum.map(|maximum| maximum.max(wanted)), maximum] {
        if setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).is_ok() {
            return if most.is_none_or(|most| most >= wanted) { Ok(()) } else { Err(most.unwrap_or(wanted)) };
        }
    }
    Err(current.unwrap_or(wanted))
}

/// One large file, written and read.
pub(crate) fn file(run: &Run) {
    let blocks = if run.quick { 128 } else { 1024 };
    let mebibytes = f64::from(u32::try_from(blocks).expect("few"));
    let pair = run.start(Kind::Rsa(2048));
    let content = content();
    let name = format!("backup/{RAW}/large");
    let [processor, rate] = pair.alternate(run.rounds(), |server| {
        server.remove(&name);
        let cost = server.cost(|| {
            let mut client = server.storage_session();
            done(&client.open_write(&server.place(&name), How { atomic: true, create_path: true }));
            (0..blocks).for_each(|_| done(&client.write_block(&content)));
            done(&client.close_write());
            end(client);
        });
        [cost.processor, mebibytes / cost.wall]
    });
    let what = format!("{blocks} MiB written");
    table::both(&format!("{what}: server CPU, s"), processor, Target::Share(0.5), "");
    table::both(&format!("{what}: MiB a second"), rate, Target::None, "raw client, no fsync");
    let [processor, rate] = pair.alternate(run.rounds(), |server| {
        let cost = server.cost(|| {
            let mut client = server.storage_session();
            let length = client.read_whole(&server.place(&name)).expect("the file can be read");
            assert!(length >= blocks * BLOCK, "{length} bytes came");
            end(client);
        });
        [cost.processor, mebibytes / cost.wall]
    });
    let what = format!("{blocks} MiB read");
    table::both(&format!("{what}: server CPU, s"), processor, Target::Share(0.5), "");
    table::both(&format!("{what}: MiB a second"), rate, Target::None, "raw client, from the page cache");
    pair.ours.remove(&name);
}

/// A recursive listing.
pub(crate) fn listing(run: &Run) {
    let pair = run.start(Kind::Rsa(2048));
    let directories = if run.quick { DIRECTORIES / 10 } else { DIRECTORIES };
    let base = pair.ours.repository.join(format!("backup/{RAW}/listed"));
    for directory in 0..directories {
        let place = base.join(directory.to_string());
        fs::create_dir_all(&place).expect("a directory can be made");
        for number in 0..FILES_EACH {
            let file = place.join(number.to_string());
            fs::write(&file, "").expect("a file can be made");
            own(&file);
        }
    }
    let base = base.display().to_string();
    let [processor, wall] = pair.alternate(run.rounds(), |server| {
        let cost = server.cost(|| {
            let mut client = server.storage_session();
            done(&client.list(&base));
            (0..directories).for_each(|directory| done(&client.list(&format!("{base}/{directory}"))));
            end(client);
        });
        [cost.processor, cost.wall]
    });
    let what = format!("listing of {} files", directories * FILES_EACH);
    table::both(&format!("{what}: server CPU, s"), processor, Target::Share(0.5), "");
    table::both(&format!("{what}: wall, s"), wall, Target::None, "");
    pair.ours.remove(&format!("backup/{RAW}/listed"));
}

/// Many files with fsync at once, and how long a ping takes meanwhile.
pub(crate) fn fsync(run: &Run) {
    let pair = run.start(Kind::Rsa(2048));
    let content = content();
    let name = format!("backup/{RAW}/synced");
    let [wall, processor, ping] = pair.alternate(run.rounds(), |server| {
        server.remove(&name);
        let pings = Mutex::new(Vec::new());
        let mut wall = 0.0;
        let cost = server.cost(|| wall = write_all(server, &name, &content, &pings));
        let mut pings = pings.into_inner().expect("no thread failed");
        pings.sort_by(f64::total_cmp);
        [wall, cost.processor, pings[pings.len() * 99 / 100] * 1e3]
    });
    pair.ours.remove(&name);
    let what = format!("{FILES} files of {FILE_BLOCKS} MiB with fsync by {WRITERS} clients");
    table::both(&format!("{what}: wall, s"), wall, Target::Share(0.9), "");
    table::both(&format!("{what}: server CPU, s"), processor, Target::None, "with the pings");
    table::both(&format!("{what}: p99 of a ping, ms"), ping, Target::Share(0.25), "sent every 10 ms");
}

/// Writes the files and pings until they are written; returns how long they took.
fn write_all(server: &Server, name: &str, content: &[u8], pings: &Mutex<Vec<f64>>) -> f64 {
    let begin = Instant::now();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = begin;
            while !over.load(Ordering::Relaxed) {
                thread::sleep(next.saturating_duration_since(Instant::now()));
                // each has a thread of its own, so that a slow one does not keep the next from being sent
                scope.spawn(move || {
                    server.ping();
                    pings.lock().expect("no thread failed").push(next.elapsed().as_secs_f64());
                });
                next += PINGS;
            }
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || {
                    let mut client = server.storage_session();
                    for file in (writer..FILES).step_by(WRITERS) {
                        write_synced(&mut client, &server.place(&format!("{name}/{file}")), content);
                    }
                    end(client);
                })
            })
            .collect();
        for writer in writers {
            writer.join().expect("no thread failed");
        }
        over.store(true, Ordering::Relaxed);
        begin.elapsed().as_secs_f64()
    })
}

fn write_synced(client: &mut Conversation, path: &str, content: &[u8]) {
    done(&client.open_write_synced(path, How { atomic: true, create_path: true }));
    (0..FILE_BLOCKS).for_each(|_| done(&client.write_block(content)));
    done(&client.close_write());
}

/// A block that no disk makes smaller.
fn content() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(BLOCK);
    while bytes.len() < BLOCK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}
