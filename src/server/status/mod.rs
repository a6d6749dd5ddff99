//! The state of the server for `repohostd status`: [`document`] is what is told, [`socket`] hands it out.

pub(super) mod document;
pub(crate) mod socket;

pub(crate) use document::VERSION;
pub(crate) use socket::{REQUEST, SOCKET};
