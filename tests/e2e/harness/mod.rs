//! What every scenario stands on: a directory of its own, processes that end with the test, waiting
//! with a deadline. The submodules add the server, the client, `PostgreSQL` and certificates.

pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod fuse;
pub(crate) mod pg_host;
pub(crate) mod postgres;
mod process;
pub(crate) mod raw;
pub(crate) mod relay;
pub(crate) mod roles;
pub(crate) mod server;
pub(crate) mod service_manager;
pub(crate) mod snapshot;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use client::Client;
use postgres::Cluster;
pub(crate) use process::{Output, Process, run_quietly};
use server::Server;

/// How long anything that should happen soon may take on a busy machine with a slow disk.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// How long a whole command may take there.
pub(crate) const LIMIT: Duration = Duration::from_secs(600);

/// The stanza that scenarios use unless they say otherwise.
pub(crate) const STANZA: &str = "demo";

/// Settings that a life of backups is tried with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) release: &'static str,
    pub(crate) compress: Compress,
    pub(crate) encrypt: bool,
    pub(crate) layout: Layout,
    pub(crate) archive_async: bool,
    pub(crate) process_max: u32,
}

/// `compress-type`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Compress {
    None,
    Gz,
    Bz2,
    Lz4,
    Zst,
}

/// How a backup lies in the repository.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Layout {
    /// A file each.
    Files,
    /// `repo-bundle`.
    Bundles,
    /// `repo-bundle` with `repo-block`.
    Blocks,
}

/// A server, a client that knows it, and the directory that both live in. Nothing runs yet.
pub(crate) struct Bench {
    pub(crate) client: Client,
    pub(crate) server: Server,
    pub(crate) workspace: Arc<Workspace>,
}

impl Bench {
    /// Prepares a repository host and a client of one release.
    pub(crate) fn new(release: &str) -> Self {
        let workspace = Workspace::new();
        let server = Server::new(&workspace, release);
        let client = Client::new(&server, "client");
        let mut bench = Self { client, server, workspace };
        for key in ["repo1-retention-full", "start-fast"] {
            let value = bench.client.config.value("global", key).to_owned();
            bench.set(key, &value);
        }
        bench
    }

    /// Prepares both for a case.
    pub(crate) fn of(case: Case) -> Self {
        let mut bench = Self::new(case.release);
        let compress = match case.compress {
            Compress::None => "none",
            Compress::Gz => "gz",
            Compress::Bz2 => "bz2",
            Compress::Lz4 => "lz4",
            Compress::Zst => "zst",
        };
        bench.set("compress-type", compress);
        bench.set("process-max", &case.process_max.to_string());
        match case.layout {
            Layout::Files => {}
            Layout::Bundles => bench.set("repo1-bundle", "y"),
            Layout::Blocks => bench.store_blocks(),
        }
        if case.archive_async {
            bench.client.config.set("global", "archive-async", "y");
        }
        if case.encrypt {
            // only here: clients ask the repository host for it
            bench.server.config.set("global", "repo1-cipher-type", "aes-256-cbc");
            bench.server.config.set("global", "repo1-cipher-pass", "correct horse battery staple");
        }
        bench
    }

    /// Sets an option that a backup knows, on the host that backs up too.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.client.config.set("global", key, value);
        if !self.backs_up_from_client() {
            self.server.config.set("global", key, value);
        }
    }

    /// Sets the options for backups of bundles and blocks.
    pub(crate) fn store_blocks(&mut self) {
        self.set("repo1-bundle", "y");
        self.set("repo1-block", "y");
        if self.client.release == "2.45" {
            // it was not for everybody yet
            self.set("beta", "y");
        }
    }

    /// Makes a new cluster that archives through the server and does not run yet, and tells both hosts
    /// of it.
    pub(crate) fn create_cluster(&mut self) -> Cluster {
        let cluster = Cluster::create(&self.workspace, &mut self.client);
        for key in ["pg1-path", "pg1-socket-path"] {
            self.server.config.set(STANZA, key, self.client.config.value(STANZA, key));
        }
        cluster
    }

    /// Starts the server and a new cluster that archives through it, and creates the stanza.
    pub(crate) fn with_cluster(&mut self) -> Cluster {
        let cluster = self.with_cluster_only();
        self.client.ok(&["stanza-create"]);
        cluster
    }

    /// Starts the server and a new cluster that would archive through it, if it knew its stanza.
    pub(crate) fn with_cluster_only(&mut self) -> Cluster {
        let mut cluster = self.create_cluster();
        self.server.start();
        cluster.start();
        cluster
    }

    /// Starts a command for the stanza on the host where its release runs it: releases before 2.55 back
    /// up and expire on the repository host only, beside the server and in the same repository.
    pub(crate) fn start(&self, arguments: &[&str]) -> Process {
        self.start_from(&self.client, arguments)
    }

    /// Starts a command for the stanza where its release runs it, which may be another client than
    /// the bench's.
    pub(crate) fn start_from(&self, client: &Client, arguments: &[&str]) -> Process {
        if self.backs_up_from_client() || !["backup", "expire"].contains(&arguments[0]) {
            return client.start(arguments);
        }
        self.server.write_config();
        self.server.start_local(arguments)
    }

    /// Runs a command to its end where its release runs it.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.start(arguments).output(LIMIT)
    }

    /// Runs a command where its release runs it and insists on success.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).ok()
    }

    /// Runs a command where its release runs it, insists on an exit code and returns what was printed.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> String {
        self.run(arguments).fails_with(code)
    }

    /// Whether a backup goes through the server.
    fn backs_up_from_client(&self) -> bool {
        self.client.release != "2.45"
    }
}

/// Whom the tests run programs as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Owner {
    /// `postgres` for root, and oneself for everybody else.
    pub(crate) fn get() -> Self {
        static OWNER: OnceLock<Owner> = OnceLock::new();
        *OWNER.get_or_init(|| {
            if !rustix::process::geteuid().is_root() {
                return Self { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
            }
            let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
            let line = users.lines().find(|line| line.starts_with("postgres:")).expect("there is a user postgres");
            let ids: Vec<u32> =
                line.split(':').skip(2).take(2).map(|id| id.parse().expect("ids are numbers")).collect();
            Self { uid: ids[0], gid: ids[1] }
        })
    }
}

/// A directory on a real disk that vanishes with the last thing that uses it.
///
/// When the test fails, the logs in it are printed first. Programs that a test left behind, such as
/// an asynchronous archiver that no longer has a parent, are found by the directory's name in their
/// command line and ended.
pub(crate) struct Workspace {
    directory: TempDir,
    outputs: AtomicUsize,
}

impl Workspace {
    /// Makes an empty directory that the tests' user owns.
    pub(crate) fn new() -> Arc<Self> {
        let parent = std::env::var_os("REPOHOSTD_TEST_DIR").unwrap_or_else(|| "/var/tmp".into());
        let directory = tempfile::Builder::new()
            .prefix("repohostd-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(parent)
            .expect("a temporary directory can be made");
        let workspace = Self { directory, outputs: AtomicUsize::new(0) };
        own(workspace.path());
        workspace.directory("out");
        Arc::new(workspace)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file in it unless it has this text already: a program that is just starting must not find
    /// half of it.
    pub(crate) fn update(&self, name: &str, mode: u32, text: &str) {
        if fs::read_to_string(self.path().join(name)).is_ok_and(|written| written == text) {
            return;
        }
        self.file(name, mode, text);
    }

    /// Makes a directory in it, with those above.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let mut path = self.path().to_owned();
        for part in Path::new(name) {
            path.push(part);
            if !path.exists() {
                fs::create_dir(&path).expect("the directory can be made");
                fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).expect("its mode can be set");
                own(&path);
            }
        }
        path
    }

    /// Writes a file in it.
    pub(crate) fn file(&self, name: &str, mode: u32, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).expect("the file can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode can be set");
        own(&path);
        path
    }

    /// A program to be run as the tests' user, with an environment that nothing from outside reaches.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.path())
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .current_dir(self.path())
            .stdin(Stdio::null());
        if rustix::process::geteuid().is_root() {
            let owner = Owner::get();
            command.uid(owner.uid).gid(owner.gid);
        }
        command
    }

    /// Starts a program whose output goes to files that a failing test shows.
    pub(crate) fn spawn(&self, name: &str, mut command: Command) -> Process {
        self.start(name, &mut command, None)
    }

    /// Starts a program that prints into a file of the caller's.
    pub(crate) fn spawn_into(&self, name: &str, command: &mut Command, file: File) -> Process {
        self.start(name, command, Some(file))
    }

    fn start(&self, name: &str, command: &mut Command, into: Option<File>) -> Process {
        let number = self.outputs.fetch_add(1, Ordering::Relaxed);
        let output = |kind: &str| {
            let path = self.path().join(format!("out/{number:03}-{name}.{kind}.log"));
            let file = OpenOptions::new().append(true).create(true).open(&path).expect("the log can be made");
            (path, file)
        };
        let ((stdout, out), (stderr, error)) = (output("stdout"), output("stderr"));
        let text = format!("{command:?}");
        let child = command.stdout(into.unwrap_or(out)).stderr(error).spawn();
        let child = child.unwrap_or_else(|error| panic!("{text} does not start: {error}"));
        Process { child, text, stdout, stderr, ending: Signal::TERM }
    }

    /// Runs a program to its end.
    pub(crate) fn run(&self, name: &str, command: Command) -> Output {
        self.spawn(name, command).output(LIMIT)
    }

    /// Processes whose command line names this directory.
    fn left_behind(&self) -> Vec<Pid> {
        let name = self.path().as_os_str().as_bytes();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        processes
            .filter(|entry| {
                fs::read(entry.path().join("cmdline"))
                    .is_ok_and(|command| command.windows(name.len()).any(|window| window == name))
            })
            .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
            .collect()
    }

    /// The ends of all logs in the directory.
    fn logs(&self) -> String {
        let mut text = String::new();
        for path in files(self.path()) {
            if path.extension().is_some_and(|extension| extension == "log")
                && let Ok(log) = fs::read(&path)
                && !log.is_empty()
            {
                let log = String::from_utf8_lossy(&log);
                let lines: Vec<&str> = log.lines().collect();
                let end = lines[lines.len().saturating_sub(60)..].join("\n");
                let _ = writeln!(text, "---- {}\n{end}", path.display());
            }
        }
        text
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        for pid in self.left_behind() {
            let _ = kill_process(pid, Signal::KILL);
        }
        if thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

/// A file in `pgbackrest`'s configuration grammar.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    sections: BTreeMap<String, Vec<(String, String)>>,
}

impl Config {
    /// Sets a key to one value.
    pub(crate) fn set(&mut self, section: &str, key: &str, value: &str) {
        self.unset(section, key);
        self.add(section, key, value);
    }

    /// Adds a value to a key.
    pub(crate) fn add(&mut self, section: &str, key: &str, value: &str) {
        self.sections.entry(section.to_owned()).or_default().push((key.to_owned(), value.to_owned()));
    }

    /// Removes a key.
    pub(crate) fn unset(&mut self, section: &str, key: &str) {
        if let Some(entries) = self.sections.get_mut(section) {
            entries.retain(|(name, _)| name != key);
        }
    }

    /// The first value of a key that was set.
    pub(crate) fn value(&self, section: &str, key: &str) -> &str {
        let mut entries = self.sections.get(section).into_iter().flatten();
        entries.find(|(name, _)| name == key).map(|(_, value)| value.as_str()).expect("the key was set")
    }

    /// The file's text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (section, entries) in &self.sections {
            let _ = writeln!(text, "[{section}]");
            for (key, value) in entries {
                let _ = writeln!(text, "{key}={value}");
            }
            text.push('\n');
        }
        text
    }
}

/// Asks again and again until there is an answer, and fails after the limit.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut answer: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    wait_for(what, limit, || holds().then_some(()));
}

/// A port that nobody listens on, neither on IPv4 nor on IPv6.
///
/// It lies below the range that the kernel takes ports of outgoing connections from, so that no
/// connection of a test running beside can take it before the server does.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 10_000 + u16::try_from(std::process::id() % 200).expect("small") * 100;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
            && TcpListener::bind((Ipv6Addr::LOCALHOST, port)).is_ok()
        {
            return port;
        }
    }
}

/// Every file below a directory, sorted. What vanishes meanwhile is left out.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(_) => found.push(entry.path()),
            Err(_) => {}
        }
    }
    found.sort();
    found
}

/// Temporary files of writes that were not finished.
pub(crate) fn temporary_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = files(directory);
    found.retain(|path| path.extension().is_some_and(|extension| extension == "tmp"));
    found
}

/// Whether a program is on this machine's disk, with a remedy when not.
pub(crate) fn program(path: impl Into<PathBuf>) -> PathBuf {
    let path = path.into();
    assert!(path.exists(), "{} is missing: tests/run installs what the tests need", path.display());
    path
}

/// A client's or an original server's binary.
pub(crate) fn peer(release: &str) -> PathBuf {
    let peers = std::env::var_os("REPOHOSTD_TEST_PEERS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers"), PathBuf::from);
    program(peers.join(release).join("pgbackrest"))
}

/// Gives a path to the tests' user.
pub(crate) fn own(path: &Path) {
    if rustix::process::geteuid().is_root() {
        let owner = Owner::get();
        chown(path, Some(owner.uid), Some(owner.gid)).expect("the path can be given away");
    }
}

/// Runs a system administrator's command, by sudo where the tests are an ordinary user's.
pub(crate) fn as_root(program: &str, arguments: &[&str]) -> io::Result<ExitStatus> {
    if rustix::process::geteuid().is_root() {
        Command::new(program).args(arguments).status()
    } else {
        Command::new("sudo").args(["-n", program]).args(arguments).status()
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Opens a lock file and holds the lock on it that `pgbackrest` takes, once the server has let go of it.
///
/// A client does not wait for the end of its session on the server, so the lock of a command that is
/// over may be held for a moment.
pub(crate) fn hold_lock(path: &Path) -> File {
    wait_for(&format!("the lock {} to be free", path.display()), SOON, || {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).ok()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        own(path);
        // whoever held it may have removed the file meanwhile
        let (held, now) = (file.metadata().ok()?, fs::metadata(path).ok()?);
        (held.ino() == now.ino()).then_some(file)
    })
}

/// Waits until no lock file is left in a directory.
#[track_caller]
pub(crate) fn wait_until_unlocked(directory: &Path) {
    wait_until("lock files to go", SOON, || files(directory).is_empty());
}
