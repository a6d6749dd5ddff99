//! Processes that this program starts: itself, as helpers of the disk and workers of the server, and what they share;
//! programs of the host that it asks; and the file systems that it sees.

pub mod asked;
pub mod budget;
pub mod link;
pub mod mounts;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// This very program once more, with `word` as its command; also when the file that it was started from has
/// been replaced meanwhile.
#[must_use]
pub fn again(word: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(env!("CARGO_PKG_NAME")).arg(word);
    command
}

/// Gives this process a name of its own, 15 bytes at most, for `ps`, `top` and `pgrep`. It was started from
/// `/proc/self/exe`, which would be all that they show; and who signals the server by its name means the
/// process that has it.
pub fn call_itself(name: &str) {
    // Without /proc there is nobody who could show it.
    let _ = fs::write("/proc/self/comm", name);
}

/// Leaves a program of the environment only what decides how the C library finds users and groups: a container whose
/// user is made up preloads a library for that. It needs nothing else of what the service manager and the administrator
/// told the server.
pub fn leave_to_c_library(command: &mut Command) -> &mut Command {
    command.env_clear().envs(std::env::vars_os().filter(|(name, _)| is_of_c_library(name)))
}

fn is_of_c_library(name: &OsStr) -> bool {
    name == "PATH" || [&b"LD_"[..], b"NSS_"].iter().any(|prefix| name.as_bytes().starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_the_environment_are_not_handed_on() {
        for (name, expected) in [
            ("PATH", true),
            ("LD_PRELOAD", true),
            ("NSS_WRAPPER_PASSWD", true),
            ("PGPASSWORD", false),
            ("PGBACKREST_REPO1_CIPHER_PASS", false),
            ("NOTIFY_SOCKET", false),
        ] {
            assert_eq!(is_of_c_library(OsStr::new(name)), expected, "{name}");
        }
    }
}
