//! `repohostd version`.

use argh::FromArgs;

use crate::protocol::release::{RELEASES, Release};

/// print the version, and the pgbackrest releases that can be served.
#[derive(FromArgs)]
#[argh(subcommand, name = "version")]
pub struct Version {}

/// Prints the versions; returns the exit status.
#[must_use]
pub fn run() -> u8 {
    let name = |release: &Release| {
        let mark = if release.inferred { " (inferred)" } else { "" };
        format!("{}{mark}", release.version)
    };
    let releases: Vec<_> = RELEASES.iter().map(name).collect();
    super::say(&format!("repohostd {}\npgBackRest {}", env!("CARGO_PKG_VERSION"), releases.join(", ")));
    0
}
