//! The recorded and derived conversations of the golden tests.

use std::path::Path;

use repohostd::protocol::release::RELEASES;

/// What one client sent in a conversation, request by request.
pub struct Conversation {
    /// The index of its release in [`RELEASES`].
    pub release: usize,
    /// The requests, in order.
    pub requests: Vec<Vec<u8>>,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal")).collect()
}

fn index(version: &str) -> usize {
    RELEASES.iter().position(|release| release.version == version).expect("the release is known")
}

/// The conversations of `golden.txt`, one a release, and those derived for other releases.
///
/// # Panics
///
/// When the recordings cannot be read.
#[must_use]
pub fn conversations() -> Vec<Conversation> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data");
    let read = |path: &Path| std::fs::read_to_string(path).expect("the recordings are there");
    let mut all = Vec::new();
    for section in read(&data.join("golden.txt")).split("### ").skip(1) {
        let version = section.split_whitespace().next().expect("a release has a name");
        all.push(Conversation { release: index(version), requests: requests(section) });
    }
    for entry in std::fs::read_dir(data.join("derived")).expect("the derived conversations are there") {
        let text = read(&entry.expect("the folder can be read").path());
        let Some(versions) = text.lines().find_map(|line| line.strip_prefix("releases: ")) else { continue };
        let version = versions.split_whitespace().next().expect("a release has a name");
        for section in text.split("\n== ").skip(1) {
            all.push(Conversation { release: index(version), requests: requests(section) });
        }
    }
    assert!(all.len() > 20, "the recordings are complete");
    all
}

fn requests(section: &str) -> Vec<Vec<u8>> {
    section.lines().filter_map(|line| line.strip_prefix("  C> ")).map(unhex).collect()
}
