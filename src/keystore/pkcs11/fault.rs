//! Why a step against the module failed, before it is known what the caller will be told.
//!
//! In scope: the inner error of this adapter, its recovery class, and its translation into the port's error. Out of scope: the recovery.

use std::time::Duration;

use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};

use super::recovery::{Class, classify, concerns_pin};
use crate::keystore::KeystoreError;

/// Why a step failed. The texts go to operators: they hold no secret, and codes are named rather than explained.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("C_{function:?} answered {code:?}")]
    Answer { code: RvError, function: Function },
    #[error("the PKCS#11 module cannot be loaded: {0}; check the path and the library's own configuration")]
    Load(String),
    /// No token, or more than one, fits the selector.
    #[error("{0}")]
    Absent(String),
    /// The session or handle belongs to an earlier epoch and must not be used.
    #[error("the token was opened anew meanwhile")]
    Stale,
    /// A search found nothing; right after a failure this does not mean that the key is gone.
    #[error("no private key has the id {0}")]
    Missing(String),
    /// The module answered with something that cannot be right.
    #[error("the module's answer cannot be right: {0}")]
    Nonsense(String),
    /// The module cannot be initialised again now.
    #[error("{0}")]
    Occupied(&'static str),
    /// The deadline passed before signing began.
    #[error("the deadline passed before signing began")]
    Expired,
    /// The request, the PIN, the key or the configuration is at fault.
    #[error("{0}")]
    Refused(String),
}

impl Fault {
    /// What may heal it.
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Answer { code, .. } => classify(*code),
            Self::Load(_) | Self::Absent(_) | Self::Occupied(_) => Class::Module,
            Self::Stale | Self::Missing(_) => Class::Login,
            Self::Nonsense(_) => Class::Session,
            Self::Expired | Self::Refused(_) => Class::Never,
        }
    }

    /// Whether the token judged the PIN.
    pub(super) fn concerns_pin(&self) -> bool {
        matches!(self, Self::Answer { code, .. } if concerns_pin(*code))
    }

    /// The return value, if that is what failed.
    pub(super) fn code(&self) -> Option<RvError> {
        match self {
            Self::Answer { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// What a caller is told after recovery was tried; `after` is when an unreachable token will be tried again.
    pub(super) fn tell(&self, after: Duration) -> KeystoreError {
        match self.class() {
            _ if matches!(self, Self::Missing(_)) => KeystoreError::Gone(self.to_string()),
            _ if matches!(self, Self::Expired) => KeystoreError::Unanswered,
            Class::Never => KeystoreError::Rejected(self.to_string()),
            Class::Module => KeystoreError::Unavailable { reason: self.to_string(), after },
            Class::Session | Class::Login | Class::Throttle => KeystoreError::Retry(self.to_string()),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Pkcs11(code, function) => Self::Answer { code, function },
            Error::LibraryLoading(_) | Error::MissingSymbol(_) => Self::Load(error.to_string()),
            Error::NotSupported | Error::NullFunctionPointer => Self::Refused(format!("the module lacks a function: {error}")),
            other => Self::Nonsense(other.to_string()),
        }
    }
}
