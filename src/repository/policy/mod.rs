//! What a client reaches and what it may do there: names and verdicts.
//!
//! [`view::View`] is where a client's paths become places, of a repository or of a cluster; no request reaches the
//! disk but through it. [`guard::Guard`] says what protects a stanza from its own clients, and what has to be looked
//! at before a request begins. The machines that look are in [`posix`](super::posix).

pub mod access;
pub mod aged;
pub mod cluster;
pub mod finished;
pub mod guard;
pub mod info;
pub mod layout;
pub mod preconditions;
pub mod rules;
pub mod segments;
pub mod shared;
pub mod versions;
pub mod view;
