//! Hosts of several releases behind one key, at the pace of PostgreSQL's archiver.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::super::Key;
use super::super::learner::{Learner, Offer};
use super::super::lesson::Lesson;
use super::super::policy::intern;
use super::super::table::Table;
use super::*;
use crate::protocol::release::RELEASES;

/// When the tests begin, in milliseconds since the epoch.
const BEGIN: u64 = 1_700_000_000_000;

/// Small numbers that a seed decides.
struct Random(u64);

impl Random {
    fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        low + (self.0 >> 33) % (high - low)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// Its connection is greeted.
    Connect,
    /// It has read the greeting.
    Answer,
}

struct Host {
    release: &'static Release,
    /// Tries in a row.
    tries: usize,
    /// Of them, since it waited for a minute.
    burst: usize,
    offer: Option<Offer>,
    /// Segments that it has to archive at once.
    backlog: usize,
    /// The process that serves it.
    process: usize,
}

/// What became of pushes.
#[derive(Default)]
struct Tally {
    pushes: usize,
    tries: usize,
    worst: usize,
    /// Pushes that took more than two tries for each release.
    slow: usize,
    /// How often it was told that hosts of several releases share the key.
    told: usize,
}

/// How a run begins and who serves.
#[derive(Clone, Copy)]
struct Scene {
    kinds: usize,
    hosts: usize,
    /// Each has a segment to archive this often on average, in milliseconds.
    pause: u64,
    /// Segments that each has to archive at the beginning, when all begin at once.
    backlog: usize,
    /// What a command takes until it connects, at most.
    start: u64,
    /// How many processes serve, each of which hears a little later what the others learned.
    processes: usize,
}

/// Runs hosts for some hours.
fn archive(scene: Scene, seed: u64) -> Tally {
    let Scene { kinds, hosts: number, pause, backlog, start, processes } = scene;
    let mut random = Random(seed);
    let all: Vec<&'static Release> = (0..8).map(|name| intern(&format!("9.{name}"), &RELEASES[0])).collect();
    let table = Table { by_age: all.clone(), likely: all.clone(), named: 0 };
    let key = Key { address: "192.0.2.1".parse().unwrap(), client: Some("fleet".into()) };
    let mut learners: Vec<Learner> = (0..processes).map(|_| Learner::default()).collect();
    for learner in &mut learners {
        // They have shown themselves before, each once where all begin at once.
        for release in all[..kinds].iter().cycle().take(if backlog > 0 { kinds } else { 2 * kinds }) {
            learner.confirm(&key, release, BEGIN / 1000);
        }
        learner.collect_lessons();
    }
    let host =
        |place: usize| Host { release: all[place % kinds], tries: 0, burst: 0, offer: None, backlog, process: 0 };
    let mut hosts: Vec<Host> = (0..number).map(host).collect();
    let mut queue: BinaryHeap<Reverse<(u64, usize, Step)>> = BinaryHeap::new();
    for place in 0..number {
        let begin = if backlog > 0 { random.between(0, 10) } else { random.between(0, pause) };
        queue.push(Reverse((BEGIN + begin, place, Step::Connect)));
    }
    let mut heard: Vec<(u64, usize, Lesson)> = Vec::new();
    let mut tally = Tally::default();
    while let Some(Reverse((now, place, step))) = queue.pop() {
        if now > BEGIN + 4 * 3600 * 1000 {
            break;
        }
        for (_, to, lesson) in heard.extract_if(.., |(at, ..)| *at <= now) {
            learners[to].hear(&lesson, &table);
        }
        let host = &mut hosts[place];
        if step == Step::Connect {
            host.process = usize::try_from(random.between(0, processes as u64)).unwrap();
            host.offer = learners[host.process].offer(&key, &table, now);
            queue.push(Reverse((now + random.between(2, 30), place, Step::Answer)));
            continue;
        }
        let offer = host.offer.take().unwrap();
        let learner = &mut learners[host.process];
        host.tries += 1;
        let start = random.between(10, start);
        let wait = if same(offer.release, host.release) {
            tally.told += usize::from(learner.confirm(&key, offer.release, now / 1000).is_some());
            tally.pushes += 1;
            tally.tries += host.tries;
            host.tries = 0;
            host.burst = 0;
            host.backlog = host.backlog.saturating_sub(1);
            if host.backlog > 0 { random.between(400, 700) } else { random.between(100, 2 * pause) }
        } else {
            learner.refuse(&key, offer, &table, now / 1000);
            tally.worst = tally.worst.max(host.tries);
            tally.slow += usize::from(host.tries == 2 * kinds);
            host.burst = (host.burst + 1) % 3;
            if host.burst == 0 { 60_000 } else { 1000 }
        };
        for lesson in learner.take_lessons() {
            let others = (0..processes).filter(|other| *other != host.process);
            heard.extend(others.map(|other| (now + random.between(1, 5), other, lesson.clone())));
        }
        queue.push(Reverse((now + wait + start, place, Step::Connect)));
    }
    tally
}

#[test]
fn nobody_starves_at_the_archivers_pace() {
    for (kinds, start) in (2..=5).flat_map(|kinds| [(kinds, 110), (kinds, 250)]) {
        let mut all = Tally::default();
        for (hosts, backlog, processes) in [(kinds, 0, 1), (kinds, 6, 1), (kinds, 6, 2), (2 * kinds, 6, 2)] {
            for pause in [5_000, 30_000, 120_000] {
                for seed in 0..3 {
                    let tally = archive(Scene { kinds, hosts, pause, backlog, start, processes }, seed);
                    // Where they had not shown themselves before.
                    let expected = if backlog > 0 { 1..=processes } else { 0..=0 };
                    assert!(expected.contains(&tally.told), "told {} times by {processes}", tally.told);
                    all.pushes += tally.pushes;
                    all.tries += tally.tries;
                    all.worst = all.worst.max(tally.worst + 1);
                    all.slow += tally.slow;
                }
            }
        }
        let Tally { pushes, tries, worst, slow, .. } = all;
        println!("{kinds} releases, up to {start} ms: {pushes} pushes, {tries} tries, {worst} at most, {slow} slow");
        assert!(pushes > 20_000 && tries < kinds * pushes, "{tries} tries of {pushes} pushes");
        // More than two tries for each release: nearly nobody, and never many more. Processes that hear of each other a
        // little late, and several that come at the same moment again and again, are why it is not nobody at all.
        assert!(slow <= pushes / 500, "{slow} slow ones of {pushes}");
        assert!(worst <= 4 * kinds, "{worst} tries of {kinds} releases");
    }
}

#[test]
fn a_release_keeps_its_turn_for_a_second_whoever_refuses_it() {
    let (one, two) = (&RELEASES[0], &RELEASES[1]);
    let current = [one, two];
    let mut turns = Turns::default();
    let since = turns.go_on(&current, BEGIN);
    assert!(same(turns.present().unwrap(), one));
    turns.spend(one, Moment { arrived: BEGIN, since });
    let since = turns.go_on(&current, BEGIN + 300);
    assert!(same(turns.present().unwrap(), two), "the first turn had its time");
    for passed in [310, 320, 1299] {
        turns.spend(two, Moment { arrived: BEGIN + passed, since });
        turns.go_on(&current, BEGIN + passed);
        assert!(same(turns.present().unwrap(), two), "after {passed} ms");
    }
    turns.go_on(&current, BEGIN + 1300);
    assert!(same(turns.present().unwrap(), one));
    // Without a refusal it stays.
    turns.go_on(&current, BEGIN + 900_000);
    assert!(same(turns.present().unwrap(), one));
    // A refusal of an earlier turn does not count.
    turns.spend(one, Moment { arrived: BEGIN, since: BEGIN });
    turns.go_on(&current, BEGIN + 900_000);
    assert!(same(turns.present().unwrap(), one));
}

#[test]
fn processes_that_hear_of_each_other_agree_whose_turn_it_is() {
    let current = [&RELEASES[0], &RELEASES[1], &RELEASES[2]];
    let (mut here, mut there) = (Turns::default(), Turns::default());
    here.go_on(&current, BEGIN);
    there.go_on(&current, BEGIN);
    let mut now = BEGIN;
    for round in 0..9 {
        now += 1000;
        let since = here.go_on(&current, now);
        let refused = here.present().unwrap();
        here.spend(refused, Moment { arrived: now, since });
        there.catch_up(refused, Moment { arrived: now, since });
        there.go_on(&current, now);
        there.spend(refused, Moment { arrived: now, since });
        assert!(same(there.present().unwrap(), refused), "round {round}");
    }
}
