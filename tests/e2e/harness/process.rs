//! Programs that end with the test, and what they did.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::{read, wait_for};

/// A running program. It ends with this value: politely first, then by force.
pub(crate) struct Process {
    pub(super) child: Child,
    pub(super) text: String,
    pub(super) stdout: PathBuf,
    pub(super) stderr: PathBuf,
    pub(super) ending: Signal,
}

impl Process {
    /// Sends a signal, which nobody gets when the process has ended meanwhile.
    pub(crate) fn signal(&self, signal: Signal) {
        match kill_process(Pid::from_child(&self.child), signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => panic!("{} cannot be signalled: {error}", self.text),
        }
    }

    /// The process's id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let text = self.text.clone();
        wait_for(&format!("the end of {text}"), limit, || self.ended())
    }

    /// Waits for its end and takes what it printed.
    pub(crate) fn output(mut self, limit: Duration) -> Output {
        let status = self.wait(limit);
        Output {
            command: self.text.clone(),
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
            stdout: read(&self.stdout),
            stderr: read(&self.stderr),
        }
    }

    /// What it printed so far.
    pub(crate) fn printed(&self) -> String {
        read(&self.stdout) + &read(&self.stderr)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        let pid = Pid::from_child(&self.child);
        let _ = kill_process(pid, self.ending);
        // a stopped process takes the signal only when it goes on
        let _ = kill_process(pid, Signal::CONT);
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) command: String,
    /// The exit code, or 128 and the signal's number.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// All that it printed.
    pub(crate) fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Insists on success.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert!(self.code == 0, "exit code {} of {}:\n{}", self.code, self.command, self.text());
        self.stdout
    }

    /// Insists on an exit code and returns what was printed.
    #[track_caller]
    pub(crate) fn fails_with(self, code: i32) -> String {
        assert!(self.code == code, "exit code {}, not {code}, of {}:\n{}", self.code, self.command, self.text());
        self.text()
    }
}

/// Runs a program to its end without leaving logs, for what is asked often.
pub(crate) fn run_quietly(mut command: Command) -> Output {
    let text = format!("{command:?}");
    let output = command.output().unwrap_or_else(|error| panic!("{text} does not start: {error}"));
    Output {
        command: text,
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
