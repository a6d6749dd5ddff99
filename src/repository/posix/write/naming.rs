//! Whether a file that was written may have its name, where not every file is replaced.

use std::rc::Rc;

use bstr::ByteSlice;

use crate::disk::{Claim, Completion, Entry, Errno, Level, Listing, Location, Operation, Outcome, Over};
use crate::protocol::error::{Code, Error, Result};
use crate::repository::policy::aged::Protected;
use crate::repository::policy::guard::{InfoReplacement, Replace};
use crate::repository::policy::segments::{self, Begun, Twin};
use crate::repository::posix::commit::Commit;
use crate::repository::posix::info_guard::{InfoGuard, Verdict};
use crate::repository::posix::same::Comparison;
use crate::repository::posix::search::Search;
use crate::repository::{Next, Shared, failed, unexpected_outcome};

/// What is looked at.
pub(super) enum Naming {
    /// Claiming the right to add a file of its segment to this directory.
    Claiming(Location),
    /// Looking whether another file of the same segment is in the directory, since when, and what is there.
    Twins(Claim, String, Begun, Vec<String>),
    /// Finding out what no client may lose, before an info file gets its name.
    Searching(Box<Search>, Rc<InfoReplacement>),
    /// Looking whether it may have its name.
    Guarding(Box<InfoGuard>),
    /// Looking whether the file that has the name already is the same.
    Comparing(Box<Comparison>),
}

/// What has come of it so far.
pub(super) enum Found {
    /// There is more to look at.
    More(Naming, Operation),
    /// It may have the name, over what may have it before.
    Free(Over, Held),
    /// The same is there already.
    Same,
}

/// What goes with a file that may have its name.
#[derive(Default)]
pub(super) struct Held {
    /// The right to add it, until it has its name.
    pub(super) claim: Option<Claim>,
    /// What an administrator should know.
    pub(super) notice: Option<String>,
}

impl Naming {
    /// Begins to look, if anything has to be looked at.
    pub(super) fn begin(shared: &Rc<Shared>, commit: &Commit, replace: &Replace) -> Found {
        match replace {
            Replace::Always => Found::Free(Over::Anything, Held::default()),
            Replace::Never { .. } => Found::Free(Over::Nothing, Held::default()),
            Replace::NeverSegment => match commit.target.parent() {
                Some(directory) => {
                    let name = segments::right(&directory.to_string(), name(&commit.target));
                    Found::More(Self::Claiming(directory), Operation::Claim { name })
                }
                None => Found::Free(Over::Nothing, Held::default()),
            },
            Replace::Info(rules) => {
                let (search, next) = Search::begin(shared, Rc::clone(&rules.guard), rules.backups.clone());
                searched(shared, commit, Rc::clone(rules), Box::new(search), next)
            }
        }
    }

    /// It could not get its name, for the reason `errno`: another file may have it.
    pub(super) fn meet(commit: &Commit, replace: &Replace, errno: Errno) -> Result<Found> {
        let (target, place) = (&commit.target, commit.place());
        match (errno, replace) {
            (Errno::EXIST, Replace::NeverSegment) => Ok(Found::Same),
            (Errno::EXIST, Replace::Never { key }) => {
                let (comparison, operation) = Comparison::begin(target.clone(), place.clone(), key.clone());
                Ok(Found::More(Self::Comparing(Box::new(comparison)), operation))
            }
            (Errno::EXIST, Replace::Always) => Err(unexpected_outcome()),
            (Errno::EXIST, Replace::Info(_)) | (Errno::STALE, _) => Err(overtaken(commit)),
            _ => Err(Error::system(Code::FileMove, format_args!("unable to move '{place}' to '{target}'"), errno.0)),
        }
    }

    /// Goes on after the operation that was asked for last. After an error the file must not get the name.
    pub(super) fn resume(self, shared: &Rc<Shared>, commit: &Commit, completion: Completion) -> Result<Found> {
        match self {
            Self::Claiming(at) => {
                let claim = claimed(commit, completion)?;
                let directory = at.to_string();
                let now = claim.since();
                if shared.segments.is_missing(&directory, name(&commit.target), claim.others(), now) {
                    return Ok(Found::Free(Over::Nothing, Held { claim: Some(claim), notice: None }));
                }
                let when = shared.segments.begin(&directory, now);
                let list = Operation::List { at, level: Level::Exists };
                Ok(Found::More(Self::Twins(claim, directory, when, Vec::new()), list))
            }
            Self::Twins(claim, directory, when, mut names) => {
                let (entries, rest) = listed(commit, completion)?;
                match segments::twin(name(&commit.target), names_of(&entries)) {
                    Some(Twin::Same) => return Ok(Found::Same),
                    Some(Twin::Other(name)) => return Err(stays(&commit.target, Some(&name))),
                    None => {}
                }
                names.extend(names_of(&entries).map(str::to_owned).take(segments::NAMES_MAXIMUM + 1 - names.len()));
                if let Some(listing) = rest {
                    let more = Operation::ListMore { listing };
                    return Ok(Found::More(Self::Twins(claim, directory, when, names), more));
                }
                if names.len() <= segments::NAMES_MAXIMUM {
                    shared.segments.remember(&directory, when, &names);
                }
                Ok(Found::Free(Over::Nothing, Held { claim: Some(claim), notice: None }))
            }
            Self::Searching(mut search, rules) => {
                let next = search.resume(completion)?;
                Ok(searched(shared, commit, rules, search, next))
            }
            Self::Guarding(mut guard) => Ok(match guard.resume(completion)? {
                Next::Disk(operation) => Found::More(Self::Guarding(guard), operation),
                Next::Done(Verdict { unverified: notice, replaced }) => {
                    Found::Free(replaced.map_or(Over::Nothing, Over::This), Held { claim: None, notice })
                }
            }),
            Self::Comparing(mut comparison) => match comparison.resume(completion)? {
                Next::Disk(operation) => Ok(Found::More(Self::Comparing(comparison), operation)),
                Next::Done(true) => Ok(Found::Same),
                Next::Done(false) => Err(stays(&commit.target, None)),
            },
        }
    }
}

/// Goes on once it is known what no client may lose.
fn searched(
    shared: &Rc<Shared>,
    commit: &Commit,
    rules: Rc<InfoReplacement>,
    search: Box<Search>,
    next: Next<Rc<Protected>>,
) -> Found {
    let protected = match next {
        Next::Disk(operation) => return Found::More(Naming::Searching(search, rules), operation),
        Next::Done(protected) => protected,
    };
    let (target, written) = (commit.target.clone(), commit.place().clone());
    let (guard, operation) = InfoGuard::begin(shared, &rules, protected, target, written);
    Found::More(Naming::Guarding(Box::new(guard)), operation)
}

fn claimed(commit: &Commit, completion: Completion) -> Result<Claim> {
    match completion {
        Ok(Outcome::Claim(Some(claim))) => Ok(claim),
        Ok(Outcome::Claim(None)) => Err(overtaken(commit)),
        Ok(_) => Err(unexpected_outcome()),
        Err(failure) => {
            Err(failed(Code::FileMove, "unable to keep other clients from writing", &commit.target, failure.errno))
        }
    }
}

fn listed(commit: &Commit, completion: Completion) -> Result<(Vec<Entry>, Option<Listing>)> {
    match completion {
        Ok(Outcome::Entries(entries, rest)) => Ok((entries, rest)),
        Ok(_) => Err(unexpected_outcome()),
        Err(failure) => Err(failed(Code::PathOpen, "unable to list the directory of", commit.place(), failure.errno)),
    }
}

/// The names of entries that are text: others are no segments.
fn names_of(entries: &[Entry]) -> impl Iterator<Item = &str> {
    entries.iter().filter_map(|entry| entry.name.to_str().ok())
}

/// A file's name in its directory, if it is text: whatever a name says here, it says in text.
pub(super) fn name(target: &Location) -> &str {
    target.path.name().to_str().unwrap_or_default()
}

fn overtaken(commit: &Commit) -> Error {
    let (target, place) = (&commit.target, commit.place());
    let message = format!("unable to move '{place}' to '{target}': another client has begun to write the same file");
    Error::new(Code::FileMove, message)
}

/// What the client is told of the file that stays; `other` is its name where that is another one.
fn stays(target: &Location, other: Option<&str>) -> Error {
    let other = other.map_or(String::new(), |name| format!(", as '{name}'"));
    Error::access(format!(
        "access denied: '{target}' is there already with other content{other}\nHINT: replacing it needs role 'admin' and \
         no min-age in repohostd.conf of the repository host."
    ))
}
