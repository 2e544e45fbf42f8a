//! The keystore of the key that signs is lost for good, under load: one rotation, and signing goes on in another one; verifiers notice
//! nothing but that there were no new tokens for a moment.
//!
//! In scope: what the operator is told, and the way on without the lost keystore. Out of scope: the moment at which each risk is told
//! (`rotation::risk`).

use std::sync::PoisonError;

use serde_json::json;

use crate::harness::faults::with_faults_beside;
use crate::harness::setup::HSM;
use crate::harness::{Daemon, Keyring, Place, Setup, kryoptic, until};
use crate::load::{SECONDS, under_load};
use crate::{CLIENTS, ONE_LOAD, OTHER, becomes, json as told, patient, signer, signs_again, standby_in};

/// Waits until everybody who may be asked says that a rotation moves signing now.
fn is_told(place: &Place<'_>, daemon: &mut Daemon) {
    let command = "`claviger keyring rotate access`";
    let mut client = daemon.anonymous();
    until("the risk", || {
        let answer = client.try_get("/readyz/sign")?;
        let said = answer.json();
        let risks = said["risks"].as_array().expect("a list");
        let is_there =
            risks.iter().any(|risk| risk["code"] == "signer_away" && risk["detail"].as_str().is_some_and(|text| text.contains(command)));
        let detail = said["keyrings"][0]["detail"].as_str().unwrap_or_default();
        if answer.status == 503 && is_there && detail.contains(command) { Ok(()) } else { Err(answer.text()) }
    });
    for arguments in [&["keyring", "plan", "access"][..], &["--output", "json", "doctor"]] {
        let output = place.claviger(arguments);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("signer_away") && said.contains(command), "{arguments:?}: {said}");
    }
}

#[test]
fn a_lost_keystore_is_survived_by_one_rotation() {
    let _alone = ONE_LOAD.lock().unwrap_or_else(PoisonError::into_inner);
    with_faults_beside(&kryoptic::MODULE, "lost::a_lost_keystore_is_survived_by_one_rotation", |hsm, faults, other| {
        other.token(OTHER);
        let keyring = Keyring::jwt("access", "ES256").timing(SECONDS).set("rotate_every", "1h").set("standby_keystore", OTHER);
        let setup = Setup::new().keystore(OTHER, &other.table(OTHER)).log_keystore(OTHER).keyring(keyring);
        let place = Place::new(hsm, setup);
        patient(&place);
        let mut daemon = place.start();
        let (lost, keystore) = signer(&place, "access");
        assert_eq!(keystore, HSM);
        let next = standby_in(&place, &mut daemon, "access", OTHER);
        let kids = under_load(&mut daemon, ("access", CLIENTS), |daemon, load| {
            until("tokens", || if load.signed_by(&lost) > 100 { Ok(()) } else { Err(load.signed_by(&lost).to_string()) });
            load.outage(true);
            faults.tell(json!({ "do": "remove" }));
            until("a refusal", || if load.refused() > 0 { Ok(()) } else { Err("none".to_owned()) });
            is_told(&place, daemon);
            place.command(&["keyring", "rotate", "access"]);
            signs_again(&mut daemon.demo(), "access");
            assert_eq!(signer(&place, "access"), (next.clone(), OTHER.to_owned()));
            // From here on nobody is refused: what lives elsewhere is not asked any more.
            load.outage(false);
            becomes(&place, &lost, "withdrawn");
        });
        assert!(kids.len() == 2 && kids[&next] > 0, "{kids:?}");

        // The way on without it: the next standby is made in what is left.
        place.edit_config(|text| {
            let (before, own) = text.split_once("[keyring.access]").expect("our own file");
            let own = own.replace("standby_keystore = \"other\"\n", "").replace("keystore = \"hsm\"", "keystore = \"other\"");
            format!("{before}[keyring.access]{own}")
        });
        assert_eq!(told(&place, &["policy", "reload"])["keyring_records"], 1);
        standby_in(&place, &mut daemon, "access", OTHER);
        let mut client = daemon.anonymous();
        let risks = client.get("/readyz/sign").ok()["risks"].as_array().expect("a list").clone();
        assert!(risks.iter().all(|risk| risk["code"] == "disk_low"), "{risks:?}");
        place.check(daemon);
    });
}
