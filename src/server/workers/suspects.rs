//! Clients that were connected each time when a worker was lost.
//!
//! One that knows how to end a worker, by malice or by a mistake of ours, would otherwise take others' sessions along
//! again and again. Such a client is served by a worker of its own. A client is known by the name in its certificate
//! where it has proven that, and by its address otherwise; as the certificate is not known before a worker has read it,
//! a name is looked for at the addresses that it came from. Whoever comes from there too shares its worker, which costs
//! them no more than that.
//!
//! Whoever was not there at a loss is cleared by it. So those who were suspected because they are always there are
//! cleared when the one that does it, in a worker of its own by then, does it again.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::observe::log;

/// Who was connected at so many losses in a row is suspected.
const LOSSES: usize = 3;
/// All of them within this time; and for so long after the last one.
const LASTS: Duration = Duration::from_secs(3600);
/// Workers for suspects. Where there are more of these, some share one.
const SLOTS: usize = 4;
/// Addresses of one name.
const ADDRESSES: usize = 64;

/// Who was connected when a worker was lost.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Guest {
    /// The name in its certificate, if it was authorized.
    pub(crate) name: Option<String>,
    pub(crate) address: IpAddr,
}

/// A client, as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    Name(String),
    Address(IpAddr),
}

#[derive(Debug)]
struct Suspect {
    who: Who,
    addresses: Vec<IpAddr>,
    slot: usize,
}

/// Those who are suspected, and what for.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    /// The last losses, the earliest first, and who was connected.
    losses: VecDeque<(Instant, Vec<Guest>)>,
    all: Vec<Suspect>,
}

impl Suspects {
    /// Notes that a worker was lost that had these connections.
    pub(crate) fn lose(&mut self, mut guests: Vec<Guest>, now: Instant) {
        if guests.is_empty() {
            return;
        }
        guests.sort_unstable();
        guests.dedup();
        self.losses.push_back((now, guests));
        self.losses.retain(|(at, _)| now.saturating_duration_since(*at) < LASTS);
        while self.losses.len() > LOSSES {
            self.losses.pop_front();
        }
        self.judge();
    }

    /// Suspects whoever was there at all of the last losses, and nobody else.
    fn judge(&mut self) {
        let mut losses = self.losses.iter().map(|(_, guests)| guests.iter().map(Who::of).collect::<Vec<_>>());
        let mut always = losses.next().filter(|_| self.losses.len() == LOSSES).unwrap_or_default();
        always.dedup();
        for guests in losses {
            always.retain(|who| guests.contains(who));
        }
        let (cleared, kept) = std::mem::take(&mut self.all).into_iter().partition(|old| !always.contains(&old.who));
        self.all = kept;
        clear(cleared);
        for who in always {
            if self.all.iter().all(|old| old.who != who) {
                log::warn(format_args!(
                    "client {who} was connected each time when one of the last {LOSSES} workers was lost: it is served \
                     by a worker of its own for {} min\n\
                     HINT: see what it does in the lines before the losses.",
                    LASTS.as_secs() / 60
                ));
                self.all.push(Suspect { who, addresses: Vec::new(), slot: self.emptiest_slot() });
            }
        }
        for suspect in &mut self.all {
            for guest in self.losses.iter().flat_map(|(_, guests)| guests) {
                if Who::of(guest) == suspect.who {
                    suspect.comes_from(guest.address);
                }
            }
        }
    }

    fn emptiest_slot(&self) -> usize {
        (0..SLOTS).min_by_key(|slot| self.all.iter().filter(|suspect| suspect.slot == *slot).count()).unwrap_or(0)
    }

    /// Takes note of where a name comes from.
    pub(crate) fn meet(&mut self, guest: &Guest) {
        if let Some(suspect) = self.all.iter_mut().find(|suspect| suspect.who == Who::of(guest)) {
            suspect.comes_from(guest.address);
        }
    }

    /// Which of the workers for suspects somebody gets that comes from this address, if any.
    pub(crate) fn slot(&self, address: IpAddr) -> Option<usize> {
        self.all.iter().find(|suspect| suspect.addresses.contains(&address)).map(|suspect| suspect.slot)
    }

    /// Whom the worker of a slot is for, if there is anybody.
    pub(crate) fn of(&self, slot: usize) -> Option<String> {
        let there: Vec<_> = self.all.iter().filter(|suspect| suspect.slot == slot).collect();
        (!there.is_empty()).then(|| there.iter().map(|suspect| suspect.who.to_string()).collect::<Vec<_>>().join(", "))
    }

    /// Clears everybody when nothing was lost for long.
    pub(crate) fn tidy(&mut self, now: Instant) {
        if self.deadline().is_some_and(|at| at <= now) {
            self.losses.clear();
            clear(std::mem::take(&mut self.all));
        }
    }

    /// When [`Self::tidy`] clears somebody.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.losses.back().filter(|_| !self.all.is_empty()).map(|(at, _)| *at + LASTS)
    }
}

fn clear(suspects: Vec<Suspect>) {
    for Suspect { who, .. } in suspects {
        log::info(format_args!("client {who} is served by the same workers as others again"));
    }
}

impl Suspect {
    fn comes_from(&mut self, address: IpAddr) {
        if !self.addresses.contains(&address) && self.addresses.len() < ADDRESSES {
            self.addresses.push(address);
        }
    }
}

impl Who {
    fn of(guest: &Guest) -> Self {
        guest.name.as_ref().map_or(Self::Address(guest.address), |name| Self::Name(name.clone()))
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "'{}'", name.escape_debug()),
            Self::Address(address) => write!(f, "at {address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, host])
    }

    /// Clients, each at the address that its number says; a name in front of it if it has proven one.
    fn guests(texts: &[&str]) -> Vec<Guest> {
        let guest = |text: &&str| {
            let (name, host) = text.split_at(text.len() - 1);
            let name = Some(name.to_owned()).filter(|name| !name.is_empty());
            Guest { name, address: address(host.parse().unwrap()) }
        };
        texts.iter().map(guest).collect()
    }

    fn after(losses: &[&[&str]]) -> (Suspects, Instant) {
        let (mut suspects, now) = (Suspects::default(), Instant::now());
        for loss in losses {
            suspects.lose(guests(loss), now);
        }
        (suspects, now)
    }

    fn isolated(suspects: &Suspects) -> Vec<u8> {
        (0..10).filter(|host| suspects.slot(address(*host)).is_some()).collect()
    }

    #[test]
    fn who_was_there_each_time_is_told_from_those_who_were_not() {
        let (suspects, _) = after(&[&["bad1", "a2", "3"], &["bad4", "3", "b5"]]);
        assert_eq!(isolated(&suspects), [0_u8; 0], "twice is chance");
        let (suspects, _) = after(&[&["bad1", "a2", "3"], &["bad4", "3", "b5"], &["bad1", "3"]]);
        assert_eq!(isolated(&suspects), [1, 3, 4], "a name wherever it comes from, and somebody without one");
        assert_ne!(suspects.slot(address(1)), suspects.slot(address(3)));
        assert_eq!(suspects.slot(address(1)), suspects.slot(address(4)));
        assert_eq!(suspects.of(suspects.slot(address(1)).unwrap()).unwrap(), "'bad'");
        assert_eq!(suspects.of(suspects.slot(address(3)).unwrap()).unwrap(), "at 192.0.2.3");
        let (suspects, _) = after(&[&["a1"], &["b1"], &["c1"]]);
        assert_eq!(isolated(&suspects), [0_u8; 0], "one address, but somebody else each time");
    }

    #[test]
    fn those_who_are_always_there_are_cleared_when_it_happens_without_them() {
        let (mut suspects, now) = after(&[&["bad1", "good2"], &["bad1", "good2"], &[], &["bad1", "good2"]]);
        assert_eq!(isolated(&suspects), [1, 2]);
        let slot = suspects.slot(address(1));
        suspects.lose(guests(&["bad1"]), now);
        assert_eq!((isolated(&suspects), suspects.slot(address(1))), (vec![1], slot));
        suspects.lose(guests(&["other3"]), now);
        assert_eq!(isolated(&suspects), [0_u8; 0], "it was somebody else");
    }

    #[test]
    fn a_name_that_comes_from_elsewhere_is_found_there_too() {
        let (mut suspects, now) = after(&[&["bad1"], &["bad1"], &["bad1"]]);
        for guest in guests(&["bad7", "good8"]) {
            suspects.meet(&guest);
        }
        assert_eq!(isolated(&suspects), [1, 7]);
        let later = suspects.deadline().unwrap();
        suspects.tidy(later.checked_sub(Duration::from_secs(1)).unwrap());
        assert_eq!((isolated(&suspects), later), (vec![1, 7], now + LASTS));
        suspects.tidy(later);
        assert_eq!((isolated(&suspects), suspects.deadline()), (vec![], None));
    }

    #[test]
    fn losses_long_ago_make_nobody_suspect() {
        let (mut suspects, now) = after(&[&["bad1"], &["bad1"]]);
        suspects.lose(guests(&["bad1"]), now + LASTS);
        assert_eq!(isolated(&suspects), [0_u8; 0]);
    }

    #[test]
    fn many_suspects_share_a_few_workers() {
        let all: &[&str] = &["a1", "b2", "c3", "d4", "e5", "f6"];
        let (suspects, _) = after(&[all, all, all]);
        let slots: Vec<_> = (1..=6).map(|host| suspects.slot(address(host)).unwrap()).collect();
        assert_eq!(slots, [0, 1, 2, 3, 0, 1]);
        assert_eq!(suspects.of(0).unwrap(), "'a', 'e'");
    }
}
