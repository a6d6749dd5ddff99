use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use mio::Poll;

use super::*;
use crate::server::workers::handle::RECENT;
use crate::server::workers::heartbeat::TIMEOUT;

const LONGEST: Duration = Duration::from_secs(30);

/// A pool of processes that do what `program` does, and say nothing.
fn pool(maximum: usize, program: &'static [&'static str]) -> (Poll, WorkerPool) {
    let start = move |socket: OwnedFd| {
        Command::new(program[0]).args(&program[1..]).stdin(Stdio::from(socket)).stdout(Stdio::null()).spawn()
    };
    (Poll::new().unwrap(), WorkerPool::new(maximum, Box::new(start), &Snapshot::default(), 0o022, LONGEST).unwrap())
}

/// Gives a connection to whoever it is for: the place, and whether the worker was started for that.
fn give(mio_poll: &Poll, pool: &mut WorkerPool, at: Instant) -> (usize, bool) {
    let Assignment { place, is_new } = pool.choose(mio_poll.registry(), None, at).unwrap();
    pool.assign(place, connection(), at);
    (place, is_new)
}

fn connection() -> Waiting {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let socket = std::fs::File::open("/dev/null").unwrap().into();
    Waiting { number: NUMBER.fetch_add(1, Ordering::Relaxed), peer: ([192, 0, 2, 1], 1).into(), socket }
}

/// How the worker in this place ends.
fn depart(pool: &mut WorkerPool, place: usize, at: Instant) -> Departure {
    let begun = Instant::now();
    loop {
        if let Some(PoolEvent::Gone(departure)) = pool.poll_event(place, at) {
            return departure;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "its end is not noticed");
    }
}

/// Waits until those that are gone have ended.
fn ends(pool: &mut WorkerPool) {
    let begun = Instant::now();
    while pool.endings.deadline(Instant::now()).is_some() {
        pool.endings.reap(Instant::now());
        assert!(begun.elapsed() < Duration::from_secs(30), "a process is not waited for");
    }
}

/// Two workers that serve, each with a connection since `now`.
fn two_that_serve(now: Instant) -> (Poll, WorkerPool) {
    let (mio_poll, mut pool) = pool(2, &["sleep", "100"]);
    for _ in 0..2 {
        let (place, _) = give(&mio_poll, &mut pool, now);
        pool.workers[place].stage = Stage::Serving;
        pool.workers[place].waiting.clear();
        pool.workers[place].note_answer(now);
    }
    (mio_poll, pool)
}

fn says(pool: &mut WorkerPool, place: usize, transfers: usize) {
    pool.workers[place].transfers = transfers;
}

#[test]
fn a_connection_goes_where_the_fewest_transfers_are_and_nobody_is_started_without_need() {
    let (mio_poll, mut pool) = pool(3, &["sleep", "100"]);
    let now = Instant::now();
    let give = |pool: &mut WorkerPool, after: u32| give(&mio_poll, pool, now + RECENT * after);
    assert_eq!(give(&mut pool, 0), (0, true));
    pool.note_end(0, now);
    assert_eq!(give(&mut pool, 0), (0, false), "it has nothing to do");
    assert_eq!([give(&mut pool, 0), give(&mut pool, 0)], [(1, true), (2, true)]);
    says(&mut pool, 0, 1);
    says(&mut pool, 1, 2);
    assert_eq!([give(&mut pool, 1), give(&mut pool, 2)], [(2, false), (2, false)]);
    says(&mut pool, 2, 3);
    assert_eq!(give(&mut pool, 3), (0, false));
    says(&mut pool, 0, 2);
    assert_eq!(give(&mut pool, 4), (1, false), "as many transfers, but fewer connections");
    let view = pool.view(now);
    assert_eq!(view.iter().map(|worker| worker.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(view.iter().map(|worker| worker.connections).collect::<Vec<_>>(), [2, 2, 3]);
    pool.kill_all();
}

#[test]
fn two_that_come_at_once_are_not_given_to_one_because_it_transfers_nothing_yet() {
    let now = Instant::now();
    let (mio_poll, mut pool) = two_that_serve(now);
    pool.note_end(1, now);
    says(&mut pool, 0, 1);
    let places = [(); 2].map(|()| give(&mio_poll, &mut pool, now + RECENT * 2).0);
    assert_eq!(places, [1, 0]);
    pool.kill_all();
}

#[test]
fn whoever_has_nothing_to_do_for_a_minute_ends_but_for_one() {
    let now = Instant::now();
    let (_poll, mut pool) = two_that_serve(now);
    pool.note_end(0, now);
    pool.note_end(1, now + IDLE / 2);
    assert_eq!(pool.deadline(now), Some(now + IDLE));
    pool.maintain(now + IDLE / 2);
    assert_eq!(pool.able(None).count(), 2);
    pool.maintain(now + IDLE * 3);
    assert_eq!(pool.able(None).map(|(_, worker)| worker.number).collect::<Vec<_>>(), [2]);
    pool.kill_all();
}

#[test]
fn one_that_is_lost_is_replaced_and_what_it_was_to_get_is_kept() {
    let (mio_poll, mut pool) = pool(1, &["true"]);
    let now = Instant::now();
    assert_eq!(give(&mio_poll, &mut pool, now), (0, true));
    give(&mio_poll, &mut pool, now);
    let [first, second] = [0, 1].map(|index: usize| pool.workers[0].waiting[index].number);
    assert!(pool.evict(0, first), "it had not read it");
    let departure = depart(&mut pool, 0, now);
    assert_eq!(departure.waiting.iter().map(|waiting| waiting.number).collect::<Vec<_>>(), [second]);
    assert!(!departure.is_lost && departure.error.is_none(), "{departure:?}");
    assert_eq!((pool.is_responsive(), pool.away(now)), (false, None));
    assert_eq!(give(&mio_poll, &mut pool, now), (0, true));
    depart(&mut pool, 0, now);
    let until = pool.away(now).expect("two have not begun");
    assert_eq!(pool.choose(mio_poll.registry(), None, now), None);
    assert_eq!(pool.choose(mio_poll.registry(), None, until), Some(Assignment { place: 0, is_new: true }));
    ends(&mut pool);
}

#[test]
fn suspects_have_a_worker_of_their_own_until_they_are_none() {
    let now = Instant::now();
    let (mio_poll, mut pool) = two_that_serve(now);
    let choose = |pool: &mut WorkerPool, slot| pool.choose(mio_poll.registry(), slot, now).unwrap();
    assert_eq!(choose(&mut pool, Some(3)), Assignment { place: 2, is_new: true });
    pool.assign(2, connection(), now);
    pool.workers[2].stage = Stage::Serving;
    pool.workers[2].note_answer(now);
    assert_eq!(choose(&mut pool, Some(3)), Assignment { place: 2, is_new: false });
    assert_eq!(choose(&mut pool, Some(1)), Assignment { place: 3, is_new: true });
    assert!([0, 1].contains(&choose(&mut pool, None).place));
    pool.note_end(2, now);
    assert!([0, 1].contains(&choose(&mut pool, None).place), "it has nothing to do, but is not for everybody");
    pool.mix(|slot| slot == 1);
    assert_eq!(choose(&mut pool, None), Assignment { place: 2, is_new: false });
    pool.kill_all();
}

#[test]
fn one_that_is_to_end_before_it_serves_is_not_lost_when_it_ends() {
    let (mio_poll, mut pool) = pool(1, &["true"]);
    let now = Instant::now();
    let place = pool.start(mio_poll.registry(), None, now).unwrap();
    let (ours, theirs) = process::link::pair().unwrap();
    pool.workers[place].link = Link::new(ours);
    pool.drain_all();
    Link::new(theirs).send(&ToSupervisor::Ready, vec![]);
    assert!(matches!(pool.poll_event(place, now), Some(PoolEvent::Said(ToSupervisor::Ready))));
    assert!(!pool.is_responsive(), "it would get connections");
    assert!(!depart(&mut pool, place, now).is_lost);
    assert_eq!(pool.backoff.until(false, now), None);
}

#[test]
fn who_does_not_answer_is_lost_and_who_does_is_not() {
    let now = Instant::now();
    let (_poll, mut pool) = two_that_serve(now);
    let (ours, theirs) = process::link::pair().unwrap();
    pool.workers[1].link = Link::new(ours);
    pool.ping_all(now);
    Link::new(theirs.try_clone().unwrap()).send(&ToSupervisor::Alive, vec![]);
    assert!(pool.poll_event(1, now).is_none());
    assert!(pool.give_up_unresponsive(now + LONGEST / 2).is_none());
    assert!(pool.deadline(now).is_some_and(|at| at < now + LONGEST));
    let departure = pool.give_up_unresponsive(now + LONGEST).expect("one has not answered");
    assert!(departure.is_lost && departure.place == 0 && departure.view.connections == 1, "{departure:?}");
    assert!(pool.give_up_unresponsive(now + LONGEST).is_none());
    // nobody waits for its end
    assert_eq!(pool.workers.len(), 1);
    ends(&mut pool);
    pool.kill_all();
}

#[test]
fn who_does_not_answer_gets_no_connections_and_one_more_is_there_where_nobody_does() {
    let now = Instant::now();
    let (mio_poll, mut pool) = two_that_serve(now);
    let fall_silent = |pool: &mut WorkerPool, place: usize, at: Instant| {
        pool.workers[place].note_answer(at);
        pool.workers[place].heartbeat.ask(at.checked_sub(TIMEOUT).unwrap());
        pool.maintain(at);
        assert!(pool.view(at)[place].silent.is_some());
    };
    fall_silent(&mut pool, 0, now);
    pool.note_end(0, now);
    assert_eq!(give(&mio_poll, &mut pool, now), (1, false), "though the other one has nothing to do");
    assert_eq!(pool.ask(&ToWorker::Sessions), [1]);
    fall_silent(&mut pool, 1, now);
    assert_eq!((pool.is_responsive(), pool.away(now)), (false, None));
    assert_eq!(give(&mio_poll, &mut pool, now), (2, true), "beyond the maximum");
    assert_eq!(give(&mio_poll, &mut pool, now), (2, false));
    fall_silent(&mut pool, 2, now);
    assert_eq!(pool.choose(mio_poll.registry(), None, now), None);
    assert_eq!(pool.away(now), Some(now + HUSH), "who comes waits");

    pool.workers[0].stage = Stage::Serving;
    pool.workers[0].note_answer(now);
    assert_eq!(pool.view(now)[0].silent, None);
    assert_eq!(give(&mio_poll, &mut pool, now), (0, false));
    assert_eq!(pool.away(now), None);
    pool.note_end(0, now);
    pool.maintain(now + IDLE * 2);
    assert!(pool.is_responsive(), "the only one that answers ended");
    pool.kill_all();
}

#[test]
fn a_pool_that_does_nothing_is_not_woken() {
    let (mio_poll, mut pool) = pool(2, &["sleep", "100"]);
    let now = Instant::now();
    let place = pool.start(mio_poll.registry(), None, now).unwrap();
    pool.workers[place].note_answer(now);
    pool.maintain(now + IDLE);
    assert_eq!(pool.deadline(now + IDLE), None);
    pool.kill_all();
}
