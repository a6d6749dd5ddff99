//! `PostgreSQL` clusters that archive to the repository or were restored from it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use rustix::process::Signal;

use super::client::Client;
use super::{LIMIT, Output, Process, SOON, STANZA, Workspace, own, program, run_quietly, wait_until};

/// Debian's directory, since a wrapper of the same name may stand first in the path.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// What `initdb` makes, packed: it takes longer than most of what is done with it.
static INITIALIZED: OnceLock<Vec<u8>> = OnceLock::new();

/// A cluster's directory and, while it runs, its server.
pub(crate) struct Cluster {
    pub(crate) path: PathBuf,
    /// Where it listens; said by its configuration.
    pub(crate) port: u16,
    workspace: Arc<Workspace>,
    sockets: PathBuf,
    process: Option<Process>,
}

impl Cluster {
    /// Makes a new cluster that archives with a client's configuration, and tells the client of it.
    pub(crate) fn create(workspace: &Arc<Workspace>, client: &mut Client) -> Self {
        let is_another = workspace.path().join("pg").exists();
        let cluster = Self::at(workspace, "pg");
        // Those of different tests never meet, so they may have the same system identifier.
        if is_another {
            cluster.initialize();
        } else {
            cluster.unpack(INITIALIZED.get_or_init(|| cluster.initialize_elsewhere()));
        }

        client.config.set(STANZA, "pg1-path", &cluster.path.display().to_string());
        client.config.set(STANZA, "pg1-socket-path", &cluster.sockets.display().to_string());
        client.write_config();
        let archive = format!(
            "{} --config={} --stanza={STANZA} archive-push \"%p\"",
            client.program().display(),
            client.config_file().display(),
        );
        let settings = format!(
            "archive_mode = on\narchive_command = '{archive}'\nfsync = off\nshared_buffers = 32MB\n\
             listen_addresses = ''\nautovacuum = off\nmax_wal_size = 256MB\n"
        );
        let file = cluster.path.join("postgresql.conf");
        let text = fs::read_to_string(&file).expect("initdb wrote a configuration");
        fs::write(&file, text + &settings).expect("the configuration can be written");
        cluster
    }

    fn initialize(&self) {
        let mut command = self.command("initdb");
        command.args(["--data-checksums", "--no-sync", "--encoding=UTF8", "--locale=C", "--auth=trust", "--pgdata"]);
        command.arg(&self.path);
        self.workspace.run("initdb", command).ok();
    }

    /// A new cluster, packed.
    fn initialize_elsewhere(&self) -> Vec<u8> {
        let other = Self::at(&self.workspace, "initialized");
        other.initialize();
        let mut command = self.workspace.command("tar");
        command.arg("-C").arg(&other.path).args(["-c", "."]);
        let output = command.output().expect("tar starts");
        assert!(output.status.success(), "tar: {}", String::from_utf8_lossy(&output.stderr));
        fs::remove_dir_all(&other.path).expect("the cluster can be removed");
        output.stdout
    }

    fn unpack(&self, packed: &[u8]) {
        let mut command = self.workspace.command("tar");
        command.arg("-C").arg(&self.path).arg("-xp").stdin(Stdio::piped());
        let mut tar = command.spawn().expect("tar starts");
        tar.stdin.take().expect("it is piped").write_all(packed).expect("tar reads all of it");
        assert!(tar.wait().expect("tar ends").success(), "the cluster cannot be unpacked");
    }

    /// A cluster that a restore is going to make.
    pub(crate) fn at(workspace: &Arc<Workspace>, name: &str) -> Self {
        let path = workspace.directory(&format!("{name}/data"));
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("its mode can be set");
        let sockets = workspace.directory(&format!("{name}/run"));
        Self { path, port: 5432, workspace: Arc::clone(workspace), sockets, process: None }
    }

    /// The directory of its socket.
    pub(crate) fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// Starts the cluster; returns when it takes queries and has left recovery.
    pub(crate) fn start(&mut self) {
        self.start_until("f\n");
    }

    /// Starts a standby; returns when it takes queries.
    pub(crate) fn start_standby(&mut self) {
        self.start_until("t\n");
    }

    fn start_until(&mut self, in_recovery: &str) {
        assert!(self.process.is_none(), "the cluster runs already");
        let mut command = self.command("postgres");
        command.arg("-D").arg(&self.path).arg("-k").arg(&self.sockets);
        let mut process = self.workspace.spawn("postgres", command);
        process.ending = Signal::QUIT;
        wait_until("PostgreSQL to take queries", LIMIT, || {
            if let Some(status) = process.ended() {
                panic!("PostgreSQL ended with {status}:\n{}", process.printed());
            }
            let output = self.try_query("postgres", "select pg_is_in_recovery()");
            output.code == 0 && output.stdout == in_recovery
        });
        self.process = Some(process);
    }

    /// Shuts the cluster down as an administrator does.
    pub(crate) fn stop(&mut self) {
        let mut process = self.process.take().expect("the cluster runs");
        process.signal(Signal::INT);
        let status = process.wait(LIMIT);
        assert!(status.success(), "PostgreSQL ended with {status}:\n{}", process.printed());
    }

    /// Answers a query.
    #[track_caller]
    pub(crate) fn query(&self, sql: &str) -> String {
        self.query_in("postgres", sql)
    }

    /// Answers a query in a database.
    #[track_caller]
    pub(crate) fn query_in(&self, database: &str, sql: &str) -> String {
        self.try_query(database, sql).ok().trim_end().to_owned()
    }

    /// Answers a query that may fail for now.
    pub(crate) fn answers(&self, sql: &str) -> Option<String> {
        let output = self.try_query("postgres", sql);
        (output.code == 0).then(|| output.stdout.trim_end().to_owned())
    }

    /// Makes pgbench's tables.
    pub(crate) fn fill(&self, scale: u32) {
        let mut command = self.command("pgbench");
        command.args(["--initialize", "--quiet", "--scale", &scale.to_string(), "--host"]).arg(&self.sockets);
        command.arg("postgres");
        self.workspace.run("pgbench-fill", command).ok();
    }

    /// Starts a load that goes on until the returned process ends.
    pub(crate) fn load(&self) -> Process {
        let mut command = self.command("pgbench");
        command.args(["--client=2", "--time=86400", "--rate=200", "--host"]).arg(&self.sockets).arg("postgres");
        let before = self.query("select count(*) from pgbench_history");
        let process = self.workspace.spawn("pgbench", command);
        wait_until("the load to change rows", SOON, || self.query("select count(*) from pgbench_history") != before);
        process
    }

    /// Finishes the current WAL segment and returns its name.
    pub(crate) fn switch_wal(&self) -> String {
        // a switch right after a switch does nothing, so there has to be something to switch from
        self.query("select pg_create_restore_point('switch')");
        self.query("select pg_walfile_name(pg_switch_wal())")
    }

    /// Finishes the current WAL segment, waits until it is archived and returns its name.
    pub(crate) fn archive(&self) -> String {
        let segment = self.switch_wal();
        self.wait_until_archived(&segment);
        segment
    }

    /// Waits until a WAL segment is archived.
    #[track_caller]
    pub(crate) fn wait_until_archived(&self, segment: &str) {
        wait_until(&format!("segment {segment} to be archived"), LIMIT, || {
            self.query("select last_archived_wal from pg_stat_archiver").as_str() >= segment
        });
    }

    /// A checksum of every row of each table.
    pub(crate) fn rows(&self) -> BTreeMap<String, String> {
        let tables = self.query("select tablename from pg_tables where schemaname = 'public' order by 1");
        let rows: BTreeMap<String, String> = tables
            .lines()
            .map(|table| {
                let sql = format!(
                    "select count(*) || ' rows, ' || coalesce(md5(string_agg(t::text, '|' order by t::text)), '') \
                     from {table} t"
                );
                (table.to_owned(), self.query(&sql))
            })
            .collect();
        assert!(rows.len() >= 4, "pgbench's tables are missing: {rows:?}");
        rows
    }

    /// Copies an archived WAL segment of this cluster to a name of its own outside the cluster, to be
    /// pushed by hand. Nothing else is pushed unless the caller causes it.
    pub(crate) fn copy_segment(&self, name: &str) -> PathBuf {
        let segment = self.archive();
        let copy = self.workspace.directory("segments").join(name);
        fs::copy(self.path.join("pg_wal").join(segment), &copy).expect("the segment can be copied");
        own(&copy);
        copy
    }

    fn try_query(&self, database: &str, sql: &str) -> Output {
        let mut command = self.command("psql");
        command.args(["-X", "-A", "-t", "-q", "-p", &self.port.to_string(), "-h"]).arg(&self.sockets);
        command.args(["-d", database, "-c", sql]);
        run_quietly(command)
    }

    fn command(&self, name: &str) -> Command {
        self.workspace.command(program(format!("{PROGRAMS}/{name}")))
    }
}
