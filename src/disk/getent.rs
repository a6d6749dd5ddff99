//! Names that only the C library of this host can find, by its program `getent`: those of a directory service.
//!
//! It may wait for a network, so only a helper process asks, and not for long.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

use super::names::{self, Found, Unknown};

/// How long one of the two questions may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than the answer for [`BATCH`] numbers takes, with all members of the groups.
const ANSWER_MAXIMUM: usize = 1 << 20;
/// Numbers of each kind in one question.
pub(super) const BATCH: usize = 64;
/// A longer name is none that a file system's tools could show.
const NAME_MAXIMUM: usize = 64;

/// Asks `program`, which is `getent` but in tests.
pub(super) fn look_up(program: &Path, unknown: &Unknown) -> Found {
    Found { users: ask(program, "passwd", &unknown.users), groups: ask(program, "group", &unknown.groups) }
}

fn ask(program: &Path, database: &str, numbers: &BTreeSet<u32>) -> Vec<(u32, String)> {
    if numbers.is_empty() {
        return Vec::new();
    }
    let mut command = Command::new(program);
    command.arg(database).args(numbers.iter().map(u32::to_string));
    let mut found = names::pairs(&output(&mut command).unwrap_or_default());
    // A name that is a number answers to that number as well.
    found.retain(|(number, name)| numbers.contains(number) && name.len() <= NAME_MAXIMUM);
    found
}

/// What a program prints, as far as it does so in time.
fn output(command: &mut Command) -> Option<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let mut printed = Vec::new();
    if let Some(stdout) = &mut child.stdout {
        let mut piece = [0; 4096];
        while printed.len() < ANSWER_MAXIMUM {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).unwrap_or_default();
            let mut waiting = [PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::IN)];
            if !retry_on_intr(|| poll(&mut waiting, Some(&left))).is_ok_and(|ready| ready > 0) {
                break;
            }
            match stdout.read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(count) => printed.extend_from_slice(&piece[..count]),
            }
        }
    }
    // Whatever it still does nobody waits for.
    let _ = child.kill();
    let _ = child.wait();
    Some(printed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_hosts_own_program_knows_root() {
        let unknown = Unknown { users: [0, 4_000_000_000].into(), groups: [0].into() };
        let found = look_up(Path::new("getent"), &unknown);
        let root = || vec![(0, "root".to_owned())];
        assert_eq!(found, Found { users: root(), groups: root() });
    }

    #[test]
    fn a_program_that_hangs_or_is_missing_finds_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("getent");
        std::fs::write(&program, "#!/bin/sh\necho first:x:1:\necho other:x:9:\nexec sleep 1000\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let begun = Instant::now();
        let unknown = Unknown { users: [1, 2].into(), groups: [].into() };
        assert_eq!(look_up(&program, &unknown).users, [(1, "first".to_owned())], "what it said before counts");
        assert!(begun.elapsed() < 4 * PATIENCE);
        assert_eq!(look_up(&directory.path().join("none"), &unknown), Found::default());
    }
}
