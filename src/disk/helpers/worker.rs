//! The helper's side: it does what it is told, one operation after the other, until the server closes
//! the socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::{Errno, pread, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::message::{Answer, Reply, Task, decode, encode_entries, encode_reply};
use super::{KEPT, MESSAGE};
use crate::disk::calls::{read_at, write_at};
use crate::disk::inline::{Inline, Options};
use crate::disk::{Outcome, getent};
use crate::process::{self, link};

/// What it is called.
const NAME: &str = "repohostd-disk";
/// How long a helper that has nothing to do stays.
const IDLE: Duration = Duration::from_secs(60);
/// How long a slice of a listing takes at most.
const SLICE: Duration = Duration::from_secs(1);
/// Bytes that are read at a time for the page cache.
const PIECE: usize = 128 * 1024;

/// What the process is that the server starts with the socket as its standard input. Returns its exit
/// status.
#[must_use]
pub fn run() -> u8 {
    process::call_itself(NAME);
    // A service manager and a terminal signal every process of the server. What the server still wants
    // to finish has to be done, and its end closes the socket.
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        if signal_hook::flag::register(signal, std::sync::Arc::default()).is_err() {
            return 1;
        }
    }
    let standard_input = std::io::stdin();
    if serve(standard_input.as_fd(), Options::default()).is_err() {
        eprintln!("ERROR: this command is what repohostd starts for itself");
        return 1;
    }
    0
}

/// Serves until the other end of `socket` is closed.
pub(in crate::disk) fn serve(socket: BorrowedFd<'_>, options: Options) -> rustix::io::Result<()> {
    let getent_program = options.getent.clone();
    let mut disk = Inline::new(options).with_slices(SLICE);
    let mut buffer = vec![0; MESSAGE];
    let mut data = Vec::new();
    set_socket_timeout(socket, Timeout::Recv, Some(IDLE))?;
    loop {
        let mut descriptors = Vec::new();
        let message = match link::receive(socket, &mut buffer, &mut descriptors) {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
            Err(Errno::AGAIN) => {
                reply(socket, Reply::Leaving, Instant::now(), None)?;
                continue;
            }
            Err(errno) => return Err(errno),
        };
        // What is left of them is closed when the task is done: other processes have to wait for that, even when
        // the server is dead by then.
        let mut descriptors = descriptors.into_iter();
        let begun = Instant::now();
        match decode(message, &mut descriptors).ok_or(Errno::PROTO)? {
            Task::Warm { file, length, offset } => {
                warm(&file, length, offset);
                reply(socket, Reply::Done, begun, None)?;
            }
            Task::Names(unknown) => {
                let found = getent::look_up(&getent_program, &unknown);
                reply(socket, Reply::Names(found), begun, None)?;
            }
            Task::Read { file, memory, length, offset } => {
                data.clear();
                let read = read_at(file.as_fd(), &mut data, length, offset);
                let read = read.and_then(|()| write_at(memory.as_fd(), &data, 0));
                reply(socket, read.map_or_else(failed, |()| Reply::Read(data.len())), begun, None)?;
            }
            Task::Write { file, memory, length, offset } => {
                data.clear();
                let read = read_at(memory.as_fd(), &mut data, length, 0);
                let whole = read.and(if data.len() == length { Ok(()) } else { Err(Errno::IO) });
                let written = whole.and_then(|()| write_at(file.as_fd(), &data, offset));
                // Closing may wait too, and belongs to what it took.
                drop(file);
                reply(socket, written.map_or_else(failed, |()| Reply::Done), begun, None)?;
            }
            Task::List(operation, memory) => {
                let completion = disk.run(operation);
                match &completion {
                    Ok(Outcome::Entries(entries, rest)) => {
                        let bytes = encode_entries(entries, rest.as_ref()).ok_or(Errno::PROTO)?;
                        let kept = write_at(memory.as_fd(), &bytes, 0);
                        let directory = rest.as_ref().filter(|_| kept.is_ok()).map(|rest| rest.parts().2);
                        reply(socket, kept.map_or_else(failed, |()| Reply::Entries(bytes.len())), begun, directory)?;
                    }
                    completion => {
                        let (answer, descriptor) = encode_reply(completion);
                        reply(socket, answer, begun, descriptor)?;
                    }
                }
            }
            Task::Operation(operation) => {
                let completion = disk.run(operation);
                let (answer, descriptor) = encode_reply(&completion);
                reply(socket, answer, begun, descriptor)?;
            }
        }
        // Nobody wants to know here what has no name.
        disk.names().take_unknown();
        if data.capacity() > KEPT {
            data = Vec::new();
        }
    }
}

fn failed(errno: Errno) -> Reply {
    Reply::Failed(errno.into())
}

fn reply(
    socket: BorrowedFd<'_>,
    reply: Reply,
    begun: Instant,
    descriptor: Option<BorrowedFd<'_>>,
) -> rustix::io::Result<()> {
    let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    let message = postcard::to_allocvec(&Answer { reply, took }).map_err(|_| Errno::PROTO)?;
    match link::send(socket, &message, descriptor.as_slice()) {
        // The server has gone meanwhile; the next message tells.
        Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
        result => result,
    }
}

/// Reads a part of a file and forgets it. Whoever reads it next finds out about errors.
fn warm(file: &OwnedFd, length: u64, offset: u64) {
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    while done < length {
        let wanted = usize::try_from(length - done).unwrap_or(PIECE).min(PIECE);
        match retry_on_intr(|| pread(file, &mut piece[..wanted], offset.saturating_add(done))) {
            Ok(0) | Err(_) => return,
            Ok(count) => done += count as u64,
        }
    }
}
