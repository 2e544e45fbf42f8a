//! The fields of every event that the key log may hold, those that both logs share included.
//!
//! In scope: names and fields, as `audit/README.md` specifies them. Out of scope: whether an event is legal (`keyrings`) and how it becomes
//! bytes (`record`). Durations are milliseconds, dates are [`Timestamp`]s, hashes are lower-case hex.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::algorithm::Algorithm;
use crate::jwk::PublicKey;
use crate::merkle::Hash;
use crate::names::KeyName;
use crate::time::Timestamp;
use crate::timing::Timing;

/// What a keyring is for; fixed by its first event (RFC 8725 section 3.12: no cross-use).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Claims in, compact JWT out.
    Jwt,
    /// Payload in, compact or detached JWS out.
    Jws,
}

/// Why a key became active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotationReason {
    /// The first key of a keyring that no verifier could have cached (I1).
    Bootstrap,
    /// Planned.
    Scheduled,
    /// An operator asked.
    OnDemand,
}

/// The first record of a log: which log this is and which key signs its checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogCreated {
    /// C2SP origin line.
    pub origin: String,
    /// The log's verifier key, in C2SP text form.
    pub key: String,
    /// The keystore that holds the log key.
    pub keystore: String,
    /// Where the log key is within it.
    pub locator: String,
    /// Part of every key's name.
    pub installation: String,
    /// Of the program that wrote the record.
    pub version: String,
}

/// What `init` had durably written down before it made the log keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitIntent {
    /// The names of the log keys.
    pub keys: Vec<KeyName>,
}

/// The first record of every segment but the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSegment {
    /// Leaf hash of the last record of the segment before.
    pub last: Hash,
    /// Bytes of the segment before.
    pub size: u64,
    /// SHA-256 of the segment before.
    pub sha256: Hash,
}

/// Nothing happened, and the log is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogHeartbeat {}

/// A torn tail, never acknowledged, was dropped after an unclean stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogRecovered {
    /// How many bytes were dropped.
    pub bytes: u64,
    /// Their SHA-256; the original file is kept as `<name>.suspect`.
    pub sha256: Hash,
}

/// The log can take no more records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogHalt {
    /// Why.
    pub reason: String,
}

/// Another key signs the checkpoints of this log from now on. The checkpoint that covers this record carries the signatures of both keys,
/// later ones only that of the new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogKeyRotated {
    /// The verifier key that signed until now, in C2SP text form.
    pub old: String,
    /// The verifier key that signs from now on.
    pub new: String,
    /// The keystore that holds the new key.
    pub keystore: String,
    /// Where the new key is within it.
    pub locator: String,
}

/// This log goes on where another one ended that had lost its tail; always the second record, after `log.created`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogAdopted {
    /// The origin of the log before.
    pub origin: String,
    /// How many of its records are still there, and count.
    pub size: u64,
    /// Its Merkle root at that size.
    pub root: Hash,
    /// How many more it is known to have had.
    pub lost: u64,
    /// The operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A daemon took the logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DaemonStart {
    /// Of the daemon.
    pub version: String,
    /// Whether the run before did not stop in order.
    pub unclean: bool,
    /// The most signatures that a record of a keystore's own may show, and that an unclean stop can keep out of these logs.
    pub in_flight: u64,
}

/// A daemon let go of the logs in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DaemonStop {
    /// Why.
    pub reason: String,
}

/// A configuration is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigLoaded {
    /// Of the file's bytes.
    pub sha256: Hash,
}

/// A policy set is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyLoaded {
    /// Over all files, names included.
    pub sha256: Hash,
    /// How many policies it has.
    pub policies: u64,
}

/// A keyring begins; purpose, issuer and typ never change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyringCreated {
    /// Its name, never used again after it is retired.
    pub keyring: String,
    /// What it signs.
    pub purpose: Purpose,
    /// The name of its issuer, for `jwt` keyrings.
    pub issuer: Option<String>,
    /// The `iss` of its tokens.
    pub issuer_url: Option<String>,
    /// The `typ` header of its tokens (RFC 8725 section 3.11).
    pub typ: Option<String>,
    /// Of its next key.
    pub algorithm: Algorithm,
    /// Of its next key.
    pub keystore: String,
    /// The other keystore, if it has two: each key is made in the one in which the key that signs is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby_keystore: Option<String>,
}

/// The next key is to be of another algorithm or in another keystore: a migration is a rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyringChanged {
    /// Its name.
    pub keyring: String,
    /// Of its next key.
    pub algorithm: Algorithm,
    /// Of its next key.
    pub keystore: String,
    /// The other keystore, if it has two: each key is made in the one in which the key that signs is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby_keystore: Option<String>,
}

/// New settings are in force (I8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyringTiming {
    /// Its name.
    pub keyring: String,
    /// All settings.
    pub timing: Timing,
}

/// The keyring ends: no new key, withdrawal by I3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyringRetired {
    /// Its name.
    pub keyring: String,
    /// The operator's.
    pub reason: String,
    /// When the key that could sign may leave the JWKS.
    pub withdraw_after: Option<Timestamp>,
}

/// A key is about to be created: the intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRequested {
    /// Its name in the keystore.
    pub key: KeyName,
    /// Its keyring.
    pub keyring: String,
    /// Where it will live.
    pub keystore: String,
    /// What it will sign.
    pub algorithm: Algorithm,
}

/// The key exists, was admitted, and its self-test signature verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyCreated {
    /// Its name.
    pub key: KeyName,
    /// RFC 7638 thumbprint of the public key.
    pub kid: String,
    /// The public key.
    pub jwk: PublicKey,
    /// Names it in every later call.
    pub locator: String,
    /// What admission read.
    pub attributes: BTreeMap<String, String>,
    /// The backend's own request id.
    pub backend_request: Option<String>,
    /// The backend's own request id of the self-test signature.
    pub self_test: Option<String>,
}

/// The key is part of its sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPublished {
    /// The key.
    pub kid: String,
    /// Not before this may it sign, by the settings of now.
    pub earliest_activation: Timestamp,
    /// Sequence number of the settings in force.
    pub timing: u64,
}

/// One key begins to sign and the one before stops, in one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRotated {
    /// The keyring.
    pub keyring: String,
    /// The kid that stops signing.
    pub from: Option<String>,
    /// The kid that signs from now on.
    pub to: String,
    /// Why.
    pub reason: RotationReason,
    /// Whether an operator overrode I1; `note` then says why.
    pub forced: bool,
    /// The operator's words.
    pub note: Option<String>,
    /// When `from` may leave the JWKS (I3).
    pub withdraw_after: Option<Timestamp>,
    /// When the next scheduled rotation is due.
    pub next_rotation: Timestamp,
    /// Sequence number of the settings in force.
    pub timing: u64,
}

/// The active key does not sign until it is resumed; it stays in the JWKS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySuspended {
    /// The key.
    pub kid: String,
    /// The operator's.
    pub reason: String,
}

/// A suspended key signs again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyResumed {
    /// The key.
    pub kid: String,
    /// The operator's.
    pub reason: String,
}

/// Out of the JWKS, never signs again, and the standby promoted, in one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyCompromised {
    /// The key.
    pub kid: String,
    /// From when on its signatures are in doubt.
    pub since: Timestamp,
    /// The standby that signs from now on, where I1 holds for it.
    pub to: Option<String>,
    /// The operator's.
    pub reason: String,
    /// With `to`: when the next scheduled rotation is due.
    pub next_rotation: Option<Timestamp>,
    /// Sequence number of the settings in force.
    pub timing: u64,
}

/// The last token of the key is dead; it left the JWKS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyWithdrawn {
    /// The key.
    pub kid: String,
    /// When it may be destroyed.
    pub destroy_after: Timestamp,
}

/// The keystore has made the key unusable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyDestroyed {
    /// Its name.
    pub key: KeyName,
    /// When its keystore deletes it, where it does not at once: until then whoever administers the keystore can bring it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_on: Option<Timestamp>,
}

/// A key that never signed is given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyAbandoned {
    /// Its name.
    pub key: KeyName,
    /// Why.
    pub reason: String,
}

/// A public key of another issuer, verify-only, stays in the set until its date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyImported {
    /// The keyring whose sets it joins.
    pub keyring: String,
    /// As the other issuer had it.
    pub kid: String,
    /// The public key.
    pub jwk: PublicKey,
    /// Its `alg`.
    pub algorithm: Algorithm,
    /// When it leaves.
    pub until: Timestamp,
    /// The operator's.
    pub reason: String,
}

/// A node serves this body for this set from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwksServed {
    /// `issuer/<name>` or `keyring/<name>`.
    pub set: String,
    /// The size of the key log that the body was built from.
    pub size: u64,
    /// Of the body.
    pub sha256: Hash,
}

/// Whole segments of a use log were deleted; the hashes of their records are kept, so that proofs go on working.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsesPruned {
    /// The node.
    pub of: String,
    /// The use log's origin.
    pub origin: String,
    /// Sequence number of the first record that is left.
    pub first: u64,
    /// Its Merkle root at that size.
    pub root: Hash,
    /// No record of this time or later was deleted.
    pub before: Timestamp,
    /// The operator's.
    pub reason: String,
}

/// The key of a year's pseudonyms was destroyed: nobody can tell any more whose they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectErased {
    /// The node whose key it was.
    pub of: String,
    /// The year, as it stands in the pseudonyms.
    pub year: u64,
    /// The operator's.
    pub reason: String,
}

/// Where a node's use log stands, so that it cannot be cut or left out unseen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsesHead {
    /// The node.
    pub of: String,
    /// The use log's origin.
    pub origin: String,
    /// Its size.
    pub size: u64,
    /// Its Merkle root at that size.
    pub root: Hash,
}

/// Somebody asked for a verb and was refused by policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminDenied {
    /// The verb.
    pub verb: String,
    /// On what.
    pub resource: String,
    /// Why.
    pub code: String,
}
