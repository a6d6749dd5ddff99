//! What clients wanted to be on the disk, and what has to be there therefore.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// What was wanted under one name, by however many clients.
#[derive(Default)]
struct Wanted {
    /// What of each writer would be a whole file.
    contents: Vec<Vec<u8>>,
    /// Somebody wrote it in place, so that half of it may be seen.
    is_in_place: bool,
    /// Somebody did not want to have it on the disk before he is told so.
    is_unsynced: bool,
    is_acknowledged: bool,
}

/// All files that clients have begun to write.
#[derive(Default)]
pub(crate) struct Files(HashMap<PathBuf, Wanted>);

impl Files {
    /// A client begins to write.
    pub(crate) fn begin(&mut self, path: &Path, content: &[u8], atomic: bool, sync: bool) {
        let wanted = self.0.entry(path.to_path_buf()).or_default();
        wanted.contents.push(content.to_vec());
        wanted.is_in_place |= !atomic;
        wanted.is_unsynced |= !sync;
    }

    /// A client was told that its file is there.
    pub(crate) fn acknowledge(&mut self, path: &Path) {
        self.0.get_mut(path).expect("it was begun").is_acknowledged = true;
    }

    /// Whether a client was told that its file is there.
    pub(crate) fn is_acknowledged(&self, path: &Path) -> bool {
        self.0.get(path).is_some_and(|wanted| wanted.is_acknowledged)
    }

    /// Whether `begin` is how some writer's content begins, and all of it if it is shorter than `full`.
    pub(crate) fn begins_with(&self, path: &Path, begin: &[u8], full: usize) -> bool {
        let fits =
            |content: &Vec<u8>| content.starts_with(begin) && (begin.len() >= full || begin.len() == content.len());
        self.0[path].contents.iter().any(fits)
    }

    /// How many files were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.0.values().filter(|wanted| wanted.is_acknowledged && !wanted.is_in_place).count()
    }

    /// How many files were acknowledged that a power cut may not take.
    pub(crate) fn acknowledged_synced(&self) -> usize {
        self.held_after_cut().filter(|(_, wanted)| wanted.is_acknowledged).count()
    }

    fn held_after_cut(&self) -> impl Iterator<Item = (&PathBuf, &Wanted)> {
        self.0.iter().filter(|(_, wanted)| !wanted.is_in_place && !wanted.is_unsynced)
    }

    /// Insists on what has to be there after all sessions have ended.
    pub(crate) fn check(&self) {
        for (path, wanted) in self.0.iter().filter(|(_, wanted)| !wanted.is_in_place) {
            wanted.check(path, "in the end");
        }
    }

    /// Insists on what has to be there after the power was cut.
    pub(crate) fn check_after_cut(&self) {
        self.held_after_cut().for_each(|(path, wanted)| wanted.check(path, "after a power cut"));
    }
}

impl Wanted {
    fn check(&self, path: &Path, when: &str) {
        let name = path.display();
        match std::fs::read(path) {
            Ok(found) => assert!(self.contents.contains(&found), "half a file {when}: {name}"),
            Err(_) => assert!(!self.is_acknowledged, "acknowledged, but lost {when}: {name}"),
        }
    }
}

/// Insists that no temporary file or lock is there but those, and no segment twice.
pub(crate) fn check_tidy(directory: &Path, except: &HashSet<PathBuf>) {
    let mut pending = vec![directory.to_path_buf()];
    let mut segments = HashMap::new();
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            if except.contains(&path) {
                continue;
            }
            let extension = path.extension().and_then(|extension| extension.to_str());
            assert!(!matches!(extension, Some("tmp" | "lock")), "left behind: {}", path.display());
            let name = path.file_name().unwrap().to_str().unwrap();
            if let Some((segment, _)) = name.split_once('-').filter(|(segment, _)| segment.len() == 24) {
                let other = segments.insert(segment.to_owned(), path.clone());
                assert!(other.is_none(), "one segment twice: {} and {}", path.display(), other.unwrap().display());
            }
        }
    }
}
