//! Keys that somebody changed in their keystore, behind the daemon's back: told at the next look, recorded once, and never repaired.
//!
//! In scope: a public half that was exchanged, a private half that is gone, a whole key that was replaced by an imported one; on the real
//! daemon, which looks when it starts. Out of scope: the comparison, attribute by attribute (unit tests of `drift`).

use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use serde_json::Value;

use crate::harness::place::TOKEN;
use crate::harness::raw::id_of;
use crate::harness::{Daemon, Keyring, Place, Setup, SoftHsm, on_softhsm, until};
use crate::{doctor, metric, wait_for};

/// Somebody who has the PIN, and the module's own tools, while no daemon runs.
struct Intruder {
    session: Session,
}

impl Intruder {
    fn on(hsm: &SoftHsm) -> Self {
        Self { session: hsm.session(TOKEN) }
    }

    fn object(&self, class: ObjectClass, name: &str) -> ObjectHandle {
        let found = self.session.find_objects(&[Attribute::Class(class), Attribute::Id(id_of(name))]).expect("a search");
        let [object] = found.as_slice() else { panic!("{class:?} of {name}: {found:?}") };
        *object
    }

    fn remove(&self, class: ObjectClass, name: &str) {
        self.session.destroy_object(self.object(class, name)).expect("destroyed");
    }

    /// The public point of a key, as the token holds it.
    fn point(&self, name: &str) -> Vec<u8> {
        let public = self.object(ObjectClass::PUBLIC_KEY, name);
        let read = self.session.get_attributes(public, &[AttributeType::EcPoint]).expect("attributes");
        let [Attribute::EcPoint(point)] = read.as_slice() else { panic!("{read:?}") };
        point.clone()
    }

    /// Puts another public half in the place of the one that was made with the key.
    fn exchange(&self, name: &str, point: &[u8]) {
        let public = self.object(ObjectClass::PUBLIC_KEY, name);
        let mut template = self.session.get_attributes(public, &[AttributeType::EcParams]).expect("attributes");
        template.extend([
            Attribute::Class(ObjectClass::PUBLIC_KEY),
            Attribute::KeyType(KeyType::EC),
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Verify(true),
            Attribute::Label(name.into()),
            Attribute::Id(id_of(name)),
            Attribute::EcPoint(point.to_vec()),
        ]);
        self.remove(ObjectClass::PUBLIC_KEY, name);
        self.session.create_object(&template).expect("made");
    }
}

/// The only key of a keyring in this state.
fn key(place: &Place<'_>, keyring: &str, state: &str) -> Value {
    until(&format!("a key of {keyring} that is {state}"), || {
        let shown: Value = serde_json::from_str(&place.command(&["--output", "json", "keyring", "show", keyring])).expect("JSON");
        let keys = shown["keys"].as_array().expect("keys").iter().filter(|key| key["state"] == state).cloned();
        <[Value; 1]>::try_from(keys.collect::<Vec<_>>()).map(|[key]| key).map_err(|keys| format!("{keys:?}"))
    })
}

fn text<'v>(key: &'v Value, member: &str) -> &'v str {
    key[member].as_str().unwrap_or_else(|| panic!("no {member} in {key}"))
}

/// Which keys were told to have drifted, or to conform, in order, and what was found.
fn told(place: &Place<'_>) -> Vec<(String, Option<String>)> {
    let log = place.log();
    let log = log.to_str().expect("a plain path");
    let shown = place.command(&["audit", "show", log, "--event", "key.drifted", "--event", "key.conforms", "--format", "json"]);
    let records = shown.lines().map(|line| serde_json::from_str::<Value>(line).expect("a record"));
    records.map(|record| (text(&record, "kid").to_owned(), record["found"].as_str().map(str::to_owned))).collect()
}

fn drifted(daemon: &mut Daemon, keyring: &str) -> Option<f64> {
    metric(daemon, &format!("claviger_key_drifted{{keyring=\"{keyring}\"}}"))
}

/// What doctor finds wrong with the key of this name.
fn finding(place: &Place<'_>, name: &str) -> Option<String> {
    let (_, document) = doctor(place);
    let rows = document["findings"].as_array().expect("findings").iter();
    let mut wrong = rows.filter(|row| row["fine"] == false && row["what"] == format!("key {name}"));
    wrong.next().map(|row| text(row, "text").to_owned())
}

/// The first keyring's active key gets another public half; later the second one's standby goes.
#[test]
fn a_changed_key_is_told_once_used_as_before_and_never_repaired() {
    on_softhsm("drift::a_changed_key_is_told_once_used_as_before_and_never_repaired", |hsm| {
        let keyrings = Setup::new().keyring(Keyring::jwt("access", "ES256")).keyring(Keyring::jwt("second", "ES256"));
        let place = Place::new(hsm, keyrings);
        let daemon = place.start();
        let (active, standby) = (key(&place, "access", "active"), key(&place, "second", "published"));
        key(&place, "access", "published");
        assert!(daemon.stop().success());
        assert_eq!(finding(&place, text(&active, "name")), None);

        let (name, kid) = (text(&active, "name"), text(&active, "kid"));
        let (made, other) = {
            let intruder = Intruder::on(hsm);
            let (made, other) = (intruder.point(name), intruder.point(text(&standby, "name")));
            intruder.exchange(name, &other);
            (made, other)
        };
        let found = format!("its public key is another one, with the thumbprint {}", text(&standby, "kid"));
        let said = finding(&place, name).expect("a finding");
        assert!(said.contains(&found), "{said}");
        assert_eq!(told(&place), [], "doctor records nothing");

        let mut daemon = place.start();
        let risk = wait_for(&mut daemon, &["key_drifted"]);
        let [risk] = risk.as_slice() else { panic!("{risk:?}") };
        assert_eq!(risk["keyring"], "access");
        assert!(text(risk, "detail").contains(kid) && !text(risk, "detail").contains("thumbprint"), "{risk}");
        assert_eq!((drifted(&mut daemon, "access"), drifted(&mut daemon, "second")), (Some(1.0), Some(0.0)));
        for command in [["keyring", "show", "access"], ["key", "explain", kid]] {
            let shown = place.command(&command);
            assert!(shown.contains(&found), "{shown}");
        }
        assert!(doctor(&place).0.contains("key_drifted"));
        assert!(daemon.stderr().contains("ERROR") && daemon.stderr().contains(&found), "{}", daemon.stderr());
        // It signs, and verifiers take what it signs: by the private half, and by the public one that was published.
        assert_eq!(text(&key(&place, "access", "active"), "kid"), kid);
        assert_eq!(daemon.demo().sign("access").expect("an answer").ok()["kid"], kid);
        assert!(daemon.stop().success());
        place.check_logs();

        let intruder = Intruder::on(hsm);
        assert_eq!(intruder.point(name), other, "nothing was repaired");
        intruder.remove(ObjectClass::PRIVATE_KEY, text(&standby, "name"));
        drop(intruder);
        let gone = (text(&standby, "kid").to_owned(), Some("its keystore does not have it".to_owned()));
        let mut daemon = place.start();
        // The keyrings are looked at in order: when the second one's record is there, the first one was no news.
        until("the record of the second", || if told(&place).contains(&gone) { Ok(()) } else { Err(daemon.stderr()) });
        assert_eq!(told(&place), [(kid.to_owned(), Some(found.clone())), gone.clone()]);
        assert_eq!(wait_for(&mut daemon, &["key_drifted"]).len(), 2);
        assert!(daemon.stop().success());

        Intruder::on(hsm).exchange(name, &made);
        let mut daemon = place.start();
        until("the first conforms", || if drifted(&mut daemon, "access") == Some(0.0) { Ok(()) } else { Err(daemon.stderr()) });
        assert_eq!(told(&place), [(kid.to_owned(), Some(found)), gone, (kid.to_owned(), None)]);
        assert_eq!(wait_for(&mut daemon, &["key_drifted"])[0]["keyring"], "second");
        // An operator decides: the standby is given up, and another one comes.
        place.command(&["key", "abandon", text(&standby, "kid"), "--reason", "its private half is gone"]);
        wait_for(&mut daemon, &[]);
        assert_eq!(drifted(&mut daemon, "second"), Some(0.0));
        place.check(daemon);
    });
}

/// The name, the id and the label are right, and all the rest is wrong.
#[test]
fn a_key_that_was_replaced_by_an_imported_one_is_told_attribute_by_attribute() {
    on_softhsm("drift::a_key_that_was_replaced_by_an_imported_one_is_told_attribute_by_attribute", |hsm| {
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256")));
        let daemon = place.start();
        let standby = key(&place, "access", "published");
        assert!(daemon.stop().success());
        let name = text(&standby, "name");
        let intruder = Intruder::on(hsm);
        intruder.remove(ObjectClass::PRIVATE_KEY, name);
        intruder.remove(ObjectClass::PUBLIC_KEY, name);
        drop(intruder);
        hsm.import_pair(TOKEN, name, &id_of(name));

        let mut daemon = place.start();
        wait_for(&mut daemon, &["key_drifted"]);
        let records = told(&place);
        let [(kid, Some(found))] = records.as_slice() else { panic!("{records:?}") };
        assert_eq!(kid, text(&standby, "kid"));
        for part in ["its public key is another one", "local is false, was true", "never-extractable is false, was true"] {
            assert!(found.contains(part), "{found}");
        }
        assert!(!found.contains("label"), "{found}");
        place.check(daemon);
    });
}
