//! The learner, taught by connections that are steps of a test.

use super::*;
use crate::protocol::release::RELEASES;

/// Releases of the tests, old to new: the table has more or fewer of them.
fn release(version: &str) -> &'static Release {
    super::super::policy::intern(version, &RELEASES[RELEASES.len() - 1])
}

fn table(versions: &[&str]) -> Table {
    let all: Vec<_> = versions.iter().map(|version| release(version)).collect();
    Table { by_age: all.clone(), likely: all, named: 0 }
}

const FIVE: [&str; 5] = ["1", "2", "3", "4", "5"];

fn host(name: &str, address: &str) -> Key {
    Key { address: address.parse().unwrap(), client: Some(name.into()) }
}

fn ping(address: &str) -> Key {
    Key { address: address.parse().unwrap(), client: None }
}

/// A server and the time.
struct Site {
    learner: Learner,
    table: Table,
    now: u64,
}

impl Site {
    fn new() -> Self {
        Self { learner: Learner::default(), table: table(&FIVE), now: 1_000_000_000 }
    }

    fn offer(&mut self, key: &Key) -> Offer {
        // a second, and what a command takes to connect
        self.learner.offer(key, &self.table, self.now * 1070).unwrap()
    }

    fn offered(&mut self, key: &Key) -> &'static str {
        self.offer(key).release.version
    }

    /// One connection of a client that has `version`; whether it worked.
    fn connect(&mut self, key: &Key, version: &str) -> bool {
        self.now += 1;
        let offer = self.offer(key);
        let works = offer.release.version == version;
        if works {
            self.learner.confirm(key, offer.release, self.now);
        } else {
            self.learner.refuse(key, offer, &self.table, self.now);
        }
        works
    }

    /// Connects until it works; how many attempts failed.
    fn until_it_works(&mut self, key: &Key, version: &str) -> usize {
        (0..100).find(|_| self.connect(key, version)).expect("it never works")
    }
}

#[test]
fn a_client_of_any_release_is_served_after_a_few_attempts_and_then_always() {
    for version in FIVE {
        let mut site = Site::new();
        let key = host("db", "192.0.2.1");
        assert!(site.until_it_works(&key, version) < FIVE.len());
        assert!((0..10).all(|_| site.connect(&key, version)));
    }
}

/// With the releases that there are, in the order that a server without settings tries them.
#[test]
fn every_release_is_found_within_one_attempt_each_and_after_an_upgrade_within_two() {
    let table = super::super::policy::Policy::new(&crate::config::OwnSettings::default()).unwrap().table().clone();
    assert_eq!(table.by_age.len(), RELEASES.len());
    for (place, release) in table.likely.iter().enumerate() {
        for key in [host("db", "192.0.2.1"), ping("192.0.2.1")] {
            let mut site = Site { table: table.clone(), ..Site::new() };
            assert_eq!(site.until_it_works(&key, release.version), place, "{}", release.version);
            assert!(site.connect(&key, release.version));
            // Hosts that come after it with the same release are served at once, at any address.
            assert!(site.connect(&host("next", "192.0.2.2"), release.version));
        }
        for upgraded in RELEASES.iter().filter(|upgraded| upgraded.version != release.version) {
            let mut site = Site { table: table.clone(), ..Site::new() };
            let key = host("db", "192.0.2.1");
            site.until_it_works(&key, release.version);
            let failures = site.until_it_works(&key, upgraded.version);
            assert!(failures < 2 * RELEASES.len(), "{} to {}", release.version, upgraded.version);
        }
    }
}

/// What somebody has or named comes before what this host has, and that before what others have.
#[test]
fn the_installed_release_is_tried_after_those_seen_and_named_and_before_all_others() {
    let table = |releases: &[&str]| {
        let releases = releases.iter().map(|release| (*release).to_owned()).collect();
        let own = crate::config::OwnSettings { releases, ..crate::config::OwnSettings::default() };
        super::super::policy::Policy::new(&own).unwrap().table().clone()
    };
    let order = |site: &Site| -> Vec<_> {
        let candidates = site.learner.candidates(&ping("192.0.2.9"), None, &site.table);
        assert_eq!(candidates.len(), RELEASES.len(), "each once");
        candidates.iter().take(5).map(|release| release.version).collect()
    };
    let mut site = Site { table: table(&[]), ..Site::new() };
    assert_eq!(order(&site)[..3], ["2.45", "2.55.1", "2.60.0"]);
    site.learner.note_installed(Release::find("2.58.0").unwrap());
    assert_eq!(order(&site), ["2.58.0", "2.45", "2.55.1", "2.60.0", "2.59.3"]);
    assert_eq!(site.until_it_works(&ping("192.0.2.1"), "2.58.0"), 0);
    site.until_it_works(&ping("192.0.2.2"), "2.50");
    site.table = table(&["2.57.0", "2.57.0", "2.45"]);
    site.learner.adopt(&site.table);
    assert_eq!(order(&site), ["2.50", "2.58.0", "2.57.0", "2.45", "2.55.1"]);
    let mut site = Site { table: site.table, ..Site::new() };
    site.learner.note_installed(Release::find("2.58.0").unwrap());
    assert_eq!(order(&site), ["2.57.0", "2.45", "2.58.0", "2.55.1", "2.60.0"]);
    site.learner.adopt(&site.table);
    assert_eq!(order(&site)[2], "2.58.0", "a reload keeps it");
    site.learner.note_installed(Release::find("2.45").unwrap());
    assert_eq!(order(&site)[..3], ["2.57.0", "2.45", "2.55.1"]);
}

#[test]
fn an_upgrade_to_the_newest_of_the_common_releases_fails_once() {
    let table = super::super::policy::Policy::new(&crate::config::OwnSettings::default()).unwrap().table().clone();
    for (from, to) in [("2.45", "2.55.1"), ("2.55.1", "2.60.0"), ("2.59.1", "2.60.0")] {
        let mut site = Site { table: table.clone(), ..Site::new() };
        let key = host("db", "192.0.2.1");
        site.until_it_works(&key, from);
        assert_eq!(site.until_it_works(&key, to), 1, "{from} to {to}");
    }
}

#[test]
fn a_host_that_is_upgraded_again_and_again_is_no_crowd() {
    let table = super::super::policy::Policy::new(&crate::config::OwnSettings::default()).unwrap().table().clone();
    let mut site = Site { table, ..Site::new() };
    let key = host("db", "192.0.2.1");
    site.until_it_works(&key, "2.45");
    assert_eq!(site.until_it_works(&key, "2.55.1"), 1);
    // both of which it has had within a week, and then one that nobody had before
    let failures = site.until_it_works(&key, "2.60.0");
    assert!(failures <= 3, "{failures}");
    let failures = site.until_it_works(&key, "2.55.1");
    assert!(failures <= 3, "{failures} after it went back");
}

#[test]
fn hosts_that_share_a_certificate_differ_by_address() {
    let mut site = Site::new();
    let keys = ["192.0.2.1", "192.0.2.2", "2001:db8::3"].map(|address| host("shared", address));
    for (key, version) in keys.iter().zip(["5", "3", "4"]) {
        site.until_it_works(key, version);
    }
    for (key, version) in keys.iter().zip(["5", "3", "4"]) {
        assert!(site.connect(key, version), "{version}");
    }
}

#[test]
fn eight_workers_that_hang_up_at_once_count_once() {
    let mut site = Site::new();
    let key = host("db", "192.0.2.1");
    let offers: Vec<_> = (0..8).map(|_| site.offer(&key)).collect();
    assert!(offers.iter().all(|offer| offer.release.version == "1"));
    let next: Vec<_> = offers.iter().map(|offer| site.learner.refuse(&key, *offer, &site.table, 1)).collect();
    assert_eq!(next[0].map(|release| release.version), Some("2"));
    assert!(next[1..].iter().all(Option::is_none));
    assert_eq!(site.offered(&key), "2");
}

#[test]
fn a_late_refusal_of_an_earlier_choice_does_not_count() {
    let mut site = Site::new();
    let key = host("db", "192.0.2.1");
    let stale = site.offer(&key);
    site.until_it_works(&key, "3");
    assert!(site.learner.refuse(&key, stale, &site.table, 9).is_none());
    assert_eq!(site.offered(&key), "3");
    // Also when its release has become the choice again.
    let stale = site.offer(&key);
    site.until_it_works(&key, "4");
    site.until_it_works(&key, "3");
    assert!(site.learner.refuse(&key, stale, &site.table, 9).is_none());
    assert_eq!(site.offered(&key), "3");
}

#[test]
fn a_host_that_is_upgraded_to_a_release_seen_here_fails_once() {
    let mut site = Site::new();
    site.until_it_works(&host("other", "192.0.2.9"), "4");
    site.until_it_works(&host("late", "192.0.2.7"), "3");
    site.until_it_works(&host("old", "192.0.2.8"), "1");
    let key = host("db", "192.0.2.1");
    site.until_it_works(&key, "2");
    assert_eq!(site.until_it_works(&key, "4"), 1, "newer releases are tried before older ones");
    assert!(site.connect(&key, "4"));
}

#[test]
fn a_client_that_hangs_up_for_another_reason_is_not_away_from_its_release_for_long() {
    let mut site = Site::new();
    let key = host("db", "192.0.2.1");
    site.until_it_works(&key, "3");
    for hang_ups in 1..12 {
        for _ in 0..hang_ups {
            // No release is called so: it hangs up whatever it is greeted with.
            site.connect(&key, "-");
        }
        assert!(site.until_it_works(&key, "3") <= 1, "after {hang_ups} hang-ups");
    }
}

#[test]
fn a_ping_teaches_for_the_clients_of_its_address_and_they_teach_for_pings() {
    let mut site = Site::new();
    site.until_it_works(&ping("192.0.2.1"), "4");
    assert!(site.connect(&host("db", "192.0.2.1"), "4"));
    site.until_it_works(&host("db", "192.0.2.2"), "3");
    assert!(site.connect(&ping("192.0.2.2"), "3"));
}

#[test]
fn after_an_upgrade_the_ping_loop_spares_the_client_a_failure() {
    let mut site = Site::new();
    let (client, pings) = (host("db", "192.0.2.1"), ping("192.0.2.1"));
    site.until_it_works(&client, "2");
    site.until_it_works(&pings, "2");
    site.until_it_works(&pings, "5");
    assert!(site.connect(&client, "5"));
    // And the other way round.
    site.until_it_works(&client, "3");
    assert!(site.connect(&pings, "3"));
}

#[test]
fn a_hint_that_is_wrong_costs_one_attempt() {
    let mut site = Site::new();
    let (one, two) = (host("one", "192.0.2.1"), host("two", "192.0.2.1"));
    site.until_it_works(&one, "1");
    site.until_it_works(&two, "2");
    site.until_it_works(&ping("192.0.2.1"), "5");
    assert_eq!(site.until_it_works(&one, "1"), 1);
    assert_eq!(site.until_it_works(&two, "2"), 1);
    site.until_it_works(&ping("192.0.2.1"), "2");
    assert_eq!(site.until_it_works(&one, "1"), 1);
    // The address is known for it now, so that monitoring by pings does not go on to disturb.
    for _ in 0..5 {
        site.until_it_works(&ping("192.0.2.1"), "5");
        site.until_it_works(&ping("192.0.2.1"), "2");
        assert!(site.connect(&one, "1"));
        assert!(site.connect(&two, "2"));
    }
}

#[test]
fn a_stranger_at_a_clients_address_cannot_keep_it_from_its_release() {
    let mut site = Site::new();
    let key = host("db", "192.0.2.1");
    site.until_it_works(&key, "1");
    let mut failures = 0;
    for round in 0..100 {
        // As far as memory goes, each is new: those between were forgotten.
        site.now += 2 * RECENT;
        site.until_it_works(&ping("192.0.2.1"), ["2", "3", "4", "5"][round % 4]);
        failures += site.until_it_works(&key, "1");
    }
    assert!(failures <= 2, "{failures}");
}

#[test]
fn hosts_that_share_address_and_certificate_are_tried_in_turn() {
    let mut site = Site::new();
    let key = host("shared", "192.0.2.1");
    let versions = ["5", "3", "2"];
    for version in versions {
        site.until_it_works(&key, version);
    }
    for _ in 0..10 {
        for version in versions {
            let failures = site.until_it_works(&key, version);
            assert!(failures <= 2, "{failures} failures of {version}: only those in use are tried");
        }
    }
}

#[test]
fn hosts_that_have_all_known_releases_between_them_are_tried_in_turn() {
    let mut site = Site { table: table(&["1", "2"]), ..Site::new() };
    let key = host("shared", "192.0.2.1");
    for _ in 0..10 {
        for version in ["1", "2", "-", "2", "-", "-", "1"] {
            if version == "-" {
                site.connect(&key, "-");
            } else {
                assert!(site.until_it_works(&key, version) <= 2);
            }
        }
    }
}

#[test]
fn who_alternates_is_told_of_once() {
    let mut site = Site::new();
    let key = host("shared", "192.0.2.1");
    let (one, two) = (release("1"), release("2"));
    let mut told = Vec::new();
    for number in 0..40 {
        let current = if number % 2 == 0 { one } else { two };
        if let Some(releases) = site.learner.confirm(&key, current, number) {
            told.push(number);
            assert_eq!(releases.len(), 2);
        }
    }
    assert_eq!(told, [3]);
    let other = host("upgraded", "192.0.2.1");
    for version in FIVE {
        assert!(site.learner.confirm(&other, release(version), 1).is_none(), "an upgrade is no alternation");
    }
}

#[test]
fn who_alternates_is_told_of_though_two_processes_hear_the_last_of_it_from_each_other() {
    let table = table(&["1", "2"]);
    let key = host("shared", "192.0.2.1");
    let mut learners = [Learner::default(), Learner::default()];
    let hear = |learners: &mut [Learner; 2], to: usize, version: &str, at: u64| {
        let release = release(version).version.to_owned();
        let lesson = Lesson { key: key.clone(), release, what: What::Confirmed, at, moment: Moment::default() };
        learners[to].hear(&lesson, &table);
    };
    for (at, version) in (0..).zip(["1", "2", "1"]) {
        for learner in &mut learners {
            assert!(learner.confirm(&key, release(version), at).is_none());
        }
    }
    hear(&mut learners, 0, "2", 3);
    hear(&mut learners, 1, "2", 3);
    assert!(learners.iter_mut().all(|learner| learner.confirm(&key, release("1"), 4).is_some()));
}

/// What a monitor looks like that reads the greeting and closes, as no known one does.
#[test]
fn what_has_worked_outweighs_somebody_silent() {
    let mut site = Site::new();
    let key = ping("192.0.2.1");
    site.until_it_works(&key, "3");
    let mut failures = 0;
    for round in 0..100 {
        for _ in 0..5 {
            site.connect(&key, "-");
        }
        failures += site.until_it_works(&key, "3");
        assert!(round < 10 || failures <= 8, "{failures} after {round} rounds");
    }
    // And an upgrade is found out all the same.
    assert!(site.until_it_works(&key, "5") <= 16 + 2 * FIVE.len());
}

#[test]
fn what_worked_long_ago_is_no_longer_tried_first() {
    let mut site = Site::new();
    let key = host("db", "192.0.2.1");
    site.until_it_works(&key, "2");
    site.now += 2 * RECENT;
    site.until_it_works(&key, "3");
    site.until_it_works(&host("other", "192.0.2.2"), "4");
    assert_eq!(site.until_it_works(&key, "4"), 1, "and not 2 before it");
}

#[test]
fn strangers_cannot_push_out_what_clients_taught() {
    let mut site = Site::new();
    let key = host("db", "192.0.2.1");
    site.until_it_works(&key, "3");
    for number in 0..u32::try_from(2 * ADDRESSES_MAXIMUM).unwrap() {
        let stranger = ping(&std::net::Ipv4Addr::from(number + 1).to_string());
        site.connect(&stranger, "-");
    }
    assert!(site.learner.entries.len() <= ADDRESSES_MAXIMUM + 1, "{}", site.learner.entries.len());
    assert!(site.connect(&key, "3"));
}

#[test]
fn the_client_that_was_silent_longest_is_forgotten_first() {
    let mut site = Site::new();
    let keys: Vec<_> = (0..=CLIENTS_MAXIMUM).map(|number| host(&format!("c{number}"), "192.0.2.1")).collect();
    for (number, key) in (1..).zip(&keys) {
        site.learner.confirm(key, release("3"), number);
    }
    assert_eq!(site.learner.entries.len(), CLIENTS_MAXIMUM);
    assert!(!site.learner.entries.contains_key(&keys[0]));
    assert!(site.learner.entries.contains_key(&keys[1]));
}

#[test]
fn only_what_is_new_asks_to_be_written() {
    let mut learner = Learner::default();
    let key = host("db", "192.0.2.1");
    learner.confirm(&key, release("1"), 100);
    assert_eq!(learner.take_change(), Change::News);
    learner.confirm(&key, release("1"), 101);
    assert_eq!(learner.take_change(), Change::None);
    learner.confirm(&key, release("1"), 100 + DATE_MATTERS);
    assert_eq!(learner.take_change(), Change::Minor);
}

#[test]
fn a_reload_that_no_longer_knows_a_release_forgets_it() {
    let mut site = Site::new();
    let (one, two) = (host("one", "192.0.2.1"), host("two", "192.0.2.2"));
    site.until_it_works(&one, "5");
    site.until_it_works(&two, "4");
    site.table = table(&["1", "4"]);
    site.learner.adopt(&site.table);
    assert_eq!(site.learner.worked().count(), 1);
    assert_eq!(site.offered(&two), "4");
    assert_eq!(site.offered(&one), "4", "what is seen here comes first");
}

#[test]
fn without_any_release_there_is_nothing_to_offer() {
    assert!(Learner::default().offer(&ping("192.0.2.1"), &Table::default(), 0).is_none());
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever happened before, a client that keeps trying is served, and from then on at once
        /// as long as nobody else comes with its address and name.
        #[test]
        fn whoever_keeps_trying_is_served(
            before in proptest::collection::vec((0..3usize, 0..6usize), 0..60),
            key in 0..3usize,
            version in 0..5usize,
        ) {
            let mut site = Site::new();
            let keys = [host("one", "192.0.2.1"), host("two", "192.0.2.1"), ping("192.0.2.1")];
            let versions = ["1", "2", "3", "4", "5", "-"];
            for (key, version) in before {
                site.connect(&keys[key], versions[version]);
            }
            // Candidates and what is in use take turns.
            prop_assert!(site.until_it_works(&keys[key], versions[version]) <= 60);
            // Others' turns come between if several are in use.
            prop_assert!(site.until_it_works(&keys[key], versions[version]) <= 8);
            let shared = site.learner.entries[&keys[key]].is_shared(&keys[key]);
            prop_assert!(shared || site.connect(&keys[key], versions[version]));
        }

        /// A refusal changes nothing unless its offer still stands.
        #[test]
        fn a_refusal_counts_once(before in proptest::collection::vec(0..6usize, 0..20)) {
            let mut site = Site::new();
            let key = host("one", "192.0.2.1");
            for version in before {
                site.connect(&key, ["1", "2", "3", "4", "5", "-"][version]);
            }
            let offer = site.offer(&key);
            site.learner.refuse(&key, offer, &site.table, site.now);
            let next = site.offered(&key);
            prop_assert!(site.learner.refuse(&key, offer, &site.table, site.now).is_none());
            prop_assert_eq!(site.offered(&key), next);
        }
    }
}
