//! The PKCS#11 adapter: keys in an HSM, or in a soft token.
//!
//! In scope: one token of one module, its login, its sessions and threads, find-or-create, admission, signing, recovery. Out of scope:
//! verifying signatures (the signer does).
//!
//! In reading order: `module` (one library, one lock), `token` and `uri` (which one), `pin` (one try), `link` (what the threads know), `admin`
//! (opens, keeps, makes), `jobs`, `crew` and `worker` (who signs, in which order), `watch` (calls that hang), `queue` (errands), `keys`
//! (handles of an epoch), `objects`, `admission`, `profile`, `public` and `mechanism` (what
//! is said to the token), `recovery` and `fault` (what went wrong, and what may heal it). Apart: `trial` (what
//! `hsm check` tries).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use claviger_audit::names::KeyName;
use claviger_audit::{Algorithm, Timestamp};
use tokio::sync::oneshot;
use tokio::time::timeout;

use self::admin::{Admin, Errand, Reply};
use self::crew::{Crew, Seat};
use self::fault::Fault;
use self::jobs::{Job, Jobs};
use self::keys::Keys;
use self::link::Link;
pub use self::link::TokenState;
pub use self::profile::DeviceProfile;
use self::queue::Queue;
pub use self::token::{BadTokenSelector, TokenSelector};
pub use self::uri::TokenUri;
use self::watch::Bell;
use super::{BoxFuture, Condition, Input, Keystore, KeystoreError, Locator, Made, Seen, Signature, Terms};
use crate::clock::Clock;
use crate::secret::SecretFile;

mod admin;
mod admission;
mod crew;
mod fault;
mod jobs;
mod keys;
mod link;
mod mechanism;
mod module;
mod objects;
mod pin;
mod profile;
mod public;
mod queue;
mod recovery;
mod token;
pub mod trial;
mod uri;
mod watch;
mod worker;

/// How many threads sign by default. More do not help a soft token, and ruin its worst times.
pub const DEFAULT_WORKERS: usize = 2;
/// The most threads that can be asked for: the largest devices serve some hundred sessions, shared by all their clients.
pub const MOST_WORKERS: usize = 64;
/// How many signatures may wait for a thread. At 1,000 a second this is a second of work; who comes later is better told to go elsewhere.
pub const QUEUE: usize = 1024;
/// How long interactive work may wait for a thread by default: a burst passes, and overload never becomes everybody's wait.
pub const DEFAULT_QUEUE_WAIT: Duration = Duration::from_millis(500);
/// After how long a call counts as hung by default: far beyond any signature, and beyond what a device takes to come back from a stall.
pub const DEFAULT_HANG_AFTER: Duration = Duration::from_secs(10);
/// How many errands may wait for the admin thread: they come from the rotator, operators and probes, never from signing callers.
const ERRANDS: usize = 32;
/// How long an errand may take: making an RSA key takes half a minute on small devices.
const ERRAND_ANSWER: Duration = Duration::from_mins(1);
/// How long a health check may take.
const HEALTH_ANSWER: Duration = Duration::from_secs(2);
/// A signature that is younger than this is health enough, so that making a key never makes the keystore look ill.
const HEALTH_FRESH: Duration = Duration::from_secs(5);

/// Which token to use, and how.
#[derive(Clone, Debug)]
pub struct Pkcs11Settings {
    /// The module's shared library.
    pub module: PathBuf,
    /// The token.
    pub token: TokenSelector,
    /// How many threads sign, 1 to [`MOST_WORKERS`]; fewer are used if the token has fewer sessions.
    pub workers: usize,
    /// The file with the user's PIN; read at each login.
    pub pin: SecretFile,
    /// What its device is allowed not to tell.
    pub profile: DeviceProfile,
    /// The state folder, for the marker that stops a wrong PIN from being tried twice.
    pub state: PathBuf,
    /// The longest that interactive work may wait for a thread; what would wait longer is refused at once.
    pub queue_wait: Duration,
    /// After this long a call counts as hung.
    pub hang_after: Duration,
}

/// A snapshot of the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkcs11State {
    /// Whether the token can be used.
    pub token: TokenState,
    /// How often the token was opened since the start; each time after the first, something was lost before.
    pub openings: u64,
}

/// One token as a [`Keystore`]. Dropping it lets its threads end after the call that each is in; nothing waits for them.
pub struct Pkcs11Keystore {
    shared: Arc<Shared>,
}

/// What the threads of one keystore share.
struct Shared {
    settings: Pkcs11Settings,
    clock: Arc<dyn Clock>,
    link: Arc<Link>,
    keys: Keys,
    jobs: Jobs,
    errands: Queue<Errand>,
    crew: Crew,
    /// The admin thread's place.
    admin: Seat,
    bell: Bell,
}

impl Pkcs11Keystore {
    /// Begins to open the token on a thread of its own, and returns at once: a dead token never holds up a start.
    pub fn open(settings: Pkcs11Settings, clock: Arc<dyn Clock>) -> Self {
        let workers = settings.workers.clamp(1, MOST_WORKERS);
        let settings = Pkcs11Settings { workers, ..settings };
        let shared = Arc::new(Shared {
            jobs: Jobs::new(QUEUE, settings.queue_wait),
            settings,
            clock,
            link: Arc::new(Link::new()),
            keys: Keys::default(),
            errands: Queue::new(ERRANDS),
            crew: Crew::new(),
            admin: Seat::default(),
            bell: Bell::default(),
        });
        let (admin, watched) = (Admin::new(Arc::clone(&shared)), Arc::clone(&shared));
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let started = thread("p11-admin").spawn(move || admin.run()).and_then(|_| thread("p11-watch").spawn(move || watch::run(&watched)));
        if let Err(error) = started {
            let text = format!("the system gives no thread for the token: {error}; raise the limit and start again");
            shared.link.fail(Fault::Refused(text), shared.clock.monotonic());
        }
        Self { shared }
    }

    /// What is known of the token now; asks nobody.
    pub fn state(&self) -> Pkcs11State {
        Pkcs11State { token: self.shared.link.token_state(), openings: self.shared.link.openings() }
    }

    async fn sign_by(&self, locator: &Locator, algorithm: Algorithm, input: Input, terms: Terms) -> Result<Signature, KeystoreError> {
        mechanism::check_input(algorithm, &input).map_err(KeystoreError::Rejected)?;
        let id = id(locator)?;
        let now = self.shared.clock.monotonic();
        if let Some(refusal) = self.shared.link.refusal(now) {
            return Err(refusal);
        }
        let (reply, answer) = oneshot::channel();
        let left = terms.deadline.since(now);
        self.shared.jobs.submit(Job { id, algorithm, input, terms, reply }, now)?;
        // The token may have failed between the question and the queue; then nobody would serve the queue until it is back.
        if let Some(refusal) = self.shared.link.refusal(now) {
            self.shared.jobs.fail_all(&refusal);
        }
        let bytes = answered(left, answer).await?;
        Ok(Signature { bytes, backend_request: None })
    }

    async fn check_health(&self) -> Result<(), KeystoreError> {
        let now = self.shared.clock.monotonic();
        if let Some(refusal) = self.shared.link.refusal(now) {
            return Err(refusal);
        }
        if self.shared.link.can_sign() && self.shared.link.proved_within(HEALTH_FRESH, now) {
            return Ok(());
        }
        self.ask(HEALTH_ANSWER, Errand::Ping).await
    }

    async fn ask<T>(&self, patience: Duration, errand: impl FnOnce(Reply<T>) -> Errand) -> Result<T, KeystoreError> {
        if let Some(refusal) = watch::refusal(&self.shared) {
            return Err(refusal);
        }
        let (reply, answer) = oneshot::channel();
        self.shared.errands.put(errand(reply)).map_err(|_| KeystoreError::Overloaded)?;
        answered(patience, answer).await
    }
}

impl Drop for Pkcs11Keystore {
    fn drop(&mut self) {
        self.shared.jobs.close();
        self.shared.errands.close();
        self.shared.bell.ring();
    }
}

impl Keystore for Pkcs11Keystore {
    fn keeps_record(&self) -> bool {
        false
    }

    fn create<'a>(&'a self, name: &'a KeyName, algorithm: Algorithm) -> BoxFuture<'a, Result<Made, KeystoreError>> {
        Box::pin(self.ask(ERRAND_ANSWER, move |reply| Errand::Create(name.clone(), algorithm, reply)))
    }

    fn sign<'a>(
        &'a self,
        locator: &'a Locator,
        algorithm: Algorithm,
        input: Input,
        terms: Terms,
    ) -> BoxFuture<'a, Result<Signature, KeystoreError>> {
        Box::pin(self.sign_by(locator, algorithm, input, terms))
    }

    fn destroy<'a>(&'a self, locator: &'a Locator) -> BoxFuture<'a, Result<Option<Timestamp>, KeystoreError>> {
        Box::pin(async move {
            let id = id(locator)?;
            self.ask(ERRAND_ANSWER, move |reply| Errand::Destroy(id, reply)).await?;
            Ok(None)
        })
    }

    fn inspect<'a>(&'a self, locator: &'a Locator) -> BoxFuture<'a, Result<Seen, KeystoreError>> {
        Box::pin(async move {
            let id = id(locator)?;
            self.ask(ERRAND_ANSWER, move |reply| Errand::Inspect(id, reply)).await
        })
    }

    fn health(&self) -> BoxFuture<'_, Result<(), KeystoreError>> {
        Box::pin(self.check_health())
    }

    fn inventory<'a>(&'a self, installation: &'a str) -> BoxFuture<'a, Result<Vec<(KeyName, Locator)>, KeystoreError>> {
        Box::pin(self.ask(ERRAND_ANSWER, move |reply| Errand::List(installation.to_owned(), reply)))
    }

    fn condition(&self) -> Condition {
        let shared = &*self.shared;
        let admin = usize::from(shared.admin.hangs(shared.clock.monotonic()));
        Condition {
            reopened: shared.link.reopened(),
            queued: shared.jobs.len(),
            late: shared.jobs.late(),
            hung: u64::try_from(shared.crew.hanging() + admin).unwrap_or(u64::MAX),
            wedged: shared.link.is_wedged(),
        }
    }
}

/// Starts the signing threads that are missing.
fn hire(shared: &Arc<Shared>) -> Result<(), Fault> {
    let shared = Arc::clone(shared);
    let crew = Arc::clone(&shared);
    crew.crew.hire(move |seat| worker::run(&shared, seat))
}

fn id(locator: &Locator) -> Result<Vec<u8>, KeystoreError> {
    let wrong = || KeystoreError::Rejected(format!("{:?} is not a CKA_ID of 20 bytes in hex", locator.as_str()));
    objects::id_in(locator.as_str()).ok_or_else(wrong)
}

async fn answered<T>(patience: Duration, answer: oneshot::Receiver<Result<T, KeystoreError>>) -> Result<T, KeystoreError> {
    match timeout(patience, answer).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(KeystoreError::Retry("the thread that served the token ended".to_owned())),
        Err(_) => Err(KeystoreError::Unanswered),
    }
}
