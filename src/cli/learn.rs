//! `repohostd learn`: what was learned about clients, as lines for `repohostd.conf`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use argh::FromArgs;
use serde_json::{Value, json};

use super::status::{ask, list, member};
use crate::config::{Environment, OwnSettings, load_own};
use crate::protocol::error::{Code, Error, Result};
use crate::server::life::configuration::state_path;
use crate::server::releases::memory;
use crate::server::releases::policy::Policy;

/// print the lines for repohostd.conf that pin clients to the releases that were learned for them,
/// from the running server or, when none answers, from its state directory. Takes the options of 'serve'.
#[derive(FromArgs)]
#[argh(subcommand, name = "learn")]
pub struct Learn {}

/// Prints the lines; returns the exit status.
#[must_use]
pub fn run(arguments: &[String], environment: &Environment) -> u8 {
    let clients = load_own(arguments, environment).and_then(|own| learned(&own));
    super::report(clients.map(|clients| pins(&clients)))
}

fn learned(own: &OwnSettings) -> Result<Vec<Value>> {
    let no_server = match ask(own) {
        Ok((_, answer)) => return Ok(list(&answer, "clients").to_vec()),
        Err(error) => error,
    };
    let directory = state_path(own);
    if !directory.is_dir() {
        return Err(no_server);
    }
    let policy = Policy::new(own)?;
    let kept = memory::look(&directory, policy.table());
    let kept = kept.map_err(|reason| {
        let shown = directory.display();
        Error::new(Code::FileRead, format!("unable to read what was learned in '{shown}': {reason}"))
    })?;
    let client = |(key, worked): &(crate::server::releases::Key, Vec<_>)| {
        let releases: Vec<_> = worked
            .iter()
            .map(|worked: &crate::server::releases::table::Worked| json!({ "release": worked.release.version }))
            .collect();
        json!({ "client": key.client, "address": key.address.to_string(), "releases": releases })
    };
    Ok(kept.iter().map(client).collect())
}

/// The lines. Hosts that share a certificate cannot be told apart by it, so what they have is a
/// comment.
fn pins(clients: &[Value]) -> String {
    let mut names: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for client in clients {
        let releases = list(client, "releases");
        if client.get("client").is_some_and(Value::is_string)
            && let Some(last) = releases.first()
        {
            let entry = (member(client, "address"), member(last, "release"));
            names.entry(member(client, "client")).or_default().push(entry);
        }
    }
    if names.is_empty() {
        return "# nothing was learned of clients with a certificate yet".to_owned();
    }
    let mut text = String::new();
    for (name, hosts) in &names {
        let first = &hosts[0].1;
        let agree = hosts.iter().all(|(_, release)| release == first);
        // Names that the grammar of the file cannot hold. Nobody's authority signs such by accident.
        let writable = !name.contains([',', ']', '?']) && name.trim() == name;
        let mut prefix = "";
        if !agree || !writable {
            let reason = if agree { "cannot be written down" } else { "is several hosts of different releases" };
            let _ = writeln!(text, "# '{name}' {reason}:");
            prefix = "# ";
        }
        let addresses: Vec<_> = hosts.iter().map(|(address, release)| format!("{address} ({release})")).collect();
        let _ = writeln!(text, "# {}", addresses.join(", "));
        if agree {
            let _ = writeln!(text, "{prefix}[client:{name}]\n{prefix}release={first}");
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: Option<&str>, address: &str, release: &str) -> Value {
        json!({ "client": name, "address": address, "releases": [{ "release": release, "at": 1 }] })
    }

    #[test]
    fn what_was_learned_can_be_pasted_into_the_file() {
        let text = pins(&[
            client(Some("db1"), "192.0.2.1", "2.55.1"),
            client(Some("db1"), "2001:db8::1", "2.55.1"),
            client(None, "192.0.2.1", "2.55.1"),
            client(Some("db2"), "192.0.2.2", "2.60.0"),
        ]);
        assert_eq!(
            text,
            "# 192.0.2.1 (2.55.1), 2001:db8::1 (2.55.1)\n[client:db1]\nrelease=2.55.1\n\n# 192.0.2.2 (2.60.0)\n\
             [client:db2]\nrelease=2.60.0"
        );
    }

    #[test]
    fn hosts_that_share_a_certificate_are_not_pinned_to_one_release() {
        let text =
            pins(&[client(Some("shared"), "192.0.2.1", "2.55.1"), client(Some("shared"), "192.0.2.2", "2.60.0")]);
        assert!(text.lines().all(|line| line.starts_with('#')), "{text}");
        assert!(text.contains("192.0.2.2 (2.60.0)"), "{text}");
        let text = pins(&[client(Some("x\n[client:admin]"), "192.0.2.1", "2.55.1")]);
        assert!(text.lines().all(|line| line.starts_with('#')), "{text}");
        assert!(pins(&[]).starts_with('#'));
    }

    #[test]
    fn what_was_learned_is_read_without_a_server() {
        let directory = tempfile::tempdir().unwrap();
        let own = OwnSettings {
            state_path: Some(directory.path().to_owned()),
            status_socket: Some(directory.path().join("none.sock")),
            ..OwnSettings::default()
        };
        assert!(learned(&own).unwrap().is_empty());
        let text = "{\"version\":1,\"clients\":[{\"client\":\"db1\",\"address\":\"192.0.2.1\",\
                    \"releases\":[{\"release\":\"2.55.1\",\"at\":5}]}]}";
        std::fs::write(directory.path().join("releases.json"), text).unwrap();
        assert_eq!(pins(&learned(&own).unwrap()), "# 192.0.2.1 (2.55.1)\n[client:db1]\nrelease=2.55.1");
        std::fs::write(directory.path().join("releases.json"), "garbage").unwrap();
        assert_eq!(learned(&own).unwrap_err().code, Code::FileRead);
    }
}
