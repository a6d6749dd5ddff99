//! What the same costs our server and the original: a table of medians, with both on one repository in
//! one run.
//!
//! `cargo bench --bench compare`; see the README of the folder above.

#[path = "../../e2e/harness/mod.rs"]
#[allow(dead_code, reason = "the end-to-end tests use the rest")]
mod harness;
#[path = "../../shared/wire.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod wire;

mod cluster;
mod commands;
mod group;
mod loads;
mod network;
mod servers;
mod slow;
mod stanzas;
mod table;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use harness::Bench;
use harness::certificates::Kind;
use servers::{Build, Pair};

const USAGE: &str = "usage: cargo bench --bench compare -- [--release-of RELEASE] [--quick] [--server PROGRAM] \
                     [--workers N] [MEASURE...]";

/// What can be measured, in the order of the table.
const MEASURES: [&str; 11] = [
    "connections",
    "stanzas",
    "memory",
    "archive",
    "file",
    "listing",
    "restore",
    "fsync",
    "slow",
    "network",
    "cluster",
];

/// What was asked for, and the hosts that it is measured with.
struct Run {
    bench: Bench,
    quick: bool,
    build: Build,
    asked: Vec<String>,
}

fn main() -> ExitCode {
    let mut release = "2.55.1".to_owned();
    let (mut quick, mut build, mut asked) = (false, Build::default(), Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // what cargo adds
            "--bench" => {}
            "--quick" => quick = true,
            "--release-of" => release = arguments.next().unwrap_or_default(),
            "--server" => build.binary = arguments.next().map(PathBuf::from),
            "--workers" => build.workers = arguments.next(),
            measure if MEASURES.contains(&measure) => asked.push(argument),
            _ => {
                eprintln!("{argument}: unknown\n{USAGE}\nmeasures: {}", MEASURES.join(" "));
                return ExitCode::FAILURE;
            }
        }
    }
    let mut run = Run { bench: Bench::new(&release), quick, build, asked };
    run.introduce();
    table::head(&release);
    if run.asked("connections") {
        loads::connections(&run);
    }
    if run.asked("stanzas") {
        stanzas::stanzas(&run);
    }
    if run.asked("memory") {
        loads::memory(&run);
    }
    if run.asked("file") {
        loads::file(&run);
    }
    if run.asked("listing") {
        loads::listing(&run);
    }
    if run.asked("fsync") {
        loads::fsync(&run);
    }
    if run.asked("archive") || run.asked("restore") {
        commands::commands(&mut run);
    }
    if run.asked("slow") {
        run = slow::slow(run);
    }
    if run.asked("network") {
        run = network::network(run);
    }
    if run.asked("cluster") {
        cluster::cluster(run);
    }
    ExitCode::SUCCESS
}

impl Run {
    /// Whether a measure was asked for by name, or all were.
    fn asked(&self, measure: &str) -> bool {
        self.asked.is_empty() || self.asked.iter().any(|asked| asked == measure)
    }

    /// How often each server has its turn.
    const fn rounds(&self) -> usize {
        if self.quick { 3 } else { 5 }
    }

    /// Starts both servers with keys of a kind.
    fn start(&self, keys: Kind) -> Pair {
        Pair::start(&self.bench, &self.build, Some(keys))
    }

    /// Starts both servers with the certificates that the real client trusts.
    fn start_default(&self) -> Pair {
        Pair::start(&self.bench, &self.build, None)
    }

    /// Which build of our server the memory is of.
    const fn binary_text(&self) -> &'static str {
        if self.build.binary.is_some() { "of --server" } else { "of the build for developers" }
    }

    /// Says what the numbers depend on.
    fn introduce(&self) {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let first = |path: &str, key: &str| {
            let text = read(path);
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
        };
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        println!(
            "- {cores} cores of {}, {} of memory, Linux {}",
            first("/proc/cpuinfo", "model name"),
            first("/proc/meminfo", "MemTotal"),
            read("/proc/sys/kernel/osrelease").trim()
        );
        println!("- load of the machine before (1, 5, 15 minutes): {}", read("/proc/loadavg").trim());
        let build = if self.build.binary.is_some() { "the program of --server" } else { "the build for developers" };
        let workers = self.build.workers.as_ref().map_or(String::new(), |workers| format!(", workers={workers}"));
        let sizes = if self.quick { "small sizes (--quick)" } else { "full sizes" };
        println!("- our server: {build}{workers}; medians of {} rounds; {sizes}", self.rounds());
        println!("- processor time is counted {}\n", self.start(Kind::Curve("P-256")).ours.group.text());
    }
}
