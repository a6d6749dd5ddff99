//! The right to do something under a name that is more than one operation.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Instant;

use rustix::io::Result;

use super::exclusion::{Claimed, Exclusion};

/// What is claimed in this process, and who keeps others from claiming it too.
#[derive(Debug, Default)]
pub(super) struct Claims {
    names: Rc<RefCell<HashSet<Rc<str>>>>,
    exclusion: Option<Exclusion>,
}

/// A name that nobody else has claimed, until this is dropped.
#[derive(Debug)]
pub struct Claim {
    name: Rc<str>,
    names: Rc<RefCell<HashSet<Rc<str>>>>,
    claimed: Option<Claimed>,
    since: Instant,
}

impl Claims {
    pub(super) fn new(exclusion: Option<Exclusion>) -> Self {
        Self { names: Rc::default(), exclusion }
    }

    /// Claims a name; `None` when somebody has claimed it.
    pub(super) fn take(&self, name: &str) -> Result<Option<Claim>> {
        if self.names.borrow().contains(name) {
            return Ok(None);
        }
        let claimed = match &self.exclusion {
            Some(exclusion) => match exclusion.claim(name)? {
                None => return Ok(None),
                claimed => claimed,
            },
            None => None,
        };
        let name: Rc<str> = name.into();
        self.names.borrow_mut().insert(Rc::clone(&name));
        Ok(Some(Claim { name, names: Rc::clone(&self.names), claimed, since: Instant::now() }))
    }
}

impl Claim {
    /// Since when.
    #[must_use]
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// Until when other processes of this server may have had the name claimed, if they had within the last ten
    /// seconds.
    #[must_use]
    pub fn others(&self) -> Option<Instant> {
        self.claimed.as_ref().and_then(|claimed| claimed.others)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.names.borrow_mut().remove(&self.name);
    }
}
