//! Counting: one case in a process of its own, which valgrind's callgrind watches.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which of memmove's variants glibc takes, whatever the processor: valgrind counts the one instruction by
/// which some of them copy as one for each byte, and that would bury all else.
const TUNABLES: &str = "glibc.cpu.hwcaps=-ERMS,-AVX_Fast_Unaligned_Load";

/// Instructions that ran below [`counted`].
pub(crate) struct Count {
    pub(crate) all: u64,
    /// Those of them that glibc spent in moving memory.
    pub(crate) moving: u64,
}

/// Does work that is counted. Callgrind knows the function by its name.
#[inline(never)]
pub(crate) fn counted<T>(work: impl FnOnce() -> T) -> T {
    std::hint::black_box(work())
}

/// Counts what `--run NAME` does.
pub(crate) fn count(name: &str) -> Result<Count, String> {
    let profile = profile(name);
    let myself = std::env::current_exe().map_err(|error| error.to_string())?;
    // nothing of the environment is to make a difference
    let watched = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*::callgrind::counted*"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(myself)
        .args(["--run", name])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GLIBC_TUNABLES", TUNABLES)
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    if !watched.status.success() {
        return Err(format!("{name}: {}\n{}", watched.status, String::from_utf8_lossy(&watched.stderr)));
    }
    let text = fs::read_to_string(&profile).map_err(|error| format!("{}: {error}", profile.display()))?;
    let all = text.lines().find_map(|line| line.strip_prefix("totals: ")?.parse().ok());
    match all {
        None => Err(format!("{}: no total", profile.display())),
        Some(0) => Err(format!("{name}: callgrind has not found the function below which it is to count")),
        Some(all) => Ok(Count { all, moving: moving(&text) }),
    }
}

/// Where callgrind writes the profile of a case.
fn profile(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("callgrind.{name}"))
}

/// The instructions of a profile that are in memmove and memcpy themselves.
fn moving(profile: &str) -> u64 {
    let mut identities = Vec::new();
    let (mut inside, mut of_callee, mut sum) = (false, false, 0);
    for line in profile.lines() {
        // a name is written out at its first mention, also as the callee of another
        if let Some(function) = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn=")) {
            let (identity, name) = function.split_once(' ').unwrap_or((function, ""));
            if name.contains("memcpy") || name.contains("memmove") {
                identities.push(identity);
            }
            if line.starts_with("fn=") {
                inside = identities.contains(&identity);
            }
        } else if line.starts_with("calls=") {
            of_callee = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok()).unwrap_or(0);
            if inside && !std::mem::take(&mut of_callee) {
                sum += cost;
            }
            of_callee = false;
        }
    }
    sum
}
