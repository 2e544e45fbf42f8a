//! Metrics for Prometheus: what is counted, under which names.
//!
//! In scope: the registry and its text form (OpenMetrics). Out of scope: serving it. No caller and no kid is ever a label: both grow without
//! bound, and the log has them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::keystore::{Condition, Reopened};

/// From half a millisecond, faster than any keystore, to ten seconds, longer than any deadline.
const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Labels of a signing request.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SignLabels {
    /// A configured keyring, or `unknown`.
    pub keyring: String,
    /// Where its signing key lives; `none` while it has none.
    pub keystore: String,
    /// `ok`, or the code of the refusal.
    pub outcome: &'static str,
}

/// The label of what belongs to a keyring.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct KeyringLabel {
    /// Its name.
    pub keyring: String,
}

/// The label of what belongs to a keystore.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct KeystoreLabel {
    /// Its name.
    pub keystore: String,
}

/// The labels of what a keystore opened again.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReopenedLabels {
    /// Its name.
    pub keystore: String,
    /// `session`, `login` or `module`.
    pub what: &'static str,
}

/// The label of what belongs to a log.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LogLabel {
    /// `keys` or `uses`.
    pub log: &'static str,
}

/// The label of what belongs to a witness.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct WitnessLabel {
    /// What the policy file calls it.
    pub witness: String,
}

/// The labels of a dated transition of a keyring.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TransitionLabels {
    /// The keyring.
    pub keyring: String,
    /// `rotation`, `activation`, `withdrawal` or `destruction`.
    pub transition: &'static str,
}

/// The labels of a risk.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub struct RiskLabels {
    /// The keyring; empty for what endangers all.
    pub keyring: String,
    /// The code of the risk.
    pub code: &'static str,
}

/// All metrics. The fields are updated by whoever knows; [`Metrics::text`] renders them.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Metrics {
    registry: Mutex<Registry>,
    pub sign_requests: Family<SignLabels, Counter>,
    pub sign_duration: Family<KeyringLabel, Histogram, fn() -> Histogram>,
    pub wrong_signatures: Family<KeyringLabel, Counter>,
    pub keystore_up: Family<KeystoreLabel, Gauge>,
    pub signer_ready: Family<KeyringLabel, Gauge>,
    pub next_transition: Family<KeyringLabel, Gauge>,
    pub active_key_since: Family<KeyringLabel, Gauge>,
    pub published_keys: Family<KeyringLabel, Gauge>,
    pub log_size: Family<LogLabel, Gauge>,
    pub log_checkpoint_size: Family<LogLabel, Gauge>,
    pub log_writable: Family<LogLabel, Gauge>,
    pub log_disk_free: Gauge<f64, AtomicU64>,
    pub log_witnessed_size: Family<LogLabel, Gauge>,
    pub witness_up: Family<WitnessLabel, Gauge>,
    pub witness_alarm: Family<WitnessLabel, Gauge>,
    pub newest_key_since: Family<KeyringLabel, Gauge>,
    pub key_lifetime: Family<KeyringLabel, Gauge>,
    pub rotation_overdue: Family<KeyringLabel, Gauge>,
    pub transitions: Family<TransitionLabels, Gauge>,
    pub standby_since: Family<KeyringLabel, Gauge>,
    pub standby_eligible: Family<KeyringLabel, Gauge>,
    pub risks: Family<RiskLabels, Gauge>,
    pub orphans: Family<KeystoreLabel, Gauge>,
    pub keystore_reopened: Family<ReopenedLabels, Counter>,
    pub keystore_late: Family<KeystoreLabel, Counter>,
    pub keystore_queued: Family<KeystoreLabel, Gauge>,
    pub keystore_hung: Family<KeystoreLabel, Gauge>,
    pub keystore_wedged: Family<KeystoreLabel, Gauge>,
    pub key_drifted: Family<KeyringLabel, Gauge>,
    pub clock_paused: Gauge,
    pub log_uncovered: Family<LogLabel, Gauge>,
    /// The risks that are shown, so that those that are over can go.
    shown: Mutex<BTreeSet<RiskLabels>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("claviger");
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let metrics = Self {
            sign_requests: Family::default(),
            sign_duration: Family::new_with_constructor(histogram),
            wrong_signatures: Family::default(),
            keystore_up: Family::default(),
            signer_ready: Family::default(),
            next_transition: Family::default(),
            active_key_since: Family::default(),
            published_keys: Family::default(),
            log_size: Family::default(),
            log_checkpoint_size: Family::default(),
            log_writable: Family::default(),
            log_disk_free: Gauge::default(),
            log_witnessed_size: Family::default(),
            witness_up: Family::default(),
            witness_alarm: Family::default(),
            newest_key_since: Family::default(),
            key_lifetime: Family::default(),
            rotation_overdue: Family::default(),
            transitions: Family::default(),
            standby_since: Family::default(),
            standby_eligible: Family::default(),
            risks: Family::default(),
            orphans: Family::default(),
            keystore_reopened: Family::default(),
            keystore_late: Family::default(),
            keystore_queued: Family::default(),
            keystore_hung: Family::default(),
            keystore_wedged: Family::default(),
            key_drifted: Family::default(),
            clock_paused: Gauge::default(),
            log_uncovered: Family::default(),
            shown: Mutex::default(),
            registry: Mutex::default(),
        };
        registry.register("sign_requests", "Signing requests by keyring and outcome", metrics.sign_requests.clone());
        registry.register_with_unit(
            "sign_duration",
            "From request to reply, for released signatures",
            Unit::Seconds,
            metrics.sign_duration.clone(),
        );
        registry.register("wrong_signatures", "Signatures that did not verify and were not released", metrics.wrong_signatures.clone());
        registry.register("keystore_up", "1 while the keystore answers", metrics.keystore_up.clone());
        registry.register("signer_ready", "1 while the keyring can sign", metrics.signer_ready.clone());
        registry.register(
            "key_next_transition_timestamp_seconds",
            "When the keyring's next dated transition is due; 0 if none is",
            metrics.next_transition.clone(),
        );
        registry.register(
            "key_active_since_timestamp_seconds",
            "When the active key began to sign; 0 if none is active",
            metrics.active_key_since.clone(),
        );
        registry.register("keys_published", "Keys of the keyring in its sets", metrics.published_keys.clone());
        registry.register("log_records", "Durable records of the log", metrics.log_size.clone());
        registry.register("log_checkpoint_records", "Records that the newest checkpoint covers", metrics.log_checkpoint_size.clone());
        registry.register("log_writable", "1 while the log takes records", metrics.log_writable.clone());
        registry.register(
            "log_disk_free_ratio",
            "The free part of the disk that holds the logs, from 0 to 1",
            metrics.log_disk_free.clone(),
        );
        registry.register(
            "log_witnessed_size",
            "Records that the newest checkpoint with a quorum of cosignatures covers",
            metrics.log_witnessed_size.clone(),
        );
        registry.register("witness_up", "1 while the witness cosigns", metrics.witness_up.clone());
        registry.register(
            "witness_alarm",
            "1 once the witness has known more of a log than this daemon, or another history",
            metrics.witness_alarm.clone(),
        );
        metrics.register_lateness(&mut registry);
        metrics.register_conditions(&mut registry);
        Self { registry: Mutex::new(registry), ..metrics }
    }
}

impl Metrics {
    /// What tells that something is late, or will be. Dates are exported rather than ages, as Prometheus advises, so that a daemon which is
    /// not scraped for a while does not look young.
    fn register_lateness(&self, registry: &mut Registry) {
        let keyring = [
            ("key_newest_timestamp_seconds", "When the newest key of the keyring was made; 0 if it has none", &self.newest_key_since),
            ("key_lifetime_seconds", "How long a key of the keyring is to sign (rotate_every)", &self.key_lifetime),
            (
                "key_rotation_overdue_seconds",
                "How long the scheduled rotation is overdue; 0 while it is not, or while the key is suspended",
                &self.rotation_overdue,
            ),
            ("standby_published_timestamp_seconds", "When the standby was first published; 0 if there is none", &self.standby_since),
            (
                "key_drifted",
                "Keys of the keyring that their keystore does not hold as they were made, at the last hourly look",
                &self.key_drifted,
            ),
            ("standby_eligible", "1 while a standby may take over at once (I5)", &self.standby_eligible),
        ];
        for (name, help, metric) in keyring {
            registry.register(name, help, metric.clone());
        }
        registry.register(
            "key_transition_timestamp_seconds",
            "When the next transition of this kind is due, or was; absent without a date",
            self.transitions.clone(),
        );
        registry.register("risk", "1 for each risk that /readyz tells; absent otherwise", self.risks.clone());
        registry.register(
            "keystore_orphans",
            "Keys of this installation in the keystore that nothing uses, at the last hourly look",
            self.orphans.clone(),
        );
        registry.register("clock_paused", "1 while the wall clock is in doubt and no dated transition happens", self.clock_paused.clone());
        registry.register(
            "log_uncovered_seconds",
            "How long the checkpoints of the log have not come closer to its end; 0 while they cover it",
            self.log_uncovered.clone(),
        );
    }

    /// What keystores know of their own condition.
    fn register_conditions(&self, registry: &mut Registry) {
        registry.register(
            "keystore_reopened",
            "Sessions, logins and modules that were lost and opened again, since the start",
            self.keystore_reopened.clone(),
        );
        registry.register(
            "keystore_late_answers",
            "Answers of the keystore that came after their caller had left",
            self.keystore_late.clone(),
        );
        let gauges = [
            ("keystore_queued_signatures", "Signatures that wait for a thread of the keystore", &self.keystore_queued),
            ("keystore_hung_calls", "Calls to the keystore that were given up and have not returned", &self.keystore_hung),
            ("keystore_wedged", "1 once so many calls hang that only a restart can use the keystore again", &self.keystore_wedged),
        ];
        for (name, help, metric) in gauges {
            registry.register(name, help, metric.clone());
        }
    }

    /// Shows a keystore's condition. The counts are the keystore's own; they begin with the process, as a counter's must.
    pub fn show_condition(&self, keystore: &str, condition: &Condition) {
        let label = KeystoreLabel { keystore: keystore.to_owned() };
        let Reopened { sessions, logins, modules, .. } = condition.reopened;
        for (what, count) in [("session", sessions), ("login", logins), ("module", modules)] {
            let labels = ReopenedLabels { keystore: keystore.to_owned(), what };
            self.keystore_reopened.get_or_create(&labels).inner().store(count, Ordering::Relaxed);
        }
        self.keystore_late.get_or_create(&label).inner().store(condition.late, Ordering::Relaxed);
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.keystore_queued.get_or_create(&label).set(i64::try_from(condition.queued).unwrap_or(i64::MAX));
        self.keystore_hung.get_or_create(&label).set(gauge(condition.hung));
        self.keystore_wedged.get_or_create(&label).set(condition.wedged.into());
    }

    /// Shows these risks, and no others.
    pub fn show_risks(&self, risks: BTreeSet<RiskLabels>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for over in shown.difference(&risks) {
            self.risks.remove(over);
        }
        for risk in &risks {
            self.risks.get_or_create(risk).set(1);
        }
        *shown = risks;
    }

    /// The OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a String cannot fail; a label that cannot be encoded would leave the text cut, and the scraper would say so.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}
