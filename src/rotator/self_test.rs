//! The self-test of a new key: one signature, verified before the key is recorded.
//!
//! In scope: the signature, and a record of it whatever becomes of the key, because the keystore's own record may show it. Out of scope: making
//! the key, and what follows a refusal (`super`).

use std::time::Duration;

use claviger_audit::Algorithm;
use claviger_audit::event::{Event, SignFailed};
use claviger_audit::names::KeyName;
use claviger_audit::record::Asked;
use serde_json::Map;

use super::Rotator;
use crate::calls::Call;
use crate::jose::{Protected, SigningInput, Verifier};
use crate::journal::Draft;
use crate::keystore::{Input, Keystore, KeystoreError, Made, Signature, Terms};

/// How long a self-test signature may take; longer than any request, since nobody waits for it.
const DEADLINE: Duration = Duration::from_secs(10);

/// A self-test signature that no record names yet.
pub(super) struct Tested {
    keyring: String,
    kid: String,
    request: Option<String>,
    call: Call,
}

impl Tested {
    /// The backend's own request id.
    pub(super) fn request(&self) -> Option<&str> {
        self.request.as_deref()
    }

    /// `key.created` is durable, and names it.
    pub(super) fn settle(self) {
        self.call.recorded(self.request.as_deref());
    }
}

impl Rotator {
    /// Lets the new key sign something, and verifies it.
    pub(super) async fn self_test(
        &self,
        (keystore, store): (&str, &dyn Keystore),
        name: &KeyName,
        made: &Made,
        algorithm: Algorithm,
    ) -> Result<Tested, KeystoreError> {
        let verifier = Verifier::new(&made.public, algorithm).map_err(|error| KeystoreError::Rejected(error.to_string()))?;
        let (keyring, kid) = (name.keyring().to_owned(), made.public.thumbprint());
        let header =
            Protected { algorithm, kid: kid.clone(), typ: Some("claviger-self-test".into()), more: Map::new(), encode_payload: true };
        let input = SigningInput::new(&header, b"self-test", false);
        let message = input.digest.clone().map_or_else(|| Input::Message(input.message().to_vec()), Input::Digest);
        let call = self.calls.begin(keystore, (&keyring, &kid), || DEADLINE).await.map_err(|_| KeystoreError::Overloaded)?;
        let deadline = self.clock.monotonic().plus(DEADLINE);
        match store.sign(&made.locator, algorithm, message, Terms::own(deadline)).await {
            Ok(Signature { bytes, backend_request: request }) => {
                let tested = Tested { keyring, kid, request, call };
                if verifier.verify(&input, &bytes).is_ok() {
                    return Ok(tested);
                }
                self.record_self_test(tested, "it does not verify").await;
                Err(KeystoreError::Rejected("the self-test signature of the new key does not verify".to_owned()))
            }
            Err(KeystoreError::Unusable { reason, backend_request: request }) => {
                self.record_self_test(Tested { keyring, kid, request, call }, &reason).await;
                Err(KeystoreError::Rejected(format!("the self-test signature of the new key cannot be used: {reason}")))
            }
            // The call is dropped, and so counted.
            Err(KeystoreError::Unanswered) => Err(KeystoreError::Unanswered),
            Err(error) => {
                call.settle();
                Err(error)
            }
        }
    }

    /// Records a self-test signature that no `key.created` names, if its keystore may show it.
    pub(super) async fn record_self_test(&self, tested: Tested, why: &str) {
        let Tested { keyring, kid, request, call } = tested;
        if request.is_none() && !call.is_on_record() {
            return call.settle();
        }
        let (code, reason) = ("self_test".to_owned(), Some(why.to_owned()));
        let event = Event::SignFailed(SignFailed { keyring, kid, code, reason, of: None, backend_request: request.clone() });
        match self.uses.append(Draft { asked: Asked::default(), event }).await {
            Ok(_) => call.recorded(request.as_deref()),
            Err(error) => tracing::error!(%error, "the record of a self-test could not be written"),
        }
    }
}
