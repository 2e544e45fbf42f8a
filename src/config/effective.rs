//! What a configuration comes to, for `config check`: the computed times, the addresses, the defaults.
//!
//! In scope: values as people read them, ready to be written as TOML or JSON. Out of scope: secrets (there are none in a configuration, and
//! the hashes of bearer tokens stay out).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::{Config, KeyringConfig, KeystoreConfig};
use crate::rotation::duration::Human;

/// A configuration, explained. Scalars stand before tables, as TOML wants them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// Part of every key's name.
    pub installation: String,
    /// The logs' origin.
    pub origin: String,
    /// This machine.
    pub node: String,
    /// What a caller's token must name.
    pub audience: String,
    /// The folder of logs.
    pub state: String,
    /// The folder of policies.
    pub policies: String,
    /// The keystore of the log keys.
    pub log_keystore: String,
    /// The policy file of those who cosign the logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witnesses: Option<String>,
    /// Of the file's bytes.
    pub sha256: String,
    /// Each listener in one line: where, what, who.
    pub listeners: Vec<String>,
    /// How many callers have attributes.
    pub callers: usize,
    /// Each keystore, without its PIN's file.
    pub keystores: BTreeMap<String, EffectiveKeystore>,
    /// The routes of each issuer's keys.
    pub jwks: BTreeMap<String, Vec<String>>,
    /// Each keyring with its computed times.
    pub keyrings: BTreeMap<String, EffectiveKeyring>,
}

/// A keystore, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum EffectiveKeystore {
    /// A token of a PKCS#11 module.
    Pkcs11(EffectivePkcs11),
    /// An account of AWS KMS.
    #[cfg(feature = "aws-kms")]
    AwsKms(EffectiveAwsKms),
    /// A transit engine of a Vault or OpenBao.
    Vault(EffectiveVault),
}

/// A PKCS#11 token, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EffectivePkcs11 {
    /// Which token.
    pub token: String,
    /// The module's shared library.
    pub module: String,
    /// How many sessions sign.
    pub workers: u16,
    /// The profile of its device.
    pub profile: String,
    /// The attributes that the device may leave unreported, those of the profile too.
    pub omits: Vec<String>,
}

/// An account of AWS KMS, explained.
#[cfg(feature = "aws-kms")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EffectiveAwsKms {
    /// Its number.
    pub account: String,
    /// The region.
    pub region: String,
    /// Where KMS is asked instead of at AWS's own address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Where STS is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sts_endpoint: Option<String>,
    /// The profile that gives the credentials, instead of the chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// How long a destroyed key waits for its deletion.
    pub deletion_window: String,
    /// The budget of signatures, for RSA keys and for curves each.
    pub requests_per_second: u32,
}

/// A transit engine, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EffectiveVault {
    /// The server.
    pub address: String,
    /// Where the engine is mounted.
    pub mount: String,
    /// Which namespace everything is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Whom to believe who the server is.
    pub authorities: String,
    /// Which login, and where.
    pub login: String,
    /// How many signatures may be in flight.
    pub in_flight: usize,
}

/// A keyring, explained. Durations are written as the file writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EffectiveKeyring {
    /// What stands in `iss`, for `jwt` keyrings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// The `typ` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub typ: Option<String>,
    /// Of the next key.
    pub algorithm: String,
    /// Of the next key.
    pub keystore: String,
    /// The other keystore, of each key for which the one before lives in `keystore`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standby_keystore: Option<String>,
    /// T: the longest life of a token or signature.
    pub life: String,
    /// D = A + S + V + R: after it every verifier has seen a change.
    pub seen_by_all: String,
    /// D + e: how long a key is published before it may sign.
    pub lead: String,
    /// Q + T + 2e: how long a key stays published after it signed last.
    pub overlap: String,
    /// D + e: how long a verifier may go on trusting a compromised key.
    pub exposure: String,
    /// E: how long it may be at most.
    pub max_exposure: String,
    /// L: how long a key is active.
    pub rotate_every: String,
    /// The grace between withdrawn and destroyed.
    pub destroy_after: String,
    /// The longest that a key is in the JWKS, from publication to withdrawal, if every rotation is on time.
    pub published_for: String,
    /// Largest claims set or payload, in bytes.
    pub max_bytes: usize,
}

impl Effective {
    pub(super) fn of(config: &Config) -> Self {
        let jwks = config.issuers.iter().map(|(name, issuer)| {
            let default = issuer.default.then(|| "/.well-known/jwks.json".to_owned());
            (name.clone(), default.into_iter().chain([format!("{}/.well-known/jwks.json", issuer.path)]).collect())
        });
        Self {
            installation: config.installation.clone(),
            origin: config.origin.clone(),
            node: config.node.clone(),
            audience: config.audience.clone(),
            state: config.state.display().to_string(),
            policies: config.policies.display().to_string(),
            log_keystore: config.log_keystore.clone(),
            witnesses: config.witnesses.as_ref().map(|witnesses| witnesses.policy.display().to_string()),
            sha256: config.sha256.to_string(),
            listeners: config.listeners.iter().map(listener).collect(),
            callers: config.callers.len(),
            keystores: config.keystores.iter().map(|(name, settings)| (name.clone(), keystore(settings))).collect(),
            jwks: jwks.collect(),
            keyrings: config.keyrings.iter().map(|(name, keyring)| (name.clone(), explain(config, keyring))).collect(),
        }
    }
}

fn keystore(keystore: &KeystoreConfig) -> EffectiveKeystore {
    match keystore {
        KeystoreConfig::Pkcs11(pkcs11) => EffectiveKeystore::Pkcs11(EffectivePkcs11 {
            token: pkcs11.token.to_string(),
            module: pkcs11.module.display().to_string(),
            workers: pkcs11.workers,
            profile: pkcs11.profile.name().to_owned(),
            omits: pkcs11.profile.omits().map(str::to_owned).collect(),
        }),
        #[cfg(feature = "aws-kms")]
        KeystoreConfig::AwsKms(settings) => EffectiveKeystore::AwsKms(EffectiveAwsKms {
            account: settings.account.clone(),
            region: settings.region.clone(),
            endpoint: settings.endpoint.clone(),
            sts_endpoint: settings.sts_endpoint.clone(),
            profile: settings.profile.clone(),
            deletion_window: format!("{}d", settings.deletion_window),
            requests_per_second: settings.requests_per_second,
        }),
        KeystoreConfig::Vault(vault) => EffectiveKeystore::Vault(EffectiveVault {
            address: vault.address.to_string(),
            mount: vault.mount.to_string(),
            namespace: vault.namespace.as_ref().map(ToString::to_string),
            authorities: vault.ca_file.as_ref().map_or_else(|| "the system's".to_owned(), |file| file.display().to_string()),
            login: vault.login.to_string(),
            in_flight: vault.in_flight,
        }),
    }
}

fn listener(listener: &super::Listener) -> String {
    let serves: Vec<&str> = listener.serves.iter().map(|surface| surface.as_str()).collect();
    let callers: Vec<&str> = listener.callers.iter().map(|kind| kind.as_str()).collect();
    let tls = if listener.tls.is_some() { " with TLS" } else { "" };
    let whom = if callers.is_empty() { "anyone".to_owned() } else { format!("{} callers", callers.join(" and ")) };
    format!("{}{tls}: {} for {whom}", listener.bind, serves.join(", "))
}

fn explain(config: &Config, keyring: &KeyringConfig) -> EffectiveKeyring {
    let timing = &keyring.timing;
    let human = |span: Duration| Human(span).to_string();
    // A successor is requested when its key becomes active, so that a key waits for most of its predecessor's life as the standby.
    let published = timing.rotate_every().saturating_mul(2).saturating_add(timing.overlap());
    EffectiveKeyring {
        iss: keyring.issuer.as_ref().and_then(|issuer| config.issuers.get(issuer)).map(|issuer| issuer.url.clone()),
        typ: keyring.profile.typ.clone(),
        algorithm: keyring.algorithm.to_string(),
        keystore: keyring.keystore.clone(),
        standby_keystore: keyring.standby_keystore.clone(),
        life: human(timing.token_life()),
        seen_by_all: human(timing.seen_by_all()),
        lead: human(timing.lead()),
        overlap: human(timing.overlap()),
        exposure: human(timing.lead()),
        max_exposure: human(Duration::from_millis(timing.max_exposure_ms)),
        rotate_every: human(timing.rotate_every()),
        destroy_after: human(timing.destroy_after()),
        published_for: human(published),
        max_bytes: keyring.profile.max_bytes,
    }
}
