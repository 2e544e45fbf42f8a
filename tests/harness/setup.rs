//! A configuration for a test, from a builder.
//!
//! In scope: the settings that tests vary, with fast and legal values for the rest. Out of scope: checking them (the daemon does, and tests
//! of bad settings edit the text with [`super::Place::edit_config`]).

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use claviger_audit::merkle::Hash;

/// What `iss` says in every token.
pub(crate) const ISSUER: &str = "https://issuer.example";
/// The audience that every `jwt` keyring allows.
pub(crate) const AUDIENCE: &str = "https://api.example.org";
/// The bearer token of the caller `token:demo`, who may sign.
pub(crate) const BEARER: &str = "bearer-of-the-demo-caller-0123456789abcdefgh";
/// The bearer token of the caller `token:stranger`, whom no policy permits anything.
pub(crate) const STRANGER: &str = "bearer-of-the-stranger-0123456789abcdefghijk";

/// What the default policies permit: issuers sign everywhere, operators turn every handle. A caller in no group is denied.
const POLICIES: &str = r#"
@id("issuers-sign")
permit (principal, action in [Action::"sign", Action::"signBatch"], resource)
when { principal.groups.contains("issuers") };

@id("operators-do-everything-else")
permit (
  principal,
  action in [
    Action::"readKeyring", Action::"readLog", Action::"rotate", Action::"suspend", Action::"resume", Action::"compromise",
    Action::"abandon", Action::"destroy", Action::"retire", Action::"confirmClock", Action::"reloadPolicy",
    Action::"maintainLog"
  ],
  resource
)
when { principal.groups.contains("operators") };
"#;

/// The keystore that every [`Setup`] has unless it says otherwise: the token [`super::place::TOKEN`].
pub(crate) const HSM: &str = "hsm";

/// Timing for a test that does not wait for rotations by the clock: seconds where verifiers wait, hours between rotations.
pub(crate) const QUIET: &[(&str, &str)] = &[
    ("jwks_max_age", "1s"),
    ("jwks_stale", "0s"),
    ("verifier_poll", "1s"),
    ("propagation", "0s"),
    ("clock_skew", "1s"),
    ("rotate_every", "1h"),
    ("provisioning_budget", "10s"),
    ("max_exposure", "20s"),
    ("destroy_after", "1h"),
];

/// One keyring of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Keyring {
    pub(crate) name: String,
    settings: Vec<(String, String)>,
    profile: Vec<String>,
}

impl Keyring {
    /// A `jwt` keyring of the issuer `main` in the keystore [`HSM`], with the typ `<name>+jwt` and the audience [`AUDIENCE`].
    pub(crate) fn jwt(name: &str, algorithm: &str) -> Self {
        let profile = vec![format!("typ = \"{name}+jwt\""), format!("audiences = [\"{AUDIENCE}\"]")];
        let keyring = Self { name: name.to_owned(), settings: Vec::new(), profile };
        let keyring = keyring.set("purpose", "jwt").set("issuer", "main").set("algorithm", algorithm).keystore(HSM);
        keyring.set("token_ttl", "10s").timing(QUIET)
    }

    /// A `jws` keyring in the keystore [`HSM`].
    pub(crate) fn jws(name: &str, algorithm: &str) -> Self {
        let keyring = Self { name: name.to_owned(), settings: Vec::new(), profile: Vec::new() };
        let keyring = keyring.set("purpose", "jws").set("algorithm", algorithm).keystore(HSM);
        keyring.set("verify_within", "10s").timing(QUIET)
    }

    /// Sets, or replaces, a setting with a text as its value.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.retain(|(other, _)| other != name);
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Puts its next key into another keystore.
    pub(crate) fn keystore(self, name: &str) -> Self {
        self.set("keystore", name)
    }

    /// Sets several.
    pub(crate) fn timing(self, settings: &[(&str, &str)]) -> Self {
        settings.iter().fold(self, |keyring, (name, value)| keyring.set(name, value))
    }

    /// Adds a line of TOML to the profile.
    pub(crate) fn profile(mut self, line: &str) -> Self {
        self.profile.push(line.to_owned());
        self
    }

    fn write(&self, text: &mut String) {
        writeln!(text, "\n[keyring.{}]", self.name).expect("a string grows");
        for (name, value) in &self.settings {
            writeln!(text, "{name} = \"{value}\"").expect("a string grows");
        }
        if !self.profile.is_empty() {
            writeln!(text, "[keyring.{}.profile]\n{}", self.name, self.profile.join("\n")).expect("a string grows");
        }
    }
}

/// What a test wants of its installation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    pub(crate) keyrings: Vec<Keyring>,
    policies: Option<String>,
    more: String,
    /// The lines of each table, by name.
    keystores: Vec<(String, String)>,
    log_keystore: Option<String>,
    without_hsm: bool,
    /// What processes of the binary have in their environment beside the test's own.
    pub(super) environment: Vec<(String, OsString)>,
    /// What may not be printed or stored, beside PINs and bearer tokens.
    pub(super) secrets: Vec<String>,
}

impl Setup {
    /// An installation without keyrings.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// With one more keyring.
    pub(crate) fn keyring(mut self, keyring: Keyring) -> Self {
        self.keyrings.push(keyring);
        self
    }

    /// With these policies instead of the default ones.
    pub(crate) fn policies(mut self, text: &str) -> Self {
        self.policies = Some(text.to_owned());
        self
    }

    /// With one more keystore: `table` are the lines of its table.
    pub(crate) fn keystore(mut self, name: &str, table: &str) -> Self {
        self.keystores.push((name.to_owned(), table.to_owned()));
        self
    }

    /// With the log keys in this keystore instead of [`HSM`].
    pub(crate) fn log_keystore(mut self, name: &str) -> Self {
        self.log_keystore = Some(name.to_owned());
        self
    }

    /// Without the keystore [`HSM`] and its token.
    pub(crate) fn without_hsm(mut self) -> Self {
        self.without_hsm = true;
        self
    }

    /// Whether there is the keystore [`HSM`].
    pub(super) fn has_hsm(&self) -> bool {
        !self.without_hsm
    }

    /// With a variable in the environment of the daemon and of every command.
    pub(crate) fn environment(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// With a secret that may neither be printed nor lie in the state folder.
    pub(crate) fn secret(mut self, secret: &str) -> Self {
        self.secrets.push(secret.to_owned());
        self
    }

    /// With more tables at the end of the file, such as `[limits]`, callers and listeners.
    pub(crate) fn more(mut self, toml: &str) -> Self {
        self.more.push_str(toml);
        self
    }

    pub(super) fn policy_text(&self) -> &str {
        self.policies.as_deref().unwrap_or(POLICIES)
    }

    /// The file: listeners are, in this order, `sign.sock`, `admin.sock` (both answer to this user) and a free port on loopback.
    pub(super) fn config(&self, root: &Path, hsm: &str) -> String {
        let log_keystore = self.log_keystore.as_deref().unwrap_or(HSM);
        let (uid, root) = (rustix::process::geteuid().as_raw(), root.display());
        let hash = |bearer: &str| Hash::digest(bearer.as_bytes()).to_string();
        let (demo, stranger) = (hash(BEARER), hash(STRANGER));
        let mut text = format!(
            r#"installation = "test"
origin = "test.example/claviger"
node = "a"
state = "{root}/claviger"
policies = "{root}/policies"

[log]
keystore = "{log_keystore}"

[issuer.main]
url = "{ISSUER}"
path = "/main"
default = true
discovery = true

[caller."unix:uid={uid}"]
groups = ["issuers", "operators"]
tenant = "t1"

[caller."token:demo"]
groups = ["issuers"]
tenant = "t1"
token_sha256 = "{demo}"

[caller."token:stranger"]
groups = []
token_sha256 = "{stranger}"

[[listener]]
bind = "unix:{root}/sign.sock"
serves = ["sign"]
callers = ["unix"]

[[listener]]
bind = "unix:{root}/admin.sock"
serves = ["admin"]
callers = ["unix"]

[[listener]]
bind = "127.0.0.1:0"
serves = ["public", "sign", "ops"]
callers = ["bearer"]
"#
        );
        let own = (!self.without_hsm).then_some((HSM, hsm));
        let others = self.keystores.iter().map(|(name, table)| (name.as_str(), table.as_str()));
        for (name, table) in own.into_iter().chain(others) {
            writeln!(text, "\n[keystore.{name}]\n{}", table.trim_end()).expect("a string grows");
        }
        self.keyrings.iter().for_each(|keyring| keyring.write(&mut text));
        text.push_str(&self.more);
        text
    }
}
