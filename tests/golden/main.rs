//! Conversations with the original's servers are held with ours, byte for byte.
//!
//! `data/golden.txt` has requests and the answers of real binaries, release by release.
//! `data/derived/` has what was derived from the specification for the releases between them. The
//! session is driven without sockets; a scripted disk supplies the order, times and owners of the
//! files that the recording was made with. Only the stack in error answers may differ.

mod conversation;
mod derived;
mod disk;

use repohostd::protocol::framing::Framing;
use repohostd::protocol::pack::Writer;
use repohostd::protocol::release::{RELEASES, Release};
use repohostd::protocol::string_id::StringId;

use conversation::Conversation;

const GOLDEN: &str = include_str!("../data/golden.txt");
/// The releases of the recording.
const RECORDED: [&str; 9] = ["2.37", "2.38", "2.41", "2.44", "2.45", "2.54.2", "2.55.1", "2.59.1", "2.60.0"];

/// One recorded request, or several for a session of requests, with all answers to it.
struct Exchange {
    title: String,
    request: Vec<u8>,
    answer: Vec<u8>,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn exchanges(version: &str) -> Vec<Exchange> {
    let start = GOLDEN.find(&format!("### {version} ")).expect("the release is in the recording");
    let section = &GOLDEN[start + 4..];
    let section = section.find("\n### ").map_or(section, |end| &section[..end]);
    let mut exchanges: Vec<Exchange> = Vec::new();
    let mut title = "";
    for line in section.lines() {
        if let Some(name) = line.strip_prefix("-- ") {
            title = name;
        } else if let Some(request) = line.strip_prefix("  C> ") {
            exchanges.push(Exchange { title: title.to_owned(), request: unhex(request), answer: Vec::new() });
        } else if let Some(answer) = line.strip_prefix("  <S ") {
            exchanges.last_mut().unwrap().answer.extend(unhex(answer));
        }
    }
    exchanges
}

/// Has a conversation say hello as the recorded ones did.
fn configure(conversation: &mut Conversation, release: &Release) {
    let parameters = |pack: &mut Writer| {
        pack.array(|array| {
            for parameter in ["--process=1", "--remote-type=repo", "--repo=1", "info:remote"] {
                array.str(parameter);
            }
        });
    };
    let mut config = Writer::new();
    match release.framing {
        Framing::Classic => {
            config.u32(2).string_id(StringId::new("config")).pack(parameters);
            assert_eq!(conversation.exchange(&config.finish()), [0x84, 0x00]);
        }
        Framing::Session => {
            config.u32(1).string_id(StringId::new("config")).string_id(StringId::new("prc")).u64(1000).null();
            config.pack(parameters);
            assert_eq!(conversation.exchange(&config.finish()), [0x98, 0xe8, 0x07, 0x80, 0x00]);
        }
    }
}

/// Holds the conversation that was recorded of `recorded` with the release `version`.
fn replay(recorded: &str, version: &str) {
    let release = Release::find(version).expect("the release is known");
    let exchanges = exchanges(recorded);
    let last = exchanges.last().map(|exchange| exchange.title.as_str());
    assert!(exchanges.len() >= 26 && last == Some("unknown command"), "the recording of {recorded} is complete");
    let mut conversation = Conversation::new(release);
    configure(&mut conversation, release);
    for Exchange { title, request, answer } in exchanges {
        assert_eq!(conversation.differs(&title, &request, &answer), None);
        assert_eq!(conversation.ended(), title == "unknown command", "{version}: {title}");
    }
}

#[test]
fn recorded_clients_of_2_37_get_the_recorded_answers() {
    replay("2.37", "2.37");
}

#[test]
fn recorded_clients_of_2_38_get_the_recorded_answers() {
    replay("2.38", "2.38");
}

#[test]
fn recorded_clients_of_2_41_get_the_recorded_answers() {
    replay("2.41", "2.41");
}

#[test]
fn recorded_clients_of_2_44_get_the_recorded_answers() {
    replay("2.44", "2.44");
}

#[test]
fn recorded_clients_of_2_45_get_the_recorded_answers() {
    replay("2.45", "2.45");
}

#[test]
fn recorded_clients_of_2_54_2_get_the_recorded_answers() {
    replay("2.54.2", "2.54.2");
}

#[test]
fn recorded_clients_of_2_55_1_get_the_recorded_answers() {
    replay("2.55.1", "2.55.1");
}

#[test]
fn recorded_clients_of_2_59_1_get_the_recorded_answers() {
    replay("2.59.1", "2.59.1");
}

#[test]
fn recorded_clients_of_2_60_0_get_the_recorded_answers() {
    replay("2.60.0", "2.60.0");
}

/// The recordings are of posix; what is different is specified (server, section 6.1).
#[test]
fn a_cifs_repository_tells_that_it_has_no_links_and_its_directories_are_not_synced() {
    for version in RECORDED {
        let release = Release::find(version).unwrap();
        let features = if version == "2.37" { 21 } else { 1 };
        let held = exchanges(version);
        let synced = ["", "repo1-type=cifs\n"].map(|further| {
            let mut conversation = Conversation::with(release, further);
            configure(&mut conversation, release);
            for Exchange { title, request, .. } in held.iter().filter(|exchange| !exchange.title.contains("sync")) {
                let answer = conversation.exchange(request);
                if title == "feature" {
                    let told = if further.is_empty() { release.repository_features } else { features };
                    let mut expected = Writer::new();
                    expected.str(disk::BASE).u64(told);
                    let expected = expected.finish();
                    assert!(answer.windows(expected.len()).any(|part| part == expected), "{version}: {answer:02x?}");
                }
            }
            conversation.disk.synced
        });
        assert!(synced[0] > 0 && synced[1] == 0, "{version}: {synced:?}");
    }
}

#[test]
fn releases_of_a_recorded_generation_replay_its_recording() {
    for (version, recorded) in derived::same_as_recorded() {
        assert!(RECORDED.contains(&recorded.as_str()), "{recorded}");
        replay(&recorded, &version);
    }
}

#[test]
fn every_release_is_recorded_or_derived() {
    assert!(RECORDED.iter().all(|version| GOLDEN.contains(&format!("### {version} "))));
    let same: Vec<_> = derived::same_as_recorded().into_iter().map(|(version, _)| version).collect();
    let derived: Vec<_> = derived::all().into_iter().flat_map(|derived| derived.releases).collect();
    for release in RELEASES {
        let version = release.version;
        let evidence = usize::from(RECORDED.contains(&version))
            + derived.iter().filter(|derived| *derived == version).count()
            + same.iter().filter(|same| *same == version).count();
        assert_eq!(
            evidence, 1,
            "{version} is to be in one place: golden.txt, derived/same.txt or another derived file"
        );
    }
    assert_eq!(RECORDED.len() + same.len() + derived.len(), RELEASES.len(), "nothing else is in those files");
}
