//! The file as it is written, before any rule is applied.
//!
//! In scope: the names of all settings. Everything is optional here, so that a wrong value can be taken out and the rest still read: what
//! must be there is said by the rules, which know what to do about it. Out of scope: what a value means.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::span::Span;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) installation: Option<String>,
    pub(super) origin: Option<String>,
    pub(super) node: Option<String>,
    pub(super) audience: Option<String>,
    pub(super) state: Option<String>,
    pub(super) policies: Option<String>,
    pub(super) log: Option<RawLog>,
    pub(super) audit: Option<RawAudit>,
    pub(super) limits: Option<RawLimits>,
    pub(super) defaults: Option<RawTiming>,
    #[serde(default)]
    pub(super) keystore: BTreeMap<String, RawKeystore>,
    #[serde(default)]
    pub(super) issuer: BTreeMap<String, RawIssuer>,
    #[serde(default)]
    pub(super) keyring: BTreeMap<String, RawKeyring>,
    #[serde(default)]
    pub(super) caller: BTreeMap<String, BTreeMap<String, RawAttribute>>,
    #[serde(default)]
    pub(super) listener: Vec<RawListener>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLog {
    pub(super) keystore: Option<String>,
    pub(super) witnesses: Option<String>,
    pub(super) witness_timeout: Option<Span>,
    pub(super) witness_ca_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAudit {
    pub(super) subject: Option<String>,
    pub(super) retention: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    pub(super) deadline: Option<Span>,
    pub(super) header_timeout: Option<Span>,
    pub(super) handshake_timeout: Option<Span>,
    pub(super) body_bytes: Option<i64>,
    pub(super) batch_bytes: Option<i64>,
    pub(super) rate: Option<i64>,
    pub(super) burst: Option<i64>,
    pub(super) in_flight: Option<i64>,
    pub(super) connections: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKeystore {
    pub(super) r#type: Option<String>,
    pub(super) module: Option<String>,
    pub(super) token: Option<String>,
    pub(super) pin_file: Option<String>,
    pub(super) workers: Option<i64>,
    pub(super) queue_wait: Option<Span>,
    pub(super) hang_after: Option<Span>,
    pub(super) profile: Option<String>,
    pub(super) omits: Option<Vec<String>>,
    pub(super) region: Option<String>,
    pub(super) account: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) sts_endpoint: Option<String>,
    pub(super) deletion_window: Option<Span>,
    pub(super) requests_per_second: Option<i64>,
    pub(super) address: Option<String>,
    pub(super) mount: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) ca_file: Option<String>,
    pub(super) login: Option<RawLogin>,
    pub(super) in_flight: Option<i64>,
}

impl RawKeystore {
    /// The settings that the file gives, whatever their value, but for `type`.
    pub(super) fn present(&self) -> Vec<&'static str> {
        let settings = [
            ("module", self.module.is_some()),
            ("token", self.token.is_some()),
            ("pin_file", self.pin_file.is_some()),
            ("workers", self.workers.is_some()),
            ("queue_wait", self.queue_wait.is_some()),
            ("hang_after", self.hang_after.is_some()),
            ("profile", self.profile.is_some()),
            ("omits", self.omits.is_some()),
            ("region", self.region.is_some()),
            ("account", self.account.is_some()),
            ("endpoint", self.endpoint.is_some()),
            ("sts_endpoint", self.sts_endpoint.is_some()),
            ("deletion_window", self.deletion_window.is_some()),
            ("requests_per_second", self.requests_per_second.is_some()),
            ("address", self.address.is_some()),
            ("mount", self.mount.is_some()),
            ("namespace", self.namespace.is_some()),
            ("ca_file", self.ca_file.is_some()),
            ("login", self.login.is_some()),
            ("in_flight", self.in_flight.is_some()),
        ];
        settings.into_iter().filter_map(|(name, given)| given.then_some(name)).collect()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLogin {
    pub(super) r#type: Option<String>,
    pub(super) role_id: Option<String>,
    pub(super) secret_id_file: Option<String>,
    pub(super) role: Option<String>,
    pub(super) token_file: Option<String>,
    pub(super) mount: Option<String>,
}

impl RawLogin {
    /// The settings that the file gives, whatever their value, but for `type`.
    pub(super) fn present(&self) -> Vec<&'static str> {
        let settings = [
            ("role_id", self.role_id.is_some()),
            ("secret_id_file", self.secret_id_file.is_some()),
            ("role", self.role.is_some()),
            ("token_file", self.token_file.is_some()),
            ("mount", self.mount.is_some()),
        ];
        settings.into_iter().filter_map(|(name, given)| given.then_some(name)).collect()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIssuer {
    pub(super) url: Option<String>,
    pub(super) path: Option<String>,
    #[serde(default)]
    pub(super) default: bool,
    #[serde(default)]
    pub(super) discovery: bool,
}

/// The settings of rotation.md that `[defaults]` may hold for all keyrings.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTiming {
    pub(super) token_ttl: Option<Span>,
    pub(super) verify_within: Option<Span>,
    pub(super) jwks_max_age: Option<Span>,
    pub(super) jwks_stale: Option<Span>,
    pub(super) verifier_poll: Option<Span>,
    pub(super) propagation: Option<Span>,
    pub(super) clock_skew: Option<Span>,
    pub(super) rotate_every: Option<Span>,
    pub(super) provisioning_budget: Option<Span>,
    pub(super) max_exposure: Option<Span>,
    pub(super) destroy_after: Option<Span>,
}

/// The timing stands among the keyring's own settings. (`flatten` would lose both the refusal of unknown names and the place of an error.)
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKeyring {
    pub(super) purpose: Option<String>,
    pub(super) issuer: Option<String>,
    pub(super) algorithm: Option<String>,
    pub(super) keystore: Option<String>,
    pub(super) standby_keystore: Option<String>,
    #[serde(default)]
    pub(super) policy_claims: BTreeMap<String, String>,
    pub(super) profile: Option<RawProfile>,
    pub(super) token_ttl: Option<Span>,
    pub(super) verify_within: Option<Span>,
    pub(super) jwks_max_age: Option<Span>,
    pub(super) jwks_stale: Option<Span>,
    pub(super) verifier_poll: Option<Span>,
    pub(super) propagation: Option<Span>,
    pub(super) clock_skew: Option<Span>,
    pub(super) rotate_every: Option<Span>,
    pub(super) provisioning_budget: Option<Span>,
    pub(super) max_exposure: Option<Span>,
    pub(super) destroy_after: Option<Span>,
}

impl RawKeyring {
    /// The keyring's own timing, and the defaults' where it says nothing.
    pub(super) fn timing(&self, defaults: &RawTiming) -> RawTiming {
        RawTiming {
            token_ttl: self.token_ttl.or(defaults.token_ttl),
            verify_within: self.verify_within.or(defaults.verify_within),
            jwks_max_age: self.jwks_max_age.or(defaults.jwks_max_age),
            jwks_stale: self.jwks_stale.or(defaults.jwks_stale),
            verifier_poll: self.verifier_poll.or(defaults.verifier_poll),
            propagation: self.propagation.or(defaults.propagation),
            clock_skew: self.clock_skew.or(defaults.clock_skew),
            rotate_every: self.rotate_every.or(defaults.rotate_every),
            provisioning_budget: self.provisioning_budget.or(defaults.provisioning_budget),
            max_exposure: self.max_exposure.or(defaults.max_exposure),
            destroy_after: self.destroy_after.or(defaults.destroy_after),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProfile {
    pub(super) typ: Option<String>,
    pub(super) audiences: Option<Vec<String>>,
    pub(super) required: Option<Vec<String>>,
    pub(super) forbidden: Option<Vec<String>>,
    pub(super) subject_pattern: Option<String>,
    pub(super) claim_types: Option<BTreeMap<String, String>>,
    pub(super) content_types: Option<Vec<String>>,
    pub(super) max_bytes: Option<i64>,
}

/// An attribute of a caller. Their names are the operator's own, so that they cannot be a struct's fields.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a string, or a list of strings for `groups`")]
pub(super) enum RawAttribute {
    Text(String),
    List(Vec<String>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawListener {
    pub(super) bind: Option<String>,
    pub(super) tls: Option<RawTls>,
    pub(super) serves: Option<Vec<String>>,
    pub(super) callers: Option<Vec<String>>,
    #[serde(default)]
    pub(super) behind_tls_proxy: bool,
    pub(super) socket_mode: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    pub(super) cert: Option<String>,
    pub(super) key: Option<String>,
}
