//! What must hold after every test, whatever it did.
//!
//! In scope: both logs verify against the trust file and the remembered heads, every served set is the one that the log makes, no secret was
//! printed or stored, nothing is left running. Out of scope: what a single test claims.

use std::fs;
use std::path::Path;
use std::sync::PoisonError;

use super::softhsm::PIN;
use super::{Daemon, Place, setup, until};

/// The security officer's PIN that `softhsm.rs` gives every token.
const OFFICER: &str = "0815-officer";

impl Place<'_> {
    /// Checks the served sets, stops the daemon in order, and checks the rest.
    pub(crate) fn check(&self, mut daemon: Daemon) {
        self.check_sets(&mut daemon);
        let status = daemon.stop();
        assert_eq!(status.code(), Some(0), "a stop by SIGTERM is in order");
        self.check_stopped();
    }

    /// Checks what is left when no daemon runs.
    pub(crate) fn check_stopped(&self) {
        self.checked.set(true);
        self.check_logs();
        self.check_secrets();
    }

    /// For tests that destroy the log on purpose: only secrets are looked for.
    pub(crate) fn check_secrets_alone(&self) {
        self.checked.set(true);
        self.check_secrets();
    }

    /// Both logs are whole, pinned by what was remembered, and broke no rule.
    pub(crate) fn check_logs(&self) {
        let (trust, heads) = (self.trust(), self.heads());
        let arguments = ["--trust", trust.to_str().expect("a plain path"), "--rotation"];
        let mut arguments = arguments.to_vec();
        let remembered = ["--head", heads.to_str().expect("a plain path")];
        // Before the first start there is no head to remember; the first record of the key log pins what `init` made.
        if heads.exists() {
            arguments.extend(remembered);
        } else {
            arguments.extend(["--min-size", "1"]);
        }
        let (code, report) = self.verify(&arguments);
        assert_eq!(code, 0, "{report}");
    }

    /// Every set that is served is the one that the log makes, byte for byte.
    pub(crate) fn check_sets(&self, daemon: &mut Daemon) {
        let log = self.log();
        let log = log.to_str().expect("a plain path");
        let mut client = daemon.anonymous();
        let keyrings = self.setup.keyrings.iter().map(|keyring| &keyring.name);
        let keyrings = keyrings.map(|name| (format!("/keyrings/{name}/jwks.json"), ["--keyring", name]));
        let issuer = ["/.well-known/jwks.json", "/main/.well-known/jwks.json"].map(|path| (path.to_owned(), ["--issuer", "main"]));
        for (path, [by, name]) in keyrings.chain(issuer) {
            // The log is first and the swap follows, so they may differ for a moment; what never agrees is wrong.
            until(&format!("{path} as the log has it"), || {
                let made = self.claviger(&["audit", "jwks", log, by, name]).stdout;
                let served = client.get(&path);
                let nothing = made.is_empty() && served.status != 200;
                let same = served.body == made || nothing;
                if same { Ok(()) } else { Err(format!("{}\n{}", served.text(), String::from_utf8_lossy(&made))) }
            });
        }
    }

    /// No PIN and no bearer token was printed, or lies in the state folder.
    fn check_secrets(&self) {
        let own = self.setup.secrets.iter().map(String::as_str);
        let secrets: Vec<&str> = [PIN, OFFICER, setup::BEARER, setup::STRANGER].into_iter().chain(own).collect();
        let printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
        for secret in &secrets {
            assert!(!printed.contains(secret), "a secret was printed");
        }
        look_for(&secrets, &self.state());
    }
}

fn look_for(secrets: &[&str], folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.expect("a readable folder").path()) {
        if path.is_dir() {
            look_for(secrets, &path);
        } else {
            let bytes = fs::read(&path).expect("a readable file");
            let holds = |secret: &&str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!secrets.iter().any(holds), "a secret lies in {}", path.display());
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        assert!(self.checked.get() || std::thread::panicking(), "every test ends with check()");
    }
}
