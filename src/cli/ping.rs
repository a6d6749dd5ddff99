//! `repohostd ping`: does a server answer? As `pgbackrest server-ping`, but whatever release the
//! server announces. Sources: specification of the server, section 1.2; of the protocol, section 1.2.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use argh::FromArgs;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::protocol::error::{Code, Error, Result};

/// `io-timeout` of the original.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer greetings are none.
const GREETING_MAXIMUM: u64 = 1024;
/// The request `noop` of releases from 2.54 on. Earlier servers answer without reading it.
const NOOP: [u8; 12] = [0x84, 0xa8, 0xe0, 0xbd, 0x8f, 0x04, 0xa8, 0x80, 0xca, 0x03, 0x94, 0x00];
/// What those servers answer, and what earlier ones do.
const ANSWERS: [&[u8]; 2] = [&[0x94, 0x80, 0x00], &[0x84, 0x00]];

/// ask a server of any release whether it is alive, without certificate; 0 if it is.
#[derive(FromArgs)]
#[argh(subcommand, name = "ping")]
pub struct Ping {
    /// name or address of the host (default: localhost)
    #[argh(positional, default = "\"localhost\".to_owned()")]
    host: String,
    /// the port (default: 8432)
    #[argh(option, default = "8432")]
    port: u16,
}

/// Asks; returns the exit status.
#[must_use]
pub fn run(options: &Ping) -> u8 {
    super::log_to_stderr();
    let Ping { host, port } = options;
    let version = ping(host, *port, PATIENCE);
    super::report(version.map(|version| format!("'{host}:{port}' is alive and serves pgBackRest {version}")))
}

/// Asks the server at `host` and returns the release that it announces.
fn ping(host: &str, port: u16, patience: Duration) -> Result<String> {
    let socket = connect(host, port, patience)?;
    let failed = |error: &io::Error| Error::new(Code::Service, format!("unable to talk to '{host}:{port}': {error}"));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Code::Crypto, error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).or_else(|_| ServerName::try_from("localhost"));
    let name = name.map_err(|error| Error::new(Code::HostConnect, error.to_string()))?;
    let tls =
        ClientConnection::new(Arc::new(config), name).map_err(|error| Error::new(Code::Crypto, error.to_string()))?;

    let mut stream = BufReader::new(StreamOwned::new(tls, socket));
    let mut line = String::new();
    stream.by_ref().take(GREETING_MAXIMUM).read_line(&mut line).map_err(|error| failed(&error))?;
    let version = version(&line).ok_or_else(|| {
        Error::protocol(format!("'{host}:{port}' is no pgBackRest server: it says '{}'", line.trim()))
    })?;
    stream.get_mut().write_all(&NOOP).map_err(|error| failed(&error))?;
    let mut answer = Vec::new();
    let longest = ANSWERS.map(<[u8]>::len)[0];
    let mut byte = [0];
    while !ANSWERS.contains(&answer.as_slice()) {
        if answer.len() >= longest {
            return Err(Error::protocol(format!("'{host}:{port}' answers with something else than yes")));
        }
        stream.read_exact(&mut byte).map_err(|error| failed(&error))?;
        answer.push(byte[0]);
    }
    Ok(version)
}

fn connect(host: &str, port: u16, patience: Duration) -> Result<TcpStream> {
    let failed =
        |error: &io::Error| Error::io(Code::HostConnect, format_args!("unable to connect to '{host}:{port}'"), error);
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in (host, port).to_socket_addrs().map_err(|error| failed(&error))? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(socket) => {
                let set = socket.set_read_timeout(Some(patience)).and(socket.set_write_timeout(Some(patience)));
                set.map_err(|error| failed(&error))?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(failed(&last))
}

/// The release in a greeting.
fn version(line: &str) -> Option<String> {
    let greeting: serde_json::Value = serde_json::from_str(line).ok()?;
    (greeting.get("name")? == "pgBackRest").then_some(())?;
    Some(greeting.get("version")?.as_str()?.to_owned())
}

/// Trusts everybody: a ping tells nothing and is told nothing.
#[derive(Debug)]
pub struct Anybody(pub Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_from_any_greeting() {
        let line = "{\"name\":\"pgBackRest\",\"service\":\"remote\",\"version\":\"2.45\"}\n";
        assert_eq!(version(line).as_deref(), Some("2.45"));
        for line in ["", "HTTP/1.1 400 Bad Request\r\n", "{\"name\":\"other\",\"version\":\"1\"}"] {
            assert_eq!(version(line), None, "{line:?}");
        }
    }

    #[test]
    fn nobody_listening_is_reported_as_the_original_numbers_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = ping("127.0.0.1", port, Duration::from_secs(1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("[049]: unable to connect to '127.0.0.1:{port}': [111] Connection refused")
        );
    }
}
