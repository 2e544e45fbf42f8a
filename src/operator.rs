//! Operators' verbs: one choke point that authorises and records.
//!
//! In scope: who may, what the log then says, and that what is served follows at once. Out of scope: what a verb means for keys
//! (`rotation::verbs`), HTTP, witnesses (`witness`), and the loop that finishes a compromise in the keystore (`rotator`, which is woken).

use std::sync::Arc;
use std::time::Duration;

use claviger_audit::Timestamp;
use claviger_audit::event::{AdminDenied, ClockConfirmed, Event, LogKind};
use claviger_audit::keyrings::{Illegal, Key, Keyrings, Rule, State};
use claviger_audit::record::Asked;
use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::clock::Clock;
use crate::clock_watch::ClockWatch;
use crate::health::Health;
use crate::journal::living::Question;
use crate::journal::{Doubt, KeyLog, LiveTokens, Receipt, TokenCounter, UseLog};
use crate::keystore::KeystoreError;
use crate::policy::{Action, DecisionRequest, Identity, Resource};
use crate::publisher::Publisher;
use crate::refusal::{Code, Refusal};
use crate::rotation::{Plan, verbs};
use crate::rotator::{destroy_key, last_recorded, with_uses_head};
use crate::signer::{Ask, Keystores, Signer, append_refusal, doubted};
use crate::witness::Witnesses;

/// What an operator orders.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Verb {
    Rotate { keyring: String, force: Option<String> },
    Retire { keyring: String, reason: String },
    Import { keyring: String, keys: Vec<verbs::Entry>, until: Timestamp, reason: String },
    Compromise { kid: String, since: Option<Timestamp>, reason: String },
    Suspend { kid: String, reason: String },
    Resume { kid: String, reason: String },
    Abandon { key: String, reason: String },
    Destroy { key: String },
}

/// What a verb did.
#[derive(Clone, Debug)]
pub struct Done {
    /// The events, in order.
    pub events: Vec<Event>,
    /// Where their records are.
    pub receipts: Vec<Receipt>,
}

/// Asks the daemon to load its configuration and policies anew; the answer says what changed, or why nothing did.
pub type ReloadRequest = oneshot::Sender<Result<Value, Refusal>>;

/// Performs verbs. One per daemon.
pub struct Operator {
    /// The key log.
    pub keys: KeyLog,
    /// The use log, whose head is named beside every rotation.
    pub uses: UseLog,
    /// Reads the use log for tokens that are alive.
    pub tokens: TokenCounter,
    /// Where keys live.
    pub keystores: Keystores,
    /// Has the policies in force.
    pub signer: Arc<Signer>,
    /// Serves what changed.
    pub publisher: Arc<Publisher>,
    /// Wakes the rotator.
    pub wake: Arc<Notify>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Whether the wall clock is trusted.
    pub watch: Arc<ClockWatch>,
    /// Which keystores answer.
    pub health: Arc<Health>,
    /// This node.
    pub node: String,
    /// The daemon's own user id.
    pub own_uid: u32,
    /// Who cosigns the logs, if anybody does.
    pub witnesses: Option<Arc<Witnesses>>,
    /// Asks for a reload.
    pub reload: mpsc::Sender<ReloadRequest>,
}

/// What a verb or a question is about, as the operator wrote it.
#[derive(Clone, Copy)]
enum Target<'a> {
    Keyring(&'a str),
    /// By kid or name.
    Key(&'a str),
}

impl Verb {
    fn action(&self) -> Action {
        match self {
            Self::Rotate { .. } => Action::Rotate,
            // An imported key changes what verifiers trust, as the end of a keyring does.
            Self::Retire { .. } | Self::Import { .. } => Action::Retire,
            Self::Compromise { .. } => Action::Compromise,
            Self::Suspend { .. } => Action::Suspend,
            Self::Resume { .. } => Action::Resume,
            Self::Abandon { .. } => Action::Abandon,
            Self::Destroy { .. } => Action::Destroy,
        }
    }

    fn target(&self) -> Target<'_> {
        match self {
            Self::Rotate { keyring, .. } | Self::Retire { keyring, .. } | Self::Import { keyring, .. } => Target::Keyring(keyring),
            Self::Compromise { kid: key, .. }
            | Self::Suspend { kid: key, .. }
            | Self::Resume { kid: key, .. }
            | Self::Abandon { key, .. }
            | Self::Destroy { key } => Target::Key(key),
        }
    }

    fn keyring(&self, keyrings: &Keyrings) -> Option<String> {
        match self.target() {
            Target::Keyring(name) => Some(name.to_owned()),
            Target::Key(key) => keyring_of(keyrings, key),
        }
    }

    /// The records that carry the verb out, legal at exactly `now`.
    pub(crate) fn events(&self, keyrings: &Keyrings, now: Timestamp) -> Result<Vec<Event>, Illegal> {
        match self {
            Self::Rotate { keyring, force } => verbs::rotate(keyrings, now, keyring, force.as_deref()),
            Self::Retire { keyring, reason } => verbs::retire(keyrings, now, keyring, reason),
            Self::Import { keyring, keys, until, reason } => verbs::import(keyrings, now, keyring, keys, *until, reason),
            Self::Compromise { kid, since, reason } => verbs::compromise(keyrings, now, kid, since.unwrap_or(now), reason),
            Self::Suspend { kid, reason } => verbs::suspend(keyrings, kid, reason),
            Self::Resume { kid, reason } => verbs::resume(keyrings, kid, reason),
            Self::Abandon { key, reason } => verbs::abandon(keyrings, key, reason),
            // Destroying asks the keystore first; only its outcome is a record.
            Self::Destroy { .. } => Ok(Vec::new()),
        }
    }
}

/// The keyring of a key, by kid or name.
pub fn keyring_of(keyrings: &Keyrings, key: &str) -> Option<String> {
    let by_name = || keyrings.key_named(&key.parse().ok()?);
    keyrings.key(key).or_else(by_name).map(|(keyring, _)| keyring.name.clone())
}

impl Operator {
    /// Authorises a verb, records it, and serves what follows from it before it returns.
    pub async fn perform(&self, ask: &Ask, verb: Verb) -> Result<Done, Refusal> {
        let snapshot = self.keys.snapshot();
        let Some(keyring) = verb.keyring(&snapshot.keyrings).filter(|name| snapshot.keyrings.keyring(name).is_some()) else {
            return Err(self.unknown(ask, verb.action(), verb.target()));
        };
        self.authorise(ask, verb.action(), &keyring).await?;
        self.check_standing(verb.action())?;
        self.check_clock(&verb, &snapshot.keyrings)?;
        self.check_keystores(&verb, &snapshot.keyrings)?;
        let deleted_on = if let Verb::Destroy { key } = &verb { self.destroy_in_keystore(key).await? } else { None };
        let asked = asked(ask);
        let (uses, node, ordered) = (self.uses.clone(), self.node.clone(), verb);
        let (report, events) = oneshot::channel();
        let mut report = Some(report);
        let propose = move |keyrings: &Keyrings, now: Timestamp| {
            let events = match &ordered {
                Verb::Destroy { key } => destroyed(keyrings, now, key, deleted_on)?,
                verb => with_uses_head(verb.events(keyrings, now)?, &uses, &node),
            };
            if let Some(report) = report.take() {
                // Nobody waits any more if the request was cut off; the record is written all the same.
                let _ = report.send(events.clone());
            }
            Ok(events)
        };
        let receipts = self.keys.append(asked, propose).await.map_err(|error| append_refusal(&error))?;
        // Commit point: the records are durable. What is served follows before the operator hears of it.
        if let Err(error) = self.publisher.publish(&[]).await {
            tracing::error!(%error, "the served sets changed, but their record could not be written");
        }
        self.wake.notify_one();
        Ok(Done { events: events.await.unwrap_or_default(), receipts })
    }

    /// How many tokens a key that was just compromised signed on this node that can still be alive, for whom and until when; `None` for
    /// other verbs, and for an imported key, which signed elsewhere. What was done is durable before anything is counted.
    pub async fn live_tokens(&self, done: &Done) -> Option<LiveTokens> {
        let compromised = |event: &Event| if let Event::KeyCompromised(event) = event { Some(event.kid.clone()) } else { None };
        let kid = done.events.iter().find_map(compromised)?;
        let snapshot = self.keys.snapshot();
        let (keyring, key) = snapshot.keyrings.key(&kid)?;
        key.name.as_ref()?;
        let now = key.entered();
        let since = now - keyring.overlap_at(key, now);
        Some(self.tokens.count(Question { kid, now, since, size: self.uses.head().size }).await)
    }

    /// Takes the clocks of now for right after a step, so that transitions go on (I12).
    ///
    /// # Errors
    ///
    /// [`Code::NotNow`] if no step is on record.
    pub async fn confirm_clock(&self, ask: &Ask, reason: String) -> Result<Done, Refusal> {
        self.authorise_installation(ask, Action::ConfirmClock).await?;
        self.check_standing(Action::ConfirmClock)?;
        if !self.watch.is_paused() {
            let text = "clock.confirmed: no step of the clock is on record, so there is nothing to confirm";
            return Err(not_now(Rule::I12, text, None));
        }
        let (keys, watch, wake, asked) = (self.keys.clone(), self.watch.clone(), self.wake.clone(), asked(ask));
        // On its own, so that a request that is cut off leaves no record behind that nobody acts on.
        let confirmation = tokio::spawn(async move {
            let (report, confirmed) = oneshot::channel();
            let (mut report, clocks) = (Some(report), watch.clone());
            let propose = move |_: &Keyrings, _: Timestamp| {
                // As they stand with the record: a step that comes after it is another one.
                let (reading, difference_ms) = clocks.read();
                let event = Event::ClockConfirmed(ClockConfirmed { difference_ms, reason: reason.trim().to_owned() });
                if let Some(report) = report.take() {
                    // The receiver stands below, in this task.
                    let _ = report.send((reading, event.clone()));
                }
                Ok(vec![event])
            };
            let receipts = keys.append(asked, propose).await.map_err(|error| append_refusal(&error))?;
            let (reading, event) = confirmed.await.map_err(|_| stopping())?;
            // Commit point: the record is durable, and dates may count again.
            watch.confirm(reading);
            wake.notify_one();
            Ok(Done { events: vec![event], receipts })
        });
        confirmation.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Waits until a checkpoint with a quorum of cosignatures covers what was done: how many records such a checkpoint covers, or `None`
    /// after `within`. What was done stays done either way.
    ///
    /// # Errors
    ///
    /// [`Code::Malformed`] if no witnesses are configured; see [`Self::may_wait`].
    pub async fn wait_witnessed(&self, done: &Done, within: Duration) -> Result<Option<u64>, Refusal> {
        let mut witnessed = self.witnessed_keys()?.watch();
        let needed = done.receipts.iter().map(|receipt| receipt.seq + 1).max().unwrap_or(0);
        // The sender lives in `self`, so that only time can end the wait.
        let reached = tokio::time::timeout(within, witnessed.wait_for(|size| *size >= needed)).await;
        Ok(reached.ok().and_then(Result::ok).map(|size| *size))
    }

    /// Whether there is anybody to wait for: asked before a verb is carried out, so that nobody waits in vain for what is done already.
    pub fn may_wait(&self) -> Result<(), Refusal> {
        self.witnessed_keys().map(drop)
    }

    fn witnessed_keys(&self) -> Result<&Arc<crate::witness::Gathering>, Refusal> {
        let none = || Refusal::new(Code::Malformed, "no witnesses are configured, so nothing was done; set log.witnesses, or do not wait");
        self.witnesses.as_ref().map(|witnesses| witnesses.log(LogKind::Keys)).ok_or_else(none)
    }

    /// Whether the caller may read the key log.
    pub async fn may_read_log(&self, ask: &Ask) -> Result<(), Refusal> {
        if self.is_permitted(ask, Action::ReadLog, Resource::Installation) {
            return Ok(());
        }
        self.record_denial(ask, Action::ReadLog, "installation").await;
        Err(denied())
    }

    /// Whether the caller may read about a keyring.
    pub async fn may_read(&self, ask: &Ask, keyring: &str) -> Result<(), Refusal> {
        if self.keys.snapshot().keyrings.keyring(keyring).is_none() {
            return Err(self.unknown(ask, Action::ReadKeyring, Target::Keyring(keyring)));
        }
        self.authorise(ask, Action::ReadKeyring, keyring).await
    }

    /// The durable state.
    pub fn keyrings(&self) -> Arc<crate::journal::KeySnapshot> {
        self.keys.snapshot()
    }

    /// The keyrings that the caller may read about.
    pub fn readable(&self, ask: &Ask) -> Vec<String> {
        let snapshot = self.keys.snapshot();
        let names = snapshot.keyrings.all().map(|keyring| keyring.name.clone());
        names.filter(|name| self.is_permitted(ask, Action::ReadKeyring, Resource::Keyring(name))).collect()
    }

    /// Loads configuration and policies anew, all or nothing.
    pub async fn reload(&self, ask: &Ask) -> Result<Value, Refusal> {
        self.authorise_installation(ask, Action::ReloadPolicy).await?;
        let (reply, answer) = oneshot::channel();
        let busy = || Refusal::new(Code::Overloaded, "a reload is under way; ask again");
        self.reload.try_send(reply).map_err(|_| busy())?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Refuses, and records, who may not do what concerns no single keyring.
    pub(crate) async fn authorise_installation(&self, ask: &Ask, action: Action) -> Result<(), Refusal> {
        if self.is_permitted(ask, action, Resource::Installation) {
            return Ok(());
        }
        self.record_denial(ask, action, "installation").await;
        Err(denied())
    }

    /// Makes a key unusable, and says when its keystore will delete it.
    async fn destroy_in_keystore(&self, key: &str) -> Result<Option<Timestamp>, Refusal> {
        let snapshot = self.keys.snapshot();
        let Plan::Destroy { name, keystore, locator } = verbs::destroy(&snapshot.keyrings, self.clock.wall(), key)? else {
            return Ok(None);
        };
        let unavailable = |error: KeystoreError| Refusal::new(Code::KeystoreUnavailable, error.to_string());
        let missing = || Refusal::new(Code::KeystoreUnavailable, format!("keystore {keystore:?} is not configured any more"));
        let store = self.keystores.get(&keystore).ok_or_else(missing)?;
        destroy_key(store.as_ref(), &name, locator).await.map_err(unavailable)
    }

    async fn authorise(&self, ask: &Ask, action: Action, keyring: &str) -> Result<(), Refusal> {
        if self.is_permitted(ask, action, Resource::Keyring(keyring)) || self.is_emergency(ask, action) {
            return Ok(());
        }
        self.record_denial(ask, action, keyring).await;
        Err(denied())
    }

    fn is_permitted(&self, ask: &Ask, action: Action, resource: Resource<'_>) -> bool {
        let rules = self.signer.rules().load();
        let Some(policies) = &rules.policies else { return false };
        let time = self.clock.wall();
        let decision = policies.decide(&DecisionRequest { caller: &ask.caller, action, resource, origin: &ask.origin, time, token: None });
        if !decision.errors.is_empty() {
            tracing::error!(action = action.as_str(), errors = ?decision.errors, "a policy failed; the request was denied");
        }
        decision.allowed()
    }

    /// While others may know more of the log nothing is changed; once they do, only what protects verifiers from a stolen key.
    fn check_standing(&self, action: Action) -> Result<(), Refusal> {
        match self.keys.standing().doubt() {
            None => Ok(()),
            Some(Doubt::Refuted(_)) if matches!(action, Action::Suspend | Action::Compromise) => Ok(()),
            Some(doubt) => Err(doubted(&doubt)),
        }
    }

    /// I12: while the clock is in doubt no verb is carried out whose date it decides. Force, a reason on record, overrides it for a rotation.
    fn check_clock(&self, verb: &Verb, keyrings: &Keyrings) -> Result<(), Refusal> {
        let dated = match verb {
            Verb::Rotate { force, .. } => force.is_none(),
            // The tokens of the key that stops live until a date.
            Verb::Retire { .. } => true,
            Verb::Destroy { key } => state_of(keyrings, key) == Some(State::Withdrawn),
            _ => false,
        };
        match self.watch.in_doubt(keyrings, last_recorded(keyrings, &self.uses)).filter(|_| dated) {
            None => Ok(()),
            Some(None) => {
                let text = "the wall clock was stepped, or stands before the last record, so dates do not count until it is right or `claviger clock \
                     confirm` says that it is";
                Err(not_now(Rule::I12, text, None))
            }
            Some(Some(until)) => {
                let text = format!("the clock was confirmed after a step, and dates count again from {until} on");
                Err(not_now(Rule::I12, text, Some(until)))
            }
        }
    }

    /// A rotation from a keystore that answers to one that does not would stop all signing. Force overrides it.
    fn check_keystores(&self, verb: &Verb, keyrings: &Keyrings) -> Result<(), Refusal> {
        let Verb::Rotate { keyring, force: None } = verb else { return Ok(()) };
        let Some(ring) = keyrings.keyring(keyring) else { return Ok(()) };
        let away = self.health.away();
        let is_away = |key: &&Key| away.contains_key(&key.keystore);
        let standby = keyrings.eligible_standby(ring, self.clock.wall()).filter(is_away);
        match standby.filter(|_| ring.active().is_some_and(|key| !is_away(&key))) {
            None => Ok(()),
            Some(key) => {
                let text = format!(
                    "keystore {:?}, in which the standby lives, does not answer, and that of the key that signs does: nobody would sign; wait for it, or \
                     say --force",
                    key.keystore
                );
                Err(Refusal::new(Code::KeystoreUnavailable, text))
            }
        }
    }

    /// The daemon's own user and root may always suspend and compromise: a broken policy must not protect a stolen key.
    fn is_emergency(&self, ask: &Ask, action: Action) -> bool {
        let local = matches!(ask.caller.identity(), Identity::Unix(uid) if *uid == 0 || *uid == self.own_uid);
        local && matches!(action, Action::Suspend | Action::Compromise)
    }

    async fn record_denial(&self, ask: &Ask, action: Action, resource: &str) {
        // Whoever reaches the listener may knock; a few records a second tell as much as all of them.
        if !self.signer.may_record(ask.caller.id()) {
            return;
        }
        let event = AdminDenied { verb: action.as_str().to_owned(), resource: resource.to_owned(), code: "denied".to_owned() };
        let event = Event::AdminDenied(event);
        if let Err(error) = self.keys.append(asked(ask), move |_, _| Ok(vec![event.clone()])).await {
            tracing::error!(%error, "the record of a denied verb could not be written");
        }
    }

    /// What does not exist is told only to those who may know.
    fn unknown(&self, ask: &Ask, action: Action, target: Target<'_>) -> Refusal {
        if self.readable(ask).is_empty() && !self.is_emergency(ask, action) {
            return denied();
        }
        match target {
            Target::Keyring(name) => Refusal::new(Code::UnknownKeyring, format!("no keyring is called {name:?}")),
            Target::Key(key) => Refusal::new(Code::UnknownKey, format!("no key has the kid or name {key:?}")),
        }
    }
}

fn state_of(keyrings: &Keyrings, key: &str) -> Option<State> {
    let by_name = || keyrings.key_named(&key.parse().ok()?);
    keyrings.key(key).or_else(by_name).map(|(_, key)| key.state)
}

/// A refusal that names its invariant.
fn not_now(rule: Rule, text: impl Into<String>, until: Option<Timestamp>) -> Refusal {
    let refusal = Refusal::new(Code::NotNow, format!("{} ({})", text.into(), rule.name()));
    Refusal { invariant: Some(rule.name().to_owned()), until, ..refusal }
}

/// The record of a destroyed key, unless somebody else wrote it meanwhile.
fn destroyed(keyrings: &Keyrings, now: Timestamp, key: &str, deleted_on: Option<Timestamp>) -> Result<Vec<Event>, Illegal> {
    match verbs::destroy(keyrings, now, key)? {
        Plan::Destroy { name, .. } => Ok(vec![Event::KeyDestroyed(claviger_audit::event::KeyDestroyed { key: name, deleted_on })]),
        _ => Ok(Vec::new()),
    }
}

fn stopping() -> Refusal {
    Refusal::new(Code::NotReady, "the daemon is stopping")
}

fn denied() -> Refusal {
    Refusal::new(Code::Denied, "no policy permits this verb; ask whoever writes the policies")
}

/// What a record says of whoever asked.
pub(crate) fn asked(ask: &Ask) -> Asked {
    Asked { caller: Some(ask.caller.id().to_owned()), request: Some(ask.request.clone()), ..Asked::default() }
}
