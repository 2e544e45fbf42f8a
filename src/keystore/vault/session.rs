//! The token in use, and how long it lasts: one login at a time, renewal in time, a new login where renewal does not help.
//!
//! In scope: when to log in, when to renew, when not to try again. Out of scope: what is said (`login.rs`).
//!
//! A refused credential is not tried again until its file has another one, or a quarter of an hour has passed: Vault and OpenBao lock a role
//! out after five refusals in that time, and with it every other node that uses it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use vaultrs::api::EndpointMiddleware;

use super::address::VaultPath;
use super::fault::Fault;
use super::login::{Grant, VaultLogin, renew};
use super::transport::Transport;
use crate::clock::{Clock, Monotonic};
use crate::keystore::Reopened;

/// How long a login or a renewal may take where nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longer than the time within which refusals are counted (`lockout_counter_reset`, 15 minutes by default).
const REFUSED_PAUSE: Duration = Duration::from_mins(16);
/// How often a refused credential's file is looked at: reading it costs nothing.
const LOOK: Duration = Duration::from_secs(1);
/// After a login that did not end a denial, another one for the same reason waits this long, doubled each time: each leaves a token behind.
const VAIN_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_VAIN_PAUSE: Duration = Duration::from_mins(5);
/// A token that never ends is looked at this often.
const FOREVER: Duration = Duration::from_hours(1);
/// The part of a lease over which the renewals of several nodes are spread.
const JITTER: f64 = 0.1;
/// A token at its end is not looked at more often.
const SHORTEST_REST: Duration = Duration::from_millis(500);

/// A token in use.
pub(super) struct Session {
    /// Goes with every request.
    pub(super) middle: EndpointMiddleware,
    number: u64,
    lease: Option<Lease>,
    renewable: bool,
}

#[derive(Clone, Copy)]
struct Lease {
    /// How long the first grant was: a renewal for less than half of it comes near the end of all renewals.
    first: Duration,
    renew_at: Monotonic,
    ends: Monotonic,
}

/// The sessions of one server.
pub(super) struct Sessions {
    login: VaultLogin,
    namespace: Option<VaultPath>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// One login or renewal at a time; whoever waited uses what the other one got.
    doing: tokio::sync::Mutex<()>,
    /// Says that there is another session.
    changed: Notify,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Session>>,
    number: u64,
    refused: Option<Refused>,
    vain: Option<Vain>,
    reopened: Reopened,
}

/// A credential that was refused.
struct Refused {
    fingerprint: [u8; 32],
    fault: Fault,
    until: Monotonic,
}

/// Logins that did not end a denial.
struct Vain {
    until: Monotonic,
    pause: Duration,
}

impl Session {
    fn is_over(&self, now: Monotonic) -> bool {
        self.lease.is_some_and(|lease| now >= lease.ends)
    }
}

impl Sessions {
    pub(super) fn new(login: VaultLogin, namespace: Option<VaultPath>, clock: Arc<dyn Clock>) -> Self {
        Self { login, namespace, clock, state: Mutex::default(), doing: tokio::sync::Mutex::default(), changed: Notify::new() }
    }

    /// The session in use, or a new one; waited for until `deadline`.
    pub(super) async fn session(&self, transport: &Transport, deadline: Monotonic) -> Result<Arc<Session>, Fault> {
        if let Some(session) = self.usable() {
            return Ok(session);
        }
        let _doing = self.turn(deadline).await?;
        if let Some(session) = self.usable() {
            return Ok(session);
        }
        // Nobody renewed it in time: the machine slept, or the server was away.
        let ended = self.state().current.take().is_some();
        let session = self.log_in(transport, deadline).await?;
        if ended {
            self.lost("the token had ended");
        }
        Ok(session)
    }

    /// Another session after a denial of `denied`; `None`, if a login cannot help now: it was tried a moment ago.
    pub(super) async fn after_denial(
        &self,
        transport: &Transport,
        denied: &Session,
        deadline: Monotonic,
    ) -> Result<Option<Arc<Session>>, Fault> {
        let _doing = self.turn(deadline).await?;
        if let Some(session) = self.usable().filter(|session| session.number != denied.number) {
            return Ok(Some(session));
        }
        let now = self.clock.monotonic();
        {
            let mut state = self.state();
            if state.vain.as_ref().is_some_and(|vain| now < vain.until) {
                return Ok(None);
            }
            // Long ago it was another reason.
            let lately = state.vain.as_ref().filter(|vain| now.since(vain.until) < LONGEST_VAIN_PAUSE);
            let pause = lately.map_or(VAIN_PAUSE, |vain| (vain.pause * 2).min(LONGEST_VAIN_PAUSE));
            state.vain = Some(Vain { until: now.plus(pause), pause });
        }
        let session = self.log_in(transport, deadline).await?;
        self.lost("the token was denied");
        Ok(Some(session))
    }

    /// Says that the login after a denial was not in vain.
    pub(super) fn was_not_in_vain(&self) {
        self.state().vain = None;
    }

    /// Whether something was denied, and a new token did not help or could not be had: then the one in use may be dead.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.state().vain.is_some()
    }

    /// Gives up a token that the server does not know any more.
    pub(super) fn discard(&self, session: &Session) {
        let mut state = self.state();
        if state.current.as_ref().is_some_and(|current| current.number == session.number) {
            state.current = None;
        }
    }

    /// Does what is due: a first login, a renewal, a new login. Says when to look again.
    pub(super) async fn keep(&self, transport: &Transport) -> (Duration, Result<(), Fault>) {
        let deadline = self.clock.monotonic().plus(PATIENCE);
        let done = match self.usable() {
            None => self.session(transport, deadline).await.map(drop),
            Some(session) => match session.lease {
                Some(lease) if self.clock.monotonic() >= lease.renew_at => self.prolong(transport, &session, lease, deadline).await,
                _ => Ok(()),
            },
        };
        (self.rest(done.is_err()), done)
    }

    /// Until there is another session than the one that was looked at.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What was opened again since the start.
    pub(super) fn reopened(&self) -> Reopened {
        self.state().reopened.clone()
    }

    async fn prolong(&self, transport: &Transport, session: &Session, lease: Lease, deadline: Monotonic) -> Result<(), Fault> {
        let _doing = self.turn(deadline).await?;
        if self.state().current.as_ref().is_none_or(|current| current.number != session.number) {
            return Ok(());
        }
        if !session.renewable {
            return self.replace(transport, deadline).await;
        }
        match renew(transport, &session.middle, self.left(deadline)).await {
            // What is granted no more in full is near its end: `max_ttl`.
            Ok(grant) if grant.lease.is_some_and(|granted| granted < lease.first / 2) => {
                if !self.login.makes_tokens() {
                    let file = self.login.secret_file().path().display();
                    tracing::warn!(%file, "a token of Vault comes to its end; write a new one into its file, if it is not there already");
                }
                self.replace(transport, deadline).await
            }
            Ok(grant) => {
                self.take(grant, Some(lease.first));
                Ok(())
            }
            Err(Fault::Denied { .. } | Fault::Refused { .. }) => {
                self.replace(transport, deadline).await?;
                self.lost("the token could not be renewed");
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    /// A planned login: the old token is good until the new one is there.
    async fn replace(&self, transport: &Transport, deadline: Monotonic) -> Result<(), Fault> {
        self.log_in(transport, deadline).await.map(drop)
    }

    /// Logs in, unless the same credential was refused lately. The caller has its turn.
    async fn log_in(&self, transport: &Transport, deadline: Monotonic) -> Result<Arc<Session>, Fault> {
        let secret = self.login.secret()?;
        let fingerprint = fingerprint(&secret);
        if let Some(refused) = &self.state().refused
            && refused.fingerprint == fingerprint
            && self.clock.monotonic() < refused.until
        {
            return Err(refused.fault.clone());
        }
        match self.login.log_in(transport, self.namespace.as_ref(), &secret, self.left(deadline)).await {
            Ok(grant) => Ok(self.take(grant, None)),
            Err(fault) => {
                if matches!(fault, Fault::Credential(_)) {
                    tracing::error!(%fault, "a login was refused; the same credential is not tried again for a quarter of an hour");
                    let until = self.clock.monotonic().plus(REFUSED_PAUSE);
                    self.state().refused = Some(Refused { fingerprint, fault: fault.clone(), until });
                }
                Err(fault)
            }
        }
    }

    /// Makes a grant the session in use.
    fn take(&self, grant: Grant, first: Option<Duration>) -> Arc<Session> {
        let now = self.clock.monotonic();
        let lease = grant.lease.map(|granted| {
            let early = granted.mul_f64(JITTER * super::chance());
            Lease { first: first.unwrap_or(granted), renew_at: now.plus((granted * 2 / 3).saturating_sub(early)), ends: now.plus(granted) }
        });
        let mut state = self.state();
        state.number += 1;
        let session = Arc::new(Session { middle: grant.middle, number: state.number, lease, renewable: grant.renewable });
        state.current = Some(session.clone());
        state.refused = None;
        drop(state);
        self.changed.notify_one();
        session
    }

    fn lost(&self, cause: &str) {
        let mut state = self.state();
        state.reopened.logins += 1;
        cause.clone_into(&mut state.reopened.cause);
    }

    /// When to look again.
    fn rest(&self, failed: bool) -> Duration {
        if failed {
            return LOOK;
        }
        let lease = self.state().current.as_ref().and_then(|session| session.lease);
        lease.map_or(FOREVER, |lease| lease.renew_at.since(self.clock.monotonic())).max(SHORTEST_REST)
    }

    fn usable(&self) -> Option<Arc<Session>> {
        let now = self.clock.monotonic();
        self.state().current.clone().filter(|session| !session.is_over(now))
    }

    async fn turn(&self, deadline: Monotonic) -> Result<tokio::sync::MutexGuard<'_, ()>, Fault> {
        tokio::time::timeout(deadline.since(self.clock.monotonic()), self.doing.lock()).await.map_err(|_| Fault::Expired)
    }

    fn left(&self, deadline: Monotonic) -> Duration {
        deadline.since(self.clock.monotonic()).min(PATIENCE)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells one secret from another, without keeping it.
fn fingerprint(secret: &SecretString) -> [u8; 32] {
    Sha256::digest(secret.expose_secret().as_bytes()).into()
}
