//! What a client sends first, before TLS has understood it: the same bytes reach TLS, in whatever pieces they come, and
//! nothing but a name of a server is hidden in them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use repohostd::server::client::Hellos;
use repohostd_fuzz::{Tape, seeds};

/// The largest record, with its head.
const RECORD_MAXIMUM: usize = 5 + (1 << 14);

/// What TLS gets of an input that comes in pieces of the lengths that `cuts` says.
fn pass(mut input: &[u8], mut cuts: Option<Tape<'_>>) -> (Vec<u8>, bool) {
    let (mut hellos, mut output, mut given) = (Hellos::default(), Vec::new(), 0);
    while !input.is_empty() {
        let length = cuts.as_mut().map_or(input.len(), |cuts| 1 + usize::from(cuts.byte())).min(input.len());
        let taken = hellos.take(&input[..length]);
        let is_over = taken.is_none();
        // Once something else has come, TLS gets what comes.
        output.extend(taken.as_deref().unwrap_or(&input[..length]));
        given += length;
        assert!(given - output.len() <= RECORD_MAXIMUM, "more is held than one record");
        assert!(!is_over || given == output.len(), "something is held for ever");
        input = &input[length..];
    }
    let is_over = hellos.take(&[]).is_none();
    (output, is_over)
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("a record is short").to_be_bytes();
    [&[kind, 3, 1], &length[..], content].concat()
}

/// A `ClientHello` with a name of a server.
fn hello(name: &[u8]) -> Vec<u8> {
    let vector = |bytes: &[u8]| [&u16::try_from(bytes.len()).expect("it is short").to_be_bytes()[..], bytes].concat();
    let names = vector(&[&[0][..], &vector(name)].concat());
    let extensions = [&[0, 23, 0, 0][..], &[0, 0], &vector(&names), &[0, 43, 0, 3, 2, 3, 4]].concat();
    let body = [&[3, 3][..], &[9; 32], &[0], &vector(&[0x13, 1]), &[1, 0], &vector(&extensions)].concat();
    let length = u32::try_from(body.len()).expect("it is short").to_be_bytes();
    record(22, &[&[1][..], &length[1..], &body].concat())
}

fuzz_target!(
    init: seeds::offer(|| {
        let seed = |stream: &[u8]| [&[6, 4, 255, 0, 30, 2, 80][..], stream].concat();
        let names = [&b"host.example"[..], b"repo_host", b"127.0.0.1", b"", b"a b"];
        let mut all: Vec<_> = names.iter().map(|name| seed(&hello(name))).collect();
        let twice = [hello(b"repo_host"), record(20, &[1]), hello(b"repo_host"), record(23, b"data")].concat();
        all.extend([seed(&twice), seed(b"GET / HTTP/1.1\r\n\r\n"), seed(&record(22, &[11, 0, 0, 0]))]);
        all
    }),
    |data: &[u8]| {
        let mut tape = Tape::new(data);
        let cuts = Tape::new(tape.piece());
        let input = tape.rest();
        let (whole, over) = pass(input, None);
        let pieces = pass(input, Some(cuts));
        assert_eq!((&whole, over), (&pieces.0, pieces.1));
        assert!(whole.len() <= input.len());
        // what is hidden is the type of an extension, two bytes in a record
        let changed = whole.iter().zip(input).filter(|(new, old)| new != old).count();
        let records = 1 + input.len() / 50;
        assert!(changed <= 2 * records, "{changed} bytes are others");
    }
);
