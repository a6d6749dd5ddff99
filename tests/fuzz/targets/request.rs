//! Requests of every release from any bytes: what is understood means the same when it is written again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use repohostd::protocol::carried::Carried;
use repohostd::protocol::database::{DatabaseRequest, Expected};
use repohostd::protocol::framing::{Envelope, Framer, Framing, Piece, name};
use repohostd::protocol::pack::Writer;
use repohostd::protocol::release::{DatabaseAnswers, RELEASES, ReadLayout, Release};
use repohostd::protocol::request::{ReadRequest, Rejection, Request, WriteRequest};
use repohostd::protocol::string_id::StringId;
use repohostd_fuzz::{Tape, golden, seeds};

const LIMIT: usize = 1 << 20;
const PATH_MAXIMUM: usize = 4095;

/// The parameters of a request, as a client of `release` writes them; nothing of one that nobody writes in that way.
fn encode(request: &Request, release: &Release) -> Option<Vec<u8>> {
    let mut pack = Writer::new();
    match request {
        Request::Noop | Request::Exit | Request::Feature | Request::ReadNext | Request::Close | Request::Cancel => {}
        Request::Config(words) => {
            pack.array(|array| {
                for word in words {
                    array.str(word);
                }
            });
        }
        Request::Info { file, level, follow } => _ = pack.text(file).u32(*level).bool(*follow),
        Request::List { path, level } => _ = pack.text(path).u32(*level),
        Request::LinkCreate { target, link, hard } => _ = pack.text(target).text(link).u32((*hard).into()),
        Request::PathCreate { path, error_on_exists, no_parent_create, mode } => {
            pack.text(path).bool(*error_on_exists).bool(*no_parent_create).mode_default(*mode, 0o750);
        }
        Request::PathRemove { path, recurse } => _ = pack.text(path).bool(*recurse),
        Request::PathSync { path } => _ = pack.text(path),
        Request::Remove { file, error_on_missing } => _ = pack.text(file).bool(*error_on_missing),
        Request::OptionGet(names) => {
            for name in names {
                pack.str(name);
            }
        }
        Request::Read(read) => encode_read(&mut pack, read, release)?,
        Request::Write(write) => encode_write(&mut pack, write)?,
        Request::Database(request) => encode_database(&mut pack, request, release),
    }
    Some(pack.finish())
}

fn encode_read(pack: &mut Writer, read: &ReadRequest, release: &Release) -> Option<()> {
    if !read.filters.is_empty() {
        return None;
    }
    if !read.tells_existence {
        pack.pack(|_| {});
        for range in &read.ranges {
            pack.text(&range.file).null().u64(range.offset);
            pack.u64(range.limit.filter(|limit| *limit > 0).or(range.limit.is_none().then_some(0))?).null();
        }
        return Some(());
    }
    let [range] = &read.ranges[..] else { panic!("one file is read") };
    pack.text(&range.file);
    if release.read_layout != ReadLayout::Plain {
        pack.bool(read.ignore_missing);
    }
    if release.read_layout != ReadLayout::TextLimit {
        pack.u64(range.offset);
    }
    match (release.read_layout, range.limit) {
        (_, None) => _ = pack.null(),
        (ReadLayout::TextLimit | ReadLayout::OffsetTextLimit, Some(limit)) => _ = pack.str(&limit.to_string()),
        // the writer leaves out a number that is 0
        (_, Some(0)) => return None,
        (_, Some(limit)) => _ = pack.u64(limit),
    }
    Some(())
}

fn encode_write(pack: &mut Writer, write: &WriteRequest) -> Option<()> {
    // names that are no text are nobody's, and are carried in a text
    let is_text = |name: &&String| Carried(name.as_bytes()).to_string() == **name;
    if !write.filters.is_empty() || !write.user.iter().chain(&write.group).all(|name| is_text(&name)) {
        return None;
    }
    pack.text(&write.file).mode_default(write.file_mode, 0o640).mode_default(write.path_mode, 0o750);
    for owner in [&write.user, &write.group] {
        match owner {
            Some(owner) => pack.str(owner),
            None => pack.null(),
        };
    }
    pack.time(write.modified).bool(write.create_path).bool(write.sync_file).bool(write.sync_path).bool(write.atomic);
    Some(())
}

fn encode_database(pack: &mut Writer, request: &DatabaseRequest, release: &Release) {
    let number = |pack: &mut Writer, connection: u64| {
        if release.framing == Framing::Classic {
            pack.u32(u32::try_from(connection).expect("connections are counted in 32 bits"));
        }
    };
    match request {
        DatabaseRequest::Open => {}
        DatabaseRequest::Close(connection) | DatabaseRequest::Cancel(connection) => number(pack, *connection),
        DatabaseRequest::Query { connection, expected, statement } => {
            number(pack, *connection);
            if release.database_answers == DatabaseAnswers::Typed {
                pack.string_id(StringId::new(match expected {
                    Expected::Any => "any",
                    Expected::Column => "column",
                    Expected::None => "none",
                    Expected::Row => "row",
                }));
            }
            pack.str(statement);
        }
    }
}

/// Insists on what every request keeps to, whatever the client sends.
fn check(request: &Request) {
    let paths: Vec<&[u8]> = match request {
        Request::Info { file, .. } | Request::Remove { file, .. } => vec![file],
        Request::List { path, .. }
        | Request::PathCreate { path, .. }
        | Request::PathRemove { path, .. }
        | Request::PathSync { path } => vec![path],
        Request::LinkCreate { target, link, .. } => vec![target, link],
        Request::Read(read) => read.ranges.iter().map(|range| range.file.as_slice()).collect(),
        Request::Write(write) => {
            assert!(write.file_mode <= 0o777 && write.path_mode <= 0o777);
            vec![&write.file]
        }
        _ => vec![],
    };
    assert!(paths.iter().all(|path| path.len() <= PATH_MAXIMUM && !path.contains(&0)));
}

fn decode(envelope: Envelope, parameters: &[u8], release: &'static Release) {
    let request = match Request::decode(envelope, parameters, release) {
        Ok(request) => request,
        Err(Rejection::Fatal(error) | Rejection::Request(error)) => {
            assert!(!error.message.is_empty());
            return;
        }
    };
    check(&request);
    let Some(written) = encode(&request, release) else { return };
    let again = Request::decode(envelope, &written, release).expect("what was written is understood");
    assert_eq!(request, again);
}

fuzz_target!(
    init: seeds::offer(|| {
        let mut all = Vec::new();
        for conversation in golden::conversations() {
            for request in conversation.requests {
                all.push([&[u8::try_from(conversation.release).unwrap(), 0][..], &request].concat());
            }
        }
        all
    }),
    |data: &[u8]| {
        let mut tape = Tape::new(data);
        let release = &RELEASES[tape.below(RELEASES.len())];
        if tape.flag() {
            // parameters for a command that there is, without a head
            const COMMANDS: [&str; 20] = [
                "config", "noop", "exit", "s-f", "s-i", "s-l", "s-rdm", "s-lc", "s-pc", "s-pr", "s-ps", "s-r", "opt-g",
                "s-rd", "s-wr", "s-or", "s-ow", "db", "db-o", "db-q",
            ];
            let command = StringId::new(COMMANDS[tape.below(COMMANDS.len())]);
            let kind = [name::OPEN, name::PROCESS, name::CLOSE, name::CANCEL][tape.below(4)];
            let envelope = Envelope { command, kind, session: tape.byte().into(), open: tape.flag() };
            return decode(envelope, tape.rest(), release);
        }
        let mut framer = Framer::new(release.framing, LIMIT);
        let mut input = tape.rest();
        while let Ok(Some(piece)) = framer.next(&mut input) {
            if let Piece::Request(envelope, parameters) = piece {
                decode(envelope, &parameters, release);
            }
        }
    }
);
