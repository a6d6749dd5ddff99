//! The connections that workers have, as their supervisor counts them.
//!
//! A stranger's connection is given up where there is no room for another one. Whether it was a stranger's only
//! its worker knows for sure: until that has told, the connection stays in the ledger, and it counts
//! again if it was authorized a moment before.

use std::net::SocketAddr;
use std::time::Instant;

use super::suspects::Guest;
use crate::server::event_loop::admission::{Admission, site};
use crate::server::event_loop::keyed::Keyed;
use crate::server::service::Bounds;

/// The place of connections that no worker has yet.
const NOWHERE: usize = usize::MAX;

#[derive(Debug)]
pub(crate) struct Connections {
    held: Keyed<Held>,
    /// Those of them that were given up.
    given_up: usize,
    admission: Admission,
}

#[derive(Debug)]
struct Held {
    place: usize,
    peer: SocketAddr,
    standing: Standing,
    /// The name in the certificate of a connection that is authorized.
    name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is without authorization.
    Stranger,
    /// It was, and its worker was told to give it up.
    GivenUp,
    Authorized,
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self { held: Keyed::new(), given_up: 0, admission: Admission::new() }
    }

    pub(crate) fn count(&self) -> usize {
        self.held.len() - self.given_up
    }

    /// Whether `peer` may come in; and which connection, of the worker in which place, is to be given up for
    /// it.
    pub(crate) fn admit(&mut self, peer: SocketAddr, bounds: Bounds, now: Instant) -> (bool, Option<(u64, usize)>) {
        let (present, held) = (self.count(), &mut self.held);
        let mut stranger = None;
        let admitted = self.admission.admits(peer, present, bounds, now, |number| {
            let found = held.get_mut(number).filter(|held| held.standing == Standing::Stranger);
            stranger = found.map(|held| {
                held.standing = Standing::GivenUp;
                (number, held.place)
            });
            stranger.is_some()
        });
        self.given_up += usize::from(stranger.is_some());
        (admitted, stranger)
    }

    /// Enters a connection of `peer` that no worker has yet. Returns its number.
    pub(crate) fn enter(&mut self, peer: SocketAddr) -> u64 {
        let number = self.held.insert(Held { place: NOWHERE, peer, standing: Standing::Stranger, name: None });
        self.admission.enter(peer, number);
        number
    }

    /// Notes that the worker in `place` gets a connection.
    pub(crate) fn hand(&mut self, number: u64, place: usize) {
        if let Some(held) = self.held.get_mut(number) {
            held.place = place;
        }
    }

    /// Notes that a connection is to get another worker, since it was not read by the one that it had.
    pub(crate) fn hand_back(&mut self, number: u64) {
        self.hand(number, NOWHERE);
    }

    /// Notes that a connection was authorized, of a client with this name. Returns whose it is.
    pub(crate) fn prove(&mut self, number: u64, name: String) -> Option<Guest> {
        let held = self.held.get_mut(number)?;
        self.given_up -= usize::from(held.standing == Standing::GivenUp);
        held.standing = Standing::Authorized;
        held.name = Some(name);
        Some(held.guest())
    }

    /// Strikes a connection out that is over. Returns the place of its worker.
    pub(crate) fn leave(&mut self, number: u64) -> Option<usize> {
        let Held { place, peer, standing, .. } = self.held.remove(number)?;
        self.given_up -= usize::from(standing == Standing::GivenUp);
        self.admission.leave(peer);
        let held = &mut self.held;
        self.admission.tidy(|number| held.get_mut(number).is_some_and(|held| held.standing == Standing::Stranger));
        Some(place)
    }

    /// Whose connections the worker in `place` has.
    pub(crate) fn guests(&self, place: usize) -> Vec<Guest> {
        self.held.iter().filter(|(_, held)| held.place == place).map(|(_, held)| held.guest()).collect()
    }

    /// Those that the worker in `place` has: their numbers, and whose they are.
    pub(crate) fn of(&self, place: usize) -> Vec<(u64, SocketAddr)> {
        let there = self.held.iter().filter(|(_, held)| held.place == place);
        there.map(|(number, held)| (number, held.peer)).collect()
    }
}

impl Held {
    fn guest(&self) -> Guest {
        Guest { name: self.name.clone(), address: site(self.peer.ip()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { connections: 3, per_address: 3 };

    fn peer(host: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], 1))
    }

    fn enter(connections: &mut Connections, host: u8, place: usize) -> u64 {
        let number = connections.enter(peer(host));
        connections.hand(number, place);
        number
    }

    /// A ledger with as many connections as there may be, of one worker, and their numbers.
    fn full() -> (Connections, [u64; 3]) {
        let mut connections = Connections::new();
        let numbers = [1, 2, 3].map(|host| {
            assert_eq!(connections.admit(peer(host), BOUNDS, Instant::now()), (true, None));
            enter(&mut connections, host, 7)
        });
        (connections, numbers)
    }

    #[test]
    fn an_authorized_connection_is_never_given_up_when_the_limit_is_reached() {
        let (mut connections, [first, second, third]) = full();
        let now = Instant::now();
        connections.prove(first, "first".into());
        assert_eq!(connections.admit(peer(4), BOUNDS, now), (true, Some((second, 7))));
        enter(&mut connections, 4, 8);
        connections.prove(third, "third".into());
        connections.prove(connections.of(8)[0].0, "fourth".into());
        assert_eq!(connections.admit(peer(5), BOUNDS, now), (false, None), "all are authorized");
        assert_eq!(connections.leave(second), Some(7));
        assert_eq!(connections.count(), 3);
    }

    #[test]
    fn one_that_was_authorized_just_before_it_is_given_up_counts_until_it_is_over() {
        let (mut connections, [first, ..]) = full();
        let now = Instant::now();
        assert_eq!(connections.admit(peer(4), BOUNDS, now), (true, Some((first, 7))));
        enter(&mut connections, 4, 8);
        assert_eq!(connections.count(), 3);
        // what its worker said crossed what it was told
        connections.prove(first, "first".into());
        assert_eq!((connections.count(), connections.of(7).len()), (4, 3));
        for (number, _) in connections.of(7).into_iter().chain(connections.of(8)) {
            connections.prove(number, "name".into());
        }
        assert_eq!(connections.admit(peer(5), BOUNDS, now), (false, None));
        assert_eq!(connections.leave(first), Some(7));
        assert_eq!(connections.admit(peer(5), BOUNDS, now), (false, None), "there are three");
        assert_eq!((connections.leave(first), connections.count()), (None, 3), "its number does not come back");
    }

    #[test]
    fn whose_a_connection_is_is_known_by_the_name_once_it_is_proven() {
        let (mut connections, [first, ..]) = full();
        let guest = |name: Option<&str>, host| Guest { name: name.map(str::to_owned), address: peer(host).ip() };
        assert_eq!(connections.prove(first, "one".into()), Some(guest(Some("one"), 1)));
        assert_eq!(connections.guests(7), [guest(Some("one"), 1), guest(None, 2), guest(None, 3)]);
        assert_eq!(connections.guests(8), []);
    }

    #[test]
    fn a_lost_workers_connections_are_forgotten_with_those_that_were_given_up() {
        let (mut connections, _) = full();
        let now = Instant::now();
        assert!(connections.admit(peer(4), BOUNDS, now).1.is_some());
        enter(&mut connections, 4, 8);
        for (number, _) in connections.of(7) {
            assert_eq!(connections.leave(number), Some(7));
        }
        assert_eq!(connections.count(), 1);
        assert_eq!(connections.admit(peer(1), BOUNDS, now), (true, None));
    }
}
