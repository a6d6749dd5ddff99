//! Releases of pgBackRest, as data: what each one speaks and knows.
//!
//! A client accepts exactly its own release in the greeting, so a server supports a release by
//! announcing it and speaking as it speaks. Code asks for a capability of the release and never
//! compares versions. Source: specification, sections 3.1, 4 and 5.2, and `generations.csv`.

use super::framing::Framing;

/// How the parameters of a read are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadLayout {
    /// File, ignore missing, limit as text, filters (2.37).
    TextLimit,
    /// File, ignore missing, offset, limit as text, filters (2.38).
    OffsetTextLimit,
    /// File, ignore missing, offset, limit, filters (2.39 to 2.53).
    Offset,
    /// File, ignore missing, offset, limit, version flag, version, filters (2.54 to 2.58).
    IgnoreMissing,
    /// File, offset, limit, version, filters; a missing file is never an error (2.59 on).
    Plain,
}

/// How the parameters of the cipher filter are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CipherLayout {
    /// Mode, type as a number, passphrase, digest, raw flag (up to 2.59; before 2.42 the flag is
    /// always absent, that is unset).
    Raw,
    /// Mode, type, digest, passphrase, kind of header (2.60).
    Header,
}

/// How the hash filter names its digest and reports what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashLayout {
    /// Name and digest as text, in hexadecimal (up to 2.39).
    Text,
    /// Name as a string id, digest as text (2.40 and 2.41).
    TextResult,
    /// Name as a string id, digest as bytes (2.42 on).
    Binary,
}

/// What the answer to a database statement looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseAnswers {
    /// All rows as text in JSON, whatever they are; the client does not say what it expects (up to 2.38).
    Json,
    /// A pack of typed values; the client says whether it expects rows, a row, a value or none (2.39 on).
    Typed,
}

/// How the parameters of the filter for page checksums are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageChecksumLayout {
    /// Segment, pages of a segment, position of the WAL (2.37).
    LsnLimit,
    /// Segment, pages of a segment, file (2.38 to 2.45).
    File,
    /// Segment, pages of a segment, whether headers are checked, file (2.46 to 2.49).
    HeaderCheck,
    /// Segment, pages of a segment, size of a page, whether headers are checked, file (2.50 on).
    PageSize,
}

/// How the block incremental filter stores blocks, and how its parameters and its map are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockStorage {
    /// Each block by itself, numbered, in chunks, its checksum SHA-1 (2.44).
    Single,
    /// Super blocks of numbered blocks, in chunks (2.45).
    Numbered,
    /// Super blocks that are nothing but blocks (2.46 on).
    Plain,
}

/// When the block incremental filter writes a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapRule {
    /// If the file has a block (up to 2.50).
    Always,
    /// If a block was stored, or the file is shorter than before (2.51 to 2.59.1).
    Changed,
    /// The same, but not if the file is empty (2.59.2 on).
    ChangedNotEmpty,
}

/// What a lock file says of who holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockContents {
    /// A line with the process, a line with the execution id (up to 2.38).
    Lines,
    /// An object with both (2.39 on).
    Json,
}

/// One release of pgBackRest.
#[derive(Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent capabilities, not a state")]
pub struct Release {
    /// As the greeting and `pgbackrest version` name it.
    pub version: &'static str,
    /// How messages are put on the wire.
    pub framing: Framing,
    /// Layout of the parameters of a read.
    pub read_layout: ReadLayout,
    /// Layout of `cipher-blk` parameters.
    pub cipher_layout: CipherLayout,
    /// Layout of `hash` parameters and results.
    pub hash_layout: HashLayout,
    /// Whether there is `s-rdm`, which reads several ranges as one stream.
    pub reads_ranges: bool,
    /// Whether there is `s-lc`, which makes links.
    pub makes_links: bool,
    /// Whether there are the filters `cipher-fmt` and `cipher-hdr`.
    pub detects_cipher_format: bool,
    /// Layout of `pg-chksum` parameters, and with it what the filter checks.
    pub page_checksum_layout: PageChecksumLayout,
    /// How `blk-incr` stores blocks, where there is that filter.
    pub block_storage: Option<BlockStorage>,
    /// When `blk-incr` writes a map.
    pub map_rule: MapRule,
    /// Whether the information about an entry has a place for a version.
    pub tells_version: bool,
    /// Whether a list has the directory itself as `.`.
    pub lists_itself: bool,
    /// Whether `backup` and `expire` run on a `PostgreSQL` host too, and not on the repository host only.
    pub backs_up_from_clients: bool,
    /// Whether an error that reports a mistake of a program ends the connection.
    pub assertions_are_fatal: bool,
    /// Feature bits of a posix repository.
    pub repository_features: u64,
    /// Feature bits of a cluster's storage.
    pub cluster_features: u64,
    /// Feature bits of a cifs repository, which has neither links nor owners nor directories to sync.
    pub cifs_features: u64,
    /// The words before the path in the error of a failed removal of a file.
    pub remove_error: &'static str,
    /// Whether the error of a failed change of owner says who should own the file and who does.
    pub tells_owners: bool,
    /// What lock files say.
    pub lock_contents: LockContents,
    /// Whether clients name their locks, one for each repository; before, the server computes one
    /// for each stanza.
    pub locks_by_repository: bool,
    /// The types of locks that `stanza-create`, `stanza-upgrade` and `stanza-delete` take on a remote.
    pub stanza_locks: &'static [&'static str],
    /// Whether `expire` locks on a remote.
    pub expire_locks: bool,
    /// Whether `check` needs a stanza.
    pub check_needs_stanza: bool,
    /// Whether times are decimal seconds, without units.
    pub fractional_times: bool,
    /// What the answers to database statements look like.
    pub database_answers: DatabaseAnswers,
    /// Whether a failed statement that should have no result is said to have one.
    pub expects_no_result_first: bool,
    /// Whether a connection to the database that is lost during a statement is called that.
    pub explains_lost_connections: bool,
    /// Whether nobody has seen it: its announcement names no change on the wire, and that is all
    /// that is known.
    pub inferred: bool,
}

/// The oldest release with TLS.
const V2_37: Release = Release {
    version: "2.37",
    framing: Framing::Classic,
    read_layout: ReadLayout::TextLimit,
    cipher_layout: CipherLayout::Raw,
    hash_layout: HashLayout::Text,
    reads_ranges: false,
    makes_links: false,
    detects_cipher_format: false,
    page_checksum_layout: PageChecksumLayout::LsnLimit,
    block_storage: None,
    map_rule: MapRule::Always,
    tells_version: false,
    lists_itself: true,
    backs_up_from_clients: false,
    assertions_are_fatal: false,
    repository_features: 127,
    cluster_features: 127,
    cifs_features: 21,
    remove_error: "unable to remove",
    tells_owners: false,
    lock_contents: LockContents::Lines,
    locks_by_repository: false,
    stanza_locks: &[],
    expire_locks: false,
    check_needs_stanza: true,
    fractional_times: true,
    database_answers: DatabaseAnswers::Json,
    expects_no_result_first: true,
    explains_lost_connections: false,
    inferred: false,
};
const V2_38: Release = Release {
    version: "2.38",
    read_layout: ReadLayout::OffsetTextLimit,
    page_checksum_layout: PageChecksumLayout::File,
    assertions_are_fatal: true,
    repository_features: 31,
    cluster_features: 31,
    cifs_features: 1,
    ..V2_37
};
const V2_39: Release = Release {
    version: "2.39",
    read_layout: ReadLayout::Offset,
    lock_contents: LockContents::Json,
    database_answers: DatabaseAnswers::Typed,
    ..V2_38
};
const V2_40: Release = Release { version: "2.40", hash_layout: HashLayout::TextResult, lists_itself: false, ..V2_39 };
const V2_42: Release = Release { version: "2.42", hash_layout: HashLayout::Binary, makes_links: true, ..V2_40 };
const V2_44: Release = Release { version: "2.44", block_storage: Some(BlockStorage::Single), ..V2_42 };
const V2_45: Release = Release { version: "2.45", block_storage: Some(BlockStorage::Numbered), ..V2_44 };
const V2_46: Release = Release {
    version: "2.46",
    tells_owners: true,
    page_checksum_layout: PageChecksumLayout::HeaderCheck,
    block_storage: Some(BlockStorage::Plain),
    ..V2_45
};
const V2_48: Release = Release { version: "2.48", check_needs_stanza: false, ..V2_46 };
const V2_50: Release = Release { version: "2.50", page_checksum_layout: PageChecksumLayout::PageSize, ..V2_48 };
const V2_51: Release = Release { version: "2.51", map_rule: MapRule::Changed, ..V2_50 };
const V2_53: Release = Release {
    version: "2.53",
    locks_by_repository: true,
    stanza_locks: &["archive", "backup"],
    fractional_times: false,
    ..V2_51
};
const V2_54_0: Release = Release {
    version: "2.54.0",
    framing: Framing::Session,
    read_layout: ReadLayout::IgnoreMissing,
    tells_version: true,
    ..V2_53
};
const V2_55_0: Release = Release {
    version: "2.55.0",
    backs_up_from_clients: true,
    expire_locks: true,
    expects_no_result_first: false,
    ..V2_54_0
};
const V2_56_0: Release = Release { version: "2.56.0", stanza_locks: &["archive", "backup", "restore"], ..V2_55_0 };
const V2_57_0: Release = Release { version: "2.57.0", repository_features: 23, ..V2_56_0 };
const V2_59_0: Release = Release {
    version: "2.59.0",
    read_layout: ReadLayout::Plain,
    repository_features: 151,
    cluster_features: 159,
    remove_error: "unable to remove file",
    explains_lost_connections: true,
    ..V2_57_0
};
const V2_59_2: Release = Release { version: "2.59.2", map_rule: MapRule::ChangedNotEmpty, inferred: true, ..V2_59_0 };
const V2_60_0: Release = Release {
    version: "2.60.0",
    cipher_layout: CipherLayout::Header,
    reads_ranges: true,
    detects_cipher_format: true,
    inferred: false,
    ..V2_59_2
};

/// Every release that can be announced, old to new. One that changes nothing on the wire of a
/// repository is a single line here.
pub const RELEASES: &[Release] = &[
    V2_37,
    V2_38,
    V2_39,
    V2_40,
    Release { version: "2.41", ..V2_40 },
    V2_42,
    Release { version: "2.43", ..V2_42 },
    V2_44,
    V2_45,
    V2_46,
    Release { version: "2.47", ..V2_46 },
    V2_48,
    Release { version: "2.49", ..V2_48 },
    V2_50,
    V2_51,
    Release { version: "2.52", ..V2_51 },
    Release { version: "2.52.1", ..V2_51 },
    V2_53,
    Release { version: "2.53.1", ..V2_53 },
    V2_54_0,
    Release { version: "2.54.1", ..V2_54_0 },
    Release { version: "2.54.2", ..V2_54_0 },
    V2_55_0,
    Release { version: "2.55.1", ..V2_55_0 },
    V2_56_0,
    V2_57_0,
    Release { version: "2.58.0", ..V2_57_0 },
    V2_59_0,
    Release { version: "2.59.1", ..V2_59_0 },
    V2_59_2,
    Release { version: "2.59.3", ..V2_59_2 },
    V2_60_0,
];

impl Release {
    /// The release that calls itself `version`, if it is known.
    #[must_use]
    pub fn find(version: &str) -> Option<&'static Self> {
        RELEASES.iter().find(|release| release.version == version)
    }

    /// Whether `text` reads like the name of a release: `2.45` or `2.55.1`.
    #[must_use]
    pub fn is_name(text: &str) -> bool {
        let parts: Vec<_> = text.split('.').collect();
        let is_number = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit()) && part.parse::<u32>().is_ok();
        (2..=3).contains(&parts.len()) && parts.iter().all(is_number)
    }

    /// The newest release that is known.
    #[must_use]
    pub fn newest() -> &'static Self {
        // The table is a constant with entries.
        &RELEASES[RELEASES.len() - 1]
    }

    /// The line that opens every connection.
    #[must_use]
    pub fn greeting(&self) -> String {
        format!("{{\"name\":\"pgBackRest\",\"service\":\"remote\",\"version\":\"{}\"}}\n", self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_in_order_and_every_one_is_there_once() {
        let numbers = |release: &Release| -> Vec<u32> {
            assert!(Release::is_name(release.version), "{}", release.version);
            release.version.split('.').map(|part| part.parse().unwrap()).collect()
        };
        assert!(RELEASES.windows(2).all(|pair| numbers(&pair[0]) < numbers(&pair[1])));
        assert!(RELEASES.iter().all(|release| Release::find(release.version) == Some(release)));
    }

    #[test]
    fn a_name_of_a_release_has_two_or_three_numbers() {
        for name in ["2.37", "2.52.1", "2.60.0", "3.0"] {
            assert!(Release::is_name(name), "{name}");
        }
        for name in ["", "2", "2.", ".60", "2.60.0.1", "2.60.x", "2.+6", "2.99999999999", "2.60.0dev"] {
            assert!(!Release::is_name(name), "{name}");
        }
    }
}
