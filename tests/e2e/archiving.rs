//! WAL segments go to the repository and come back.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::for_each_release;
use crate::harness::postgres::Cluster;
use crate::harness::{Bench, STANZA, files};

for_each_release! {
    every_segment_archived_under_load_comes_back: always, full, full;
    every_segment_archived_asynchronously_comes_back: full, always, always;
    a_segment_that_was_never_archived_is_not_found: always, always, always;
    the_same_segment_can_be_pushed_again_but_not_another_under_its_name: always, always, always;
}

fn every_segment_archived_under_load_comes_back(release: &str) {
    segments_come_back(&mut Bench::new(release));
}

fn every_segment_archived_asynchronously_comes_back(release: &str) {
    let mut bench = Bench::new(release);
    bench.client.config.set("global", "archive-async", "y");
    bench.set("process-max", "4");
    segments_come_back(&mut bench);
}

/// Lets the cluster archive some segments while it has other work to do.
pub(crate) fn archive_under_load(cluster: &Cluster) {
    cluster.fill(1);
    let load = cluster.load();
    for _ in 0..5 {
        cluster.switch_wal();
        cluster.query("create table if not exists filler as select md5(i::text) from generate_series(1, 50000) i");
    }
    drop(load);
    cluster.archive();
}

fn segments_come_back(bench: &mut Bench) {
    let mut cluster = bench.with_cluster();
    archive_under_load(&cluster);

    let archived = archived_segments(&bench.server.repository());
    assert!(archived.len() >= 6, "too little was archived: {archived:?}");
    let target = bench.workspace.directory("got").join("segment");
    for (segment, digest) in archived {
        bench.client.ok(&["archive-get", &segment, &target.display().to_string()]);
        assert_eq!(sha1(&target), digest, "segment {segment} came back different");
        fs::remove_file(&target).expect("the segment can be removed");
    }
    cluster.stop();
}

fn a_segment_that_was_never_archived_is_not_found(release: &str) {
    let mut bench = Bench::new(release);
    let _cluster = bench.with_cluster();
    let target = bench.workspace.path().join("segment").display().to_string();
    let text = bench.client.fails(1, &["archive-get", "0000000100000009000000AA", &target]);
    assert!(text.contains("unable to find 0000000100000009000000AA in the archive"), "{text}");
    assert!(!Path::new(&target).exists(), "nothing was made");
}

fn the_same_segment_can_be_pushed_again_but_not_another_under_its_name(release: &str) {
    let mut bench = Bench::new(release);
    let cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0").display().to_string();
    bench.client.ok(&["archive-push", &segment]);
    let text = bench.client.ok(&["archive-push", &segment]);
    assert!(text.contains("already exists"), "{text}");

    let mut bytes = fs::read(&segment).expect("the segment is readable");
    bytes[10_000_000] ^= 1;
    fs::write(&segment, bytes).expect("the segment can be changed");
    let text = bench.client.fails(45, &["archive-push", &segment]);
    assert!(text.contains("already exists in the repo1 archive with a different checksum"), "{text}");
}

/// Segments in the repository with the SHA-1 that their names carry.
pub(crate) fn archived_segments(repository: &Path) -> Vec<(String, String)> {
    files(&repository.join("archive").join(STANZA))
        .iter()
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            let (segment, rest) = name.split_once('-')?;
            let digest = rest.split('.').next()?;
            (segment.len() == 24 && digest.len() == 40 && !name.contains(".tmp"))
                .then(|| (segment.to_owned(), digest.to_owned()))
        })
        .collect()
}

/// Insists that every uncompressed segment under a final name has the content that its name tells.
#[track_caller]
pub(crate) fn assert_whole_segments(repository: &Path) -> usize {
    let mut count = 0;
    for path in files(&repository.join("archive").join(STANZA)) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("names are text");
        if let Some((segment, digest)) = name.split_once('-')
            && segment.len() == 24
            && digest.len() == 40
        {
            assert_eq!(sha1(&path), digest, "{} is not whole", path.display());
            count += 1;
        }
    }
    count
}

fn sha1(path: &Path) -> String {
    let output = Command::new("sha1sum").arg(path).output().expect("sha1sum starts");
    assert!(output.status.success(), "sha1sum cannot read {}", path.display());
    String::from_utf8_lossy(&output.stdout).chars().take(40).collect()
}
