use std::path::Path;

use proptest::prelude::*;

use super::super::definitions::{Matching, definitions, find};
use super::super::ini::Ini;
use super::super::settings;
use super::super::value;
use super::{MINIMAL, Site, environment};
use crate::config::parse_session;
use crate::protocol::release::{RELEASES, Release};

/// Text that looks like parameters often enough to get past the first check.
fn parameter() -> impl Strategy<Value = String> {
    let name = prop::sample::select(definitions().iter().map(|definition| definition.name).collect::<Vec<_>>());
    let option = (prop::sample::select(vec!["", "no-", "reset-"]), name, any::<Option<u16>>(), any::<Option<String>>())
        .prop_map(|(prefix, name, index, value)| {
            let name = match (index, name.split_once('-')) {
                (Some(index), Some((group, rest))) => format!("{group}{}-{rest}", index % 300),
                _ => name.to_owned(),
            };
            value.map_or_else(|| format!("--{prefix}{name}"), |value| format!("--{prefix}{name}={value}"))
        });
    prop_oneof![
        any::<String>(),
        "--[a-z0-9-]{0,70}(=.*)?",
        "--(process|repo|repo1-path|stanza|lock|remote-type)=(repo|1|/r|demo|demo-backup-1.lock|.*)",
        "[a-z-]{0,12}:(remote|local|.*)",
        option,
    ]
}

proptest! {
    #[test]
    fn no_parameters_of_a_client_can_end_the_server(
        mut params in prop::collection::vec(parameter(), 0..8),
        command in prop::sample::select(vec!["backup:remote", "info:remote", "archive-push:remote", "check:remote", ""]),
        release in prop::sample::select(RELEASES.iter().collect::<Vec<&'static Release>>()),
    ) {
        let site = Site::new(MINIMAL);
        let (files, loaded) = site.load(&[], &[]).unwrap();
        if !command.is_empty() {
            params.push(command.to_owned());
        }
        if let Ok(session) = parse_session(&files, &environment(&[]), &loaded.server, release, &params) {
            prop_assert!(session.locks.iter().all(|name| !name.contains('/')));
            prop_assert_eq!(session.repository().unwrap().path.as_path(), Path::new("/var/lib/pgbackrest"));
            let _ = session.option_json(&["repo1-cipher-type", "db-timeout"]);
        }
    }

    #[test]
    fn no_text_can_end_the_parsers(
        text in any::<String>(),
        option in prop::sample::select(vec!["buffer-size", "io-timeout", "log-path", "priority"]),
    ) {
        let _ = Ini::default().add(Path::new("/x"), &text);
        for matching in [Matching::default(), Matching { abbreviations: true, own: true }] {
            let _ = find(&text, matching);
            for argument in [text.clone(), format!("--{text}"), format!("--no-{text}="), format!("--log-path={text}")] {
                let _ = settings::command_line(&[argument], matching, true);
            }
        }
        let definition = super::super::definitions::definition(option).unwrap();
        let _ = value::check(definition, 1, &text, true);
    }

    #[test]
    fn sections_keys_and_values_are_read_back(
        entries in prop::collection::vec(("[a-c]{1,2}", "[a-z]{1,3}", "[!-~]([ -~]{0,8}[!-~])?"), 0..12)
    ) {
        let mut ini = Ini::default();
        for (section, key, value) in &entries {
            ini.add(Path::new("/x"), &format!("[{section}]\n {key} = {value}\t\n")).unwrap();
        }
        let read = ini.sections().flat_map(|(_, entries)| entries).map(|entry| entry.values.len()).sum::<usize>();
        prop_assert_eq!(read, entries.len());
        for (section, key, value) in &entries {
            let entry = ini.section(section).iter().find(|entry| entry.key == *key).unwrap();
            prop_assert!(entry.values.iter().any(|read| read.text == *value));
        }
    }
}
