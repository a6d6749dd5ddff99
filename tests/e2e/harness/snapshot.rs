//! What lies below a directory, to be compared before and after.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// Everything that can be seen of one entry, but for the time of its last look and its links.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    modified: (i64, i64),
    /// The checksum of a file, the text of a link.
    content: Vec<u8>,
}

/// A tree of files at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Snapshot {
    /// Everything below `directory`, and the directory itself under an empty name.
    pub(crate) fn of(directory: &Path) -> Self {
        let mut entries = BTreeMap::new();
        let mut pending = vec![directory.to_owned()];
        while let Some(path) = pending.pop() {
            let metadata = fs::symlink_metadata(&path).expect("what is listed can be looked at");
            let kind = metadata.file_type();
            let (kind, content) = if kind.is_dir() {
                let list = fs::read_dir(&path).expect("a directory can be listed");
                pending.extend(list.map(|entry| entry.expect("a directory can be listed").path()));
                ("directory", Vec::new())
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).expect("a link can be read");
                ("link", target.into_os_string().into_encoded_bytes())
            } else if kind.is_file() {
                let content = fs::read(&path).expect("a file can be read");
                ("file", digest(&SHA1_FOR_LEGACY_USE_ONLY, &content).as_ref().to_vec())
            } else {
                ("something else", Vec::new())
            };
            let entry = Entry {
                kind,
                mode: metadata.mode(),
                owner: (metadata.uid(), metadata.gid()),
                // what a directory takes is the file system's business
                size: if kind == "directory" { 0 } else { metadata.size() },
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                content,
            };
            let name = path.strip_prefix(directory).expect("it is below the directory").to_owned();
            entries.insert(name, entry);
        }
        Self { entries }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What differs in `later`, one line for each entry.
    pub(crate) fn differences(&self, later: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (path, before) in &self.entries {
            match later.entries.get(path) {
                None => found.push(format!("{} is gone", path.display())),
                Some(after) if after != before => {
                    found.push(format!("{} was {before:?} and is {after:?}", path.display()));
                }
                Some(_) => {}
            }
        }
        let new = later.entries.keys().filter(|path| !self.entries.contains_key(*path));
        found.extend(new.map(|path| format!("{} is new", path.display())));
        found
    }

    /// The same without the times of directories, in which a temporary file may have come and gone.
    pub(crate) fn without_directory_times(mut self) -> Self {
        for entry in self.entries.values_mut().filter(|entry| entry.kind == "directory") {
            entry.modified = (0, 0);
        }
        self
    }

    /// Insists that nothing below `directory` differs from this moment.
    #[track_caller]
    pub(crate) fn assert_unchanged(&self, directory: &Path) {
        assert!(self.len() > 1, "{} was empty: nothing is proved by its not having changed", directory.display());
        let differences = self.differences(&Self::of(directory));
        assert!(differences.is_empty(), "{} has changed:\n{}", directory.display(), differences.join("\n"));
    }
}
