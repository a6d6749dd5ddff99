//! Which places a session can reach: of a repository, or of a cluster ([`super::cluster`]).
//!
//! Clients send absolute paths that they computed from the repository's path. A session of a stanza
//! reaches `archive/STANZA` and `backup/STANZA` and sees of the directories above only what a real
//! client looks at; an identity that is granted `*` reaches the whole repository. Everything else
//! is refused, whatever the request. What the client's role leaves of that is decided by
//! [`Rule`].
//!
//! The repository, `archive`, `backup` and each stanza's two directories are roots: they may be links
//! that the administrator made. Below them nothing leads out. Hence no client may make a link where
//! a root is or could be, and outside of a stanza's directories only one that cannot lead to such a
//! place through another.

use std::cell::RefCell;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::rc::Rc;

use bstr::{BString, ByteSlice};

use crate::config::Role;
use crate::disk::{Links, Location, RelativePath, Root};
use crate::protocol::carried::Carried;
use crate::protocol::error::{Error, Result};

use super::access::Access;
use super::cluster::{ClusterView, reads_only};
use super::layout::{self, Area, Part};
use super::rules::Rule;

/// Roots that a session keeps open at most; a repository with more stanzas opens some again.
const ROOTS_MAXIMUM: usize = 16;

/// The two directories of a repository that hold stanzas.
const AREAS: [&str; 2] = ["archive", "backup"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The repository itself.
    Base,
    /// `archive` or `backup`.
    Area,
    /// The directory of a stanza.
    Stanza,
    /// Something in it.
    Below,
    /// Anything else in the repository.
    Other,
}

/// A place that a session may reach.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Where it is.
    pub(crate) location: Location,
    /// Names that the session may see in it, if not all.
    pub(crate) visible: Option<Vec<String>>,
    /// Which of a stanza's directories it is in, if in any.
    pub(crate) area: Option<Area>,
    /// What is still to be seen to, by [`super::guard::Guard`]; never [`Rule::Needs`].
    pub(crate) rule: Rule,
    /// The cluster that remembers the links which are listed there, if it is in one.
    pub(crate) cluster: Option<Rc<ClusterView>>,
}

/// What a client wants to look at.
#[derive(Debug)]
pub(crate) enum Sight {
    /// What is there.
    Place(Location),
    /// What the link there points to, which the client has another path for.
    Behind(Location),
}

impl Place {
    /// What it is in its stanza.
    pub(crate) fn part(&self) -> Option<Part<'_>> {
        Some(layout::part(self.area?, self.location.path.as_bytes()))
    }
}

/// What a session can reach.
#[derive(Debug)]
pub(crate) enum View {
    /// Of a repository.
    Repository(RepositoryView),
    /// Of a cluster.
    Cluster(Rc<ClusterView>),
}

impl View {
    /// The repository at the absolute path `base`, as a session of `stanza` sees it, or the whole of it, with a client
    /// of `role`; `aged` says whether backups are protected by their age.
    pub(crate) fn new(base: impl AsRef<[u8]>, stanza: Option<&str>, role: Role, aged: bool) -> Self {
        let (base, stanza) = (trimmed(base.as_ref()).into(), stanza.map(str::to_owned));
        Self::Repository(RepositoryView { base, stanza, role, aged, roots: RefCell::default() })
    }

    /// The cluster with its data directory at the absolute path `base`.
    pub(crate) fn of_cluster(base: impl AsRef<[u8]>) -> Self {
        Self::Cluster(Rc::new(ClusterView::new(trimmed(base.as_ref()))))
    }

    /// Bytes that it holds of what it has told the client.
    pub(crate) fn memory(&self) -> usize {
        if let Self::Cluster(cluster) = self { cluster.memory() } else { 0 }
    }

    /// The path of the repository or the cluster, as the feature request answers it.
    pub(crate) fn base(&self) -> &[u8] {
        path_of(match self {
            Self::Repository(repository) => &repository.base,
            Self::Cluster(cluster) => &cluster.base,
        })
    }

    /// The place that the client calls `path`. Error 105 when the session may not reach it that way.
    pub(crate) fn locate(&self, path: &[u8], access: Access) -> Result<Place> {
        match self {
            Self::Repository(repository) => repository.locate(path, access),
            Self::Cluster(cluster) => {
                let (location, cluster) = (cluster.locate(path, access)?, Some(Rc::clone(cluster)));
                Ok(Place { location, visible: None, area: None, rule: Rule::Allowed, cluster })
            }
        }
    }

    /// What the client looks at that calls it `path`.
    pub(crate) fn sight(&self, path: &[u8]) -> Result<Sight> {
        if let Self::Cluster(cluster) = self
            && let Some(link) = cluster.link_to(path)?
        {
            return Ok(Sight::Behind(link));
        }
        Ok(Sight::Place(self.locate(path, Access::Look)?.location))
    }

    /// The directory of the backups of the stanza that `location` belongs to.
    pub(crate) fn backups_of(&self, location: &Location) -> Option<Location> {
        if let Self::Repository(repository) = self { repository.backups_of(location) } else { None }
    }

    /// Whether not everything that the session can reach may also be changed.
    pub(crate) fn is_guarded(&self) -> bool {
        if let Self::Repository(repository) = self { repository.is_guarded() } else { true }
    }

    /// The place of a new link at `link` that points to the relative `target`. Error 105 also when that is absolute or
    /// leaves the stanza's directory.
    pub(crate) fn locate_link(&self, link: &[u8], target: &[u8]) -> Result<Place> {
        match self {
            Self::Repository(repository) => repository.locate_link(link, target),
            Self::Cluster(_) => Err(reads_only(link, Access::Link)),
        }
    }

    /// The place of a file that gets a second name. Error 105 also for what is not in a backup, where not everything
    /// may be changed.
    pub(crate) fn locate_source(&self, path: &[u8]) -> Result<Location> {
        match self {
            Self::Repository(repository) => repository.locate_source(path),
            Self::Cluster(_) => Err(reads_only(path, Access::HardLink)),
        }
    }
}

/// The part of a repository that a session can reach.
#[derive(Debug)]
pub(crate) struct RepositoryView {
    base: BString,
    stanza: Option<String>,
    role: Role,
    aged: bool,
    roots: RefCell<Vec<Rc<Root>>>,
}

impl RepositoryView {
    fn locate(&self, path: &[u8], access: Access) -> Result<Place> {
        let denied = || Error::access(format!("access denied: {}", self.explain(path)));
        let below = strip(path, &self.base).ok_or_else(denied)?;
        let below = RelativePath::new(below).ok_or_else(denied)?;
        let (kind, root, rest) = self.split(below.as_bytes());
        if !self.allows(kind, below.as_bytes(), access) {
            return Err(denied());
        }
        let (area, rule) = self.rule(kind, below.as_bytes(), rest, access);
        if let Rule::Needs(needed) = rule {
            return Err(lacks(self.role, needed, Carried::cut(path), access));
        }
        let path = RelativePath::new(rest).ok_or_else(denied)?;
        let location = Location::new(self.root(root), path);
        // What is allowed by its name is not changed by another one.
        let location = if self.is_guarded() && access.changes() { location.without_links() } else { location };
        Ok(Place { location, visible: self.visible(kind), area, rule, cluster: None })
    }

    fn backups_of(&self, location: &Location) -> Option<Location> {
        let stanza = location.root.path().file_name()?.as_bytes();
        let root = self.root(self.below(AREAS[1], &[stanza]));
        Some(Location::new(root, RelativePath::default()))
    }

    fn is_guarded(&self) -> bool {
        self.role != Role::Admin || self.aged
    }

    fn rule(&self, kind: Kind, below: &[u8], rest: &[u8], access: Access) -> (Option<Area>, Rule) {
        let area = match kind {
            Kind::Stanza | Kind::Below if below.starts_with(AREAS[0].as_bytes()) => Area::Archive,
            Kind::Stanza | Kind::Below => Area::Backup,
            Kind::Base | Kind::Area | Kind::Other => {
                let allowed = !access.changes() || self.role == Role::Admin;
                return (None, if allowed { Rule::Allowed } else { Rule::Needs(Role::Admin) });
            }
        };
        (Some(area), Rule::of(self.role, area, layout::part(area, rest), access))
    }

    fn locate_link(&self, link: &[u8], target: &[u8]) -> Result<Place> {
        if self.is_beside_areas(link, target) {
            return self.locate(link, Access::Write);
        }
        let place = self.locate(link, Access::Link)?;
        let mut depth = place.location.path.as_bytes().find_iter("/").count();
        let mut inside = !target.starts_with(b"/") && !target.is_empty() && !target.contains(&0);
        for name in target.split_str("/") {
            match name {
                b"" | b"." => {}
                b".." => match depth.checked_sub(1) {
                    Some(up) => depth = up,
                    None => inside = false,
                },
                _ => depth += 1,
            }
        }
        if inside {
            return Ok(place);
        }
        Err(Error::access(format!(
            "access denied: link '{}' to '{}' would lead out of its stanza's directory",
            Carried(link),
            Carried(target)
        )))
    }

    fn locate_source(&self, path: &[u8]) -> Result<Location> {
        let place = self.locate(path, Access::Read)?;
        if self.is_guarded() {
            return match place.part() {
                Some(Part::Backup { .. }) => Ok(place.location.without_links()),
                _ => Err(lacks(self.role, Role::Admin, Carried::cut(path), Access::HardLink)),
            };
        }
        Ok(place.location)
    }

    /// Whether it is a link from one name directly in the repository to another, neither of which can
    /// lead to where roots are.
    fn is_beside_areas(&self, link: &[u8], target: &[u8]) -> bool {
        let harmless = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !is_area(name);
        self.stanza.is_none() && strip(link, &self.base).is_some_and(harmless) && harmless(target)
    }

    /// What kind of place `below` is, which root it belongs to, and the rest below that root.
    fn split<'a>(&self, below: &'a [u8]) -> (Kind, BString, &'a [u8]) {
        let mut parts = below.splitn_str(3, "/");
        let (area, stanza, rest) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        if below.is_empty() {
            return (Kind::Base, path_of(&self.base).into(), b"");
        }
        let Some(area) = AREAS.into_iter().find(|name| name.as_bytes() == area) else {
            return (Kind::Other, path_of(&self.base).into(), below);
        };
        match (stanza, rest) {
            (None, _) => (Kind::Area, self.below(area, &[]), b""),
            (Some(stanza), None) => (Kind::Stanza, self.below(area, &[stanza]), b""),
            (Some(stanza), Some(rest)) => (Kind::Below, self.below(area, &[stanza]), rest),
        }
    }

    /// The path of one of the two directories, or of one of a stanza in it.
    fn below(&self, area: &str, stanza: &[&[u8]]) -> BString {
        let names = [&self.base, area.as_bytes()].into_iter().chain(stanza.iter().copied());
        bstr::join("/", names).into()
    }

    fn allows(&self, kind: Kind, below: &[u8], access: Access) -> bool {
        // A link in the repository may lead to `archive`, so what is made through it may become a root.
        if matches!(access, Access::Link | Access::HardLink) && kind != Kind::Below {
            return false;
        }
        match kind {
            Kind::Stanza | Kind::Below => self.is_own(below),
            Kind::Base | Kind::Area => self.stanza.is_none() || matches!(access, Access::Look | Access::Directory),
            Kind::Other => self.stanza.is_none(),
        }
    }

    fn is_own(&self, below: &[u8]) -> bool {
        let Some(stanza) = &self.stanza else { return true };
        below.split_str("/").nth(1) == Some(stanza.as_bytes())
    }

    fn visible(&self, kind: Kind) -> Option<Vec<String>> {
        let stanza = self.stanza.as_ref()?;
        match kind {
            Kind::Base => Some(AREAS.map(str::to_owned).to_vec()),
            Kind::Area => Some(vec![stanza.clone()]),
            _ => None,
        }
    }

    fn root(&self, path: BString) -> Rc<Root> {
        let mut roots = self.roots.borrow_mut();
        if let Some(root) = roots.iter().find(|root| root.path().as_os_str().as_bytes() == path) {
            return Rc::clone(root);
        }
        let root = Root::new(OsString::from_vec(path.into()));
        if roots.len() == ROOTS_MAXIMUM {
            roots.remove(0);
        }
        roots.push(Rc::clone(&root));
        root
    }

    fn explain(&self, path: &[u8]) -> String {
        let (shown, base) = (Carried::cut(path), Carried(path_of(&self.base)));
        match &self.stanza {
            Some(stanza) => format!("'{shown}' is not in stanza '{stanza}' of repository '{base}'"),
            None => format!("'{shown}' is not in repository '{base}' or cannot be used that way"),
        }
    }
}

/// `base` without the slash that may be at its end.
fn trimmed(base: &[u8]) -> &[u8] {
    base.trim_end_with(|last| last == '/')
}

/// The path of the directory `base`, which has no trailing slash.
fn path_of(base: &[u8]) -> &[u8] {
    if base.is_empty() { b"/" } else { base }
}

fn is_area(name: &[u8]) -> bool {
    AREAS.iter().any(|area| area.as_bytes() == name)
}

/// What of `path` is below the directory `base`, which has no trailing slash.
pub(super) fn strip<'a>(path: &'a [u8], base: &[u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(base)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b"/") }
}

/// The error of a request that the client's role does not allow.
pub(crate) fn lacks(role: Role, needed: Role, path: Carried<'_>, access: Access) -> Error {
    // What a backup's client removes of finished backups it expires, in the same session.
    let expires = role == Role::Backup && matches!(access, Access::Remove | Access::RemoveTree);
    let expire =
        if expires { "\nHINT: set expire-auto=n where backups are made, and expire where that role is." } else { "" };
    Error::access(format!(
        "access denied: role '{}' may not {} '{path}'\nHINT: this needs role '{}', which repohostd.conf of the \
         repository host gives to clients.{expire}",
        role.name(),
        access.verb(),
        needed.name()
    ))
}

/// The error of a request whose place turned out to lead out of its root, or through a link of a stranger.
pub(crate) fn leads_out(place: &Location) -> Error {
    Error::access(if place.links == Links::Owned {
        format!(
            "access denied: the way to '{place}' leads through a link of a user that is not trusted\nHINT: links have \
             to belong to the user that repohostd runs as, to the owner of the cluster, or to root; where repohostd \
             runs as root, to root alone."
        )
    } else {
        format!("access denied: '{place}' leads out of its stanza's directory through a link")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(view: &View, path: &str, access: Access) -> Option<String> {
        view.locate(path.as_bytes(), access).ok().map(|place| {
            let location = place.location;
            format!("{} + {}", location.root.path().display(), location.path.as_bytes().as_bstr())
        })
    }

    #[test]
    fn a_stanza_reaches_its_own_two_directories_and_nothing_else() {
        let view = View::new("/srv/repo", Some("demo"), Role::Admin, false);
        assert_eq!(
            reach(&view, "/srv/repo/archive/demo/15-1/a", Access::Write).unwrap(),
            "/srv/repo/archive/demo + 15-1/a"
        );
        assert_eq!(reach(&view, "/srv/repo/backup/demo", Access::Write).unwrap(), "/srv/repo/backup/demo + ");
        for path in [
            "/srv/repo/archive/demo2/x",
            "/srv/repo/archive/dem",
            "/srv/repo/archive/other",
            "/srv/repo/archive/demo/../other/x",
            "/srv/repo/archive/demo/./x",
            "/srv/repo/archive//demo",
            "/srv/repo/archive/demo/",
            "/srv/repo/archive/demo/\0",
            "/srv/repo/file",
            "/srv/repo2/archive/demo/x",
            "/etc/passwd",
            "archive/demo/x",
            "",
        ] {
            for access in [Access::Look, Access::Read, Access::Directory, Access::Write, Access::Remove, Access::Link] {
                assert_eq!(reach(&view, path, access), None, "{path:?} {access:?}");
            }
        }
    }

    #[test]
    fn a_stanza_sees_of_the_parents_only_what_leads_to_it() {
        let view = View::new("/srv/repo", Some("demo"), Role::Admin, false);
        assert_eq!(view.locate(b"/srv/repo", Access::Look).unwrap().visible.unwrap(), ["archive", "backup"]);
        assert_eq!(view.locate(b"/srv/repo/backup", Access::Look).unwrap().visible.unwrap(), ["demo"]);
        assert_eq!(view.locate(b"/srv/repo/backup/demo", Access::Look).unwrap().visible, None);
        assert!(view.locate(b"/srv/repo/backup", Access::Directory).is_ok());
        for path in ["/srv/repo", "/srv/repo/backup"] {
            assert!(view.locate(path.as_bytes(), Access::Write).is_err());
            assert!(view.locate(path.as_bytes(), Access::Read).is_err());
        }
    }

    #[test]
    fn the_whole_repository_is_reached_without_a_stanza() {
        let view = View::new("/srv/repo/", None, Role::Admin, false);
        assert_eq!(view.base(), b"/srv/repo");
        assert_eq!(reach(&view, "/srv/repo/any/file", Access::Write).unwrap(), "/srv/repo + any/file");
        assert_eq!(reach(&view, "/srv/repo/archive/x/y", Access::Read).unwrap(), "/srv/repo/archive/x + y");
        assert_eq!(reach(&view, "/srv/other", Access::Look), None);
        assert_eq!(
            reach(&View::new("/", None, Role::Admin, false), "/archive/x/y", Access::Read).unwrap(),
            "/archive/x + y"
        );
    }

    #[test]
    fn links_are_never_made_where_a_root_could_be_and_never_lead_out() {
        for view in [View::new("/r", Some("demo"), Role::Admin, false), View::new("/r", None, Role::Admin, false)] {
            assert!(view.locate_link(b"/r/backup/demo/latest", b"20260101-000000F").is_ok());
            assert!(view.locate_link(b"/r/backup/demo/L/pg_data/pg_tblspc/1", b"../../pg_tblspc/1").is_ok());
            for (link, target) in [
                ("/r/backup/demo/latest", "/etc"),
                ("/r/backup/demo/latest", ".."),
                ("/r/backup/demo/latest", "a/../../x"),
                ("/r/backup/demo/latest", ""),
                ("/r/backup/demo", "x"),
                ("/r/backup/evil", "x"),
                ("/r/backup", "x"),
                ("/r/evil", "../x"),
                ("/r/evil", "archive"),
                ("/r/evil", "."),
                ("/r/evil", "x/archive"),
                ("/r/x/evil", "y"),
                ("/r/a/b/way", "../../archive"),
            ] {
                assert!(view.locate_link(link.as_bytes(), target.as_bytes()).is_err(), "{link} -> {target}");
            }
        }
    }
}
