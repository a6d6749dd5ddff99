//! Requests as clients write them.

use repohostd::protocol::framing::{Envelope, Framing, name};
use repohostd::protocol::pack::Writer;
use repohostd::protocol::release::{CipherLayout, HashLayout, ReadLayout, Release};
use repohostd::protocol::string_id::StringId;

use crate::Tape;

/// Type numbers of the classic framing: data, and a command.
const CLASSIC_DATA: u32 = 0;
const CLASSIC_COMMAND: u32 = 2;

/// The head of a message, before its parameters. Of the classic framing an envelope says less than it has fields: a write
/// goes on and ends with data, everything else is a command.
fn head(framing: Framing, envelope: Envelope) -> Writer {
    let mut writer = Writer::new();
    match framing {
        Framing::Session => {
            writer.u32(1).string_id(envelope.command).string_id(envelope.kind);
            writer.u64(envelope.session).bool(envelope.open);
        }
        Framing::Classic if envelope.command == name::CLASSIC_WRITE && envelope.kind != name::OPEN => {
            writer.u32_forced(CLASSIC_DATA);
        }
        Framing::Classic => {
            writer.u32(CLASSIC_COMMAND).string_id(envelope.command);
        }
    }
    writer
}

/// A request with the pack `parameters`, or with none where that is empty.
#[must_use]
pub fn request(framing: Framing, envelope: Envelope, parameters: &[u8]) -> Vec<u8> {
    let mut writer = head(framing, envelope);
    if !parameters.is_empty() {
        writer.pack_bytes(parameters);
    }
    writer.finish()
}

/// A block of a write.
#[must_use]
pub fn block(framing: Framing, envelope: Envelope, data: &[u8]) -> Vec<u8> {
    let mut writer = head(framing, envelope);
    writer.pack(|pack| _ = pack.bin(data));
    writer.finish()
}

/// The path of the repository in the recordings. Everywhere else it is another one of the same length.
pub const RECORDED: &[u8] = b"/srv/repository";

/// What a client wants to read.
#[derive(Debug, Clone, Copy)]
pub struct Read<'a> {
    /// Absolute path.
    pub file: &'a [u8],
    /// Where to begin.
    pub offset: u64,
    /// How much at most.
    pub limit: Option<u64>,
    /// A missing file is no error.
    pub ignore_missing: bool,
}

/// The parameters of a read, as clients of `release` lay them out, and the pack of its filters.
pub fn read(pack: &mut Writer, read: Read<'_>, filters: &[u8], release: &Release) {
    pack.text(read.file);
    if release.read_layout != ReadLayout::Plain {
        pack.bool(read.ignore_missing);
    }
    if release.read_layout != ReadLayout::TextLimit {
        pack.u64(read.offset);
    }
    match (release.read_layout, read.limit) {
        (_, None) => _ = pack.null(),
        (ReadLayout::TextLimit | ReadLayout::OffsetTextLimit, Some(limit)) => _ = pack.str(&limit.to_string()),
        (_, Some(limit)) => _ = pack.u64(limit),
    }
    match release.read_layout {
        ReadLayout::IgnoreMissing => _ = pack.null().null(),
        ReadLayout::Plain => _ = pack.null(),
        _ => {}
    }
    if !filters.is_empty() {
        pack.pack_bytes(filters);
    }
}

/// A list of filters that `release` knows, of some that make a difference.
#[must_use]
pub fn filters(tape: &mut Tape<'_>, release: &Release) -> Vec<u8> {
    const KINDS: [&str; 13] = [
        "hash",
        "size",
        "gz-cmp",
        "gz-dcmp",
        "lz4-cmp",
        "lz4-dcmp",
        "zst-cmp",
        "zst-dcmp",
        "bz2-cmp",
        "bz2-dcmp",
        "sink",
        "buffer",
        "cipher-blk",
    ];
    let mut pack = Writer::new();
    for _ in 0..tape.below(4) {
        let kind = KINDS[tape.below(KINDS.len())];
        pack.string_id(StringId::new(kind));
        match kind {
            "hash" if release.hash_layout == HashLayout::Text => pack.pack(|inner| _ = inner.str("sha1")),
            "hash" => pack.pack(|inner| _ = inner.string_id(StringId::new("sha256"))),
            "gz-cmp" | "lz4-cmp" => pack.pack(|inner| _ = inner.i32(1).bool_forced(tape.flag())),
            "zst-cmp" | "bz2-cmp" => pack.pack(|inner| _ = inner.i32(1)),
            "cipher-blk" => {
                let mode = StringId::new(if tape.flag() { "encrypt" } else { "decrypt" });
                let aes = StringId::new("aes-256-cbc");
                pack.pack(|inner| match release.cipher_layout {
                    CipherLayout::Raw => _ = inner.u64(mode.0).u64(aes.0).bin(b"pass"),
                    CipherLayout::Header => {
                        inner.u64(mode.0).string_id(aes).string_id(StringId::new("sha1")).bin(b"pass");
                    }
                })
            }
            _ => pack.null(),
        };
    }
    pack.finish()
}
