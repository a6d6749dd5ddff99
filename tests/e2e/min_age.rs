//! Backups that are younger than `min-age` stay, whatever a client with all rights wants.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use crate::for_each_release;
use crate::harness::fuse::{FuseDisk, Traits};
use crate::harness::snapshot::Snapshot;
use crate::harness::{Bench, STANZA, files};

for_each_release! {
    a_young_backup_and_its_wal_are_not_removed: never "its repo-rm fails on its own", never "its repo-rm fails on its own", always;
    an_expiration_stops_before_it_removes_anything: never "its expiration opens no session", always, full;
    an_encrypted_backup_is_kept_with_all_that_it_needs: never "its repo-rm fails on its own", never "its repo-rm fails on its own", full;
    an_old_backup_is_removed: never "its expiration opens no session", full, full;
    a_backup_from_the_future_is_kept_and_told_of: never "its expiration opens no session", full, always;
}

fn bench(release: &str, min_age: &str) -> Bench {
    let mut bench = Bench::new(release);
    bench.set("repo1-retention-full", "9");
    bench.server.own_config.set("global", "min-age", min_age);
    bench
}

fn a_young_backup_and_its_wal_are_not_removed(release: &str) {
    let mut bench = bench(release, "1d");
    let cluster = bench.with_cluster();
    bench.ok(&["backup", "--type=full"]);
    bench.ok(&["backup", "--type=incr"]);
    cluster.archive();
    let repository = bench.server.repository();
    let before = Snapshot::of(&repository);
    let segment = files(&repository.join("archive").join(STANZA).join("15-1")).remove(0);
    let segment = segment.strip_prefix(&repository).expect("it is in the repository").display().to_string();
    let labels = bench.client.labels();

    let mut tries = vec![vec![segment.clone()]];
    for path in ["archive", "backup"] {
        for below in ["", "/demo"] {
            tries.push(vec![format!("{path}{below}"), "--recurse".to_owned()]);
        }
    }
    tries.push(vec!["archive/demo/15-1".to_owned(), "--recurse".to_owned()]);
    for label in &labels {
        tries.push(vec![format!("backup/demo/{label}"), "--recurse".to_owned()]);
        tries.push(vec![format!("backup/demo/{label}/backup.manifest")]);
    }
    tries.push(vec!["backup/demo/backup.info".to_owned()]);
    tries.push(vec!["backup/demo/backup.info.copy".to_owned()]);
    for words in tries {
        let mut arguments = vec!["repo-rm"];
        arguments.extend(words.iter().map(String::as_str));
        let text = bench.client.fails(105, &arguments);
        assert!(text.contains("access denied: ") && text.contains("min-age"), "{words:?}: {text}");
        before.assert_unchanged(&repository);
    }
    bench.server.wait_for_log(&segment);
    bench.client.verifies();
}

fn an_expiration_stops_before_it_removes_anything(release: &str) {
    let mut bench = bench(release, "1d");
    let _cluster = bench.with_cluster();
    bench.client.ok(&["backup", "--type=full"]);
    bench.client.ok(&["backup", "--type=diff"]);
    bench.client.ok(&["backup", "--type=full"]);
    let repository = bench.server.repository();
    let before = Snapshot::of(&repository);
    let output = bench.client.run(&["expire", "--repo1-retention-full=1"]);
    assert_ne!(output.code, 0, "{}", output.text());
    assert!(output.text().contains("retention of clients has to be longer than min-age"), "{}", output.text());
    before.assert_unchanged(&repository);
    assert_eq!(bench.client.labels().len(), 3);
    bench.client.verifies();

    bench.server.own_config.set("global", "min-age", "0");
    bench.server.write_config();
    bench.server.reload();
    bench.client.ok(&["expire", "--repo1-retention-full=1"]);
    assert_eq!(bench.client.labels().len(), 1);
}

fn an_encrypted_backup_is_kept_with_all_that_it_needs(release: &str) {
    let mut bench = bench(release, "20s");
    bench.server.config.set("global", "repo1-cipher-type", "aes-256-cbc");
    bench.server.config.set("global", "repo1-cipher-pass", "correct horse battery staple");
    let _cluster = bench.with_cluster();
    bench.client.ok(&["backup", "--type=full"]);
    bench.client.ok(&["backup", "--type=incr"]);
    let unneeded = bench.client.labels().remove(1);
    bench.client.ok(&["backup", "--type=diff"]);
    thread::sleep(Duration::from_secs(21));
    bench.client.ok(&["backup", "--type=incr"]);
    let labels = bench.client.labels();
    assert_eq!(labels.len(), 4);
    for label in labels.iter().filter(|label| **label != unneeded) {
        let text = bench.client.fails(105, &["repo-rm", &format!("backup/demo/{label}"), "--recurse"]);
        assert!(text.contains("is younger, or a younger one needs it"), "{text}");
    }
    bench.client.ok(&["repo-rm", &format!("backup/demo/{unneeded}"), "--recurse"]);
    bench.client.verifies();
}

fn an_old_backup_is_removed(release: &str) {
    let mut bench = bench(release, "2s");
    let _cluster = bench.with_cluster();
    bench.ok(&["backup", "--type=full"]);
    bench.ok(&["backup", "--type=full"]);
    thread::sleep(Duration::from_secs(3));
    bench.ok(&["expire", "--repo1-retention-full=1"]);
    assert_eq!(bench.client.labels().len(), 1);
    bench.client.verifies();
}

fn a_backup_from_the_future_is_kept_and_told_of(release: &str) {
    let mut bench = bench(release, "2s");
    let disk = FuseDisk::mount(&bench.server.repository(), Traits::default());
    let _cluster = bench.with_cluster();
    bench.ok(&["backup", "--type=full"]);
    bench.ok(&["backup", "--type=full"]);
    let oldest = bench.client.labels().remove(0);
    thread::sleep(Duration::from_secs(3));
    let manifest = bench.server.repository().join(format!("backup/{STANZA}/{oldest}/backup.manifest"));

    // as if the clock had been ahead by a day when they were made
    disk.shift_changes(24 * 60 * 60);
    let changed = fs::metadata(&manifest).unwrap().ctime();
    let date = jiff::Timestamp::from_second(changed).unwrap();
    let output = bench.client.run(&["expire", "--repo1-retention-full=1"]);
    assert_ne!(output.code, 0, "{}", output.text());
    assert!(output.text().contains("retention of clients has to be longer than min-age"), "{}", output.text());
    assert_eq!(bench.client.labels().len(), 2);
    let text = format!("{oldest}' was finished at {date} by the clock of its file system, which has not come yet");
    bench.server.wait_for_log(&text);
    let check = bench.server.own_command(&["check"]).fails_with(0);
    assert!(check.contains(&text), "{check}");

    disk.shift_changes(0);
    bench.ok(&["expire", "--repo1-retention-full=1"]);
    assert_eq!(bench.client.labels().len(), 1);
    let check = bench.server.own_command(&["check"]).fails_with(0);
    assert!(!check.contains("has not come yet"), "{check}");
    bench.client.verifies();
}
