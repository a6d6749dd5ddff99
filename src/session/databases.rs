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
use crate::protocol::release::Release;
use crate::protocol::response::Payload;
use crate::repository::Answer;

use super::Event;
use super::conversation::{Phase, Session};
use super::ending::Flow;
use super::granted::{Active, Granted, Running, Wait};
use super::line::Line;

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
    actions: VecDeque<(u64, DatabaseAction)>,
}

impl Databases {
    pub(super) fn poll(&mut self) -> Option<(u64, DatabaseAction)> {
        self.actions.pop_front()
    }

    /// Closes all.
    pub(super) fn close(&mut self) {
        self.actions.clear();
        self.actions.extend(self.open.drain(..).map(|(_, id)| (id, DatabaseAction::Close)));
    }

    /// Whether there is a connection that we number `id`.
    pub(super) fn is_open(&self, id: u64) -> bool {
        self.open.iter().any(|(_, open)| *open == id)
    }

    fn find(&self, connection: u64) -> Option<u64> {
        self.open.iter().find(|(number, _)| *number == connection).map(|(_, id)| *id)
    }

    /// Our number of the client's `connection`.
    fn get(&self, framing: Framing, envelope: Envelope, connection: u64) -> Result<u64> {
        self.find(connection).ok_or_else(|| {
            let Envelope { command, kind, .. } = envelope;
            Error::protocol(match framing {
                Framing::Classic => format!("database connection {connection} is not open"),
                Framing::Session => format!("unable to find session id {connection} for request {command}:{kind}"),
            })
        })
    }

    /// Makes the connection that the client calls `number`; returns our number.
    fn add(&mut self, number: u64, action: DatabaseAction) -> u64 {
        let id = self.next;
        self.next += 1;
        self.open.push((number, id));
        self.actions.push_back((id, action));
        id
    }

    fn remove(&mut self, id: u64) {
        self.open.retain(|(_, open)| *open != id);
    }

    fn close_one(&mut self, framing: Framing, envelope: Envelope, connection: u64) -> Result<Answer> {
        let id = self.get(framing, envelope, connection)?;
        self.remove(id);
        self.actions.push_back((id, DatabaseAction::Close));
        Ok(match framing {
            Framing::Classic => Answer::null(),
            Framing::Session => Answer::closing(),
        })
    }

    fn conclude(&mut self, release: &Release, id: u64, pending: Pending, outcome: DatabaseOutcome) -> Result<Answer> {
        match (pending, outcome) {
            (Pending::Connection(_), DatabaseOutcome::Opened) => {
                let index = u32::try_from(self.count).unwrap_or(u32::MAX);
                self.count += 1;
                Ok(match release.framing {
                    Framing::Classic => Answer::data(Payload::from_pack(|pack| _ = pack.u32(index))),
                    Framing::Session => Answer::null(),
                })
            }
            (Pending::Connection(name), DatabaseOutcome::Refused(reason)) => {
                self.remove(id);
                Err(Error::new(Code::DbConnect, format!("unable to connect to '{name}': {reason}")))
            }
            (Pending::Statement(statement), DatabaseOutcome::Finished(finished)) => {
                statement.answer(release, finished).map(Answer::data)
            }
            (pending, outcome) => {
                debug_assert!(false, "{outcome:?} is nothing that {pending:?} waits for");
                Err(Error::new(Code::Assert, "database request came to an unexpected outcome"))
            }
        }
    }
}

impl Session {
    /// What became of [`DatabaseAction::Open`] or [`DatabaseAction::Query`], or of a connection since.
    pub fn handle_database(&mut self, now: Instant, id: u64, outcome: DatabaseOutcome) {
        if let DatabaseOutcome::Noticed(text) = outcome {
            // Of a lost connection the client hears when it sends its next statement, if it does.
            return self.line.events.push_back(Event::Noticed(text));
        }
        if let Phase::Open(granted) = &mut self.phase {
            let flow = granted.take_database_outcome(&mut self.line, now, id, outcome);
            self.conclude(flow);
        }
    }
}

impl Granted {
    /// Whether a request to a database is under way.
    pub(super) const fn awaits_database(&self) -> bool {
        matches!(self.running, Some(Running { active: Active::Database(..), .. }))
    }

    fn take_database_outcome(&mut self, line: &mut Line, now: Instant, id: u64, outcome: DatabaseOutcome) -> Flow {
        let is_waited_for =
            |running: &mut Running| matches!(running.active, Active::Database(_, waited) if waited == id);
        let running = self.running.take_if(is_waited_for);
        let Some(Running { envelope, active: Active::Database(pending, _), .. }) = running else { return Ok(()) };
        self.postpone(line, now);
        match self.databases.conclude(line.release, id, pending, outcome) {
            Ok(answer) => self.answer(line, envelope, answer),
            Err(error) => self.answer_error(line, envelope, error),
        }
    }

    /// Starts a database request.
    pub(super) fn begin_database(&mut self, line: &mut Line, envelope: Envelope, request: DatabaseRequest) -> Flow {
        let framing = line.release.framing;
        let begun = match request {
            DatabaseRequest::Open => self.open_database(framing, envelope).map(|()| None),
            DatabaseRequest::Query { connection, expected, statement } => {
                let timeout = self.cluster().map_or(Duration::ZERO, |cluster| cluster.db_timeout);
                let statement = Statement { text: statement, expected, timeout };
                self.query_database(framing, envelope, connection, statement).map(|()| None)
            }
            DatabaseRequest::Close(connection) => self.databases.close_one(framing, envelope, connection).map(Some),
            DatabaseRequest::Cancel(connection) => {
                // Clients cancel what failed, so it may not be there.
                let _ = self.databases.close_one(framing, envelope, connection);
                Ok(Some(Answer::closing()))
            }
        };
        match begun {
            Ok(None) => Ok(()),
            Ok(Some(answer)) => self.answer(line, envelope, answer),
            Err(error) => self.answer_error(line, envelope, error),
        }
    }

    fn cluster(&self) -> Option<&Cluster> {
        self.settings.cluster()
    }

    fn open_database(&mut self, framing: Framing, envelope: Envelope) -> Result<()> {
        let Some(cluster) = self.cluster() else {
            return Err(Error::access("access denied: a repository has no database"));
        };
        if self.databases.open.len() >= CONNECTIONS_MAXIMUM {
            let message = format!("more than {CONNECTIONS_MAXIMUM} connections to the database are open");
            return Err(Error::protocol(message));
        }
        let number = match framing {
            Framing::Classic => self.databases.count,
            Framing::Session => envelope.session,
        };
        let is_file = framing == Framing::Session && self.streams.has(number);
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
        let id = self.databases.add(number, action);
        self.wait(envelope, Active::Database(pending, id), Wait::Database);
        Ok(())
    }

    fn query_database(
        &mut self,
        framing: Framing,
        envelope: Envelope,
        connection: u64,
        statement: Statement,
    ) -> Result<()> {
        let id = self.databases.get(framing, envelope, connection)?;
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
        self.wait(envelope, Active::Database(Pending::Statement(statement), id), Wait::Database);
        Ok(())
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
