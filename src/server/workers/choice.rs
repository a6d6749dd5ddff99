//! Which worker gets the next connection.

/// What a worker has to do, in the order in which it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Load {
    /// Its transfers, those included that may come.
    pub(super) transfers: usize,
    pub(super) connections: usize,
    /// When it got its last connection, as a number.
    pub(super) turn: u64,
}

/// The place of the worker with the fewest transfers, and among those the fewest connections; whether it has nothing to
/// do at all.
pub(super) fn prefer(workers: impl Iterator<Item = (usize, Load)>) -> Option<(usize, bool)> {
    workers.min_by_key(|(_, load)| *load).map(|(place, load)| (place, load.connections == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_a_transfer_while_another_worker_has_none() {
        let prefer = |loads: &[[usize; 3]]| {
            let load = |[transfers, connections, turn]: [usize; 3]| Load { transfers, connections, turn: turn as u64 };
            prefer(loads.iter().map(|numbers| load(*numbers)).enumerate())
        };
        assert_eq!(prefer(&[]), None);
        assert_eq!(prefer(&[[0, 9, 1], [0, 0, 9]]), Some((1, true)));
        assert_eq!(prefer(&[[1, 1, 1], [0, 9, 9]]), Some((1, false)));
        assert_eq!(prefer(&[[1, 2, 1], [1, 1, 9]]), Some((1, false)));
        assert_eq!(prefer(&[[1, 1, 2], [1, 1, 1]]), Some((1, false)), "they take turns");
    }
}
