//! Certificate revocation lists from `crl-file`: certificates that are refused although signed.
//!
//! The rules, the same for certificates of every version: a list speaks for the certificates of its
//! issuer when that issuer signed it. An issuer without a list revokes nothing. A list that is
//! overdue still refuses whom it names, since refusing everybody would stop the backups; the server
//! warns of it when it reads the file.

use std::collections::HashSet;
use std::path::Path;

use rustls_pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::authorities::Authorities;
use super::certificate::{Signed, name_text, sequence_content, trim_serial};
use super::{describe, files};
use crate::config::snapshot::Origin;
use crate::protocol::error::Result;

#[derive(Debug, Default)]
pub(super) struct RevocationLists {
    lists: Vec<RevocationList>,
}

#[derive(Debug)]
struct RevocationList {
    issuer: Vec<u8>,
    serials: HashSet<Vec<u8>>,
    der: Vec<u8>,
    /// The key that is known to have signed it, so that a handshake need not check it again.
    signer: Option<SubjectPublicKeyInfoDer<'static>>,
}

impl RevocationLists {
    /// Reads the file; every list in it has to be usable, since a list that is left out un-revokes.
    pub(super) fn load(
        origin: &Origin,
        path: &Path,
        authorities: &Authorities,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
        now: i64,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let text = files::read(origin, "CRL", path)?;
        let mut lists = Vec::new();
        for (index, list) in rustls_pemfile::crls(&mut text.as_slice()).enumerate() {
            let list = list.map_err(|error| files::unusable("CRL", path, &format!("it is damaged: {error}")))?;
            let (mut list, next_update) = RevocationList::parse(list.to_vec())
                .map_err(|why| files::unusable("CRL", path, &format!("list {} in it {why}", index + 1)))?;
            let (issuer, path) = (name_text(&list.issuer), path.display());
            let which = format!("revocation list {} ('{issuer}') of crl-file '{path}'", index + 1);
            list.find_signer(authorities, algorithms);
            if list.signer.is_none() {
                warnings.push(format!(
                    "{which} is signed by no authority of tls-server-ca-file: it counts only for clients that bring \
                     its issuer's certificate"
                ));
            }
            if let Some(due) = next_update.filter(|due| *due < now) {
                let due = describe::time_text(due);
                warnings.push(format!("{which} should have been renewed on {due}: it is used as it is"));
            }
            lists.push(list);
        }
        if lists.is_empty() {
            return Err(files::unusable("CRL", path, "it contains no PEM list (-----BEGIN X509 CRL-----)"));
        }
        Ok(Self { lists })
    }

    /// Whether the issuer with that name and key has revoked the certificate with that serial number.
    pub(super) fn contains(
        &self,
        serial: &[u8],
        issuer: &[u8],
        issuer_key: &SubjectPublicKeyInfoDer<'_>,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> bool {
        self.lists.iter().any(|list| {
            list.issuer == issuer
                && list.serials.contains(trim_serial(serial))
                && list.is_signed_by(issuer_key, algorithms)
        })
    }
}

impl RevocationList {
    /// Takes a list apart; beside it the time of its next update.
    fn parse(der: Vec<u8>) -> std::result::Result<(Self, Option<i64>), String> {
        let malformed = || "is malformed".to_owned();
        let signed = Signed::of(&der).ok_or_else(malformed)?;
        let (rest, list) = CertificateRevocationList::from_der(&der).map_err(|_| malformed())?;
        let tbs = &list.tbs_cert_list;
        if !rest.is_empty() || signed.message != tbs.as_ref() || tbs.signature != list.signature_algorithm {
            return Err(malformed());
        }
        // Critical extensions limit what a list speaks of (parts, changes, other issuers' certificates).
        let entries = tbs.revoked_certificates.iter().flat_map(|entry| entry.extensions());
        if let Some(extension) = list.extensions().iter().chain(entries).find(|extension| extension.critical) {
            return Err(format!("has a critical extension that is not supported ({})", extension.oid));
        }
        let issuer = sequence_content(tbs.issuer.as_raw()).ok_or_else(malformed)?.to_vec();
        let serials = tbs.revoked_certificates.iter().map(|entry| trim_serial(entry.raw_serial()).to_vec()).collect();
        let next_update = tbs.next_update.map(|time| time.timestamp());
        Ok((Self { issuer, serials, signer: None, der }, next_update))
    }

    fn find_signer(&mut self, authorities: &Authorities, algorithms: &[&dyn SignatureVerificationAlgorithm]) {
        let mut same_name = authorities.issuers.iter().filter(|authority| authority.subject == self.issuer);
        let signer = same_name.find(|authority| self.is_signed_by(&authority.key, algorithms));
        self.signer = signer.map(|authority| authority.key.clone());
    }

    fn is_signed_by(
        &self,
        key: &SubjectPublicKeyInfoDer<'_>,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> bool {
        self.signer.as_ref() == Some(key)
            || Signed::of(&self.der).is_some_and(|signed| signed.check(key, algorithms).is_ok())
    }
}
