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
    /// The words before the path in the error of a failed removal of a file.
    pub remove_error: &'static str,
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
    tells_version: false,
    lists_itself: true,
    backs_up_from_clients: false,
    assertions_are_fatal: false,
    repository_features: 127,
    remove_error: "unable to remove",
};
const V2_38: Release = Release {
    version: "2.38",
    read_layout: ReadLayout::OffsetTextLimit,
    assertions_are_fatal: true,
    repository_features: 31,
    ..V2_37
};
const V2_41: Release = Release {
    version: "2.41",
    read_layout: ReadLayout::Offset,
    hash_layout: HashLayout::TextResult,
    lists_itself: false,
    ..V2_38
};
const V2_44: Release = Release { version: "2.44", hash_layout: HashLayout::Binary, makes_links: true, ..V2_41 };
const V2_45: Release = Release { version: "2.45", ..V2_44 };
const V2_54_2: Release = Release {
    version: "2.54.2",
    framing: Framing::Session,
    read_layout: ReadLayout::IgnoreMissing,
    tells_version: true,
    ..V2_45
};
const V2_55_1: Release = Release { version: "2.55.1", backs_up_from_clients: true, ..V2_54_2 };
const V2_59_1: Release = Release {
    version: "2.59.1",
    read_layout: ReadLayout::Plain,
    repository_features: 151,
    remove_error: "unable to remove file",
    ..V2_55_1
};
const V2_60_0: Release = Release {
    version: "2.60.0",
    cipher_layout: CipherLayout::Header,
    reads_ranges: true,
    detects_cipher_format: true,
    ..V2_59_1
};

/// Every release that can be announced, old to new.
pub const RELEASES: &[Release] = &[V2_37, V2_38, V2_41, V2_44, V2_45, V2_54_2, V2_55_1, V2_59_1, V2_60_0];

impl Release {
    /// The release that calls itself `version`, if it is known.
    #[must_use]
    pub fn find(version: &str) -> Option<&'static Self> {
        RELEASES.iter().find(|release| release.version == version)
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
