use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use mio::Poll;

use super::*;
use crate::config::snapshot::Origin;
use crate::server::workers::message::ToSupervisor;

const LONGEST: Duration = Duration::from_secs(30);

/// A crew of processes that do what `program` does, and say nothing.
fn crew(maximum: usize, program: &'static [&'static str]) -> (Poll, Crew) {
    let start = move |socket: OwnedFd| {
        Command::new(program[0]).args(&program[1..]).stdin(Stdio::from(socket)).stdout(Stdio::null()).spawn()
    };
    (Poll::new().unwrap(), Crew::new(maximum, Box::new(start), &Snapshot::default(), 0o022, LONGEST).unwrap())
}

/// Gives a connection to whoever it is for: the place, and whether the worker was started for that.
fn give(poll: &Poll, crew: &mut Crew, at: Instant) -> (usize, bool) {
    let Choice { place, is_new } = crew.choose(poll.registry(), None, at).unwrap();
    crew.give(place, connection(), at);
    (place, is_new)
}

fn connection() -> Waiting {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let socket = std::fs::File::open("/dev/null").unwrap().into();
    Waiting { number: NUMBER.fetch_add(1, Ordering::Relaxed), peer: ([192, 0, 2, 1], 1).into(), socket }
}

/// How the worker in this place ends.
fn depart(crew: &mut Crew, place: usize, at: Instant) -> Departure {
    let begun = Instant::now();
    loop {
        if let Some(News::Gone(departure)) = crew.hear(place, at) {
            return departure;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "its end is not noticed");
    }
}

/// Waits until those that are gone have ended.
fn ends(crew: &mut Crew) {
    let begun = Instant::now();
    while !crew.endings.is_empty() {
        crew.endings.reap(Instant::now());
        assert!(begun.elapsed() < Duration::from_secs(30), "a process is not waited for");
    }
}

/// Two workers that serve, each with a connection since `now`.
fn two_that_serve(now: Instant) -> (Poll, Crew) {
    let (poll, mut crew) = crew(2, &["sleep", "100"]);
    for _ in 0..2 {
        let (place, _) = give(&poll, &mut crew, now);
        crew.workers[place].stage = Stage::Serving;
        crew.workers[place].waiting.clear();
        crew.workers[place].answers(now);
    }
    (poll, crew)
}

fn says(crew: &mut Crew, place: usize, transfers: usize) {
    crew.workers[place].transfers = transfers;
}

#[test]
fn a_connection_goes_where_the_fewest_transfers_are_and_nobody_is_started_without_need() {
    let (poll, mut crew) = crew(3, &["sleep", "100"]);
    let now = Instant::now();
    let give = |crew: &mut Crew, after: u32| give(&poll, crew, now + YOUNG * after);
    assert_eq!(give(&mut crew, 0), (0, true));
    crew.take_back(0, now);
    assert_eq!(give(&mut crew, 0), (0, false), "it has nothing to do");
    assert_eq!([give(&mut crew, 0), give(&mut crew, 0)], [(1, true), (2, true)]);
    says(&mut crew, 0, 1);
    says(&mut crew, 1, 2);
    assert_eq!([give(&mut crew, 1), give(&mut crew, 2)], [(2, false), (2, false)]);
    says(&mut crew, 2, 3);
    assert_eq!(give(&mut crew, 3), (0, false));
    says(&mut crew, 0, 2);
    assert_eq!(give(&mut crew, 4), (1, false), "as many transfers, but fewer connections");
    let view = crew.view(now);
    assert_eq!(view.iter().map(|worker| worker.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(view.iter().map(|worker| worker.connections).collect::<Vec<_>>(), [2, 2, 3]);
    crew.kill_all();
}

#[test]
fn two_that_come_at_once_are_not_given_to_one_because_it_transfers_nothing_yet() {
    let now = Instant::now();
    let (poll, mut crew) = two_that_serve(now);
    crew.take_back(1, now);
    says(&mut crew, 0, 1);
    let places = [(); 2].map(|()| give(&poll, &mut crew, now + YOUNG * 2).0);
    assert_eq!(places, [1, 0]);
    crew.kill_all();
}

#[test]
fn whoever_has_nothing_to_do_for_a_minute_ends_but_for_one() {
    let now = Instant::now();
    let (_poll, mut crew) = two_that_serve(now);
    crew.take_back(0, now);
    crew.take_back(1, now + IDLE / 2);
    assert_eq!(crew.deadline(now), Some(now + IDLE));
    crew.tend(now + IDLE / 2);
    assert_eq!(crew.able(None).count(), 2);
    crew.tend(now + IDLE * 3);
    assert_eq!(crew.able(None).map(|(_, worker)| worker.number).collect::<Vec<_>>(), [2]);
    crew.kill_all();
}

#[test]
fn one_that_is_lost_is_replaced_and_what_it_was_to_get_is_kept() {
    let (poll, mut crew) = crew(1, &["true"]);
    let now = Instant::now();
    assert_eq!(give(&poll, &mut crew, now), (0, true));
    give(&poll, &mut crew, now);
    let [first, second] = [0, 1].map(|index: usize| crew.workers[0].waiting[index].number);
    assert!(crew.evict(0, first), "it had not read it");
    let departure = depart(&mut crew, 0, now);
    assert_eq!(departure.waiting.iter().map(|waiting| waiting.number).collect::<Vec<_>>(), [second]);
    assert!(!departure.is_lost && departure.error.is_none(), "{departure:?}");
    assert_eq!((crew.is_well(), crew.away(now)), (false, None));
    assert_eq!(give(&poll, &mut crew, now), (0, true));
    depart(&mut crew, 0, now);
    let until = crew.away(now).expect("two have not begun");
    assert_eq!(crew.choose(poll.registry(), None, now), None);
    assert_eq!(crew.choose(poll.registry(), None, until), Some(Choice { place: 0, is_new: true }));
    ends(&mut crew);
}

#[test]
fn suspects_have_a_worker_of_their_own_until_they_are_none() {
    let now = Instant::now();
    let (poll, mut crew) = two_that_serve(now);
    let choose = |crew: &mut Crew, slot| crew.choose(poll.registry(), slot, now).unwrap();
    assert_eq!(choose(&mut crew, Some(3)), Choice { place: 2, is_new: true });
    crew.give(2, connection(), now);
    crew.workers[2].stage = Stage::Serving;
    crew.workers[2].answers(now);
    assert_eq!(choose(&mut crew, Some(3)), Choice { place: 2, is_new: false });
    assert_eq!(choose(&mut crew, Some(1)), Choice { place: 3, is_new: true });
    assert!([0, 1].contains(&choose(&mut crew, None).place));
    crew.take_back(2, now);
    assert!([0, 1].contains(&choose(&mut crew, None).place), "it has nothing to do, but is not for everybody");
    crew.mix(|slot| slot == 1);
    assert_eq!(choose(&mut crew, None), Choice { place: 2, is_new: false });
    crew.kill_all();
}

#[test]
fn one_that_is_to_end_before_it_serves_is_not_lost_when_it_ends() {
    let (poll, mut crew) = crew(1, &["true"]);
    let now = Instant::now();
    let place = crew.start(poll.registry(), None, now).unwrap();
    let (ours, theirs) = process::link::pair().unwrap();
    crew.workers[place].link = Link::new(ours);
    crew.drain_all();
    Link::new(theirs).say(&ToSupervisor::Ready, vec![]);
    assert!(matches!(crew.hear(place, now), Some(News::Said(_, ToSupervisor::Ready))));
    assert!(!crew.is_well(), "it would get connections");
    assert!(!depart(&mut crew, place, now).is_lost);
    assert_eq!(crew.pauses.until(false, now), None);
}

#[test]
fn who_does_not_answer_is_lost_and_who_does_is_not() {
    let now = Instant::now();
    let (_poll, mut crew) = two_that_serve(now);
    let (ours, theirs) = process::link::pair().unwrap();
    crew.workers[1].link = Link::new(ours);
    crew.check(now);
    Link::new(theirs.try_clone().unwrap()).say(&ToSupervisor::Alive, vec![]);
    assert!(crew.hear(1, now).is_none());
    assert!(crew.give_up(now + LONGEST / 2).is_none());
    assert!(crew.deadline(now).is_some_and(|at| at < now + LONGEST));
    let departure = crew.give_up(now + LONGEST).expect("one has not answered");
    assert!(departure.is_lost && departure.place == 0 && departure.view.connections == 1, "{departure:?}");
    assert!(crew.give_up(now + LONGEST).is_none());
    // nobody waits for its end
    assert_eq!(crew.workers.len(), 1);
    ends(&mut crew);
    crew.kill_all();
}

#[test]
fn who_does_not_answer_gets_no_connections_and_one_more_is_there_where_nobody_does() {
    let now = Instant::now();
    let (poll, mut crew) = two_that_serve(now);
    let fall_silent = |crew: &mut Crew, place: usize, at: Instant| {
        crew.workers[place].answers(at);
        crew.workers[place].pulse.ask(at.checked_sub(PATIENCE).unwrap());
        crew.tend(at);
        assert!(crew.view(at)[place].silent.is_some());
    };
    fall_silent(&mut crew, 0, now);
    crew.take_back(0, now);
    assert_eq!(give(&poll, &mut crew, now), (1, false), "though the other one has nothing to do");
    assert_eq!(crew.ask(&ToWorker::Sessions), [1]);
    fall_silent(&mut crew, 1, now);
    assert_eq!((crew.is_well(), crew.away(now)), (false, None));
    assert_eq!(give(&poll, &mut crew, now), (2, true), "beyond the maximum");
    assert_eq!(give(&poll, &mut crew, now), (2, false));
    fall_silent(&mut crew, 2, now);
    assert_eq!(crew.choose(poll.registry(), None, now), None);
    assert_eq!(crew.away(now), Some(now + HUSH), "who comes waits");

    crew.workers[0].stage = Stage::Serving;
    crew.workers[0].answers(now);
    assert_eq!(crew.view(now)[0].silent, None);
    assert_eq!(give(&poll, &mut crew, now), (0, false));
    assert_eq!(crew.away(now), None);
    crew.take_back(0, now);
    crew.tend(now + IDLE * 2);
    assert!(crew.is_well(), "the only one that answers ended");
    crew.kill_all();
}

#[test]
fn a_crew_that_does_nothing_is_not_woken() {
    let (poll, mut crew) = crew(2, &["sleep", "100"]);
    let now = Instant::now();
    let place = crew.start(poll.registry(), None, now).unwrap();
    crew.workers[place].answers(now);
    crew.tend(now + IDLE);
    assert_eq!(crew.deadline(now + IDLE), None);
    crew.kill_all();
}

#[test]
fn a_snapshot_is_recalled_as_often_as_it_is_given() {
    let origin = Origin::recording();
    origin.read("/proc/version".as_ref()).unwrap();
    let snapshot = origin.into_snapshot();
    let kept = keep(&snapshot).unwrap();
    for _ in 0..2 {
        let recalled = recall(kept.try_clone().unwrap()).unwrap();
        assert_eq!(postcard::to_allocvec(&recalled).unwrap(), postcard::to_allocvec(&snapshot).unwrap());
    }
}
