//! The same five rotations with keys in AWS KMS (on an emulator) and in a real Vault; and what Vault's own audit device says of the signatures,
//! held against the use log.
//!
//! In scope: the keyring's keys. The log keys stay in the token: what forges the log here has the token's PIN. Out of scope: faults of these
//! backends (`kms_faults`, `vault`), and every other way in which records may differ (the golden files of `claviger-audit`).

use std::fs;
use std::path::Path;
use std::sync::PoisonError;

use chrono::{DateTime, TimeDelta};
use serde_json::{Value, json};

use crate::harness::receipts::lines;
use crate::harness::{Place, Setup, on_softhsm, until};
use crate::vault::{MOUNT, Vault};
use crate::{ONE_LOAD, five_rotations_refuse_no_token};

#[cfg(feature = "aws-kms")]
#[test]
fn five_rotations_under_load_on_kms() {
    use crate::kms::{Kms, SECRET, TOKEN};

    let _alone = ONE_LOAD.lock().unwrap_or_else(PoisonError::into_inner);
    on_softhsm("backends::five_rotations_under_load_on_kms", |hsm| {
        let kms = Kms::account_of("backends::five_rotations_under_load_on_kms");
        let setup = Setup::new().keystore("kms", &kms.table(&kms.url())).secret(SECRET).secret(TOKEN);
        let setup = kms.environment().into_iter().fold(setup, |setup, (name, value)| setup.environment(name, value));
        five_rotations_refuse_no_token(hsm, setup, "kms", |_| ());
    });
}

#[test]
fn five_rotations_under_load_on_vault_and_its_audit_device_agrees() {
    let _alone = ONE_LOAD.lock().unwrap_or_else(PoisonError::into_inner);
    on_softhsm("backends::five_rotations_under_load_on_vault_and_its_audit_device_agrees", |hsm| {
        let vault = Vault::start(&["test"]);
        let setup = Setup::new().keystore("vault", &vault.table());
        let mut stolen = (String::new(), String::new());
        let place = five_rotations_refuse_no_token(hsm, setup, "vault", |place| stolen = sign_past_claviger(place, &vault));
        let (key, request) = stolen;

        let whole = fs::read_to_string(vault.audit_log()).expect("it audits");
        // What was signed in the last three minutes may still be on its way into the log, so the theft is moved to where it would be seen.
        let told: String = whole
            .lines()
            .flat_map(|line| [if line.contains(&request) { earlier(line) } else { line.to_owned() }, "\n".to_owned()])
            .collect();
        let (code, report) = reconciled(&place, &told);
        assert_eq!(code, 17, "{report}");
        assert!(report.contains(&key) && report.contains(&request), "{report}");

        let without = |left_out: &str, text: &str| -> String {
            text.lines().filter(|line| !line.contains(left_out)).flat_map(|line| [line, "\n"]).collect()
        };
        let honest = without(&request, &whole);
        let (code, report) = reconciled(&place, &honest);
        assert_eq!(code, 0, "{report}");

        let recorded = lines(&place, "uses").into_iter().find_map(|line| {
            let record: Value = serde_json::from_str(&line).expect("a record is JSON");
            record["backend_request"].as_str().filter(|_| record["event"] == "sign").map(str::to_owned)
        });
        let recorded = recorded.expect("a signature by Vault has its request id");
        let (code, report) = reconciled(&place, &without(&recorded, &honest));
        assert_eq!(code, 17, "{report}");
        assert!(report.contains(&recorded), "{report}");
    });
}

/// Somebody who may use the engine signs with a key of Claviger's: the key's name there, and the id of the request.
fn sign_past_claviger(place: &Place<'_>, vault: &Vault) -> (String, String) {
    let key = until("a key", || {
        let made = lines(place, "keys").into_iter().find(|line| line.contains("\"event\":\"key.created\""));
        let record: Value = serde_json::from_str(&made.ok_or("none yet")?).expect("a record is JSON");
        Ok(record["key"].as_str().expect("a name").to_owned())
    });
    let input = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let body = json!({ "input": input, "prehashed": true, "hash_algorithm": "sha2-256", "key_version": 1 });
    let answer = vault.must("POST", &format!("{MOUNT}/sign/{key}"), &body);
    (key, answer["request_id"].as_str().expect("an id").to_owned())
}

/// The entry of an audit device, ten minutes before.
fn earlier(line: &str) -> String {
    let mut entry: Value = serde_json::from_str(line).expect("an entry is JSON");
    let time = DateTime::parse_from_rfc3339(entry["time"].as_str().expect("a text")).expect("a time");
    entry["time"] = json!((time - TimeDelta::minutes(10)).to_rfc3339());
    entry.to_string()
}

/// The verdict with this text as the file of the audit device.
fn reconciled(place: &Place<'_>, audited: &str) -> (i32, String) {
    let file = place.root().join("audited.log");
    fs::write(&file, audited).expect("our own file");
    let (trust, heads) = (place.trust(), place.heads());
    let plain = |path: &Path| path.to_str().expect("a plain path").to_owned();
    let backend = format!("vault:{}", file.display());
    // The file is whole from its beginning to its end.
    let margin = ["--reconcile-margin", "0s"];
    place.verify(&[&["--trust", &plain(&trust), "--head", &plain(&heads), "--reconcile", &backend][..], &margin].concat())
}
