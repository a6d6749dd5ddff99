//! The stream of a client, in pieces of any size: the same requests come of it, and no more is held than allowed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use repohostd::protocol::framing::{Envelope, Framer, Framing, Piece, name};
use repohostd::protocol::string_id::StringId;
use repohostd_fuzz::{Tape, golden, seeds, wire};

/// A head is bounded too, and a buffer that grows may be twice what it holds.
const HEAD_MAXIMUM: usize = 1024;

/// What a stream was cut into, with the pieces of each block put together.
#[derive(Debug, Default, PartialEq)]
struct Cut {
    requests: Vec<Request>,
    /// Why it cannot be read on.
    error: Option<String>,
    idle: bool,
}

#[derive(Debug, PartialEq)]
enum Request {
    Whole(Envelope, Vec<u8>),
    Block { of: Envelope, length: u64, data: Vec<u8>, ended: bool },
}

/// Cuts `stream`, which comes in pieces of the lengths that `cuts` says.
fn cut(framing: Framing, limit: usize, mut stream: &[u8], mut cuts: Option<Tape<'_>>) -> Cut {
    let mut framer = Framer::new(framing, limit);
    let mut result = Cut::default();
    while !stream.is_empty() && result.error.is_none() {
        let length = cuts.as_mut().map_or(stream.len(), |cuts| 1 + usize::from(cuts.byte())).min(stream.len());
        let mut input = &stream[..length];
        loop {
            match framer.next(&mut input) {
                Ok(Some(piece)) => take(&mut result, piece, &mut framer, stream, &mut input, length, &mut cuts),
                Ok(None) => {
                    assert!(input.is_empty(), "what is not understood yet is kept");
                    break;
                }
                Err(error) => {
                    result.error = Some(error.message);
                    break;
                }
            }
            assert!(framer.held() <= 2 * (limit + HEAD_MAXIMUM), "holds {}", framer.held());
        }
        stream = &stream[length..];
    }
    // after an error nothing is read any more
    result.idle = result.error.is_none() && framer.is_idle();
    result
}

fn take<'a>(
    result: &mut Cut,
    piece: Piece<'a>,
    framer: &mut Framer,
    stream: &'a [u8],
    input: &mut &'a [u8],
    length: usize,
    cuts: &mut Option<Tape<'_>>,
) {
    match piece {
        Piece::Request(envelope, parameters) => result.requests.push(Request::Whole(envelope, parameters)),
        Piece::BlockStart(of, length) => {
            result.requests.push(Request::Block { of, length, data: Vec::new(), ended: false });
        }
        Piece::Block(bytes) => {
            assert!(!bytes.is_empty());
            let Some(Request::Block { data, ended: false, .. }) = result.requests.last_mut() else {
                panic!("a piece of no block");
            };
            // some of it may not be taken now
            let back = cuts.as_mut().map_or(0, |cuts| cuts.below(8).saturating_sub(5)).min(bytes.len());
            data.extend_from_slice(&bytes[..bytes.len() - back]);
            framer.unread(back as u64);
            let used = length - input.len() - back;
            *input = &stream[used..length];
        }
        Piece::BlockEnd => {
            let Some(Request::Block { length, data, ended, .. }) = result.requests.last_mut() else {
                panic!("the end of no block");
            };
            assert_eq!(*length, data.len() as u64);
            *ended = true;
        }
    }
}

/// Requests as clients write them, and what they are to be read as.
fn compose(framing: Framing, limit: usize, tape: &mut Tape<'_>) -> (Vec<u8>, Vec<Request>) {
    let (mut stream, mut requests) = (Vec::new(), Vec::new());
    while !tape.is_over() && requests.len() < 20 {
        let (command, kind) = match (framing, tape.below(6)) {
            (_, 0) => (StringId::new("s-i"), name::PROCESS),
            (_, 1) => (StringId::new("config"), name::PROCESS),
            (Framing::Session, 2) => (name::READ, name::OPEN),
            (Framing::Classic, 2) => (name::CLASSIC_READ, name::OPEN),
            (Framing::Session, 3) => (name::WRITE, name::OPEN),
            (Framing::Classic, 3) => (name::CLASSIC_WRITE, name::OPEN),
            (_, 4) => (framing.write(), name::CLOSE),
            _ => (framing.write(), name::PROCESS),
        };
        let classic_data = framing == Framing::Classic && matches!(kind, name::CLOSE) || kind == name::PROCESS;
        let (session, open) = match framing {
            Framing::Session => (tape.number(), tape.flag()),
            Framing::Classic => (Envelope::CLASSIC, classic_data && command == name::CLASSIC_WRITE),
        };
        let envelope = Envelope { command, kind, session, open };
        if command == framing.write() && kind == name::PROCESS {
            let data = tape.piece();
            stream.extend(wire::block(framing, envelope, data));
            requests.push(Request::Block { of: envelope, length: data.len() as u64, data: data.to_vec(), ended: true });
            continue;
        }
        let parameters = if command == framing.write() && kind == name::CLOSE { &[][..] } else { tape.piece() };
        if parameters.len() > limit {
            break;
        }
        stream.extend(wire::request(framing, envelope, parameters));
        requests.push(Request::Whole(envelope, parameters.to_vec()));
    }
    (stream, requests)
}

/// The head of an input: how to cut the stream that follows.
fn seed(framing: u8, requests: &[Vec<u8>]) -> Vec<u8> {
    let mut seed = vec![framing, 0xff, 0xff, 8, 1, 200, 3, 40, 0, 255, 7, 90];
    seed.extend(requests.concat());
    seed
}

fuzz_target!(
    init: seeds::offer(|| {
        let framing = |release: usize| match repohostd::protocol::release::RELEASES[release].framing {
            Framing::Classic => 0,
            Framing::Session => 1,
        };
        golden::conversations().iter().map(|it| seed(framing(it.release), &it.requests)).collect()
    }),
    |data: &[u8]| {
        let mut tape = Tape::new(data);
        let mode = tape.byte();
        let framing = if mode & 1 == 0 { Framing::Classic } else { Framing::Session };
        let limit = usize::from(tape.short());
        let cuts = Tape::new(tape.piece());
        if mode & 2 == 0 {
            let whole = cut(framing, limit, tape.rest(), None);
            let pieces = cut(framing, limit, tape.rest(), Some(cuts));
            assert_eq!(whole, pieces);
            return;
        }
        let (stream, requests) = compose(framing, limit, &mut tape);
        let expected = Cut { requests, error: None, idle: true };
        assert_eq!(cut(framing, limit, &stream, None), expected);
        assert_eq!(cut(framing, limit, &stream, Some(cuts)), expected);
    }
);
