//! Every action of AWS that Claviger asks for, each in one function: nothing else of the account is ever touched.
//!
//! In scope: one call each, explicit time limits, no retries (the signer retries, so that each attempt is counted), and what the breaker learns
//! from each. Out of scope: in which order they are called. `deploy/aws/policy.json` grants these actions; a test compares the two.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{BehaviorVersion, Region, SharedCredentialsProvider};
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId as _;
use aws_sdk_kms::primitives::{Blob, DateTime};
use aws_sdk_kms::types::{KeyMetadata, KeySpec, KeyUsageType, OriginType, Tag};
use claviger_audit::names::KeyName;
use claviger_audit::{Algorithm, Timestamp};
use tokio::sync::OnceCell;

use super::failure::{Failure, Kind};
use super::{AwsKmsSettings, algorithm, names};
use crate::clock::Clock;
use crate::keystore::breaker::{Breaker, Rules, Verdict};
use crate::keystore::{Input, Signature};

/// How long a connection may take to come about, TLS included.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a request may take; making a key is the slowest.
const ATTEMPT: Duration = Duration::from_secs(8);
/// The same with what comes before it: credentials are fetched with the first request, and when they expire.
const OPERATION: Duration = Duration::from_secs(10);
/// An answer that was given up sooner says nothing of KMS: its caller was in a hurry.
const TELLING: Duration = Duration::from_secs(1);
/// Most pages of a listing, with a thousand keys or fifty tags on each: an account has at most 100,000 keys.
const MOST_PAGES: usize = 1000;

/// Three failed signatures in a row are an outage; one or two are what a network does. What ended is noticed within the longest pause.
const OUTAGES: Rules = Rules { doubts: 3, first: Duration::from_millis(500), longest: Duration::from_secs(8) };

/// The action that the breaker is about.
const SIGN: &str = "kms:Sign";
/// What the whole account is called in messages.
const ACCOUNT: &str = "*";

/// The clients, and what is known of their answers. One per keystore.
pub(super) struct Api {
    settings: AwsKmsSettings,
    clients: OnceCell<Clients>,
    clock: Arc<dyn Clock>,
    /// Whether it is worth asking for a signature.
    pub(super) breaker: Breaker,
    /// How many calls that were no signatures failed since one of them was answered.
    failed_aside: AtomicU32,
}

struct Clients {
    kms: aws_sdk_kms::Client,
    sts: aws_sdk_sts::Client,
}

impl Api {
    /// Connects with the first call.
    pub(super) fn new(settings: AwsKmsSettings, clock: Arc<dyn Clock>) -> Self {
        Self { settings, clients: OnceCell::new(), clock, breaker: Breaker::new(OUTAGES), failed_aside: AtomicU32::new(0) }
    }

    /// `sts:GetCallerIdentity`, which needs no permission: the account that the credentials belong to.
    pub(super) async fn account(&self) -> Result<String, Failure> {
        let asked = ("sts:GetCallerIdentity", ACCOUNT);
        let request = self.clients().await.sts.get_caller_identity();
        let identity = self.call(asked, Box::pin(request.send())).await?;
        identity.account.ok_or_else(|| Failure::unanswered(asked))
    }

    /// `kms:ListAliases`, one of them: whether KMS answers this identity.
    pub(super) async fn reach(&self) -> Result<(), Failure> {
        let request = self.kms().await.list_aliases().limit(1);
        self.call(("kms:ListAliases", ACCOUNT), Box::pin(request.send())).await.map(drop)
    }

    /// `kms:DescribeKey`, of an ARN or an alias.
    pub(super) async fn describe(&self, key: &str) -> Result<KeyMetadata, Failure> {
        let asked = ("kms:DescribeKey", key);
        let request = self.kms().await.describe_key().key_id(key);
        let described = self.call(asked, Box::pin(request.send())).await?;
        described.key_metadata.ok_or_else(|| Failure::unanswered(asked))
    }

    /// `kms:ListResourceTags`.
    pub(super) async fn tags(&self, key: &str) -> Result<BTreeMap<String, String>, Failure> {
        let asked = ("kms:ListResourceTags", key);
        let (mut tags, mut marker) = (BTreeMap::new(), None);
        for _ in 0..MOST_PAGES {
            let request = self.kms().await.list_resource_tags().key_id(key).set_marker(marker);
            let page = self.call(asked, Box::pin(request.send())).await?;
            tags.extend(page.tags().iter().map(|tag| (tag.tag_key.clone(), tag.tag_value.clone())));
            marker = page.next_marker;
            match (page.truncated, &marker) {
                (false, _) => return Ok(tags),
                (true, Some(_)) => {}
                (true, None) => break,
            }
        }
        Err(Failure::unanswered(asked))
    }

    /// `kms:ListKeys`: the ARNs of all keys of the account, whosever they are. A listing that says that there is more and not where is no listing.
    pub(super) async fn keys(&self) -> Result<Vec<String>, Failure> {
        let asked = ("kms:ListKeys", ACCOUNT);
        let (mut keys, mut marker) = (Vec::new(), None);
        for _ in 0..MOST_PAGES {
            let request = self.kms().await.list_keys().limit(1000).set_marker(marker);
            let page = self.call(asked, Box::pin(request.send())).await?;
            keys.extend(page.keys.unwrap_or_default().into_iter().filter_map(|key| key.key_arn));
            marker = page.next_marker;
            match (page.truncated, &marker) {
                (false, _) => return Ok(keys),
                (true, Some(_)) => {}
                (true, None) => break,
            }
        }
        Err(Failure::unanswered(asked))
    }

    /// `kms:GetPublicKey`: the key's `SubjectPublicKeyInfo`.
    pub(super) async fn public_key(&self, key: &str) -> Result<Vec<u8>, Failure> {
        let asked = ("kms:GetPublicKey", key);
        let request = self.kms().await.get_public_key().key_id(key);
        let answer = self.call(asked, Box::pin(request.send())).await?;
        answer.public_key.map(Blob::into_inner).ok_or_else(|| Failure::unanswered(asked))
    }

    /// `kms:CreateKey` with its tags, which needs `kms:TagResource` too. Returns what it is, and the request's id. Its key policy is KMS's own, which
    /// leaves everything to the account's IAM policies.
    pub(super) async fn create(&self, name: &KeyName, spec: KeySpec) -> Result<(KeyMetadata, Option<String>), Failure> {
        let asked = ("kms:CreateKey", name.as_str());
        let tag = |(key, value): (&str, &str)| Tag::builder().tag_key(key).tag_value(value).build();
        let tags = names::tags(name).map(tag).into_iter().filter_map(Result::ok).collect();
        let request = self.kms().await.create_key().key_usage(KeyUsageType::SignVerify).key_spec(spec).origin(OriginType::AwsKms);
        let request = request.multi_region(false).description(format!("Claviger key {name}")).set_tags(Some(tags));
        let created = self.call(asked, Box::pin(request.send())).await?;
        let id = created.request_id().map(str::to_owned);
        created.key_metadata.map(|metadata| (metadata, id)).ok_or_else(|| Failure::unusable(asked, None))
    }

    /// `kms:CreateAlias`: fails with `AlreadyExistsException` if there is one.
    pub(super) async fn create_alias(&self, alias: &str, key: &str) -> Result<(), Failure> {
        let request = self.kms().await.create_alias().alias_name(alias).target_key_id(key);
        self.call(("kms:CreateAlias", alias), Box::pin(request.send())).await.map(drop)
    }

    /// `kms:UpdateAlias`: points an alias at another key.
    pub(super) async fn update_alias(&self, alias: &str, key: &str) -> Result<(), Failure> {
        let request = self.kms().await.update_alias().alias_name(alias).target_key_id(key);
        self.call(("kms:UpdateAlias", alias), Box::pin(request.send())).await.map(drop)
    }

    /// `kms:DisableKey`: at once, where a deletion waits.
    pub(super) async fn disable(&self, key: &str) -> Result<(), Failure> {
        let request = self.kms().await.disable_key().key_id(key);
        self.call(("kms:DisableKey", key), Box::pin(request.send())).await.map(drop)
    }

    /// `kms:ScheduleKeyDeletion`. Until the date that is returned, an operator can take it back.
    pub(super) async fn schedule_deletion(&self, key: &str) -> Result<Option<Timestamp>, Failure> {
        let days = i32::from(self.settings.deletion_window);
        let request = self.kms().await.schedule_key_deletion().key_id(key).pending_window_in_days(days);
        let scheduled = self.call(("kms:ScheduleKeyDeletion", key), Box::pin(request.send())).await?;
        let date = scheduled.deletion_date.map(|date| timestamp(&date));
        tracing::info!(key, days, date = date.map(|date| date.to_string()), "a key is disabled, and will be deleted then");
        Ok(date)
    }

    /// `kms:Sign`, of an input that was checked.
    pub(super) async fn sign(&self, key: &str, algorithm: Algorithm, input: Input) -> Result<Signature, Failure> {
        let asked = (SIGN, key);
        let (kind, message) = algorithm::message(input);
        let request = self.kms().await.sign().key_id(key).message(Blob::new(message)).message_type(kind);
        let signed = self.call(asked, Box::pin(request.signing_algorithm(algorithm::signing_algorithm(algorithm)).send())).await?;
        let backend_request = signed.request_id().map(str::to_owned);
        let bytes = signed.signature.map(Blob::into_inner).ok_or_else(|| Failure::unusable(asked, backend_request.as_deref()))?;
        Ok(Signature { bytes, backend_request })
    }

    /// `kms:Sign` without a signature: whether it would be permitted (`Sign`, parameter `DryRun`).
    pub(super) async fn may_sign(&self, key: &str, algorithm: Algorithm) -> Result<(), Failure> {
        let (kind, message) = algorithm::message(algorithm::example(algorithm));
        let request = self.kms().await.sign().key_id(key).message(Blob::new(message)).message_type(kind).dry_run(true);
        let request = request.signing_algorithm(algorithm::signing_algorithm(algorithm));
        match self.call((SIGN, key), Box::pin(request.send())).await {
            Err(failure) if failure.code == "DryRunOperationException" => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// One call, from which the breaker learns. Futures of the SDK are large, so they come in boxes.
    async fn call<T, E>(
        &self,
        asked: (&'static str, &str),
        sent: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Failure>
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let error = match sent.await {
            Ok(answer) => {
                self.answered(asked.0);
                return Ok(answer);
            }
            Err(error) => error,
        };
        let mut failure = Failure::read(asked, &error, self.clock.wall());
        match failure.kind {
            Kind::Throttled | Kind::Refused => self.answered(asked.0),
            Kind::Unsent | Kind::Broken | Kind::Unanswered | Kind::Unusable => {
                failure.after = self.failed(asked.0, &failure);
            }
            Kind::NoCredentials | Kind::NoRole | Kind::NoSource => {}
        }
        Err(failure)
    }

    /// KMS answered, whatever it said. Only what it says of signatures ends an outage of signatures; any other answer lets the next one try.
    fn answered(&self, api: &str) {
        let now = self.clock.monotonic();
        if api == SIGN {
            self.breaker.judge(Verdict::Well, "", 0.0, now);
        } else if api.starts_with("kms:") {
            self.failed_aside.store(0, Ordering::Relaxed);
            self.breaker.invite(now);
        }
    }

    /// KMS did not answer, or said that it is broken. Returns when it is worth asking again.
    fn failed(&self, api: &str, failure: &Failure) -> Duration {
        if api == SIGN {
            let now = self.clock.monotonic();
            self.breaker.judge(Verdict::Doubtful, &failure.explain(), 0.0, now);
            return self.breaker.refusal(now).map_or(OUTAGES.first, |(_, after)| after);
        }
        let before = self.failed_aside.fetch_add(1, Ordering::Relaxed).min(u32::BITS - 1);
        OUTAGES.first.saturating_mul(1 << before).min(OUTAGES.longest)
    }

    /// A signature was given up after this long.
    pub(super) fn gave_up_signing(&self, key: &str, waited: Duration) -> Failure {
        let failure = Failure::unanswered((SIGN, key));
        if waited >= TELLING {
            self.failed(SIGN, &failure);
        }
        failure
    }

    async fn kms(&self) -> &aws_sdk_kms::Client {
        &self.clients().await.kms
    }

    /// The clients are built from these settings alone: the environment and the shared configuration give credentials, and no endpoint, region or
    /// retries. A forgotten `AWS_ENDPOINT_URL` must not make production keys in an emulator. (It does say where a role is assumed, for the SDK's own
    /// STS client reads it; what comes of that is asked for its account at our STS before anything is made.)
    async fn clients(&self) -> &Clients {
        self.clients.get_or_init(|| self.connect()).await
    }

    async fn connect(&self) -> Clients {
        let settings = &self.settings;
        let region = Region::new(settings.region.clone());
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .read_timeout(ATTEMPT)
            .operation_attempt_timeout(ATTEMPT)
            .operation_timeout(OPERATION)
            .build();
        // A role is assumed at STS, which needs a region, too.
        let source = ProviderConfig::without_region().with_region(Some(region.clone())).with_timeout_config(timeouts.clone());
        let credentials = if let Some(profile) = &settings.profile {
            let named = ProfileFileCredentialsProvider::builder().configure(&source).profile_name(profile);
            SharedCredentialsProvider::new(named.build())
        } else {
            let chain = DefaultCredentialsChain::builder().configure(source).region(region.clone());
            SharedCredentialsProvider::new(chain.build().await)
        };
        let kms = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(region.clone())
            .credentials_provider(credentials.clone())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts.clone());
        let sts = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(region)
            .credentials_provider(credentials)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        let (mut kms, mut sts) = (kms, sts);
        kms.set_endpoint_url(settings.endpoint.clone());
        sts.set_endpoint_url(settings.sts_endpoint.clone());
        Clients { kms: aws_sdk_kms::Client::from_conf(kms.build()), sts: aws_sdk_sts::Client::from_conf(sts.build()) }
    }
}

/// A date of AWS, to the second.
pub(super) fn timestamp(date: &DateTime) -> Timestamp {
    Timestamp::from_millis(date.secs().saturating_mul(1000))
}
