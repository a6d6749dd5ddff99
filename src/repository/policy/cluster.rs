//! Which places of a cluster a session can reach, and what it may do there: look and read.
//!
//! A client names everything by its path below the data directory, also what is elsewhere: it finds the links
//! of tablespaces, of the WAL directory, of configuration files and whatever else in listings, and goes on
//! through them (`PGDATA/pg_tblspc/16385/…`). So no other path than that of the data directory begins a place.
//! Links on the way are followed where [`Links::Owned`](crate::disk::Links::Owned) allows it: they are the
//! cluster's own, made by the user that the server of the cluster runs as or by root, and lead to what these
//! could read anyway. A client can make none, since nothing is written on a `PostgreSQL` host.
//!
//! One request is for a path outside of it: before a client follows a link, it looks whether the link points to
//! another link, and computes the path of that from the link's text. What it gets is what the link points to,
//! and only when this session has listed the link.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use bstr::{BString, ByteSlice};

use super::access::Access;
use super::view::strip;
use crate::config::Role;
use crate::disk::{Location, RelativePath, Root};
use crate::protocol::carried::Carried;
use crate::protocol::error::{Error, Result};

/// Bytes that the links which one session was told of may take. A tablespace takes about 200 of them.
const MEMORY_MAXIMUM: usize = 4 << 20;
/// About so many bytes an entry takes beside its texts.
const ENTRY: usize = 128;

/// A cluster, as a session sees it.
#[derive(Debug)]
pub(crate) struct ClusterView {
    pub(super) base: BString,
    root: Rc<Root>,
    known: RefCell<Known>,
}

/// The links that a session has listed, by where they point.
#[derive(Debug, Default)]
struct Known {
    links: HashMap<BString, RelativePath>,
    bytes: usize,
}

impl ClusterView {
    /// The cluster with its data directory at the absolute path `base`, which has no trailing slash.
    pub(crate) fn new(base: &[u8]) -> Self {
        Self { base: base.into(), root: Root::new(OsStr::from_bytes(base)), known: RefCell::default() }
    }

    /// Bytes that it holds.
    pub(crate) fn memory(&self) -> usize {
        self.known.borrow().bytes
    }

    /// The place that the client calls `path`. Error 105 for whatever is not in the cluster, and for every access that
    /// changes something.
    pub(crate) fn locate(&self, path: &[u8], access: Access) -> Result<Location> {
        if access.changes() {
            return Err(reads_only(path, access));
        }
        let below = strip(path, &self.base).and_then(RelativePath::new);
        let below = below.ok_or_else(|| self.denied(path))?;
        Ok(Location::new(Rc::clone(&self.root), below).through_owned_links())
    }

    /// The link that points to `path`, if that is not in the cluster. Error 105 when no link that this session has
    /// listed does.
    pub(crate) fn link_to(&self, path: &[u8]) -> Result<Option<Location>> {
        if strip(path, &self.base).is_some() {
            return Ok(None);
        }
        let known = self.known.borrow();
        let link = known.links.get(path.as_bstr()).ok_or_else(|| self.denied(path))?;
        Ok(Some(Location::new(Rc::clone(&self.root), link.clone()).through_owned_links()))
    }

    fn denied(&self, path: &[u8]) -> Error {
        let shown = Carried::cut(path);
        Error::access(format!(
            "access denied: '{shown}' is neither in cluster '{}' nor what a link there points to, as far as this \
             session has listed links",
            Carried(&self.base)
        ))
    }

    /// Notes that `name` in `directory`, which is in the cluster, is a link that says `text`.
    pub(crate) fn note(&self, directory: &Location, name: &[u8], text: &[u8]) {
        let Some(link) = directory.path.join(name) else { return };
        let Some(destination) = absolute(&directory.absolute(), text) else { return };
        if strip(&destination, &self.base).is_some() {
            return;
        }
        let mut known = self.known.borrow_mut();
        let bytes = ENTRY + destination.len() + link.as_bytes().len();
        if known.bytes + bytes > MEMORY_MAXIMUM {
            return;
        }
        if known.links.insert(destination, link).is_none() {
            known.bytes += bytes;
        }
    }
}

/// The path that a client computes from the text of a link in `directory`: it knows nothing of links on the way.
fn absolute(directory: &[u8], text: &[u8]) -> Option<BString> {
    if text.starts_with(b"/") {
        return Some(text.into());
    }
    let mut parts: Vec<&[u8]> = directory.split_str("/").filter(|part| !part.is_empty()).collect();
    let text = text.strip_suffix(b"/").unwrap_or(text);
    for part in text.split_str("/") {
        match part {
            b"" => return None,
            b"." => {}
            b".." => _ = parts.pop()?,
            _ => parts.push(part),
        }
    }
    Some([b"/", bstr::join("/", parts).as_slice()].concat().into())
}

/// The error of a request that would change something.
pub(crate) fn reads_only(path: &[u8], access: Access) -> Error {
    let shown = Carried::cut(path);
    Error::access(format!(
        "access denied: role '{}' may not {} '{shown}'\nHINT: a PostgreSQL host is only read over the network; restore \
         runs on the host itself.",
        Role::PgReader.name(),
        access.verb()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const READS: [Access; 2] = [Access::Look, Access::Read];
    const CHANGES: [Access; 6] =
        [Access::Directory, Access::Write, Access::Remove, Access::RemoveTree, Access::Link, Access::HardLink];

    #[test]
    fn the_data_directory_is_read_and_nothing_else_and_nothing_is_changed() {
        let view = ClusterView::new(b"/pg/15/main");
        for path in ["/pg/15/main", "/pg/15/main/base/5/1234", "/pg/15/main/pg_tblspc/16385/PG_15/5/1"] {
            for access in READS {
                assert_eq!(view.locate(path.as_bytes(), access).unwrap().to_string(), path);
            }
            for access in CHANGES {
                let error = view.locate(path.as_bytes(), access).unwrap_err();
                assert!(error.message.contains("role 'pg-reader' may not"), "{error}");
            }
        }
        for path in [
            "/pg/15/main2/PG_VERSION",
            "/pg/15",
            "/pg/15/main/../other/PG_VERSION",
            "/pg/15/main/.",
            "/pg/15/main//base",
            "/pg/15/main/base/",
            "/etc/shadow",
            "base/5/1234",
            "",
            "/pg/15/main/\0",
        ] {
            for access in READS.into_iter().chain(CHANGES) {
                assert!(view.locate(path.as_bytes(), access).is_err(), "{path:?} {access:?}");
            }
        }
    }

    #[test]
    fn a_client_computes_where_a_link_points_by_text_alone() {
        for (text, expected) in [
            ("/mnt/ts", Some("/mnt/ts")),
            ("/mnt/../ts/", Some("/mnt/../ts/")),
            ("../../ts", Some("/pg/ts")),
            ("./x/", Some("/pg/15/main/x")),
            ("../../../..", None),
            ("../../..", Some("/")),
            ("a//b", None),
            ("", None),
        ] {
            assert_eq!(absolute(b"/pg/15/main", text.as_bytes()), expected.map(BString::from), "{text:?}");
        }
    }

    #[test]
    fn what_links_point_to_is_looked_at_once_they_were_listed() {
        let view = ClusterView::new(b"/pg");
        let listed = view.locate(b"/pg/pg_tblspc", Access::Look).unwrap();
        for (name, text) in [("1", "/mnt/one"), ("2", "../../mnt/two"), ("3", "../base")] {
            view.note(&listed, name.as_bytes(), text.as_bytes());
        }
        let link = |path: &str| view.link_to(path.as_bytes()).map(|link| link.map(|link| link.to_string()));
        assert_eq!(link("/mnt/one").unwrap().as_deref(), Some("/pg/pg_tblspc/1"));
        assert_eq!(link("/mnt/two").unwrap().as_deref(), Some("/pg/pg_tblspc/2"));
        assert_eq!(link("/pg/base").unwrap(), None, "it is in the cluster");
        for path in ["/mnt", "/mnt/one/PG_15", "/mnt/one/", "/etc/shadow", "/"] {
            assert!(link(path).is_err(), "{path}");
        }
    }

    #[test]
    fn links_without_end_do_not_take_memory_without_end() {
        let view = ClusterView::new(b"/pg");
        let listed = view.locate(b"/pg", Access::Look).unwrap();
        let long = "x".repeat(4000);
        for number in 0..10_000 {
            view.note(&listed, number.to_string().as_bytes(), format!("/{number}/{long}").as_bytes());
        }
        assert!(view.memory() <= MEMORY_MAXIMUM && view.memory() > MEMORY_MAXIMUM / 2);
        let is_known = |number: u32| view.link_to(format!("/{number}/{long}").as_bytes()).is_ok();
        assert!(is_known(0) && !is_known(9999));
    }
}
