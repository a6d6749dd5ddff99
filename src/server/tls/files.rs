//! Reading the server's certificate and key, and the rule on who else may read the key.
//!
//! Owner and mode of the key file follow the specification's section 2.4 word for word.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::SigningKey;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::certificate::Certificate;
use super::pem;
use crate::config::snapshot::Origin;
use crate::disk::passwd;
use crate::protocol::error::{Code, Error, Result};

/// The error on a file that can be read but not used; `what` is the original's word for the file.
pub(super) fn unusable(what: &str, path: &Path, why: &str) -> Error {
    Error::new(Code::Crypto, format!("unable to load {what} file '{}': {why}", path.display()))
}

/// The contents of a PEM file.
pub(super) fn read(origin: &Origin, what: &str, path: &Path) -> Result<Vec<u8>> {
    origin.read(path).map(|text| pem::plain(&text)).map_err(|error| {
        Error::io(Code::Crypto, format_args!("unable to load {what} file '{}'", path.display()), &error)
    })
}

/// All certificates of a PEM file, in their order; at least one. Beside each, whether it may stand for TLS
/// clients by the trust settings that came with it.
pub(super) fn certificates(origin: &Origin, what: &str, path: &Path) -> Result<Vec<(CertificateDer<'static>, bool)>> {
    let text = read(origin, what, path)?;
    let found: std::io::Result<Vec<_>> =
        rustls_pemfile::certs(&mut text.as_slice()).map(|found| found.map(pem::split)).collect();
    let found = found.map_err(|error| unusable(what, path, &format!("it is damaged: {error}")))?;
    if found.is_empty() {
        return Err(unusable(what, path, "it contains no PEM certificate (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(found)
}

/// The server's certificate and what it sends along.
pub(super) fn certificate_chain(origin: &Origin, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    certificates(origin, "cert", path).map(|found| found.into_iter().map(|(certificate, _)| certificate).collect())
}

/// Refuses a key file that others than the user, by default this process's, could read or replace. A
/// missing file passes: loading reports it.
pub(super) fn check_key_file(origin: &Origin, path: &Path, user: Option<u32>) -> Result<()> {
    let Ok(data) = origin.data(path) else { return Ok(()) };
    let uid = user.unwrap_or_else(|| rustix::process::getuid().as_raw());
    let user = passwd::user(uid).map_or_else(|| uid.to_string(), |user| user.name);
    check_key_owner(path, data.uid, data.mode, uid, &user)
}

fn check_key_owner(path: &Path, owner: u32, mode: u32, uid: u32, user: &str) -> Result<()> {
    let path = path.display();
    if owner != uid && owner != 0 {
        return Err(Error::new(
            Code::FileRead,
            format!("key file '{path}' must be owned by the '{user}' user or root"),
        ));
    }
    let too_open = (owner == uid && mode & 0o077 != 0) || (owner == 0 && mode & 0o037 != 0);
    if too_open {
        return Err(Error::new(
            Code::FileRead,
            format!(
                "key file '{path}' has group or other permissions\n\
                 HINT: file must have permissions u=rw (0600) or less if owned by the '{user}' user\n\
                 HINT: file must have permissions u=rw, g=r (0640) or less if owned by root\n"
            ),
        ));
    }
    Ok(())
}

/// The first private key of a PEM file.
pub(super) fn private_key(origin: &Origin, path: &Path, provider: &CryptoProvider) -> Result<Arc<dyn SigningKey>> {
    let text = read(origin, "key", path)?;
    let contains = |what: &[u8]| text.windows(what.len()).any(|window| window == what);
    if contains(b"BEGIN ENCRYPTED PRIVATE KEY") || contains(b"Proc-Type: 4,ENCRYPTED") {
        return Err(unusable(
            "key",
            path,
            "it is encrypted, and the server has no passphrase\n\
             HINT: store it without one (openssl pkey -in KEY -out NEWKEY) and protect it by its permissions.",
        ));
    }
    let key = rustls_pemfile::private_key(&mut text.as_slice())
        .map_err(|error| unusable("key", path, &format!("it is damaged: {error}")))?
        .ok_or_else(|| unusable("key", path, "it contains no PEM private key (-----BEGIN PRIVATE KEY-----)"))?;
    provider.key_provider.load_private_key(key).map_err(|error| {
        unusable(
            "key",
            path,
            &format!("{error}\nHINT: RSA of 2048 bits or more, ECDSA P-256, P-384, P-521 and Ed25519 are supported."),
        )
    })
}

/// Refuses a key that is not the certificate's. rustls would check it too, but only for version 3.
pub(super) fn check_pair(leaf: &Certificate, cert: &Path, key_path: &Path, key: &dyn SigningKey) -> Result<()> {
    let public = key.public_key().ok_or_else(|| {
        unusable("key", key_path, "its public key is unknown, so that it cannot be compared with the certificate's")
    })?;
    let bits = SubjectPublicKeyInfo::from_der(public.as_ref())
        .map(|(_, info)| info.subject_public_key.data.to_vec())
        .unwrap_or_default();
    if bits == leaf.key_bits {
        return Ok(());
    }
    Err(unusable(
        "key",
        key_path,
        &format!(
            "key values mismatch\nHINT: it is not the key of certificate '{}', the first in cert file '{}'.",
            leaf.subject_text(),
            cert.display()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(owner: u32, mode: u32, uid: u32) -> Result<()> {
        check_key_owner(Path::new("/etc/server.key"), owner, 0o100_000 | mode, uid, "pgbackrest")
    }

    #[test]
    fn a_key_of_the_service_user_must_be_closed_to_everybody_else() {
        check(1000, 0o600, 1000).unwrap();
        check(1000, 0o400, 1000).unwrap();
        for mode in [0o640, 0o604, 0o610, 0o660] {
            check(1000, mode, 1000).unwrap_err();
        }
    }

    #[test]
    fn a_key_of_root_may_be_read_by_its_group_unless_root_runs_the_server() {
        check(0, 0o640, 1000).unwrap();
        for mode in [0o660, 0o650, 0o644] {
            check(0, mode, 1000).unwrap_err();
        }
        check(0, 0o600, 0).unwrap();
        check(0, 0o640, 0).unwrap_err();
    }

    #[test]
    fn the_texts_are_the_originals() {
        let error = check(5, 0o600, 1000).unwrap_err();
        assert_eq!(error.code.number(), 42);
        assert_eq!(error.message, "key file '/etc/server.key' must be owned by the 'pgbackrest' user or root");
        assert_eq!(
            check(1000, 0o644, 1000).unwrap_err().message,
            "key file '/etc/server.key' has group or other permissions\n\
             HINT: file must have permissions u=rw (0600) or less if owned by the 'pgbackrest' user\n\
             HINT: file must have permissions u=rw, g=r (0640) or less if owned by root\n"
        );
    }
}
