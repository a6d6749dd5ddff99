//! The configuration files and the instructions of a quickstart, as text.

use super::certificates::CLIENT;
use crate::server::status::SOCKET;

/// Where Debian keeps the cluster that its packages make.
pub(super) const PG_PATH_PLACEHOLDER: &str = "/var/lib/postgresql/15/main";

/// The server's pgbackrest.conf.
pub(super) fn server(root: &str, port: u16) -> String {
    format!(
        "# Made by repohostd quickstart: the server's side.\n\
         [global]\n\
         repo1-path={root}/repository\n\
         lock-path={root}/lock\n\
         log-path={root}/log\n\
         log-level-console=info\n\
         tls-server-address=localhost\n\
         tls-server-port={port}\n\
         tls-server-ca-file={root}/ca.crt\n\
         tls-server-cert-file={root}/server.crt\n\
         tls-server-key-file={root}/server.key\n\
         # the common name of a client's certificate, and the stanzas that it may use\n\
         tls-server-auth={CLIENT}=*\n"
    )
}

/// The server's repohostd.conf.
pub(super) fn own(root: &str, release: &str) -> String {
    format!(
        "# Made by repohostd quickstart: what pgbackrest has no option for.\n\
         [global]\n\
         # clients talk only to a server of their own release\n\
         release={release}\n\
         # what the server learns, and where 'repohostd status' asks it\n\
         state-path={root}/state\n\
         status-socket={root}/state/{SOCKET}\n"
    )
}

/// The pgbackrest.conf of clients on this host. Locks and logs are not the server's: a backup takes
/// a lock of the same name on both sides.
pub(super) fn client(root: &str, port: u16, pg_path: &str) -> String {
    format!(
        "# Made by repohostd quickstart: the side of the PostgreSQL host.\n\
         [global]\n\
         repo1-host=localhost\n\
         repo1-host-type=tls\n\
         repo1-host-port={port}\n\
         repo1-host-ca-file={root}/ca.crt\n\
         repo1-host-cert-file={root}/client.crt\n\
         repo1-host-key-file={root}/client.key\n\
         repo1-retention-full=2\n\
         lock-path={root}/client/lock\n\
         log-path={root}/client/log\n\
         spool-path={root}/client/spool\n\
         start-fast=y\n\
         \n\
         [demo]\n\
         # the data directory of your PostgreSQL cluster\n\
         pg1-path={pg_path}\n"
    )
}

/// What to try, for the terminal. Releases that do not back up from clients do it beside the server, with
/// its configuration.
pub(super) fn instructions(program: &str, root: &str, port: u16, pg_path: &str, backs_up_from_clients: bool) -> String {
    let pgbackrest = format!("pgbackrest --config={root}/client/pgbackrest.conf");
    let demo = format!("{pgbackrest} --stanza=demo");
    let backup = if backs_up_from_clients {
        format!("{demo} backup --type=full")
    } else {
        format!(
            "pgbackrest --config={root}/server/pgbackrest.conf --stanza=demo --pg1-path={pg_path} \
             --repo1-retention-full=2 --start-fast backup --type=full"
        )
    };
    format!(
        "Try it from a second terminal, as the user that runs this server:\n\
         \n\
         \x20 pgbackrest server-ping --config={root}/client/pgbackrest.conf --tls-server-port={port} localhost\n\
         \x20 {pgbackrest} repo-ls\n\
         \x20 {pgbackrest} info\n\
         \x20 {program} status --config={root}/server/pgbackrest.conf\n\
         \n\
         With a running PostgreSQL whose data directory stands in {root}/client/pgbackrest.conf\n\
         (pg1-path={pg_path}), as a user that may read it:\n\
         \n\
         \x20 {demo} stanza-create\n\
         \n\
         In postgresql.conf, followed by a restart of PostgreSQL:\n\
         \n\
         \x20 archive_mode = on\n\
         \x20 archive_command = '{demo} archive-push %p'\n\
         \n\
         \x20 {demo} check\n\
         \x20 {backup}\n\
         \x20 {demo} info\n\
         \x20 {demo} verify\n\
         \n\
         With PostgreSQL stopped:\n\
         \n\
         \x20 {demo} restore --delta\n"
    )
}

/// The value of the first line `key=value`.
pub(super) fn get<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.trim().strip_prefix(key)?.trim_start().strip_prefix('=').map(str::trim))
}

/// The text with the value of `key` replaced, or added at the end where it is missing.
pub(super) fn set(text: &str, key: &str, value: &str) -> String {
    let Some(current) = get(text, key) else { return format!("{}\n{key}={value}\n", text.trim_end()) };
    if current == value {
        return text.to_owned();
    }
    let is_key = |line: &str| get(line, key).is_some();
    let lines = text.lines().map(|line| if is_key(line) { format!("{key}={value}\n") } else { format!("{line}\n") });
    lines.collect()
}

/// The text with those options of `fresh` at its end that it lacks: an earlier release did not write them.
pub(super) fn complete(text: &str, fresh: &str) -> String {
    let options = fresh.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    options.fold(
        text.to_owned(),
        |text, (key, value)| if get(&text, key).is_none() { set(&text, key, value) } else { text },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_option_leaves_the_users_edits_alone() {
        let edited = "# mine\n[global]\ntls-server-port = 1\nlog-level-file=debug\n";
        assert_eq!(get(edited, "tls-server-port"), Some("1"));
        assert_eq!(
            set(edited, "tls-server-port", "9000"),
            "# mine\n[global]\ntls-server-port=9000\nlog-level-file=debug\n"
        );
        assert_eq!(set("[global]\n", "release", "2.55.1"), "[global]\nrelease=2.55.1\n");
        let earlier = "[global]\nrelease=2.45\n";
        let completed = complete(earlier, &own("/try", "2.60.0"));
        assert!(
            completed.starts_with(earlier) && completed.contains("\nstate-path=/try/state\nstatus-socket=/try/state/")
        );
    }
}
