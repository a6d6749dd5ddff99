//! The command line: which words mean which command. One file for each command.
//!
//! `serve`, which is also meant when no command is named, `check`, `status`, `learn` and `history` take the
//! server's options, whose grammar is pgBackRest's and is read by `config`. The other commands are
//! ours alone and have their arguments described by `argh`. Every command returns the exit status,
//! which is pgBackRest's error number.

pub mod check;
mod file_systems;
pub mod history;
pub mod learn;
pub mod ping;
pub mod quickstart;
mod reach;
mod rights;
pub mod serve;
pub mod status;
pub mod systemd_drop_in;
pub mod version;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use argh::{EarlyExit, FromArgs, SubCommand};

use crate::config::Environment;
use crate::disk::helpers;
use crate::protocol::error::{Code, Error, Result};
use crate::server::{life, workers};

/// The name that help texts show.
const PROGRAM: &str = "repohostd";
/// The commands that have a help text, a place in the manual and a completion.
const COMMANDS: [&str; 9] =
    ["serve", "check", "status", "learn", "history", "quickstart", "ping", "systemd-drop-in", "version"];

/// repohostd serves a repository of PostgreSQL backups to unmodified pgbackrest clients, in place of
/// 'pgbackrest server'. Without a command it serves.
#[derive(FromArgs)]
#[allow(clippy::doc_markdown, reason = "this text is shown on a terminal")]
struct Arguments {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs)]
#[argh(subcommand)]
#[expect(dead_code, reason = "of most commands argh only shows the help")]
enum Command {
    Serve(serve::Serve),
    Quickstart(quickstart::Options),
    Check(check::Check),
    Status(status::Status),
    Learn(learn::Learn),
    History(history::History),
    Ping(ping::Ping),
    SystemdDropIn(systemd_drop_in::SystemdDropIn),
    Version(version::Version),
}

/// Runs the command that `arguments`, without the program's name, ask for. Returns the exit status.
#[must_use]
pub fn run(arguments: &[String]) -> u8 {
    let environment = Environment::new(std::env::vars_os(), std::process::id());
    let word = arguments.first().map_or("", String::as_str);
    let help = arguments.iter().any(|argument| argument == "--help");
    let rest = arguments.get(1..).unwrap_or_default();
    match word {
        "check" if !help => return check::run(rest, &environment),
        "status" if !help => return status::run(rest, &environment),
        "learn" if !help => return learn::run(rest, &environment),
        "history" if !help => return history::run(rest, &environment),
        "systemd-drop-in" if !help => return systemd_drop_in::run(rest, &environment),
        "--version" => return version::run(),
        helpers::COMMAND => return helpers::worker::run(),
        workers::COMMAND => return life::worker::run(rest, &environment),
        "quickstart" | "ping" | "version" | "help" | "--help" | "-h" => {}
        "serve" | "server" | "check" | "status" | "learn" | "history" | "systemd-drop-in" if help => {}
        _ if help && word.starts_with("--") => {}
        _ => return serve::run(arguments, &environment),
    }
    let separate = if help || matches!(word, "help" | "-h") { help_for(word) } else { split_values(arguments) };
    let separate: Vec<_> = separate.iter().map(String::as_str).collect();
    match Arguments::from_args(&[PROGRAM], &separate) {
        Ok(Arguments { command }) => match command {
            Command::Quickstart(options) => quickstart::run(&options, &environment),
            Command::Ping(options) => ping::run(&options),
            Command::Version(_) => version::run(),
            // Left for above; argh knows them for their help.
            Command::Serve(_)
            | Command::Check(_)
            | Command::Status(_)
            | Command::Learn(_)
            | Command::History(_)
            | Command::SystemdDropIn(_) => fail(&Error::new(Code::Assert, "the command reads its own arguments")),
        },
        Err(EarlyExit { output, status: Ok(()) }) => {
            say(&output);
            0
        }
        Err(EarlyExit { output, status: Err(()) }) => fail(&Error::new(Code::OptionInvalid, output.trim_end())),
    }
}

/// The arguments that make argh print the help of the command that `word` is.
fn help_for(word: &str) -> Vec<String> {
    let command = match word {
        "server" => Some(serve::Serve::COMMAND.name),
        _ => COMMANDS.contains(&word).then_some(word),
    };
    command.into_iter().chain(["--help"]).map(str::to_owned).collect()
}

/// Takes `--systemd`, with which the shipped unit calls `serve` and `check`; whether it was there.
fn take_systemd(arguments: &mut Vec<String>) -> bool {
    let before = arguments.len();
    arguments.retain(|argument| argument != "--systemd");
    arguments.len() < before
}

/// Splits `--name=value`, which argh does not know, into two arguments.
fn split_values(arguments: &[String]) -> Vec<String> {
    let mut result = Vec::with_capacity(arguments.len());
    for argument in arguments {
        match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => result.extend([name.to_owned(), value.to_owned()]),
            _ => result.push(argument.clone()),
        }
    }
    result
}

/// Writes to standard output. A reader that left is no failure.
fn say(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes());
    if !text.ends_with('\n') {
        let _ = output.write_all(b"\n");
    }
}

/// Says on standard error what went wrong; returns the exit status.
fn fail(error: &Error) -> u8 {
    let text = format!("ERROR: {error}").replace('\n', "\n       ");
    let _ = writeln!(std::io::stderr(), "{text}");
    error.code.number()
}

/// Says what a command has found out, or what went wrong; returns the exit status.
fn report(result: Result<String>) -> u8 {
    match result {
        Ok(text) => {
            say(&text);
            0
        }
        Err(error) => fail(&error),
    }
}

/// What is in a directory, as far as it can be read.
fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// What `error` says of `path`.
fn failed(code: Code, text: &str, path: &Path, error: &io::Error) -> Error {
    Error::io(code, format_args!("{text} '{}'", path.display()), error)
}

/// Lets `log` speak on standard error, for the commands that have no log of their own.
fn log_to_stderr() {
    // Only a second logger could fail, and that would do as well.
    let _ = simple_logger::SimpleLogger::new().with_level(log::LevelFilter::Warn).init();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn values_may_be_joined_to_their_option() {
        assert_eq!(split_values(&strings(&["ping", "--port=1", "a=b", "--x"])), ["ping", "--port", "1", "a=b", "--x"]);
    }

    #[test]
    fn every_command_has_a_help_text() {
        for word in ["help", "server"].iter().chain(&COMMANDS) {
            let output = help(word);
            assert!(output.contains("Usage: repohostd"), "{word}: {output}");
        }
        let all = help("help");
        let listed = all.split("Commands:").nth(1).expect("a list of the commands");
        let listed: Vec<_> = listed.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
        let mut listed: Vec<_> = listed.into_iter().filter(|word| !word.is_empty()).collect();
        let mut known = COMMANDS.to_vec();
        listed.sort_unstable();
        known.sort_unstable();
        assert_eq!(listed, known, "a command is not tested");
    }

    #[test]
    fn every_command_and_option_is_in_the_manual() {
        let manual = include_str!("../../packaging/repohostd.1");
        let synopsis = manual.split(".Sh ").find(|text| text.starts_with("SYNOPSIS\n")).expect("a synopsis");
        for word in COMMANDS {
            let in_synopsis = synopsis.lines().any(|line| line.ends_with(&format!("Cm {word}")));
            assert!(in_synopsis, "{word} is not in the synopsis of repohostd(1)");
            assert!(manual.contains(&format!("\n.It Cm {word}\n")), "{word} is not in repohostd(1)");
            for option in options(word) {
                assert!(manual.contains(&format!("Fl -{option}")), "--{option} of {word} is not in repohostd(1)");
            }
        }
    }

    #[test]
    fn shells_complete_every_command_and_option() {
        let completions = [
            ("bash", include_str!("../../packaging/completions/repohostd.bash")),
            ("zsh", include_str!("../../packaging/completions/_repohostd")),
            ("fish", include_str!("../../packaging/completions/repohostd.fish")),
        ];
        for (shell, text) in completions {
            let words: Vec<_> = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-').collect();
            for command in COMMANDS {
                assert!(words.contains(&command), "{shell} does not complete {command}");
                // the unit alone calls with that one
                for option in options(command).iter().filter(|option| *option != "systemd") {
                    let known = if shell == "fish" { option.clone() } else { format!("--{option}") };
                    assert!(words.contains(&known.as_str()), "{shell} does not complete --{option} of {command}");
                }
            }
        }
    }

    fn help(word: &str) -> String {
        let arguments = help_for(word);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let Err(exit) = Arguments::from_args(&[PROGRAM], &arguments) else { panic!("no help for {word}") };
        assert!(exit.status.is_ok(), "{word}: {}", exit.output);
        exit.output
    }

    /// The options that the help of a command names.
    fn options(word: &str) -> Vec<String> {
        let output = help(word);
        let words = output.split_whitespace().filter_map(|word| word.strip_prefix("--"));
        words.filter_map(|option| option.split(['=', ',', '.']).next()).map(str::to_owned).collect()
    }

    #[test]
    fn an_argument_that_does_not_exist_is_an_error_with_its_own_status() {
        assert_eq!(run(&strings(&["ping", "--no-such-option"])), Code::OptionInvalid.number());
        assert_eq!(run(&strings(&["--no-such-option"])), Code::OptionInvalid.number());
        assert_eq!(run(&strings(&["bakcup"])), Code::CommandInvalid.number());
    }
}
