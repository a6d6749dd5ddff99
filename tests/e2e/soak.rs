//! Minutes of everything at once: two clients and the real `pgbackrest` on the repository host work on
//! one repository, and in the end nothing is wrong.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::archiving::archived_segments;
use crate::for_each_release;
use crate::harness::client::Client;
use crate::harness::postgres::Cluster;
use crate::harness::{Bench, Output, temporary_files, wait_until_unlocked};

for_each_release! {
    #[ignore = "minutes of mixed commands, which only tests/run --full runs"]
    mixed_commands_leave_a_clean_repository;
}

/// How long each release works.
const TIME: Duration = Duration::from_secs(300);

fn mixed_commands_leave_a_clean_repository(release: &str) {
    let mut bench = Bench::new(release);
    for (key, value) in [
        ("process-max", "2"),
        ("repo1-retention-full", "2"),
        ("repo1-bundle", "y"),
        ("repo1-block", "y"),
        ("archive-async", "y"),
        ("compress-type", "zst"),
    ] {
        bench.client.config.set("global", key, value);
    }
    let mut cluster = bench.with_cluster();
    cluster.fill(2);
    let mut other = Client::new(&bench.server, "other");
    other.config.set("global", "repo1-retention-full", "2");
    for key in ["pg1-path", "pg1-socket-path"] {
        other.config.set("demo", key, bench.client.config.value("demo", key));
    }
    bench.client.ok(&["backup", "--type=full"]);

    let load = cluster.load();
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let (mut rounds, mut succeeded) = (0_u32, [0_u32; 3]);
    let until = Instant::now() + TIME;
    while Instant::now() < until {
        rounds += 1;
        let segment = cluster.switch_wal();
        let label = bench.client.labels().pop().unwrap_or_default();
        let backup = format!("--type={}", chance.of(&["incr", "incr", "diff", "full"]));
        let first = bench.client.start(&["backup", &backup]);
        let got = bench.workspace.path().join("got").display().to_string();
        let second = other.start(chance.of(&[
            &["info"][..],
            &["verify"],
            &["check"],
            &["expire"],
            &["repo-ls", "--recurse"],
            &["annotate", "--set", &label, "--annotation=round=one"],
            &["archive-get", &segment, &got],
            &["backup", "--type=incr"],
        ]));
        let local = chance.of(&[&["info"][..], &["verify"], &["expire"], &["stop"], &["stop", "--force"], &["check"]]);
        // only what does not look for a cluster of this host
        let third = if local[0] == "check" { bench.server.local(&["info"]) } else { bench.server.local(local) };
        for (index, output) in [first.output(TIME), second.output(TIME), third].into_iter().enumerate() {
            succeeded[index] += u32::from(tolerable(&output, local[0] == "stop"));
        }
        if local[0] == "stop" {
            bench.server.local(&["start"]).ok();
        }
        assert!(bench.server.runs(), "the server ended in round {rounds}:\n{}", bench.server.log());
    }
    drop(load);
    eprintln!("{rounds} rounds, of which succeeded {succeeded:?}");
    assert!(
        rounds >= 10 && succeeded.iter().all(|count| count * 3 >= rounds),
        "too much failed: {succeeded:?} of {rounds}"
    );

    cluster.archive();
    wait_until_unlocked(&bench.server.path("lock"));
    bench.client.ok(&["check"]);
    bench.client.ok(&["backup", "--type=full"]);
    cluster.archive();
    let rows = cluster.rows();
    cluster.stop();
    bench.client.verifies();
    let text = bench.server.local(&["verify", "--output=text", "--verbose"]).ok();
    assert!(text.contains("status: ok"), "{text}");
    assert!(!archived_segments(&bench.server.repository()).is_empty());
    assert_eq!(temporary_files(&bench.server.repository()), Vec::<PathBuf>::new());
    let mut restored = Cluster::at(&bench.workspace, "restored");
    bench.client.ok(&["restore", &format!("--pg1-path={}", restored.path.display()), "--archive-mode=off"]);
    restored.start();
    assert_eq!(restored.rows(), rows);
    restored.stop();
    wait_until_unlocked(&bench.server.path("lock"));
    assert_eq!(bench.server.terminate(), 0);
}

/// Whether a command succeeded. It may fail for what others do at the same time, and for nothing else.
#[track_caller]
fn tolerable(output: &Output, stopped: bool) -> bool {
    // somebody else's lock, a stop file (103 where several repositories could have answered), a
    // segment that is not there yet, a backup that expired meanwhile or one that changed while it was read
    let mut allowed = vec![50, 1, 75, 82];
    if stopped {
        // a session that was ended, in the words of each command
        allowed.extend([62, 103, 63, 101, 102, 55, 39, 42]);
    }
    // annotate counts its errors and ends with a code of its own
    let counted = output.code == 104 && (stopped || output.text().contains("ERROR: [050]"));
    assert!(
        output.code == 0 || counted || allowed.contains(&output.code),
        "exit code {} of {}:\n{}",
        output.code,
        output.command,
        output.text()
    );
    output.code == 0
}

/// The same choices in each run.
struct Chance(u64);

impl Chance {
    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        choices[usize::try_from(self.0 >> 33).expect("31 bits") % choices.len()]
    }
}
