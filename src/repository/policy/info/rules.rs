//! What a client may do to the info files of a stanza.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::config::Role;
use crate::protocol::filter::Secret;
use crate::repository::policy::versions::Versions;

/// What a client may do to the info files of a stanza.
#[derive(Debug)]
pub(crate) struct InfoRules {
    /// Its role.
    pub(crate) role: Role,
    /// Labels of backups that no client may lose.
    pub(crate) protected: BTreeSet<String>,
    /// `opaque-info`.
    pub(crate) opaque_info: bool,
    /// Passphrases to try: the repository's, and what the client encrypts with.
    pub(crate) keys: Vec<Secret>,
    /// Where to keep what is replaced.
    pub(crate) versions: Option<Versions>,
    /// The time, by which versions are named.
    pub(crate) now: Timestamp,
}
