//! A disk that holds what the recording's repository held, and nothing of this machine.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use repohostd::disk::{
    Completion, Entry, Errno, Failure, File, Kind, Level, Location, LockAttempt, Metadata, Operation, Outcome,
    OwnerChange, Step,
};

/// The repository.
pub(crate) const BASE: &str = "/srv/repository";
/// Where lock and stop files are.
pub(crate) const LOCKS: &str = "/srv/lock";

/// What the recording's repository held.
pub(crate) struct ScriptedDisk {
    entries: HashMap<String, Node>,
    /// The order of the recording's directory.
    order: [&'static str; 4],
    open: HashMap<i32, String>,
    /// How often a directory was synced.
    pub(crate) synced: usize,
    /// Lock files that others hold.
    pub(crate) held: Vec<String>,
    /// Lock files that were asked for since the last look, with what would be written into them.
    pub(crate) asked: Vec<(String, String)>,
}

#[derive(Clone)]
struct Node {
    kind: Kind,
    mode: u32,
    modified: i64,
    data: Vec<u8>,
    link: Option<String>,
}

impl ScriptedDisk {
    pub(crate) fn new() -> Self {
        let node = |kind, mode, modified, data: &str, link: Option<&str>| Node {
            kind,
            mode,
            modified,
            data: data.as_bytes().to_vec(),
            link: link.map(str::to_owned),
        };
        let entries = [
            ("", node(Kind::Directory, 0o750, 1_700_000_000, "", None)),
            ("a", node(Kind::File, 0o640, 1_700_000_000, "hello", None)),
            ("b", node(Kind::File, 0o600, 1_700_000_010, "world!!", None)),
            ("ln", node(Kind::Link, 0o777, 1_700_000_000, "", Some("a"))),
            ("sub", node(Kind::Directory, 0o750, 1_700_000_000, "", None)),
        ];
        let entries = entries.map(|(name, node)| (name.to_owned(), node)).into();
        Self {
            entries,
            order: ["b", "ln", "sub", "a"],
            open: HashMap::new(),
            synced: 0,
            held: Vec::new(),
            asked: Vec::new(),
        }
    }

    fn metadata(&self, path: &str) -> Option<Metadata> {
        let node = self.entries.get(path)?;
        Some(Metadata {
            kind: node.kind,
            changed: 0,
            modified: node.modified,
            size: node.data.len() as u64,
            mode: node.mode,
            uid: 0,
            user: Some(Rc::from("root")),
            gid: 0,
            group: Some(Rc::from("root")),
            link_destination: node.link.clone().map(Into::into),
        })
    }

    fn open(&mut self, path: &str) -> Outcome {
        let file = std::fs::File::open("/dev/null").unwrap();
        self.open.insert(file.as_raw_fd(), path.to_owned());
        Outcome::File(File::from(std::os::fd::OwnedFd::from(file)))
    }

    fn parent_exists(&self, path: &str) -> bool {
        self.entries.contains_key(path.rsplit_once('/').map_or("", |(parent, _)| parent))
    }

    fn add(&mut self, path: &str, kind: Kind, mode: u32, link: Option<String>) {
        self.entries.insert(path.to_owned(), Node { kind, mode, modified: 0, data: Vec::new(), link });
    }

    /// A lock file that nobody else holds is held by the client itself, through another connection.
    fn lock(&mut self, at: &Location, contents: String) -> Outcome {
        let path = at.to_string();
        let name = path.strip_prefix(LOCKS).expect("locks are where they belong").trim_start_matches('/').to_owned();
        let others = self.held.contains(&name);
        self.asked.push((name, contents.clone()));
        Outcome::Lock(LockAttempt::Busy { contents: if others { String::new() } else { contents } })
    }

    pub(crate) fn run(&mut self, operation: Operation) -> Completion {
        const ENOENT: Failure = Failure { errno: Errno::NOENT, path: None, step: Step::Whole };
        const EEXIST: Failure = Failure { errno: Errno::EXIST, path: None, step: Step::Whole };
        let name = |at: &Location| {
            let path = at.to_string();
            path.strip_prefix(BASE).expect("all requests are within the repository").trim_start_matches('/').to_owned()
        };
        match operation {
            // There are no stop files.
            Operation::Stat { at, .. } if at.to_string().starts_with(LOCKS) => Err(ENOENT),
            Operation::Lock { at, contents } => Ok(self.lock(&at, contents)),
            Operation::Stat { at, level, .. } => {
                let metadata = self.metadata(&name(&at)).ok_or(ENOENT)?;
                assert!(level >= Level::Exists);
                Ok(Outcome::Metadata(metadata))
            }
            Operation::List { at, .. } => {
                if !self.entries.contains_key(&name(&at)) {
                    return Err(ENOENT);
                }
                let entry = |name: &&str| Entry { name: (*name).into(), metadata: self.metadata(name).unwrap() };
                Ok(Outcome::Entries(self.order.iter().map(entry).collect(), None))
            }
            Operation::OpenRead { at } => {
                if !self.entries.contains_key(&name(&at)) {
                    return Err(ENOENT);
                }
                Ok(self.open(&name(&at)))
            }
            Operation::Read { file, mut buffer, length, offset } => {
                let data = &self.entries[&self.open[&file.0.as_raw_fd()]].data;
                let start = data.len().min(usize::try_from(offset).unwrap());
                buffer.extend_from_slice(&data[start..data.len().min(start + length)]);
                Ok(Outcome::Read(buffer))
            }
            Operation::OpenWrite { at, mode, .. } => {
                if !self.parent_exists(&name(&at)) {
                    return Err(ENOENT);
                }
                self.add(&name(&at), Kind::File, mode, None);
                Ok(self.open(&name(&at)))
            }
            Operation::Write { file, data, offset } => {
                let node = self.entries.get_mut(&self.open[&file.0.as_raw_fd()]).unwrap();
                assert_eq!(node.data.len() as u64, offset);
                node.data.extend_from_slice(&data);
                Ok(Outcome::Written(data))
            }
            Operation::SetOwner { .. } => {
                let (current_user, current_group) = (Some(Rc::from("root")), Some(Rc::from("root")));
                let (uid, gid) = (Some(70), Some(70));
                let change = OwnerChange { uid, gid, current_uid: 0, current_user, current_gid: 0, current_group };
                Err(Failure { errno: Errno(1), path: None, step: Step::ChangeOwner(Box::new(change)) })
            }
            Operation::Rename { from, to, .. } => {
                let node = self.entries.remove(&name(&from)).ok_or(ENOENT)?;
                self.entries.insert(name(&to), node);
                Ok(Outcome::Done)
            }
            Operation::MakeDirectory { at, mode } => {
                if self.entries.contains_key(&name(&at)) {
                    return Err(EEXIST);
                }
                self.add(&name(&at), Kind::Directory, mode, None);
                Ok(Outcome::Done)
            }
            Operation::RemoveFile { at } | Operation::RemoveOwn { at, .. } => {
                self.entries.remove(&name(&at)).map(|_| Outcome::Done).ok_or(ENOENT)
            }
            Operation::RemoveTree { at } => {
                self.entries.remove(&name(&at)).map(|_| Outcome::Removed(None)).ok_or(ENOENT)
            }
            Operation::SymbolicLink { target, at } => {
                self.add(&name(&at), Kind::Link, 0o777, Some(target.to_string()));
                Ok(Outcome::Done)
            }
            Operation::SyncDirectory { .. } => {
                self.synced += 1;
                Ok(Outcome::Done)
            }
            Operation::Sync { .. } | Operation::Close { .. } => Ok(Outcome::Done),
            other => panic!("the recording needs no {other:?}"),
        }
    }
}
