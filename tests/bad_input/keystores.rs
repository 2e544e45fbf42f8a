//! Keystores that are away or do not let us in: JWKS goes on, signing says why not.
//!
//! In scope: a wrong PIN, a token that is gone and comes back. Out of scope: the adapter's own recovery (`keystore_contract.rs`).

use crate::extra::settle;
use crate::harness::place::TOKEN;
use crate::harness::softhsm::PIN;
use crate::harness::{Client, Daemon, Keyring, Place, Setup, on_softhsm, until};
use crate::{good, refused};

const WRONG_PIN: &str = "0000-wrong-pin";

fn one_keyring() -> Setup {
    Setup::new().keyring(Keyring::jwt("access", "ES256"))
}

/// The daemon's JWKS, which must be served.
fn jwks(client: &mut Client) -> String {
    let answer = client.get("/.well-known/jwks.json");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

/// Red for signing, with a reason that an operator can act on and without one that is not for strangers; green for JWKS.
fn red(daemon: &mut Daemon) {
    let mut client = daemon.anonymous();
    let row = until("/readyz/sign is red", || {
        let answer = client.try_get("/readyz/sign?keyring=access")?;
        if answer.status == 503 { Ok(answer.json()["keyrings"][0].clone()) } else { Err(answer.text()) }
    });
    assert_eq!(row["code"], "keystore_unavailable", "{row}");
    assert!(row["detail"].as_str().is_some_and(|detail| detail.contains("\"hsm\"") && !detail.contains("pin")), "{row}");
    assert_eq!(client.get("/readyz").status, 200, "the true JWKS is served");
    assert_eq!(client.get("/livez").status, 200);
    let metrics = client.get("/metrics").text();
    assert!(metrics.contains("claviger_keystore_up{keystore=\"hsm\"} 0"), "{metrics}");
    assert!(metrics.contains("claviger_signer_ready{keyring=\"access\"} 0"), "{metrics}");
}

#[test]
fn a_wrong_pin_is_tried_once_and_never_again() {
    on_softhsm("keystores::a_wrong_pin_is_tried_once_and_never_again", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let mut daemon = place.start();
        settle(&mut daemon, &["access"]);
        let served = jwks(&mut daemon.anonymous());
        assert!(daemon.stop().success());

        hsm.settings(TOKEN, WRONG_PIN);
        for run in 0..3 {
            let mut daemon = place.spawn();
            assert_eq!(jwks(&mut daemon.anonymous()), served, "JWKS comes from the log alone");
            let problem = refused(&daemon.demo().post("/sign", &good()), 503, "keystore_unavailable");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("operator")), "{problem}");
            red(&mut daemon);
            let doctor = place.claviger(&["doctor"]);
            assert_eq!(doctor.status.code(), Some(1), "doctor finds it");
            let printed = daemon.stderr();
            assert!(printed.contains("PIN in") && !printed.contains(WRONG_PIN), "{printed}");
            // A token locks after a few wrong PINs: a restart is no new try.
            let (answered, before) = (printed.contains("C_Login answered"), printed.contains("was refused before"));
            assert!(!answered || run == 0, "run {run}: {printed}");
            // Who asks the first run after its one try is told so too.
            assert!(before || (answered && run == 0), "run {run}: {printed}");
            assert!(daemon.stop().success());
        }

        // The right PIN is used as soon as it is there; the daemon need not be started again.
        let mut daemon = place.spawn();
        red(&mut daemon);
        hsm.settings(TOKEN, PIN);
        daemon.ready();
        assert_eq!(daemon.demo().sign("access").expect("an answer").status, 200);
        place.check(daemon);
    });
}

#[test]
fn a_token_that_is_gone_and_comes_back_needs_no_restart() {
    on_softhsm("keystores::a_token_that_is_gone_and_comes_back_needs_no_restart", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let mut daemon = place.start();
        settle(&mut daemon, &["access"]);
        let mut demo = daemon.demo();
        let before = demo.sign("access").expect("an answer").ok();
        let served = jwks(&mut daemon.anonymous());

        hsm.hide_tokens(true);
        let answer = until("a refusal", || {
            let answer = demo.sign("access")?;
            if answer.status == 200 { Err("it was signed".to_owned()) } else { Ok(answer) }
        });
        refused(&answer, 503, "keystore_unavailable");
        red(&mut daemon);
        assert_eq!(jwks(&mut daemon.anonymous()), served);

        hsm.hide_tokens(false);
        daemon.ready();
        let after = until("a signature", || {
            let answer = demo.sign("access")?;
            if answer.status == 200 { Ok(answer.json()) } else { Err(answer.text()) }
        });
        assert_eq!(after["kid"], before["kid"], "the same key signs on");
        let log = place.log();
        let shown = place.command(&["audit", "show", log.to_str().expect("a plain path"), "--event", "keystore."]);
        assert!(shown.contains("keystore.lost") && shown.contains("keystore.recovered"), "{shown}");
        place.check(daemon);
    });
}

#[test]
fn a_start_without_the_token_serves_what_the_log_says() {
    on_softhsm("keystores::a_start_without_the_token_serves_what_the_log_says", |hsm| {
        let place = Place::new(hsm, one_keyring());
        let mut daemon = place.start();
        settle(&mut daemon, &["access"]);
        let served = jwks(&mut daemon.anonymous());
        assert!(daemon.stop().success());
        hsm.hide_tokens(true);
        let mut daemon = place.spawn();
        assert_eq!(jwks(&mut daemon.anonymous()), served);
        red(&mut daemon);
        refused(&daemon.demo().post("/sign", &good()), 503, "keystore_unavailable");
        hsm.hide_tokens(false);
        daemon.ready();
        until("a signature", || {
            let answer = daemon.demo().sign("access")?;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        });
        place.check(daemon);
    });
}
