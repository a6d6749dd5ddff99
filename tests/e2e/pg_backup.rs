//! Backups of running clusters by a repository host, through our server beside each cluster; restored by the
//! original, every row there.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use crate::for_each_release;
use crate::harness::pg_host::spread;
use crate::harness::postgres::Cluster;
use crate::harness::server::Server;
use crate::harness::{Bench, Process, STANZA, temporary_files, wait_until_unlocked};

for_each_release! {
    files_of_a_running_cluster: always, full, full;
    encrypted_bundles_of_a_running_cluster: full, always, full;
    blocks_of_a_running_cluster: full, full, always;
    every_combination_comes_back: full, full, full;
    every_encrypted_combination_comes_back: full, full, full;
    damaged_pages_are_named_by_their_numbers: full, full, always;
    a_standby_is_backed_up_with_its_primary: full, always, full;
    a_backup_that_is_stopped_ends_on_the_server_too: full, full, always;
    a_lock_and_a_stop_file_of_the_postgresql_host_count: always, always, always;
}

/// A repository host and a `PostgreSQL` host, with a cluster that runs and archives; the stanza is there, made over
/// the network.
struct Site {
    bench: Bench,
    cluster: Cluster,
    host: Server,
}

impl Site {
    fn new(release: &str, options: &[(&str, &str)]) -> Self {
        let mut bench = Bench::new(release);
        bench.server.config.set("global", "process-max", "4");
        for (key, value) in options {
            bench.server.config.set("global", key, value);
        }
        let mut cluster = bench.create_cluster();
        spread(&bench.workspace, &cluster);
        let mut host = bench.serve_cluster(&cluster, 1);
        bench.server.start();
        host.start();
        cluster.start();
        bench.run_at_repository(&["stanza-create"]).ok();
        bench.run_at_repository(&["check"]).ok();
        cluster.fill(2);
        let space = bench.workspace.directory("space");
        cluster.query(&format!("create tablespace space location '{}'", space.display()));
        cluster
            .query("create table in_space tablespace space as select i, md5(i::text) from generate_series(1, 9999) i");
        Self { bench, cluster, host }
    }

    fn backs_up(&self, kind: &str) -> String {
        self.bench.run_at_repository(&["backup", "--type", kind]).ok()
    }

    /// Backs up thrice under load and restores twice: into nothing, and over what has changed since.
    fn every_row_comes_back(mut self) {
        let load = self.cluster.load();
        for kind in ["full", "diff", "incr"] {
            self.backs_up(kind);
        }
        drop(load);
        self.restores();
        self.cluster.stop();
        let place = self.cluster.path.join("base");
        let mut relations = crate::harness::files(&place);
        relations.retain(|path| fs::metadata(path).is_ok_and(|meta| meta.len() >= 16_384));
        fs::remove_file(&relations[0]).expect("a file can be lost");
        self.bench.client.ok(&["restore", "--delta", "--link-all"]);
        self.cluster.start();
        self.bench.run_at_repository(&["check"]).ok();
        self.backs_up("incr");
        self.restores();
        self.ends();
    }

    /// Restores into an empty directory and compares every row.
    fn restores(&self) {
        self.cluster.archive();
        let rows = self.cluster.rows();
        let name = format!("restored-{}", self.bench.client.labels().pop().expect("a backup is there"));
        let mut copy = Cluster::at(&self.bench.workspace, &name);
        let place = format!("--pg1-path={}", copy.path.display());
        let spaces =
            format!("--tablespace-map-all={}", self.bench.workspace.directory(&format!("{name}/space")).display());
        self.bench.client.ok(&["restore", "--archive-mode=off", &place, &spaces]);
        copy.start();
        assert_eq!(copy.rows(), rows);
        copy.stop();
    }

    /// Nothing is left behind, nothing was refused.
    fn ends(self) {
        // 2.45, for which blocks were new, does not find them in a repository that it made itself
        if !(self.bench.client.release == "2.45" && self.bench.server.config.text().contains("repo1-block=y")) {
            self.bench.client.verifies();
        }
        self.stops();
    }

    fn stops(mut self) {
        self.cluster.stop();
        assert_eq!(temporary_files(&self.bench.server.repository()), Vec::<PathBuf>::new());
        for host in [&self.bench.server, &self.host] {
            wait_until_unlocked(&host.path("lock"));
        }
        let log = self.host.log();
        if !self.host.is_original {
            for process in 0..=4 {
                assert!(log.contains(&format!("stanza={STANZA} command=backup process={process}")), "{log}");
            }
            assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
        }
        assert_eq!(self.host.terminate(), 0);
        assert_eq!(self.bench.server.terminate(), 0);
    }
}

fn files_of_a_running_cluster(release: &str) {
    Site::new(release, &[("compress-type", "lz4")]).every_row_comes_back();
}

fn encrypted_bundles_of_a_running_cluster(release: &str) {
    let options = [
        ("compress-type", "zst"),
        ("repo1-bundle", "y"),
        ("repo1-cipher-type", "aes-256-cbc"),
        ("repo1-cipher-pass", "correct horse battery staple"),
    ];
    Site::new(release, &options).every_row_comes_back();
}

fn blocks_of_a_running_cluster(release: &str) {
    let mut options = vec![("compress-type", "gz"), ("repo1-bundle", "y"), ("repo1-block", "y")];
    if release == "2.45" {
        options.push(("beta", "y"));
    }
    Site::new(release, &options).every_row_comes_back();
}

/// Each compression with each way of storing files: a full backup and an increment, both under load, and a restore.
fn combinations(release: &str, options: &[(&str, &str)]) {
    let site = Site::new(release, options);
    let layouts: [&[&str]; 3] = [&[], &["--repo1-bundle"], &["--repo1-bundle", "--repo1-block"]];
    for layout in layouts {
        for compression in ["none", "gz", "bz2", "lz4", "zst"] {
            let compress = format!("--compress-type={compression}");
            let load = site.cluster.load();
            for kind in ["full", "incr"] {
                let mut arguments = vec!["backup", "--type", kind, &compress];
                arguments.extend(layout);
                if release == "2.45" && layout.len() > 1 {
                    arguments.push("--beta");
                }
                site.bench.run_at_repository(&arguments).ok();
            }
            drop(load);
            site.restores();
        }
        // 2.45 does not find its own blocks
        if !(release == "2.45" && layout.len() > 1) {
            site.bench.client.verifies();
        }
    }
    site.stops();
}

fn every_combination_comes_back(release: &str) {
    combinations(release, &[]);
}

fn every_encrypted_combination_comes_back(release: &str) {
    combinations(
        release,
        &[("repo1-cipher-type", "aes-256-cbc"), ("repo1-cipher-pass", "correct horse battery staple")],
    );
}

fn a_standby_is_backed_up_with_its_primary(release: &str) {
    let mut site = Site::new(release, &[("compress-type", "gz")]);
    site.backs_up("full");
    let mut standby = Cluster::at(&site.bench.workspace, "standby");
    let place = format!("--pg1-path={}", standby.path.display());
    let spaces = format!("--tablespace-map-all={}", site.bench.workspace.directory("standby/space").display());
    let primary = format!("--recovery-option=primary_conninfo=host={}", site.cluster.sockets().display());
    site.bench.client.ok(&["restore", "--type=standby", &place, &spaces, &primary]);
    standby.start_standby();
    let mut second = site.bench.serve_cluster(&standby, 2);
    second.start();
    site.bench.server.config.set("global", "backup-standby", "y");
    let load = site.cluster.load();
    let text = site.backs_up("full");
    drop(load);
    assert!(text.contains("replay on the standby reached"), "{text}");
    site.restores();
    let log = second.log();
    assert!(second.is_original || log.contains("command=backup process=4"), "{log}");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    standby.stop();
    assert_eq!(second.terminate(), 0);
    site.ends();
}

fn a_backup_that_is_stopped_ends_on_the_server_too(release: &str) {
    let site = Site::new(release, &[("compress-type", "none"), ("process-max", "1")]);
    let running = |site: &Site| {
        let sql = "select count(*) from pg_stat_activity where application_name like 'pgBackRest%'";
        site.cluster.query(sql) != "0"
    };
    let mut backup: Process = site.bench.start_at_repository(&["backup", "--type=full"]);
    crate::harness::wait_until("the backup to connect", crate::harness::SOON, || running(&site));
    backup.signal(rustix::process::Signal::KILL);
    backup.wait(crate::harness::SOON);
    drop(backup);
    crate::harness::wait_until("the connection to end", crate::harness::SOON, || !running(&site));
    wait_until_unlocked(&site.host.path("lock"));
    site.backs_up("full");
}

fn a_lock_and_a_stop_file_of_the_postgresql_host_count(release: &str) {
    let site = Site::new(release, &[]);
    let repository = if release == "2.45" { "" } else { "-1" };
    let held = crate::harness::hold_lock(&site.host.path("lock").join(format!("{STANZA}-backup{repository}.lock")));
    let text = site.bench.run_at_repository(&["backup"]).text();
    assert!(text.contains("unable to acquire lock on file"), "{text}");
    drop(held);
    let stop = site.host.path("lock").join(format!("{STANZA}.stop"));
    fs::write(&stop, "").expect("the file can be made");
    let text = site.bench.run_at_repository(&["backup"]).text();
    assert!(text.contains("stop file exists for stanza demo"), "{text}");
    fs::remove_file(&stop).expect("the file can be removed");
    site.backs_up("full");
}

fn damaged_pages_are_named_by_their_numbers(release: &str) {
    let mut site = Site::new(release, &[("compress-type", "zst"), ("repo1-bundle", "y")]);
    site.cluster.query("create table damaged as select i, md5(i::text) from generate_series(1, 9999) i");
    let path = site.cluster.query("select pg_relation_filepath('damaged')");
    let text = site.backs_up("full");
    assert!(!text.contains("invalid page"), "{text}");
    site.cluster.stop();
    let path = site.cluster.path.join(path.trim());
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("the table has a file");
    for page in [3, 4, 5, 60] {
        let (mut byte, place) = ([0], page * 8192 + 5000);
        file.read_exact_at(&mut byte, place).expect("the table has this page");
        file.write_all_at(&[byte[0] ^ 1], place).expect("a page can be damaged");
    }
    site.cluster.start();
    let text = site.backs_up("incr");
    // 2.55.1 says it in the singular.
    assert!(text.lines().any(|line| line.contains("invalid page") && line.ends_with(" 3-5, 60")), "{text}");
    site.cluster.stop();
}
