//! Restores over networks of several speeds, compressed on the way, not, and as the server decides.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Run;
use super::commands::{self, path};
use super::servers::{Build, Server, median};
use super::table;
use crate::harness::certificates::Certificates;
use crate::harness::postgres::Cluster;
use crate::harness::{Bench, STANZA, run_quietly};

/// What the server is told, the value to be judged first.
const SETTINGS: [&str; 3] = ["auto", "always", "never"];
/// The networks, as `tc` calls their speeds; none is the machine's own.
const SPEEDS: [Option<&str>; 3] = [None, Some("1gbit"), Some("100mbit")];
/// Scale of pgbench's tables, which compress well, and rows of 72 bytes, which do not.
const SCALE: u32 = 10;
const ROWS: u32 = 1_500_000;

/// A namespace for the client, whose only way out has a speed.
struct Namespace {
    name: String,
    hosts: PathBuf,
}

impl Namespace {
    fn new(speed: &str) -> Self {
        let name = format!("repohostd-{}", std::process::id());
        let hosts = Path::new("/etc/netns").join(&name);
        let namespace = Self { name, hosts };
        let Self { name, hosts } = &namespace;
        fs::create_dir_all(hosts).expect("the namespace can have its own hosts");
        fs::write(hosts.join("hosts"), "10.213.7.1 localhost\n").expect("its hosts can be written");
        let inside = format!("ip netns exec {name}");
        let shape = format!("root tbf rate {speed} burst 128kb latency 20ms");
        for command in [
            format!("ip netns add {name}"),
            format!("ip link add rh0 type veth peer name rh1 netns {name}"),
            "ip addr add 10.213.7.1/24 dev rh0".to_owned(),
            "ip link set rh0 up".to_owned(),
            format!("{inside} ip addr add 10.213.7.2/24 dev rh1"),
            format!("{inside} ip link set rh1 up"),
            format!("tc qdisc add dev rh0 {shape}"),
            format!("{inside} tc qdisc add dev rh1 {shape}"),
        ] {
            let mut words = command.split(' ');
            let mut program = Command::new(words.next().unwrap_or_default());
            run_quietly(std::mem::replace(program.args(words), Command::new("true"))).ok();
        }
        namespace
    }

    /// The same command within it.
    fn enter(&self, command: &Command) -> Command {
        let mut entered = Command::new("ip");
        entered.args([
            "netns",
            "exec",
            &self.name,
            "setpriv",
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
        ]);
        entered.env_clear();
        entered.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        entered.arg(command.get_program()).args(command.get_args()).current_dir("/");
        entered
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // the link goes with it
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
        let _ = fs::remove_dir_all(&self.hosts);
    }
}

/// One backup that is not compressed, restored over each network through a server of each setting.
pub(crate) fn network(run: Run) -> Run {
    let missing = if !commands::has_postgresql() {
        Some("the client needs a cluster, and there is no PostgreSQL 15")
    } else if !rustix::process::geteuid().is_root() {
        Some("only root can make a network")
    } else {
        None
    };
    if let Some(missing) = missing {
        table::not_run("restore over a network", missing);
        return run;
    }
    let bench = Bench::new(&run.bench.client.release);
    let mut run = Run { bench, ..run };
    run.bench.set("compress-type", "none");
    run.bench.client.config.set("global", "log-level-console", "warn");
    let mut cluster = run.bench.create_cluster();
    let mut config = run.bench.server.config.clone();
    config.set("global", "tls-server-address", "*");
    let servers = SETTINGS.map(|setting| {
        let build = Build { lines: format!("network-compression={setting}\n"), ..run.build.clone() };
        Server::start(&run.bench, &config, setting, Some(&build), &Certificates::shared().client)
    });
    run.bench.client.config.set("global", "repo1-host-port", &servers[0].port.to_string());
    run.bench.client.write_config();
    cluster.start();
    run.bench.client.ok(&["stanza-create"]);
    cluster.fill(SCALE);
    cluster.query(&format!(
        "create table digests as select md5(n::text) || md5((-n)::text) from generate_series(1, {ROWS}) n"
    ));
    cluster.query("checkpoint");
    cluster.archive();
    run.bench.ok(&["backup", "--type=full"]);
    cluster.stop();
    for speed in SPEEDS {
        let namespace = speed.map(Namespace::new);
        measure(&run, &servers, namespace.as_ref(), speed.unwrap_or("loopback"));
    }
    drop(servers);
    run
}

fn measure(run: &Run, servers: &[Server; 3], namespace: Option<&Namespace>, speed: &str) {
    let target = Cluster::at(&run.bench.workspace, "restored");
    let mut walls: [Vec<f64>; 3] = Default::default();
    let mut processors: [Vec<f64>; 3] = Default::default();
    let mut ratios = Vec::new();
    for round in 0..run.rounds() {
        for turn in 0..SETTINGS.len() {
            let which = (turn + round) % SETTINGS.len();
            let client = &run.bench.client;
            let mut command = client.workspace.command(client.program());
            command.arg(format!("--config={}", path(&client.config_file()))).arg(format!("--stanza={STANZA}"));
            command.args(["restore", "--type=none", "--process-max=1"]);
            command.arg(format!("--repo1-host-port={}", servers[which].port));
            command.arg(format!("--pg1-path={}", path(&target.path)));
            if let Some(namespace) = namespace {
                command = namespace.enter(&command);
            }
            let cost = servers[which].cost(|| drop(run_quietly(command).ok()));
            walls[which].push(cost.wall);
            processors[which].push(cost.processor);
            commands::clear(&target.path);
        }
        let last = |which: usize| walls[which][round];
        ratios.push(last(0) / f64::min(last(1), last(2)));
    }
    for (which, setting) in SETTINGS.iter().enumerate() {
        let what = format!("restore, {speed}, network-compression={setting}");
        table::ours(&format!("{what}: wall, s"), median(walls[which].clone()), table::Target::None, "");
        table::ours(&format!("{what}: server CPU, s"), median(processors[which].clone()), table::Target::None, "");
    }
    let what = format!("restore, {speed}: wall of auto to the better of both");
    table::ours(&what, median(ratios), table::Target::Below(1.03), "");
}
