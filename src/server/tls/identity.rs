//! Who a client is: the names in its certificate.
//!
//! The original knows the first common name alone; the alternative names are an addition. Source of
//! the errors: the server's specification, section 3.1.

use rustls::ServerConnection;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::certificate::{name_text, sequence_content};
use crate::protocol::error::{Code, Error, Result};

/// The certificate of an authenticated client, as authorization and log need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// How the log calls the client: the first common name of the subject, or all of the subject where it has none.
    pub(crate) title: String,
    /// All names that may be authorized: the common name, then the DNS alternative names. Never empty.
    pub(crate) names: Vec<String>,
}

/// The identity of the client whose handshake is complete; `None` when it presented no certificate.
///
/// # Errors
/// Code 29 when the certificate names nobody, code 95 when a name contains a null byte. The session
/// ends before its greeting.
pub(crate) fn identity(connection: &ServerConnection) -> Result<Option<Identity>> {
    let leaf = connection.peer_certificates().and_then(|chain| chain.first());
    leaf.map(of_certificate).transpose()
}

fn of_certificate(der: &CertificateDer<'_>) -> Result<Identity> {
    // The verifier has looked at the rest of it.
    let malformed = || Error::new(Code::Crypto, "TLS certificate is malformed");
    let (_, certificate) = X509Certificate::from_der(der.as_ref()).map_err(|_| malformed())?;
    let subject = sequence_content(certificate.subject().as_raw()).ok_or_else(malformed)?;

    let common_name = match certificate.subject().iter_common_name().next() {
        Some(name) => Some(checked_name(name.attr_value().data)?),
        None => None,
    };
    let title = common_name.clone().unwrap_or_else(|| name_text(subject));
    let mut names = Vec::from_iter(common_name);
    for extension in certificate.extensions() {
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
        let what = if subject.is_empty() { "subject name is missing" } else { "common name is missing" };
        return Err(Error::format(what));
    }
    Ok(Identity { title, names })
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
