//! A laboratory: one temporary directory with everything a daemon needs.

use crate::{Cli, Daemon};
use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};
use strongroom_client::Client;
use strongroom_hsm::{HsmConfig, Launcher, softhsm};

/// How long anything in a laboratory may take to come up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Lines of the configuration that let one source, identity and token make the whole load, as load generators do.
pub const RATES_OFF: &str = r#"
[limits]
connections_per_source_max = 1000000
leases_per_identity_max = 1000000000
leases_per_mount_max = 1000000000

[limits.rates]
handshakes_per_source = "off"
calls_per_source = "off"
logins_per_source = "off"
relief_per_source = "off"
reads_per_identity = "off"
reads_per_token = "off"
changes_per_identity = "off"
changes_per_token = "off"
acts_per_identity = "off"
acts_per_token = "off"
relief_per_identity = "off"
relief_per_token = "off"
"#;

/// The directory, its token, its certificates and its configuration.
pub struct Lab {
    dir: tempfile::TempDir,
    pub address: SocketAddr,
    pub metrics: SocketAddr,
    pub hsms: Vec<HsmConfig>,
    /// Lines appended to the configuration, such as `[limits]`.
    pub extra: String,
    /// Lines of `[store]`.
    pub store: String,
    /// Lines of `[audit]`.
    pub audit: String,
    /// More lines of `[listener]`.
    pub listener: String,
    /// Of `[log]`.
    pub log_level: &'static str,
    /// The daemon's program.
    pub program: &'static str,
}

/// Where `cargo` put the binaries: beside the test's own, or `STRONGROOM_BIN_DIR`.
pub fn binary(name: &str) -> PathBuf {
    let dir = std::env::var_os("STRONGROOM_BIN_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let me = std::env::current_exe().expect("the test knows its own path");
            let dir = me.parent().expect("a binary lies in a directory");
            if dir.ends_with("deps") {
                dir.parent().expect("deps lies in the profile's directory").into()
            } else {
                dir.into()
            }
        });
    let path = dir.join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --workspace` first (make test does)",
        path.display()
    );
    path
}

fn free_address() -> SocketAddr {
    let port = strongroomd::engine::testing::free_port().expect("a free port on the loopback");
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Lab {
    /// A directory with one SoftHSM token (`[hsm.main]`) and a certificate for localhost.
    pub fn new() -> Self {
        Self::with_tokens(&["main"])
    }

    /// With a SoftHSM token for each name; none for an empty list.
    pub fn with_tokens(names: &[&str]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("strongroom-lab-")
            .tempdir()
            .expect("a temporary directory");
        let launcher = Launcher::exec(binary("strongroomd"), &["hsm-worker"]);
        let hsms = names
            .iter()
            .map(|name| {
                softhsm::create(
                    &dir.path().join(format!("hsm-{name}")),
                    name,
                    &format!("lab-{name}"),
                    &launcher,
                )
            })
            .collect::<Result<_, _>>()
            .expect("a SoftHSM token");
        certificates(dir.path());
        Self {
            dir,
            address: free_address(),
            metrics: free_address(),
            hsms,
            extra: String::new(),
            store: String::new(),
            audit: String::new(),
            listener: String::new(),
            log_level: "debug",
            program: "strongroomd",
        }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
    pub fn data(&self) -> PathBuf {
        self.dir().join("data")
    }
    pub fn audit_dir(&self) -> PathBuf {
        self.data().join("audit")
    }
    pub fn socket(&self) -> PathBuf {
        self.dir().join("strongroom.sock")
    }
    pub fn ca(&self) -> PathBuf {
        self.dir().join("ca.pem")
    }
    pub fn config_file(&self) -> PathBuf {
        self.dir().join("strongroom.toml")
    }

    /// Writes the configuration as it stands now.
    pub fn write_config(&self) -> PathBuf {
        let dir = self.dir().display();
        let mut text = format!(
            "[listener]\naddress = \"{}\"\ntls_cert = \"{dir}/server.pem\"\ntls_key = \"{dir}/server.key\"\nsocket = \"{}\"\nmetrics = \"{}\"\n{}\n\n\
             [store]\npath = \"{}\"\nreserve_mib = 8\n{}\n\n[audit]\nsegment_mib = 4\n{}\n\n[log]\nlevel = \"{}\"\n\n",
            self.address,
            self.socket().display(),
            self.metrics,
            self.listener,
            self.data().display(),
            self.store,
            self.audit,
            self.log_level,
        );
        for hsm in &self.hsms {
            let strongroom_hsm::TokenSelector::Label(label) = &hsm.token else {
                panic!("lab tokens have labels")
            };
            let strongroom_hsm::PinSource::File(pin) = &hsm.pin else {
                panic!("lab PINs lie in files")
            };
            let (name, module, pin) = (&hsm.name, hsm.module.display(), pin.display());
            let _ = write!(
                text,
                "[hsm.{name}]\nmodule = \"{module}\"\ntoken = \"{label}\"\npin_file = \"{pin}\"\nenv = {{ "
            );
            let env: Vec<_> = hsm
                .env
                .iter()
                .map(|(key, value)| format!("{key} = \"{value}\""))
                .collect();
            let _ = writeln!(text, "{} }}\n", env.join(", "));
        }
        text.push_str(&self.extra);
        let file = self.config_file();
        fs::write(&file, text).expect("the configuration is written");
        file
    }

    /// A new CA and a new certificate in place of the old.
    pub fn renew_certificates(&self) {
        certificates(self.dir());
    }

    /// Starts the real daemon on this directory and waits until it answers.
    pub fn start(&self) -> Daemon {
        Daemon::start(self)
    }

    /// The real command line, pointed at the Unix socket, without a token.
    pub fn cli(&self) -> Cli {
        Cli::new(self)
    }

    /// A client over TLS.
    pub async fn client(&self, token: &str) -> Client {
        let address = format!("https://localhost:{}", self.address.port());
        Client::builder()
            .address(address)
            .ca_file(self.ca())
            .token(token)
            .connect()
            .await
            .expect("the daemon answers over TLS")
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

fn certificates(dir: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut ca = CertificateParams::new(Vec::new()).expect("CA parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name
        .push(rcgen::DnType::CommonName, "Strongroom laboratory CA");
    let issuer = CertifiedIssuer::self_signed(ca, KeyPair::generate().expect("a key")).expect("a CA");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(names)
        .expect("leaf parameters")
        .signed_by(&key, &issuer)
        .expect("a certificate");
    fs::write(dir.join("ca.pem"), issuer.pem()).expect("the CA is written");
    fs::write(dir.join("server.pem"), leaf.pem()).expect("the certificate is written");
    let file = dir.join("server.key");
    fs::write(&file, key.serialize_pem()).expect("the key is written");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("the key is ours");
}
