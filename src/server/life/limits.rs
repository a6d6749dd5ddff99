//! How much the server may take of the machine: descriptors, and with them connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::disk::helpers;
use crate::protocol::error::{Code, Error, Result};
use crate::server::status::socket::CLIENTS;

/// What a process has open that is not a client's and not a listener, whether it serves or starts those that do:
/// standard streams; the poll, with the handles of disk and databases; the signals' pipe; the log; the socket to the
/// supervisor, the names that exclude each other and the configuration; the status
/// socket and those who ask there; the directories of a repository, of its archive and its backups and of a stanza.
const OWN: u64 = 3 + 3 + 2 + 1 + 3 + (1 + CLIENTS as u64) + 4;
/// A helper has a socket, memory that it shares with the server, and what tells that it has ended.
const HELPERS: u64 = 3 * helpers::HELPERS as u64;
/// What starting a program takes for a moment, such as `getent`.
const STARTING: u64 = 4;
/// What a connection may have open: its socket, a file, the directory of that, a lock, a database and a cancellation.
const PER_CONNECTION: u64 = 6;
/// Connections without which something waits for ever for the end of something else, with a client of each kind: a
/// backup has one with the lock and one that reads or writes files, at the least, and is complete when WAL is archived,
/// which has as many if it is asynchronous; and beside these there is a look at what is there, and a ping.
const LEAST_CONNECTIONS: u64 = 2 + 2 + 1 + 1;

/// Raises the number of descriptors as far as it goes without privileges. Returns the number, `None`
/// for no limit.
pub(crate) fn raise_descriptors() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

/// How many of the `wanted` connections the descriptors allow, where there are so many `listeners`.
///
/// # Errors
///
/// Code 100 if that are too few to serve one client of each kind.
pub(crate) fn connections(wanted: usize, descriptors: Option<u64>, listeners: usize) -> Result<usize> {
    let Some(descriptors) = descriptors else { return Ok(wanted) };
    let reserved = OWN + HELPERS + STARTING + listeners as u64;
    let possible = descriptors.saturating_sub(reserved) / PER_CONNECTION;
    if possible < LEAST_CONNECTIONS {
        let needed = reserved + LEAST_CONNECTIONS * PER_CONNECTION;
        return Err(Error::new(
            Code::Kernel,
            format!(
                "{needed} open files are needed to serve one client of each kind, but this process may have \
                 {descriptors}\nHINT: set LimitNOFILE={needed} or more in the service's unit, or start it after \
                 'ulimit -Hn {needed}' or more."
            ),
        ));
    }
    Ok(wanted.min(usize::try_from(possible).unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_never_use_up_all_descriptors() {
        for (wanted, descriptors, expected) in
            [(1024, None, 1024), (1024, Some(1 << 20), 1024), (1024, Some(1024), 158), (3, Some(1024), 3)]
        {
            assert_eq!(connections(wanted, descriptors, 2).unwrap(), expected, "{descriptors:?}");
        }
    }

    #[test]
    fn too_few_for_a_client_of_each_kind_are_an_error_that_says_how_many_it_takes() {
        let text = connections(1024, Some(64), 1).unwrap_err().message;
        let needed: u64 = text.split(' ').next().unwrap().parse().unwrap();
        assert!(text.contains("may have 64\n") && text.contains(&format!("LimitNOFILE={needed} ")), "{text}");
        assert_eq!(connections(1024, Some(needed), 1).unwrap() as u64, LEAST_CONNECTIONS);
        assert!(connections(1024, Some(needed - 1), 1).is_err());
        assert!(connections(1024, Some(needed), 2).is_err());
    }

    #[test]
    fn the_soft_limit_of_descriptors_is_raised_to_the_hard_one() {
        let raised = raise_descriptors();
        assert_eq!(raised, getrlimit(Resource::Nofile).maximum);
    }
}
