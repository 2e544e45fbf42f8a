//! The fields of the events that say what became of keystores, and of the keys in them, while nobody asked for it.
//!
//! In scope: names and fields, as `audit/README.md` specifies them. Out of scope: whether an event is legal (`keyrings`), and what a keystore
//! that was lost excuses (`verify::on_time`).

use serde::{Deserialize, Serialize};

use crate::names::KeyName;

/// A keystore stopped answering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeystoreLost {
    /// Its name.
    pub keystore: String,
    /// What it said.
    pub reason: String,
}

/// It answers again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeystoreRecovered {
    /// Its name.
    pub keystore: String,
}

/// It refused something that will not succeed by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeystoreRejected {
    /// Its name.
    pub keystore: String,
    /// The key in question.
    pub key: Option<KeyName>,
    /// What it said.
    pub reason: String,
}

/// Something of a keystore had to be opened again, and it goes on; what happens often is counted and told in one record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeystoreReopened {
    /// Its name.
    pub keystore: String,
    /// How many sessions were opened anew since the last such record of this keystore, or since the start.
    pub sessions: u64,
    /// How many logins were done anew, likewise; each begins a new epoch, in which every key is searched for again.
    pub logins: u64,
    /// How many times its module was initialised anew, likewise.
    pub modules: u64,
    /// What the latest of them was done for.
    pub reason: String,
}

/// So many calls of a keystore hang that it is given up until the process starts again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeystoreWedged {
    /// Its name.
    pub keystore: String,
    /// How many calls hang.
    pub hung: u64,
}

/// A key in its keystore is not what `key.created` recorded. It changes nothing by itself: which key signs is for the other events to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyDrifted {
    /// Its keyring.
    pub keyring: String,
    /// The key.
    pub kid: String,
    /// Everything that differs, in one line.
    pub found: String,
}

/// A key that had drifted is again what `key.created` recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConforms {
    /// Its keyring.
    pub keyring: String,
    /// The key.
    pub kid: String,
}
