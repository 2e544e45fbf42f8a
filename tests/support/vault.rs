//! A real Vault of one test: its own process, storage, certificate authority, audit file; set up by deploy/vault/setup.sh, as operators do.
//!
//! In scope: starting, stopping, sealing and unsealing it, its API with the root token, and what a keystore needs to use it. Out of scope: what
//! a test claims. Nothing outlives the test: the server ends with its standard input.

// Each test binary is compiled with its own copy, and uses its own part of it.
#![allow(dead_code)]

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use claviger::clock::Clock;
use claviger::keystore::vault::{DEFAULT_IN_FLIGHT, VaultKeystore, VaultLogin, VaultSettings, tls_config};
use claviger::secret::SecretFile;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::wait::until;

/// Where the engine is mounted.
pub(crate) const MOUNT: &str = "transit";

/// One server, with everything that belongs to it.
pub(crate) struct Vault {
    root: TempDir,
    tls: bool,
    server: Mutex<Option<Server>>,
    /// Of the first start: the server is started again where it was.
    pub(crate) address: String,
    pub(crate) root_token: String,
    unseal_key: String,
    pub(crate) role_id: String,
}

/// Ends when its standard input does, and is awaited.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().expect("our own child");
    }
}

impl Vault {
    /// A server with TLS, unsealed, set up for these installations: transit, AppRole, the shipped policy for each, an audit file.
    pub(crate) fn start(installations: &[&str]) -> Self {
        Self::begin(installations, true)
    }

    /// Likewise without TLS, for a proxy that stands before it.
    pub(crate) fn plain(installations: &[&str]) -> Self {
        Self::begin(installations, false)
    }

    fn begin(installations: &[&str], tls: bool) -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(root.path().join("storage")).expect("a new folder");
        certificates(root.path());
        let (server, told) = spawn(root.path(), tls, "127.0.0.1:0");
        let text = |name: &str| told[name].as_str().expect("a new storage").to_owned();
        let vault = Self {
            tls,
            address: text("address"),
            root_token: text("root_token"),
            unseal_key: text("unseal_key"),
            role_id: String::new(),
            server: Mutex::new(Some(server)),
            root,
        };
        vault.active();
        vault.must("PUT", "sys/audit/file", &json!({"type": "file", "options": {"file_path": vault.audit_log()}}));
        vault.write_secret("admin-token", &vault.root_token);
        for installation in installations {
            let secret_id_file = vault.path(&format!("secret-id-{installation}"));
            vault.set_up(&["--installation", installation, "--secret-id-file", &secret_id_file.display().to_string()]);
        }
        vault.with_role(installations)
    }

    /// One role with the policies of all installations, since one keystore serves them all here.
    fn with_role(mut self, installations: &[&str]) -> Self {
        let policies: Vec<String> = installations.iter().map(|installation| format!("claviger-{installation}")).collect();
        self.must(
            "POST",
            "auth/approle/role/test",
            &json!({"token_policies": policies, "token_no_default_policy": true, "token_ttl": "1h"}),
        );
        let answer = self.must("GET", "auth/approle/role/test/role-id", &Value::Null);
        answer["data"]["role_id"].as_str().expect("its id").clone_into(&mut self.role_id);
        self.new_secret_id();
        self
    }

    /// Runs deploy/vault/setup.sh with the root token and these further arguments; gives what it printed on standard output.
    pub(crate) fn set_up(&self, arguments: &[&str]) -> String {
        let (code, output) = self.run_setup(arguments);
        assert_eq!(code, 0, "{output}");
        output
    }

    /// Runs deploy/vault/setup.sh: its exit code, and all it printed.
    pub(crate) fn run_setup(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/vault/setup.sh"));
        command.args(["--token-file", &self.path("admin-token").display().to_string()]).args(arguments);
        if self.tls {
            command.args(["--ca-file", &self.ca_file().display().to_string()]);
        }
        let output = command.env_remove("VAULT_TOKEN").env("VAULT_ADDR", &self.address).output().expect("bash is there");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().expect("an exit code"), text)
    }

    /// Settings with AppRole, as the shipped setup says.
    pub(crate) fn settings(&self) -> VaultSettings {
        let secret_id = SecretFile::new(self.secret_id_file(), None);
        let authorities = fs::read(self.ca_file()).expect("our own file");
        VaultSettings {
            address: self.address.parse().expect("an address"),
            mount: MOUNT.parse().expect("a mount"),
            namespace: None,
            tls: tls_config(Some(&authorities)),
            login: VaultLogin::AppRole { mount: "approle".parse().expect("a mount"), role_id: self.role_id.clone(), secret_id },
            in_flight: DEFAULT_IN_FLIGHT,
        }
    }

    /// Settings with a token in a file.
    pub(crate) fn settings_with_token(&self, token: &str) -> VaultSettings {
        self.write_secret("token", token);
        VaultSettings { login: VaultLogin::Token { token: SecretFile::new(self.path("token"), None) }, ..self.settings() }
    }

    /// A keystore with AppRole. To be opened within a runtime.
    pub(crate) fn open(&self, clock: Arc<dyn Clock>) -> VaultKeystore {
        VaultKeystore::open(self.settings(), clock)
    }

    /// The lines of a keystore's table in a configuration.
    pub(crate) fn table(&self) -> String {
        let ca_file = if self.tls { format!("ca_file = {:?}\n", self.ca_file().display().to_string()) } else { String::new() };
        format!(
            "type = \"vault\"\naddress = \"{}\"\nmount = \"{MOUNT}\"\n{ca_file}login = {{ type = \"approle\", role_id = \
             \"{}\", secret_id_file = {:?} }}\n",
            self.address,
            self.role_id,
            self.secret_id_file().display().to_string()
        )
    }

    /// A token that may do what the policy of an installation grants, with the given life.
    pub(crate) fn token(&self, installation: &str, more: Value) -> String {
        let mut wanted = json!({"policies": [format!("claviger-{installation}")], "no_default_policy": true});
        wanted.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        self.must("POST", "auth/token/create", &wanted)["auth"]["client_token"].as_str().expect("a token").to_owned()
    }

    /// Replaces the secret id by a new one; the one before stays good until it is destroyed.
    pub(crate) fn new_secret_id(&self) -> String {
        let answer = self.must("POST", "auth/approle/role/test/secret-id", &Value::Null);
        let secret_id = answer["data"]["secret_id"].as_str().expect("a secret id").to_owned();
        self.write_secret("secret-id", &secret_id);
        secret_id
    }

    /// Asks the API with the root token: the status, and what it answered.
    pub(crate) fn api(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.api_as(&self.root_token, method, path, body)
    }

    /// Asks the API with any token; the token and the body reach curl through its standard input.
    pub(crate) fn api_as(&self, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut config = format!("header = \"X-Vault-Token: {token}\"\n");
        if !body.is_null() {
            config += &format!("data = \"{}\"\n", quoted(&body.to_string()));
        }
        let mut curl = Command::new("curl")
            .args(["--silent", "--max-time", "60", "--request", method, "--write-out", "\n%{http_code}", "--config", "-", "--cacert"])
            .arg(self.ca_file())
            .arg(format!("{}/v1/{path}", self.address))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("curl is installed");
        curl.stdin.take().expect("a pipe").write_all(config.as_bytes()).expect("curl reads it");
        let output = curl.wait_with_output().expect("curl ends");
        let text = String::from_utf8_lossy(&output.stdout);
        let (body, status) = text.rsplit_once('\n').expect("a status at the end");
        (status.parse().expect("a number"), serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// Asks the API with the root token for what must succeed.
    pub(crate) fn must(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.api(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// Seals it: everything is refused until it is unsealed.
    pub(crate) fn seal(&self) {
        self.must("PUT", "sys/seal", &Value::Null);
    }

    /// Unseals it, and waits until it serves.
    pub(crate) fn unseal(&self) {
        self.must("PUT", "sys/unseal", &json!({"key": self.unseal_key}));
        self.active();
    }

    /// Ends the server, under whatever it does.
    pub(crate) fn stop(&self) {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Starts it again where it was, on the same storage; it is sealed.
    pub(crate) fn start_again(&self) {
        let at = self.address.rsplit('/').next().expect("a host and a port");
        let server = spawn(self.root.path(), self.tls, at).0;
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
    }

    /// Until it serves.
    fn active(&self) {
        until("an active Vault", || match self.api("GET", "sys/health", &Value::Null) {
            (200, _) => Ok(()),
            (status, answer) => Err(format!("{status} {answer}")),
        });
    }

    /// Writes a secret into a file that its owner alone can read.
    pub(crate) fn write_secret(&self, name: &str, secret: &str) {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, format!("{secret}\n")).expect("a new file");
        fs::set_permissions(&path, Permissions::from_mode(0o400)).expect("our own file");
    }

    /// A file of this server.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The secret id of the role.
    pub(crate) fn secret_id_file(&self) -> PathBuf {
        self.path("secret-id")
    }

    /// The authority of its certificate.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// An authority that has nothing to do with it.
    pub(crate) fn other_ca_file(&self) -> PathBuf {
        self.path("other-ca.pem")
    }

    /// What its file audit device wrote: a line for each request, and one for each answer.
    pub(crate) fn audit_log(&self) -> PathBuf {
        self.path("audit.log")
    }

    /// The entries of its audit file.
    pub(crate) fn audited(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.audit_log()).expect("it audits");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

/// Starts the server, and gives the line that it prints once its address is bound.
fn spawn(root: &Path, tls: bool, listen: &str) -> (Server, Value) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/bin/vaultd");
    let mut command = Command::new(program);
    command.args(["-until-eof", "-log-level", "error", "-listen", listen, "-storage"]).arg(root.join("storage"));
    if tls {
        command.arg("-tls-cert").arg(root.join("server.pem")).arg("-tls-key").arg(root.join("server.key"));
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("run tests/install.sh");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("its first line");
    (Server(child), serde_json::from_str(&line).expect("one line of JSON"))
}

/// An authority, a certificate of this machine by it, and an authority that nobody uses.
fn certificates(root: &Path) {
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        (params.self_signed(&key).expect("a certificate").pem(), Issuer::new(params, key))
    };
    let ((pem, issuer), (other, _)) = (authority("test authority"), authority("other authority"));
    let key = KeyPair::generate().expect("a key");
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name").signed_by(&key, &issuer).expect("a certificate");
    for (name, text) in [("ca.pem", pem), ("other-ca.pem", other), ("server.pem", certificate.pem()), ("server.key", key.serialize_pem())] {
        fs::write(root.join(name), text).expect("a new file");
    }
}
