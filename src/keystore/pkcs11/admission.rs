//! Which private keys may be used. Pure: the attributes that a token reports go in, the record or every reason against goes out.
//!
//! In scope: keys that were made in this token and can do nothing but sign there. Out of scope: reading attributes, destroying keys, and
//! which device may omit what (`profile.rs`).

use std::collections::BTreeMap;

use cryptoki::object::{Attribute, AttributeType};

use super::profile::DeviceProfile;

/// What the record says of an attribute that the device does not tell.
const NOT_REPORTED: &str = "not-reported";

/// What a private key must report (PKCS#11 v3.1 sections 4.7 to 4.9). A missing attribute is a reason to refuse, unless the profile of the
/// device says that it is never told; a wrong one always is.
const REQUIRED: [(AttributeType, &str, bool); 14] = [
    (AttributeType::Token, "token", true),
    (AttributeType::Private, "private", true),
    (AttributeType::Sensitive, "sensitive", true),
    (AttributeType::AlwaysSensitive, "always-sensitive", true),
    (AttributeType::Extractable, "extractable", false),
    (AttributeType::NeverExtractable, "never-extractable", true),
    (AttributeType::Local, "local", true),
    (AttributeType::Sign, "sign", true),
    (AttributeType::SignRecover, "sign-recover", false),
    (AttributeType::Decrypt, "decrypt", false),
    (AttributeType::Unwrap, "unwrap", false),
    (AttributeType::Derive, "derive", false),
    (AttributeType::Copyable, "copyable", false),
    (AttributeType::Modifiable, "modifiable", false),
];

/// The name of the one attribute that may be missing.
const ALWAYS_AUTHENTICATE: &str = "always-authenticate";

/// What must be read for [`admit`].
pub(super) fn attributes_to_read() -> Vec<AttributeType> {
    let always_authenticate = std::iter::once(AttributeType::AlwaysAuthenticate);
    REQUIRED.iter().map(|(attribute, ..)| *attribute).chain(always_authenticate).collect()
}

/// The name of an attribute in records, profiles and messages.
pub(super) fn name(kind: AttributeType) -> Option<&'static str> {
    REQUIRED.into_iter().find(|(known, ..)| *known == kind).map(|(_, name, _)| name)
}

/// One attribute as admission sees it.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) wanted: bool,
    /// `None` if the token does not report it.
    pub(super) found: Option<bool>,
    pub(super) admitted: bool,
}

/// Everything that [`admit`] looks at, one by one.
pub(super) fn table(attributes: &[Attribute]) -> Vec<Row> {
    let required = REQUIRED.into_iter().map(|(kind, name, wanted)| {
        let found = value(attributes, kind);
        Row { name, wanted, found, admitted: found == Some(wanted) }
    });
    let found = value(attributes, AttributeType::AlwaysAuthenticate);
    let always_authenticate = Row { name: "always-authenticate", wanted: false, found, admitted: found != Some(true) };
    required.chain(std::iter::once(always_authenticate)).collect()
}

/// Admits a private key with these attributes, and says what was read; or says everything that is wrong with it.
pub(super) fn admit(attributes: &[Attribute], profile: &DeviceProfile) -> Result<BTreeMap<String, String>, Vec<String>> {
    let mut record = BTreeMap::new();
    let mut reasons = Vec::new();
    for (kind, name, required) in REQUIRED {
        match value(attributes, kind) {
            Some(found) if found == required => drop(record.insert(name.to_owned(), found.to_string())),
            Some(found) => reasons.push(format!("{name} is {found}, must be {required}")),
            None if profile.may_omit(name) => drop(record.insert(name.to_owned(), NOT_REPORTED.to_owned())),
            None => reasons.push(format!("{name} is not reported, must be {required}")),
        }
    }
    // A key that asks for the PIN at each use cannot serve. Tokens without this attribute never ask (its default is false).
    match value(attributes, AttributeType::AlwaysAuthenticate) {
        Some(true) => reasons.push(format!("{ALWAYS_AUTHENTICATE} is true, must be false")),
        Some(false) => drop(record.insert(ALWAYS_AUTHENTICATE.to_owned(), false.to_string())),
        None => {}
    }
    if reasons.is_empty() { Ok(record) } else { Err(reasons) }
}

/// What is reported of everything that [`admit`] reads, by the names of its record.
pub(super) fn reported(attributes: &[Attribute]) -> BTreeMap<String, Option<String>> {
    let required = REQUIRED.iter().map(|(kind, name, _)| (*kind, *name));
    let read = required.chain([(AttributeType::AlwaysAuthenticate, ALWAYS_AUTHENTICATE)]);
    read.map(|(kind, name)| (name.to_owned(), value(attributes, kind).map(|value| value.to_string()))).collect()
}

fn value(attributes: &[Attribute], kind: AttributeType) -> Option<bool> {
    use Attribute as A;
    attributes.iter().filter(|attribute| attribute.attribute_type() == kind).find_map(|attribute| match attribute {
        A::Token(v)
        | A::Private(v)
        | A::Sensitive(v)
        | A::AlwaysSensitive(v)
        | A::Extractable(v)
        | A::NeverExtractable(v)
        | A::Local(v)
        | A::Sign(v)
        | A::SignRecover(v)
        | A::Decrypt(v)
        | A::Unwrap(v)
        | A::Derive(v)
        | A::Copyable(v)
        | A::Modifiable(v)
        | A::AlwaysAuthenticate(v) => Some(*v),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(attributes: &[Attribute]) -> Result<BTreeMap<String, String>, Vec<String>> {
        super::admit(attributes, &DeviceProfile::default())
    }

    fn good() -> Vec<Attribute> {
        use Attribute as A;
        vec![
            A::Token(true),
            A::Private(true),
            A::Sensitive(true),
            A::AlwaysSensitive(true),
            A::Extractable(false),
            A::NeverExtractable(true),
            A::Local(true),
            A::Sign(true),
            A::SignRecover(false),
            A::Decrypt(false),
            A::Unwrap(false),
            A::Derive(false),
            A::Copyable(false),
            A::Modifiable(false),
        ]
    }

    #[test]
    fn a_key_that_can_only_sign_is_admitted_and_recorded() {
        let record = admit(&good()).unwrap();
        assert_eq!(record.len(), REQUIRED.len());
        assert_eq!(record["never-extractable"], "true");
        assert_eq!(record["decrypt"], "false");
    }

    #[test]
    fn a_token_may_say_that_it_never_asks_for_the_pin_again() {
        let asks = |asks| [good(), vec![Attribute::AlwaysAuthenticate(asks)]].concat();
        assert_eq!(admit(&asks(false)).unwrap()["always-authenticate"], "false");
        assert_eq!(admit(&asks(true)).unwrap_err(), ["always-authenticate is true, must be false"]);
    }

    #[test]
    fn everything_is_reported_of_a_key_that_would_not_be_admitted() {
        let admitted = admit(&good()).unwrap();
        let mut whole = reported(&good());
        assert_eq!(whole.remove("always-authenticate"), Some(None));
        assert_eq!(whole, admitted.into_iter().map(|(name, value)| (name, Some(value))).collect());
        let part = reported(&[Attribute::Sensitive(false), Attribute::AlwaysAuthenticate(true)]);
        assert_eq!(part.len(), REQUIRED.len() + 1);
        let told: Vec<(&str, &str)> = part.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?))).collect();
        assert_eq!(told, [("always-authenticate", "true"), ("sensitive", "false")]);
    }

    #[test]
    fn each_attribute_that_is_missing_is_a_reason() {
        assert_eq!(good().len(), REQUIRED.len());
        for (kind, name, required) in REQUIRED {
            let mut attributes = good();
            attributes.retain(|attribute| attribute.attribute_type() != kind);
            let reasons = admit(&attributes).unwrap_err();
            assert_eq!(reasons, [format!("{name} is not reported, must be {required}")]);
        }
    }

    /// The whole table: every attribute, missing and wrong, under every profile and under one that allows all that may be allowed.
    #[test]
    fn a_profile_forgives_what_is_missing_and_never_what_is_wrong() {
        let lax = DeviceProfile::omittable().try_fold(DeviceProfile::default(), DeviceProfile::omitting).unwrap();
        let profiles: Vec<DeviceProfile> = DeviceProfile::names().filter_map(DeviceProfile::named).chain([lax]).collect();
        let mut forgiven = Vec::new();
        for profile in &profiles {
            assert_eq!(super::admit(&good(), profile), admit(&good()), "{profile}: what is told is recorded as ever");
            for (place, (kind, name, required)) in REQUIRED.into_iter().enumerate() {
                let mut missing = good();
                missing.remove(place);
                match super::admit(&missing, profile) {
                    Ok(record) => {
                        assert!(
                            profile.may_omit(name) && record[name] == "not-reported" && record.len() == REQUIRED.len(),
                            "{profile}: {name}"
                        );
                        forgiven.push((profile.name(), name));
                    }
                    Err(reasons) => {
                        assert!(!profile.may_omit(name), "{profile}: {name}");
                        assert_eq!(reasons, [format!("{name} is not reported, must be {required}")]);
                    }
                }
                let mut wrong = good();
                wrong[place] = opposite(&wrong[place]);
                assert_eq!(wrong[place].attribute_type(), kind);
                assert_eq!(super::admit(&wrong, profile).unwrap_err(), [format!("{name} is {}, must be {required}", !required)]);
            }
        }
        let lax = ["sign-recover", "decrypt", "unwrap", "derive", "copyable", "modifiable"].map(|name| ("strict", name));
        assert_eq!(forgiven, [&[("opencryptoki-before-3.16", "copyable")][..], &lax].concat());
    }

    fn opposite(attribute: &Attribute) -> Attribute {
        use Attribute as A;
        match *attribute {
            A::Token(v) => A::Token(!v),
            A::Private(v) => A::Private(!v),
            A::Sensitive(v) => A::Sensitive(!v),
            A::AlwaysSensitive(v) => A::AlwaysSensitive(!v),
            A::Extractable(v) => A::Extractable(!v),
            A::NeverExtractable(v) => A::NeverExtractable(!v),
            A::Local(v) => A::Local(!v),
            A::Sign(v) => A::Sign(!v),
            A::SignRecover(v) => A::SignRecover(!v),
            A::Decrypt(v) => A::Decrypt(!v),
            A::Unwrap(v) => A::Unwrap(!v),
            A::Derive(v) => A::Derive(!v),
            A::Copyable(v) => A::Copyable(!v),
            A::Modifiable(v) => A::Modifiable(!v),
            _ => panic!("{attribute:?} has no opposite"),
        }
    }

    #[test]
    fn the_table_admits_what_admission_admits() {
        let all_admitted = |attributes: &[Attribute]| table(attributes).iter().all(|row| row.admitted);
        assert!(all_admitted(&good()));
        for place in 0..good().len() {
            let mut attributes = good();
            attributes.remove(place);
            assert_eq!(all_admitted(&attributes), admit(&attributes).is_ok(), "without {place}");
        }
        for always in [true, false] {
            let attributes = [good(), vec![Attribute::AlwaysAuthenticate(always)]].concat();
            assert_eq!((all_admitted(&attributes), admit(&attributes).is_ok()), (!always, !always));
        }
    }

    #[test]
    fn all_reasons_are_told_at_once() {
        let mut attributes = good();
        attributes[2] = Attribute::Sensitive(false);
        attributes[6] = Attribute::Local(false);
        attributes.push(Attribute::AlwaysAuthenticate(true));
        let reasons = admit(&attributes).unwrap_err();
        assert_eq!(
            reasons,
            ["sensitive is false, must be true", "local is false, must be true", "always-authenticate is true, must be false"]
        );
        assert_eq!(admit(&[]).unwrap_err().len(), REQUIRED.len());
    }
}
