//! The sections of `repohostd.conf` that say which release is for whom, and what a client may do.
//!
//! Owns their names and grammar; whether a release is known is not decided here.

use std::net::{IpAddr, SocketAddr};

use super::ini::Entry;
use super::own::OwnSettings;
use super::role::NamedRights;
use crate::protocol::error::{Code, Error, Result};
use crate::protocol::release::Release;

const CLIENT: &str = "client";
const SERVER_NAME: &str = "server-name";
const LISTENER: &str = "listener";
const RELEASE: &str = "release";

/// A release that is written down for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// A client's or a server's name, or the release that is declared.
    pub subject: String,
    /// Its release, or the one that it is like.
    pub release: String,
    /// Where that is written, `FILE:LINE`.
    pub place: String,
}

/// A release that is written down for an address of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerPin {
    /// The address that clients connect to; `None` for all.
    pub address: Option<IpAddr>,
    /// The port that they connect to; `None` for all.
    pub port: Option<u16>,
    /// Its release.
    pub release: String,
    /// Where that is written, `FILE:LINE`.
    pub place: String,
}

/// What a section is about.
enum About<'a> {
    Clients(Vec<&'a str>),
    ServerNames(Vec<&'a str>),
    Listener(Option<IpAddr>, Option<u16>),
    Release(&'a str),
}

/// Takes a section that is not `[global]`. Returns whether there are sections of that name.
///
/// # Errors
///
/// 27 for a name that means nothing or an option that is not known here; 31 for a client that has
/// two releases; 32 for a bad value.
pub(super) fn read_section(own: &mut OwnSettings, section: &str, entries: &[Entry]) -> Result<bool> {
    let Some((kind, name)) = section.split_once(':') else { return Ok(false) };
    let names = || {
        let names: Vec<_> = name.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        (!names.is_empty()).then_some(names)
    };
    let about = match kind {
        CLIENT => names().map(About::Clients),
        SERVER_NAME => names().map(About::ServerNames),
        LISTENER => listener(name).map(|(address, port)| About::Listener(address, port)),
        RELEASE => Release::is_name(name).then_some(About::Release(name)),
        _ => return Ok(false),
    };
    let hint = entries.first().map_or(String::new(), |entry| format!("\nHINT: see '{}'.", entry.place()));
    let Some(about) = about else {
        let wanted = match kind {
            CLIENT => "names of certificates, separated by commas",
            SERVER_NAME => "names that clients have as repo1-host, separated by commas",
            LISTENER => "an address in numbers, which may be followed by a colon and a port",
            _ => "a release, such as 2.61.0",
        };
        return Err(Error::new(Code::Config, format!("section '[{section}]' must name {wanted}{hint}")));
    };
    let known: &[&str] = match about {
        About::Clients(_) => &["release", "role", "stanza"],
        About::ServerNames(_) | About::Listener(..) => &["release"],
        About::Release(_) => &["like"],
    };
    let (mut given, mut role, mut stanzas) = (None, None, None);
    for entry in entries {
        match entry.key.as_str() {
            key if !known.contains(&key) => {
                let message = format!("unknown option '{key}' in section '[{section}]'");
                let hint = format!("{hint}\nHINT: known options are {}.", known.join(", "));
                return Err(Error::new(Code::Config, message + &hint));
            }
            "role" => role = Some(entry.role()?),
            "stanza" => stanzas = Some(entry.list()?),
            _ => given = Some((entry.release()?, entry.place())),
        }
    }
    if given.is_none() && role.is_none() && stanzas.is_none() {
        let message = format!("section '[{section}]' has none of the options {}", known.join(", "));
        return Err(Error::new(Code::Config, message));
    }
    match (about, given) {
        (About::Clients(names), given) => {
            for name in names {
                let name = name.to_owned();
                if role.is_some() || stanzas.is_some() {
                    own.rights.push(NamedRights { name: name.clone(), role, stanzas: stanzas.clone() });
                }
                if let Some((release, place)) = given.clone() {
                    add(&mut own.clients, Pin { subject: name, release, place })?;
                }
            }
        }
        (About::ServerNames(names), Some((release, place))) => {
            for name in names {
                // TLS carries it in small letters and without a last dot (RFC 6066, section 3).
                let subject = name.trim_end_matches('.').to_ascii_lowercase();
                add(&mut own.server_names, Pin { subject, release: release.clone(), place: place.clone() })?;
            }
        }
        (About::Listener(address, port), Some((release, place))) => {
            own.listeners.push(ListenerPin { address, port, release, place });
        }
        (About::Release(version), Some((release, place))) => {
            add(&mut own.declared, Pin { subject: version.to_owned(), release, place })?;
        }
        (About::ServerNames(_) | About::Listener(..) | About::Release(_), None) => {}
    }
    Ok(true)
}

fn add(pins: &mut Vec<Pin>, pin: Pin) -> Result<()> {
    if let Some(other) = pins.iter().find(|other| other.subject == pin.subject && other.release != pin.release) {
        let Pin { subject, release, place } = pin;
        return Err(Error::new(
            Code::OptionInvalid,
            format!(
                "'{subject}' has release {} in '{}' and {release} in '{place}'\nHINT: keep one of them.",
                other.release, other.place
            ),
        ));
    }
    pins.push(pin);
    Ok(())
}

/// `192.0.2.1`, `192.0.2.1:8432`, `::1`, `[::1]:8432`, `*:8432`.
fn listener(text: &str) -> Option<(Option<IpAddr>, Option<u16>)> {
    if let Some(port) = text.strip_prefix("*:") {
        return Some((None, Some(port.parse().ok()?)));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((Some(address.ip()), Some(address.port())));
    }
    Some((Some(text.parse().ok()?), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_an_address_a_port_or_both() {
        let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        for (text, expected) in [
            ("192.0.2.1", Some((address("192.0.2.1"), None))),
            ("192.0.2.1:8433", Some((address("192.0.2.1"), Some(8433)))),
            ("::1", Some((address("::1"), None))),
            ("[::1]:8433", Some((address("::1"), Some(8433)))),
            ("*:8433", Some((None, Some(8433)))),
            ("*", None),
            ("localhost", None),
            ("192.0.2.1:", None),
            ("192.0.2.1:70000", None),
        ] {
            assert_eq!(listener(text), expected, "{text}");
        }
    }
}
