//! What can happen: every event of both logs.
//!
//! In scope: which events there are and in which log they stand. Their fields are in `payload` and `uses`. Out of scope: whether an event is legal
//! ([`crate::keyrings`]) and how it becomes bytes ([`crate::record`]).

use serde::{Deserialize, Serialize};

mod payload;
mod uses;

pub use payload::*;
pub use uses::*;

/// Which of the two logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogKind {
    /// Every lifecycle event; it is the state of the keyrings.
    Keys,
    /// Every signature, refusal and failure of one node.
    Uses,
}

impl LogKind {
    /// The record's `log` member.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Uses => "uses",
        }
    }
}

/// An event of either log; the tag is the record's `event` member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event")]
#[allow(missing_docs)]
pub enum Event {
    #[serde(rename = "log.created")]
    LogCreated(LogCreated),
    #[serde(rename = "init.intent")]
    InitIntent(InitIntent),
    #[serde(rename = "log.segment")]
    LogSegment(LogSegment),
    #[serde(rename = "log.heartbeat")]
    LogHeartbeat(LogHeartbeat),
    #[serde(rename = "log.recovered")]
    LogRecovered(LogRecovered),
    #[serde(rename = "log.halt")]
    LogHalt(LogHalt),
    #[serde(rename = "log.key_rotated")]
    LogKeyRotated(LogKeyRotated),
    #[serde(rename = "log.adopted")]
    LogAdopted(LogAdopted),
    #[serde(rename = "daemon.start")]
    DaemonStart(DaemonStart),
    #[serde(rename = "daemon.stop")]
    DaemonStop(DaemonStop),
    #[serde(rename = "config.loaded")]
    ConfigLoaded(ConfigLoaded),
    #[serde(rename = "policy.loaded")]
    PolicyLoaded(PolicyLoaded),
    #[serde(rename = "keyring.created")]
    KeyringCreated(KeyringCreated),
    #[serde(rename = "keyring.changed")]
    KeyringChanged(KeyringChanged),
    #[serde(rename = "keyring.timing")]
    KeyringTiming(KeyringTiming),
    #[serde(rename = "keyring.retired")]
    KeyringRetired(KeyringRetired),
    #[serde(rename = "key.requested")]
    KeyRequested(KeyRequested),
    #[serde(rename = "key.created")]
    KeyCreated(KeyCreated),
    #[serde(rename = "key.published")]
    KeyPublished(KeyPublished),
    #[serde(rename = "key.rotated")]
    KeyRotated(KeyRotated),
    #[serde(rename = "key.suspended")]
    KeySuspended(KeySuspended),
    #[serde(rename = "key.resumed")]
    KeyResumed(KeyResumed),
    #[serde(rename = "key.compromised")]
    KeyCompromised(KeyCompromised),
    #[serde(rename = "key.withdrawn")]
    KeyWithdrawn(KeyWithdrawn),
    #[serde(rename = "key.destroyed")]
    KeyDestroyed(KeyDestroyed),
    #[serde(rename = "key.abandoned")]
    KeyAbandoned(KeyAbandoned),
    #[serde(rename = "key.imported")]
    KeyImported(KeyImported),
    #[serde(rename = "jwks.served")]
    JwksServed(JwksServed),
    #[serde(rename = "keystore.lost")]
    KeystoreLost(KeystoreLost),
    #[serde(rename = "keystore.recovered")]
    KeystoreRecovered(KeystoreRecovered),
    #[serde(rename = "keystore.rejected")]
    KeystoreRejected(KeystoreRejected),
    #[serde(rename = "uses.head")]
    UsesHead(UsesHead),
    #[serde(rename = "uses.pruned")]
    UsesPruned(UsesPruned),
    #[serde(rename = "subject.erased")]
    SubjectErased(SubjectErased),
    #[serde(rename = "clock.stepped")]
    ClockStepped(ClockStepped),
    #[serde(rename = "clock.settled")]
    ClockSettled(ClockSettled),
    #[serde(rename = "admin.denied")]
    AdminDenied(AdminDenied),
    #[serde(rename = "keys.seen")]
    KeysSeen(KeysSeen),
    #[serde(rename = "sign")]
    Sign(Sign),
    #[serde(rename = "sign.denied")]
    SignDenied(SignDenied),
    #[serde(rename = "sign.refused")]
    SignRefused(SignRefused),
    #[serde(rename = "sign.failed")]
    SignFailed(SignFailed),
    #[serde(rename = "sign.unanswered")]
    SignUnanswered(SignUnanswered),
}

impl Event {
    /// The record's `event` member.
    pub fn name(&self) -> &'static str {
        match self {
            Self::LogCreated(_) => "log.created",
            Self::InitIntent(_) => "init.intent",
            Self::LogSegment(_) => "log.segment",
            Self::LogHeartbeat(_) => "log.heartbeat",
            Self::LogRecovered(_) => "log.recovered",
            Self::LogHalt(_) => "log.halt",
            Self::LogKeyRotated(_) => "log.key_rotated",
            Self::LogAdopted(_) => "log.adopted",
            Self::DaemonStart(_) => "daemon.start",
            Self::DaemonStop(_) => "daemon.stop",
            Self::ConfigLoaded(_) => "config.loaded",
            Self::PolicyLoaded(_) => "policy.loaded",
            Self::KeyringCreated(_) => "keyring.created",
            Self::KeyringChanged(_) => "keyring.changed",
            Self::KeyringTiming(_) => "keyring.timing",
            Self::KeyringRetired(_) => "keyring.retired",
            Self::KeyRequested(_) => "key.requested",
            Self::KeyCreated(_) => "key.created",
            Self::KeyPublished(_) => "key.published",
            Self::KeyRotated(_) => "key.rotated",
            Self::KeySuspended(_) => "key.suspended",
            Self::KeyResumed(_) => "key.resumed",
            Self::KeyCompromised(_) => "key.compromised",
            Self::KeyWithdrawn(_) => "key.withdrawn",
            Self::KeyDestroyed(_) => "key.destroyed",
            Self::KeyAbandoned(_) => "key.abandoned",
            Self::KeyImported(_) => "key.imported",
            Self::JwksServed(_) => "jwks.served",
            Self::KeystoreLost(_) => "keystore.lost",
            Self::KeystoreRecovered(_) => "keystore.recovered",
            Self::KeystoreRejected(_) => "keystore.rejected",
            Self::UsesHead(_) => "uses.head",
            Self::UsesPruned(_) => "uses.pruned",
            Self::SubjectErased(_) => "subject.erased",
            Self::ClockStepped(_) => "clock.stepped",
            Self::ClockSettled(_) => "clock.settled",
            Self::AdminDenied(_) => "admin.denied",
            Self::KeysSeen(_) => "keys.seen",
            Self::Sign(_) => "sign",
            Self::SignDenied(_) => "sign.denied",
            Self::SignRefused(_) => "sign.refused",
            Self::SignFailed(_) => "sign.failed",
            Self::SignUnanswered(_) => "sign.unanswered",
        }
    }

    /// Whether this event may stand in `log`.
    pub fn belongs_to(&self, log: LogKind) -> bool {
        match self {
            Self::LogCreated(_)
            | Self::LogSegment(_)
            | Self::LogHeartbeat(_)
            | Self::LogRecovered(_)
            | Self::LogHalt(_)
            | Self::LogKeyRotated(_)
            | Self::LogAdopted(_) => true,
            Self::KeysSeen(_)
            | Self::Sign(_)
            | Self::SignDenied(_)
            | Self::SignRefused(_)
            | Self::SignFailed(_)
            | Self::SignUnanswered(_) => log == LogKind::Uses,
            _ => log == LogKind::Keys,
        }
    }
}
