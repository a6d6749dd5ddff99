//! A cluster of its own for each test.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use super::connection::Connection;

/// Debian's directory, since a wrapper of the same name may stand first in the path.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
const SOON: Duration = Duration::from_secs(120);

pub(crate) struct Cluster {
    directory: TempDir,
    sockets: String,
    pub(crate) port: u16,
    process: Child,
}

/// Who runs the cluster: `PostgreSQL` does not want to be root's.
fn owner() -> Option<(u32, u32)> {
    if !geteuid().is_root() {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with("postgres:")).expect("there is a user postgres");
    let fields: Vec<&str> = line.split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

/// The name of whoever runs the tests.
fn own_name() -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let uid = geteuid().as_raw().to_string();
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(&uid)).expect("everybody has a name");
    line.split(':').next().unwrap().to_owned()
}

fn command(program: &str) -> Command {
    let path = Path::new(PROGRAMS).join(program);
    assert!(path.exists(), "{} is missing: tests/run installs what the tests need", path.display());
    let mut command = Command::new(path);
    if let Some((uid, gid)) = owner() {
        command.uid(uid).gid(gid);
    }
    command.env_clear().env("LC_ALL", "C.UTF-8").env("TZ", "UTC").current_dir("/").stdin(Stdio::null());
    command
}

/// Waits until something is the case.
#[track_caller]
pub(crate) fn until(mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < SOON, "it did not happen soon");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Ends a process without giving it a chance to say something.
pub(crate) fn kill(pid: &str) {
    kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
}

impl Cluster {
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::start_at(None, settings)
    }

    /// Starts a cluster whose sockets are at `sockets`, or in its own directory.
    pub(crate) fn start_at(sockets: Option<&str>, settings: &[&str]) -> Self {
        let parent = std::env::var_os("REPOHOSTD_TEST_DIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
        let directory = tempfile::Builder::new().prefix("postgres-").tempdir_in(parent).unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        if let Some((uid, gid)) = owner() {
            chown(directory.path(), Some(uid), Some(gid)).unwrap();
        }
        let data = directory.path().join("data");
        let initdb = command("initdb")
            .args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=trust", "--username=postgres", "--pgdata"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(initdb.status.success(), "{}", String::from_utf8_lossy(&initdb.stderr));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let sockets = sockets.map_or_else(|| directory.path().display().to_string(), str::to_owned);
        let mut file = fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
        let all = [&["listen_addresses = ''", "fsync = off", "shared_buffers = 16MB", "autovacuum = off"], settings];
        for setting in all.concat() {
            writeln!(file, "{setting}").unwrap();
        }
        writeln!(file, "port = {port}\nunix_socket_directories = '{sockets}'").unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let process = command("postgres").arg("-D").arg(&data).stderr(log).spawn().unwrap();
        let cluster = Self { directory, sockets, port, process };
        until(|| cluster.psql(&[("PGHOST", &cluster.sockets)], "select 1").is_ok());
        cluster
    }

    /// The directory of the sockets, or the name of an abstract one.
    pub(crate) fn sockets(&self) -> String {
        self.sockets.clone()
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self, &[("PGHOST", &self.sockets)], Duration::from_secs(20)).unwrap()
    }

    /// Everybody but the tests themselves has to authenticate like this.
    pub(crate) fn set_access(&self, rule: &str) {
        let data = self.directory.path().join("data");
        let method = rule.split_whitespace().next().unwrap();
        let host = if method == "peer" { String::new() } else { format!("host all all 127.0.0.1/32 {rule}\n") };
        fs::write(data.join("pg_hba.conf"), format!("local all postgres trust\nlocal all all {rule}\n{host}")).unwrap();
        // psql is run by the owner of the cluster, who is somebody else than root
        let users: String =
            [own_name(), "postgres".to_owned()].map(|name| format!("here {name} scram_user\n")).concat();
        fs::write(data.join("pg_ident.conf"), users + "elsewhere nobody scram_user\n").unwrap();
        self.query("select pg_reload_conf()");
        // it takes them over some time after it was told to
        until(|| self.query("select pg_conf_load_time() > (pg_stat_file('pg_hba.conf')).modification") == "t");
    }

    pub(crate) fn write_password_file(&self, text: &str, mode: u32) -> String {
        let path = self.directory.path().join("passwords");
        let _ = fs::remove_file(&path);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        if let Some((uid, gid)) = owner() {
            chown(&path, Some(uid), Some(gid)).unwrap();
        }
        path.display().to_string()
    }

    /// The answer to a query of the test itself.
    #[track_caller]
    pub(crate) fn query(&self, sql: &str) -> String {
        self.psql(&[("PGHOST", &self.sockets)], sql).unwrap()
    }

    /// What `psql` makes of a statement: its answer or libpq's text.
    pub(crate) fn psql(&self, variables: &[(&str, &str)], sql: &str) -> Result<String, String> {
        let database = variables.iter().find(|(name, _)| *name == "PGDATABASE").map_or("postgres", |(_, value)| value);
        let mut psql = command("psql");
        psql.env("PGUSER", "postgres").envs(variables.iter().copied().filter(|(name, _)| *name != "PGDATABASE"));
        psql.env("PGPORT", self.port.to_string()).env("PGDATABASE", database);
        let output = psql.args(["-X", "-A", "-t", "-q", "-w", "-c", sql]).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        let error = text(&output.stderr);
        Err(error.strip_prefix("psql: error: ").unwrap_or(&error).to_owned())
    }

    pub(crate) fn stop(&mut self) {
        let pid = Pid::from_child(&self.process);
        let _ = kill_process(pid, Signal::INT);
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.process), Signal::QUIT);
            let _ = self.process.wait();
        }
    }
}
