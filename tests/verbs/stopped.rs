//! The two verbs that cannot wait for a daemon: suspend and compromise with `--offline`.

use crate::harness::{Keyring, Place, Setup, on_softhsm};
use crate::{LATER, UNAVAILABLE, fails, json, kid, records, served};

#[test]
fn a_key_is_suspended_and_compromised_without_a_daemon() {
    on_softhsm("stopped::a_key_is_suspended_and_compromised_without_a_daemon", |hsm| {
        let place = Place::new(hsm, Setup::new().keyring(Keyring::jwt("access", "ES256")));
        let daemon = place.start();
        let active = kid(&place, "access", "active");
        let suspend = ["key", "suspend", &active, "--reason", "doubt", "--offline"];
        let said = fails(&place, UNAVAILABLE, &suspend);
        assert!(said.contains(&format!("in use by process {}", daemon.pid())), "{said}");
        assert!(daemon.stop().success());

        let done = json(&place, &suspend);
        assert_eq!(done["events"][0]["kid"], active.as_str());
        let said = fails(&place, LATER, &suspend);
        assert!(said.contains("the key is suspended, not active"), "{said}");
        let compromise = ["key", "compromise", &active, "--reason", "stolen", "--yes", "--offline"];
        assert!(place.command(&compromise).contains("key.compromised"));

        // The next start serves what the log says: the stolen key is in no set, and destroyed in its keystore.
        let mut daemon = place.spawn();
        assert!(!served(&mut daemon.anonymous()).contains(&active));
        crate::harness::until("the destruction", || {
            let destroyed = records(&place, "key.destroyed");
            if destroyed.is_empty() { Err(daemon.stderr()) } else { Ok(()) }
        });
        let uid = format!("unix:uid={}", rustix::process::geteuid().as_raw());
        assert_eq!(records(&place, "key.compromised")[0]["caller"], uid.as_str());
        place.check(daemon);
    });
}
