//! What a client reaches and what it may do there: names and verdicts.
//!
//! [`view::View`] is where a client's paths become places, of a repository or of a cluster; no request reaches the
//! disk but through it. [`guard::Guard`] says what protects a stanza from its own clients, and what has to be looked
//! at before a request begins. The machines that look are in [`posix`](super::posix).

pub(crate) mod access;
pub(crate) mod aged;
pub(crate) mod cluster;
pub(crate) mod finished;
pub(crate) mod guard;
pub mod info;
pub(crate) mod layout;
pub(crate) mod preconditions;
pub(crate) mod rules;
pub(crate) mod segments;
pub mod versions;
pub(crate) mod view;
