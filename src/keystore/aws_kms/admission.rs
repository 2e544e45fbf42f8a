//! Which KMS keys may be used. Pure: what KMS reports of a key goes in, the record or every reason against goes out.
//!
//! In scope: keys that were made in KMS, in one region, for signing alone, and that carry our tags. Out of scope: asking KMS, the public key,
//! and key policies: who may use a key past Claviger is the account's own business (see `deploy/aws/README.md`).

use std::collections::BTreeMap;

use aws_sdk_kms::types::{KeyMetadata, KeySpec, KeyState};
use claviger_audit::names::KeyName;

use super::names::{Site, TAG_INSTALLATION, TAG_KEYRING, TAG_NAME};

/// What is read of a key, under the names of its record.
pub(super) type Facts = BTreeMap<String, Option<String>>;

const ORIGIN: &str = "origin";
const USAGE: &str = "key-usage";
const SPEC: &str = "key-spec";
const MANAGER: &str = "key-manager";
const MULTI_REGION: &str = "multi-region";
const STATE: &str = "key-state";

/// The tags whose values are recorded, and the names under which they are.
const TAGS: [(&str, &str); 3] = [("tag-installation", TAG_INSTALLATION), ("tag-keyring", TAG_KEYRING), ("tag-name", TAG_NAME)];

/// Everything that [`admit`] looks at, as KMS reports it (`DescribeKey`, `ListResourceTags`).
pub(super) fn facts(metadata: &KeyMetadata, tags: &BTreeMap<String, String>) -> Facts {
    let own = [
        (ORIGIN, metadata.origin().map(|origin| origin.as_str().to_owned())),
        (USAGE, metadata.key_usage().map(|usage| usage.as_str().to_owned())),
        (SPEC, metadata.key_spec().map(|spec| spec.as_str().to_owned())),
        (MANAGER, metadata.key_manager().map(|manager| manager.as_str().to_owned())),
        (MULTI_REGION, metadata.multi_region().as_ref().map(ToString::to_string)),
        (STATE, metadata.key_state().map(|state| state.as_str().to_owned())),
    ];
    let tagged = TAGS.iter().map(|(name, tag)| (*name, tags.get(*tag).cloned()));
    own.into_iter().chain(tagged).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Admits a key of this name and spec, and says what was read; or says everything that is wrong with it. What KMS does not report is wrong.
pub(super) fn admit(
    arn: &str,
    facts: &Facts,
    name: &KeyName,
    spec: &KeySpec,
    site: &Site,
) -> Result<BTreeMap<String, String>, Vec<String>> {
    let wanted = [
        (ORIGIN, "AWS_KMS"),
        (USAGE, "SIGN_VERIFY"),
        (SPEC, spec.as_str()),
        (MANAGER, "CUSTOMER"),
        (MULTI_REGION, "false"),
        (STATE, "Enabled"),
        ("tag-installation", name.installation()),
        ("tag-keyring", name.keyring()),
        ("tag-name", name.as_str()),
    ];
    let mut reasons: Vec<String> = site.check(arn).err().into_iter().collect();
    let mut record = BTreeMap::new();
    for (fact, wanted) in wanted {
        match facts.get(fact).and_then(Option::as_deref) {
            Some(found) if found == wanted => drop(record.insert(fact.to_owned(), found.to_owned())),
            Some(found) => reasons.push(format!("{fact} is {found}, must be {wanted}")),
            None => reasons.push(format!("{fact} is not reported, must be {wanted}")),
        }
    }
    if reasons.is_empty() { Ok(record) } else { Err(reasons) }
}

/// Whether the key is destroyed as far as Claviger is concerned: nobody can sign with it, but for an operator who cancels its deletion.
pub(super) fn is_dead(metadata: &KeyMetadata) -> bool {
    matches!(metadata.key_state(), Some(KeyState::PendingDeletion | KeyState::PendingReplicaDeletion))
}

#[cfg(test)]
mod tests {
    use aws_sdk_kms::types::{KeyManagerType, KeyUsageType, OriginType};

    use super::*;

    const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd";

    fn good() -> aws_sdk_kms::types::builders::KeyMetadataBuilder {
        KeyMetadata::builder()
            .key_id("1234abcd")
            .origin(OriginType::AwsKms)
            .key_usage(KeyUsageType::SignVerify)
            .key_spec(KeySpec::EccNistP256)
            .key_manager(KeyManagerType::Customer)
            .multi_region(false)
            .key_state(KeyState::Enabled)
    }

    fn judged(metadata: KeyMetadata, tags: &[(&str, &str)]) -> Result<BTreeMap<String, String>, Vec<String>> {
        let name = KeyName::new("prod", "access", 1, 7).unwrap();
        let tags = tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let site = Site { region: "eu-central-1".into(), account: "111122223333".into() };
        admit(ARN, &facts(&metadata, &tags), &name, &KeySpec::EccNistP256, &site)
    }

    const TAGGED: [(&str, &str); 3] = [(TAG_INSTALLATION, "prod"), (TAG_KEYRING, "access"), (TAG_NAME, "prod.access.1-00000007")];

    #[test]
    fn a_key_that_was_made_here_to_sign_is_admitted_with_a_record() {
        let record = judged(good().build().unwrap(), &TAGGED).unwrap();
        assert_eq!(record.len(), 9);
        assert_eq!(record["origin"], "AWS_KMS");
        assert_eq!(record["tag-name"], "prod.access.1-00000007");
    }

    #[test]
    fn every_reason_against_a_key_is_told() {
        let one = |metadata: aws_sdk_kms::types::builders::KeyMetadataBuilder| judged(metadata.build().unwrap(), &TAGGED).unwrap_err();
        assert_eq!(one(good().origin(OriginType::External)), ["origin is EXTERNAL, must be AWS_KMS"]);
        assert_eq!(one(good().origin(OriginType::AwsCloudhsm)), ["origin is AWS_CLOUDHSM, must be AWS_KMS"]);
        assert_eq!(one(good().key_usage(KeyUsageType::KeyAgreement)), ["key-usage is KEY_AGREEMENT, must be SIGN_VERIFY"]);
        assert_eq!(one(good().key_spec(KeySpec::EccNistP384)), ["key-spec is ECC_NIST_P384, must be ECC_NIST_P256"]);
        assert_eq!(one(good().key_manager(KeyManagerType::Aws)), ["key-manager is AWS, must be CUSTOMER"]);
        assert_eq!(one(good().multi_region(true)), ["multi-region is true, must be false"]);
        assert_eq!(one(good().set_multi_region(None)), ["multi-region is not reported, must be false"]);
        assert_eq!(one(good().key_state(KeyState::Disabled)), ["key-state is Disabled, must be Enabled"]);
        assert_eq!(one(good().key_state(KeyState::PendingDeletion)), ["key-state is PendingDeletion, must be Enabled"]);
        let untagged = judged(good().build().unwrap(), &TAGGED[..2]).unwrap_err();
        assert_eq!(untagged, ["tag-name is not reported, must be prod.access.1-00000007"]);
        let other = judged(good().build().unwrap(), &[TAGGED[0], TAGGED[1], (TAG_NAME, "prod.access.2-00000007")]).unwrap_err();
        assert_eq!(other, ["tag-name is prod.access.2-00000007, must be prod.access.1-00000007"]);
        let all = judged(KeyMetadata::builder().key_id("x").build().unwrap(), &[]).unwrap_err();
        assert_eq!(all.len(), 9, "{all:?}");
    }
}
