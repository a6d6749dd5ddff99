//! Restores to a point in time, of some databases, with tablespaces, and as a standby.

use std::fs;

use crate::for_each_release;
use crate::harness::Bench;
use crate::harness::postgres::Cluster;

for_each_release! {
    a_restore_stops_at_a_time_a_name_and_a_transaction: always, full, full;
    databases_that_are_left_out_are_empty_and_the_others_complete: full, full, always;
    tablespaces_come_back_at_another_place: full, always, full;
    a_restored_standby_follows_the_archive: always, full, full;
}

fn a_restore_stops_at_a_time_a_name_and_a_transaction(release: &str) {
    let mut bench = Bench::new(release);
    let mut cluster = bench.with_cluster();
    cluster.fill(1);
    bench.ok(&["backup", "--type=full"]);

    cluster.query("insert into pgbench_history (tid, bid, aid, delta, mtime) values (1, 1, 1, 1, now())");
    let by_time = cluster.rows();
    // a client takes no backup that ended in the second of the target, so that second has to pass
    cluster.query("select pg_sleep(1.1)");
    let time = cluster.query("select now()");
    cluster.query("update pgbench_accounts set abalance = 7 where aid % 10 = 0");
    let by_name = cluster.rows();
    cluster.query("select pg_create_restore_point('before the mistake')");
    let transaction =
        cluster.query("begin; delete from pgbench_branches; select txid_current() % (1::bigint << 32); commit");
    let by_transaction = cluster.rows();
    cluster.query("drop table pgbench_accounts cascade");
    cluster.archive();
    cluster.stop();

    for (kind, target, rows) in [
        ("time", time.as_str(), &by_time),
        ("name", "before the mistake", &by_name),
        ("xid", &transaction, &by_transaction),
    ] {
        let mut restored = Cluster::at(&bench.workspace, &format!("restored-{kind}"));
        bench.client.ok(&[
            "restore",
            &format!("--pg1-path={}", restored.path.display()),
            "--archive-mode=off",
            &format!("--type={kind}"),
            &format!("--target={target}"),
            "--target-action=promote",
        ]);
        restored.start();
        assert_eq!(&restored.rows(), rows, "rows after a restore to {kind} {target}");
        restored.stop();
    }
    assert!(by_time != by_name && by_name != by_transaction, "the points differ in nothing");
}

fn databases_that_are_left_out_are_empty_and_the_others_complete(release: &str) {
    let mut bench = Bench::new(release);
    bench.store_blocks();
    let mut cluster = bench.with_cluster();
    cluster.fill(1);
    for name in ["wanted", "unwanted"] {
        cluster.query(&format!("create database {name}"));
        cluster.query_in(name, "create table things as select i, md5(i::text) from generate_series(1, 50000) i");
    }
    bench.ok(&["backup", "--type=full"]);
    cluster.query_in("wanted", "update things set i = i + 1 where i % 100 = 0");
    bench.ok(&["backup", "--type=incr"]);
    cluster.archive();
    let sum = "select count(*) || ' ' || sum(i) || ' ' || md5(string_agg(md5, '' order by md5)) from things";
    let wanted = cluster.query_in("wanted", sum);
    let oid = |name: &str| cluster.query(&format!("select oid from pg_database where datname = '{name}'"));
    let (wanted_oid, unwanted_oid) = (oid("wanted"), oid("unwanted"));
    cluster.stop();

    let mut restored = Cluster::at(&bench.workspace, "restored");
    let place = format!("--pg1-path={}", restored.path.display());
    bench.client.ok(&["restore", &place, "--archive-mode=off", "--db-include=wanted"]);
    let held = |oid: &str| -> usize {
        let directory = restored.path.join("base").join(oid);
        crate::harness::files(&directory)
            .iter()
            .filter(|path| path.file_name().is_some_and(|name| name != "PG_VERSION" && name != "pg_filenode.map"))
            .filter(|path| {
                fs::metadata(path).is_ok_and(|metadata| std::os::unix::fs::MetadataExt::blocks(&metadata) > 0)
            })
            .count()
    };
    assert!(held(&wanted_oid) > 50);
    assert_eq!(held(&unwanted_oid), 0, "the database that was not asked for takes space");
    restored.start();
    assert_eq!(restored.query_in("wanted", sum), wanted);
    restored.query("drop database unwanted");
    restored.stop();
}

fn tablespaces_come_back_at_another_place(release: &str) {
    let mut bench = Bench::new(release);
    let mut cluster = bench.with_cluster();
    cluster.fill(1);
    let places: Vec<_> = (1..=2).map(|number| bench.workspace.directory(&format!("space{number}"))).collect();
    for (number, place) in places.iter().enumerate() {
        cluster.query(&format!("create tablespace space{number} location '{}'", place.display()));
        cluster.query(&format!(
            "create table in_space{number} tablespace space{number} as \
             select i, md5(i::text) from generate_series(1, 20000) i"
        ));
    }
    bench.ok(&["backup", "--type=full"]);
    cluster.query("delete from in_space1 where i % 2 = 0");
    bench.ok(&["backup", "--type=incr"]);
    cluster.archive();
    let rows = cluster.rows();
    assert!(rows.contains_key("in_space0") && rows.contains_key("in_space1"));
    cluster.stop();

    // the links are there for people who look at a full backup; clients of 2.57 and later no longer make
    // them on a repository host
    let label = bench.client.labels().remove(0);
    let links = bench.server.path("repository/backup/demo").join(label).join("pg_data/pg_tblspc");
    let links: Vec<_> = fs::read_dir(&links).expect("the directory was made").flatten().collect();
    assert_eq!(links.len(), if release == "2.60.0" { 0 } else { 2 });
    for link in links {
        let target = fs::read_link(link.path()).expect("it is a link");
        assert!(target.is_relative() && fs::exists(link.path()).expect("readable"), "{} is astray", target.display());
    }

    let mut restored = Cluster::at(&bench.workspace, "restored");
    let place = format!("--pg1-path={}", restored.path.display());
    let one = bench.workspace.directory("moved/one");
    let all = bench.workspace.directory("moved/all");
    bench.client.ok(&[
        "restore",
        &place,
        "--archive-mode=off",
        &format!("--tablespace-map=space0={}", one.display()),
        &format!("--tablespace-map-all={}", all.display()),
    ]);
    restored.start();
    assert_eq!(restored.rows(), rows);
    let location = |name| {
        restored.query(&format!("select pg_tablespace_location(oid) from pg_tablespace where spcname = '{name}'"))
    };
    assert_eq!(location("space0"), one.display().to_string());
    assert_eq!(location("space1"), all.join("space1").display().to_string());
    restored.stop();

    // over what is there, at the old places
    bench.client.ok(&["restore", "--delta"]);
    cluster.start();
    assert_eq!(cluster.rows(), rows);
    cluster.stop();
}

fn a_restored_standby_follows_the_archive(release: &str) {
    let mut bench = Bench::new(release);
    let mut cluster = bench.with_cluster();
    cluster.fill(1);
    bench.ok(&["backup", "--type=full"]);
    let mut standby = Cluster::at(&bench.workspace, "standby");
    bench.client.ok(&["restore", "--type=standby", &format!("--pg1-path={}", standby.path.display())]);
    let log = standby.path.join("postgresql.auto.conf");
    let text = fs::read_to_string(&log).expect("the file is readable");
    assert!(text.contains("restore_command"), "{text}");
    standby.start_standby();
    for round in 1..=2 {
        cluster.query(&format!("create table round{round} as select i from generate_series(1, 1000) i"));
        cluster.archive();
        let sum = format!("select sum(i) from round{round}");
        crate::harness::wait_until("the standby to follow", crate::harness::SOON * 2, || {
            standby.answers(&sum).is_some_and(|answer| answer == "500500")
        });
    }
    standby.stop();
    cluster.stop();
}
