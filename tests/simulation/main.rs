//! A thousand seeded courses of events: several clients at once, a disk that completes operations in
//! any order and fails now and then, clients that vanish at any point or sleep for longer than anybody waits.
//!
//! Whatever happens, a file under its final name is whole, a file that was acknowledged has the
//! content that was sent, no segment is there twice, no temporary file stays behind, and every session comes to its
//! end, in time. A seed that fails is printed and can be run alone: `SEED=123 cargo test --test simulation`.
//!
//! The power may also be cut at any step. Then what a client was told is safe is there, no file that was to be safe is
//! half there, and the next sessions work.

mod classic;
mod client;
mod files;
mod helped;
mod power;
mod random;
mod world;

use std::collections::HashSet;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use repohostd::config::Role;
use repohostd::disk::Disk;
use repohostd::disk::inline::Options;
use repohostd::disk::scrambled::{Faults, Scrambled};
use repohostd::protocol::release::Release;
use repohostd::session::Host;

use client::{CLIENTS, Cast, clients, expired};
use files::{Files, check_tidy};
use helped::Helped;
use power::Power;
use random::Random;
use world::{FILES, Habits, MANY, World};

const SEEDS: u64 = 1000;
/// The power is cut within so many turns, most of which most courses have.
const TURNS: usize = 400;

/// What came of courses of events.
#[derive(Debug, Default, Clone, Copy)]
struct Sums {
    seeds: usize,
    acknowledged: usize,
    /// Those of them that the power was cut after, and that had to survive that.
    survived: usize,
    timeouts: usize,
    lists: usize,
    /// Backups that had to stay because of their age, and those that could go.
    kept: usize,
    expired: usize,
    /// Helpers that were killed.
    killed: usize,
}

/// What a seed stands for, besides its course of events.
struct Scene {
    random: Random,
    cast: Cast,
}

/// Who is there beside each other.
const ROLES: [&[Role]; 6] = [
    &[Role::Admin],
    &[Role::Archiver],
    &[Role::Admin, Role::Archiver],
    &[Role::Backup],
    &[Role::Backup, Role::Reader],
    &[Role::Admin, Role::Backup, Role::Archiver, Role::Reader],
];

impl Scene {
    fn of(seed: u64) -> Self {
        let mut random = Random(seed);
        // The newest release, whose reads need no flag for missing files, and one of the classic framing.
        let release = if seed % 4 < 2 { Release::newest() } else { Release::find("2.45").unwrap() };
        let roles = ROLES[random.below(ROLES.len())];
        Self { random, cast: Cast { release, roles, min_age: Duration::ZERO } }
    }

    /// The world in which it happens.
    fn begin<D: Disk>(self, directory: &Path, disk: D, habits: Habits) -> World<'_, D> {
        for index in 0..CLIENTS {
            let data = expired(directory, index).join("pg_data");
            std::fs::create_dir_all(&data).unwrap();
            std::fs::write(data.join("file"), "").unwrap();
            std::fs::write(data.with_file_name("backup.manifest"), "").unwrap();
        }
        let (now, time) = (Instant::now(), SystemTime::now());
        let host = Rc::new(Host::new(std::process::id()));
        let world = World {
            cast: self.cast,
            directory,
            random: self.random,
            disk,
            clients: clients(directory, &host, self.cast, now),
            host,
            files: Files::default(),
            habits,
            first: 0,
            begun: now,
            now,
            time,
            timeouts: 0,
            lists: 0,
            kept: 0,
            expired: 0,
        };
        if habits.list {
            let many = world.many();
            std::fs::create_dir_all(&many).unwrap();
            for number in 0..MANY {
                std::fs::write(many.join(format!("entry-{number:070}")), "").unwrap();
            }
        }
        world
    }
}

fn faults(random: &mut Random) -> Faults {
    let rate = [0, 0, 10, 60][random.below(4)];
    Faults { open: rate, read: rate, write: rate, sync: rate, close: rate, rename: rate, other: 0, delay: 200 }
}

fn options(seed: u64) -> Options {
    Options { by_component: seed.is_multiple_of(2), ..Options::default() }
}

/// Goes on until all has come to its end.
fn run_to_the_end<D: Disk>(world: &mut World<'_, D>) -> Sums {
    world.run(None);
    world.files.check();
    let acknowledged = world.files.acknowledged();
    let World { timeouts, lists, kept, expired, .. } = *world;
    Sums { acknowledged, timeouts, lists, kept, expired, ..Sums::default() }
}

/// One course of events on a disk that fails now and then.
fn simulate(directory: &Path, seed: u64) -> Sums {
    let mut scene = Scene::of(seed);
    let drain = scene.random.one_in(8).then(|| scene.random.below(TURNS));
    scene.cast.min_age = Duration::from_secs([0, 1, 4, 20][scene.random.below(4)]);
    let habits = Habits { unreliable: true, list: seed % 16 < 4, drain };
    let disk = Scrambled::new(seed, options(seed), faults(&mut scene.random));
    let sums = run_to_the_end(&mut scene.begin(directory, disk, habits));
    check_tidy(directory, &HashSet::new());
    sums
}

/// One course of events with helpers that are lost.
fn lose_helpers(directory: &Path, seed: u64) -> Sums {
    let habits = Habits { unreliable: true, list: seed % 16 < 4, drain: None };
    let mut world = Scene::of(seed).begin(directory, Helped::new(seed), habits);
    let sums = run_to_the_end(&mut world);
    check_tidy(directory, &world.disk.unremoved);
    Sums { killed: world.disk.killed, ..sums }
}

/// One course of events with the power cut.
fn cut_power(directory: &Path, seed: u64) -> Sums {
    let mut scene = Scene::of(seed);
    let (cut, faults) = (scene.random.below(TURNS), faults(&mut scene.random));
    let disk = Power::new(Scrambled::new(seed, options(seed), faults), directory);
    let mut world = scene.begin(directory, disk, Habits { unreliable: false, list: false, drain: None });
    if !world.run(Some(cut)) {
        world.files.check();
        return Sums { acknowledged: world.files.acknowledged(), ..Sums::default() };
    }
    world.clients.clear();
    let sound = || Power::new(Scrambled::new(seed, options(seed), Faults::default()), directory);
    std::mem::replace(&mut world.disk, sound()).cut(&mut world.random);
    world.files.check_after_cut();
    let survived = world.files.acknowledged_synced();
    world.files = Files::default();
    world.first = FILES + 1;
    world.begun = world.now;
    world.disk = sound();
    world.host = Rc::new(Host::new(std::process::id()));
    world.clients = clients(directory, &world.host, world.cast, world.now);
    world.run(None);
    world.files.check();
    Sums { acknowledged: survived + world.files.acknowledged(), survived, ..Sums::default() }
}

/// Runs each seed in a directory of its own.
fn run_all(seeds: u64, run: fn(&Path, u64) -> Sums) -> Sums {
    let base = if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" };
    let base = tempfile::Builder::new().prefix("repohostd-simulation").tempdir_in(base).unwrap();
    let seeds = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..seeds).collect(),
    };
    let mut sums = Sums::default();
    for &seed in &seeds {
        let directory = base.path().join(seed.to_string());
        std::fs::create_dir(&directory).unwrap();
        let outcome = std::panic::catch_unwind(|| run(&directory, seed));
        let one = outcome.unwrap_or_else(|_| panic!("SEED={seed} fails"));
        sums = Sums {
            seeds: sums.seeds + 1,
            acknowledged: sums.acknowledged + one.acknowledged,
            survived: sums.survived + one.survived,
            timeouts: sums.timeouts + one.timeouts,
            lists: sums.lists + one.lists,
            kept: sums.kept + one.kept,
            expired: sums.expired + one.expired,
            killed: sums.killed + one.killed,
        };
        std::fs::remove_dir_all(&directory).unwrap();
    }
    println!("{sums:?}");
    sums
}

/// That a course of events is worth something is asked of all of them together only.
fn are_worth_something(sums: Sums, counts: &[usize]) {
    assert!(sums.seeds == 1 || counts.iter().all(|count| 20 * count > sums.seeds), "{sums:?}");
}

#[test]
fn no_course_of_events_loses_an_acknowledged_file_or_leaves_half_of_one() {
    let sums = run_all(SEEDS, simulate);
    are_worth_something(sums, &[sums.acknowledged / 20, sums.timeouts, sums.lists, sums.kept, sums.expired]);
}

#[test]
fn no_power_cut_loses_an_acknowledged_file_or_leaves_half_of_one() {
    let sums = run_all(SEEDS, cut_power);
    are_worth_something(sums, &[sums.survived / 10]);
}

#[test]
fn no_lost_helper_loses_an_acknowledged_file_or_leaves_half_of_one() {
    let sums = run_all(SEEDS / 10, lose_helpers);
    are_worth_something(sums, &[sums.acknowledged / 20, sums.killed]);
}
