//! The life of the processes: start, reload, signals, end. [`serve`] is where each server begins, [`supervisor`] the
//! life of one with several workers, [`worker`] that of each of those.

pub mod configuration;
mod front;
pub mod limits;
pub mod notify;
pub mod serve;
mod serving;
pub mod signals;
mod start;
pub mod stop_files;
mod supervisor;
mod system;
mod umask;
pub mod worker;
