//! Logins and their ends: renewal, the end of all renewals, new secrets, revoked tokens, refused credentials.

use std::fs;

use claviger::keystore::vault::VaultLogin;
use claviger::secret::SecretFile;
use serde_json::json;

use super::*;
use crate::support::wait::until;

/// Until so many requests on a path were carried out.
fn until_audited(vault: &Vault, path: &str, count: usize) {
    until(path, || match audited(vault, path).len() {
        found if found >= count => Ok(()),
        found => Err(format!("{found} of {count}")),
    });
}

/// How often somebody logged in, or tried to, as the audit file has it.
fn attempts(vault: &Vault) -> usize {
    let tried = |entry: &Value| entry["type"] == "request" && entry["request"]["path"] == "auth/approle/login";
    vault.audited().iter().filter(|entry| tried(entry)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_renewed_in_time_and_replaced_before_its_end() {
    let vault = Vault::start(&[INSTALLATION]);
    let clock = clock();
    vault.must("POST", "auth/approle/role/test", &json!({"token_ttl": "6s", "token_max_ttl": "13s"}));
    let keystore = opened(&vault, &clock).await;
    let made = keystore.create(&name(1), Algorithm::ES256).await.expect("made");
    until_audited(&vault, "auth/token/renew-self", 2);
    signed(&keystore, &clock, &made, b"renewed").await.expect("signed");
    until_audited(&vault, "auth/approle/login", 3);
    signed(&keystore, &clock, &made, b"replaced").await.expect("signed");
    assert_eq!(keystore.condition().reopened.logins, 0, "nobody noticed");
}

/// A batch token cannot be renewed: it is replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_cannot_be_renewed_is_replaced() {
    let vault = Vault::start(&[INSTALLATION]);
    let clock = clock();
    vault.must("POST", "auth/approle/role/test", &json!({"token_ttl": "3s", "token_type": "batch"}));
    let keystore = opened(&vault, &clock).await;
    until_audited(&vault, "auth/approle/login", 3);
    keystore.create(&name(1), Algorithm::ES256).await.expect("made");
    assert_eq!(audited(&vault, "auth/token/renew-self").len(), 0);
}

/// Secrets are read at each login: a new secret id needs no restart, and the old one may go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_secret_id_is_taken_up_without_a_restart() {
    let vault = Vault::start(&[INSTALLATION]);
    let clock = clock();
    let keystore = opened(&vault, &clock).await;
    let made = keystore.create(&name(1), Algorithm::ES256).await.expect("made");
    let old = fs::read_to_string(vault.secret_id_file()).expect("our own file");
    vault.new_secret_id();
    vault.must("POST", "auth/approle/role/test/secret-id/destroy", &json!({"secret_id": old.trim()}));
    revoke_all(&vault);
    signed(&keystore, &clock, &made, b"x").await.expect("signed with a token by the new secret id");
    let reopened = keystore.condition().reopened;
    assert_eq!((reopened.logins, reopened.cause.as_str()), (1, "the token was denied"));
}

/// Every token that AppRole gave.
fn revoke_all(vault: &Vault) {
    vault.must("PUT", "sys/leases/revoke-prefix/auth/approle", &Value::Null);
}

/// Each denial costs one login, and only if the one before helped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_costs_one_login() {
    let vault = Vault::start(&[INSTALLATION]);
    let clock = clock();
    let keystore = Arc::new(opened(&vault, &clock).await);
    let made = keystore.create(&name(1), Algorithm::ES256).await.expect("made");
    for round in 1..=3 {
        revoke_all(&vault);
        let caller = |_| {
            let (keystore, clock, made) = (keystore.clone(), clock.clone(), made.clone());
            tokio::spawn(async move { signed(&keystore, &clock, &made, b"x").await.map(drop) })
        };
        for caller in (0..8).map(caller).collect::<Vec<_>>() {
            caller.await.expect("it ends").expect("signed");
        }
        assert_eq!((attempts(&vault), keystore.condition().reopened.logins), (1 + round, round as u64), "one login for all callers");
    }
    // A policy that grants less is no lost token: after one vain login it is told, and not tried again for each signature.
    let policy = r#"path "transit/keys/special.*" { capabilities = ["read"] }"#;
    vault.must("PUT", "sys/policies/acl/claviger-special", &json!({"policy": policy}));
    for _ in 0..10 {
        let error = signed(&keystore, &clock, &made, b"x").await.expect_err("denied");
        assert!(
            matches!(&error, KeystoreError::Rejected(text) if text.contains("\"update\" on transit/sign/special.vault.1-abadcafe")),
            "{error}"
        );
    }
    assert!((5..=6).contains(&attempts(&vault)), "one in vain, or two where this takes more than five seconds: {}", attempts(&vault));
}

/// A refused credential is tried once, told without its value, and the next one in the file is taken up by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_credential_is_tried_once() {
    let vault = Vault::start(&[INSTALLATION]);
    let clock = clock();
    let right = fs::read_to_string(vault.secret_id_file()).expect("our own file");
    let wrong = "0bad0bad-0bad-0bad-0bad-0bad0bad0bad";
    vault.write_secret("secret-id", wrong);
    let keystore = vault.open(clock.clone());
    for _ in 0..20 {
        let error = keystore.health().await.expect_err("refused");
        let KeystoreError::Rejected(text) = &error else { panic!("{error}") };
        assert!(text.contains("refuses the login at auth/approle") && text.contains("secret-id") && !text.contains(wrong), "{text}");
    }
    assert_eq!(attempts(&vault), 1, "more would lock the role out");
    vault.write_secret("secret-id", right.trim());
    healthy(&keystore).await;
    keystore.create(&name(1), Algorithm::ES256).await.expect("made");
    assert_eq!(attempts(&vault), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_somebody_else_is_used_renewed_and_replaced() {
    let vault = Vault::start(&[INSTALLATION]);
    let clock = clock();
    let token = vault.token(INSTALLATION, json!({"ttl": "3s", "renewable": true}));
    let keystore = VaultKeystore::open(vault.settings_with_token(&token), clock.clone());
    healthy(&keystore).await;
    let made = keystore.create(&name(1), Algorithm::ES256).await.expect("made");
    until_audited(&vault, "auth/token/renew-self", 2);
    // Revoked: told as what it is, with the file that wants another one.
    vault.must("POST", "auth/token/revoke", &json!({"token": token}));
    let _ = signed(&keystore, &clock, &made, b"x").await.expect_err("denied");
    let error = keystore.health().await.expect_err("its token is dead");
    let KeystoreError::Rejected(text) = &error else { panic!("{error}") };
    assert!(text.contains("refuses the token in") && text.contains("write a new token into the file") && !text.contains(&token), "{text}");
    vault.write_secret("token", &vault.token(INSTALLATION, json!({"ttl": "1h"})));
    healthy(&keystore).await;
    signed(&keystore, &clock, &made, b"x").await.expect("signed");
}

/// Secrets that cannot be read, and methods that are not there, are told as such.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_login_is_told() {
    let vault = Vault::start(&[INSTALLATION]);
    let clock = clock();
    let with = |login: VaultLogin| {
        let settings = claviger::keystore::vault::VaultSettings { login, ..vault.settings() };
        VaultKeystore::open(settings, clock.clone())
    };
    let approle = |mount: &str, role_id: &str, file: &str| VaultLogin::AppRole {
        mount: mount.parse().expect("a mount"),
        role_id: role_id.to_owned(),
        secret_id: SecretFile::new(vault.path(file), None),
    };
    vault.write_secret("strange", "two words");
    for (login, told) in [
        (approle("approle", "no-such-role", "secret-id"), "auth/approle: invalid role "),
        (approle("elsewhere", &vault.role_id, "secret-id"), "elsewhere"),
        (approle("approle", &vault.role_id, "no-such-file"), "no-such-file cannot be read"),
        (VaultLogin::Token { token: SecretFile::new(vault.path("strange"), None) }, "other characters than those of a token"),
    ] {
        let error = with(login).health().await.expect_err("refused");
        assert!(matches!(&error, KeystoreError::Rejected(text) if text.contains(told)), "{error}");
    }
}
