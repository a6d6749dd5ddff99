//! What the server tells its administrator: log lines in pgBackRest's format.
//!
//! [`line`] knows how a line looks, [`log`] where it goes, [`rate`] how often, [`quota`] how often for each client.

pub mod line;
pub mod log;
pub mod quota;
pub mod rate;
