//! A client that is no pgBackRest, at the running server: TLS with a client's certificate.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use repohostd::cli::ping::Anybody;

use super::certificates::Identity;
use crate::wire::{Conversation, Transport};

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A TLS connection to a server on this machine.
struct Tls(StreamOwned<ClientConnection, TcpStream>);

/// Connects to the server at `port` with an identity, as a client of `release`.
pub(crate) fn connect(port: u16, identity: &Identity, release: &str) -> Conversation {
    Caller::new(port, Some(identity), release).connect()
}

/// Connects to one server again and again, as a client of one release.
pub(crate) struct Caller {
    config: Arc<ClientConfig>,
    port: u16,
    release: String,
}

impl Caller {
    /// For the server at `port`; without an identity it is a client that pings.
    pub(crate) fn new(port: u16, identity: Option<&Identity>, release: &str) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("rustls has protocol versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(Arc::clone(&provider))));
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                let mut text = identity.certificate.as_bytes();
                let chain = rustls_pemfile::certs(&mut text)
                    .map(|certificate| certificate.expect("a certificate in PEM"))
                    .collect();
                let key = rustls_pemfile::private_key(&mut identity.key.as_bytes());
                let key = key.expect("PEM").expect("a key in PEM");
                let key = provider.key_provider.load_private_key(key).expect("a key that rustls knows");
                // the user guide's certificates are of version 1, which rustls would not look at otherwise
                let resolver = SingleCertAndKey::from(CertifiedKey::new(chain, key));
                config.with_client_cert_resolver(Arc::new(resolver))
            }
        };
        // no client of pgBackRest resumes a session
        config.resumption = Resumption::disabled();
        Self { config: Arc::new(config), port, release: release.to_owned() }
    }

    /// Connects once more.
    pub(crate) fn connect(&self) -> Conversation {
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::clone(&self.config), name).expect("a connection can be made");
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("the server accepts");
        stream.set_nodelay(true).expect("the option can be set");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        Conversation::begin(Tls(StreamOwned::new(connection, stream)), &self.release)
    }
}

impl Transport for Tls {
    fn send(&mut self, bytes: &[u8]) {
        // whether the server still listens shows when its answer is read
        let _ = self.0.write_all(bytes).and_then(|()| self.0.flush());
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 64 << 10];
        let count = match self.0.read(&mut bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the server does not answer"),
            result => result.unwrap_or(0),
        };
        bytes.truncate(count);
        bytes
    }
}
