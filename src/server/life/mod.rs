//! The life of the processes: start, reload, signals, end. [`serve`] is where each server begins, [`front`] its life,
//! [`serving`] and [`supervisor`] are what serves its clients, alone or by workers, and [`worker`] is the life of those.

pub(crate) mod configuration;
mod front;
pub(crate) mod limits;
pub(crate) mod notify;
pub(crate) mod serve;
mod serving;
pub(crate) mod signals;
mod start;
pub(crate) mod stop_files;
mod supervisor;
mod umask;
pub(crate) mod worker;

use std::io;

use crate::protocol::error::{Code, Error};

/// The system does not do what `text` says, for the reason that it gives.
fn system(text: &'static str) -> impl Fn(io::Error) -> Error + Copy {
    move |error| Error::io(Code::Kernel, text, &error)
}
