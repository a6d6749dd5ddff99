//! Which configuration files are read, and whether they have changed since.
//!
//! Owns the search for files and their contents as sections and keys; knows no option. Facts:
//! specification, section 1.4.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::ini::Ini;
use super::snapshot::{self, Data};
use crate::protocol::error::{Code, Error, Result};

const MAIN_FILE: &str = "pgbackrest.conf";
const INCLUDE_DIRECTORY: &str = "conf.d";
const OWN_FILE: &str = "repohostd.conf";
const READ_ATTEMPTS: u32 = 3;

/// Where to look for configuration files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// `--config`: this main file, which must exist.
    pub config: Option<PathBuf>,
    /// `--no-config`: no main file.
    pub no_config: bool,
    /// `--config-path`: base of the default names.
    pub config_path: Option<PathBuf>,
    /// `--config-include-path`: this directory, which must exist.
    pub config_include_path: Option<PathBuf>,
    /// `--repohostd-config`: this file of our own, which must exist.
    pub own_config: Option<PathBuf>,
    /// Base of the default names when nothing is given: `/etc/pgbackrest`.
    pub default_directory: PathBuf,
    /// Main file when the default directory has none: `/etc/pgbackrest.conf`.
    pub fallback: PathBuf,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            config: None,
            no_config: false,
            config_path: None,
            config_include_path: None,
            own_config: None,
            default_directory: PathBuf::from("/etc/pgbackrest"),
            fallback: PathBuf::from("/etc/pgbackrest.conf"),
        }
    }
}

impl Search {
    /// The directory that default names are taken from.
    fn base(&self) -> &Path {
        self.config_path.as_deref().unwrap_or(&self.default_directory)
    }

    /// Main files to try in this order; the flag says that the first one must exist.
    fn main_candidates(&self) -> (Vec<PathBuf>, bool) {
        if self.no_config {
            return (vec![], false);
        }
        if let Some(config) = &self.config {
            return (vec![config.clone()], true);
        }
        let main = self.base().join(MAIN_FILE);
        if main == self.default_directory.join(MAIN_FILE) {
            (vec![main, self.fallback.clone()], false)
        } else {
            (vec![main], false)
        }
    }

    /// The directory of included files if one is read; the flag says that it must exist.
    fn include_directory(&self) -> Option<(PathBuf, bool)> {
        if let Some(directory) = &self.config_include_path {
            return Some((directory.clone(), true));
        }
        if self.config_path.is_none() && (self.config.is_some() || self.no_config) {
            return None;
        }
        Some((self.base().join(INCLUDE_DIRECTORY), false))
    }
}

/// Everything that was read: main file, `conf.d` and `repohostd.conf`.
#[derive(Debug, Clone)]
pub struct Files {
    search: Search,
    main: Option<PathBuf>,
    own: Option<PathBuf>,
    /// Each file that was looked for, and its state; none when there was no such file.
    seen: Vec<(PathBuf, Option<Data>)>,
    pub(super) ini: Ini,
    pub(super) own_ini: Ini,
}

impl Files {
    /// Reads the files that `search` finds.
    ///
    /// # Errors
    ///
    /// 55 for a required file that is missing, 73 for a required directory that is missing, 41 and
    /// 42 for what cannot be opened or read, 29 for a malformed line.
    pub fn load(search: &Search) -> Result<Self> {
        let mut result = Self::load_session_part(search)?;
        let (own, required) = match &search.own_config {
            Some(own) => (own.clone(), true),
            None => (result.own_default(), false),
        };
        if let Some(text) = read(&own, required)? {
            result.own_ini.add(&own, &text)?;
            result.own = Some(own);
        }
        Ok(result)
    }

    /// Reads again what sessions take from files: everything but `repohostd.conf`, which stays.
    ///
    /// # Errors
    ///
    /// As for [`Files::load`]; `self` stays usable.
    pub fn reload(&self) -> Result<Self> {
        let mut result = Self::load_session_part(&self.search)?;
        result.own.clone_from(&self.own);
        result.own_ini = self.own_ini.clone();
        Ok(result)
    }

    /// Reads files that a client asked for and may ask for; without `repohostd.conf`.
    ///
    /// # Errors
    ///
    /// As for [`Files::load`].
    pub(super) fn load_for_client(search: &Search) -> Result<Self> {
        Self::load_session_part(search)
    }

    /// Whether a file that sessions depend on has changed, appeared or vanished. Only looks at
    /// names and dates; `repohostd.conf` does not count, because it changes only by a reload.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.seen.iter().any(|(path, known)| stamp(path) != *known)
    }

    /// The main file in use.
    #[must_use]
    pub fn main(&self) -> Option<&Path> {
        self.main.as_deref()
    }

    /// The file of our own settings in use.
    #[must_use]
    pub fn own(&self) -> Option<&Path> {
        self.own.as_deref()
    }

    /// The main file in use, or the one that an administrator would create.
    #[must_use]
    pub fn main_or_default(&self) -> PathBuf {
        self.main.clone().unwrap_or_else(|| self.search.base().join(MAIN_FILE))
    }

    /// `repohostd.conf` in use, or the one that an administrator would create.
    #[must_use]
    pub fn own_or_default(&self) -> PathBuf {
        self.own.clone().unwrap_or_else(|| self.own_default())
    }

    /// What this was searched by.
    #[must_use]
    pub fn search(&self) -> &Search {
        &self.search
    }

    /// The directory whose `*.conf` files are included, if any.
    pub(super) fn include_directory(&self) -> Option<PathBuf> {
        self.search.include_directory().map(|(directory, _)| directory)
    }

    fn own_default(&self) -> PathBuf {
        let directory = match &self.main {
            Some(main) => main.parent().filter(|parent| !parent.as_os_str().is_empty()),
            None => Some(self.search.base()),
        };
        directory.unwrap_or(Path::new(".")).join(OWN_FILE)
    }

    fn load_session_part(search: &Search) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let result = Self::load_once(search)?;
            // A file that is replaced while it is read would be remembered with the wrong date.
            if attempt == READ_ATTEMPTS || !result.changed() {
                return Ok(result);
            }
            attempt += 1;
        }
    }

    fn load_once(search: &Search) -> Result<Self> {
        let mut result = Self {
            search: search.clone(),
            main: None,
            own: None,
            seen: vec![],
            ini: Ini::default(),
            own_ini: Ini::default(),
        };
        let (candidates, required) = search.main_candidates();
        for candidate in candidates {
            if let Some(text) = result.see(&candidate, required)? {
                result.ini.add(&candidate, &text)?;
                result.main = Some(candidate);
                break;
            }
        }
        if let Some((directory, required)) = search.include_directory() {
            result.seen.push((directory.clone(), stamp(&directory)));
            for name in list(&directory, required)? {
                let path = directory.join(name);
                if let Some(text) = result.see(&path, false)? {
                    result.ini.add(&path, &text)?;
                }
            }
        }
        Ok(result)
    }

    /// Reads a file and remembers its state, or that there is none.
    fn see(&mut self, path: &Path, required: bool) -> Result<Option<String>> {
        self.seen.push((path.to_owned(), stamp(path)));
        read(path, required)
    }
}

/// The present state of a file; none when there is no such file.
fn stamp(path: &Path) -> Option<Data> {
    snapshot::data(path).ok()
}

fn read(path: &Path, required: bool) -> Result<Option<String>> {
    let shown = path.display();
    match snapshot::read(path) {
        Ok(bytes) => text(path, bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound && required => {
            Err(Error::new(Code::FileMissing, format!("unable to open missing file '{shown}' for read")))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            Err(Error::system(Code::FileRead, format!("unable to read '{shown}'"), error.raw_os_error().unwrap_or(0)))
        }
        Err(error) => {
            let message = format!("unable to open file '{shown}' for read");
            Err(Error::system(Code::FileOpen, message, error.raw_os_error().unwrap_or(0)))
        }
    }
}

/// The file's text. A comment may be in any encoding; a value must not be changed silently, since
/// it may be a path or a passphrase.
fn text(path: &Path, bytes: Vec<u8>) -> Result<String> {
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error.into_bytes(),
    };
    for (number, line) in (1u32..).zip(bytes.split(|byte| *byte == b'\n')) {
        if !line.trim_ascii_start().starts_with(b"#") && str::from_utf8(line).is_err() {
            let message = format!("invalid UTF-8 at line {number}\nHINT: this line is in file '{}'.", path.display());
            return Err(Error::new(Code::Format, message));
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Names of included files in bytewise order.
fn list(directory: &Path, required: bool) -> Result<Vec<PathBuf>> {
    let shown = directory.display();
    let failed = |error: &io::Error| {
        let message = format!("unable to list file info for path '{shown}'");
        Error::system(Code::PathOpen, message, error.raw_os_error().unwrap_or(0))
    };
    let mut names = match snapshot::list(directory) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if required {
                let message = format!("unable to list file info for missing path '{shown}'");
                return Err(Error::new(Code::PathMissing, message));
            }
            return Ok(vec![]);
        }
        Err(error) => return Err(failed(&error)),
    };
    names.retain(|name| name.len() > ".conf".len() && name.as_bytes().ends_with(b".conf"));
    names.sort_unstable();
    Ok(names.into_iter().map(PathBuf::from).collect())
}
