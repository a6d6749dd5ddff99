//! Which client certificates are accepted.
//!
//! webpki decides first. It refuses leaves of X.509 version 1 by their form alone, which OpenSSL and
//! hence the original accept and which pgBackRest's user guide makes. For these, and only for these,
//! the chain is walked here: every signature, every validity, every limit of an authority is
//! checked, and nothing is accepted that OpenSSL would refuse. What webpki leaves out is added to its
//! verdict on all others: what a key may be used for, of the leaf as of those above it.
//!
//! The certificate of an authority is no client's: whoever signs clients does not log in with the same
//! key. Only a self-signed one that `tls-server-ca-file` holds is, since `openssl req -x509` makes them
//! so and small sites use one certificate for everything. OpenSSL takes more.
//!
//! A certificate is optional; what a client without one may do is not decided here.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature, verify_tls13_signature_with_raw_key,
};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerMisbehaved, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, RawPublicKeyEntity, VerifiedPath};

use super::authorities::Authorities;
use super::certificate::{Certificate, Extensions, Side, SignatureFault, name_text};
use super::describe::{Reasons, time_text};
use super::revocation::RevocationLists;
use super::server_name::restore;
use super::verified::{Chain, Period, Verified};

/// The most intermediates in a chain that is walked here; webpki has the same limit.
const MOST_INTERMEDIATES: usize = 6;
/// The most signatures checked for one client, so that a hostile chain cannot keep the loop busy.
const MOST_SIGNATURES: u32 = 24;

/// Verifies the clients of one configuration.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    authorities: Authorities,
    revoked: RevocationLists,
    algorithms: WebPkiSupportedAlgorithms,
    verified: Verified,
    reasons: Reasons,
}

/// A refusal: what rustls turns into an alert, and the words for the log.
#[derive(Debug)]
pub(super) struct Fault {
    error: CertificateError,
    text: String,
}

impl ClientVerifier {
    pub(super) fn new(
        authorities: Authorities,
        revoked: RevocationLists,
        algorithms: WebPkiSupportedAlgorithms,
        reasons: Reasons,
    ) -> Self {
        Self { authorities, revoked, algorithms, verified: Verified::default(), reasons }
    }

    pub(super) fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Fault> {
        let chain = Chain::new(end_entity, intermediates);
        if self.verified.is_good_at(&chain, seconds(now)) {
            return Ok(());
        }
        let leaf = Certificate::parse(end_entity)
            .ok_or_else(|| Fault::new(CertificateError::BadEncoding, "the client's certificate is malformed"))?;
        let presented: Vec<Certificate> = intermediates.iter().filter_map(Certificate::parse).collect();
        let authority = self.check(end_entity, &leaf, intermediates, &presented, now)?;
        // Which of the intermediates were needed does not matter: that all are valid is enough.
        if presented.len() == intermediates.len() {
            let period = presented.iter().map(|other| other.validity).fold(leaf.validity, Period::and);
            self.verified.remember(chain, period.and(authority));
        }
        Ok(())
    }

    /// Checks a chain, and returns when the authority above it is valid.
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        leaf: &Certificate,
        intermediates: &[CertificateDer<'_>],
        presented: &[Certificate],
        now: UnixTime,
    ) -> Result<Period, Fault> {
        if self.authorities.pinned.contains(&leaf.der) {
            check_extensions(leaf)?;
            check_use(leaf)?;
            return check_validity(leaf, "certificate", now).map(|()| leaf.validity);
        }
        match EndEntityCert::try_from(end_entity) {
            Ok(certificate) => {
                let authority = self.verify_with_webpki(&certificate, leaf, intermediates, now)?;
                check_use(leaf).map(|()| authority)
            }
            Err(webpki::Error::UnsupportedCertVersion) => {
                let walk = Walk { verifier: self, leaf, presented, now };
                let mut budget = MOST_SIGNATURES;
                let authority = walk.find_issuer(leaf, &mut Vec::new(), &mut budget)?;
                check_validity(leaf, "certificate", now).map(|()| authority)
            }
            Err(error) => Err(Fault::of_webpki(error, leaf)),
        }
    }

    fn verify_with_webpki(
        &self,
        certificate: &EndEntityCert<'_>,
        leaf: &Certificate,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Period, Fault> {
        // webpki calls this for every chain that it finds good, and looks for another one when it is refused.
        let last = RefCell::new(None);
        let check = |path: &VerifiedPath<'_>| {
            let result = self.check_path(path, leaf, now);
            let good = result.is_ok();
            last.replace(Some(result));
            if good { Ok(()) } else { Err(webpki::Error::UnknownIssuer) }
        };
        let verified = certificate.verify_for_usage(
            self.algorithms.all,
            &self.authorities.anchors,
            intermediates,
            now,
            KeyUsage::client_auth(),
            None,
            Some(&check),
        );
        match (verified, last.take()) {
            (Ok(_), Some(Ok(authority))) => Ok(authority),
            (Ok(_), _) => Err(Fault::unknown_issuer(leaf)),
            (Err(_), Some(Err(fault))) => Err(fault),
            (Err(error), _) => Err(Fault::of_webpki(error, leaf)),
        }
    }

    /// What webpki leaves out: the authority's own validity and limits, and our revocation lists. Returns when
    /// the authority is valid.
    fn check_path(&self, path: &VerifiedPath<'_>, leaf: &Certificate, now: UnixTime) -> Result<Period, Fault> {
        let between: Vec<_> = path.intermediate_certificates().collect();
        for certificate in &between {
            let parsed = Certificate::parse(&certificate.der());
            if parsed.is_none_or(|certificate| !certificate.extensions.may_sign()) {
                return Err(Fault::may_not_sign(&name_text(certificate.subject()), leaf));
            }
        }
        let count = between.iter().filter(|cert| cert.subject() != cert.issuer()).count();
        let anchor = path.anchor();
        let authority = self.authorities.check_anchor(anchor, count, seconds(now)).map_err(|authority| {
            authority.map_or_else(|| Fault::unknown_issuer(leaf), |authority| authority_fault(authority, leaf, now))
        })?;

        let mut issuers: Vec<(&[u8], SubjectPublicKeyInfoDer<'static>)> =
            between.iter().map(|cert| (cert.subject(), cert.subject_public_key_info())).collect();
        issuers.push((anchor.subject.as_ref(), webpki::spki_for_anchor(anchor)));
        let serials = std::iter::once(path.end_entity().serial()).chain(between.iter().map(|cert| cert.serial()));
        for (index, (serial, (issuer, key))) in serials.zip(&issuers).enumerate() {
            if self.revoked.contains(serial, issuer, key, self.algorithms.all) {
                let revoked = match index.checked_sub(1).and_then(|index| between.get(index)) {
                    Some(intermediate) => name_text(intermediate.subject()),
                    None => leaf.subject_text(),
                };
                return Err(Fault::revoked(&revoked, serial));
            }
        }
        Ok(authority.validity)
    }

    fn note_wrong_key(&self, cert: &CertificateDer<'_>) {
        let subject = Certificate::parse(cert).map_or_else(|| "?".to_owned(), |certificate| certificate.subject_text());
        let text = format!("the client does not hold the private key of the certificate '{subject}' that it presented");
        self.reasons.note(text);
    }

    /// The public key of a leaf that webpki cannot read; `None` when it can.
    fn raw_key(cert: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
        if ParsedCertificate::try_from(cert).is_ok() {
            return None;
        }
        Certificate::parse(cert).map(|certificate| certificate.key)
    }

    fn verify_tls12_raw(
        &self,
        message: &[u8],
        key: &SubjectPublicKeyInfoDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let candidates = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == dss.scheme);
        let (_, candidates) = candidates.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        let key = RawPublicKeyEntity::try_from(key).map_err(|_| CertificateError::BadEncoding)?;
        // A scheme of TLS 1.2 does not name the curve: several algorithms can be meant.
        for algorithm in *candidates {
            match key.verify_signature(*algorithm, message, dss.signature()) {
                Ok(()) => return Ok(HandshakeSignatureValid::assertion()),
                Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
                Err(_) => return Err(CertificateError::BadSignature.into()),
            }
        }
        Err(CertificateError::BadSignature.into())
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.authorities.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, now).map(|()| ClientCertVerified::assertion()).map_err(|fault| {
            self.reasons.note(fault.text);
            fault.error.into()
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let message = restore(message);
        let verified = match Self::raw_key(cert) {
            Some(key) => self.verify_tls12_raw(&message, &key, dss),
            None => verify_tls12_signature(&message, cert, dss, &self.algorithms),
        };
        verified.inspect_err(|_| self.note_wrong_key(cert))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = match Self::raw_key(cert) {
            Some(key) => verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms),
            None => verify_tls13_signature(message, cert, dss, &self.algorithms),
        };
        verified.inspect_err(|_| self.note_wrong_key(cert))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// One walk from a leaf to an authority.
struct Walk<'a> {
    verifier: &'a ClientVerifier,
    leaf: &'a Certificate,
    presented: &'a [Certificate],
    now: UnixTime,
}

impl Walk<'_> {
    /// Finds who issued `certificate`, up to an authority, and returns when that is valid; `used` are the
    /// intermediates between it and the leaf.
    fn find_issuer(&self, certificate: &Certificate, used: &mut Vec<usize>, budget: &mut u32) -> Result<Period, Fault> {
        let mut fault = Fault::unknown_issuer(certificate);
        let named = |candidate: &Certificate| candidate.subject == certificate.issuer;
        let authorities = &self.verifier.authorities.issuers;
        for authority in authorities.iter().filter(|authority| named(authority)) {
            match self.check_authority(authority, certificate, used, budget) {
                Ok(()) => return Ok(authority.validity),
                Err(found) => fault = found,
            }
        }
        for (index, issuer) in self.presented.iter().enumerate().filter(|(_, candidate)| named(candidate)) {
            if used.contains(&index) || used.len() >= MOST_INTERMEDIATES {
                continue;
            }
            let found = self.check_intermediate(issuer, certificate, used, budget).and_then(|()| {
                used.push(index);
                let result = self.find_issuer(issuer, used, budget);
                used.pop();
                result
            });
            match found {
                Ok(authority) => return Ok(authority),
                Err(found) => fault = found,
            }
        }
        Err(fault)
    }

    fn check_authority(
        &self,
        authority: &Certificate,
        certificate: &Certificate,
        used: &[usize],
        budget: &mut u32,
    ) -> Result<(), Fault> {
        self.check_link(authority, certificate, budget)?;
        if !authority.validity.contains(seconds(self.now)) || !authority.permits_intermediates(self.count(used)) {
            return Err(authority_fault(authority, self.leaf, self.now));
        }
        if authority.extensions.name_constraints {
            return Err(name_constraint_fault(authority, self.leaf));
        }
        Ok(())
    }

    /// How many of these intermediates count for the limit of whoever is above them.
    fn count(&self, used: &[usize]) -> usize {
        let used = used.iter().filter_map(|index| self.presented.get(*index));
        used.filter(|intermediate| !intermediate.is_self_issued()).count()
    }

    fn check_intermediate(
        &self,
        issuer: &Certificate,
        certificate: &Certificate,
        used: &[usize],
        budget: &mut u32,
    ) -> Result<(), Fault> {
        let extensions = &issuer.extensions;
        if issuer.version != 3 || extensions.malformed || !matches!(extensions.authority, Some((true, _))) {
            return Err(Fault::other(format!(
                "certificate '{}' was signed by '{}', which is no CA certificate",
                certificate.subject_text(),
                issuer.subject_text()
            )));
        }
        let permitted = issuer.permits_intermediates(self.count(used))
            && extensions.purposes.is_none_or(|purposes| purposes.has(Side::Client))
            && !extensions.further_critical;
        if !extensions.may_sign() {
            return Err(Fault::may_not_sign(&issuer.subject_text(), certificate));
        }
        if !permitted {
            return Err(Fault::other(format!(
                "CA certificate '{}' may not sign '{}' by its own extensions",
                issuer.subject_text(),
                certificate.subject_text()
            )));
        }
        if extensions.name_constraints {
            return Err(name_constraint_fault(issuer, certificate));
        }
        self.check_link(issuer, certificate, budget)?;
        check_validity(issuer, "CA certificate", self.now)
    }

    /// That `issuer` signed `certificate` and has not revoked it.
    fn check_link(&self, issuer: &Certificate, certificate: &Certificate, budget: &mut u32) -> Result<(), Fault> {
        *budget = budget.checked_sub(1).ok_or_else(|| {
            Fault::other("the client presented a chain that takes too many signatures to check".to_owned())
        })?;
        let algorithms = self.verifier.algorithms.all;
        certificate.check_signature(&issuer.key, algorithms).map_err(|fault| match fault {
            SignatureFault::Wrong => Fault::bad_signature(certificate),
            SignatureFault::Unsupported => Fault::other(format!(
                "certificate '{}' is signed in a way that is not supported (such as SHA-1, or an RSA key below 2048 bits)",
                certificate.subject_text()
            )),
        })?;
        if self.verifier.revoked.contains(&certificate.serial, &issuer.subject, &issuer.key, algorithms) {
            return Err(Fault::revoked(&certificate.subject_text(), &certificate.serial));
        }
        Ok(())
    }
}

/// What webpki asks of the extensions of a leaf, for one that it does not see.
fn check_extensions(leaf: &Certificate) -> Result<(), Fault> {
    let Extensions { malformed, further_critical, name_constraints, .. } = leaf.extensions;
    let subject = leaf.subject_text();
    if malformed {
        let text = format!("certificate '{subject}' has a malformed extension");
        return Err(Fault::new(CertificateError::BadEncoding, text));
    }
    if further_critical || name_constraints {
        return Err(Fault::critical_extension(&subject));
    }
    Ok(())
}

/// That the extensions of a leaf let a TLS client use its key.
fn check_use(leaf: &Certificate) -> Result<(), Fault> {
    leaf.extensions.lacks(Side::Client).map_or(Ok(()), |lack| Err(Fault::purpose(&leaf.subject_text(), lack)))
}

fn check_validity(certificate: &Certificate, what: &str, now: UnixTime) -> Result<(), Fault> {
    let what = || format!("{what} '{}'", certificate.subject_text());
    if seconds(now) > certificate.validity.until {
        return Err(Fault::expired(&what(), now, certificate.validity.until));
    }
    if seconds(now) < certificate.validity.from {
        return Err(Fault::not_valid_yet(&what(), now, certificate.validity.from));
    }
    Ok(())
}

fn authority_fault(authority: &Certificate, leaf: &Certificate, now: UnixTime) -> Fault {
    check_validity(authority, "CA certificate", now).err().unwrap_or_else(|| {
        Fault::other(format!(
            "CA certificate '{}' does not permit as many intermediates as certificate '{}' has",
            authority.subject_text(),
            leaf.subject_text()
        ))
    })
}

fn name_constraint_fault(authority: &Certificate, leaf: &Certificate) -> Fault {
    Fault::other(format!(
        "CA certificate '{}' constrains names, which cannot be checked for certificate '{}' of X.509 version {}",
        authority.subject_text(),
        leaf.subject_text(),
        leaf.version
    ))
}

pub(super) fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

fn unix_time(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// A time in the past, and how long ago it was.
fn since(then: i64, now: i64) -> String {
    let (amount, unit) = match now.saturating_sub(then) {
        seconds if seconds < 120 => (seconds, "seconds"),
        seconds if seconds < 7200 => (seconds / 60, "minutes"),
        seconds if seconds < 2 * 86400 => (seconds / 3600, "hours"),
        seconds => (seconds / 86400, "days"),
    };
    format!("{} ({amount} {unit} ago)", time_text(then))
}

impl Fault {
    fn new(error: CertificateError, text: impl Into<String>) -> Self {
        Self { error, text: text.into() }
    }

    /// A refusal for which TLS has no alert of its own.
    fn other(text: String) -> Self {
        Self::new(CertificateError::Other(OtherError(Arc::new(std::io::Error::other(text.clone())))), text)
    }

    fn expired(what: &str, time: UnixTime, not_after: i64) -> Self {
        let text = format!("{what} expired on {}", since(not_after, seconds(time)));
        Self::new(CertificateError::ExpiredContext { time, not_after: unix_time(not_after) }, text)
    }

    fn not_valid_yet(what: &str, time: UnixTime, not_before: i64) -> Self {
        let text = format!("{what} is not valid before {}: is this host's clock right?", time_text(not_before));
        Self::new(CertificateError::NotValidYetContext { time, not_before: unix_time(not_before) }, text)
    }

    fn unknown_issuer(certificate: &Certificate) -> Self {
        let (subject, issuer) = (certificate.subject_text(), certificate.issuer_text());
        let text = if certificate.is_self_issued() {
            format!("certificate '{subject}' is self-signed and not in tls-server-ca-file")
        } else {
            format!("certificate '{subject}' was issued by '{issuer}', which is not in tls-server-ca-file")
        };
        Self::new(CertificateError::UnknownIssuer, text)
    }

    fn bad_signature(certificate: &Certificate) -> Self {
        // The alert is that of an unknown authority: to the client it is one, and OpenSSL says the same.
        Self::new(
            CertificateError::UnknownIssuer,
            format!(
                "certificate '{}' was not signed by the '{}' of tls-server-ca-file: either that CA was made anew under its \
                 old name, or the certificate was altered",
                certificate.subject_text(),
                certificate.issuer_text()
            ),
        )
    }

    fn revoked(subject: &str, serial: &[u8]) -> Self {
        let serial = serial.iter().fold(String::new(), |text, byte| text + &format!("{byte:02X}"));
        Self::new(
            CertificateError::Revoked,
            format!("certificate '{subject}' (serial {serial}) is revoked by crl-file"),
        )
    }

    fn purpose(subject: &str, lack: &str) -> Self {
        let text = format!("certificate '{subject}' is not made for TLS clients: its {lack}");
        Self::new(CertificateError::InvalidPurpose, text)
    }

    /// The leaf is an authority's certificate.
    fn authority(leaf: &Certificate) -> Self {
        if leaf.is_self_issued() {
            return Self::unknown_issuer(leaf);
        }
        let text = format!(
            "certificate '{}' is a CA's own (basicConstraints=CA:TRUE) and not a client's: have the client's made with \
             CA:FALSE",
            leaf.subject_text()
        );
        Self::new(CertificateError::InvalidPurpose, text)
    }

    fn may_not_sign(issuer: &str, certificate: &Certificate) -> Self {
        Self::other(format!(
            "CA certificate '{issuer}' may not sign '{}': its key usage lacks keyCertSign",
            certificate.subject_text()
        ))
    }

    fn critical_extension(subject: &str) -> Self {
        let text = format!("certificate '{subject}' has a critical extension that is not supported");
        Self::new(CertificateError::UnhandledCriticalExtension, text)
    }

    /// What webpki found, as rustls would name it, with the certificate that it is about.
    fn of_webpki(error: webpki::Error, leaf: &Certificate) -> Self {
        use webpki::Error as E;
        let subject = leaf.subject_text();
        // Any certificate of the chain can be meant; the leaf is known by its time.
        let whose = |is_leaf| format!("{}certificate '{subject}'", if is_leaf { "" } else { "an intermediate CA of " });
        match error {
            E::CertExpired { time, not_after } => {
                let expired = seconds(not_after);
                Self::expired(&whose(expired == leaf.validity.until), time, expired)
            }
            E::CertNotValidYet { time, not_before } => {
                let valid = seconds(not_before);
                Self::not_valid_yet(&whose(valid == leaf.validity.from), time, valid)
            }
            E::UnknownIssuer => Self::unknown_issuer(leaf),
            E::InvalidSignatureForPublicKey => Self::bad_signature(leaf),
            E::CertRevoked => Self::revoked(&subject, &leaf.serial),
            E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => {
                // Any certificate of the chain can be meant.
                let lack = leaf.extensions.lacks(Side::Client);
                Self::purpose(&subject, lack.unwrap_or("CA's extended key usage lacks clientAuth"))
            }
            E::CaUsedAsEndEntity => Self::authority(leaf),
            E::UnsupportedCriticalExtension => Self::critical_extension(&subject),
            E::BadDer | E::BadDerTime | E::TrailingData(_) | E::ExtensionValueInvalid | E::MalformedExtensions => {
                Self::new(CertificateError::BadEncoding, format!("certificate '{subject}' is malformed"))
            }
            other => {
                let text = format!("certificate '{subject}' was refused: {other:?}");
                Self::new(CertificateError::Other(OtherError(Arc::new(other))), text)
            }
        }
    }
}
