//! Where each server begins, and what it says at its end.

use std::time::Instant;

use super::configuration::Configuration;
use super::front::{Backend, End, Front};
use super::serving::{Serving, new_host};
use super::start::{Opened, Start, start};
use super::supervisor::Supervisor;
use super::umask;
use crate::config::Environment;
use crate::config::snapshot::Origin;
use crate::observe::log;
use crate::protocol::error::{Code, Error, Result};

/// Serves until a signal ends it. Returns the exit status; failures have been logged.
pub(crate) fn serve(arguments: &[String], environment: &Environment) -> u8 {
    log::connect();
    umask::clear(None);
    let begun = Instant::now();
    let origin = Origin::recording();
    let configuration = match Configuration::load(arguments, environment, &origin) {
        Ok(configuration) => configuration,
        Err(error) => {
            report_unread(&error);
            return error.code.number();
        }
    };
    log::apply(&configuration.log);
    log::info(format_args!("{}", configuration.begin));
    match live(configuration, arguments, environment, origin) {
        Ok(End::Drained { timestamps }) => {
            let time = if timestamps { format!(" ({}ms)", begun.elapsed().as_millis()) } else { String::new() };
            log::info(format_args!("server command end: completed successfully{time}"));
            0
        }
        Ok(End::Interrupted(signal)) => {
            log::info(format_args!("server command end: terminated on signal [{signal}]"));
            Code::Term.number()
        }
        Err(error) => {
            log::error(&error);
            log::info(format_args!("server command end: aborted with exception [{:03}]", error.code.number()));
            error.code.number()
        }
    }
}

/// Serves in this process or in several.
fn live(
    mut configuration: Configuration,
    arguments: &[String],
    environment: &Environment,
    origin: Origin,
) -> Result<End> {
    let (service, opened) = match start(&mut configuration, &origin)? {
        Start::Listening(begun) => begun,
        Start::Ended(signal) => return Ok(End::Interrupted(signal)),
    };
    configuration.log_warnings();
    let workers = configuration.server().own.workers.number();
    if workers > 1 {
        let supervisor = Supervisor::new(configuration, &service, arguments, workers, &origin.into_snapshot())?;
        drop(service);
        run(supervisor, opened, arguments, environment)
    } else {
        drop(origin);
        run(Serving::new(configuration, service, new_host(), None)?, opened, arguments, environment)
    }
}

fn run(mut backend: impl Backend, opened: Opened, arguments: &[String], environment: &Environment) -> Result<End> {
    Front::new(&backend, opened, arguments, environment)?.run(&mut backend)
}

/// Reports an error that came before the log settings were known. The original tells apart by where
/// it noticed: the command line's errors go to standard error, later ones to standard output
/// (specification, section 2.8).
fn report_unread(error: &Error) {
    let command_line =
        matches!(error.code, Code::CommandRequired | Code::OptionInvalid | Code::CommandInvalid | Code::ParamInvalid);
    let stderr = command_line && !error.message.contains("HINT: the value stands in");
    let level = if stderr { log::Level::Error } else { log::Level::Off };
    log::apply(&log::Settings { stderr: level, ..log::Settings::default() });
    log::error(error);
}
