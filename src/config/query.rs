//! Answers to a client that asks for option values (`opt-g`).
//!
//! Facts: specification, section 4.6. Real clients ask for the cipher of their repository and for
//! `db-timeout`; other harmless values are answered too, other secrets are not.

use serde_json::Value;

use super::definitions::{self, Matching};
use super::session::{CipherType, RemoteType, RepositoryKind, SessionSettings};
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
        let repository = &self.repository;
        if definition.group == Some("repo") && u32::from(found.key) != repository.key {
            let message = format!("option '{name}' is of another repository than the session's");
            return Err(Error::access(message));
        }
        let text = |text: Option<&str>| text.map_or(Value::Null, Value::from);
        let milliseconds = |time: std::time::Duration| Value::from(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        Ok(match definition.name {
            "repo-cipher-type" => id(match repository.cipher {
                CipherType::None => StringId::new("none"),
                CipherType::Aes256Cbc => StringId::new("aes-256-cbc"),
            }),
            "repo-cipher-pass" => {
                let pass = repository.cipher_pass.as_ref().map(|pass| String::from_utf8_lossy(&pass.0));
                text(pass.as_deref())
            }
            "repo-path" => text(repository.path.to_str()),
            "repo-type" => id(match repository.kind {
                RepositoryKind::Posix => StringId::new("posix"),
                RepositoryKind::Cifs => StringId::new("cifs"),
            }),
            "repo" => Value::from(repository.key),
            "db-timeout" => milliseconds(self.db_timeout),
            "protocol-timeout" => milliseconds(self.protocol_timeout),
            "buffer-size" => Value::from(self.buffer_size),
            "process" => Value::from(self.process),
            "stanza" => text(self.stanza.as_deref()),
            "exec-id" => text(self.exec_id.as_deref()),
            "neutral-umask" => Value::from(self.neutral_umask),
            "remote-type" => id(match self.remote_type {
                RemoteType::Repo => StringId::new("repo"),
                RemoteType::Pg => StringId::new("pg"),
            }),
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

fn id(id: StringId) -> Value {
    Value::from(id.0)
}
