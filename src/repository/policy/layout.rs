//! What a path in one of a stanza's two directories is, told by its name alone.
//!
//! Names are those that pgBackRest writes (specification, protocol section 4 and server section 6);
//! whatever does not look exactly so is [`Part::Other`].

use bstr::ByteSlice;

/// Which of a stanza's two directories a path is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Area {
    /// `archive/STANZA`.
    Archive,
    /// `backup/STANZA`.
    Backup,
}

/// What a path below a stanza's directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// The stanza's directory itself.
    Stanza,
    /// `archive.info` or `backup.info`, or the copy of it.
    Info,
    /// A directory of the archive, such as `15-1`.
    Archive {
        /// Its name.
        name: &'a str,
    },
    /// A directory of WAL segments, such as `15-1/0000000100000000`.
    WalDirectory(Wal<'a>),
    /// A WAL segment, with the checksum of its content in its name.
    Segment(Wal<'a>),
    /// A `.history` or `.backup` file of the archive.
    Record,
    /// Something in a backup; empty for the directory of the backup itself.
    Backup {
        /// The backup.
        label: &'a str,
        /// The path in it, which names what is in a cluster and need not be text.
        rest: &'a [u8],
    },
    /// `backup.history` or a year in it.
    ManifestHistory,
    /// The manifest of a backup in there.
    OldManifest,
    /// `latest`.
    Latest,
    /// Anything else.
    Other,
}

/// A place in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wal<'a> {
    /// The archive, such as `15-1`.
    pub(crate) archive: &'a str,
    /// 16 digits of a directory, or 24 of a segment.
    pub(crate) name: &'a str,
}

/// The name of the file that a finished backup has.
pub(crate) const MANIFEST: &str = "backup.manifest";

/// Suffix of the name under which a file is written.
pub(crate) const TEMPORARY_SUFFIX: &str = ".pgbackrest.tmp";

/// Suffixes of compressed segments.
const COMPRESSED: [&str; 4] = ["gz", "bz2", "lz4", "zst"];

/// What `path` in `area` is.
pub(crate) fn part(area: Area, path: &[u8]) -> Part<'_> {
    if path.is_empty() {
        return Part::Stanza;
    }
    match area {
        Area::Archive => path.to_str().map_or(Part::Other, archive_part),
        Area::Backup => backup_part(path),
    }
}

fn archive_part(path: &str) -> Part<'_> {
    if matches!(path, "archive.info" | "archive.info.copy") {
        return Part::Info;
    }
    let (archive, rest) = path.split_once('/').map_or((path, None), |(archive, rest)| (archive, Some(rest)));
    if !is_archive(archive) {
        return Part::Other;
    }
    let Some(rest) = rest else { return Part::Archive { name: archive } };
    match rest.split_once('/') {
        None if is_hex(rest, 16) => Part::WalDirectory(Wal { archive, name: rest }),
        None if rest.strip_suffix(".history").is_some_and(|timeline| is_hex(timeline, 8)) => Part::Record,
        Some((directory, file)) if is_hex(directory, 16) => match split_hex(file, 24) {
            Some((name, rest)) if name.starts_with(directory) => {
                if is_segment_suffix(rest) {
                    Part::Segment(Wal { archive, name })
                } else if is_label_suffix(rest) {
                    Part::Record
                } else {
                    Part::Other
                }
            }
            _ => Part::Other,
        },
        _ => Part::Other,
    }
}

/// Whether `name` is that of an archive: a version of `PostgreSQL` and a number.
fn is_archive(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit());
    name.split_once('-').is_some_and(|(version, number)| version.split('.').all(digits) && digits(number))
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
}

fn split_hex(text: &str, length: usize) -> Option<(&str, &str)> {
    text.split_at_checked(length).filter(|(name, _)| is_hex(name, length))
}

/// What follows the name of a segment: its checksum, and how it is compressed.
fn is_segment_suffix(rest: &str) -> bool {
    let rest = rest.strip_prefix(".partial").unwrap_or(rest);
    let Some(rest) = rest.strip_prefix('-') else { return false };
    let (checksum, compressed) = rest.split_once('.').map_or((rest, None), |(sum, suffix)| (sum, Some(suffix)));
    let is_checksum = checksum.len() == 40 && checksum.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_checksum && compressed.is_none_or(|suffix| COMPRESSED.contains(&suffix))
}

/// What follows the name of the segment in which a base backup began.
fn is_label_suffix(rest: &str) -> bool {
    rest.strip_prefix('.').and_then(|rest| rest.strip_suffix(".backup")).is_some_and(|offset| is_hex(offset, 8))
}

fn backup_part(path: &[u8]) -> Part<'_> {
    let (first, rest) = path.split_once_str("/").unwrap_or((path, b""));
    match (first.to_str(), rest.to_str()) {
        (Ok(label), _) if is_label(label) => Part::Backup { label, rest },
        (Ok(first), Ok(rest)) => beside_backups(first, rest),
        _ => Part::Other,
    }
}

fn beside_backups<'a>(first: &str, rest: &str) -> Part<'a> {
    match (first, rest) {
        ("backup.info" | "backup.info.copy", "") => return Part::Info,
        ("latest", "") => return Part::Latest,
        ("backup.history", _) => {}
        _ => return Part::Other,
    }
    let is_year = |text: &str| text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    match rest.split_once('/') {
        None if rest.is_empty() || is_year(rest) => Part::ManifestHistory,
        Some((year, file)) if is_year(year) => match file.split_once(".manifest") {
            Some((label, "" | ".gz")) if is_label(label) && label.starts_with(year) => Part::OldManifest,
            _ => Part::Other,
        },
        _ => Part::Other,
    }
}

/// Whether `name` is a backup's label: `20261125-031500F`, or with `_20261126-031500D` (or `I`) after it.
pub(crate) fn is_label(name: &str) -> bool {
    let stamp = |text: &str, kinds: &[u8]| {
        text.len() == 16
            && text.bytes().enumerate().all(|(index, byte)| match index {
                8 => byte == b'-',
                15 => kinds.contains(&byte),
                _ => byte.is_ascii_digit(),
            })
    };
    match name.split_once('_') {
        None => stamp(name, b"F"),
        Some((full, other)) => stamp(full, b"F") && stamp(other, b"DI"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn what_clients_write_into_the_archive_is_known() {
        let wal = |name| Wal { archive: "15-1", name };
        let directory = "000000010000000A";
        let segment = "000000010000000A000000FF";
        for (path, expected) in [
            (String::new(), Part::Stanza),
            ("archive.info".into(), Part::Info),
            ("archive.info.copy".into(), Part::Info),
            ("15-1".into(), Part::Archive { name: "15-1" }),
            ("9.6-12".into(), Part::Archive { name: "9.6-12" }),
            (format!("15-1/{directory}"), Part::WalDirectory(wal(directory))),
            ("15-1/00000002.history".into(), Part::Record),
            (format!("15-1/{directory}/{segment}.00000028.backup"), Part::Record),
            (format!("15-1/{directory}/{segment}-{SUM}"), Part::Segment(wal(segment))),
            (format!("15-1/{directory}/{segment}-{SUM}.zst"), Part::Segment(wal(segment))),
            (format!("15-1/{directory}/{segment}.partial-{SUM}.gz"), Part::Segment(wal(segment))),
        ] {
            assert_eq!(part(Area::Archive, path.as_bytes()), expected, "{path}");
        }
        for path in [
            "archive.info.pgbackrest.tmp".to_owned(),
            "15".to_owned(),
            "15-".to_owned(),
            "-1".to_owned(),
            "15-1-1".to_owned(),
            "15..1-1".to_owned(),
            "15-1/00000002.history.gz".to_owned(),
            "15-1/000000010000000a".to_owned(),
            format!("15-1/{directory}/00000002.history"),
            format!("15-1/{segment}-{SUM}"),
            format!("15-1/000000010000000B/{segment}-{SUM}"),
            format!("15-1/{directory}/{segment}"),
            format!("15-1/{directory}/{segment}-{SUM}.exe"),
            format!("15-1/{directory}/{segment}-{SUM}.gz.pgbackrest.tmp"),
            format!("15-1/{directory}/{segment}-{}", &SUM[1..]),
            format!("15-1/{directory}/{segment}-{SUM}/x"),
            format!("15-1/{directory}/{segment}.0000002.backup"),
            format!("15-1/{directory}/{segment}é"),
        ] {
            assert_eq!(part(Area::Archive, path.as_bytes()), Part::Other, "{path}");
        }
    }

    #[test]
    fn only_what_is_in_a_backup_may_have_a_name_that_is_no_text() {
        let label = "20260102-030405F";
        let path = [label.as_bytes(), b"/pg_data/caf\xe9"].concat();
        assert_eq!(part(Area::Backup, &path), Part::Backup { label, rest: b"pg_data/caf\xe9" });
        for path in
            [&b"\xff"[..], b"\xff/backup.manifest", b"20260102-030405\xff/x", b"backup.history/\xff", b"latest\xff"]
        {
            assert_eq!(part(Area::Backup, path), Part::Other, "{path:?}");
        }
        for path in [&b"15-1\xff"[..], b"15-1/0000000100000000/\xff", b"15-1/\xff/000000010000000000000001"] {
            assert_eq!(part(Area::Archive, path), Part::Other, "{path:?}");
        }
    }

    #[test]
    fn what_clients_write_into_backups_is_known() {
        let (full, incremental) = ("20260102-030405F", "20260102-030405F_20260103-040506I");
        for (path, expected) in [
            (String::new(), Part::Stanza),
            ("backup.info".into(), Part::Info),
            ("backup.info.copy".into(), Part::Info),
            ("latest".into(), Part::Latest),
            (full.into(), Part::Backup { label: full, rest: b"" }),
            (format!("{incremental}/pg_data/base/1"), Part::Backup { label: incremental, rest: b"pg_data/base/1" }),
            ("backup.history".into(), Part::ManifestHistory),
            ("backup.history/2026".into(), Part::ManifestHistory),
            (format!("backup.history/2026/{incremental}.manifest.gz"), Part::OldManifest),
        ] {
            assert_eq!(part(Area::Backup, path.as_bytes()), expected, "{path}");
        }
        for path in [
            "latest/backup.manifest",
            "backup.info.copy.copy",
            "20260102-030405D",
            "20260102-030405F_20260103-040506F",
            "20260102-030405F_",
            "20260102_030405F",
            "20260102-030405f",
            "backup.history/20260",
            "backup.history/2025/20260102-030405F.manifest.gz",
            "backup.history/2026/20260102-030405F.manifest.zst",
            "backup.history/2026/x/20260102-030405F.manifest.gz",
            "archive.info",
        ] {
            assert_eq!(part(Area::Backup, path.as_bytes()), Part::Other, "{path}");
        }
    }
}
