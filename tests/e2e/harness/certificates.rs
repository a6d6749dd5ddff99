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

/// The kind of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Rsa(u32),
    /// ECDSA on a curve.
    Curve(&'static str),
    Ed25519,
}

impl Kind {
    /// Every kind that a server and its clients should be able to use.
    pub(crate) const ALL: [Self; 6] =
        [Self::Rsa(2048), Self::Rsa(3072), Self::Rsa(4096), Self::Curve("P-256"), Self::Curve("P-384"), Self::Ed25519];
}

/// What a certificate is to be where the user guide's does not do.
pub(crate) struct Wish<'a> {
    pub(crate) key: Kind,
    /// Lines of `openssl`'s configuration; none give version 1.
    pub(crate) extensions: &'a str,
    /// The days of the beginning and the end, as `YYYYMMDD`.
    pub(crate) valid: (&'a str, &'a str),
}

impl Wish<'_> {
    /// Version 1, valid.
    pub(crate) const fn plain(key: Kind) -> Self {
        Self { key, extensions: "", valid: ("20200101", "20990101") }
    }
}

/// What nearly every scenario needs, made once for all.
pub(crate) struct Certificates {
    pub(crate) authority: Authority,
    /// For `localhost`.
    pub(crate) server: Identity,
    /// For `pgbackrest-client`.
    pub(crate) client: Identity,
}

impl Identity {
    /// Its key under a passphrase.
    pub(crate) fn encrypted_key(&self) -> String {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        fs::write(directory.path().join("own.key"), &self.key).expect("the key can be written");
        openssl(directory.path(), &["pkey", "-in", "own.key", "-aes256", "-passout", "pass:word", "-out", "new.key"]);
        read(directory.path(), "new.key")
    }

    /// Itself with the certificates of those between it and the root.
    pub(crate) fn with_chain(&self, between: &[&Authority]) -> Self {
        let mut certificate = self.certificate.clone();
        for authority in between {
            certificate.push_str(&authority.certificate);
        }
        Self { key: self.key.clone(), certificate }
    }
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

    /// Whoever has a key and a certificate, whether or not that allows to sign.
    pub(crate) const fn of(key: String, certificate: String) -> Self {
        Self { key, certificate }
    }

    /// Signs a certificate for a common name.
    pub(crate) fn issue(&self, name: &str) -> Identity {
        self.sign(name, "99")
    }

    /// Signs a certificate that ended yesterday.
    pub(crate) fn issue_expired(&self, name: &str) -> Identity {
        self.sign(name, "-1")
    }

    /// Signs a certificate that is to be a certain way.
    pub(crate) fn issue_as(&self, name: &str, wish: &Wish<'_>) -> Identity {
        let directory = self.office();
        let path = directory.path();
        let (algorithm, option) = match wish.key {
            Kind::Rsa(bits) => ("RSA", Some(format!("rsa_keygen_bits:{bits}"))),
            Kind::Curve(curve) => ("EC", Some(format!("ec_paramgen_curve:{curve}"))),
            Kind::Ed25519 => ("ED25519", None),
        };
        let mut arguments = vec!["genpkey", "-algorithm", algorithm, "-out", "own.key"];
        arguments.extend(option.iter().flat_map(|option| ["-pkeyopt", option]));
        openssl(path, &arguments);
        let subject = format!("/CN={name}");
        openssl(path, &["req", "-new", "-out", "own.csr", "-key", "own.key", "-subj", &subject]);
        fs::write(path.join("extensions.cnf"), wish.extensions).expect("the file can be written");
        let (from, until) = (format!("{}000000Z", wish.valid.0), format!("{}000000Z", wish.valid.1));
        let mut arguments = vec!["ca", "-batch", "-notext", "-config", "ca.cnf", "-in", "own.csr", "-out", "own.crt"];
        arguments.extend(["-startdate", &from, "-enddate", &until]);
        if !wish.extensions.is_empty() {
            arguments.extend(["-extfile", "extensions.cnf"]);
        }
        openssl(path, &arguments);
        Identity { key: read(path, "own.key"), certificate: read(path, "own.crt") }
    }

    /// Makes an authority that this one signed.
    pub(crate) fn subordinate(&self, name: &str) -> Self {
        let wish = Wish {
            extensions: "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n\
                         subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n",
            ..Wish::plain(Kind::Rsa(2048))
        };
        let Identity { key, certificate } = self.issue_as(name, &wish);
        Self { key, certificate }
    }

    /// A list that says which certificates no longer count.
    pub(crate) fn revokes(&self, identities: &[&Identity]) -> String {
        let directory = self.office();
        for identity in identities {
            fs::write(directory.path().join("gone.crt"), &identity.certificate).expect("the file can be written");
            openssl(directory.path(), &["ca", "-config", "ca.cnf", "-revoke", "gone.crt"]);
        }
        openssl(directory.path(), &["ca", "-config", "ca.cnf", "-gencrl", "-crldays", "30", "-out", "list.crl"]);
        read(directory.path(), "list.crl")
    }

    /// A directory in which `openssl ca` works for this authority.
    fn office(&self) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let settings = "[ca]\ndefault_ca=here\n[here]\ndatabase=index.txt\nnew_certs_dir=.\nrand_serial=yes\n\
                        unique_subject=no\ndefault_md=sha256\npolicy=any\ncertificate=ca.crt\nprivate_key=ca.key\n\
                        [any]\ncommonName=supplied\n";
        for (name, text) in
            [("ca.key", self.key.as_str()), ("ca.crt", &self.certificate), ("ca.cnf", settings), ("index.txt", "")]
        {
            fs::write(directory.path().join(name), text).expect("the file can be written");
        }
        directory
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

/// A certificate with what it is trusted for, as `openssl x509 -trustout` writes it.
pub(crate) fn trusted_for(certificate: &str, settings: &[&str]) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    fs::write(directory.path().join("plain.crt"), certificate).expect("the certificate can be written");
    let mut arguments = vec!["x509", "-in", "plain.crt", "-trustout", "-out", "trusted.crt"];
    arguments.extend(settings);
    openssl(directory.path(), &arguments);
    let text = read(directory.path(), "trusted.crt");
    assert!(text.contains("BEGIN TRUSTED CERTIFICATE"), "{text}");
    text
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
