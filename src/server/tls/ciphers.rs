//! From OpenSSL's names of ciphers to the suites of rustls.
//!
//! `tls-cipher-12` is an OpenSSL cipher list: names and keywords, with `!` and `-` to take away.
//! `tls-cipher-13` is a list of suite names. rustls implements the suites that are safe today, so a
//! list can name what does not exist here: that is a warning, as long as something remains.

use rustls::{CipherSuite, SupportedCipherSuite};

use crate::protocol::error::{Code, Error, Result};

/// OpenSSL's names of the suites.
const NAMES: [(CipherSuite, &str); 9] = [
    (CipherSuite::TLS13_AES_256_GCM_SHA384, "TLS_AES_256_GCM_SHA384"),
    (CipherSuite::TLS13_AES_128_GCM_SHA256, "TLS_AES_128_GCM_SHA256"),
    (CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, "TLS_CHACHA20_POLY1305_SHA256"),
    (CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "ECDHE-ECDSA-AES256-GCM-SHA384"),
    (CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "ECDHE-ECDSA-AES128-GCM-SHA256"),
    (CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-ECDSA-CHACHA20-POLY1305"),
    (CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, "ECDHE-RSA-AES256-GCM-SHA384"),
    (CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "ECDHE-RSA-AES128-GCM-SHA256"),
    (CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-RSA-CHACHA20-POLY1305"),
];

/// Keywords that select every suite for TLS 1.2 that exists here.
const EVERY: [&str; 8] = ["ALL", "DEFAULT", "HIGH", "TLSv1.2", "ECDHE", "EECDH", "kECDHE", "kEECDH"];

/// The suites of `available` that the two lists leave, those for TLS 1.3 first, in the order of the lists;
/// without a list in the order of what they cost here.
pub(super) fn select(
    available: &[SupportedCipherSuite],
    list_12: Option<&str>,
    list_13: Option<&str>,
    warnings: &mut Vec<String>,
) -> Result<Vec<SupportedCipherSuite>> {
    let has_aes = has_aes();
    let mut chosen = Vec::new();
    for (version, option, list) in [("TLSv1.3", "tls-cipher-13", list_13), ("TLSv1.2", "tls-cipher-12", list_12)] {
        let is_of_version = |suite: &&SupportedCipherSuite| suite.tls13().is_some() == (version == "TLSv1.3");
        let mut suites: Vec<_> = available.iter().filter(is_of_version).copied().collect();
        suites.sort_by_key(|suite| cost(suite.suite(), has_aes));
        if let Some(list) = list {
            suites = apply(option, list, &suites, warnings);
            refuse_empty(version, option, list, &suites)?;
        }
        chosen.extend(suites);
    }
    Ok(chosen)
}

/// How suites compare in what a transferred byte costs. All of them are safe; AES with the longer key takes
/// 14 rounds for 10, and its SHA-384 has no instructions where SHA-256 has.
fn cost(suite: CipherSuite, has_aes: bool) -> u8 {
    let name = NAMES.iter().find(|(known, ..)| *known == suite).map_or("", |(_, name)| *name);
    match (has_aes, name.contains("CHACHA20"), name.contains("128")) {
        (true, false, true) | (false, true, _) => 0,
        (true, false, false) | (false, false, true) => 1,
        (true, true, _) | (false, false, false) => 2,
    }
}

/// Whether the processor has instructions for AES.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

fn refuse_empty(version: &str, option: &str, list: &str, chosen: &[SupportedCipherSuite]) -> Result<()> {
    if !chosen.is_empty() {
        return Ok(());
    }
    let tls13 = version == "TLSv1.3";
    let known: Vec<&str> =
        NAMES.iter().filter(|(_, name)| name.starts_with("TLS_") == tls13).map(|(_, name)| *name).collect();
    Err(Error::new(
        Code::Crypto,
        format!(
            "unable to set {version} ciphers: no cipher match\nHINT: nothing in {option}={list} is supported here; \
             supported are {}.",
            known.join(", ")
        ),
    ))
}

/// Walks through one list, as OpenSSL does: a name adds, `-` takes away for now, `!` for good.
fn apply(
    option: &str,
    list: &str,
    available: &[SupportedCipherSuite],
    warnings: &mut Vec<String>,
) -> Vec<SupportedCipherSuite> {
    let mut chosen: Vec<SupportedCipherSuite> = Vec::new();
    let mut banned: Vec<CipherSuite> = Vec::new();
    let tokens = list.split([':', ',', ' ', ';']).map(str::trim).filter(|token| !token.is_empty());
    for token in tokens {
        // Orders and security levels of OpenSSL change nothing among the suites that exist here.
        if token.starts_with('@') {
            continue;
        }
        let (action, name) = match token.chars().next() {
            Some(sign @ ('!' | '-' | '+')) => (sign, token.trim_start_matches(sign)),
            _ => (' ', token),
        };
        let meant: Vec<SupportedCipherSuite> =
            available.iter().copied().filter(|suite| is_meant(suite.suite(), name)).collect();
        match action {
            '!' | '-' => {
                chosen.retain(|suite| !meant.contains(suite));
                if action == '!' {
                    banned.extend(meant.iter().map(SupportedCipherSuite::suite));
                }
            }
            '+' => {
                let (back, front) = chosen.iter().partition(|suite| meant.contains(suite));
                chosen = front;
                chosen.extend::<Vec<SupportedCipherSuite>>(back);
            }
            _ if meant.is_empty() => {
                warnings.push(format!("option '{option}' names cipher '{name}', which is not supported here: ignored"));
            }
            _ => {
                let new = meant.into_iter().filter(|suite| !banned.contains(&suite.suite()));
                for suite in new {
                    if !chosen.contains(&suite) {
                        chosen.push(suite);
                    }
                }
            }
        }
    }
    chosen
}

/// Whether `name` (a name, a keyword or keywords joined by `+`) means `suite`.
fn is_meant(suite: CipherSuite, name: &str) -> bool {
    let Some((_, own_name)) = NAMES.iter().find(|(known, ..)| *known == suite) else { return false };
    let tls13 = own_name.starts_with("TLS_");
    name.split('+').all(|part| own_name.eq_ignore_ascii_case(part) || (!tls13 && is_selected(own_name, part)))
}

/// Whether a keyword of lists for TLS 1.2 selects the suite of this name, in which everything is said of it.
fn is_selected(name: &str, keyword: &str) -> bool {
    let has = |part: &str| name.split('-').any(|own| own == part);
    match keyword {
        "aRSA" => has("RSA"),
        "aECDSA" => has("ECDSA"),
        "AES" => has("AES128") || has("AES256"),
        "AESGCM" => has("GCM"),
        "ECDSA" | "AES128" | "AES256" | "CHACHA20" | "SHA256" | "SHA384" => has(keyword),
        _ => EVERY.contains(&keyword),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::aws_lc_rs;

    fn names(list_12: Option<&str>, list_13: Option<&str>) -> Result<(Vec<&'static str>, Vec<String>)> {
        let mut warnings = Vec::new();
        let suites = select(&aws_lc_rs::default_provider().cipher_suites, list_12, list_13, &mut warnings)?;
        let name = |suite: &SupportedCipherSuite| NAMES.iter().find(|(known, ..)| *known == suite.suite()).unwrap().1;
        Ok((suites.iter().map(name).collect(), warnings))
    }

    #[test]
    fn without_lists_everything_is_offered_and_tls_1_3_comes_first() {
        let (names, warnings) = names(None, None).unwrap();
        assert_eq!(names.len(), 9);
        assert!(names[..3].iter().all(|name| name.starts_with("TLS_")));
        assert!(warnings.is_empty());
    }

    #[test]
    fn what_is_fastest_here_comes_first_and_a_list_of_the_administrator_before_that() {
        let best = |has_aes| NAMES[..3].iter().min_by_key(|(suite, ..)| cost(*suite, has_aes)).unwrap().1;
        assert_eq!(best(true), "TLS_AES_128_GCM_SHA256");
        assert_eq!(best(false), "TLS_CHACHA20_POLY1305_SHA256");
        let (names, _) = names(None, Some("TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256")).unwrap();
        assert_eq!(names[..2], ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"]);
    }

    #[test]
    fn names_select_in_their_order_with_any_separator() {
        let lists = (
            "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384",
            "TLS_CHACHA20_POLY1305_SHA256, TLS_AES_256_GCM_SHA384",
        );
        let (names, warnings) = names(Some(lists.0), Some(lists.1)).unwrap();
        assert_eq!(
            names,
            [
                "TLS_CHACHA20_POLY1305_SHA256",
                "TLS_AES_256_GCM_SHA384",
                "ECDHE-RSA-AES128-GCM-SHA256",
                "ECDHE-ECDSA-AES256-GCM-SHA384"
            ]
        );
        assert!(warnings.is_empty());
    }

    #[test]
    fn an_unknown_name_is_a_warning_and_the_rest_holds() {
        let (names, warnings) = names(Some("AES256-SHA:ECDHE-RSA-AES256-GCM-SHA384"), None).unwrap();
        assert_eq!(names[3..], ["ECDHE-RSA-AES256-GCM-SHA384"]);
        assert_eq!(
            warnings,
            ["option 'tls-cipher-12' names cipher 'AES256-SHA', which is not supported here: ignored"]
        );
    }

    #[test]
    fn keywords_of_openssl_lists_work() {
        let (names, warnings) = names(Some("HIGH:!aNULL:!MD5:!CHACHA20:!AES128:@STRENGTH"), None).unwrap();
        assert_eq!(names[3..], ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"]);
        assert!(warnings.is_empty());
        let (names, _) = super::tests::names(Some("ECDHE+AESGCM+aRSA:-AES256"), None).unwrap();
        assert_eq!(names[3..], ["ECDHE-RSA-AES128-GCM-SHA256"]);
    }

    #[test]
    fn a_list_that_leaves_nothing_is_the_originals_error() {
        let error = names(Some("RC4-MD5"), None).unwrap_err();
        assert_eq!(error.code, Code::Crypto);
        assert!(error.message.starts_with("unable to set TLSv1.2 ciphers: no cipher match\n"), "{}", error.message);
        let error = names(None, Some("ECDHE-RSA-AES256-GCM-SHA384")).unwrap_err();
        assert!(error.message.starts_with("unable to set TLSv1.3 ciphers: no cipher match\n"), "{}", error.message);
    }
}
