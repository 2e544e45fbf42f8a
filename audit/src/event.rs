//! What can happen: every event of both logs.
//!
//! In scope: which events there are and in which log they stand. Their fields are in `payload`, `keystore`, `clock` and `uses`. Out of scope: whether
//! an event is legal ([`crate::keyrings`]) and how it becomes bytes ([`crate::record`]).

use serde::de;
use serde::{Deserialize, Deserializer, Serialize};

mod clock;
mod keystore;
mod payload;
mod uses;

pub use clock::*;
pub use keystore::*;
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

/// The one list of events: the enum, its names, and how the members of a record become one.
macro_rules! events {
    ($($name:literal => $variant:ident,)*) => {
        /// An event of either log; the tag is the record's `event` member.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[serde(tag = "event")]
        #[allow(missing_docs)]
        pub enum Event {
            $(#[serde(rename = $name)] $variant($variant),)*
        }

        impl Event {
            /// The record's `event` member.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }

            /// The event of this name, from its other members.
            pub(crate) fn read<'de, D: Deserializer<'de>>(name: &str, members: D) -> Result<Self, D::Error> {
                match name {
                    $($name => $variant::deserialize(members).map(Self::$variant),)*
                    other => Err(de::Error::unknown_variant(other, &[$($name),*])),
                }
            }
        }
    };
}

events! {
    "log.created" => LogCreated,
    "init.intent" => InitIntent,
    "log.segment" => LogSegment,
    "log.heartbeat" => LogHeartbeat,
    "log.recovered" => LogRecovered,
    "log.halt" => LogHalt,
    "log.key_rotated" => LogKeyRotated,
    "log.adopted" => LogAdopted,
    "daemon.start" => DaemonStart,
    "daemon.stop" => DaemonStop,
    "config.loaded" => ConfigLoaded,
    "policy.loaded" => PolicyLoaded,
    "keyring.created" => KeyringCreated,
    "keyring.changed" => KeyringChanged,
    "keyring.timing" => KeyringTiming,
    "keyring.retired" => KeyringRetired,
    "key.requested" => KeyRequested,
    "key.created" => KeyCreated,
    "key.published" => KeyPublished,
    "key.rotated" => KeyRotated,
    "key.suspended" => KeySuspended,
    "key.resumed" => KeyResumed,
    "key.compromised" => KeyCompromised,
    "key.withdrawn" => KeyWithdrawn,
    "key.destroyed" => KeyDestroyed,
    "key.abandoned" => KeyAbandoned,
    "key.imported" => KeyImported,
    "key.drifted" => KeyDrifted,
    "key.conforms" => KeyConforms,
    "jwks.served" => JwksServed,
    "keystore.lost" => KeystoreLost,
    "keystore.recovered" => KeystoreRecovered,
    "keystore.rejected" => KeystoreRejected,
    "keystore.reopened" => KeystoreReopened,
    "keystore.wedged" => KeystoreWedged,
    "uses.head" => UsesHead,
    "uses.pruned" => UsesPruned,
    "subject.erased" => SubjectErased,
    "clock.stepped" => ClockStepped,
    "clock.settled" => ClockSettled,
    "clock.confirmed" => ClockConfirmed,
    "admin.denied" => AdminDenied,
    "keys.seen" => KeysSeen,
    "sign" => Sign,
    "sign.denied" => SignDenied,
    "sign.refused" => SignRefused,
    "sign.failed" => SignFailed,
    "sign.unanswered" => SignUnanswered,
}

impl Event {
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
