//! The statements that clients send, as data.
//!
//! Whoever may make database requests would otherwise be the database's superuser, since that is who
//! the server usually connects as. So a statement is sent only if it is, byte for byte, one of those
//! below. What differs between two of one kind is one of a few words, a log sequence number or the name
//! of a command: none of them can hold a quote, a backslash, a semicolon or a space, so nothing has to be
//! known of how `PostgreSQL` reads text.
//!
//! Source: `db.c` of every release from 2.37 to 2.59.1 and the strings in the program of 2.60.0. The
//! table is for all of them together: none of their statements gives more than the others.

/// A piece of a statement.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// Exactly this.
    Text(&'static str),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A position in the log, such as `1A/2000028`.
    Position,
    /// The name of a command, such as `archive-get`.
    Command,
}

use Part::{Command, OneOf, Position, Text};

/// What functions call the log since 10 and before.
const LOG: Part = OneOf(&["wal", "xlog"]);
/// And a position in it.
const PLACE: Part = OneOf(&["lsn", "location"]);

/// Every statement, in the order in which clients send them.
const STATEMENTS: &[&[Part]] = &[
    &[Text("set search_path = 'pg_catalog'")],
    &[Text("set client_encoding = 'UTF8'")],
    &[Text(
        "select (select setting from pg_catalog.pg_settings where name = 'server_version_num')::int4, \
         (select setting from pg_catalog.pg_settings where name = 'data_directory')::text, \
         (select setting from pg_catalog.pg_settings where name = 'archive_mode')::text, \
         (select setting from pg_catalog.pg_settings where name = 'archive_command')::text, \
         (select setting from pg_catalog.pg_settings where name = 'checkpoint_timeout')::int4",
    )],
    &[Text("set application_name = 'pgBackRest ["), Command, Text("]'")],
    &[Text("set max_parallel_workers_per_gather = 0")],
    &[Text("select pg_catalog.pg_is_in_recovery()")],
    // Up to 2.57, for PostgreSQL before 9.6; the lock up to 2.52 for all.
    &[Text("select pg_catalog.pg_try_advisory_lock(12340078987004321)::bool")],
    &[Text("select pg_catalog.pg_is_in_backup()::bool")],
    &[
        Text("select pg_catalog.pg_"),
        LOG,
        Text("file_name(pg_catalog.pg_current_"),
        LOG,
        Text("_insert_"),
        PLACE,
        Text("())::text"),
    ],
    &[
        Text("select lsn::text as lsn,\n       pg_catalog.pg_"),
        LOG,
        Text("file_name(lsn)::text as wal_segment_name\n  from pg_catalog.pg_"),
        OneOf(&["backup_start", "start_backup"]),
        Text("('pgBackRest backup started at ' || current_timestamp"),
        OneOf(&["", "::text"]),
        // At once or with the next checkpoint, then, from 9.6 to 14, not exclusive.
        OneOf(&["", ", true", ", false"]),
        OneOf(&["", ", false"]),
        Text(") as lsn"),
    ],
    &[
        Text("select lsn::text as lsn,\n       pg_catalog.pg_"),
        LOG,
        Text("file_name(lsn)::text as wal_segment_name"),
        OneOf(&["", ",\n       labelfile::text as backuplabel_file,\n       spcmapfile::text as tablespacemap_file"]),
        Text("\n  from pg_catalog.pg_"),
        OneOf(&["backup_stop", "stop_backup"]),
        Text("("),
        // Not exclusive, not waiting for the archive, as far as the version knows that.
        OneOf(&["", "false", "false, false"]),
        Text(")"),
        OneOf(&["", " as lsn"]),
    ],
    &[Text(
        "select oid::oid, datname::text, (select oid::oid from pg_catalog.pg_database where datname = 'template0') as \
         datlastsysoid from pg_catalog.pg_database",
    )],
    // Up to 2.38.
    &[Text("select oid::oid, datname::text, datlastsysoid::oid from pg_catalog.pg_database")],
    &[Text("select oid::oid, spcname::text from pg_catalog.pg_tablespace")],
    &[
        Text("select replayLsn::text,\n       (replayLsn > '"),
        Position,
        Text("')::bool as targetReached\n  from pg_catalog.pg_last_"),
        LOG,
        Text("_replay_"),
        PLACE,
        Text("() as replayLsn"),
    ],
    &[
        Text("select replayLsn::text,\n       (replayLsn > '"),
        Position,
        Text("')::bool as targetReached,\n       (replayLsn > '"),
        Position,
        Text("')::bool as replayProgress\n  from pg_catalog.pg_last_"),
        LOG,
        Text("_replay_"),
        PLACE,
        Text("() as replayLsn"),
    ],
    &[Text("checkpoint")],
    &[
        Text("select (checkpoint_"),
        PLACE,
        // Greater up to 2.54.
        OneOf(&[" >= '", " > '"]),
        Position,
        Text("')::bool as targetReached,\n       checkpoint_"),
        PLACE,
        Text("::text as checkpointLsn\n  from pg_catalog.pg_control_checkpoint()"),
    ],
    &[Text("select (extract(epoch from clock_timestamp()) * 1000)::bigint")],
    &[Text("select pg_catalog.pg_create_restore_point('pgBackRest Archive Check')::text")],
    &[Text("select pg_catalog.pg_"), LOG, Text("file_name(pg_catalog.pg_switch_"), LOG, Text("())::text")],
];

/// Longest name of a command.
const COMMAND_MAXIMUM: usize = 32;
/// Each half of a position has so many digits at most.
const DIGITS_MAXIMUM: usize = 8;

/// Whether clients of any release send `statement`.
#[must_use]
pub fn is_sent_by_clients(statement: &str) -> bool {
    STATEMENTS.iter().any(|parts| fits(parts, statement))
}

/// Whether `text` is made of `parts` and nothing else.
fn fits(parts: &[Part], text: &str) -> bool {
    let Some((part, parts)) = parts.split_first() else { return text.is_empty() };
    match part {
        Text(expected) => text.strip_prefix(expected).is_some_and(|rest| fits(parts, rest)),
        OneOf(words) => words.iter().any(|word| text.strip_prefix(word).is_some_and(|rest| fits(parts, rest))),
        Position => position(text).is_some_and(|rest| fits(parts, rest)),
        Command => command(text).is_some_and(|rest| fits(parts, rest)),
    }
}

/// What follows the position in the log that `text` begins with.
fn position(text: &str) -> Option<&str> {
    let digits = |text: &'_ str| {
        let count = text.bytes().take_while(u8::is_ascii_hexdigit).count();
        (1..=DIGITS_MAXIMUM).contains(&count).then_some(count)
    };
    let rest = text.get(digits(text)?..)?.strip_prefix('/')?;
    rest.get(digits(rest)?..)
}

/// What follows the name of a command that `text` begins with: words that a hyphen joins.
fn command(text: &str) -> Option<&str> {
    let end = text.find(|character: char| !character.is_ascii_lowercase() && character != '-')?;
    let (name, rest) = text.split_at_checked(end)?;
    let fits = name.len() <= COMMAND_MAXIMUM && name.split('-').all(|word| !word.is_empty());
    fits.then_some(rest)
}

#[cfg(test)]
#[path = "statements_tests.rs"]
mod tests;
