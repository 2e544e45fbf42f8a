//! The throw-away keys of a trial: their names, finding what an earlier run left, removing them.
//!
//! In scope: exact names alone. An object is ours if its label is a name of this form and its `CKA_ID` is the one that is derived from that
//! label; anything else is never touched, whatever it is called. Out of scope: when to remove (`mod.rs`), and asking whether one may.

use claviger_audit::names::KeyName;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::PREFIX;
use crate::keystore::pkcs11::fault::Fault;
use crate::keystore::pkcs11::objects::{MOST_LISTED, hex, id_of};

/// Before the random id, because a part of a name begins with a letter.
const RUN_MARK: char = 'r';
/// The random id of a run, in bytes: two runs never meet.
const RUN_LENGTH: usize = 8;
/// The most objects of one name that are removed at once: a key pair has two.
const MOST_OF_A_NAME: usize = 16;
/// Both halves. The private one goes first: if the rest fails, the key is unusable all the same.
const HALVES: [ObjectClass; 2] = [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY];

/// The keys that one run made and has not removed yet.
pub(super) struct Yard {
    run: String,
    numbered: u32,
    names: Vec<KeyName>,
}

impl Yard {
    /// Without keys, and with a fresh random id.
    pub(super) fn new() -> Result<Self, Fault> {
        let mut random = [0; RUN_LENGTH];
        fill(&mut random)?;
        Ok(Self { run: hex(&random), numbered: 0, names: Vec::new() })
    }

    /// The random id of this run.
    pub(super) fn run(&self) -> &str {
        &self.run
    }

    /// How many names were given out.
    pub(super) fn created(&self) -> usize {
        usize::try_from(self.numbered).unwrap_or(usize::MAX)
    }

    /// A name for a new key. It is noted before there is a key of that name, so that no failure in between leaves one behind.
    pub(super) fn name(&mut self) -> Result<KeyName, Fault> {
        let mut claim = [0; 4];
        fill(&mut claim)?;
        self.numbered += 1;
        let name = KeyName::new(PREFIX, &format!("{RUN_MARK}{}", self.run), self.numbered, u32::from_be_bytes(claim))
            .map_err(|error| Fault::Refused(error.to_string()))?;
        self.names.push(name.clone());
        Ok(name)
    }

    /// The names whose keys may still be there.
    pub(super) fn names(&self) -> &[KeyName] {
        &self.names
    }

    /// The key of this name is gone.
    pub(super) fn forget(&mut self, name: &KeyName) {
        self.names.retain(|known| known != name);
    }

    /// The names whose keys could not be removed; from now on they are the next run's.
    pub(super) fn give_up(&mut self) -> Vec<KeyName> {
        std::mem::take(&mut self.names)
    }
}

fn fill(bytes: &mut [u8]) -> Result<(), Fault> {
    getrandom::fill(bytes).map_err(|error| Fault::Refused(format!("the system gives no random bytes: {error}")))
}

/// Removes every object of this name, and looks whether they are gone. The session must be logged in.
pub(super) fn remove(session: &Session, name: &KeyName) -> Result<(), Fault> {
    for class in HALVES {
        for object in of_name(session, class, name)? {
            session.destroy_object(object)?;
        }
    }
    for class in HALVES {
        if !of_name(session, class, name)?.is_empty() {
            return Err(Fault::Nonsense(format!("C_DestroyObject answered CKR_OK, and key {name} is still there")));
        }
    }
    Ok(())
}

/// The names of all throw-away keys of earlier runs, sorted; a half that is left alone counts. The session must be logged in.
pub(super) fn leftovers(session: &Session, own: &str) -> Result<Vec<KeyName>, Fault> {
    let mut names = Vec::new();
    for class in HALVES {
        let all = session.iter_objects(&[Attribute::Class(class), Attribute::Token(true)])?;
        let objects = all.take(MOST_LISTED + 1).collect::<Result<Vec<_>, _>>()?;
        if objects.len() > MOST_LISTED {
            return Err(Fault::Refused(format!("the token holds more than {MOST_LISTED} keys")));
        }
        for object in objects {
            let attributes = session.get_attributes(object, &[AttributeType::Label, AttributeType::Id])?;
            names.extend(throw_away(&attributes).filter(|name| !name.keyring().ends_with(own)));
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// The name in these attributes, if they are those of a throw-away key.
fn throw_away(attributes: &[Attribute]) -> Option<KeyName> {
    let label = attributes.iter().find_map(|attribute| match attribute {
        Attribute::Label(label) => std::str::from_utf8(label).ok(),
        _ => None,
    })?;
    let id = attributes.iter().find_map(|attribute| match attribute {
        Attribute::Id(id) => Some(id),
        _ => None,
    })?;
    let name = label.parse::<KeyName>().ok()?;
    let run = name.keyring().strip_prefix(RUN_MARK)?;
    let is_run = run.len() == 2 * RUN_LENGTH && run.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    (name.installation() == PREFIX && is_run && *id == id_of(&name)).then_some(name)
}

fn of_name(session: &Session, class: ObjectClass, name: &KeyName) -> Result<Vec<ObjectHandle>, Fault> {
    let exact =
        [Attribute::Class(class), Attribute::Token(true), Attribute::Label(name.as_str().as_bytes().to_vec()), Attribute::Id(id_of(name))];
    Ok(session.iter_objects(&exact)?.take(MOST_OF_A_NAME).collect::<Result<Vec<_>, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(label: &str, id: Vec<u8>) -> Vec<Attribute> {
        vec![Attribute::Label(label.as_bytes().to_vec()), Attribute::Id(id)]
    }

    #[test]
    fn every_name_is_noted_and_known_again() {
        let mut yard = Yard::new().unwrap();
        let (first, second) = (yard.name().unwrap(), yard.name().unwrap());
        assert_ne!(first, second);
        assert_eq!(yard.names(), [first.clone(), second.clone()]);
        for name in [&first, &second] {
            assert!(name.as_str().starts_with("claviger-hsm-check.") && name.as_str().contains(yard.run()));
            assert_eq!(throw_away(&attributes(name.as_str(), id_of(name))), Some(name.clone()));
        }
        yard.forget(&first);
        assert_eq!((yard.names(), yard.created()), (&[second][..], 2));
        assert_ne!(Yard::new().unwrap().run(), yard.run());
    }

    #[test]
    fn what_is_called_alike_is_not_ours() {
        let ours = "claviger-hsm-check.r0011223344556677.1-00c0ffee";
        let id = |label: &str| id_of(&label.parse().unwrap());
        assert!(throw_away(&attributes(ours, id(ours))).is_some());
        assert_eq!(throw_away(&attributes(ours, vec![7; 20])), None, "an id of its own");
        assert_eq!(throw_away(&attributes(ours, vec![])), None);
        assert_eq!(throw_away(&[Attribute::Label(ours.into())]), None, "no id");
        for other in [
            "claviger-hsm-check.access.1-00c0ffee",
            "claviger-hsm-check.r001122334455667.1-00c0ffee",
            "claviger-hsm-check.r00112233445566zz.1-00c0ffee",
            "claviger-hsm-checks.r0011223344556677.1-00c0ffee",
            "prod.r0011223344556677.1-00c0ffee",
        ] {
            assert_eq!(throw_away(&attributes(other, id(other))), None, "{other}");
        }
        assert_eq!(throw_away(&attributes("claviger-hsm-check", vec![7; 20])), None);
    }
}
