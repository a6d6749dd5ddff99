//! Requests and their parameters, typed (specification, section 4).

use bstr::{BString, ByteSlice};

use super::carried::Carried;
use super::database::{self, DatabaseRequest};
use super::error::{Error, Result};
use super::filter::{FilterSpec, decode_filters};
use super::framing::{Envelope, Framing, name};
use super::pack::Reader;
use super::release::{ReadLayout, Release};
use super::string_id::StringId;

/// Longest path or target that a client may name, in bytes: what Linux takes.
const PATH_MAXIMUM: usize = 4095;

/// More ranges than any block-incremental file has super blocks are refused.
const RANGES_MAXIMUM: usize = 1 << 17;

/// Options that one request may ask for; real clients ask for two or three.
const OPTIONS_MAXIMUM: usize = 1000;

/// Part of a file that is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// Absolute path of the file.
    pub file: BString,
    /// Where to begin, in bytes.
    pub offset: u64,
    /// How many bytes at most; all when `None`.
    pub limit: Option<u64>,
}

/// What a read session reads.
#[derive(Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// Read one after the other as one stream.
    pub ranges: Vec<Range>,
    /// Whether the answer says that the file exists, as it does for a single file.
    pub tells_existence: bool,
    /// Whether a missing file is an answer and no error.
    pub ignore_missing: bool,
    /// What is done to the data, in order.
    pub filters: Vec<FilterSpec>,
}

/// What a write session writes, and how.
#[derive(Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "the flags of the wire")]
pub struct WriteRequest {
    /// Absolute path of the file.
    pub file: BString,
    /// Permission bits of a new file.
    pub file_mode: u32,
    /// Permission bits of directories that are made for it.
    pub path_mode: u32,
    /// Owner to give it to, if any.
    pub user: Option<String>,
    /// Group to give it to, if any.
    pub group: Option<String>,
    /// Modification time to set, seconds since 1970; 0 leaves it.
    pub modified: i64,
    /// Make missing directories.
    pub create_path: bool,
    /// Put the file on stable storage before it is acknowledged.
    pub sync_file: bool,
    /// Put its directory on stable storage too.
    pub sync_path: bool,
    /// Write under a temporary name and rename.
    pub atomic: bool,
    /// What is done to the data, in order.
    pub filters: Vec<FilterSpec>,
}

/// One request with its parameters.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Opens the conversation: the client's command line.
    Config(Vec<String>),
    /// Keeps the connection alive.
    Noop,
    /// Ends the conversation.
    Exit,
    /// What the storage can do.
    Feature,
    /// One entry.
    Info {
        /// Absolute path.
        file: BString,
        /// 1 exists, 2 type, 3 basic, 4 detail.
        level: u32,
        /// Follow a link in the last place.
        follow: bool,
    },
    /// The entries of a directory.
    List {
        /// Absolute path.
        path: BString,
        /// As for `Info`.
        level: u32,
    },
    /// Begins a read session.
    Read(ReadRequest),
    /// Begins a write session.
    Write(Box<WriteRequest>),
    /// Makes a link.
    LinkCreate {
        /// What the link points to.
        target: BString,
        /// Absolute path of the link.
        link: BString,
        /// A second name instead of a symbolic link.
        hard: bool,
    },
    /// Makes a directory.
    PathCreate {
        /// Absolute path.
        path: BString,
        /// An existing one is an error.
        error_on_exists: bool,
        /// Do not make missing parents.
        no_parent_create: bool,
        /// Permission bits.
        mode: u32,
    },
    /// Removes a directory.
    PathRemove {
        /// Absolute path.
        path: BString,
        /// With everything below it.
        recurse: bool,
    },
    /// Puts a directory's entries on stable storage.
    PathSync {
        /// Absolute path.
        path: BString,
    },
    /// Removes a file or link.
    Remove {
        /// Absolute path.
        file: BString,
        /// A missing one is an error.
        error_on_missing: bool,
    },
    /// Values of options.
    OptionGet(Vec<String>),
    /// The next block of a read session.
    ReadNext,
    /// Completes a session.
    Close,
    /// Drops a session.
    Cancel,
    /// About a connection to the database.
    Database(DatabaseRequest),
}

const CONFIG: StringId = StringId::new("config");
const NOOP: StringId = StringId::new("noop");
const EXIT: StringId = StringId::new("exit");
const FEATURE: StringId = StringId::new("s-f");
const INFO: StringId = StringId::new("s-i");
const LIST: StringId = StringId::new("s-l");
const READ_RANGES: StringId = StringId::new("s-rdm");
const LINK_CREATE: StringId = StringId::new("s-lc");
const PATH_CREATE: StringId = StringId::new("s-pc");
const PATH_REMOVE: StringId = StringId::new("s-pr");
const PATH_SYNC: StringId = StringId::new("s-ps");
const REMOVE: StringId = StringId::new("s-r");
const OPTION_GET: StringId = StringId::new("opt-g");

/// Why a request cannot be answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The client is told, and the connection ends.
    Fatal(Error),
    /// The client is told.
    Request(Error),
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        Self::Request(error)
    }
}

/// Whether `command` names sessions rather than simple requests.
fn is_session(command: StringId, release: &Release) -> bool {
    let Release { framing, reads_ranges, .. } = *release;
    command == framing.read() || command == framing.write() || command == READ_RANGES && reads_ranges
}

impl Request {
    /// The request in `envelope` with the pack `parameters`, as `release` lays it out.
    ///
    /// # Errors
    ///
    /// [`Rejection::Fatal`] for a command that there is not, [`Rejection::Request`] for a kind or
    /// parameters that do not fit.
    pub fn decode(envelope: Envelope, parameters: &[u8], release: &Release) -> Result<Self, Rejection> {
        let Envelope { command, kind, .. } = envelope;
        let mut reader = Reader::new(parameters);
        if is_session(command, release) {
            return Ok(match kind {
                name::OPEN if envelope.is_write() => Self::Write(Box::new(decode_write(&mut reader, release)?)),
                name::OPEN if command == READ_RANGES => Self::Read(decode_ranges(&mut reader, release)?),
                name::OPEN => Self::Read(decode_read(&mut reader, release)?),
                name::PROCESS if !envelope.is_write() => Self::ReadNext,
                name::CLOSE => Self::Close,
                name::CANCEL => Self::Cancel,
                name::PROCESS => return Err(Error::format("data of a write is not a single block").into()),
                _ => return Err(Error::protocol(format!("unknown request type '{kind}'")).into()),
            });
        }
        if let Some(request) = database::decode(envelope, &mut reader, release)? {
            return Ok(Self::Database(request));
        }
        let request = Self::decode_simple(command, &mut reader, release)?;
        if kind != name::PROCESS && !matches!(request, Self::Noop | Self::Config(_) | Self::Exit) {
            return Err(Error::protocol(format!("unknown request type '{kind}'")).into());
        }
        Ok(request)
    }

    fn decode_simple(command: StringId, reader: &mut Reader<'_>, release: &Release) -> Result<Self, Rejection> {
        Ok(match command {
            NOOP => Self::Noop,
            EXIT => Self::Exit,
            CONFIG => Self::Config(reader.read_array(argument)?.unwrap_or_default()),
            FEATURE => Self::Feature,
            INFO => Self::Info { file: path(reader)?, level: reader.read_u32()?, follow: reader.read_bool()? },
            LIST => Self::List { path: path(reader)?, level: reader.read_u32()? },
            LINK_CREATE if release.makes_links => {
                Self::LinkCreate { target: path(reader)?, link: path(reader)?, hard: decode_link_kind(reader)? }
            }
            PATH_CREATE => Self::PathCreate {
                path: path(reader)?,
                error_on_exists: reader.read_bool()?,
                no_parent_create: reader.read_bool()?,
                mode: mode(reader, 0o750)?,
            },
            PATH_REMOVE => Self::PathRemove { path: path(reader)?, recurse: reader.read_bool()? },
            PATH_SYNC => Self::PathSync { path: path(reader)? },
            REMOVE => Self::Remove { file: path(reader)?, error_on_missing: reader.read_bool()? },
            OPTION_GET => {
                let mut names = Vec::new();
                while reader.peek()?.is_some() {
                    if names.len() == OPTIONS_MAXIMUM {
                        return Err(Error::format(format!("more than {OPTIONS_MAXIMUM} options")).into());
                    }
                    names.push(text(reader)?);
                }
                Self::OptionGet(names)
            }
            _ => {
                let word = match release.framing {
                    Framing::Classic => "command",
                    Framing::Session => "request",
                };
                let message = format!("invalid {word} '{command}' ({:#x})", command.0);
                return Err(Rejection::Fatal(Error::protocol(message)));
            }
        })
    }
}

fn text(reader: &mut Reader<'_>) -> Result<String> {
    Ok(reader.read_str()?.unwrap_or_default().to_owned())
}

/// A word of the client's command line. Most are for others, such as the path of a cluster on the client's host, so one
/// that is no text is not refused here.
fn argument(reader: &mut Reader<'_>) -> Result<String> {
    let word = reader.read_text()?.unwrap_or_default();
    Ok(word.to_str().map_or_else(|_| Carried(word).to_string(), str::to_owned))
}

fn path(reader: &mut Reader<'_>) -> Result<BString> {
    let path = reader.read_text()?.unwrap_or_default();
    if path.len() > PATH_MAXIMUM {
        return Err(Error::format(format!("path is longer than {PATH_MAXIMUM} bytes")));
    }
    Ok(path.into())
}

/// The name of a user or group. One that is no text is nobody's here.
fn owner(reader: &mut Reader<'_>) -> Result<Option<String>> {
    Ok(reader.read_text()?.map(|name| Carried(name).to_string()))
}

fn mode(reader: &mut Reader<'_>, default: u32) -> Result<u32> {
    match reader.read_mode()? {
        None | Some(0) => Ok(default),
        Some(mode) if mode <= 0o777 => Ok(mode),
        Some(mode) => Err(Error::format(format!("mode {mode:o} is not allowed"))),
    }
}

fn decode_link_kind(reader: &mut Reader<'_>) -> Result<bool> {
    match reader.read_u32()? {
        0 => Ok(false),
        1 => Ok(true),
        kind => Err(Error::format(format!("invalid link type {kind}"))),
    }
}

fn decode_read(reader: &mut Reader<'_>, release: &Release) -> Result<ReadRequest> {
    let layout = release.read_layout;
    let file = path(reader)?;
    let ignore_missing = layout == ReadLayout::Plain || reader.read_bool()?;
    let offset = if layout == ReadLayout::TextLimit { 0 } else { reader.read_u64()?.unwrap_or(0) };
    let limit = match layout {
        ReadLayout::TextLimit | ReadLayout::OffsetTextLimit => decode_text_limit(reader.read_str()?)?,
        ReadLayout::Offset | ReadLayout::IgnoreMissing | ReadLayout::Plain => reader.read_u64()?,
    };
    // Versions belong to object stores; a posix repository has none.
    let of_version = match layout {
        ReadLayout::TextLimit | ReadLayout::OffsetTextLimit | ReadLayout::Offset => 0,
        ReadLayout::IgnoreMissing => 2,
        ReadLayout::Plain => 1,
    };
    for _ in 0..of_version {
        reader.skip()?;
    }
    let filters = decode_filters(reader, release)?;
    Ok(ReadRequest { ranges: vec![Range { file, offset, limit }], tells_existence: true, ignore_missing, filters })
}

fn decode_text_limit(text: Option<&str>) -> Result<Option<u64>> {
    match text {
        None | Some("null") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| Error::format(format!("'{text}' is no limit of a read"))),
    }
}

fn decode_ranges(reader: &mut Reader<'_>, release: &Release) -> Result<ReadRequest> {
    let filters = decode_filters(reader, release)?;
    let mut ranges = Vec::new();
    while reader.peek()?.is_some() {
        if ranges.len() == RANGES_MAXIMUM {
            return Err(Error::format(format!("more than {RANGES_MAXIMUM} ranges")));
        }
        let file = path(reader)?;
        reader.skip()?;
        let range = Range { file, offset: reader.read_u64()?.unwrap_or(0), limit: reader.read_u64()? };
        reader.skip()?;
        ranges.push(range);
    }
    Ok(ReadRequest { ranges, tells_existence: false, ignore_missing: false, filters })
}

fn decode_write(reader: &mut Reader<'_>, release: &Release) -> Result<WriteRequest> {
    Ok(WriteRequest {
        file: path(reader)?,
        file_mode: mode(reader, 0o640)?,
        path_mode: mode(reader, 0o750)?,
        user: owner(reader)?,
        group: owner(reader)?,
        modified: reader.read_time()?,
        create_path: reader.read_bool()?,
        sync_file: reader.read_bool()?,
        sync_path: reader.read_bool()?,
        atomic: reader.read_bool()?,
        filters: decode_filters(reader, release)?,
    })
}
