//! The rules in force: profiles and policies of one moment, replaced together.
//!
//! In scope: what the signer needs of a configuration. Out of scope: reading it.

use std::collections::HashMap;
use std::time::Duration;

use crate::policy::{JwsProfile, PolicySet, Profile};

/// What a keyring signs, and how that must look.
#[derive(Clone, Debug)]
pub enum Shape {
    /// Claims in, compact JWT out.
    Jwt(Profile),
    /// A payload in, a compact or detached JWS out.
    Jws(JwsProfile),
}

/// One keyring's rules.
#[derive(Clone, Debug)]
pub struct KeyringRules {
    /// Its name.
    pub name: String,
    /// What it signs.
    pub shape: Shape,
    /// T: the longest life of a token; for `jws`, `verify_within`.
    pub token_life: Duration,
}

/// All rules. `policies` is `None` when they could not be loaded: then nothing is signed, and everything else goes on.
pub struct Rules {
    /// By name.
    pub keyrings: HashMap<String, KeyringRules>,
    /// Who may do what.
    pub policies: Option<PolicySet>,
}
