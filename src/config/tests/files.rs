use std::fs;
use std::time::{Duration, Instant};

use super::{MINIMAL, Site, assert_error};
use crate::config::snapshot::Origin;
use crate::config::{Files, Search};
use crate::protocol::error::Code;

/// `lock-path` of whatever was read tells which files were.
fn read(site: &Site, arguments: &[&str]) -> Vec<String> {
    let mut arguments = arguments.to_vec();
    arguments.extend(["--tls-server-auth=a=b", "--tls-server-ca-file=/a", "--tls-server-cert-file=/a"]);
    arguments.push("--tls-server-key-file=/a");
    let (files, _) = site.load(&arguments, &[]).unwrap();
    let mut marks: Vec<_> = ["main", "fallback", "conf.d", "other", "base", "base.d", "include"]
        .into_iter()
        .filter(|mark| !files.ini.section(mark).is_empty())
        .map(str::to_owned)
        .collect();
    marks.sort();
    marks
}

#[test]
fn files_are_found_where_the_original_finds_them() {
    let site = Site::new("[main]\nx=y\n");
    site.write("fallback.conf", "[fallback]\nx=y\n");
    site.write("conf.d/a.conf", "[conf.d]\nx=y");
    site.write("conf.d/.conf", "broken");
    site.write("conf.d/a.conf.old", "broken");
    site.write("conf.d/empty.conf", "");
    site.write("other.conf", "[other]\nx=y");
    site.write("base/pgbackrest.conf", "[base]\nx=y");
    site.write("base/conf.d/a.conf", "[base.d]\nx=y");
    site.write("include/a.conf", "[include]\nx=y");
    for (arguments, expected) in [
        (&[][..], &["conf.d", "main"][..]),
        (&["--config=$/other.conf"], &["other"]),
        (&["--config=$/other.conf", "--config-path=$/base"], &["base.d", "other"]),
        (&["--config=$/other.conf", "--config-include-path=$/include"], &["include", "other"]),
        (&["--config-include-path=$/include"], &["include", "main"]),
        (&["--config-path=$/base"], &["base", "base.d"]),
        (&["--config-path=$/nowhere"], &[]),
        (&["--config-path=$/base", "--config-include-path=$/include"], &["base", "include"]),
        (&["--no-config"], &[]),
        (&["--no-config", "--config-path=$/base"], &["base.d"]),
        (&["--no-config", "--config-include-path=$/include"], &["include"]),
    ] {
        assert_eq!(read(&site, arguments), expected, "{arguments:?}");
    }
    fs::remove_file(site.path("pgbackrest.conf")).unwrap();
    assert_eq!(read(&site, &[]), ["conf.d", "fallback"]);
    assert_eq!(read(&site, &["--config-include-path=$/include"]), ["fallback", "include"]);
    fs::remove_file(site.path("fallback.conf")).unwrap();
    fs::remove_dir_all(site.path("conf.d")).unwrap();
    assert_eq!(read(&site, &[]), Vec::<String>::new());
}

#[test]
fn a_file_that_must_exist_is_missed_in_the_originals_words() {
    let site = Site::new("");
    for (argument, code, expected) in [
        ("--config=$/none", Code::FileMissing, "unable to open missing file '$/none' for read"),
        ("--config-include-path=$/none", Code::PathMissing, "unable to list file info for missing path '$/none'"),
        ("--repohostd-config=$/none", Code::FileMissing, "unable to open missing file '$/none' for read"),
        ("--config=$", Code::FileRead, "unable to read '$': [21] Is a directory"),
    ] {
        assert_error(&site.load(&[argument], &[]).unwrap_err(), code, &site.filled(expected));
    }
}

#[test]
fn a_list_may_be_spread_over_files_and_a_single_value_may_not() {
    let site = Site::new(MINIMAL);
    site.write("conf.d/b.conf", "[global]\ntls-server-auth=other=*");
    assert!(site.load(&[], &[]).unwrap().1.server.grants.lookup(&["other".to_owned()]).is_some());
    site.write("conf.d/b.conf", "[global]\ntls-server-ca-file=/other");
    let message = "option 'tls-server-ca-file' cannot be set multiple times";
    assert_error(&site.load(&[], &[]).unwrap_err(), Code::OptionInvalid, message);
    site.write("conf.d/b.conf", "\ntls-server-auth=other=*");
    let message = site.filled(
        "key/value found outside of section at line 2: tls-server-auth=other=*\n\
         HINT: this line is in file '$/conf.d/b.conf'.",
    );
    assert_error(&site.load(&[], &[]).unwrap_err(), Code::Format, &message);
}

#[test]
fn a_changed_appearing_or_vanishing_file_is_noticed() {
    let site = Site::new("[global]\n");
    let watch = || Files::load(&site.search(), &Origin::Disk).unwrap().watch();
    let now = Instant::now();
    assert!(watch().is_current(now));
    let mut watched = watch();
    site.write("pgbackrest.conf", "[global]\n#\n");
    assert!(!watched.is_current(now));

    let mut watched = watch();
    site.write("conf.d/a.conf", "[a]\n");
    assert!(!watched.is_current(now));
    watched.renew();
    assert!(watched.is_current(now));
    site.write("conf.d/b.conf", "[b]\n");
    assert!(!watched.is_current(now));

    let mut watched = watch();
    fs::remove_file(site.path("conf.d/b.conf")).unwrap();
    assert!(!watched.is_current(now));

    fs::remove_file(site.path("pgbackrest.conf")).unwrap();
    let mut watched = watch();
    assert!(watched.is_current(now));
    site.write("fallback.conf", "[f]\n");
    assert!(!watched.is_current(now));
    let mut watched = watch();
    site.write("pgbackrest.conf", "[m]\n");
    assert!(!watched.is_current(now));
}

#[test]
fn what_is_written_twice_within_one_tick_of_the_clock_is_noticed() {
    let site = Site::new("[one]\n");
    let now = Instant::now();
    for round in 0..200 {
        let mut watched = Files::load(&site.search(), &Origin::Disk).unwrap().watch();
        assert!(watched.is_current(now));
        // As long as before, and as a rule at the same time for the kernel.
        site.write("pgbackrest.conf", if round % 2 == 0 { "[two]\n" } else { "[one]\n" });
        assert!(!watched.is_current(now + Duration::from_secs(2)), "round {round}");
    }
}

#[test]
fn our_own_file_is_read_again_only_by_a_reload_of_the_server() {
    let site = Site::new("[global]\n");
    let files = Files::load(&site.search(), &Origin::Disk).unwrap();
    site.write("repohostd.conf", "[global]\nrelease=2.45\n");
    assert!(files.watch().is_current(Instant::now()));
    let renewed = |files: &Files| files.renewed(files.watch().renew().clone()).unwrap();
    assert!(renewed(&files).own_ini.section("global").is_empty());
    let files = Files::load(&site.search(), &Origin::Disk).unwrap();
    assert_eq!(files.own_ini.section("global")[0].key, "release");
    site.write("repohostd.conf", "broken");
    assert_eq!(renewed(&files).own_ini, files.own_ini);
}

#[test]
fn our_own_file_is_looked_for_beside_the_main_file_in_use() {
    let site = Site::new("[global]\n");
    site.write("deep/x.conf", "[global]\n");
    site.write("deep/repohostd.conf", "[global]\nrelease=2.45\n");
    let search = Search { config: Some(site.path("deep/x.conf")), ..site.search() };
    let files = Files::load(&search, &Origin::Disk).unwrap();
    assert_eq!(files.own_or_default(), site.path("deep/repohostd.conf"));
    assert_eq!(files.own_ini.section("global")[0].key, "release");
    let files = Files::load(&site.search(), &Origin::Disk).unwrap();
    assert_eq!(files.own_or_default(), site.path("repohostd.conf"));
    assert!(files.own_ini.section("global").is_empty());
}

#[test]
fn a_comment_may_be_in_any_encoding_and_a_value_may_not() {
    let site = Site::new(MINIMAL);
    let write = |line: &[u8]| fs::write(site.path("pgbackrest.conf"), [MINIMAL.as_bytes(), line].concat()).unwrap();
    write(b" # caf\xe9\n");
    assert!(site.load(&[], &[]).is_ok());
    write(b"log-path=/caf\xe9\n");
    let expected = site.filled("invalid UTF-8 at line 6\nHINT: this line is in file '$/pgbackrest.conf'.");
    assert_error(&site.load(&[], &[]).unwrap_err(), Code::Format, &expected);
}
