//! What the file systems of the repositories do not keep from happening, for `repohostd check`.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::Timestamp;

use super::entries;
use crate::config::{Host, KnownRepository, OwnSettings, Role};
use crate::disk::trial;
use crate::repository::policy::aged;

/// So many backups from the future are named.
const NAMED: usize = 8;

/// What is to be said of the repositories of this host. Where names must not be given twice, that is tried with an
/// empty file.
pub(super) fn warnings(host: &Host) -> Vec<String> {
    let mut paths: Vec<&Path> = host.repositories.iter().map(|KnownRepository { path, .. }| path.as_path()).collect();
    paths.sort_unstable();
    paths.dedup();
    let mut warnings = Vec::new();
    if replaces_nothing(&host.own) {
        warnings.extend(paths.iter().filter_map(|path| name_warning(path)));
    }
    if !host.own.protection.min_age.is_zero() {
        warnings.extend(paths.iter().flat_map(|path| from_the_future(path)));
    }
    warnings
}

/// Whether something relies on a file not being replaced.
fn replaces_nothing(own: &OwnSettings) -> bool {
    let roles = own.rights.iter().filter_map(|rights| rights.role).chain([own.role]);
    !own.protection.min_age.is_zero() || roles.into_iter().any(|role| [Role::Archiver, Role::Backup].contains(&role))
}

fn name_warning(repository: &Path) -> Option<String> {
    let place = repository.display();
    match trial::refuses_taken_names(repository) {
        Ok(true) => None,
        // That is said elsewhere.
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Ok(false) => Some(format!(
            "the file system of repository '{place}' has neither hard links nor RENAME_NOREPLACE: that roles and min-age \
             replace nothing is seen to among the clients of this server only\nHINT: nothing else may write there at \
             the same time, no second server and no pgbackrest command on another host."
        )),
        Err(error) => Some(format!(
            "whether the file system of repository '{place}' can refuse to replace a file could not be tried: {error}"
        )),
    }
}

/// A warning for each backup that comes from the future.
fn from_the_future(repository: &Path) -> Vec<String> {
    let backups = entries(&repository.join("backup")).flat_map(|stanza| entries(&stanza));
    backups
        .filter_map(|backup| {
            let changed = fs::symlink_metadata(backup.join("backup.manifest")).ok()?.ctime();
            Some(aged::future_backup(backup.display(), aged::future(changed, Timestamp::now())?))
        })
        .take(NAMED)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NamedRights;

    #[test]
    fn names_matter_where_something_must_not_be_replaced() {
        let mut own = OwnSettings::default();
        assert!(!replaces_nothing(&own));
        own.rights.push(NamedRights { name: "host".to_owned(), role: Some(Role::Reader), stanzas: None });
        assert!(!replaces_nothing(&own));
        own.rights.push(NamedRights { name: "other".to_owned(), role: Some(Role::Archiver), stanzas: None });
        assert!(replaces_nothing(&own));
        let mut own = OwnSettings { role: Role::Backup, ..OwnSettings::default() };
        assert!(replaces_nothing(&own));
        own.role = Role::Admin;
        own.protection.min_age = std::time::Duration::from_secs(1);
        assert!(replaces_nothing(&own));
    }

    #[test]
    fn a_repository_like_any_other_needs_no_warning() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("backup/demo/20260101-000000F")).unwrap();
        fs::write(directory.path().join("backup/demo/20260101-000000F/backup.manifest"), "").unwrap();
        assert_eq!(name_warning(directory.path()), None);
        assert_eq!(name_warning(&directory.path().join("missing")), None);
        assert_eq!(from_the_future(directory.path()), Vec::<String>::new());
    }
}
