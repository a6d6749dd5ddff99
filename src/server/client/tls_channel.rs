//! TLS of one connection: records of the socket on one side, plaintext on the other.
//!
//! Nobody else touches rustls's connection. What it is fed waits here until it is consumed, and what it encrypted until
//! the socket takes it. It knows no session and no deadline.

use std::io::{self, BufRead, Write};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::CertificateDer;

use super::client_hello::Hellos;
use super::corked_write::LastWords;
use crate::protocol::error::Result;
use crate::server::tls::{Identity, identity};

/// Plaintext and records that rustls holds for a client that does not read; what is sent at once. A quarter of it
/// costs a twelfth more processor time for a large file, mostly because the client is woken more often.
const TLS_BUFFER: usize = 256 * 1024;
/// `read_tls` takes 4 KiB at a time; this many make up a record.
const READS_PER_RECORD: usize = 4;

pub(super) struct TlsChannel {
    tls: ServerConnection,
    hellos: Hellos,
    /// Our last word, `close_notify` or an alert, is said.
    finished: bool,
}

/// What the client has said that was not consumed.
pub(super) enum Plaintext<'a> {
    /// These bytes, perhaps not all.
    Bytes(&'a [u8]),
    /// Nothing yet.
    Nothing,
    /// Nothing ever again.
    Ended(Departure),
}

/// How a client ended its connection.
///
/// pgBackRest that refuses a greeting closes its socket, having read all that was sent, and says no
/// `close_notify`, in every release. Monitors that look whether there is TLS behave otherwise: `openssl s_client`,
/// curl and Prometheus' blackbox exporter say `close_notify`, `HAProxy` resets the connection
/// (tests/README.md, "What was tried").
pub(super) enum Departure {
    /// With `close_notify`.
    Announced,
    /// Without a word, having read everything.
    Silent,
    /// The connection broke, or was reset because of what the client had not read: the reason.
    Broken(String),
}

impl Departure {
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Announced => "the client closed the connection",
            Self::Silent => "the client vanished: end of the connection without close_notify",
            Self::Broken(reason) => reason,
        }
    }
}

impl TlsChannel {
    pub(super) fn new(config: &Arc<ServerConfig>) -> std::result::Result<Self, rustls::Error> {
        let mut tls = ServerConnection::new(Arc::clone(config))?;
        tls.set_buffer_limit(Some(TLS_BUFFER));
        Ok(Self { tls, hellos: Hellos::default(), finished: false })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// The first bytes that came, as far as they are kept.
    pub(super) fn first_bytes(&self) -> &[u8] {
        self.hellos.first_bytes()
    }

    /// Who the client is, as [`identity`] says.
    pub(super) fn identity(&self) -> Result<Option<Identity>> {
        identity(&self.tls)
    }

    /// The certificates that the client presented, its own first.
    pub(super) fn certificates(&self) -> &[CertificateDer<'static>] {
        self.tls.peer_certificates().unwrap_or_default()
    }

    /// The name of the server that the client asked for.
    pub(super) fn server_name(&self) -> Option<&str> {
        self.tls.server_name()
    }

    /// Looks at what came from the socket. Returns what is to be fed in its place while the client says hello.
    pub(super) fn inspect(&mut self, input: &[u8]) -> Option<Vec<u8>> {
        self.hellos.take(input)
    }

    /// Takes about one record off `input`, so that plaintext can be consumed before the next one. After an error there
    /// is an alert to send.
    pub(super) fn feed(&mut self, input: &mut &[u8]) -> std::result::Result<(), rustls::Error> {
        for _ in 0..READS_PER_RECORD {
            // An error says that a record has to be taken out first; zero, that the client has
            // announced the end and what follows means nothing.
            match self.tls.read_tls(input) {
                Ok(0) if !input.is_empty() => *input = &[],
                Ok(_) if !input.is_empty() => {}
                _ => break,
            }
        }
        self.tls.process_new_packets().map(drop)
    }

    /// The socket has ended, which tells a clean end from a torn one.
    pub(super) fn end_input(&mut self) {
        let _ = self.tls.read_tls(&mut io::empty());
    }

    /// What can be consumed.
    pub(super) fn plaintext(&mut self) -> Plaintext<'_> {
        match self.tls.reader().into_first_chunk() {
            Ok([]) => Plaintext::Ended(Departure::Announced),
            Ok(chunk) => Plaintext::Bytes(chunk),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Plaintext::Ended(Departure::Silent),
            Err(_) => Plaintext::Nothing,
        }
    }

    /// Gives up so many bytes of the [plaintext](Self::plaintext).
    pub(super) fn consume(&mut self, count: usize) {
        self.tls.reader().consume(count);
    }

    /// Encrypts as much of `output` as there is room for. Returns how much that is.
    pub(super) fn encrypt(&mut self, output: &[u8]) -> usize {
        self.tls.writer().write(output).unwrap_or(0)
    }

    /// Says `close_notify`, if no last word is said yet.
    pub(super) fn finish(&mut self) {
        if !std::mem::replace(&mut self.finished, true) {
            self.tls.send_close_notify();
        }
    }

    /// The alert of the error that [`Self::feed`] has returned is our last word.
    pub(super) const fn finish_with_alert(&mut self) {
        self.finished = true;
    }

    /// Whether our last word is said, though the socket may not have taken it yet.
    pub(super) const fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether there is something for the socket.
    pub(super) fn wants_flush(&self) -> bool {
        self.tls.wants_write()
    }

    /// Has the socket take what it can at once. Returns how many bytes that were.
    pub(super) fn flush(&mut self, mut socket: &TcpStream) -> io::Result<usize> {
        // The last words travel with the end that follows them, which spares both sides a segment.
        if self.finished { self.tls.write_tls(&mut LastWords(socket)) } else { self.tls.write_tls(&mut socket) }
    }
}
