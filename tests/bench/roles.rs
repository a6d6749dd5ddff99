//! What it costs the server to know a role: processor time of listings and of small writes, for each role
//! against an administrator of the whole repository.
//!
//! `cargo bench --bench roles [-- --segment KIB]`; see the README beside this file.

#[path = "../e2e/harness"]
#[allow(dead_code, reason = "the end-to-end tests use the rest")]
mod harness {
    pub(crate) mod certificates;
    pub(crate) mod raw;
}
#[path = "../shared/wire.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod wire;

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use harness::certificates::{Authority, Certificates, Identity};
use harness::raw::connect;
use wire::{Answer, Conversation, How};

const RELEASE: &str = "2.55.1";

/// How often each variant is measured, in turns, so that all of them meet what else the machine does.
const ROUNDS: usize = 9;

const DIRECTORIES: usize = 100;
const FILES_EACH: usize = 1_000;
const WRITES: usize = 10_000;
/// Segments of one directory: their numbers are those of PostgreSQL's segments of 16 MiB.
const SEGMENTS_EACH: usize = 256;
/// So much of WAL is written unless that is less than a directory of segments.
const WAL_BYTES: usize = 1 << 30;
/// What pgbackrest sends at a time.
const BLOCK: usize = 1 << 20;

const FINISHED: &str = "backup/demo/20260101-000000F";
const UNFINISHED: &str = "backup/demo/20260102-000000F";
const WAL: &str = "archive/demo/15-1";

/// A client: its name, what it says that it is doing, and the lines that the configuration has for it.
struct Variant {
    name: &'static str,
    grant: &'static str,
    role: &'static str,
    command: &'static str,
}

const VARIANTS: [Variant; 5] = [
    Variant { name: "admin-of-all", grant: "*", role: "admin", command: "backup:remote" },
    Variant { name: "admin", grant: "demo", role: "admin", command: "backup:remote" },
    Variant { name: "backup", grant: "demo", role: "backup", command: "backup:remote" },
    Variant { name: "archiver", grant: "demo", role: "archiver", command: "archive-push:remote" },
    Variant { name: "reader", grant: "demo", role: "reader", command: "verify:remote" },
];

/// What is measured: its name, the variants that may do it, and the work.
struct Load {
    name: String,
    variants: &'static [&'static str],
    run: Box<Run>,
}

type Run = dyn Fn(&mut Conversation, &Path);

impl Load {
    fn of_listing() -> Self {
        Self {
            name: format!("list {} files", DIRECTORIES * FILES_EACH),
            variants: &["admin-of-all", "admin", "backup", "archiver", "reader"],
            run: Box::new(list),
        }
    }

    fn of_backup() -> Self {
        Self {
            name: format!("{WRITES} files of a backup"),
            variants: &["admin-of-all", "admin", "backup"],
            run: Box::new(write_backup),
        }
    }

    /// Of segments that have so many bytes.
    fn of_wal(size: usize) -> Self {
        let count = WRITES.min(WAL_BYTES / size).max(SEGMENTS_EACH);
        Self {
            name: format!("{count} WAL segments of {} KiB", size >> 10),
            variants: &["admin-of-all", "admin", "archiver", "backup"],
            run: Box::new(move |client, repository| write_wal(client, repository, size, count)),
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let loads = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => vec![Load::of_listing(), Load::of_backup(), Load::of_wal(4 << 10)],
        ["--segment", kibibytes] => vec![Load::of_wal(kibibytes.parse::<usize>().expect("a number of KiB") << 10)],
        _ => panic!("usage: cargo bench --bench roles [-- --segment KIB]"),
    };
    let server = Server::start();
    for load in &loads {
        let mut seconds = vec![Vec::new(); load.variants.len()];
        for round in 0..ROUNDS {
            for turn in 0..load.variants.len() {
                // nobody is always the first after the tree was made anew
                let index = (turn + round) % load.variants.len();
                seconds[index].push(server.measure(load, load.variants[index]));
            }
        }
        println!("{}", load.name);
        for (name, own) in load.variants.iter().zip(&seconds) {
            let mut ratios: Vec<f64> = own.iter().zip(&seconds[0]).map(|(own, first)| own / first).collect();
            let fastest = |seconds: &[f64]| seconds.iter().copied().fold(f64::INFINITY, f64::min);
            println!(
                "  {name:<14} median {:>7.3} s CPU, x {:.3}   fastest {:>7.3} s, x {:.3}",
                median(&mut own.clone()),
                median(&mut ratios),
                fastest(own),
                fastest(own) / fastest(&seconds[0])
            );
        }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn done(answer: &Answer) {
    assert!(answer.is_done(), "{answer:?}");
}

fn list(client: &mut Conversation, repository: &Path) {
    let base = format!("{}/{FINISHED}/pg_data", repository.display());
    done(&client.list(&base));
    for directory in 0..DIRECTORIES {
        done(&client.list(&format!("{base}/{directory}")));
    }
}

fn write_backup(client: &mut Conversation, repository: &Path) {
    let base = format!("{}/{UNFINISHED}/pg_data", repository.display());
    let content = vec![7; 4 << 10];
    for number in 0..WRITES {
        let path = format!("{base}/{}/{number}", number % 10);
        done(&client.write(&path, &content, How { atomic: false, create_path: true }));
    }
}

fn write_wal(client: &mut Conversation, repository: &Path, size: usize, count: usize) {
    let base = format!("{}/{WAL}", repository.display());
    let content = vec![7; size];
    for number in 0..count {
        let (log, segment) = (number / SEGMENTS_EACH, number % SEGMENTS_EACH);
        let path = format!("{base}/00000001{log:08X}/00000001{log:08X}{segment:08X}-{number:040x}.gz");
        done(&client.open_write(&path, How { atomic: true, create_path: true }));
        content.chunks(BLOCK).for_each(|block| done(&client.write_block(block)));
        done(&client.close_write());
        // the memory of the machine holds all the names, but not what is in them
        fs::write(path, "").expect("the file can be emptied");
    }
}

struct Server {
    process: Child,
    port: u16,
    repository: PathBuf,
    identities: Vec<Identity>,
    _directory: tempfile::TempDir,
}

impl Server {
    /// Starts a server that knows a client of each variant, with a finished backup to list.
    fn start() -> Self {
        // in memory, where the server's own work is the largest part of all
        let parent = std::env::var_os("REPOHOSTD_TEST_DIR").map_or_else(|| PathBuf::from("/dev/shm"), PathBuf::from);
        let directory = tempfile::tempdir_in(parent).expect("a directory can be made");
        let here = directory.path();
        let repository = here.join("repository");
        for number in 0..DIRECTORIES {
            let place = repository.join(FINISHED).join("pg_data").join(number.to_string());
            fs::create_dir_all(&place).expect("a directory can be made");
            for number in 0..FILES_EACH {
                fs::write(place.join(number.to_string()), "").expect("a file can be made");
            }
        }
        fs::write(repository.join(FINISHED).join("backup.manifest"), "").expect("a file can be made");
        fs::create_dir_all(repository.join("archive/demo")).expect("a directory can be made");

        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let port = port.expect("there is a free port").port();
        let certificates = Certificates::shared();
        let identities = VARIANTS.iter().map(|variant| certificates.authority.issue(variant.name)).collect();
        write_config(here, &certificates.authority, &certificates.server, port);
        let mut process = Command::new(env!("CARGO_BIN_EXE_repohostd"))
            .arg(format!("--config={}", here.join("pgbackrest.conf").display()))
            .arg(format!("--release={RELEASE}"))
            .stdin(Stdio::null())
            .spawn()
            .expect("the server starts");
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(process.try_wait().expect("a child").is_none(), "the server ended");
            assert!(Instant::now() < deadline, "the server does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Self { process, port, repository, identities, _directory: directory }
    }

    /// The processor time that the server takes for a load by a variant.
    fn measure(&self, load: &Load, name: &str) -> f64 {
        for place in [UNFINISHED, "archive/demo/15-1"] {
            let place = self.repository.join(place);
            if place.exists() {
                fs::remove_dir_all(place).expect("the files can be removed");
            }
        }
        let index = VARIANTS.iter().position(|variant| variant.name == name).expect("the variant is there");
        let mut client = connect(self.port, &self.identities[index], RELEASE);
        done(&client.config(&["--process=1", "--remote-type=repo", "--stanza=demo", VARIANTS[index].command]));
        done(&client.ask("noop", |_| {}));
        let before = self.processor_time();
        (load.run)(&mut client, &self.repository);
        self.processor_time() - before
    }

    /// Seconds that the server's only thread has run.
    fn processor_time(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", self.process.id())).expect("the server runs");
        let nanoseconds: f64 = text.split(' ').next().and_then(|number| number.parse().ok()).expect("a number");
        nanoseconds / 1e9
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn write_config(here: &Path, authority: &Authority, identity: &Identity, port: u16) {
    let write = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::write(here.join(name), text).expect("a file can be made");
        fs::set_permissions(here.join(name), fs::Permissions::from_mode(0o600)).expect("its mode can be set");
    };
    write("ca.crt", &authority.certificate);
    write("server.crt", &identity.certificate);
    write("server.key", &identity.key);
    let place = here.display();
    let mut config = format!(
        "[global]\nrepo1-path={place}/repository\nlock-path={place}/lock\nlog-path={place}\nlog-level-console=error\n\
         log-level-file=off\ntls-server-address=127.0.0.1\ntls-server-port={port}\ntls-server-ca-file={place}/ca.crt\n\
         tls-server-cert-file={place}/server.crt\ntls-server-key-file={place}/server.key\n"
    );
    // one process, whose time is what is measured
    let mut own = "[global]\nworkers=1\n".to_owned();
    let stanza = "\n[demo]\npg1-path=/var/lib/postgresql/15/main\n";
    for Variant { name, grant, role, .. } in &VARIANTS {
        let _ = writeln!(config, "tls-server-auth={name}={grant}");
        let _ = writeln!(own, "[client:{name}]\nrole={role}\n");
    }
    write("pgbackrest.conf", &(config + stanza));
    write("repohostd.conf", &own);
}
