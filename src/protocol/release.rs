//! Releases of pgBackRest, as data: what each one speaks and knows.
//!
//! A client accepts exactly its own release in the greeting, so a server supports a release by
//! announcing it and speaking as it speaks. Code asks for a capability of the release and never
//! compares versions. Source: specification, sections 3.1, 4 and 5.2, and `generations.csv`.

/// How the parameters of a read session are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadLayout {
    /// File, ignore missing, offset, limit, version flag, version, filters (2.54 to 2.58).
    IgnoreMissing,
    /// File, offset, limit, version, filters; a missing file is never an error (2.59 on).
    Plain,
}

/// How the parameters of the cipher filter are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CipherLayout {
    /// Mode, type as a number, passphrase, digest, raw flag (2.42 to 2.59).
    Raw,
    /// Mode, type, digest, passphrase, kind of header (2.60).
    Header,
}

/// One release of pgBackRest.
#[derive(Debug, PartialEq, Eq)]
pub struct Release {
    /// As the greeting and `pgbackrest version` name it.
    pub version: &'static str,
    /// Layout of `s-rd` parameters.
    pub read_layout: ReadLayout,
    /// Layout of `cipher-blk` parameters.
    pub cipher_layout: CipherLayout,
    /// Whether there is `s-rdm`, which reads several ranges as one stream.
    pub reads_ranges: bool,
    /// Whether there are the filters `cipher-fmt` and `cipher-hdr`.
    pub detects_cipher_format: bool,
    /// Feature bits of a posix repository.
    pub repository_features: u64,
    /// The words before the path in the error of a failed removal of a file.
    pub remove_error: &'static str,
}

/// Every release that can be announced, old to new.
pub const RELEASES: &[Release] = &[
    Release {
        version: "2.55.1",
        read_layout: ReadLayout::IgnoreMissing,
        cipher_layout: CipherLayout::Raw,
        reads_ranges: false,
        detects_cipher_format: false,
        repository_features: 31,
        remove_error: "unable to remove",
    },
    Release {
        version: "2.60.0",
        read_layout: ReadLayout::Plain,
        cipher_layout: CipherLayout::Header,
        reads_ranges: true,
        detects_cipher_format: true,
        repository_features: 151,
        remove_error: "unable to remove file",
    },
];

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
