//! One X.509 certificate of any version, with what the checks of this folder ask of it.
//!
//! Parsing is x509-parser's, because webpki reads version 3 only; signatures are checked by the
//! algorithms of the TLS provider. Whether a certificate is trusted is decided elsewhere.

use std::ops::Range;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use webpki::RawPublicKeyEntity;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

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
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    pub(super) extensions: Extensions,
    pub(super) der: CertificateDer<'static>,
    signed: Signed,
}

/// What the extensions allow; `None` where an extension is absent.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts of a certificate, not a state machine")]
pub(super) struct Extensions {
    /// `basicConstraints`: whether it is an authority, and how many intermediates may follow.
    pub(super) authority: Option<(bool, Option<u32>)>,
    /// `keyUsage`.
    pub(super) usage: Option<KeyUsage>,
    /// `extendedKeyUsage`: whether it names client authentication.
    pub(super) client_purpose: Option<bool>,
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
    /// The key may sign certificates.
    pub(super) certificates: bool,
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
        let signed = Signed::locate(der.as_ref())?;
        let tbs = &parsed.tbs_certificate;
        let consistent = rest.is_empty()
            && der.get(signed.message.clone())? == tbs.as_ref()
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
            not_before: tbs.validity.not_before.timestamp(),
            not_after: tbs.validity.not_after.timestamp(),
            extensions: Extensions::read(&parsed),
            der: der.clone().into_owned(),
            signed,
        })
    }

    /// Whether `issuer_key` signed this certificate.
    pub(super) fn check_signature(
        &self,
        issuer_key: &SubjectPublicKeyInfoDer<'_>,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<(), SignatureFault> {
        self.signed.check(&self.der, issuer_key, algorithms)
    }

    /// Whether subject and issuer are the same name.
    pub(super) fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whether the time `now` is within the validity.
    pub(super) fn is_valid_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
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

impl Extensions {
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
                        certificates: usage.key_cert_sign(),
                    });
                }
                ParsedExtension::ExtendedKeyUsage(purposes) => found.client_purpose = Some(purposes.client_auth),
                ParsedExtension::SubjectAlternativeName(_) => {}
                ParsedExtension::NameConstraints(_) => found.name_constraints = true,
                ParsedExtension::ParseError { .. } => found.malformed = true,
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

/// Where message, algorithm and signature of a signed structure lie in its DER.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    message: Range<usize>,
    /// The contents of the `AlgorithmIdentifier`, as the provider's algorithms name themselves.
    algorithm: Range<usize>,
    signature: Range<usize>,
}

impl Signed {
    /// Finds the three parts of a certificate or a revocation list.
    pub(super) fn locate(der: &[u8]) -> Option<Self> {
        const SEQUENCE: u8 = 0x30;
        const BIT_STRING: u8 = 0x03;
        let whole = element(der, 0, SEQUENCE)?;
        let message = element(der, whole.start, SEQUENCE)?;
        let algorithm = element(der, message.end, SEQUENCE)?;
        let signature = element(der, algorithm.end, BIT_STRING)?;
        // The first content byte of a BIT STRING counts unused bits; a signature has none.
        let complete = whole.end == der.len() && signature.end == whole.end && der.get(signature.start) == Some(&0);
        complete.then(|| Self {
            message: whole.start..message.end,
            algorithm,
            signature: signature.start + 1..signature.end,
        })
    }

    /// The part of `der` that is signed.
    pub(super) fn message<'a>(&self, der: &'a [u8]) -> Option<&'a [u8]> {
        der.get(self.message.clone())
    }

    /// Whether `key` made the signature in `der`, the structure that this was located in.
    pub(super) fn check(
        &self,
        der: &[u8],
        key: &SubjectPublicKeyInfoDer<'_>,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<(), SignatureFault> {
        let (Some(message), Some(id), Some(signature)) =
            (self.message(der), der.get(self.algorithm.clone()), der.get(self.signature.clone()))
        else {
            return Err(SignatureFault::Wrong);
        };
        let key = RawPublicKeyEntity::try_from(key).map_err(|_| SignatureFault::Unsupported)?;
        let mut fault = SignatureFault::Unsupported;
        for algorithm in algorithms.iter().filter(|algorithm| algorithm.signature_alg_id().as_ref() == id) {
            match key.verify_signature(*algorithm, message, signature) {
                Ok(()) => return Ok(()),
                Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
                Err(_) => fault = SignatureFault::Wrong,
            }
        }
        Err(fault)
    }
}

/// The range of the contents of the element with `tag` that starts at `start`.
fn element(der: &[u8], start: usize, tag: u8) -> Option<Range<usize>> {
    let mut rest = der.get(start..)?.iter().copied();
    if rest.next()? != tag {
        return None;
    }
    let first = rest.next()?;
    let (length, header) = if first < 0x80 {
        (usize::from(first), 2)
    } else {
        let count = usize::from(first & 0x7f);
        if !(1..=4).contains(&count) {
            return None;
        }
        let mut length = 0usize;
        for _ in 0..count {
            length = length.checked_mul(256)?.checked_add(usize::from(rest.next()?))?;
        }
        (length, 2 + count)
    };
    let content = start.checked_add(header)?;
    let end = content.checked_add(length)?;
    (end <= der.len()).then_some(content..end)
}

/// The contents of a SEQUENCE.
pub(super) fn sequence_content(der: &[u8]) -> Option<&[u8]> {
    der.get(element(der, 0, 0x30)?)
}

/// A serial number without the zeros that encodings put in front.
pub(super) fn trim_serial(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    serial.get(zeros..).unwrap_or_default()
}

/// A name for people: the contents of its SEQUENCE as `CN=…, O=…`, safe to print and not endless.
pub(super) fn name_text(content: &[u8]) -> String {
    const LONGEST: usize = 200;
    let text = with_sequence_header(content)
        .and_then(|der| X509Name::from_der(&der).ok().map(|(_, name)| name.to_string()))
        .unwrap_or_default();
    if text.is_empty() {
        return "(no subject)".to_owned();
    }
    // A name is the peer's choice and goes to the log: nothing in it may start a new line.
    text.chars().take(LONGEST).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn with_sequence_header(content: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(content.len()).ok()?.to_be_bytes();
    let mut der = vec![0x30];
    match length {
        [0, short] if short < 0x80 => der.push(short),
        [0, short] => der.extend([0x81, short]),
        long => der.extend([0x82, long[0], long[1]]),
    }
    der.extend_from_slice(content);
    Some(der)
}
