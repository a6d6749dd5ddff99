//! Which release the server announces: a client talks only to its own.

use std::process::Command;

use super::Options;
use crate::protocol::error::{Code, Error, Result};

/// The release, and what the user has to be told about it.
pub(super) fn choose(options: &Options<'_>, earlier: Option<&str>) -> Result<(String, Vec<String>)> {
    let known = options.known_releases;
    let listed = known.join(", ");
    if let Some(release) = options.release {
        if !known.contains(&release) {
            return Err(Error::new(
                Code::OptionInvalidValue,
                format!("'{release}' is not allowed for 'release' option\nHINT: known releases are {listed}."),
            ));
        }
        return Ok((release.to_owned(), vec![]));
    }
    let installed = installed(options);
    if let Some(installed) = installed.as_deref().filter(|installed| known.contains(installed)) {
        return Ok((installed.to_owned(), vec![]));
    }
    let newest = known.iter().max_by_key(|release| numbers(release)).copied();
    let release = earlier.filter(|earlier| known.contains(earlier)).or(newest).ok_or_else(|| {
        Error::new(Code::OptionInvalidValue, "no release is known: name one with --release".to_owned())
    })?;
    let warnings = installed.map(|installed| {
        format!(
            "the installed pgbackrest is {installed}, which is not known here (known are {listed}): IT CANNOT TALK TO THIS \
             SERVER, which announces {release}. Try it with a pgbackrest of a known release."
        )
    });
    Ok((release.to_owned(), warnings.into_iter().collect()))
}

/// The release of the installed program, from `pgBackRest 2.55.1`; `None` when there is none.
fn installed(options: &Options<'_>) -> Option<String> {
    let output =
        Command::new(options.pgbackrest).arg("version").output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.trim().strip_prefix("pgBackRest ").map(str::to_owned)
}

/// A release for comparison: 2.9 is older than 2.55.1.
fn numbers(release: &str) -> Vec<u32> {
    release.split('.').map(|number| number.parse().unwrap_or(0)).collect()
}
