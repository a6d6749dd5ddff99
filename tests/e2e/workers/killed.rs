//! Workers are killed while clients work.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::host::Host;
use super::{Readers, SOON, lost, sessions, who_serves, with_workers, workers};
use crate::archiving::archived_segments;
use crate::for_each_release;
use crate::harness::client::Client;
use crate::harness::postgres::Cluster;
use crate::harness::{Bench, STANZA, temporary_files, wait_until, wait_until_unlocked};

/// How long workers are killed.
const KILLING: Duration = Duration::from_secs(20);

/// How long one is killed every four seconds, which is longer than pauses would take that grow up to half a minute,
/// and what a push may take then.
const HARASSING: Duration = Duration::from_secs(90);
const HANGS: Duration = Duration::from_secs(8);

for_each_release! {
    workers_that_are_killed_at_random_take_only_their_sessions_with_them: always, full, always;
    a_worker_that_is_killed_every_four_seconds_makes_no_push_hang: full, full, always;
    the_session_beside_a_lost_worker_goes_on: full, always, full;
}

/// What is known of the workers that were killed.
#[derive(Default)]
struct Killed {
    workers: HashSet<Pid>,
    /// Who had which worker, as the workers themselves told.
    served: HashMap<SocketAddr, Pid>,
}

impl Killed {
    /// Kills one of the workers, if there is one.
    fn kill(&mut self, bench: &Bench, chance: usize) {
        let workers = workers(bench);
        self.served.extend(sessions(&bench.server).into_iter().map(|session| (session.peer, session.worker)));
        if let Some(worker) = workers.get(chance % workers.len().max(1)) {
            kill_process(*worker, Signal::KILL).expect("a worker can be killed");
            self.workers.insert(*worker);
        }
    }

    /// Insists that each command that failed had a worker that was killed while it had it, and that nobody else
    /// was lost.
    fn explain<'a>(&self, log: &str, hosts: impl Iterator<Item = &'a Host>) -> usize {
        let dead = deaths(log);
        assert_eq!(dead.keys().copied().collect::<HashSet<_>>(), self.workers, "others died than were killed");
        let lost = lost(log);
        assert_eq!(dead.values().sum::<usize>(), lost.len(), "not everybody is named who was lost");
        let lost: HashMap<SocketAddr, Pid> = lost.into_iter().collect();
        for (peer, worker) in &lost {
            assert!(self.workers.contains(worker), "{peer} was lost with {worker:?}, which nobody killed");
            let served = self.served.get(peer).unwrap_or(worker);
            assert_eq!(served, worker, "{peer} was not served by the worker that it was lost with");
        }
        // who had its last word from the server needs no worker any more
        let is_over = |peer: &SocketAddr| log.contains(&format!("session end: peer={peer} "));
        for (peers, text) in hosts.flat_map(|host| &host.failures) {
            let explained = peers.iter().any(|peer| lost.contains_key(peer) && !is_over(peer));
            assert!(explained, "no worker was killed that had one of {peers:?}\n{text}");
        }
        lost.len()
    }
}

/// Workers that were lost, and with how many connections, as the log tells.
fn deaths(log: &str) -> HashMap<Pid, usize> {
    let line = |line: &str| {
        let (process, rest) = line.split_once(", process ")?.1.split_once(", is lost with ")?;
        let (count, _) = rest.split_once(" connections: ")?;
        Some((process.parse().ok().and_then(Pid::from_raw)?, count.parse().ok()?))
    };
    log.lines().filter_map(line).collect()
}

fn workers_that_are_killed_at_random_take_only_their_sessions_with_them(release: &str) {
    let mut bench = with_workers(release, 2);
    bench.set("process-max", "2");
    let mut cluster = bench.with_cluster();
    cluster.fill(2);
    bench.ok(&["backup", "--type=full"]);
    let segments: Vec<String> = (0..8).map(|number| format!("0000000100000001000000A{number}")).collect();
    let segments: Vec<String> = segments.iter().map(|name| cluster.copy_segment(name).display().to_string()).collect();
    let rows = cluster.rows();
    cluster.stop();
    let server = bench.server.id();

    // four hosts push the same segments, each for a stanza of its own; one restores all the time
    let mut pushers: Vec<Host> = (1..=4).map(|number| Host::with_stanza(&bench, number)).collect();
    let mut copy = Cluster::at(&bench.workspace, "restored");
    let target = copy.path.display().to_string();
    let restore = ["restore", "--delta", "--force", "--archive-mode=off", &format!("--pg1-path={target}")];
    let mut client = Client::new(&bench.server, "restoring");
    client.config.inherit(&bench.client.config);
    let mut restorer = Host::new(&bench, 5, STANZA, client);
    let (begun, mut last) = (Instant::now(), Instant::now());
    let (mut killed, mut chance) = (Killed::default(), 0x9e37_79b9_u32);
    while begun.elapsed() < KILLING || restorer.done == 0 || pushers.iter().any(|pusher| pusher.done < 8) {
        assert!(begun.elapsed() < SOON, "too little succeeds: {} restores", restorer.done);
        for pusher in &mut pushers {
            pusher.advance(|host| host.start(&["archive-push", segments[host.done % segments.len()].as_str()]));
        }
        restorer.advance(|host| host.start(&restore));
        if last.elapsed() > Duration::from_millis(1500) && begun.elapsed() < KILLING {
            chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            killed.kill(&bench, chance as usize);
            last = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    pushers.iter_mut().chain([&mut restorer]).for_each(Host::take);
    wait_until("the losses in the log", SOON, || {
        let log = bench.server.log();
        let deaths = deaths(&log);
        deaths.len() >= killed.workers.len() && lost(&log).len() >= deaths.values().sum()
    });
    let hosts = || pushers.iter().chain([&restorer]);
    let connections = killed.explain(&bench.server.log(), hosts());
    let done = hosts().map(|host| host.done).sum::<usize>();
    let (kills, failures) = (killed.workers.len(), hosts().map(|host| host.failures.len()).sum::<usize>());
    eprintln!("{kills} workers killed, {connections} connections lost; {done} commands done, {failures} failed");
    assert!(kills >= 5 && failures > 0, "{kills} workers were killed, and {failures} clients failed");
    assert_eq!(bench.server.id(), server);
    assert!(bench.server.runs(), "the server has ended");

    // what is locked by sessions whose clients are gone; the files of killed workers' locks stay until the next one
    wait_until("the sessions to end", SOON, || sessions(&bench.server).is_empty());
    for host in &pushers {
        for segment in &segments {
            host.run(&["archive-push", segment]).ok();
        }
        let text = host.run(&["verify", "--output=text", "--verbose"]).ok();
        assert!(text.contains("status: ok"), "{text}");
    }
    wait_until_unlocked(&bench.server.path("lock"));
    bench.client.verifies();
    assert!(!archived_segments(&bench.server.repository()).is_empty());
    assert_eq!(temporary_files(&bench.server.repository()), Vec::<PathBuf>::new());
    bench.client.ok(&restore);
    copy.start();
    assert_eq!(copy.rows(), rows);
    copy.stop();
    assert_eq!(bench.server.terminate(), 0);
}

fn a_worker_that_is_killed_every_four_seconds_makes_no_push_hang(release: &str) {
    let mut bench = with_workers(release, 2);
    let mut cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0").display().to_string();
    cluster.stop();
    let mut pushers: Vec<Host> = (1..=4).map(|number| Host::with_stanza(&bench, number)).collect();
    let (begun, mut last, mut kills) = (Instant::now(), Instant::now(), 0);
    while begun.elapsed() < HARASSING {
        for pusher in &mut pushers {
            pusher.advance(|host| host.start(&["archive-push", &segment]));
        }
        if last.elapsed() > Duration::from_secs(4) {
            // whoever has a client, as if that one had done it
            let sessions = sessions(&bench.server);
            let worker = sessions.first().map(|session| session.worker).or_else(|| workers(&bench).first().copied());
            // it may have ended meanwhile
            kills += usize::from(worker.is_some_and(|worker| kill_process(worker, Signal::KILL).is_ok()));
            last = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    pushers.iter_mut().for_each(Host::take);
    let times = pushers.iter().flat_map(|pusher| &pusher.times).map(|(_, time)| *time);
    let slowest = times.clone().max().expect("something was pushed");
    eprintln!("{kills} workers killed, {} pushes, the slowest took {slowest:?}", times.count());
    assert!(kills >= 15, "{kills} workers were killed");
    assert!(slowest <= HANGS, "a push took {slowest:?}:\n{}", bench.server.log());
    assert!(pushers.iter().all(|pusher| pusher.done > 0));
    assert_eq!(bench.server.terminate(), 0);
}

fn the_session_beside_a_lost_worker_goes_on(release: &str) {
    let mut bench = with_workers(release, 2);
    bench.with_cluster().stop();
    let readers = Readers::start(&bench);
    let served = who_serves(&bench.server, "repo-get");
    assert_eq!(served.len(), 2, "{served:?}");
    assert_ne!(served[0], served[1], "both have the same worker");
    kill_process(served[0], Signal::KILL).expect("a worker can be killed");
    assert_eq!(readers.finish(), 1, "one worker was killed, and the other was not");
    bench.client.ok(&["info"]);
    wait_until("the loss in the log", SOON, || deaths(&bench.server.log()) == HashMap::from([(served[0], 1)]));
    wait_until("its client in the log", SOON, || !lost(&bench.server.log()).is_empty());
    assert!(matches!(lost(&bench.server.log())[..], [(_, worker)] if worker == served[0]), "{}", bench.server.log());
    assert_eq!(bench.server.terminate(), 0);
}
