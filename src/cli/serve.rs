//! `repohostd serve`: the server.

use argh::FromArgs;

use crate::config::Environment;
use crate::server::life::serve::serve;

/// serve the repository until a signal ends it (the default; also called 'server').
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "serve",
    note = "Takes the options of 'pgbackrest server', from the command line, from PGBACKREST_... in the
environment and from /etc/pgbackrest/pgbackrest.conf. The most important ones:
  --config=FILE                      instead of /etc/pgbackrest/pgbackrest.conf
  --tls-server-address=LIST          names and addresses, * for all (default: localhost)
  --tls-server-port=PORT             (default: 8432)
  --tls-server-cert-file=FILE        with --tls-server-key-file and --tls-server-ca-file
  --tls-server-auth=CLIENT=STANZAS   who may do what; repeatable
  --log-level-console=LEVEL          (default: warn)
Its own:
  --release=VERSION                  the pgbackrest release of all clients (default: learned)
  --systemd                          as the unit calls it: check first, and end with 78 if that fails
  --repohostd-config=FILE            instead of repohostd.conf beside the configuration file",
    note = "SIGHUP reloads the configuration; what is wrong with it is logged, and the server goes on
with what it had. SIGTERM lets requests in flight finish and ends with status 0, SIGINT
ends at once with status 63."
)]
pub struct Serve {}

/// Serves with these options; returns the exit status.
#[must_use]
pub fn run(arguments: &[String], environment: &Environment) -> u8 {
    let mut arguments = arguments.to_vec();
    if super::take_systemd(&mut arguments) {
        let options = arguments.get(1..).unwrap_or_default();
        if let Some(status) = super::check::before_service(options, environment) {
            return status;
        }
    }
    serve(&arguments, environment)
}
