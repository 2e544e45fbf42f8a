//! The JWKS that is served: prepared bytes, swapped as a whole, and the record of every swap.
//!
//! In scope: building each set from the durable key log, its ETag and its cache life (I4), and `jwks.served`. Out of scope: HTTP. Sets are
//! answered from memory, whatever keystores, policies or disks do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use axum::body::Bytes;
use claviger_audit::Timestamp;
use claviger_audit::event::{Event, JwksServed};
use claviger_audit::jwks::{self, SetName};
use claviger_audit::keyrings::Keyrings;
use claviger_audit::merkle::Hash;
use claviger_audit::record::Asked;

use tokio::sync::Mutex;

use crate::journal::{AppendError, KeyLog, KeySnapshot};
use crate::rotation::cache::CacheLife;

/// A set, ready to be sent.
#[derive(Debug)]
pub struct PreparedSet {
    /// The body.
    pub body: Bytes,
    /// A strong entity tag: the quoted SHA-256 of the body.
    pub etag: String,
    /// How many records of the key log it was made from.
    pub log_size: u64,
    sha256: Hash,
    life: CacheLife,
}

type Sets = BTreeMap<SetName, Arc<PreparedSet>>;

/// Serves sets and records what it serves.
pub struct Publisher {
    keys: KeyLog,
    node: String,
    sets: ArcSwap<Sets>,
    answers: AtomicU64,
    /// Held from the snapshot to the record, so that an older set can never replace a newer one (I7).
    publishing: Mutex<()>,
}

impl Publisher {
    /// Starts with every set that was served before, from the log alone.
    pub fn new(keys: KeyLog, node: &str) -> Self {
        let snapshot = keys.snapshot();
        let served: Vec<SetName> = snapshot.keyrings.sets().into_iter().filter(|set| snapshot.keyrings.was_served(set)).collect();
        let sets = prepare_all(&snapshot, &served);
        Self { keys, node: node.to_owned(), sets: ArcSwap::from_pointee(sets), answers: AtomicU64::new(0), publishing: Mutex::new(()) }
    }

    /// The set, if it is served.
    pub fn set(&self, name: &SetName) -> Option<Arc<PreparedSet>> {
        self.sets.load().get(name).cloned()
    }

    /// The cache life to emit now, in whole seconds: up to a tenth less than the longest, so that caches do not all come back at once.
    pub fn max_age(&self, set: &PreparedSet, now: Timestamp) -> u64 {
        // No secret depends on it, so a counter through a multiplicative hash is random enough.
        let mixed = self.answers.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        set.life.emitted(now, mixed.to_be_bytes()[0])
    }

    /// Whether what is served is what the newest durable snapshot says (the true JWKS).
    pub fn is_current(&self) -> bool {
        let snapshot = self.keys.snapshot();
        let sets = self.sets.load();
        sets.iter().all(|(name, set)| jwks::body(&snapshot.keyrings, name).is_some_and(|body| body == set.body))
    }

    /// Swaps in what the newest durable snapshot says, for the sets that are `ready` and all that were served before; then records each
    /// change. The events that made the change are durable already, so nothing is visible before its record.
    pub async fn publish(&self, ready: &[SetName]) -> Result<(), AppendError> {
        let _publishing = self.publishing.lock().await;
        let snapshot = self.keys.snapshot();
        let served = self.sets.load();
        let mut names: Vec<SetName> = served.keys().cloned().chain(ready.iter().cloned()).collect();
        names.sort();
        names.dedup();
        let sets = prepare_all(&snapshot, &names);
        let size = snapshot.keyrings.size();
        let recorded = |name: &SetName| snapshot.keyrings.served(&self.node, name).map(|served| served.sha256);
        let changed: Vec<(SetName, Hash)> =
            sets.iter().filter(|(name, set)| recorded(name) != Some(set.sha256)).map(|(name, set)| (name.clone(), set.sha256)).collect();
        self.sets.store(Arc::new(sets));
        if changed.is_empty() {
            return Ok(());
        }
        let propose = move |keyrings: &Keyrings, _: Timestamp| {
            // A set that changed again meanwhile is left to the next call, which serves and records the newer body.
            let still = changed.iter().filter(|(name, sha256)| body_hash(keyrings, name) == Some(*sha256));
            Ok(still.map(|(name, sha256)| served_event(name, *sha256, size)).collect())
        };
        self.keys.append(Asked::default(), propose).await.map(drop)
    }
}

fn served_event(set: &SetName, sha256: Hash, size: u64) -> Event {
    Event::JwksServed(JwksServed { set: set.to_string(), size, sha256 })
}

fn body_hash(keyrings: &Keyrings, set: &SetName) -> Option<Hash> {
    jwks::body(keyrings, set).map(|body| Hash::digest(&body))
}

fn prepare_all(snapshot: &KeySnapshot, names: &[SetName]) -> Sets {
    let prepared = names.iter().filter_map(|name| Some((name.clone(), Arc::new(prepare(&snapshot.keyrings, name)?))));
    prepared.collect()
}

fn prepare(keyrings: &Keyrings, name: &SetName) -> Option<PreparedSet> {
    let body = jwks::body(keyrings, name)?;
    let sha256 = Hash::digest(&body);
    Some(PreparedSet {
        etag: format!("\"{sha256}\""),
        log_size: keyrings.size(),
        sha256,
        life: CacheLife::of(keyrings, name),
        body: Bytes::from(body),
    })
}
