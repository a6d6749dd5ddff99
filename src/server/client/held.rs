//! The configuration files that sessions use: read by one process, the owner, and used by all.
//!
//! Administrators add a stanza without a reload, so each session looks whether the files are still what was read; that
//! is a `stat` of each. Where they are not, the owner reads them again before the session goes on. A worker asks the
//! owner, and takes what that has accepted. Files that cannot be used leave the last good ones in place, which is warned
//! of once.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::config::{self, Environment, Fault, Files, Found, OwnSettings, Watch};
use crate::observe::log;
use crate::protocol::error::{Code, Error, Result};

pub(crate) struct Held {
    pub(crate) files: Files,
    /// Over what was read last, whether that can be used or not.
    watch: Watch,
    /// What is wrong with the files in use, since the start.
    faults: Vec<Fault>,
    owner: Owner,
}

/// Who reads the files.
enum Owner {
    /// This process.
    Here {
        /// Those of the server's command line.
        arguments: Vec<String>,
        /// What was warned of last.
        complaint: Option<Error>,
    },
    /// Another one; whether it is to be asked.
    Elsewhere { wanted: bool },
}

/// What the owner tells.
#[derive(Serialize, Deserialize)]
struct Told {
    /// What is in use.
    accepted: Found,
    /// What was read last, if that cannot be used.
    refused: Option<Found>,
}

impl Held {
    /// Files that were just read, by this process for the command line with these arguments.
    pub(crate) fn new(files: Files, arguments: &[String], faults: Vec<Fault>) -> Self {
        let owner = Owner::Here { arguments: arguments.to_vec(), complaint: None };
        Self { watch: files.watch(), files, faults, owner }
    }

    /// Has another process read the files from now on.
    pub(crate) fn follow(&mut self) {
        self.owner = Owner::Elsewhere { wanted: false };
    }

    /// What is wrong with the files in use.
    pub(crate) fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Whether the files are those that count now. Where this process reads them, they are afterwards.
    pub(super) fn is_current(&mut self, environment: &Environment, own: &OwnSettings, now: Instant) -> bool {
        if self.watch.is_current(now) {
            return true;
        }
        match &mut self.owner {
            Owner::Here { .. } => {
                if let Some(error) = self.refresh(environment, own) {
                    log::warn(format_args!(
                        "configuration files changed but cannot be used, so sessions go on with what was read last: \
                         {error}\nHINT: what is mended counts at once, without a reload."
                    ));
                }
                true
            }
            Owner::Elsewhere { wanted } => {
                *wanted = true;
                false
            }
        }
    }

    /// A reload has failed and has said why, so that it is not said again if it was because of these files.
    pub(crate) fn outlive_reload(&mut self, environment: &Environment, own: &OwnSettings, now: Instant) {
        if !self.watch.is_current(now) {
            let _ = self.refresh(environment, own);
        }
    }

    /// Reads the files again; why they cannot be used, unless that is known.
    fn refresh(&mut self, environment: &Environment, own: &OwnSettings) -> Option<Error> {
        let Owner::Here { arguments, complaint } = &mut self.owner else { return None };
        let found = self.watch.renew().clone();
        let read = self.files.renewed(found).and_then(|files| usable(files, arguments, environment, own, &self.faults));
        match read {
            Ok((files, faults)) => {
                if complaint.take().is_some() {
                    log::info(format_args!("configuration files can be used again: sessions take what they say now"));
                }
                (self.files, self.faults) = (files, faults);
                None
            }
            Err(error) if complaint.as_ref() == Some(&error) => None,
            Err(error) => {
                *complaint = Some(error.clone());
                Some(error)
            }
        }
    }

    /// What another process is to use.
    pub(crate) fn tell(&mut self, environment: &Environment, own: &OwnSettings, now: Instant) -> Vec<u8> {
        self.is_current(environment, own, now);
        let accepted = self.files.found().clone();
        let refused = Some(self.watch.found()).filter(|found| **found != accepted).cloned();
        // Serializing to memory does not fail.
        postcard::to_allocvec(&Told { accepted, refused }).unwrap_or_default()
    }

    /// Uses what the owner told.
    ///
    /// # Errors
    ///
    /// 29 for what makes no sense; nothing has changed then.
    pub(crate) fn take(&mut self, told: &[u8]) -> Result<()> {
        let told: Told = postcard::from_bytes(told)
            .map_err(|error| Error::new(Code::Format, format!("unable to take over configuration files: {error}")))?;
        self.files = self.files.renewed(told.accepted)?;
        self.watch = told.refused.map_or_else(|| self.files.watch(), |refused| self.files.watch_over(refused));
        Ok(())
    }

    /// Whether the owner is to be asked, which is said once.
    pub(crate) fn takes_question(&mut self) -> bool {
        match &mut self.owner {
            Owner::Here { .. } => false,
            Owner::Elsewhere { wanted } => std::mem::take(wanted),
        }
    }
}

/// The files if they can be used, with what is wrong with them that was wrong before.
fn usable(
    files: Files,
    arguments: &[String],
    environment: &Environment,
    own: &OwnSettings,
    before: &[Fault],
) -> Result<(Files, Vec<Fault>)> {
    let main = files.main_or_default();
    let files = config::check_files(arguments, environment, files, own).map_err(|error| with_place(error, &main))?;
    let faults = config::faults(&files, environment, own);
    check_faults(&faults, before)?;
    Ok((files, faults))
}

/// Whether nothing is wrong that was not wrong `before`.
///
/// # Errors
///
/// The first of what is.
pub(crate) fn check_faults(faults: &[Fault], before: &[Fault]) -> Result<()> {
    match faults.iter().find(|fault| !before.iter().any(|known| known.is_like(fault))) {
        Some(fault) => Err(fault.error.clone()),
        None => Ok(()),
    }
}

/// What lacks stands nowhere, so this names where it would.
pub(crate) fn with_place(error: Error, main: &Path) -> Error {
    if error.code == Code::OptionRequired {
        let message = format!("{}\nHINT: it was expected in '{}'.", error.message, main.display());
        return Error { message, ..error };
    }
    error
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;
    use crate::config::snapshot::Origin;
    use crate::config::{load_from, repositories};

    const SERVER: &str = "[global]\ntls-server-auth=client=demo\ntls-server-cert-file=/c\ntls-server-key-file=/k\n\
                          tls-server-ca-file=/a\n";

    /// A server's directory, and what two processes hold of it: the one that reads the files, and another one.
    struct Site {
        directory: TempDir,
        arguments: Vec<String>,
        own: OwnSettings,
        owner: Held,
        other: Held,
    }

    impl Site {
        fn new(text: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = |name: &str| directory.path().join(name).display().to_string();
            fs::create_dir(path("conf.d")).unwrap();
            let arguments = vec![
                format!("--config={}", path("pgbackrest.conf")),
                format!("--config-include-path={}", path("conf.d")),
            ];
            fs::write(path("pgbackrest.conf"), SERVER.to_owned() + text).unwrap();
            let (files, loaded) =
                load_from(&arguments, &Environment::default(), &crate::config::Search::default(), &Origin::Disk)
                    .unwrap();
            let own = loaded.server.own;
            let faults = config::faults(&files, &Environment::default(), &own);
            let owner = Held::new(files.clone(), &arguments, faults);
            let mut other = Held::new(files, &arguments, vec![]);
            other.follow();
            Self { directory, arguments, own, owner, other }
        }

        fn main(&self, text: &str) {
            fs::write(self.directory.path().join("pgbackrest.conf"), SERVER.to_owned() + text).unwrap();
        }

        fn included(&self, text: &str) {
            fs::write(self.directory.path().join("conf.d/more.conf"), text).unwrap();
        }

        /// Where this host's repositories are for a session of the process that reads, and for one of another, which has
        /// to ask.
        fn paths(&mut self) -> Vec<PathBuf> {
            let (environment, now) = (Environment::default(), Instant::now());
            let of = |held: &Held| -> Vec<_> {
                let known = repositories(&held.files, &environment).into_iter();
                known.filter(|repository| repository.host.is_none()).map(|repository| repository.path).collect()
            };
            while !self.other.is_current(&environment, &self.own, now) {
                assert!(self.other.takes_question() && !self.other.takes_question());
                let told = self.owner.tell(&environment, &self.own, now);
                self.other.take(&told).unwrap();
            }
            assert!(self.owner.is_current(&environment, &self.own, now));
            let paths = of(&self.owner);
            assert_eq!(of(&self.other), paths, "two processes serve something else");
            paths
        }

        /// What a reload comes to.
        fn reload(&mut self) -> Result<()> {
            let (files, loaded) =
                load_from(&self.arguments, &Environment::default(), &crate::config::Search::default(), &Origin::Disk)?;
            let faults = config::faults(&files, &Environment::default(), &loaded.server.own);
            check_faults(&faults, self.owner.faults())?;
            self.owner = Held::new(files, &self.arguments, faults);
            Ok(())
        }
    }

    fn paths(texts: &[&str]) -> Vec<PathBuf> {
        texts.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn what_is_written_counts_for_the_next_session_of_each_process() {
        let mut site = Site::new("repo1-path=/old\n");
        assert_eq!(site.paths(), paths(&["/old"]));
        for round in 0..20 {
            site.included(&format!("[new]\nrepo1-path=/new{round}\n"));
            assert_eq!(site.paths(), paths(&["/old", &format!("/new{round}")]));
        }
        fs::remove_file(site.directory.path().join("conf.d/more.conf")).unwrap();
        assert_eq!(site.paths(), paths(&["/old"]));
    }

    #[test]
    fn what_cannot_be_used_leaves_the_last_good_files_in_place_in_every_process() {
        let mut site = Site::new("repo1-path=/old\n");
        site.main("repo1-path=/good\n");
        assert_eq!(site.paths(), paths(&["/good"]));
        for (text, expected) in [
            ("repo1-path=/other\n[half", "ini section should end with ]"),
            ("repo1-path=/other\nbuffer-size=3\n", "'3' is not allowed for 'buffer-size' option"),
            ("repo1-path=other\n", "'other' must begin with / for 'repo1-path' option"),
            ("repo1-path=/other\n[demo]\nrepo1-path=\n", "section 'demo', key 'repo1-path' must have a value"),
            (
                "repo1-path=/other\n[demo:backup]\nprotocol-timeout=x\n",
                "'x' is not valid for 'protocol-timeout' option",
            ),
            ("repo1-path=/other\n[demo]\npg1-port=70000\n", "'70000' is out of range for 'pg1-port' option"),
            ("repo1-path=/other\nrepo2-path=/other\n", "local repo1 and repo2 paths are both '/other'"),
            ("repo1-path=/other\nneutral-umask=maybe\n", "boolean option 'neutral-umask' must be 'y' or 'n'"),
            (
                "repo1-path=/other\n[demo]\nprotocol-timeout=5\ndb-timeout=9\n",
                "'5' is not valid for 'protocol-timeout' option",
            ),
        ] {
            site.main(text);
            assert_eq!(site.paths(), paths(&["/good"]), "{text}");
            let Owner::Here { complaint: Some(error), .. } = &site.owner.owner else {
                panic!("nothing is wrong: {text}")
            };
            assert!(error.message.contains(expected), "{error}");
            assert!(error.message.contains("pgbackrest.conf"), "the file is not named: {error}");
            let said = error.message.lines().next().map(str::to_owned);
            assert_eq!(site.reload().unwrap_err().message.lines().next(), said.as_deref());
        }
        // a file that is just being written has less in it
        fs::write(site.directory.path().join("pgbackrest.conf"), "").unwrap();
        assert_eq!(site.paths(), paths(&["/good"]));
        site.main("repo1-path=/mended\n");
        assert_eq!(site.paths(), paths(&["/mended"]));
        assert!(matches!(&site.owner.owner, Owner::Here { complaint: None, .. }));
    }

    #[test]
    fn what_was_wrong_at_the_start_keeps_nothing_else_from_counting() {
        let mut site = Site::new("repo1-path=/old\n[demo]\nrepo1-path=wrong\n");
        assert_eq!(site.owner.faults().len(), 1);
        site.included("[new]\nrepo1-path=/new\n");
        assert_eq!(site.paths(), paths(&["/old", "/new"]));
        site.main("#\nrepo1-path=/other\n[demo]\nrepo1-path=wrong\n");
        assert_eq!(site.paths(), paths(&["/other", "/new"]));
        site.reload().unwrap();
        site.included("[new]\nrepo1-path=wrong\n");
        assert_eq!(site.paths(), paths(&["/other", "/new"]));
        site.reload().unwrap_err();
        site.included("[new]\nrepo1-path=/newer\n");
        site.main("repo1-path=/other\n");
        assert_eq!(site.paths(), paths(&["/other", "/newer"]));
        assert_eq!(site.owner.faults(), []);
    }

    #[test]
    fn an_option_that_no_session_uses_may_be_wrong() {
        let mut site = Site::new("repo1-path=/old\n");
        site.main("repo1-path=/new\ncompress-level=abc\n[global:archive-push]\nunknown=x\n[demo]\nrepo1-host=x\nrepo2-host=y\n");
        assert_eq!(site.paths(), paths(&["/new"]));
        site.reload().unwrap();
    }
}
