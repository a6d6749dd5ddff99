//! The material of `repohostd quickstart`: a directory with everything that a first try needs.
//!
//! Owns the layout of that directory, its throw-away certificates, its configuration files and the
//! commands that are shown to the user. It starts no server: the caller runs the ordinary one with
//! `--config=DIR/server/pgbackrest.conf`.
//!
//! ```text
//! DIR/ca.crt  server.crt  server.key  client.crt  client.key
//! DIR/repository/  log/  lock/  state/                  of the server
//! DIR/server/pgbackrest.conf  repohostd.conf
//! DIR/client/pgbackrest.conf  log/  lock/  spool/       of clients on this host
//! ```

mod certificates;
mod release;
mod text;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::cli::failed;
use crate::disk::replace_file;
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::release::Release;

/// The file that tells an earlier quickstart from a directory with somebody's data.
const MARKER: &str = ".repohostd-quickstart";
/// Directories below the one that is asked for.
const DIRECTORIES: [&str; 9] =
    ["repository", "log", "lock", "state", "server", "client", "client/log", "client/lock", "client/spool"];

/// What the user may choose.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The port to listen on. Default: that of an earlier quickstart, else 8432.
    pub port: Option<u16>,
    /// The release to announce to clients. Default: that of the installed pgbackrest, then that of an
    /// earlier quickstart, then the newest known.
    pub release: Option<&'a str>,
    /// The releases that the server can speak; at least one.
    pub known_releases: &'a [&'a str],
    /// How to run the installed pgbackrest to learn its release, usually `pgbackrest`.
    pub pgbackrest: &'a Path,
    /// How to run this very program, for the instructions.
    pub program: &'a str,
    /// The data directory of the `PostgreSQL` cluster to try it with. Default: a placeholder.
    pub pg_path: Option<&'a Path>,
}

/// A directory that is ready to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quickstart {
    /// The directory, absolute and with links resolved.
    pub directory: PathBuf,
    /// The server's configuration, for `--config`; `repohostd.conf` lies beside it.
    pub server_config: PathBuf,
    /// The clients' configuration, for their `--config`.
    pub client_config: PathBuf,
    /// The release that is announced.
    pub release: String,
    /// The port that is listened on.
    pub port: u16,
    /// Whether an earlier quickstart was found and kept.
    pub reused: bool,
    /// What the user has to know before trying: to be shown so that nobody overlooks it.
    pub warnings: Vec<String>,
    /// The commands to try, with explanations, for the terminal.
    pub instructions: String,
}

/// Makes the directory, or brings an earlier quickstart up to date: certificates that have expired
/// are renewed, options that are given replace what the files say, everything else stays.
///
/// # Errors
/// Code 32 for a directory that holds something else or whose name clients cannot handle, and for
/// an unknown release; 41, 47, 64 when the system refuses to make files or directories; 95 when
/// certificates cannot be made.
pub fn create(directory: &Path, options: &Options<'_>) -> Result<Quickstart> {
    make_directory(directory)?;
    let directory =
        fs::canonicalize(directory).map_err(|error| failed(Code::PathOpen, "unable to open", directory, &error))?;
    let root = usable_name(&directory)?.to_owned();
    let reused = claim(&directory)?;
    for name in DIRECTORIES {
        make_directory(&directory.join(name))?;
    }
    certificates::provide(&directory)?;

    let earlier = Earlier::read(&directory);
    let (release, warnings) = release::choose(options, earlier.release.as_deref())?;
    let backs_up_from_clients = Release::find(&release).is_none_or(|release| release.backs_up_from_clients);
    let port = options.port.or(earlier.port).unwrap_or(8432);
    let pg_path = match options.pg_path {
        Some(path) => Some(usable_name(path)?.to_owned()),
        None => earlier.pg_path.clone(),
    };
    let pg_path = pg_path.unwrap_or_else(|| text::PG_PATH_PLACEHOLDER.to_owned());

    let files = [
        ("server/pgbackrest.conf", text::server(&root, port), vec![("tls-server-port", port.to_string())]),
        ("server/repohostd.conf", text::own(&root, &release), vec![("release", release.clone())]),
        (
            "client/pgbackrest.conf",
            text::client(&root, port, &pg_path),
            vec![("repo1-host-port", port.to_string()), ("pg1-path", pg_path.clone())],
        ),
    ];
    for (name, fresh, settings) in files {
        let path = directory.join(name);
        let wanted = match fs::read_to_string(&path) {
            Ok(existing) => {
                let changed = settings.iter().fold(existing, |text, (key, value)| text::set(&text, key, value));
                text::complete(&changed, &fresh)
            }
            Err(_) => fresh,
        };
        write(&path, &wanted, 0o640)?;
    }

    Ok(Quickstart {
        server_config: directory.join("server/pgbackrest.conf"),
        client_config: directory.join("client/pgbackrest.conf"),
        instructions: text::instructions(options.program, &root, port, &pg_path, backs_up_from_clients),
        directory,
        release,
        port,
        reused,
        warnings,
    })
}

/// What the files of an earlier quickstart say.
#[derive(Debug, Default)]
struct Earlier {
    release: Option<String>,
    port: Option<u16>,
    pg_path: Option<String>,
}

impl Earlier {
    fn read(directory: &Path) -> Self {
        let value = |file: &str, key: &str| {
            let text = fs::read_to_string(directory.join(file)).ok()?;
            text::get(&text, key).map(str::to_owned)
        };
        Self {
            release: value("server/repohostd.conf", "release"),
            port: value("server/pgbackrest.conf", "tls-server-port").and_then(|port| port.parse().ok()),
            pg_path: value("client/pgbackrest.conf", "pg1-path"),
        }
    }
}

/// Marks an empty directory as ours; whether it already was. Anything else in it is left alone.
fn claim(directory: &Path) -> Result<bool> {
    let marker = directory.join(MARKER);
    if marker.exists() {
        return Ok(true);
    }
    let mut entries =
        fs::read_dir(directory).map_err(|error| failed(Code::PathOpen, "unable to open", directory, &error))?;
    if entries.next().is_some() {
        return Err(Error::new(
            Code::OptionInvalidValue,
            format!(
                "directory '{}' is not empty and was not made by quickstart\n\
                 HINT: name a directory that is empty or does not exist yet.",
                directory.display()
            ),
        ));
    }
    write(&marker, "made by repohostd quickstart; everything here may be deleted\n", 0o640)?;
    Ok(false)
}

/// The path as text, when configuration files and clients can handle it.
fn usable_name(path: &Path) -> Result<&str> {
    let refuse = |why: &str| {
        Error::new(Code::OptionInvalidValue, format!("directory '{}' cannot be used: {why}", path.display()))
    };
    let text = path.to_str().ok_or_else(|| refuse("its name is not UTF-8"))?;
    if !text.starts_with('/') {
        return Err(refuse("its name has to start with /"));
    }
    // Clients put parameters with a space into quotes, which the other side takes for part of the name.
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"') {
        return Err(refuse("pgbackrest cannot handle spaces, quotes and control characters in it"));
    }
    Ok(text)
}

fn make_directory(path: &Path) -> Result<()> {
    match DirBuilder::new().recursive(true).mode(0o750).create(path) {
        Ok(()) => Ok(()),
        Err(error) => Err(failed(Code::PathCreate, "unable to create", path, &error)),
    }
}

/// Replaces a file as a whole, so that an interrupted run leaves no half one behind.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    // The mode must not depend on the umask.
    replace_file(path, mode, text.as_bytes(), |file| file.set_permissions(fs::Permissions::from_mode(mode)))
        .map_err(|error| failed(Code::FileWrite, "unable to write", path, &error))
}

#[cfg(test)]
mod tests;
