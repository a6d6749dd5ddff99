//! What is below a directory, to be compared before and after.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Everything below `base` with its content; a directory has none, a link's is its text.
pub(crate) fn contents(base: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![base.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).expect("what is listed can be looked at");
        let content = if metadata.is_dir() {
            let list = fs::read_dir(&path).expect("a directory can be listed");
            pending.extend(list.map(|entry| entry.expect("a directory can be listed").path()));
            b"a directory".to_vec()
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path).expect("a link can be read");
            [b"a link to ", target.as_os_str().as_encoded_bytes()].concat()
        } else if metadata.is_file() {
            fs::read(&path).expect("a file can be read")
        } else {
            b"a special file".to_vec()
        };
        found.insert(path.strip_prefix(base).expect("it is below").to_owned(), content);
    }
    found
}

/// Names that differ between two moments.
pub(crate) fn changes(before: &BTreeMap<PathBuf, Vec<u8>>, after: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<PathBuf> {
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    names.filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}
