//! Which keys may be used. Pure: the settings that the server reports go in, the record or every reason against goes out.
//!
//! In scope: keys that were made in this server, whose material was never outside, which have one version and change by no one's clock, and
//! the public half at that version. Out of scope: reading them, and who may change them (the policy in deploy/vault).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_audit::algorithm::KeyShape;
use claviger_audit::jwk::PublicKey;
use serde_json::Value;

use super::address::VERSION;
use super::api::{KeyFacts, type_name};
use crate::keystore::spki;

/// What a key must report: the name in records, the name in the API, and the one value that is admitted. A missing one is a reason to refuse.
const REQUIRED: [(&str, &str, &str); 9] = [
    ("exportable", "exportable", "false"),
    ("allow-plaintext-backup", "allow_plaintext_backup", "false"),
    ("auto-rotate-period", "auto_rotate_period", "0"),
    ("imported", "imported_key", "false"),
    ("derived", "derived", "false"),
    ("deletion-allowed", "deletion_allowed", "false"),
    ("latest-version", "latest_version", "1"),
    ("min-available-version", "min_available_version", "0"),
    ("supports-signing", "supports_signing", "true"),
];
/// The name of the type in records, which depends on the algorithm.
const TYPE: &str = "type";
/// What is there only after the material left the server, or came from outside: a plaintext backup, or its restoration. In OpenBao, a key
/// that was put aside says so with a `true`.
const FORBIDDEN: [(&str, &str); 3] = [("backup", "backup_info"), ("restored", "restore_info"), ("soft-deleted", "soft_deleted")];

/// Admits a key with these settings for this kind of algorithm, and says what was read; or says everything that is wrong with it.
pub(super) fn admit(facts: &KeyFacts, shape: KeyShape) -> Result<BTreeMap<String, String>, Vec<String>> {
    let required = REQUIRED.into_iter().chain([(TYPE, TYPE, type_name(shape))]);
    let (mut record, mut reasons) = (BTreeMap::new(), Vec::new());
    for (name, member, wanted) in required {
        match told(facts, member) {
            Some(found) if found == wanted => drop(record.insert(name.to_owned(), found)),
            Some(found) => reasons.push(format!("{name} is {found}, must be {wanted}")),
            None => reasons.push(format!("{name} is not reported, must be {wanted}")),
        }
    }
    reasons.extend(
        FORBIDDEN.into_iter().filter(|(_, member)| stands(facts, member)).map(|(name, _)| format!("it has {name}, must have none")),
    );
    for (name, _) in FORBIDDEN {
        record.insert(name.to_owned(), "false".to_owned());
    }
    if reasons.is_empty() { Ok(record) } else { Err(reasons) }
}

/// What is reported of everything that [`admit`] reads, by the names of its record.
pub(super) fn reported(facts: &KeyFacts) -> BTreeMap<String, Option<String>> {
    let members = REQUIRED.into_iter().map(|(name, member, _)| (name, member)).chain([(TYPE, TYPE)]);
    let required = members.map(|(name, member)| (name.to_owned(), told(facts, member)));
    let forbidden = FORBIDDEN.into_iter().map(|(name, member)| (name.to_owned(), Some(stands(facts, member).to_string())));
    required.chain(forbidden).collect()
}

/// The kind of a key by its type, if it is one that Claviger makes.
pub(super) fn shape(facts: &KeyFacts) -> Option<KeyShape> {
    let name = told(facts, TYPE)?;
    let shapes = [KeyShape::P256, KeyShape::P384, KeyShape::P521, KeyShape::Rsa, KeyShape::Ed25519];
    shapes.into_iter().find(|shape| type_name(*shape) == name)
}

/// The public half at the one version: PEM, or for Ed25519 the bare 32 bytes in base64.
pub(super) fn public_key(facts: &KeyFacts) -> Result<PublicKey, String> {
    let version = facts.get("keys").and_then(|keys| keys.get(VERSION.to_string()));
    let text = version.and_then(|version| version.get("public_key")?.as_str()).ok_or("it has no public half at version 1")?;
    if text.contains("-----BEGIN") {
        return spki::from_pem(text).map_err(|error| error.to_string());
    }
    let raw: Option<[u8; 32]> = STANDARD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
    raw.map(|raw| PublicKey::from_ed25519(&raw)).ok_or_else(|| "its public half is neither PEM nor 32 bytes in base64".to_owned())
}

/// Whether a member is there that should not be.
fn stands(facts: &KeyFacts, member: &str) -> bool {
    facts.get(member).is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)))
}

/// A setting as text; numbers may come as such or in quotes.
fn told(facts: &KeyFacts, member: &str) -> Option<String> {
    match facts.get(member)? {
        Value::String(text) => Some(text.clone()),
        Value::Null => None,
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> KeyFacts {
        let facts = json!({
            "type": "ecdsa-p256", "exportable": false, "allow_plaintext_backup": false, "auto_rotate_period": 0, "imported_key": false,
            "derived": false, "deletion_allowed": false, "latest_version": 1, "min_available_version": 0, "supports_signing": true,
            "soft_deleted": false, "min_decryption_version": 1, "something_new": {"a": 1},
        });
        facts.as_object().unwrap().clone()
    }

    #[test]
    fn a_key_that_can_only_sign_is_admitted_and_recorded() {
        let record = admit(&good(), KeyShape::P256).unwrap();
        assert_eq!(record.len(), REQUIRED.len() + 1 + FORBIDDEN.len());
        assert_eq!((record["exportable"].as_str(), record["type"].as_str()), ("false", "ecdsa-p256"));
        let reported = reported(&good());
        assert_eq!(reported, record.into_iter().map(|(name, value)| (name, Some(value))).collect());
        assert_eq!(admit(&good(), KeyShape::Rsa).unwrap_err(), ["type is ecdsa-p256, must be rsa-2048"]);
    }

    #[test]
    fn each_setting_that_is_wrong_or_missing_is_a_reason() {
        for (name, member, wanted) in REQUIRED {
            let mut facts = good();
            facts.remove(member);
            assert_eq!(admit(&facts, KeyShape::P256).unwrap_err(), [format!("{name} is not reported, must be {wanted}")]);
            assert_eq!(reported(&facts)[name], None);
            facts.insert(member.to_owned(), json!(2));
            assert_eq!(admit(&facts, KeyShape::P256).unwrap_err(), [format!("{name} is 2, must be {wanted}")]);
            assert_eq!(reported(&facts)[name].as_deref(), Some("2"));
        }
        for (name, member) in FORBIDDEN {
            let mut facts = good();
            facts.insert(member.to_owned(), json!({"time": "2026-01-01T00:00:00Z", "version": 1}));
            assert_eq!(admit(&facts, KeyShape::P256).unwrap_err(), [format!("it has {name}, must have none")]);
            assert_eq!(reported(&facts)[name].as_deref(), Some("true"));
        }
        assert_eq!(admit(&KeyFacts::new(), KeyShape::P256).unwrap_err().len(), REQUIRED.len() + 1);
    }

    #[test]
    fn a_public_half_is_pem_or_bare() {
        let with = |text: Value| {
            let mut facts = good();
            facts.insert("keys".to_owned(), json!({"1": {"public_key": text}}));
            public_key(&facts)
        };
        let raw = STANDARD.encode([7; 32]);
        assert_eq!(with(json!(raw)), Ok(PublicKey::from_ed25519(&[7; 32])));
        for bad in [json!(""), json!("AAAA"), json!("-----BEGIN PUBLIC KEY-----"), json!(null), json!(1_700_000_000)] {
            assert!(with(bad.clone()).is_err(), "{bad}");
        }
        assert!(public_key(&good()).is_err());
    }
}
