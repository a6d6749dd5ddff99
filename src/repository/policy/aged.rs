//! Which backups are too young to be removed, whoever wants to: `min-age`.
//!
//! A backup's age is that of its manifest by the file system's own clock, which no client can set. What
//! a young backup depends on is protected with it: the backups that hold files of it and the WAL that
//! makes it consistent, as `backup.info` tells. Where that cannot be read, every backup of the same
//! set that is not younger counts as needed.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::info::{InfoFile, WalRange};
use super::layout::Wal;

/// How much the clock of a file system may be ahead of this host's.
const AHEAD: SignedDuration = SignedDuration::from_mins(5);

/// Backups of a stanza that no client may remove, and the WAL that they need.
#[derive(Debug, Default)]
pub(crate) struct Protected {
    labels: BTreeSet<String>,
    wal: Vec<WalRange>,
}

impl Protected {
    /// What the `young` ones of all `finished` backups need, as `info` says or as their labels do.
    pub(crate) fn of(young: &BTreeSet<String>, finished: &BTreeSet<String>, info: Option<&InfoFile>) -> Self {
        let mut protected = Self::default();
        let mut pending: Vec<String> = young.iter().cloned().collect();
        while let Some(label) = pending.pop() {
            if let Some(backup) = info.and_then(|info| info.backup(&label)) {
                protected.wal.extend(backup.wal);
                pending.extend(backup.references.into_iter().chain(backup.prior));
            } else {
                let set = label.split('_').next().unwrap_or_default();
                let needed = |other: &&String| other.starts_with(set) && **other <= label;
                pending.extend(finished.iter().filter(needed).cloned());
            }
            pending.retain(|other| *other != label && !protected.labels.contains(other));
            protected.labels.insert(label);
        }
        protected
    }

    /// Labels of the backups.
    pub(crate) const fn labels(&self) -> &BTreeSet<String> {
        &self.labels
    }

    /// Whether a segment, or anything in a directory of segments, is needed.
    pub(crate) fn needs(&self, wal: Wal<'_>) -> bool {
        let from = |name: &str| name.get(..wal.name.len()).unwrap_or_default().to_owned();
        self.wal.iter().any(|range| {
            range.archive_id == wal.archive && (from(&range.start)..=from(&range.stop)).contains(&wal.name.to_owned())
        })
    }

    /// Whether anything in an archive is needed.
    pub(crate) fn needs_archive(&self, archive: &str) -> bool {
        self.wal.iter().any(|range| range.archive_id == archive)
    }
}

/// Whether something that was last changed at `changed`, in seconds since 1970, is younger than `age`.
pub(crate) fn is_young(changed: i64, age: Duration, now: Timestamp) -> bool {
    let now = Duration::try_from(now.as_duration()).unwrap_or_default();
    let changed = Duration::from_secs(u64::try_from(changed).unwrap_or(0));
    // what comes from the future is as young as can be
    now.saturating_sub(changed) < age
}

/// The time of something that was last changed at `changed`, in seconds since 1970, if that has not come yet: a clock
/// is wrong then, or was.
pub(crate) fn future(changed: i64, now: Timestamp) -> Option<Timestamp> {
    let changed = Timestamp::from_second(changed).ok()?;
    (changed.duration_since(now) > AHEAD).then_some(changed)
}

/// Why a backup that comes from the future is told of.
pub(crate) fn future_backup(backup: impl std::fmt::Display, time: Timestamp) -> String {
    format!(
        "backup '{backup}' was finished at {time} by the clock of its file system, which has not come yet: it and what \
         it needs are kept until min-age after that\nHINT: a clock is wrong, or was when the backup was made; one \
         that is ahead now lets backups go before their time."
    )
}
