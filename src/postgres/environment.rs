//! Where a connection leads, and with which name, password and parameters: libpq's defaults.
//!
//! What libpq knows and this does not (service files, TLS, Kerberos) is an error that names the
//! variable, since leaving it out could lead somewhere else or send a password in the clear.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use zeroize::Zeroizing;

use super::Settings;
use super::password_file;

/// Where a socket is looked for if nothing says so: Debian's and the RPMs' directory, and that of a
/// `PostgreSQL` built from source.
const SOCKET_DIRECTORIES: [&str; 3] = ["/var/run/postgresql", "/run/postgresql", "/tmp"];
/// The longest path of a unix socket on Linux, in bytes.
const SOCKET_PATH_MAXIMUM: usize = 107;
/// Addresses that one connection tries.
const ADDRESSES_MAXIMUM: usize = 16;

/// What the system knows beside the session's settings. The server has the real one.
pub trait System {
    /// A variable of the server's environment.
    fn variable(&self, name: &str) -> Option<String>;
    /// The number and the name of the user that the server runs as.
    fn user(&self) -> (u32, Option<String>);
    /// That user's home directory.
    fn home(&self) -> Option<String>;
    /// A small file.
    fn file(&self, path: &str) -> SmallFile;
    /// Whether something is at `path`.
    fn exists(&self, path: &str) -> bool;
    /// The addresses of a host, without asking the network.
    fn addresses(&self, name: &str) -> Vec<IpAddr>;
}

/// A file that is read as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SmallFile {
    /// It is not there or cannot be read.
    Missing,
    /// It is no regular file.
    NotPlain,
    /// Its text and permission bits.
    Found {
        /// What it says.
        text: String,
        /// Permission bits.
        mode: u32,
    },
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A unix socket with this path.
    Unix(String),
    /// A unix socket with this name, without the `@`, in the abstract name space.
    Abstract(String),
    /// A host and port.
    Tcp {
        /// As the administrator wrote it.
        host: String,
        /// What that means.
        address: SocketAddr,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "socket \"{path}\""),
            Self::Abstract(name) => write!(f, "socket \"@{name}\""),
            Self::Tcp { address, .. } => write!(f, "{address}"),
        }
    }
}

impl Address {
    /// How libpq begins a complaint about a connection to it.
    pub(super) fn complaint(&self) -> String {
        match self {
            Self::Unix(_) | Self::Abstract(_) => format!("connection to server on {self} failed: "),
            Self::Tcp { host, address } if *host == address.ip().to_string() => {
                format!("connection to server at \"{host}\", port {} failed: ", address.port())
            }
            Self::Tcp { host, address } => {
                format!("connection to server at \"{host}\" ({}), port {} failed: ", address.ip(), address.port())
            }
        }
    }

    /// What libpq asks whoever reads that nobody listens there.
    pub(super) const fn question(&self) -> &'static str {
        match self {
            Self::Unix(_) | Self::Abstract(_) => {
                "\tIs the server running locally and accepting connections on that socket?\n"
            }
            Self::Tcp { .. } => "\tIs the server running on that host and accepting TCP/IP connections?\n",
        }
    }
}

/// An address and the password for it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) address: Address,
    pub(super) password: Option<Zeroizing<String>>,
    /// The file that the password is from.
    pub(super) from_file: Option<String>,
}

/// What to do about TLS on a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encryption {
    /// Talk in the clear without asking.
    Never,
    /// Ask, as libpq does, and talk in the clear only if the server cannot do better.
    Asked,
}

/// Everything that a connection needs to know.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(super) targets: Vec<Target>,
    pub(super) user: String,
    /// Parameters of the first message, the user and the database included.
    pub(super) parameters: Vec<(&'static str, String)>,
    pub(super) encryption: Encryption,
    /// How long connecting to one address may take, if the administrator said so.
    pub(super) patience: Option<Duration>,
    /// What the administrator should know; libpq would have written it to the standard error.
    pub notices: Vec<String>,
}

impl Plan {
    /// How to connect as `settings` and `system` say.
    ///
    /// # Errors
    ///
    /// The text that libpq would give, or what is wanted and not supported.
    pub fn new(settings: &Settings, system: &dyn System) -> Result<Self, String> {
        let environment = Environment(system);
        if settings.port == 0 {
            return Err("invalid port number: \"0\"".to_owned());
        }
        environment.check_supported()?;
        let user = match environment.given(settings.user.as_ref(), "PGUSER") {
            Some(user) => user,
            None => environment.own_name()?,
        };
        let database = if settings.database.is_empty() { user.clone() } else { settings.database.clone() };
        let addresses = environment.addresses(settings)?;
        let is_tcp = addresses.iter().any(|(_, address)| matches!(address, Address::Tcp { .. }));
        let mut plan = Self {
            targets: Vec::with_capacity(addresses.len()),
            encryption: if is_tcp { environment.encryption()? } else { Encryption::Never },
            patience: environment.patience()?,
            parameters: environment.parameters(&user, &database),
            user,
            notices: vec![],
        };
        let passwords = environment.passwords(&mut plan.notices);
        for (host, address) in addresses {
            let wanted = [host.as_str(), &settings.port.to_string(), &database, &plan.user];
            let (password, from_file) = passwords.find(wanted);
            plan.targets.push(Target { address, password, from_file });
        }
        Ok(plan)
    }
}

/// Where passwords are found.
enum Passwords {
    None,
    /// One for all.
    Variable(Zeroizing<String>),
    File(String, Zeroizing<String>),
}

impl Passwords {
    fn find(&self, wanted: [&str; 4]) -> (Option<Zeroizing<String>>, Option<String>) {
        match self {
            Self::None => (None, None),
            Self::Variable(password) => (Some(password.clone()), None),
            Self::File(path, text) => {
                let found = password_file::find(text, wanted).map(Zeroizing::new);
                let path = found.as_ref().map(|_| path.clone());
                (found, path)
            }
        }
    }
}

/// The variables that libpq reads.
struct Environment<'a>(&'a dyn System);

impl Environment<'_> {
    /// A variable, unless it is empty, which libpq takes for unset.
    fn variable(&self, name: &str) -> Option<String> {
        self.0.variable(name).filter(|value| !value.is_empty())
    }

    fn given(&self, setting: Option<&String>, variable: &str) -> Option<String> {
        setting.filter(|value| !value.is_empty()).cloned().or_else(|| self.variable(variable))
    }

    /// Refuses what would change where the connection leads or how safe it is.
    fn check_supported(&self) -> Result<(), String> {
        const UNSUPPORTED: [(&str, &[&str]); 6] = [
            ("PGSERVICE", &[]),
            ("PGREQUIREPEER", &[]),
            ("PGREQUIREAUTH", &[]),
            ("PGTARGETSESSIONATTRS", &["any"]),
            ("PGCHANNELBINDING", &["prefer", "disable"]),
            ("PGGSSENCMODE", &["prefer", "disable"]),
        ];
        for (name, harmless) in UNSUPPORTED {
            if let Some(value) = self.variable(name).filter(|value| !harmless.contains(&value.as_str())) {
                return Err(format!(
                    "{name}={value} in the environment of the server is not supported by repohostd\n\
                     HINT: unset it, and say by pg1-socket-path, pg1-port, pg1-user and the other PG… variables \
                     where to connect."
                ));
            }
        }
        Ok(())
    }

    fn own_name(&self) -> Result<String, String> {
        let (uid, name) = self.0.user();
        name.ok_or_else(|| {
            format!(
                "local user with ID {uid} does not exist\n\
                 HINT: neither 'getent passwd {uid}' nor /etc/passwd has a name for it: set pg1-user, or PGUSER in the \
                 environment of the server."
            )
        })
    }

    /// Every address to try, with the name that a password file has for it.
    fn addresses(&self, settings: &Settings) -> Result<Vec<(String, Address)>, String> {
        let port = settings.port;
        let hosts = self.given(settings.host.as_ref(), "PGHOST");
        let hosts: Vec<&str> = hosts.as_deref().map(|hosts| hosts.split(',').collect()).unwrap_or_default();
        let mut result = vec![];
        if let Some(numbers) = self.variable("PGHOSTADDR") {
            let numbers: Vec<&str> = numbers.split(',').collect();
            if !hosts.is_empty() && hosts.len() != numbers.len() {
                return Err(format!("could not match {} host names to {} hostaddr values", hosts.len(), numbers.len()));
            }
            for (index, number) in numbers.iter().enumerate() {
                let ip: IpAddr = number
                    .parse()
                    .map_err(|_| format!("could not parse network address \"{number}\": Name or service not known"))?;
                let name = hosts.get(index).copied().filter(|host| !host.is_empty()).unwrap_or(number);
                let address = Address::Tcp { host: (*number).to_owned(), address: SocketAddr::new(ip, port) };
                result.push((name.to_owned(), address));
            }
        } else if hosts.is_empty() {
            result.push(self.local(&self.default_directory(port), port)?);
        } else {
            for host in hosts {
                match host {
                    "" => result.push(self.local(&self.default_directory(port), port)?),
                    host if host.starts_with(['/', '@']) => result.push(self.local(host, port)?),
                    host => result.extend(self.resolve(host, port)?),
                }
            }
        }
        if result.len() > ADDRESSES_MAXIMUM {
            return Err(format!("more than {ADDRESSES_MAXIMUM} addresses to connect to"));
        }
        Ok(result)
    }

    /// A unix socket. In a password file, the default directory is called `localhost`.
    #[allow(clippy::unused_self, reason = "reads as the others")]
    fn local(&self, directory: &str, port: u16) -> Result<(String, Address), String> {
        let path = format!("{directory}/.s.PGSQL.{port}");
        if path.len() > SOCKET_PATH_MAXIMUM {
            return Err(format!(
                "Unix-domain socket path \"{path}\" is too long (maximum {SOCKET_PATH_MAXIMUM} bytes)"
            ));
        }
        let name = if SOCKET_DIRECTORIES.contains(&directory) { "localhost" } else { directory };
        let address = match path.strip_prefix('@') {
            Some(abstracted) => Address::Abstract(abstracted.to_owned()),
            None => Address::Unix(path),
        };
        Ok((name.to_owned(), address))
    }

    /// The directory where a socket for `port` is; if there is none, the one where it should be.
    fn default_directory(&self, port: u16) -> String {
        let has_socket = |directory: &&str| self.0.exists(&format!("{directory}/.s.PGSQL.{port}"));
        let exists = |directory: &&str| self.0.exists(directory);
        let found = SOCKET_DIRECTORIES.into_iter().find(has_socket);
        let directory = found.or_else(|| SOCKET_DIRECTORIES.into_iter().find(exists));
        directory.unwrap_or(SOCKET_DIRECTORIES[0]).to_owned()
    }

    fn resolve(&self, host: &str, port: u16) -> Result<Vec<(String, Address)>, String> {
        let numbers = match host.parse::<IpAddr>() {
            Ok(number) => vec![number],
            Err(_) => self.0.addresses(host),
        };
        if numbers.is_empty() {
            return Err(format!(
                "could not translate host name \"{host}\" to address: Name or service not known\n\
                 HINT: this server asks no name service for the address of a database: it knows numbers and the \
                 names in /etc/hosts."
            ));
        }
        let address = |number| Address::Tcp { host: host.to_owned(), address: SocketAddr::new(number, port) };
        Ok(numbers.into_iter().map(|number| (host.to_owned(), address(number))).collect())
    }

    fn encryption(&self) -> Result<Encryption, String> {
        match self.variable("PGSSLMODE").as_deref() {
            Some("disable" | "allow") => Ok(Encryption::Never),
            None | Some("prefer") => Ok(Encryption::Asked),
            Some(mode @ ("require" | "verify-ca" | "verify-full")) => Err(format!(
                "PGSSLMODE={mode} in the environment of the server is not supported by repohostd\n\
                 HINT: connect by a unix socket, or set PGSSLMODE=disable."
            )),
            Some(mode) => Err(format!("invalid sslmode value: \"{mode}\"")),
        }
    }

    fn patience(&self) -> Result<Option<Duration>, String> {
        let Some(text) = self.variable("PGCONNECT_TIMEOUT") else { return Ok(None) };
        let seconds = text
            .trim()
            .parse::<i32>()
            .map_err(|_| format!("invalid integer value \"{text}\" for connection option \"connect_timeout\""))?;
        // libpq takes less than two seconds for two, and nothing or less for no limit.
        Ok(u64::try_from(seconds)
            .ok()
            .filter(|seconds| *seconds > 0)
            .map(|seconds| Duration::from_secs(seconds.max(2))))
    }

    fn parameters(&self, user: &str, database: &str) -> Vec<(&'static str, String)> {
        let mut parameters = vec![("user", user.to_owned()), ("database", database.to_owned())];
        for (variable, name) in [("PGOPTIONS", "options"), ("PGAPPNAME", "application_name")] {
            parameters.extend(self.variable(variable).map(|value| (name, value)));
        }
        // With `auto` libpq takes that of the locale, which a server has none of.
        let encoding = self.variable("PGCLIENTENCODING").filter(|value| value != "auto");
        parameters.extend(encoding.map(|value| ("client_encoding", value)));
        for (variable, name) in [("PGDATESTYLE", "datestyle"), ("PGTZ", "timezone"), ("PGGEQO", "geqo")] {
            let value = self.variable(variable).filter(|value| !value.eq_ignore_ascii_case("default"));
            parameters.extend(value.map(|value| (name, value)));
        }
        parameters
    }

    fn passwords(&self, notices: &mut Vec<String>) -> Passwords {
        if let Some(password) = self.variable("PGPASSWORD") {
            return Passwords::Variable(Zeroizing::new(password));
        }
        let home = || self.0.home().map(|home| format!("{home}/.pgpass"));
        let Some(path) = self.variable("PGPASSFILE").or_else(home) else { return Passwords::None };
        match password_file::usable(&path, self.0.file(&path)) {
            Ok(Some(text)) => Passwords::File(path, Zeroizing::new(text)),
            Ok(None) => Passwords::None,
            Err(notice) => {
                notices.push(notice);
                Passwords::None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::FakeSystem;
    use super::*;

    fn settings(host: Option<&str>) -> Settings {
        Settings { host: host.map(str::to_owned), port: 5432, database: "postgres".into(), user: None }
    }

    fn plan(host: Option<&str>, variables: &[(&str, &str)]) -> Result<Plan, String> {
        Plan::new(&settings(host), &FakeSystem::with(variables))
    }

    fn addresses(host: Option<&str>, variables: &[(&str, &str)]) -> Vec<Address> {
        plan(host, variables).unwrap().targets.into_iter().map(|target| target.address).collect()
    }

    fn unix(directory: &str) -> Address {
        Address::Unix(format!("{directory}/.s.PGSQL.5432"))
    }

    #[test]
    fn the_socket_is_where_the_option_the_variable_or_the_distribution_says() {
        assert_eq!(addresses(None, &[]), [unix("/var/run/postgresql")]);
        assert_eq!(addresses(None, &[("PGHOST", "/b")]), [unix("/b")]);
        assert_eq!(addresses(Some("/a"), &[("PGHOST", "/b")]), [unix("/a")]);
        assert_eq!(addresses(Some("@a"), &[]), [Address::Abstract("a/.s.PGSQL.5432".into())]);
        let existing = vec!["/var/run/postgresql".into(), "/tmp/.s.PGSQL.5432".into()];
        let system = FakeSystem { existing, ..FakeSystem::default() };
        let found = Plan::new(&settings(None), &system).unwrap();
        assert_eq!(found.targets[0].address, unix("/tmp"));
        let long = "/".repeat(100);
        assert!(plan(Some(&long), &[]).is_err_and(|text| text.contains("is too long (maximum 107 bytes)")));
    }

    #[test]
    fn hosts_of_a_network_are_numbers_or_known_names() {
        let tcp = |host: &str, ip: &str| Address::Tcp {
            host: host.into(),
            address: SocketAddr::new(ip.parse().unwrap(), 5432),
        };
        assert_eq!(addresses(None, &[("PGHOST", "127.0.0.1")]), [tcp("127.0.0.1", "127.0.0.1")]);
        let both = [tcp("localhost", "127.0.0.1"), tcp("localhost", "::1")];
        assert_eq!(addresses(None, &[("PGHOST", "localhost")]), both);
        assert_eq!(
            addresses(None, &[("PGHOST", "/a,127.0.0.1,")]),
            [unix("/a"), tcp("127.0.0.1", "127.0.0.1"), unix("/var/run/postgresql")]
        );
        let number = [("PGHOST", "db.example.org"), ("PGHOSTADDR", "192.0.2.1")];
        assert_eq!(addresses(None, &number), [tcp("192.0.2.1", "192.0.2.1")]);
        assert!(plan(None, &[("PGHOST", "db.example.org")]).is_err_and(|text| text.starts_with(
            "could not translate host name \"db.example.org\" to address: Name or service not known\nHINT"
        )));
        assert!(plan(None, &[("PGHOSTADDR", "x")]).is_err());
        assert!(plan(None, &[("PGHOST", "a,b"), ("PGHOSTADDR", "127.0.0.1")]).is_err());
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (name, value) in [
            ("PGSERVICE", "main"),
            ("PGREQUIREPEER", "postgres"),
            ("PGREQUIREAUTH", "scram-sha-256"),
            ("PGTARGETSESSIONATTRS", "read-write"),
            ("PGCHANNELBINDING", "require"),
            ("PGGSSENCMODE", "require"),
        ] {
            assert!(plan(None, &[(name, value)]).is_err_and(|text| text.starts_with(name)), "{name}");
            assert!(plan(None, &[(name, "")]).is_ok(), "{name}");
        }
        for mode in ["require", "verify-ca", "verify-full", "nonsense"] {
            assert!(plan(None, &[("PGHOST", "127.0.0.1"), ("PGSSLMODE", mode)]).is_err(), "{mode}");
            assert!(plan(None, &[("PGSSLMODE", mode)]).is_ok(), "a unix socket has no TLS");
        }
        assert!(plan(None, &[("PGCONNECT_TIMEOUT", "soon")]).is_err());
    }

    #[test]
    fn the_user_is_the_options_the_variables_or_the_servers_own() {
        assert_eq!(plan(None, &[]).unwrap().user, "runner");
        assert_eq!(plan(None, &[("PGUSER", "two")]).unwrap().user, "two");
        let named = Settings { user: Some("one".into()), ..settings(None) };
        assert_eq!(Plan::new(&named, &FakeSystem::with(&[("PGUSER", "two")])).unwrap().user, "one");
        let nobody = FakeSystem { user: None, ..FakeSystem::default() };
        let text = Plan::new(&settings(None), &nobody).unwrap_err();
        assert!(
            text.starts_with("local user with ID 1000 does not exist\nHINT: neither 'getent passwd 1000'"),
            "{text}"
        );
    }

    #[test]
    fn parameters_come_from_the_environment() {
        let variables = [
            ("PGOPTIONS", "-c work_mem=1MB"),
            ("PGAPPNAME", "backup"),
            ("PGCLIENTENCODING", "LATIN1"),
            ("PGTZ", "UTC"),
            ("PGGEQO", "default"),
        ];
        let expected = [
            ("user", "runner"),
            ("database", "postgres"),
            ("options", "-c work_mem=1MB"),
            ("application_name", "backup"),
            ("client_encoding", "LATIN1"),
            ("timezone", "UTC"),
        ];
        let parameters = plan(None, &variables).unwrap().parameters;
        assert!(parameters.iter().map(|(name, value)| (*name, value.as_str())).eq(expected));
    }

    #[test]
    fn a_limit_for_connecting_is_at_least_two_seconds() {
        let patience = |text| plan(None, &[("PGCONNECT_TIMEOUT", text)]).unwrap().patience.map(|it| it.as_secs());
        assert_eq!([patience("0"), patience("-1"), patience("1"), patience("9")], [None, None, Some(2), Some(9)]);
        assert_eq!(plan(None, &[]).unwrap().patience, None);
    }

    #[test]
    fn passwords_come_from_the_variable_or_the_file() {
        let password = |host: Option<&str>, system: &FakeSystem| {
            let plan = Plan::new(&settings(host), system).unwrap();
            (plan.targets[0].password.as_deref().cloned(), plan.notices.len())
        };
        let mut system = FakeSystem::default();
        let text = "/a:5432:postgres:runner:a\nlocalhost:5432:postgres:runner:default\n";
        system.files.push(("/home/runner/.pgpass".into(), SmallFile::Found { text: text.into(), mode: 0o600 }));
        assert_eq!(password(Some("/a"), &system), (Some("a".into()), 0));
        assert_eq!(password(None, &system), (Some("default".into()), 0));
        assert_eq!(password(Some("/b"), &system), (None, 0));
        system.variables.push(("PGPASSWORD".into(), "variable".into()));
        assert_eq!(password(Some("/a"), &system), (Some("variable".into()), 0));
        system.variables.clear();
        system.variables.push(("PGPASSFILE".into(), "/elsewhere".into()));
        system.files.push(("/elsewhere".into(), SmallFile::Found { text: text.into(), mode: 0o644 }));
        assert_eq!(password(Some("/a"), &system), (None, 1), "others can read it");
    }
}
