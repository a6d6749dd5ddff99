//! Certificates as pgBackRest's user guide makes them: by the `openssl` command without an extension
//! file, which gives X.509 version 1 without a subject alternative name.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// Who signs certificates.
pub(crate) struct Authority {
    key: String,
    pub(crate) certificate: String,
}

/// A key and its certificate, as PEM.
pub(crate) struct Identity {
    pub(crate) key: String,
    pub(crate) certificate: String,
}

/// What nearly every scenario needs, made once for all.
pub(crate) struct Certificates {
    pub(crate) authority: Authority,
    /// For `localhost`.
    pub(crate) server: Identity,
    /// For `pgbackrest-client`.
    pub(crate) client: Identity,
}

impl Certificates {
    /// The certificates shared by the scenarios of this run.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Certificates> = OnceLock::new();
        SHARED.get_or_init(|| {
            let authority = Authority::new("pgbackrest.example");
            let server = authority.issue("localhost");
            let client = authority.issue("pgbackrest-client");
            Self { authority, server, client }
        })
    }
}

impl Authority {
    /// Makes a self-signed authority.
    pub(crate) fn new(name: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        openssl(directory.path(), &["genrsa", "-out", "ca.key", "2048"]);
        let subject = format!("/CN={name}");
        openssl(
            directory.path(),
            &["req", "-new", "-x509", "-sha256", "-days", "90", "-key", "ca.key", "-subj", &subject, "-out", "ca.crt"],
        );
        Self { key: read(directory.path(), "ca.key"), certificate: read(directory.path(), "ca.crt") }
    }

    /// Signs a certificate for a common name.
    pub(crate) fn issue(&self, name: &str) -> Identity {
        self.sign(name, "99")
    }

    /// Signs a certificate that ended yesterday.
    pub(crate) fn issue_expired(&self, name: &str) -> Identity {
        self.sign(name, "-1")
    }

    fn sign(&self, name: &str, days: &str) -> Identity {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path();
        fs::write(path.join("ca.key"), &self.key).expect("the key can be written");
        fs::write(path.join("ca.crt"), &self.certificate).expect("the certificate can be written");
        let subject = format!("/CN={name}");
        openssl(path, &["genrsa", "-out", "own.key", "2048"]);
        openssl(path, &["req", "-new", "-sha256", "-nodes", "-out", "own.csr", "-key", "own.key", "-subj", &subject]);
        openssl(
            path,
            &[
                "x509",
                "-req",
                "-in",
                "own.csr",
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-out",
                "own.crt",
                "-days",
                days,
            ],
        );
        let text = openssl(path, &["x509", "-in", "own.crt", "-noout", "-text"]);
        assert!(text.contains("Version: 1 (0x0)"), "the user guide's commands no longer give version 1:\n{text}");
        Identity { key: read(path, "own.key"), certificate: read(path, "own.crt") }
    }
}

fn openssl(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("openssl").current_dir(directory).args(arguments).output().expect("openssl starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments:?} fails:\n{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn read(directory: &Path, name: &str) -> String {
    fs::read_to_string(directory.join(name)).expect("openssl wrote the file")
}
