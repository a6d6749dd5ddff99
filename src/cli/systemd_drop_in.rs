//! `repohostd systemd-drop-in`: what the unit has to be told on this host, and whether the running
//! service reaches what the configuration names.
//!
//! The unit as shipped runs as a user of its own and may write where pgBackRest's defaults are. A
//! host whose repository lies elsewhere or belongs to somebody else needs a drop-in, and so does one with a
//! cluster, which its owner alone can read. It is derived here from the effective configuration and the owner of
//! what is served. The same text comes from an
//! administrator's call and from the check at start, because neither looks at who asks.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use argh::FromArgs;
use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::entries;
use crate::config::{self, Described, Environment, Search};
use crate::disk::passwd;
use crate::protocol::error::{Code, Error, Result};

/// Where drop-ins of the unit are.
const DROP_INS: [&str; 3] = [
    "/usr/lib/systemd/system/repohostd.service.d",
    "/run/systemd/system/repohostd.service.d",
    "/etc/systemd/system/repohostd.service.d",
];
/// `User=` of the shipped unit.
const USER: &str = "repohostd";
/// `ReadWritePaths=`, `StateDirectory=` and `RuntimeDirectory=` of the shipped unit.
const WRITABLE: [&str; 6] = [
    "/tmp",
    "/var/lib/pgbackrest",
    "/var/log/pgbackrest",
    "/var/spool/pgbackrest",
    "/var/lib/repohostd",
    "/run/repohostd",
];
/// pgBackRest's default of `repo1-path`, which only sessions know.
const REPOSITORY: &str = "/var/lib/pgbackrest";
/// The same for `lock-path`.
const LOCK_PATH: &str = "/tmp/pgbackrest";
/// Ports below need a capability.
const PORT_FREE: u16 = 1024;
/// What an administrator is to do with the text.
const INTRODUCTION: &str = "# /etc/systemd/system/repohostd.service.d/site.conf, as 'repohostd systemd-drop-in' prints it; then:\n\
                            # systemctl daemon-reload && systemctl restart repohostd\n";

/// print the drop-in that the systemd unit needs on this host (user, writable paths, capabilities),
/// by the effective configuration and the owner of the repository or the cluster; takes the options of 'serve'.
#[derive(FromArgs)]
#[argh(subcommand, name = "systemd-drop-in")]
pub struct SystemdDropIn {}

/// Prints the drop-in for these options; returns the exit status.
#[must_use]
pub fn run(arguments: &[String], environment: &Environment) -> u8 {
    super::log_to_stderr();
    super::report(Needs::of(arguments, environment).map(|needs| needs.text()))
}

/// Whether this process reaches everything that the configuration names.
///
/// # Errors
///
/// 41 for something that it cannot read or write, with the drop-in that helps.
pub(super) fn check_reach(arguments: &[String], environment: &Environment) -> Result<()> {
    let needs = Needs::of(arguments, environment)?;
    let Some(what) = needs.out_of_reach() else { return Ok(()) };
    Err(Error::new(
        Code::FileOpen,
        format!(
            "the service cannot {what}\nHINT: tell the unit what it may do on this host:\n{}",
            needs.text().trim_end()
        ),
    ))
}

/// The user who is going to serve, where root asks on their behalf.
///
/// # Errors
///
/// Those of reading the configuration.
pub(super) fn other_user(arguments: &[String], environment: &Environment) -> Result<Option<u32>> {
    if !rustix::process::getuid().is_root() {
        return Ok(None);
    }
    let described = config::describe(arguments, environment, &Search::default())?;
    let mut user = None;
    Needs::by(&described, &mut |path| {
        user = owning_user(path);
        owner(path)
    });
    Ok(user)
}

/// The user whom the service runs as, for root: whoever the drop-ins say, otherwise the `owner` of what is served, for
/// whom a drop-in can be had, otherwise the shipped unit's own.
pub(super) fn serving_user(owner: Option<u32>) -> Option<u32> {
    if !rustix::process::getuid().is_root() {
        return None;
    }
    let mut files: Vec<_> = DROP_INS.iter().flat_map(|directory| entries(Path::new(directory))).collect();
    files.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
    let said = files.iter().rev().find_map(|path| {
        let text = fs::read_to_string(path).ok()?;
        text.lines().rev().find_map(|line| line.strip_prefix("User=").map(str::to_owned))
    });
    let number = |name: &str| passwd::number(name).or_else(|| name.parse().ok());
    said.and_then(|name| number(name.trim())).or(owner).or_else(|| number(USER))
}

/// What the unit needs on this host.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    arguments: Vec<String>,
    /// Who owns what is served, where that can be told.
    user: Option<String>,
    /// Directories that are written.
    write: Vec<PathBuf>,
    /// Files that are read.
    read: Vec<PathBuf>,
    port: Option<u16>,
    priority: bool,
}

impl Needs {
    fn of(arguments: &[String], environment: &Environment) -> Result<Self> {
        let described = config::describe(arguments, environment, &Search::default())?;
        Ok(Self { arguments: arguments.to_vec(), ..Self::by(&described, &mut owner) })
    }

    /// By the effective settings; `owner` names the owner of a path.
    fn by(described: &[Described], owner: &mut dyn FnMut(&Path) -> Option<String>) -> Self {
        let values = |wanted: &dyn Fn(&str) -> bool| -> Vec<&str> {
            let bare = |name: &'_ str| name.rsplit(' ').next().unwrap_or_default().to_owned();
            described.iter().filter(|(name, ..)| wanted(&bare(name))).map(|(_, value, _)| value.as_str()).collect()
        };
        let one = |wanted: &str| values(&|name| name == wanted).first().copied();
        let paths = |texts: Vec<&str>| texts.into_iter().map(PathBuf::from).collect::<Vec<_>>();

        let elsewhere = |path_name: &str| {
            let key = path_name.trim_end_matches("-path");
            one(&format!("{key}-host")).is_some()
                || one(&format!("{key}-type")).is_some_and(|kind| !["posix", "cifs"].contains(&kind))
        };
        let mut repositories = paths(values(&|name| is_indexed(name, "repo", "-path") && !elsewhere(name)));
        if one("repo1-path").is_none() && !elsewhere("repo1-path") {
            repositories.insert(0, PathBuf::from(REPOSITORY));
        }
        let mut write: Vec<_> = repositories.iter().flat_map(|path| with_links(path)).collect();
        let allowed = values(&|name| name == "allow-client-repository").into_iter();
        write.extend(allowed.flat_map(|list| list.split(',')).map(|path| PathBuf::from(path.trim())));
        write.retain(|path| !path.as_os_str().is_empty());
        write.push(PathBuf::from(one("lock-path").unwrap_or(LOCK_PATH)));
        if one("log-level-file") != Some("off") {
            write.extend(paths(values(&|name| name == "log-path")));
        }
        write.extend(["state-path", "history-path"].into_iter().filter_map(one).map(PathBuf::from));
        write.extend(one("status-socket").and_then(|path| Some(Path::new(path).parent()?.to_owned())));
        let read = paths(values(&|name| {
            ["tls-server-cert-file", "tls-server-key-file", "tls-server-ca-file", "crl-file"].contains(&name)
        }));
        let mut unique: Vec<PathBuf> = Vec::new();
        for path in write {
            if !unique.contains(&path) {
                unique.push(path);
            }
        }
        // The key is the next best witness of who serves where there is neither a repository nor a cluster yet.
        let key = paths(values(&|name| name == "tls-server-key-file"));
        let clusters = clusters(described);
        let clusters = clusters.iter().filter(|path| !is_missing(path));
        let user = repositories.iter().chain(clusters).chain(&key).find_map(|path| owner(path));
        Self {
            arguments: vec![],
            user,
            write: unique,
            read,
            port: one("tls-server-port").and_then(|text| text.parse().ok()),
            priority: one("priority").is_some(),
        }
    }

    /// The drop-in, with a remark where none is needed.
    fn text(&self) -> String {
        let mut lines = String::new();
        // Writing to a string does not fail.
        if let Some(user) = self.user.as_deref().filter(|user| *user != USER) {
            let _ = writeln!(lines, "User={user}");
        }
        for path in self.write.iter().filter(|path| !WRITABLE.iter().any(|shipped| path.starts_with(shipped))) {
            let _ = writeln!(lines, "ReadWritePaths={}", quote(&path.display().to_string()));
        }
        if self.port.is_some_and(|port| port < PORT_FREE) {
            lines.push_str("CapabilityBoundingSet=CAP_NET_BIND_SERVICE\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n");
        }
        if self.priority {
            lines.push_str("SystemCallFilter=setpriority\n");
        }
        if !self.arguments.is_empty() {
            let words: String = self.arguments.iter().flat_map(|word| [" ".to_owned(), quote(word)]).collect();
            let _ = writeln!(lines, "ExecStartPre=\nExecStartPre=-/usr/bin/repohostd check --systemd{words}");
            let _ = writeln!(lines, "ExecStart=\nExecStart=/usr/bin/repohostd serve --systemd{words}");
        }
        if lines.is_empty() {
            return "# no drop-in is needed: the unit reaches everything that the configuration names\n".to_owned();
        }
        format!("{INTRODUCTION}[Service]\n{lines}")
    }

    /// The first thing that this process cannot do.
    fn out_of_reach(&self) -> Option<String> {
        let denied = |path: &Path, access| {
            let errno = accessat(CWD, path, access, AtFlags::EACCESS).err()?;
            Some(std::io::Error::from(errno).kind().to_string())
        };
        let write = self.write.iter().find_map(|path| {
            let existing = path.ancestors().find(|ancestor| !is_missing(ancestor))?;
            let reason = denied(existing, Access::WRITE_OK | Access::EXEC_OK)?;
            let verb = if existing == path { "write" } else { "make" };
            Some(format!("{verb} '{}': {reason}", path.display()))
        });
        let read = || {
            let mut existing = self.read.iter().filter(|path| !is_missing(path));
            existing.find_map(|path| Some(format!("read '{}': {}", path.display(), denied(path, Access::READ_OK)?)))
        };
        write.or_else(read)
    }
}

/// The data directories of this host's clusters, which their owner alone can read.
fn clusters(described: &[Described]) -> Vec<PathBuf> {
    let said = |name: String, value: Option<&str>| {
        described.iter().any(|(other, text, _)| *other == name && value.is_none_or(|value| value == text))
    };
    let paths = described.iter().filter_map(|(name, path, _)| {
        let bare = name.rsplit(' ').next().filter(|bare| is_indexed(bare, "pg", "-path"))?;
        let prefix = name.strip_suffix(bare)?;
        let key = bare.strip_suffix("-path")?;
        let is_elsewhere =
            said(format!("{prefix}{key}-host"), None) && !said(format!("{prefix}{key}-local"), Some("y"));
        (!is_elsewhere).then(|| PathBuf::from(path))
    });
    paths.collect()
}

/// Whether `name` is `<group>N<rest>`.
fn is_indexed(name: &str, group: &str, rest: &str) -> bool {
    let key = name.strip_prefix(group).and_then(|name| name.strip_suffix(rest));
    key.is_some_and(|key| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A repository and where its administrator's links lead: `archive`, `backup`, and stanzas in them.
fn with_links(repository: &Path) -> Vec<PathBuf> {
    let mut result = vec![repository.to_owned()];
    let mut candidates = vec![];
    for name in ["archive", "backup"] {
        let directory = repository.join(name);
        let mut links: Vec<_> = entries(&directory).collect();
        links.sort();
        candidates.push(directory);
        candidates.extend(links);
    }
    for path in candidates.iter().filter(|path| path.is_symlink()) {
        result.extend(fs::canonicalize(path).ok().filter(|target| !target.starts_with(repository)));
    }
    result
}

fn is_missing(path: &Path) -> bool {
    accessat(CWD, path, Access::EXISTS, AtFlags::EACCESS) == Err(rustix::io::Errno::NOENT)
}

/// The owner of the path, or of the nearest directory above it that is there; none if that is root.
fn owner(path: &Path) -> Option<String> {
    owning_user(path).map(|uid| passwd::user(uid).map_or_else(|| uid.to_string(), |user| user.name))
}

fn owning_user(path: &Path) -> Option<u32> {
    let data = path.ancestors().find_map(|ancestor| fs::metadata(ancestor).ok())?;
    (data.uid() != 0).then(|| data.uid())
}

/// A word as unit files want it.
fn quote(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    if escaped == word && !word.contains(char::is_whitespace) { word.to_owned() } else { format!("\"{escaped}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(settings: &[(&str, &str)]) -> Vec<Described> {
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned(), String::new())).collect()
    }

    const USUAL: [(&str, &str); 6] = [
        ("log-level-file", "info"),
        ("log-path", "/var/log/pgbackrest"),
        ("tls-server-key-file", "/nonexistent/server.key"),
        ("tls-server-port", "8432"),
        ("lock-path", "/tmp/pgbackrest"),
        ("repo1-path", "/var/lib/pgbackrest"),
    ];

    #[test]
    fn a_host_with_the_defaults_needs_no_drop_in() {
        let needs = Needs::by(&rows(&USUAL), &mut |_| Some(USER.to_owned()));
        assert!(needs.text().starts_with("# no drop-in is needed"), "{}", needs.text());
    }

    #[test]
    fn a_repository_of_somebody_else_is_served_as_its_owner() {
        let needs = Needs::by(&rows(&USUAL), &mut |path| path.starts_with("/var/lib").then(|| "postgres".to_owned()));
        assert_eq!(needs.text(), format!("{INTRODUCTION}[Service]\nUser=postgres\n"));
    }

    #[test]
    fn a_postgresql_host_is_served_as_the_owner_of_its_cluster() {
        let directory = tempfile::tempdir().unwrap();
        let cluster = directory.path().to_str().unwrap();
        let settings = [
            ("log-level-file", "off"),
            ("tls-server-key-file", "/nonexistent/server.key"),
            ("repo1-host", "repository"),
            ("[demo] pg1-path", cluster),
        ];
        let mut user = |path: &Path| Some(if path == directory.path() { "postgres" } else { "key" }.to_owned());
        assert_eq!(Needs::by(&rows(&settings), &mut user).text(), format!("{INTRODUCTION}[Service]\nUser=postgres\n"));
        let mut elsewhere = settings.to_vec();
        elsewhere.push(("[demo] pg1-host", "database"));
        assert_eq!(Needs::by(&rows(&elsewhere), &mut user).user.as_deref(), Some("key"));
    }

    #[test]
    fn paths_ports_and_priorities_of_the_site_are_allowed() {
        let mut settings = USUAL.to_vec();
        settings[3].1 = "443";
        settings.extend([("[demo] repo2-path", "/srv/back up/100%"), ("priority", "5")]);
        let text = Needs::by(&rows(&settings), &mut |_| None).text();
        let expected = "[Service]\nReadWritePaths=\"/srv/back up/100%%\"\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE\n\
                        AmbientCapabilities=CAP_NET_BIND_SERVICE\nSystemCallFilter=setpriority\n";
        assert_eq!(text, format!("{INTRODUCTION}{expected}"));
    }

    #[test]
    fn paths_of_its_own_settings_are_allowed() {
        let mut settings = USUAL.to_vec();
        settings.extend([
            ("state-path", "/srv/state"),
            ("history-path", "/srv/history"),
            ("status-socket", "/run/repohostd/other.sock"),
            ("allow-client-repository", "/srv/old, /srv/older"),
        ]);
        let needs = Needs::by(&rows(&settings), &mut |_| None);
        let expected = "ReadWritePaths=/srv/old\nReadWritePaths=/srv/older\nReadWritePaths=/srv/state\n\
                        ReadWritePaths=/srv/history\n";
        assert_eq!(needs.text(), format!("{INTRODUCTION}[Service]\n{expected}"));
    }

    #[test]
    fn what_the_shipped_unit_may_write_is_known() {
        let unit = include_str!("../../systemd/repohostd.service");
        let line = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        let shipped = line("ReadWritePaths=").split(' ').map(|path| path.trim_start_matches('-').to_owned());
        let own = [("/var/lib/", line("StateDirectory=")), ("/run/", line("RuntimeDirectory="))];
        let shipped: Vec<_> = shipped.chain(own.map(|(parent, name)| format!("{parent}{name}"))).collect();
        assert_eq!(shipped, WRITABLE);
        assert_eq!(line("User="), USER);
    }

    #[test]
    fn options_of_the_command_line_come_back_in_the_unit() {
        let needs = Needs { arguments: vec!["--config=/srv/a b.conf".to_owned()], ..Needs::default() };
        assert!(needs.text().contains("\nExecStart=/usr/bin/repohostd serve --systemd \"--config=/srv/a b.conf\"\n"));
    }

    #[test]
    fn links_of_the_administrator_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (repository, disk) = (directory.path().join("repository"), directory.path().join("disk"));
        for path in [&repository, &disk] {
            fs::create_dir(path).unwrap();
        }
        std::os::unix::fs::symlink(&disk, repository.join("archive")).unwrap();
        assert_eq!(with_links(&repository), [repository.clone(), fs::canonicalize(&disk).unwrap()]);
    }

    #[test]
    fn what_the_service_cannot_write_is_named() {
        let needs = Needs { write: vec![PathBuf::from("/dev/null/repository")], ..Needs::default() };
        assert_eq!(needs.out_of_reach().as_deref(), Some("write '/dev/null/repository': not a directory"));
        let needs = Needs { read: vec![PathBuf::from("/proc/version")], ..Needs::default() };
        assert_eq!(needs.out_of_reach(), None);
    }
}
