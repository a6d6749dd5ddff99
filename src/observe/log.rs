//! Where log lines go: standard output, standard error and the file, each with a level of its own.
//! Source: specification, sections 2.7 and 2.8.
//!
//! Writing a line never fails. Standard output and standard error are never waited for: what a closed, full or
//! undrained one does not take is dropped, and how many lines were dropped is told once it takes lines again. A
//! server must not stand still because nobody reads its output. The file is written like any other, into the page
//! cache: on a file system that is slow or gone, so is the line. What it does not take is dropped.
//!
//! The sinks are one per process, because the facade of the crate `log` is: the only state here that nobody hands
//! on.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use jiff::ZonedDateTime;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use super::line::Level;
use super::line::{Message, write_full, write_short};
use crate::protocol::errno::describe_errno;
use crate::protocol::error::{Code, Error};

/// A pipe that is ready takes this much without blocking (`PIPE_BUF` on Linux).
const CHUNK: usize = 4096;
/// Permission bits of a new log file.
const FILE_MODE: u32 = 0o640;
/// What opens a process's part of the log file.
const BANNER: &str = "-------------------PROCESS START-------------------\n";

/// Which messages go where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Up to this level to standard output, unless standard error took it.
    pub console: Level,
    /// Up to this level to standard error.
    pub stderr: Level,
    /// Up to this level to the file.
    pub file: Level,
    /// The file; its directory has to exist.
    pub path: PathBuf,
    /// Whether lines begin with the time.
    pub timestamp: bool,
}

impl Default for Settings {
    /// What holds before the settings are known: warnings on standard output, without a time.
    fn default() -> Self {
        Self { console: Level::Warn, stderr: Level::Off, file: Level::Off, path: PathBuf::new(), timestamp: false }
    }
}

/// Connects the facade of the crate `log`, so that what libraries say becomes lines for fault
/// finding. Does nothing the second time.
pub fn connect() {
    if log::set_logger(&FACADE).is_ok() {
        log::set_max_level(log::LevelFilter::Off);
    }
}

/// Applies settings and opens the log file anew, which is how a rotated file is let go. A file that
/// cannot be opened is warned of and done without.
pub fn apply(settings: &Settings) {
    let mut sinks = sinks();
    let mut settings = settings.clone();
    sinks.file = None;
    // A process with another number adds to what the first one has begun.
    let begun = sinks.process > 0;
    let mut failure = None;
    if settings.file > Level::Off {
        match open(&settings.path) {
            Ok(file) => sinks.file = Some(Sink { file, begun }),
            Err(error) => {
                settings.file = Level::Off;
                failure = Some(error);
            }
        }
    }
    let widest = settings.console.max(settings.stderr).max(settings.file);
    sinks.settings = settings;
    drop(sinks);
    log::set_max_level(match widest {
        Level::Trace => log::LevelFilter::Trace,
        Level::Debug => log::LevelFilter::Debug,
        // Libraries speak at the levels below only; see `Facade`.
        _ => log::LevelFilter::Off,
    });
    if let Some(error) = failure {
        warn(format_args!("{}\nNOTE: process will continue without log file.", error.message));
    }
}

/// Whether a message of this level goes anywhere, for those that cost something to put together.
#[must_use]
pub fn enabled(level: Level) -> bool {
    let sinks = sinks();
    level <= sinks.settings.console || level <= sinks.settings.stderr || level <= sinks.settings.file
}

/// Shows another number than 0 for this process, which adds to a log that another one has begun.
pub fn number(process: u32) {
    let mut sinks = sinks();
    sinks.process = process;
}

/// Logs an error with its code: `[041]: text`.
pub fn error(error: &Error) {
    write(Level::Error, "", format_args!("{error}"));
}

/// Logs a warning.
pub fn warn(text: fmt::Arguments<'_>) {
    write(Level::Warn, "", text);
}

/// Logs what the server did.
pub fn info(text: fmt::Arguments<'_>) {
    write(Level::Info, "", text);
}

/// Logs what it did in between; the facade of the crate `log` has no such level.
pub fn detail(text: fmt::Arguments<'_>) {
    write(Level::Detail, "", text);
}

/// Logs a message of any level. `origin` is shown from [`Level::Debug`] on.
pub fn write(level: Level, origin: &str, text: fmt::Arguments<'_>) {
    sinks().write(&Message { level, origin, text });
}

static SINKS: LazyLock<Mutex<Sinks>> = LazyLock::new(Mutex::default);
static FACADE: Facade = Facade;

fn sinks() -> MutexGuard<'static, Sinks> {
    // A panic while a line was written leaves nothing half done that matters here.
    SINKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What libraries say. Their levels mean less than ours, so everything down to their debug messages
/// is a debug message here.
struct Facade;

impl log::Log for Facade {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        enabled(level_of(metadata.level()))
    }

    fn log(&self, record: &log::Record<'_>) {
        write(level_of(record.level()), record.target(), *record.args());
    }

    fn flush(&self) {}
}

const fn level_of(level: log::Level) -> Level {
    match level {
        log::Level::Trace => Level::Trace,
        _ => Level::Debug,
    }
}

#[derive(Default)]
struct Sinks {
    settings: Settings,
    /// The number of this process in lines.
    process: u32,
    file: Option<Sink>,
    stdout_lost: u64,
    stderr_lost: u64,
    /// Lines are laid out here, so that logging does not allocate.
    line: String,
}

impl Sinks {
    fn write(&mut self, message: &Message<'_>) {
        let to_stderr = message.level <= self.settings.stderr;
        let to_stdout = !to_stderr && message.level <= self.settings.console;
        let to_file = message.level <= self.settings.file;
        let line = &mut self.line;
        if to_stderr {
            line.clear();
            write_short(line, message);
            // Past the buffers and locks of std, which would wait for a reader.
            put(std::io::stderr(), line, &mut self.stderr_lost);
        }
        if to_stdout || to_file {
            line.clear();
            let time = self.settings.timestamp.then(ZonedDateTime::now);
            write_full(line, message, time.as_ref(), self.process);
            if to_stdout {
                put(std::io::stdout(), line, &mut self.stdout_lost);
            }
            if let Some(file) = self.file.as_mut().filter(|_| to_file) {
                file.put(line);
            }
        }
    }
}

/// The log file, and whether its banner was written.
struct Sink {
    file: File,
    begun: bool,
}

impl Sink {
    /// Writes a line, the banner before the first one. A full disk costs the line, nothing else.
    fn put(&mut self, line: &str) {
        if !self.begun {
            self.begun = true;
            let empty = self.file.metadata().is_ok_and(|metadata| metadata.len() == 0);
            let _ = self.file.write_all(if empty { "" } else { "\n" }.as_bytes());
            let _ = self.file.write_all(BANNER.as_bytes());
        }
        let _ = self.file.write_all(line.as_bytes());
    }
}

/// Writes a line if that does not wait, otherwise counts it as lost.
fn put(descriptor: impl AsFd, line: &str, lost: &mut u64) {
    if *lost > 0 {
        let note = format!("WARN: {lost} log lines were lost because nobody read them\n");
        if !put_all(&descriptor, note.as_bytes()) {
            *lost += 1;
            return;
        }
        *lost = 0;
    }
    if !put_all(&descriptor, line.as_bytes()) {
        *lost += 1;
    }
}

/// Whether everything was written without waiting.
fn put_all(descriptor: &impl AsFd, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let mut ready = [PollFd::new(descriptor, PollFlags::OUT)];
        if !poll(&mut ready, Some(&Timespec::default())).is_ok_and(|count| count == 1) {
            return false;
        }
        let chunk = &bytes[..bytes.len().min(CHUNK)];
        match rustix::io::write(descriptor, chunk) {
            Ok(written) if written > 0 => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => return false,
        }
    }
    true
}

fn open(path: &Path) -> Result<File, Error> {
    // Appending keeps the file whole when it is truncated in place by a rotation.
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path).map_err(|error| {
        let text = format!("unable to open log file '{}': ", path.display());
        let reason = error.raw_os_error().map_or_else(|| error.to_string(), |errno| describe_errno(errno).into_owned());
        Error::new(Code::FileOpen, text + &reason)
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn at_file(path: PathBuf) -> Sinks {
        let settings = Settings { console: Level::Off, file: Level::Info, path, ..Settings::default() };
        let file = Some(Sink { file: open(&settings.path).unwrap(), begun: false });
        Sinks { settings, file, ..Sinks::default() }
    }

    fn say(sinks: &mut Sinks, level: Level, text: &str) {
        sinks.write(&Message { level, origin: "test", text: format_args!("{text}") });
    }

    #[test]
    fn the_file_opens_with_a_banner_and_a_blank_line_between_processes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("all-server.log");
        let mut first = at_file(path.clone());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "", "the banner waits for the first line");
        say(&mut first, Level::Info, "one");
        say(&mut first, Level::Detail, "not wanted");
        say(&mut first, Level::Error, "[041]: two");
        let mut second = at_file(path.clone());
        say(&mut second, Level::Info, "three");
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            format!("{BANNER}P00   INFO: one\nP00  ERROR: [041]: two\n\n{BANNER}P00   INFO: three\n")
        );
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o007, 0);
    }

    #[test]
    fn a_file_in_a_missing_directory_is_an_error_that_names_it() {
        let error = open(Path::new("/nonexistent/all-server.log")).unwrap_err();
        assert!(error.message.starts_with("unable to open log file '/nonexistent/all-server.log': "), "{error}");
        assert!(error.message.ends_with("No such file or directory"), "{error}");
    }

    #[test]
    fn a_reader_that_stopped_reading_costs_lines_and_not_the_server() {
        let (reader, writer) = UnixStream::pair().unwrap();
        let writer = OwnedFd::from(writer);
        let mut lost = 0;
        let line = format!("{}\n", "x".repeat(4000));
        for _ in 0..10_000 {
            put(&writer, &line, &mut lost);
        }
        assert!(lost > 0);
        drop(reader);
        put(&writer, &line, &mut lost);
        assert!(lost > 0, "a closed reader is no failure either");
    }

    #[test]
    fn lost_lines_are_told_once_somebody_reads_again() {
        let (reader, writer) = UnixStream::pair().unwrap();
        let mut lost = 3;
        put(OwnedFd::from(writer), "P00   INFO: a\n", &mut lost);
        assert_eq!(lost, 0);
        let text = std::io::read_to_string(reader).unwrap();
        assert_eq!(text, "WARN: 3 log lines were lost because nobody read them\nP00   INFO: a\n");
    }
}
