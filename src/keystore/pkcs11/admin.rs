//! The thread that owns a token: it opens it, logs in, keeps the login, and makes, reads, destroys and lists keys one after the other.
//!
//! In scope: opening again after a failure, with a back-off. Out of scope: signing (`worker.rs`). Its session is opened first and held for as
//! long as the token can be used, because closing a token's last session logs everybody out. Making and destroying keys is serialised here:
//! SoftHSM loses objects when keys are made beside searches.

use std::sync::Arc;
use std::time::Duration;

use claviger_audit::Algorithm;
use claviger_audit::names::KeyName;
use cryptoki::error::RvError;
use cryptoki::session::Session;
use cryptoki::slot::{Limit, TokenInfo};
use tokio::sync::oneshot;

use super::fault::Fault;
use super::link::Standing;
use super::module::{Entered, Module, Open, SessionPlace};
use super::objects::{self, Found};
use super::pin::{self, require_login};
use super::profile::DeviceProfile;
use super::queue::Taken;
use super::recovery::{Breaker, Class, LONGEST_PAUSE};
use super::token::select;
use super::{ERRAND_ANSWER, Shared, hire};
use crate::clock::Monotonic;
use crate::keystore::{KeystoreError, Locator, Made, Seen};

/// How often an idle token is asked for a sign of life: below the 30 s after which some devices drop a session.
const PING: Duration = Duration::from_secs(10);
/// After so many failures without a signature between them, logging in again is not enough.
const REPORTS_BEFORE_MODULE: u32 = 3;
/// How long an epoch that was begun because a key was not found is new enough to believe that the next one is not there either: a token that
/// lost all of its keys must not be logged in to for each of them.
const BELIEVED: Duration = Duration::from_secs(10);

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, KeystoreError>>;

/// What the admin thread is asked to do.
pub(super) enum Errand {
    Create(KeyName, Algorithm, Reply<Made>),
    /// By `CKA_ID`.
    Destroy(Vec<u8>, Reply<()>),
    /// By `CKA_ID`.
    Inspect(Vec<u8>, Reply<Seen>),
    Ping(Reply<()>),
    /// By installation.
    List(String, Reply<Vec<(KeyName, Locator)>>),
}

impl Errand {
    /// How long the token may take for it: making an RSA key takes half a minute on small devices.
    fn patience(&self) -> Duration {
        match self {
            Self::Create(..) | Self::List(..) => ERRAND_ANSWER,
            Self::Destroy(..) | Self::Inspect(..) | Self::Ping(_) => Duration::ZERO,
        }
    }
}

/// The thread's own state.
pub(super) struct Admin {
    shared: Arc<Shared>,
    place: Option<SessionPlace>,
    breaker: Breaker,
    /// Whether the last failure was of a kind that initialising the module again may heal.
    deeper: bool,
    epoch: u64,
    /// The epoch that was begun last because a key was not found, and until when it is believed.
    believed: Option<(u64, Monotonic)>,
}

impl Admin {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, place: None, breaker: Breaker::Closed, deeper: false, epoch: 0, believed: None }
    }

    /// Serves errands until the keystore is dropped.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let (seat, clock, patience) = (&shared.admin, &*shared.clock, shared.settings.hang_after);
        loop {
            seat.call(clock.monotonic(), patience, || self.mend());
            match shared.errands.take(Some(self.patience())) {
                Taken::Item(errand) => {
                    let patience = patience.max(errand.patience());
                    seat.call(clock.monotonic(), patience, || self.serve(errand));
                }
                Taken::Nothing => drop(seat.call(clock.monotonic(), patience, || self.ping())),
                Taken::Closed => break,
            }
        }
        self.shared.jobs.fail_all(&KeystoreError::Unavailable { reason: "the keystore was closed".to_owned(), after: Duration::ZERO });
    }

    /// Opens the token if it is not usable and the back-off is over.
    fn mend(&mut self) {
        if self.shared.link.can_sign() || self.shared.link.is_wedged() || !self.breaker.admits(self.shared.clock.monotonic()) {
            return;
        }
        match self.open_token() {
            Ok(standing) => {
                self.breaker.succeeded();
                self.deeper = false;
                self.shared.keys.forget_handles();
                self.shared.link.settle(standing);
            }
            Err(fault) => {
                self.deeper = !matches!(fault.class(), Class::Never | Class::Throttle);
                let now = self.shared.clock.monotonic();
                let until = self.breaker.failed(now, random_byte());
                let refusal = fault.tell(until.since(now));
                // First the state, then the queue: whoever queues a job looks at the state afterwards.
                self.shared.link.fail(fault, until);
                self.shared.jobs.fail_all(&refusal);
            }
        }
    }

    /// Finds the token, logs in and begins a new epoch. A session of the epoch before is closed only when the new one is open.
    fn open_token(&mut self) -> Result<Standing, Fault> {
        let shared = Arc::clone(&self.shared);
        let settings = &shared.settings;
        let module = Module::load(&settings.module)?;
        module.join(&self.shared.link);
        let reported = self.shared.link.reported();
        if self.deeper || reported == Some(Class::Module) || self.shared.link.reports() >= REPORTS_BEFORE_MODULE {
            match module.reinitialise() {
                Ok(()) => self.shared.link.module_reinitialised(),
                // The token may be back all the same.
                Err(Fault::Occupied(_)) => {}
                Err(fault) => return Err(fault),
            }
        }
        let call = module.enter()?;
        let (slot, token) = select(call.library(), &settings.token)?;
        let session = match call.library().open_rw_session(slot).map_err(Fault::from) {
            // The session of the epoch before takes the room that the new one needs, and is good for nothing any more.
            Err(fault) if fault.code() == Some(RvError::SessionCount) && self.give_up_session(&call) => {
                call.library().open_rw_session(slot)?
            }
            outcome => outcome?,
        };
        let turn = module.login_turn();
        pin::log_in(call.library(), slot, &session, &settings.pin, &settings.state)?;
        drop(turn);
        self.epoch += 1;
        self.place.get_or_insert_with(|| SessionPlace::new(Arc::clone(&module))).put(&call, Open { session, epoch: self.epoch });
        let standing = Standing { generation: call.generation(), epoch: self.epoch, slot, module: Arc::clone(&module) };
        drop(call);
        let crew = settings.workers.clamp(1, room_for_workers(&token));
        shared.crew.want(crew);
        shared.jobs.served_by(crew);
        hire(&shared)?;
        Ok(standing)
    }

    /// Closes the thread's own session; says whether there was one.
    fn give_up_session(&self, call: &Entered<'_>) -> bool {
        self.place.as_ref().is_some_and(|place| place.hold(call).take().is_some())
    }

    /// How long to wait for an errand.
    fn patience(&self) -> Duration {
        match self.breaker {
            Breaker::Open { until, .. } => until.since(self.shared.clock.monotonic()),
            Breaker::Closed | Breaker::HalfOpen { .. } => PING,
        }
    }

    fn serve(&mut self, errand: Errand) {
        match errand {
            Errand::Create(name, algorithm, reply) => self.answer(reply, |admin| admin.create(&name, algorithm)),
            Errand::Destroy(id, reply) => self.answer(reply, |admin| admin.destroy(&id)),
            Errand::Inspect(id, reply) => self.answer(reply, |admin| {
                // Searched for in vain by a user, logged in again, searched for again: it is gone.
                let missing = |session: &Session| require_login(session).err().unwrap_or_else(|| Fault::Missing(objects::hex(&id)));
                admin.with_session(|session| objects::inspect(session, &id)?.ok_or_else(|| missing(session)))
            }),
            Errand::Ping(reply) => self.answer(reply, Self::ping),
            Errand::List(installation, reply) => self.answer(reply, |admin| {
                // Asked afterwards: who was logged out in the middle saw no more private keys from there on.
                let list = |session: &Session| objects::list(session, &installation).and_then(|all| require_login(session).map(|()| all));
                let listed = admin.with_session(list)?;
                Ok(listed.into_iter().map(|(name, id)| (name, Locator::new(objects::hex(&id)))).collect())
            }),
        }
    }

    /// Does nothing for a caller who has left: each errand may be asked for again.
    fn answer<T>(&mut self, reply: Reply<T>, work: impl FnOnce(&mut Self) -> Result<T, KeystoreError>) {
        if !reply.is_closed() {
            let _ = reply.send(work(self));
        }
    }

    fn create(&mut self, name: &KeyName, algorithm: Algorithm) -> Result<Made, KeystoreError> {
        let shared = Arc::clone(&self.shared);
        let made = self.with_session(|session| find_or_make(session, name, algorithm, &shared.settings.profile));
        self.shared.keys.forget(&objects::id_of(name));
        made
    }

    fn destroy(&mut self, id: &[u8]) -> Result<(), KeystoreError> {
        let outcome = self.with_session(|session| match objects::find_private(session, id)? {
            Some(_) => objects::destroy(session, id),
            None => Err(require_login(session).err().unwrap_or_else(|| Fault::Missing(objects::hex(id)))),
        });
        self.shared.keys.forget(id);
        // Searched for in vain, logged in again, searched for again: it is gone. What an interrupted call left of it goes too.
        match outcome {
            Err(KeystoreError::Gone(_)) => self.with_session(|session| objects::destroy(session, id).and_then(|()| require_login(session))),
            outcome => outcome,
        }
    }

    fn ping(&mut self) -> Result<(), KeystoreError> {
        if self.shared.link.can_sign() { self.with_session(require_login) } else { self.refusal() }
    }

    /// Runs one step with the admin session; after a failure that may heal, opens the token again and runs it once more.
    fn with_session<T>(&mut self, step: impl Fn(&Session) -> Result<T, Fault>) -> Result<T, KeystoreError> {
        let Some(standing) = self.shared.link.current() else { return self.refusal() };
        let fault = match self.attempt(&standing, &step) {
            Ok(value) => return Ok(value),
            Err(fault) => fault,
        };
        let missing = matches!(fault, Fault::Missing(_));
        if matches!(fault.class(), Class::Never | Class::Throttle) || (missing && self.believes(standing.epoch)) {
            return Err(fault.tell(LONGEST_PAUSE));
        }
        self.shared.link.report(standing.epoch, &fault);
        self.mend();
        let Some(standing) = self.shared.link.current() else { return self.refusal() };
        if missing {
            self.believed = Some((standing.epoch, self.shared.clock.monotonic().plus(BELIEVED)));
        }
        self.attempt(&standing, &step).map_err(|fault| fault.tell(LONGEST_PAUSE))
    }

    fn believes(&self, epoch: u64) -> bool {
        self.believed.is_some_and(|(begun, until)| begun == epoch && self.shared.clock.monotonic() < until)
    }

    fn attempt<T>(&self, standing: &Standing, step: impl Fn(&Session) -> Result<T, Fault>) -> Result<T, Fault> {
        let call = standing.module.enter()?;
        let place = self.place.as_ref().ok_or(Fault::Stale)?;
        let held = place.hold(&call);
        match &*held {
            Some(open) if call.generation() == standing.generation && open.epoch == standing.epoch => step(&open.session),
            _ => Err(Fault::Stale),
        }
    }

    fn refusal<T>(&self) -> Result<T, KeystoreError> {
        let refusal = self.shared.link.refusal(self.shared.clock.monotonic());
        Err(refusal.unwrap_or_else(|| KeystoreError::Retry("the token is being opened again".to_owned())))
    }
}

/// How many sessions the token has beside the admin thread's own.
fn room_for_workers(token: &TokenInfo) -> usize {
    match token.max_session_count() {
        Limit::Max(most) => usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(1).max(1),
        Limit::Unavailable | Limit::Infinite => usize::MAX,
    }
}

/// Finds the key, or makes it, and admits it. A key that was made by this very call and is not admitted is destroyed again; one that was
/// there before never is.
pub(super) fn find_or_make(session: &Session, name: &KeyName, algorithm: Algorithm, profile: &DeviceProfile) -> Result<Made, Fault> {
    require_login(session)?;
    let (id, shape) = (objects::id_of(name), algorithm.key_shape());
    let made = |found: Found| {
        let attributes = objects::admit(session, &found, name, shape, profile)?;
        Ok(Made { public: found.public, locator: Locator::new(objects::hex(&id)), attributes, backend_request: None })
    };
    if let Some(found) = objects::find(session, &id)? {
        return made(found);
    }
    require_login(session)?;
    objects::generate(session, name, shape, profile)?;
    let outcome = objects::find(session, &id).and_then(|found| {
        let found = found.ok_or_else(|| Fault::Nonsense("a key that was just made is not found".to_owned()))?;
        made(found)
    });
    match outcome {
        Err(Fault::Refused(reason)) => Err(Fault::Refused(match objects::destroy(session, &id) {
            Ok(()) => format!("{reason}; the new key was destroyed again"),
            Err(fault) => format!("{reason}; the new key could not be destroyed again: {fault}"),
        })),
        outcome => outcome,
    }
}

/// Spreads the attempts of many daemons; without randomness they are merely not spread.
fn random_byte() -> u8 {
    let mut byte = [0];
    let _ = getrandom::fill(&mut byte);
    byte[0]
}
