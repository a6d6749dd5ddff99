//! TLS of the server: from files and options to a rustls configuration, and from a finished or
//! failed handshake to names and words.
//!
//! It owns which certificates are trusted, which ciphers are spoken and who a client is. It does
//! not own sockets, the connection's life, or what an identity may do. The errors, their order and
//! their texts up to the colon come from the specification of the server (`server.md`, sections
//! 2.3, 2.4 and 3.1).
//!
//! Certificates as pgBackRest's user guide makes them are X.509 version 1, which webpki refuses to
//! read as end entities. `verifier` accepts them as clients; the server's own certificate is
//! handed to rustls without webpki's consistency check.

mod authorities;
mod certificate;
mod ciphers;
mod describe;
mod files;
mod identity;
mod pem;
mod revocation;
mod server_name;
mod verified;
mod verifier;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::config::snapshot::Origin;
use crate::protocol::error::{Code, Error, Result};
use crate::server::since_epoch;

pub(crate) use describe::Reasons;
pub(crate) use identity::{Identity, identity};
pub(in crate::server) use server_name::hide;

use authorities::Authorities;
use revocation::RevocationLists;
use verifier::ClientVerifier;

/// The files and options that decide the server's TLS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TlsFiles<'a> {
    /// `tls-server-cert-file`: the server's certificate first, then its intermediates.
    pub(crate) cert: &'a Path,
    /// `tls-server-key-file`: the private key of the first certificate.
    pub(crate) key: &'a Path,
    /// `tls-server-ca-file`: the authorities that may sign client certificates.
    pub(crate) ca: &'a Path,
    /// `crl-file` of repohostd.conf: certificates that are refused although an authority signed them.
    pub(crate) crl: Option<&'a Path>,
    /// `tls-cipher-12`: an OpenSSL cipher list.
    pub(crate) cipher_12: Option<&'a str>,
    /// `tls-cipher-13`: OpenSSL cipher suites.
    pub(crate) cipher_13: Option<&'a str>,
    /// The user who will serve, where that is not the one of this process.
    pub(crate) user: Option<u32>,
    /// Where the files are read from.
    pub(crate) origin: &'a Origin,
}

/// What all connections share.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    /// For their handshakes.
    pub(crate) config: Arc<rustls::ServerConfig>,
    /// Why they fail.
    pub(crate) reasons: Reasons,
    clients: Arc<ClientVerifier>,
}

impl Tls {
    /// Whether a client that presented `chain` at the time `when` is one of those that are let in now.
    pub(crate) fn trusts(&self, chain: &[CertificateDer<'_>], when: UnixTime) -> bool {
        chain.split_first().is_none_or(|(leaf, rest)| self.clients.verify(leaf, rest, when).is_ok())
    }
}

/// Reads and checks everything that TLS needs and prepares what all connections share.
///
/// The warnings are complete sentences for the log: unknown cipher names, certificates that have
/// expired or cannot be used, revocation lists that are overdue.
///
/// # Errors
/// Code 95 for files and ciphers that cannot be used, code 42 for a key file that others may read,
/// in the original's order: ciphers, certificate, owner and mode of the key, key, authorities.
pub(crate) fn server_config(files: &TlsFiles<'_>) -> Result<(Tls, Vec<String>)> {
    let now = verifier::seconds(UnixTime::since_unix_epoch(since_epoch()));
    let mut warnings = Vec::new();
    let provider = Arc::new(provider(files, &mut warnings)?);

    let chain = files::certificate_chain(files.origin, files.cert)?;
    files::check_key_file(files.origin, files.key, files.user)?;
    let key = files::private_key(files.origin, files.key, &provider)?;
    let leaf = chain.first().and_then(certificate::Certificate::parse).ok_or_else(|| {
        files::unusable("cert", files.cert, "the first certificate is malformed; make it anew with 'openssl x509'")
    })?;
    files::check_pair(&leaf, files.cert, files.key, key.as_ref())?;
    warn_of_validity(&leaf, files.cert, now, &mut warnings);
    if let Some(lack) = leaf.extensions.lacks(certificate::Side::Server) {
        let (subject, path) = (leaf.subject_text(), files.cert.display());
        warnings.push(format!(
            "certificate '{subject}' of cert file '{path}' is not made for TLS servers, since its {lack}: clients that \
             verify it will refuse it"
        ));
    }

    let authorities = Authorities::load(files.origin, files.ca, now, &mut warnings)?;
    let algorithms = provider.signature_verification_algorithms;
    let revoked = match files.crl {
        Some(path) => RevocationLists::load(files.origin, path, &authorities, algorithms.all, now, &mut warnings)?,
        None => RevocationLists::default(),
    };

    let reasons = Reasons::default();
    let clients = Arc::new(ClientVerifier::new(authorities, revoked, algorithms, reasons.clone()));
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| Error::new(Code::Crypto, format!("unable to create TLS context: {error}")))?
        .with_client_cert_verifier(Arc::clone(&clients) as Arc<dyn ClientCertVerifier>)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key))));
    // As the original: the server's order of ciphers wins, and no session is ever resumed, so that
    // a reload or a revocation holds for every connection that comes after it.
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok((Tls { config: Arc::new(config), reasons, clients }, warnings))
}

/// The cryptography: suites as configured, and key exchange groups in the order that costs real clients least.
fn provider(files: &TlsFiles<'_>, warnings: &mut Vec<String>) -> Result<CryptoProvider> {
    let default = aws_lc_rs::default_provider();
    Ok(CryptoProvider {
        cipher_suites: ciphers::select(server_name::suites(), files.cipher_12, files.cipher_13, warnings)?,
        // OpenSSL sends its first key share for X25519, since 3.5 one more for X25519MLKEM768. With
        // these two in front no client pays a HelloRetryRequest; the hybrid comes first because
        // what is recorded today should stay secret. The original's own group is P-256.
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
            aws_lc_rs::kx_group::SECP384R1,
        ],
        ..default
    })
}

/// Warns of a server certificate that clients refuse, or soon will.
fn warn_of_validity(leaf: &certificate::Certificate, path: &Path, now: i64, warnings: &mut Vec<String>) {
    const SOON: i64 = 14 * 86400;
    let path = path.display();
    let subject = leaf.subject_text();
    if let Some(lapse) = leaf.lapse(now) {
        let doubt = if now > leaf.validity.until { "" } else { "; is this host's clock right?" };
        warnings.push(format!(
            "certificate '{subject}' of cert file '{path}' {lapse}: clients that verify it will refuse it{doubt}"
        ));
    } else if leaf.validity.until - now < SOON {
        let on = describe::time_text(leaf.validity.until);
        warnings.push(format!("certificate '{subject}' of cert file '{path}' expires on {on}: renew it"));
    }
}
