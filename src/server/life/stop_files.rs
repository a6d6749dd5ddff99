//! Which stanzas an administrator has stopped, as far as SIGTERM needs to know (see `signals`).
//!
//! `pgbackrest stop` makes `<lock-path>/<stanza>.stop` or `all.stop` (specification, section 5.2).

use std::path::Path;

/// Whether `stanza`, or every stanza, has a stop file.
pub(crate) fn is_stopped(lock_path: &Path, stanza: Option<&str>) -> bool {
    let exists = |name: String| lock_path.join(name).symlink_metadata().is_ok();
    let own = stanza.filter(|stanza| !stanza.contains('/'));
    exists("all.stop".to_owned()) || own.is_some_and(|stanza| exists(format!("{stanza}.stop")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_file_counts_for_its_stanza_and_that_of_all_for_each() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("demo.stop"), "").unwrap();
        assert!(is_stopped(directory.path(), Some("demo")));
        assert!(!is_stopped(directory.path(), Some("other")));
        assert!(!is_stopped(directory.path(), Some("../demo")));
        assert!(!is_stopped(directory.path(), None));
        std::fs::write(directory.path().join("all.stop"), "").unwrap();
        assert!(is_stopped(directory.path(), Some("other")));
        assert!(is_stopped(directory.path(), None));
    }
}
