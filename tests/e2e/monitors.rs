//! What looks whether the server is there, beside hosts that ping it from the same address.

use crate::harness::{Bench, Output, Process, SOON, run_quietly, wait_until};

/// What a client says that was greeted with another release.
const MISMATCH: &str = "for greeting key 'version' but got";
/// The client that most distributions do not have, so that it is tried late.
const RELEASE: &str = "2.60.0";

/// A server that nobody told which releases there are, with what keeps asking it beside a ping that has taught it.
struct Site {
    bench: Bench,
    port: String,
}

impl Site {
    fn new() -> Self {
        let mut bench = Bench::new(RELEASE);
        bench.server.learns = true;
        bench.server.start();
        let port = bench.server.port.to_string();
        Self { bench, port }
    }

    fn ping(&self) -> Output {
        let port = format!("--tls-server-port={}", self.port);
        self.bench.client.run_exactly(&["server-ping", "localhost", &port])
    }

    /// Pings until it works, which teaches.
    fn teach(&self) {
        wait_until("an answered ping", SOON, || {
            let output = self.ping();
            assert!(output.code == 0 || output.text().contains(MISMATCH), "{}", output.text());
            output.code == 0
        });
    }

    /// Insists on pings that are answered while `monitor` asks before each, and on more than that many visits of
    /// strangers in the log.
    fn all_pings_work(&self, mut monitor: impl FnMut()) {
        self.teach();
        for number in 0..12 {
            monitor();
            let output = self.ping();
            assert_eq!(output.code, 0, "ping {number}: {}", output.text());
        }
        let log = self.bench.server.log();
        let taught = log.split("end=completed").skip(1).collect::<String>();
        assert!(!taught.contains("hung up at the greeting"), "{log}");
    }
}

#[test]
fn openssl_s_client_teaches_no_release() {
    let site = Site::new();
    let target = format!("127.0.0.1:{}", site.port);
    site.all_pings_work(|| {
        for version in ["-tls1_2", "-tls1_3"] {
            let mut command = site.bench.workspace.command("openssl");
            command.args(["s_client", version, "-connect", &target]);
            let output = run_quietly(command);
            assert!(output.text().contains("SSL handshake has read"), "{}", output.text());
        }
    });
}

/// Checks every 20 ms, by `check-ssl` and by the rules that are in the manual for other services.
#[test]
fn haproxy_teaches_no_release() {
    let site = Site::new();
    let port = &site.port;
    let server = format!("127.0.0.1:{port} check inter 20ms ssl verify none\n");
    let socket = site.bench.workspace.directory("haproxy").join("socket");
    let text = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n\
         frontend unused\n  bind unix@{}\n  default_backend handshake\n\
         backend handshake\n  server one {server}\
         backend greeting\n  option tcp-check\n  tcp-check connect ssl\n  tcp-check expect string pgBackRest\n  \
         server one {server}",
        socket.display()
    );
    let file = site.bench.workspace.file("haproxy.cfg", 0o644, &text);
    let mut command = site.bench.workspace.command("haproxy");
    command.arg("-db").arg("-f").arg(file);
    site.teach();
    let mut haproxy: Process = site.bench.workspace.spawn("haproxy", command);
    let visits = || site.bench.server.log().matches("end=").count();
    let mut before = visits();
    site.all_pings_work(|| {
        wait_until("another visit of HAProxy", SOON, || visits() > before + 2);
        before = visits();
    });
    assert!(haproxy.ended().is_none(), "{}", haproxy.printed());
    drop(haproxy);
}
