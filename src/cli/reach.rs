//! What the user that the service runs as cannot use of what the configuration names, as warnings of `check`.
//!
//! An administrator asks as root, who reaches everything. Modes and owners are judged for the other user here; what an
//! access list says beside them is not known, so these are warnings.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::config::{KnownRepository, ServerSettings};
use crate::disk::passwd::{GROUP, PASSWD};

const SERVED: [&str; 2] = ["posix", "cifs"];
const READ: u32 = 4;
const WRITE: u32 = 2;
const SEARCH: u32 = 1;

/// Who is going to serve.
pub(super) struct Judge {
    name: String,
    /// None for this process's own user, whom the system judges.
    other: Option<(u32, Vec<u32>)>,
}

impl Judge {
    /// For this user, or for this process's own.
    pub(super) fn of(user: Option<u32>) -> Self {
        let own = rustix::process::geteuid().as_raw();
        let uid = user.unwrap_or(own);
        let [users, groups] = [PASSWD, GROUP].map(|file| fs::read_to_string(file).unwrap_or_default());
        let line = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let line = line.into_iter().find(|fields| fields.get(2).and_then(|text| text.parse().ok()) == Some(uid));
        let name =
            line.as_ref().and_then(|fields| fields.first()).map_or_else(|| uid.to_string(), |name| (*name).to_owned());
        let primary = line.as_ref().and_then(|fields| fields.get(3)?.parse().ok());
        let has =
            |fields: &Vec<&str>| fields.get(3).is_some_and(|members| members.split(',').any(|member| member == name));
        let groups = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let further = groups.filter(has).filter_map(|fields| fields.get(2)?.parse().ok());
        let groups = primary.into_iter().chain(further).collect();
        Self { other: (uid != own).then_some((uid, groups)), name }
    }

    /// Whether it may do this with a path that is there.
    fn may(&self, path: &Path, wanted: u32) -> bool {
        let Some((uid, groups)) = &self.other else {
            let flag = |bit, access| if wanted & bit == 0 { Access::empty() } else { access };
            let access = flag(READ, Access::READ_OK) | flag(WRITE, Access::WRITE_OK) | flag(SEARCH, Access::EXEC_OK);
            return accessat(CWD, path, access, AtFlags::EACCESS).is_ok();
        };
        let Ok(path) = fs::canonicalize(path) else { return false };
        let may = |path: &Path, wanted: u32| {
            fs::metadata(path).is_ok_and(|data| {
                let class = if data.uid() == *uid {
                    6
                } else if groups.contains(&data.gid()) {
                    3
                } else {
                    0
                };
                *uid == 0 || data.mode() >> class & wanted == wanted
            })
        };
        may(&path, wanted) && path.ancestors().skip(1).all(|above| may(above, SEARCH))
    }

    /// What is wrong with the repositories of this host.
    pub(super) fn repositories(&self, repositories: &[KnownRepository]) -> Vec<String> {
        let mut warnings: Vec<String> = Vec::new();
        for KnownRepository { key, path, kind, .. } in
            repositories.iter().filter(|repository| repository.host.is_none())
        {
            let shown = path.display();
            let warning = if !SERVED.contains(&kind.as_str()) {
                format!(
                    "repo{key} is of type '{kind}', which is not served here\nHINT: clients that choose it are refused: \
                     let them reach it themselves, without repo{key}-host, or set repo{key}-type=posix for a path that is \
                     mounted."
                )
            } else if !path.exists() {
                format!(
                    "repo{key}-path '{shown}' does not exist\nHINT: if that is not a mount that is yet to come, make it: \
                     install -d -m 0750 -o {} '{shown}'",
                    self.name
                )
            } else if !self.may(path, READ | WRITE | SEARCH) {
                format!(
                    "repo{key}-path '{shown}' is not accessible for user '{}', whom the service runs as\nHINT: give it \
                     and what is in it to that user (chown -R), or run the service as its owner: see 'repohostd \
                     systemd-drop-in'.",
                    self.name
                )
            } else {
                continue;
            };
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        warnings
    }

    /// What is wrong with certificates and the key, all of which this process could read.
    pub(super) fn files(&self, server: &ServerSettings) -> Vec<String> {
        let key = &server.key_file;
        let mut warnings = Vec::new();
        if !self.may(key, READ) {
            warnings.push(format!(
                "key file '{0}' cannot be read by user '{1}', whom the service runs as\nHINT: let systemd hand it over, by \
                 'systemctl edit repohostd': [Service], LoadCredential=server.key:{0}, and set \
                 tls-server-key-file=/run/credentials/repohostd.service/server.key; or give it to that user: chown {1} \
                 '{0}'.",
                key.display(),
                self.name
            ));
        }
        let others = [Some(&server.cert_file), Some(&server.ca_file), server.own.crl_file.as_ref()];
        for path in others.into_iter().flatten().filter(|path| !self.may(path, READ)) {
            warnings.push(format!(
                "'{0}' cannot be read by user '{1}', whom the service runs as\nHINT: it holds nothing secret: chmod a+r \
                 '{0}', and a+x the directories above.",
                path.display(),
                self.name
            ));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn another_user_is_judged_by_owner_group_and_mode() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let data = fs::metadata(&file).unwrap();
        let (owner, group) = (data.uid(), data.gid());
        let judge = |uid: u32, groups: &[u32]| Judge { name: String::new(), other: Some((uid, groups.to_vec())) };
        let stranger = judge(owner + 12_345, &[]);
        let member = judge(owner + 12_345, &[group]);
        set(directory.path(), 0o755);
        for (mode, by_stranger, by_member) in [(0o600, false, false), (0o640, false, true), (0o604, true, false)] {
            set(&file, mode);
            assert_eq!((stranger.may(&file, READ), member.may(&file, READ)), (by_stranger, by_member), "{mode:o}");
            assert!(judge(owner, &[]).may(&file, READ | WRITE));
            assert!(!stranger.may(&file, READ | WRITE));
        }
        set(directory.path(), 0o750);
        assert!(!stranger.may(&file, READ), "the directory above is closed");
    }

    #[test]
    fn a_repository_that_cannot_be_used_is_named_with_the_remedy_and_one_elsewhere_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let repository = |key, path: &Path, kind: &str, host: Option<&str>| KnownRepository {
            key,
            path: path.to_owned(),
            kind: kind.to_owned(),
            host: host.map(str::to_owned),
            cipher_pass: None,
        };
        let none = directory.path().join("none");
        let warnings = Judge::of(None).repositories(&[
            repository(1, directory.path(), "posix", None),
            repository(2, &none, "cifs", None),
            repository(2, &none, "cifs", None),
            repository(3, &none, "azure", None),
            repository(4, &none, "s3", Some("elsewhere")),
        ]);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(
            warnings[0].contains("' does not exist\nHINT: ") && warnings[0].contains("install -d "),
            "{warnings:?}"
        );
        assert!(warnings[1].starts_with("repo3 is of type 'azure', which is not served here\nHINT: "), "{warnings:?}");
    }
}
