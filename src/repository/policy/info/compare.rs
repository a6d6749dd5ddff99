//! What a new info file would change of an old one.

use super::{BACKREST, CIPHER, CURRENT, DATABASE, HISTORY, InfoFile, object};

/// Keys of a backup that a newer release cannot have reason to add to what an older one wrote.
const FIXED: [&str; 6] =
    ["backup-archive-start", "backup-archive-stop", "backup-prior", "backup-reference", "backup-type", "db-id"];
const FIXED_PREFIX: &str = "backup-timestamp-";
/// The key of a backup that `annotate` changes.
const ANNOTATION: &str = "backup-annotation";
const FORMAT: &str = "backrest-format";

impl InfoFile {
    /// The labels of this file that `new` does not list, if it changes nothing else but to list more.
    ///
    /// Another release may have written it: new keys of old backups are no change, unless they say what
    /// the backup is.
    ///
    /// # Errors
    ///
    /// What else would change.
    pub fn lost_in(&self, new: &Self) -> Result<Vec<String>, String> {
        self.same_key(new)?;
        for name in [DATABASE, HISTORY, CIPHER] {
            if self.section(name) != new.section(name) {
                return Err(format!("section [{name}] would change"));
            }
        }
        self.same_format(new)?;
        let mut lost = Vec::new();
        for label in self.labels() {
            if new.has(label) {
                self.same_backup(new, label)?;
            } else {
                lost.push(label.to_owned());
            }
        }
        Ok(lost)
    }

    /// Whether `new` says the same, apart from the release that wrote it.
    ///
    /// # Errors
    ///
    /// What would change.
    pub fn unchanged_in(&self, new: &Self) -> Result<(), String> {
        self.same_key(new)?;
        self.same_format(new)?;
        let names = self.sections.keys().chain(new.sections.keys()).filter(|name| *name != BACKREST);
        match names.into_iter().find(|name| self.section(name) != new.section(name)) {
            Some(name) => Err(format!("section [{name}] would change")),
            None => Ok(()),
        }
    }

    /// The first of `labels` that this file lists and `new` lists differently or not at all; and whatever
    /// would make all of them useless.
    ///
    /// # Errors
    ///
    /// What would change.
    pub fn keeps_in<'a>(&self, new: &Self, labels: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
        self.same_key(new)?;
        if self.section(CIPHER) != new.section(CIPHER) {
            return Err(format!("section [{CIPHER}] would change"));
        }
        // `stanza-upgrade` adds to the history.
        for (id, cluster) in self.section(HISTORY).into_iter().flatten() {
            if new.section(HISTORY).and_then(|history| history.get(id)) != Some(cluster) {
                return Err(format!("key '{id}' of section [{HISTORY}] would change"));
            }
        }
        for label in labels.into_iter().filter(|label| self.has(label)) {
            if !new.has(label) {
                return Err(format!("backup {label} would be gone"));
            }
            self.same_backup(new, label)?;
        }
        Ok(())
    }

    fn same_key(&self, new: &Self) -> Result<(), String> {
        if self.key == new.key {
            return Ok(());
        }
        Err(match (self.key, new.key) {
            (None, _) => "it would be encrypted",
            (_, None) => "it would not be encrypted any more",
            _ => "it would be encrypted with another passphrase",
        }
        .to_owned())
    }

    fn same_format(&self, new: &Self) -> Result<(), String> {
        let format = |file: &Self| file.section(BACKREST).and_then(|entries| entries.get(FORMAT)).cloned();
        if format(self) == format(new) { Ok(()) } else { Err(format!("{FORMAT} would change")) }
    }

    /// Both list the backup.
    fn same_backup(&self, new: &Self, label: &str) -> Result<(), String> {
        let text = |file: &Self| file.section(CURRENT).and_then(|entries| entries.get(label)).cloned();
        let (Some(before), Some(after)) = (text(self), text(new)) else { return Ok(()) };
        if before == after {
            return Ok(());
        }
        let (Some(before), Some(after)) = (object(&before), object(&after)) else {
            return Err(format!("backup {label} would change"));
        };
        let changed =
            before.iter().filter(|(key, _)| *key != ANNOTATION).find(|(key, value)| after.get(*key) != Some(*value));
        let added = || {
            let fixed = |key: &&String| FIXED.contains(&key.as_str()) || key.starts_with(FIXED_PREFIX);
            after.keys().filter(fixed).find(|key| !before.contains_key(*key))
        };
        match changed.map(|(key, _)| key).or_else(added) {
            Some(key) => Err(format!("{} of backup {label} would change", key.escape_debug())),
            None => Ok(()),
        }
    }
}
