//! How a key is named in an account: its ARN, which is its locator; its tags, which say whose it is; its alias, which points at it.
//!
//! In scope: both directions, purely. Out of scope: asking KMS.
//!
//! An alias may hold letters, digits, `/`, `_` and `-` alone, so the dots of a [`KeyName`] become slashes there.

use claviger_audit::names::KeyName;

use crate::keystore::KeystoreError;

/// The tag that says which key it is.
pub(super) const TAG_NAME: &str = "claviger:name";
/// The tag that says whose it is: the one that the policy in `deploy/aws/` looks at.
pub(super) const TAG_INSTALLATION: &str = "claviger:installation";
/// The tag by which costs can be told apart.
pub(super) const TAG_KEYRING: &str = "claviger:keyring";

/// What every alias of ours begins with.
const ALIASES: &str = "alias/claviger/";

/// Where a keystore's keys are: one account in one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) region: String,
    pub(super) account: String,
}

impl Site {
    /// The locator of one of our keys; anything else is refused before AWS is asked.
    pub(super) fn key(&self, arn: &str) -> Result<String, KeystoreError> {
        self.check(arn).map(|()| arn.to_owned()).map_err(KeystoreError::Rejected)
    }

    /// Whether this is the ARN of a key of this account and region: `arn:aws:kms:<region>:<account>:key/<id>`.
    pub(super) fn check(&self, arn: &str) -> Result<(), String> {
        let parts = arn.split(':').collect::<Vec<_>>();
        let [scheme, partition, service, region, account, resource] = parts[..] else {
            return Err(format!("{arn:?} is not the ARN of a KMS key"));
        };
        let id = resource.strip_prefix("key/").unwrap_or_default();
        let is_id = !id.is_empty() && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if scheme != "arn" || !partition.starts_with("aws") || service != "kms" || !is_id {
            return Err(format!("{arn:?} is not the ARN of a KMS key"));
        }
        if (region, account) != (self.region.as_str(), self.account.as_str()) {
            return Err(format!("{arn} is not in account {} and region {}", self.account, self.region));
        }
        Ok(())
    }
}

/// The alias of a key.
pub(super) fn alias(name: &KeyName) -> String {
    format!("{ALIASES}{}", name.as_str().replace('.', "/"))
}

/// The tags of a key, all of them.
pub(super) fn tags(name: &KeyName) -> [(&'static str, &str); 3] {
    [(TAG_INSTALLATION, name.installation()), (TAG_KEYRING, name.keyring()), (TAG_NAME, name.as_str())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_holds_only_what_an_alias_may() {
        let name = KeyName::new("prod", "access-tokens", 7, 0xab).unwrap();
        assert_eq!(alias(&name), "alias/claviger/prod/access-tokens/7-000000ab");
        assert_eq!(tags(&name).map(|(_, value)| value), ["prod", "access-tokens", "prod.access-tokens.7-000000ab"]);
    }

    #[test]
    fn only_keys_of_one_account_and_region_are_ours() {
        let site = Site { region: "eu-central-1".into(), account: "111122223333".into() };
        let id = "1234abcd-12ab-34cd-56ef-1234567890ab";
        for arn in [format!("arn:aws:kms:eu-central-1:111122223333:key/{id}"), format!("arn:aws-cn:kms:eu-central-1:111122223333:key/{id}")]
        {
            assert_eq!(site.check(&arn), Ok(()));
        }
        for arn in [
            format!("arn:aws:kms:eu-west-1:111122223333:key/{id}"),
            format!("arn:aws:kms:eu-central-1:444455556666:key/{id}"),
            format!("arn:aws:s3:eu-central-1:111122223333:key/{id}"),
            format!("arn:aws:kms:eu-central-1:111122223333:alias/{id}"),
            format!("arn:aws:kms:eu-central-1:111122223333:key/{id}:x"),
            "arn:aws:kms:eu-central-1:111122223333:key/".to_owned(),
            "arn:aws:kms:eu-central-1:111122223333:key/a b".to_owned(),
            id.to_owned(),
            String::new(),
        ] {
            assert!(site.check(&arn).is_err(), "{arn}");
            assert!(matches!(site.key(&arn), Err(KeystoreError::Rejected(_))), "{arn}");
        }
    }
}
