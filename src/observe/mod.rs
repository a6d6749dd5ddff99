//! What the server tells its administrator: log lines in pgBackRest's format.
//!
//! [`line`] knows how a line looks, [`log`] where it goes, [`rate`] how often.

pub mod line;
pub mod log;
pub mod rate;
