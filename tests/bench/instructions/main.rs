//! How many instructions the hot paths take, against the numbers in `recorded.txt`: more than 3 % of
//! difference fails.
//!
//! `cargo bench --bench instructions`; see the README of the folder above. The program starts itself once
//! for each case under valgrind.

#[path = "../../shared/wire.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod wire;

mod callgrind;
mod cases;
mod memory;
mod recorded;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use callgrind::Count;
use cases::CASES;
use recorded::Recorded;

const USAGE: &str = "usage: cargo bench --bench instructions [-- --record]";

/// How often each case is done while it is counted. The numbers are for one time.
const ROUNDS: u32 = 20;

fn main() -> ExitCode {
    // cargo adds this one
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        [] => check(),
        ["--record"] => record(),
        ["--run", name] => run(name),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

/// Does one case, in the process that callgrind watches.
fn run(name: &str) -> Result<(), String> {
    let case = CASES.iter().find(|case| case.name() == name).ok_or("there is no such case")?;
    case.run(ROUNDS);
    Ok(())
}

fn check() -> Result<(), String> {
    let now = count_all()?;
    let recorded = Recorded::parse(&read(&recorded_file())?)?;
    let (table, complaint) = recorded.compare(&now);
    print!("{table}");
    complaint.map_or(Ok(()), Err)
}

fn record() -> Result<(), String> {
    let now = count_all()?;
    let file = recorded_file();
    fs::write(&file, now.to_string()).map_err(|error| format!("{}: {error}", file.display()))?;
    print!("{now}");
    Ok(())
}

fn count_all() -> Result<Recorded, String> {
    let mut counts = BTreeMap::new();
    for case in &CASES {
        let name = case.name();
        let Count { all, moving } = callgrind::count(&name)?;
        if case.moves_most() {
            counts.insert(format!("{name}-without-memmove"), per_round(all - moving)?);
        }
        counts.insert(name, per_round(all)?);
    }
    Ok(Recorded { compiler: compiler()?, counts })
}

fn per_round(count: u64) -> Result<u32, String> {
    u32::try_from(count / u64::from(ROUNDS)).map_err(|_| "a case that long is none for this program".to_owned())
}

/// The compiler that this was most probably built with, and what it compiles for.
fn compiler() -> Result<String, String> {
    let output = Command::new("rustc").arg("-vV").output().map_err(|error| format!("rustc: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().next();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    version.zip(host).map(|(version, host)| format!("{version} {host}")).ok_or("rustc -vV says nothing".to_owned())
}

fn recorded_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/instructions/recorded.txt")
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}
