//! Listening sockets: from the option's text to addresses, and from addresses to sockets.
//! Source: specification, section 2.2, and the design's deviations from it: every address of a
//! name, lists, and `*` for both families.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::Duration;

use mio::net::TcpListener;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::occupant;
use crate::observe::log::{self, Level};
use crate::protocol::error::{Code, Error, Result};

/// Connections that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// What an accepted connection is set to. Linux hands these options of a listening socket down to
/// the connections that it accepts, so that setting them there saves system calls for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeepAlive {
    /// Whether the kernel probes silent peers.
    pub(crate) enabled: bool,
    /// Probes before a peer is given up.
    pub(crate) count: Option<u32>,
    /// Silence before the first probe.
    pub(crate) idle: Option<Duration>,
    /// Time between probes.
    pub(crate) interval: Option<Duration>,
}

impl KeepAlive {
    fn apply(&self, socket: &SockRef<'_>) -> Result<()> {
        let failed =
            |what: &str, error: &io::Error| Error::io(Code::Protocol, format_args!("unable to set {what}"), error);
        socket.set_tcp_nodelay(true).map_err(|error| failed("TCP_NODELAY", &error))?;
        socket.set_keepalive(self.enabled).map_err(|error| failed("SO_KEEPALIVE", &error))?;
        if !self.enabled {
            return Ok(());
        }
        let set = |what: &str, options: TcpKeepalive| {
            socket.set_tcp_keepalive(&options).map_err(|error| failed(what, &error))
        };
        if let Some(count) = self.count {
            set("TCP_KEEPCNT", TcpKeepalive::new().with_retries(count))?;
        }
        if let Some(idle) = self.idle {
            set("SO_KEEPIDLE", TcpKeepalive::new().with_time(idle))?;
        }
        if let Some(interval) = self.interval {
            set("SO_KEEPINTVL", TcpKeepalive::new().with_interval(interval))?;
        }
        Ok(())
    }
}

/// One address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// An IPv6 socket that takes IPv6 only. An address `::` that stands alone takes both, as the
    /// original's does.
    only_v6: bool,
    /// Which part of the option it comes from. A part of several addresses is satisfied with those
    /// that this host has.
    part: usize,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    /// What it was asked to listen on.
    pub(crate) endpoint: Endpoint,
}

/// Every address that `names` have; `*` stands for every address of this host in both families.
///
/// # Errors
///
/// Code 49 for a name that has no address.
pub(crate) fn resolve<T: AsRef<str>>(names: &[T], port: u16) -> Result<Vec<Endpoint>> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for (part, name) in names.iter().map(AsRef::as_ref).enumerate() {
        for address in resolve_one(name, port)? {
            if endpoints.iter().all(|endpoint| endpoint.address != address) {
                endpoints.push(Endpoint { address, only_v6: address.is_ipv6(), part });
            }
        }
    }
    if !endpoints.iter().any(|endpoint| endpoint.address.is_ipv4() && endpoint.address.ip().is_unspecified()) {
        for endpoint in &mut endpoints {
            endpoint.only_v6 = endpoint.address.is_ipv6() && !endpoint.address.ip().is_unspecified();
        }
    }
    Ok(endpoints)
}

/// The listening sockets that a service manager opened for this process: `LISTEN_FDS`, as
/// `sd_listen_fds(3)` describes it. None without one. To be called once
/// in the life of a process, which owns those descriptors from then on.
///
/// # Errors
///
/// Code 41 for a descriptor that is no listening TCP socket.
pub(crate) fn inherited(keep_alive: KeepAlive) -> Result<Vec<Listener>> {
    let failed = |part: usize, error: &io::Error| {
        Error::io(Code::FileOpen, format_args!("unable to use socket {part} of the service manager"), error)
    };
    let passed = sd_listen_fds::get().map_err(|error| failed(0, &io::Error::other(error.to_string())))?;
    let sockets = passed.into_iter().enumerate();
    sockets
        .map(|(part, (_, fd))| adopt(fd.into_std(), part, keep_alive).map_err(|error| failed(part, &error)))
        .collect()
}

fn adopt(fd: OwnedFd, part: usize, keep_alive: KeepAlive) -> io::Result<Listener> {
    let socket = Socket::from(fd);
    let address = socket.local_addr()?.as_socket().filter(|_| socket.is_listener().unwrap_or(false));
    let address = address.ok_or_else(|| io::Error::other("it is no listening TCP socket"))?;
    socket.set_nonblocking(true)?;
    socket.set_cloexec(true)?;
    keep_alive.apply(&SockRef::from(&socket)).map_err(|error| io::Error::other(error.message))?;
    let only_v6 = address.is_ipv6() && socket.only_v6()?;
    Ok(Listener { socket: TcpListener::from_std(socket.into()), endpoint: Endpoint { address, only_v6, part } })
}

/// Opens every endpoint, taking over sockets of `previous` that listen on it already. What stays in
/// `previous` is no longer wanted.
///
/// # Errors
///
/// As section 2.2 words them, after everything that was opened here is closed again and `previous`
/// is as it was, except that a socket of it may have been opened anew.
pub(crate) fn open_all(
    endpoints: &[Endpoint],
    keep_alive: KeepAlive,
    previous: &mut Vec<Listener>,
) -> Result<Vec<Listener>> {
    let mut opened: Vec<Listener> = Vec::new();
    let mut missing: Vec<(Endpoint, Failure)> = Vec::new();
    let mut taken: Vec<Listener> = Vec::new();
    for endpoint in endpoints {
        let same =
            |old: &Listener| old.endpoint.address == endpoint.address && old.endpoint.only_v6 == endpoint.only_v6;
        if let Some(index) = previous.iter().position(same) {
            taken.push(Listener { endpoint: *endpoint, ..previous.swap_remove(index) });
            continue;
        }
        match open(*endpoint, keep_alive) {
            Ok(listener) => opened.push(listener),
            Err(failure) => missing.push((*endpoint, failure)),
        }
    }
    // A socket that goes may be what blocks one that comes, such as `*` and an address of this host.
    let mut closed = Vec::new();
    for (endpoint, failure) in std::mem::take(&mut missing) {
        let blocks = |old: &Listener| old.endpoint.address.port() == endpoint.address.port();
        if failure.errno != Some(Errno::ADDRINUSE) || !previous.iter().any(blocks) && closed.is_empty() {
            missing.push((endpoint, failure));
            continue;
        }
        closed.extend(previous.extract_if(.., |old| blocks(old)).map(|old| old.endpoint));
        match open(endpoint, keep_alive) {
            Ok(listener) => opened.push(listener),
            Err(failure) => missing.push((endpoint, failure)),
        }
    }
    let satisfied = |part: usize| opened.iter().chain(&taken).any(|listener| listener.endpoint.part == part);
    let fatal = missing.iter().position(|(endpoint, failure)| !(failure.is_absence() && satisfied(endpoint.part)));
    let applied = taken.iter().try_for_each(|listener| keep_alive.apply(&SockRef::from(&listener.socket)));
    let error = match (fatal, applied) {
        (None, Ok(())) => {
            for (endpoint, failure) in &missing {
                failure.tell(*endpoint);
            }
            opened.extend(taken);
            return Ok(opened);
        }
        (Some(index), _) => {
            let (endpoint, failure) = missing.swap_remove(index);
            failure.explained(endpoint)
        }
        (None, Err(error)) => error,
    };
    drop(opened);
    previous.extend(taken);
    previous.extend(closed.into_iter().filter_map(|endpoint| open(endpoint, keep_alive).ok()));
    Err(error)
}

/// Why a socket could not be opened.
struct Failure {
    error: Error,
    /// What the system said, if it was the system.
    errno: Option<Errno>,
}

impl Failure {
    /// With what to do about it.
    fn explained(self, endpoint: Endpoint) -> Error {
        let port = endpoint.address.port();
        let hint = match self.errno {
            Some(Errno::ADDRINUSE) => match occupant::of_port(port) {
                Some(who) => format!("{who} listens on port {port}: is another server running?"),
                None => format!("is another server running? 'ss -ltnp sport = :{port}' as root shows who listens."),
            },
            Some(Errno::ADDRNOTAVAIL) => "no interface of this host has this address: check tls-server-address.".into(),
            Some(Errno::AFNOSUPPORT) => "this host knows no addresses of that kind: check tls-server-address.".into(),
            Some(Errno::ACCESS) => {
                "a port below 1024 takes the capability CAP_NET_BIND_SERVICE: 'repohostd systemd-drop-in' has it."
                    .into()
            }
            _ => return self.error,
        };
        Error { message: format!("{}\nHINT: {hint}", self.error.message), ..self.error }
    }

    /// Says that an address is left out. Of all addresses of this host some may not exist as a matter of course.
    fn tell(&self, endpoint: Endpoint) {
        let level = if endpoint.address.ip().is_unspecified() { Level::Info } else { Level::Warn };
        let text = &self.error.message;
        log::write(level, "listen", format_args!("tls-server-address: {endpoint} is left out: {text}"));
    }

    /// Whether this host does not have that address or that family.
    fn is_absence(&self) -> bool {
        matches!(self.errno, Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
    }
}

fn open(endpoint: Endpoint, keep_alive: KeepAlive) -> Result<Listener, Failure> {
    let failed = |code, text: &'static str| {
        move |error: io::Error| Failure {
            errno: Errno::from_io_error(&error),
            error: Error::io(code, format_args!("{text} {endpoint}"), &error),
        }
    };
    let socket = Socket::new(Domain::for_address(endpoint.address), Type::STREAM.nonblocking(), Some(Protocol::TCP))
        .map_err(failed(Code::FileOpen, "unable to create socket for"))?;
    socket.set_reuse_address(true).map_err(failed(Code::Protocol, "unable to set SO_REUSEADDR for"))?;
    if endpoint.address.is_ipv6() {
        socket.set_only_v6(endpoint.only_v6).map_err(failed(Code::Protocol, "unable to set IPV6_V6ONLY for"))?;
    }
    keep_alive.apply(&SockRef::from(&socket)).map_err(|error| Failure { error, errno: None })?;
    socket.bind(&endpoint.address.into()).map_err(failed(Code::FileOpen, "unable to bind socket to"))?;
    socket.listen(BACKLOG).map_err(failed(Code::FileOpen, "unable to listen on socket for"))?;
    let socket = TcpListener::from_std(socket.into());
    // Port 0 leaves the choice to the system.
    let address = socket.local_addr().unwrap_or(endpoint.address);
    Ok(Listener { socket, endpoint: Endpoint { address, ..endpoint } })
}

fn resolve_one(name: &str, port: u16) -> Result<Vec<SocketAddr>> {
    if name == "*" {
        // A C library's resolver need not know this name, so it is handled here.
        let wildcards = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
        return Ok(wildcards.map(|address| SocketAddr::new(address, port)).to_vec());
    }
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    (name, port).to_socket_addrs().map(Iterator::collect).map_err(|error| {
        let reason = resolver_text(&error.to_string());
        Error::new(Code::HostConnect, format!("unable to get address for '{name}': {reason}"))
    })
}

/// The resolver's complaint as glibc words and numbers it.
fn resolver_text(text: &str) -> String {
    let reason = text.rsplit_once("information: ").map_or(text, |(_, reason)| reason);
    match reason {
        "Name or service not known" | "Name does not resolve" => "[-2] Name or service not known".to_owned(),
        "Temporary failure in name resolution" | "Try again" => "[-3] Temporary failure in name resolution".to_owned(),
        "No address associated with hostname" => "[-5] No address associated with hostname".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: KeepAlive = KeepAlive { enabled: true, count: None, idle: None, interval: None };

    fn addresses(names: &[&str]) -> Vec<String> {
        resolve(names, 8432).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_star_means_every_address_of_both_families() {
        let endpoints = resolve(&["*"], 8432).unwrap();
        assert_eq!(addresses(&["*"]), ["[::]:8432", "0.0.0.0:8432"]);
        assert!(endpoints[0].only_v6, "otherwise the second could not be bound");
    }

    #[test]
    fn lists_of_addresses_lose_duplicates() {
        assert_eq!(addresses(&["127.0.0.1", "::1", "[::1]", "127.0.0.1"]), ["127.0.0.1:8432", "[::1]:8432"]);
    }

    #[test]
    fn the_unspecified_ipv6_address_alone_takes_ipv4_too() {
        assert!(!resolve(&["::"], 1).unwrap()[0].only_v6);
        assert!(resolve(&["::", "0.0.0.0"], 1).unwrap()[0].only_v6);
    }

    #[test]
    fn a_name_without_address_is_reported_as_glibc_words_it() {
        let error = resolve(&["no-such-host.invalid"], 1).unwrap_err();
        assert_eq!(error.code, Code::HostConnect);
        assert!(error.message.starts_with("unable to get address for 'no-such-host.invalid': "), "{error}");
        assert_eq!(
            resolver_text("failed to lookup address information: Name does not resolve"),
            "[-2] Name or service not known"
        );
    }

    #[test]
    fn a_port_in_use_is_reported_with_its_address_and_who_has_it() {
        let mut none = Vec::new();
        let first = open_all(&resolve(&["127.0.0.1"], 0).unwrap(), PLAIN, &mut none).unwrap();
        let port = first[0].socket.local_addr().unwrap().port();
        let error = open_all(&resolve(&["127.0.0.1"], port).unwrap(), PLAIN, &mut none).unwrap_err();
        let expected = format!(
            "[041]: unable to bind socket to 127.0.0.1:{port}: [98] Address already in use\nHINT: process {} (",
            std::process::id()
        );
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert!(error.message.ends_with(&format!(" listens on port {port}: is another server running?")), "{error}");
    }

    #[test]
    fn a_socket_that_is_still_wanted_is_kept_and_the_others_are_left_over() {
        let mut none = Vec::new();
        let any_port = resolve(&["127.0.0.1", "127.0.0.2"], 0).unwrap();
        let mut previous = open_all(&any_port, PLAIN, &mut none).unwrap();
        let kept = previous[0].socket.local_addr().unwrap();
        let next = open_all(&[previous[0].endpoint], PLAIN, &mut previous).unwrap();
        assert_eq!((next.len(), previous.len()), (1, 1));
        assert_eq!(next[0].socket.local_addr().unwrap(), kept);
    }

    #[test]
    fn a_change_from_every_address_to_one_works_on_the_same_port() {
        let mut none = Vec::new();
        let first = open_all(&resolve(&["0.0.0.0"], 0).unwrap(), PLAIN, &mut none).unwrap();
        let port = first[0].socket.local_addr().unwrap().port();
        drop(first);
        let mut previous = open_all(&resolve(&["0.0.0.0"], port).unwrap(), PLAIN, &mut none).unwrap();
        let next = open_all(&resolve(&["127.0.0.1"], port).unwrap(), PLAIN, &mut previous).unwrap();
        assert_eq!(next[0].socket.local_addr().unwrap().to_string(), format!("127.0.0.1:{port}"));
        assert!(previous.is_empty());
    }

    #[test]
    fn a_socket_of_the_service_manager_survives_a_reload() {
        let given = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = given.local_addr().unwrap();
        let mut previous = vec![adopt(given.into(), 0, PLAIN).unwrap()];
        let endpoints: Vec<_> = previous.iter().map(|listener| listener.endpoint).collect();
        let next = open_all(&endpoints, PLAIN, &mut previous).unwrap();
        assert_eq!(next[0].socket.local_addr().unwrap(), address);
        assert!(previous.is_empty());
    }

    #[test]
    fn a_name_is_satisfied_with_the_addresses_that_this_host_has() {
        let mut none = Vec::new();
        let address = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let one_part =
            ["127.0.0.1", "192.0.2.1"].map(|text| Endpoint { address: address(text), only_v6: false, part: 0 });
        assert_eq!(open_all(&one_part, PLAIN, &mut none).unwrap().len(), 1);
        let two_parts = [one_part[0], Endpoint { part: 1, ..one_part[1] }];
        let error = open_all(&two_parts, PLAIN, &mut none).unwrap_err();
        let expected = "[041]: unable to bind socket to 192.0.2.1:0: [99] Cannot assign requested address\nHINT: no ";
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}
