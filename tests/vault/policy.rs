//! What the shipped policy and setup script are worth, on the server that they are for.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use claviger::keystore::vault::VaultSettings;
use serde_json::json;

use super::*;

/// Everything that Claviger does it may do: the contract shows that. What it does not do, its token may not do either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_policy_does_not_grant_is_denied() {
    let vault = Vault::start(&[INSTALLATION]);
    let clock = clock();
    let keystore = opened(&vault, &clock).await;
    keystore.create(&name(1), Algorithm::ES256).await.expect("made");
    vault.must("POST", "transit/keys/other.vault.1-00000001", &json!({"type": "ecdsa-p256"}));
    let token = vault.token(INSTALLATION, json!({}));
    let key = name(1);
    for (method, path, body) in [
        ("GET", "transit/keys/other.vault.1-00000001".to_owned(), Value::Null),
        ("POST", "transit/keys/other.vault.2-00000001".to_owned(), json!({"type": "ecdsa-p256"})),
        ("POST", "transit/sign/other.vault.1-00000001".to_owned(), json!({"input": "AAAA"})),
        ("DELETE", "transit/keys/other.vault.1-00000001".to_owned(), Value::Null),
        ("POST", format!("transit/keys/{key}x"), json!({"type": "ecdsa-p256", "exportable": true})),
        ("POST", format!("transit/keys/{key}x"), json!({"type": "ecdsa-p256", "exportable": "true"})),
        ("POST", format!("transit/keys/{key}/config"), json!({"exportable": true})),
        ("POST", format!("transit/keys/{key}/config"), json!({"allow_plaintext_backup": true})),
        ("POST", format!("transit/keys/{key}/config"), json!({"auto_rotate_period": "1h"})),
        ("POST", format!("transit/keys/{key}/config"), json!({"min_encryption_version": 1})),
        ("POST", format!("transit/keys/{key}x/import"), json!({"type": "ecdsa-p256", "ciphertext": "AAAA"})),
        ("POST", format!("transit/sign/{key}"), json!({"batch_input": [{"input": "AAAA"}]})),
        ("GET", format!("transit/export/signing-key/{key}"), Value::Null),
        ("GET", format!("transit/backup/{key}"), Value::Null),
        ("POST", format!("transit/restore/{key}x"), json!({"backup": "AAAA"})),
        ("GET", "transit/wrapping_key".to_owned(), Value::Null),
        ("POST", "transit/cache-config".to_owned(), json!({"size": 0})),
        ("GET", "sys/mounts".to_owned(), Value::Null),
        ("PUT", "sys/seal".to_owned(), Value::Null),
        ("GET", "sys/policies/acl/claviger-special".to_owned(), Value::Null),
        ("GET", "auth/approle/role/test/role-id".to_owned(), Value::Null),
        ("POST", "auth/approle/role/test/secret-id".to_owned(), Value::Null),
        ("POST", "auth/token/create".to_owned(), json!({})),
    ] {
        let (status, answer) = vault.api_as(&token, method, &path, &body);
        assert_eq!(status, 403, "{method} {path} {body}: {answer}");
    }
    assert_eq!(keystore.permissions(INSTALLATION).await, Ok(Vec::new()), "and nothing is missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_permission_is_told_with_its_path() {
    let vault = Vault::start(&[INSTALLATION]);
    let clock = clock();
    let policy = r#"path "transit/keys/special.*" { capabilities = ["read"] }
                    path "sys/capabilities-self" { capabilities = ["update"] }"#;
    vault.must("PUT", "sys/policies/acl/too-little", &json!({"policy": policy}));
    let token = vault.token(INSTALLATION, json!({"policies": ["too-little", "default"], "no_default_policy": false}));
    let keystore = VaultKeystore::open(vault.settings_with_token(&token), clock.clone());
    healthy(&keystore).await;
    let error = keystore.create(&name(1), Algorithm::ES256).await.expect_err("denied").to_string();
    assert!(
        error.contains("\"update\" on transit/keys/special.vault.1-abadcafe") && error.contains("deploy/vault/claviger.hcl"),
        "{error}"
    );
    let error = keystore.inventory(INSTALLATION).await.expect_err("denied").to_string();
    assert!(error.contains("\"list\" on transit/keys"), "{error}");
    let told = keystore.permissions(INSTALLATION).await.expect("an answer");
    let paths = [
        "update, delete on transit/keys/special.",
        "update on transit/keys/special.doctor.1-00000000/config",
        "update on transit/sign/special.",
        "list on transit/keys,",
    ];
    assert_eq!(told.len(), paths.len(), "{told:#?}");
    for (told, path) in told.iter().zip(paths) {
        assert!(told.contains(path), "{told}");
    }
    let root = VaultKeystore::open(vault.settings_with_token(&vault.root_token), clock);
    let told = root.permissions(INSTALLATION).await.expect("an answer");
    assert!(told.len() == 1 && told[0].contains("root token"), "{told:?}");
}

/// A mount that is no transit engine, and a namespace that is not there, are no keys that are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_mount_is_no_lost_key() {
    let vault = Vault::start(&[INSTALLATION]);
    let clock = clock();
    let elsewhere = VaultSettings { mount: "elsewhere".parse().expect("a mount"), ..vault.settings_with_token(&vault.root_token) };
    let keystore = VaultKeystore::open(elsewhere, clock.clone());
    let error = keystore.create(&name(1), Algorithm::ES256).await.expect_err("nothing is there");
    assert!(matches!(&error, KeystoreError::Rejected(text) if text.contains("no handler for route")), "{error}");
    let locator = claviger::keystore::Locator::new(format!("elsewhere/{}/1", name(1)));
    let error = keystore.inspect(&locator).await.expect_err("nothing is there");
    assert!(matches!(error, KeystoreError::Rejected(_)), "{error}");
}

/// The script may be run again, keeps the secret id that is there, writes it for its owner alone, and prints settings that work.
#[test]
fn the_setup_script_may_be_repeated() {
    let vault = Vault::start(&[INSTALLATION]);
    let secret_id = vault.path("new-secret-id");
    let arguments =
        ["--installation", "twice", "--mount", "team/keys", "--auth", "machines", "--secret-id-file", secret_id.to_str().expect("a path")];
    let first = vault.set_up(&arguments);
    let content = fs::read_to_string(&secret_id).expect("written");
    assert_eq!(fs::metadata(&secret_id).expect("there").permissions().mode() & 0o777, 0o400);
    let second = vault.set_up(&arguments);
    assert_eq!(fs::read_to_string(&secret_id).expect("there"), content);
    assert!(second.contains("found the transit engine") && second.contains("left "), "{second}");
    let settings = |output: &str| {
        output.split_once("[keystore.vault]").map(|(_, settings)| settings.split("==>").next().unwrap_or_default().to_owned())
    };
    assert_eq!(settings(&first), settings(&second));
    for output in [&first, &second] {
        assert!(!output.contains(content.trim()) && !output.contains(&vault.root_token), "{output}");
    }
    let policy =
        vault.must("GET", "sys/policies/acl/claviger-twice", &Value::Null)["data"]["policy"].as_str().expect("a policy").to_owned();
    assert!(policy.contains("\"team/keys/sign/twice.*\"") && !policy.contains("prod.") && !policy.contains("\"transit"), "{policy}");
}

#[test]
fn the_setup_script_says_what_is_wrong() {
    let vault = Vault::start(&[INSTALLATION]);
    let file = vault.path("unused").display().to_string();
    let run = |more: &[&str]| vault.run_setup(&[&["--secret-id-file", file.as_str()], more].concat());
    for (more, code, text) in [
        (&["--installation", "Prod"][..], 64, "--installation"),
        (&["--mount", "a b"], 64, "is not a path"),
        (&["--nonsense"], 64, "unknown argument"),
        (&["--mount", "sys"], 78, "answered 4"),
    ] {
        let (found, output) = run(more);
        assert!(found == code && output.contains(text), "{more:?}: {found} {output}");
    }
    vault.write_secret("admin-token", &vault.token(INSTALLATION, json!({})));
    let (code, output) = run(&[]);
    assert!(code == 77 && output.contains("is not permitted to this token"), "{code} {output}");
    vault.seal();
    let (code, output) = run(&[]);
    assert!(code == 69 && output.contains("sealed"), "{code} {output}");
    vault.stop();
    let (code, output) = run(&[]);
    assert!(code == 69 && output.contains("no answer"), "{code} {output}");
}
