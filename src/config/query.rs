//! Answers to a client that asks for option values (`opt-g`).
//!
//! Facts: specification, section 4.6. Real clients ask for the cipher of their repository and, of a cluster, for
//! `db-timeout`; other harmless values are answered too, other secrets are not.

use serde_json::Value;

use super::cluster::Cluster;
use super::definitions::{self, Matching};
use super::session::{Repository, RepositoryKind, SessionSettings, Storage};
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::string_id::StringId;

impl SessionSettings {
    /// The values of options as a JSON array, in the order of the names.
    ///
    /// # Errors
    ///
    /// 25 for an unknown option, or one that this session has no value of; 105 for a secret that is
    /// not the passphrase of the session's own repository.
    pub fn option_json(&self, names: &[&str]) -> Result<String> {
        let values = names.iter().map(|name| self.option_value(name)).collect::<Result<Vec<_>>>()?;
        Ok(Value::Array(values).to_string())
    }

    fn option_value(&self, name: &str) -> Result<Value> {
        let found = definitions::find(name, Matching::default())?;
        let found = found.filter(|found| !found.negated && !found.reset);
        let found = found.ok_or_else(|| Error::new(Code::Assert, "option not found"))?;
        let definition = found.definition;
        let text = |text: Option<&str>| text.map_or(Value::Null, Value::from);
        if definition.group == Some("repo") {
            let repository = self.repository().filter(|repository| u32::from(found.key) == repository.key);
            let repository = repository
                .ok_or_else(|| Error::access(format!("option '{name}' is of another repository than the session's")))?;
            if let Some(value) = repository_value(repository, definition.name) {
                return Ok(value);
            }
        }
        if let (Some("pg"), 1, Some(cluster)) = (definition.group, found.key, self.cluster())
            && let Some(value) = cluster_value(cluster, definition.name)
        {
            return Ok(value);
        }
        let milliseconds = |time: std::time::Duration| Value::from(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        Ok(match definition.name {
            "db-timeout" => milliseconds(self.db_timeout),
            "protocol-timeout" => milliseconds(self.protocol_timeout),
            "buffer-size" => Value::from(self.buffer_size),
            "process" => Value::from(self.process),
            "stanza" => text(self.stanza.as_deref()),
            "exec-id" => text(self.exec_id.as_deref()),
            "neutral-umask" => Value::from(self.neutral_umask),
            "remote-type" => id(match self.storage {
                Storage::Repository(_) => StringId::new("repo"),
                Storage::Cluster(_) => StringId::new("pg"),
            }),
            "repo" => self.repository().map_or(Value::Null, |repository| Value::from(repository.key)),
            _ if definition.secret => {
                return Err(Error::access(format!("option '{name}' is secret")));
            }
            _ => {
                let message = format!("option '{name}' is not valid for the current command");
                return Err(Error::new(Code::Assert, message));
            }
        })
    }
}

/// The value of an option of a repository, if it is one that is told.
fn repository_value(repository: &Repository, name: &str) -> Option<Value> {
    Some(match name {
        "repo-cipher-type" => id(match repository.cipher_pass {
            None => StringId::new("none"),
            Some(_) => StringId::new("aes-256-cbc"),
        }),
        "repo-cipher-pass" => match &repository.cipher_pass {
            Some(pass) => Value::from(String::from_utf8_lossy(&pass.0)),
            None => Value::Null,
        },
        "repo-path" => repository.path.to_str().map_or(Value::Null, Value::from),
        "repo-type" => id(match repository.kind {
            RepositoryKind::Posix => StringId::new("posix"),
            RepositoryKind::Cifs => StringId::new("cifs"),
        }),
        _ => return None,
    })
}

/// The value of an option of a cluster, likewise.
fn cluster_value(cluster: &Cluster, name: &str) -> Option<Value> {
    let text = |text: Option<&str>| text.map_or(Value::Null, Value::from);
    Some(match name {
        "pg-path" => text(cluster.path.to_str()),
        "pg-port" => Value::from(cluster.port),
        "pg-socket-path" => text(cluster.socket_path.as_deref()),
        "pg-user" => text(cluster.user.as_deref()),
        "pg-database" => text(Some(&cluster.database)),
        _ => return None,
    })
}

fn id(id: StringId) -> Value {
    Value::from(id.0)
}
