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
mod umask;
pub mod worker;

use std::io;

use crate::protocol::error::{Code, Error};

/// The system does not do what `text` says, for the reason that it gives.
fn system(text: &'static str) -> impl Fn(io::Error) -> Error + Copy {
    move |error| Error::io(Code::Kernel, text, &error)
}
