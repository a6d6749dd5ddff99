//! `repohostd quickstart`: makes a directory with everything that a first try needs, and serves it.
//!
//! Owns the layout of that directory, its throw-away certificates, its configuration files and the
//! commands that are shown to the user. What serves is the ordinary server, with
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

use argh::FromArgs;

use crate::cli::failed;
use crate::config::Environment;
use crate::disk::replace_file;
use crate::protocol::error::{Code, Error, Result};
use crate::server::life::serve::serve;

/// The file that tells an earlier quickstart from a directory with somebody's data.
const MARKER: &str = ".repohostd-quickstart";
/// Directories below the one that is asked for.
const DIRECTORIES: [&str; 9] =
    ["repository", "log", "lock", "state", "server", "client", "client/log", "client/lock", "client/spool"];

/// make a directory with a throw-away CA, certificates, a repository and configuration files, print
/// the client commands to try, and serve it.
#[derive(FromArgs)]
#[argh(subcommand, name = "quickstart")]
pub struct Options {
    /// where to make it (default: ./repohostd-quickstart)
    #[argh(option, default = "PathBuf::from(\"repohostd-quickstart\")")]
    directory: PathBuf,
    /// the port to listen on (default: 8432)
    #[argh(option)]
    port: Option<u16>,
    /// the pgbackrest release to announce (default: that of the installed pgbackrest)
    #[argh(option)]
    release: Option<String>,
    /// the data directory of the cluster to try it with, for the printed commands
    #[argh(option)]
    pg_path: Option<PathBuf>,
}

/// A directory that is ready to be served.
struct Quickstart {
    /// The server's configuration, for `--config`; `repohostd.conf` lies beside it.
    server_config: PathBuf,
    /// What the user has to know before trying: to be shown so that nobody overlooks it.
    warning: Option<String>,
    /// The commands to try, with explanations, for the terminal.
    instructions: String,
}

/// Makes the directory and serves it; returns the exit status.
#[must_use]
pub fn run(options: &Options, environment: &Environment) -> u8 {
    let program = std::env::current_exe().ok().and_then(|path| path.to_str().map(str::to_owned));
    match create(options, program.as_deref().unwrap_or("repohostd"), Path::new("pgbackrest")) {
        Ok(made) => {
            super::say(&made.instructions);
            if let Some(warning) = &made.warning {
                super::say(&format!("WARN: {warning}"));
            }
            serve(&[format!("--config={}", made.server_config.display())], environment)
        }
        Err(error) => super::fail(&error),
    }
}

/// Makes the directory, or brings an earlier quickstart up to date: certificates that have expired
/// are renewed, options that are given replace what the files say, everything else stays. `program` is how to run this
/// very program, for the instructions; `pgbackrest` how to learn the release of the installed one.
///
/// # Errors
/// Code 32 for a directory that holds something else or whose name clients cannot handle, and for
/// an unknown release; 41, 47, 64 when the system refuses to make files or directories; 95 when
/// certificates cannot be made.
fn create(options: &Options, program: &str, pgbackrest: &Path) -> Result<Quickstart> {
    let directory = &options.directory;
    make_directory(directory)?;
    let directory =
        fs::canonicalize(directory).map_err(|error| failed(Code::PathOpen, "unable to open", directory, &error))?;
    let root = usable_name(&directory)?;
    claim(&directory)?;
    for name in DIRECTORIES {
        make_directory(&directory.join(name))?;
    }
    certificates::provide(&directory)?;

    let earlier = |file: &str, key: &str| {
        let text = fs::read_to_string(directory.join(file)).ok()?;
        text::get(&text, key).map(str::to_owned)
    };
    let earlier_release = earlier("server/repohostd.conf", "release");
    let (release, warning) = release::choose(options.release.as_deref(), pgbackrest, earlier_release.as_deref())?;
    let earlier_port = || earlier("server/pgbackrest.conf", "tls-server-port")?.parse().ok();
    let port = options.port.or_else(earlier_port).unwrap_or(8432);
    let pg_path = match &options.pg_path {
        Some(path) => Some(usable_name(path)?.to_owned()),
        None => earlier("client/pgbackrest.conf", "pg1-path"),
    };
    let pg_path = pg_path.unwrap_or_else(|| text::PG_PATH_PLACEHOLDER.to_owned());

    let files = [
        ("server/pgbackrest.conf", text::server(root, port), vec![("tls-server-port", port.to_string())]),
        ("server/repohostd.conf", text::own(root, release.version), vec![("release", release.version.to_owned())]),
        (
            "client/pgbackrest.conf",
            text::client(root, port, &pg_path),
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
        warning,
        instructions: text::instructions(program, root, port, &pg_path, release.backs_up_from_clients),
    })
}

/// Marks an empty directory as ours, unless it already is. Anything else in it is left alone.
fn claim(directory: &Path) -> Result<()> {
    let marker = directory.join(MARKER);
    if marker.exists() {
        return Ok(());
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
    write(&marker, "made by repohostd quickstart; everything here may be deleted\n", 0o640)
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
    let made = DirBuilder::new().recursive(true).mode(0o750).create(path);
    made.map_err(|error| failed(Code::PathCreate, "unable to create", path, &error))
}

/// Replaces a file as a whole, so that an interrupted run leaves no half one behind.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    // The mode must not depend on the umask.
    replace_file(path, mode, text.as_bytes(), |file| file.set_permissions(fs::Permissions::from_mode(mode)))
        .map_err(|error| failed(Code::FileWrite, "unable to write", path, &error))
}

#[cfg(test)]
mod tests;
