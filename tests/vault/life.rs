//! A Vault that is sealed, unsealed, stopped and started again under load: nothing wrong is signed, and signing is back without a restart.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use claviger::keystore::Class;

use super::*;
use crate::support::wait::until;

/// How many callers sign all the time.
const CALLERS: usize = 8;

/// How long whoever was refused rests.
const PACE: Duration = Duration::from_millis(50);

/// What the callers saw.
#[derive(Default)]
struct Seen {
    signed: AtomicUsize,
    refused: AtomicUsize,
    over: AtomicBool,
}

impl Seen {
    /// Until so many more signatures were made.
    fn more(&self, signatures: usize) {
        let before = self.signed.load(Ordering::Relaxed);
        until("signatures", || {
            let made = self.signed.load(Ordering::Relaxed) - before;
            if made >= signatures { Ok(()) } else { Err(format!("{made} made, {} refused", self.refused.load(Ordering::Relaxed))) }
        });
    }

    /// Until callers are refused.
    fn refusals(&self) {
        let before = self.refused.load(Ordering::Relaxed);
        until("refusals", || if self.refused.load(Ordering::Relaxed) > before + CALLERS { Ok(()) } else { Err("none".to_owned()) });
    }
}

#[test]
fn sealed_unsealed_and_restarted_under_load() {
    let vault = Vault::start(&[INSTALLATION]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (clock, seen) = (clock(), Arc::new(Seen::default()));
    let (keystore, made) = runtime.block_on(async {
        let keystore = Arc::new(opened(&vault, &clock).await);
        let made = keystore.create(&name(1), Algorithm::ES256).await.expect("made");
        (keystore, made)
    });
    // As the daemon does: its looks end the pause as soon as the server is well.
    let (looked, looking) = (keystore.clone(), seen.clone());
    let health = runtime.spawn(async move {
        let mut pace = tokio::time::interval(PACE);
        while !looking.over.load(Ordering::Relaxed) {
            let _ = looked.health().await;
            pace.tick().await;
        }
    });
    let callers: Vec<_> =
        (0..CALLERS).map(|caller| runtime.spawn(load(caller, keystore.clone(), clock.clone(), made.clone(), seen.clone()))).collect();

    seen.more(50);
    vault.seal();
    seen.refusals();
    vault.unseal();
    seen.more(50);
    vault.stop();
    seen.refusals();
    vault.start_again();
    seen.refusals();
    vault.unseal();
    seen.more(50);

    seen.over.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        for caller in callers {
            caller.await.expect("every signature that was given was right");
        }
        health.await.expect("it ends");
        assert_eq!(keystore.health().await, Ok(()));
        assert_eq!(keystore.condition().reopened.logins, 0, "the token outlived it all");
    });
}

/// Signs until it is over; whatever is given must be right, and whatever is refused must be told as what passes.
async fn load(caller: usize, keystore: Arc<VaultKeystore>, clock: Arc<SystemClock>, made: Made, seen: Arc<Seen>) {
    let name: Arc<str> = Arc::from(format!("caller {caller}"));
    let mut pace = tokio::time::interval(PACE);
    for round in 0_u64.. {
        if seen.over.load(Ordering::Relaxed) {
            return;
        }
        let message = [round.to_be_bytes(), (caller as u64).to_be_bytes()].concat();
        let terms = Terms { deadline: clock.monotonic().plus(Duration::from_secs(5)), class: Class::Interactive, caller: name.clone() };
        match keystore.sign(&made.locator, Algorithm::ES256, input(Algorithm::ES256, &message), terms).await {
            Ok(signature) => {
                verify(&made.public, Algorithm::ES256, &message, &signature.bytes);
                seen.signed.fetch_add(1, Ordering::Relaxed);
            }
            Err(KeystoreError::Unavailable { .. } | KeystoreError::Unanswered) => {
                seen.refused.fetch_add(1, Ordering::Relaxed);
                pace.tick().await;
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// What is down is told as such at once, with what to do, and never as a key that is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_vault_is_explained() {
    let vault = Vault::start(&[INSTALLATION]);
    let clock = clock();
    let keystore = opened(&vault, &clock).await;
    let made = keystore.create(&name(1), Algorithm::ES256).await.expect("made");
    vault.seal();
    for outcome in [
        signed(&keystore, &clock, &made, b"x").await.map(drop),
        keystore.inspect(&made.locator).await.map(drop),
        keystore.inventory(INSTALLATION).await.map(drop),
        keystore.destroy(&made.locator).await.map(drop),
        keystore.health().await,
    ] {
        assert!(matches!(&outcome, Err(KeystoreError::Unavailable { reason, .. }) if reason.contains("sealed: unseal it")), "{outcome:?}");
    }
    // A keystore that is opened now is not refused for good, either.
    let second = vault.open(clock.clone());
    let outcome = second.health().await;
    assert!(matches!(&outcome, Err(KeystoreError::Unavailable { reason, .. }) if reason.contains("sealed")), "{outcome:?}");
    vault.unseal();
    healthy(&second).await;
    signed(&second, &clock, &made, b"x").await.expect("signed");
    vault.stop();
    // A fresh signature is health enough; one that fails is not.
    signed(&second, &clock, &made, b"x").await.expect_err("nobody is there");
    let outcome = second.health().await;
    assert!(
        matches!(&outcome, Err(KeystoreError::Unavailable { reason, .. }) if reason.contains("cannot connect to https://127.0.0.1")),
        "{outcome:?}"
    );
}
