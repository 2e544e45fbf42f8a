//! A token that is away: how often it is looked for.

use std::time::Duration;

use claviger::keystore::pkcs11::TokenState;
use claviger::keystore::{Keystore as _, KeystoreError, Locator};
use claviger_audit::Algorithm;
use serde_json::json;

use crate::support::faults::with_faults;
use crate::{Bench, name};

/// How long the token is away, by the keystore's clock.
const SPAN: Duration = Duration::from_mins(1);
/// How far the clock goes in one step: shorter than the shortest pause.
const STEP: Duration = Duration::from_millis(20);

#[test]
fn an_absent_token_is_looked_for_with_pauses() {
    with_faults("absence::an_absent_token_is_looked_for_with_pauses", |hsm, faults| {
        let bench = Bench::new(hsm, faults);
        faults.tell(json!({ "do": "remove" }));
        let before = faults.calls("C_GetSlotList");
        let mut steps = 0;
        for _ in 0..SPAN.as_millis() / STEP.as_millis() {
            bench.clock.put(STEP);
            // An errand makes the thread that owns the token look at the clock.
            let outcome = bench.runtime.block_on(bench.keystore.create(&name(3), Algorithm::ES256));
            let Err(KeystoreError::Unavailable { after, .. }) = outcome else { panic!("{outcome:?}") };
            assert!(after <= Duration::from_secs(1), "{after:?}");
            let outcome = bench.sign(0);
            assert!(matches!(outcome, Err(KeystoreError::Unavailable { .. })), "{outcome:?}");
            steps += 1;
        }
        // Each look asks for the list twice: for its length, and for the list.
        let looks = (faults.calls("C_GetSlotList") - before) / 2;
        // The pauses are 50, 100, 200, 400, 800 ms, then a second each, less up to a half by chance: so at least 60 looks a minute.
        assert!(looks >= SPAN.as_secs(), "{looks} looks in {steps} steps");
        assert!(looks <= 6 + 2 * SPAN.as_secs(), "{looks} looks in {steps} steps");
        assert!(matches!(bench.keystore.state().token, TokenState::Down(_)));

        faults.tell(json!({ "do": "return" }));
        bench.clock.put(Duration::from_secs(1));
        bench.heals();
    });
}

#[test]
fn many_keys_that_are_not_there_cost_one_login() {
    with_faults("absence::many_keys_that_are_not_there_cost_one_login", |hsm, faults| {
        let bench = Bench::new(hsm, faults);
        let logins = || bench.keystore.condition().reopened.logins;
        let look_for = |digit: &str| {
            let outcome = bench.runtime.block_on(bench.keystore.inspect(&Locator::new(digit.repeat(40))));
            assert!(matches!(outcome, Err(KeystoreError::Gone(_))), "{outcome:?}");
        };
        let before = logins();
        for digit in ["1", "2", "3", "4"] {
            look_for(digit);
        }
        assert_eq!(logins() - before, 1, "what the first search made sure of holds for the others");
        bench.clock.put(Duration::from_secs(10));
        look_for("5");
        assert_eq!(logins() - before, 2, "not for ever");
        bench.heals();
    });
}
