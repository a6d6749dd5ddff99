//! Who a client is: the names in its certificate.
//!
//! The original knows the first common name alone; the alternative names are an addition. Source of
//! the errors: the server's specification, section 3.1.

use rustls::ServerConnection;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::certificate::Certificate;
use crate::protocol::error::{Code, Error, Result};

/// The certificate of an authenticated client, as authorization and log need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The first common name of the subject.
    pub common_name: Option<String>,
    /// All names that may be authorized: the common name, then the DNS alternative names. Never empty.
    pub names: Vec<String>,
    /// SHA-256 of the certificate, in lower-case hexadecimal.
    pub fingerprint_sha256: String,
    /// The subject for people, safe to log.
    pub subject: String,
    /// The issuer for people, safe to log.
    pub issuer: String,
    /// The serial number in upper-case hexadecimal, as OpenSSL prints it.
    pub serial: String,
    /// When the certificate expires, in seconds since the epoch.
    pub not_after: i64,
}

/// The identity of the client whose handshake is complete; `None` when it presented no certificate.
///
/// # Errors
/// Code 29 when the certificate names nobody, code 95 when a name contains a null byte. The session
/// ends before its greeting.
pub fn identity(connection: &ServerConnection) -> Result<Option<Identity>> {
    let leaf = connection.peer_certificates().and_then(|chain| chain.first());
    leaf.map(of_certificate).transpose()
}

fn of_certificate(der: &CertificateDer<'_>) -> Result<Identity> {
    let malformed = || Error::new(Code::Crypto, "TLS certificate is malformed");
    let (_, parsed) = X509Certificate::from_der(der.as_ref()).map_err(|_| malformed())?;
    let certificate = Certificate::parse(der).ok_or_else(malformed)?;

    let common_name = match parsed.subject().iter_common_name().next() {
        Some(name) => Some(checked_name(name.attr_value().data)?),
        None => None,
    };
    let mut names: Vec<String> = common_name.iter().cloned().collect();
    for extension in parsed.extensions() {
        let ParsedExtension::SubjectAlternativeName(alternatives) = extension.parsed_extension() else { continue };
        for alternative in &alternatives.general_names {
            if let GeneralName::DNSName(name) = alternative {
                let name = checked_name(name.as_bytes())?;
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
    }
    if names.is_empty() {
        let what = if certificate.subject.is_empty() { "subject name is missing" } else { "common name is missing" };
        return Err(Error::format(what));
    }
    Ok(Identity {
        common_name,
        names,
        fingerprint_sha256: fingerprint(der),
        subject: certificate.subject_text(),
        issuer: certificate.issuer_text(),
        serial: certificate.serial_text(),
        not_after: certificate.not_after,
    })
}

/// A name as it is compared: its bytes, without conversion or case folding.
fn checked_name(bytes: &[u8]) -> Result<String> {
    if bytes.contains(&0) {
        return Err(Error::new(Code::Crypto, "TLS certificate name contains embedded null"));
    }
    if bytes.is_empty() {
        return Err(Error::format("common name is missing"));
    }
    // The original compares raw bytes; what is not UTF-8 cannot be written into a configuration here.
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::format("common name is not valid UTF-8"))
}

fn fingerprint(der: &CertificateDer<'_>) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der.as_ref());
    digest.as_ref().iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
}
