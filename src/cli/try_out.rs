//! `repohostd quickstart`: makes everything that a first try needs and serves it.

use std::path::{Path, PathBuf};

use argh::FromArgs;

use super::quickstart::{self, Options};
use crate::config::Environment;
use crate::protocol::release::RELEASES;
use crate::server::life::serve::serve;

/// make a directory with a throw-away CA, certificates, a repository and configuration files, print
/// the client commands to try, and serve it.
#[derive(FromArgs)]
#[argh(subcommand, name = "quickstart")]
pub struct TryOut {
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

/// Makes the directory and serves it; returns the exit status.
#[must_use]
pub fn run(options: &TryOut, environment: &Environment) -> u8 {
    let program = std::env::current_exe().ok().and_then(|path| path.to_str().map(str::to_owned));
    let known_releases: Vec<_> = RELEASES.iter().map(|release| release.version).collect();
    let made = quickstart::create(
        &options.directory,
        &Options {
            port: options.port,
            release: options.release.as_deref(),
            known_releases: &known_releases,
            pgbackrest: Path::new("pgbackrest"),
            program: program.as_deref().unwrap_or("repohostd"),
            pg_path: options.pg_path.as_deref(),
        },
    );
    let made = match made {
        Ok(made) => made,
        Err(error) => return super::fail(&error),
    };
    super::say(&made.instructions);
    for warning in &made.warnings {
        super::say(&format!("WARN: {warning}"));
    }
    serve(&[format!("--config={}", made.server_config.display())], environment)
}
