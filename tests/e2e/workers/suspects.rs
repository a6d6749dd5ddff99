//! A client that knows how to end a worker takes only itself down.

use std::fs;
use std::net::Ipv4Addr;

use rustix::process::{Pid, Signal, kill_process};

use super::{Reader, SOON, is_there, pid, status, who_serves, with_workers};
use crate::for_each_release;
use crate::harness::certificates::Certificates;
use crate::harness::client::Client;
use crate::harness::relay::Relay;
use crate::harness::{Bench, Process, wait_until};

for_each_release! {
    who_is_there_at_each_loss_is_served_by_a_worker_of_its_own: always, full, always;
}

/// The client that ends workers: it reads a file, and the worker that has its session is killed.
struct Villain {
    client: Client,
    _relay: Relay,
}

impl Villain {
    fn new(bench: &mut Bench) -> Self {
        bench.server.config.add("global", "tls-server-auth", "villain=*");
        let mut client = Client::new(&bench.server, "villain");
        client.config.inherit(&bench.client.config);
        client.write_identity(&Certificates::shared().authority.issue("villain"));
        let relay = Relay::from(Ipv4Addr::new(127, 0, 1, 66), bench.server.port);
        client.config.set("global", "repo1-host-port", &relay.port.to_string());
        Self { client, _relay: relay }
    }

    /// Has a session in the middle of a file. Returns its worker, too.
    fn appear(&self, bench: &Bench) -> (Process, Pid) {
        let got = bench.workspace.path().join("villains");
        let file = fs::File::create(&got).expect("the file can be made");
        let process = self.client.start_into(file, &["repo-get", "--log-level-console=off", "archive/demo/large"]);
        wait_until("a part of a file", SOON, || fs::metadata(&got).is_ok_and(|metadata| metadata.len() > 0));
        process.signal(Signal::STOP);
        let sessions = status(&bench.server);
        let mut sessions = sessions["sessions"].as_array().expect("there are sessions").iter();
        let own = sessions.find(|session| session["client"] == "villain").expect("it has one");
        (process, pid(&own["pid"]))
    }

    fn strike(&self, bench: &Bench) -> Pid {
        let (process, worker) = self.appear(bench);
        kill_process(worker, Signal::KILL).expect("a worker can be killed");
        wait_until("its end", SOON, || !is_there(worker));
        drop(process);
        worker
    }
}

fn who_is_there_at_each_loss_is_served_by_a_worker_of_its_own(release: &str) {
    let mut bench = with_workers(release, 2);
    let villain = Villain::new(&mut bench);
    bench.with_cluster().stop();
    let reader = Reader::start(&bench, "one");
    drop(reader);
    let told = "client 'villain' was connected each time when one of the last 3 workers was lost";
    for strike in 1..=3 {
        assert!(!bench.server.log().contains(told), "after {strike} losses:\n{}", bench.server.log());
        villain.strike(&bench);
    }
    bench.server.wait_for_log(told);

    // however it comes and goes, nobody else is taken along
    let readers = ["two", "three", "four"].map(|name| Reader::start(&bench, name));
    for _ in 0..3 {
        let (process, worker) = villain.appear(&bench);
        let beside = who_serves(&bench.server, "repo-get").into_iter().filter(|other| *other == worker).count();
        assert_eq!(beside, 1, "somebody shares its worker");
        let told = status(&bench.server);
        let mut views = told["workers"].as_array().expect("there are workers").iter();
        let view = views.find(|view| pid(&view["pid"]) == worker).expect("it is there");
        assert_eq!((&view["kept-for"], &view["connections"]), (&"'villain'".into(), &1.into()), "{told}");
        assert!(bench.server.own_command(&["status"]).ok().contains("'villain'"));
        kill_process(worker, Signal::KILL).expect("a worker can be killed");
        wait_until("its end", SOON, || !is_there(worker));
        drop(process);
    }
    for reader in readers {
        assert!(reader.finish(), "somebody else was taken along");
    }

    // it was not there this time
    let cleared = "client 'villain' is served by the same workers as others again";
    assert!(!bench.server.log().contains(cleared));
    let reader = Reader::start(&bench, "five");
    let worker = who_serves(&bench.server, "repo-get")[0];
    kill_process(worker, Signal::KILL).expect("a worker can be killed");
    bench.server.wait_for_log(cleared);
    assert!(!reader.finish());
    assert_eq!(bench.server.terminate(), 0);
}
