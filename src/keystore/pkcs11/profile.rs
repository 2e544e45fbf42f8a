//! What devices are known not to tell of a key, as data. Pure.
//!
//! In scope: profiles by name, and what an operator may add to one. Out of scope: judging a key (`admission.rs`), making one (`objects.rs`).
//!
//! A profile forgives that an attribute is missing; it never forgives a wrong value. Nor does it say what the adapter finds out by itself:
//! which of these attributes a template may hold, which form of a curve's name is understood (`objects.rs` tries), and whether there are
//! read-only sessions (`worker.rs` tries). So a profile takes nothing away from a device that can do more.
//!
//! No profile is needed for SoftHSM 2.6, for opencryptoki from 3.16 on (its `template.c` gives every object all of them), and for the YubiHSM 2
//! (yubihsm-shell 2.8, `pkcs11/util_pkcs11.c`: every attribute is told, and false is accepted for all that must be false). No profile can help
//! where a value is wrong: AWS CloudHSM keys are modifiable always (user guide, table of attributes, note 1: only the default may be set), and
//! NSS softoken 3.87 tells that keys which it made are not local (seen on Debian 12). Of Luna and nShield it is not known what they omit.

use std::collections::BTreeSet;
use std::fmt;

/// The attributes that may be missing, and be left out when a key is made. What they say is how else a key can be used, or whether it can be
/// changed: by PKCS#11 v3.1 section 4.9 none of that makes a sensitive key readable or an unextractable one extractable, and had either ever
/// been otherwise, `always-sensitive` and `never-extractable` would tell. All others must be told by every device, whatever anybody says:
/// `sensitive`, `always-sensitive`, `extractable`, `never-extractable` and `local`, or the key could be known outside; `token` and `private`,
/// or it could vanish, or be used without a login; `sign`, since it is what the key is for.
const MAY_BE_MISSING: [&str; 6] = ["sign-recover", "decrypt", "unwrap", "derive", "copyable", "modifiable"];

/// Every profile: its name, and what the device omits.
const PROFILES: [(&str, &[&str]); 2] = [
    ("strict", &[]),
    // CKA_COPYABLE came with 3.16 (March 2021): `usr/lib/common/template.c` of 3.15.1 does not know it. The soft token of 3.8.1 (Debian 12)
    // answers CKR_ATTRIBUTE_TYPE_INVALID to a template with it and to the question for it, and tells all others rightly (seen). Before 3.11
    // a token tells its time in a form of its own, and cryptoki cannot read it at all.
    ("opencryptoki-before-3.16", &["copyable"]),
];

/// What a keystore's device is allowed not to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceProfile {
    name: &'static str,
    omits: BTreeSet<&'static str>,
}

impl Default for DeviceProfile {
    /// The profile `strict`: everything is told.
    fn default() -> Self {
        Self { name: PROFILES[0].0, omits: BTreeSet::new() }
    }
}

impl DeviceProfile {
    /// The profile of this name.
    pub fn named(name: &str) -> Option<Self> {
        let (name, omits) = PROFILES.into_iter().find(|(known, _)| *known == name)?;
        Some(Self { name, omits: omits.iter().copied().collect() })
    }

    /// The names of all profiles.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PROFILES.into_iter().map(|(name, _)| name)
    }

    /// The attributes that an operator may say are missing.
    pub fn omittable() -> impl Iterator<Item = &'static str> {
        MAY_BE_MISSING.into_iter()
    }

    /// This profile, and one more attribute that may be missing; `None` if that one never may.
    #[must_use]
    pub fn omitting(mut self, attribute: &str) -> Option<Self> {
        self.omits.insert(Self::omittable().find(|known| *known == attribute)?);
        Some(self)
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What may be missing, sorted.
    pub fn omits(&self) -> impl Iterator<Item = &'static str> {
        self.omits.iter().copied()
    }

    /// Whether this attribute may be missing.
    pub(super) fn may_omit(&self, attribute: &str) -> bool {
        self.omits.contains(attribute)
    }
}

impl fmt::Display for DeviceProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "profile {}", self.name)?;
        let omits = self.omits().collect::<Vec<_>>().join(", ");
        if omits.is_empty() { Ok(()) } else { write!(f, ", {omits} may be missing") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keystore::pkcs11::admission;

    #[test]
    fn every_profile_keeps_to_what_may_be_missing() {
        let names: BTreeSet<&str> = DeviceProfile::names().collect();
        assert_eq!(names.len(), PROFILES.len(), "each name once");
        assert_eq!(DeviceProfile::named("strict"), Some(DeviceProfile::default()));
        assert_eq!(DeviceProfile::named("Strict"), None);
        for name in names {
            let profile = DeviceProfile::named(name).unwrap();
            for attribute in profile.omits() {
                assert!(MAY_BE_MISSING.contains(&attribute), "{name}: {attribute}");
            }
        }
    }

    #[test]
    fn what_keeps_a_key_in_its_token_may_never_be_missing() {
        let required: Vec<&str> = admission::attributes_to_read().into_iter().filter_map(admission::name).collect();
        let never: Vec<&str> = required.iter().copied().filter(|name| DeviceProfile::default().omitting(name).is_none()).collect();
        assert_eq!(never, ["token", "private", "sensitive", "always-sensitive", "extractable", "never-extractable", "local", "sign"]);
        assert!(MAY_BE_MISSING.iter().all(|name| required.contains(name)), "each is asked for");
        assert_eq!(DeviceProfile::default().omitting("always-authenticate"), None);
    }

    #[test]
    fn a_profile_says_what_may_be_missing() {
        assert_eq!(DeviceProfile::default().to_string(), "profile strict");
        let more = DeviceProfile::named("opencryptoki-before-3.16").unwrap().omitting("modifiable").unwrap();
        assert_eq!(more.to_string(), "profile opencryptoki-before-3.16, copyable, modifiable may be missing");
        assert!(more.may_omit("copyable") && more.may_omit("modifiable") && !more.may_omit("decrypt"));
    }
}
