//! A cluster's life with its backups: archived, backed up and restored under load, every row there.

use std::fs;

use crate::harness::postgres::Cluster;
use crate::harness::{Bench, Case, Compress, Layout, Output, STANZA, files, temporary_files, wait_until_unlocked};

/// Makes a test of each combination for each release. `always` runs in `tests/run`, `full` only in
/// `tests/run --full`; the ones that always run meet each pair of settings that could disturb each
/// other at one of the releases.
macro_rules! combinations {
    ($(
        $name:ident: $compress:ident, $encrypt:literal, $layout:ident, async $async:literal,
                     $old:ident, $middle:ident, $new:ident;
    )+) => {
        mod release_2_45 {
            $(combinations!(@one $old, $name, "2.45", $compress, $encrypt, $layout, $async);)+
        }
        mod release_2_55_1 {
            $(combinations!(@one $middle, $name, "2.55.1", $compress, $encrypt, $layout, $async);)+
        }
        mod release_2_60_0 {
            $(combinations!(@one $new, $name, "2.60.0", $compress, $encrypt, $layout, $async);)+
        }
    };
    (@one always, $($rest:tt)+) => { combinations!(@test [], $($rest)+); };
    (@one full, $($rest:tt)+) => {
        combinations!(@test [#[ignore = "only tests/run --full runs it"]], $($rest)+);
    };
    (@test [$($attribute:tt)*], $name:ident, $release:literal, $compress:ident, $encrypt:literal, $layout:ident,
     $async:literal) => {
        #[test]
        $($attribute)*
        fn $name() {
            super::every_row_comes_back(super::Case {
                release: $release,
                compress: super::Compress::$compress,
                encrypt: $encrypt,
                layout: super::Layout::$layout,
                archive_async: $async,
                process_max: 4,
            });
        }
    };
}

combinations! {
    //                                                                2.45    2.55.1  2.60.0
    none_plain_files: None, false, Files, async true,               always, full,   full;
    none_plain_bundles: None, false, Bundles, async false,          full,   full,   full;
    none_plain_blocks: None, false, Blocks, async true,             full,   always, full;
    none_encrypted_files: None, true, Files, async false,           full,   full,   full;
    none_encrypted_bundles: None, true, Bundles, async true,        full,   full,   always;
    none_encrypted_blocks: None, true, Blocks, async false,         full,   full,   full;
    gz_plain_files: Gz, false, Files, async false,                  full,   full,   full;
    gz_plain_bundles: Gz, false, Bundles, async true,               full,   full,   full;
    gz_plain_blocks: Gz, false, Blocks, async false,                full,   full,   full;
    gz_encrypted_files: Gz, true, Files, async true,                always, full,   full;
    gz_encrypted_bundles: Gz, true, Bundles, async false,           full,   always, full;
    gz_encrypted_blocks: Gz, true, Blocks, async true,              full,   full,   full;
    bz2_plain_files: Bz2, false, Files, async true,                 full,   full,   always;
    bz2_plain_bundles: Bz2, false, Bundles, async false,            full,   full,   full;
    bz2_plain_blocks: Bz2, false, Blocks, async true,               full,   full,   full;
    bz2_encrypted_files: Bz2, true, Files, async false,             full,   full,   full;
    bz2_encrypted_bundles: Bz2, true, Bundles, async true,          full,   full,   full;
    bz2_encrypted_blocks: Bz2, true, Blocks, async false,           always, full,   full;
    lz4_plain_files: Lz4, false, Files, async false,                full,   full,   full;
    lz4_plain_bundles: Lz4, false, Bundles, async true,             always, full,   full;
    lz4_plain_blocks: Lz4, false, Blocks, async false,              full,   full,   always;
    lz4_encrypted_files: Lz4, true, Files, async true,              full,   always, full;
    lz4_encrypted_bundles: Lz4, true, Bundles, async false,         full,   full,   full;
    lz4_encrypted_blocks: Lz4, true, Blocks, async true,            full,   full,   full;
    zst_plain_files: Zst, false, Files, async true,                 full,   full,   full;
    zst_plain_bundles: Zst, false, Bundles, async false,            full,   always, full;
    zst_plain_blocks: Zst, false, Blocks, async true,               full,   full,   full;
    zst_encrypted_files: Zst, true, Files, async false,             full,   full,   full;
    zst_encrypted_bundles: Zst, true, Bundles, async true,          full,   full,   full;
    zst_encrypted_blocks: Zst, true, Blocks, async false,           full,   full,   always;
}

fn every_row_comes_back(case: Case) {
    let mut bench = Bench::of(case);
    let mut cluster = bench.with_cluster();
    bench.client.ok(&["check"]);
    bench.server.local(&["check"]).ok();
    cluster.fill(2);

    let load = cluster.load();
    bench.ok(&["backup", "--type=full"]);
    bench.ok(&["backup", "--type=diff"]);
    bench.ok(&["backup", "--type=incr"]);
    drop(load);
    cluster.archive();
    let rows = cluster.rows();

    let info = bench.client.info();
    assert_eq!(info["status"]["message"], "ok", "{info}");
    let kinds: Vec<_> = info["backup"].as_array().expect("a list").iter().map(|backup| &backup["type"]).collect();
    assert_eq!(kinds, ["full", "diff", "incr"], "{info}");

    // into an empty directory
    let mut restored = Cluster::at(&bench.workspace, "restored");
    let place = format!("--pg1-path={}", restored.path.display());
    bench.client.ok(&["restore", &place, "--archive-mode=off"]);
    restored.start();
    assert_eq!(restored.rows(), rows, "rows after a restore into an empty directory");
    restored.stop();

    // over a damaged cluster
    cluster.stop();
    damage(&cluster);
    bench.client.ok(&["restore", "--delta"]);
    cluster.start();
    assert_eq!(cluster.rows(), rows, "rows after a delta restore");

    // which goes on archiving, on a timeline of its own
    let segment = cluster.archive();
    assert!(segment.starts_with("00000002"), "the restored cluster is on its second timeline: {segment}");
    bench.client.ok(&["check"]);
    bench.ok(&["backup", "--type=incr"]);
    if case.release == "2.45" && matches!(case.layout, Layout::Blocks) {
        misses_blocks_here_and_there(&bench);
    } else {
        bench.client.verifies();
    }
    cluster.stop();

    assert_eq!(temporary_files(&bench.server.repository()), Vec::<std::path::PathBuf>::new());
    wait_until_unlocked(&bench.server.path("lock"));
    // backups of 2.57 and later no longer make this link on a repository host
    let latest = bench.server.repository().join("backup").join(STANZA).join("latest");
    assert_eq!(latest.exists(), case.release != "2.60.0", "{}", latest.display());
    assert_eq!(bench.server.terminate(), 0);
}

/// 2.45, for which blocks were new, looks for them under the names of whole files. It does that on the
/// repository host too, and finds everything else in order.
fn misses_blocks_here_and_there(bench: &Bench) {
    let verify = ["verify", "--output=text", "--verbose"];
    let errors = |output: Output| {
        let lines = output.stdout.lines().filter_map(|line| line.split_once("INFO: "));
        let mut errors: Vec<String> =
            lines.map(|(_, text)| text.to_owned()).filter(|text| text.contains(" '")).collect();
        errors.sort();
        errors
    };
    let here = errors(bench.server.local(&verify));
    assert!(!here.is_empty() && here.iter().all(|error| error.starts_with("file missing '")), "{here:?}");
    assert_eq!(errors(bench.client.run(&verify)), here, "client and repository host disagree");
}

/// Loses, shortens, changes and adds files as a failing disk would.
fn damage(cluster: &Cluster) {
    let mut relations = files(&cluster.path.join("base"));
    relations.retain(|path| fs::metadata(path).is_ok_and(|meta| meta.len() >= 16_384));
    assert!(relations.len() > 10, "there are relations to damage");
    fs::remove_file(&relations[0]).expect("the file can be removed");
    let shortened = fs::OpenOptions::new().write(true).open(&relations[1]).expect("the file opens");
    shortened.set_len(8_192).expect("the file can be shortened");
    let mut bytes = fs::read(&relations[2]).expect("the file is readable");
    bytes.iter_mut().skip(100).take(1_000).for_each(|byte| *byte = !*byte);
    fs::write(&relations[2], bytes).expect("the file can be written");
    fs::write(cluster.path.join("base/stray"), "nobody's").expect("a file can be added");
}
