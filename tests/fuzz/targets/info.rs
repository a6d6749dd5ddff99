//! Info files: what is good stays good when it is written anew, and changes nothing of itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use repohostd::filter::{Chain, Progress};
use repohostd::protocol::filter::{CipherMode, Digest, FilterResult, FilterSpec, Secret};
use repohostd::repository::policy::info::{InfoFile, Reading};
use repohostd_fuzz::{Tape, seeds};

const PASS: &[u8] = b"secret passphrase";
const CHECKSUM: &str = "backrest-checksum";

/// What an info file says, line by line, without its checksum, and the JSON object that this is taken of.
fn read(text: &str) -> (String, String) {
    let (mut plain, mut json, mut section, mut open) = (String::new(), "{".to_owned(), "", None);
    for line in text.split('\n').filter(|line| !line.is_empty()) {
        let name = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(name) = name {
            section = name;
        } else if let Some((key, value)) = line.split_once('=') {
            if section == "backrest" && key == CHECKSUM {
                continue;
            }
            match open {
                Some(last) if last == section => json += ",",
                last => json += &format!("{}\"{section}\":{{", if last.is_some() { "}," } else { "" }),
            }
            open = Some(section);
            json += &format!("\"{key}\":{value}");
        }
        plain += line;
        plain.push('\n');
    }
    (plain, json + "}}")
}

/// The same with a checksum that fits.
fn sign(text: &str) -> Vec<u8> {
    let (mut plain, json) = read(text);
    let mut chain = Chain::new(vec![FilterSpec::Hash(Digest::Sha1)]).expect("a digest is no matter");
    chain.observe(json.as_bytes()).expect("a digest takes anything");
    let Some((_, FilterResult::Hash(digest))) = chain.results().into_iter().next() else { panic!("no digest") };
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    plain += &format!("\n[backrest]\n{CHECKSUM}=\"{hex}\"\n");
    plain.into_bytes()
}

fn encrypt(mut bytes: &[u8]) -> Vec<u8> {
    let pass = Secret(PASS.to_vec());
    let filter = FilterSpec::CipherBlock { mode: CipherMode::Encrypt, pass, digest: Digest::Sha1, magic: true };
    let mut chain = Chain::new(vec![filter]).expect("there is a cipher");
    let mut encrypted = Vec::new();
    let end = chain.process(&mut bytes, true, &mut encrypted, usize::MAX, usize::MAX);
    assert_eq!(end, Ok(Progress::Finished));
    encrypted
}

fn known(bytes: &[u8]) -> Option<InfoFile> {
    match InfoFile::read(bytes, &[b"another", PASS]) {
        Reading::Known(file) => Some(file),
        Reading::Damaged(reason) => {
            assert!(!reason.is_empty());
            None
        }
        Reading::Opaque => {
            assert!(bytes.starts_with(b"Salted__") || bytes.starts_with(b"PGBR"));
            None
        }
    }
}

fn check(text: &str, file: &InfoFile, is_encrypted: bool) {
    let labels: Vec<&str> = file.labels().collect();
    assert!(labels.is_sorted());
    for label in &labels {
        let backup = file.backup(label).expect("what is listed is known");
        assert!(file.has(label) && backup.label == *label);
        let others = backup.references.iter().chain(&backup.prior);
        assert!(others.into_iter().all(|label| matches!(label.len(), 16 | 33) && !label.contains('/')));
    }
    assert_eq!(file.lost_in(file), Ok(vec![]));
    assert_eq!(file.unchanged_in(file), Ok(()));
    assert_eq!(file.keeps_in(file, labels.iter().copied()), Ok(()));
    let again = sign(&read(text).0);
    assert_eq!(known(&again).as_ref(), Some(file), "written anew it says the same");
    if is_encrypted {
        let secret = known(&encrypt(&again)).expect("encryption changes nothing");
        assert_eq!(secret.key(), Some(1));
        assert!(secret.labels().eq(file.labels()));
        assert!(file.lost_in(&secret).is_err() && secret.unchanged_in(file).is_err());
    }
}

fuzz_target!(
    init: seeds::offer(|| {
        let files = seeds::files("src/repository/policy/info/data", ".info");
        let mut all: Vec<Vec<u8>> = files.iter().map(|file| [&[0][..], file].concat()).collect();
        let plain: Vec<_> = files.iter().filter(|file| file.starts_with(b"[")).collect();
        all.extend(plain.windows(2).map(|pair| [&[1][..], pair[0], b"\0", pair[1]].concat()));
        all.extend(plain.iter().map(|file| [&[3][..], file].concat()));
        all
    }),
    |data: &[u8]| {
        let mut tape = Tape::new(data);
        let mode = tape.byte();
        // as it is: mostly the checksum does not fit, and what is encrypted is another matter
        let raw = known(tape.rest());
        let Ok(text) = std::str::from_utf8(tape.rest()) else { return };
        if let Some(file) = raw.filter(|file| file.key().is_none()) {
            check(text, &file, false);
        }
        if mode & 1 == 0 {
            return;
        }
        let (first, second) = text.split_once('\0').unwrap_or((text, ""));
        let Some(file) = known(&sign(first)) else { return };
        check(first, &file, mode & 2 != 0);
        let Some(new) = known(&sign(second)) else { return };
        if let Ok(lost) = file.lost_in(&new) {
            let expected: Vec<&str> = file.labels().filter(|label| !new.has(label)).collect();
            assert_eq!(lost, expected);
            let kept = file.labels().filter(|label| new.has(label));
            assert_eq!(file.keeps_in(&new, kept), Ok(()));
        }
        if file.unchanged_in(&new).is_ok() {
            assert_eq!(file.lost_in(&new), Ok(vec![]));
            assert_eq!(new.unchanged_in(&file), Ok(()));
        }
    }
);
