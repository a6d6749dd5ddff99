//! Connections of a client to the database of a cluster. What is sent there is one of the statements that
//! clients of pgBackRest send, unless the administrator leaves that to the client.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::config::Cluster;
use crate::postgres::answer::Statement;
use crate::postgres::statements::is_sent_by_clients;
use crate::postgres::{Finished, Settings};
use crate::protocol::database::DatabaseRequest;
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::framing::{Envelope, Framing};
use crate::protocol::response::Payload;
use crate::repository::Answer;

use super::Event;
use super::conversation::{Active, Phase, Session};

/// Connections that one client may have; real ones have one for each session.
const CONNECTIONS_MAXIMUM: usize = 8;
/// So much of a statement that is refused is shown, in characters.
const SHOWN: usize = 500;

/// What a session wants of a connection to a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseAction {
    /// Make it.
    Open {
        /// Where to.
        settings: Settings,
        /// The directory of the cluster that has to be reached by that.
        data_directory: PathBuf,
        /// How long it may take.
        timeout: Duration,
    },
    /// Send a statement.
    Query {
        /// Its text.
        statement: String,
        /// How long it may take.
        timeout: Duration,
    },
    /// Close it, whatever it does. Nothing is said of it any more.
    Close,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub enum DatabaseOutcome {
    /// There is a connection.
    Opened,
    /// There is none: why.
    Refused(String),
    /// A statement is done with.
    Finished(Finished),
    /// What the administrator should know: that the database ended the connection while nothing was asked of it, or
    /// that a password file is not used.
    Noticed(String),
}

/// What is waited for.
#[derive(Debug)]
pub(super) enum Pending {
    /// A connection, which is called this in errors.
    Connection(String),
    /// The outcome of a statement.
    Statement(Statement),
}

/// The connections of a session.
#[derive(Debug, Default)]
pub(super) struct Databases {
    /// The client's number of each, and ours.
    open: Vec<(u64, u64)>,
    /// Ours for the next one.
    next: u64,
    /// The client's for the next one, where connections are counted.
    count: u64,
    pub(super) actions: VecDeque<(u64, DatabaseAction)>,
}

impl Databases {
    /// Closes all.
    pub(super) fn close(&mut self) {
        self.actions.clear();
        self.actions.extend(self.open.drain(..).map(|(_, id)| (id, DatabaseAction::Close)));
    }

    fn find(&self, connection: u64) -> Option<u64> {
        self.open.iter().find(|(number, _)| *number == connection).map(|(_, id)| *id)
    }

    fn remove(&mut self, id: u64) {
        self.open.retain(|(_, open)| *open != id);
    }
}

impl Session {
    /// The next thing to do with a connection to a database, with the session's number for that.
    pub fn poll_database(&mut self) -> Option<(u64, DatabaseAction)> {
        self.databases.actions.pop_front()
    }

    /// What became of [`DatabaseAction::Open`] or [`DatabaseAction::Query`], or of a connection since.
    pub fn handle_database(&mut self, now: Instant, id: u64, outcome: DatabaseOutcome) {
        if let DatabaseOutcome::Noticed(text) = outcome {
            // Of a lost connection the client hears when it sends its next statement, if it does.
            return self.events.push_back(Event::Noticed(text));
        }
        let is_waited_for = |active: &Active| matches!(active, Active::Database(_, waited) if *waited == id);
        let active = self.active.take_if(|(_, active)| is_waited_for(active));
        let Some((envelope, Active::Database(pending, _))) = active else { return };
        self.postpone(now);
        match self.conclude(id, pending, outcome) {
            Ok(answer) => self.answer(envelope, answer),
            Err(error) => self.answer_error(envelope, error),
        }
        self.weigh();
    }

    /// Whether a request to a database is under way, which may take long.
    #[must_use]
    pub const fn awaits_database(&self) -> bool {
        matches!(self.active, Some((_, Active::Database(..))))
    }

    /// Starts a database request.
    pub(super) fn begin_database(&mut self, envelope: Envelope, request: DatabaseRequest) {
        debug_assert!(self.phase == Phase::Ready && self.active.is_none(), "requests come one after the other");
        let begun = match request {
            DatabaseRequest::Open => self.open_database(envelope),
            DatabaseRequest::Query { connection, expected, statement } => {
                let timeout = self.cluster().map_or(Duration::ZERO, |cluster| cluster.db_timeout);
                let statement = Statement { text: statement, expected, timeout };
                self.query_database(envelope, connection, statement)
            }
            DatabaseRequest::Close(connection) => self.close_database(envelope, connection),
            DatabaseRequest::Cancel(connection) => {
                // Clients cancel what failed, so it may not be there.
                let _ = self.close_database(envelope, connection);
                return self.answer(envelope, Answer::closing());
            }
        };
        match begun {
            Ok(None) => {}
            Ok(Some(answer)) => self.answer(envelope, answer),
            Err(error) => self.answer_error(envelope, error),
        }
    }

    fn cluster(&self) -> Option<&Cluster> {
        self.settings.as_ref()?.cluster()
    }

    fn open_database(&mut self, envelope: Envelope) -> Result<Option<Answer>> {
        let Some(cluster) = self.cluster() else {
            return Err(Error::access("access denied: a repository has no database"));
        };
        if self.databases.open.len() >= CONNECTIONS_MAXIMUM {
            let message = format!("more than {CONNECTIONS_MAXIMUM} connections to the database are open");
            return Err(Error::protocol(message));
        }
        let number = match self.release.framing {
            Framing::Classic => self.databases.count,
            Framing::Session => envelope.session,
        };
        let is_file = self.streams.iter().any(|(open, _)| *open == number && self.release.framing == Framing::Session);
        if is_file || self.databases.find(number).is_some() {
            return Err(Error::protocol(format!("session id {number} is open already")));
        }
        let settings = Settings {
            host: cluster.socket_path.clone(),
            port: cluster.port,
            database: cluster.database.clone(),
            user: cluster.user.clone(),
        };
        check_socket(&settings)?;
        let pending = Pending::Connection(settings.connection_string());
        let action =
            DatabaseAction::Open { settings, data_directory: cluster.path.clone(), timeout: cluster.db_timeout };
        let id = self.databases.next;
        self.databases.next += 1;
        self.databases.open.push((number, id));
        self.databases.actions.push_back((id, action));
        self.active = Some((envelope, Active::Database(pending, id)));
        Ok(None)
    }

    fn query_database(&mut self, envelope: Envelope, connection: u64, statement: Statement) -> Result<Option<Answer>> {
        let id = self.find_database(envelope, connection)?;
        let any = self.cluster().is_some_and(|cluster| cluster.any_statement);
        if !any && !is_sent_by_clients(&statement.text) {
            let visible = |character: char| if character.is_control() { ' ' } else { character };
            let shown: String = statement.text.chars().take(SHOWN).map(visible).collect();
            return Err(Error::access(format!(
                "access denied: no pgbackrest client sends the statement '{shown}'\nHINT: 'sql=any' in repohostd.conf of \
                 the PostgreSQL host lets every client send what it likes."
            )));
        }
        let action = DatabaseAction::Query { statement: statement.text.clone(), timeout: statement.timeout };
        self.databases.actions.push_back((id, action));
        self.active = Some((envelope, Active::Database(Pending::Statement(statement), id)));
        Ok(None)
    }

    fn close_database(&mut self, envelope: Envelope, connection: u64) -> Result<Option<Answer>> {
        let id = self.find_database(envelope, connection)?;
        self.databases.remove(id);
        self.databases.actions.push_back((id, DatabaseAction::Close));
        Ok(Some(match self.release.framing {
            Framing::Classic => Answer::null(),
            Framing::Session => Answer::closing(),
        }))
    }

    fn find_database(&self, envelope: Envelope, connection: u64) -> Result<u64> {
        self.databases.find(connection).ok_or_else(|| {
            let Envelope { command, kind, .. } = envelope;
            Error::protocol(match self.release.framing {
                Framing::Classic => format!("database connection {connection} is not open"),
                Framing::Session => format!("unable to find session id {connection} for request {command}:{kind}"),
            })
        })
    }

    fn conclude(&mut self, id: u64, pending: Pending, outcome: DatabaseOutcome) -> Result<Answer> {
        match (pending, outcome) {
            (Pending::Connection(_), DatabaseOutcome::Opened) => {
                let index = u32::try_from(self.databases.count).unwrap_or(u32::MAX);
                self.databases.count += 1;
                Ok(match self.release.framing {
                    Framing::Classic => Answer::data(Payload::from_pack(|pack| _ = pack.u32(index))),
                    Framing::Session => Answer::null(),
                })
            }
            (Pending::Connection(name), DatabaseOutcome::Refused(reason)) => {
                self.databases.remove(id);
                Err(Error::new(Code::DbConnect, format!("unable to connect to '{name}': {reason}")))
            }
            (Pending::Statement(statement), DatabaseOutcome::Finished(finished)) => {
                statement.answer(self.release, finished).map(Answer::data)
            }
            (pending, outcome) => {
                debug_assert!(false, "{outcome:?} is nothing that {pending:?} waits for");
                Err(Error::new(Code::Assert, "database request came to an unexpected outcome"))
            }
        }
    }
}

/// A client may name a socket but no host, to which the server's password could go.
fn check_socket(settings: &Settings) -> Result<()> {
    let host = settings.host.as_deref().filter(|host| !host.is_empty());
    if host.is_some_and(|host| !host.starts_with(['/', '@']) || host.contains(',')) {
        return Err(Error::new(
            Code::DbConnect,
            format!(
                "unable to connect to '{}': pg1-socket-path is neither an absolute path nor a name that begins with \
                 '@'\nHINT: to connect over a network, set PGHOST in the environment of the PostgreSQL host's server.",
                settings.connection_string()
            ),
        ));
    }
    Ok(())
}
