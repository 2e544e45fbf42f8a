//! AWS KMS as far as an emulator goes: ministack, which `tests/install.sh` installs, on a free port of loopback.
//!
//! In scope: one emulator for each test binary, an account of its own for each test, and the child process in which a test finds its credentials. Out of
//! scope: faults (`proxy.rs`), and what the emulator gets wrong (`tests/kms_lies.rs` says it).
//!
//! Credentials come by the SDK's chain, out of the environment, which a process cannot safely change for itself. So a test runs its own binary again,
//! for itself alone, as the tests of PKCS#11 modules do. ministack takes an access key of twelve digits for the number of an account.

// Each test binary is compiled with its own copy, and uses its own part of it.
#![allow(dead_code)]

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};
use claviger::keystore::aws_kms::{AwsKmsSettings, DEFAULT_DELETION_WINDOW};
use claviger_audit::merkle::Hash;

use super::wait::until;

/// The region of every test.
pub(crate) const REGION: &str = "eu-central-1";
/// The secret access key of every test: it must never be printed.
pub(crate) const SECRET: &str = "a-secret-access-key-that-nobody-may-print";
/// The session token of every test, likewise.
pub(crate) const TOKEN: &str = "a-session-token-that-nobody-may-print";

/// Tells a child where the emulator is.
const CHILD: &str = "CLAVIGER_TEST_KMS";
/// What a child says when its work is done: without it, it ran no test.
const DONE: &str = "the child is done";

/// An account of the emulator.
#[derive(Clone, Debug)]
pub(crate) struct Kms {
    address: SocketAddr,
    account: String,
}

impl Kms {
    /// An account of this number in the emulator of this process, which starts with the first call.
    pub(crate) fn account_of(test: &str) -> Self {
        static EMULATOR: OnceLock<(SocketAddr, Child)> = OnceLock::new();
        let (address, _) = EMULATOR.get_or_init(|| emulator(&[]));
        let digits = u64::from_str_radix(&Hash::digest(test.as_bytes()).to_string()[..12], 16).expect("hex");
        Self { address: *address, account: format!("{:012}", digits % 1_000_000_000_000) }
    }

    /// Runs `body` in a child process with credentials of an account of its own. `test` is the full name of the calling test.
    pub(crate) fn in_child(test: &str, body: impl FnOnce(&Self)) {
        Self::in_child_with(test, |_, _| ((), Vec::new()), body);
    }

    /// The same with changes of its environment, for which there is a folder: a variable without a value is not there. What else is returned lives as
    /// long as the child.
    pub(crate) fn in_child_with<K>(
        test: &str,
        change: impl FnOnce(&Self, &Path) -> (K, Vec<(&'static str, Option<String>)>),
        body: impl FnOnce(&Self),
    ) {
        #[expect(clippy::disallowed_methods, reason = "the parent hands the child its emulator this way")]
        if let Ok(handed) = std::env::var(CHILD) {
            let (address, account) = handed.split_once(' ').expect("an address and an account");
            body(&Self { address: address.parse().expect("an address"), account: account.to_owned() });
            writeln!(std::io::stdout(), "{DONE}").expect("the parent listens");
            return;
        }
        let kms = Self::account_of(test);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (_kept, changes) = change(&kms, folder.path());
        let mut child = Command::new(std::env::current_exe().expect("the test binary"));
        child.args(["--exact", test, "--nocapture", "--test-threads=1"]);
        child.env(CHILD, format!("{} {}", kms.address, kms.account)).envs(kms.environment());
        for (name, value) in changes {
            match value {
                Some(value) => child.env(name, value),
                None => child.env_remove(name),
            };
        }
        let child = child.output().expect("the test binary runs again");
        let output = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
        assert!(child.status.success() && output.contains(DONE), "in the child of {test} ({}):\n{output}", child.status);
        assert!(!output.contains(SECRET) && !output.contains(TOKEN), "{test} printed a secret");
    }

    /// What a process needs in its environment to have this account's credentials. The rest is a trap: nothing but credentials may be taken from it,
    /// least of all the way to an emulator.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", self.account.clone()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
            ("AWS_SESSION_TOKEN", TOKEN.to_owned()),
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("AWS_REGION", "ap-south-1".to_owned()),
            ("AWS_ENDPOINT_URL", self.url()),
            ("AWS_ENDPOINT_URL_KMS", self.url()),
            ("AWS_ENDPOINT_URL_STS", self.url()),
            ("AWS_MAX_ATTEMPTS", "9".to_owned()),
            // A machine's own proxy would be asked for loopback, too.
            ("NO_PROXY", "127.0.0.1".to_owned()),
        ]
    }

    /// Where the emulator listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The number of the account.
    pub(crate) fn account(&self) -> &str {
        &self.account
    }

    /// Settings of a keystore in this account, whose calls go to `url`.
    pub(crate) fn settings(&self, url: &str) -> AwsKmsSettings {
        AwsKmsSettings {
            region: REGION.to_owned(),
            account: self.account.clone(),
            endpoint: Some(url.to_owned()),
            sts_endpoint: Some(url.to_owned()),
            profile: None,
            deletion_window: DEFAULT_DELETION_WINDOW,
            // No test waits for a budget that it does not ask for.
            requests_per_second: 10_000,
        }
    }

    /// A client of the account's owner, who does things past Claviger.
    pub(crate) fn owner(&self) -> aws_sdk_kms::Client {
        let credentials = Credentials::new(&self.account, SECRET, None, None, "test");
        let config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(REGION))
            .credentials_provider(credentials)
            .endpoint_url(self.url());
        aws_sdk_kms::Client::from_conf(config.build())
    }

    /// The same as the lines of a keystore's table in a configuration.
    pub(crate) fn table(&self, url: &str) -> String {
        let account = &self.account;
        format!("type = \"aws-kms\"\nregion = \"{REGION}\"\naccount = \"{account}\"\nendpoint = \"{url}\"\nsts_endpoint = \"{url}\"\n")
    }
}

/// Starts ministack on a free port, with more in its environment, and waits until it answers. It ends with this process, however that ends: the shell
/// above it reads a pipe that we hold, and ends it by its id.
pub(crate) fn emulator(environment: &[(&str, &str)]) -> (SocketAddr, Child) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/emulators/bin/ministack");
    assert!(program.exists(), "{} is not there: run tests/install.sh", program.display());
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let folder = tempfile::tempdir().expect("a temporary folder").keep();
    let script = r#""$0" >"$1/out" 2>&1 & pid=$!; read -r _; kill "$pid"; wait "$pid"; rm -rf "$1""#;
    let shell = Command::new("sh")
        .args(["-c", script])
        .args([&program, &folder])
        .envs([("BIND_HOST", "127.0.0.1"), ("SERVICES", "kms,sts,iam"), ("IOT_MTLS_ENABLED", "0"), ("LOG_LEVEL", "WARNING")])
        .env("GATEWAY_PORT", address.port().to_string())
        .env("TMPDIR", &folder)
        .envs(environment.iter().copied())
        .current_dir(&folder)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    until("the emulator answers", || std::net::TcpStream::connect(address).map(drop).map_err(|error| error.to_string()));
    (address, shell)
}
