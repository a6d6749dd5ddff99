//! Why a handshake failed, in words for the log.
//!
//! An administrator reads these lines to find out which client has which wrong certificate; the
//! peer's address and the log line around them are the caller's.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible};

/// Knows why handshakes with one verifier of client certificates fail.
///
/// rustls's error has no room for what the verifier found, and after a refusal the connection does not give the
/// certificate away either. So the verifier notes it here, and who has the connection looks for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reasons(Arc<Mutex<Option<String>>>);

impl Reasons {
    /// Keeps the words for the refusal that rustls is about to report.
    pub(super) fn note(&self, text: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// The reason of a failed handshake: one line, without the peer's address and without a full stop.
    ///
    /// `first_bytes` is the beginning of what the client sent, as far as it was kept (eight bytes are
    /// enough, none are accepted): it tells what spoke when it was not TLS. Call this right after the
    /// error, before another connection makes progress: the details of a refused certificate are those of the
    /// latest refusal.
    pub(crate) fn of(&self, error: &Error, first_bytes: &[u8]) -> String {
        let refusal = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (error, refusal) {
            (Error::InvalidCertificate(_), Some(refusal)) => refusal,
            _ => describe(error, first_bytes),
        }
    }
}

fn describe(error: &Error, first_bytes: &[u8]) -> String {
    match error {
        Error::InvalidCertificate(cause) => format!("the client's certificate was refused: {cause}"),
        Error::AlertReceived(alert) => describe_alert(*alert),
        Error::PeerIncompatible(cause) => describe_incompatible(cause),
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } if !is_tls(first_bytes) => {
            describe_foreign(first_bytes)
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => "the client does not speak TLS".to_owned(),
        Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion) => {
            "the client speaks an SSL or TLS version below 1.2".to_owned()
        }
        Error::PeerMisbehaved(_) => format!("the client violated the TLS protocol ({error})"),
        Error::NoCertificatesPresented => "the client presented no certificate".to_owned(),
        other => format!("the TLS handshake failed: {other}"),
    }
}

fn describe_alert(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::UnknownCA => {
            "it does not know the CA of this server's certificate; compare its repo-host-ca-file or pg-host-ca-file with \
             tls-server-cert-file"
        }
        AlertDescription::CertificateExpired => "this server's certificate has expired or is not valid yet for it",
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked => "it does not accept this server's certificate",
        AlertDescription::ProtocolVersion => "it speaks no TLS version that this server speaks (1.2 and 1.3)",
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
            "it has no cipher, group or signature in common with this server"
        }
        AlertDescription::CloseNotify | AlertDescription::UserCanceled => "it gave up",
        _ => return format!("the client ended the handshake with alert {alert:?}"),
    };
    format!("the client ended the handshake: {why} (alert {alert:?})")
}

fn describe_incompatible(cause: &PeerIncompatible) -> String {
    match cause {
        PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => {
            "the client speaks no TLS version that this server speaks (1.2 and 1.3)".to_owned()
        }
        // rustls looks for this extension, which is as old as TLS 1.2, before it looks at the version.
        PeerIncompatible::SignatureAlgorithmsExtensionRequired => {
            "the client speaks a TLS version below 1.2, or 1.2 without saying which signatures it can verify".to_owned()
        }
        PeerIncompatible::NoCipherSuitesInCommon => {
            "no cipher in common: compare tls-cipher-12 and tls-cipher-13 here and on the client".to_owned()
        }
        PeerIncompatible::NoKxGroupsInCommon
        | PeerIncompatible::NamedGroupsExtensionRequired
        | PeerIncompatible::EcPointsExtensionRequired => {
            "no key exchange in common: this server has ECDHE with X25519MLKEM768, X25519, P-256 and P-384".to_owned()
        }
        PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => {
            "the client cannot verify signatures of this server's key type".to_owned()
        }
        other => format!("the client's TLS is not compatible ({other:?})"),
    }
}

/// Whether the bytes can begin a TLS handshake or alert record.
fn is_tls(bytes: &[u8]) -> bool {
    match bytes {
        [kind, major, ..] => matches!(kind, 0x15 | 0x16) && *major == 3,
        _ => true,
    }
}

fn describe_foreign(bytes: &[u8]) -> String {
    const METHODS: [&[u8]; 7] = [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"OPTIONS ", b"CONNECT ", b"PRI "];
    let known =
        if METHODS.iter().any(|method| bytes.starts_with(method) || (bytes.len() >= 3 && method.starts_with(bytes))) {
            "the client speaks plain HTTP on the TLS port"
        } else if bytes.starts_with(b"SSH-") {
            "the client speaks SSH on the TLS port"
        } else if bytes.starts_with(b"PROXY ") || bytes.starts_with(b"\r\n\r\n\0\r\nQ") {
            "a load balancer sends the PROXY protocol, which is not supported here"
        } else if bytes.get(4..8) == Some(&[0x04, 0xd2, 0x16, 0x2f]) {
            "a PostgreSQL client connected to the TLS port of the backup server"
        } else {
            "the client does not speak TLS"
        };
    let shown: String =
        bytes.iter().take(8).flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect();
    format!("{known} (it began with '{shown}')")
}

/// A time as UTC for people.
pub(super) fn time_text(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| format!("{seconds} s since 1970"), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_to_the_port_without_tls_is_named() {
        let error = Error::InvalidMessage(InvalidMessage::InvalidContentType);
        let says = |bytes: &[u8]| describe(&error, bytes);
        assert_eq!(says(b"GET / HT"), "the client speaks plain HTTP on the TLS port (it began with 'GET / HT')");
        assert!(says(b"SSH-2.0-").starts_with("the client speaks SSH"));
        assert!(says(&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f]).starts_with("a PostgreSQL client"));
        assert_eq!(says(b""), "the client does not speak TLS");
        assert_eq!(says(b"\x00\n\xff"), "the client does not speak TLS (it began with '\\x00\\n\\xff')");
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(time_text(1_700_000_000), "2023-11-14 22:13:20 UTC");
    }
}
