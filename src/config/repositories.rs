//! Where all repositories of this host are, for what concerns the server and not one session.

use std::iter;
use std::path::PathBuf;

use super::Environment;
use super::describe::{session_settings, stanzas};
use super::faults::faults;
use super::files::{Files, Search};
use super::own::OwnSettings;
use super::server::{Sources, Take};
use super::session::used_keys;
use super::settings::Settings;
use super::snapshot::Origin;
use crate::protocol::error::Result;
use crate::protocol::filter::Secret;

/// A repository of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRepository {
    /// N of `repoN-…`.
    pub key: u16,
    /// `repoN-path`.
    pub path: PathBuf,
    /// `repoN-type`.
    pub kind: String,
    /// `repoN-host`: it is on that one.
    pub host: Option<String>,
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
/// As for [`super::load_own`]; the first fault of what only sessions take, and 32 for a bad path.
pub fn load_host(arguments: &[String], environment: &Environment) -> Result<Host> {
    let Sources { files, session, .. } = Sources::read(arguments, environment, &Search::default(), &Origin::Disk)?;
    let own = OwnSettings::read(&files)?;
    if let Some(fault) = faults(&files, environment, &own).into_iter().next() {
        return Err(fault.error);
    }
    Ok(Host { own, repositories: repositories(&files, environment), lock_path: Take(&session).path("lock-path")? })
}

/// All repositories that the files and the environment name, for all stanzas or for one, each once; the
/// default one where they name none. Those whose options are not valid are left out: no session has them.
#[must_use]
pub fn repositories(files: &Files, environment: &Environment) -> Vec<KnownRepository> {
    let mut result = Vec::new();
    let stanzas = stanzas(files);
    for stanza in iter::once(None).chain(stanzas.iter().map(Some)) {
        if let Ok(settings) = session_settings(files, environment, stanza.map(String::as_str)) {
            add(&mut result, &settings);
        }
    }
    result
}

fn add(result: &mut Vec<KnownRepository>, settings: &Settings) {
    let mut keys = used_keys(settings);
    if keys.is_empty() {
        keys.push(1);
    }
    for key in keys {
        let Ok(Some(path)) = settings.text("repo-path", key) else { continue };
        let cipher_pass = settings.text("repo-cipher-pass", key).ok().flatten();
        let cipher_pass = cipher_pass.map(|text| Secret(text.into_bytes()));
        let kind = settings.text("repo-type", key).ok().flatten().unwrap_or_else(|| "posix".to_owned());
        let host = settings.text("repo-host", key).ok().flatten();
        let found = KnownRepository { key, path: PathBuf::from(path), kind, host, cipher_pass };
        if !result.contains(&found) {
            result.push(found);
        }
    }
}
