//! Handshakes with certificates as administrators have them, in both TLS versions.

mod files;
mod openssl;
mod revocation;

use std::sync::Arc;
use std::time::Duration;

use rcgen::KeyPair;
use rustls::crypto::aws_lc_rs;
use rustls::server::danger::ClientCertVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::authorities::Authorities;
use super::certificate::Certificate;
use super::revocation::RevocationLists;
use super::testing::{BOTH, Pki, client_config, handshake, outcome};
use super::verifier::ClientVerifier;
use super::{Reasons, Tls, TlsFiles, identity, server_config};
use crate::config::snapshot::Origin;
use crate::protocol::error::Code;

const CA_EXTENSIONS: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n";

fn authority_params(name: &str) -> rcgen::CertificateParams {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params
}

fn reason(server: &Tls, pki: &Pki, client: &str) -> String {
    outcome(server, || pki.client(client)).expect_err("the server accepted what it has to refuse")
}

/// The server's configuration with its clock moved.
fn at(server: &Tls, days: i64) -> Tls {
    #[derive(Debug)]
    struct Moved(i64);
    impl TimeProvider for Moved {
        fn current_time(&self) -> Option<UnixTime> {
            let now = i64::try_from(UnixTime::now().as_secs()).unwrap() + self.0 * 86400;
            Some(UnixTime::since_unix_epoch(Duration::from_secs(now.try_into().unwrap())))
        }
    }
    let mut config = ServerConfig::clone(&server.config);
    config.time_provider = Arc::new(Moved(days));
    Tls { config: Arc::new(config), ..server.clone() }
}

#[test]
fn certificates_of_the_user_guide_work_in_both_tls_versions() {
    let pki = Pki::of_user_guide();
    pki.version_1_ec("other", "/CN=other", "ca");
    assert_eq!(Certificate::parse(&pki.certificates("client")[0]).unwrap().version, 1, "not what the user guide makes");
    let server = pki.server();
    for version in BOTH {
        let connection = handshake(&server, client_config(version, Some(pki.client("client")))).unwrap();
        let client = identity(&connection).unwrap().unwrap();
        assert_eq!(client.title, "pgbackrest-client");
        assert_eq!(client.names, ["pgbackrest-client"]);
        let connection = handshake(&server, client_config(version, Some(pki.client("other")))).unwrap();
        assert_eq!(identity(&connection).unwrap().unwrap().names, ["other"]);
    }
}

#[test]
fn a_server_with_an_ec_key_of_version_1_works() {
    let pki = Pki::of_user_guide();
    pki.version_1_ec("server", "/CN=localhost", "ca");
    outcome(&pki.server(), || pki.client("client")).unwrap();
}

#[test]
fn a_client_without_certificate_is_let_in_without_identity() {
    let pki = Pki::of_user_guide();
    let server = pki.server();
    for version in BOTH {
        let connection = handshake(&server, client_config(version, None)).unwrap();
        assert_eq!(identity(&connection).unwrap(), None);
    }
}

#[test]
fn a_client_of_another_authority_is_refused_and_the_log_names_both() {
    let pki = Pki::of_user_guide();
    pki.authority("foreign", "/CN=foreign");
    pki.version_1_ec("stranger", "/CN=pgbackrest-client", "foreign");
    assert_eq!(
        reason(&pki.server(), &pki, "stranger"),
        "certificate 'CN=pgbackrest-client' was issued by 'CN=foreign', which is not in tls-server-ca-file"
    );
    pki.version_3("stranger3", "/CN=pgbackrest-client", "foreign", "basicConstraints=CA:FALSE");
    assert_eq!(
        reason(&pki.server(), &pki, "stranger3"),
        "certificate 'CN=pgbackrest-client' was issued by 'CN=foreign', which is not in tls-server-ca-file"
    );
}

#[test]
fn an_authority_made_anew_under_its_old_name_is_explained() {
    let pki = Pki::of_user_guide();
    pki.authority("again", "/C=US/ST=All/L=All/O=pgBackRest/CN=pgbackrest.org");
    pki.version_1_ec("stranger", "/CN=pgbackrest-client", "again");
    pki.version_3("stranger3", "/CN=pgbackrest-client", "again", "basicConstraints=CA:FALSE");
    let server = pki.server();
    for client in ["stranger", "stranger3"] {
        let reason = reason(&server, &pki, client);
        assert!(reason.contains("was not signed by the 'C=US"), "{reason}");
        assert!(reason.contains("made anew under its old name"), "{reason}");
    }
}

#[test]
fn expired_and_future_certificates_are_refused_with_their_date() {
    let pki = Pki::of_user_guide();
    pki.version_3("client3", "/CN=three", "ca", "basicConstraints=CA:FALSE");
    let server = pki.server();
    for (client, name) in [("client", "pgbackrest-client"), ("client3", "three")] {
        outcome(&at(&server, 8), || pki.client(client)).unwrap();
        let late = reason(&at(&server, 12), &pki, client);
        assert!(late.starts_with(&format!("certificate 'CN={name}' expired on 20")), "{late}");
        assert!(late.ends_with(" UTC (3 days ago)"), "{late}");
    }
    // An authority that is older than its clients, so that the client alone is from the future.
    let early = reason(&at(&server, -1), &pki, "client");
    assert!(early.starts_with("CA certificate 'C=US") && early.contains("is not valid before"), "{early}");
    let key = KeyPair::generate().unwrap();
    let authority = authority_params("old authority").self_signed(&key).unwrap();
    pki.write("ca.crt", &authority.pem());
    pki.write("ca.key", &key.serialize_pem());
    pki.version_1_ec("client", "/CN=early", "ca");
    pki.version_3("client3", "/CN=early", "ca", "basicConstraints=CA:FALSE");
    let server = pki.server();
    for client in ["client", "client3"] {
        outcome(&server, || pki.client(client)).unwrap();
        let early = reason(&at(&server, -1), &pki, client);
        assert!(early.starts_with("certificate 'CN=early' is not valid before 20"), "{early}");
    }
}

#[test]
fn an_expired_authority_lets_nobody_in() {
    let pki = Pki::of_user_guide();
    pki.openssl("req -new -x509 -extensions v3_ca -key ca.key -out ca.crt -days 3 -subj /CN=short");
    pki.version_1_ec("client", "/CN=one", "ca");
    pki.version_3("client3", "/CN=three", "ca", "basicConstraints=CA:FALSE");
    let server = pki.server();
    for client in ["client", "client3"] {
        outcome(&server, || pki.client(client)).unwrap();
        let reason = reason(&at(&server, 5), &pki, client);
        assert!(reason.starts_with("CA certificate 'CN=short' expired on "), "{reason}");
    }
    // A renewed authority keeps name and key, and the old certificate does no harm beside it.
    let old = pki.read("ca.crt");
    pki.openssl("req -new -x509 -extensions v3_ca -key ca.key -out ca.crt -days 300 -subj /CN=short");
    pki.write("ca.crt", &(old + &pki.read("ca.crt")));
    let server = at(&pki.server(), 5);
    for client in ["client", "client3"] {
        outcome(&server, || pki.client(client)).unwrap();
    }
}

#[test]
fn a_self_signed_client_is_accepted_only_when_the_file_holds_it() {
    let pki = Pki::of_user_guide();
    pki.openssl("req -x509 -newkey rsa:2048 -nodes -keyout self.key -out self.crt -days 9 -subj /CN=self");
    assert_eq!(
        reason(&pki.server(), &pki, "self"),
        "certificate 'CN=self' is self-signed and not in tls-server-ca-file"
    );
    pki.write("ca.crt", &(pki.read("ca.crt") + &pki.read("self.crt")));
    let server = pki.server();
    outcome(&server, || pki.client("self")).unwrap();
    outcome(&server, || pki.client("client")).unwrap();
    assert!(reason(&at(&server, 10), &pki, "self").contains("expired on"));
}

#[test]
fn an_altered_certificate_is_refused() {
    let pki = Pki::of_user_guide();
    let server = pki.server();
    let original = pki.certificates("client")[0].to_vec();
    let name = original.windows(17).rposition(|window| window == b"pgbackrest-client").unwrap();
    for place in [name, original.len() - 1, original.len() - 100] {
        let altered = || {
            let mut der = original.clone();
            der[place] ^= 1;
            (vec![CertificateDer::from(der)], pki.key("client"))
        };
        let reason = outcome(&server, altered).unwrap_err();
        assert!(reason.contains("was altered"), "{reason}");
    }
    for length in [0, 1, 20, original.len() - 1] {
        let cut = || (vec![CertificateDer::from(original[..length].to_vec())], pki.key("client"));
        outcome(&server, cut).unwrap_err();
    }
}

#[test]
fn no_single_altered_bit_makes_a_certificate_pass() {
    let pki = Pki::of_user_guide();
    pki.version_3("client3", "/CN=three", "ca", "basicConstraints=CA:FALSE");
    let authorities = Authorities::load(&Origin::Disk, &pki.path("ca.crt"), 0, &mut Vec::new()).unwrap();
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    let verifier = ClientVerifier::new(authorities, RevocationLists::default(), algorithms, Reasons::default());
    for client in ["client", "client3"] {
        let original = pki.certificates(client)[0].to_vec();
        let verify = |der: &[u8]| verifier.verify_client_cert(&CertificateDer::from(der), &[], UnixTime::now());
        verify(&original).unwrap();
        for bit in 0..original.len() * 8 {
            let mut altered = original.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&altered).is_err(), "{client} passed with bit {bit} altered");
        }
    }
}

#[test]
fn a_certificate_without_its_key_is_worth_nothing() {
    let pki = Pki::of_user_guide();
    pki.version_1_ec("thief", "/CN=thief", "ca");
    pki.version_3("client3", "/CN=three", "ca", "basicConstraints=CA:FALSE");
    pki.version_3("thief3", "/CN=thief", "ca", "basicConstraints=CA:FALSE");
    let server = pki.server();
    for (victim, thief, name) in [("client", "thief", "pgbackrest-client"), ("client3", "thief3", "three")] {
        let reason = outcome(&server, || (pki.certificates(victim), pki.key(thief))).unwrap_err();
        assert_eq!(
            reason,
            format!("the client does not hold the private key of the certificate 'CN={name}' that it presented")
        );
    }
}

#[test]
fn chains_with_intermediates_work_for_version_1_and_3() {
    let pki = Pki::of_user_guide();
    pki.version_3("middle", "/CN=middle", "ca", CA_EXTENSIONS);
    pki.version_3("lower", "/CN=lower", "middle", CA_EXTENSIONS);
    pki.version_1_ec("client", "/CN=one", "lower");
    pki.version_3("client3", "/CN=three", "lower", "extendedKeyUsage=clientAuth");
    let server = pki.server();
    for client in ["client", "client3"] {
        assert!(reason(&server, &pki, client).contains("issued by 'CN=lower'"));
        let alone = pki.read(&format!("{client}.crt"));
        // The order of the intermediates is the client's affair.
        for chain in [["lower.crt", "middle.crt"], ["middle.crt", "lower.crt"]] {
            pki.write(&format!("{client}.crt"), &(alone.clone() + &pki.read(chain[0]) + &pki.read(chain[1])));
            outcome(&server, || pki.client(client)).unwrap();
        }
        pki.write(&format!("{client}.crt"), &(alone.clone() + &pki.read("lower.crt")));
        outcome(&server, || pki.client(client)).unwrap_err();
    }
}

#[test]
fn a_client_that_was_let_in_is_refused_once_an_intermediate_has_expired() {
    let pki = Pki::of_user_guide();
    pki.version_3("middle", "/CN=middle", "ca", CA_EXTENSIONS);
    pki.openssl(
        "x509 -req -in middle.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out middle.crt -days 3 -extfile extensions.cnf",
    );
    pki.version_1_ec("client", "/CN=one", "middle");
    pki.version_3("client3", "/CN=three", "middle", "extendedKeyUsage=clientAuth");
    let server = pki.server();
    for client in ["client", "client3"] {
        pki.write(&format!("{client}.crt"), &(pki.read(&format!("{client}.crt")) + &pki.read("middle.crt")));
        for days in [0, 2, 0] {
            outcome(&at(&server, days), || pki.client(client)).unwrap();
        }
        let reason = reason(&at(&server, 5), &pki, client);
        assert!(reason.contains("expired on "), "{reason}");
    }
}

#[test]
fn a_client_cannot_sign_other_clients() {
    let pki = Pki::of_user_guide();
    pki.version_3("leaf3", "/CN=leaf", "ca", "basicConstraints=CA:FALSE");
    pki.version_3("limited", "/CN=limited", "ca", "basicConstraints=CA:TRUE,pathlen:0");
    pki.version_3("below", "/CN=below", "limited", CA_EXTENSIONS);
    pki.version_3("nosign", "/CN=nosign", "ca", "basicConstraints=CA:TRUE\nkeyUsage=digitalSignature");
    let server = pki.server();
    let chains: [&[&str]; 4] = [&["client"], &["leaf3"], &["nosign"], &["below", "limited"]];
    for chain in chains {
        pki.version_1_ec("forged", "/CN=admin", chain[0]);
        let forged = pki.read("forged.crt");
        let whole = chain.iter().fold(forged, |text, name| text + &pki.read(&format!("{name}.crt")));
        pki.write("forged.crt", &whole);
        let reason = reason(&server, &pki, "forged");
        assert!(reason.contains("no CA certificate") || reason.contains("may not sign"), "{chain:?}: {reason}");
    }
}

#[test]
fn a_leaf_in_the_authorities_file_does_not_become_an_authority() {
    let pki = Pki::of_user_guide();
    pki.version_3("leaf3", "/CN=leaf", "ca", "basicConstraints=CA:FALSE");
    pki.write("ca.crt", &(pki.read("ca.crt") + &pki.read("leaf3.crt") + &pki.read("client.crt")));
    let (server, warnings) = pki.tls(None).unwrap();
    let ignored = warnings.iter().filter(|warning| warning.contains("it is no CA certificate: ignored")).count();
    assert_eq!(ignored, 2, "{warnings:?}");
    for signer in ["leaf3", "client"] {
        pki.version_1_ec("forged", "/CN=admin", signer);
        assert!(reason(&server, &pki, "forged").contains("is not in tls-server-ca-file"));
    }
    outcome(&server, || pki.client("client")).unwrap();
}

#[test]
fn every_authority_of_the_file_counts_also_one_of_version_1() {
    let pki = Pki::of_user_guide();
    pki.openssl("genrsa -out old.key 2048");
    pki.openssl("req -new -sha256 -nodes -out old.csr -key old.key -subj /CN=old");
    pki.openssl("x509 -req -in old.csr -signkey old.key -out old.crt -days 99");
    pki.version_1_ec("guest", "/CN=guest", "old");
    pki.version_3("guest3", "/CN=guest", "old", "basicConstraints=CA:FALSE");
    pki.write("ca.crt", &("a comment\n".to_owned() + &pki.read("ca.crt") + &pki.read("old.crt")));
    let server = pki.server();
    for client in ["client", "guest", "guest3"] {
        outcome(&server, || pki.client(client)).unwrap();
    }
}

#[test]
fn a_certificate_that_is_not_for_clients_is_refused_and_the_log_names_what_it_lacks() {
    const KEY_USAGE: &str = "key usage lacks digitalSignature";
    const PURPOSE: &str = "extended key usage lacks clientAuth";
    const AUTHORITY: &str = "is a CA's own";
    let pki = Pki::of_user_guide();
    let cases = [
        ("", None),
        ("keyUsage=critical,digitalSignature", None),
        ("keyUsage=critical,keyAgreement", None),
        ("keyUsage=critical,digitalSignature,keyEncipherment", None),
        ("keyUsage=critical,keyEncipherment", Some(KEY_USAGE)),
        ("keyUsage=keyEncipherment,dataEncipherment", Some(KEY_USAGE)),
        ("keyUsage=critical,keyCertSign", Some(KEY_USAGE)),
        ("keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth", Some(PURPOSE)),
        ("keyUsage=critical,DER:03020000", Some(KEY_USAGE)),
        ("keyUsage=DER:0303", Some(KEY_USAGE)),
        ("nsCertType=server", Some("nsCertType lacks client")),
        ("nsCertType=sslCA", Some("nsCertType lacks client")),
        ("nsCertType=DER:0500", Some("nsCertType lacks client")),
        ("nsCertType=client", None),
        ("nsCertType=client,server", None),
        ("extendedKeyUsage=clientAuth", None),
        ("extendedKeyUsage=serverAuth", Some(PURPOSE)),
        ("extendedKeyUsage=anyExtendedKeyUsage", Some(PURPOSE)),
        ("extendedKeyUsage=serverAuth,clientAuth", None),
        ("basicConstraints=CA:TRUE", Some(AUTHORITY)),
        ("basicConstraints=CA:TRUE\nextendedKeyUsage=clientAuth", Some(AUTHORITY)),
        ("basicConstraints=CA:TRUE\nkeyUsage=digitalSignature,keyCertSign", Some(AUTHORITY)),
        ("1.2.3.4=critical,ASN1:NULL", Some("critical extension")),
    ];
    let server = pki.server();
    for (extensions, lack) in cases {
        pki.version_3("client3", "/CN=three", "ca", &format!("subjectKeyIdentifier=hash\n{extensions}"));
        let outcome = outcome(&server, || pki.client("client3"));
        match lack {
            None => assert_eq!(outcome, Ok(()), "{extensions:?}"),
            Some(lack) => {
                let reason = outcome.expect_err(extensions);
                assert!(
                    reason.starts_with("certificate 'CN=three' ") && reason.contains(lack),
                    "{extensions:?}: {reason}"
                );
            }
        }
    }
    // The same of a certificate that the file holds itself.
    for (extension, lack) in [("", None), ("-addext keyUsage=keyCertSign", Some(KEY_USAGE))] {
        pki.openssl(&format!(
            "req -x509 -newkey rsa:2048 -nodes -keyout self.key -out self.crt -days 9 -subj /CN=self {extension}"
        ));
        pki.write("ca.crt", &pki.read("self.crt"));
        let outcome = outcome(&pki.server(), || pki.client("self"));
        assert_eq!(outcome.err().map(|reason| reason.contains(lack.unwrap_or("-"))), lack.map(|_| true));
    }
}

#[test]
fn whoever_may_not_sign_has_no_clients() {
    let pki = Pki::of_user_guide();
    let server = pki.server();
    for (usage, good) in [("digitalSignature", false), ("cRLSign", false), ("keyCertSign", true)] {
        pki.version_3("middle", "/CN=middle", "ca", &format!("basicConstraints=critical,CA:TRUE\nkeyUsage={usage}"));
        pki.version_1_ec("client", "/CN=one", "middle");
        pki.version_3("client3", "/CN=three", "middle", "extendedKeyUsage=clientAuth");
        for client in ["client", "client3"] {
            pki.write(&format!("{client}.crt"), &(pki.read(&format!("{client}.crt")) + &pki.read("middle.crt")));
            let outcome = outcome(&server, || pki.client(client));
            assert_eq!(outcome.is_ok(), good, "{usage}: {outcome:?}");
            let named = |reason: String| reason.contains("'CN=middle' may not sign") && reason.contains("keyCertSign");
            assert!(outcome.err().is_none_or(named), "{usage}");
        }
    }
}

#[test]
fn a_certificate_that_clients_refuse_of_a_server_is_warned_of() {
    let pki = Pki::of_user_guide();
    let cases = [
        ("keyUsage=critical,digitalSignature", None),
        ("keyUsage=critical,keyEncipherment", None),
        ("keyUsage=critical,keyCertSign", Some("since its key usage lacks digitalSignature")),
        ("extendedKeyUsage=serverAuth", None),
        ("extendedKeyUsage=clientAuth", Some("since its extended key usage lacks serverAuth")),
        ("nsCertType=client", Some("since its nsCertType lacks server")),
    ];
    for (extensions, lack) in cases {
        pki.version_3("server", "/CN=localhost", "ca", extensions);
        let (_, warnings) = pki.tls(None).unwrap();
        let found = warnings.iter().find(|warning| warning.contains("is not made for TLS servers"));
        assert_eq!(found.map(|warning| warning.contains(lack.unwrap_or("-"))), lack.map(|_| true), "{extensions}");
    }
}

#[test]
fn alternative_names_follow_the_common_name() {
    let pki = Pki::of_user_guide();
    pki.version_3("client3", "/O=x/CN=first/CN=second", "ca", "subjectAltName=DNS:db1.example,DNS:first,IP:127.0.0.1");
    pki.version_3("nameless", "/O=x", "ca", "subjectAltName=DNS:db2.example");
    pki.version_1_ec("nobody", "/O=x", "ca");
    let server = pki.server();
    let identity_of = |client: &str| {
        let connection = handshake(&server, client_config(BOTH[1], Some(pki.client(client)))).unwrap();
        identity(&connection)
    };
    let client = identity_of("client3").unwrap().unwrap();
    assert_eq!(client.title, "first");
    assert_eq!(client.names, ["first", "db1.example"]);
    let nameless = identity_of("nameless").unwrap().unwrap();
    assert_eq!((nameless.title.as_str(), nameless.names), ("O=x", vec!["db2.example".to_owned()]));
    let error = identity_of("nobody").unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (Code::Format, "common name is missing"));
}

#[test]
fn broken_files_are_reported_in_the_originals_order_and_words() {
    let pki = Pki::of_user_guide();
    let fails = |start: &str, part: &str| {
        let error = pki.tls(None).unwrap_err();
        let start = start.replace("DIR", &pki.path("").display().to_string());
        assert_eq!(error.code, Code::Crypto, "{error}");
        assert!(error.message.starts_with(&start) && error.message.contains(part), "{error}\nwanted: {start} … {part}");
    };
    let (cert, key, ca) = (pki.read("server.crt"), pki.read("server.key"), pki.read("ca.crt"));

    pki.write("ca.crt", "nothing");
    fails("unable to load CA file 'DIRca.crt': ", "no PEM certificate");
    std::fs::remove_file(pki.path("ca.crt")).unwrap();
    fails("unable to load CA file 'DIRca.crt': [2] No such file or directory", "");

    pki.write("server.key", &pki.read("client.key"));
    fails("unable to load key file 'DIRserver.key': key values mismatch\nHINT: ", "'CN=localhost'");
    pki.write("server.key", "nothing");
    fails("unable to load key file 'DIRserver.key': ", "no PEM private key");
    pki.write("server.key", &key);
    for (encrypt, what) in
        [("pkcs8 -topk8 -in server.key", "PKCS#8"), ("rsa -aes256 -traditional -in server.key", "PKCS#1")]
    {
        pki.openssl(&format!("{encrypt} -passout pass:secret -out locked.key"));
        pki.write("server.key", &pki.read("locked.key"));
        fails("unable to load key file 'DIRserver.key': it is encrypted", "openssl pkey");
        assert!(pki.read("server.key").contains("ENCRYPTED"), "{what}");
        pki.write("server.key", &key);
    }
    std::fs::remove_file(pki.path("server.key")).unwrap();
    fails("unable to load key file 'DIRserver.key': [2] No such file or directory", "");

    pki.write("server.crt", &cert.replacen("MII", "!!!", 1));
    fails("unable to load cert file 'DIRserver.crt': it is damaged", "");
    pki.write("server.crt", &key);
    fails("unable to load cert file 'DIRserver.crt': it contains no PEM certificate", "");

    pki.write("server.crt", &cert);
    pki.write("server.key", &key);
    pki.write("ca.crt", &ca);
    pki.server();
}

#[test]
fn a_key_that_others_can_read_is_refused_before_it_is_read() {
    use std::os::unix::fs::PermissionsExt;
    let pki = Pki::of_user_guide();
    pki.write("server.key", "nothing");
    std::fs::set_permissions(pki.path("server.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = pki.tls(None).unwrap_err();
    assert_eq!(error.code, Code::FileRead);
    assert!(error.message.contains("' has group or other permissions\nHINT: "), "{}", error.message);
}

#[test]
fn ciphers_of_the_configuration_are_the_ones_negotiated() {
    let pki = Pki::of_user_guide();
    let (server, warnings) = server_config(&TlsFiles {
        cert: &pki.path("server.crt"),
        key: &pki.path("server.key"),
        ca: &pki.path("ca.crt"),
        crl: None,
        cipher_12: Some("ECDHE-RSA-CHACHA20-POLY1305:NO-SUCH"),
        cipher_13: Some("TLS_CHACHA20_POLY1305_SHA256"),
        user: None,
        origin: &Origin::Disk,
    })
    .unwrap();
    assert!(warnings.iter().any(|warning| warning.contains("'NO-SUCH'")), "{warnings:?}");
    for version in BOTH {
        let connection = handshake(&server, client_config(version, Some(pki.client("client")))).unwrap();
        let suite = format!("{:?}", connection.negotiated_cipher_suite().unwrap().suite());
        assert!(suite.contains("CHACHA20"), "{suite}");
    }
}

#[test]
fn what_is_not_tls_is_named_by_what_it_is() {
    let pki = Pki::of_user_guide();
    let server = pki.server();
    let mut connection = ServerConnection::new(server.config).unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    connection.read_tls(&mut request.as_slice()).unwrap();
    let error = connection.process_new_packets().unwrap_err();
    let reason = server.reasons.of(&error, &request[..8]);
    assert!(reason.starts_with("the client speaks plain HTTP on the TLS port"), "{reason}");
}
