//! Clients whose certificates were revoked.

use rcgen::{CertificateRevocationListParams, Issuer, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd};

use super::*;

fn revocation_list(name: &str, key: &KeyPair, revoked: &[&CertificateDer<'_>], next_year: i32) -> String {
    let entry = |der: &&CertificateDer<'_>| RevokedCertParams {
        serial_number: SerialNumber::from_slice(&Certificate::parse(der).unwrap().serial),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(next_year, 1, 1),
        crl_number: SerialNumber::from_slice(&[1]),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(entry).collect(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    list.signed_by(&Issuer::new(authority_params(name), key)).unwrap().pem().unwrap()
}

#[test]
fn revoked_clients_are_refused_and_others_are_not() {
    let pki = Pki::of_user_guide();
    let key = KeyPair::generate().unwrap();
    pki.write("listed.crt", &authority_params("listed").self_signed(&key).unwrap().pem());
    pki.write("listed.key", &key.serialize_pem());
    pki.write("ca.crt", &(pki.read("ca.crt") + &pki.read("listed.crt")));
    for name in ["bad", "good"] {
        pki.version_1_ec(name, &format!("/CN={name}"), "listed");
        pki.version_3(&format!("{name}3"), &format!("/CN={name}3"), "listed", "basicConstraints=CA:FALSE");
    }
    pki.version_3("middle", "/CN=middle", "listed", CA_EXTENSIONS);
    pki.version_1_ec("below", "/CN=below", "middle");
    pki.version_3("below3", "/CN=below3", "middle", "basicConstraints=CA:FALSE");
    for name in ["below", "below3"] {
        pki.write(&format!("{name}.crt"), &(pki.read(&format!("{name}.crt")) + &pki.read("middle.crt")));
    }
    let certificates = ["bad", "bad3", "middle"].map(|name| pki.certificates(name)[0].clone());
    let revoked: Vec<&CertificateDer<'_>> = certificates.iter().collect();

    pki.write("list.crl", &format!("\u{feff}{}", revocation_list("listed", &key, &revoked, 4000)));
    let (server, warnings) = pki.tls(Some("list.crl")).unwrap();
    assert!(!warnings.iter().any(|warning| warning.contains("revocation")), "{warnings:?}");
    for client in ["good", "good3", "client"] {
        outcome(&server, || pki.client(client)).unwrap();
    }
    for client in ["bad", "bad3"] {
        let reason = reason(&server, &pki, client);
        assert!(reason.starts_with(&format!("certificate 'CN={client}' (serial ")), "{reason}");
        assert!(reason.ends_with(" is revoked by crl-file"), "{reason}");
    }
    for client in ["below", "below3"] {
        let reason = reason(&server, &pki, client);
        assert!(reason.starts_with("certificate 'CN=middle' (serial "), "{reason}");
    }

    // An overdue list still refuses; a list that the authority did not sign revokes nothing.
    pki.write("list.crl", &revocation_list("listed", &key, &revoked, 2025));
    let (server, warnings) = pki.tls(Some("list.crl")).unwrap();
    assert!(warnings.iter().any(|warning| warning.contains("should have been renewed on 2025-01-01")), "{warnings:?}");
    reason(&server, &pki, "bad");
    pki.write("list.crl", &revocation_list("listed", &KeyPair::generate().unwrap(), &revoked, 4000));
    let (server, warnings) = pki.tls(Some("list.crl")).unwrap();
    assert!(warnings.iter().any(|warning| warning.contains("is signed by no authority")), "{warnings:?}");
    outcome(&server, || pki.client("bad")).unwrap();

    pki.write("list.crl", "no list");
    let error = pki.tls(Some("list.crl")).unwrap_err();
    assert!(error.message.starts_with("unable to load CRL file '"), "{}", error.message);
}
