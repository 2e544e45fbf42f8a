//! What is measured: the release binary with a demo configuration on a throw-away token, started and stopped by its process id.
//!
//! In scope: the token (`softhsm-setup.sh` makes it), configuration, policies, start, readiness, stop. Out of scope: load.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use claviger::clock::{Clock, SystemClock};
use claviger_audit::merkle::Hash;
use rustix::process::{Pid, Signal, kill_process};

use crate::Outcome;
use crate::load;

const BINARY: &str = env!("CARGO_BIN_EXE_claviger");
/// The bearer token of the one caller. It opens nothing but this bench's own daemon.
const BEARER: &str = "a-caller-that-lives-as-long-as-this-run-lasts";
/// The ES256 keyring, which the sample policies know.
pub(crate) const ES256: &str = "access-tokens";
/// The RS256 keyring.
pub(crate) const RS256: &str = "legacy-tokens";
/// Items of a batch.
pub(crate) const BATCH: usize = 100;
/// How long the daemon may take to have its first keys: an RSA key takes about a second.
const READY_WITHIN: Duration = Duration::from_mins(1);
/// How long it may take to stop: drain, flush, checkpoint.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// How often readiness, and the end, are asked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The daemon that is measured, and what it runs on. Dropping it kills the daemon.
pub(crate) struct Stage {
    /// The folder of the run; its logs are on the disk that is measured.
    pub(crate) folder: PathBuf,
    /// The PKCS#11 module.
    pub(crate) module: PathBuf,
    /// The token's label.
    pub(crate) token: String,
    /// Where the daemon listens.
    pub(crate) address: SocketAddr,
    /// The time of this process.
    pub(crate) clock: SystemClock,
    daemon: Child,
}

impl Stage {
    /// Writes the configuration, makes the state, starts the daemon and waits until every keyring signs.
    pub(crate) fn open(folder: &Path) -> Outcome<Self> {
        let keystore = fs::read_to_string(folder.join("token/keystore.toml"))?;
        let settings: toml::Table = keystore.parse()?;
        let setting = |name: &str| settings["keystore"]["hsm"][name].as_str().unwrap_or_default().to_owned();
        let (module, token) = (PathBuf::from(setting("module")), setting("token"));
        // Freed at once and bound again by the daemon: should another process take it in between, the daemon says so and the run ends.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        write_policies(&folder.join("policies"))?;
        let config = folder.join("claviger.toml");
        fs::write(&config, configuration(folder, &keystore, address))?;
        fs::DirBuilder::new().mode(0o700).create(folder.join("state"))?;
        let init = Command::new(BINARY).arg("--config").arg(&config).arg("init").output()?;
        if !init.status.success() {
            return Err(format!("claviger init: {}", String::from_utf8_lossy(&init.stderr)).into());
        }
        let log = File::create(folder.join("claviger.log"))?;
        let daemon = Command::new(BINARY).arg("--config").arg(&config).arg("serve").stdout(Stdio::null()).stderr(log).spawn()?;
        let mut stage = Self { folder: folder.to_owned(), module, token, address, clock: SystemClock::start(), daemon };
        stage.wait_until_ready()?;
        Ok(stage)
    }

    /// The daemon's process id.
    pub(crate) fn daemon(&self) -> u32 {
        self.daemon.id()
    }

    /// The PIN of the token.
    pub(crate) fn pin(&self) -> Outcome<String> {
        Ok(fs::read_to_string(self.folder.join("token/pin"))?)
    }

    /// Stops the daemon in order.
    pub(crate) fn close(mut self) -> Outcome<()> {
        let pid = i32::try_from(self.daemon()).ok().and_then(Pid::from_raw).ok_or("the daemon has no process id")?;
        kill_process(pid, Signal::TERM)?;
        let until = self.clock.monotonic().plus(STOP_WITHIN);
        while self.clock.monotonic() < until {
            match self.daemon.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.said(&format!("the daemon ended with {status}"))),
                None => std::thread::sleep(LOOK_EVERY),
            }
        }
        Err(self.said("the daemon did not stop"))
    }

    fn wait_until_ready(&mut self) -> Outcome<()> {
        let request = load::get("/readyz/sign");
        let until = self.clock.monotonic().plus(READY_WITHIN);
        while self.clock.monotonic() < until {
            if let Some(status) = self.daemon.try_wait()? {
                return Err(self.said(&format!("the daemon ended with {status}")));
            }
            if load::once(self.address, &request).is_ok() {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Err(self.said("the daemon cannot sign"))
    }

    fn said(&self, what: &str) -> Box<dyn std::error::Error + Send + Sync> {
        let log = fs::read_to_string(self.folder.join("claviger.log")).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(20).collect();
        format!("{what}; it said:\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n")).into()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // After an orderly stop both say that there is nothing to end.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Makes a throw-away token in the folder of a run; gives the token's own folder.
pub(crate) fn make_token(folder: &Path) -> Outcome<PathBuf> {
    let token = folder.join("token");
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("softhsm-setup.sh");
    let made = Command::new(script).arg("token").arg(&token).output()?;
    if !made.status.success() {
        return Err(format!("softhsm-setup.sh: {}", String::from_utf8_lossy(&made.stderr)).into());
    }
    Ok(token)
}

/// A request for one token.
pub(crate) fn sign_request(keyring: &str) -> Vec<u8> {
    let item = item();
    load::post("/sign", BEARER, &format!(r#"{{"keyring":"{keyring}",{item}}}"#))
}

/// A request for [`BATCH`] tokens.
pub(crate) fn batch_request(keyring: &str) -> Vec<u8> {
    let items: Vec<String> = (0..BATCH).map(|_| format!("{{{}}}", item())).collect();
    load::post("/sign/batch", BEARER, &format!(r#"{{"keyring":"{keyring}","items":[{}]}}"#, items.join(",")))
}

/// What an access token usually says (RFC 9068), as members of an item.
fn item() -> String {
    let claims = r#"{"sub":"248289761001","aud":"https://api.example.org","client_id":"s6BhdRkqt3","scope":"openid profile reademail","tenant":"bench"}"#;
    format!(r#""claims":{claims}"#)
}

/// The sample policies, and one more that permits the second keyring on the same conditions.
fn write_policies(folder: &Path) -> Outcome<()> {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    fs::create_dir(folder)?;
    for name in ["guardrails.cedar", "issuers.cedar", "operators.cedar"] {
        fs::copy(samples.join(name), folder.join(name))?;
    }
    let issuers = fs::read_to_string(samples.join("issuers.cedar"))?;
    let second = issuers.replace(ES256, RS256);
    if second == issuers {
        return Err(format!("policies/issuers.cedar does not speak of {ES256} any more").into());
    }
    fs::write(folder.join("second.cedar"), second)?;
    Ok(())
}

/// Limits out of the way, everything else as an installation would have it.
fn configuration(folder: &Path, keystore: &str, address: SocketAddr) -> String {
    let folder = folder.display();
    let sha256 = Hash::digest(BEARER.as_bytes());
    let keyring = |name: &str, algorithm: &str, typ: &str| {
        format!(
            r#"
[keyring.{name}]
purpose = "jwt"
issuer = "main"
algorithm = "{algorithm}"
keystore = "hsm"
policy_claims = {{ tenant = "String" }}

[keyring.{name}.profile]
typ = "{typ}"
audiences = ["https://api.example.org"]
"#
        )
    };
    format!(
        r#"installation = "bench"
origin = "localhost/claviger"
node = "a"
state = "{folder}/state"
policies = "{folder}/policies"

[log]
keystore = "hsm"

{keystore}
[issuer.main]
url = "http://{address}"
path = "/main"
default = true
{}{}
[caller."token:bench"]
token_sha256 = "{sha256}"
groups = ["issuers"]
tenant = "bench"

[limits]
rate = 1000000
burst = 1000000
in_flight = 10000

[[listener]]
bind = "{address}"
serves = ["public", "sign", "ops"]
callers = ["bearer"]
"#,
        keyring(ES256, "ES256", "at+jwt"),
        keyring(RS256, "RS256", "JWT"),
    )
}
