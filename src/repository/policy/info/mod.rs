//! Info files of a stanza: what `backup.info` and `archive.info` say, and what a new one would lose.
//!
//! An info file is INI text whose values are JSON, with a checksum of all that it says, perhaps
//! encrypted. Without it no backup of the stanza can be found. [`InfoFile::read`] accepts only what every
//! client reads in the same way: what pgBackRest itself would write. Nothing here does I/O. The facts were
//! found with files that clients of 2.45, 2.55.1 and 2.60.0 wrote, which are in `data/`.

mod compare;
mod entry;
mod parse;

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use zeroize::{Zeroize as _, Zeroizing};

use crate::filter::whole;
use crate::protocol::filter::Secret;

/// Bytes of the largest info file that is read. A backup takes about a thousand.
pub const MAXIMUM: usize = 16 << 20;

/// How every info file begins, since pgBackRest sorts sections.
const BEGINNING: &[u8] = b"[backrest]\n";

const BACKREST: &str = "backrest";
const CURRENT: &str = "backup:current";
const CIPHER: &str = "cipher";
const DATABASE: &str = "db";
const HISTORY: &str = "db:history";

/// What became of reading an info file.
#[derive(Debug)]
pub enum Reading {
    /// It is a good one.
    Known(InfoFile),
    /// It is encrypted, and no key fits.
    Opaque,
    /// Clients cannot read it, for this reason.
    Damaged(String),
}

/// Sections and their keys, with the JSON text of each value. Equal values have equal texts.
type Sections = BTreeMap<String, BTreeMap<String, Box<str>>>;

/// A good info file.
#[derive(Clone, PartialEq, Eq)]
pub struct InfoFile {
    sections: Sections,
    key: Option<usize>,
}

/// What an info file says of one backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Its label.
    pub label: String,
    /// Labels of the backups that hold files of it: `backup-reference`.
    pub references: Vec<String>,
    /// The backup that it continues: `backup-prior`.
    pub prior: Option<String>,
    /// The WAL that it needs, if it was made online.
    pub wal: Option<WalRange>,
    /// When it was finished, in seconds since 1970.
    pub stopped: u64,
}

/// The WAL segments that make a backup consistent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalRange {
    /// The directory below the stanza's archive, such as `15-1`.
    pub archive_id: String,
    /// The first segment.
    pub start: String,
    /// The last segment.
    pub stop: String,
}

impl InfoFile {
    /// Reads an info file, decrypted with the first of the passphrases `keys` that fits.
    #[must_use]
    pub fn read(bytes: &[u8], keys: &[&[u8]]) -> Reading {
        if bytes.len() > MAXIMUM {
            return Reading::Damaged(format!("it is larger than {} MiB", MAXIMUM >> 20));
        }
        if !whole::is_encrypted(bytes) {
            return Self::parse(bytes, None);
        }
        for (index, key) in keys.iter().enumerate() {
            if let Some(plain) = decrypt(bytes, key) {
                return Self::parse(&plain, Some(index));
            }
        }
        Reading::Opaque
    }

    fn parse(bytes: &[u8], key: Option<usize>) -> Reading {
        match parse::sections(bytes).and_then(|sections| entry::check(&sections).map(|()| sections)) {
            Ok(sections) => Reading::Known(Self { sections, key }),
            Err(reason) => Reading::Damaged(reason),
        }
    }

    /// Which of the keys decrypted it; `None` for a file that is not encrypted.
    #[must_use]
    pub const fn key(&self) -> Option<usize> {
        self.key
    }

    /// Whether it lists this backup.
    #[must_use]
    pub fn has(&self, label: &str) -> bool {
        self.section(CURRENT).is_some_and(|entries| entries.contains_key(label))
    }

    /// The labels of all backups that it lists, the oldest first.
    #[must_use]
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.section(CURRENT).into_iter().flatten().map(|(label, _)| label.as_str())
    }

    /// What it says of one backup.
    #[must_use]
    pub fn backup(&self, label: &str) -> Option<Backup> {
        let entry = object(self.section(CURRENT)?.get(label)?)?;
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        let references = entry.get("backup-reference").and_then(Value::as_array).into_iter().flatten();
        let wal = || {
            let id = entry.get("db-id").and_then(Value::as_u64)?;
            let archive_id = self.archive_id(id)?;
            Some(WalRange { archive_id, start: text("backup-archive-start")?, stop: text("backup-archive-stop")? })
        };
        Some(Backup {
            label: label.to_owned(),
            references: references.filter_map(|label| label.as_str().map(str::to_owned)).collect(),
            prior: text("backup-prior"),
            wal: wal(),
            stopped: entry.get("backup-timestamp-stop").and_then(Value::as_u64)?,
        })
    }

    /// The name of the archive of the cluster `id`: its `PostgreSQL` version and the number.
    fn archive_id(&self, id: u64) -> Option<String> {
        let cluster = object(self.section(HISTORY)?.get(&id.to_string())?)?;
        Some(format!("{}-{id}", cluster.get("db-version")?.as_str()?))
    }

    fn section(&self, name: &str) -> Option<&BTreeMap<String, Box<str>>> {
        self.sections.get(name)
    }
}

impl std::fmt::Debug for InfoFile {
    /// Not what it says: the passphrase of the backups is a part of it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InfoFile").field("labels", &self.labels().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

impl Drop for InfoFile {
    fn drop(&mut self) {
        for value in self.sections.get_mut(CIPHER).into_iter().flat_map(BTreeMap::values_mut) {
            value.zeroize();
        }
    }
}

/// The JSON object that `text` is.
fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(text).ok()
}

/// The plain text of `bytes`, if the passphrase `key` fits.
fn decrypt(bytes: &[u8], key: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let plain = Zeroizing::new(whole::decrypt(bytes, &Secret(key.to_vec()))?);
    // One of 256 wrong keys seems to fit, but what it makes of the data is no text.
    (plain.starts_with(BEGINNING) || std::str::from_utf8(&plain).is_ok()).then_some(plain)
}

#[cfg(test)]
mod tests;
