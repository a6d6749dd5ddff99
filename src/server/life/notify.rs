//! Tells a service manager how the server is (`sd_notify`): a datagram to `$NOTIFY_SOCKET`.
//!
//! Without that variable nothing is sent, and a failure to send is nobody's concern.
//! Source: specification, section 2.9, and `sd_notify(3)`.

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The way to the service manager.
#[derive(Debug)]
pub(crate) struct Notify {
    target: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// The service manager that the environment names, if any.
    pub(crate) fn from_environment() -> Self {
        let target = env::var("NOTIFY_SOCKET").ok().and_then(|name| open(&name));
        let watchdog = target.is_some().then(|| watchdog_period(&|name| env::var(name).ok())).flatten();
        Self { target, watchdog }
    }

    /// How often the service manager wants to hear [`Notify::alive`].
    pub(crate) const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Connections are accepted.
    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// A reload has begun; [`Notify::ready`] ends it.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// The server is about to end.
    pub(crate) fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={}", one_line(status)));
    }

    /// The event loop turns.
    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, text: &str) {
        if let Some((socket, address)) = &self.target {
            // There is nobody to tell of a failure.
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

fn open(name: &str) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name).ok()?,
        None => SocketAddr::from_pathname(name).ok()?,
    };
    let socket = UnixDatagram::unbound().ok()?;
    // A service manager that does not read must not hold the server up.
    socket.set_nonblocking(true).ok()?;
    Some((socket, address))
}

/// Half of what the service manager allows, as its manual recommends; only if it means this process.
fn watchdog_period(variable: &dyn Fn(&str) -> Option<String>) -> Option<Duration> {
    if variable("WATCHDOG_PID").is_some_and(|pid| pid != std::process::id().to_string()) {
        return None;
    }
    let microseconds: u64 = variable("WATCHDOG_USEC")?.parse().ok()?;
    (microseconds > 0).then(|| Duration::from_micros(microseconds / 2))
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_hears_of_every_stage() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notify = Notify { target: open(path.to_str().unwrap()), watchdog: None };
        let heard = || {
            let mut buffer = [0; 256];
            let length = manager.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        notify.ready("listening\non 2 addresses");
        assert_eq!(heard(), "READY=1\nSTATUS=listening on 2 addresses");
        notify.reloading();
        let text = heard();
        assert!(text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse::<u64>().unwrap() > 0);
        notify.stopping("drains");
        assert_eq!(heard(), "STOPPING=1\nSTATUS=drains");
        notify.alive();
        assert_eq!(heard(), "WATCHDOG=1");
    }

    #[test]
    fn a_missing_or_dead_service_manager_is_no_failure() {
        Notify { target: None, watchdog: None }.ready("");
        Notify { target: open("/nonexistent/notify"), watchdog: None }.ready("");
        Notify { target: open("@repohostd-nobody-listens-here"), watchdog: None }.ready("");
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_its_period_and_only_if_it_is_ours() {
        let variables = |pid: &'static str| {
            move |name: &str| match name {
                "WATCHDOG_USEC" => Some("3000000".to_owned()),
                "WATCHDOG_PID" => Some(pid.to_owned()),
                _ => None,
            }
        };
        assert_eq!(watchdog_period(&variables("0")), None);
        let own: &'static str = std::process::id().to_string().leak();
        assert_eq!(watchdog_period(&variables(own)), Some(Duration::from_millis(1500)));
        assert_eq!(watchdog_period(&|_| None), None);
    }
}
