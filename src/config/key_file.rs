//! Who may read the server's private key.
//!
//! Facts: specification, section 2.4.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::protocol::error::{Code, Error, Result};

/// Checks owner and permissions of the private key at `path`, following links. A file that is not
/// there passes, because loading it reports that better.
///
/// # Errors
///
/// 42 when the owner is neither the user of this process nor root, or when others may read it.
pub fn check_key_file(path: &Path) -> Result<()> {
    let Ok(data) = fs::metadata(path) else { return Ok(()) };
    let user = rustix::process::getuid().as_raw();
    check(&path.display().to_string(), data.uid(), data.mode(), user, || user_name(user))
}

fn check(path: &str, owner: u32, mode: u32, user: u32, name: impl Fn() -> String) -> Result<()> {
    let failed = |message: String| Err(Error::new(Code::FileRead, message));
    if owner != user && owner != 0 {
        return failed(format!("key file '{path}' must be owned by the '{}' user or root", name()));
    }
    if (owner == user && mode & 0o077 != 0) || (owner == 0 && mode & 0o037 != 0) {
        return failed(format!(
            "key file '{path}' has group or other permissions\n\
             HINT: file must have permissions u=rw (0600) or less if owned by the '{}' user\n\
             HINT: file must have permissions u=rw, g=r (0640) or less if owned by root\n",
            name()
        ));
    }
    Ok(())
}

/// The name of a user by `/etc/passwd`, or the number where it has none.
fn user_name(user: u32) -> String {
    let number = user.to_string();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut rows = users.lines().map(|line| line.split(':'));
    rows.find_map(|mut row| {
        let name = row.next()?;
        (row.nth(1)? == number).then(|| name.to_owned())
    })
    .unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let permissions = "key file '/k' has group or other permissions\n\
            HINT: file must have permissions u=rw (0600) or less if owned by the 'me' user\n\
            HINT: file must have permissions u=rw, g=r (0640) or less if owned by root\n";
        let owner = "key file '/k' must be owned by the 'me' user or root";
        for (owned_by, mode, user, expected) in [
            (7, 0o600, 7, None),
            (7, 0o400, 7, None),
            (7, 0o640, 7, Some(permissions)),
            (0, 0o640, 7, None),
            (0, 0o660, 7, Some(permissions)),
            (0, 0o644, 7, Some(permissions)),
            (0, 0o650, 7, Some(permissions)),
            (8, 0o600, 7, Some(owner)),
            (0, 0o600, 0, None),
            (0, 0o640, 0, Some(permissions)),
        ] {
            let result = check("/k", owned_by, 0o100_000 | mode, user, || "me".to_owned());
            assert_eq!(result.err().map(|error| error.message).as_deref(), expected, "{owned_by} {mode:o} {user}");
        }
    }

    #[test]
    fn a_missing_key_passes() {
        assert_eq!(check_key_file(Path::new("/does/not/exist")), Ok(()));
        assert!(!user_name(0).is_empty());
    }
}
