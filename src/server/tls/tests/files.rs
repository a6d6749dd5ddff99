//! Files of certificates and keys as others write them.

use super::*;

#[test]
fn files_as_openssl_and_windows_write_them_are_read() {
    let pki = Pki::of_user_guide();
    let marked = |name: &str| format!("\u{feff}{}", pki.read(name));
    let (server, key, ca) = (marked("server.crt"), marked("server.key"), marked("ca.crt"));
    for (name, text) in [("server.crt", &server), ("server.key", &key), ("ca.crt", &ca)] {
        pki.write(name, text);
    }
    outcome(&pki.server(), || pki.client("client")).unwrap();
    let old = |name: &str| pki.read(name).replace(" CERTIFICATE-", " X509 CERTIFICATE-");
    for name in ["server.crt", "ca.crt"] {
        pki.write(name, &old(name));
    }
    outcome(&pki.server(), || pki.client("client")).unwrap();
    // what OpenSSL writes with -trustout, and what that says of clients
    pki.openssl("x509 -in server.crt -trustout -setalias it -addtrust serverAuth -out trusted.crt");
    pki.write("server.crt", &pki.read("trusted.crt"));
    pki.openssl("x509 -in ca.crt -out plain.crt");
    for (settings, good) in [
        ("", true),
        ("-setalias ours", true),
        ("-addtrust clientAuth", true),
        ("-addtrust anyExtendedKeyUsage", true),
        ("-addreject serverAuth", true),
        ("-addtrust serverAuth", false),
        ("-addreject clientAuth", false),
        ("-addreject anyExtendedKeyUsage", false),
        ("-addtrust clientAuth -addreject clientAuth", false),
    ] {
        pki.openssl(&format!("x509 -in plain.crt -trustout {settings} -out ca.crt"));
        let mut text = pki.read("ca.crt");
        assert!(text.contains("BEGIN TRUSTED CERTIFICATE"), "{settings}");
        pki.authority("other", "/CN=other");
        text.push_str(&pki.read("other.crt"));
        pki.write("ca.crt", &text);
        let (server, warnings) = pki.tls(None).unwrap();
        assert_eq!(outcome(&server, || pki.client("client")).is_ok(), good, "{settings}");
        let warned = warnings.iter().any(|warning| warning.contains("is not trusted for TLS clients"));
        assert_eq!(warned, !good, "{settings}: {warnings:?}");
    }
}

#[test]
fn what_stands_around_certificates_is_passed_over() {
    let pki = Pki::of_user_guide();
    let (server, key, ca) = (pki.read("server.crt"), pki.read("server.key"), pki.read("ca.crt"));
    let blanks = |text: &str| text.replace('\n', " \t\n");
    let trimmed = |text: &str| text.trim_end().to_owned();
    let between = |text: &str| format!("subject=/CN=x\n\n{text}\n# the end\n");
    let one_line = |text: &str| {
        let lines: Vec<_> = text.lines().collect();
        let (first, last) = (lines[0], lines[lines.len() - 1]);
        format!("{first}\n{}\n{last}\n", lines[1..lines.len() - 1].concat())
    };
    let ways: [&dyn Fn(&str) -> String; 4] = [&blanks, &trimmed, &between, &one_line];
    for way in ways {
        for (name, text) in [("server.crt", &server), ("server.key", &key), ("ca.crt", &ca)] {
            pki.write(name, &way(text));
        }
        outcome(&pki.server(), || pki.client("client")).expect("the files are read");
    }
}

#[test]
fn a_file_that_is_no_pem_is_named_with_what_is_looked_for() {
    let pki = Pki::of_user_guide();
    let ca = pki.read("ca.crt");
    let wide: Vec<u8> = ca.encode_utf16().flat_map(u16::to_le_bytes).collect();
    pki.openssl("x509 -in ca.crt -outform DER -out ca.der");
    let der = std::fs::read(pki.path("ca.der")).expect("openssl wrote it");
    let indented = format!("  {}", ca.replace('\n', "\n  ")).into_bytes();
    for content in [wide, der, indented] {
        std::fs::write(pki.path("ca.crt"), content).expect("it can be written");
        let error = pki.tls(None).map(|_| ()).expect_err("it is no PEM");
        assert!(error.message.contains("ca.crt") && error.message.contains("-----BEGIN CERTIFICATE-----"), "{error:?}");
    }
}

#[test]
fn a_broken_authority_among_several_is_left_out_with_a_warning() {
    let pki = Pki::of_user_guide();
    let ca = pki.read("ca.crt");
    let lines: Vec<_> = ca.lines().collect();
    let broken = format!("{}\n{}\n{}\n", lines[0], "AAAA", lines[lines.len() - 1]);
    pki.write("ca.crt", &format!("{broken}{ca}"));
    let (server, warnings) = pki.tls(None).expect("one is left");
    outcome(&server, || pki.client("client")).expect("its clients are let in");
    assert!(warnings.iter().any(|warning| warning.contains("ca.crt")), "{warnings:?}");
}
