//! Files that real clients wrote, and files that nobody should believe.

use super::*;

const PASS: &[u8] = b"secret passphrase";

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("data/", $name))
    };
}

/// One stanza's `backup.info`, in the order in which clients of three releases wrote it.
const COURSE: [&[u8]; 6] = [
    file!("created.backup.info"),
    file!("2.45-full.backup.info"),
    file!("2.45-incr.backup.info"),
    file!("2.55.1-diff.backup.info"),
    file!("2.60.0-incr.backup.info"),
    file!("2.55.1-annotate.backup.info"),
];
const FULL: &str = "20261125-030052F";
const INCR: &str = "20261125-030052F_20261125-030108I";

fn known(bytes: &[u8]) -> InfoFile {
    match InfoFile::read(bytes, &[b"another", PASS]) {
        Reading::Known(file) => file,
        other => panic!("{other:?}"),
    }
}

fn damage(bytes: &[u8]) -> String {
    match InfoFile::read(bytes, &[]) {
        Reading::Damaged(reason) => reason,
        other => panic!("{other:?}"),
    }
}

/// The last file with `from` replaced and a checksum that fits.
fn changed(from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(COURSE[5]).unwrap();
    assert!(text.contains(from), "{from} is not there");
    signed(&text.replace(from, to))
}

fn signed(text: &str) -> Vec<u8> {
    let text = &text[..text.rfind("[backrest]").unwrap()];
    let mut plain = text.to_owned() + "[backrest]\nbackrest-checksum=\"";
    plain += &parse::checksum(text).unwrap_or_default();
    (plain + "\"\n").into_bytes()
}

#[test]
fn what_clients_of_every_release_wrote_is_read_with_its_checksum() {
    for bytes in COURSE {
        assert_eq!(known(bytes).key(), None);
    }
    let last = known(COURSE[5]);
    assert_eq!(last.labels().count(), 4);
    for (bytes, count) in [
        (&file!("encrypted.2.45-full.backup.info")[..], 1),
        (file!("encrypted.2.55.1-annotate.backup.info"), 4),
        (file!("encrypted.2.60.0-incr.backup.info"), 6),
        (file!("encrypted.format-6.backup.info"), 2),
    ] {
        let file = known(bytes);
        assert_eq!((file.key(), file.labels().count()), (Some(1), count));
        assert!(matches!(InfoFile::read(bytes, &[b"another"]), Reading::Opaque));
        assert!(matches!(InfoFile::read(bytes, &[]), Reading::Opaque));
    }
    for bytes in [&file!("2.45.archive.info")[..], file!("2.60.0.archive.info"), file!("format-6.archive.info")] {
        assert_eq!(known(bytes).labels().count(), 0);
    }
}

#[test]
fn what_is_encrypted_with_the_right_passphrase_but_says_nothing_is_damaged() {
    use crate::filter::Chain;
    use crate::protocol::filter::{CipherMode, Digest, FilterSpec};
    let pass = Secret(PASS.to_vec());
    let filter = FilterSpec::CipherBlock { mode: CipherMode::Encrypt, pass, digest: Digest::Sha1, magic: true };
    let mut encrypted = Vec::new();
    let mut chain = Chain::new(vec![filter]).unwrap();
    chain.process(&mut &b"garbage"[..], true, &mut encrypted, 1000, usize::MAX).unwrap();
    assert!(matches!(InfoFile::read(&encrypted, &[PASS]), Reading::Damaged(_)));
    assert!(matches!(InfoFile::read(&encrypted, &[b"another"]), Reading::Opaque));
}

#[test]
fn a_backup_tells_what_it_depends_on_and_its_wal() {
    let file = known(COURSE[5]);
    let incr = file.backup(INCR).unwrap();
    assert_eq!(incr.references, [FULL, "20261125-030052F_20261125-030105D"]);
    assert_eq!(incr.prior.as_deref(), Some("20261125-030052F_20261125-030105D"));
    let wal = incr.wal.unwrap();
    assert_eq!(wal.archive_id, "15-1");
    assert_eq!((wal.start.as_str(), wal.stop.as_str()), ("00000001000000000000000D", "00000001000000000000000E"));
    assert_eq!(incr.stopped, 1_795_575_669);
    let full = file.backup(FULL).unwrap();
    assert_eq!((full.references.len(), full.prior), (0, None));
    assert_eq!(file.backup("20261125-030052F_20261125-030109I"), None);
    let offline =
        known(&changed("\"backup-archive-start\":\"000000010000000000000002\"", "\"backup-archive-start\":null"));
    assert_eq!(offline.backup(FULL).unwrap().wal, None);
}

#[test]
fn rewrites_by_another_release_lose_nothing_and_expire_tells_what_it_drops() {
    for pair in COURSE.windows(2) {
        assert_eq!(known(pair[0]).lost_in(&known(pair[1])), Ok(vec![]));
    }
    for (index, bytes) in COURSE.iter().enumerate().skip(1) {
        assert_eq!(known(bytes).lost_in(&known(COURSE[0])).unwrap().len(), [0, 1, 2, 3, 4, 4][index]);
    }
    let expired = known(file!("2.60.0-expire.backup.info"));
    assert_eq!(expired.lost_in(&known(file!("2.45-incr-after-2.60.0.backup.info"))), Ok(vec![]));
    assert_eq!(known(COURSE[5]).lost_in(&expired).unwrap().len(), 4);
    let archive = known(file!("2.45.archive.info"));
    assert_eq!(archive.unchanged_in(&known(file!("2.60.0.archive.info"))), Ok(()));
    assert!(archive.unchanged_in(&known(file!("format-6.archive.info"))).is_err());
}

#[test]
fn whatever_makes_a_backup_useless_is_a_change() {
    let old = known(COURSE[5]);
    for (from, to, expected) in [
        ("\"backup-type\":\"full\"", "\"backup-type\":\"incr\"", "backup-type of backup 20261125-030052F would change"),
        ("\"backup-error\":false,", "", "backup-error"),
        ("0000000000000002\"", "0000000000000003\"", "backup-archive-start"),
        ("\"backup-info-size\":22992594", "\"backup-info-size\":1", "backup-info-size"),
        (
            "\"backup-lsn-stop\":\"0/2000100\",",
            "\"backup-lsn-stop\":\"0/2000100\",\"backup-prior\":\"20261125-030052F\",",
            "backup-prior",
        ),
        (
            "\"backup-lsn-stop\":\"0/2000100\",",
            "\"backup-lsn-stop\":\"0/2000100\",\"backup-reference\":[\"20261125-030052F\"],",
            "backup-reference",
        ),
        ("db-catalog-version=202209061", "db-catalog-version=202209062", "section [db]"),
        ("1={\"db-catalog-version\":202209061", "1={\"db-catalog-version\":1", "section [db:history]"),
        ("[db]\n", "[cipher]\ncipher-pass=\"x\"\n\n[db]\n", "section [cipher]"),
        ("backrest-format=5", "backrest-format=6", "backrest-format"),
    ] {
        let error = old.lost_in(&known(&changed(from, to))).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    for (from, to) in [
        ("\"key\":\"a \\\"quoted\\\" text = ü\"", "\"key\":\"other\""),
        ("\"option-online\":true", "\"option-new\":7,\"option-online\":true"),
        ("backrest-version=\"2.55.1\"", "backrest-version=\"2.99\""),
        ("[backup:current]", "[backup:annex]\nx=1\n\n[backup:current]"),
    ] {
        assert_eq!(old.lost_in(&known(&changed(from, to))), Ok(vec![]));
    }
}

#[test]
fn protected_backups_stay_while_an_administrator_changes_the_rest() {
    let old = known(COURSE[5]);
    let keeps =
        |from: &str, to: &str, labels: &[&str]| old.keeps_in(&known(&changed(from, to)), labels.iter().copied());
    let entry = known(COURSE[5]).sections[CURRENT][INCR].to_string();
    let line = format!("{INCR}={entry}\n");
    assert_eq!(keeps(&line, "", &[FULL]), Ok(()));
    assert_eq!(keeps(&line, "", &[FULL, INCR]), Err(format!("backup {INCR} would be gone")));
    assert_eq!(keeps(&line, "", &[FULL, "20200101-000000F"]), Ok(()));
    assert!(keeps("\"backup-type\":\"full\"", "\"backup-type\":\"diff\"", &[FULL]).is_err());
    assert_eq!(keeps("\"backup-type\":\"full\"", "\"backup-type\":\"diff\"", &[INCR]), Ok(()));
    assert_eq!(keeps("db-id=1\n", "db-id=2\n", &[FULL]), Ok(()), "stanza-upgrade");
    assert!(keeps("1={\"db-catalog-version\":202209061", "1={\"db-catalog-version\":1", &[FULL]).is_err());
    assert!(keeps("[db]\n", "[cipher]\ncipher-pass=\"x\"\n\n[db]\n", &[FULL]).is_err());
    let encrypted = known(file!("encrypted.2.55.1-annotate.backup.info"));
    assert!(encrypted.keeps_in(&old, [FULL]).is_err(), "whoever has the passphrase expects it to be needed");
    assert!(old.lost_in(&encrypted).is_err() && encrypted.unchanged_in(&old).is_err());
}

#[test]
fn what_clients_would_not_read_alike_is_damaged() {
    for (from, to, expected) in [
        ("backrest-format=5", "backrest-format=7", "backrest-format is 7"),
        ("backrest-format=5\n", "", "no backrest-format"),
        ("[db]\n", "[db\n", "bad section"),
        ("db-id=1\n", "db-id\n", "neither section nor key"),
        ("db-id=1\n", "db-id=1\ndb-id=1\n", "repeated key"),
        ("[db:history]", "[db]", "repeated section"),
        ("db-id=1\n", "db-id=01\n", "JSON"),
        ("db-id=1\n", "db-id= 1\n", "JSON"),
        ("\"db-id\":1,", "\"db-id\":1,\"db-id\":1,", "JSON"),
        ("\"backup-type\":\"full\"", "\"backup-type\":\"copy\"", "bad backup-type"),
        ("\"backup-type\":\"full\",", "", "no backup-type"),
        ("\"db-id\":1,", "\"db-id\":2,", "not in [db:history]"),
        ("20261125-030052F=", "20261125-030052X=", "no backup label"),
        ("20261125-030052F=", "../../x=", "no backup label"),
        ("\"backup-reference\":[\"20261125-030052F\"]", "\"backup-reference\":[\"x\"]", "bad backup-reference"),
        ("[db:history]\n1=", "[db:historx]\n1=", "no section [db:history]"),
        ("\u{fc}", "\u{1}", "JSON"),
    ] {
        let reason = damage(&changed(from, to));
        assert!(reason.contains(expected), "{to}: {reason}");
    }
    for (bytes, expected) in [
        (&b""[..], "no backrest-format"),
        (b"garbage", "neither section nor key"),
        (b"[]\n", "bad section"),
        (b"x=1\n", "outside of a section"),
        (b"\xff\xfe", "UTF-8"),
        (&COURSE[5][..COURSE[5].len() - 61], "no checksum"),
        (&vec![b'\n'; MAXIMUM + 1], "larger than 16 MiB"),
        (&vec![b'x'; MAXIMUM], "too many bytes"),
        (&[b"[x]\ny=".as_slice(), &vec![b'['; 1 << 19]].concat(), "JSON"),
    ] {
        let reason = damage(bytes);
        assert!(reason.contains(expected), "{reason}");
    }
    let text = std::str::from_utf8(COURSE[5]).unwrap();
    assert!(damage(text.replace("22992594", "22992595").as_bytes()).contains("checksum does not match"));
}

#[test]
fn ten_thousand_mutations_neither_panic_nor_pass_unless_nothing_of_weight_changed() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let sources = [COURSE[5], file!("2.60.0.archive.info"), file!("encrypted.2.60.0-incr.backup.info")];
    let mut readable = 0;
    for round in 0..10_000 {
        let source = sources[round % sources.len()];
        let mut bytes = source.to_vec();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = u8::try_from(random(256)).unwrap(),
                1 => _ = bytes.remove(at),
                2 => bytes.insert(at, b"\n[]{}=\"\\,0\0\xff"[random(12)]),
                _ => {
                    let length = random(bytes.len() - at);
                    let to = random(bytes.len() - length);
                    bytes.copy_within(at..at + length, to);
                }
            }
        }
        // A good checksum lets the mutation reach everything behind it.
        if round % 2 == 0
            && let Ok(text) = std::str::from_utf8(&bytes)
            && let Some(end) = text.rfind("[backrest]")
        {
            bytes.truncate(end);
            let sum = parse::checksum(std::str::from_utf8(&bytes).unwrap()).unwrap_or_default();
            bytes.extend_from_slice(format!("[backrest]\nbackrest-checksum=\"{sum}\"\n").as_bytes());
        }
        if let Reading::Known(file) = InfoFile::read(&bytes, &[PASS]) {
            readable += 1;
            let labels: Vec<_> = file.labels().map(str::to_owned).collect();
            assert!(labels.iter().all(|label| file.backup(label).is_some()));
            let old = known(source);
            let _ = (old.lost_in(&file), old.unchanged_in(&file), old.keeps_in(&file, [FULL]));
        }
    }
    assert!((10..5000).contains(&readable), "{readable} of them were readable, so nothing was tried");
}
