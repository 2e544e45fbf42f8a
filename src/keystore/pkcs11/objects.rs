//! Key objects of a token: finding, making, reading and destroying them with one session.
//!
//! In scope: one step each, with exact matches. Out of scope: retries and recovery (`admin.rs`, `worker.rs`), and what a key must be
//! (`admission.rs`). A private key is named by its `CKA_ID` alone; the label is for people and for `doctor`.

use std::collections::BTreeMap;

use claviger_audit::algorithm::KeyShape;
use claviger_audit::jwk::PublicKey;
use claviger_audit::names::KeyName;
use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::types::Ulong;
use sha2::{Digest as _, Sha256};

use super::admission;
use super::fault::Fault;
use super::profile::DeviceProfile;
use super::public;
use crate::keystore::Seen;

/// The size of new RSA keys. RFC 7518 section 3.3 demands at least 2048; larger keys make each signature several times slower, and rotation
/// replaces a key years before its size matters.
const RSA_BITS: u64 = 2048;
/// 65537, the public exponent that every device accepts.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];
/// The length of `CKA_ID`: 160 bits, as many as a SHA-1 key identifier, which every device has room for.
const ID_LENGTH: usize = 20;
/// The most private keys that are listed of one token; more mean that something other than Claviger fills it.
pub(super) const MOST_LISTED: usize = 65_536;

/// What the record calls the label.
const LABEL: &str = "label";

/// A key pair of the token.
pub(super) struct Found {
    pub(super) private: ObjectHandle,
    pub(super) shape: KeyShape,
    pub(super) public: PublicKey,
    label: String,
}

impl Found {
    /// The length of an RSA modulus in bytes; 0 for curves.
    pub(super) fn modulus(&self) -> usize {
        self.public.rsa_components().map_or(0, |(modulus, _)| modulus.len())
    }
}

/// The `CKA_ID` of the key with this name: derived, so that creating is find-or-create.
pub(super) fn id_of(name: &KeyName) -> Vec<u8> {
    Sha256::digest(name.as_str().as_bytes())[..ID_LENGTH].to_vec()
}

/// Finds the one private key with this id, and its public half; `None` if there is no private key.
pub(super) fn find(session: &Session, id: &[u8]) -> Result<Option<Found>, Fault> {
    let Some(private) = find_private(session, id)? else { return Ok(None) };
    let wrong = |reason: String| Fault::Refused(format!("the key with id {}: {reason}", hex(id)));
    let inner = session.get_attributes(private, &PAIR)?;
    let outer = match sole(session, ObjectClass::PUBLIC_KEY, id)? {
        Some(public) => session.get_attributes(public, &PAIR)?,
        None => Vec::new(),
    };
    let (shape, public) = pair(&inner, &outer).map_err(wrong)?;
    Ok(Some(Found { private, shape, public, label: label(&inner) }))
}

/// What is to be read of both halves for [`pair`], and the label.
const PAIR: [AttributeType; 6] = [
    AttributeType::KeyType,
    AttributeType::EcParams,
    AttributeType::EcPoint,
    AttributeType::Modulus,
    AttributeType::PublicExponent,
    AttributeType::Label,
];

/// The key that the attributes of a private half and those of its public half make together. None of a public half: there is none.
fn pair(inner: &[Attribute], outer: &[Attribute]) -> Result<(KeyShape, PublicKey), String> {
    // Some devices show the curve on the public half alone.
    let shape = public::shape(inner).or_else(|reason| if outer.is_empty() { Err(reason) } else { public::shape(outer) })?;
    if !outer.is_empty() && public::shape(outer) != Ok(shape) {
        return Err("its public half is of another kind".to_owned());
    }
    match (public::public_key(shape, inner)?, public::public_key(shape, outer)?) {
        (Some(inner), Some(outer)) if inner != outer => Err("its public half belongs to another key".to_owned()),
        (_, Some(public)) | (Some(public), None) => Ok((shape, public)),
        (None, None) => Err("the token shows no public half of it".to_owned()),
    }
}

/// Reads the private key with this id back, whatever it is like; `None` if there is none.
pub(super) fn inspect(session: &Session, id: &[u8]) -> Result<Option<Seen>, Fault> {
    let private = match at_most_two(session, ObjectClass::PRIVATE_KEY, id)?.as_slice() {
        [] => return Ok(None),
        [private] => *private,
        _ => return Ok(Some(Seen { public: Err("more than one private key has its id".to_owned()), attributes: BTreeMap::new() })),
    };
    let inner = session.get_attributes(private, &PAIR)?;
    let public = match at_most_two(session, ObjectClass::PUBLIC_KEY, id)?.as_slice() {
        [] => pair(&inner, &[]),
        [public] => pair(&inner, &session.get_attributes(*public, &PAIR)?),
        _ => Err("more than one public key has its id".to_owned()),
    };
    let mut attributes = admission::reported(&session.get_attributes(private, &admission::attributes_to_read())?);
    attributes.insert(LABEL.to_owned(), Some(label(&inner)));
    Ok(Some(Seen { public: public.map(|(_, public)| public), attributes }))
}

/// Makes a key pair with this name; durable when it returns. A device that does not take the template is asked once more, without what its
/// profile says it never tells. What was left out is judged all the same when it is read back ([`admit`]).
pub(super) fn generate(session: &Session, name: &KeyName, shape: KeyShape, profile: &DeviceProfile) -> Result<(), Fault> {
    let id = id_of(name);
    remove_rest(session, name, &id)?;
    let (public, private) = (public_template(name, &id), private_template(name, &id));
    let outcome = generate_pair(session, shape, &public, &private);
    if outcome.as_ref().is_err_and(|fault| fault.code().is_some_and(blames_template)) && profile.omits().next().is_some() {
        return generate_pair(session, shape, &without_omitted(public, profile), &without_omitted(private, profile));
    }
    outcome
}

/// The template without what the device never tells.
fn without_omitted(mut template: Vec<Attribute>, profile: &DeviceProfile) -> Vec<Attribute> {
    template.retain(|attribute| admission::name(attribute.attribute_type()).is_none_or(|name| !profile.may_omit(name)));
    template
}

fn generate_pair(session: &Session, shape: KeyShape, public: &[Attribute], private: &[Attribute]) -> Result<(), Fault> {
    let (mechanism, forms) = match shape {
        KeyShape::Rsa => {
            let size = [Attribute::ModulusBits(Ulong::new(RSA_BITS)), Attribute::PublicExponent(RSA_EXPONENT.to_vec())];
            session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &[public, &size].concat(), private)?;
            return Ok(());
        }
        KeyShape::Ed25519 => (Mechanism::EccEdwardsKeyPairGen, public::curve_names(shape)),
        KeyShape::P256 | KeyShape::P384 | KeyShape::P521 => (Mechanism::EccKeyPairGen, public::curve_names(shape)),
    };
    let mut outcome = Err(Fault::Refused("no form of the curve's name is known".to_owned()));
    for form in forms {
        let public = [public, &[Attribute::EcParams(form.to_vec())]].concat();
        outcome = session.generate_key_pair(&mechanism, &public, private).map(drop).map_err(Fault::from);
        if !outcome.as_ref().is_err_and(|fault: &Fault| fault.code().is_some_and(blames_curve)) {
            break;
        }
    }
    outcome
}

/// Removes the public half that an interrupted call left: a second one with its id could never be told from it. It holds no secret, its
/// private half is not there, and nobody else has its name. What has another name is not ours to remove.
fn remove_rest(session: &Session, name: &KeyName, id: &[u8]) -> Result<(), Fault> {
    let Some(rest) = sole(session, ObjectClass::PUBLIC_KEY, id)? else { return Ok(()) };
    if label(&session.get_attributes(rest, &[AttributeType::Label])?) != name.as_str() {
        let text =
            format!("the token has a strange public key with the id {} and no private one; remove it with the vendor's tool", hex(id));
        return Err(Fault::Refused(text));
    }
    Ok(session.destroy_object(rest)?)
}

/// Reads a private key back and admits it, or says everything that is wrong with it.
pub(super) fn admit(
    session: &Session,
    found: &Found,
    name: &KeyName,
    shape: KeyShape,
    profile: &DeviceProfile,
) -> Result<BTreeMap<String, String>, Fault> {
    let attributes = session.get_attributes(found.private, &admission::attributes_to_read())?;
    let (mut record, mut reasons) = match admission::admit(&attributes, profile) {
        Ok(record) => (record, Vec::new()),
        Err(reasons) => (BTreeMap::new(), reasons),
    };
    if found.shape != shape {
        reasons.push(format!("it is a key of kind {:?}, not {shape:?}", found.shape));
    }
    if found.label != name.as_str() {
        reasons.push(format!("its label is {:?}", found.label));
    }
    if !reasons.is_empty() {
        return Err(Fault::Refused(format!("key {name} cannot be admitted: {}", reasons.join("; "))));
    }
    record.insert(LABEL.to_owned(), found.label.clone());
    Ok(record)
}

/// The private key with this id, whatever it is.
pub(super) fn find_private(session: &Session, id: &[u8]) -> Result<Option<ObjectHandle>, Fault> {
    sole(session, ObjectClass::PRIVATE_KEY, id)
}

/// Destroys the private key with this id and its public half; does nothing if there is none.
///
/// That `C_DestroyObject` (PKCS#11 v3.1 section 5.7.3) did it is looked at, not believed: Kryoptic answers `CKR_OK` even when its storage
/// refused, and a compromised key must never be taken for dead.
pub(super) fn destroy(session: &Session, id: &[u8]) -> Result<(), Fault> {
    // The private half first: if the rest fails, the key is unusable all the same.
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        if let Some(object) = sole(session, class, id)? {
            session.destroy_object(object)?;
            if sole(session, class, id)?.is_some() {
                return Err(Fault::Nonsense(format!("the key with the id {} was destroyed and is still there", hex(id))));
            }
        }
    }
    Ok(())
}

/// The names and ids of all private keys whose label is a name of this installation, sorted.
pub(super) fn list(session: &Session, installation: &str) -> Result<Vec<(KeyName, Vec<u8>)>, Fault> {
    let all = session.iter_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Token(true)])?;
    let objects = all.take(MOST_LISTED + 1).collect::<Result<Vec<_>, _>>()?;
    if objects.len() > MOST_LISTED {
        return Err(Fault::Refused(format!("the token holds more than {MOST_LISTED} private keys")));
    }
    let mut names = Vec::new();
    for object in objects {
        let attributes = session.get_attributes(object, &[AttributeType::Label, AttributeType::Id])?;
        let id = attributes.iter().find_map(|attribute| match attribute {
            Attribute::Id(id) => Some(id.clone()),
            _ => None,
        });
        if let (Ok(name), Some(id)) = (label(&attributes).parse::<KeyName>(), id)
            && name.installation() == installation
        {
            names.push((name, id));
        }
    }
    names.sort();
    Ok(names)
}

/// Lower-case hex: the form of a locator.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('?');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The `CKA_ID` in a locator, if it is one of this adapter.
pub(super) fn id_in(locator: &str) -> Option<Vec<u8>> {
    let id = locator.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    let id = id.collect::<Option<Vec<_>>>()?;
    (id.len() == ID_LENGTH && hex(&id) == locator).then_some(id)
}

/// The object of this class and id; more than one is never a choice to make.
fn sole(session: &Session, class: ObjectClass, id: &[u8]) -> Result<Option<ObjectHandle>, Fault> {
    match at_most_two(session, class, id)?.as_slice() {
        [] => Ok(None),
        [object] => Ok(Some(*object)),
        _ => Err(Fault::Refused(format!("more than one key has the id {}; remove the wrong one with the vendor's tool", hex(id)))),
    }
}

/// Objects of this class and id: enough of them to see whether there is exactly one.
fn at_most_two(session: &Session, class: ObjectClass, id: &[u8]) -> Result<Vec<ObjectHandle>, Fault> {
    let search = session.iter_objects(&[Attribute::Class(class), Attribute::Token(true), Attribute::Id(id.to_vec())])?;
    Ok(search.take(2).collect::<Result<Vec<_>, _>>()?)
}

/// A key that can sign, and nothing else, and never changes.
fn private_template(name: &KeyName, id: &[u8]) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::SignRecover(false),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::Copyable(false),
        Attribute::Modifiable(false),
        Attribute::Label(name.as_str().as_bytes().to_vec()),
        Attribute::Id(id.to_vec()),
    ]
}

/// A public half that only has to be found and read. `CKA_VERIFY` has a token-specific default (PKCS#11 v3.1 section 4.8) and is left to it:
/// signatures are verified by the signer, not by the token, and tpm2-pkcs11 makes no key for which it is asked.
fn public_template(name: &KeyName, id: &[u8]) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Modifiable(false),
        Attribute::Label(name.as_str().as_bytes().to_vec()),
        Attribute::Id(id.to_vec()),
    ]
}

fn label(attributes: &[Attribute]) -> String {
    let bytes = attributes.iter().find_map(|attribute| match attribute {
        Attribute::Label(bytes) => Some(bytes.as_slice()),
        _ => None,
    });
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

/// Whether another form of the curve's name may be worth a try.
fn blames_curve(code: RvError) -> bool {
    use RvError as R;
    matches!(code, R::CurveNotSupported | R::DomainParamsInvalid | R::AttributeValueInvalid | R::TemplateInconsistent | R::ArgumentsBad)
}

/// Whether a template with fewer attributes may be taken.
fn blames_template(code: RvError) -> bool {
    use RvError as R;
    matches!(code, R::AttributeTypeInvalid | R::AttributeValueInvalid | R::AttributeReadOnly | R::TemplateInconsistent)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever a profile says, a key is asked for that stays in its token; the rest of the template is asked for as ever.
    #[test]
    fn a_template_loses_what_is_never_told_and_nothing_else() {
        let name: KeyName = "prod.access.1-00c0ffee".parse().unwrap();
        let lax = DeviceProfile::omittable().try_fold(DeviceProfile::default(), DeviceProfile::omitting).unwrap();
        for profile in DeviceProfile::names().filter_map(DeviceProfile::named).chain([lax]) {
            for whole in [private_template(&name, &id_of(&name)), public_template(&name, &id_of(&name))] {
                let rest = without_omitted(whole.clone(), &profile);
                let lost =
                    whole.iter().filter(|attribute| !rest.contains(attribute)).filter_map(|lost| admission::name(lost.attribute_type()));
                let lost: Vec<&str> = lost.collect();
                assert_eq!(lost.len(), whole.len() - rest.len());
                assert!(lost.iter().all(|name| profile.may_omit(name)), "{profile}: {lost:?}");
                assert!(
                    rest.iter().filter_map(|kept| admission::name(kept.attribute_type())).all(|name| !profile.may_omit(name)),
                    "{profile}"
                );
            }
            let private = without_omitted(private_template(&name, &id_of(&name)), &profile);
            for kept in [Attribute::Token(true), Attribute::Private(true), Attribute::Sensitive(true), Attribute::Extractable(false)] {
                assert!(private.contains(&kept), "{profile}: {kept:?}");
            }
        }
    }

    #[test]
    fn a_locator_is_the_id_and_nothing_else() {
        let name = "prod.access.1-00c0ffee".parse().unwrap();
        let id = id_of(&name);
        assert_eq!(id_in(&hex(&id)), Some(id));
        for bad in ["", "00", "zz", "+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1", &"AB".repeat(20), &"ab".repeat(21), &"é".repeat(20)] {
            assert_eq!(id_in(bad), None, "{bad}");
        }
    }
}
