//! The loop that rotates: plan, do one step, publish, sleep until the plan's wake.
//!
//! In scope: carrying out what the pure plan says, with the keystores' failures and the clock's. A step that only writes a record is done
//! at once; one that asks a keystore is begun beside the loop, one in each keystore at a time, so that a keystore that takes a minute for an
//! answer, or gives none, delays no record and no other keystore. Out of scope: what is due (`rotation`), and operators' verbs (`operator`),
//! which append and then wake this loop. There is no second path: a compromise is finished here too.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use claviger_audit::event::{ClockSettled, ClockStepped, Event, KeyCreated, KeyDestroyed, KeystoreRejected, UsesHead};
use claviger_audit::keyrings::{Keyrings, State};
use claviger_audit::names::KeyName;
use claviger_audit::record::Asked;
use claviger_audit::{Algorithm, Timestamp};
use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::calls::Calls;
use crate::clock::Clock;
use crate::clock_watch::{Change, ClockWatch};
use crate::complaints::Work;
use crate::health::Health;
use crate::journal::{AppendError, KeyLog, UseLog};
use crate::keystore::{Keystore, KeystoreError, Locator};
use crate::publisher::Publisher;
use crate::rotation::timing::TICK;
use crate::rotation::{Conditions, DateGate, Plan, plan, sets_to_serve};
use crate::signer::Keystores;

mod self_test;

/// How often the key log says where the use log stands, beside every rotation, compromise, start and stop.
const USES_HEAD_EVERY: Duration = Duration::from_secs(3600);
/// The pause after a step that should have been possible and was not, so that a mistake cannot spin.
const PAUSE: Duration = Duration::from_secs(1);
/// When a keystore is asked again for a key that it refused: an operator has to change something first.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// Rotates the keys of all keyrings. One per daemon.
pub struct Rotator {
    /// The key log.
    pub keys: KeyLog,
    /// The use log, whose head the key log names.
    pub uses: UseLog,
    /// This node.
    pub node: String,
    /// Where keys live.
    pub keystores: Keystores,
    /// Counts the self-tests that got no answer.
    pub calls: Arc<Calls>,
    /// Knows which of them do not answer.
    pub health: Arc<Health>,
    /// Serves what changed.
    pub publisher: Arc<Publisher>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Wakes the loop.
    pub wake: Arc<Notify>,
    /// Keys that their keystore refused, and when to ask again.
    pub refused: Mutex<BTreeMap<KeyName, Timestamp>>,
    /// Whether the wall clock is trusted.
    pub watch: Arc<ClockWatch>,
}

/// What follows a step.
enum Next {
    Again,
    Sleep(Duration),
    /// The log is dead: nothing changes any more in this process.
    Stop,
}

/// Steps that are under way in keystores. What is still under way when it goes is given up; each can be begun again.
#[derive(Default)]
struct Errands {
    tasks: JoinSet<Next>,
    keystores: HashMap<Id, String>,
}

impl Errands {
    fn busy(&self) -> BTreeSet<String> {
        self.keystores.values().cloned().collect()
    }

    /// Begins a step in a keystore that has none.
    fn begin(&mut self, keystore: String, step: impl Future<Output = Next> + Send + 'static) {
        let task = self.tasks.spawn(async move {
            let next = step.await;
            if let Next::Sleep(pause) = next {
                tokio::time::sleep(pause).await;
            }
            next
        });
        self.keystores.insert(task.id(), keystore);
    }

    /// Waits for the end of one; for ever, while there is none.
    async fn ended(&mut self) -> Next {
        match self.tasks.join_next_with_id().await {
            Some(ended) => self.note(ended),
            None => std::future::pending().await,
        }
    }

    /// The end of one that has ended already.
    fn look(&mut self) -> Option<Next> {
        self.tasks.try_join_next_with_id().map(|ended| self.note(ended))
    }

    fn note(&mut self, ended: Result<(Id, Next), JoinError>) -> Next {
        match ended {
            Ok((task, next)) => {
                self.keystores.remove(&task);
                next
            }
            Err(error) => {
                // A defect. The keystore stays busy, so that the step is not begun again and again.
                tracing::error!(keystore = self.keystores.get(&error.id()), %error, "nothing more is made or destroyed here until a restart");
                Next::Again
            }
        }
    }
}

impl Rotator {
    /// Runs until the stop, or until the log is dead or others know more of it.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let (mut changed, mut errands) = (self.keys.changed(), Errands::default());
        loop {
            if let Some(doubt) = self.keys.standing().doubt() {
                tracing::error!(?doubt, "keys rotate no more until a restart: others know more of the log");
                return;
            }
            changed.mark_unchanged();
            while let Some(ended) = errands.look() {
                if matches!(ended, Next::Stop) {
                    return;
                }
            }
            let next = self.step(&mut errands).await;
            let published = self.publish().await;
            let pause = match (next, published) {
                (Next::Stop, _) | (_, Err(AppendError::Unwritable(_) | AppendError::Stopped)) => return,
                (Next::Again, _) if !stop.is_cancelled() => continue,
                (Next::Again, _) => return,
                (Next::Sleep(pause), _) => pause,
            };
            tokio::select! {
                () = stop.cancelled() => return,
                // A closed channel means that the log is gone; the next step finds out why.
                _ = changed.changed() => {}
                () = self.wake.notified() => {}
                ended = errands.ended() => if matches!(ended, Next::Stop) { return },
                () = tokio::time::sleep(pause.min(TICK)) => {}
            }
        }
    }

    /// Serves what the newest snapshot says.
    async fn publish(&self) -> Result<(), AppendError> {
        let ready = {
            let snapshot = self.keys.snapshot();
            let (unavailable, refused, busy) = (self.health.retry_dates(), self.refused(), BTreeSet::new());
            sets_to_serve(&snapshot.keyrings, &self.conditions(&snapshot.keyrings, (&unavailable, &refused, &busy)))
        };
        self.publisher.publish(&ready).await
    }

    async fn step(self: &Arc<Self>, errands: &mut Errands) -> Next {
        if let Err(next) = self.watch_clock().await {
            return next;
        }
        let snapshot = self.keys.snapshot();
        let wall = self.clock.wall();
        let now = wall.max(snapshot.keyrings.last_time());
        let (unavailable, refused) = (later(self.health.retry_dates(), now.since(wall)), later(self.refused(), now.since(wall)));
        let busy = errands.busy();
        match plan(&snapshot.keyrings, now, &self.conditions(&snapshot.keyrings, (&unavailable, &refused, &busy))) {
            Plan::Append(_) => self.append_planned(unavailable, refused, busy).await,
            Plan::Create { name, algorithm, keystore } => {
                let this = self.clone();
                errands.begin(keystore.clone(), async move { this.create(name, algorithm, keystore).await });
                Next::Again
            }
            Plan::Destroy { name, keystore, locator } => {
                let this = self.clone();
                errands.begin(keystore.clone(), async move { this.destroy(name, keystore, locator).await });
                Next::Again
            }
            Plan::SleepUntil(wake) => {
                if self.uses_head_is_due(&snapshot.keyrings, now) {
                    return after(self.append_uses_head().await);
                }
                Next::Sleep(wake.map_or(TICK, |wake| wake.since(now)))
            }
        }
    }

    /// Plans once more inside the append, with the record's own time, so that every date in the record is counted from it.
    async fn append_planned(
        &self,
        unavailable: BTreeMap<String, Timestamp>,
        refused: BTreeMap<KeyName, Timestamp>,
        busy: BTreeSet<String>,
    ) -> Next {
        let (dates, claim) = (self.date_gate(&self.keys.snapshot().keyrings), random_claim());
        let (uses, node) = (self.uses.clone(), self.node.clone());
        let propose = move |keyrings: &Keyrings, now: Timestamp| {
            let conditions = Conditions { unavailable: &unavailable, refused: &refused, busy: &busy, dates, claim };
            match plan(keyrings, now, &conditions) {
                Plan::Append(event) => Ok(with_uses_head(vec![event], &uses, &node)),
                _ => Ok(Vec::new()),
            }
        };
        after(self.keys.append(Asked::default(), propose).await.map(drop))
    }

    /// Find-or-create by the recorded name, admission (the keystore's), a self-test (ours), then the record.
    async fn create(&self, name: KeyName, algorithm: Algorithm, keystore: String) -> Next {
        let made = match self.keystore(&keystore) {
            Ok(store) => match store.create(&name, algorithm).await {
                Ok(made) => self.self_test((&keystore, store.as_ref()), &name, &made, algorithm).await.map(|tested| (made, tested)),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        let (made, tested) = match made {
            Ok(made) => made,
            Err(error) => return self.failed(&keystore, &name, Work::Make, &error).await,
        };
        self.health.complaints.done(&keystore, || Work::Make(name.keyring().to_owned()));
        if let Err(error) = self.health.answered(&keystore).await {
            return after(Err(error));
        }
        let created = Event::KeyCreated(KeyCreated {
            key: name.clone(),
            kid: made.public.thumbprint(),
            jwk: made.public,
            locator: made.locator.as_str().to_owned(),
            attributes: made.attributes,
            backend_request: made.backend_request,
            self_test: tested.request().map(str::to_owned),
        });
        let propose = move |keyrings: &Keyrings, _: Timestamp| {
            // Abandoned meanwhile by an operator: then there is no key to record, and the plan destroys it.
            let still = keyrings.key_named(&name).is_some_and(|(_, key)| key.state == State::Requested);
            Ok(if still { vec![created.clone()] } else { Vec::new() })
        };
        match self.keys.append(Asked::default(), propose).await {
            Ok(records) if records.is_empty() => {
                self.record_self_test(tested, "the key was abandoned meanwhile").await;
                Next::Again
            }
            appended => {
                if appended.is_ok() {
                    tested.settle();
                }
                after(appended.map(drop))
            }
        }
    }

    async fn destroy(&self, name: KeyName, keystore: String, locator: Option<String>) -> Next {
        let done = match self.keystore(&keystore) {
            Ok(store) => destroy_key(store.as_ref(), &name, locator).await,
            Err(error) => Err(error),
        };
        let deleted_on = match done {
            Ok(deleted_on) => deleted_on,
            Err(error) => return self.failed(&keystore, &name, Work::Destroy, &error).await,
        };
        self.health.complaints.done(&keystore, || Work::Destroy(name.keyring().to_owned()));
        if let Err(error) = self.health.answered(&keystore).await {
            return after(Err(error));
        }
        let propose = move |keyrings: &Keyrings, _: Timestamp| {
            let destroyed = keyrings.key_named(&name).is_none_or(|(_, key)| key.state == State::Destroyed);
            Ok(if destroyed { Vec::new() } else { vec![Event::KeyDestroyed(KeyDestroyed { key: name.clone(), deleted_on })] })
        };
        after(self.keys.append(Asked::default(), propose).await.map(drop))
    }

    /// A keystore that does not answer is asked again later; one that refused a key is asked for other keys meanwhile.
    async fn failed(&self, keystore: &str, name: &KeyName, work: fn(String) -> Work, error: &KeystoreError) -> Next {
        tracing::warn!(keystore, key = %name, %error, "a keystore did not do its step");
        let now = self.clock.wall();
        if !matches!(error, KeystoreError::Rejected(_) | KeystoreError::Gone(_)) {
            return after(self.health.failed(keystore, error).await);
        }
        self.health.complaints.note(keystore, work(name.keyring().to_owned()), error);
        let first = {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.insert(name.clone(), now + REFUSED_PAUSE).is_none()
        };
        if !first {
            return Next::Again;
        }
        let rejected = KeystoreRejected { keystore: keystore.to_owned(), key: Some(name.clone()), reason: error.to_string() };
        after(self.keys.record(Event::KeystoreRejected(rejected)).await)
    }

    fn conditions<'a>(
        &self,
        keyrings: &Keyrings,
        (unavailable, refused, busy): (&'a BTreeMap<String, Timestamp>, &'a BTreeMap<KeyName, Timestamp>, &'a BTreeSet<String>),
    ) -> Conditions<'a> {
        Conditions { unavailable, refused, busy, dates: self.date_gate(keyrings), claim: random_claim() }
    }

    fn keystore(&self, name: &str) -> Result<&Arc<dyn Keystore>, KeystoreError> {
        let missing =
            || KeystoreError::Unavailable { reason: format!("keystore {name:?} is not configured any more"), after: REFUSED_PAUSE };
        self.keystores.get(name).ok_or_else(missing)
    }

    fn refused(&self) -> BTreeMap<KeyName, Timestamp> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn uses_head_is_due(&self, keyrings: &Keyrings, now: Timestamp) -> bool {
        keyrings.uses_heads().get(&self.node).is_none_or(|(time, _)| now >= *time + USES_HEAD_EVERY)
    }

    async fn append_uses_head(&self) -> Result<(), AppendError> {
        self.keys.record(Event::UsesHead(uses_head(&self.uses, &self.node))).await
    }

    fn date_gate(&self, keyrings: &Keyrings) -> DateGate {
        self.watch.gate(keyrings, last_recorded(keyrings, &self.uses))
    }

    /// I12, while running: a wall clock that moved against the monotonic one by more than e pauses every dated transition.
    async fn watch_clock(&self) -> Result<(), Next> {
        let Some(change) = self.watch.look(&self.keys.snapshot().keyrings) else { return Ok(()) };
        let event = match change {
            Change::Stepped { skew_ms, difference_ms } => {
                tracing::warn!(difference_ms, "the wall clock was stepped: keys rotate no more until it is right or confirmed");
                Event::ClockStepped(ClockStepped { keyring_skew_ms: skew_ms, difference_ms })
            }
            Change::Settled { difference_ms } => {
                tracing::warn!(difference_ms, "the wall clock and the monotonic clock agree again");
                Event::ClockSettled(ClockSettled { difference_ms })
            }
        };
        match self.keys.record(event).await {
            Ok(()) => {
                self.watch.recorded(change);
                Ok(())
            }
            Err(error) => Err(after(Err(error))),
        }
    }
}

/// The latest time in any log of this node. The use log counts too: a token that was signed while the clock stood ahead lives until the clock
/// is there again.
pub(crate) fn last_recorded(keyrings: &Keyrings, uses: &UseLog) -> Timestamp {
    keyrings.last_time().max(uses.head().time)
}

/// Pauses are counted on the wall clock; where the log's time, by which the plan goes, runs ahead of it, so do their ends.
fn later<K: Ord>(dates: BTreeMap<K, Timestamp>, by: Duration) -> BTreeMap<K, Timestamp> {
    dates.into_iter().map(|(key, date)| (key, date + by)).collect()
}

/// The records, and where the use log stands if they end or begin a key's signing.
pub(crate) fn with_uses_head(mut events: Vec<Event>, uses: &UseLog, node: &str) -> Vec<Event> {
    if events.iter().any(|event| matches!(event, Event::KeyRotated(_) | Event::KeyCompromised(_) | Event::KeyringRetired(_))) {
        events.push(Event::UsesHead(uses_head(uses, node)));
    }
    events
}

/// Where the use log stands now.
pub(crate) fn uses_head(uses: &UseLog, node: &str) -> UsesHead {
    let head = uses.head();
    UsesHead { of: node.to_owned(), origin: uses.origin().to_string(), size: head.size, root: head.root }
}

/// Makes a key unusable, and says when it will be deleted; one whose creation was never recorded is looked up by its name.
pub(crate) async fn destroy_key(store: &dyn Keystore, name: &KeyName, locator: Option<String>) -> Result<Option<Timestamp>, KeystoreError> {
    if let Some(locator) = locator {
        return store.destroy(&Locator::new(locator)).await;
    }
    let found = store.inventory(name.installation()).await?.into_iter().find(|(known, _)| known == name);
    match found {
        Some((_, locator)) => store.destroy(&locator).await,
        None => Ok(None),
    }
}

fn after(appended: Result<(), AppendError>) -> Next {
    match appended {
        Ok(()) => Next::Again,
        Err(AppendError::Illegal(illegal)) => {
            // The plan and the table disagree: a defect, but never a reason to write what is illegal.
            tracing::error!(%illegal, "a planned step is illegal");
            Next::Sleep(PAUSE)
        }
        Err(AppendError::Overloaded) => Next::Sleep(PAUSE),
        Err(AppendError::Unwritable(_) | AppendError::Stopped) => Next::Stop,
    }
}

/// The claim of a key name: not secret, only never the same twice.
fn random_claim() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness the claim is zero: the table refuses a name that was used before, so nothing is ever adopted by mistake.
    let _ = getrandom::fill(&mut bytes);
    u32::from_be_bytes(bytes)
}
