//! The story of a signature: snapshot, profile, policy, keystore, verify and record, reply.
//!
//! In scope: everything between a parsed request and its reply, and the record of every outcome. Out of scope: HTTP, who the caller is, and
//! which key signs when (rotation decides that; this file only reads the newest snapshot), and what a keystore did not do (`unsigned`).

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use claviger_audit::Timestamp;
use claviger_audit::event::{Event, Sign, SignDenied};
use claviger_audit::keyrings::State;
use claviger_audit::record::Asked;

use crate::calls::Calls;
use crate::clock::{Clock, Monotonic};
use crate::complaints::{Complaints, Work};
use crate::journal::pseudonym::Pseudonyms;
use crate::journal::{AppendError, Doubt, Draft, KeyLog, KeySnapshot, Receipt, Standing, UseLog};
use crate::keystore::{Class, Input, Signature, Terms};
use crate::metrics::{KeyringLabel, Metrics, SignLabels};
use crate::policy::{Action, Caller, DecisionRequest, Origin, Resource};
use crate::refusal::{Code, Refusal};

mod limits;
mod prepare;
mod refusals;
mod rules;
mod unsigned;
mod view;

pub use limits::{PerCaller, Slot};
pub use prepare::{Content, DryRun, Request, offline_dry_run, offline_explanation};
pub use rules::{KeyringRules, Rules, Shape};
pub use view::Keystores;

use limits::Limits;
use prepare::Prepared;
use refusals::Refusals;
use unsigned::Attempt;
use view::{Seat, SigningKey, View};

/// How often one request may be given to a keystore: once more after a passing fault, or after the key changed under it.
const ATTEMPTS: usize = 2;
/// How often one request may be given to keystores that do not answer while time is left: a backend that is restarted cuts off the calls of that
/// moment, and takes the next ones.
const UNANSWERED_ATTEMPTS: usize = 4;

/// When to ask again while a key is being made, which has no date of its own.
const NEXT_KEY: Duration = Duration::from_secs(5);

/// Who asks, from where, until when.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The authenticated caller.
    pub caller: Arc<Caller>,
    /// How the request came in.
    pub origin: Origin,
    /// The id that the reply names.
    pub request: String,
    /// Nothing is waited for beyond it.
    pub deadline: Monotonic,
    /// Whether the request is an item of a batch, which `signBatch` must permit too.
    pub batch: bool,
}

/// A released signature.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The compact serialisation.
    pub token: String,
    /// The key.
    pub kid: String,
    /// Its algorithm.
    pub algorithm: claviger_audit::Algorithm,
    /// The token's id, for `jwt` keyrings.
    pub jti: Option<String>,
    /// Seconds, for `jwt` keyrings.
    pub iat: Option<i64>,
    /// Seconds; after this the signature is dead.
    pub exp: i64,
    /// Where the record is.
    pub receipt: Receipt,
}

/// Signs. One per daemon.
pub struct Signer {
    keys: KeyLog,
    uses: UseLog,
    keystores: Keystores,
    rules: ArcSwap<Rules>,
    view: ArcSwap<View>,
    pseudonyms: Arc<Pseudonyms>,
    calls: Arc<Calls>,
    complaints: Arc<Complaints>,
    refusals: Refusals,
    limits: Limits,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

impl Signer {
    /// Puts the parts together; nothing is read or asked yet.
    pub fn new(
        (keys, uses): (KeyLog, UseLog),
        (keystores, calls, complaints): (Keystores, Arc<Calls>, Arc<Complaints>),
        rules: Rules,
        (pseudonyms, limits): (Arc<Pseudonyms>, PerCaller),
        (clock, metrics): (Arc<dyn Clock>, Arc<Metrics>),
    ) -> Self {
        let view = View::build(&keys.snapshot().keyrings, &keystores, None);
        let (rules, view) = (ArcSwap::from_pointee(rules), ArcSwap::from_pointee(view));
        let (refusals, limits) = (Refusals::default(), Limits::new(limits));
        Self { keys, uses, keystores, rules, view, pseudonyms, calls, complaints, refusals, limits, clock, metrics }
    }

    /// The rules in force; a reload replaces all of them at once.
    pub fn rules(&self) -> &ArcSwap<Rules> {
        &self.rules
    }

    /// Admits `requests` of this caller, before anything is read.
    pub fn admit(&self, caller: &Caller, requests: NonZeroU32) -> Result<Slot, Refusal> {
        self.limits.admit(caller.id(), requests).inspect_err(|refusal| self.count_refusal(refusal, Some(caller.id())))
    }

    /// Whether a refusal of this caller may still have a record of its own; what may not is counted.
    pub fn may_record(&self, caller: &str) -> bool {
        let granted = self.refusals.may_record(caller, self.clock.wall());
        if !granted {
            self.refusals.count(Code::Denied.name(), Some(caller));
        }
        granted
    }

    /// Counts a refusal that never came to a decision: 401, 429, 503 and malformed requests.
    pub fn count_refusal(&self, refusal: &Refusal, caller: Option<&str>) {
        self.refusals.count(refusal.code.name(), caller);
    }

    /// Writes what was counted; called once a second.
    pub async fn flush_counts(&self) {
        self.limits.forget_idle();
        for draft in self.refusals.take() {
            self.uses.note(draft);
        }
        self.calls.flush().await;
    }

    /// Signs, and records the outcome whatever it is.
    pub async fn sign(&self, ask: &Ask, request: Request) -> Result<Reply, Refusal> {
        let started = self.clock.monotonic();
        let keyring = request.keyring.clone();
        let result = self.signed(ask, request).await;
        let known = self.rules.load().keyrings.contains_key(&keyring);
        let label = if known { keyring.clone() } else { "unknown".to_owned() };
        let outcome = result.as_ref().map_or_else(|refusal| refusal.code.name(), |_| "ok");
        self.metrics
            .sign_requests
            .get_or_create(&SignLabels { keyring: label.clone(), keystore: self.view.load().keystore(&keyring), outcome })
            .inc();
        match &result {
            Ok(_) => {
                let took = self.clock.monotonic().since(started).as_secs_f64();
                self.metrics.sign_duration.get_or_create(&KeyringLabel { keyring: label }).observe(took);
            }
            Err(refusal) => self.note_refusal(ask, &keyring, refusal),
        }
        result
    }

    /// What would be signed and what would be decided; asks no keystore, and is counted, not recorded.
    pub fn dry_run(&self, ask: &Ask, request: Request) -> Result<DryRun, Refusal> {
        self.refusals.count("dry_run", Some(ask.caller.id()));
        let rules = self.rules.load();
        let keyring = Self::visible_keyring(&rules, ask, &request.keyring)?;
        Ok(prepare::dry_run(keyring, &rules, ask, request, self.clock.wall()))
    }

    /// The keystore that would sign for this keyring now, or why none does. Whether it answers is not asked here.
    pub fn readiness(&self, keyring: &str) -> Result<String, Refusal> {
        let snapshot = self.keys.snapshot();
        self.check_clock(&snapshot)?;
        if self.uses.poisoned().is_some() || self.keys.poisoned().is_some() {
            return Err(log_unwritable());
        }
        self.check_standing()?;
        if !self.rules.load().keyrings.contains_key(keyring) {
            let detail = "the keyring is not in the configuration: its keys rotate, but nobody can ask for a token; add it, or retire it";
            return Err(Refusal::new(Code::UnknownKeyring, detail));
        }
        self.seat(&snapshot, keyring).map(|(key, _)| key.keystore_name.clone())
    }

    async fn signed(&self, ask: &Ask, request: Request) -> Result<Reply, Refusal> {
        let rules = self.rules.load_full();
        let keyring = Self::visible_keyring(&rules, ask, &request.keyring)?;
        let now = self.clock.wall();
        let prepared = prepare::prepare(keyring, request, now).map_err(|broken| Self::profile_refusal(&rules, ask, keyring, broken))?;
        let policy = Self::decide(&rules, ask, keyring, &prepared, now)?;
        let (mut failed, mut unanswered) = (0, 0);
        loop {
            let (last, enough) = match self.attempt(ask, keyring, &prepared, &policy).await {
                Ok(reply) => return Ok(reply),
                Err(Attempt::Final(refusal)) => return Err(refusal),
                Err(Attempt::Again(refusal)) => {
                    failed += 1;
                    (refusal, failed == ATTEMPTS)
                }
                Err(Attempt::Unanswered(refusal)) => {
                    unanswered += 1;
                    (refusal, unanswered == UNANSWERED_ATTEMPTS || self.clock.monotonic() >= ask.deadline)
                }
            };
            if enough {
                return Err(last);
            }
        }
    }

    /// One call of the keystore with the newest snapshot, its record, and the checks before release.
    async fn attempt(&self, ask: &Ask, rules: &KeyringRules, prepared: &Prepared, policy: &[String]) -> Result<Reply, Attempt> {
        let snapshot = self.keys.snapshot();
        self.check_clock(&snapshot).and_then(|()| self.check_standing()).map_err(Attempt::Final)?;
        let (key, size) = self.seat(&snapshot, &rules.name).map_err(Attempt::Final)?;
        let input = prepared.signing_input(&key.kid, key.algorithm);
        let message = input.digest.clone().map_or_else(|| Input::Message(input.message().to_vec()), Input::Digest);
        let call = self.begin(ask, rules, &key).await?;
        let Signature { bytes, backend_request } = match key.keystore.sign(&key.locator, key.algorithm, message, terms(ask)).await {
            Ok(signature) => signature,
            Err(error) => return Err(self.unsigned(ask, rules, &key, error, call).await),
        };

        let record = Sign {
            keyring: rules.name.clone(),
            kid: key.kid.clone(),
            alg: key.algorithm,
            input: input.sha256,
            typ: prepared.typ.clone(),
            jti: prepared.jti_hash(),
            subject: prepared.subject.as_deref().and_then(|subject| self.pseudonym(subject)),
            iat: prepared.iat,
            exp: prepared.exp,
            size,
            policy: policy.to_vec(),
            backend_request,
        };
        // Verification and the record's sync run side by side: the append is on its way before the CPU is given to the check.
        let append = self.uses.append(Draft { asked: self.asked(ask), event: Event::Sign(record) });
        let (receipt, verified) = tokio::join!(append, async { key.verifier.verify(&input, &bytes) });
        let receipt = receipt.map_err(|error| Attempt::Final(append_refusal(&error)))?;
        call.settle();
        self.complaints.done(&key.keystore_name, || Work::Sign(rules.name.clone()));

        // Nothing below has left the process yet; the record above is durable.
        if verified.is_err() {
            key.quarantine();
            self.metrics.wrong_signatures.get_or_create(&KeyringLabel { keyring: rules.name.clone() }).inc();
            tracing::error!(keyring = rules.name, kid = key.kid, "a signature did not verify and was not released; the key is quarantined");
            let refusal = Refusal::new(Code::KeystoreUnavailable, "the keystore returned a signature that does not verify");
            self.failed(ask, rules, &key, "wrong_signature", Some(receipt.seq)).await;
            return Err(Attempt::Final(refusal));
        }
        if self.clock.monotonic() > ask.deadline {
            // The caller has gone, and Q counts on no release after the deadline (I3).
            self.failed(ask, rules, &key, "deadline", Some(receipt.seq)).await;
            let refusal = Refusal::new(Code::Overloaded, "the signature was not ready within the deadline; ask again");
            return Err(Attempt::Final(refusal.retry_after(Duration::from_secs(1))));
        }
        if !self.still_signs(&rules.name, &key.kid) {
            self.failed(ask, rules, &key, "key_changed", Some(receipt.seq)).await;
            return Err(Attempt::Again(Refusal::new(Code::NoSigner, "the signing key changed twice during the request; ask again")));
        }
        if prepared.exp > (self.clock.wall() + rules.token_life).seconds() {
            self.failed(ask, rules, &key, "clock", Some(receipt.seq)).await;
            return Err(Attempt::Final(Refusal::new(Code::Clock, "the clock was set back during the request; ask again")));
        }
        // Commit point: the record is durable, the signature verified, the key active in the newest snapshot (I2). It may leave.
        Ok(prepared.reply(input.compact(&bytes), &key.kid, key.algorithm, receipt))
    }

    /// The keyring's rules, or a refusal that tells only those who may know whether it exists.
    fn visible_keyring<'a>(rules: &'a Rules, ask: &Ask, name: &str) -> Result<&'a KeyringRules, Refusal> {
        let Some(policies) = &rules.policies else {
            return Err(Refusal::new(Code::PolicyInvalid, "the policies could not be loaded; an operator must correct them"));
        };
        if let Some(keyring) = rules.keyrings.get(name) {
            return Ok(keyring);
        }
        if policies.could_permit(&ask.caller, Action::Sign, Resource::Keyring(name)) {
            return Err(Refusal::new(Code::UnknownKeyring, format!("no keyring is called {name:?}; name one of the configuration")));
        }
        Err(denied())
    }

    fn decide(rules: &Rules, ask: &Ask, keyring: &KeyringRules, prepared: &Prepared, now: Timestamp) -> Result<Vec<String>, Refusal> {
        let policies = rules.policies.as_ref().ok_or_else(|| Refusal::new(Code::PolicyInvalid, "the policies could not be loaded"))?;
        let facts = prepared.facts();
        let mut determining = Vec::new();
        for action in prepare::actions(ask.batch) {
            let request = DecisionRequest {
                caller: &ask.caller,
                action: *action,
                resource: Resource::Keyring(&keyring.name),
                origin: &ask.origin,
                time: now,
                token: Some(&facts),
            };
            let decision = policies.decide(&request);
            if !decision.errors.is_empty() {
                tracing::error!(keyring = keyring.name, errors = ?decision.errors, "a policy failed; the request was denied");
                return Err(Refusal::new(Code::PolicyError, "a policy could not be evaluated; an operator must correct it"));
            }
            if !decision.allowed() {
                return Err(denied());
            }
            determining.extend(decision.determining);
        }
        determining.sort();
        determining.dedup();
        Ok(determining)
    }

    /// 422 with every broken rule to callers whom some permit names, 403 to others.
    fn profile_refusal(rules: &Rules, ask: &Ask, keyring: &KeyringRules, broken: Refusal) -> Refusal {
        let policies = rules.policies.as_ref();
        let may_know = policies.is_some_and(|p| p.could_permit(&ask.caller, Action::Sign, Resource::Keyring(&keyring.name)));
        if may_know { broken } else { denied() }
    }

    /// The key that signs for a keyring, and the size of the key log at which it does: of a view that is never older than the snapshot, but may
    /// be newer. The record names that size, because only there is it certain that the key was active (I2).
    fn seat(&self, snapshot: &KeySnapshot, keyring: &str) -> Result<(Arc<SigningKey>, u64), Refusal> {
        let mut view = self.view.load_full();
        if view.size < snapshot.keyrings.size() {
            view = Arc::new(View::build(&snapshot.keyrings, &self.keystores, Some(&view)));
            self.view.store(view.clone());
        }
        match view.seat(keyring) {
            Seat::Signs(key) if key.is_quarantined() => Err(Refusal::new(
                Code::KeystoreUnavailable,
                "the key made a signature that does not verify; an operator must look at its keystore",
            )),
            Seat::Signs(key) => Ok((key, view.size)),
            Seat::Suspended => Err(Refusal::new(Code::Suspended, "the signing key is suspended until an operator resumes or rotates it")),
            Seat::Vacant => Err(self.vacant(snapshot, keyring)),
            Seat::Unusable(why) => Err(Refusal::new(Code::KeystoreUnavailable, format!("the signing key cannot be used: {why}"))),
        }
    }

    /// Nobody signs: after a compromise until a key is old enough (I1), before the first key, and after the keyring's end.
    fn vacant(&self, snapshot: &KeySnapshot, name: &str) -> Refusal {
        let (now, no_signer) = (self.clock.wall(), |detail: String| Refusal::new(Code::NoSigner, detail));
        let keyring = snapshot.keyrings.keyring(name);
        if keyring.is_some_and(|keyring| keyring.retired.is_some()) {
            return no_signer("the keyring is retired; nobody signs for it any more".to_owned());
        }
        let dates = keyring
            .into_iter()
            .flat_map(|keyring| keyring.keys.iter().filter_map(|key| snapshot.keyrings.eligible_at(keyring, key, now)).collect::<Vec<_>>());
        match dates.min() {
            Some(date) => {
                no_signer(format!("no key of this keyring may sign yet; the standby may from {date} on, as verifiers know it then (I1)"))
                    .retry_after(date.since(now))
            }
            None => no_signer("no key of this keyring may sign yet; one is being made".to_owned()).retry_after(NEXT_KEY),
        }
    }

    fn still_signs(&self, keyring: &str, kid: &str) -> bool {
        let snapshot = self.keys.snapshot();
        let key = snapshot.keyrings.keyring(keyring).and_then(|keyring| keyring.key(kid));
        key.is_some_and(|key| key.state == State::Active)
    }

    /// I12: tokens take the wall clock, and while it stands more than e behind the last record, signing stops.
    fn check_clock(&self, snapshot: &KeySnapshot) -> Result<(), Refusal> {
        let skews = snapshot.keyrings.all().filter_map(|keyring| keyring.timing()).map(|settings| settings.timing.skew());
        let Some(skew) = skews.min() else { return Ok(()) };
        let recorded = snapshot.keyrings.last_time().max(self.uses.head().time);
        if self.clock.wall() + skew >= recorded {
            return Ok(());
        }
        Err(Refusal::new(Code::Clock, format!("the clock stands before the last record ({recorded}); signing waits until it is right")))
    }

    /// Nothing is signed while others may know more of the logs, or once they do.
    fn check_standing(&self) -> Result<(), Refusal> {
        [self.keys.standing(), self.uses.standing()].into_iter().find_map(Standing::doubt).map_or(Ok(()), |doubt| Err(doubted(&doubt)))
    }

    /// 403 and 422 of an authenticated caller are records while its budget lasts; everything else is counted.
    fn note_refusal(&self, ask: &Ask, keyring: &str, refusal: &Refusal) {
        let caller = ask.caller.id();
        let recorded = matches!(refusal.code, Code::Denied | Code::PolicyError | Code::Profile);
        if !recorded || !self.refusals.may_record(caller, self.clock.wall()) {
            self.refusals.count(refusal.code.name(), Some(caller));
            return;
        }
        let broken: Vec<String> = refusal.broken.iter().map(|b| format!("{} {}", b.rule, b.claim)).collect();
        let event = SignDenied {
            // What was asked for comes from outside and may be anything; a record holds names only.
            keyring: if claviger_audit::names::is_label(keyring) { keyring.to_owned() } else { "?".to_owned() },
            code: refusal.code.name().to_owned(),
            reason: (!broken.is_empty()).then(|| broken.join(", ")),
        };
        self.uses.note(Draft { asked: self.asked(ask), event: Event::SignDenied(event) });
    }

    fn asked(&self, ask: &Ask) -> Asked {
        Asked {
            caller: Some(ask.caller.id().to_owned()),
            src: ask.origin.source_address.and_then(|address| self.pseudonym(&address.to_string())),
            agent: ask.origin.user_agent.as_deref().and_then(|agent| self.pseudonym(agent)),
            request: Some(ask.request.clone()),
        }
    }

    /// What a record says for personal data; nothing, rather than the plain text, where the year's key cannot be used.
    fn pseudonym(&self, plain: &str) -> Option<String> {
        let recorded = self.pseudonyms.record(plain, self.clock.wall());
        recorded.inspect_err(|error| tracing::error!(%error, "a record goes without its subject")).ok().flatten()
    }
}

fn terms(ask: &Ask) -> Terms {
    let class = if ask.batch { Class::Batch } else { Class::Interactive };
    Terms { deadline: ask.deadline, class, caller: Arc::from(ask.caller.id()) }
}

fn denied() -> Refusal {
    Refusal::new(Code::Denied, "no policy permits this; an operator can explain the decision with the request id")
}

/// Why the log takes nothing is told by the daemon's own log and to operators: paths and system errors are not for callers.
fn log_unwritable() -> Refusal {
    let detail = "the audit log takes no records, so nothing may be signed or changed; an operator must look at the daemon's log";
    Refusal::new(Code::LogUnwritable, detail)
}

/// The refusal for a record that could not be written.
pub(crate) fn append_refusal(error: &AppendError) -> Refusal {
    match error {
        AppendError::Illegal(illegal) => illegal.clone().into(),
        AppendError::Overloaded => Refusal::new(Code::Overloaded, "more records are waiting for the disk than it can take; ask again")
            .retry_after(Duration::from_secs(1)),
        AppendError::Unwritable(_) | AppendError::Stopped => log_unwritable(),
    }
}

/// What is said while a log is in doubt.
pub(crate) fn doubted(doubt: &Doubt) -> Refusal {
    match doubt {
        Doubt::Asking => {
            let detail = "witnesses are being asked whether this log is the newest one; ask again";
            Refusal::new(Code::LogDoubted, detail).retry_after(Duration::from_secs(1))
        }
        Doubt::Refuted(why) => Refusal::new(Code::LogDoubted, format!("nothing is signed: {why}")),
    }
}
