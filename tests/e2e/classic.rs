//! Clients of 2.45, Debian 12's own release, which speaks the framing of releases up to 2.53.1.
//!
//! It creates stanzas, backs up and expires on the repository host, beside the server and in the same
//! repository; everything else goes through the server.

use crate::harness::postgres::Cluster;
use crate::harness::{Bench, Compress, STANZA, temporary_files, wait_until_unlocked};

const RELEASE: &str = "2.45";

/// Makes a test of each combination: compression, encryption, bundles, asynchronous archiving.
macro_rules! combinations {
    ($($name:ident: $compress:ident, $encrypt:literal, $bundle:literal, $async:literal, $(#[$when:meta])?;)+) => {$(
        #[test]
        $(#[$when])?
        fn $name() {
            every_row_comes_back(Compress::$compress, $encrypt, $bundle, $async);
        }
    )+};
}

combinations! {
    none_plain_files:       None, false, false, false, ;
    none_plain_bundles:     None, false, true,  true,  #[ignore = "a combination that only tests/run --full runs"];
    none_encrypted_files:   None, true,  false, true,  #[ignore = "a combination that only tests/run --full runs"];
    none_encrypted_bundles: None, true,  true,  false, #[ignore = "a combination that only tests/run --full runs"];
    lz4_plain_files:        Lz4,  false, false, true,  ;
    lz4_plain_bundles:      Lz4,  false, true,  false, #[ignore = "a combination that only tests/run --full runs"];
    lz4_encrypted_files:    Lz4,  true,  false, false, #[ignore = "a combination that only tests/run --full runs"];
    lz4_encrypted_bundles:  Lz4,  true,  true,  true,  #[ignore = "a combination that only tests/run --full runs"];
    zst_plain_files:        Zst,  false, false, false, #[ignore = "a combination that only tests/run --full runs"];
    zst_plain_bundles:      Zst,  false, true,  true,  #[ignore = "a combination that only tests/run --full runs"];
    zst_encrypted_files:    Zst,  true,  false, true,  #[ignore = "a combination that only tests/run --full runs"];
    zst_encrypted_bundles:  Zst,  true,  true,  false, ;
}

fn every_row_comes_back(compress: Compress, encrypt: bool, bundle: bool, archive_async: bool) {
    let mut bench = Bench::new(RELEASE);
    let mut cluster = Cluster::create(&bench.workspace, &mut bench.client);
    let name = match compress {
        Compress::None => "none",
        Compress::Lz4 => "lz4",
        Compress::Zst => "zst",
    };
    for config in [&mut bench.client.config, &mut bench.server.config] {
        config.set("global", "compress-type", name);
        config.set("global", "process-max", "4");
        if archive_async {
            config.set("global", "archive-async", "y");
        }
        if bundle {
            config.set("global", "repo1-bundle", "y");
        }
    }
    let server = &mut bench.server.config;
    if encrypt {
        server.set("global", "repo1-cipher-type", "aes-256-cbc");
        server.set("global", "repo1-cipher-pass", "correct horse battery staple");
    }
    server.set("global", "start-fast", "y");
    server.set("global", "repo1-retention-full", "1");
    for option in ["pg1-path", "pg1-socket-path"] {
        server.set(STANZA, option, bench.client.config.value(STANZA, option));
    }
    bench.server.start();
    cluster.start();
    bench.server.local(&["stanza-create"]).ok();
    bench.client.ok(&["check"]);
    bench.server.local(&["check"]).ok();
    cluster.fill(2);

    let load = cluster.load();
    for kind in ["--type=full", "--type=diff", "--type=incr"] {
        bench.server.local(&["backup", kind]).ok();
    }
    drop(load);
    cluster.archive();
    let rows = cluster.rows();
    assert_eq!(bench.client.labels().len(), 3);

    let mut restored = Cluster::at(&bench.workspace, "restored");
    let place = format!("--pg1-path={}", restored.path.display());
    bench.client.ok(&["restore", &place, "--archive-mode=off"]);
    restored.start();
    assert_eq!(restored.rows(), rows, "rows after a restore into an empty directory");
    restored.stop();
    cluster.stop();
    bench.client.ok(&["restore", "--delta"]);
    cluster.start();
    assert_eq!(cluster.rows(), rows, "rows after a delta restore");
    cluster.archive();

    // The next full backup expires the first ones, on the repository host.
    bench.server.local(&["backup", "--type=full"]).ok();
    assert_eq!(bench.client.labels().len(), 1);
    bench.client.ok(&["verify"]);
    bench.client.ok(&["repo-ls", "--recurse"]);
    cluster.stop();
    assert_eq!(temporary_files(&bench.server.repository()), Vec::<std::path::PathBuf>::new());
    wait_until_unlocked(&bench.server.path("lock"));
    assert_eq!(bench.server.terminate(), 0);
}

#[test]
fn stop_files_and_locks_of_the_repository_host_count() {
    let mut bench = Bench::new(RELEASE);
    let mut cluster = Cluster::create(&bench.workspace, &mut bench.client);
    for option in ["pg1-path", "pg1-socket-path"] {
        bench.server.config.set(STANZA, option, bench.client.config.value(STANZA, option));
    }
    bench.server.start();
    cluster.start();
    bench.server.local(&["stanza-create"]).ok();
    let segment = cluster.copy_segment("0000000100000001000000A0").display().to_string();

    bench.server.local(&["stop"]).ok();
    let text = bench.client.fails(103, &["archive-push", &segment]);
    assert!(text.contains("stop file exists for stanza demo"), "{text}");
    bench.server.local(&["start"]).ok();

    let lock = crate::harness::hold_lock(&bench.server.path("lock").join("demo-archive.lock"));
    let text = bench.client.fails(103, &["archive-push", &segment]);
    assert!(text.contains("is another pgBackRest process running?"), "{text}");
    drop(lock);
    bench.client.ok(&["archive-push", &segment]);
}
