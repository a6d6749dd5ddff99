//! One X.509 certificate of any version, with what the checks of this folder ask of it.
//!
//! Parsing is x509-parser's, because webpki reads version 3 only and ignores key usage; signatures are
//! checked by the algorithms of the TLS provider. Whether a certificate is trusted is decided elsewhere.

use std::borrow::Cow;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use webpki::RawPublicKeyEntity;
use x509_parser::asn1_rs::{Any, Class, Oid, Sequence, Tag, ToDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{OID_X509_EXT_CERT_TYPE, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::describe::time_text;
use super::verified::Period;

/// A certificate, taken apart once. Times are seconds since the epoch; names are the contents of
/// their SEQUENCE, as webpki keeps them, so that both can be compared byte by byte.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    /// The X.509 version as people count it: 1, 2 or 3.
    pub(super) version: u32,
    /// The serial number without leading zeros.
    pub(super) serial: Vec<u8>,
    pub(super) subject: Vec<u8>,
    pub(super) issuer: Vec<u8>,
    pub(super) key: SubjectPublicKeyInfoDer<'static>,
    /// The bits of the public key without the algorithm.
    pub(super) key_bits: Vec<u8>,
    pub(super) validity: Period,
    pub(super) extensions: Extensions,
    pub(super) der: CertificateDer<'static>,
}

/// The side of a TLS connection that presents a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// What the extensions allow; `None` where an extension is absent.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts of a certificate, not a state machine")]
pub(super) struct Extensions {
    /// `basicConstraints`: whether it is an authority, and how many intermediates may follow.
    pub(super) authority: Option<(bool, Option<u32>)>,
    /// `keyUsage`.
    pub(super) usage: Option<KeyUsage>,
    /// `extendedKeyUsage`: whether it names client authentication, and server authentication.
    pub(super) purposes: Option<Sides>,
    /// `nsCertType`, Netscape's word for the same.
    pub(super) netscape: Option<Sides>,
    /// `nameConstraints` is present.
    pub(super) name_constraints: bool,
    /// A critical extension beyond those above and the alternative names.
    pub(super) further_critical: bool,
    /// A critical extension that nobody here can read.
    pub(super) unknown_critical: bool,
    /// An extension that is malformed or appears twice.
    pub(super) malformed: bool,
}

/// The bits of `keyUsage` that matter here.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyUsage {
    /// The key may sign handshakes or agree on keys.
    pub(super) handshake: bool,
    /// The key may encrypt keys, as RSA did for servers before TLS 1.3.
    pub(super) encipherment: bool,
    /// The key may sign certificates.
    pub(super) certificates: bool,
}

/// For which side of a connection an extension is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sides {
    pub(super) client: bool,
    pub(super) server: bool,
}

/// Why a signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignatureFault {
    /// The key did not make this signature.
    Wrong,
    /// Nobody here can check this algorithm with this key.
    Unsupported,
}

impl Certificate {
    /// Takes `der` apart; `None` when it is no certificate.
    pub(super) fn parse(der: &CertificateDer<'_>) -> Option<Self> {
        let (rest, parsed) = X509Certificate::from_der(der.as_ref()).ok()?;
        let signed = Signed::of(der.as_ref())?;
        let tbs = &parsed.tbs_certificate;
        let consistent = rest.is_empty()
            && signed.message == tbs.as_ref()
            && tbs.signature == parsed.signature_algorithm
            && (tbs.version.0 == 2 || tbs.extensions().is_empty());
        if !consistent {
            return None;
        }
        Some(Self {
            version: tbs.version.0.checked_add(1)?,
            serial: trim_serial(tbs.raw_serial()).to_vec(),
            subject: sequence_content(tbs.subject.as_raw())?.to_vec(),
            issuer: sequence_content(tbs.issuer.as_raw())?.to_vec(),
            key: SubjectPublicKeyInfoDer::from(tbs.subject_pki.raw.to_vec()),
            key_bits: tbs.subject_pki.subject_public_key.data.to_vec(),
            validity: Period { from: tbs.validity.not_before.timestamp(), until: tbs.validity.not_after.timestamp() },
            extensions: Extensions::read(&parsed),
            der: der.clone().into_owned(),
        })
    }

    /// Whether `issuer_key` signed this certificate.
    pub(super) fn check_signature(
        &self,
        issuer_key: &SubjectPublicKeyInfoDer<'_>,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<(), SignatureFault> {
        Signed::of(&self.der).ok_or(SignatureFault::Wrong)?.check(issuer_key, algorithms)
    }

    /// Whether subject and issuer are the same name.
    pub(super) fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// Why it is not valid at the time `now`, if it is not.
    pub(super) fn lapse(&self, now: i64) -> Option<String> {
        let Period { from, until } = self.validity;
        if now > until {
            return Some(format!("expired on {}", time_text(until)));
        }
        (now < from).then(|| format!("is not valid before {}", time_text(from)))
    }

    /// Whether so many intermediates may stand between this authority and a client.
    pub(super) fn permits_intermediates(&self, count: usize) -> bool {
        match self.extensions.authority {
            Some((_, Some(most))) => u32::try_from(count).is_ok_and(|count| count <= most),
            _ => true,
        }
    }

    /// The subject for people.
    pub(super) fn subject_text(&self) -> String {
        name_text(&self.subject)
    }

    /// The issuer for people.
    pub(super) fn issuer_text(&self) -> String {
        name_text(&self.issuer)
    }
}

impl Sides {
    const NEITHER: Self = Self { client: false, server: false };

    /// Whether this side is among them.
    pub(super) const fn has(self, side: Side) -> bool {
        match side {
            Side::Client => self.client,
            Side::Server => self.server,
        }
    }
}

impl Extensions {
    /// The usage that the certificate lacks to be presented by this side. The rules are those by which
    /// OpenSSL, and so the original, judges its peer: an extension that is absent forbids nothing.
    pub(super) fn lacks(&self, side: Side) -> Option<&'static str> {
        let encrypts = |usage: KeyUsage| side == Side::Server && usage.encipherment;
        if self.usage.is_some_and(|usage| !usage.handshake && !encrypts(usage)) {
            return Some("key usage lacks digitalSignature");
        }
        let forbids = |sides: Option<Sides>| sides.is_some_and(|sides| !sides.has(side));
        let (purpose, netscape) = match side {
            Side::Client => ("extended key usage lacks clientAuth", "nsCertType lacks client"),
            Side::Server => ("extended key usage lacks serverAuth", "nsCertType lacks server"),
        };
        if forbids(self.purposes) {
            return Some(purpose);
        }
        forbids(self.netscape).then_some(netscape)
    }

    pub(super) fn may_sign(&self) -> bool {
        self.usage.is_none_or(|usage| usage.certificates)
    }

    /// Has an extension that cannot be read allow nothing.
    fn forbid(&mut self, oid: &Oid<'_>) {
        if *oid == OID_X509_EXT_KEY_USAGE {
            self.usage = Some(KeyUsage { handshake: false, encipherment: false, certificates: false });
        } else if *oid == OID_X509_EXT_EXTENDED_KEY_USAGE {
            self.purposes = Some(Sides::NEITHER);
        } else if *oid == OID_X509_EXT_CERT_TYPE {
            self.netscape = Some(Sides::NEITHER);
        }
    }

    fn read(certificate: &X509Certificate<'_>) -> Self {
        let mut found = Self::default();
        let extensions = certificate.extensions();
        for (index, extension) in extensions.iter().enumerate() {
            found.malformed |= extensions.iter().take(index).any(|earlier| earlier.oid == extension.oid);
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(basic) => {
                    found.authority = Some((basic.ca, basic.path_len_constraint));
                }
                ParsedExtension::KeyUsage(usage) => {
                    found.usage = Some(KeyUsage {
                        handshake: usage.digital_signature() || usage.key_agreement(),
                        encipherment: usage.key_encipherment(),
                        certificates: usage.key_cert_sign(),
                    });
                }
                ParsedExtension::ExtendedKeyUsage(purposes) => {
                    found.purposes = Some(Sides { client: purposes.client_auth, server: purposes.server_auth });
                }
                ParsedExtension::NSCertType(kind) => {
                    found.netscape = Some(Sides { client: kind.ssl_client(), server: kind.ssl_server() });
                    found.further_critical |= extension.critical;
                }
                ParsedExtension::SubjectAlternativeName(_) => {}
                ParsedExtension::NameConstraints(_) => found.name_constraints = true,
                ParsedExtension::ParseError { .. } => {
                    found.malformed = true;
                    found.forbid(&extension.oid);
                }
                ParsedExtension::UnsupportedExtension { .. } | ParsedExtension::Unparsed => {
                    found.further_critical |= extension.critical;
                    found.unknown_critical |= extension.critical;
                }
                _ => found.further_critical |= extension.critical,
            }
        }
        found
    }
}

/// Message, algorithm and signature of a signed structure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signed<'a> {
    /// The part that is signed.
    pub(super) message: &'a [u8],
    /// The contents of the `AlgorithmIdentifier`, as the provider's algorithms name themselves.
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    /// Finds the three parts of a certificate or a revocation list.
    pub(super) fn of(der: &'a [u8]) -> Option<Self> {
        let (after, whole) = element(der, Tag::Sequence)?;
        let (after_message, _) = element(whole, Tag::Sequence)?;
        let message = whole.get(..whole.len() - after_message.len())?;
        let (after_algorithm, algorithm) = element(after_message, Tag::Sequence)?;
        let (after_signature, signature) = element(after_algorithm, Tag::BitString)?;
        // The first content byte counts unused bits; a signature has none.
        let signature = signature.strip_prefix(&[0])?;
        let complete = after.is_empty() && after_signature.is_empty();
        complete.then_some(Self { message, algorithm, signature })
    }

    /// Whether `key` made the signature.
    pub(super) fn check(
        &self,
        key: &SubjectPublicKeyInfoDer<'_>,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<(), SignatureFault> {
        let key = RawPublicKeyEntity::try_from(key).map_err(|_| SignatureFault::Unsupported)?;
        let mut fault = SignatureFault::Unsupported;
        let named =
            |algorithm: &&&dyn SignatureVerificationAlgorithm| algorithm.signature_alg_id().as_ref() == self.algorithm;
        for algorithm in algorithms.iter().filter(named) {
            match key.verify_signature(*algorithm, self.message, self.signature) {
                Ok(()) => return Ok(()),
                Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
                Err(_) => fault = SignatureFault::Wrong,
            }
        }
        Err(fault)
    }
}

/// What follows the element with this tag that `der` begins with, and its contents.
pub(super) fn element(der: &[u8], tag: Tag) -> Option<(&[u8], &[u8])> {
    let (after, element) = Any::from_der(der).ok()?;
    (element.class() == Class::Universal && element.tag() == tag).then_some((after, element.data))
}

pub(super) fn sequence_content(der: &[u8]) -> Option<&[u8]> {
    element(der, Tag::Sequence).map(|(_, content)| content)
}

/// A serial number without the zeros that encodings put in front.
pub(super) fn trim_serial(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    serial.get(zeros..).unwrap_or_default()
}

/// A name for people: the contents of its SEQUENCE as `CN=…, O=…`, safe to print and not endless.
pub(super) fn name_text(content: &[u8]) -> String {
    const LONGEST: usize = 200;
    let whole = Sequence::new(Cow::Borrowed(content)).to_der_vec();
    let text =
        whole.ok().and_then(|der| X509Name::from_der(&der).ok().map(|(_, name)| name.to_string())).unwrap_or_default();
    if text.is_empty() {
        return "(no subject)".to_owned();
    }
    // A name is the peer's choice and goes to the log: nothing in it may start a new line.
    text.chars().take(LONGEST).map(|c| if c.is_control() { '?' } else { c }).collect()
}
