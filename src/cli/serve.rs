//! `repohostd serve`: the server.

use argh::FromArgs;

use crate::config::Environment;
use crate::server::serve::serve;

/// serve the repository until a signal ends it (the default; also called 'server').
///
/// Takes the options of 'pgbackrest server', from the command line, from PGBACKREST_... in the
/// environment and from /etc/pgbackrest/pgbackrest.conf, most important of them:
/// --config=FILE, --tls-server-address, --tls-server-port, --tls-server-cert-file,
/// --tls-server-key-file, --tls-server-ca-file, --tls-server-auth, --log-level-console;
/// and of its own --release=VERSION, the pgbackrest release to announce, and
/// --repohostd-config=FILE, default repohostd.conf beside the configuration file.
///
/// SIGHUP reloads the configuration, SIGTERM lets requests in flight finish and ends with status 0,
/// SIGINT ends at once with status 63.
#[derive(FromArgs)]
#[argh(subcommand, name = "serve")]
pub struct Serve {}

/// Serves with these options; returns the exit status.
#[must_use]
pub fn run(arguments: &[String], environment: &Environment) -> u8 {
    serve(arguments, environment)
}
