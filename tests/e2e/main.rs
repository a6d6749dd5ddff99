//! End-to-end tests: unmodified `pgbackrest` clients and a real `PostgreSQL` against the server.
//!
//! `tests/run` installs what they need. They run as an ordinary user (`postgres` when started by
//! root, since `pgbackrest` 2.59 and later refuse root), each test in a directory of its own, with
//! ports, certificates and processes of its own, so they can run at the same time.
//!
//! `REPOHOSTD_TEST_SERVER=original` puts the real `pgbackrest server` of the client's release where
//! repohostd stands otherwise. What passes with both is compatible; what passes only with repohostd
//! is where it is meant to be better.

mod access;
mod archiving;
mod classic;
mod commands;
mod confinement;
mod crashes;
mod cycle;
mod full_disk;
mod harness;
mod lifecycle;
mod listening;
mod locks;
mod ping;
mod pins;
mod quickstart;
mod recovery;
mod releases;
mod retention;
mod soak;
mod stopping;
mod strangers;
mod stress;
mod transfer;
mod trust;

/// Makes one test of a function for each release of the client, in a module named by the function.
macro_rules! for_each_release {
    ($($(#[$attribute:meta])* $name:ident;)+) => {$(
        mod $name {
            $(#[$attribute])*
            #[test]
            fn release_2_55_1() {
                super::$name("2.55.1");
            }

            $(#[$attribute])*
            #[test]
            fn release_2_60_0() {
                super::$name("2.60.0");
            }
        }
    )+};
}
use for_each_release;

#[test]
fn every_release_that_the_tests_know_has_tests() {
    let list = include_str!("../releases");
    let known: Vec<&str> = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(known, ["2.45", "2.55.1", "2.60.0"], "tests/releases differs from the releases in main.rs and cycle.rs");
}
