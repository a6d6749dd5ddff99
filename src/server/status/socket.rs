//! The state of the server for `repohostd status`: a unix socket that answers one word with one JSON
//! document and takes no commands.
//!
//! Only the user that the server runs as and root are answered. Whoever asks is served by the event
//! loop without waiting: few at a time, each for a short time, with an answer of bounded size.

use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::fs::Mode;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{geteuid, umask};
use slab::Slab;

use crate::observe::log;

/// The socket's name in its directory.
pub(crate) const SOCKET: &str = "repohostd.sock";
/// What a client asks.
pub(crate) const REQUEST: &[u8] = b"status\n";
/// Tokens of the poll from here on belong to the socket and its clients.
pub(crate) const TOKENS: usize = usize::MAX / 4 * 3;
const LISTENER: Token = Token(TOKENS);
/// Those who are answered at a time.
pub(crate) const CLIENTS: usize = 4;
/// What each may take, from connecting to the last byte.
const PATIENCE: Duration = Duration::from_secs(5);

/// A socket that is bound, and removed with this value.
#[derive(Debug)]
pub(crate) struct StatusSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Tells the socket from one that somebody else has put in its place.
    inode: u64,
}

impl StatusSocket {
    /// Binds `path`, in place of a socket that nobody listens on any more.
    ///
    /// # Errors
    ///
    /// `AddrInUse` when another server answers there or something else stands there; otherwise what
    /// the system says.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if let Ok(metadata) = fs::symlink_metadata(path) {
            let alive = || StdUnixStream::connect(path).is_ok();
            if !metadata.file_type().is_socket() || alive() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            fs::remove_file(path)?;
        }
        // From the first moment on nobody else may connect. The process has one thread.
        let before = umask(Mode::from_raw_mode(0o177));
        let listener = UnixListener::bind(path);
        umask(before);
        let listener = listener?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned(), inode: fs::symlink_metadata(path)?.ino() })
    }

    /// Whether this is what stands at `path`.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        self.path == path && fs::symlink_metadata(path).is_ok_and(|metadata| metadata.ino() == self.inode)
    }
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        if self.is_at(&self.path) {
            // What stays is replaced by the next server.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The socket and those who ask.
#[derive(Debug, Default)]
pub(crate) struct Status {
    socket: Option<StatusSocket>,
    clients: Slab<Client>,
    /// Whether the poll reported something since the last look.
    noted: bool,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    request: Vec<u8>,
    answer: Option<Vec<u8>>,
    sent: usize,
    deadline: Instant,
}

impl Status {
    /// Answers at `path` from now on, or nowhere.
    pub(crate) fn answer_at(&mut self, path: Option<&Path>, registry: &Registry) -> io::Result<()> {
        if self.socket.as_ref().is_some_and(|socket| path.is_some_and(|path| socket.is_at(path))) {
            return Ok(());
        }
        if let Some(mut old) = self.socket.take() {
            // It is closed in any case.
            let _ = registry.deregister(&mut old.listener);
        }
        let Some(path) = path else { return Ok(()) };
        let mut socket = StatusSocket::open(path)?;
        registry.register(&mut socket.listener, LISTENER, Interest::READABLE)?;
        self.socket = Some(socket);
        Ok(())
    }

    /// The poll reported one of our tokens.
    pub(crate) const fn note(&mut self) {
        self.noted = true;
    }

    /// Whether [`Status::advance`] has nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        !self.noted && self.clients.is_empty()
    }

    /// When somebody who asks has to be done.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.clients.iter().map(|(_, client)| client.deadline).min()
    }

    /// Accepts, reads and answers as far as that does not wait. Whether somebody waits because `compose` has no
    /// answer yet.
    pub(crate) fn advance(
        &mut self,
        now: Instant,
        registry: &Registry,
        mut compose: impl FnMut() -> Option<Vec<u8>>,
    ) -> bool {
        self.noted = false;
        self.accept(now, registry);
        self.clients.retain(|_, client| client.deadline > now && client.advance(&mut compose));
        self.clients.iter().any(|(_, client)| client.wants_answer())
    }

    fn accept(&mut self, now: Instant, registry: &Registry) {
        let Some(socket) = &self.socket else { return };
        // Errors end it too: there is nobody to tell, and the next event tries again.
        while let Ok((mut stream, _)) = socket.listener.accept() {
            let user = socket_peercred(&stream).map(|credentials| credentials.uid);
            if !user.is_ok_and(|user| user.is_root() || user == geteuid()) {
                log::detail(format_args!("somebody else than root and the server's user asked for the status"));
                continue;
            }
            if self.clients.len() >= CLIENTS {
                continue;
            }
            let entry = self.clients.vacant_entry();
            let token = Token(TOKENS + 1 + entry.key());
            if registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE).is_ok() {
                let (request, deadline) = (Vec::with_capacity(REQUEST.len()), now + PATIENCE);
                entry.insert(Client { stream, request, answer: None, sent: 0, deadline });
            }
        }
    }
}

impl Client {
    /// Whether it has asked and was not answered.
    fn wants_answer(&self) -> bool {
        self.answer.is_none() && self.request == REQUEST
    }

    /// Whether there is more to do.
    fn advance(&mut self, compose: &mut impl FnMut() -> Option<Vec<u8>>) -> bool {
        while self.answer.is_none() {
            if self.request == REQUEST {
                let Some(answer) = compose() else { return true };
                self.answer = Some(answer);
                break;
            }
            let mut byte = [0];
            match self.stream.read(&mut byte) {
                Ok(1) => self.request.push(byte[0]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => return false,
            }
            if !REQUEST.starts_with(&self.request) {
                self.answer = Some(b"{\"error\":\"the only request is status\"}\n".to_vec());
            }
        }
        let answer = self.answer.as_deref().unwrap_or_default();
        while self.sent < answer.len() {
            match self.stream.write(&answer[self.sent..]) {
                Ok(count) if count > 0 => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => return false,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"{\"version\":1}\n";

    fn answer(status: &mut Status, registry: &Registry, client: &mut StdUnixStream, composed: &[u8]) -> String {
        let mut text = Vec::new();
        client.set_nonblocking(true).unwrap();
        // However long a busy machine takes to compose it.
        let now = Instant::now();
        for _ in 0..100_000 {
            status.note();
            status.advance(now, registry, || Some(composed.to_vec()));
            let mut part = [0; 4096];
            match client.read(&mut part) {
                Ok(0) => return String::from_utf8(text).unwrap(),
                Ok(count) => text.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A refused client's request was not read.
                Err(_) => return String::from_utf8(text).unwrap(),
            }
        }
        panic!("no end of the answer");
    }

    fn status(path: &Path) -> (mio::Poll, Status) {
        let poll = mio::Poll::new().unwrap();
        let mut status = Status::default();
        status.answer_at(Some(path), poll.registry()).unwrap();
        (poll, status)
    }

    /// A socket, and somebody who has asked there.
    fn asked() -> (tempfile::TempDir, mio::Poll, Status, StdUnixStream) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(SOCKET);
        let (poll, status) = status(&path);
        let mut client = StdUnixStream::connect(&path).unwrap();
        client.write_all(REQUEST).unwrap();
        (directory, poll, status, client)
    }

    #[test]
    fn the_servers_own_user_is_answered_however_long_that_is() {
        let (directory, poll, mut status, mut client) = asked();
        let mode = fs::metadata(directory.path().join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let long = "x".repeat(4 << 20);
        assert_eq!(answer(&mut status, poll.registry(), &mut client, long.as_bytes()), long);
        assert!(status.is_idle());
    }

    #[test]
    fn nothing_but_the_one_word_is_understood() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(SOCKET);
        let (poll, mut status) = status(&path);
        for request in [&b"stop\n"[..], b"\n", b"statusx", &[0xff; 4000]] {
            let mut client = StdUnixStream::connect(&path).unwrap();
            client.write_all(request).unwrap();
            let text = answer(&mut status, poll.registry(), &mut client, ANSWER);
            assert!(text.is_empty() || text.contains("the only request is status"), "{text}");
        }
    }

    #[test]
    fn who_asks_nothing_is_closed_and_only_a_few_are_heard_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(SOCKET);
        let (poll, mut status) = status(&path);
        let silent: Vec<_> = (0..9).map(|_| StdUnixStream::connect(&path).unwrap()).collect();
        let now = Instant::now();
        assert!(!status.advance(now, poll.registry(), || None), "nobody has asked");
        assert_eq!(status.clients.len(), CLIENTS);
        assert_eq!(status.deadline(), Some(now + PATIENCE));
        status.advance(now + PATIENCE, poll.registry(), || None);
        assert!(status.is_idle());
        drop(silent);
    }

    #[test]
    fn who_asks_waits_until_there_is_an_answer() {
        let (_directory, poll, mut status, mut client) = asked();
        for _ in 0..2 {
            status.note();
            assert!(status.advance(Instant::now(), poll.registry(), || None), "it waits");
        }
        assert_eq!(answer(&mut status, poll.registry(), &mut client, ANSWER).as_bytes(), ANSWER);
    }

    #[test]
    fn a_socket_left_behind_is_replaced_but_no_other_server_and_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(SOCKET);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = StatusSocket::open(&path).unwrap();
        assert_eq!(StatusSocket::open(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(first.is_at(&path));
        drop(first);
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        assert!(StatusSocket::open(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
