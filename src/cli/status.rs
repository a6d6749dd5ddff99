//! `repohostd status`: what does the running server do, and for whom?

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use argh::FromArgs;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::config::{Environment, OwnSettings, load_own};
use crate::protocol::error::{Code, Error, Result};
use crate::server::life::configuration::status_paths;
use crate::server::status::{REQUEST, VERSION};

/// The server answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longer answers are none.
const ANSWER_MAXIMUM: u64 = 16 << 20;
const JSON: &str = "--json";

/// show the sessions of the running server, and the clients with the release that they were last
/// served; for root and the server's user. Takes the options of 'serve', so that it finds the same repohostd.conf.
#[derive(FromArgs)]
#[argh(subcommand, name = "status")]
#[expect(dead_code, reason = "argh shows it in the help")]
pub struct Status {
    /// print what the server said, as JSON
    #[argh(switch)]
    json: bool,
}

/// Asks and prints; returns the exit status.
#[must_use]
pub fn run(arguments: &[String], environment: &Environment) -> u8 {
    let (json, others): (Vec<_>, Vec<_>) = arguments.iter().cloned().partition(|argument| argument == JSON);
    let answer = load_own(&others, environment).and_then(|own| ask(&own));
    super::report(answer.map(|(text, value)| if json.is_empty() { render(&value) } else { text }))
}

/// Asks the server that has these settings.
///
/// # Errors
///
/// 49 when no server answers; 39 when what answers is no repohostd.
pub(super) fn ask(own: &OwnSettings) -> Result<(String, Value)> {
    let paths = status_paths(own);
    let mut failures = Vec::new();
    for path in &paths {
        match ask_at(path) {
            Ok(text) => return read(path, text),
            Err(error) => failures.push((path, error)),
        }
    }
    let mut message = "no server tells its status".to_owned();
    for (path, error) in failures {
        // Writing to a string does not fail.
        let _ = write!(message, "\nHINT: '{}': {error}", path.display());
    }
    message.push_str("\nHINT: is repohostd running, and is its state-path or status-socket writable?");
    Err(Error::new(Code::HostConnect, message))
}

fn ask_at(path: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(REQUEST)?;
    let mut text = String::new();
    stream.take(ANSWER_MAXIMUM).read_to_string(&mut text)?;
    if text.is_empty() {
        return Err(io::Error::other("it closes the connection: only root and the server's user are answered"));
    }
    Ok(text)
}

fn read(path: &Path, text: String) -> Result<(String, Value)> {
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    if value.get("version").and_then(Value::as_u64) == Some(VERSION) {
        return Ok((text, value));
    }
    let shown: String = text.chars().take(80).collect();
    Err(Error::protocol(format!("'{}' is no repohostd of this version: it says '{}'", path.display(), shown.trim())))
}

/// A member as text; `-` where there is none.
pub(super) fn member(value: &Value, name: &str) -> String {
    match value.get(name) {
        // Names come from certificates, which may hold anything.
        Some(Value::String(text)) => text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    }
}

pub(super) fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn render(value: &Value) -> String {
    let addresses: Vec<_> = list(value, "addresses").iter().filter_map(Value::as_str).collect();
    let release = match value.get("release").and_then(Value::as_str) {
        Some(release) => format!("pgBackRest {release} unless another release is written down"),
        None => "the pgBackRest of each client".to_owned(),
    };
    let mut text = format!(
        "repohostd {}, process {}, listens on {} and serves {release}\n",
        member(value, "server"),
        member(value, "pid"),
        addresses.join(", "),
    );
    let mut workers = Grid::new(&["WORKER", "PID", "CONNECTIONS", "TRANSFERS", "SILENT", "LEAVING", "KEPT FOR"]);
    for worker in list(value, "workers") {
        let names = ["number", "pid", "connections", "transfers", "silent"];
        let leaving = if worker.get("leaving") == Some(&Value::Bool(true)) { "yes" } else { "-" };
        let [kept_for] = ["kept-for"].map(|name| member(worker, name));
        workers.add(names.map(|name| member(worker, name)).into_iter().chain([leaving.to_owned(), kept_for]).collect());
    }
    if workers.rows.len() > 1 {
        let _ = write!(text, "\nworkers: {}\n{}", workers.rows.len() - 1, workers.render());
    }
    let mut file_systems = Grid::new(&["FILE SYSTEM", "TYPE", "PROCESS", "LOOKS", "DATA", "CHANGES", "SLOW MS"]);
    for file_system in list(value, "file-systems") {
        let names = ["path", "type", "pid", "looks", "data", "changes", "slow-ms"];
        file_systems.add(names.map(|name| member(file_system, name)).into());
    }
    if file_systems.rows.len() > 1 {
        let _ = write!(text, "\nfile systems: {}\n{}", file_systems.rows.len() - 1, file_systems.render());
    }
    let mut sessions = Grid::new(&[
        "PEER", "CLIENT", "STANZA", "COMMAND", "PROCESS", "RELEASE", "SECONDS", "REQUESTS", "DENIED", "READ", "WRITTEN",
    ]);
    for session in list(value, "sessions") {
        let names = [
            "peer", "client", "stanza", "command", "process", "release", "seconds", "requests", "denied", "read",
            "written",
        ];
        sessions.add(names.map(|name| member(session, name)).into());
    }
    let _ = write!(text, "\nsessions: {}\n{}", sessions.rows.len() - 1, sessions.render());
    omitted(&mut text, value, "sessions-omitted");
    let mut clients = Grid::new(&["CLIENT", "ADDRESS", "RELEASE", "LAST", "EARLIER"]);
    for client in list(value, "clients") {
        let releases = list(client, "releases");
        let Some(last) = releases.first() else { continue };
        let earlier: Vec<_> = releases[1..].iter().map(|release| member(release, "release")).collect();
        clients.add(vec![
            member(client, "client"),
            member(client, "address"),
            member(last, "release"),
            date(last),
            earlier.join(","),
        ]);
    }
    let _ = write!(text, "\nclients: {}\n{}", clients.rows.len() - 1, clients.render());
    omitted(&mut text, value, "clients-omitted");
    text
}

fn omitted(text: &mut String, value: &Value, name: &str) {
    if let Some(count) = value.get(name).and_then(Value::as_u64).filter(|count| *count > 0) {
        let _ = writeln!(text, "and {count} more");
    }
}

/// When a release worked last; a day's date is as exact as it is known.
fn date(release: &Value) -> String {
    let seconds = release.get("at").and_then(Value::as_i64);
    let time = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.map_or("-".to_owned(), |time| time.to_zoned_datetime(TimeZone::system()).strftime("%Y-%m-%d").to_string())
}

/// Columns as wide as their widest text.
pub(super) struct Grid {
    rows: Vec<Vec<String>>,
}

impl Grid {
    pub(super) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|text| (*text).to_owned()).collect()] }
    }

    pub(super) fn add(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    pub(super) fn render(&self) -> String {
        if self.rows.len() == 1 {
            return String::new();
        }
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|text| text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.rows[0].len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::from(" ");
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, " {cell:width$} ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sessions_and_clients_are_shown_in_columns() {
        let value = json!({
            "version": 1, "server": "0.1.0", "pid": 7, "addresses": ["127.0.0.1:8432"], "release": null,
            "workers": [
                { "number": 2, "pid": 4711, "connections": 6, "transfers": 1, "silent": null, "leaving": true },
                { "number": 3, "pid": 4712, "connections": 1, "transfers": 0, "silent": 7, "leaving": false,
                    "kept-for": "'db1'" },
            ],
            "file-systems": [{ "path": "/srv", "type": "nfs4", "pid": 4711, "looks": "at once", "data": "helpers",
                "changes": "helpers", "slow-ms": null }],
            "sessions": [{ "peer": "192.0.2.1:5", "client": "db1", "stanza": "demo", "command": "backup", "process": 0,
                "release": "2.60.0", "seconds": 4, "requests": 3, "denied": 5, "read": 1, "written": 2 }],
            "sessions-omitted": 2,
            "clients": [
                { "client": "db1", "address": "192.0.2.1", "releases": [{ "release": "2.60.0", "at": 1_700_000_000 },
                    { "release": "2.55.1", "at": 1 }] },
                { "client": null, "address": "192.0.2.1", "releases": [{ "release": "2.60.0", "at": 1_700_000_000 }] },
                { "client": "bad\u{1b}[2J", "address": "192.0.2.3", "releases": [{ "release": "2.45", "at": 1 }] },
            ],
            "clients-omitted": 0,
        });
        let text = render(&value);
        assert!(text.starts_with("repohostd 0.1.0, process 7, listens on 127.0.0.1:8432 and serves the pgBackRest of"));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        for expected in [
            &["192.0.2.1:5", "db1", "demo", "backup", "0", "2.60.0", "4", "3", "5", "1", "2"][..],
            &["2", "4711", "6", "1", "-", "yes", "-"],
            &["3", "4712", "1", "0", "7", "-", "'db1'"],
            &["/srv", "nfs4", "4711", "at", "once", "helpers", "helpers", "-"],
            &["and", "2", "more"],
            &["clients:", "3"],
            &["db1", "192.0.2.1", "2.60.0", "2023-11-14", "2.55.1"],
            &["-", "192.0.2.1", "2.60.0", "2023-11-14"],
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected:?} is missing:\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "a certificate's name cannot command the terminal");
    }

    #[test]
    fn a_server_that_does_not_run_is_an_error_with_its_own_status_and_where_it_was_asked() {
        let own = OwnSettings { status_socket: Some("/nonexistent/r.sock".into()), ..OwnSettings::default() };
        let error = ask(&own).unwrap_err();
        assert_eq!(error.code, Code::HostConnect);
        assert!(error.message.contains("'/nonexistent/r.sock': No such file"), "{error}");
    }
}
