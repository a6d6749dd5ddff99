//! The throw-away authority and the two certificates that it signs.
//!
//! The authority's key is never stored: nobody can sign a further client with it, and renewing
//! means a new authority with new certificates.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use x509_parser::pem::Pem;

use super::write;
use crate::protocol::error::{Code, Error, Result};

const DAY: Duration = Duration::from_secs(86400);
const VALID_DAYS: u32 = 365;
/// The name that the server authorizes, as the user guide has it.
pub(super) const CLIENT: &str = "pgbackrest-client";
const FILES: [&str; 5] = ["ca.crt", "server.crt", "server.key", "client.crt", "client.key"];

/// Makes certificates unless there are some that stay valid for another day.
pub(super) fn provide(directory: &Path) -> Result<()> {
    let today = jiff::tz::TimeZone::UTC.to_datetime(jiff::Timestamp::now()).date();
    let complete = FILES.iter().all(|name| directory.join(name).is_file());
    let tomorrow = jiff::Timestamp::now().as_second().saturating_add(86400);
    let lasting = || ["ca.crt", "server.crt", "client.crt"].iter().all(|name| lasts(&directory.join(name), tomorrow));
    if complete && lasting() {
        return Ok(());
    }
    make(directory, today)
}

/// Whether the first certificate of a file is valid at a time in seconds since the epoch.
fn lasts(path: &Path, at: i64) -> bool {
    let not_after = |text: &[u8]| -> Option<i64> {
        let pem = Pem::iter_from_buffer(text).next()?.ok()?;
        Some(pem.parse_x509().ok()?.validity().not_after.timestamp())
    };
    fs::read(path).is_ok_and(|text| not_after(&text).is_some_and(|not_after| not_after > at))
}

fn make(directory: &Path, today: jiff::civil::Date) -> Result<()> {
    let crypto = |error: rcgen::Error| Error::new(Code::Crypto, format!("unable to make certificates: {error}"));
    let params = |name: &str, names: Vec<String>| -> Result<CertificateParams> {
        let mut params = CertificateParams::new(names).map_err(crypto)?;
        let year = i32::from(today.year());
        let (month, day) = (today.month().unsigned_abs(), today.day().unsigned_abs());
        // A day back, for hosts whose clocks differ.
        params.not_before = date_time_ymd(year, month, day) - DAY;
        params.not_after = params.not_before + DAY * (VALID_DAYS + 1);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        Ok(params)
    };

    let mut authority = params("repohostd quickstart CA", vec![])?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().map_err(crypto)?).map_err(crypto)?;

    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend(host_name().filter(|name| !names.contains(name)));
    let leaves = [
        ("server", params("localhost", names)?, ExtendedKeyUsagePurpose::ServerAuth),
        ("client", params(CLIENT, vec![])?, ExtendedKeyUsagePurpose::ClientAuth),
    ];
    for (file, mut leaf, purpose) in leaves {
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().map_err(crypto)?;
        let certificate = leaf.signed_by(&key, &authority).map_err(crypto)?;
        write(&directory.join(format!("{file}.key")), &key.serialize_pem(), 0o600)?;
        write(&directory.join(format!("{file}.crt")), &certificate.pem(), 0o640)?;
    }
    // Last, so that an interrupted run counts as none.
    write(&directory.join("ca.crt"), &authority.pem(), 0o640)
}

/// This host's name, when it can stand in a certificate.
fn host_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
    let usable = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.');
    usable.then_some(name)
}
