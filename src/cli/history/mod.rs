//! `repohostd history`: earlier versions of info files, and one of them put back.

mod restore;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use argh::FromArgs;

use super::failed;
use super::status::Grid;
use crate::config::{Environment, Host, load_host};
use crate::protocol::error::{Code, Error, Result};
use crate::repository::policy::info::{InfoFile, Reading};
use crate::repository::policy::versions::VersionName;
use crate::server::life::configuration::{check_history, history_path};

const STANZA: &str = "--stanza";
const REPO: &str = "--repo";
const RESTORE: &str = "--restore";

/// list the earlier versions of backup.info and archive.info that were kept when clients replaced them,
/// the oldest first, or put one back. Takes the options of 'serve', so that it finds the same files.
#[derive(FromArgs)]
#[argh(subcommand, name = "history")]
#[expect(dead_code, reason = "argh shows them in the help")]
pub struct History {
    /// only versions of this stanza
    #[argh(option, arg_name = "name")]
    stanza: Option<String>,
    /// only versions in this repository
    #[argh(option, arg_name = "n")]
    repo: Option<u16>,
    /// put this version back, named as in the list or by its path, in place of the file and its copy
    #[argh(option, arg_name = "version")]
    restore: Option<String>,
}

/// Lists or restores; returns the exit status.
#[must_use]
pub fn run(arguments: &[String], environment: &Environment) -> u8 {
    super::report(answer(arguments, environment))
}

/// An earlier version of an info file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    name: VersionName,
    /// The info file.
    file: PathBuf,
    /// Where the version is.
    path: PathBuf,
    size: u64,
}

impl Version {
    fn stanza(&self) -> &str {
        self.file.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default()
    }
}

fn answer(arguments: &[String], environment: &Environment) -> Result<String> {
    let mut others = arguments.to_vec();
    let [stanza, repo, wanted] = [STANZA, REPO, RESTORE].map(|name| take(&mut others, name));
    let (stanza, repo, wanted) = (stanza?, repo?, wanted?);
    let host = load_host(&others, environment)?;
    check_history(&host.own, &host.repositories)?;
    let Some(history) = history_path(&host.own) else {
        return Err(Error::new(
            Code::PathMissing,
            "no versions of info files are kept\nHINT: set history-path in repohostd.conf, or make the state \
             directory, and leave info-history above 0.",
        ));
    };
    let mut versions = Vec::new();
    find(&history, Path::new("/"), &mut versions)?;
    versions.sort();
    if let Some(stanza) = &stanza {
        versions.retain(|version| version.stanza() == stanza);
    }
    if let Some(key) = &repo {
        let paths = repository_paths(&host, key)?;
        versions.retain(|version| paths.iter().any(|path| version.file.starts_with(path)));
    }
    match wanted {
        Some(wanted) => restore::restore(&host, &history, choose(&versions, &wanted)?),
        None if versions.is_empty() => Ok(format!("no versions are kept in '{}' yet", history.display())),
        None => list(&host, &versions),
    }
}

/// Takes an option with its value out of the arguments.
fn take(arguments: &mut Vec<String>, name: &str) -> Result<Option<String>> {
    let mut value = None;
    while let Some(index) = arguments
        .iter()
        .position(|argument| argument.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')))
    {
        let argument = arguments.remove(index);
        let joined = argument.split_once('=').map(|(_, value)| value.to_owned());
        let given = joined.or_else(|| (index < arguments.len()).then(|| arguments.remove(index)));
        let given = given.filter(|given| !given.is_empty());
        let given =
            given.ok_or_else(|| Error::new(Code::OptionInvalid, format!("option '{name}' requires a value")))?;
        if value.replace(given).is_some() {
            return Err(Error::new(Code::OptionInvalid, format!("option '{name}' cannot be set multiple times")));
        }
    }
    Ok(value)
}

fn repository_paths<'a>(host: &'a Host, key: &str) -> Result<Vec<&'a Path>> {
    let repositories = host.repositories.iter().filter(|repository| repository.key.to_string() == key);
    let paths: Vec<_> = repositories.map(|repository| repository.path.as_path()).collect();
    if paths.is_empty() {
        return Err(Error::new(Code::OptionInvalidValue, format!("key '{key}' is not valid for 'repo' option")));
    }
    Ok(paths)
}

/// Adds all versions in `directory`, which holds those of the file `of`, and below it.
fn find(directory: &Path, of: &Path, versions: &mut Vec<Version>) -> Result<()> {
    let failed = |error: std::io::Error| failed(Code::PathOpen, "unable to list file info for path", directory, &error);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let (Ok(kind), Some(name)) = (entry.file_type(), entry.file_name().to_str().map(str::to_owned)) else {
            continue;
        };
        if kind.is_dir() {
            find(&entry.path(), &of.join(name), versions)?;
        } else if let (true, Some(name), Ok(metadata)) = (kind.is_file(), VersionName::parse(&name), entry.metadata()) {
            versions.push(Version { name, file: of.to_owned(), path: entry.path(), size: metadata.len() });
        }
    }
    Ok(())
}

/// The version that `wanted` names.
fn choose<'a>(versions: &'a [Version], wanted: &str) -> Result<&'a Version> {
    let is_wanted = |version: &&Version| {
        if wanted.contains('/') { version.path == Path::new(wanted) } else { version.name.to_string() == wanted }
    };
    let found: Vec<_> = versions.iter().filter(is_wanted).collect();
    match found[..] {
        [version] => Ok(version),
        [] => Err(Error::new(
            Code::FileMissing,
            format!("there is no version '{wanted}'\nHINT: 'repohostd history' lists all versions."),
        )),
        _ => {
            let paths: Vec<_> = found.iter().map(|version| version.path.display().to_string()).collect();
            let message = format!("version '{wanted}' is of several files\nHINT: name one: {}", paths.join(", "));
            Err(Error::new(Code::OptionInvalidValue, message))
        }
    }
}

fn list(host: &Host, versions: &[Version]) -> Result<String> {
    let mut grid = Grid::new(&["VERSION", "FILE", "SIZE", "BACKUPS", "NEWEST"]);
    for version in versions {
        let (backups, newest) = match understand(host, &read(&version.path)?) {
            Reading::Known(file) => match newest(&file) {
                Some(newest) => (file.labels().count().to_string(), newest.to_owned()),
                None => ("0".to_owned(), "-".to_owned()),
            },
            Reading::Opaque => ("encrypted".to_owned(), "-".to_owned()),
            Reading::Damaged(_) => ("damaged".to_owned(), "-".to_owned()),
        };
        let is_archive = version.file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("archive"));
        let backups = if is_archive && backups == "0" { "-".to_owned() } else { backups };
        // Names of directories may hold anything.
        let file = version.file.display().to_string().escape_debug().to_string();
        grid.add(vec![version.name.to_string(), file, version.size.to_string(), backups, newest]);
    }
    Ok(grid.render())
}

fn understand(host: &Host, bytes: &[u8]) -> Reading {
    let passes = host.repositories.iter().filter_map(|repository| repository.cipher_pass.as_ref());
    InfoFile::read(bytes, &passes.map(|pass| pass.0.as_slice()).collect::<Vec<_>>())
}

/// The label of the backup that was made last: that of a full backup is the beginning of those that
/// depend on it.
fn newest(file: &InfoFile) -> Option<&str> {
    file.labels().max_by_key(|label| label.rsplit('_').next().map(str::to_owned))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| failed(Code::FileRead, "unable to read", path, &error))
}

#[cfg(test)]
mod tests;
