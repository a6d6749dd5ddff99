//! Decrypting a small file as a whole, for what the server itself looks into.

use super::cipher_format::key_of;
use super::{Chain, Progress};
use crate::protocol::filter::{CipherKey, CipherMode, FilterSpec, Secret};

/// Whether `bytes` begin like an encrypted file of any format.
pub(crate) fn is_encrypted(bytes: &[u8]) -> bool {
    bytes.starts_with(b"Salted__") || bytes.starts_with(b"PGBR")
}

/// What the encrypted file `bytes` holds, or `None` when `pass` is not its passphrase. It takes as much
/// memory again as the file.
pub(crate) fn decrypt(bytes: &[u8], pass: &Secret) -> Option<Vec<u8>> {
    let key = CipherKey { id: str::from_utf8(key_of(bytes)?).ok()?.to_owned(), digest: None, pass: pass.clone() };
    run(FilterSpec::CipherFormat { keys: vec![key], expected: None }, bytes)
}

/// The passphrase that a list of filters encrypts with.
pub(crate) fn encryption_key(filters: &[FilterSpec]) -> Option<&Secret> {
    filters.iter().find_map(|filter| match filter {
        FilterSpec::CipherBlock { mode: CipherMode::Encrypt, pass, .. } => Some(pass),
        _ => None,
    })
}

fn run(filter: FilterSpec, mut input: &[u8]) -> Option<Vec<u8>> {
    let mut chain = Chain::new(vec![filter]).ok()?;
    let mut output = Vec::with_capacity(input.len());
    loop {
        if chain.process(&mut input, true, &mut output, usize::MAX, usize::MAX).ok()? == Progress::Finished {
            return Some(output);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::filter::Digest;

    #[test]
    fn files_of_both_formats_are_decrypted_with_their_passphrase_only() {
        let secret = |text: &str| Secret(text.as_bytes().to_vec());
        let encrypt = |magic, digest| {
            let filter = FilterSpec::CipherBlock { mode: CipherMode::Encrypt, pass: secret("right"), digest, magic };
            assert_eq!(encryption_key(&[FilterSpec::Size, filter.clone()]), Some(&secret("right")));
            run(filter, b"[backrest]\n").unwrap()
        };
        let old = encrypt(true, Digest::Sha1);
        let new = encrypt(false, Digest::Sha256);
        for file in [old, [&b"PGBR006_"[..], &new].concat(), [&b"PGBR006K\x02k1"[..], &new].concat()] {
            assert!(is_encrypted(&file));
            assert_eq!(decrypt(&file, &secret("right")).as_deref(), Some(&b"[backrest]\n"[..]));
            assert_ne!(decrypt(&file, &secret("wrong")).as_deref(), Some(&b"[backrest]\n"[..]));
            for length in 0..file.len() {
                assert_ne!(decrypt(&file[..length], &secret("right")).as_deref(), Some(&b"[backrest]\n"[..]));
            }
        }
        assert!(!is_encrypted(b"[backrest]\n"));
    }
}
