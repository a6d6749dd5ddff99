//! Who may open a session, and with which settings: the server's grants and its configuration files.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use super::held::Held;
use crate::config::{Command, Environment, Grant, Role, ServerSettings, SessionSettings, parse_session};
use crate::protocol::error::{Error, Result};
use crate::protocol::release::Release;
use crate::repository::policy::versions::Versions;
use crate::server::releases::policy::Policy;
use crate::session::{Authority, Authorized, Refusal};

/// What one load of the configuration allows.
pub(crate) struct Configured {
    pub(crate) server: ServerSettings,
    environment: Environment,
    /// Which release is for whom.
    pub(crate) policy: Rc<Policy>,
    versions: Option<Versions>,
    /// The bits that modes of new files lose where a client wants that.
    umask: u32,
    held: RefCell<Held>,
}

impl Configured {
    /// The authority of a configuration that was just read.
    pub(crate) fn new(
        server: ServerSettings,
        held: Held,
        environment: Environment,
        policy: Rc<Policy>,
        versions: Option<Versions>,
        umask: u32,
    ) -> Self {
        Self { server, environment, policy, versions, umask, held: RefCell::new(held) }
    }

    /// The files that sessions use, for who reads them or takes them from somebody else.
    pub(crate) fn with_held<T>(&self, run: impl FnOnce(&mut Held) -> T) -> T {
        run(&mut self.held.borrow_mut())
    }

    /// What another process is to use.
    pub(crate) fn tell(&self) -> Vec<u8> {
        self.with_held(|held| held.tell(&self.environment, &self.server.own, Instant::now()))
    }

    /// A reload has failed, and has said why.
    pub(crate) fn outlive_reload(&self) {
        self.with_held(|held| held.outlive_reload(&self.environment, &self.server.own, Instant::now()));
    }

    fn grant(&self, names: &[String]) -> Result<Grant, Refusal> {
        let grant = self.server.grants.lookup(names);
        grant.ok_or_else(|| denied(format!("no tls-server-auth entry is for '{}'", names.join("' or '"))))
    }

    /// Whether a client may have a session of this stanza in which it may do as much as `role`.
    pub(crate) fn grants(&self, names: &[String], stanza: Option<&str>, role: Role) -> bool {
        let rights = self.server.own.rights(names);
        let granted = self.server.grants.lookup(names).is_some_and(|grant| grant.allows(stanza).unwrap_or(false));
        granted && rights.role >= role && rights.reaches(stanza)
    }
}

impl Authority for Configured {
    fn admit(&self, names: &[String]) -> Result<(), Refusal> {
        self.grant(names).map(|_| ())
    }

    fn is_current(&self) -> bool {
        self.with_held(|held| held.is_current(&self.environment, &self.server.own, Instant::now()))
    }

    fn authorize(
        &self,
        release: &'static Release,
        names: &[String],
        parameters: &[String],
    ) -> Result<Authorized, Refusal> {
        // The order of these checks is the original's: specification, section 3.3.
        let grant = self.grant(names)?;
        let held = self.held.borrow();
        let settings = parse_session(&held.files, &self.environment, &self.server, release, parameters)?;
        if !grant.allows(settings.stanza.as_deref())? {
            let stanza = settings
                .stanza
                .as_deref()
                .map_or("sessions without a stanza".to_owned(), |stanza| format!("stanza '{stanza}'"));
            return Err(denied(format!("tls-server-auth does not grant {stanza} to '{}'", names.join("' or '"))));
        }
        let rights = self.server.own.rights(names);
        if !rights.reaches(settings.stanza.as_deref()) {
            let reason = format!("repohostd.conf does not leave the stanza to '{}'", names.join("' or '"));
            return Err(denied(reason));
        }
        // What a client may do in repositories says nothing of clusters, which it only reads.
        let role = if settings.cluster().is_some() { Role::PgReader } else { rights.role };
        check_role(role, &settings)?;
        let whole_repository = grant.is_for_all() && rights.stanzas.is_none();
        let protection = self.server.own.protection;
        Ok(Authorized {
            settings,
            whole_repository,
            role,
            protection,
            versions: self.versions.clone(),
            network: self.server.own.network_compression,
            umask: self.umask,
        })
    }
}

/// Whether the command, and the locks that it asks for, are for this role.
fn check_role(role: Role, settings: &SessionSettings) -> Result<()> {
    if settings.cluster().is_some() {
        if Role::reads_cluster(settings.command) {
            return Ok(());
        }
        return Err(Error::access(format!(
            "access denied: '{}' does not read a PostgreSQL host over the network\nHINT: run it on the PostgreSQL host.",
            settings.command.name()
        )));
    }
    let (command, needed) = (settings.command, Role::for_command(settings.command));
    if role < needed {
        let expire = if command == Command::Expire {
            "\nHINT: set expire-auto=n where backups are made, and expire where that role is."
        } else {
            ""
        };
        let stanza = settings.stanza.as_ref().map_or(String::new(), |stanza| format!(" for stanza '{stanza}'"));
        return Err(Error::access(format!(
            "access denied: role '{}' may not run '{}'{stanza}\nHINT: this needs role '{}', which repohostd.conf of the \
             repository host gives to clients.{expire}",
            role.name(),
            command.name(),
            needed.name()
        )));
    }
    let may_take = |name: &String| {
        let kind = settings.stanza.as_ref().and_then(|stanza| name.strip_prefix(stanza.as_str())?.strip_prefix('-'));
        kind.is_some_and(|kind| role.lock_types().iter().any(|allowed| kind.starts_with(allowed)))
    };
    match settings.locks.iter().find(|name| !may_take(name)) {
        Some(name) => Err(Error::access(format!(
            "access denied: role '{}' may not take lock '{name}'\nHINT: repohostd.conf of the repository host gives \
             roles to clients.",
            role.name()
        ))),
        None => Ok(()),
    }
}

/// The client is told no more than the original tells it.
fn denied(reason: String) -> Refusal {
    Refusal { error: Error::access("access denied"), reason: Some(reason) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::snapshot::Origin;
    use crate::config::{NamedRights, Search, load_from};
    use crate::protocol::error::Code;
    use crate::server::releases::policy::tests::pinned_to;

    fn configured(directory: &Path, stanzas: &str) -> Configured {
        let config = directory.join("pgbackrest.conf");
        let text = format!(
            "[global]\ntls-server-auth=client=demo,other\ntls-server-cert-file=/c\ntls-server-key-file=/k\n\
             tls-server-ca-file=/a\nrepo1-path=/repo\n{stanzas}"
        );
        fs::write(&config, text).unwrap();
        let search = Search { config: Some(config), ..Search::default() };
        let (files, loaded) = load_from(&[], &Environment::default(), &search, &Origin::Disk).unwrap();
        let policy = pinned_to(Release::newest());
        let arguments = [format!("--config={}", directory.join("pgbackrest.conf").display())];
        let held = Held::new(files, &arguments, vec![]);
        Configured::new(loaded.server, held, Environment::default(), Rc::new(policy), None, 0)
    }

    fn ask(authority: &Configured, name: &str, stanza: &str) -> Result<SessionSettings> {
        let parameters = ["--exec-id=1-12345678", "--remote-type=repo", "--repo=1", "--pg1-path=/pg", "--process=0"]
            .map(str::to_owned);
        let mut parameters = parameters.to_vec();
        parameters.extend([format!("--stanza={stanza}"), "archive-get:remote".to_owned()]);
        authority
            .authorize(Release::newest(), &[name.to_owned()], &parameters)
            .map(|authorized| authorized.settings)
            .map_err(|refusal| refusal.error)
    }

    #[test]
    fn a_client_gets_its_stanza_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let authority = configured(directory.path(), "[demo]\npg1-path=/pg\n");
        assert_eq!(ask(&authority, "client", "demo").unwrap().stanza.as_deref(), Some("demo"));
        for (name, stanza) in [("client", "third"), ("stranger", "demo")] {
            let error = ask(&authority, name, stanza).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (Code::Access, "access denied"));
        }
        let names = ["client".to_owned()];
        assert!(authority.grants(&names, Some("demo"), Role::Admin));
        for stanza in [Some("third"), None] {
            assert!(!authority.grants(&names, stanza, Role::Reader));
        }
    }

    #[test]
    fn a_role_decides_on_the_command_and_its_locks_and_a_reload_on_those_that_lost_it() {
        let directory = tempfile::tempdir().unwrap();
        let configured = configured(directory.path(), "[demo]\npg1-path=/pg\n[other]\npg1-path=/pg\n");
        let with = |role, stanzas: Option<&[&str]>| {
            let stanzas = stanzas.map(|stanzas| stanzas.iter().map(|stanza| (*stanza).to_owned()).collect());
            let rights = NamedRights { name: "client".to_owned(), role: Some(role), stanzas };
            let mut server = configured.server.clone();
            server.own.rights = vec![rights];
            let held = Held::new(configured.held.borrow().files.clone(), &[], vec![]);
            Configured::new(server, held, Environment::default(), Rc::clone(&configured.policy), None, 0)
        };
        let names = ["client".to_owned()];
        let ask = |authority: &Configured, stanza: &str, process: u32, words: &[&str]| {
            let mut parameters = vec!["--exec-id=1-12345678", "--remote-type=repo", "--repo=1", "--pg1-path=/pg"];
            let (process, stanza) = (format!("--process={process}"), format!("--stanza={stanza}"));
            parameters.extend([process.as_str(), stanza.as_str()]);
            parameters.extend(words);
            let parameters: Vec<_> = parameters.into_iter().map(str::to_owned).collect();
            let answer = authority.authorize(Release::newest(), &names, &parameters);
            answer.map(|authorized| authorized.role).map_err(|refusal| refusal.error)
        };
        let archiver = with(Role::Archiver, Some(&["demo"]));
        assert_eq!(ask(&archiver, "demo", 0, &["archive-push:remote"]).unwrap(), Role::Archiver);
        let error = ask(&archiver, "demo", 0, &["backup:remote"]).unwrap_err();
        assert!(error.code == Code::Access && error.message.contains("this needs role 'backup'"), "{error}");
        let error = ask(&archiver, "demo", 0, &["expire:remote"]).unwrap_err();
        assert!(
            error.message.contains("this needs role 'admin'") && error.message.contains("expire-auto=n"),
            "{error}"
        );
        let error = ask(&archiver, "demo", 0, &["--lock=demo-backup-1.lock", "archive-push:remote"]).unwrap_err();
        assert!(error.message.contains("may not take lock 'demo-backup-1.lock'"), "{error}");
        assert_eq!(ask(&archiver, "other", 1, &["info:remote"]).unwrap_err().message, "access denied");

        assert!(archiver.grants(&names, Some("demo"), Role::Archiver));
        assert!(!archiver.grants(&names, Some("demo"), Role::Admin), "it may do less now");
        assert!(!archiver.grants(&names, Some("other"), Role::Archiver), "the stanza is not left to it");
        assert_eq!(ask(&with(Role::Admin, None), "other", 0, &["expire:remote"]).unwrap(), Role::Admin);
    }

    #[test]
    fn a_cluster_is_read_whatever_the_role_and_pg_readers_read_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let configured = configured(directory.path(), "[demo]\npg1-path=/pg\n");
        let names = ["client".to_owned()];
        let with = |role, stanzas: &[&str]| {
            let stanzas = Some(stanzas.iter().map(|stanza| (*stanza).to_owned()).collect());
            let mut server = configured.server.clone();
            server.own.rights = vec![NamedRights { name: "client".to_owned(), role: Some(role), stanzas }];
            let held = Held::new(configured.held.borrow().files.clone(), &[], vec![]);
            Configured::new(server, held, Environment::default(), Rc::clone(&configured.policy), None, 0)
        };
        let ask = |authority: &Configured, kind: &str, command: &str| {
            let mut parameters = vec!["--pg1-path=/pg", "--process=0", "--stanza=demo", "--lock=demo-backup-1.lock"];
            let kind = format!("--remote-type={kind}");
            parameters.extend([kind.as_str(), command]);
            let parameters: Vec<_> = parameters.into_iter().map(str::to_owned).collect();
            let answer = authority.authorize(Release::newest(), &names, &parameters);
            answer.map(|authorized| authorized.role).map_err(|refusal| refusal.error)
        };
        for role in [Role::PgReader, Role::Reader, Role::Archiver, Role::Backup, Role::Admin] {
            let authority = with(role, &["demo"]);
            for command in ["backup", "check", "stanza-create", "stanza-upgrade", "stanza-delete"] {
                let command = format!("{command}:remote");
                assert_eq!(ask(&authority, "pg", &command), Ok(Role::PgReader), "{role:?} {command}");
            }
            for command in ["restore:remote", "archive-get:remote", "archive-push:remote"] {
                assert_eq!(ask(&authority, "pg", command).unwrap_err().code, Code::Access, "{role:?} {command}");
            }
            assert_eq!(ask(&with(role, &["other"]), "pg", "backup:remote").unwrap_err().message, "access denied");
            assert!(authority.grants(&names, Some("demo"), Role::PgReader));
        }
        let error = ask(&with(Role::PgReader, &["demo"]), "repo", "restore:remote").unwrap_err();
        assert!(error.message.contains("role 'pg-reader' may not run 'restore'"), "{error}");
        assert!(error.message.contains("this needs role 'reader'"), "{error}");
    }
}
