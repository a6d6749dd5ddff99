//! Certificates and handshakes for tests: the user guide's commands, and a client in memory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use rustls::crypto::aws_lc_rs;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, ServerConnection, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::cli::ping::Anybody;
use crate::config::snapshot::Origin;

use super::{Tls, TlsFiles, server_config};

pub(crate) const BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// A directory of certificates that vanishes with its test.
pub(crate) struct Pki {
    directory: tempfile::TempDir,
}

impl Pki {
    /// An empty directory.
    pub(crate) fn empty() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// What pgBackRest's user guide makes: an authority `ca`, and `server` and `client` of X.509 version 1.
    pub(crate) fn of_user_guide() -> Self {
        // Made once for all tests of a process: RSA keys take their time.
        static MADE: OnceLock<Vec<(&str, String)>> = OnceLock::new();
        let made = MADE.get_or_init(|| {
            let pki = Self::empty();
            pki.authority("ca", "/C=US/ST=All/L=All/O=pgBackRest/CN=pgbackrest.org");
            pki.version_1("server", "/CN=localhost", "ca");
            pki.version_1("client", "/CN=pgbackrest-client", "ca");
            let names = ["ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key"];
            names.map(|name| (name, pki.read(name))).into()
        });
        let pki = Self::empty();
        for (name, text) in made {
            pki.write(name, text);
        }
        pki
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Runs openssl in the directory; the arguments are split at spaces.
    pub(crate) fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.directory.path())
            .output()
            .expect("the tests need the openssl command");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The user guide's authority: an EC key and `openssl req -x509`.
    pub(crate) fn authority(&self, name: &str, subject: &str) {
        self.openssl(&format!("ecparam -genkey -name prime256v1 -noout -out {name}.key"));
        self.openssl(&format!(
            "req -new -x509 -extensions v3_ca -key {name}.key -out {name}.crt -days 99999 -subj {subject}"
        ));
    }

    /// The user guide's server or client: RSA with 2048 bits, signed without an extension file.
    pub(super) fn version_1(&self, name: &str, subject: &str, issuer: &str) {
        self.openssl(&format!("genrsa -out {name}.key 2048"));
        self.sign_version_1(name, subject, issuer);
    }

    /// The same with an EC key.
    pub(super) fn version_1_ec(&self, name: &str, subject: &str, issuer: &str) {
        self.openssl(&format!("ecparam -genkey -name prime256v1 -out {name}.key"));
        self.sign_version_1(name, subject, issuer);
    }

    /// Signs an existing key.
    pub(super) fn sign_version_1(&self, name: &str, subject: &str, issuer: &str) {
        fs::set_permissions(self.path(&format!("{name}.key")), fs::Permissions::from_mode(0o600)).unwrap();
        self.openssl(&format!("req -new -sha256 -nodes -out {name}.csr -key {name}.key -subj {subject}"));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {issuer}.crt -CAkey {issuer}.key -CAcreateserial -out {name}.crt -days 9"
        ));
    }

    /// A certificate of version 3 with the given extensions, in the words of an OpenSSL extension file.
    pub(super) fn version_3(&self, name: &str, subject: &str, issuer: &str, extensions: &str) {
        self.openssl(&format!("ecparam -genkey -name prime256v1 -noout -out {name}.key"));
        fs::set_permissions(self.path(&format!("{name}.key")), fs::Permissions::from_mode(0o600)).unwrap();
        self.openssl(&format!("req -new -sha256 -nodes -out {name}.csr -key {name}.key -subj {subject}"));
        self.write("extensions.cnf", extensions);
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {issuer}.crt -CAkey {issuer}.key -CAcreateserial -out {name}.crt -days 9 \
             -extfile extensions.cnf"
        ));
    }

    pub(crate) fn certificates(&self, name: &str) -> Vec<CertificateDer<'static>> {
        rustls_pemfile::certs(&mut self.read(&format!("{name}.crt")).as_bytes()).map(Result::unwrap).collect()
    }

    pub(crate) fn key(&self, name: &str) -> PrivateKeyDer<'static> {
        rustls_pemfile::private_key(&mut self.read(&format!("{name}.key")).as_bytes()).unwrap().unwrap()
    }

    /// The server's configuration from `server.*` and `ca.crt`, which must come without a warning.
    pub(crate) fn server(&self) -> Tls {
        let (tls, warnings) = self.tls(None).unwrap();
        let expected = |warning: &&String| !warning.contains("expires on");
        assert_eq!(warnings.iter().filter(expected).count(), 0, "{warnings:?}");
        tls
    }

    /// The same with whatever comes of it.
    pub(crate) fn tls(&self, crl: Option<&str>) -> crate::protocol::error::Result<(Tls, Vec<String>)> {
        server_config(&TlsFiles {
            cert: &self.path("server.crt"),
            key: &self.path("server.key"),
            ca: &self.path("ca.crt"),
            crl: crl.map(|name| self.path(name)).as_deref(),
            cipher_12: None,
            cipher_13: None,
            user: None,
            origin: &Origin::Disk,
        })
    }

    /// A client that presents `name`'s certificates with `name`'s key.
    pub(crate) fn client(&self, name: &str) -> Presented {
        (self.certificates(name), self.key(name))
    }
}

/// What a client presents.
pub(super) type Presented = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A client that takes any server for granted, since the server is under test.
pub(crate) fn client_config(version: &'static SupportedProtocolVersion, presented: Option<Presented>) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(Arc::clone(&provider))));
    match presented {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let key = provider.key_provider.load_private_key(key).unwrap();
            let resolver = SingleCertAndKey::from(CertifiedKey::new(chain, key));
            builder.with_client_cert_resolver(Arc::new(resolver))
        }
    }
}

/// Shakes hands in memory: the server's side of the connection, or its description of the failure.
pub(crate) fn handshake(tls: &Tls, client: ClientConfig) -> Result<ServerConnection, String> {
    let mut server = ServerConnection::new(Arc::clone(&tls.config)).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from("localhost").unwrap()).unwrap();
    let mut failure = None;
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() && failure.is_none() {
            server.read_tls(&mut rest).unwrap();
            failure = server.process_new_packets().err();
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            if client.process_new_packets().is_err() {
                break;
            }
        }
    }
    if let Some(error) = failure {
        return Err(tls.reasons.of(&error, &[]));
    }
    assert!(!server.is_handshaking(), "the handshake neither failed nor ended");
    Ok(server)
}

/// Shakes hands in both TLS versions, which have to agree; without a session, the reason.
pub(crate) fn outcome(server: &Tls, presented: impl Fn() -> Presented) -> Result<(), String> {
    let [first, second] = BOTH.map(|version| handshake(server, client_config(version, Some(presented()))).map(|_| ()));
    assert_eq!(first, second, "TLS 1.2 and TLS 1.3 differ");
    first
}
