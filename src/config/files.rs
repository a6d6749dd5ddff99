//! Which configuration files are read, and what they say.
//!
//! Owns the search for files and their contents as sections and keys; knows no option. Facts:
//! specification, section 1.4.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::found::{Found, Item, Watch};
use super::ini::Ini;
use super::snapshot::Origin;
use crate::protocol::error::{Code, Error, Result};

const MAIN_FILE: &str = "pgbackrest.conf";
const INCLUDE_DIRECTORY: &str = "conf.d";
const OWN_FILE: &str = "repohostd.conf";

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
    pub(super) fn main_candidates(&self) -> (Vec<PathBuf>, bool) {
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
    pub(super) fn include_directory(&self) -> Option<(PathBuf, bool)> {
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
    /// What was read, but for `repohostd.conf`.
    found: Found,
    pub(super) ini: Ini,
    pub(super) own_ini: Ini,
}

impl Files {
    /// Reads the files that `search` finds in `origin`.
    ///
    /// # Errors
    ///
    /// 55 for a required file that is missing, 73 for a required directory that is missing, 41 and
    /// 42 for what cannot be opened or read, 29 for a malformed line.
    pub fn load(search: &Search, origin: &Origin) -> Result<Self> {
        let mut result = Self::of(search, Found::read(search, origin))?;
        let (own, required) = match &search.own_config {
            Some(own) => (own.clone(), true),
            None => (result.own_default(), false),
        };
        let contents = origin.read(&own).map_err(|error| error.raw_os_error().unwrap_or(0));
        if let Some(text) = text(&own, contents.as_deref().map_err(|error| *error), required)? {
            result.own_ini.add(&own, &text)?;
            result.own = Some(own);
        }
        Ok(result)
    }

    /// What sessions take from files as they were found later: everything but `repohostd.conf`, which stays.
    ///
    /// # Errors
    ///
    /// As for [`Files::load`].
    pub fn renewed(&self, found: Found) -> Result<Self> {
        let mut result = Self::of(&self.search, found)?;
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
        Self::of(search, Found::read(search, &Origin::Disk))
    }

    /// What notices when a file that sessions depend on has changed, appeared or vanished; `repohostd.conf` does not
    /// count, because it changes only by a reload.
    #[must_use]
    pub fn watch(&self) -> Watch {
        self.watch_over(self.found.clone())
    }

    /// As [`Files::watch`], for the same files as they were found at another time.
    #[must_use]
    pub fn watch_over(&self, found: Found) -> Watch {
        Watch::new(self.search.clone(), found)
    }

    /// What was read.
    #[must_use]
    pub const fn found(&self) -> &Found {
        &self.found
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

    /// What the files say as they were found.
    fn of(search: &Search, found: Found) -> Result<Self> {
        let (required, directory_required) =
            (search.main_candidates().1, search.include_directory().is_some_and(|(_, required)| required));
        let mut main = None;
        let mut ini = Ini::default();
        let mut in_directory = false;
        for item in found.items() {
            match item {
                Item::File(path, contents) => {
                    if let Some(text) = text(path, contents, required && !in_directory)? {
                        ini.add(path, &text)?;
                        if !in_directory {
                            main = Some(path.to_owned());
                        }
                    }
                }
                Item::Directory(path, names) => {
                    in_directory = true;
                    check_directory(path, names, directory_required)?;
                }
            }
        }
        Ok(Self { search: search.clone(), main, own: None, found, ini, own_ini: Ini::default() })
    }
}

/// The text of a file that was read; none when there is no such file.
fn text(path: &Path, contents: Result<&[u8], i32>, required: bool) -> Result<Option<String>> {
    let shown = path.display();
    match contents {
        Ok(bytes) => decoded(path, bytes).map(Some),
        Err(error) if error == Errno::NOENT.raw_os_error() && required => {
            Err(Error::new(Code::FileMissing, format!("unable to open missing file '{shown}' for read")))
        }
        Err(error) if error == Errno::NOENT.raw_os_error() => Ok(None),
        Err(error) if error == Errno::ISDIR.raw_os_error() => {
            Err(Error::system(Code::FileRead, format!("unable to read '{shown}'"), error))
        }
        Err(error) => Err(Error::system(Code::FileOpen, format!("unable to open file '{shown}' for read"), error)),
    }
}

/// The file's text. A comment may be in any encoding; a value must not be changed silently, since
/// it may be a path or a passphrase.
fn decoded(path: &Path, bytes: &[u8]) -> Result<String> {
    if let Ok(text) = str::from_utf8(bytes) {
        return Ok(text.to_owned());
    }
    for (number, line) in (1u32..).zip(bytes.split(|byte| *byte == b'\n')) {
        if !line.trim_ascii_start().starts_with(b"#") && str::from_utf8(line).is_err() {
            let message = format!("invalid UTF-8 at line {number}\nHINT: this line is in file '{}'.", path.display());
            return Err(Error::new(Code::Format, message));
        }
    }
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// Whether the directory of included files could be listed.
fn check_directory(directory: &Path, names: Result<(), i32>, required: bool) -> Result<()> {
    let shown = directory.display();
    match names {
        Err(error) if error != Errno::NOENT.raw_os_error() => {
            Err(Error::system(Code::PathOpen, format!("unable to list file info for path '{shown}'"), error))
        }
        Err(_) if required => {
            Err(Error::new(Code::PathMissing, format!("unable to list file info for missing path '{shown}'")))
        }
        _ => Ok(()),
    }
}
