//! Chains of certificates that were found good, so that a client's next connection need not have the
//! signatures on them checked again.
//!
//! What a chain is worth depends on the authorities, the revocation lists and the time. The first two
//! never change for one verifier: a reload makes a new one, which remembers nothing. The time is looked
//! at on each use. Refusals are not remembered, and that a client holds the key is proven each time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use rustls_pki_types::CertificateDer;

/// Chains that are remembered; anybody who has seen a good one can make up more by adding to it.
const CHAINS_MAXIMUM: usize = 1024;

/// The chains that one verifier found good.
#[derive(Debug, Default)]
pub(super) struct Verified(Mutex<HashMap<Chain, Period>>);

/// A whole chain as a client presented it, by its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Chain([u8; SHA256_OUTPUT_LEN]);

/// From and until when something is valid, both included, in seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) from: i64,
    pub(super) until: i64,
}

impl Verified {
    /// Whether the chain was found good and is so at the time `now`.
    pub(super) fn is_good_at(&self, chain: &Chain, now: i64) -> bool {
        let chains = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        chains.get(chain).is_some_and(|period| period.contains(now))
    }

    /// Remembers that the chain is good in this period.
    pub(super) fn remember(&self, chain: Chain, period: Period) {
        let mut chains = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if chains.len() >= CHAINS_MAXIMUM {
            // Those that still come are soon found good again.
            chains.clear();
        }
        chains.insert(chain, period);
    }
}

impl Chain {
    pub(super) fn new(leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Self {
        let mut context = Context::new(&SHA256);
        for certificate in std::iter::once(leaf).chain(intermediates) {
            context.update(&certificate.len().to_be_bytes());
            context.update(certificate);
        }
        let mut digest = [0; SHA256_OUTPUT_LEN];
        digest.copy_from_slice(context.finish().as_ref());
        Self(digest)
    }
}

impl Period {
    /// When both are valid, which may be never.
    pub(super) fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: self.until.min(other.until) }
    }

    pub(super) fn contains(self, now: i64) -> bool {
        (self.from..=self.until).contains(&now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(certificates: &[&[u8]]) -> Chain {
        let certificates: Vec<_> = certificates.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        Chain::new(&certificates[0], &certificates[1..])
    }

    #[test]
    fn a_chain_is_good_only_while_all_of_it_is_valid() {
        let verified = Verified::default();
        let period = Period { from: 10, until: 30 }.and(Period { from: 20, until: 40 });
        assert_eq!(period, Period { from: 20, until: 30 });
        verified.remember(chain(&[b"leaf"]), period);
        for (now, good) in [(10, false), (19, false), (20, true), (30, true), (31, false), (40, false)] {
            assert_eq!(verified.is_good_at(&chain(&[b"leaf"]), now), good, "{now}");
        }
        let never = Period { from: 0, until: 1 }.and(Period { from: 5, until: 6 });
        assert!((0..10).all(|now| !never.contains(now)));
    }

    #[test]
    fn a_chain_is_not_taken_for_another() {
        let verified = Verified::default();
        verified.remember(chain(&[b"leaf", b"between"]), Period { from: 0, until: 9 });
        assert!(verified.is_good_at(&chain(&[b"leaf", b"between"]), 5));
        for other in [&[&b"leaf"[..]][..], &[b"leafbetween"], &[b"leafb", b"etween"], &[b"between", b"leaf"]] {
            assert!(!verified.is_good_at(&chain(other), 5), "{other:?}");
        }
    }

    #[test]
    fn the_number_of_remembered_chains_is_bounded() {
        let verified = Verified::default();
        for number in 0..=CHAINS_MAXIMUM {
            verified.remember(chain(&[&number.to_be_bytes()]), Period { from: 0, until: 9 });
        }
        assert!(verified.0.lock().unwrap().len() <= CHAINS_MAXIMUM);
        assert!(verified.is_good_at(&chain(&[&CHAINS_MAXIMUM.to_be_bytes()]), 5), "the last one is there");
    }
}
