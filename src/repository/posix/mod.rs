//! Requests as operations on files: reads, writes, listings, changes, locks and stop files, and what has to be
//! looked at before them.

pub mod anchored;
pub mod change;
pub mod check;
mod commit;
#[cfg(test)]
mod guarded_tests;
pub mod info_guard;
pub mod keep;
pub mod listing;
pub mod listing_memory;
pub mod locks;
pub mod make_path;
pub mod read;
pub mod same;
pub mod search;
pub mod whole_file;
#[cfg(test)]
mod workers_tests;
pub mod write;
