//! Encryption, with vectors of OpenSSL.

use super::*;

#[test]
fn a_file_of_openssl_is_decrypted_and_openssls_padding_checked() {
    assert_eq!(run(vec![decrypt(Digest::Sha1, true)], &unhex(OPENSSL_SHA1)).unwrap(), PLAIN);
    assert_eq!(run(vec![decrypt(Digest::Sha256, true)], &unhex(OPENSSL_SHA256)).unwrap(), PLAIN);
    assert_eq!(run(vec![decrypt(Digest::Sha1, true)], &unhex(OPENSSL_EMPTY)).unwrap(), b"");
    for (digest, hex) in OPENSSL_FIXED_SALT {
        let data = [vec![1, 2, 3, 4, 5, 6, 7, 8], unhex(hex)].concat();
        assert_eq!(run(vec![decrypt(*digest, false)], &data).unwrap(), PLAIN);
    }
}

#[test]
fn nothing_is_encrypted_to_a_header_and_one_block() {
    let with_magic = run(vec![encrypt(Digest::Sha1, true)], b"").unwrap();
    assert!(with_magic.len() == 32 && with_magic.starts_with(b"Salted__"));
    assert_eq!(run(vec![encrypt(Digest::Sha1, false)], b"").unwrap().len(), 24);
}

#[test]
fn the_same_file_is_encrypted_with_another_salt_each_time() {
    assert_ne!(
        run(vec![encrypt(Digest::Sha1, true)], PLAIN).unwrap(),
        run(vec![encrypt(Digest::Sha1, true)], PLAIN).unwrap()
    );
}

#[test]
fn a_file_that_cannot_be_decrypted_is_refused_in_the_originals_words() {
    let data = unhex(OPENSSL_SHA1);
    let crypto = |message: &str| Error::new(Code::Crypto, message);
    for filter in [decrypt(Digest::Sha1, true), by_format(&["0"], None)] {
        for at in 0..data.len() {
            let expected = if at < 16 { "cipher header missing" } else { "unable to flush" };
            assert_eq!(failure(vec![filter.clone()], &data[..at]), crypto(expected), "cut at {at}");
        }
    }
    // The last block depends on every byte of the key.
    assert_eq!(failure(vec![decrypt(Digest::Sha256, true)], &data), crypto("unable to flush"));
    assert_eq!(failure(vec![decrypt(Digest::Sha1, true)], b"[backrest]\nbackrest-"), crypto("cipher header invalid"));
    assert_eq!(failure(vec![decrypt(Digest::Sha1, true)], b"[backrest]"), crypto("cipher header missing"));
}

/// The ciphertext of [`PLAIN`], after its salt, behind `introduction`.
fn with_introduction(introduction: &[u8], digest: Digest) -> Vec<u8> {
    let specs = vec![encrypt(digest, false), FilterSpec::CipherHeader(introduction.to_vec())];
    run(specs, PLAIN).unwrap()
}

#[test]
fn every_form_of_header_is_read_wherever_it_is_split() {
    for (data, format) in [
        (unhex(OPENSSL_SHA1), 5),
        (with_introduction(b"PGBR006_", Digest::Sha256), 6),
        (with_introduction(b"PGBR006K\x05key-1", Digest::Sha256), 6),
        (with_introduction(&[&b"PGBR006K\xff"[..], &[b'k'; 255]].concat(), Digest::Sha256), 6),
        (with_introduction(b"PGBR005K\x00", Digest::Sha256), 5),
    ] {
        for expected in [None, Some(format)] {
            for at in 1..=data.len() {
                let long = "k".repeat(255);
                let mut chain = Chain::new(vec![by_format(&["other", "key-1", "0", &long, ""], expected)]).unwrap();
                assert_eq!(drive(&mut chain, &data, &[(at, 64, usize::MAX)]).unwrap(), PLAIN);
                assert_eq!(chain.results(), [(FilterSpec::name(&by_format(&[], None)), FilterResult::Format(format))]);
            }
        }
    }
}

#[test]
fn a_header_that_does_not_fit_is_refused_in_the_originals_words() {
    let refuse = |ids: &[&str], expected, data: &[u8]| failure(vec![by_format(ids, expected)], data);
    let sha256 = Digest::Sha256;
    let crypto = |message: &str| Error::new(Code::Crypto, message);
    assert_eq!(
        refuse(&["0"], Some(6), &unhex(OPENSSL_SHA1)),
        Error::format("expected repository format 6 but found 5")
    );
    assert_eq!(
        refuse(&["0"], None, &with_introduction(b"PGBR007_", sha256)),
        Error::format("repository format 7 requires a newer version of pgBackRest")
    );
    assert_eq!(
        refuse(&["0", "b"], None, &with_introduction(b"PGBR006K\x01a", sha256)),
        crypto("unable to find cipher key 'a'")
    );
    assert_eq!(
        refuse(&["0"], None, b"PGBR100?"),
        Error::format("repository format 100 requires a newer version of pgBackRest")
    );
    assert_eq!(refuse(&["b"], None, &unhex(OPENSSL_SHA1)), crypto("unable to find cipher key '0'"));
    for header in [&b"[backrest]\nbackrest-format=5\n"[..], b"PGBR006xabcdefghijkl", b"PGBR0x6_abcdefghijkl"] {
        assert_eq!(refuse(&["0"], None, header), Error::format("invalid cipher header"));
    }
    assert_eq!(refuse(&["0"], None, b"PGBR006K\x05key"), crypto("cipher header missing"));
    assert_eq!(refuse(&["0"], None, b""), crypto("cipher header missing"));
}

#[test]
fn a_key_of_the_list_may_name_its_own_digest() {
    let key = |digest| CipherKey { id: "0".to_string(), digest, pass: secret() };
    let filter = |digest| FilterSpec::CipherFormat { keys: vec![key(digest)], expected: None };
    assert_eq!(run(vec![filter(Some(Digest::Sha256))], &unhex(OPENSSL_SHA256)).unwrap(), PLAIN);
    let data = with_introduction(b"PGBR006_", Digest::Sha1);
    assert_eq!(run(vec![filter(Some(Digest::Sha1))], &data).unwrap(), PLAIN);
}

#[test]
fn a_long_header_comes_before_the_data_at_any_limit() {
    let header = sample(200_000);
    let mut chain = Chain::new(vec![FilterSpec::CipherHeader(header.clone())]).unwrap();
    let output = drive(&mut chain, PLAIN, &[(3, 1000, 5000)]).unwrap();
    assert_eq!(output, [&header[..], PLAIN].concat());
    assert_eq!(run(vec![FilterSpec::CipherHeader(header.clone())], b"").unwrap(), header);
}
