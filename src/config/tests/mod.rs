//! Tests that need several parts of the configuration together.

mod cluster;
mod files;
mod properties;
mod server;
mod session;
mod sources;

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::snapshot::Origin;
use super::{Environment, Files, Loaded, Search, load_from};
use crate::protocol::error::{Code, Error, Result};

pub(super) const NEWEST: &str = "2.60.0";

/// A server's configuration directory that vanishes with the test.
pub(super) struct Site {
    directory: TempDir,
}

impl Site {
    /// A directory with this `pgbackrest.conf`.
    pub(super) fn new(main: &str) -> Self {
        let site = Self { directory: tempfile::tempdir().unwrap() };
        site.write("pgbackrest.conf", main);
        site
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(super) fn search(&self) -> Search {
        Search {
            default_directory: self.directory.path().to_owned(),
            fallback: self.path("fallback.conf"),
            ..Search::default()
        }
    }

    /// The text with the directory's path in place of `$`.
    pub(super) fn filled(&self, text: &str) -> String {
        text.replace('$', self.directory.path().to_str().unwrap())
    }

    pub(super) fn load(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Result<(Files, Loaded)> {
        let arguments: Vec<_> = arguments.iter().map(|argument| self.filled(argument)).collect();
        load_from(&arguments, &environment(variables), &self.search(), &Origin::Disk)
    }
}

/// What every server needs.
pub(super) const MINIMAL: &str = "[global]\n\
    tls-server-cert-file=/c/server.crt\n\
    tls-server-key-file=/c/server.key\n\
    tls-server-ca-file=/c/ca.crt\n\
    tls-server-auth=client=demo\n";

pub(super) fn environment(variables: &[(&str, &str)]) -> Environment {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Environment { variables: variables.collect(), process: 7 }
}

pub(super) fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Code and the first line, or as many lines as `expected` has.
#[track_caller]
pub(super) fn assert_error(error: &Error, code: Code, expected: &str) {
    let lines = expected.lines().count();
    let shown: Vec<_> = error.message.lines().take(lines).collect();
    assert_eq!((error.code, shown.join("\n").as_str()), (code, expected), "{}", error.message);
}
