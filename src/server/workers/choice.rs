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

/// Who is to get a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preference {
    /// The worker in this place, which has nothing to do.
    Idle(usize),
    /// One that is started for it; the one in this place if none can be started.
    New { otherwise: Option<usize> },
}

/// The preference among workers in these places: the fewest transfers, and among those the fewest connections.
pub(super) fn prefer(workers: impl Iterator<Item = (usize, Load)>) -> Preference {
    match workers.min_by_key(|(_, load)| *load) {
        Some((place, load)) if load.connections == 0 => Preference::Idle(place),
        best => Preference::New { otherwise: best.map(|(place, _)| place) },
    }
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
        assert_eq!(prefer(&[]), Preference::New { otherwise: None });
        assert_eq!(prefer(&[[0, 9, 1], [0, 0, 9]]), Preference::Idle(1));
        assert_eq!(prefer(&[[1, 1, 1], [0, 9, 9]]), Preference::New { otherwise: Some(1) });
        assert_eq!(prefer(&[[1, 2, 1], [1, 1, 9]]), Preference::New { otherwise: Some(1) });
        assert_eq!(prefer(&[[1, 1, 2], [1, 1, 1]]), Preference::New { otherwise: Some(1) }, "they take turns");
    }
}
