//! The life of a key in KMS: found or made, admitted, read back, destroyed.
//!
//! In scope: the order of the calls, so that whatever is lost in between, one name has one key. Out of scope: the calls themselves (`api.rs`), and
//! signing.
//!
//! A key carries its name in its tags, from the moment in which it is made; the alias points at the one key of each name, and no two keys can have it.
//! So a key that was made and never got its alias is found by its tags, and of two makers the one whose alias came second gives way. KMS is eventually
//! consistent: what was just made may not be seen for a while, so a young key is asked for again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_kms::types::{KeyMetadata, KeySpec};
use claviger_audit::jwk::PublicKey;
use claviger_audit::names::KeyName;
use claviger_audit::{Algorithm, Timestamp};
use tokio::task::JoinSet;

use super::api::{self, Api};
use super::failure::{Failure, Kind};
use super::names::{self, Site};
use super::{admission, algorithm};
use crate::clock::{Clock, Monotonic};
use crate::keystore::{KeystoreError, Locator, Made, Seen, spki};

/// How long a new key may not be seen yet: tags and aliases may take so long to count in policies (KMS Developer Guide, "ABAC for AWS KMS").
const YOUNG: Duration = Duration::from_mins(5);
/// How long making a key may take in all; what is not done then, the next try finds.
const MAKING: Duration = Duration::from_secs(30);
/// How long a key is looked for whose making was asked for and not answered, before another one is made.
const SETTLING: Duration = Duration::from_secs(5);
/// The pauses between two looks.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How many keys are asked for their tags at once, far below the quota of 2,000 a second.
const AT_ONCE: usize = 16;

/// Finds, makes and ends keys. One per keystore.
pub(super) struct Keys {
    pub(super) api: Arc<Api>,
    pub(super) site: Site,
    clock: Arc<dyn Clock>,
    /// One key is made at a time.
    making: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
}

/// What this process remembers of the keys that it made.
#[derive(Default)]
struct Known {
    /// Until when a key that is not seen may still appear.
    young: BTreeMap<String, Monotonic>,
    /// Names for which a key was asked for, without an answer.
    uncertain: BTreeSet<KeyName>,
}

/// A key with our tags that lives.
struct Tagged {
    name: KeyName,
    arn: String,
}

impl Keys {
    pub(super) fn new(api: Arc<Api>, site: Site, clock: Arc<dyn Clock>) -> Self {
        Self { api, site, clock, making: tokio::sync::Mutex::default(), known: Mutex::default() }
    }

    /// Finds the key of this name or makes it, and admits it.
    pub(super) async fn create(&self, name: &KeyName, algorithm: Algorithm) -> Result<Made, KeystoreError> {
        let _turn = self.making.lock().await;
        let until = self.clock.monotonic().plus(MAKING);
        let spec = algorithm::key_spec(algorithm);
        let alias = names::alias(name);
        let pointed = self.pointed_at(&alias).await?;
        if let Some(metadata) = pointed.as_ref().filter(|metadata| !admission::is_dead(metadata)) {
            return self.admit(arn(metadata)?, name, &spec, None, until).await;
        }
        let (arn, request) = match self.of_name(name, until).await?.as_slice() {
            [] => self.make(name, spec.clone(), until).await?,
            [one] => (one.arn.clone(), None),
            several => return Err(too_many(name, several)),
        };
        let holder = self.point(&alias, &arn, pointed.is_some(), until).await?;
        if holder == arn {
            return self.admit(&arn, name, &spec, request, until).await;
        }
        self.give_way(name, &arn, &holder, request.is_some()).await?;
        self.admit(&holder, name, &spec, None, until).await
    }

    /// The key that an alias points at.
    async fn pointed_at(&self, alias: &str) -> Result<Option<KeyMetadata>, KeystoreError> {
        let until = self.clock.monotonic().plus(MAKING);
        match self.patiently(alias, until, || self.api.describe(alias)).await {
            Ok(metadata) => Ok(Some(metadata)),
            Err(failure) if failure.is_not_found() => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Keys of this name, by their tags. Where one was asked for and nobody knows whether it was made, it is waited for.
    async fn of_name(&self, name: &KeyName, until: Monotonic) -> Result<Vec<Tagged>, KeystoreError> {
        let settled = self.clock.monotonic().plus(SETTLING).min(until);
        let mut pauses = Pauses::default();
        loop {
            let mut found = self.living(name.installation()).await?;
            found.retain(|key| key.name == *name);
            let is_uncertain = self.known().uncertain.contains(name);
            if found.is_empty() && is_uncertain && pauses.rest(settled.since(self.clock.monotonic())).await {
                continue;
            }
            self.known().uncertain.remove(name);
            return Ok(found);
        }
    }

    /// Makes a key, and returns its ARN. From its first moment on it has its tags.
    async fn make(&self, name: &KeyName, spec: KeySpec, until: Monotonic) -> Result<(String, Option<String>), KeystoreError> {
        // Noted before the call: if this future is dropped within it, nobody hears the answer.
        self.known().uncertain.insert(name.clone());
        let made = self.patiently(name.as_str(), until, || self.api.create(name, spec.clone())).await;
        // What broke in AWS may have broken after the key was made.
        if !made.as_ref().is_err_and(|failure| matches!(failure.kind, Kind::Unanswered | Kind::Unusable | Kind::Broken)) {
            self.known().uncertain.remove(name);
        }
        let (metadata, request) = made?;
        let arn = arn(&metadata)?.to_owned();
        self.note_young(&arn);
        // AWS always gives one; that there is one says that this call made the key.
        Ok((arn, Some(request.unwrap_or_default())))
    }

    /// Notes that a key was made a moment ago.
    fn note_young(&self, arn: &str) {
        let now = self.clock.monotonic();
        let mut known = self.known();
        known.young.retain(|_, until| *until > now);
        known.young.insert(arn.to_owned(), now.plus(YOUNG));
    }

    /// Points the alias at the key, and returns at which one it points then: of two makers one is first.
    async fn point(&self, alias: &str, arn: &str, exists: bool, until: Monotonic) -> Result<String, KeystoreError> {
        let pointed = self
            .patiently(arn, until, || async {
                if exists { self.api.update_alias(alias, arn).await } else { self.api.create_alias(alias, arn).await }
            })
            .await;
        match pointed {
            Ok(()) if !exists => Ok(arn.to_owned()),
            // Nothing refuses the second of two makers here: the one who finds the other's key gives way. (A dead key there is the old one still.)
            Ok(()) => match self.pointed_at(alias).await?.filter(|metadata| !admission::is_dead(metadata)) {
                Some(holder) => self::arn(&holder).map(str::to_owned),
                None => Ok(arn.to_owned()),
            },
            Err(failure) if failure.code == "AlreadyExistsException" => {
                let holder = self.pointed_at(alias).await?.ok_or_else(|| {
                    let reason = format!("{alias} exists and points nowhere yet");
                    KeystoreError::Unavailable { reason, after: LONGEST_PAUSE }
                })?;
                self::arn(&holder).map(str::to_owned)
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// Another maker was first. A key that this very call made has no user, and is ended; one that was found is left for an operator.
    async fn give_way(&self, name: &KeyName, arn: &str, holder: &str, made_here: bool) -> Result<(), KeystoreError> {
        if !made_here {
            let found = [arn, holder].map(|arn| Tagged { name: name.clone(), arn: arn.to_owned() });
            return Err(too_many(name, &found));
        }
        self.note_young(holder);
        match self.end(arn).await {
            Ok(_) => tracing::info!(key = %name, holder, arn, "a key was made twice at once: the second one is ended"),
            // The name has its key all the same; the listing of the keystore's keys goes on naming this one.
            Err(error) => {
                tracing::warn!(key = %name, holder, arn, %error, "a key was made twice at once, and the second one could not be ended");
            }
        }
        Ok(())
    }

    /// Admits a key of this name, or says everything that is wrong with it.
    async fn admit(
        &self,
        arn: &str,
        name: &KeyName,
        spec: &KeySpec,
        request: Option<String>,
        until: Monotonic,
    ) -> Result<Made, KeystoreError> {
        self.site.key(arn)?;
        // A key that was just made is described once more: `CreateKey` answers before it can be used everywhere.
        let metadata = self.patiently(arn, until, || self.api.describe(arn)).await?;
        let tags = self.patiently(arn, until, || self.tags(arn)).await?;
        let facts = admission::facts(&metadata, &tags);
        let attributes = admission::admit(arn, &facts, name, spec, &self.site).map_err(|reasons| {
            let reasons = reasons.join("; ");
            KeystoreError::Rejected(format!("{arn}, the key of {name}, is not one that Claviger uses: {reasons}"))
        })?;
        // Kept in the record from now on: KMS may not give it any more once the key is disabled.
        let der = self.patiently(arn, until, || self.api.public_key(arn)).await?;
        let public = public_key(&der, spec).map_err(|why| KeystoreError::Rejected(format!("the public key of {arn}: {why}")))?;
        Ok(Made { public, locator: Locator::new(arn), attributes, backend_request: request.filter(|id| !id.is_empty()) })
    }

    /// Reads a key back as it is.
    pub(super) async fn inspect(&self, arn: &str) -> Result<Seen, KeystoreError> {
        let until = self.clock.monotonic().plus(MAKING);
        let metadata = self.patiently(arn, until, || self.api.describe(arn)).await?;
        if admission::is_dead(&metadata) {
            return Err(KeystoreError::Gone(format!("{arn} is pending deletion")));
        }
        let tags = self.patiently(arn, until, || self.tags(arn)).await?;
        let public = match self.patiently(arn, until, || self.api.public_key(arn)).await {
            Ok(der) => match metadata.key_spec() {
                Some(spec) => public_key(&der, spec),
                None => Err("KMS does not say what kind of key it is".to_owned()),
            },
            Err(failure) if failure.is_wrong_state() => Err("KMS does not show its public key in this state".to_owned()),
            Err(failure) => return Err(failure.into()),
        };
        Ok(Seen { public, attributes: admission::facts(&metadata, &tags) })
    }

    /// Makes a key unusable: disabled at once, deleted after its waiting period, on the date that is returned.
    pub(super) async fn end(&self, arn: &str) -> Result<Option<Timestamp>, KeystoreError> {
        let until = self.clock.monotonic().plus(MAKING);
        let metadata = match self.patiently(arn, until, || self.api.describe(arn)).await {
            Ok(metadata) => metadata,
            Err(failure) if failure.is_gone() => return Ok(None),
            Err(failure) => return Err(failure.into()),
        };
        if admission::is_dead(&metadata) {
            return Ok(metadata.deletion_date().map(api::timestamp));
        }
        // Whatever became of the first, the second is asked for: either makes the key unusable.
        let disabled = self.patiently(arn, until, || self.api.disable(arn)).await;
        let scheduled = self.patiently(arn, until, || self.api.schedule_deletion(arn)).await;
        let mut date = None;
        for ended in [disabled.map(|()| None), scheduled] {
            match ended {
                Ok(on) => date = on,
                Err(failure) if failure.is_gone() => return Ok(None),
                // Somebody was faster, or the description was an old one.
                Err(failure) if failure.is_wrong_state() && self.is_dead_now(arn).await => return Ok(None),
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(date)
    }

    /// Whether a key is pending deletion or gone.
    pub(super) async fn is_dead_now(&self, arn: &str) -> bool {
        match self.api.describe(arn).await {
            Ok(metadata) => admission::is_dead(&metadata),
            Err(failure) => failure.is_not_found(),
        }
    }

    /// The living keys of an installation, sorted by name.
    pub(super) async fn inventory(&self, installation: &str) -> Result<Vec<(KeyName, Locator)>, KeystoreError> {
        let mut held = self.living(installation).await?;
        held.sort_by(|one, other| (&one.name, &one.arn).cmp(&(&other.name, &other.arn)));
        for pair in held.windows(2).filter(|pair| pair[0].name == pair[1].name) {
            tracing::warn!(key = %pair[0].name, one = pair[0].arn, other = pair[1].arn, "two keys have one name; its alias says which is used");
        }
        Ok(held.into_iter().map(|key| (key.name, Locator::new(key.arn))).collect())
    }

    /// Every key of the account that has the tags of this installation and is not pending deletion.
    async fn living(&self, installation: &str) -> Result<Vec<Tagged>, KeystoreError> {
        let until = self.clock.monotonic().plus(MAKING);
        let keys = self.patiently("*", until, || self.api.keys()).await?;
        let (mut keys, mut looks, mut found) = (keys.into_iter(), JoinSet::new(), Vec::new());
        loop {
            while looks.len() < AT_ONCE
                && let Some(arn) = keys.next()
            {
                looks.spawn(look(self.api.clone(), self.clock.clone(), arn, installation.to_owned()));
            }
            match looks.join_next().await {
                None => return Ok(found),
                Some(Ok(key)) => found.extend(key?),
                Some(Err(error)) => return Err(KeystoreError::Retry(format!("a look at a key ended: {error}"))),
            }
        }
    }

    /// Asks again while a young key is not seen, or too much is asked of the account.
    async fn patiently<T, F>(&self, arn: &str, until: Monotonic, ask: impl Fn() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let unseen = |failure: &Failure| failure.is_unseen() && self.is_young(arn);
        let outcome = while_passing(self.clock.as_ref(), until, ask, unseen).await;
        outcome.map_err(|failure| if unseen(&failure) { failure.of_a_young_key() } else { failure })
    }

    /// The tags of a key. A new one that has none yet is not seen yet: it is made with them.
    async fn tags(&self, arn: &str) -> Result<BTreeMap<String, String>, Failure> {
        let tags = self.api.tags(arn).await?;
        if tags.is_empty() && self.is_young(arn) { Err(Failure::unseen(("kms:ListResourceTags", arn))) } else { Ok(tags) }
    }

    /// Whether this process made the key a moment ago, so that KMS may not know it everywhere.
    pub(super) fn is_young(&self, arn: &str) -> bool {
        let now = self.clock.monotonic();
        self.known().young.get(arn).is_some_and(|until| now < *until)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Growing pauses between looks at something that is not there yet.
#[derive(Default)]
pub(super) struct Pauses {
    next: Duration,
}

impl Pauses {
    /// Rests, if that ends within `left`; says whether it did.
    pub(super) async fn rest(&mut self, left: Duration) -> bool {
        self.next = (self.next * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        if self.next >= left {
            return false;
        }
        tokio::time::sleep(self.next).await;
        true
    }
}

/// Asks again while too much is asked of the account, or `passes` says that the failure may pass.
async fn while_passing<T, F>(
    clock: &dyn Clock,
    until: Monotonic,
    ask: impl Fn() -> F,
    passes: impl Fn(&Failure) -> bool,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut pauses = Pauses::default();
    loop {
        let failure = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        let passing = failure.kind == Kind::Throttled || passes(&failure);
        if !passing || !pauses.rest(until.since(clock.monotonic())).await {
            return Err(failure);
        }
    }
}

/// Whether a key of the account lives and has the tags of this installation.
async fn look(api: Arc<Api>, clock: Arc<dyn Clock>, arn: String, installation: String) -> Result<Option<Tagged>, KeystoreError> {
    let until = clock.monotonic().plus(MAKING);
    let tags = match while_passing(clock.as_ref(), until, || api.tags(&arn), |_| false).await {
        Ok(tags) => tags,
        // Deleted meanwhile, or somebody else's, whose policy keeps us out.
        Err(failure) if failure.is_not_found() || failure.is_denied_by_the_key() => return Ok(None),
        Err(failure) => return Err(failure.into()),
    };
    let name = tags.get(names::TAG_NAME).and_then(|name| name.parse::<KeyName>().ok());
    let Some(name) = name.filter(|name| name.installation() == installation) else { return Ok(None) };
    match while_passing(clock.as_ref(), until, || api.describe(&arn), |_| false).await {
        Ok(metadata) => Ok((!admission::is_dead(&metadata)).then_some(Tagged { name, arn })),
        Err(failure) if failure.is_not_found() => Ok(None),
        Err(failure) => Err(failure.into()),
    }
}

fn public_key(der: &[u8], spec: &KeySpec) -> Result<PublicKey, String> {
    let shape = algorithm::shape(spec).ok_or_else(|| format!("{} is no kind of key that Claviger uses", spec.as_str()))?;
    let public = spki::from_der(der).map_err(|error| error.to_string())?;
    let fits = Algorithm::ALL.into_iter().any(|algorithm| algorithm.key_shape() == shape && public.fits(algorithm));
    if fits { Ok(public) } else { Err(format!("it is of another kind than {}", spec.as_str())) }
}

fn arn(metadata: &KeyMetadata) -> Result<&str, KeystoreError> {
    metadata.arn().ok_or_else(|| KeystoreError::Retry(format!("KMS does not name the ARN of key {}", metadata.key_id())))
}

fn too_many(name: &KeyName, keys: &[Tagged]) -> KeystoreError {
    let arns = keys.iter().map(|key| key.arn.as_str()).collect::<Vec<_>>().join(" and ");
    KeystoreError::Rejected(format!(
        "{arns} are all tagged as {name}, and nothing says which is meant: find out who made them, and schedule the deletion of all but one"
    ))
}
