use proptest::prelude::*;

use super::*;
use crate::protocol::pack::Writer;

fn request(command: &str, kind: &str, session: u64, parameters: Option<&[u8]>) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u32(1).string_id(StringId::new(command)).string_id(StringId::new(kind)).u64(session).bool(true);
    if let Some(parameters) = parameters {
        writer.pack_bytes(parameters);
    }
    writer.finish()
}

fn block(data: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.bin(data);
    request("s-wr", "prc", 3, Some(&writer.finish()))
}

fn command(command: &str, parameters: Option<&[u8]>) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u32(2).string_id(StringId::new(command));
    if let Some(parameters) = parameters {
        writer.pack_bytes(parameters);
    }
    writer.finish()
}

fn data(bytes: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u32_forced(0).pack(|pack| _ = pack.bin(bytes));
    writer.finish()
}

/// What a stream says when it arrives in pieces of `step` bytes.
fn cut(framing: Framing, stream: &[u8], step: usize) -> Result<Vec<String>> {
    let mut framer = Framer::new(framing, 100);
    let mut seen = Vec::new();
    let mut data = Vec::new();
    for mut input in stream.chunks(step) {
        while let Some(piece) = framer.next(&mut input)? {
            match piece {
                Piece::Request(envelope, parameters) => {
                    seen.push(format!("{}:{} {} {parameters:?}", envelope.command, envelope.kind, envelope.session));
                }
                Piece::BlockStart(_, length) => seen.push(format!("block of {length}")),
                Piece::Block(bytes) => data.extend_from_slice(bytes),
                Piece::BlockEnd => seen.push(format!("{:?}", std::mem::take(&mut data))),
            }
        }
        assert!(input.is_empty());
    }
    assert!(framer.is_idle());
    Ok(seen)
}

fn check_every_cut(framing: Framing, stream: &[u8]) -> Vec<String> {
    let whole = cut(framing, stream, stream.len()).unwrap();
    for step in 1..stream.len() {
        assert_eq!(cut(framing, stream, step).unwrap(), whole, "in steps of {step}");
    }
    whole
}

#[test]
fn requests_and_blocks_are_found_however_the_stream_is_cut() {
    let mut stream = request("noop", "prc", 1, None);
    stream.extend(request("s-f", "prc", 2, Some(&[0])));
    stream.extend(block(b"abc"));
    stream.extend(block(b""));
    stream.extend(block(&[7; 300]));
    stream.extend(request("s-wr", "cls", 3, None));
    let whole = check_every_cut(Framing::Session, &stream);
    assert_eq!(whole.len(), 9);
    assert_eq!(whole[0], "noop:prc 1 []");
    assert_eq!(whole[1], "s-f:prc 2 [0]");
    assert_eq!(whole[3], "[97, 98, 99]");
}

#[test]
fn classic_commands_and_data_are_found_however_the_stream_is_cut() {
    let mut stream = command("noop", None);
    stream.extend(command("s-or", Some(&[0])));
    stream.extend(command("s-ow", Some(&[0])));
    stream.extend(data(b"abc"));
    stream.extend(data(b""));
    stream.extend(data(&[7; 300]));
    stream.extend([0x80, 0x00]);
    stream.extend(command("s-ow", Some(&[0])));
    stream.extend([0x80, 0xf0, 0x02, 0x01, 0x00, 0x00]);
    stream.extend([0x80, 0x00]);
    let whole = check_every_cut(Framing::Classic, &stream);
    assert_eq!(whole[..5], ["noop:prc 0 []", "s-or:opn 0 [0]", "s-ow:opn 0 [0]", "block of 3", "[97, 98, 99]"]);
    assert_eq!(whole[9..], ["s-ow:cls 0 []", "s-ow:opn 0 [0]", "s-ow:cnc 0 [0]", "s-ow:cls 0 []"]);
}

#[test]
fn a_request_that_is_too_large_is_refused_before_it_is_collected() {
    let mut head = Writer::new();
    head.u32(1).string_id(StringId::new("s-f")).string_id(StringId::new("prc")).u64(1).bool(true);
    head.pack_head(1 << 40);
    let mut classic_head = Writer::new();
    classic_head.u32(2).string_id(StringId::new("s-f")).pack_head(1 << 40);
    for (framing, head) in [(Framing::Session, head), (Framing::Classic, classic_head)] {
        let mut framer = Framer::new(framing, 100);
        let error = framer.next(&mut head.into_fields().as_slice()).unwrap_err();
        assert_eq!(error.message, "parameters of request 's-f' are larger than 100 bytes");
    }
}

#[test]
fn a_block_whose_lengths_disagree_is_refused() {
    for (pack, bin) in [(u64::MAX, 5), (9, u64::MAX), (9, 8), (1 << 40, (1 << 40) - 20)] {
        let mut head = Writer::new();
        head.u32(1).string_id(name::WRITE).string_id(name::PROCESS).u64(1).bool(true);
        head.pack_head(usize::try_from(pack).unwrap()).null();
        let mut classic_head = Writer::new();
        classic_head.u32_forced(0).pack_head(usize::try_from(pack).unwrap()).null();
        for (framing, head) in [(Framing::Session, head), (Framing::Classic, classic_head)] {
            let mut bytes = head.into_fields();
            let mut field = Writer::new();
            field.bin_head(usize::try_from(bin).unwrap());
            bytes.extend(field.into_fields());
            let error = Framer::new(framing, 100).next(&mut bytes.as_slice()).unwrap_err();
            assert_eq!(error.message, "data of a write is not a single block");
        }
    }
}

#[test]
fn plain_http_is_no_request() {
    for framing in [Framing::Session, Framing::Classic] {
        assert!(Framer::new(framing, 100).next(&mut &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..]).is_err());
    }
}

#[test]
fn the_message_kinds_of_the_other_framing_are_refused() {
    assert!(Framer::new(Framing::Classic, 100).next(&mut request("noop", "prc", 1, None).as_slice()).is_err());
    assert!(Framer::new(Framing::Session, 100).next(&mut command("noop", None).as_slice()).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_cut_without_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        // Bytes that begin as messages do come further than arbitrary ones.
        start in prop::sample::select(vec![vec![], command("s-ow", None), data(b"x"), block(b"x"), vec![0x80, 0xf0, 0x02]]),
        step in 1usize..40,
        classic in any::<bool>(),
    ) {
        let bytes = [start, bytes].concat();
        let mut framer = Framer::new(if classic { Framing::Classic } else { Framing::Session }, 64);
        'stream: for mut input in bytes.chunks(step) {
            loop {
                match framer.next(&mut input) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => break 'stream,
                }
            }
            prop_assert!(framer.partial.len() <= 64 + 2 * HEAD_MAXIMUM + 1);
        }
    }
}
