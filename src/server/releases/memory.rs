//! The file that keeps what was learned across restarts.
//!
//! It is a convenience: a file that is missing, damaged or hostile costs what was learned and
//! nothing else. It is replaced as a whole by a rename, so that a crash leaves the old or the new
//! one.

use std::borrow::Cow;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::learner::{ADDRESSES_MAXIMUM, CLIENTS_MAXIMUM, Change, Learner};
use super::table::{Table, Worked, same};
use super::{Key, NAME_MAXIMUM, seconds};
use crate::disk::replace_file;
use crate::observe::log;
use crate::observe::rate::{Rate, more};

/// The file's name in the state directory.
const FILE: &str = "releases.json";
/// Raised when a file cannot be read by what wrote earlier ones.
const VERSION: u64 = 1;
/// More than the largest file that is written; a larger one is not read.
const SIZE_MAXIMUM: u64 = 16 << 20;
const MODE: u32 = 0o640;
/// The earliest time to write news, and what can wait, after the last writing or change.
///
/// The loop waits for the disk meanwhile, so a fleet that introduces itself must not have it wait for
/// each host. The end of the server writes what is left.
const NEWS_DELAY: Duration = Duration::from_secs(5);
const MINOR_DELAY: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct File {
    version: u64,
    clients: Vec<Remembered>,
}

/// What is remembered of a client, in the file, in what the server tells of its state, and as it is told to a new
/// process. It may name releases that whoever reads it does not know.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Remembered {
    client: Option<Box<str>>,
    address: IpAddr,
    /// The last one first.
    releases: Vec<Dated>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Dated {
    release: Cow<'static, str>,
    at: u64,
}

impl Remembered {
    /// What worked for this client.
    pub(crate) fn new((key, worked): (&Key, &[Worked])) -> Self {
        let dated = |worked: &Worked| Dated { release: worked.release.version.into(), at: worked.at };
        Self { client: key.client.clone(), address: key.address, releases: worked.iter().map(dated).collect() }
    }

    /// What of it this program knows; `None` when that is nothing, or makes no sense.
    pub(crate) fn known(self, table: &Table) -> Option<(Key, Vec<Worked>)> {
        if self.client.as_ref().is_some_and(|name| name.len() > NAME_MAXIMUM) {
            return None;
        }
        let mut worked: Vec<Worked> = Vec::new();
        for Dated { release, at } in self.releases {
            let known = table.find(&release);
            if let Some(release) = known.filter(|known| worked.iter().all(|other| !same(other.release, known))) {
                worked.push(Worked { release, at: at.min(u64::from(u32::MAX)) });
            }
        }
        worked.sort_by_key(|worked| std::cmp::Reverse(worked.at));
        let key = Key { address: self.address.to_canonical(), client: self.client };
        (!worked.is_empty()).then_some((key, worked))
    }
}

/// Where what was learned is kept, and when it is written next.
#[derive(Debug)]
pub(crate) struct Memory {
    directory: Option<PathBuf>,
    due: Option<Instant>,
    failures: Rate,
}

impl Memory {
    /// A memory in `directory`; in none it forgets everything at the end.
    pub(crate) const fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, due: None, failures: Rate::new(1, Duration::from_secs(600)) }
    }

    pub(crate) fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// Has the learner know what was kept. A file that cannot be used is warned of.
    pub(crate) fn load(&self, learner: &mut Learner, table: &Table) {
        let Some(path) = self.directory.as_deref().map(|directory| directory.join(FILE)) else { return };
        match read(&path, table) {
            Ok(mut remembered) => {
                // A date in the future would keep what follows from counting as newer.
                let now = seconds();
                let dates = remembered.iter_mut().flat_map(|(_, worked)| worked);
                dates.for_each(|worked| worked.at = worked.at.min(now));
                learner.restore(remembered);
            }
            Err(reason) => log::warn(format_args!(
                "'{}' is ignored, so clients teach their release again: {reason}",
                path.display()
            )),
        }
    }

    /// Takes note of what changed, and writes it when it is time. Call it after anything happened.
    pub(crate) fn keep(&mut self, learner: &mut Learner, now: Instant) {
        let Some(directory) = &self.directory else { return };
        let delay = match learner.take_change() {
            Change::None => None,
            Change::Minor => Some(MINOR_DELAY),
            Change::News => Some(NEWS_DELAY),
        };
        if let Some(at) = delay.map(|delay| now + delay) {
            self.due = Some(self.due.map_or(at, |due| due.min(at)));
        }
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        self.due = None;
        if let Err(error) = replace_file(&directory.join(FILE), MODE, compose(learner).as_bytes(), |_| Ok(()))
            && let Some(held_back) = self.failures.pass(now)
        {
            log::warn(format_args!(
                "unable to keep learned releases in '{}': {error}{}",
                directory.join(FILE).display(),
                more(held_back)
            ));
        }
    }

    /// Has everything written soon, because it was learned with another memory.
    pub(crate) fn write_soon(&mut self, now: Instant) {
        self.due = Some(now + NEWS_DELAY);
    }

    /// When [`Memory::keep`] wants to be called at the latest.
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Writes what has not been written yet, because the server ends.
    pub(crate) fn finish(&mut self, learner: &mut Learner, now: Instant) {
        if learner.take_change() != Change::None || self.due.is_some() {
            self.due = Some(now);
            self.keep(learner, now);
        }
    }
}

/// What is kept in a state directory, for a look at it without a server.
///
/// # Errors
///
/// Why there is nothing, in words.
pub(crate) fn look(directory: &Path, table: &Table) -> Result<Vec<(Key, Vec<Worked>)>, String> {
    read(&directory.join(FILE), table)
}

fn read(path: &Path, table: &Table) -> Result<Vec<(Key, Vec<Worked>)>, String> {
    // A pipe must not be waited for.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.to_string()),
    };
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err("it is no file".to_owned());
    }
    let mut text = String::new();
    let length = file.take(SIZE_MAXIMUM + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if length as u64 > SIZE_MAXIMUM {
        return Err("it is too large".to_owned());
    }
    parse(&text, table)
}

/// Reads the file's text. What it says of releases that are not known is left out, and so are
/// clients that make no sense.
fn parse(text: &str, table: &Table) -> Result<Vec<(Key, Vec<Worked>)>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match value.get("version").and_then(Value::as_u64) {
        Some(VERSION) => {}
        Some(other) => return Err(format!("its version is {other}, not {VERSION}")),
        None => return Err("it names no version".to_owned()),
    }
    let clients = value.get("clients").and_then(Value::as_array).ok_or("it has no list of clients")?;
    let clients = clients.iter().take(CLIENTS_MAXIMUM + ADDRESSES_MAXIMUM);
    Ok(clients.filter_map(|client| Remembered::deserialize(client).ok()?.known(table)).collect())
}

fn compose(learner: &Learner) -> String {
    let clients = learner.worked().map(Remembered::new).collect();
    // Serializing to memory does not fail.
    serde_json::to_string(&File { version: VERSION, clients }).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::protocol::release::RELEASES;

    fn table() -> Table {
        let all: Vec<_> = RELEASES.iter().collect();
        Table { by_age: all.clone(), likely: all, named: 0 }
    }

    fn key(client: Option<&str>, address: &str) -> Key {
        Key { address: address.parse().unwrap(), client: client.map(Into::into) }
    }

    fn taught() -> Learner {
        let mut learner = Learner::default();
        learner.confirm(&key(Some("a \"quoted\"\nname"), "192.0.2.1"), &RELEASES[0], 100);
        learner.confirm(&key(Some("a \"quoted\"\nname"), "192.0.2.1"), &RELEASES[1], 200);
        learner.confirm(&key(None, "2001:db8::1"), &RELEASES[0], 300);
        learner
    }

    fn state(learner: &Learner) -> Vec<(Key, Vec<Worked>)> {
        learner.worked().map(|(key, worked)| (key.clone(), worked.to_vec())).collect()
    }

    #[test]
    fn what_was_learned_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let now = Instant::now();
        let mut memory = Memory::new(Some(directory.path().to_owned()));
        let mut learner = taught();
        memory.keep(&mut learner, now);
        assert!(!directory.path().join(FILE).exists(), "not for each client");
        assert_eq!(memory.due(), Some(now + NEWS_DELAY));
        memory.keep(&mut learner, now + NEWS_DELAY);
        assert_eq!(memory.due(), None);

        let mut restored = Learner::default();
        memory.load(&mut restored, &table());
        assert_eq!(state(&restored), state(&learner));
        assert_eq!(restored.take_change(), Change::None, "nothing new, so nothing to write");
        let names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [FILE]);
    }

    #[test]
    fn the_end_of_the_server_does_not_lose_the_last_seconds() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = Memory::new(Some(directory.path().to_owned()));
        memory.finish(&mut taught(), Instant::now());
        assert_eq!(look(directory.path(), &table()).unwrap().len(), 2);
    }

    #[test]
    fn a_damaged_or_hostile_file_costs_what_was_learned_and_nothing_else() {
        let whole = compose(&taught());
        for length in 0..whole.trim_end().len() {
            if whole.is_char_boundary(length) {
                assert!(parse(&whole[..length], &table()).is_err(), "cut at {length}");
            }
        }
        let deep = "[".repeat(100_000);
        for text in ["null", "[]", "{\"version\":2,\"clients\":[]}", "{\"version\":1,\"clients\":{}}", &deep] {
            assert!(parse(text, &table()).is_err(), "{text:.60}");
        }
        let odd = r#"{"version":1,"clients":[7,{"client":null,"address":"nowhere","releases":[]},
            {"client":"x","address":"192.0.2.1","releases":[{"release":"9.9","at":1}]},
            {"client":7,"address":"192.0.2.1","releases":[{"release":"2.60.0","at":1}]},
            {"client":"y","address":"192.0.2.2","releases":[{"release":"9.9","at":1},
             {"release":"2.60.0","at":18446744073709551615},{"release":"2.60.0","at":3}]}]}"#;
        let known = parse(odd, &table()).unwrap();
        assert_eq!(known.len(), 1, "{known:?}");
        assert_eq!(known[0].0, key(Some("y"), "192.0.2.2"));
        assert_eq!(known[0].1.len(), 1);
    }

    #[test]
    fn a_file_full_of_clients_is_bounded() {
        let entry = |number: u32| {
            json!({ "client": format!("c{number}"), "address": "192.0.2.1",
                    "releases": [{ "release": "2.60.0", "at": number }] })
        };
        let text = json!({ "version": 1, "clients": (0..9000).map(entry).collect::<Vec<_>>() }).to_string();
        let mut learner = Learner::default();
        learner.restore(parse(&text, &table()).unwrap());
        assert_eq!(learner.worked().count(), CLIENTS_MAXIMUM);
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        assert_eq!(look(directory.path(), &table()).unwrap_err(), "it is no file");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(look(directory.path(), &table()).is_err());
        let mut memory = Memory::new(Some(directory.path().to_owned()));
        memory.load(&mut Learner::default(), &table());
        memory.finish(&mut taught(), Instant::now());
        assert!(path.is_dir(), "and what stands in the way stays");
    }

    #[test]
    fn a_full_or_missing_directory_is_no_failure() {
        let mut memory = Memory::new(Some(PathBuf::from("/nonexistent/state")));
        memory.load(&mut Learner::default(), &table());
        memory.finish(&mut taught(), Instant::now());
        Memory::new(None).finish(&mut taught(), Instant::now());
    }
}
