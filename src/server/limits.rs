//! How much the server may take of the machine: descriptors, and with them connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are not for clients: listeners, poll, signals, log, standard streams.
const RESERVED: u64 = 64;
/// Descriptors that a connection may need: its socket, a file, a directory, a lock.
const PER_CONNECTION: u64 = 4;

/// Raises the number of descriptors as far as it goes without privileges. Returns the number, `None`
/// for no limit.
#[must_use]
pub fn raise_descriptors() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

/// How many of the `wanted` connections the descriptors allow.
#[must_use]
pub fn connections(wanted: usize, descriptors: Option<u64>) -> usize {
    let Some(descriptors) = descriptors else { return wanted };
    let possible = (descriptors.saturating_sub(RESERVED) / PER_CONNECTION).max(1);
    wanted.min(usize::try_from(possible).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_never_use_up_all_descriptors() {
        for (wanted, descriptors, expected) in
            [(1024, None, 1024), (1024, Some(1 << 20), 1024), (1024, Some(1024), 240), (1024, Some(10), 1)]
        {
            assert_eq!(connections(wanted, descriptors), expected, "{descriptors:?}");
        }
    }

    #[test]
    fn the_soft_limit_of_descriptors_is_raised_to_the_hard_one() {
        let raised = raise_descriptors();
        assert_eq!(raised, getrlimit(Resource::Nofile).maximum);
    }
}
