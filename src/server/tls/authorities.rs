//! The authorities of `tls-server-ca-file`: which of its certificates may sign clients.
//!
//! webpki takes every certificate that it is given as an anchor for one. OpenSSL, which the
//! original relies on, asks more of it, and so does this file: a leaf that somebody put into the
//! file does not become an authority, and an authority's own validity counts.

use std::path::Path;

use rustls::DistinguishedName;
use rustls_pki_types::{CertificateDer, TrustAnchor};

use super::certificate::{Certificate, Side};
use super::files;
use crate::config::snapshot::Origin;
use crate::protocol::error::Result;

/// The trusted certificates, in two views: webpki's anchors and ours.
#[derive(Debug)]
pub(super) struct Authorities {
    /// What may sign client certificates, as webpki wants it.
    pub(super) anchors: Vec<TrustAnchor<'static>>,
    /// The same certificates in the same order, taken apart.
    pub(super) issuers: Vec<Certificate>,
    /// Self-signed certificates that are trusted as what they are: a client may present exactly these.
    pub(super) pinned: Vec<CertificateDer<'static>>,
    /// The subjects of the whole file, sent to clients as the names of acceptable authorities.
    pub(super) hints: Vec<DistinguishedName>,
}

impl Authorities {
    /// Reads the file. Certificates in it that cannot sign are warned of; that none can is an error.
    pub(super) fn load(origin: &Origin, path: &Path, now: i64, warnings: &mut Vec<String>) -> Result<Self> {
        let mut found = Self { anchors: Vec::new(), issuers: Vec::new(), pinned: Vec::new(), hints: Vec::new() };
        for (index, (der, trusted)) in files::certificates(origin, "CA", path)?.into_iter().enumerate() {
            let number = index + 1;
            let Some(certificate) = Certificate::parse(&der) else {
                warnings.push(format!("certificate {number} of CA file '{}' is malformed: ignored", path.display()));
                continue;
            };
            let subject = certificate.subject_text();
            let which = format!("certificate {number} ('{subject}') of CA file '{}'", path.display());
            if !trusted {
                warnings.push(format!(
                    "{which} is not trusted for TLS clients by the settings that follow it (TRUSTED CERTIFICATE): \
                     ignored\nHINT: openssl x509 -addtrust clientAuth"
                ));
                continue;
            }
            found.hints.push(DistinguishedName::in_sequence(&certificate.subject));
            let self_signed = certificate.is_self_issued();
            if self_signed {
                found.pinned.push(der.clone());
            }
            let anchor = webpki::anchor_from_trusted_cert(&der).map(|anchor| anchor.to_owned());
            match (reason_against(&certificate), anchor) {
                (None, Ok(anchor)) => {
                    warnings.extend(certificate.lapse(now).map(|lapse| {
                        let path = path.display();
                        format!(
                            "CA certificate '{subject}' of CA file '{path}' {lapse}: clients signed by it are refused"
                        )
                    }));
                    found.anchors.push(anchor);
                    found.issuers.push(certificate);
                }
                // A self-signed certificate that is no authority is a client's own, pinned.
                (Some(_), _) if self_signed => {}
                (Some(reason), _) => {
                    warnings.push(format!("{which} cannot sign client certificates, since {reason}: ignored"));
                }
                (None, Err(error)) => warnings.push(format!("{which} cannot be used ({error:?}): ignored")),
            }
        }
        if found.issuers.is_empty() && found.pinned.is_empty() {
            let why = format!(
                "it contains no certificate that may sign client certificates\nHINT: {}.",
                warnings.last().map_or("name the CA's own certificate here", String::as_str)
            );
            return Err(files::unusable("CA", path, &why));
        }
        Ok(found)
    }

    /// The authority that `anchor`, one of webpki's, stands for, if it may be used at `now` above
    /// `intermediates` certificates.
    ///
    /// # Errors
    /// The authority that stands against it.
    pub(super) fn check_anchor(
        &self,
        anchor: &TrustAnchor<'_>,
        intermediates: usize,
        now: i64,
    ) -> std::result::Result<&Certificate, Option<&Certificate>> {
        // A renewed authority keeps its name and key: any of its certificates will do.
        let mut refused = None;
        for (_, authority) in self.anchors.iter().zip(&self.issuers).filter(|(known, _)| *known == anchor) {
            if authority.validity.contains(now) && authority.permits_intermediates(intermediates) {
                return Ok(authority);
            }
            refused = Some(authority);
        }
        Err(refused)
    }
}

/// Why a certificate may not sign others, by OpenSSL's rules for a trusted one.
fn reason_against(certificate: &Certificate) -> Option<&'static str> {
    let extensions = &certificate.extensions;
    if extensions.malformed {
        return Some("an extension is malformed");
    }
    if extensions.unknown_critical {
        return Some("it has a critical extension that is not supported");
    }
    if !extensions.may_sign() {
        return Some("its key usage lacks keyCertSign");
    }
    if extensions.purposes.is_some_and(|purposes| !purposes.has(Side::Client)) {
        return Some("its extended key usage lacks clientAuth");
    }
    let may_sign = match extensions.authority {
        Some((authority, _)) => authority,
        // Old roots say nothing about themselves.
        None if certificate.version < 3 => certificate.is_self_issued(),
        None => extensions.usage.is_some(),
    };
    (!may_sign).then_some("it is no CA certificate")
}
