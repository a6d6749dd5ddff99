//! The state of the server for `repohostd status`: [`document`] is what is told, [`socket`] hands it out.

pub(super) mod document;
pub mod socket;

pub use document::VERSION;
pub use socket::{REQUEST, SOCKET};
