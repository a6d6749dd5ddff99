//! What clients taught: a state machine without I/O and without a clock.
//!
//! A client that hangs up at the greeting has refused exactly the release that it was greeted with;
//! one that sends a request has confirmed it. Of each [`Key`] the releases that worked are kept,
//! since hosts of several releases may share address and certificate. What is tried next:
//!
//! 1. the releases that work for this client these days;
//! 2. one candidate, and then those of 1 again: a client may hang up for other reasons than its
//!    release, and must not be away from the right one for long.
//!
//! Several releases of one key take [`Turns`]. One that has worked stays in spite of some refusals if refusals of it
//! have been wrong before: somebody silent beside the client must not keep it from its release.
//!
//! Candidates are the releases seen on this server, the last one first, and then those of the
//! [`Table`]. For a client that worked before, newer releases come before older ones, and first of
//! all the newest that is seen here: hosts are upgraded to what others were upgraded to.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::Key;
use super::lesson::{Lesson, What};
use super::table::{Table, Worked, same};
use super::turns::{Moment, Turns};
use crate::protocol::release::Release;

/// Clients with a certificate that are remembered.
pub(crate) const CLIENTS_MAXIMUM: usize = 4096;
/// Addresses that pinged and are remembered. Strangers cannot push clients out.
pub(crate) const ADDRESSES_MAXIMUM: usize = 1024;
/// Releases remembered of each.
const WORKED_MAXIMUM: usize = 8;
/// What worked up to this time before the last success still counts as in use, in seconds.
const RECENT: u64 = 7 * 24 * 3600;
/// A date is worth writing down again after this time, in seconds.
const DATE_MATTERS: u64 = 24 * 3600;
/// Wrong hints in a row after which no more are taken: whoever shares a client's address must not be
/// able to keep it from its release.
const HINTS_BELIEVED: u32 = 2;
/// Returns to an earlier release after which clients of several releases are behind one key, and not somebody's try.
const RETURNS_SUSPECTED: u32 = 2;
/// Refusals in a row, for each release that takes turns, that those who fail in between each other may cause.
const REFUSALS_OF_KNOWN: u32 = 8;
/// Refusals in a row that a release stays in spite of, at most, of a client that shows a certificate and of a ping.
/// Each time that refusals were wrong doubles them.
const PATIENCE_MAXIMUM: (u32, u32) = (4, 16);

/// The release for one connection, and the state of knowledge that it was chosen in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    /// What the client is greeted with.
    pub(crate) release: &'static Release,
    turn: u64,
    moment: Moment,
}

/// How much it matters that what was learned is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// Nothing is new.
    #[default]
    None,
    /// Dates and orders.
    Minor,
    /// A client's release.
    News,
}

/// What is known of one client.
#[derive(Debug, Default)]
struct Entry {
    /// The last one first.
    worked: Vec<Worked>,
    /// What the same host, in another role, was just found to speak.
    hint: Option<&'static Release>,
    /// Hints in a row that were wrong.
    misled: u32,
    /// Releases in use that were refused since the last candidate.
    refused: Vec<&'static Release>,
    /// Candidates that were refused since the last success.
    missed: Vec<&'static Release>,
    /// Whose turn it is among several releases in use.
    turns: Turns,
    /// Refusals in a row that what is in use stays in spite of, less one.
    patience: u32,
    /// Refusals of it since the last success.
    doubts: u32,
    /// Refusals of those that take turns since the last success.
    streak: u32,
    /// Numbers the choices, so that a refusal counts only while its choice stands.
    turn: u64,
    /// How often an earlier release came back.
    returns: u32,
    /// That clients of several releases have shown themselves has been told.
    told: bool,
    /// When something happened last, in seconds since the epoch.
    active: u64,
}

impl Entry {
    /// Releases in use.
    fn current(&self) -> impl Iterator<Item = &'static Release> {
        let last = self.worked.first().map_or(0, |worked| worked.at);
        let worked = self.worked.iter().filter(move |worked| worked.at + RECENT >= last);
        self.hint.into_iter().chain(worked.map(|worked| worked.release))
    }

    /// The release in use was refused; whether it stays in spite of that.
    fn bears(&mut self, key: &Key, refused: &Release) -> bool {
        let stays = self.hint.is_none()
            && !self.is_shared(key)
            && self.current().any(|current| same(current, refused))
            && self.doubts < self.patience;
        self.doubts += u32::from(stays);
        stays
    }

    /// A release worked, so that refusals of it before were somebody else's or something else.
    fn learn_patience(&mut self, key: &Key, worked: &Release, maximum: u32) {
        let last = self.worked.first().is_some_and(|last| same(last.release, worked));
        if !last || self.is_shared(key) {
            self.patience = 0;
        } else if self.refused.iter().chain(&self.missed).next().is_some() {
            self.patience = (self.patience * 2).clamp(1, maximum);
        }
    }

    /// Forgets what was refused.
    fn settle(&mut self) {
        self.hint = None;
        self.refused.clear();
        self.missed.clear();
        self.doubts = 0;
        self.streak = 0;
    }

    /// Whether clients of several releases may be behind it. Pings come from monitors, too, which refuse what is right:
    /// of these an earlier release must have come back.
    fn is_shared(&self, key: &Key) -> bool {
        self.hint.is_none() && (self.returns > 0 || key.client.is_some()) && self.current().nth(1).is_some()
    }

    /// Whether so many refusals followed each other that somebody may be there whose release is none of those in use.
    /// Those in use have their turns between two guesses. Until an earlier release has come back it may as well be one
    /// host that is upgraded again.
    fn has_stranger(&self) -> bool {
        let known = u32::try_from(self.current().count()).unwrap_or(u32::MAX);
        let each = if self.returns == 0 { 1 } else { REFUSALS_OF_KNOWN };
        self.streak > known.saturating_mul(each) && self.streak.is_multiple_of(known.saturating_add(1))
    }
}

/// What clients taught.
///
/// For each connection: [`Learner::offer`] when its handshake is complete, then at most one of
/// [`Learner::refuse`] and [`Learner::confirm`]. Times are seconds since the epoch; one that runs
/// backwards does no harm.
#[derive(Debug, Default)]
pub(crate) struct Learner {
    entries: BTreeMap<Key, Entry>,
    /// Releases that worked for anybody, the last one first.
    seen: Vec<&'static Release>,
    /// That of the pgbackrest on this host.
    installed: Option<&'static Release>,
    turn: u64,
    change: Change,
    /// What was learned here since it was last asked for, if others want to know.
    lessons: Option<Vec<Lesson>>,
}

impl Learner {
    /// The release of the pgbackrest on this host, which is tried on clients that are not known before those that
    /// nobody named or has.
    pub(crate) const fn note_installed(&mut self, release: &'static Release) {
        self.installed = Some(release);
    }

    /// What [`Learner::note_installed`] was told.
    pub(crate) const fn installed(&self) -> Option<&'static Release> {
        self.installed
    }

    /// Collects for [`Learner::take_lessons`] from now on.
    pub(crate) fn collect_lessons(&mut self) {
        self.lessons.get_or_insert_default();
    }

    /// What clients taught since the last call.
    pub(crate) fn take_lessons(&mut self) -> Vec<Lesson> {
        self.lessons.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes over what clients taught another server process.
    pub(crate) fn hear(&mut self, lesson: &Lesson, table: &Table) {
        let Some(release) = table.find(&lesson.release) else { return };
        let own = self.lessons.take();
        match lesson.what {
            What::Confirmed => {
                let alternates = self.confirm(&lesson.key, release, lesson.at).is_some();
                if let Some(entry) = self.entries.get_mut(&lesson.key).filter(|_| alternates) {
                    // Nobody was told here, and perhaps not there, where the last one was heard from here.
                    entry.told = false;
                }
            }
            // If it is what a client would be greeted with here, too.
            What::Refused => {
                let arrived = lesson.moment.arrived;
                if let Some(entry) = self.entries.get_mut(&lesson.key).filter(|entry| entry.is_shared(&lesson.key)) {
                    entry.turns.catch_up(release, lesson.moment);
                }
                let offer = self.offer(&lesson.key, table, arrived);
                if let Some(offer) = offer.filter(|offer| same(offer.release, release)) {
                    self.refuse(&lesson.key, offer, table, lesson.at);
                }
            }
        }
        self.lessons = own;
    }

    fn note(&mut self, key: &Key, release: &Release, what: What, (at, moment): (u64, Moment)) {
        if let Some(lessons) = &mut self.lessons {
            lessons.push(Lesson { key: key.clone(), release: release.version.to_owned(), what, at, moment });
        }
    }

    /// What to greet a client with that has come at `arrived`, in milliseconds since the epoch. `None` only when no
    /// release is known at all.
    pub(crate) fn offer(&mut self, key: &Key, table: &Table, arrived: u64) -> Option<Offer> {
        let mut since = 0;
        if let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.is_shared(key)) {
            let current: Vec<_> = entry.current().collect();
            since = entry.turns.go_on(&current, arrived);
        }
        let entry = self.entries.get(key);
        let release = self.choose(key, entry, table)?;
        Some(Offer { release, turn: entry.map_or(0, |entry| entry.turn), moment: Moment { arrived, since } })
    }

    /// The client hung up at the greeting. Returns what it is greeted with next, if that is because
    /// of this refusal.
    pub(crate) fn refuse(&mut self, key: &Key, offer: Offer, table: &Table, now: u64) -> Option<&'static Release> {
        if let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.is_shared(key)) {
            // What others who share the key did meanwhile does not make this refusal untrue.
            entry.turns.spend(offer.release, offer.moment);
        }
        if self.entries.get(key).map_or(0, |entry| entry.turn) != offer.turn {
            return None;
        }
        self.note(key, offer.release, What::Refused, (now, offer.moment));
        let turn = self.next_turn();
        if let Some(entry) = self.entries.get_mut(key)
            && entry.bears(key, offer.release)
        {
            entry.turn = turn;
            entry.active = now;
            return None;
        }
        let candidates = self.candidates(key, self.entries.get(key), table);
        let entry = self.entry(key);
        entry.turn = turn;
        entry.active = now;
        if entry.hint.is_some_and(|hint| same(hint, offer.release)) {
            entry.hint = None;
            entry.misled = entry.misled.saturating_add(1);
        }
        let current = entry.current().any(|release| same(release, offer.release));
        if entry.is_shared(key) {
            entry.streak = entry.streak.saturating_add(1);
            if !current {
                entry.missed.push(offer.release);
            }
        } else if current {
            entry.refused.push(offer.release);
            // With no other candidate it can only be one of these after all.
            let all = entry.current().all(|release| entry.refused.iter().any(|refused| same(refused, release)));
            if all && candidates.is_empty() {
                entry.refused.clear();
            }
        } else {
            entry.missed.push(offer.release);
            entry.refused.clear();
        }
        if candidates.iter().all(|candidate| entry.missed.iter().any(|missed| same(missed, candidate))) {
            entry.missed.clear();
        }
        self.make_room(key);
        let next = self.choose(key, self.entries.get(key), table)?;
        (!same(next, offer.release)).then_some(next)
    }

    /// The client sent a request. Returns the releases in use, once, when clients of several have shown themselves.
    pub(crate) fn confirm(&mut self, key: &Key, release: &'static Release, now: u64) -> Option<Vec<&'static Release>> {
        let turn = self.next_turn();
        let entry = self.entry(key);
        let was_current = entry.current().any(|current| same(current, release));
        let maximum = if key.client.is_some() { PATIENCE_MAXIMUM.0 } else { PATIENCE_MAXIMUM.1 };
        entry.learn_patience(key, release, maximum);
        let place = entry.worked.iter().position(|worked| same(worked.release, release));
        let changed = match place {
            Some(0) if now < entry.worked[0].at + DATE_MATTERS => Change::None,
            Some(_) => Change::Minor,
            None => Change::News,
        };
        // What was refused before it worked is no longer what stands against it.
        let settles = !(entry.refused.is_empty() && entry.missed.is_empty() && entry.hint.is_none())
            || entry.doubts + entry.streak > 0;
        if place != Some(0) || settles {
            entry.turn = turn;
        }
        if changed != Change::None {
            if let Some(place) = place {
                entry.worked.remove(place);
            }
            entry.worked.insert(0, Worked { release, at: now });
            entry.worked.truncate(WORKED_MAXIMUM);
        }
        if entry.hint.is_some_and(|hint| same(hint, release)) {
            entry.misled = 0;
        }
        entry.settle();
        entry.active = now;
        let mut alternating = None;
        if was_current && place.is_some_and(|place| place > 0) {
            entry.returns = entry.returns.saturating_add(1);
            if entry.returns >= RETURNS_SUSPECTED && !std::mem::replace(&mut entry.told, true) {
                alternating = Some(entry.current().collect());
            }
        }
        if changed == Change::News {
            self.make_room(key);
            self.tell_kin(key, release);
        }
        if changed != Change::None || settles {
            self.note(key, release, What::Confirmed, (now, Moment::default()));
        }
        self.change = self.change.max(changed);
        self.see(release);
        alternating
    }

    /// How much changed since the last call.
    pub(crate) fn take_change(&mut self) -> Change {
        std::mem::take(&mut self.change)
    }

    /// What worked for whom, ordered by address and name; for each, the last release first.
    pub(crate) fn worked(&self) -> impl Iterator<Item = (&Key, &[Worked])> {
        let entries = self.entries.iter().filter(|(_, entry)| !entry.worked.is_empty());
        entries.map(|(key, entry)| (key, entry.worked.as_slice()))
    }

    /// Adds what was remembered from before.
    pub(crate) fn restore(&mut self, remembered: impl IntoIterator<Item = (Key, Vec<Worked>)>) {
        let mut dates: Vec<Worked> = Vec::new();
        for (key, mut worked) in remembered {
            worked.truncate(WORKED_MAXIMUM);
            let Some(last) = worked.first().copied() else { continue };
            dates.extend(&worked);
            let turn = self.next_turn();
            self.entries.insert(key.clone(), Entry { worked, turn, active: last.at, ..Entry::default() });
            self.make_room(&key);
        }
        dates.sort_by_key(|worked| worked.at);
        for worked in dates {
            self.see(worked.release);
        }
    }

    /// Forgets releases that are no longer known; a declared one may have become another.
    pub(crate) fn adopt(&mut self, table: &Table) {
        let find = |release: &Release| table.age(release).map(|age| table.by_age[age]);
        self.seen = self.seen.iter().filter_map(|release| find(release)).collect();
        self.installed = self.installed.and_then(find);
        let mut turn = self.turn;
        self.entries.retain(|_, entry| {
            turn += 1;
            entry.turn = turn;
            entry.settle();
            entry.turns = Turns::default();
            entry.worked.retain_mut(|worked| find(worked.release).inspect(|known| worked.release = known).is_some());
            !entry.worked.is_empty()
        });
        self.turn = turn;
    }

    fn choose(&self, key: &Key, entry: Option<&Entry>, table: &Table) -> Option<&'static Release> {
        let refused = |release: &&'static Release| {
            entry.is_some_and(|entry| entry.refused.iter().any(|refused| same(refused, release)))
        };
        let current = |entry: &Entry| match entry.is_shared(key) {
            true if entry.has_stranger() => None,
            true => entry.turns.present(),
            false => entry.current().find(|release| !refused(release)),
        };
        if let Some(current) = entry.and_then(current) {
            return Some(current);
        }
        let candidates = self.candidates(key, entry, table);
        let missed = |release: &&&'static Release| {
            entry.is_some_and(|entry| entry.missed.iter().any(|missed| same(missed, release)))
        };
        let next = candidates.iter().find(|release| !missed(release)).or(candidates.first()).copied();
        next.or_else(|| entry.and_then(|entry| entry.current().next()))
    }

    /// What to try of a client beside what is in use for it, the likeliest first.
    fn candidates(&self, key: &Key, entry: Option<&Entry>, table: &Table) -> Vec<&'static Release> {
        let current =
            |release: &Release| entry.is_some_and(|entry| entry.current().any(|current| same(current, release)));
        let mut candidates: Vec<&'static Release> = Vec::with_capacity(table.likely.len());
        let last = entry.and_then(|entry| entry.worked.first());
        // What the same host speaks in another role is the best guess as long as there is no other.
        let kin = if last.is_none() { self.kin(key) } else { Vec::new() };
        let (named, others) = table.likely.split_at(table.named.min(table.likely.len()));
        for release in kin.iter().chain(&self.seen).chain(named).chain(&self.installed).chain(others) {
            if !current(release) && candidates.iter().all(|candidate| !same(candidate, release)) {
                candidates.push(release);
            }
        }
        if let Some(last) = last.and_then(|last| table.age(last.release)) {
            let seen = |release: &Release| self.seen.iter().any(|seen| same(seen, release));
            candidates.sort_by_key(|release| match table.age(release) {
                Some(age) if age > last && seen(release) => (0, Reverse(age)),
                Some(age) if age > last => (1, Reverse(0)),
                _ => (2, Reverse(0)),
            });
        }
        candidates
    }

    /// Releases in use at this address: for a client those of pings, for a ping those of clients.
    fn kin(&self, key: &Key) -> Vec<&'static Release> {
        let mut kin: Vec<&Entry> = self.relatives(key).map(|(_, entry)| entry).collect();
        kin.sort_by_key(|entry| Reverse(entry.active));
        kin.into_iter().flat_map(Entry::current).collect()
    }

    fn relatives(&self, key: &Key) -> impl Iterator<Item = (&Key, &Entry)> {
        let (address, wanted) = (key.address, key.client.is_none());
        self.entries
            .range(Key { address, client: None }..)
            .take_while(move |(key, _)| key.address == address)
            .filter(move |(key, _)| key.client.is_some() == wanted)
    }

    /// A host that was upgraded shows it by a ping first, or by its work first: its other role gets
    /// a hint, so that it has no failure of its own.
    fn tell_kin(&mut self, key: &Key, release: &'static Release) {
        let kin: Vec<Key> = self.relatives(key).map(|(key, _)| key.clone()).collect();
        for key in kin {
            let turn = self.next_turn();
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            if entry.misled < HINTS_BELIEVED && entry.current().all(|current| !same(current, release)) {
                entry.settle();
                entry.hint = Some(release);
                entry.turn = turn;
            }
        }
    }

    fn see(&mut self, release: &'static Release) {
        if self.seen.first().is_some_and(|first| same(first, release)) {
            return;
        }
        self.seen.retain(|seen| !same(seen, release));
        self.seen.insert(0, release);
    }

    fn entry(&mut self, key: &Key) -> &mut Entry {
        self.entries.entry(key.clone()).or_default()
    }

    /// Forgets whoever was silent for the longest time, those who never worked first.
    fn make_room(&mut self, newcomer: &Key) {
        let anonymous = newcomer.client.is_none();
        let maximum = if anonymous { ADDRESSES_MAXIMUM } else { CLIENTS_MAXIMUM };
        if self.entries.len() <= maximum {
            return;
        }
        let alike = || self.entries.iter().filter(|(key, _)| key.client.is_none() == anonymous);
        if alike().count() <= maximum {
            return;
        }
        let others = alike().filter(|(key, _)| *key != newcomer);
        let oldest = others.min_by_key(|(_, entry)| (!entry.worked.is_empty(), entry.active));
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.entries.remove(&key);
        }
    }

    const fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }
}

#[cfg(test)]
#[path = "learner_tests.rs"]
mod tests;
