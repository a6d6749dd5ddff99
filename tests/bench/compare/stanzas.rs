//! What a connection and a stanza cost where the configuration has many of them.

use super::Run;
use super::servers::Pair;
use super::table::{self, Target};
use crate::harness::certificates::Certificates;

/// How many stanzas a configuration has, and how often each server is visited: the original reads all of it each time.
const COUNTS: [(u32, u32); 4] = [(1, 64), (100, 64), (1_000, 16), (5_000, 4)];

/// Connections of a client that wants nothing more.
pub(crate) fn stanzas(run: &Run) {
    for (count, visits) in COUNTS {
        let mut config = run.bench.server.config.clone();
        for number in 0..count {
            config.set(&format!("host{number:04}"), "pg1-path", &format!("/var/lib/postgresql/15/host{number:04}"));
        }
        let pair = Pair::configured(&run.bench, &config, &run.build, &Certificates::shared().client);
        let [processor, wall] = pair.alternate(run.rounds(), |server| {
            let cost = server.cost(|| (0..visits).for_each(|_| server.visit()));
            [cost.processor / f64::from(visits) * 1e3, cost.wall / f64::from(visits) * 1e3]
        });
        let plural = if count == 1 { "" } else { "s" };
        table::both(&format!("connection, {count} stanza{plural}: server CPU, ms"), processor, Target::None, "");
        table::both(&format!("connection, {count} stanza{plural}: wall, ms"), wall, Target::None, "");
    }
}
