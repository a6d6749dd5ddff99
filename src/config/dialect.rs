//! What options and locks mean in the release that a session speaks.
//!
//! The only place of this folder that compares releases. Facts: specification, sections 1.7, 4.10,
//! 5.1 and 5.3.

/// Differences between releases that the configuration of a session sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent capabilities of a release, not a state")]
pub(super) struct Dialect {
    /// Clients name their locks, one for each repository; before, the server computes one for each
    /// stanza.
    pub(super) locks_by_repository: bool,
    /// `stanza-create`, `stanza-upgrade` and `stanza-delete` lock on a remote.
    pub(super) stanza_commands_lock: bool,
    /// `expire` locks on a remote.
    pub(super) expire_locks: bool,
    /// All locks of a stanza include one for restore.
    pub(super) restore_lock: bool,
    /// `check` may run without a stanza.
    pub(super) check_without_stanza: bool,
    /// Times are decimal seconds.
    pub(super) fractional_times: bool,
}

impl Dialect {
    /// What `release` (`2.55.1`) does; a text that is no release counts as the newest.
    pub(super) fn of(release: &str) -> Self {
        let from = |major, minor| release_number(release).is_none_or(|number| number >= (major, minor, 0));
        Self {
            locks_by_repository: from(2, 53),
            stanza_commands_lock: from(2, 53),
            expire_locks: from(2, 55),
            restore_lock: from(2, 56),
            check_without_stanza: from(2, 48),
            fractional_times: !from(2, 53),
        }
    }
}

/// The parts of `2.55.1`, `2.45` or `2.60.0`; none when the text is no release.
pub(super) fn release_number(text: &str) -> Option<(u32, u32, u32)> {
    let part =
        |text: &str| (text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse::<u32>().ok()).flatten();
    let mut parts = text.split('.');
    let (major, minor) = (part(parts.next()?)?, part(parts.next()?)?);
    let patch = parts.next().map_or(Some(0), part)?;
    parts.next().is_none().then_some((major, minor, patch))
}
