//! One server as this adapter knows it: asked with a token that is good, or could be made good, and not while it is down.
//!
//! In scope: a call with a login again after a denial, the breaker around every piece of work, how the server is, and what the token may do.
//! Out of scope: keys and signatures (`keys.rs`, `signing.rs`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claviger_audit::names::KeyName;
use http::header::HeaderValue;
use rustify::endpoint::Endpoint;
use rustls::ClientConfig;
use vaultrs::api::token::requests::LookupTokenSelfRequest;

use super::address::VaultPath;
use super::api::{Capabilities, Health, Permissions, envelope};
use super::fault::{Call, Fault, judged};
use super::login::anonymous;
use super::session::{Session, Sessions};
use super::signing::Known;
use super::transport::{Answer, Transport};
use super::{VaultSettings, chance};
use crate::clock::{Clock, Monotonic};
use crate::keystore::KeystoreError;
use crate::keystore::breaker::{Breaker, Rules, Verdict};

/// A signature that is younger than this is health enough.
const HEALTH_FRESH: Duration = Duration::from_secs(5);
/// Five doubtful failures in a row are an outage. Health asks within the pauses, and ends them as soon as the server is well.
const OUTAGES: Rules = Rules { doubts: 5, first: Duration::from_millis(250), longest: Duration::from_secs(10) };
/// How long a node may need to see what another one of its cluster wrote, and how often it is asked.
const BEHIND: Duration = Duration::from_secs(2);
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LONGEST_LOOK: Duration = Duration::from_millis(100);
/// When to look again at a server that did not answer.
const UNSEEN_AFTER: Duration = Duration::from_secs(1);

/// The server.
pub(super) struct Server {
    settings: VaultSettings,
    clock: Arc<dyn Clock>,
    transport: Result<Transport, Fault>,
    sessions: Sessions,
    breaker: Breaker,
    known: Known,
    /// The state of the storage after what was last written here. A standby of OpenBao answers by itself what writes nothing, signatures too,
    /// and may not have seen yet what the active node wrote: without this a key that was just made is not there.
    written: Mutex<Option<HeaderValue>>,
    /// When something was last done with a key: milliseconds of the monotonic clock.
    proved: AtomicU64,
    /// What the token could not be had for, as it was told last.
    trouble: Mutex<String>,
}

impl Server {
    pub(super) fn new(settings: VaultSettings, clock: Arc<dyn Clock>) -> Self {
        let transport = |tls: &ClientConfig| Transport::new(&settings.address, tls, settings.in_flight);
        let transport = settings.tls.as_deref().map_err(|error| Fault::Settings(error.clone())).and_then(transport);
        let sessions = Sessions::new(settings.login.clone(), settings.namespace.clone(), clock.clone());
        let (breaker, known, proved, trouble) = (Breaker::new(OUTAGES), Known::default(), AtomicU64::new(0), Mutex::default());
        let written = Mutex::default();
        Self { settings, clock, transport, sessions, breaker, known, written, proved, trouble }
    }

    /// Where the engine is mounted.
    pub(super) fn mount(&self) -> &VaultPath {
        &self.settings.mount
    }

    /// The kinds of keys that were seen.
    pub(super) fn known(&self) -> &Known {
        &self.known
    }

    /// The logins.
    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// That a key is not there, as the engine itself said.
    pub(super) fn gone(&self, name: &KeyName) -> Fault {
        self.known.forget(name);
        Fault::Gone(format!("{name} at {}", self.mount()))
    }

    /// Does a piece of work unless the server is down, and remembers what it said of it.
    pub(super) async fn guarded<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, KeystoreError> {
        let _permit = self.breaker.permit(self.clock.monotonic())?;
        let outcome = work.await;
        let now = self.clock.monotonic();
        match &outcome {
            Ok(_) => {
                self.proved.store(millis(now), Ordering::Relaxed);
                self.breaker.judge(Verdict::Well, "", 0.0, now);
            }
            Err(fault) if fault.concerns_all() => self.proved.store(0, Ordering::Relaxed),
            Err(_) => {}
        }
        outcome.map_err(|fault| self.told(&fault))
    }

    /// One exchange with the token in use; after a denial once more with a new one.
    pub(super) async fn call<E: Endpoint>(&self, endpoint: &E, call: &Call, deadline: Monotonic) -> Result<Answer, Fault> {
        let transport = self.transport()?;
        let session = self.sessions.session(transport, deadline).await?;
        let denied = match self.asked(endpoint, &session, call, deadline).await {
            Err(denied @ Fault::Denied { .. }) => denied,
            other => return other,
        };
        let Some(fresh) = self.sessions.after_denial(transport, &session, deadline).await? else { return Err(denied) };
        let answer = self.asked(endpoint, &fresh, call, deadline).await?;
        self.sessions.was_not_in_vain();
        Ok(answer)
    }

    /// As [`Self::call`], for what changes a key: whatever is asked later, is asked of a node that has seen it.
    pub(super) async fn write<E: Endpoint>(&self, endpoint: &E, call: &Call, deadline: Monotonic) -> Result<Answer, Fault> {
        let answer = self.call(endpoint, call, deadline).await?;
        if answer.index.is_some() {
            self.written().clone_from(&answer.index);
        }
        Ok(answer)
    }

    /// Whether signing could work now. The question costs the server nothing, needs no token and leaves no entry in its audit log; the token
    /// is asked for only where that does not say enough: on a standby node, which may hand requests on, after a denial, and while a namespace
    /// does not answer: it may be sealed or locked by itself.
    pub(super) async fn health(&self, deadline: Monotonic) -> Result<(), KeystoreError> {
        let now = self.clock.monotonic();
        let proved = self.proved.load(Ordering::Relaxed);
        if proved > 0 && u128::from(millis(now).saturating_sub(proved)) < HEALTH_FRESH.as_millis() && self.breaker.refusal(now).is_none() {
            return Ok(());
        }
        self.looked_at(deadline).await.map_err(|fault| match self.told(&fault) {
            // Nothing was lost but a look: whoever asks wants to know why.
            KeystoreError::Unanswered => KeystoreError::Unavailable { reason: fault.to_string(), after: UNSEEN_AFTER },
            told => told,
        })?;
        // Keys are looked at again at once, by whoever comes first.
        self.breaker.invite(self.clock.monotonic());
        Ok(())
    }

    async fn looked_at(&self, deadline: Monotonic) -> Result<(), Fault> {
        let transport = self.transport()?;
        // Enterprise has this path in its root namespace alone.
        let answer = transport.exchange(&Health {}, &anonymous(None), self.left(deadline)?).await?;
        let forwards = match answer.status {
            200 | 473 => false,
            429 => true,
            472 => return Err(Fault::Standby),
            503 => return Err(Fault::Sealed),
            _ => return judged(answer, &Call { capability: "read", path: "sys/health".to_owned() }).map(drop),
        };
        let session = self.sessions.session(transport, deadline).await?;
        let may_be_the_namespace = self.settings.namespace.is_some() && self.breaker.refusal(self.clock.monotonic()).is_some();
        if !forwards && !may_be_the_namespace && !self.sessions.is_in_doubt() {
            return Ok(());
        }
        let call = Call { capability: "read", path: "auth/token/lookup-self".to_owned() };
        match self.asked(&LookupTokenSelfRequest {}, &session, &call, deadline).await {
            Err(Fault::Denied { .. }) => {
                self.sessions.discard(&session);
                self.sessions.session(transport, deadline).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    /// What the token may do on each of these paths.
    pub(super) async fn permissions(&self, paths: Vec<String>, deadline: Monotonic) -> Result<Permissions, Fault> {
        let call = Call { capability: "update", path: "sys/capabilities-self".to_owned() };
        let answer = self.call(&Capabilities { paths }, &call, deadline).await?;
        envelope::<Permissions>(&answer.body)?.data.ok_or_else(|| Fault::Nonsense("it says nothing of permissions".to_owned()))
    }

    /// Does what is due for the token, and says when to look again: no sooner than the server is asked for anything else, except after a look into
    /// the credential's file alone.
    pub(super) async fn keep(&self) -> Duration {
        let Ok(transport) = &self.transport else { return Duration::from_hours(1) };
        let (rest, done) = self.sessions.keep(transport).await;
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let Err(fault) = done else {
            trouble.clear();
            return rest;
        };
        let text = fault.to_string();
        if *trouble != text {
            tracing::warn!(%fault, "the token of a keystore in Vault could not be had or renewed");
            *trouble = text;
        }
        let _ = self.told(&fault);
        let pause = self.breaker.refusal(self.clock.monotonic()).map(|(_, after)| after);
        if matches!(fault, Fault::Credential(_)) { rest } else { rest.max(pause.unwrap_or_default()) }
    }

    async fn asked<E: Endpoint>(&self, endpoint: &E, session: &Session, call: &Call, deadline: Monotonic) -> Result<Answer, Fault> {
        let (transport, patience) = (self.transport()?, self.clock.monotonic().plus(BEHIND));
        let mut pause = FIRST_LOOK;
        loop {
            let index = self.written().clone();
            let answer = transport.exchange_after(index.as_ref(), endpoint, &session.middle, self.left(deadline)?).await?;
            if index.is_none() || !answer.is_behind() {
                return judged(answer, call);
            }
            if self.clock.monotonic() >= patience {
                // A state that never comes: the storage is another one, such as an older snapshot.
                let mut written = self.written();
                if *written == index {
                    *written = None;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_LOOK);
        }
    }

    fn written(&self) -> MutexGuard<'_, Option<HeaderValue>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges the server by a fault, and translates it.
    fn told(&self, fault: &Fault) -> KeystoreError {
        let now = self.clock.monotonic();
        if let Some(verdict) = fault.verdict() {
            self.breaker.judge(verdict, &fault.to_string(), chance(), now);
        }
        fault.tell(self.breaker.refusal(now).map(|(_, after)| after))
    }

    fn transport(&self) -> Result<&Transport, Fault> {
        self.transport.as_ref().map_err(Clone::clone)
    }

    fn left(&self, deadline: Monotonic) -> Result<Duration, Fault> {
        let left = deadline.since(self.clock.monotonic());
        if left.is_zero() { Err(Fault::Expired) } else { Ok(left) }
    }
}

fn millis(point: Monotonic) -> u64 {
    u64::try_from(point.since(Monotonic::at(Duration::ZERO)).as_millis()).unwrap_or(u64::MAX)
}
