//! Requests as operations on files: reads, writes, listings, changes, locks and stop files, and what has to be
//! looked at before them.

pub(crate) mod anchored;
pub(crate) mod change;
pub(crate) mod check;
mod commit;
#[cfg(test)]
mod guarded_tests;
pub(crate) mod info_guard;
pub(crate) mod keep;
pub(crate) mod listing;
pub(crate) mod listing_memory;
pub(crate) mod locks;
pub(crate) mod make_path;
pub(crate) mod read;
pub(crate) mod same;
pub(crate) mod search;
pub(crate) mod whole_file;
#[cfg(test)]
mod workers_tests;
pub(crate) mod write;
