//! What the corpora begin with.

use std::path::Path;

/// The folder that seeds go to, if that is all that a target is started for.
const FOLDER: &str = "REPOHOSTD_FUZZ_SEEDS";

/// Writes `seeds` to the folder that the environment names and ends the process, if there is one: the first call of
/// every target. So seeds are made by the program that reads them.
///
/// # Panics
///
/// When the folder cannot be written.
pub fn offer(seeds: impl FnOnce() -> Vec<Vec<u8>>) {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder).expect("the folder of seeds can be made");
    for (number, seed) in seeds().iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{number:04}")), seed).expect("a seed can be written");
    }
    std::process::exit(0);
}

/// Files of the sources that are good examples, by their names.
///
/// # Panics
///
/// When the folder cannot be read.
#[must_use]
pub fn files(folder: &str, suffix: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    let entries = std::fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("it can be read"));
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    let wanted = paths.iter().filter(|path| path.to_str().is_some_and(|path| path.ends_with(suffix)));
    let files: Vec<_> = wanted.map(|path| std::fs::read(path).expect("the example can be read")).collect();
    assert!(!files.is_empty(), "there are examples");
    files
}
