//! A keyring moves from one keystore to another by rotation, under load, with verifiers that cache: nobody notices.
//!
//! In scope: a move, and where its keys live before and after. Out of scope: a move to another algorithm (`verbs`).

use std::sync::PoisonError;

use crate::harness::softhsm::MODULE as SOFTHSM;
use crate::harness::tokens::Tokens;
use crate::harness::{Keyring, Place, Setup, kryoptic, until};
use crate::load::{SECONDS, under_load};
use crate::{CLIENTS, ONE_LOAD, OTHER, becomes, json, patient, records, signer};

/// Names another keystore, and waits until a key there signs and the last one elsewhere is gone.
pub(crate) fn moves(place: &Place<'_>, load: &crate::load::Load, from: &str, to: &str) {
    let old = signer(place, "access").0;
    place.edit_config(|text| {
        let (before, own) = text.split_once("[keyring.access]").expect("our own file");
        format!("{before}[keyring.access]{}", own.replace(&format!("keystore = \"{from}\""), &format!("keystore = \"{to}\"")))
    });
    assert_eq!(json(place, &["policy", "reload"])["keyring_records"], 1);
    until("a key of the other keystore signs", || match signer(place, "access") {
        (kid, keystore) if keystore == to && load.signed_by(&kid) > 0 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    becomes(place, &old, "destroyed");
    let elsewhere = || {
        let keys = json(place, &["keyring", "show", "access"])["keys"].as_array().expect("a list").clone();
        keys.into_iter().filter(|key| key["keystore"] == from && key["state"] != "destroyed").collect::<Vec<_>>()
    };
    until("nothing is left", || if elsewhere().is_empty() { Ok(()) } else { Err(format!("{:?}", elsewhere())) });
}

#[test]
fn a_keyring_moves_to_another_keystore_under_load() {
    let _alone = ONE_LOAD.lock().unwrap_or_else(PoisonError::into_inner);
    Tokens::all_in_child(&[&SOFTHSM, &kryoptic::MODULE], "moved::a_keyring_moves_to_another_keystore_under_load", |tokens| {
        let [hsm, other] = tokens else { panic!("two modules") };
        other.token(OTHER);
        let setup = Setup::new().keystore(OTHER, &other.table(OTHER)).keyring(Keyring::jwt("access", "ES256").timing(SECONDS));
        let place = Place::new(hsm, setup);
        patient(&place);
        let mut daemon = place.start();
        let kids = under_load(&mut daemon, ("access", CLIENTS), |_, load| moves(&place, load, "hsm", OTHER));
        assert!(kids.len() >= 2, "{kids:?}");
        place.check(daemon);
        // Of the two keystores each made some of the keys that signed.
        let made = |keystore: &str| records(&place, "key.requested").iter().filter(|record| record["keystore"] == keystore).count();
        assert!(made("hsm") >= 2 && made(OTHER) >= 2, "{} {}", made("hsm"), made(OTHER));
        let (code, report) = place.verify(&["--rotation", "--min-size", "1", "--trust", place.trust().to_str().expect("a plain path")]);
        assert_eq!(code, 0, "{report}");
    });
}
