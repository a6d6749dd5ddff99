//! The client behind the database requests on a `PostgreSQL` host, without I/O.
//!
//! Owns what libpq is for the original: where a connection leads and with which name and password
//! ([`Plan`], from the session's [`Settings`] and the server's environment), the conversation on it
//! ([`Client`], a state machine: bytes in, bytes and deadlines out), the texts of its errors, and what
//! an answer is made of for a client of pgBackRest ([`answer`]). [`statements`] knows which statements
//! clients send; nothing else reaches the database unless the administrator wants it.
//!
//! Sources of the facts: specification, server section 7 and protocol section 4.2; `PostgreSQL`'s
//! documentation of its protocol and of libpq; the texts of libpq 15, observed.

pub mod answer;
mod client;
mod environment;
mod messages;
mod password_file;
mod server_error;
pub mod statements;
#[cfg(test)]
mod testing;

pub use client::{Action, Client, Event, Finished, First, Rows};
pub use environment::{Address, Plan, SmallFile, System};

/// What a session's options say of the connection (`pg1-database` and its companions).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Directory of the socket, or name of an abstract one (`pg1-socket-path`).
    pub host: Option<String>,
    /// Port, which is part of the socket's name (`pg1-port`).
    pub port: u16,
    /// Database to connect to (`pg1-database`).
    pub database: String,
    /// User to connect as (`pg1-user`).
    pub user: Option<String>,
}

impl Settings {
    /// The connection string that the original hands to libpq, and shows in the error when that fails.
    #[must_use]
    pub fn connection_string(&self) -> String {
        let mut text = format!("dbname={} port={}", quoted(&self.database), self.port);
        for (name, value) in [("user", &self.user), ("host", &self.host)] {
            if let Some(value) = value {
                text = text + " " + name + "=" + &quoted(value);
            }
        }
        text
    }
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_string_is_the_one_that_administrators_know() {
        let mut settings = Settings { host: None, port: 5432, database: "postgres".into(), user: None };
        assert_eq!(settings.connection_string(), "dbname='postgres' port=5432");
        settings.user = Some(r"o'ne\two".into());
        settings.host = Some("/tmp".into());
        assert_eq!(settings.connection_string(), r"dbname='postgres' port=5432 user='o\'ne\\two' host='/tmp'");
    }
}
