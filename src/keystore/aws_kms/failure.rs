//! Why AWS did not do what was asked, and what somebody has to do about it.
//!
//! In scope: every way in which a call of the SDK can end, sorted by what it says about the request: never sent, without a whole answer, throttled,
//! broken, refused; and the sentences that `doctor` and the records show. Out of scope: trying again.
//!
//! AWS's own text is repeated for denied permissions alone: that of a refused signature quotes the request, and with it the session token.

use std::error::Error;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::{DateTime, DateTimeFormat};
use claviger_audit::Timestamp;

use super::budget::AFTER_THROTTLING;
use crate::keystore::KeystoreError;

/// How far the clocks may differ before AWS refuses a signature (Signature Version 4: five minutes), less what a slow answer takes.
const SKEW: i64 = 240;
/// When it is worth asking again for what an operator must put right.
const OPERATOR: Duration = Duration::from_secs(30);
/// The most that is repeated of AWS's own text.
const LONGEST_TEXT: usize = 400;
/// What AWS says when one of its services is broken (KMS API Reference, "Common errors" and those of each action).
const BROKEN: [&str; 6] = [
    "KMSInternalException",
    "DependencyTimeoutException",
    "KeyUnavailableException",
    "InternalFailure",
    "InternalServerError",
    "ServiceUnavailable",
];
/// What AWS says when too much is asked of it; they all end in other ways than the quotas on things, such as `LimitExceededException`.
const THROTTLED: [&str; 7] = [
    "ThrottlingException",
    "Throttling",
    "ThrottledException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "RequestThrottledException",
    "SlowDown",
];

/// What a failed call says about its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It never left: nothing was done.
    Unsent,
    /// It was sent, and no whole answer came: AWS may have done it.
    Unanswered,
    /// AWS says that it did it, and what it says cannot be used.
    Unusable,
    /// There are no credentials; `true` if that will not change by itself.
    NoCredentials(bool),
    /// Too much was asked of the account.
    Throttled,
    /// AWS says that it failed.
    Broken,
    /// AWS says no, for good.
    Refused,
}

/// A call that failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    /// The action, as IAM names it, e.g. `kms:Sign`.
    api: &'static str,
    /// What it was asked for: an ARN, an alias, or what else the action is about.
    resource: String,
    /// AWS's error code; empty without an answer.
    pub(super) code: String,
    /// AWS's own text, where it may be repeated; or what the transport said.
    text: String,
    status: Option<u16>,
    request: Option<String>,
    /// How many seconds our clock is ahead of AWS's.
    ahead: Option<i64>,
    /// When an outage may be over.
    pub(super) after: Duration,
}

impl Failure {
    /// Sorts a failed call; `now` is our wall clock.
    pub(super) fn read<E>((api, resource): (&'static str, &str), error: &SdkError<E, HttpResponse>, now: Timestamp) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let response = error.raw_response();
        let code = error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or_default().to_owned();
        let denied = error.as_service_error().and_then(ProvideErrorMetadata::message).filter(|_| is_denial(&code));
        let header = |name| response.and_then(|response| response.headers().get(name)).map(str::to_owned);
        let date = header("date").and_then(|date| DateTime::from_str(&date, DateTimeFormat::HttpDate).ok());
        let status = response.map(|response| response.status().as_u16());
        let kind = kind(error, &code, status);
        Self {
            kind,
            api,
            resource: resource.to_owned(),
            text: denied.map_or_else(|| transport(error, kind), one_line),
            code,
            status,
            request: header("x-amzn-requestid"),
            ahead: date.map(|date| now.seconds() - date.secs()),
            after: Duration::from_millis(500),
        }
    }

    /// A call that was given up before it was answered.
    pub(super) fn unanswered(asked: (&'static str, &str)) -> Self {
        Self::without_answer(Kind::Unanswered, asked, None)
    }

    /// A whole answer that lacks what was asked for.
    pub(super) fn unusable(asked: (&'static str, &str), request: Option<&str>) -> Self {
        Self::without_answer(Kind::Unusable, asked, request.map(str::to_owned))
    }

    fn without_answer(kind: Kind, (api, resource): (&'static str, &str), request: Option<String>) -> Self {
        let (code, text) = (String::new(), String::new());
        let after = Duration::from_millis(500);
        Self { kind, api, resource: resource.to_owned(), code, text, status: None, request, ahead: None, after }
    }

    /// What it means for a question: nothing is lost but its answer, so nobody need count it.
    pub(super) fn of_a_question(self) -> KeystoreError {
        match self.kind {
            Kind::Unanswered | Kind::Unusable => KeystoreError::Unavailable { reason: self.explain(), after: self.after },
            _ => self.into(),
        }
    }

    /// Whether AWS says that there is no such thing.
    pub(super) fn is_not_found(&self) -> bool {
        self.kind == Kind::Refused && self.code == "NotFoundException"
    }

    /// Whether AWS says that we may not.
    pub(super) fn is_denied(&self) -> bool {
        self.kind == Kind::Refused && is_denial(&self.code)
    }

    /// Whether the key's own policy is why we may not: then it is not one of ours, which all leave that to IAM.
    pub(super) fn is_denied_by_the_key(&self) -> bool {
        self.is_denied() && self.text.contains("resource-based policy")
    }

    /// Whether the key's state is in the way.
    pub(super) fn is_wrong_state(&self) -> bool {
        self.kind == Kind::Refused && matches!(self.code.as_str(), "KMSInvalidStateException" | "DisabledException")
    }

    /// What was asked, by whom nothing more is said.
    fn asked(&self) -> String {
        format!("{} on {}", self.api, self.resource)
    }

    /// The sentence for people: what happened, and what to do.
    pub(super) fn explain(&self) -> String {
        let (asked, code) = (self.asked(), &self.code);
        let text = match self.kind {
            Kind::Unsent => {
                format!("{asked} could not be sent: {}. Look at the network, its DNS and proxy, and at `region` and `endpoint`", self.text)
            }
            Kind::Unanswered => format!("{asked} got no whole answer; AWS may have done it"),
            Kind::Unusable => format!("{asked} was answered with what cannot be used ({}); AWS may have done it", self.answer()),
            Kind::NoCredentials(_) => format!(
                "there are no AWS credentials for {asked}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a `profile` of the shared \
                 configuration, or run where a role is attached (EC2, ECS, EKS); SSO is not supported, since nobody logs in for a daemon"
            ),
            Kind::Throttled => format!(
                "AWS throttles {asked} ({code}): the request quota of this account and region is used up, by whomever; ask AWS for a higher \
                 one, or lower `requests_per_second`"
            ),
            Kind::Broken => format!("{asked} failed in AWS: {}", self.answer()),
            Kind::Refused => self.refusal(),
        };
        match &self.request {
            Some(request) => format!("{text} (AWS request {request})"),
            None => text,
        }
    }

    fn refusal(&self) -> String {
        let asked = self.asked();
        match self.code.as_str() {
            _ if is_denial(&self.code) => format!(
                "AWS denies {asked}. Give the identity that Claviger runs as this permission; deploy/aws/policy.json holds all that it \
                 needs, and no more. AWS says: {}",
                self.text
            ),
            "UnrecognizedClientException" | "InvalidClientTokenId" | "InvalidAccessKeyId" | "MissingAuthenticationToken" => format!(
                "AWS does not know the access key that {asked} was signed with: it was deleted or made inactive, or is one of another \
                 partition or of an emulator; give Claviger a valid one"
            ),
            "ExpiredTokenException" | "ExpiredToken" => {
                format!("the session token that {asked} was signed with has expired: renew it; a role or a profile renews itself")
            }
            "InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestExpired" | "RequestTimeTooSkewed" | "IncompleteSignature" => {
                self.bad_signature()
            }
            "DisabledException" => format!(
                "the key is disabled, so {asked} is refused: somebody disabled it past Claviger. Find out who did; then `aws kms enable-key \
                 --key-id {}`, or rotate",
                self.resource
            ),
            "KMSInvalidStateException" => format!(
                "the key's state does not allow {asked}: `aws kms describe-key --key-id {}` tells it. One that is pending deletion is saved \
                 by `aws kms cancel-key-deletion` and `enable-key`",
                self.resource
            ),
            "InvalidKeyUsageException" | "UnsupportedOperationException" => {
                format!("{asked} is not what the key was made for ({}): its spec or usage is another one than its keyring's", self.answer())
            }
            "NotFoundException" => format!("{asked}: AWS knows no such key in this account and region"),
            "LimitExceededException" => {
                format!("a quota of the account is used up, so {asked} is refused: ask AWS to raise the number of KMS keys or aliases")
            }
            "" => format!("{asked} was answered by something that is not AWS: {}. Look at `endpoint`, and for a proxy", self.answer()),
            _ => format!("AWS refuses {asked}: {}", self.answer()),
        }
    }

    /// A signature is refused for the clock or for the secret; the date of the answer tells them apart.
    fn bad_signature(&self) -> String {
        let asked = self.asked();
        match self.ahead {
            Some(ahead) if ahead.abs() >= SKEW => format!(
                "AWS refuses the signature of {asked}, because the clock of this machine is {} s {} AWS's: set it right, and keep it so (NTP)",
                ahead.abs(),
                if ahead > 0 { "ahead of" } else { "behind" }
            ),
            _ => format!(
                "AWS refuses the signature of {asked} ({}): the secret access key does not belong to the access key, or a proxy changes \
                 requests; the clock is right",
                self.code
            ),
        }
    }

    fn answer(&self) -> String {
        let status = self.status.map(|status| format!("HTTP {status}"));
        let code = (!self.code.is_empty()).then(|| self.code.clone());
        code.into_iter().chain(status).collect::<Vec<_>>().join(", ")
    }
}

impl From<Failure> for KeystoreError {
    fn from(failure: Failure) -> Self {
        let reason = failure.explain();
        match failure.kind {
            Kind::Unanswered => Self::Unanswered,
            Kind::Unusable => Self::Unusable { reason, backend_request: failure.request },
            Kind::Throttled => Self::Unavailable { reason, after: AFTER_THROTTLING },
            Kind::Unsent | Kind::Broken => Self::Unavailable { reason, after: failure.after },
            Kind::NoCredentials(false) => Self::Unavailable { reason, after: OPERATOR },
            Kind::Refused if failure.is_not_found() => Self::Gone(reason),
            Kind::NoCredentials(true) | Kind::Refused => Self::Rejected(reason),
        }
    }
}

fn kind<E: Error + 'static>(error: &SdkError<E, HttpResponse>, code: &str, status: Option<u16>) -> Kind {
    if let Some(missing) = find::<CredentialsError>(error) {
        let lasting = matches!(missing, CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_));
        return Kind::NoCredentials(lasting);
    }
    match error {
        SdkError::ConstructionFailure(_) => Kind::Refused,
        SdkError::ServiceError(_) | SdkError::ResponseError(_) if is_cut(error) => Kind::Unanswered,
        SdkError::ServiceError(_) | SdkError::ResponseError(_) => match status {
            _ if THROTTLED.contains(&code) => Kind::Throttled,
            _ if BROKEN.contains(&code) => Kind::Broken,
            Some(429) => Kind::Throttled,
            Some(500..) => Kind::Broken,
            Some(..300) => Kind::Unusable,
            None => Kind::Unanswered,
            Some(_) => Kind::Refused,
        },
        // hyper names what went wrong before there was a connection; of everything later nobody knows how far it came.
        _ if find::<hyper_util::client::legacy::Error>(error).is_some_and(hyper_util::client::legacy::Error::is_connect) => Kind::Unsent,
        _ => Kind::Unanswered,
    }
}

/// Whether the connection ended in the middle of the answer.
fn is_cut(error: &(dyn Error + 'static)) -> bool {
    find::<hyper::Error>(error).is_some() || find::<std::io::Error>(error).is_some()
}

/// An error, and what caused it.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// The first error of this type in the chain of causes.
fn find<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    causes(error).find_map(|error| error.downcast_ref::<T>())
}

fn is_denial(code: &str) -> bool {
    matches!(code, "AccessDeniedException" | "AccessDenied")
}

/// What the deepest cause says of a connection that did not come about; nothing of the request is in it.
fn transport(error: &(dyn Error + 'static), kind: Kind) -> String {
    if kind != Kind::Unsent {
        return String::new();
    }
    one_line(&causes(error).last().map(ToString::to_string).unwrap_or_default())
}

fn one_line(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line[..line.floor_char_boundary(LONGEST_TEXT)].to_owned()
}
