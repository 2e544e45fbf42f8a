//! Five rotations by the clock, under constant load, with verifiers that cache: no token is ever refused, and the log proves it. Then the
//! log is tampered with, and the verifier says how.
//!
//! In scope: seconds where an operator would write minutes and days; every ratio is that of the defaults. Each token is judged by PyJWT and
//! by jose at once, and again just before it expires, when its key may long have stopped signing. Out of scope: an operator's own rotations
//! (`tokens`) and crashes (`kill`).

#[path = "rotation_under_load/backends.rs"]
mod backends;
#[path = "support/court.rs"]
mod court;
#[path = "rotation_under_load/forge.rs"]
mod forge;
mod harness;
#[cfg(feature = "aws-kms")]
#[path = "support/kms.rs"]
mod kms;
#[path = "support/load.rs"]
mod load;
#[path = "support/vault.rs"]
mod vault;

use std::sync::{Mutex, PoisonError};

use harness::receipts::{lines, segments};
use harness::setup::HSM;
use harness::{Keyring, Place, Setup, SoftHsm, on_softhsm, until, wait};
use load::{SECONDS, under_load};

const KEYRING: &str = "access";
/// As many tokens a second as both verifiers can follow.
const CLIENTS: usize = 16;
const ROTATIONS: usize = 5;
/// Held by each test: two loads at once, with their verifiers, are more than two cores can judge in time.
static ONE_LOAD: Mutex<()> = Mutex::new(());

/// The verifier's exit code on a log, with the trust file and these arguments.
fn verdict(place: &Place<'_>, log: &std::path::Path, more: &[&str]) -> (i32, String) {
    let trust = place.trust();
    place.verify_at(log, &[&["--trust", trust.to_str().expect("a plain path")], more].concat())
}

fn assert_tampering_is_told(place: &Place<'_>) {
    let heads = place.heads();
    let pinned = ["--head", heads.to_str().expect("a plain path")];

    let edited = forge::copy(place, "edited");
    forge::edit(&edited, "uses", |lines| {
        let middle = lines.len() / 2;
        let change = |(number, line): (usize, &str)| {
            if number == middle { line.replace("\"node\":\"a\"", "\"node\":\"b\"") } else { line.to_owned() }
        };
        lines.into_iter().enumerate().map(change).collect()
    });
    let (code, report) = verdict(place, &edited, &pinned);
    assert_eq!(code, 10, "{report}");

    let cut = forge::copy(place, "cut");
    forge::edit(&cut, "keys", |lines| lines[..lines.len() - 3].iter().map(|line| (*line).to_owned()).collect());
    let (code, report) = verdict(place, &cut, &pinned);
    assert_eq!(code, 11, "{report}");

    let forged = forge::early_activation(place, "forged");
    let (code, report) = verdict(place, &forged, &["--min-size", "1", "--keys-only"]);
    assert_eq!(code, 15, "{report}");
    assert!(report.contains("I1"), "{report}");
}

/// All of it, for one kind of keystore: `setup` says where the keys of the keyring named `keystore`, and those of the logs, live. `first`
/// happens while the daemon runs, before the load.
fn five_rotations_refuse_no_token<'h>(hsm: &'h SoftHsm, setup: Setup, keystore: &str, first: impl FnOnce(&Place<'h>)) -> Place<'h> {
    let place = Place::new(hsm, setup.keyring(Keyring::jwt(KEYRING, "ES256").keystore(keystore).timing(SECONDS)));
    let mut daemon = place.start();
    first(&place);
    // Until a sixth key signs.
    under_load(&mut daemon, (KEYRING, CLIENTS), |_, load| {
        until("five rotations", || {
            let count = load.kids().len();
            if count > ROTATIONS { Ok(()) } else { Err(format!("{count} keys have signed")) }
        });
    });
    place.check(daemon);
    let records = lines(&place, "keys");
    let scheduled = |line: &&String| line.contains("\"event\":\"key.rotated\"") && line.contains("\"reason\":\"scheduled\"");
    assert!(records.iter().filter(scheduled).count() >= ROTATIONS, "{records:#?}");
    assert_eq!(segments(&place, "keys").len(), 1, "the forger of this test knows logs of one segment");

    let (code, report) = place.verify(&["--rotation"]);
    assert_eq!(code, 16, "whole, but pinned by nothing: {report}");
    assert_tampering_is_told(&place);
    place
}

#[test]
fn five_rotations_under_load_on_softhsm() {
    let _alone = ONE_LOAD.lock().unwrap_or_else(PoisonError::into_inner);
    on_softhsm("five_rotations_under_load_on_softhsm", |hsm| {
        five_rotations_refuse_no_token(hsm, Setup::new(), HSM, |_| ());
    });
}
