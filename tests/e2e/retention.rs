//! Old backups go, verify and info tell the truth about what is left.

use std::fs;

use crate::for_each_release;
use crate::harness::{Bench, STANZA, files};

for_each_release! {
    expired_backups_and_their_wal_are_gone: always, full, full;
    verify_notices_a_damaged_file: always, always, full;
    a_backup_can_be_annotated: full, full, always;
    a_stanza_can_be_deleted: always, always, full;
}

fn expired_backups_and_their_wal_are_gone(release: &str) {
    let mut bench = Bench::new(release);
    let cluster = bench.with_cluster();
    cluster.fill(1);
    bench.ok(&["backup", "--type=full"]);
    bench.ok(&["backup", "--type=incr"]);
    let old = bench.client.labels();
    assert_eq!(old.len(), 2);
    cluster.archive();
    bench.ok(&["backup", "--type=full"]);
    assert_eq!(bench.client.labels().len(), 3);
    let segments = files(&bench.server.repository().join("archive").join(STANZA)).len();

    bench.ok(&["expire", "--repo1-retention-full=1"]);

    let left = bench.client.labels();
    assert_eq!(left.len(), 1);
    for label in &old {
        assert!(!left.contains(label));
        let place = bench.server.repository().join("backup").join(STANZA).join(label);
        assert!(!place.exists(), "{} is still there", place.display());
    }
    assert!(files(&bench.server.repository().join("archive").join(STANZA)).len() < segments, "no WAL was expired");
    bench.client.verifies();
}

fn verify_notices_a_damaged_file(release: &str) {
    let mut bench = Bench::new(release);
    let cluster = bench.with_cluster();
    cluster.fill(1);
    bench.ok(&["backup", "--type=full"]);
    bench.client.verifies();

    let mut backup = files(&bench.server.repository().join("backup").join(STANZA));
    backup.retain(|path| path.components().any(|part| part.as_os_str() == "base"));
    let victim = backup.iter().max_by_key(|path| fs::metadata(path).map_or(0, |meta| meta.len())).expect("files");
    let mut bytes = fs::read(victim).expect("the file is readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(victim, bytes).expect("the file can be damaged");
    let output = bench.client.run(&["verify", "--output=text", "--verbose"]);
    assert!(output.stdout.contains("status: error"), "verify saw nothing: {output:?}");
}

fn a_backup_can_be_annotated(release: &str) {
    let mut bench = Bench::new(release);
    let _cluster = bench.with_cluster();
    bench.ok(&["backup", "--type=full"]);
    let label = bench.client.labels().remove(0);
    bench.client.ok(&["annotate", "--set", &label, "--annotation=reason=before the upgrade"]);
    let text = bench.client.ok(&["info", "--set", &label, "--log-level-console=off"]);
    assert!(text.contains("reason: before the upgrade"), "{text}");
}

fn a_stanza_can_be_deleted(release: &str) {
    let mut bench = Bench::new(release);
    let mut cluster = bench.with_cluster();
    bench.ok(&["backup", "--type=full"]);
    cluster.stop();
    // stanza-delete wants a stop file of the repository host, and runs there only
    bench.server.local(&["stop"]).ok();
    bench.server.local(&["stanza-delete"]).ok();
    let text = bench.client.ok(&["info"]);
    assert!(text.contains("missing stanza path"), "{text}");
}
