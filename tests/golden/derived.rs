//! Conversations of releases that could not be run, derived from what is known of them.
//!
//! Each file of `data/derived/` says which facts it comes from, of which releases it is, which
//! recording they replay besides, and from which releases it must differ: what holds for another
//! generation as well shows nothing. Requests and answers stand as in `golden.txt`. `==` begins a
//! connection, `held` names a lock file that somebody else has, `L>` a lock file that the request
//! before takes, with what it says, and `end` stands where the server ends the connection.

use std::fs;
use std::path::{Path, PathBuf};

use repohostd::protocol::release::Release;

use crate::conversation::Conversation;
use crate::{RECORDED, replay, unhex};

/// The file that only names recordings to replay.
const SAME: &str = "same.txt";

/// One request, or a part of one, and what is to come of it.
#[derive(Default)]
struct Exchange {
    title: String,
    request: Vec<u8>,
    answer: Vec<u8>,
    locks: Vec<(String, String)>,
    ends: bool,
}

#[derive(Default)]
struct Connection {
    held: Vec<String>,
    exchanges: Vec<Exchange>,
}

/// One file.
pub(crate) struct Derived {
    name: String,
    /// Whose conversations these are.
    pub(crate) releases: Vec<String>,
    replays: Vec<String>,
    others: Vec<String>,
    connections: Vec<Connection>,
}

impl Derived {
    fn connection(&mut self) -> &mut Connection {
        self.connections.last_mut().expect("a connection before")
    }

    fn exchange(&mut self) -> &mut Exchange {
        self.connection().exchanges.last_mut().expect("a request before")
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/derived")
}

/// All of them.
pub(crate) fn all() -> Vec<Derived> {
    let entries = fs::read_dir(directory()).expect("the directory is there").map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().is_some_and(|name| name != SAME)).map(|path| parse(&path)).collect()
}

/// Releases with the recorded one that a repository's clients cannot tell from it.
pub(crate) fn same_as_recorded() -> Vec<(String, String)> {
    let text = fs::read_to_string(directory().join(SAME)).expect("the file is there");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap()).collect()
}

fn parse(path: &Path) -> Derived {
    let text = fs::read_to_string(path).expect("the file can be read");
    let name = path.display().to_string();
    assert!(text.starts_with("# Derived from the specification"), "{name} says that it is derived");
    let mut derived = Derived { name, releases: vec![], replays: vec![], others: vec![], connections: vec![] };
    let mut title = "";
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with("     ")) {
        let words = |list: &str| list.split(' ').map(str::to_owned).collect();
        if let Some(list) = line.strip_prefix("releases: ") {
            derived.releases = words(list);
        } else if let Some(list) = line.strip_prefix("replays: ") {
            derived.replays = words(list);
        } else if let Some(list) = line.strip_prefix("differs from: ") {
            derived.others = words(list);
        } else if line.starts_with("== ") {
            derived.connections.push(Connection::default());
        } else if let Some(name) = line.strip_prefix("-- ") {
            title = name;
        } else if let Some(name) = line.strip_prefix("  held ") {
            derived.connection().held.push(name.to_owned());
        } else if let Some(request) = line.strip_prefix("  C> ") {
            let exchange = Exchange { title: title.to_owned(), request: unhex(request), ..Exchange::default() };
            derived.connection().exchanges.push(exchange);
        } else if let Some(answer) = line.strip_prefix("  <S ") {
            derived.exchange().answer.extend(unhex(answer));
        } else if let Some((name, contents)) = line.strip_prefix("  L> ").and_then(|lock| lock.split_once(' ')) {
            let contents = contents.replace("\\n", "\n").replace("PID", &std::process::id().to_string());
            derived.exchange().locks.push((name.to_owned(), contents));
        } else if line == "  end" {
            derived.exchange().ends = true;
        } else {
            panic!("{}: '{line}' means nothing", derived.name);
        }
    }
    derived
}

/// What is wrong with `release`, the first thing, if it is to hold these conversations.
fn difference(derived: &Derived, release: &'static Release) -> Option<String> {
    for connection in &derived.connections {
        let mut conversation = Conversation::new(release);
        conversation.disk.held.clone_from(&connection.held);
        for Exchange { title, request, answer, locks, ends } in &connection.exchanges {
            if let Some(difference) = conversation.differs(title, request, answer) {
                return Some(difference);
            }
            let asked = std::mem::take(&mut conversation.disk.asked);
            if asked != *locks {
                return Some(format!("{}: {title}: locks {asked:?}, wanted {locks:?}", release.version));
            }
            if conversation.ended() != *ends {
                return Some(format!("{}: {title}: the end of the connection", release.version));
            }
        }
    }
    None
}

fn known(version: &str) -> &'static Release {
    Release::find(version).unwrap_or_else(|| panic!("{version} is known"))
}

#[test]
fn derived_conversations_are_held_as_derived() {
    let all = all();
    assert!(!all.is_empty());
    for derived in &all {
        let exchanges: usize = derived.connections.iter().map(|connection| connection.exchanges.len()).sum();
        assert!(exchanges >= 3 && !derived.releases.is_empty(), "{} is complete", derived.name);
        for version in &derived.releases {
            assert_eq!(difference(derived, known(version)), None, "{}", derived.name);
            for recorded in &derived.replays {
                assert!(RECORDED.contains(&recorded.as_str()), "{recorded}");
                replay(recorded, version);
            }
        }
    }
}

#[test]
fn derived_conversations_tell_a_release_from_its_neighbours() {
    for derived in all() {
        assert!(!derived.others.is_empty(), "{}", derived.name);
        for other in &derived.others {
            assert!(difference(&derived, known(other)).is_some(), "{} holds for {other} too", derived.name);
        }
    }
}
