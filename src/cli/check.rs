//! `repohostd check`: is the configuration good, and what does it come to?

use std::fmt::Write as _;

use argh::FromArgs;

use crate::config::{self, Environment, Search};
use crate::protocol::error::Result;
use crate::protocol::release::Release;
use crate::server::releases::policy::Policy;
use crate::server::{listen, reload};

/// read the configuration and the certificates as the server would, print every setting with its
/// source, and say what is wrong; takes the options of 'serve'. The exit status is 0, or the number of the first error.
#[derive(FromArgs)]
#[argh(subcommand, name = "check")]
pub struct Check {}

/// Checks with these options; returns the exit status.
#[must_use]
pub fn run(arguments: &[String], environment: &Environment) -> u8 {
    super::log_to_stderr();
    match check(arguments, environment) {
        Ok(warnings) => {
            for warning in &warnings {
                log::warn!("{warning}");
            }
            super::say(&format!("configuration is good, {} warnings", warnings.len()));
            0
        }
        Err(error) => super::fail(&error),
    }
}

fn check(arguments: &[String], environment: &Environment) -> Result<Vec<String>> {
    let mut text = String::new();
    for (name, value, source) in config::describe(arguments, environment, &Search::default())? {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name}={value}  ({source})");
    }
    super::say(&text);
    let (_, loaded) = config::load_server(arguments, environment, Release::newest().version)?;
    let mut warnings = loaded.warnings;
    warnings.extend(Policy::new(&loaded.server.own)?.warnings());
    listen::resolve(&loaded.server.addresses, loaded.server.port)?;
    let (_, further) = reload::tls_of(&loaded.server)?;
    warnings.extend(further);
    Ok(warnings)
}
