//! Which release the server announces: a client talks only to its own.

use std::path::Path;
use std::process::Command;

use crate::protocol::error::{Code, Error, Result};
use crate::protocol::release::{RELEASES, Release};

/// The release, and what the user has to be told about it: the `wanted` one, that of the installed `pgbackrest`, that of
/// an `earlier` quickstart, or the newest.
pub(super) fn choose(
    wanted: Option<&str>,
    pgbackrest: &Path,
    earlier: Option<&str>,
) -> Result<(&'static Release, Option<String>)> {
    let listed = || RELEASES.iter().map(|release| release.version).collect::<Vec<_>>().join(", ");
    if let Some(wanted) = wanted {
        let release = Release::find(wanted).ok_or_else(|| {
            let message = format!("'{wanted}' is not allowed for 'release' option");
            Error::new(Code::OptionInvalidValue, format!("{message}\nHINT: known releases are {}.", listed()))
        })?;
        return Ok((release, None));
    }
    let installed = installed(pgbackrest);
    if let Some(release) = installed.as_deref().and_then(Release::find) {
        return Ok((release, None));
    }
    let release = earlier.and_then(Release::find).unwrap_or_else(Release::newest);
    let warning = installed.map(|installed| {
        format!(
            "the installed pgbackrest is {installed}, which is not known here (known are {}): IT CANNOT TALK TO THIS \
             SERVER, which announces {}. Try it with a pgbackrest of a known release.",
            listed(),
            release.version
        )
    });
    Ok((release, warning))
}

/// The release of the installed program, from `pgBackRest 2.55.1`; `None` when there is none.
fn installed(pgbackrest: &Path) -> Option<String> {
    let output = Command::new(pgbackrest).arg("version").output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.trim().strip_prefix("pgBackRest ").map(str::to_owned)
}
