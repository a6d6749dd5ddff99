//! Database requests and their parameters, typed (specification, section 4.2).

use super::error::{Error, Result};
use super::framing::{Envelope, Framing, name};
use super::pack::Reader;
use super::release::{DatabaseAnswers, Release};
use super::string_id::StringId;

const OPEN: StringId = StringId::new("db-o");
const QUERY: StringId = StringId::new("db-q");
const CLOSE: StringId = StringId::new("db-c");
/// All of them since requests have sessions.
const DATABASE: StringId = StringId::new("db");

/// A request about a connection to the database. Connections have numbers: that of their session, or else
/// the first has 0, the next 1 and so on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseRequest {
    /// Connects.
    Open,
    /// Sends a statement.
    Query {
        /// The number of the connection.
        connection: u64,
        /// What should come of it.
        expected: Expected,
        /// Its text.
        statement: String,
    },
    /// Closes the connection with this number.
    Close(u64),
    /// Closes it, whether or not it is open.
    Cancel(u64),
}

/// What a client expects of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whatever comes.
    Any,
    /// One row with one column.
    Column,
    /// No rows, that is a command.
    None,
    /// One row.
    Row,
}

impl Expected {
    /// What `id` stands for.
    #[must_use]
    pub fn from_id(id: StringId) -> Option<Self> {
        const ANY: StringId = StringId::new("any");
        const COLUMN: StringId = StringId::new("column");
        const NONE: StringId = StringId::new("none");
        const ROW: StringId = StringId::new("row");
        Some(match id {
            ANY => Self::Any,
            COLUMN => Self::Column,
            NONE => Self::None,
            ROW => Self::Row,
            _ => return None,
        })
    }
}

/// The database request in `envelope`; `None` if it is another one.
///
/// # Errors
///
/// 39 for a kind of request that there is not, 29 for parameters that do not fit.
pub(super) fn decode(
    envelope: Envelope,
    reader: &mut Reader<'_>,
    release: &Release,
) -> Result<Option<DatabaseRequest>> {
    let Envelope { command, kind, session, open } = envelope;
    Ok(Some(match (release.framing, command) {
        (Framing::Classic, OPEN) => DatabaseRequest::Open,
        (Framing::Classic, QUERY) => decode_query(reader.read_u32()?.into(), reader, release)?,
        (Framing::Classic, CLOSE) => DatabaseRequest::Close(reader.read_u32()?.into()),
        (Framing::Session, DATABASE) => match kind {
            name::OPEN => DatabaseRequest::Open,
            name::PROCESS if open => decode_query(session, reader, release)?,
            name::CLOSE => DatabaseRequest::Close(session),
            name::CANCEL => DatabaseRequest::Cancel(session),
            _ => return Err(Error::protocol(format!("unknown request type '{kind}'"))),
        },
        _ => return Ok(None),
    }))
}

fn decode_query(connection: u64, reader: &mut Reader<'_>, release: &Release) -> Result<DatabaseRequest> {
    let expected = match release.database_answers {
        DatabaseAnswers::Json => Expected::Any,
        DatabaseAnswers::Typed => {
            let id = reader.read_string_id()?.unwrap_or(StringId(0));
            Expected::from_id(id).ok_or_else(|| Error::format(format!("'{id}' is no type of a result")))?
        }
    };
    let statement = reader.read_str()?.unwrap_or_default().to_owned();
    Ok(DatabaseRequest::Query { connection, expected, statement })
}

#[cfg(test)]
mod tests {
    use super::super::pack::Writer;
    use super::*;

    fn request(
        version: &str,
        command: &str,
        kind: StringId,
        fill: impl FnOnce(&mut Writer),
    ) -> Result<DatabaseRequest> {
        let mut pack = Writer::new();
        fill(&mut pack);
        let open = kind != name::OPEN;
        let session = if command == "db" { 7 } else { Envelope::CLASSIC };
        let envelope = Envelope { command: StringId::new(command), kind, session, open };
        let release = Release::find(version).unwrap();
        decode(envelope, &mut Reader::new(&pack.finish()), release).map(Option::unwrap)
    }

    fn query(connection: u64, expected: Expected) -> DatabaseRequest {
        DatabaseRequest::Query { connection, expected, statement: "select".into() }
    }

    #[test]
    fn requests_of_each_generation() {
        for version in ["2.37", "2.38", "2.39", "2.53.1"] {
            assert_eq!(request(version, "db-o", name::PROCESS, |_| {}).unwrap(), DatabaseRequest::Open);
            let close = request(version, "db-c", name::PROCESS, |pack| _ = pack.u32(2)).unwrap();
            assert_eq!(close, DatabaseRequest::Close(2));
        }
        for version in ["2.37", "2.38"] {
            let untyped = request(version, "db-q", name::PROCESS, |pack| _ = pack.u32(1).str("select")).unwrap();
            assert_eq!(untyped, query(1, Expected::Any));
        }
        for version in ["2.39", "2.53.1"] {
            let row = StringId::new("row");
            let fill = |pack: &mut Writer| _ = pack.u32(0).string_id(row).str("select");
            assert_eq!(request(version, "db-q", name::PROCESS, fill).unwrap(), query(0, Expected::Row));
        }
        for version in ["2.54.0", "2.60.0"] {
            assert_eq!(request(version, "db", name::OPEN, |_| {}).unwrap(), DatabaseRequest::Open);
            let fill = |pack: &mut Writer| _ = pack.string_id(StringId::new("none")).str("select");
            assert_eq!(request(version, "db", name::PROCESS, fill).unwrap(), query(7, Expected::None));
            assert_eq!(request(version, "db", name::CLOSE, |_| {}).unwrap(), DatabaseRequest::Close(7));
            assert_eq!(request(version, "db", name::CANCEL, |_| {}).unwrap(), DatabaseRequest::Cancel(7));
            assert!(request(version, "db", StringId::new("xxx"), |_| {}).is_err());
        }
    }

    #[test]
    fn a_query_names_what_it_expects() {
        for id in ["rows", "an", "columns"] {
            let fill = |pack: &mut Writer| _ = pack.string_id(StringId::new(id)).str("select");
            assert!(request("2.60.0", "db", name::PROCESS, fill).is_err_and(|error| error.message.contains(id)));
        }
        assert!(request("2.60.0", "db", name::PROCESS, |_| {}).is_err());
        assert!(request("2.45", "db-q", name::PROCESS, |pack| _ = pack.str("select")).is_err());
    }
}
