//! A refusal as a value: a stable code, a sentence the caller can act on, and what belongs to it.
//!
//! In scope: what every way into the daemon says when it says no. Out of scope: HTTP status codes (`http/problem.rs`), and internal text,
//! which never goes out.

use std::time::Duration;

use claviger_audit::Timestamp;
use claviger_audit::keyrings::Illegal;

/// The stable code of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Code {
    Malformed,
    TooLarge,
    UnsupportedMediaType,
    Unauthenticated,
    Denied,
    PolicyError,
    UnknownKeyring,
    UnknownKey,
    NotFound,
    MethodNotAllowed,
    NotNow,
    Profile,
    RateLimited,
    KeystoreUnavailable,
    Overloaded,
    LogUnwritable,
    LogDoubted,
    NoSigner,
    Suspended,
    Clock,
    PolicyInvalid,
    NotReady,
}

impl Code {
    /// The text that problem documents, records and metrics use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "wrong_type",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::PolicyError => "policy_error",
            Self::UnknownKeyring => "unknown_keyring",
            Self::UnknownKey => "unknown_key",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotNow => "not_now",
            Self::Profile => "profile",
            Self::RateLimited => "rate_limited",
            Self::KeystoreUnavailable => "keystore_unavailable",
            Self::Overloaded => "overloaded",
            Self::LogUnwritable => "log_unwritable",
            Self::LogDoubted => "log_doubted",
            Self::NoSigner => "no_signer",
            Self::Suspended => "suspended",
            Self::Clock => "clock",
            Self::PolicyInvalid => "policy_invalid",
            Self::NotReady => "not_ready",
        }
    }
}

/// One broken rule of a token profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenRule {
    /// The rule's stable name.
    pub rule: String,
    /// The claim or header member.
    pub claim: String,
    /// A sentence.
    pub detail: String,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail} ({})", code.name())]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// A sentence the caller can act on.
    pub detail: String,
    /// Every broken rule, for [`Code::Profile`].
    pub broken: Vec<BrokenRule>,
    /// The invariant that a verb would break, for [`Code::NotNow`].
    pub invariant: Option<String>,
    /// When the verb would be allowed, where time alone decides.
    pub until: Option<Timestamp>,
    /// When it may help to ask again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal without further members.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), broken: Vec::new(), invariant: None, until: None, retry_after: None }
    }

    /// Adds when it may help to ask again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

impl From<Illegal> for Refusal {
    fn from(illegal: Illegal) -> Self {
        let mut refusal = Self::new(Code::NotNow, illegal.to_string());
        refusal.invariant = Some(illegal.rule.name().to_owned());
        refusal.until = illegal.until;
        refusal
    }
}
