//! What the administrator wrote down about releases, in `repohostd.conf` and on the command line.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use super::table::Table;
use crate::config::{OwnSettings, Pin};
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::release::{RELEASES, Release};

/// The releases that most hosts have: those of Debian 12 and 13, and the newest.
const COMMON: [&str; 3] = ["2.45", "2.55.1", "2.60.0"];

/// Which release for whom, as far as it is written down, and which ones there are.
#[derive(Debug)]
pub(crate) struct Policy {
    table: Table,
    general: Option<&'static Release>,
    clients: HashMap<String, &'static Release>,
    server_names: HashMap<String, &'static Release>,
    listeners: Vec<(Option<IpAddr>, Option<u16>, &'static Release)>,
    /// Declared releases with the one that each is like.
    declared: Vec<(&'static Release, &'static Release)>,
}

impl Policy {
    /// What these settings come to.
    ///
    /// # Errors
    ///
    /// 32 for a release that is neither known nor declared, naming where it is written.
    pub(crate) fn new(own: &OwnSettings) -> Result<Self> {
        let mut declared = Vec::new();
        let mut by_age: Vec<&'static Release> = RELEASES.iter().collect();
        for pin in &own.declared {
            let like = find(RELEASES.iter(), &pin.release, "like", Some(&pin.place))?;
            if Release::find(&pin.subject).is_some() {
                let message = format!("release '{}' is known and cannot be declared", pin.subject);
                return Err(placed(message, Some(&pin.place)));
            }
            let release = intern(&pin.subject, like);
            // A release that is declared belongs right after the one that it is like.
            let after =
                by_age.iter().rposition(|known| known.version == like.version || is_like(&declared, known, like));
            by_age.insert(after.map_or(by_age.len(), |place| place + 1), release);
            declared.push((release, like));
        }
        let known =
            |version: &str, option: &str, place: Option<&str>| find(by_age.iter().copied(), version, option, place);
        let general = own.release.as_deref().map(|version| known(version, "release", None)).transpose()?;
        let named = own.releases.iter().map(|version| known(version, "releases", None));
        let mut likely: Vec<&'static Release> = named.collect::<Result<_>>()?;
        let named = likely.len();
        likely.extend(COMMON.iter().filter_map(|version| Release::find(version)));
        likely.extend(by_age.iter().rev());
        let mut table = Table { by_age: by_age.clone(), likely: Vec::with_capacity(likely.len()), named: 0 };
        for (place, release) in likely.into_iter().enumerate() {
            if table.likely.iter().all(|other| other.version != release.version) {
                table.likely.push(release);
                table.named += usize::from(place < named);
            }
        }
        let pinned = |pins: &[Pin]| -> Result<HashMap<_, _>> {
            let pin = |pin: &Pin| Ok((pin.subject.clone(), known(&pin.release, "release", Some(&pin.place))?));
            pins.iter().map(pin).collect()
        };
        let (clients, server_names) = (pinned(&own.clients)?, pinned(&own.server_names)?);
        let mut listeners = Vec::new();
        for pin in &own.listeners {
            let release = known(&pin.release, "release", Some(&pin.place))?;
            listeners.push((pin.address.map(|address| address.to_canonical()), pin.port, release));
        }
        Ok(Self { table, general, clients, server_names, listeners, declared })
    }

    /// The releases that can be announced.
    pub(crate) const fn table(&self) -> &Table {
        &self.table
    }

    /// The release for everybody for whom there is no other.
    pub(crate) const fn general(&self) -> Option<&'static Release> {
        self.general
    }

    /// The release written down for a client that proved to have `names`, asked for the server of the name `wanted` and
    /// came to the address `local`.
    pub(crate) fn pinned(
        &self,
        names: Option<&[String]>,
        wanted: Option<&str>,
        local: impl FnOnce() -> Option<SocketAddr>,
    ) -> Option<&'static Release> {
        let by_name = names.into_iter().flatten().find_map(|name| self.clients.get(name).copied());
        let by_server_name = || {
            let wanted = wanted.filter(|_| !self.server_names.is_empty())?;
            self.server_names.get(&wanted.to_ascii_lowercase()).copied()
        };
        let listener = || {
            let local = if self.listeners.is_empty() { None } else { local() }?;
            let matches = |(address, port, _): &&(Option<IpAddr>, Option<u16>, &'static Release)| {
                address.is_none_or(|address| address == local.ip().to_canonical())
                    && port.is_none_or(|port| port == local.port())
            };
            self.listeners.iter().find(matches).map(|(_, _, release)| *release)
        };
        by_name.or_else(by_server_name).or_else(listener).or(self.general)
    }

    /// What an administrator should know about it.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let warning = |(release, like): &(&Release, &Release)| {
            format!(
                "release {} is not known: it is spoken like {}, as repohostd.conf declares\n\
                 HINT: try backup, restore and verify before you rely on it, and update repohostd when it knows \
                 the release.",
                release.version, like.version
            )
        };
        self.declared.iter().map(warning).collect()
    }
}

fn is_like(declared: &[(&'static Release, &'static Release)], known: &Release, like: &Release) -> bool {
    declared.iter().any(|(release, of)| release.version == known.version && of.version == like.version)
}

fn find(
    mut known: impl Iterator<Item = &'static Release> + Clone,
    version: &str,
    option: &str,
    place: Option<&str>,
) -> Result<&'static Release> {
    let list = known.clone();
    known.find(|release| release.version == version).ok_or_else(|| {
        let list: Vec<_> = list.map(|release| release.version).collect();
        let message =
            format!("'{version}' is not valid for '{option}' option\nHINT: known releases are {}.", list.join(", "));
        placed(message, place)
    })
}

fn placed(message: String, place: Option<&str>) -> Error {
    let place = place.map_or(String::new(), |place| format!("\nHINT: see '{place}'."));
    Error::new(Code::OptionInvalidValue, message + &place)
}

/// The release `version` that is spoken like a known one. It lives as long as the process, since
/// sessions outlive the configuration that they began under; one declaration makes one, however
/// often it is read.
pub(super) fn intern(version: &str, like: &'static Release) -> &'static Release {
    static INTERNED: Mutex<Vec<(&'static Release, &'static Release)>> = Mutex::new(Vec::new());
    let mut interned = INTERNED.lock().unwrap_or_else(PoisonError::into_inner);
    let made = interned.iter().find(|(release, of)| release.version == version && of.version == like.version);
    if let Some((release, _)) = made {
        return release;
    }
    let version: &'static str = version.to_owned().leak();
    let release: &'static Release = Box::leak(Box::new(Release { version, ..*like }));
    interned.push((release, like));
    release
}

#[cfg(test)]
pub(in crate::server) mod tests {
    use super::*;
    use crate::config::ListenerPin;

    /// A policy that greets everybody with one release.
    pub(in crate::server) fn pinned_to(release: &Release) -> Policy {
        Policy::new(&OwnSettings { release: Some(release.version.to_owned()), ..OwnSettings::default() }).unwrap()
    }

    fn pin(subject: &str, release: &str) -> Pin {
        Pin { subject: subject.to_owned(), release: release.to_owned(), place: "/r.conf:7".to_owned() }
    }

    fn names(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn versions(releases: &[&Release]) -> Vec<&'static str> {
        releases.iter().map(|release| release.version).collect()
    }

    #[test]
    fn a_client_comes_before_a_listener_and_that_before_everybody() {
        let listener = |address: Option<&str>, port| ListenerPin {
            address: address.map(|address| address.parse().unwrap()),
            port,
            release: "2.60.0".to_owned(),
            place: String::new(),
        };
        let own = OwnSettings {
            release: Some("2.55.1".to_owned()),
            clients: vec![pin("old.example", "2.55.1"), pin("new.example", "2.60.0")],
            server_names: vec![pin("old.repo.example", "2.45")],
            listeners: vec![listener(Some("192.0.2.1"), None), listener(None, Some(8433))],
            ..OwnSettings::default()
        };
        let policy = Policy::new(&own).unwrap();
        let at = |client: &[&str], local: &str| {
            policy.pinned(Some(&names(client)), None, || Some(local.parse().unwrap())).unwrap().version
        };
        assert_eq!(at(&["old.example"], "192.0.2.1:8432"), "2.55.1");
        assert_eq!(at(&["other", "new.example"], "192.0.2.2:8432"), "2.60.0", "alternative names count");
        assert_eq!(at(&["other"], "192.0.2.1:8432"), "2.60.0");
        assert_eq!(at(&["other"], "[::ffff:192.0.2.1]:8432"), "2.60.0", "a socket for both families");
        assert_eq!(at(&["other"], "[::1]:8433"), "2.60.0");
        assert_eq!(at(&["other"], "192.0.2.2:8432"), "2.55.1");
        let asked = |client: &str, wanted: &str| {
            let local = || Some("192.0.2.1:8432".parse().unwrap());
            policy.pinned(Some(&names(&[client])), Some(wanted), local).unwrap().version
        };
        assert_eq!(asked("other", "Old.repo.example"), "2.45", "names of servers have no case");
        assert_eq!(asked("new.example", "old.repo.example"), "2.60.0", "who a client is counts first");
        assert_eq!(asked("other", "repo.example"), "2.60.0", "the listener's");
        assert_eq!(policy.pinned(None, None, || None).unwrap().version, "2.55.1");
        let unpinned = Policy::new(&OwnSettings::default()).unwrap();
        assert!(unpinned.pinned(Some(&names(&["other"])), Some("old.repo.example"), || None).is_none());
    }

    #[test]
    fn an_unknown_release_is_refused_with_those_known_and_where_it_is_written() {
        let own = OwnSettings { clients: vec![pin("a", "2.61.0")], ..OwnSettings::default() };
        let error = Policy::new(&own).unwrap_err();
        assert_eq!(error.code, Code::OptionInvalidValue);
        assert!(error.message.starts_with("'2.61.0' is not valid for 'release' option\nHINT: known releases are "));
        assert!(error.message.ends_with("\nHINT: see '/r.conf:7'."), "{error}");
    }

    #[test]
    fn a_declared_release_is_announced_warned_of_and_spoken_like_another() {
        let own = OwnSettings {
            declared: vec![pin("2.61.0", "2.60.0"), pin("2.62.0", "2.60.0"), pin("2.55.9", "2.55.1")],
            releases: names(&["2.61.0"]),
            ..OwnSettings::default()
        };
        let policy = Policy::new(&own).unwrap();
        let by_age = versions(&policy.table.by_age);
        assert!(by_age.ends_with(&["2.60.0", "2.61.0", "2.62.0"]), "{by_age:?}");
        assert!(by_age.windows(2).any(|pair| pair == ["2.55.1", "2.55.9"]), "{by_age:?}");
        let first = policy.table.likely[0];
        assert_eq!(first.greeting(), "{\"name\":\"pgBackRest\",\"service\":\"remote\",\"version\":\"2.61.0\"}\n");
        assert_eq!(*first, Release { version: "2.61.0", ..*Release::find("2.60.0").unwrap() });
        assert!(policy.warnings()[0].starts_with("release 2.61.0 is not known: it is spoken like 2.60.0"));
        let again = Policy::new(&own).unwrap();
        assert!(std::ptr::eq(first, again.table.likely[0]), "a reload makes no second one");
        let known = OwnSettings { declared: vec![pin("2.60.0", "2.55.1")], ..OwnSettings::default() };
        assert!(Policy::new(&known).is_err(), "what is known is not redefined");
    }

    #[test]
    fn the_likeliest_releases_come_first_and_every_one_once() {
        let own = OwnSettings { releases: names(&["2.60.0"]), ..OwnSettings::default() };
        let likely = versions(&Policy::new(&own).unwrap().table.likely);
        assert_eq!(likely[0], "2.60.0");
        assert_eq!(likely.iter().filter(|version| **version == "2.60.0").count(), 1);
        assert_eq!(likely.len(), RELEASES.len());
        let plain = versions(&Policy::new(&OwnSettings::default()).unwrap().table.likely);
        let common: Vec<_> = COMMON.into_iter().filter(|version| Release::find(version).is_some()).collect();
        let others = RELEASES.iter().rev().map(|release| release.version);
        let others = others.filter(|version| !common.contains(version));
        assert_eq!(plain, common.iter().copied().chain(others).collect::<Vec<_>>(), "the rest from new to old");
    }
}
