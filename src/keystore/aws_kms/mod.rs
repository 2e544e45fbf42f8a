//! The AWS KMS adapter: keys in the key service of an account, in one region.
//!
//! In scope: find-or-create by tag and alias, admission, signing within a budget, destruction with its waiting period, whose account it is. Out of
//! scope: verifying and retrying signatures (the signer does), multi-region keys, keys in custom key stores, and logging in (credentials come by
//! the SDK's chain: environment, shared profile, web identity, container, instance).
//!
//! In reading order: `names` (what a key is called), `algorithm` and `der` (how it is spoken to), `admission`, `api` (every call), `failure` (how one can
//! end), `keys` (the life of a key), `budget` and the port's `breaker` (when nothing is asked).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claviger_audit::names::KeyName;
use claviger_audit::{Algorithm, Timestamp};
use tokio::time::timeout;

use self::api::Api;
use self::budget::Budget;
use self::failure::{Failure, Kind};
use self::keys::{Keys, Pauses};
use self::names::Site;
use super::{BoxFuture, Class, Condition, Input, Keystore, KeystoreError, Locator, Made, Seen, Signature, Terms};
use crate::clock::{Clock, Monotonic};

mod admission;
mod algorithm;
mod api;
mod budget;
mod der;
mod failure;
mod keys;
mod names;

/// Requests per second that Claviger allows itself by default, RSA and curves apart: half of what AWS gives an account and region, since others use it
/// too (KMS Developer Guide, "Request quotas": 1,000 each).
pub const DEFAULT_REQUESTS_PER_SECOND: u32 = 500;
/// Days between a key's destruction and its deletion, by default and at most: as long as KMS lets an operator change their mind.
pub const DEFAULT_DELETION_WINDOW: u8 = 30;
/// The fewest days (KMS API Reference, `ScheduleKeyDeletion`).
pub const LEAST_DELETION_WINDOW: u8 = 7;

/// How long a signature is waited for, however far its deadline is: KMS takes some milliseconds, and what takes seconds is lost.
const SIGNATURE: Duration = Duration::from_secs(5);
/// How long a health check may take.
const HEALTH: Duration = Duration::from_secs(4);
/// A signature that is younger than this is health enough.
const HEALTH_FRESH: Duration = Duration::from_secs(5);
/// How long the answer to whose account it is holds: credentials change, and nothing but a mistake changes the account.
const ACCOUNT_FRESH: Duration = Duration::from_hours(1);
/// When AWS is asked again whose it is after it did not say so, while what it said before is believed.
const ACCOUNT_AGAIN: Duration = Duration::from_mins(1);
/// How long that question may delay what needs no new answer.
const ACCOUNT_PATIENCE: Duration = Duration::from_secs(2);
/// When to ask again while nobody knows yet whose account it is.
const ACCOUNT_SOON: Duration = Duration::from_secs(1);

/// Which account and region to use, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsKmsSettings {
    /// The region, e.g. `eu-central-1`.
    pub region: String,
    /// The account, twelve digits: credentials of another one are refused.
    pub account: String,
    /// Another URL than AWS's for KMS: a VPC endpoint, or an emulator.
    pub endpoint: Option<String>,
    /// Likewise for STS, which says whose the credentials are.
    pub sts_endpoint: Option<String>,
    /// A profile of the shared configuration, instead of the chain.
    pub profile: Option<String>,
    /// Days between a key's destruction and its deletion, [`LEAST_DELETION_WINDOW`] to [`DEFAULT_DELETION_WINDOW`].
    pub deletion_window: u8,
    /// The budget of signatures, for RSA keys and for curves each.
    pub requests_per_second: u32,
}

/// One account and region as a [`Keystore`].
pub struct AwsKmsKeystore {
    clock: Arc<dyn Clock>,
    api: Arc<Api>,
    keys: Keys,
    budget: Budget,
    account: Mutex<Account>,
    /// When KMS last signed.
    signed: Mutex<Option<Monotonic>>,
}

/// Whose the credentials are.
#[derive(Clone, Debug)]
enum Account {
    Unknown,
    /// Ours, as AWS said; it is asked anew after this point.
    Ours(Monotonic),
    Wrong(String),
}

impl AwsKmsKeystore {
    /// Returns at once; AWS is asked with the first call.
    pub fn open(settings: AwsKmsSettings, clock: Arc<dyn Clock>) -> Self {
        let site = Site { region: settings.region.clone(), account: settings.account.clone() };
        let budget = Budget::new(settings.requests_per_second, clock.monotonic());
        let api = Arc::new(Api::new(settings, clock.clone()));
        let keys = Keys::new(api.clone(), site, clock.clone());
        Self { clock, api, keys, budget, account: Mutex::new(Account::Unknown), signed: Mutex::default() }
    }

    /// Whether these credentials may sign with a key, asked without signing: for `doctor`. How the key itself is, [`Keystore::inspect`] tells.
    ///
    /// # Errors
    ///
    /// A denial is [`KeystoreError::Rejected`], with its remedy.
    pub async fn may_sign(&self, locator: &Locator, algorithm: Algorithm) -> Result<(), KeystoreError> {
        let arn = self.keys.site.key(locator.as_str())?;
        self.begin().await?;
        match timeout(SIGNATURE, self.api.may_sign(&arn, algorithm)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) if failure.is_wrong_state() || failure.is_gone() => Ok(()),
            Ok(Err(failure)) => Err(failure.of_a_question()),
            Err(_) => Err(Failure::unanswered(("kms:Sign", &arn)).of_a_question()),
        }
    }

    async fn sign_by(&self, locator: &Locator, algorithm: Algorithm, input: Input, terms: Terms) -> Result<Signature, KeystoreError> {
        algorithm::check_input(algorithm, &input).map_err(KeystoreError::Rejected)?;
        let arn = self.keys.site.key(locator.as_str())?;
        let begun = self.clock.monotonic();
        let left = terms.deadline.since(begun);
        if left.is_zero() {
            return Err(KeystoreError::Unanswered);
        }
        // No signature was asked for yet, so none can be unanswered.
        timeout(left, self.check_account(terms.class)).await.unwrap_or_else(|_| Err(account_unknown()))?;
        // What an outage refuses costs no budget, and the one try after it is not spent on work that is shed.
        self.api.breaker.look(self.clock.monotonic())?;
        let family = algorithm::family(algorithm);
        let _slot = self.budget.take(family, terms.class, begun).ok_or(KeystoreError::Overloaded)?;
        let sent = self.clock.monotonic();
        let permit = self.api.breaker.permit(sent)?;

        let left = terms.deadline.since(sent).min(SIGNATURE);
        let answered = timeout(left, self.asked_for(&arn, algorithm, input, sent.plus(left))).await;
        let now = self.clock.monotonic();
        let answer = match answered {
            Ok(answer) => answer,
            Err(_) => Err(self.api.gave_up_signing(&arn, now.since(sent))),
        };
        // Judged by now: what follows is no probe.
        drop(permit);
        match answer {
            Ok(Signature { bytes, backend_request }) => {
                *lock(&self.signed) = Some(now);
                let bytes = match algorithm::jose_signature(algorithm, bytes) {
                    Ok(bytes) => bytes,
                    Err(reason) => return Err(KeystoreError::Unusable { reason, backend_request }),
                };
                Ok(Signature { bytes, backend_request })
            }
            Err(failure) => {
                if failure.kind == Kind::Throttled {
                    self.budget.throttled(family, now);
                }
                Err(self.told(&arn, failure, terms.deadline).await)
            }
        }
    }

    /// One request; a key that was made a moment ago and is not known everywhere yet is asked for again, as long as that may end in time.
    async fn asked_for(&self, arn: &str, algorithm: Algorithm, input: Input, until: Monotonic) -> Result<Signature, Failure> {
        let mut pauses = Pauses::default();
        loop {
            match self.api.sign(arn, algorithm, input.clone()).await {
                Err(failure) if failure.is_unseen() && self.keys.is_young(arn) => {
                    if !pauses.rest(until.since(self.clock.monotonic())).await {
                        return Err(failure.of_a_young_key());
                    }
                }
                answer => return answer,
            }
        }
    }

    /// What a failed signature means. Where the state of the key is in the way, one more question tells whether it is gone.
    async fn told(&self, arn: &str, failure: Failure, deadline: Monotonic) -> KeystoreError {
        if failure.is_wrong_state() {
            let left = deadline.since(self.clock.monotonic()).min(HEALTH);
            if timeout(left, self.keys.is_dead_now(arn)).await == Ok(true) {
                return KeystoreError::Gone(format!("{arn} is pending deletion"));
            }
        }
        failure.into()
    }

    /// Whether the account is known to be ours. No caller's request asks AWS for it; Claviger's own work may.
    async fn check_account(&self, class: Class) -> Result<(), KeystoreError> {
        match lock(&self.account).clone() {
            Account::Ours(_) => return Ok(()),
            Account::Wrong(why) => return Err(KeystoreError::Rejected(why)),
            Account::Unknown => {}
        }
        if class == Class::Own {
            return self.confirm_account().await;
        }
        Err(account_unknown())
    }

    /// Asks AWS whose the credentials are, unless it said so lately. What it said before is enough while it does not answer: then only credentials
    /// that it refuses, or that turn out to be another account's, are in the way.
    async fn settled_account(&self) -> Result<(), KeystoreError> {
        let until = match &*lock(&self.account) {
            Account::Ours(until) => Some(*until),
            Account::Unknown | Account::Wrong(_) => None,
        };
        let Some(until) = until else { return self.confirm_account().await };
        let now = self.clock.monotonic();
        if now < until {
            return Ok(());
        }
        if let Ok(answer @ (Ok(()) | Err(KeystoreError::Rejected(_)))) = timeout(ACCOUNT_PATIENCE, self.confirm_account()).await {
            return answer;
        }
        tracing::debug!("AWS does not say whose the credentials are; it is believed what it said before");
        *lock(&self.account) = Account::Ours(now.plus(ACCOUNT_AGAIN));
        Ok(())
    }

    /// Asks AWS whose the credentials are.
    async fn confirm_account(&self) -> Result<(), KeystoreError> {
        let found = self.api.account().await.map_err(Failure::of_a_question)?;
        let ours = &self.keys.site.account;
        if found == *ours {
            *lock(&self.account) = Account::Ours(self.clock.monotonic().plus(ACCOUNT_FRESH));
            return Ok(());
        }
        let why = format!(
            "the AWS credentials belong to account {found}, and `account` says {ours}: give Claviger credentials of {ours}, or correct \
             `account`; nothing is made or signed meanwhile"
        );
        *lock(&self.account) = Account::Wrong(why.clone());
        Err(KeystoreError::Rejected(why))
    }

    /// What comes before everything that is not a signature.
    async fn begin(&self) -> Result<(), KeystoreError> {
        self.api.breaker.look(self.clock.monotonic())?;
        self.settled_account().await
    }

    async fn check_health(&self) -> Result<(), KeystoreError> {
        let now = self.clock.monotonic();
        let proved = lock(&self.signed).is_some_and(|at| now.since(at) < HEALTH_FRESH);
        if proved && self.api.breaker.refusal(now).is_none() {
            return Ok(());
        }
        self.settled_account().await?;
        match self.api.reach().await {
            Ok(()) => Ok(()),
            // It answers; that there is too much work is the budget's business.
            Err(failure) if failure.kind == Kind::Throttled => Ok(()),
            Err(failure) => Err(failure.of_a_question()),
        }
    }
}

impl Keystore for AwsKmsKeystore {
    fn create<'a>(&'a self, name: &'a KeyName, algorithm: Algorithm) -> BoxFuture<'a, Result<Made, KeystoreError>> {
        Box::pin(async move {
            self.api.breaker.look(self.clock.monotonic())?;
            // Asked anew for each key: what is made in another account can only be deleted there.
            self.confirm_account().await?;
            self.keys.create(name, algorithm).await
        })
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
            let arn = self.keys.site.key(locator.as_str())?;
            self.begin().await?;
            self.keys.end(&arn).await
        })
    }

    fn inspect<'a>(&'a self, locator: &'a Locator) -> BoxFuture<'a, Result<Seen, KeystoreError>> {
        Box::pin(async move {
            let arn = self.keys.site.key(locator.as_str())?;
            self.begin().await?;
            self.keys.inspect(&arn).await
        })
    }

    fn health(&self) -> BoxFuture<'_, Result<(), KeystoreError>> {
        Box::pin(async move {
            let answer = timeout(HEALTH, self.check_health()).await;
            answer.unwrap_or_else(|_| Err(Failure::unanswered(("kms:ListAliases", "*")).of_a_question()))
        })
    }

    fn inventory<'a>(&'a self, installation: &'a str) -> BoxFuture<'a, Result<Vec<(KeyName, Locator)>, KeystoreError>> {
        Box::pin(async move {
            self.begin().await?;
            self.keys.inventory(installation).await
        })
    }

    /// CloudTrail writes down each `Sign` under the id of its request.
    fn keeps_record(&self) -> bool {
        true
    }

    fn condition(&self) -> Condition {
        Condition { reopened: self.api.breaker.reopened(), ..Condition::default() }
    }
}

/// Why nothing is signed before AWS said whose the credentials are.
fn account_unknown() -> KeystoreError {
    let reason = "nobody knows yet whose account the credentials belong to; AWS is being asked".to_owned();
    KeystoreError::Unavailable { reason, after: ACCOUNT_SOON }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
