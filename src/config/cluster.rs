//! Which cluster of this host a session may read, and how its server is reached.
//!
//! A client names the cluster by the path that its own configuration has (`--pg1-path`; whatever index it
//! has there, it arrives as 1). That path opens a directory, so it has to be one that the administrator of
//! this host gave to the stanza: `pgN-path` of the server's own configuration without `pgN-host`, as
//! pgBackRest's user guide wants it on every `PostgreSQL` host, or one that `allow-client-pg-path` lists.
//! Where `pgN-host` is set, as on a repository host, the path is one of another host.
//!
//! Port, socket, user and database come from the client first, as with the original: they are often
//! configured there alone. Whoever connects has to make sure that it reached this cluster and no other.

use std::path::PathBuf;
use std::time::Duration;

use super::session::{Parts, invalid_value, is_listed, without_slash};
use crate::protocol::error::{Error, Result};

const PATH: &str = "pg-path";
/// Options that no remote takes, but that say whether a cluster is one of this host.
pub(super) const WHERE_OPTIONS: [&str; 2] = ["pg-host", "pg-local"];
/// The repository whose locks are taken when the client names none.
pub(super) const LOCK_KEY: u32 = 1;

/// A cluster of this host, and what a connection to its server needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// `pgN-path`: absolute, without a trailing slash. The cluster's data directory or a link to it.
    pub path: PathBuf,
    /// `pgN-port`; 0 to 65535. Default: 5432.
    pub port: u16,
    /// `pgN-socket-path`: a directory, or a name in the abstract name space that begins with `@`. Default:
    /// that of the client library.
    pub socket_path: Option<String>,
    /// `pgN-user`. Default: that of the client library.
    pub user: Option<String>,
    /// `pgN-database`. Default: `postgres`.
    pub database: String,
    /// `db-timeout`: how long one query may take.
    pub db_timeout: Duration,
    /// `sql=any` of `repohostd.conf`: whether clients may send whatever statement they like.
    pub any_statement: bool,
}

/// A `pgN-path` of the server's own configuration.
struct Own {
    key: u16,
    path: String,
    is_here: bool,
}

impl Parts<'_> {
    /// The cluster that the client asks for, or the stanza's first one on this host.
    ///
    /// # Errors
    ///
    /// 37 when neither side names one; 32 with a remedy for a path that is not the stanza's on this host; 32 for bad
    /// values.
    pub(super) fn cluster(&self, stanza: Option<&str>, db_timeout: Duration) -> Result<Cluster> {
        let own = self.own_clusters()?;
        let wanted = match self.client.setting(PATH, 1) {
            Some(_) => self.merged.text(PATH, 1)?,
            None => own.iter().find(|own| own.is_here).map(|own| own.path.clone()),
        };
        let path = wanted.ok_or_else(|| self.required_path())?;
        let same = |own: &&Own| without_slash(&own.path) == without_slash(&path);
        let key = match own.iter().filter(|own| own.is_here).find(same) {
            Some(own) => own.key,
            // The original takes what its own first cluster has.
            None if is_listed(&self.server.own.allow_client_pg_path, &path) => 1,
            None => return Err(self.refused(stanza, &path, &own)),
        };
        let text = |name| match self.client.setting(name, 1) {
            Some(_) => self.merged.text(name, 1),
            None => self.configured.text(name, key),
        };
        let port = match self.client.setting("pg-port", 1) {
            Some(_) => self.merged.number("pg-port", 1)?,
            None => self.configured.number("pg-port", key)?,
        };
        Ok(Cluster {
            path: PathBuf::from(path),
            port: port.and_then(|port| u16::try_from(port).ok()).unwrap_or_default(),
            socket_path: text("pg-socket-path")?,
            user: text("pg-user")?,
            database: text("pg-database")?.unwrap_or_default(),
            db_timeout,
            any_statement: self.server.own.any_statement,
        })
    }

    /// All paths of the server's own configuration, in the order of their indexes.
    fn own_clusters(&self) -> Result<Vec<Own>> {
        let keys = self.configured.iter().filter(|(name, _, setting)| *name == PATH && !setting.reset);
        let mut result = Vec::new();
        for (_, key, _) in keys {
            let Some(path) = self.configured.text(PATH, key)? else { continue };
            let is_local = self.configured.setting("pg-local", key).is_some_and(|setting| !setting.negated);
            let is_here = is_local || self.configured.texts("pg-host", key).is_none();
            result.push(Own { key, path, is_here });
        }
        Ok(result)
    }

    fn refused(&self, stanza: Option<&str>, wanted: &str, own: &[Own]) -> Error {
        let here: Vec<_> = own.iter().filter(|own| own.is_here).map(|own| format!("'{}'", own.path)).collect();
        let of_stanza = stanza.map_or_else(|| "any stanza".to_owned(), |stanza| format!("stanza '{stanza}'"));
        let elsewhere = own.iter().find(|own| without_slash(&own.path) == without_slash(wanted));
        let (why, remedy) = match (here.is_empty(), elsewhere) {
            (_, Some(own)) => (
                format!("pg{0}-host of this host says that pg{0}-path is on another one", own.key),
                "connect to the host of the cluster, or remove the option from the cluster's own host.".to_owned(),
            ),
            (false, None) => (
                format!("the PostgreSQL host uses {} for {of_stanza}", here.join(" and ")),
                "set the option of the client to the value of the PostgreSQL host.".to_owned(),
            ),
            (true, None) => {
                let section = stanza.unwrap_or("STANZA");
                let remedy = format!("set pg1-path in section [{section}] of this file, without pg1-host.");
                (format!("this host has no cluster of {of_stanza}"), remedy)
            }
        };
        invalid_value(format!(
            "'{wanted}' is not allowed for 'pg1-path' option because {why}\nHINT: see '{}' of the PostgreSQL host: \
             {remedy}\nHINT: to accept it from clients, add 'allow-client-pg-path={wanted}' to '{}' of the PostgreSQL \
             host and reload.",
            self.files.main_or_default().display(),
            self.server.own_file.display()
        ))
    }
}
