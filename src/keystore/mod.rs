//! The keystore port: where private keys live, and what may be asked of one.
//!
//! In scope: the contract, in prose and as a trait. Out of scope: any vendor's types, retries (the signer retries, so that each attempt is
//! counted) and verification (the signer verifies every signature before release). There is no export and no import.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use claviger_audit::jwk::PublicKey;
use claviger_audit::names::KeyName;
use claviger_audit::{Algorithm, Timestamp};

use crate::clock::Monotonic;

#[cfg(feature = "aws-kms")]
pub mod aws_kms;
#[cfg_attr(not(feature = "aws-kms"), allow(dead_code, reason = "Vault does not ask for all of it"))]
mod breaker;
pub mod pkcs11;
pub mod spki;
pub mod vault;

/// A boxed future, so that the port can be used as `Arc<dyn Keystore>`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where a key is within its keystore: a PKCS#11 `CKA_ID` in hex, a KMS ARN, a Vault mount, name and version. Opaque to everyone else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Locator(String);

impl Locator {
    /// Wraps the text that a keystore made, or that a `key.created` record holds.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, as recorded.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is to be signed, hashed once by the signer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A digest whose length is that of the algorithm's hash.
    Digest(Vec<u8>),
    /// The message itself: Ed25519 alone (RFC 8032 section 5.1.6 hashes it twice).
    Message(Vec<u8>),
}

/// A key that exists and was admitted.
#[derive(Clone, Debug)]
pub struct Made {
    /// The public half, as the keystore reports it.
    pub public: PublicKey,
    /// Names the key in every later call.
    pub locator: Locator,
    /// What admission read, for the record: attribute name to value, e.g. `sensitive = true`.
    pub attributes: BTreeMap<String, String>,
    /// The backend's own request id, where it has one.
    pub backend_request: Option<String>,
}

/// A key that exists, as its keystore shows it now, whether or not it would be admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The public half; or, for operators, why no single one can be told.
    pub public: Result<PublicKey, String>,
    /// Everything that admission reads, under the names of [`Made::attributes`]; `None` for what the keystore does not report. Empty where
    /// several keys have the locator.
    pub attributes: BTreeMap<String, Option<String>>,
}

/// A signature in JOSE form: `r || s` for ECDSA (RFC 7518 section 3.4), the plain octets for RSA and Ed25519.
#[derive(Clone, Debug)]
pub struct Signature {
    /// The octets.
    pub bytes: Vec<u8>,
    /// The backend's own request id, where it has one.
    pub backend_request: Option<String>,
}

/// How a signature is waited for.
#[derive(Clone, Debug)]
pub struct Terms {
    /// After this point nobody waits any more: work that has not begun by then is not begun.
    pub deadline: Monotonic,
    /// Which work it stands behind.
    pub class: Class,
    /// On whose behalf: no caller gets all of a keystore's queue.
    pub caller: Arc<str>,
}

/// Who waits for a signature. Work of one class is done in the order in which it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Claviger's own: a checkpoint, the self-test of a new key. They are few, and served before everything else, so that overload never
    /// leaves the log uncovered.
    Own,
    /// Somebody waits for this very signature.
    Interactive,
    /// One of many that were asked for at once: it lets interactive work pass, and is shed first.
    Batch,
}

impl Terms {
    /// Claviger's own signatures: checkpoints, and the self-test of a new key.
    pub fn own(deadline: Monotonic) -> Self {
        Self { deadline, class: Class::Own, caller: Arc::from("claviger") }
    }
}

/// What a keystore knows of its own condition, without asking anybody. All counts are since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// What was lost and opened again.
    pub reopened: Reopened,
    /// How many signatures wait for a thread.
    pub queued: usize,
    /// How many answers came after their caller had left.
    pub late: u64,
    /// How many calls were given up as hung and have not returned yet.
    pub hung: u64,
    /// Whether so many calls hang that only a new process can sign here again.
    pub wedged: bool,
}

/// What a keystore had to open again, mildest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reopened {
    /// Sessions that were lost alone.
    pub sessions: u64,
    /// Logins: each begins a new epoch, in which every key is found anew.
    pub logins: u64,
    /// Initialisations of a whole module.
    pub modules: u64,
    /// What was answered when it was last lost; no secret is in it.
    pub cause: String,
}

/// Why a keystore did not do what was asked. The text says what happened and never holds a PIN, a token or a URI secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeystoreError {
    /// A passing fault: the same call may succeed now.
    #[error("the keystore failed in passing: {0}")]
    Retry(String),
    /// The keystore cannot be used; `after` says when to ask again.
    #[error("the keystore is unavailable: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
        /// When it may be worth asking again.
        after: Duration,
    },
    /// The request itself can never succeed: wrong PIN, mechanism, attribute, or a key that admission refuses.
    #[error("the keystore refused: {0}")]
    Rejected(String),
    /// No key has this locator. (An empty search right after a session error is not this.)
    #[error("the key is gone from its keystore: {0}")]
    Gone(String),
    /// The call was made, and no complete answer came within the deadline: nobody knows whether there is a signature. It is counted, and may
    /// be made again.
    #[error("the keystore did not answer within the deadline")]
    Unanswered,
    /// The keystore says that it signed, and the answer cannot be used: it is by another version of the key, or is no signature in form.
    #[error("the keystore's answer cannot be used: {reason}")]
    Unusable {
        /// What is wrong with it.
        reason: String,
        /// The backend's own request id, where it has one: its record shows a signature.
        backend_request: Option<String>,
    },
    /// The queue is full or the deadline cannot be met: refused before the keystore was asked.
    #[error("the keystore's queue is full")]
    Overloaded,
}

/// A place that holds private keys.
///
/// All methods may be called at the same time from many tasks. An adapter keeps its own back-off and recovery; it never deletes a key
/// that it was not told to destroy.
pub trait Keystore: Send + Sync {
    /// Finds the key of this name, or creates it; returns the same key however often it is called. When it returns, the key survives a
    /// restart and has passed admission (private, sensitive, never extractable, made here, for signing only). May be retried.
    fn create<'a>(&'a self, name: &'a KeyName, algorithm: Algorithm) -> BoxFuture<'a, Result<Made, KeystoreError>>;

    /// Signs; has no side effect and may be retried. Work whose deadline has passed, or will have before its turn, is not started. The
    /// input's kind and length must be those of the algorithm, else [`KeystoreError::Rejected`].
    fn sign<'a>(
        &'a self,
        locator: &'a Locator,
        algorithm: Algorithm,
        input: Input,
        terms: Terms,
    ) -> BoxFuture<'a, Result<Signature, KeystoreError>>;

    /// Makes the key unusable; succeeds if it already is, or never was. Returns when the keystore will delete it, if it waits with that and says so:
    /// until then its administrators can bring it back. Elsewhere it is final.
    fn destroy<'a>(&'a self, locator: &'a Locator) -> BoxFuture<'a, Result<Option<Timestamp>, KeystoreError>>;

    /// Reads back a key that exists, as it is by now: one that [`Keystore::create`] would refuse is told all the same, so that somebody can
    /// compare it, piece by piece, with what was recorded of it. Creates nothing and changes nothing; may be retried.
    ///
    /// [`KeystoreError::Gone`] is an answer: no private key has this locator, and the search was made by somebody who was logged in, again
    /// after a new login. Every other error says nothing about the key. Slower than a signature, and never on a request path.
    fn inspect<'a>(&'a self, locator: &'a Locator) -> BoxFuture<'a, Result<Seen, KeystoreError>>;

    /// Whether signing could work now; cheap, creates nothing, never on the request path.
    fn health(&self) -> BoxFuture<'_, Result<(), KeystoreError>>;

    /// The names of all keys whose name starts with `<installation>.`, sorted, with their locators. Slow where there are many: for
    /// `doctor`, for an hourly look, and for a key whose making was never recorded; never on a request path.
    fn inventory<'a>(&'a self, installation: &'a str) -> BoxFuture<'a, Result<Vec<(KeyName, Locator)>, KeystoreError>>;

    /// What is known without asking: for records, metrics and readiness.
    fn condition(&self) -> Condition;

    /// Whether the backend writes down each signature by itself, under the request id that [`Signature::backend_request`] names: CloudTrail
    /// and the audit devices of Vault do, PKCS#11 has nothing of the kind.
    fn keeps_record(&self) -> bool;
}
