//! What the sections of an info file must say so that every client can read it.

use serde_json::Value;

use crate::repository::policy::layout::is_label;

use super::{BACKREST, CURRENT, DATABASE, HISTORY, Sections, object};

/// What kind of value a key has.
#[derive(Clone, Copy)]
enum Kind {
    Count,
    Flag,
    Text,
    TextOrNull,
    Labels,
    Label,
    Type,
    Texts,
}

/// The keys of a backup that clients know, and whether they insist on them.
const KEYS: [(&str, Kind, bool); 27] = [
    ("backrest-format", Kind::Count, true),
    ("backrest-version", Kind::Text, true),
    ("backup-annotation", Kind::Texts, false),
    ("backup-archive-start", Kind::TextOrNull, false),
    ("backup-archive-stop", Kind::TextOrNull, false),
    ("backup-error", Kind::Flag, false),
    ("backup-info-repo-size", Kind::Count, true),
    ("backup-info-repo-size-delta", Kind::Count, true),
    ("backup-info-repo-size-map", Kind::Count, false),
    ("backup-info-repo-size-map-delta", Kind::Count, false),
    ("backup-info-size", Kind::Count, true),
    ("backup-info-size-delta", Kind::Count, true),
    ("backup-lsn-start", Kind::TextOrNull, false),
    ("backup-lsn-stop", Kind::TextOrNull, false),
    ("backup-prior", Kind::Label, false),
    ("backup-reference", Kind::Labels, false),
    ("backup-timestamp-start", Kind::Count, true),
    ("backup-timestamp-stop", Kind::Count, true),
    ("backup-type", Kind::Type, true),
    ("db-id", Kind::Count, true),
    ("option-archive-check", Kind::Flag, true),
    ("option-archive-copy", Kind::Flag, true),
    ("option-backup-standby", Kind::Flag, true),
    ("option-checksum-page", Kind::Flag, true),
    ("option-compress", Kind::Flag, true),
    ("option-hardlink", Kind::Flag, true),
    ("option-online", Kind::Flag, true),
];

/// Whether clients can read all that they need.
pub(super) fn check(sections: &Sections) -> Result<(), String> {
    for name in [BACKREST, DATABASE, HISTORY] {
        if !sections.contains_key(name) {
            return Err(format!("it has no section [{name}]"));
        }
    }
    let history = sections.get(HISTORY);
    for (label, text) in sections.get(CURRENT).into_iter().flatten() {
        if !is_label(label) {
            return Err(format!("'{}' is no backup label", label.escape_debug()));
        }
        let id = check_backup(text).map_err(|reason| format!("{reason} of backup {label}"))?;
        if !history.is_some_and(|history| history.contains_key(&id.to_string())) {
            return Err(format!("backup {label} is of a database that is not in [{HISTORY}]"));
        }
    }
    Ok(())
}

/// Whether clients can read an entry; the number of its database.
fn check_backup(text: &str) -> Result<u64, String> {
    let entry = object(text).ok_or("bad entry")?;
    for (key, kind, required) in KEYS {
        match entry.get(key) {
            Some(value) if kind.fits(value) => {}
            None if !required => {}
            Some(_) => return Err(format!("bad {key}")),
            None => return Err(format!("no {key}")),
        }
    }
    Ok(entry.get("db-id").and_then(Value::as_u64).unwrap_or_default())
}

impl Kind {
    fn fits(self, value: &Value) -> bool {
        let is_label = |value: &Value| value.as_str().is_some_and(is_label);
        match self {
            Self::Count => value.is_u64(),
            Self::Flag => value.is_boolean(),
            Self::Text => value.is_string(),
            Self::TextOrNull => value.is_string() || value.is_null(),
            Self::Label => is_label(value),
            Self::Labels => value.as_array().is_some_and(|labels| labels.iter().all(is_label)),
            Self::Type => value.as_str().is_some_and(|kind| ["full", "diff", "incr"].contains(&kind)),
            Self::Texts => value.as_object().is_some_and(|texts| texts.values().all(Value::is_string)),
        }
    }
}
