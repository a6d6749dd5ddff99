//! Configuration files: every value stands where it is said to stand, and means the same when it is written again.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use repohostd::config::ini::Ini;
use repohostd_fuzz::seeds;

fn parse(texts: &[&str]) -> Option<Ini> {
    let mut ini = Ini::default();
    texts.iter().try_for_each(|text| ini.add(Path::new("/etc/x.conf"), text)).ok().map(|()| ini)
}

/// A key and its values.
type Key = (String, Vec<String>);

/// What it says by section, without places.
fn contents(ini: &Ini) -> Vec<(String, Vec<Key>)> {
    let section = |(name, entries): (&str, &[repohostd::config::ini::Entry])| {
        let keys = entries
            .iter()
            .map(|entry| (entry.key.clone(), entry.values.iter().map(|value| value.text.clone()).collect()));
        (name.to_owned(), keys.collect())
    };
    ini.sections().map(section).collect()
}

fn write(ini: &Ini) -> String {
    let mut text = String::new();
    for (name, keys) in contents(ini) {
        text += &format!("[{name}]\n");
        for (key, values) in keys {
            for value in values {
                text += &format!("{key}={value}\n");
            }
        }
    }
    text
}

/// Insists on the places of all values.
fn check_places(ini: &Ini, text: &str) {
    let lines: Vec<&str> = text.split('\n').map(|line| line.trim_matches([' ', '\t', '\r'])).collect();
    for (name, entries) in ini.sections() {
        assert_eq!(ini.section(name), entries);
        for entry in entries {
            assert!(!entry.values.is_empty() && entry.values.is_sorted_by_key(|value| value.line));
            for value in &entry.values {
                let index = usize::try_from(value.line).expect("lines are few") - 1;
                let (key, rest) = lines[index].split_once('=').expect("the line has a key");
                let blanks = [' ', '\t'];
                assert_eq!((key.trim_matches(blanks), rest.trim_matches(blanks)), (&*entry.key, &*value.text));
                let head = lines[..index].iter().rev().find(|line| line.starts_with('['));
                assert_eq!(head.copied(), Some(format!("[{name}]").as_str()));
            }
        }
    }
}

fuzz_target!(
    init: seeds::offer(|| {
        let mut all = seeds::files("packaging/examples", ".conf");
        all.extend([
            b"# c\n[a]\nkey = \"x\" = #y ; z \t\n[b]\nk=1\n[a]\nkey=2\nother=".to_vec(),
            b"[global]\nrepo1-path=/x\n\0[demo]\r\npg1-path=/y\r\n".to_vec(),
            b"[global\n".to_vec(),
            b"a=b".to_vec(),
        ]);
        all
    }),
    |data: &[u8]| {
        let Ok(text) = std::str::from_utf8(data) else { return };
        let (first, second) = text.split_once('\0').unwrap_or((text, ""));
        let mut ini = Ini::default();
        if let Err(error) = ini.add(Path::new("/etc/x.conf"), first) {
            let (_, rest) = error.message.split_once(" at line ").expect("an error has a place");
            let (number, _) = rest.split_once(':').expect("an error shows the line");
            let number: usize = number.parse().expect("lines have numbers");
            assert!((1..=first.split('\n').count()).contains(&number), "{}", error.message);
            return;
        }
        check_places(&ini, first);
        let again = parse(&[&write(&ini)]).expect("what was written is understood");
        assert_eq!(contents(&ini), contents(&again));
        // files one by one are the same as all in one, if each is a file
        let both = format!("{first}\n{second}");
        if let Some(apart) = parse(&[first, second]) {
            let together = parse(&[&both]).expect("the parts are files");
            assert_eq!(contents(&apart), contents(&together));
        }
    }
);
