//! Where all repositories of this host are, for what concerns the server and not one session.

use std::path::PathBuf;

use super::Environment;
use super::describe::{session_settings, stanzas};
use super::files::{Files, Search};
use super::own::OwnSettings;
use super::server::{Sources, Take};
use super::session::used_keys;
use super::settings::Settings;
use crate::protocol::error::Result;
use crate::protocol::filter::Secret;

/// A repository of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRepository {
    /// N of `repoN-…`.
    pub key: u16,
    /// `repoN-path`.
    pub path: PathBuf,
    /// `repoN-cipher-pass`, if it is in the files.
    pub cipher_pass: Option<Secret>,
}

/// What commands need that look at the repositories of this host beside the server.
#[derive(Debug)]
pub struct Host {
    /// The settings of `repohostd.conf`.
    pub own: OwnSettings,
    /// All repositories.
    pub repositories: Vec<KnownRepository>,
    /// `lock-path`.
    pub lock_path: PathBuf,
}

/// Reads where things are as the server with these arguments would.
///
/// # Errors
///
/// As for [`super::load_own`], and 32 for a bad path.
pub fn load_host(arguments: &[String], environment: &Environment) -> Result<Host> {
    let Sources { files, session, .. } = Sources::read(arguments, environment, &Search::default())?;
    Ok(Host {
        own: OwnSettings::read(&files)?,
        repositories: repositories(&files, environment)?,
        lock_path: Take(&session).path("lock-path")?,
    })
}

/// All repositories that the files and the environment name, for all stanzas or for one, each once; the
/// default one where they name none.
///
/// # Errors
///
/// 31 and 32 for options and values that are not valid.
pub fn repositories(files: &Files, environment: &Environment) -> Result<Vec<KnownRepository>> {
    let mut result = Vec::new();
    add(&mut result, &session_settings(files, environment, None)?)?;
    for stanza in stanzas(files) {
        add(&mut result, &session_settings(files, environment, Some(&stanza))?)?;
    }
    Ok(result)
}

fn add(result: &mut Vec<KnownRepository>, settings: &Settings) -> Result<()> {
    let mut keys = used_keys(settings);
    if keys.is_empty() {
        keys.push(1);
    }
    for key in keys {
        let Some(path) = settings.text("repo-path", key)? else { continue };
        let cipher_pass = settings.text("repo-cipher-pass", key)?.map(|text| Secret(text.into_bytes()));
        let found = KnownRepository { key, path: PathBuf::from(path), cipher_pass };
        if !result.contains(&found) {
            result.push(found);
        }
    }
    Ok(())
}
