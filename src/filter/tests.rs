//! Tests
pub(super) const OPENSSL_FIXED_SALT: &[(crate::protocol::filter::Digest, &[u8])] = &[];
