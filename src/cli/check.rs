//! `repohostd check`: is the configuration good, and what does it come to?

use std::fmt::Write as _;

use argh::FromArgs;

use super::reach::Judge;
use super::{file_systems, rights, systemd_drop_in};
use crate::config::snapshot::Origin;
use crate::config::{self, Environment, Fault, Search};
use crate::observe::line::counted;
use crate::protocol::error::{Code, Error, Result};
use crate::server::event_loop::listen;
use crate::server::life::configuration;
use crate::server::releases::policy::Policy;

/// read the configuration and the certificates as the server would, print every setting with its
/// source, and say what is wrong; takes the options of 'serve'. The exit status is 0, or the number of the first error; with
/// '--systemd', as the unit calls it, what the service can reach is checked too, and the status is 78. With
/// '--client=NAME', say instead what the client with that name in its certificate may do.
#[derive(FromArgs)]
#[argh(subcommand, name = "check")]
pub struct Check {}

/// Exit status for a configuration that cannot be used: `EX_CONFIG` of sysexits.h. The unit lists it in
/// `RestartPreventExitStatus=`, because starting again does not help.
const UNUSABLE: u8 = 78;

/// Checks with these options; returns the exit status.
#[must_use]
pub fn run(arguments: &[String], environment: &Environment) -> u8 {
    super::log_to_stderr();
    let mut arguments = arguments.to_vec();
    let in_service = super::take_systemd(&mut arguments);
    match rights::take_client(&mut arguments) {
        Ok(None) => {}
        Ok(Some(names)) => return super::report(rights::describe(&arguments, environment, &names)),
        Err(error) => return super::fail(&error),
    }
    let result = if in_service { check_service(&arguments, environment) } else { check(&arguments, environment) };
    match result {
        Ok(mut warnings) => {
            // What is wrong with settings of stanzas has been said.
            if let Ok(host) = config::load_host(&arguments, environment) {
                warnings.extend(file_systems::warnings(&host));
            }
            for warning in &warnings {
                log::warn!("{warning}");
            }
            super::say(&format!("configuration is good, {}", counted(warnings.len() as u64, "warning")));
            0
        }
        Err(error) if in_service => unusable(&error),
        Err(error) => super::fail(&error),
    }
}

/// Whether the service can start with these options; otherwise returns the status to end with,
/// [`UNUSABLE`] unless trying again may help. It says why not in one line: the unit has called `check`
/// before, which says all of it.
pub(super) fn before_service(arguments: &[String], environment: &Environment) -> Option<u8> {
    let error = check_service(arguments, environment).err()?;
    let line = error.message.lines().next().unwrap_or_default();
    Some(unusable(&Error::new(error.code, line)))
}

/// As [`check`] inside of the service: what it reaches counts as well, and settings are not shown.
fn check_service(arguments: &[String], environment: &Environment) -> Result<Vec<String>> {
    systemd_drop_in::check_reach(arguments, environment)?;
    let (mut warnings, faults) = usable(arguments, environment, None)?;
    warnings.extend(faults.iter().map(configuration::fault_warning));
    Ok(warnings)
}

fn unusable(error: &Error) -> u8 {
    let status = super::fail(error);
    // The name service may come up later.
    if error.code == Code::HostConnect { status } else { UNUSABLE }
}

fn check(arguments: &[String], environment: &Environment) -> Result<Vec<String>> {
    let mut text = String::new();
    for (name, value, source) in config::describe(arguments, environment, &Search::default())? {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name}={value}  ({source})");
    }
    super::say(&text);
    let user = systemd_drop_in::other_user(arguments, environment)?;
    let (mut warnings, faults) = usable(arguments, environment, user)?;
    let (files, loaded) = config::load_server(arguments, environment, &Origin::Disk)?;
    let judge = Judge::of(systemd_drop_in::serving_user(user));
    warnings.extend(judge.repositories(&config::repositories(&files, environment)));
    warnings.extend(judge.files(&loaded.server));
    // A server starts with it, but takes it over neither at a reload nor for the next session.
    match faults.into_iter().next() {
        Some(fault) => Err(fault.error),
        None => Ok(warnings),
    }
}

/// Reads everything as the server does at its start, as that user if not this process's; returns the
/// warnings, and what is wrong with options that only sessions take.
fn usable(arguments: &[String], environment: &Environment, user: Option<u32>) -> Result<(Vec<String>, Vec<Fault>)> {
    let (files, loaded) = config::load_server(arguments, environment, &Origin::Disk)?;
    let faults = config::faults(&files, environment, &loaded.server.own);
    configuration::check_history(&loaded.server.own, &config::repositories(&files, environment))?;
    let mut warnings = loaded.warnings;
    // whoever serves is somebody else
    warnings.retain(|warning| user.is_none() || !warning.starts_with(config::AS_ROOT));
    warnings.extend(Policy::new(&loaded.server.own)?.warnings());
    warnings.extend(configuration::history_warning(&loaded.server.own));
    listen::resolve(&loaded.server.addresses, loaded.server.port)?;
    let (_, further) = configuration::tls_of(&loaded.server, user, &Origin::Disk)?;
    warnings.extend(further);
    Ok((warnings, faults))
}
