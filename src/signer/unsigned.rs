//! What a keystore did not do: how an attempt ends without a signature, what its caller is told, and which record there is of it.
//!
//! In scope: the room for a call, errors of keystores, `sign.failed`. Out of scope: an attempt that ends with a signature, and how often
//! another one is made (`super`).

use std::time::Duration;

use claviger_audit::event::{Event, SignFailed};

use super::view::SigningKey;
use super::{Ask, KeyringRules, Signer, log_unwritable};
use crate::calls::{Call, NotBegun};
use crate::complaints::Work;
use crate::journal::Draft;
use crate::keystore::KeystoreError;
use crate::refusal::{Code, Refusal};

/// When to ask again after overload, or after a call that got no answer.
const SOON: Duration = Duration::from_secs(1);

/// How an attempt ended without a reply.
pub(super) enum Attempt {
    /// Another one may succeed.
    Again(Refusal),
    /// The keystore was asked and did not answer; another attempt may succeed while time is left.
    Unanswered(Refusal),
    /// It would end the same way.
    Final(Refusal),
}

impl Signer {
    /// Room for one call of the key's keystore, waited for until the deadline.
    pub(super) async fn begin(&self, ask: &Ask, rules: &KeyringRules, key: &SigningKey) -> Result<Call, Attempt> {
        // A signature that no record could name must not be asked for.
        if self.uses.poisoned().is_some() {
            return Err(Attempt::Final(log_unwritable()));
        }
        let left = || ask.deadline.since(self.clock.monotonic());
        let call = self.calls.begin(&key.keystore_name, (&rules.name, &key.kid), left).await;
        call.map_err(|why| {
            let detail = match why {
                NotBegun::NoRoom => "more signatures are waiting for their records than the disk can take; ask again",
                NotBegun::TooLate => "the deadline passed before the keystore could be asked; ask again, with more time",
            };
            Attempt::Final(overloaded(detail))
        })
    }

    /// The end of an attempt that the keystore answered with an error.
    pub(super) async fn unsigned(&self, ask: &Ask, rules: &KeyringRules, key: &SigningKey, error: KeystoreError, call: Call) -> Attempt {
        tracing::warn!(keyring = rules.name, keystore = key.keystore_name, %error, "a keystore did not sign");
        self.complaints.note(&key.keystore_name, Work::Sign(rules.name.clone()), &error);
        let unavailable = |detail: &str| Refusal::new(Code::KeystoreUnavailable, detail);
        let (attempt, code) = match error {
            KeystoreError::Retry(_) => (Attempt::Again(unavailable("the keystore failed twice; ask again")), "retry"),
            KeystoreError::Unavailable { after, .. } => {
                (Attempt::Final(unavailable("the keystore does not answer; ask again later").retry_after(after)), "unavailable")
            }
            KeystoreError::Rejected(_) => {
                (Attempt::Final(unavailable("the keystore refuses to sign; an operator must look at it")), "rejected")
            }
            KeystoreError::Gone(_) => {
                (Attempt::Final(unavailable("the key is gone from its keystore; an operator must look at it")), "gone")
            }
            KeystoreError::Unanswered => {
                // The call is dropped, and so counted.
                return Attempt::Unanswered(unavailable("the keystore did not answer within the deadline; ask again").retry_after(SOON));
            }
            KeystoreError::Unusable { backend_request, .. } => {
                let record = SignFailed { backend_request: backend_request.clone(), ..failure(rules, key, "unusable", None) };
                if self.append_failure(ask, record).await {
                    call.recorded(backend_request.as_deref());
                }
                return Attempt::Final(unavailable("the keystore's answer cannot be used; an operator must look at it"));
            }
            KeystoreError::Overloaded => {
                call.settle();
                return Attempt::Final(overloaded("more work is waiting for the keystore than it can do within the deadline; ask again"));
            }
        };
        call.settle();
        self.uses.note(Draft { asked: self.asked(ask), event: Event::SignFailed(failure(rules, key, code, None)) });
        attempt
    }

    /// Records that a signature was made and not released.
    pub(super) async fn failed(&self, ask: &Ask, rules: &KeyringRules, key: &SigningKey, code: &str, of: Option<u64>) {
        self.append_failure(ask, failure(rules, key, code, of)).await;
    }

    async fn append_failure(&self, ask: &Ask, event: SignFailed) -> bool {
        let code = event.code.clone();
        let appended = self.uses.append(Draft { asked: self.asked(ask), event: Event::SignFailed(event) }).await;
        appended.inspect_err(|error| tracing::error!(%error, code, "the record of a failed signature could not be written")).is_ok()
    }
}

fn overloaded(detail: &str) -> Refusal {
    Refusal::new(Code::Overloaded, detail).retry_after(SOON)
}

fn failure(rules: &KeyringRules, key: &SigningKey, code: &str, of: Option<u64>) -> SignFailed {
    let (keyring, kid, code) = (rules.name.clone(), key.kid.clone(), code.to_owned());
    SignFailed { keyring, kid, code, reason: None, of, backend_request: None }
}
