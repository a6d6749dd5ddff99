//! What clients ask for, with what they may and may not.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use repohostd::protocol::framing::{Envelope, Framing, name};
use repohostd::protocol::pack::Writer;
use repohostd::protocol::release::{DatabaseAnswers, Release};
use repohostd::protocol::string_id::StringId;
use repohostd_fuzz::wire::{self, RECORDED};
use repohostd_fuzz::{Tape, golden};

use crate::place::{LABEL, SEGMENT};

/// Raw bytes with the recorded path of the repository replaced by the one that there is.
pub fn rebased(bytes: &[u8], base: &Path) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while at + RECORDED.len() <= bytes.len() {
        if bytes[at..].starts_with(RECORDED) {
            bytes[at..at + RECORDED.len()].copy_from_slice(base.as_os_str().as_bytes());
        }
        at += 1;
    }
    bytes
}

fn path(tape: &mut Tape<'_>, base: &Path) -> Vec<u8> {
    let directory = &SEGMENT[..16];
    let below = match tape.below(32) {
        0 => String::new(),
        1 => "archive".to_owned(),
        2 => "archive/demo".to_owned(),
        3 => "archive/demo/archive.info".to_owned(),
        4 => "archive/demo/archive.info.copy".to_owned(),
        5 => "archive/demo/15-1".to_owned(),
        6 => format!("archive/demo/15-1/{directory}"),
        7 => format!("archive/demo/15-1/{directory}/{SEGMENT}"),
        8 => format!("archive/demo/15-1/{directory}/{}3{}", &SEGMENT[..23], &SEGMENT[24..]),
        9 => format!("archive/demo/15-1/{directory}/{}1{}", &SEGMENT[..30], &SEGMENT[31..]),
        10 => "archive/demo/15-1/00000002.history".to_owned(),
        11 => "backup".to_owned(),
        12 => "backup/demo".to_owned(),
        13 => "backup/demo/backup.info".to_owned(),
        14 => "backup/demo/backup.info.copy".to_owned(),
        15 => format!("backup/demo/{LABEL}"),
        16 => format!("backup/demo/{LABEL}/backup.manifest"),
        17 => format!("backup/demo/{LABEL}/pg_data/x"),
        18 => "backup/demo/20261126-000000F".to_owned(),
        19 => "backup/demo/20261126-000000F/pg_data/y".to_owned(),
        20 => "backup/demo/20261126-000000F/backup.manifest".to_owned(),
        21 => "backup/demo/20261126-000000F/backup.manifest.copy".to_owned(),
        22 => "backup/demo/latest".to_owned(),
        23 => "backup/demo/latest/pg_data/x".to_owned(),
        24 => "archive/other/secret".to_owned(),
        25 => "archive/demo/evil/secret".to_owned(),
        26 => "archive/demo/neighbour/secret".to_owned(),
        27 => "archive/demo/../other/secret".to_owned(),
        28 => format!("../{}.beside/secret", base.file_name().map_or("", |name| name.to_str().unwrap_or(""))),
        29 => "backup/demo/backup.history/2026/20261125-030052F.manifest.gz".to_owned(),
        30 => return tape.piece().to_vec(),
        _ => return [base.as_os_str().as_bytes(), b"/archive/demo/", tape.piece()].concat(),
    };
    let mut path = base.as_os_str().as_bytes().to_vec();
    if !below.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(below.as_bytes());
    path
}

/// The first two requests of every session.
pub fn hello(release: &Release) -> Vec<u8> {
    let ask = |command: &str, parameters: &[u8]| {
        let envelope = Envelope { command: StringId::new(command), kind: name::PROCESS, session: 100, open: false };
        wire::request(release.framing, envelope, parameters)
    };
    let mut words = Writer::new();
    words.array(|array| _ = array.str("--process=0").str("backup:remote"));
    [ask("config", &words.finish()), ask("noop", &[])].concat()
}

/// Another request.
pub fn request(tape: &mut Tape<'_>, release: &Release, base: &Path) -> Vec<u8> {
    let framing = release.framing;
    let number = match framing {
        Framing::Session => tape.below(4) as u64 + 1,
        Framing::Classic => Envelope::CLASSIC,
    };
    let of = |command: StringId, kind: StringId| {
        let open = !matches!(kind, name::OPEN);
        Envelope { command, kind, session: number, open }
    };
    let simple = |command: &str| Envelope { open: false, ..of(StringId::new(command), name::PROCESS) };
    let mut pack = Writer::new();
    let envelope = match tape.below(20) {
        0 => simple("noop"),
        1 => simple("s-f"),
        2 => {
            pack.text(&path(tape, base)).u32(1 + tape.below(4) as u32).bool(tape.flag());
            simple("s-i")
        }
        3 => {
            pack.text(&path(tape, base)).u32(1 + tape.below(4) as u32);
            simple("s-l")
        }
        4 => {
            let (target, link) = (path(tape, base), path(tape, base));
            let target = if tape.flag() { target } else { tape.piece().to_vec() };
            pack.text(&target).text(&link).u32(u32::from(tape.flag()));
            simple("s-lc")
        }
        5 => {
            pack.text(&path(tape, base)).bool(tape.flag()).bool(tape.flag()).mode_default(0o750, 0o750);
            simple("s-pc")
        }
        6 => {
            pack.text(&path(tape, base)).bool(tape.flag());
            simple("s-pr")
        }
        7 => {
            pack.text(&path(tape, base));
            simple("s-ps")
        }
        8 => {
            pack.text(&path(tape, base)).bool(tape.flag());
            simple("s-r")
        }
        9 => {
            pack.str("repo-path").str(&tape.text());
            simple("opt-g")
        }
        10 | 11 => {
            let file = path(tape, base);
            let (ranged, ignore_missing) = (tape.flag(), tape.flag());
            let offset = if ranged { tape.byte().into() } else { 0 };
            let limit = ranged.then(|| 1 + u64::from(tape.short()));
            let filters = wire::filters(tape, release);
            wire::read(&mut pack, wire::Read { file: &file, offset, limit, ignore_missing }, &filters, release);
            of(framing.read(), name::OPEN)
        }
        12 => of(framing.read(), [name::PROCESS, name::CLOSE, name::CANCEL][tape.below(3)]),
        13 | 14 => {
            pack.text(&path(tape, base)).mode_default(0o640, 0o640).mode_default(0o750, 0o750);
            let flags = tape.byte();
            if flags & 16 == 0 {
                pack.null().null()
            } else {
                pack.str("root").str("nobody-at-all")
            };
            pack.time(if flags & 32 == 0 { 0 } else { 1_700_000_000 });
            for bit in [1, 2, 4, 8] {
                pack.bool(flags & bit == 0);
            }
            let filters = wire::filters(tape, release);
            pack.pack_bytes(&filters);
            of(framing.write(), name::OPEN)
        }
        15 => {
            let length = usize::from(tape.short());
            let data = vec![tape.byte(); length];
            return wire::block(framing, of(framing.write(), name::PROCESS), &data);
        }
        16 => {
            let info: &[u8] = include_bytes!("../../../../src/repository/policy/info/data/2.45-incr.backup.info");
            return wire::block(framing, of(framing.write(), name::PROCESS), info);
        }
        17 if framing == Framing::Classic => of(framing.write(), name::CLOSE),
        17 => of(framing.write(), [name::CLOSE, name::CANCEL][tape.below(2)]),
        18 => database(tape, release, &mut pack, number),
        _ => simple("exit"),
    };
    let fields =
        if envelope.command == framing.write() && envelope.kind == name::CLOSE { vec![] } else { pack.finish() };
    wire::request(framing, envelope, &fields)
}

fn database(tape: &mut Tape<'_>, release: &Release, pack: &mut Writer, number: u64) -> Envelope {
    let step = tape.below(3);
    if release.framing == Framing::Classic {
        let command = StringId::new(["db-o", "db-q", "db-c"][step]);
        if step > 0 {
            pack.u32(tape.below(3) as u32);
        }
        statement(tape, release, pack, step == 1);
        return Envelope { command, kind: name::PROCESS, session: Envelope::CLASSIC, open: false };
    }
    let kind = [name::OPEN, name::PROCESS, name::CLOSE][step];
    statement(tape, release, pack, step == 1);
    Envelope { command: StringId::new("db"), kind, session: number, open: step > 0 }
}

fn statement(tape: &mut Tape<'_>, release: &Release, pack: &mut Writer, wanted: bool) {
    if !wanted {
        return;
    }
    if release.database_answers == DatabaseAnswers::Typed {
        pack.string_id(StringId::new(["any", "row", "column", "none"][tape.below(4)]));
    }
    if tape.flag() {
        pack.str("select pg_catalog.pg_is_in_recovery()");
    } else {
        pack.str(&tape.text());
    }
}

/// Courses of events that begin with a recorded conversation, of one client, as `main.rs` reads them.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for conversation in golden::conversations() {
        for role in [3, 4] {
            // release, kind of session, role, how it is protected; then for the only client: hello, everything to its end
            let mut course = vec![u8::try_from(conversation.release).expect("releases are few"), 0, role, 0];
            course.extend([1, 0, 5, 0]);
            for request in &conversation.requests {
                // two bytes of length, as operation 2 has them
                let length = u16::try_from(request.len()).expect("requests are short");
                course.extend([2, 0]);
                course.extend(length.to_be_bytes());
                course.extend_from_slice(request);
                course.extend([5, 0]);
            }
            all.push(course);
        }
    }
    all
}
