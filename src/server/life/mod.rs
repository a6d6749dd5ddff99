//! The life of the processes: start, reload, signals, end. [`serve`] is where each server begins, [`front`] its life,
//! [`serving`] and [`supervisor`] are what serves its clients, alone or by workers, and [`worker`] is the life of those.

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
