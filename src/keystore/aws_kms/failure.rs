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
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use claviger_audit::Timestamp;

use super::budget::AFTER_THROTTLING;
use crate::keystore::KeystoreError;

/// How far the clocks may differ before AWS refuses a signature (Signature Version 4: five minutes), less what a slow answer takes.
const SKEW: i64 = 240;
/// When it is worth asking again for what an operator must put right.
const OPERATOR: Duration = Duration::from_secs(30);
/// When a key that was just made may be seen, and its tags may count. (KMS Developer Guide, "ABAC for AWS KMS": up to five minutes.)
const SEEN: Duration = Duration::from_secs(10);
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
/// What STS says when it could not ask the identity provider, which may pass.
const NO_PROVIDER: &str = "IDPCommunicationError";
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

/// What AWS says of a key, or an alias, that is not there.
const NOT_FOUND: &str = "NotFoundException";

/// What a failed call says about its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It never left: nothing was done.
    Unsent,
    /// It was sent, and no whole answer came: AWS may have done it.
    Unanswered,
    /// AWS says that it did it, and what it says cannot be used.
    Unusable,
    /// There are no credentials, nor anything that could give some.
    NoCredentials,
    /// STS refuses the role that was to give credentials.
    NoRole,
    /// What gives credentials failed.
    NoSource,
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
    /// Whether it concerns a key that was made a moment ago, which may not be seen yet, or whose tags may not count.
    is_young: bool,
}

impl Failure {
    /// Sorts a failed call; `now` is our wall clock.
    pub(super) fn read<E>((api, resource): (&'static str, &str), error: &SdkError<E, HttpResponse>, now: Timestamp) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let response = error.raw_response();
        let own = error.as_service_error().and_then(ProvideErrorMetadata::code);
        let code = own.or_else(|| role_refusal(error)).unwrap_or_default().to_owned();
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
            is_young: false,
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

    /// An answer that does not show what was made a moment ago.
    pub(super) fn unseen(asked: (&'static str, &str)) -> Self {
        Self { code: NOT_FOUND.to_owned(), ..Self::without_answer(Kind::Refused, asked, None) }
    }

    /// The same of a key that was made a moment ago.
    pub(super) fn of_a_young_key(self) -> Self {
        Self { is_young: true, ..self }
    }

    fn without_answer(kind: Kind, (api, resource): (&'static str, &str), request: Option<String>) -> Self {
        let (code, text) = (String::new(), String::new());
        let after = Duration::from_millis(500);
        Self { kind, api, resource: resource.to_owned(), code, text, status: None, request, ahead: None, after, is_young: false }
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
        self.kind == Kind::Refused && self.code == NOT_FOUND
    }

    /// Whether there is no such key, and it is not just that it is new.
    pub(super) fn is_gone(&self) -> bool {
        self.is_not_found() && !self.is_young
    }

    /// Whether AWS does not know the key, or does not let us: what it may say of a new key for a while.
    pub(super) fn is_unseen(&self) -> bool {
        self.is_not_found() || self.is_denied()
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
            Kind::Unanswered if self.status.is_some_and(|status| status >= 500) => format!(
                "{asked} was answered with {} by what stands before AWS, a proxy or a load balancer; AWS may have done it",
                self.answer()
            ),
            Kind::Unanswered => format!("{asked} got no whole answer; AWS may have done it"),
            Kind::Unusable => format!("{asked} was answered with what cannot be used ({}); AWS may have done it", self.answer()),
            Kind::NoCredentials | Kind::NoRole | Kind::NoSource => self.without_credentials(),
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

    fn without_credentials(&self) -> String {
        let asked = self.asked();
        match self.kind {
            Kind::NoRole => format!(
                "STS refuses the role whose credentials {asked} needs ({}). Look at the role's trust policy; at AWS_ROLE_ARN, or `role_arn` of the \
                 profile; and at the service account's token, which names an audience and expires",
                self.code
            ),
            Kind::NoSource => {
                let why = if self.text.is_empty() { String::new() } else { format!(" ({})", self.text) };
                format!(
                    "what gives the AWS credentials for {asked} failed{why}. Look at the profile and its files, at AWS_WEB_IDENTITY_TOKEN_FILE, at \
                     whether STS is reachable, and at the metadata service: a container on EC2 needs a hop limit of 2"
                )
            }
            _ => format!(
                "there are no AWS credentials for {asked}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a `profile` of the shared \
                 configuration, or run where a role is attached (EC2, where a container needs a hop limit of 2; ECS; EKS). SSO, `aws login` and \
                 `credential_process` are not supported: nobody logs in for a daemon, and it runs no other program"
            ),
        }
    }

    fn refusal(&self) -> String {
        if self.is_young && self.is_unseen() {
            return format!(
                "{}. Or the key is too new: until AWS knows it everywhere, and its tags count, up to 5 minutes pass",
                self.refused()
            );
        }
        self.refused()
    }

    fn refused(&self) -> String {
        let asked = self.asked();
        match self.code.as_str() {
            _ if is_denial(&self.code) => format!(
                "AWS denies {asked}. Give the identity that Claviger runs as this permission; deploy/aws/policy.json holds all that it \
                 needs, and no more. AWS says: {}",
                self.text
            ),
            "UnrecognizedClientException" | "InvalidClientTokenId" | "InvalidAccessKeyId" | "MissingAuthenticationToken" => format!(
                "AWS does not know the access key that {asked} was signed with: it was deleted or made inactive, or is one of another \
                 partition or of an emulator, or `region` is not enabled in this account; give Claviger a valid one"
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
            NOT_FOUND => format!("{asked}: AWS knows no such key in this account and region"),
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
            Some(_) => format!(
                "AWS refuses the signature of {asked} ({}): the secret access key does not belong to the access key, or a proxy changes \
                 requests; the clock is right",
                self.code
            ),
            None => format!(
                "AWS refuses the signature of {asked} ({}), and the answer does not say what time it is there: the clock of this machine is wrong, \
                 the secret access key does not belong to the access key, or a proxy changes requests",
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
            Kind::NoSource => Self::Unavailable { reason, after: OPERATOR },
            // A denial is told as one, whatever may end it: the keystore itself is well.
            Kind::Refused if failure.is_young && failure.is_not_found() => Self::Unavailable { reason, after: SEEN },
            Kind::Refused if failure.is_not_found() => Self::Gone(reason),
            Kind::NoCredentials | Kind::NoRole | Kind::Refused => Self::Rejected(reason),
        }
    }
}

fn kind<E: Error + 'static>(error: &SdkError<E, HttpResponse>, code: &str, status: Option<u16>) -> Kind {
    if let Some(missing) = find::<CredentialsError>(error) {
        return match missing {
            CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => Kind::NoCredentials,
            _ if code.is_empty() || code == NO_PROVIDER || THROTTLED.contains(&code) || BROKEN.contains(&code) => Kind::NoSource,
            _ => Kind::NoRole,
        };
    }
    match error {
        SdkError::ConstructionFailure(_) => Kind::Refused,
        SdkError::ServiceError(_) | SdkError::ResponseError(_) if is_cut(error) => Kind::Unanswered,
        SdkError::ServiceError(_) | SdkError::ResponseError(_) => match status {
            _ if THROTTLED.contains(&code) => Kind::Throttled,
            _ if BROKEN.contains(&code) => Kind::Broken,
            Some(429) => Kind::Throttled,
            // KMS names what it could not do. Who does not is a proxy or a load balancer, and KMS may have done it.
            Some(500..) if code.is_empty() => Kind::Unanswered,
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

/// What STS said when it gave no role, if that is why there are no credentials.
fn role_refusal<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e str> {
    let role = find::<AssumeRoleError>(error).and_then(ProvideErrorMetadata::code);
    role.or_else(|| find::<AssumeRoleWithWebIdentityError>(error).and_then(ProvideErrorMetadata::code))
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

/// What the deepest cause says of a connection that did not come about, or of a file that could not be read; nothing of a request is in it.
fn transport(error: &(dyn Error + 'static), kind: Kind) -> String {
    let why = match kind {
        Kind::Unsent => causes(error).last().map(ToString::to_string),
        Kind::NoSource => find::<std::io::Error>(error).map(ToString::to_string),
        _ => None,
    };
    one_line(&why.unwrap_or_default())
}

fn one_line(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line[..line.floor_char_boundary(LONGEST_TEXT)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str, ahead: Option<i64>) -> String {
        let failure = Failure::without_answer(Kind::Refused, ("kms:Sign", "a-key"), None);
        Failure { code: code.to_owned(), ahead, ..failure }.explain()
    }

    #[test]
    fn the_clock_is_called_right_only_where_the_answer_says_the_time() {
        assert!(refused("InvalidSignatureException", Some(3)).contains("the clock is right"));
        assert!(refused("InvalidSignatureException", Some(SKEW)).contains("240 s ahead of AWS's"));
        let either = refused("InvalidSignatureException", None);
        assert!(either.contains("does not say what time it is") && !either.contains("is right"), "{either}");
        assert!(either.contains("the clock of this machine is wrong") && either.contains("secret access key"), "{either}");
    }

    #[test]
    fn an_unknown_access_key_may_be_one_of_a_region_that_is_not_enabled() {
        let text = refused("UnrecognizedClientException", None);
        assert!(text.contains("`region` is not enabled in this account"), "{text}");
    }

    #[test]
    fn what_a_new_key_is_refused_for_may_pass() {
        let failure = Failure { code: NOT_FOUND.to_owned(), ..Failure::without_answer(Kind::Refused, ("kms:Sign", "a-key"), None) };
        assert!(matches!(failure.clone().into(), KeystoreError::Gone(_)));
        let young = failure.of_a_young_key();
        assert!(young.is_not_found() && !young.is_gone());
        assert!(matches!(young.into(), KeystoreError::Unavailable { after: SEEN, .. }));
    }
}
