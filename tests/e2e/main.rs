//! End-to-end tests: unmodified `pgbackrest` clients and a real `PostgreSQL` against the server.
//!
//! `tests/run` installs what they need. They run as an ordinary user (`postgres` when started by
//! root, since `pgbackrest` 2.59 and later refuse root), each test in a directory of its own, with
//! ports, certificates and processes of its own, so they can run at the same time.
//!
//! `REPOHOSTD_TEST_SERVER=original` puts the real `pgbackrest server` of the client's release where
//! repohostd stands otherwise. What passes with both is compatible; what passes only with repohostd
//! is where it is meant to be better. `REPOHOSTD_TEST_BINARY` names another build of repohostd, such as one of before a
//! change, with which a new test should fail.

mod access;
mod archiving;
mod classic;
mod commands;
mod configuration;
mod confinement;
mod crashes;
mod cycle;
mod file_systems;
mod full_disk;
mod harness;
mod info_history;
mod installed;
mod lifecycle;
mod listening;
mod locks;
mod min_age;
mod monitors;
mod names;
mod pg_backup;
mod pg_host;
mod pg_host_database;
mod pg_host_endings;
mod ping;
mod pins;
mod quickstart;
mod recovery;
mod releases;
mod retention;
mod revoked;
mod roles_archiver;
mod roles_backup;
mod roles_hostile;
mod roles_reader;
mod slow_disk;
mod soak;
mod stopping;
mod strangers;
mod stress;
mod transfer;
mod trust;
#[path = "../shared/victim.rs"]
mod victim;
#[path = "../shared/wire.rs"]
#[allow(dead_code, reason = "the benchmarks use the rest")]
mod wire;
mod workers;

/// Makes a test of a function for each release of the client, in a module named by the function. A
/// line says for each release when it runs: `always`, in `tests/run`; `full`, only in `tests/run --full`;
/// `never`, with the reason.
///
/// What is quick runs always with each release, and what is slow with one or two, which take turns.
macro_rules! for_each_release {
    // the releases are 2.45, 2.55.1 and 2.60.0
    ($(
        $name:ident: $old:ident $($why_old:literal)?, $middle:ident $($why_middle:literal)?,
              $new:ident $($why_new:literal)?;
    )+) => {$(
        mod $name {
            $crate::one_release!($name, release_2_45, "2.45", $old $($why_old)?);
            $crate::one_release!($name, release_2_55_1, "2.55.1", $middle $($why_middle)?);
            $crate::one_release!($name, release_2_60_0, "2.60.0", $new $($why_new)?);
        }
    )+};
}
use for_each_release;

/// Makes a test of a function for one release.
macro_rules! one_release {
    ($name:ident, $test:ident, $release:literal, always) => {
        #[test]
        fn $test() {
            super::$name($release);
        }
    };
    ($name:ident, $test:ident, $release:literal, full) => {
        #[test]
        #[ignore = "only tests/run --full runs it"]
        fn $test() {
            super::$name($release);
        }
    };
    ($name:ident, $test:ident, $release:literal, never $why:literal) => {};
}
use one_release;

#[test]
fn every_release_that_the_tests_know_has_tests() {
    let list = include_str!("../releases");
    let known: Vec<&str> = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(known, ["2.45", "2.55.1", "2.60.0"], "tests/releases differs from the releases in main.rs and cycle.rs");
}
