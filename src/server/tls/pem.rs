//! What OpenSSL takes for PEM beyond what rustls-pemfile reads, since the original's files are read with it.
//!
//! A byte order mark, as editors on Windows leave it; blanks at the end of a line; the label `X509 CERTIFICATE`
//! of old; and the label `TRUSTED CERTIFICATE`, under which what the certificate is trusted for follows it
//! (`openssl x509 -trustout`, described in openssl-verification-options(1)).

use rustls_pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, Class, Oid, Tag, oid};
use x509_parser::prelude::FromDer;

use super::certificate::element;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Labels that mean a certificate, and the one that is known for it.
const LABELS: [&[u8]; 2] = [b"TRUSTED CERTIFICATE-----", b"X509 CERTIFICATE-----"];
const LABEL: &[u8] = b"CERTIFICATE-----";

const CLIENT_AUTH: Oid<'_> = oid!(1.3.6.1.5.5.7.3.2);
const ANY_PURPOSE: Oid<'_> = oid!(2.5.29.37.0);

/// The text as rustls-pemfile reads it.
pub(super) fn plain(text: &[u8]) -> Vec<u8> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut plain = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let (line, end) = line.split_at(line.trim_ascii_end().len());
        let boundary = [&b"-----BEGIN "[..], b"-----END "].into_iter().find(|begin| line.starts_with(begin));
        let label = boundary.and_then(|begin| line.get(begin.len()..)).unwrap_or_default();
        match (boundary, LABELS.iter().find_map(|known| label.strip_prefix(*known))) {
            (Some(begin), Some(rest)) => {
                plain.extend([begin, LABEL, rest].into_iter().flatten());
            }
            _ => plain.extend_from_slice(line),
        }
        if end.ends_with(b"\n") {
            plain.push(b'\n');
        }
    }
    plain
}

/// A certificate without the trust settings that may follow it, and whether these let it stand for TLS
/// clients.
///
/// Settings that cannot be read stay where they are, and nobody takes the whole for a certificate then.
pub(super) fn split(der: CertificateDer<'static>) -> (CertificateDer<'static>, bool) {
    let Ok((settings, _)) = Any::from_der(&der) else { return (der, true) };
    if settings.is_empty() {
        return (der, true);
    }
    let Some(trusted) = trusts_clients(settings) else { return (der, true) };
    let certificate = der.get(..der.len() - settings.len()).unwrap_or_default().to_vec();
    (CertificateDer::from(certificate), trusted)
}

/// What a `CertAux` of OpenSSL says of TLS clients: not if they are rejected, nor if others alone are trusted.
fn trusts_clients(settings: &[u8]) -> Option<bool> {
    let (_, mut rest) = element(settings, Tag::Sequence).filter(|(after, _)| after.is_empty())?;
    let mut trusted = true;
    while !rest.is_empty() {
        let (after, element) = Any::from_der(rest).ok()?;
        rest = after;
        match (element.class(), element.tag()) {
            (Class::Universal, Tag::Sequence) => trusted &= names_clients(element.data)?,
            (Class::ContextSpecific, Tag(0)) => trusted &= !names_clients(element.data)?,
            // An alias, the key's id, and what is not defined yet.
            _ => {}
        }
    }
    Some(trusted)
}

/// Whether client authentication, or everything, is among some purposes.
fn names_clients(mut purposes: &[u8]) -> Option<bool> {
    let mut found = false;
    while !purposes.is_empty() {
        let (after, purpose) = Oid::from_der(purposes).ok()?;
        found |= purpose == CLIENT_AUTH || purpose == ANY_PURPOSE;
        purposes = after;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_old_labels_become_what_is_known() {
        let text = b"\xef\xbb\xbf-----BEGIN TRUSTED CERTIFICATE----- \t\r\nTRUSTED CERTIFICATE-----\n\
                     -----END TRUSTED CERTIFICATE-----\n# x\n-----BEGIN X509 CERTIFICATE-----\n-----BEGIN X509 CRL-----";
        let expected = "-----BEGIN CERTIFICATE-----\nTRUSTED CERTIFICATE-----\n-----END CERTIFICATE-----\n# x\n\
                        -----BEGIN CERTIFICATE-----\n-----BEGIN X509 CRL-----";
        assert_eq!(String::from_utf8(plain(text)).unwrap(), expected);
        for text in [&b""[..], b"\n\n", b"-----BEGIN", b"-----BEGIN CERTIFICATE-----"] {
            assert_eq!(plain(text), text);
        }
    }

    #[test]
    fn trust_settings_that_cannot_be_read_make_no_certificate_of_what_they_follow() {
        for settings in [&b"\x30\x02\x30"[..], b"\x30\x00\x00", b"\x30\x04\x30\x02\x06\x09", b"\x04\x00"] {
            let der = [b"\x30\x00", settings].concat();
            assert_eq!(split(CertificateDer::from(der.clone())), (CertificateDer::from(der), true));
        }
        let (certificate, trusted) = split(CertificateDer::from(b"\x30\x00\x30\x00".to_vec()));
        assert_eq!((certificate.as_ref(), trusted), (&b"\x30\x00"[..], true));
    }
}
