//! Two clients that have a worker each want the same name at the same moment, again and again: a host that was
//! broken into does so to find out what one worker does not see of the other.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{SOON, sessions, with_workers, workers};
use crate::for_each_release;
use crate::harness::certificates::{Certificates, Identity};
use crate::harness::raw::Caller;
use crate::harness::roles::Role;
use crate::harness::{Bench, files, temporary_files, wait_until, wait_until_unlocked};
use crate::wire::{Answer, Conversation, How};

for_each_release! {
    a_segment_that_two_clients_write_at_once_is_archived_once: always, always, always;
    a_file_that_two_clients_replace_at_once_is_whole: always, always, always;
    a_lock_that_two_clients_want_at_once_is_held_by_one: always, always, always;
}

/// How often the two meet.
const ROUNDS: usize = 200;
/// One begins up to so much later than the other, so that they meet at different moments.
const OFFSET: Duration = Duration::from_micros(1500);
/// What whoever comes too early is told: the code and a part of the text.
const OVERTAKEN: (i32, &str) = (74, "another client has begun to write the same file");
const HOW: How = How { atomic: true, create_path: true };

/// One of the two; its connection, while it has one.
struct Racer<'a> {
    number: usize,
    caller: &'a Caller,
    connection: Option<Conversation>,
}

impl Racer<'_> {
    /// Begins a session.
    fn begin(&mut self, parameters: &[&str]) -> Answer {
        self.connection = Some(self.caller.connect());
        self.connection().config(&[&["--remote-type=repo", "--repo=1"], parameters].concat())
    }

    fn connection(&mut self) -> &mut Conversation {
        self.connection.as_mut().expect("it is connected")
    }
}

/// What a racer writes in a round.
fn content(racer: usize, round: usize) -> Vec<u8> {
    format!("racer {racer} in round {round:04}\n").repeat(1000).into_bytes()
}

/// What a racer does in a round.
type Step<'a> = dyn Fn(&mut Racer, usize) -> Answer + Sync + 'a;

/// The round, the number of the step, and when to begin.
type Order = (usize, usize, Instant);

/// Both racers, each a thread that does what it is told.
struct Race {
    racers: [(Sender<Order>, Receiver<Answer>); 2],
}

impl Race {
    /// Has both do these steps, and hands their race to `run`.
    fn run(callers: &[Caller; 2], steps: &[&Step<'_>], run: impl FnOnce(&Self)) {
        thread::scope(|scope| {
            let racers = [0, 1].map(|number| {
                let ((go, told), (tell, answers)) = (channel::<Order>(), channel());
                scope.spawn(move || {
                    let mut racer = Racer { number, caller: &callers[number], connection: None };
                    for (round, step, begin) in told {
                        while Instant::now() < begin {
                            std::hint::spin_loop();
                        }
                        let answer = steps[step](&mut racer, round);
                        if tell.send(answer).is_err() {
                            return;
                        }
                    }
                });
                (go, answers)
            });
            run(&Self { racers });
        });
    }

    /// Has both do a step at the same moment, more or less.
    fn both(&self, round: usize, step: usize) -> [Answer; 2] {
        let (later, sixteenths) = (round / 8 % 2, round / 8 * 5 % 16);
        let begin = Instant::now();
        let offset = OFFSET * u32::try_from(sixteenths).expect("it is small") / 16;
        for (number, (go, _)) in self.racers.iter().enumerate() {
            let begin = if number == later { begin + offset } else { begin };
            go.send((round, step, begin)).expect("the racer is there");
        }
        self.racers.each_ref().map(|(_, answers)| answers.recv_timeout(SOON).expect("the racer answers"))
    }
}

/// Callers with these identities.
fn callers(bench: &Bench, identities: [&Identity; 2]) -> [Caller; 2] {
    identities.map(|identity| Caller::new(bench.server.port, Some(identity), &bench.client.release))
}

/// Has both write the same file in each round, each in a session that does `command`, and hands over what they
/// are told.
fn write_at_once(
    bench: &Bench,
    identity: &Identity,
    command: &str,
    path: impl Fn(usize, usize) -> String + Sync,
    mut judge: impl FnMut(usize, [Answer; 2]),
) {
    let begin = |racer: &mut Racer, _: usize| {
        let process = format!("--process={}", racer.number + 1);
        let answer = racer.begin(&["--stanza=demo", "--exec-id=1-00c0ffee", &process, command]);
        if answer.is_done() { racer.connection().ask("noop", |_| {}) } else { answer }
    };
    let open = |racer: &mut Racer, round: usize| {
        let path = path(racer.number, round);
        racer.connection().open_write_synced(&path, HOW)
    };
    let close = |racer: &mut Racer, round: usize| {
        let content = content(racer.number, round);
        let written = racer.connection().write_block(&content);
        if written.is_done() { racer.connection().close_write() } else { written }
    };
    let write = |racer: &mut Racer, round: usize| {
        let opened = open(racer, round);
        if opened.is_done() { close(racer, round) } else { opened }
    };
    Race::run(&callers(bench, [identity; 2]), &[&begin, &write, &open, &close], |race| {
        let all_done = |answers: [Answer; 2]| assert!(answers.iter().all(Answer::is_done), "{answers:?}");
        all_done(race.both(0, 0));
        assert_different_workers(bench);
        for round in 0..ROUNDS {
            // they meet when they begin, or when the file gets its name
            if round % 8 < 4 {
                judge(round, race.both(round, 1));
            } else {
                all_done(race.both(round, 2));
                judge(round, race.both(round, 3));
            }
        }
        assert_different_workers(bench);
    });
}

fn assert_different_workers(bench: &Bench) {
    let sessions = sessions(&bench.server);
    assert_eq!(sessions.len(), 2, "{sessions:?}");
    assert_ne!(sessions[0].worker, sessions[1].worker, "both have the same worker");
}

/// Whose content a file has, if it has all of somebody's.
fn is_whole(file: &Path, round: usize) -> Option<usize> {
    let found = fs::read(file).expect("it is there");
    (0..2).find(|racer| content(*racer, round) == found)
}

/// Waits until what was not completed is gone. Clients of old releases are told so before.
fn wait_until_complete(directory: &Path) {
    wait_until("temporary files to go", SOON, || temporary_files(directory).is_empty());
}

fn a_segment_that_two_clients_write_at_once_is_archived_once(release: &str) {
    let mut bench = with_workers(release, 2);
    bench.add_roles();
    bench.server.start();
    let repository = bench.server.repository();
    let directory = repository.join("archive/demo/15-1/0000000100000001");
    let segment = |round: usize| format!("0000000100000001{round:08X}");
    // another content has another name, but for every fourth round, and the same one can be compressed otherwise
    let name = |racer: usize, round: usize| match round % 4 {
        0 => format!("{}-{:040x}", segment(round), 0),
        1 => format!("{}-{:040x}{}", segment(round), 0, [".gz", ".zst"][racer]),
        _ => format!("{}-{racer:040x}", segment(round)),
    };
    let path = |racer: usize, round: usize| directory.join(name(racer, round)).display().to_string();
    let mut archived = 0;
    write_at_once(&bench, Role::Archiver.identity(), "archive-push:remote", path, |round, answers| {
        wait_until_complete(&directory);
        let mut found = files(&directory);
        found.retain(|file| file.to_string_lossy().contains(&segment(round)));
        let told = format!("round {round}: {found:?}, {answers:?}");
        for answer in &answers {
            let Answer::Failed(code, text) = answer else { continue };
            let expected = [(105, "is there already with other content"), OVERTAKEN];
            assert!(expected.iter().any(|(other, part)| code == other && text.contains(part)), "{told}");
        }
        archived += found.len();
        let won = answers.iter().filter(|answer| answer.is_done()).count();
        match round % 4 {
            // each may have kept the other one from it
            0 if won == 0 => assert_eq!(found, Vec::<PathBuf>::new(), "{told}"),
            0 => assert!(is_whole(&found[0], round).is_some(), "{told}"),
            // where both have won, one has found what the other one wrote
            1 => assert!(won > 0 && is_whole(&found[0], round).is_some(), "{told}"),
            _ => {
                assert_eq!(won, 1, "{told}");
                let winner = usize::from(answers[1].is_done());
                assert_eq!(found, [directory.join(name(winner, round))], "{told}");
                assert_eq!(is_whole(&found[0], round), Some(winner), "{told}");
            }
        }
        assert!(found.len() <= 1, "{told}");
    });
    eprintln!("{archived} of {ROUNDS} segments were archived");
    assert!(archived > ROUNDS / 4 * 3, "only {archived} segments were archived");
}

fn a_file_that_two_clients_replace_at_once_is_whole(release: &str) {
    let mut bench = with_workers(release, 2);
    bench.server.start();
    let repository = bench.server.repository();
    let file = repository.join("archive/demo/file");
    let path = |_, _| file.display().to_string();
    let command = if release == "2.45" { "repo-put:remote" } else { "expire:remote" };
    let mut won = [0; 2];
    write_at_once(&bench, &Certificates::shared().client, command, path, |round, answers| {
        let told = format!("round {round}: {answers:?}");
        let winner = is_whole(&file, round).unwrap_or_else(|| panic!("it is from nobody: {told}"));
        assert!(answers[winner].is_done(), "its writer was told otherwise: {told}");
        won[winner] += 1;
        if let Answer::Failed(code, text) = &answers[1 - winner] {
            assert!(*code == OVERTAKEN.0 && text.contains(OVERTAKEN.1), "{told}");
        }
        wait_until_complete(&repository);
        assert_eq!(files(&repository.join("archive")), std::slice::from_ref(&file), "{told}");
    });
    assert!(won.iter().all(|count| *count > 0), "one of the two is always later: {won:?}");
}

fn a_lock_that_two_clients_want_at_once_is_held_by_one(release: &str) {
    let mut bench = with_workers(release, 2);
    let names = ["racer-0", "racer-1"];
    for name in names {
        bench.server.config.add("global", "tls-server-auth", &format!("{name}=*"));
    }
    bench.server.start();
    let locks = bench.server.path("lock");
    let suffix = if release == "2.45" { "" } else { "-1" };
    let stanza = |round: usize| format!("round{round}");
    // in every other round they are of the same run
    let run = |racer: usize, round: usize| format!("{}-0badc0de", if round.is_multiple_of(2) { 1 } else { 2 + racer });
    let begin = |racer: &mut Racer, round: usize| {
        let (stanza, run) = (format!("--stanza={}", stanza(round)), format!("--exec-id={}", run(racer.number, round)));
        racer.begin(&[&stanza, &run, "--process=0", "archive-push:remote"])
    };
    let lock = |racer: &mut Racer, _: usize| racer.connection().ask("noop", |_| {});
    let end = |racer: &mut Racer, _: usize| {
        racer.connection = None;
        Answer::Ended
    };
    let identities = names.map(|name| Certificates::shared().authority.issue(name));
    let callers = callers(&bench, identities.each_ref());
    let mut holders = HashSet::new();
    Race::run(&callers, &[&begin, &lock, &end], |race| {
        for round in 0..ROUNDS {
            let sessions = race.both(round, 0);
            assert!(sessions.iter().all(Answer::is_done), "{sessions:?}");
            let answers = race.both(round, 1);
            let winners: Vec<usize> = (0..2).filter(|racer| answers[*racer].is_done()).collect();
            if round % 2 == 0 {
                assert_eq!(winners, [0, 1], "round {round}: they are of the same run: {answers:?}");
            } else {
                let [winner] = winners[..] else { panic!("round {round}: {answers:?}") };
                let Answer::Failed(code, text) = &answers[1 - winner] else { panic!("round {round}: {answers:?}") };
                assert!(*code == 50 && text.contains("unable to acquire lock on file"), "{code}: {text}");
            }
            let file = locks.join(format!("{}-archive{suffix}.lock", stanza(round)));
            let text = fs::read_to_string(&file).expect("somebody holds it");
            let (process, owner) = holder(&text);
            assert_eq!(owner, run(winners[0], round), "round {round}");
            holders.insert(process);
            race.both(round, 2);
            wait_until_unlocked(&locks);
        }
    });
    // each worker won some rounds, in most of which the other one had the loser
    let workers: HashSet<String> = workers(&bench).iter().map(|worker| worker.as_raw_nonzero().to_string()).collect();
    assert!(workers.len() == 2 && holders == workers, "{holders:?} of {workers:?}");
    let served = || {
        let log = bench.server.log();
        let mut served: HashMap<(String, String), String> = HashMap::new();
        for line in log.lines().filter(|line| line.contains(" session end: ")) {
            let word = |prefix: &str| line.split_whitespace().find_map(|word| word.strip_prefix(prefix));
            if let (Some(name), Some(stanza), Some(worker)) = (word("client=racer-"), word("stanza="), word("P")) {
                served.insert((stanza.to_owned(), name.to_owned()), worker.to_owned());
            }
        }
        served
    };
    // The log is limited for each client, so that it tells of some of the rounds only.
    let told = || {
        let served = served();
        let worker = |round: usize, racer: &str| served.get(&(stanza(round), racer.to_owned())).cloned();
        (0..ROUNDS).filter_map(|round| Some((worker(round, "0")?, worker(round, "1")?))).collect::<Vec<_>>()
    };
    wait_until("the ends of some sessions", SOON, || told().len() >= ROUNDS / 20);
    let told = told();
    let apart = told.iter().filter(|(one, other)| one != other).count();
    eprintln!("{apart} of {} rounds with a worker each", told.len());
    assert!(apart > told.len() / 2, "only in {apart} of {} rounds they had a worker each", told.len());
}

/// The process and the run that a lock file names.
fn holder(text: &str) -> (String, String) {
    if let Ok(value) = serde_json::from_str::<serde_json::Value>(text) {
        return (value["pid"].to_string(), value["execId"].as_str().unwrap_or_default().to_owned());
    }
    let mut lines = text.lines().map(str::to_owned);
    (lines.next().unwrap_or_default(), lines.next().unwrap_or_default())
}
